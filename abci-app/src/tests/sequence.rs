//! The sequence rule of batches and of acts: forged, replayed, reordered, gapped, conflicting and oversize ones.

use bytes::Bytes;
use concordat_protocol::acts::{ActBody, KeyRole};
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::ids::WriterId;
use concordat_protocol::keys::{Statement, Suite};
use concordat_protocol::limits::{BATCH_OPS_MAX, TX_BYTES_MAX};
use concordat_protocol::node::{NodeReply, NodeRequest, WriterView};
use concordat_protocol::ops::{Batch, Op, Tx};

use super::kit::{CHAIN, City, Key, batch_by, key, signed_act, signed_batch};

const WRITER: &str = "police/executor";

fn deny(city: &City, session: u64, n: u64) -> Op {
    Op::Deny {
        handle: 0,
        session,
        n,
        day: city.day(),
        tags: concordat_protocol::ops::Tags::none(),
        commitment: [0; 32],
    }
}

fn writer(city: &City) -> WriterView {
    let question = NodeRequest::Writer { writer: WriterId::new(WRITER).unwrap() };
    match city.ask(&question) {
        NodeReply::Writer { body: Some(view) } => view,
        other => panic!("{other:?}"),
    }
}

/// The code a transaction gets when the other validators put it into a block.
fn decided(city: &mut City, tx: Bytes) -> u16 {
    city.clock.advance(100);
    let tick = city.mock.propose().remove(0);
    city.mock.decide(vec![tick, tx]).results[1].code as u16
}

#[test]
fn batches_are_taken_in_their_sequence_and_in_no_other_way() {
    let (mut city, a) = City::ready();
    let ops = |city: &City, n: u64| vec![deny(city, a.session, n)];
    let (b1, h1) = signed_batch(WRITER, 1, 1, [0; 32], ops(&city, 1));
    let (b2, h2) = signed_batch(WRITER, 1, 2, h1, ops(&city, 2));
    let (other, _) = signed_batch(WRITER, 1, 1, [0; 32], ops(&city, 9));
    assert_eq!(decided(&mut city, b2.clone()), codes::GAP);
    assert_eq!(decided(&mut city, b1.clone()), codes::OK);
    let before = city.log_size();
    assert_eq!(decided(&mut city, b1.clone()), codes::OK, "an identical one again is a success");
    assert_eq!(city.log_size(), before, "without effect");
    let (wrong_prev, _) = signed_batch(WRITER, 1, 2, [7; 32], ops(&city, 3));
    assert_eq!(decided(&mut city, wrong_prev), codes::PREV_MISMATCH);
    assert_eq!(decided(&mut city, b2), codes::OK);
    assert_eq!((writer(&city).last_seq, writer(&city).last_hash), (2, h2));
    assert_eq!(decided(&mut city, b1), codes::OK, "an older identical one too");
    assert_eq!(city.mock.app.committed().state.tables.equivocations.len(), 0);
    assert_eq!(decided(&mut city, other), codes::CONFLICT);
    assert_eq!(city.mock.app.committed().state.tables.equivocations.len(), 1, "a conflicting one is stored");
    let (overlap, _) = signed_batch(WRITER, 1, 2, h1, vec![deny(&city, a.session, 5), deny(&city, a.session, 6)]);
    assert_eq!(decided(&mut city, overlap), codes::CONFLICT);
    assert_eq!(writer(&city).last_seq, 2);
}

#[test]
fn forged_and_malformed_batches_change_nothing() {
    let (mut city, a) = City::ready();
    let ops = vec![deny(&city, a.session, 1)];
    let hash = city.mock.app_hash();
    let forged = batch_by(&Key::new("mallory", Suite::Ed25519), WRITER, 1, 1, [0; 32], ops.clone()).0;
    let stolen = batch_by(&key("grid", "executor"), WRITER, 1, 1, [0; 32], ops.clone()).0;
    let unknown = batch_by(&key("police", "executor"), "police/other", 1, 1, [0; 32], ops.clone()).0;
    let (good, _) = signed_batch(WRITER, 1, 1, [0; 32], ops.clone());
    let Tx::Batch { body, signature } = cbor::decode(&good).unwrap() else { panic!() };
    let mut changed: Batch = cbor::decode(&body).unwrap();
    changed.ops.push(deny(&city, a.session, 2));
    let tampered = Bytes::from(cbor::encode(&Tx::Batch { body: cbor::encode(&changed).into(), signature }));
    changed.chain = "other-city".into();
    let foreign = cbor::encode(&changed);
    let other_chain = key("police", "executor").sign(Statement::TxBatch, "other-city", &foreign);
    let signature = other_chain.ed25519.0.try_into().unwrap();
    let other_chain = Bytes::from(cbor::encode(&Tx::Batch { body: foreign.into(), signature }));
    let as_act = key("police", "executor").sign(Statement::Act, CHAIN, &body).ed25519.0.try_into().unwrap();
    let wrong_statement = Bytes::from(cbor::encode(&Tx::Batch { body, signature: as_act }));
    let table = [
        ("forged", forged, codes::BAD_SIGNATURE),
        ("another agency's key", stolen, codes::BAD_SIGNATURE),
        ("unknown writer", unknown, codes::UNKNOWN_WRITER),
        ("an operation added", tampered, codes::BAD_SIGNATURE),
        ("another chain", other_chain, codes::WRONG_CHAIN),
        ("another statement", wrong_statement, codes::BAD_SIGNATURE),
        ("empty", signed_batch(WRITER, 1, 1, [0; 32], vec![]).0, codes::BAD_VALUE),
        ("sequence 0", signed_batch(WRITER, 1, 0, [0; 32], ops.clone()).0, codes::BAD_VALUE),
        ("sequence overflow", signed_batch(WRITER, 1, u64::MAX, [0; 32], ops.clone()).0, codes::BAD_VALUE),
        ("a later incarnation", signed_batch(WRITER, 2, 1, [0; 32], ops.clone()).0, codes::GAP),
        ("rubbish", Bytes::from_static(b"rubbish"), codes::NOT_CANONICAL),
        ("a longer integer", Bytes::from_static(&[0x82, 0, 0x18, 5]), codes::NOT_CANONICAL),
    ];
    for (name, tx, code) in table {
        let checked = city.mock.check(tx.clone()).code as u16;
        assert!(checked == code || name == "sequence overflow", "{name}: CheckTx says {checked}");
        assert_eq!(decided(&mut city, tx), code, "{name}");
        assert_eq!(city.mock.app_hash(), hash, "{name} changed the state");
    }
}

#[test]
fn oversize_batches_are_refused() {
    let (mut city, a) = City::ready();
    let many = (0..=BATCH_OPS_MAX as u64).map(|_| deny(&city, a.session, 0)).collect();
    let (tx, _) = signed_batch(WRITER, 1, 1, [0; 32], many);
    assert!(tx.len() > TX_BYTES_MAX);
    assert_eq!(city.mock.check(tx.clone()).code as u16, codes::TOO_LARGE);
    assert_eq!(decided(&mut city, tx), codes::TOO_LARGE);
    let acks = (0..=BATCH_OPS_MAX as u64).map(|_| Op::Publish { dataset: 1, last_seq: 1, count: 1, root: [0; 32] });
    let tx = signed_batch(WRITER, 1, 1, [0; 32], acks.collect()).0;
    assert_eq!(city.mock.check(tx).code as u16, codes::TOO_LARGE);
}

#[test]
fn a_reset_starts_a_new_incarnation() {
    let (mut city, a) = City::ready();
    let (b1, h1) = signed_batch(WRITER, 1, 1, [0; 32], vec![deny(&city, a.session, 1)]);
    assert_eq!(decided(&mut city, b1), codes::OK);
    let reset = |incarnation| ActBody::Reset { writer: WriterId::new(WRITER).unwrap(), incarnation, lost: [0; 32] };
    assert_eq!(city.do_act("police", "root", reset(3)), codes::BAD_VALUE);
    assert_eq!(city.do_act("grid", "root", reset(2)), codes::WRONG_AGENCY);
    assert_eq!(city.do_act("police", "root", reset(2)), codes::OK);
    let (old, _) = signed_batch(WRITER, 1, 2, h1, vec![deny(&city, a.session, 2)]);
    assert_eq!(city.mock.check(old.clone()).code as u16, codes::STALE);
    assert_eq!(decided(&mut city, old), codes::STALE);
    let (new, _) = signed_batch(WRITER, 2, 1, [0; 32], vec![deny(&city, a.session, 2)]);
    city.mock.submit(new);
    let results = city.tick().results;
    assert_eq!((results[1].code, writer(&city).incarnation, writer(&city).last_seq), (0, 2, 1));
}

#[test]
fn a_replaced_key_ends_the_old_one_and_a_revoked_key_ends_its_writer() {
    let (mut city, a) = City::ready();
    let new = Key::new("new executor", Suite::Ed25519);
    let (by_old, _) = signed_batch(WRITER, 1, 1, [0; 32], vec![deny(&city, a.session, 1)]);
    city.mock.submit(by_old.clone());
    let add = ActBody::KeyAdd { role: KeyRole::Writer, label: "executor".into(), key: new.public.clone() };
    let act = city.act("police", "root", add);
    city.mock.submit(act);
    let block = city.tick();
    assert_eq!(block.results.iter().map(|r| r.code as u16).collect::<Vec<_>>(), [0, 0, codes::BAD_SIGNATURE]);
    assert!(city.mock.mempool.is_empty(), "what waited was taken out to be refused");
    let (by_new, _) = batch_by(&new, WRITER, 1, 1, [0; 32], vec![deny(&city, a.session, 1)]);
    city.mock.submit(by_new);
    assert_eq!(city.tick().results[1].code, 0);
    let revoke = ActBody::KeyRevoke { key_id: new.id(), compromised_since_ms: 0 };
    assert_eq!(city.do_act("police", "root", revoke), 0);
    let h = writer(&city).last_hash;
    let (late, _) = batch_by(&new, WRITER, 1, 2, h, vec![deny(&city, a.session, 2)]);
    assert_eq!(city.mock.check(late.clone()).code as u16, codes::KEY_REVOKED);
    assert_eq!(decided(&mut city, late), codes::KEY_REVOKED);
}

#[test]
fn acts_count_up_in_two_classes_of_their_own() {
    let (mut city, _) = City::ready();
    let legal = key("court", "legal");
    let suspend = |counter| {
        let body = ActBody::Suspend { agreement: "AGR-1".parse().unwrap(), version: 1, reason: [0; 32] };
        signed_act("court", &legal, counter, body)
    };
    assert_eq!(decided(&mut city, suspend(2)), codes::GAP);
    assert_eq!(decided(&mut city, suspend(1)), codes::OK, "though the key's other counter stands at 1 already");
    assert_eq!(decided(&mut city, suspend(1)), codes::STALE, "a replay");
    assert_eq!(city.mock.check(suspend(1)).code as u16, codes::STALE);
    let NodeReply::Counters { urgent, other } = city.ask(&NodeRequest::Counters { key_id: legal.id() }) else {
        panic!()
    };
    assert_eq!((urgent, other), (1, 1));
}

#[test]
fn forged_acts_change_nothing() {
    let (mut city, _) = City::ready();
    let hash = city.mock.app_hash();
    let body = || ActBody::Revoke { agreement: "AGR-1".parse().unwrap(), version: 1, reason: [0; 32] };
    let good = signed_act("court", &key("court", "security"), 1, body());
    let Tx::Act { body: bytes, mut signature } = cbor::decode(&good).unwrap() else { panic!() };
    signature.ed25519.0[3] ^= 1;
    let broken = Bytes::from(cbor::encode(&Tx::Act { body: bytes.clone(), signature: signature.clone() }));
    signature.ed25519.0[3] ^= 1;
    signature.suite = Suite::Hybrid;
    signature.pq = vec![0; 3_309].into();
    let suite = Bytes::from(cbor::encode(&Tx::Act { body: bytes.clone(), signature }));
    let mut approver = key("court", "legal").sign(Statement::Act, CHAIN, &bytes);
    approver.pq = vec![0; 3_308].into();
    let table = [
        ("bit flipped", broken, codes::BAD_SIGNATURE),
        ("other suite", suite, codes::BAD_SIGNATURE),
        ("unknown key", signed_act("court", &Key::new("m", Suite::Ed25519), 1, body()), codes::UNKNOWN_KEY),
        ("another agency's name", signed_act("police", &key("court", "security"), 1, body()), codes::WRONG_AGENCY),
        (
            "short post-quantum half",
            Bytes::from(cbor::encode(&Tx::Act { body: bytes, signature: approver })),
            codes::BAD_SIGNATURE,
        ),
    ];
    for (name, tx, code) in table {
        assert_eq!(city.mock.check(tx.clone()).code as u16, code, "{name}");
        assert_eq!(decided(&mut city, tx), code, "{name}");
        assert_eq!(city.mock.app_hash(), hash, "{name} changed the state");
    }
}

#[test]
fn the_window_of_a_writer_is_eight_batches_in_any_order() {
    let (mut city, a) = City::ready();
    let mut prev = [0; 32];
    let mut batches = Vec::new();
    for n in 1..=9 {
        let (tx, hash) = signed_batch(WRITER, 1, n, prev, vec![deny(&city, a.session, n)]);
        prev = hash;
        batches.push(tx);
    }
    for i in [3, 0, 7, 2, 5, 6, 1, 4] {
        city.mock.submit(batches[i].clone());
    }
    assert_eq!(city.mock.check(batches[8].clone()).code as u16, codes::WINDOW_FULL);
    city.mock.submit(batches[2].clone());
    let block = city.tick();
    assert_eq!(block.txs[1..], batches[..8]);
    assert_eq!(writer(&city).last_seq, 8);
    assert_eq!(city.mock.check(batches[0].clone()).code as u16, codes::STALE);
    city.mock.submit(batches[8].clone());
}
