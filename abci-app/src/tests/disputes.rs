//! Disputes of operations, and signed statements that exclude each other.

use concordat_protocol::acts::{ActBody, ApprovalKind, KeyRole};
use concordat_protocol::cbor;
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::evidence::DisputeView;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::WriterId;
use concordat_protocol::keys::{Statement, Suite};
use concordat_protocol::node::{NodeReply, NodeRequest};
use concordat_protocol::ops::{Batch, Op, Tags};
use concordat_protocol::session::Promise;

use super::kit::*;

const EXECUTOR: &str = "police/executor";

fn dispute(reference: u64) -> ActBody {
    ActBody::Dispute { reference, reason: [4; 32] }
}

fn disputes(city: &City) -> Vec<DisputeView> {
    let NodeReply::Disputes { body } = city.ask(&NodeRequest::Disputes {}) else { panic!() };
    body
}

#[test]
fn the_consumer_disputes_an_operation_of_its_session_once() {
    let (mut city, Agreement { handles: h, session }) = City::ready();
    let first = city.log_size();
    let (day, tags, commitment) = (city.day(), Tags::none(), [1; 32]);
    let deny = Op::Deny { handle: 0, session, n: 3, day, tags, commitment };
    let refused = city.query(h[5], session, 2); // a prohibition's handle: refused, and yet the provider named the session
    let ops = vec![city.query(h[0], session, 1), refused, deny, city.deliver(h[2], 1, 1, city.clock_ms())];
    let said = city.write(EXECUTOR, ops);
    assert_eq!(said.iter().map(|s| s.0 as u8).collect::<Vec<_>>(), [0, 1, 0, 0]);
    for reference in first..first + 3 {
        for who in ["police", "grid"] {
            assert_eq!(city.do_act(who, "gateway", dispute(reference)), codes::UNKNOWN_REF, "{who}");
        }
        assert_eq!(city.do_act("court", "gateway", dispute(reference)), 0, "op:{reference}");
        assert_eq!(city.do_act("court", "gateway", dispute(reference)), codes::REF_DONE);
    }
    // Not a request of a session, an act, genesis, nothing at all.
    for reference in [first + 3, first - 1, 0, 9_999, u64::MAX] {
        assert_eq!(city.do_act("court", "gateway", dispute(reference)), codes::UNKNOWN_REF, "op:{reference}");
    }
    let by_person = city.act("court", "legal", dispute(first));
    assert_eq!(city.mock.check(by_person).code, u32::from(codes::WRONG_ROLE));
    let listed = disputes(&city);
    assert_eq!(listed.iter().map(|d| d.reference).collect::<Vec<_>>(), [first, first + 1, first + 2]);
    assert!(listed.iter().all(|d| d.agency == agency("court") && d.reason == [4; 32] && d.tick_ms > START));
    city.reopen();
    assert_eq!(disputes(&city), listed);
    city.tick();
    city.tick();
    let leaf = city.mock.query("/store/meta/key", format!("dispute/{first:020}"), true);
    assert_eq!((leaf.code, &leaf.value[..]), (0, &cbor::encode(&listed[0])[..]));
}

fn promise(subscription: u64, first: u64, last: u64, root: Hash) -> Promise {
    Promise {
        chain: CHAIN.into(),
        provider: agency("police"),
        subscription,
        first_sub_seq: first,
        last_sub_seq: last,
        root,
        delivered_ms: START + 1,
        max_lag_ms: 10_000,
    }
}

fn both(statement: Statement, signer: &Key, first: Vec<u8>, second: Vec<u8>) -> ActBody {
    let signed = |bytes: &[u8]| signer.sign(statement, CHAIN, bytes).ed25519;
    let (first_signature, second_signature) = (signed(&first), signed(&second));
    ActBody::Equivocation { first: first.into(), first_signature, second: second.into(), second_signature }
}

fn promises(one: &Promise, other: &Promise) -> ActBody {
    both(Statement::Promise, &key("police", "release"), cbor::encode(one), cbor::encode(other))
}

#[test]
fn two_promises_for_one_number_end_bounded_evidence() {
    let (mut city, Agreement { handles: h, .. }) = City::ready();
    let (one, other) = (promise(h[2], 4, 4, [1; 32]), promise(h[2], 4, 4, [2; 32]));
    let revision = city.view("AGR-1", 1).revision;
    assert_eq!(city.do_act("court", "gateway", promises(&one, &other)), 0);
    let view = city.view("AGR-1", 1);
    assert_eq!((view.bounded_suspended, view.revision), (1, revision + 1));
    let op = city.deliver(h[2], 1, 1, city.clock_ms());
    assert_eq!(city.say(EXECUTOR, op), (Verdict::Uncovered, codes::BOUNDED_SUSPENDED));
    // Once both sides have settled it, the same pair does not count again, whichever comes first.
    let t = terms("AGR-1", 1);
    for (who, name) in approvers(&t) {
        assert_eq!(city.approve(&t, [0; 32], ApprovalKind::Resume, &who, name), 0);
    }
    city.reopen();
    assert_eq!(city.do_act("court", "gateway", promises(&other, &one)), codes::REF_DONE);
    assert_eq!(city.view("AGR-1", 1).bounded_suspended, 0);
    // Another number does. Ranges that share a number exclude each other too.
    let (long, short) = (promise(h[2], 5, 9, [1; 32]), promise(h[2], 9, 9, [2; 32]));
    assert_eq!(city.do_act("court", "gateway", promises(&long, &short)), 0);
    assert_eq!(city.view("AGR-1", 1).bounded_suspended, 1);
    let leaf = city.mock.query("/store/meta/key", format!("double-promise/police/{}/{:020}", h[2], 9), false);
    assert_eq!(leaf.code, 0);
}

#[test]
fn promises_that_do_not_exclude_each_other_are_refused() {
    let (mut city, Agreement { handles: h, .. }) = City::ready();
    let one = promise(h[2], 4, 6, [1; 32]);
    let two = |change: fn(&mut Promise)| {
        let mut other = promise(one.subscription, 6, 8, [2; 32]);
        change(&mut other);
        promises(&one, &other)
    };
    let release = key("police", "release");
    let bytes = |p: &Promise| cbor::encode(p);
    let other = promise(h[2], 6, 8, [2; 32]);
    let half = |signature: Vec<u8>| ActBody::Equivocation {
        first: bytes(&one).into(),
        first_signature: release.sign(Statement::Promise, CHAIN, &bytes(&one)).ed25519,
        second: bytes(&other).into(),
        second_signature: signature.into(),
    };
    let refused = [
        ("court", promises(&one, &one), codes::BAD_VALUE),
        // The same delivery again: another time, the same root.
        (
            "court",
            two(|p| (p.first_sub_seq, p.last_sub_seq, p.root, p.delivered_ms) = (4, 6, [1; 32], START)),
            codes::BAD_VALUE,
        ),
        ("court", two(|p| p.first_sub_seq = 7), codes::BAD_VALUE),
        ("court", two(|p| p.last_sub_seq = 5), codes::BAD_VALUE),
        ("court", two(|p| p.subscription += 1), codes::BAD_VALUE),
        ("court", two(|p| p.provider = agency("grid")), codes::BAD_VALUE),
        ("court", two(|p| p.chain = "other".into()), codes::WRONG_CHAIN),
        ("grid", two(|_| ()), codes::WRONG_AGENCY),
        ("police", two(|_| ()), codes::WRONG_AGENCY),
        (
            "court",
            both(Statement::Promise, &key("police", "gateway"), bytes(&one), bytes(&other)),
            codes::BAD_SIGNATURE,
        ),
        ("court", both(Statement::Ack, &release, bytes(&one), bytes(&other)), codes::BAD_SIGNATURE),
        ("court", half(vec![0; 64]), codes::BAD_SIGNATURE),
        ("court", half(vec![]), codes::BAD_SIGNATURE),
        ("court", promises(&promise(99, 1, 1, [1; 32]), &promise(99, 1, 1, [2; 32])), codes::NO_AGREEMENT),
        ("court", both(Statement::Promise, &release, vec![1], vec![2]), codes::NOT_CANONICAL),
    ];
    for (who, body, want) in refused {
        assert_eq!(city.do_act(who, "gateway", body.clone()), want, "{who}: {body:?}");
    }
    assert_eq!(city.view("AGR-1", 1).bounded_suspended, 0);
    assert_eq!(city.do_act("court", "gateway", two(|_| ())), 0, "and the pair itself counts");
}

fn batch(incarnation: u64, first_seq: u64, ops: Vec<Op>) -> Batch {
    let writer = WriterId::new(EXECUTOR).unwrap();
    Batch { chain: CHAIN.into(), writer, incarnation, first_seq, prev: [0; 32], ops }
}

#[test]
fn two_batches_for_one_number_are_the_writers_equivocation() {
    let (mut city, Agreement { handles: h, session }) = City::ready();
    let executor = key("police", "executor");
    let (a, b) = (city.query(h[0], session, 1), city.query(h[0], session, 2));
    let taken = batch(1, 1, vec![a.clone(), b.clone()]);
    let tx = city.batch(EXECUTOR, taken.ops.clone());
    city.mock.submit(tx);
    city.tick();
    let other = batch(1, 2, vec![a.clone()]);
    let pair = |signer: &Key, one: &Batch, other: &Batch| {
        both(Statement::TxBatch, signer, cbor::encode(one), cbor::encode(other))
    };
    let refused = [
        (pair(&executor, &taken, &taken), codes::BAD_VALUE),
        (pair(&executor, &taken, &batch(1, 3, vec![a.clone()])), codes::BAD_VALUE),
        (pair(&executor, &taken, &batch(2, 1, vec![a.clone()])), codes::BAD_VALUE),
        (pair(&executor, &batch(2, 1, vec![a.clone()]), &batch(2, 1, vec![b.clone()])), codes::BAD_VALUE),
        (pair(&executor, &taken, &batch(1, 1, vec![])), codes::BAD_VALUE),
        (pair(&executor, &taken, &Batch { chain: "other".into(), ..other.clone() }), codes::WRONG_CHAIN),
        (pair(&key("police", "broker"), &taken, &other), codes::BAD_SIGNATURE),
        (pair(&key("police", "release"), &taken, &other), codes::BAD_SIGNATURE),
    ];
    for (body, want) in refused {
        assert_eq!(city.do_act("court", "gateway", body.clone()), want, "{body:?}");
    }
    let leaf = |city: &City| city.mock.query("/store/meta/key", format!("equivocation/{EXECUTOR}/1"), false);
    assert_ne!(leaf(&city).code, 0);
    assert_eq!(city.do_act("grid", "gateway", pair(&executor, &other, &taken)), 0, "anybody may show it");
    let hash = |b: &Batch| concordat_protocol::ops::batch_hash(&cbor::encode(b));
    let row: (u64, (Hash, Hash)) = (2, (hash(&taken), hash(&other)));
    let value = leaf(&city).value.to_vec();
    assert!(value.windows(32).any(|w| w == row.1.0) && value.windows(32).any(|w| w == row.1.1));
    let place = |h: Hash| value.windows(32).position(|w| w == h).unwrap();
    assert!(place(row.1.0) < place(row.1.1), "the one that the ledger took stands first");
    assert_eq!(city.do_act("court", "gateway", pair(&executor, &taken, &other)), codes::REF_DONE);
    // With a key that was revoked anybody may have signed.
    let new = Key::new("police/executor/2", Suite::Ed25519);
    let add = ActBody::KeyAdd { role: KeyRole::Writer, label: "executor".into(), key: new.public.clone() };
    assert_eq!(city.do_act("police", "root", add), 0);
    let reset = ActBody::Reset { writer: WriterId::new(EXECUTOR).unwrap(), incarnation: 2, lost: [0; 32] };
    assert_eq!(city.do_act("police", "root", reset), 0);
    let revoke = ActBody::KeyRevoke { key_id: executor.id(), compromised_since_ms: 0 };
    assert_eq!(city.do_act("police", "root", revoke), 0);
    let (one, other) = (batch(2, 1, vec![a]), batch(2, 1, vec![b]));
    assert_eq!(city.do_act("court", "gateway", pair(&executor, &one, &other)), codes::BAD_SIGNATURE);
    assert_eq!(city.do_act("court", "gateway", pair(&new, &one, &other)), 0);
}
