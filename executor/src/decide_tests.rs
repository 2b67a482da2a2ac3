#![allow(clippy::unwrap_used)]
use super::*;
use crate::query::FieldType;
use concordat_policies::compile::compile;
use concordat_policies::duty::Capabilities;
use concordat_policies::evaluate::Evaluator;
use concordat_policies::template::fill;
use concordat_policies::view::Pseudonyms;
use concordat_protocol::ids::DatasetId;
use concordat_protocol::keys::KeyId;
use serde_json::json;
use std::sync::Arc;

const NOW: u64 = 1_790_000_000_000;

fn fields() -> Fields {
    let text = ["stop_id", "problem", "race", "precinct", "neighborhood"].map(|n| (n.to_owned(), FieldType::String));
    let rest = [("time".to_owned(), FieldType::Timestamp), ("citation_issued".to_owned(), FieldType::Boolean)];
    Fields::new(text.into_iter().chain(rest).collect()).unwrap()
}

/// The demo's own agreement between police and court.
fn set(consumer: &str) -> AgreementSet {
    let template = include_str!("../../cli/demo/agreements/AGR-2026-0142.yaml");
    let yaml = fill(template, &[("from", "2026-01-01T00:00:00Z"), ("until", "2027-01-01T00:00:00Z")]).unwrap();
    let evaluator = Evaluator::new(compile(&yaml).unwrap(), Capabilities::default()).unwrap();
    AgreementSet::new(
        DatasetId::new("ds:police/stops@1").unwrap(),
        AgencyId::new(consumer).unwrap(),
        [Arc::new(evaluator)],
    )
}

fn request(purpose: &str, case: &str, clause: &str) -> Request {
    Request {
        chain: "c".into(),
        session: 1,
        n: 1,
        provider: AgencyId::new("police").unwrap(),
        dataset: DatasetId::new("ds:police/stops@1").unwrap(),
        clause: clause.into(),
        purpose: purpose.into(),
        case: case.into(),
        query_hash: [0; 32],
        kem_key_id: KeyId([0; 16]),
        not_after_ms: 0,
    }
}

fn document(role: &str, query: Value) -> QueryDocument {
    let mut all = json!({"dataset": "ds:police/stops@1", "roles": [role], "actor": "p-1", "nonce": "00".repeat(16)});
    query.as_object().unwrap().iter().for_each(|(k, v)| all[k] = v.clone());
    QueryDocument::read(all.to_string().as_bytes()).unwrap()
}

fn ask(request: &Request, role: &str, query: Value) -> Result<Permitted, Denied> {
    let court = AgencyId::new("court").unwrap();
    decide(request, &court, &document(role, query), &set("court"), &fields(), NOW)
}

fn day() -> Value {
    json!({"time": {"range": {"from": "2017-03-14T00:00:00Z", "to": "2017-03-15T00:00:00Z"}}})
}

#[test]
fn a_permitted_query_is_planned_with_row_filter_and_open_fields_only() {
    let permitted = ask(&request("purp:pending-case", "26-CR-1042", ""), "clerk", json!({"where": day()})).unwrap();
    assert_eq!(permitted.grant.clause.clause, "C1");
    let mut select = permitted.plan.select.clone().unwrap();
    select.sort();
    assert_eq!(select, ["citation_issued", "neighborhood", "problem", "stop_id", "time"]);
    let row = |precinct: &str| {
        json!({"stop_id": "1", "time": "2017-03-14T10:00:00Z", "precinct": precinct}).as_object().unwrap().clone()
    };
    assert!(permitted.plan.filter.matches(&row("1")));
    assert!(!permitted.plan.filter.matches(&row("3")), "rows outside the row filter do not exist for the consumer");
}

#[test]
fn what_is_missing_is_named() {
    let good = request("purp:pending-case", "26-CR-1042", "");
    // (request, role, query, reason, part of what is missing)
    let cases = [
        (good.clone(), "clerk", json!({}), "require-filter", "stop_id"),
        (
            good.clone(),
            "clerk",
            json!({"where": {"time": {"range": {"from": "2017-03-14T00:00:00Z", "to": "2017-03-16T00:00:00Z"}}}}),
            "require-filter",
            "24 h",
        ),
        (good.clone(), "clerk", json!({"where": {"and": [day(), {"race": "X"}]}}), "fields", "race"),
        (good.clone(), "clerk", json!({"where": day(), "select": ["stop_id", "race"]}), "fields", "race"),
        (good.clone(), "janitor", json!({"where": day()}), "role", "clerk"),
        (request("purp:pending-case", "1042", ""), "clerk", json!({"where": day()}), "reference", "case"),
        (request("purp:curiosity", "26-CR-1042", ""), "clerk", json!({"where": day()}), "purpose", ""),
        (request("purp:profiling", "26-CR-1042", ""), "clerk", json!({"where": day()}), "prohibited", ""),
        (
            request("purp:pending-case", "26-CR-1042", "AGR-2026-0142/C9"),
            "clerk",
            json!({"where": day()}),
            "unknown-clause",
            "",
        ),
    ];
    for (request, role, query, reason, missing) in cases {
        let denied = ask(&request, role, query.clone()).unwrap_err();
        assert_eq!(denied.reason, reason, "{query} {}", denied.detail);
        assert!(denied.missing.contains(missing), "{query}: missing {:?}", denied.missing);
        assert_ne!(denied.code, codes::BAD_VALUE, "recorded as a denial");
    }
}

#[test]
fn a_hidden_field_cannot_be_probed_inside_not_or_or() {
    let good = request("purp:pending-case", "26-CR-1042", "");
    for probe in [json!({"not": {"race": "X"}}), json!({"or": [{"stop_id": "1"}, {"race": {"prefix": "X"}}]})] {
        let denied = ask(&good, "clerk", json!({"where": {"and": [day(), probe]}})).unwrap_err();
        assert_eq!(denied.reason, "fields");
    }
}

#[test]
fn a_query_that_does_not_parse_is_an_error_and_no_denial() {
    let good = request("purp:pending-case", "26-CR-1042", "");
    let denied = ask(&good, "clerk", json!({"where": {"stop_di": "1"}})).unwrap_err();
    assert_eq!(denied.code, codes::BAD_VALUE);
    assert!(denied.detail.contains("stop_id"), "names the nearest field: {}", denied.detail);
    for bytes in [&b"[]"[..], br#"{"dataset":"ds:police/stops@1"}"#, br#"{"a":1,"a":2}"#, b"\xff"] {
        assert_eq!(QueryDocument::read(bytes).unwrap_err().reason, "bad-query");
    }
}

#[test]
fn another_consumer_has_no_agreement() {
    let grid = AgencyId::new("grid").unwrap();
    let denied = decide(
        &request("purp:pending-case", "26-CR-1042", ""),
        &grid,
        &document("clerk", json!({"where": day()})),
        &set("grid"),
        &fields(),
        NOW,
    );
    assert_eq!(denied.unwrap_err().code, codes::NO_AGREEMENT);
}

/// The decision under the demo's agreement with more duties in its first clause.
fn ask_with(duties: &str, query: Value) -> Result<Permitted, Denied> {
    let template = include_str!("../../cli/demo/agreements/AGR-2026-0142.yaml");
    let yaml = fill(template, &[("from", "2026-01-01T00:00:00Z"), ("until", "2027-01-01T00:00:00Z")]).unwrap();
    let more = yaml.replacen("  duties:\n", &format!("  duties:\n{duties}"), 1);
    assert_ne!(more, yaml);
    let evaluator = Evaluator::new(compile(&more).unwrap(), Capabilities::default()).unwrap();
    let (dataset, court) = (DatasetId::new("ds:police/stops@1").unwrap(), AgencyId::new("court").unwrap());
    let set = AgreementSet::new(dataset, court.clone(), [Arc::new(evaluator)]);
    decide(&request("purp:pending-case", "26-CR-1042", ""), &court, &document("clerk", query), &set, &fields(), NOW)
}

#[test]
fn an_altered_field_is_shown_altered_and_cannot_be_asked_for_by_its_value() {
    let duties =
        "  - {type: mask, fields: [problem], keep_last: 1}\n  - {type: pseudonymise, fields: [neighborhood]}\n";
    let permitted = ask_with(duties, json!({"where": day()})).unwrap();
    let row = json!({"stop_id": "1", "problem": "Suspicious", "neighborhood": "Uptown", "race": "X"});
    let shown = permitted.view.apply(row.as_object().unwrap(), Pseudonyms { key: &[1; 32], at_ms: NOW });
    let pseudonym = shown["neighborhood"].as_str().unwrap();
    assert!(pseudonym.starts_with("p-") && !pseudonym.contains("Uptown"), "{pseudonym}");
    assert_eq!(json!(shown), json!({"stop_id": "1", "problem": "***s", "neighborhood": pseudonym}));
    for probe in [json!({"problem": "Suspicious"}), json!({"not": {"neighborhood": {"prefix": "U"}}})] {
        let denied = ask_with(duties, json!({"where": {"and": [day(), probe]}})).unwrap_err();
        assert_eq!(denied.reason, "altered-field", "{}", denied.detail);
    }
}

#[test]
fn rows_younger_than_a_delay_do_not_exist() {
    // NOW is 2026-09-21T14:13:20Z.
    let duties = "  - {type: delay, field: time, for: 7d}\n";
    let query = json!({"where": {"stop_id": "1"}});
    let filter = ask_with(duties, query).unwrap().plan.filter;
    let seen = |time: &str| filter.matches(json!({"stop_id": "1", "time": time, "precinct": "1"}).as_object().unwrap());
    assert!(seen("2026-09-14T14:13:19Z") && !seen("2026-09-14T14:13:20Z") && !seen("2026-09-21T00:00:00Z"));
}

#[test]
fn a_clause_with_a_step_up_asks_for_a_strong_and_fresh_sign_in() {
    let duties = "  - {type: step-up, level: mfa, within: 15m}\n";
    let ask = |sign_in: Value| ask_with(duties, json!({"where": day(), "sign_in": sign_in}));
    let minutes_ago = |n: u64| NOW - n * 60_000;
    ask(json!({"level": "mfa", "at_ms": minutes_ago(14)})).unwrap();
    let none = ask_with(duties, json!({"where": day()}));
    let weak = ask(json!({"level": "pwd", "at_ms": minutes_ago(1)}));
    let old = ask(json!({"level": "mfa", "at_ms": minutes_ago(16)}));
    let to_come = ask(json!({"level": "mfa", "at_ms": NOW + 1}));
    for denied in [none, weak, old, to_come] {
        assert_eq!(denied.unwrap_err().reason, "step-up");
    }
    for bad in
        [json!("mfa"), json!({"level": "mfa"}), json!({"level": "mfa", "at_ms": -1}), json!({"level": 1, "at_ms": 1})]
    {
        let mut all = json!({"dataset": "ds:police/stops@1", "nonce": "00".repeat(16)});
        all["sign_in"] = bad;
        assert!(QueryDocument::read(all.to_string().as_bytes()).unwrap_err().detail.starts_with("sign_in:"));
    }
}

#[test]
fn an_override_is_asked_for_and_explained() {
    let request = request("purp:life-threat", "", "");
    let said = |break_glass: Value| ask(&request, "role:duty-officer", json!({"break_glass": break_glass}));
    let permitted = said(json!({"justification": "ticket 4711"})).unwrap();
    assert_eq!(permitted.grant.clause.clause, "B1", "without a case, a filter or a list of fields");
    let denied = said(json!({})).unwrap_err();
    let words = (denied.reason.as_str(), denied.missing.as_str(), denied.clause.as_str());
    assert_eq!(words, ("justification", "a justification", "AGR-2026-0142/B1"));
    assert_eq!(ask(&request, "role:duty-officer", json!({})).unwrap_err().reason, "break-glass");
    let why = json!({"break_glass": {"justification": "ticket 4711"}});
    assert_eq!(ask(&request, "role:clerk", why).unwrap_err().reason, "role");
    let long = "x".repeat(JUSTIFICATION_BYTES_MAX + 1);
    for bad in [
        json!("ticket"),
        json!(null),
        json!({"justification": ""}),
        json!({"justification": " \n"}),
        json!({"justification": "a\u{0}b"}),
        json!({"justification": 7}),
        json!({"justification": long}),
        json!({"justification": "ticket", "reason": "x"}),
    ] {
        let mut all = json!({"dataset": "ds:police/stops@1", "nonce": "00".repeat(16)});
        all["break_glass"] = bad;
        assert!(QueryDocument::read(all.to_string().as_bytes()).unwrap_err().detail.starts_with("break_glass"));
    }
}
