//! Every verdict and code that one operation can get.

use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::ops::{Op, Tags};

use super::kit::{Agreement, City, DAY, START, agency, clause, terms};
use concordat_protocol::acts::ActBody;
use concordat_protocol::ids::DatasetId;
use concordat_protocol::terms::{Action, Effect, Evidence};

const OK: (Verdict, u16) = (Verdict::Accepted, codes::OK);
const EXECUTOR: &str = "police/executor";
const COURT: &str = "court/broker";

fn no(code: u16) -> (Verdict, u16) {
    (Verdict::Refused, code)
}

#[derive(Clone, Copy)]
enum Kind {
    Query,
    Intent,
    BreakGlass,
    Deny,
}

fn request(city: &City, kind: Kind, handle: u64, session: u64, n: u64) -> Op {
    let (day, tags, commitment) = (city.day(), Tags::none(), [4; 32]);
    match kind {
        Kind::Query => Op::Query { handle, session, n, day, tags, commitment },
        Kind::Intent => Op::Intent { handle, session, n, day, tags, commitment },
        Kind::BreakGlass => Op::BreakGlass { handle, session, n, day, tags, commitment },
        Kind::Deny => Op::Deny { handle, session, n, day, tags, commitment },
    }
}

fn with_day(op: Op, new: u64) -> Op {
    match op {
        Op::Query { handle, session, n, tags, commitment, .. } => {
            Op::Query { handle, session, n, day: new, tags, commitment }
        }
        other => other,
    }
}

fn with_tags(op: Op, new: Tags) -> Op {
    match op {
        Op::Query { handle, session, n, day, commitment, .. } => {
            Op::Query { handle, session, n, day, tags: new, commitment }
        }
        other => other,
    }
}

#[test]
fn each_action_needs_its_clause() {
    let (mut city, Agreement { handles: h, session: s }) = City::ready();
    let table = [
        (Kind::Query, h[0], OK),
        (Kind::Query, h[2], (Verdict::Uncovered, codes::CLAUSE)),
        (Kind::Query, h[3], no(codes::CLAUSE)),
        (Kind::Query, h[4], (Verdict::Uncovered, codes::CLAUSE)),
        (Kind::Query, h[5], no(codes::CLAUSE)),
        (Kind::Intent, h[3], OK),
        (Kind::Intent, h[0], no(codes::CLAUSE)),
        (Kind::BreakGlass, h[4], OK),
        (Kind::BreakGlass, h[0], no(codes::CLAUSE)),
        (Kind::Query, 999, no(codes::NO_AGREEMENT)),
        (Kind::Query, 0, no(codes::NO_AGREEMENT)),
        (Kind::Deny, 0, OK),
        (Kind::Deny, h[0], OK),
        (Kind::Deny, 999, no(codes::NO_AGREEMENT)),
    ];
    let ops = table.iter().zip(1..).map(|((kind, handle, _), n)| request(&city, *kind, *handle, s, n)).collect();
    let want: Vec<_> = table.iter().map(|row| row.2).collect();
    assert_eq!(city.write(EXECUTOR, ops), want);
}

#[test]
fn sessions_bind_consumer_provider_number_and_time() {
    let (mut city, Agreement { handles: h, session: s }) = City::ready();
    let to_grid = city.open_session("court", "grid", "s2");
    let from_grid = city.open_session("grid", "police", "s3");
    let short = city.open_session_for("court", "police", "s4", 2_000);
    let q = |city: &City, session, n| city.query(h[0], session, n);
    let op = q(&city, to_grid, 1);
    assert_eq!(city.say(EXECUTOR, op), no(codes::SESSION_UNKNOWN), "a session towards another provider");
    let op = q(&city, from_grid, 1);
    assert_eq!(city.say(EXECUTOR, op), no(codes::NO_AGREEMENT), "a session of a consumer without the agreement");
    let op = q(&city, 999, 1);
    assert_eq!(city.say(EXECUTOR, op), no(codes::SESSION_UNKNOWN));
    let op = q(&city, s, 0);
    assert_eq!(city.say(EXECUTOR, op), no(codes::BAD_VALUE));
    let op = q(&city, s, 5_000);
    assert_eq!(city.say(EXECUTOR, op), OK);
    let op = q(&city, s, 5_000);
    assert_eq!(city.say(EXECUTOR, op), no(codes::REPLAY));
    let op = q(&city, s, 904);
    assert_eq!(city.say(EXECUTOR, op), no(codes::SESSION_WINDOW));
    let op = q(&city, s, 905);
    assert_eq!(city.say(EXECUTOR, op), OK);
    let op = q(&city, short, 1);
    assert_eq!(city.say(EXECUTOR, op), OK);
    city.clock.advance(3_000);
    let op = q(&city, short, 2);
    assert_eq!(city.say(EXECUTOR, op), no(codes::SESSION_EXPIRED));
    let op = request(&city, Kind::Deny, 0, short, 3);
    assert_eq!(city.say(EXECUTOR, op), OK, "a denial of a late request is still recorded");
    assert_eq!(city.do_act("court", "gateway", ActBody::SessionClose { sessions: vec![s] }), 0);
    let op = q(&city, s, 906);
    assert_eq!(city.say(EXECUTOR, op), no(codes::SESSION_EXPIRED), "closed at once");
}

#[test]
fn a_number_counts_once_whatever_the_verdict() {
    let (mut city, Agreement { handles: h, session: s }) = City::ready();
    let wrong_day = with_day(city.query(h[0], s, 1), 3);
    let ops = vec![
        wrong_day,
        city.query(h[0], s, 1),
        city.query(999, s, 2),
        city.query(h[0], s, 2),
        request(&city, Kind::Deny, 0, s, 3),
        city.query(h[0], s, 3),
        request(&city, Kind::Deny, 0, s, 0),
        request(&city, Kind::Deny, 0, s, 0),
    ];
    let want = [
        no(codes::WRONG_DAY),
        no(codes::REPLAY),
        no(codes::NO_AGREEMENT),
        no(codes::REPLAY),
        OK,
        no(codes::REPLAY),
        OK,
        OK,
    ];
    assert_eq!(city.write(EXECUTOR, ops), want);
}

#[test]
fn another_agency_cannot_use_up_the_numbers_of_a_session_or_a_handle() {
    let (mut city, Agreement { handles: h, session: s }) = City::ready();
    let op = city.query(h[0], s, 1);
    assert_eq!(city.say("grid/executor", op), no(codes::SESSION_UNKNOWN));
    let op = city.query(h[0], s, 1);
    assert_eq!(city.say("court/executor", op), no(codes::SESSION_UNKNOWN));
    let op = city.query(h[0], s, 1);
    assert_eq!(city.say(EXECUTOR, op), OK);
    let op = city.deliver(h[2], 1, 1, START);
    assert_eq!(city.say("grid/executor", op), no(codes::NO_AGREEMENT));
}

#[test]
fn day_and_tags_keep_their_rules() {
    let (mut city, Agreement { handles: h, session: s }) = City::ready();
    let today = city.day();
    let q = |city: &City, n| city.query(h[0], s, n);
    let ops = vec![
        with_day(q(&city, 1), today - 1),
        with_day(q(&city, 2), today - 2),
        with_day(q(&city, 3), today + 1),
        with_day(q(&city, 4), u64::MAX),
        with_tags(q(&city, 5), Tags::List(vec![[1; 16]; 4])),
        with_tags(q(&city, 6), Tags::List(vec![[1; 16]; 3])),
        with_tags(q(&city, 7), Tags::Bulk { count: 5, root: [0; 32] }),
    ];
    let day = no(codes::WRONG_DAY);
    assert_eq!(city.write(EXECUTOR, ops), [OK, day, day, day, OK, no(codes::BAD_VALUE), no(codes::BAD_VALUE)]);
}

#[test]
fn the_state_and_window_of_the_agreement_decide() {
    let (mut city, Agreement { handles: h, session: s }) = City::ready();
    assert_eq!(city.suspend("police", "security"), 0);
    let ops = vec![
        city.query(h[0], s, 1),
        request(&city, Kind::BreakGlass, h[4], s, 2),
        city.deliver(h[2], 1, 1, city.day() * DAY),
    ];
    let uncovered = (Verdict::Uncovered, codes::SUSPENDED);
    assert_eq!(city.write(EXECUTOR, ops), [no(codes::SUSPENDED), uncovered, uncovered]);
    assert_eq!(city.revoke("court", "legal"), 0);
    let op = city.query(h[0], s, 3);
    assert_eq!(city.say(EXECUTOR, op), no(codes::REVOKED));

    let mut early = terms("AGR-2", 1);
    early.clauses[0].from_ms = START + 10 * DAY;
    early.clauses[1].until_ms = START + DAY;
    let h = city.agree(&early).handles;
    let op = city.query(h[0], s, 4);
    assert_eq!(city.say(EXECUTOR, op), no(codes::NOT_YET));
    city.clock.advance(DAY);
    let s = city.open_session("court", "police", "later");
    let op = city.query(h[1], s, 1);
    assert_eq!(city.say(EXECUTOR, op), no(codes::EXPIRED));

    let v2 = terms("AGR-2", 2);
    city.agree_after(&v2, early.hash());
    let op = city.query(h[0], s, 2);
    assert_eq!(city.say(EXECUTOR, op), no(codes::SUPERSEDED));
}

#[test]
fn quotas_are_charged_by_calendar_day_and_returned_by_withheld() {
    let (mut city, Agreement { handles: h, session: s }) = City::ready();
    let first = city.log_size();
    let ops = (1..=3).map(|n| city.query(h[1], s, n)).collect();
    assert_eq!(city.write(EXECUTOR, ops), [OK, OK, no(codes::QUOTA)]);
    let back = Op::Withheld { reference: first, commitment: [0; 32] };
    assert_eq!(city.say(EXECUTOR, back.clone()), OK);
    assert_eq!(city.say(EXECUTOR, back), no(codes::REF_DONE));
    let ops = (4..=5).map(|n| city.query(h[1], s, n)).collect();
    assert_eq!(city.write(EXECUTOR, ops), [OK, no(codes::QUOTA)]);
    // The same quota goes on in the next version: it belongs to the agreement and the clause's id.
    let h2 = city.agree_after(&terms("AGR-1", 2), terms("AGR-1", 1).hash()).handles;
    let op = city.query(h2[1], s, 6);
    assert_eq!(city.say(EXECUTOR, op), no(codes::QUOTA));
    city.clock.advance(DAY);
    let s = city.open_session("court", "police", "next day");
    let before = city.log_size();
    let ops = (1..=3).map(|n| city.query(h2[1], s, n)).collect();
    assert_eq!(city.write(EXECUTOR, ops), [OK, OK, no(codes::QUOTA)]);
    // A unit of yesterday does not come back today.
    city.clock.advance(DAY);
    let late = Op::Withheld { reference: before, commitment: [0; 32] };
    assert_eq!(city.say(EXECUTOR, late), OK);
    let s = city.open_session("court", "police", "third day");
    let ops = (1..=3).map(|n| city.query(h2[1], s, n)).collect();
    assert_eq!(city.write(EXECUTOR, ops), [OK, OK, no(codes::QUOTA)]);
}

#[test]
fn a_quota_by_session_counts_each_session() {
    use concordat_protocol::terms::{Per, Quota, QuotaBy, QuotaUnit};
    let (mut city, Agreement { session: s, .. }) = City::ready();
    let mut t = terms("AGR-2", 1);
    t.clauses[0].quota = Some(Quota { max: 1, per: Per::Hour, by: QuotaBy::Session, unit: QuotaUnit::Operations });
    let h = city.agree(&t).handles;
    let other = city.open_session("court", "police", "other");
    let ops = vec![city.query(h[0], s, 1), city.query(h[0], s, 2), city.query(h[0], other, 1)];
    assert_eq!(city.write(EXECUTOR, ops), [OK, no(codes::QUOTA), OK]);
    city.clock.advance(3_600_000);
    let op = city.query(h[0], s, 3);
    assert_eq!(city.say(EXECUTOR, op), OK);
}

#[test]
fn publish_continues_its_dataset() {
    let (mut city, _) = City::ready();
    let stops = city.dataset("ds:police/stops@1");
    let p = |dataset, last_seq, count| Op::Publish { dataset, last_seq, count, root: [0; 32] };
    let ops = vec![
        p(stops, 10, 10),
        p(stops, 20, 9),
        p(stops, 15, 5),
        p(stops, 5, 6),
        p(stops, 15, 0),
        p(99, 1, 1),
        p(stops, 70_000, 69_985),
    ];
    let head = no(codes::DATASET_HEAD);
    let want = [OK, head, OK, head, no(codes::BAD_VALUE), no(codes::UNKNOWN_DATASET), no(codes::TOO_LARGE)];
    assert_eq!(city.write("police/broker", ops), want);
    assert_eq!(city.say("grid/broker", p(stops, 16, 1)), no(codes::UNKNOWN_DATASET), "only the owner publishes");
}

#[test]
fn only_the_owner_registers_a_dataset() {
    let mut city = City::new();
    let body = |id: &str| ActBody::Dataset { id: DatasetId::new(id).unwrap(), schema_hash: [0; 32] };
    assert_eq!(city.do_act("grid", "gateway", body("ds:police/stops@1")), codes::WRONG_AGENCY);
    assert_eq!(city.do_act("police", "gateway", body("ds:police/stops@1")), 0);
    assert_eq!(city.do_act("police", "gateway", body("ds:police/stops@1")), codes::DATASET_EXISTS);
}

#[test]
fn deliveries_continue_their_subscription_and_are_late_past_their_bound() {
    let (mut city, Agreement { handles: h, .. }) = City::ready();
    let now = city.day() * DAY;
    let ops = vec![
        city.deliver(h[2], 3, 3, now),
        city.deliver(h[2], 5, 1, now),
        city.deliver(h[2], 5, 2, now),
        city.deliver(h[2], 5, 0, now),
        city.deliver(h[0], 1, 1, now),
    ];
    let want = [OK, no(codes::SUB_SEQUENCE), OK, no(codes::BAD_VALUE), no(codes::CLAUSE)];
    assert_eq!(city.write(EXECUTOR, ops), want);
    city.clock.advance(20_000);
    let op = city.deliver(h[2], 6, 1, now);
    assert_eq!(city.say(EXECUTOR, op), (Verdict::Late, codes::BOUNDED_LATE));
    let op = city.deliver(h[2], 7, 1, now + 20_000);
    assert_eq!(city.say(EXECUTOR, op), OK, "a late entry still anchors its range");
}

#[test]
fn what_is_said_of_an_operation_must_fit_it() {
    let (mut city, Agreement { handles: h, session: s }) = City::ready();
    let first = city.log_size();
    let ops = vec![
        request(&city, Kind::Query, h[0], s, 1),
        request(&city, Kind::Intent, h[3], s, 2),
        request(&city, Kind::BreakGlass, h[4], s, 3),
        request(&city, Kind::Query, 999, s, 4),
        request(&city, Kind::Deny, 0, s, 5),
    ];
    city.write(EXECUTOR, ops);
    let (query, intent, glass, refused, deny) = (first, first + 1, first + 2, first + 3, first + 4);
    let c = [0; 32];
    let unknown = no(codes::UNKNOWN_REF);
    let table = [
        (EXECUTOR, Op::Outcome { reference: query, commitment: c }, unknown),
        ("grid/executor", Op::Outcome { reference: intent, commitment: c }, unknown),
        ("police/broker", Op::Outcome { reference: intent, commitment: c }, OK),
        (EXECUTOR, Op::Outcome { reference: intent, commitment: c }, no(codes::REF_DONE)),
        (EXECUTOR, Op::Withheld { reference: intent, commitment: c }, no(codes::REF_DONE)),
        (EXECUTOR, Op::Withheld { reference: refused, commitment: c }, unknown),
        (EXECUTOR, Op::Withheld { reference: deny, commitment: c }, unknown),
        (EXECUTOR, Op::Withheld { reference: 0, commitment: c }, unknown),
        (EXECUTOR, Op::Withheld { reference: u64::MAX, commitment: c }, unknown),
        (COURT, Op::Withheld { reference: query, commitment: c }, unknown),
        (COURT, Op::Review { reference: query, commitment: c }, unknown),
        ("grid/broker", Op::Review { reference: glass, commitment: c }, unknown),
        (COURT, Op::Review { reference: glass, commitment: c }, OK),
        (EXECUTOR, Op::Review { reference: glass, commitment: c }, no(codes::REF_DONE)),
        (COURT, Op::Annotate { reference: query, commitment: c }, OK),
        (EXECUTOR, Op::Annotate { reference: refused, commitment: c }, OK),
        ("grid/broker", Op::Annotate { reference: query, commitment: c }, unknown),
        (EXECUTOR, Op::Erase { reference: query, commitment: c }, OK),
        (COURT, Op::Erase { reference: query, commitment: c }, unknown),
        (COURT, Op::Ack { reference: query, commitment: c }, OK),
        (COURT, Op::Ack { reference: query, commitment: c }, no(codes::REF_DONE)),
        (EXECUTOR, Op::Ack { reference: intent, commitment: c }, unknown),
        (COURT, Op::Ack { reference: refused, commitment: c }, unknown),
        ("grid/broker", Op::Ack { reference: intent, commitment: c }, unknown),
    ];
    for (i, (writer, op, want)) in table.into_iter().enumerate() {
        assert_eq!(city.say(writer, op.clone()), want, "{i}: {writer} {op:?}");
    }
}

#[test]
fn an_overdue_review_refuses_its_clause_until_it_is_done() {
    let (mut city, Agreement { handles: h, session: s }) = City::ready();
    let glass = city.log_size();
    let op = request(&city, Kind::BreakGlass, h[4], s, 1);
    assert_eq!(city.say(EXECUTOR, op), OK);
    city.clock.advance(DAY);
    let s = city.open_session("court", "police", "later");
    let op = request(&city, Kind::BreakGlass, h[4], s, 1);
    assert_eq!(city.say(EXECUTOR, op), (Verdict::Uncovered, codes::DUTY_OVERDUE));
    let op = city.query(h[0], s, 2);
    assert_eq!(city.say(EXECUTOR, op), OK, "other clauses go on");
    // The uncovered use above has a review of its own, not yet due.
    let review = Op::Review { reference: glass, commitment: [0; 32] };
    assert_eq!(city.say(COURT, review), OK);
    let op = request(&city, Kind::BreakGlass, h[4], s, 3);
    assert_eq!(city.say(EXECUTOR, op), OK);
}

#[test]
fn public_data_is_open_to_every_session_by_the_assigner_alone() {
    let mut city = City::new();
    let mut t = terms("AGR-9", 1);
    t.assignee = None;
    t.assignee_roles = vec![];
    t.clauses = vec![
        clause("P1", Effect::Permit, Action::Query.bit(), Evidence::None {}),
        clause("P2", Effect::Permit, Action::Subscribe.bit(), Evidence::None {}),
    ];
    let h = city.agree(&t).handles;
    let court = city.open_session("court", "police", "a");
    let grid = city.open_session("grid", "police", "b");
    let now = city.day() * DAY;
    let ops = vec![city.query(h[0], court, 1), city.query(h[0], grid, 1), city.deliver(h[1], 1, 1, now)];
    assert_eq!(city.write(EXECUTOR, ops), [OK, OK, OK]);
    let body = ActBody::Revoke { agreement: t.agreement.clone(), version: 1, reason: [0; 32] };
    assert_eq!(city.do_act("court", "legal", body.clone()), codes::WRONG_AGENCY);
    assert_eq!(city.do_act("police", "legal", body), 0);
    let op = city.query(h[0], court, 2);
    assert_eq!(city.say(EXECUTOR, op), no(codes::REVOKED));
    assert!(agency("police").as_str() == "police");
}
