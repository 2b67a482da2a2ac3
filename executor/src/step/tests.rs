#![allow(clippy::unwrap_used)]
use super::*;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::keys::KeyId;
use concordat_protocol::ops::{Op, Tags};
use concordat_protocol::session::Request;
use concordat_protocol::terms::Status;

const HANDLE: u64 = 7;

pub(super) fn call(n: u64, salt: u8) -> Call {
    let request = Request {
        chain: "c".into(),
        session: 1,
        n,
        provider: AgencyId::new("police").unwrap(),
        dataset: DatasetId::new("ds:police/stops@1").unwrap(),
        clause: String::new(),
        purpose: "purp:pending-case".into(),
        case: "26-CR-1042".into(),
        query_hash: [salt; 32],
        kem_key_id: KeyId([0; 16]),
        not_after_ms: 100_000,
    };
    Call { request_hash: request.hash(), request, session_expires_ms: 1_000_000 }
}

pub(super) fn prepared(n: u64, denied: Option<Denied>) -> Prepared {
    let op = Op::Query { handle: HANDLE, session: 1, n, day: 1, tags: Tags::none(), commitment: [n as u8; 32] };
    Prepared { op_hash: op.hash(), op, handle: HANDLE, denied, mode: Mode::Strict }
}

pub(super) fn standing(status: Status) -> Input {
    let standing = Standing { status, from_ms: 0, until_ms: 1_000_000, bounded_suspended: false };
    Input::Agreements { standings: BTreeMap::from([(HANDLE, standing)]) }
}

pub(super) fn entry(p: &Prepared, verdict: Verdict, code: u16) -> (u64, LogEntry) {
    let e = LogEntry {
        height: 2,
        tick_ms: 20,
        writer: "police/executor".into(),
        incarnation: 1,
        seq: 1,
        op_hash: p.op_hash,
        verdict,
        code,
    };
    (41, e)
}

pub(super) fn frame(entries: Vec<(u64, LogEntry)>) -> Input {
    Input::Frame { height: 2, tick_ms: 20, entries }
}

pub(super) fn kept(n: u64, request_hash: Hash, op_hash: Hash) -> Kept {
    Kept { key: (1, n), request_hash, op_hash, session_expires_ms: 1_000_000 }
}

/// A step that follows the ledger, with an active agreement.
pub(super) fn ready() -> Step {
    let mut s = Step::default();
    s.step(standing(Status::Active), 0);
    s.step(frame(vec![]), 0);
    s
}

/// Brings call 1 up to "recorded".
fn recorded(s: &mut Step, denied: Option<Denied>) -> Prepared {
    let p = prepared(1, denied);
    assert!(matches!(s.step(Input::Call { call: call(1, 1), reply: 10 }, 0)[..], [Effect::Prepare { key: (1, 1) }]));
    assert!(matches!(s.step(Input::Prepared { key: (1, 1), result: Ok(p.clone()) }, 0)[..], [Effect::Store { .. }]));
    assert!(matches!(s.step(Input::Stored { keys: vec![(1, 1)] }, 0)[..], [Effect::Record { .. }]));
    p
}

pub(super) fn words(effects: &[Effect]) -> Vec<&'static str> {
    effects
        .iter()
        .map(|e| match e {
            Effect::Prepare { .. } => "prepare",
            Effect::Store { .. } => "store",
            Effect::Record { .. } => "record",
            Effect::MarkReleased { .. } => "mark-released",
            Effect::MarkClosed { .. } => "mark-closed",
            Effect::Withhold { .. } => "withhold",
            Effect::Release { .. } => "release",
            Effect::Promise { .. } => "promise",
            Effect::Repeat { .. } => "repeat",
            Effect::MarkAccepted { .. } => "mark-accepted",
            Effect::Apply { .. } => "apply",
            Effect::Void { .. } => "void",
            Effect::Settle { .. } => "settle",
            Effect::MarkWritten { .. } => "mark-written",
            Effect::Deny { .. } => "deny",
            Effect::Forget { .. } => "forget",
        })
        .collect()
}

#[test]
fn data_leaves_only_after_the_ledger_and_the_durable_mark() {
    let mut s = ready();
    let p = recorded(&mut s, None);
    assert!(s.step(Input::Marked { keys: vec![(1, 1)] }, 0).is_empty(), "no mark was asked for yet");
    assert_eq!(words(&s.step(frame(vec![entry(&p, Verdict::Accepted, 0)]), 5)), ["mark-released"]);
    assert_eq!(words(&s.step(Input::Marked { keys: vec![(1, 1)] }, 6)), ["release", "forget"]);
    assert!(s.step(Input::Marked { keys: vec![(1, 1)] }, 7).is_empty(), "released once");
}

#[test]
fn a_refused_operation_is_never_released() {
    let mut s = ready();
    let p = recorded(&mut s, None);
    let effects = s.step(frame(vec![entry(&p, Verdict::Refused, codes::SUSPENDED)]), 5);
    assert_eq!(words(&effects), ["mark-closed", "deny", "forget"]);
    assert!(
        matches!(&effects[1], Effect::Deny { denied, .. } if denied.code == codes::SUSPENDED && denied.operation == Some(41))
    );
}

#[test]
fn accepted_but_revoked_meanwhile_is_withheld() {
    for (status, code) in [(Status::Revoked, codes::REVOKED), (Status::Suspended, codes::SUSPENDED)] {
        let mut s = ready();
        let p = recorded(&mut s, None);
        s.step(standing(status), 1);
        let effects = s.step(frame(vec![entry(&p, Verdict::Accepted, 0)]), 5);
        assert_eq!(words(&effects), ["withhold", "deny", "forget"]);
        assert!(matches!(&effects[1], Effect::Deny { denied, .. } if denied.code == code));
    }
}

#[test]
fn a_commit_seen_too_late_is_withheld() {
    let mut s = ready();
    let p = recorded(&mut s, None);
    s.step(Input::Lost, 100);
    s.step(Input::Lost, 9_000);
    let effects = s.step(frame(vec![entry(&p, Verdict::Accepted, 0)]), 100 + RELEASE_WITHIN_MS + 1);
    assert_eq!(words(&effects), ["withhold", "deny", "forget"]);
}

#[test]
fn after_a_restart_an_accepted_release_is_withheld_for_ever() {
    let mut s = ready();
    let p = prepared(1, None);
    s.step(Input::Restored { open: vec![kept(1, call(1, 1).request_hash, p.op_hash)], settled: vec![] }, 0);
    let effects = s.step(Input::Call { call: call(1, 1), reply: 3 }, 0);
    assert!(matches!(&effects[..], [Effect::Deny { denied, .. }] if denied.reason == "withheld"));
    assert_eq!(words(&s.step(frame(vec![entry(&p, Verdict::Accepted, 0)]), 5)), ["withhold"]);
    assert_eq!(
        words(&s.step(Input::Call { call: call(1, 1), reply: 4 }, 6)),
        ["repeat"],
        "the store says that it was withheld"
    );
    assert!(
        matches!(&s.step(Input::Call { call: call(1, 2), reply: 5 }, 7)[..], [Effect::Deny { denied, .. }] if denied.reason == "replay")
    );
}

#[test]
fn the_same_request_gets_the_same_bytes_and_another_under_its_number_is_a_replay() {
    let mut s = ready();
    let p = recorded(&mut s, None);
    assert!(s.step(Input::Call { call: call(1, 1), reply: 11 }, 1).is_empty(), "joins the one on its way");
    s.step(frame(vec![entry(&p, Verdict::Accepted, 0)]), 5);
    let effects = s.step(Input::Marked { keys: vec![(1, 1)] }, 6);
    assert!(matches!(&effects[0], Effect::Release { replies, .. } if replies == &[10, 11]));
    assert_eq!(words(&s.step(Input::Call { call: call(1, 1), reply: 12 }, 7)), ["repeat"]);
    let effects = s.step(Input::Call { call: call(1, 2), reply: 13 }, 8);
    assert!(matches!(&effects[..], [Effect::Deny { denied, .. }] if denied.code == codes::REPLAY));
}

#[test]
fn without_a_ledger_nothing_is_answered() {
    let mut fresh = Step::default();
    assert!(
        matches!(&fresh.step(Input::Call { call: call(1, 1), reply: 1 }, 0)[..], [Effect::Deny { denied, .. }] if denied.reason == "stale-ledger")
    );
    let mut s = ready();
    s.step(Input::Lost, 5);
    assert!(
        matches!(&s.step(Input::Call { call: call(1, 1), reply: 1 }, 6)[..], [Effect::Deny { denied, .. }] if denied.reason == "stale-ledger")
    );
    s.step(frame(vec![]), 7);
    assert_eq!(words(&s.step(Input::Call { call: call(1, 1), reply: 1 }, 8)), ["prepare"]);
    let effects = s.step(Input::Call { call: call(2, 1), reply: 1 }, 8 + HEAD_STALE_MS);
    assert!(
        matches!(&effects[..], [Effect::Deny { denied, .. }] if denied.reason == "stale-ledger"),
        "the chain stands still"
    );
    assert_eq!(s.barred_now(HANDLE, 8 + HEAD_STALE_MS), Some(codes::BUSY));
}

#[test]
fn a_denial_is_recorded_and_says_where() {
    let mut s = ready();
    let p = recorded(&mut s, Some(refuse(Reason::RequestExpired)));
    let effects = s.step(frame(vec![entry(&p, Verdict::Accepted, 0)]), 5);
    assert_eq!(words(&effects), ["mark-closed", "deny", "forget"]);
    assert!(matches!(&effects[1], Effect::Deny { denied, .. } if denied.operation == Some(41)));
}

#[test]
fn old_and_late_requests_are_refused() {
    let mut s = ready();
    s.step(Input::Restored { open: vec![], settled: vec![kept(5_000, [0; 32], [0; 32])] }, 0);
    let denied = |effects: Vec<Effect>| match &effects[..] {
        [Effect::Deny { denied, .. }] => denied.reason.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(denied(s.step(Input::Call { call: call(904, 1), reply: 1 }, 0)), "session-window");
    assert_eq!(denied(s.step(Input::Call { call: call(0, 1), reply: 1 }, 0)), "session-window");
    let mut late = call(5_001, 1);
    late.request.not_after_ms = 19;
    assert_eq!(denied(s.step(Input::Call { call: late, reply: 1 }, 0)), "request-expired");
    let mut over = call(5_001, 1);
    over.session_expires_ms = 20;
    assert_eq!(denied(s.step(Input::Call { call: over, reply: 1 }, 0)), "session-expired");
}

#[test]
fn calls_of_sessions_that_are_over_are_forgotten_and_stay_refused() {
    let mut s = ready();
    let p = recorded(&mut s, None);
    s.step(frame(vec![entry(&p, Verdict::Accepted, 0)]), 5);
    s.step(Input::Marked { keys: vec![(1, 1)] }, 6);
    s.sweep();
    assert_eq!(words(&s.step(Input::Call { call: call(1, 1), reply: 2 }, 7)), ["repeat"], "the session still lives");
    s.step(Input::Frame { height: 3, tick_ms: 1_000_000, entries: vec![] }, 8);
    s.sweep();
    assert!(s.calls.is_empty() && s.sessions.is_empty());
    let effects = s.step(Input::Call { call: call(1, 1), reply: 3 }, 9);
    assert!(matches!(&effects[..], [Effect::Deny { denied, .. }] if denied.reason == "session-expired"));
}

#[test]
fn what_the_shell_cannot_prove_is_withheld_though_the_ledger_accepted_it() {
    let mut s = ready();
    let p = recorded(&mut s, None);
    assert!(s.step(Input::Forbidden { op_hash: p.op_hash, code: codes::BUSY }, 4).is_empty());
    let effects = s.step(frame(vec![entry(&p, Verdict::Accepted, 0)]), 5);
    assert_eq!(words(&effects), ["withhold", "deny", "forget"]);
    let Effect::Deny { denied, .. } = &effects[1] else { panic!() };
    assert_eq!((denied.code, denied.operation), (codes::BUSY, Some(41)));
    assert!(s.step(Input::Marked { keys: vec![(1, 1)] }, 6).is_empty(), "and never released");
    // It counts for the frame that follows alone.
    let mut s = ready();
    s.step(Input::Forbidden { op_hash: p.op_hash, code: codes::BUSY }, 0);
    s.step(frame(vec![]), 1);
    let p = recorded(&mut s, None);
    assert_eq!(words(&s.step(frame(vec![entry(&p, Verdict::Accepted, 0)]), 2)), ["mark-released"]);
}
