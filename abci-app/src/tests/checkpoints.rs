//! Checkpoints: when they are made, who may cosign them, and that none of it moves the app hash.

use bytes::Bytes;
use concordat_protocol::acts::ActBody;
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::evidence::CheckpointView;
use concordat_protocol::keys::Statement;
use concordat_protocol::node::{NodeReply, NodeRequest};
use concordat_protocol::ops::{Op, Tags, Tx};
use concordat_protocol::receipt::{Checkpoint, Cosign};
use proptest::prelude::*;

use super::kit::*;
use crate::proposal::COSIGNS_MAX;
use crate::state::checkpoints::{CHECKPOINT_ENTRIES, Checkpoints};
use crate::state::trees::app_hash;
use crate::tx::{block_size, tick_tx};

pub(super) const EXECUTOR: &str = "police/executor";

/// A ready city that makes a checkpoint every second in which its log grew.
pub(super) fn city() -> (City, Agreement) {
    City::ready_with(&[("checkpoint_ms", 1_000)])
}

fn views(city: &City, from_height: u64) -> Vec<CheckpointView> {
    match city.ask(&NodeRequest::Checkpoints { from_height }) {
        NodeReply::Checkpoints { body } => body,
        other => panic!("{other:?}"),
    }
}

pub(super) fn newest(city: &City) -> CheckpointView {
    views(city, 0).pop().expect("a checkpoint")
}

/// Writes something and waits until a checkpoint covers it.
pub(super) fn next_checkpoint(city: &mut City, a: &Agreement, n: u64) -> Checkpoint {
    let op = city.query(a.handles[0], a.session, n);
    city.say(EXECUTOR, op);
    city.clock.advance(1_000);
    city.tick();
    newest(city).checkpoint
}

fn cosign_by(by: &Key, who: &str, checkpoint: &Checkpoint, archived_height: u64) -> Bytes {
    let body = Cosign { checkpoint: checkpoint.clone(), agency: agency(who), archived_height };
    let body = cbor::encode(&body);
    let signature = by.sign(Statement::Cosign, &checkpoint.chain, &body);
    Bytes::from(cbor::encode(&Tx::Cosign { body: body.into(), signature }))
}

fn cosign(who: &str, checkpoint: &Checkpoint) -> Bytes {
    cosign_by(&key(who, "cosign"), who, checkpoint, 0)
}

fn standing(city: &City) -> Checkpoints {
    city.mock.app.committed().state.head.checkpoints.clone()
}

fn code_of(block: &crate::mock::Decided, tx: &Bytes) -> u16 {
    let at = block.txs.iter().position(|t| t == tx).expect("it is in the block");
    block.results[at].code as u16
}

#[test]
fn one_is_made_when_the_log_grew_and_an_idle_chain_makes_no_other() {
    let (mut city, a) = city();
    let op = city.query(a.handles[0], a.session, 1);
    city.say(EXECUTOR, op);
    let busy = city.mock.height() as u64;
    let hash = city.app_hash();
    for _ in 0..30 {
        assert_eq!(city.mock.propose().len(), 1, "no transaction is made for a checkpoint");
        assert_eq!(city.tick().app_hash, hash, "time alone does not move the app hash");
    }
    let all = views(&city, 1);
    assert_eq!(all[0].checkpoint.height, 1, "the first block in which the log grew");
    for pair in all.windows(2) {
        let (before, next) = (&pair[0].checkpoint, &pair[1].checkpoint);
        assert!(next.log_size > before.log_size && next.tick_ms >= before.tick_ms + 1_000, "{before:?} {next:?}");
    }
    for view in &all {
        let c = &view.checkpoint;
        let block = &city.mock.blocks[c.height as usize - 1];
        assert_eq!((&app_hash(&c.roots)[..], c.chain.as_str()), (&block.app_hash[..], CHAIN), "height {}", c.height);
        assert!(view.cosignatures.is_empty());
    }
    let last = newest(&city).checkpoint;
    assert_eq!(Some(&last), all.last().map(|v| &v.checkpoint));
    assert_eq!(last.log_size, city.log_size(), "the last one covers everything");
    assert!(last.height > busy && last.height <= busy + 10, "on a block of its tick alone, as soon as it is due");
    assert_eq!(views(&city, last.height), [newest(&city)]);
    assert!(views(&city, last.height + 1).is_empty());
}

#[test]
fn before_the_first_there_is_none() {
    let mut city = City::new();
    (0..3).for_each(|_| drop(city.tick()));
    assert!(views(&city, 0).is_empty() && views(&city, 1).is_empty(), "genesis is none, and nothing was added to it");
}

#[test]
fn many_entries_make_one_whatever_the_time() {
    let (mut city, _) = City::ready();
    let before = newest(&city).checkpoint;
    let refused = |n| Op::Publish { dataset: 99, last_seq: n, count: 1, root: [0; 32] };
    let mut n = 0;
    loop {
        city.write(EXECUTOR, (0..5_000).map(refused).collect());
        let (last, size) = (newest(&city).checkpoint, city.log_size());
        n += 1;
        if size < before.log_size + CHECKPOINT_ENTRIES {
            assert_eq!(last, before, "{n} blocks");
        } else {
            assert_eq!((last.height, last.log_size), (city.mock.height() as u64, size));
            break;
        }
    }
}

#[test]
fn cosignatures_are_kept_with_their_checkpoint_and_move_nothing_else() {
    let (mut city, a) = City::ready_with(&[("checkpoint_ms", 1_000), ("run_close_ms", 5_000), ("run_root_delay", 1)]);
    let tags = Tags::List(vec![[1; 16]]);
    let op = Op::Query { handle: a.handles[0], session: a.session, n: 1, day: city.day(), tags, commitment: [1; 32] };
    city.say(EXECUTOR, op);
    // The open run is over, and closes in the next block that holds a batch or an act.
    city.clock.advance(6_000);
    city.tick();
    let checkpoint = newest(&city).checkpoint;
    let (hash, size) = (city.app_hash(), city.log_size());
    let state = |city: &City| {
        let committed = city.mock.app.committed();
        (committed.state.tables.clone(), committed.state.head.runs.clone(), committed.state.head.meta_rev)
    };
    let before = state(&city);
    for who in ["police", "court", "grid"] {
        let tx = cosign(who, &checkpoint);
        city.mock.submit(tx.clone());
        let block = city.tick();
        assert_eq!((block.txs.len(), code_of(&block, &tx), &block.app_hash), (2, 0, &hash), "{who}");
        city.tick();
    }
    assert_eq!((city.app_hash(), city.log_size()), (hash, size));
    assert_eq!(state(&city), before, "no run closes, no row changes");
    let view = newest(&city);
    assert_eq!(view.checkpoint, checkpoint, "a cosignature is no reason for another checkpoint");
    let names: Vec<&str> = view.cosignatures.iter().map(|c| c.agency.as_str()).collect();
    assert_eq!(names, ["court", "grid", "police"]);
    for c in &view.cosignatures {
        let body = Cosign { checkpoint: checkpoint.clone(), agency: c.agency.clone(), archived_height: 0 };
        let key = key(c.agency.as_str(), "cosign").public;
        key.verify_classical(Statement::Cosign, CHAIN, &cbor::encode(&body), &c.signature).unwrap();
        assert_eq!(c.signature.pq.len(), 3_309, "the post-quantum half is kept for verifiers");
    }
    let op = city.query(a.handles[0], a.session, 2);
    city.say(EXECUTOR, op);
    assert_ne!(state(&city).1, before.1, "the run closes now");
}

/// What becomes of a forged cosignature: (CheckTx, whether a proposal with it is accepted, its block).
fn fate(city: &mut City, tx: &Bytes) -> (u16, bool, u16) {
    let check = city.mock.check(tx.clone()).code as u16;
    city.mock.mempool.clear();
    city.clock.advance(100);
    let txs = vec![tick_tx(city.clock_ms()), tx.clone()];
    let accepted = city.mock.accepts(&txs);
    (check, accepted, city.mock.decide(txs).results[1].code as u16)
}

#[test]
fn forged_cosignatures_are_refused_wherever_they_come() {
    let (mut city, a) = city();
    let c = next_checkpoint(&mut city, &a, 1);
    let with = |f: &dyn Fn(&mut Checkpoint)| {
        let mut other = c.clone();
        f(&mut other);
        cosign("police", &other)
    };
    let signature = |f: &dyn Fn(&mut concordat_protocol::keys::Signature)| {
        let Ok(Tx::Cosign { body, mut signature }) = cbor::decode(&cosign("police", &c)) else { panic!() };
        f(&mut signature);
        Bytes::from(cbor::encode(&Tx::Cosign { body, signature }))
    };
    let Ok(Tx::Cosign { body, signature: good }) = cbor::decode(&cosign("police", &c)) else { panic!() };
    let mut long = body.0.clone();
    long.push(0);
    let long = Bytes::from(cbor::encode(&Tx::Cosign { body: long.into(), signature: good }));
    let bad = codes::BAD_SIGNATURE;
    let next = city.mock.height() as u64 + 100;
    let table: Vec<(&str, Bytes, (u16, bool, u16))> = vec![
        ("another agency's key", cosign_by(&key("court", "cosign"), "police", &c, 0), (bad, false, bad)),
        ("a key of another role", cosign_by(&key("police", "root"), "police", &c, 0), (bad, false, bad)),
        ("an unknown agency", cosign_by(&key("police", "cosign"), "mars", &c, 0), (201, false, 201)),
        ("a flipped Ed25519 half", signature(&|s| s.ed25519.0[9] ^= 1), (bad, false, bad)),
        ("a short post-quantum half", signature(&|s| s.pq.0.truncate(3_308)), (bad, false, bad)),
        ("a long post-quantum half", signature(&|s| s.pq.0.push(1)), (bad, false, bad)),
        ("no post-quantum half", signature(&|s| s.pq.0.clear()), (bad, false, bad)),
        ("another chain", with(&|c| c.chain = "other-city".into()), (104, false, 104)),
        ("bytes after the body", long, (100, false, 100)),
        ("other roots", with(&|c| c.roots.heads[0] ^= 1), (codes::CHECKPOINT, true, codes::CHECKPOINT)),
        ("another tick", with(&|c| c.tick_ms += 1), (codes::CHECKPOINT, true, codes::CHECKPOINT)),
        ("another size", with(&|c| c.log_size -= 1), (codes::CHECKPOINT, true, codes::CHECKPOINT)),
        ("a height without one", with(&|c| c.height -= 1), (codes::CHECKPOINT, true, codes::CHECKPOINT)),
        ("a height to come", with(&|c| c.height = next), (codes::BUSY, true, codes::CHECKPOINT)),
    ];
    let (hash, before) = (city.app_hash(), standing(&city));
    for (what, tx, want) in table {
        assert_eq!(fate(&mut city, &tx), want, "{what}");
        assert_eq!((city.app_hash(), standing(&city)), (hash.clone(), before.clone()), "{what}");
    }
    assert!(newest(&city).cosignatures.is_empty());
    assert_eq!(fate(&mut city, &cosign("police", &c)), (0, true, 0), "the true one");
}

#[test]
fn a_revocation_in_a_block_precedes_the_cosignatures_of_the_block() {
    let (mut city, a) = city();
    let c = next_checkpoint(&mut city, &a, 1);
    let tx = cosign("police", &c);
    city.mock.submit(tx.clone());
    let body = ActBody::KeyRevoke { key_id: key("police", "cosign").id(), compromised_since_ms: 0 };
    let act = city.act("police", "root", body);
    city.mock.submit(act);
    let block = city.tick();
    assert_eq!((block.txs.len(), code_of(&block, &tx)), (3, codes::KEY_REVOKED));
    assert!(city.mock.mempool.is_empty(), "it was let in, to be refused");
    assert_eq!(fate(&mut city, &tx), (codes::KEY_REVOKED, true, codes::KEY_REVOKED));
}

#[test]
fn an_agency_cosigns_a_checkpoint_once() {
    let (mut city, a) = city();
    let c = next_checkpoint(&mut city, &a, 1);
    let by = key("police", "cosign");
    let (first, second) = (cosign_by(&by, "police", &c, 1), cosign_by(&by, "police", &c, 2));
    city.mock.submit(first.clone());
    city.mock.submit(first.clone());
    assert_eq!(city.mock.check(second.clone()).code as u16, codes::BUSY, "one waits");
    // Another node may have let the other one in.
    city.mock.mempool.push(second.clone());
    let block = city.tick();
    let mut said = [code_of(&block, &first), code_of(&block, &second)];
    said.sort_unstable();
    assert_eq!((said, block.txs.len()), ([0, codes::STALE], 3));
    for tx in [&first, &second] {
        assert_eq!(fate(&mut city, tx), (codes::STALE, true, codes::STALE));
    }
    assert_eq!(newest(&city).cosignatures.len(), 1);
    city.reopen();
    assert_eq!(fate(&mut city, &first), (codes::STALE, true, codes::STALE), "after a restart too");
}

#[test]
fn one_that_is_no_longer_open_is_refused_and_kept_for_ever() {
    let (mut city, a) = city();
    let old = next_checkpoint(&mut city, &a, 1);
    city.mock.submit(cosign("court", &old));
    city.tick();
    for n in 2..=16 {
        next_checkpoint(&mut city, &a, n);
    }
    let last = cosign("police", &old);
    city.mock.submit(last.clone());
    let block = city.tick();
    assert_eq!(code_of(&block, &last), 0, "the sixteenth from the end");
    next_checkpoint(&mut city, &a, 17);
    assert_eq!(fate(&mut city, &cosign("grid", &old)), (codes::CHECKPOINT, true, codes::CHECKPOINT));
    let view = &views(&city, old.height)[0];
    let names: Vec<&str> = view.cosignatures.iter().map(|c| c.agency.as_str()).collect();
    assert_eq!((&view.checkpoint, names), (&old, vec!["court", "police"]));
    let first = views(&city, 1);
    assert_eq!(first.len(), 16, "at most sixteen an answer");
    let rest = views(&city, first[15].checkpoint.height + 1);
    assert_eq!(rest.last(), Some(&newest(&city)));
}

#[test]
fn a_restart_and_a_replay_give_the_same_checkpoints() {
    let (mut city, a) = city();
    for n in 1..=3 {
        let c = next_checkpoint(&mut city, &a, n);
        city.mock.submit(cosign("police", &c));
        city.mock.submit(cosign("court", &c));
        city.tick();
    }
    let (before, all) = (standing(&city), views(&city, 1));
    city.reopen();
    assert_eq!((standing(&city), views(&city, 1)), (before.clone(), all.clone()));
    // Lost between FinalizeBlock and Commit, and replayed.
    let op = city.query(a.handles[0], a.session, 9);
    city.say(EXECUTOR, op);
    city.clock.advance(1_000);
    let txs = city.mock.propose();
    city.mock.finalize(txs);
    city.reopen();
    let (after, more) = (standing(&city), views(&city, 1));
    assert_eq!((after.open.len(), more.len()), (before.open.len() + 1, all.len() + 1));
    let path = city.dir.path().join("other.redb");
    city.mock.replay_into(open(&path, &city.clock));
    let spare = open(&path, &city.clock);
    drop(std::mem::replace(&mut city.mock.app, spare));
    assert_eq!((standing(&city), views(&city, 1)), (after, more));
}

#[test]
fn a_proposal_holds_sixteen_cosignatures_after_everything_else_and_turn_by_turn() {
    let (mut city, a) = city();
    let made: Vec<Checkpoint> = (1..=12).map(|n| next_checkpoint(&mut city, &a, n)).collect();
    for c in &made {
        city.mock.submit(cosign("court", c));
        city.mock.submit(cosign("police", c));
    }
    let batch = city.batch(EXECUTOR, vec![city.query(a.handles[0], a.session, 50)]);
    city.mock.submit(batch.clone());
    let all = city.mock.propose();
    assert_eq!(all.len(), 2 + COSIGNS_MAX);
    assert_eq!(all[1], batch, "batches first");
    for c in &made[..8] {
        assert!(all.contains(&cosign("court", c)) && all.contains(&cosign("police", c)), "both have their turns");
    }
    let without = block_size(tick_tx(START).len()) + block_size(batch.len());
    city.mock.max_tx_bytes = (without + block_size(cosign("court", &made[0]).len()) - 1) as i64;
    assert_eq!(city.mock.propose()[1..], [batch], "what does not fit holds nothing up");
    city.mock.max_tx_bytes = 1_000_000;
    city.tick();
    city.tick();
    assert!(city.mock.mempool.is_empty());
    assert!(made.iter().all(|c| views(&city, c.height)[0].cosignatures.len() == 2));
}

#[test]
fn the_order_puts_cosignatures_last_by_agency_and_height() {
    let (mut city, a) = city();
    let made: Vec<Checkpoint> = (1..=2).map(|n| next_checkpoint(&mut city, &a, n)).collect();
    let batch = city.batch(EXECUTOR, vec![city.query(a.handles[0], a.session, 50)]);
    let txs = vec![
        tick_tx(city.clock_ms() + 1),
        batch,
        cosign("court", &made[0]),
        cosign("court", &made[1]),
        cosign("police", &made[0]),
    ];
    assert!(city.mock.accepts(&txs));
    for (i, j) in [(1, 2), (2, 3), (3, 4)] {
        let mut other = txs.clone();
        other.swap(i, j);
        assert!(!city.mock.accepts(&other), "{i} and {j} exchanged");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn cosignatures_anywhere_in_a_block_change_no_verdict_and_no_app_hash(
        queries in proptest::collection::vec(proptest::collection::vec((0usize..3, 1u64..12), 0..3), 4..8),
        cosigns in proptest::collection::vec((0usize..3, 0usize..3, any::<bool>(), any::<usize>(), any::<usize>()), 4..12),
    ) {
        let run = |with: bool| {
            let (mut city, a) = City::ready_with(&[("checkpoint_ms", 1), ("run_close_ms", 1), ("run_root_delay", 1)]);
            let made = views(&city, city.mock.height() as u64 - 3);
            let first = city.log_size();
            let mut hashes = Vec::new();
            for (b, ops) in queries.iter().enumerate() {
                city.clock.advance(100);
                let mut txs = Vec::new();
                let tags = Tags::List(vec![[1; 16]]);
                let op = |(handle, n): &(usize, u64)| {
                    Op::Query { handle: a.handles[*handle], session: a.session, n: *n, day: START / DAY, tags: tags.clone(), commitment: [0; 32] }
                };
                if !ops.is_empty() {
                    txs.push(city.batch(EXECUTOR, ops.iter().map(op).collect()));
                }
                for (who, c, forged, block, at) in &cosigns {
                    if with && block % queries.len() == b {
                        let mut c = made[c % made.len()].checkpoint.clone();
                        c.roots.log[0] ^= u8::from(*forged);
                        txs.insert(at % (txs.len() + 1), cosign(["court", "grid", "police"][*who], &c));
                    }
                }
                txs.insert(0, tick_tx(city.clock_ms()));
                hashes.push(city.mock.decide(txs).app_hash);
            }
            let log: Vec<_> = city.log(first);
            let checkpoints: Vec<_> = views(&city, 1).into_iter().map(|v| v.checkpoint).collect();
            (hashes, log, checkpoints)
        };
        prop_assert_eq!(run(true), run(false));
    }
}
