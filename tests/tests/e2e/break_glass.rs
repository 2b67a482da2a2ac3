//! Overrides: rows at once under a promise, a record that follows, a review that is due, and all that stops them.

use crate::World;
use concordat_tests::harness::{Agreement, Answer, City, SOON, Stopped, until};
use serde_json::{Value, json};
use std::time::Duration;

const WHY: &str = "Caller in danger to life, address unknown, ticket 4711";

/// A document of police and court with these clauses, brought into force as people do.
fn activate(city: &City, id: &str, clauses: &str) {
    let yaml = format!(
        r#"agreement: {id}
version: 1
paper: {{title: "Tests", sha256: "0000000000000000000000000000000000000000000000000000000000000953"}}
assigner: org:police
assignee: org:court
target: ds:police/stops@1
valid: {{from: 2020-01-01T00:00:00Z, until: 2090-01-01T00:00:00Z}}
approvals: {{assigner: [legal, data-steward], assignee: [legal]}}
clauses:
{clauses}"#
    );
    for agency in ["police", "court"] {
        let path = city.dir(agency).join(format!("agreements/{id}.yaml"));
        std::fs::write(&path, &yaml).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let path = city.dir("police").join(format!("agreements/{id}.yaml")).to_string_lossy().into_owned();
    city.at("police", &["agreement", "propose", &path]).done();
    for agency in ["police", "court"] {
        reaches(city, id, agency, "proposed");
    }
    for (agency, role) in [("police", "legal"), ("police", "data-steward"), ("court", "legal")] {
        city.at(agency, &["agreement", "approve", id, "--role", role]).done();
    }
    for agency in ["police", "court"] {
        reaches(city, id, agency, "active");
    }
}

fn reaches(city: &City, id: &str, agency: &str, status: &str) {
    Agreement::new(id, "none").reaches(city, agency, status);
}

/// A clause that lets the duty officer override for a purpose.
fn override_clause(purpose: &str, evidence: &str, within: &str) -> String {
    format!(
        r#"- id: B1
  text: In danger to life the duty officer may override; the police review it.
  effect: break-glass
  assignee: {{org: org:court, role: role:duty-officer}}
  actions: [query]
  evidence: {evidence}
  purpose: purp:{purpose}
  duties: [{{type: justification}}, {{type: notify, to: org:police}}, {{type: review, within: {within}}}]
"#
    )
}

/// A clause for clerks, who must name the stop.
fn clerks(purpose: &str) -> String {
    format!(
        r#"- id: C1
  text: Clerks may look up a stop that they name.
  effect: permit
  assignee: {{org: org:court, role: role:clerk}}
  actions: [query]
  evidence: strict
  purpose: purp:{purpose}
  legal_basis: "Testing the system"
  duties:
  - {{type: require-filter, any_of: [stop_id]}}
  - {{type: fields, allow: [stop_id, time, problem]}}
"#
    )
}

fn body(purpose: &str, break_glass: Option<Value>) -> Value {
    let mut body = json!({"dataset": "ds:police/stops@1", "purpose": format!("purp:{purpose}"), "limit": 3});
    if let Some(said) = break_glass {
        body["break_glass"] = said;
    }
    body
}

fn asked(city: &City, user: &str, purpose: &str, break_glass: Option<Value>) -> Answer {
    city.api("court", user).query(&body(purpose, break_glass))
}

fn overridden(city: &City, purpose: &str) -> Answer {
    asked(city, "duty-officer", purpose, Some(json!({"justification": WHY})))
}

#[track_caller]
fn denied(answer: Answer, reason: &str) -> Answer {
    let answer = answer.is(403);
    assert_eq!(answer.text("reason"), reason, "{}", answer.body);
    answer
}

/// The operation of a provisional answer, once it is recorded.
fn recorded(city: &City, answer: &Answer) -> String {
    let decision = answer.text("decision");
    let api = city.api("court", "operator");
    until("the promised record is on the ledger", SOON, || {
        let found = api.get(&decision).is(200).body;
        match (found["outcome"].as_str(), found["operation"].as_str()) {
            (Some("released"), Some(op)) => Ok(op.to_owned()),
            _ => Err(found),
        }
    })
}

fn shown(city: &City, agency: &str, op: &str) -> Value {
    city.api(agency, "operator").get(&format!("/v1/operations/{op}")).is(200).body
}

/// The operation at the provider, once its executor knows that it is recorded.
fn told(city: &City, op: &str) -> Value {
    until("the executor knows the record", SOON, || {
        let there = shown(city, "police", op);
        if there["override"].is_object() { Ok(there) } else { Err(there) }
    })
}

pub fn an_override_gives_rows_at_once_and_is_explained_later(world: &World) {
    let city = world.shared();
    let clauses = clerks("glass-case") + override_clause("glass-life", "{bounded: {max_lag: 10m}}", "24h").as_str();
    activate(city, "AGR-2026-9531", &clauses);
    // A clerk must name a stop; the officer need not, and gets rows with a promise in place of a record.
    denied(asked(city, "clerk", "glass-case", None), "require-filter");
    let answer = overridden(city, "glass-life").is(200);
    assert_eq!(answer.rows().len(), 3, "{}", answer.body);
    assert_eq!((&answer.body["operation"], &answer.body["receipt"]), (&Value::Null, &Value::Null));
    let due = answer.body["provisional"]["recorded_by_ms"].as_u64().unwrap();
    assert!(due > city.tick_ms() && due < city.tick_ms() + 11 * 60_000, "{due}");
    // What makes it an override is needed, all of it.
    let wrong = denied(asked(city, "duty-officer", "glass-life", Some(json!({}))), "justification");
    assert_eq!(wrong.text("missing"), "a justification", "{}", wrong.body);
    denied(asked(city, "duty-officer", "glass-life", None), "break-glass");
    denied(asked(city, "clerk", "glass-life", Some(json!({"justification": WHY}))), "role");
    denied(asked(city, "clerk", "glass-case", Some(json!({"justification": WHY}))), "break-glass");
    let blank = asked(city, "duty-officer", "glass-life", Some(json!({"justification": "   "})));
    assert_eq!(blank.status, 422, "{}", blank.body);
    // The record comes, and becomes a receipt that opens the justification to whoever verifies it.
    let op = recorded(city, &answer);
    let index: u64 = op.strip_prefix("op:").unwrap().parse().unwrap();
    let file = world.folder("break-glass").join("op.receipt");
    let (file, trust) = (file.to_str().unwrap(), file.with_file_name("trust.json"));
    city.at("court", &["op", "receipt", &op, "--file", file]).done();
    city.at("court", &["trust", "export", trust.to_str().unwrap()]).done();
    city.run(&["verify", "receipt", file, "--trust", trust.to_str().unwrap()]).done();
    let receipt = concordat_protocol::receipt::Receipt::from_bytes(&std::fs::read(file).unwrap()).unwrap();
    let opened = receipt.openings.unwrap();
    assert_eq!(opened.get("justification"), Some(WHY.as_bytes()));
    assert_eq!(opened.get("evidence"), Some(&b"bounded"[..]));
    assert_eq!(city.entry("court", index).verdict, concordat_protocol::codes::Verdict::Accepted);
    // The provider's operators are told who overrode and why, and that a review is due.
    let there = told(city, &op);
    assert_eq!(there["override"]["justification"], WHY, "{there}");
    assert_eq!(there["override"]["consumer"], "org:court");
    assert_eq!((&there["review"]["overdue"], &there["review"]["clause"]), (&json!(false), &json!("B1")), "{there}");
    let notices = city.api("police", "operator").get("/v1/notices").is(200).body;
    let list = notices["notices"].as_array().unwrap();
    assert!(list.iter().any(|n| n["operation"] == op.as_str() && n["notify"] == json!(["org:police"])), "{notices}");
    until("the provider counts it", SOON, || {
        let text = city.api("police", "operator").get("/metrics").text_body();
        let line = text.lines().find(|l| l.starts_with("concordat_break_glass_total")).unwrap_or_default().to_owned();
        if line.ends_with(" 0") { Err(line) } else { Ok(()) }
    });
    // Reviewed once, by either party, with words that stay there.
    let said =
        city.at("police", &["break-glass", "review", &op, "--text", "Call logged, confirmed", "--output", "json"]);
    assert_eq!(said.done().json()["outcome"], "justified");
    city.at("court", &["break-glass", "review", &op, "--text", "again"]).ends(6);
    let there = shown(city, "police", &op);
    assert_eq!(there["review"]["text"], "Call logged, confirmed", "{there}");
    assert_eq!(shown(city, "court", &op)["review"], Value::Null, "nothing is due any more");
    // A prohibition of another agreement wins over it.
    let forbids = clerks("glass-other")
        + "- id: X1\n  text: Never now.\n  effect: prohibit\n  assignee: any\n  actions: [query]\n  purpose: purp:glass-life\n";
    activate(city, "AGR-2026-9532", &forbids);
    denied(overridden(city, "glass-life"), "prohibited");
    city.at("police", &["agreement", "revoke", "AGR-2026-9532"]).done();
    reaches(city, "AGR-2026-9532", "police", "revoked");
    // What left is recorded, whatever dies.
    let answer = overridden(city, "glass-life").is(200);
    city.killed_and_back("police", "executor");
    let op = recorded(city, &answer);
    assert_eq!(told(city, &op)["override"]["state"], "released");
    // Revoked: nothing.
    city.at("court", &["agreement", "revoke", "AGR-2026-9531"]).done();
    reaches(city, "AGR-2026-9531", "police", "revoked");
    let said = denied(overridden(city, "glass-life"), "revoked");
    assert_eq!(said.body["ledger_code"], 405, "{}", said.body);
}

pub fn a_missed_review_stops_the_clause_until_it_is_made(world: &World) {
    let city = world.shared();
    for (id, purpose, evidence) in
        [("AGR-2026-9533", "glass-bounded", "{bounded: {max_lag: 1m}}"), ("AGR-2026-9534", "glass-strict", "strict")]
    {
        activate(city, id, &override_clause(purpose, evidence, "3s"));
        let answer = overridden(city, purpose).is(200);
        let op = if evidence == "strict" { answer.text("operation") } else { recorded(city, &answer) };
        until("its review is overdue", SOON, || {
            let list = city.api("court", "operator").get("/v1/reviews").is(200).body;
            let own = list["reviews"].as_array().unwrap().iter().find(|r| r["operation"] == op.as_str()).cloned();
            if own.as_ref().is_some_and(|r| r["overdue"] == true) { Ok(()) } else { Err(list) }
        });
        until("the metric shows it", SOON, || {
            let text = city.api("police", "operator").get("/metrics").text_body();
            let line = text.lines().find(|l| l.starts_with("concordat_review_overdue")).unwrap_or_default().to_owned();
            if line.ends_with(" 0") || line.is_empty() { Err(line) } else { Ok(()) }
        });
        let said = denied(overridden(city, purpose), "review-overdue");
        assert_eq!(said.body["ledger_code"], 430, "{}", said.body);
        for word in [op.as_str(), "org:police", "org:court", "break-glass review"] {
            assert!(said.text("detail").contains(word), "{word}: {}", said.body);
        }
        let words = ["break-glass", "review", &op, "--text", "No danger was found", "--outcome", "unjustified"];
        city.at("court", &words).done();
        overridden(city, purpose).is(200);
    }
}

fn suspended(city: &City, id: &str) -> bool {
    city.api("court", "operator").get(&format!("/v1/agreements/{id}")).body["versions"][0]["bounded_suspended"] == true
}

/// An override whose record reaches nobody: CometBFT of police stands still before it, the executor after it, so that it
/// cannot try another way either.
fn unrecorded(city: &City, purpose: &str) -> ([Stopped; 2], Answer) {
    let comet = Stopped::now(city, "police", "comet");
    let answer = overridden(city, purpose).is(200);
    let executor = Stopped::now(city, "police", "executor");
    let height = height_of(city);
    until("some blocks", SOON, || {
        let now = height_of(city);
        if now > height + 3 { Ok(()) } else { Err(now) }
    });
    let found = city.api("court", "operator").get(&answer.text("decision")).is(200).body;
    assert_eq!(found["outcome"], "provisional", "{found}");
    ([comet, executor], answer)
}

pub fn a_record_that_does_not_come_ends_releases_under_a_promise(world: &World) {
    let city = world.shared();
    let (id, purpose) = ("AGR-2026-9535", "glass-broken");
    activate(city, id, &override_clause(purpose, "{bounded: {max_lag: 5s}}", "24h"));
    // A session is open, and known to police.
    recorded(city, &overridden(city, purpose).is(200));
    let (stopped, answer) = unrecorded(city, purpose);
    assert!(!suspended(city, id));
    until("court's broker complains by itself", 2 * SOON, || if suspended(city, id) { Ok(()) } else { Err("not yet") });
    drop(stopped);
    // It comes late, and stands there as not covered.
    let op = recorded(city, &answer);
    let entry = city.entry("court", op.strip_prefix("op:").unwrap().parse().unwrap());
    assert_eq!((entry.verdict, entry.code), (concordat_protocol::codes::Verdict::Uncovered, 501));
    let said = until("police follows the ledger again", Duration::from_secs(60), || {
        let said = overridden(city, purpose);
        if said.status == 403 { Ok(said) } else { Err(said.body) }
    });
    assert_eq!(said.body["ledger_code"], 501, "{}", said.body);
}

fn height_of(city: &City) -> u64 {
    concordat_tests::harness::wait(city.node("court").head()).unwrap().height
}
