#![allow(clippy::unwrap_used)]
use super::super::tests::{call, entry, frame, kept, prepared, ready, standing, words};
use super::super::{Input, Mode, Standing};
use super::*;
use concordat_protocol::codes::Verdict;
use concordat_protocol::limits::HEAD_STALE_MS;
use concordat_protocol::ops::Op;
use concordat_protocol::terms::Status;
use std::collections::BTreeMap;

/// Due at tick 620: frames of the kit have tick 20.
const DUE: u64 = 620;

fn override_of(n: u64) -> Prepared {
    let p = prepared(n, None);
    let op = match p.op {
        Op::Query { handle, session, n, day, tags, commitment } => {
            Op::BreakGlass { handle, session, n, day, tags, commitment }
        }
        other => other,
    };
    Prepared { op_hash: op.hash(), op, mode: Mode::Bounded { due_ms: DUE }, ..p }
}

/// Brings call `n` up to "stored", without saying so to the step.
fn storing(s: &mut Step, n: u64, now_ms: u64) -> Prepared {
    let p = override_of(n);
    assert_eq!(words(&s.step(Input::Call { call: call(n, 1), reply: 10 * n }, now_ms)), ["prepare"]);
    assert_eq!(words(&s.step(Input::Prepared { key: (1, n), result: Ok(p.clone()) }, now_ms)), ["store"]);
    p
}

fn stored(s: &mut Step, n: u64, now_ms: u64) -> Vec<Effect> {
    s.step(Input::Stored { keys: vec![(1, n)] }, now_ms)
}

fn reason(effects: &[Effect]) -> String {
    let denied = effects.iter().find_map(|e| if let Effect::Deny { denied, .. } = e { Some(denied) } else { None });
    denied.map(|d| format!("{} {}", d.reason, d.code)).unwrap_or_default()
}

#[test]
fn data_leaves_after_the_durable_store_with_its_record_on_the_way() {
    let mut s = ready();
    let p = storing(&mut s, 1, 0);
    let effects = stored(&mut s, 1, 1);
    assert_eq!(words(&effects), ["record", "promise", "forget"], "the record goes first");
    assert!(matches!(&effects[0], Effect::Record { op, .. } if *op == p.op));
    assert!(matches!(&effects[1], Effect::Promise { replies, .. } if replies == &[10]));
    assert!(stored(&mut s, 1, 2).is_empty(), "released once");
    assert_eq!(s.open_promises(), 1);
    assert_eq!(words(&s.step(Input::Call { call: call(1, 1), reply: 11 }, 3)), ["repeat"], "the same bytes again");
    assert_eq!(reason(&s.step(Input::Call { call: call(1, 2), reply: 12 }, 3)), "replay 422");
    assert_eq!(words(&s.step(frame(vec![entry(&p, Verdict::Accepted, 0)]), 5)), ["mark-released"]);
    assert!(s.step(Input::Marked { keys: vec![(1, 1)] }, 6).is_empty());
    assert_eq!((s.open_promises(), s.open_calls()), (0, 0));
}

#[test]
fn what_left_stays_on_record_whatever_the_ledger_says_of_it() {
    for (verdict, code) in [(Verdict::Uncovered, codes::REVOKED), (Verdict::Refused, codes::REPLAY)] {
        let mut s = ready();
        let p = storing(&mut s, 1, 0);
        stored(&mut s, 1, 1);
        s.step(standing(Status::Revoked), 2);
        assert_eq!(words(&s.step(frame(vec![entry(&p, verdict, code)]), 3)), ["mark-released"], "never withheld");
        assert_eq!(s.open_promises(), 0);
    }
}

#[test]
fn nothing_leaves_when_the_agreement_ended_between_store_and_release() {
    for (status, code) in [(Status::Suspended, codes::SUSPENDED), (Status::Revoked, codes::REVOKED)] {
        let mut s = ready();
        let p = storing(&mut s, 1, 0);
        s.step(standing(status), 1);
        let effects = stored(&mut s, 1, 1);
        assert_eq!(words(&effects), ["mark-closed", "deny", "forget"]);
        assert_eq!(reason(&effects), format!("ledger {code}"));
        assert!(s.step(frame(vec![entry(&p, Verdict::Uncovered, code)]), 2).is_empty(), "it was never recorded");
    }
}

#[test]
fn nothing_leaves_without_a_ledger_or_under_suspended_bounded_evidence() {
    let mut s = ready();
    storing(&mut s, 1, 0);
    s.step(Input::Lost, 1);
    assert_eq!(reason(&stored(&mut s, 1, 1)), "stale-ledger 0");
    let mut s = ready();
    storing(&mut s, 1, 0);
    assert_eq!(reason(&stored(&mut s, 1, HEAD_STALE_MS + 1)), "stale-ledger 0", "no block for too long");
    let mut s = ready();
    storing(&mut s, 1, 0);
    let standing = Standing { status: Status::Active, from_ms: 0, until_ms: 1_000_000, bounded_suspended: true };
    s.step(Input::Agreements { standings: BTreeMap::from([(7, standing)]) }, 0);
    assert_eq!(reason(&stored(&mut s, 1, 1)), "ledger 501");
    // It is not even stored then.
    assert_eq!(words(&s.step(Input::Call { call: call(2, 1), reply: 20 }, 1)), ["prepare"]);
    let effects = s.step(Input::Prepared { key: (1, 2), result: Ok(override_of(2)) }, 1);
    assert_eq!((words(&effects), reason(&effects)), (vec!["deny", "forget"], "ledger 501".to_owned()));
    let standing = Standing { status: Status::Active, from_ms: 0, until_ms: 1_000_000, bounded_suspended: false };
    s.step(Input::Agreements { standings: BTreeMap::from([(7, standing)]) }, 0);
    storing(&mut s, 2, 2);
    assert_eq!(words(&stored(&mut s, 2, 2)), ["record", "promise", "forget"], "its number stayed free");
}

#[test]
fn a_promise_that_is_due_ends_all_further_ones_until_it_is_kept() {
    let mut s = ready();
    let p = storing(&mut s, 1, 0);
    stored(&mut s, 1, 1);
    storing(&mut s, 2, DUE - 21);
    assert_eq!(words(&stored(&mut s, 2, DUE - 21)), ["record", "promise", "forget"], "not due yet");
    assert_eq!(words(&s.step(Input::Call { call: call(3, 1), reply: 30 }, DUE)), ["prepare"]);
    let late = |s: &mut Step| s.step(Input::Prepared { key: (1, 3), result: Ok(override_of(3)) }, DUE);
    assert_eq!(reason(&late(&mut s)), "evidence-behind 0");
    let two = override_of(2);
    s.step(frame(vec![entry(&p, Verdict::Accepted, 0), entry(&two, Verdict::Accepted, 0)]), DUE);
    assert_eq!(words(&s.step(Input::Call { call: call(3, 1), reply: 31 }, DUE)), ["prepare"]);
    assert_eq!(words(&late(&mut s)), ["store"]);
}

#[test]
fn after_a_crash_what_may_have_left_is_waited_for_and_nothing_else_leaves() {
    let p = override_of(1);
    let mut s = Step::default();
    let lost = kept(1, call(1, 1).request_hash, p.op_hash);
    s.step(Input::RestoredPromises { kept: vec![lost] }, 0);
    s.step(standing(Status::Active), 0);
    s.step(frame(vec![]), 0);
    assert_eq!(s.open_promises(), 1);
    assert_eq!(words(&s.step(Input::Call { call: call(1, 1), reply: 11 }, 1)), ["repeat"], "it may have left");
    assert_eq!(words(&s.step(Input::Call { call: call(2, 1), reply: 20 }, 1)), ["prepare"]);
    let effects = s.step(Input::Prepared { key: (1, 2), result: Ok(override_of(2)) }, 1);
    assert_eq!(reason(&effects), "evidence-behind 0", "first what left before");
    let effects = s.step(frame(vec![entry(&p, Verdict::Accepted, 0)]), 2);
    assert_eq!(words(&effects), ["mark-released"], "never withheld: it may have left");
    storing(&mut s, 2, 2);
    assert_eq!(words(&stored(&mut s, 2, 2)), ["record", "promise", "forget"]);
}
