//! One query from request to released content, and one delivery of a feed.

use super::{CHAIN, DAY, Sample, TICK, ed25519, h, id, point, sample};
use concordat_protocol::cbor::{Bytes, encode};
use concordat_protocol::codes;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::keys::{KemKey, SigningKey, Statement, Suite};
use concordat_protocol::leaves::{COMMITMENT_NAMES, LeafSet, commitment as leaf};
use concordat_protocol::message::{EnvelopeDraft, EnvelopeSource, Record, RedactedEnvelope, SourceState};
use concordat_protocol::node::SessionLeaf;
use concordat_protocol::ops::{Op, Tags};
use concordat_protocol::seal::SealSender;
use concordat_protocol::session::{
    Content, Denied, FeedItem, Promise, Promised, QueryCall, Release, ReleasePromise, Released, Request, SignedRequest,
    Ticket, Written,
};
use concordat_protocol::tree;
use std::collections::BTreeMap;

/// Seed of the session's key.
pub const SESSION_SEED: u8 = 0x31;
/// Seed of the provider's release key.
pub const RELEASE_SEED: u8 = 0x41;
/// Seed of the consumer's X-Wing key: 32 times this.
pub const KEM_SEED: u8 = 0x51;
/// Randomness of the encapsulations: 64 times this.
pub const KEM_RANDOM: u8 = 0x52;
/// Secret of the commitment's salts.
pub const COMMITMENT_SECRET: [u8; 32] = [0x61; 32];
/// The query document.
pub const QUERY: &str = r#"{"dataset":"ds:police/stops@1","select":["id","outcome"],"limit":10,"roles":["role:clerk"],"actor":"p-17","nonce":"000102030405060708090a0b0c0d0e0f"}"#;

/// The consumer's sealing key.
pub fn kem() -> KemKey {
    KemKey::from_seed([KEM_SEED; 32]).unwrap()
}

fn sender(scope: &str, epoch: u64) -> SealSender {
    SealSender::with_randomness(kem().public(), CHAIN, scope, epoch, &[KEM_RANDOM; 64]).unwrap()
}

fn request_at(n: u64) -> Sample<Request> {
    sample!(Request {
        chain: CHAIN.to_owned(),
        session: 70_000,
        n,
        provider: id("police"),
        dataset: id("ds:police/stops@1"),
        clause: "AGR-2026-0142/C1".to_owned(),
        purpose: "purp:pending-case".to_owned(),
        case: "26-CR-0001".to_owned(),
        query_hash: sha256(&[QUERY.as_bytes()]),
        kem_key_id: kem().public().key_id(),
        not_after_ms: TICK + 30_000,
    })
}

/// Three requests of one session.
pub fn requests() -> Vec<Sample<Request>> {
    vec![request_at(23), request_at(24), request_at(25)]
}

/// Requests under one signature of `key`.
pub fn sign(requests: &[Request], key: &SigningKey, st: Statement, chain: &str) -> Vec<SignedRequest> {
    let hashes: Vec<Hash> = requests.iter().map(|r| tree::leaf_hash(&encode(r))).collect();
    let signature = key.sign(st, chain, &encode(&tree::root(&hashes)));
    let signature: [u8; 64] = signature.ed25519.0.as_slice().try_into().unwrap();
    let signed = requests.iter().enumerate().map(|(i, r)| SignedRequest {
        request: encode(r).into(),
        index: i as u64,
        size: hashes.len() as u64,
        path: tree::inclusion_path(&hashes, i).unwrap(),
        signature,
    });
    signed.collect()
}

/// The three requests as they travel.
pub fn signed() -> Vec<SignedRequest> {
    let requests: Vec<Request> = requests().into_iter().map(|s| s.value).collect();
    sign(&requests, &ed25519(SESSION_SEED), Statement::Request, CHAIN)
}

/// What the gateway sends for the first request.
pub fn call() -> Sample<QueryCall> {
    sample!(QueryCall {
        signed: signed().swap_remove(0),
        query: Bytes(QUERY.as_bytes().to_vec()),
        request_id: "req-1".to_owned()
    })
}

/// No row, one row, three rows.
pub fn contents() -> Vec<Content> {
    let row = |n: u8| Bytes(format!(r#"{{"id":"s-{n}","outcome":"warning"}}"#).into_bytes());
    let content = |n: u8| Content { secret: [0x70 + n; 32], rows: (1..=n).map(row).collect() };
    vec![content(0), content(1), content(3)]
}

/// Leaves of the commitment of the query that answers the first request with three rows.
pub fn commitment() -> LeafSet {
    let content = &contents()[2];
    let mut fields: BTreeMap<String, Vec<u8>> = COMMITMENT_NAMES.iter().map(|n| ((*n).to_owned(), vec![])).collect();
    let filled = [
        (leaf::CONSUMER, b"court".to_vec()),
        (leaf::ACTOR, b"p-17".to_vec()),
        (leaf::CLAUSE, b"AGR-2026-0142/C1".to_vec()),
        (leaf::PURPOSE, b"purp:pending-case".to_vec()),
        (leaf::CASE, b"26-CR-0001".to_vec()),
        (leaf::REQUEST_HASH, request_at(23).value.hash().to_vec()),
        (leaf::ROWS_HASH, h(21).to_vec()),
        (leaf::COUNT, 3u64.to_be_bytes().to_vec()),
        (leaf::CONTENT_ROOT, content.root().to_vec()),
        (leaf::EVIDENCE, b"strict".to_vec()),
    ];
    fields.extend(filled.map(|(name, value)| (name.to_owned(), value)));
    LeafSet::new(&COMMITMENT_SECRET, fields).unwrap()
}

/// The operation that records the answer.
pub fn op() -> Op {
    Op::Query { handle: 300, session: 70_000, n: 23, day: DAY, tags: Tags::none(), commitment: commitment().root() }
}

/// Where the ledger put it.
pub fn ticket() -> Sample<Ticket> {
    sample!(Ticket { chain: CHAIN.to_owned(), log_index: 5_821, height: 1_204, op_hash: op().hash() })
}

/// What the release key signs.
pub fn release() -> Sample<Release> {
    sample!(Release {
        request_hash: request_at(23).value.hash(),
        op_hash: op().hash(),
        content_root: contents()[2].root()
    })
}

/// The released answer.
pub fn released() -> Sample<Released> {
    let key = ed25519(RELEASE_SEED);
    let mut sender = sender("session/70000", 0);
    let text = sender.seal(23, &request_at(23).value.hash(), &encode(&contents()[2])).unwrap();
    sample!(Released {
        ticket: ticket().value,
        op: encode(&op()).into(),
        openings: encode(&commitment().redact(|_| true)).into(),
        release_signature: key.sign(Statement::Release, CHAIN, &encode(&release().value)).ed25519,
        release_key: key.key_id(),
        clause: "AGR-2026-0142/C1".to_owned(),
        encapsulation: sender.encapsulation().to_vec().into(),
        sealed: Bytes(text),
    })
}

/// The outcome of a write that the answer stands for.
pub fn outcome() -> (Op, LeafSet) {
    let leaves = [("after", h(22).to_vec()), ("result", b"applied".to_vec())];
    let leaves = LeafSet::new(&[0x62; 32], leaves.map(|(n, v)| (n.to_owned(), v)).into()).unwrap();
    (Op::Outcome { reference: 5_821, commitment: leaves.root() }, leaves)
}

/// A write that was carried out: the version after it stays hidden in the outcome.
pub fn written() -> Sample<Written> {
    let (op, leaves) = outcome();
    sample!(Written {
        intent: released().value,
        outcome_index: 5_823,
        outcome_height: 1_206,
        outcome: encode(&op).into(),
        outcome_openings: encode(&leaves.redact(|n| n != "after")).into(),
    })
}

/// The promise that the first answer's operation will be recorded within ten minutes.
pub fn release_promise() -> Sample<ReleasePromise> {
    sample!(ReleasePromise {
        chain: CHAIN.to_owned(),
        provider: id("police"),
        session: 70_000,
        n: 23,
        handle: 300,
        request_hash: request_at(23).value.hash(),
        op_hash: op().hash(),
        delivered_ms: TICK + 120,
        max_lag_ms: 600_000,
    })
}

/// The first answer as it travels before its record: the ticket names no place yet.
pub fn promised() -> Sample<Promised> {
    let key = ed25519(RELEASE_SEED);
    let released = released().value;
    let ticket = Ticket { log_index: 0, height: 0, ..released.ticket };
    let promise = encode(&release_promise().value);
    sample!(Promised {
        released: Released { ticket, ..released },
        promise: Bytes(promise.clone()),
        promise_signature: key.sign(Statement::Promise, CHAIN, &promise).ed25519,
    })
}

/// A denial with an entry of its own.
pub fn denied() -> Sample<Denied> {
    sample!(Denied {
        code: codes::SUSPENDED,
        reason: "suspended".to_owned(),
        detail: "the agreement is suspended".to_owned(),
        clause: "AGR-2026-0142/C1".to_owned(),
        clause_text: String::new(),
        missing: String::new(),
        clauses: vec!["AGR-2026-0142/C1".to_owned(), "AGR-2026-0142/C3".to_owned()],
        operation: Some(5_822),
        retry: 1,
    })
}

/// The envelope of a delivery: message 8 is left out, of message 7 one field is shown.
pub fn redacted() -> RedactedEnvelope {
    let event = |i: u8| {
        let json =
            format!(r#"{{"specversion":"1.0","id":"e-{i}","source":"/grid","type":"load","data":{{"mw":{i}}}}}"#);
        Record { secret: [i; 32], event: json.into_bytes().into() }
    };
    let draft = EnvelopeDraft {
        chain: CHAIN.into(),
        dataset: id("ds:grid/load@1"),
        first_seq: 7,
        source: EnvelopeSource {
            salt: [3; 16],
            state: SourceState { adapter: "csv".into(), batch_no: 2, checkpoint: Bytes::default() },
        },
        members: ["mw".to_owned()].into(),
        records: vec![event(7), event(8)],
    };
    let envelope = draft.sign(&SigningKey::from_seed(Suite::Ed25519, &[7; 32]).unwrap()).unwrap();
    envelope.redact(|seq, _| (seq == 7).then_some(|name: &str| name == "d/mw")).unwrap()
}

/// The provider's promise for it, delivery 900 of subscription 41.
pub fn promise() -> Sample<Promise> {
    sample!(Promise {
        chain: CHAIN.to_owned(),
        provider: id("grid"),
        subscription: 41,
        first_sub_seq: 900,
        last_sub_seq: 900,
        root: sha256(&[&encode(&redacted())]),
        delivered_ms: TICK + 120,
        max_lag_ms: 60_000,
    })
}

/// Number of the last delivery before the sealing epoch of [`item`].
pub const EPOCH: u64 = 896;

/// The delivery as it stands in the consumer's stream.
pub fn item() -> Sample<FeedItem> {
    let key = ed25519(RELEASE_SEED);
    let promised = encode(&promise().value);
    let mut sender = sender("subscription/41", EPOCH);
    let text = sender.seal(900 - EPOCH, &promised, &encode(&redacted())).unwrap();
    sample!(FeedItem {
        promise: Bytes(promised.clone()),
        promise_signature: key.sign(Statement::Promise, CHAIN, &promised).ed25519,
        release_key: key.key_id(),
        encapsulation: sender.encapsulation().to_vec().into(),
        seal_n: 900 - EPOCH,
        sealed: Bytes(text),
    })
}

/// The session on the ledger.
pub fn leaf() -> Sample<SessionLeaf> {
    sample!(SessionLeaf {
        consumer: id("court"),
        provider: id("police"),
        key: point(SESSION_SEED),
        expires_ms: TICK + 3_600_000,
        newest_n: 25,
        window_hash: h(80),
    })
}
