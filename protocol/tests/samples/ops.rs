//! Operations, tags, batches, transactions, log entries.

use super::{CHAIN, DAY, Sample, TICK, h, id, sample};
use concordat_protocol::cbor::{Bytes, encode};
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ops::{Batch, LogEntry, Op, Tag, Tags, Tx, batch_hash};

/// Seed of the writer's key.
pub const WRITER_SEED: u8 = 0x11;

/// Tag `i`: the first 16 bytes of SHA-256 over `i` as u64 big-endian.
pub fn tag(i: u64) -> Tag {
    sha256(&[&i.to_be_bytes()])[..16].try_into().unwrap()
}

/// The first `n` tags.
pub fn tags(n: u64) -> Tags {
    Tags::List((0..n).map(tag).collect())
}

/// One operation of each kind, and the two other shapes of tags.
pub fn ops() -> Vec<Sample<Op>> {
    vec![
        sample!(Op::Publish { dataset: 3, last_seq: 5_000, count: 250, root: h(1) }),
        sample!(Op::Deliver {
            handle: 41,
            subscription: 41,
            last_sub_seq: 900,
            count: 4,
            root: h(2),
            oldest_ms: TICK - 5_000,
            day: DAY,
            tags: Tags::none(),
            commitment: h(3),
        }),
        sample!(Op::Query { handle: 300, session: 70_000, n: 23, day: DAY, tags: Tags::none(), commitment: h(4) }),
        sample!(Op::Intent { handle: 301, session: 70_001, n: 24, day: DAY, tags: tags(1), commitment: h(5) }),
        sample!(Op::BreakGlass { handle: 302, session: 70_002, n: 255, day: DAY, tags: tags(4), commitment: h(6) }),
        sample!(Op::Deny { handle: 0, session: 70_003, n: 0, day: DAY, tags: Tags::none(), commitment: h(7) }),
        sample!(Op::Outcome { reference: 256, commitment: h(8) }),
        sample!(Op::Withheld { reference: 65_535, commitment: h(9) }),
        sample!(Op::Review { reference: 65_536, commitment: h(10) }),
        sample!(Op::Annotate { reference: 4_294_967_295, commitment: h(11) }),
        sample!(Op::Erase { reference: 4_294_967_296, commitment: h(12) }),
        sample!(Op::Ack { reference: 9, commitment: h(13) }),
        sample!(Op::Query {
            handle: 300,
            session: 70_000,
            n: 256,
            day: DAY,
            tags: Tags::Bulk { count: 1_025, root: h(14) },
            commitment: h(15)
        }),
    ]
}

fn batch(first_seq: u64, prev: Hash, ops: Vec<Op>) -> Sample<Batch> {
    sample!(Batch { chain: CHAIN.to_owned(), writer: id("police/executor"), incarnation: 1, first_seq, prev, ops })
}

/// The first batch of an incarnation with one operation, and the next with one of each kind.
pub fn batches() -> [Sample<Batch>; 2] {
    let ops: Vec<Op> = ops().into_iter().map(|s| s.value).collect();
    let first = batch(1, [0; 32], vec![ops[2].clone()]);
    let prev = batch_hash(&encode(&first.value));
    [first, batch(2, prev, ops)]
}

/// Entries of a log from index 0 on: genesis, an act, operations with every verdict.
pub fn entries() -> Vec<Sample<LogEntry>> {
    let hashes: Vec<Hash> = ops().iter().map(|s| s.value.hash()).collect();
    let entry = |writer: &str, incarnation: u64, seq: u64, op_hash: Hash, verdict: Verdict, code: u16| {
        sample!(LogEntry {
            height: 10 + seq,
            tick_ms: TICK + seq,
            writer: writer.to_owned(),
            incarnation,
            seq,
            op_hash,
            verdict,
            code
        })
    };
    let genesis = sample!(LogEntry {
        height: 0,
        tick_ms: 0,
        writer: "genesis".to_owned(),
        incarnation: 0,
        seq: 0,
        op_hash: h(16),
        verdict: Verdict::Accepted,
        code: codes::OK
    });
    vec![
        genesis,
        entry("act:police", 0, 1, h(17), Verdict::Accepted, codes::OK),
        entry("police/executor", 1, 1, hashes[2], Verdict::Accepted, codes::OK),
        entry("police/executor", 1, 2, hashes[3], Verdict::Refused, codes::REVOKED),
        entry("grid/executor", 2, 7, hashes[1], Verdict::Uncovered, codes::SUSPENDED),
        entry("grid/executor", 2, 8, hashes[1], Verdict::Late, codes::BOUNDED_LATE),
    ]
}

/// A transaction of each kind; their signatures are filler.
pub fn txs() -> Vec<Tx> {
    let signature = super::ed25519(1).sign(concordat_protocol::keys::Statement::Act, CHAIN, b"\x80");
    vec![
        Tx::Tick { ms: TICK },
        Tx::Batch { body: encode(&batches()[1].value).into(), signature: [7; 64] },
        Tx::Act { body: Bytes(vec![0x80]), signature: signature.clone() },
        Tx::Cosign { body: Bytes(vec![0x80]), signature },
    ]
}
