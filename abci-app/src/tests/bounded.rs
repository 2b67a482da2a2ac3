//! Promises, and complaints about them.

use concordat_protocol::acts::{ActBody, ApprovalKind};
use concordat_protocol::cbor;
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::keys::Statement;
use concordat_protocol::node::{NodeReply, NodeRequest};
use concordat_protocol::ops::{Op, Tags};
use concordat_protocol::session::{Promise, ReleasePromise};
use concordat_protocol::subscribe::numbered;

use super::kit::*;

const EXECUTOR: &str = "police/executor";
const MAX_LAG: u64 = 10_000;

fn promise(subscription: u64, n: u64, delivered_ms: u64) -> Promise {
    Promise {
        chain: CHAIN.into(),
        provider: agency("police"),
        subscription,
        first_sub_seq: n,
        last_sub_seq: n,
        root: [9; 32],
        delivered_ms,
        max_lag_ms: MAX_LAG,
    }
}

fn complaint(promise: &Promise, signer: &Key) -> ActBody {
    let bytes = cbor::encode(promise);
    let signature = signer.sign(Statement::Promise, CHAIN, &bytes).ed25519;
    ActBody::Complaint { promise: bytes.into(), signature }
}

#[test]
fn a_promise_that_is_not_kept_suspends_bounded_evidence_until_both_resume_it() {
    let (mut city, Agreement { handles: h, session: s }) = City::ready();
    let now = city.clock_ms();
    let release = key("police", "release");
    let broken = complaint(&promise(h[2], 1, now), &release);
    assert_eq!(city.do_act("court", "gateway", broken.clone()), codes::PROMISE_NOT_DUE);
    city.clock.advance(MAX_LAG + 2_000);
    assert_eq!(city.view("AGR-1", 1).bounded_suspended, 0);
    let revision = city.view("AGR-1", 1).revision;
    assert_eq!(city.do_act("court", "gateway", broken.clone()), 0);
    let view = city.view("AGR-1", 1);
    assert_eq!((view.bounded_suspended, view.revision), (1, revision + 1), "an older approval revives nothing");
    // What is delivered now is on record as not covered; strict releases go on.
    let op = city.deliver(h[2], 1, 1, now);
    assert_eq!(city.say(EXECUTOR, op), (Verdict::Uncovered, codes::BOUNDED_SUSPENDED));
    let op = city.query(h[0], s, 1);
    assert_eq!(city.say(EXECUTOR, op), (Verdict::Accepted, 0));
    let t = terms("AGR-1", 1);
    for (i, (who, name)) in approvers(&t).into_iter().enumerate() {
        assert_eq!(city.view("AGR-1", 1).bounded_suspended, 1, "before approval {i}");
        assert_eq!(city.approve(&t, [0; 32], ApprovalKind::Resume, &who, name), 0);
    }
    assert_eq!(city.view("AGR-1", 1).bounded_suspended, 0);
    let op = city.deliver(h[2], 2, 1, city.clock_ms());
    assert_eq!(city.say(EXECUTOR, op), (Verdict::Accepted, 0));
}

#[test]
fn complaints_are_of_the_consumer_about_a_due_promise_that_the_provider_signed() {
    let (mut city, Agreement { handles: h, .. }) = City::ready();
    let now = city.clock_ms();
    let op = city.deliver(h[2], 3, 3, now);
    assert_eq!(city.say(EXECUTOR, op), (Verdict::Accepted, 0));
    city.clock.advance(MAX_LAG + 2_000);
    let release = key("police", "release");
    let made = |p: Promise| complaint(&p, &release);
    let open = promise(h[2], 4, now);
    let refused = [
        ("court", made(promise(h[2], 3, now)), codes::PROMISE_KEPT),
        ("court", made(Promise { first_sub_seq: 2, ..promise(h[2], 3, now) }), codes::PROMISE_KEPT),
        ("grid", made(open.clone()), codes::WRONG_AGENCY),
        ("police", made(open.clone()), codes::WRONG_AGENCY),
        ("court", complaint(&open, &key("police", "gateway")), codes::BAD_SIGNATURE),
        ("court", complaint(&open, &key("grid", "release")), codes::BAD_SIGNATURE),
        ("court", made(Promise { provider: agency("grid"), ..open.clone() }), codes::NO_AGREEMENT),
        ("court", made(promise(99, 4, now)), codes::NO_AGREEMENT),
        ("court", made(Promise { max_lag_ms: 0, ..open.clone() }), codes::BAD_VALUE),
        ("court", made(Promise { first_sub_seq: 5, ..open.clone() }), codes::BAD_VALUE),
        ("court", made(Promise { chain: "other".into(), ..open.clone() }), codes::WRONG_CHAIN),
        ("court", ActBody::Complaint { promise: vec![1, 2].into(), signature: vec![0; 64].into() }, 101),
        (
            "court",
            ActBody::Complaint { promise: cbor::encode(&open).into(), signature: vec![0; 3].into() },
            codes::BAD_SIGNATURE,
        ),
    ];
    for (who, body, want) in refused {
        let code = city.do_act(who, "gateway", body.clone());
        if want == 101 { assert_ne!(code, 0, "{body:?}") } else { assert_eq!(code, want, "{who}: {body:?}") }
    }
    assert_eq!(city.view("AGR-1", 1).bounded_suspended, 0);
    assert_eq!(city.do_act("court", "gateway", made(open)), 0);
}

#[test]
fn a_created_subscription_anchors_under_its_own_clause_alone() {
    let (mut city, Agreement { handles: h, .. }) = City::ready();
    let now = city.clock_ms();
    let under = |city: &City, handle: u64, number: u64| match city.deliver(handle, 1, 1, now) {
        Op::Deliver { handle, last_sub_seq, count, root, oldest_ms, day, tags, commitment, .. } => {
            Op::Deliver { handle, subscription: number, last_sub_seq, count, root, oldest_ms, day, tags, commitment }
        }
        other => other,
    };
    let (one, two) = (numbered(h[2], 1).unwrap(), numbered(h[2], 2).unwrap());
    for (number, want) in [
        (one, (Verdict::Accepted, 0)),
        (two, (Verdict::Accepted, 0)),
        (one, (Verdict::Refused, codes::SUB_SEQUENCE)),
        (numbered(h[0], 1).unwrap(), (Verdict::Refused, codes::CLAUSE)),
        (numbered(99, 1).unwrap(), (Verdict::Refused, codes::CLAUSE)),
        (99, (Verdict::Refused, codes::CLAUSE)),
    ] {
        let op = under(&city, h[2], number);
        assert_eq!(city.say(EXECUTOR, op), want, "{number}");
    }
}

#[test]
fn an_override_that_was_promised_and_not_recorded_suspends_bounded_evidence() {
    let (mut city, Agreement { handles: h, session: s }) = City::ready();
    let now = city.clock_ms();
    let release = key("police", "release");
    let promise = ReleasePromise {
        chain: CHAIN.into(),
        provider: agency("police"),
        session: s,
        n: 5,
        handle: h[4],
        request_hash: [7; 32],
        op_hash: [8; 32],
        delivered_ms: now,
        max_lag_ms: MAX_LAG,
    };
    let shown = |p: &ReleasePromise, signer: &Key| {
        let bytes = cbor::encode(p);
        let signature = signer.sign(Statement::Promise, CHAIN, &bytes).ed25519;
        ActBody::Complaint { promise: bytes.into(), signature }
    };
    let made = |p: ReleasePromise| shown(&p, &release);
    let day = now / 86_400_000;
    let op = Op::BreakGlass { handle: h[4], session: s, n: 6, day, tags: Tags::none(), commitment: [1; 32] };
    assert_eq!(city.say(EXECUTOR, op), (Verdict::Accepted, 0));
    assert_eq!(city.do_act("court", "gateway", made(promise.clone())), codes::PROMISE_NOT_DUE);
    city.clock.advance(MAX_LAG + 2_000);
    for (who, body, want) in [
        ("court", made(ReleasePromise { n: 6, ..promise.clone() }), codes::PROMISE_KEPT),
        ("court", made(ReleasePromise { n: 0, ..promise.clone() }), codes::BAD_VALUE),
        ("court", made(ReleasePromise { max_lag_ms: 0, ..promise.clone() }), codes::BAD_VALUE),
        ("court", made(ReleasePromise { session: s + 90, ..promise.clone() }), codes::SESSION_UNKNOWN),
        ("court", made(ReleasePromise { handle: h[0], ..promise.clone() }), codes::CLAUSE),
        ("court", made(ReleasePromise { handle: 99, ..promise.clone() }), codes::NO_AGREEMENT),
        ("court", made(ReleasePromise { chain: "other".into(), ..promise.clone() }), codes::WRONG_CHAIN),
        ("court", shown(&promise, &key("police", "gateway")), codes::BAD_SIGNATURE),
        ("grid", made(promise.clone()), codes::WRONG_AGENCY),
        ("police", made(promise.clone()), codes::WRONG_AGENCY),
    ] {
        assert_eq!(city.do_act(who, "gateway", body.clone()), want, "{who}: {body:?}");
    }
    assert_eq!(city.view("AGR-1", 1).bounded_suspended, 0);
    assert_eq!(city.do_act("court", "gateway", made(promise)), 0);
    assert_eq!(city.view("AGR-1", 1).bounded_suspended, 1);
    let op = Op::BreakGlass { handle: h[4], session: s, n: 7, day, tags: Tags::none(), commitment: [1; 32] };
    assert_eq!(city.say(EXECUTOR, op), (Verdict::Uncovered, codes::BOUNDED_SUSPENDED));
    // Both uses left data behind, so both are to be reviewed, and the node says so.
    let NodeReply::Reviews { body } = city.ask(&NodeRequest::Reviews {}) else { panic!() };
    let list: Vec<(&str, bool)> = body.iter().map(|d| (d.clause.as_str(), d.due_ms > now)).collect();
    assert_eq!(list, [("B1", true), ("B1", true)]);
}
