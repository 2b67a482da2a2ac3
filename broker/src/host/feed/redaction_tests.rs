#![allow(clippy::unwrap_used)]
use super::*;
use concordat_executor::policies::ask::{Ask, Decision};
use concordat_executor::policies::compile::compile;
use concordat_executor::policies::duty::Capabilities;
use concordat_executor::policies::evaluate::Evaluator;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::terms::Action;
use proptest::prelude::*;
use serde_json::Map;

const DATASET: &str = "dataset: ds:grid/feeder@1\ntitle: t\nkind: feed\nschema: s.json\nkey: [meter]\n\
    time: {field: time, zone: UTC}\nsubject: none\nsensitive: {}\n";
const SCHEMA: &str = r#"{"type":"object","properties":{"meter":{"type":"string"},"time":{"type":"string","format":"date-time"},
    "mw":{"type":"integer"},"area":{"type":"string"}},"required":["meter","time"],"additionalProperties":false}"#;

fn doc() -> DatasetDoc {
    DatasetDoc::parse(DATASET, SCHEMA).unwrap()
}

fn lens(duties: &str) -> Lens {
    let yaml = format!(
        "agreement: AGR-2026-0143\nversion: 1\nassigner: org:grid\nassignee: org:transport\ntarget: ds:grid/feeder@1\n\
         valid: {{from: 2026-01-01T00:00:00Z, until: 2027-01-01T00:00:00Z}}\n\
         approvals: {{assigner: [legal], assignee: [legal]}}\nclauses:\n- id: F1\n  text: Transport may follow.\n\
         \x20 effect: permit\n  assignee: {{org: org:transport}}\n  actions: [subscribe]\n\
         \x20 evidence: {{bounded: {{max_lag: 2s}}}}\n  purpose: purp:grid-dispatch\n  legal_basis: \"s\"\n  duties: {duties}\n"
    );
    let evaluator = Evaluator::new(compile(&yaml).unwrap(), Capabilities::default()).unwrap();
    let ask = Ask {
        consumer: AgencyId::new("transport").unwrap(),
        roles: BTreeSet::new(),
        action: Action::Subscribe,
        break_glass: false,
        purpose: "purp:grid-dispatch".into(),
        agreement: None,
        clause: None,
        case: Some("26-CR-1042".into()),
        at_ms: 1_780_000_000_000,
    };
    let Decision::Permit(grant) = evaluator.decide(&ask) else { panic!() };
    Lens::of(&grant, &doc()).unwrap()
}

const NORTH: &str = "[{type: row-filter, where: {area: {eq: north}}}, {type: fields, allow: [time, mw]}]";

fn fields(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn row(area: &str, mw: i64) -> Map<String, Value> {
    json!({"meter": "m", "time": "2026-05-01T00:00:00Z", "mw": mw, "area": area}).as_object().unwrap().clone()
}

#[test]
fn a_subscription_takes_less_than_its_clause_opens() {
    let narrow = lens(NORTH).narrow(&json!({"mw": {"range": {"from": 10}}}), &fields(&["mw"]), &doc()).unwrap();
    assert_eq!(narrow.fields().collect::<Vec<_>>(), ["mw"]);
    assert!(narrow.filter.matches(&row("north", 10)));
    assert!(!narrow.filter.matches(&row("north", 9)), "its own filter");
    assert!(!narrow.filter.matches(&row("south", 10)), "the clause's filter still holds");
    assert!(!narrow.leaves.contains("d/time") && !narrow.leaves.contains("a/time") && !narrow.leaves.contains("a/id"));
}

#[test]
fn nothing_wider_passes_however_it_is_written() {
    let lens = lens(NORTH);
    for filter in [
        json!({"area": "north"}),
        json!({"not": {"area": {"eq": "south"}}}),
        json!({"or": [{"mw": 3}, {"area": {"exists": false}}]}),
        json!({"and": [{"mw": 3}, {"not": {"or": [{"meter": {"prefix": "m"}}]}}]}),
    ] {
        let refused = lens.narrow(&filter, &[], &doc()).unwrap_err();
        assert!(matches!(refused, TooWide::HiddenInFilter { .. }), "{filter}: {refused}");
    }
    let refused = lens.narrow(&json!({}), &fields(&["area"]), &doc()).unwrap_err().to_string();
    assert!(refused.contains("does not open area") && refused.contains("mw, time"), "{refused}");
    let refused = lens.narrow(&json!({}), &fields(&["tmie"]), &doc()).unwrap_err().to_string();
    assert!(refused.contains("nearest is time"), "{refused}");
    for bad in [json!({"nw": 3}), json!({"mw": {"gt": 3}}), json!([]), json!(3)] {
        assert_eq!(lens.narrow(&bad, &[], &doc()).unwrap_err().code(), "bad-filter", "{bad}");
    }
}

#[test]
fn lenses_that_show_the_same_have_one_id_and_others_not() {
    let all = lens(NORTH);
    let same = all.narrow(&json!({}), &fields(&["mw", "time"]), &doc()).unwrap();
    assert_eq!(all.id(), same.id());
    let mut ids = vec![all.id(), lens("[]").id()];
    ids.push(all.narrow(&json!({}), &fields(&["mw"]), &doc()).unwrap().id());
    ids.push(all.narrow(&json!({"mw": 3}), &[], &doc()).unwrap().id());
    ids.push(all.narrow(&json!({"mw": 4}), &[], &doc()).unwrap().id());
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

#[test]
fn a_case_that_the_evaluator_checked_is_no_hindrance() {
    let duties = "[{type: reference, field: case, pattern: \"^[0-9]{2}-[A-Z]{2}-[0-9]{4}$\"}]";
    assert_eq!(lens(duties).fields().count(), 4);
}

proptest! {
    /// Whatever is asked for, nothing is shown that the clause hides.
    #[test]
    fn narrowing_never_widens(mask in 0u8..16, own in 0u8..16, floor in -5i64..5, area in "north|south", mw in -6i64..6) {
        let names = ["area", "meter", "mw", "time"];
        let pick = |mask: u8| names.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1).map(|(_, n)| (*n).to_owned()).collect::<Vec<_>>();
        prop_assume!(mask != 0);
        let clause = lens(&format!("[{{type: row-filter, where: {{area: {{eq: north}}}}}}, {{type: fields, allow: [{}]}}]", pick(mask).join(", ")));
        if let Ok(narrow) = clause.narrow(&json!({"mw": {"range": {"from": floor}}}), &pick(own), &doc()) {
            prop_assert!(narrow.leaves.is_subset(&clause.leaves));
            let row = row(&area, mw);
            prop_assert!(!narrow.filter.matches(&row) || clause.filter.matches(&row));
        } else {
            prop_assert!(mask >> 2 & 1 == 0 || own & !mask != 0, "only what is hidden is refused");
        }
    }
}
