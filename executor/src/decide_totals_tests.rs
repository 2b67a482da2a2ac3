#![allow(clippy::unwrap_used)]
use super::*;
use crate::decide::{QueryDocument, decide};
use crate::query::FieldType;
use concordat_policies::compile::compile;
use concordat_policies::duty::Capabilities;
use concordat_policies::evaluate::{AgreementSet, Evaluator};
use concordat_policies::template::fill;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::keys::KeyId;
use proptest::prelude::*;
use serde_json::{Map, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const DATASET: &str = "ds:police/stops@1";

fn fields() -> Fields {
    let text = ["stop_id", "problem", "race", "precinct", "neighborhood"].map(|n| (n.to_owned(), FieldType::String));
    let rest = [
        ("time".to_owned(), FieldType::Timestamp),
        ("citation_issued".to_owned(), FieldType::Boolean),
        ("fine".to_owned(), FieldType::Decimal),
    ];
    Fields::new(text.into_iter().chain(rest).collect()).unwrap()
}

fn ask(purpose: &str, role: &str, query: &Value) -> Result<Permitted, Denied> {
    ask_of("", purpose, role, query)
}

/// The decision under the demo's agreement, with more duties in its first clause.
fn ask_of(duties: &str, purpose: &str, role: &str, query: &Value) -> Result<Permitted, Denied> {
    let template = include_str!("../../cli/demo/agreements/AGR-2026-0142.yaml");
    let yaml = fill(template, &[("from", "2026-01-01T00:00:00Z"), ("until", "2027-01-01T00:00:00Z")]).unwrap();
    let yaml = yaml.replacen("  duties:\n", &format!("  duties:\n{duties}"), 1);
    let evaluator = Evaluator::new(compile(&yaml).unwrap(), Capabilities::default()).unwrap();
    let (dataset, court) = (DatasetId::new(DATASET).unwrap(), AgencyId::new("court").unwrap());
    let set = AgreementSet::new(dataset.clone(), court.clone(), [Arc::new(evaluator)]);
    let request = Request {
        chain: "c".into(),
        session: 1,
        n: 1,
        provider: AgencyId::new("police").unwrap(),
        dataset,
        clause: String::new(),
        purpose: purpose.into(),
        case: "26-CR-1042".into(),
        query_hash: [0; 32],
        kem_key_id: KeyId([0; 16]),
        not_after_ms: 0,
    };
    let mut all = json!({"dataset": DATASET, "roles": [role], "actor": "p-1", "nonce": "00".repeat(16)});
    query.as_object().unwrap().iter().for_each(|(k, v)| all[k] = v.clone());
    let document = QueryDocument::read(all.to_string().as_bytes()).unwrap();
    decide(&request, &court, &document, &set, &fields(), 1_790_000_000_000)
}

fn plan_for(query: Value) -> Result<Permitted, Denied> {
    ask("purp:planning", "planner", &query)
}

fn day() -> Value {
    json!({"time": {"time": "2017-03-14"}})
}

#[test]
fn a_clause_that_gives_totals_gives_its_own_groups_and_no_rows() {
    let rows = plan_for(json!({"where": day()})).unwrap_err();
    assert_eq!((rows.reason.as_str(), rows.missing.as_str()), ("aggregate", "a query for totals"));
    assert_eq!(rows.clause, "AGR-2026-0142/S1");
    let totals = plan_for(json!({"aggregate": {}})).unwrap().totals.unwrap();
    let names: Vec<_> = totals.by.iter().map(|k| (k.field.as_str(), k.cut)).collect();
    assert_eq!(names, [("neighborhood", None), ("time", Some(Cut::Month))]);
    assert_eq!(totals.min_group, 10, "the clause's, since the query's is smaller");
    let own = json!({"aggregate": {"by": [{"time": "month"}, "neighborhood"], "min_group": 25}});
    let totals = plan_for(own).unwrap().totals.unwrap();
    assert_eq!((totals.by[0].field.as_str(), totals.min_group), ("time", 25), "the query's, since it is larger");
}

#[test]
fn what_would_tell_of_fewer_than_the_clauses_groups_is_denied() {
    let cases = [
        (json!({"aggregate": {"by": ["neighborhood"]}}), "totals by neighborhood and month of time"),
        (json!({"aggregate": {"by": ["neighborhood", {"time": "day"}]}}), "totals by neighborhood"),
        (json!({"aggregate": {"by": ["neighborhood", {"time": "month"}, "race"]}}), "totals by neighborhood"),
        (json!({"aggregate": {"sum": ["fine"]}}), "totals without sums and means"),
        (json!({"aggregate": {"mean": ["fine"]}}), "totals without sums and means"),
        (json!({"aggregate": {}, "where": {"race": "Black"}}), "condition on race"),
        (json!({"aggregate": {}, "where": {"not": {"stop_id": "17-1"}}}), "condition on stop_id"),
        (json!({"aggregate": {}, "where": day()}), "condition on time"),
        (json!({"aggregate": {}, "where": {"time": "2017-03-01T00:00:00Z"}}), "condition on time"),
        (
            json!({"aggregate": {}, "where": {"time": {"time": {"in": "2017-03", "zone": "America/Chicago"}}}}),
            "condition on time",
        ),
        (
            json!({"aggregate": {}, "where": {"time": {"range": {"from": "2017-03-01T00:00:00.000000001Z"}}}}),
            "condition on time",
        ),
    ];
    for (query, missing) in cases {
        let denied = plan_for(query.clone()).unwrap_err();
        assert_eq!(denied.reason, "aggregate", "{query}: {}", denied.detail);
        let said = format!("{}: {}", denied.missing, denied.detail);
        assert!(said.contains(missing), "{query}: {said}");
        assert_ne!(denied.code, codes::BAD_VALUE, "recorded as a denial");
    }
    for good in [
        json!({"time": {"time": "2017-03"}}),
        json!({"time": {"time": "2017"}}),
        json!({"time": {"range": {"from": "2017-02-28T19:00:00-05:00"}}}),
        json!({"neighborhood": {"prefix": "Lo"}}),
        json!({"or": [{"neighborhood": {"exists": false}}, {"not": {"time": {"time": "2017-03"}}}]}),
    ] {
        let permitted = plan_for(json!({"aggregate": {}, "where": good.clone()}));
        assert!(permitted.is_ok(), "{good}: {:?}", permitted.unwrap_err().detail);
    }
}

#[test]
fn totals_under_a_clause_of_rows_are_made_of_what_it_shows() {
    let clerk = |query: Value| ask("purp:pending-case", "clerk", &query);
    let permitted = clerk(json!({"where": day(), "aggregate": {"by": ["problem"]}})).unwrap();
    let row = |precinct: &str| json!({"time": "2017-03-14T10:00:00Z", "precinct": precinct});
    assert!(permitted.plan.filter.matches(row("1").as_object().unwrap()));
    assert!(!permitted.plan.filter.matches(row("3").as_object().unwrap()), "the row filter holds for totals, too");
    let cases = [
        (json!({"aggregate": {"by": ["problem"]}}), "require-filter"),
        (json!({"where": day(), "aggregate": {"by": ["race"]}}), "fields"),
        (json!({"where": day(), "aggregate": {"sum": ["fine"]}}), "fields"),
        (json!({"where": {"and": [day(), {"race": "Black"}]}, "aggregate": {}}), "fields"),
    ];
    for (query, reason) in cases {
        assert_eq!(clerk(query.clone()).unwrap_err().reason, reason, "{query}");
    }
    let masked = "  - {type: mask, fields: [problem]}\n";
    let by = json!({"where": day(), "aggregate": {"by": ["problem"]}});
    assert_eq!(ask_of(masked, "purp:pending-case", "clerk", &by).unwrap_err().reason, "altered-field");
    for bad in
        [json!({"aggregate": {"by": ["nighborhood"]}}), json!({"aggregate": {}, "limit": 5}), json!({"aggregate": 1})]
    {
        assert_eq!(clerk(bad.clone()).unwrap_err().code, codes::BAD_VALUE, "{bad}");
    }
}

#[test]
fn ten_rows_of_one_person_are_no_group() {
    let person = SubjectField { name: "stop_id".into(), ty: FieldType::String };
    let totals = |min_group| Totals { by: vec![], sum: vec!["fine".into()], mean: vec![], min_group, persons: None };
    let told = |totals: &Totals, rows: &[Value]| {
        let mut groups = BTreeMap::new();
        rows.iter().for_each(|r| totals.add(&mut groups, r.as_object().unwrap()));
        rows_json(&totals.finish(groups))
    };
    let one: Vec<Value> = (0..10).map(|_| json!({"stop_id": "17-1", "fine": "3"})).collect();
    assert_eq!(told(&totals(1), &one), json!([{"count": 10, "sum": {"fine": "30"}}]));
    let of_persons = guarded(totals(1), Some(&person));
    assert_eq!(of_persons.min_group, 5, "a list of single persons is no total");
    assert_eq!(told(&of_persons, &one), json!([]));
    let mut five: Vec<Value> = (0..5).map(|n| json!({"stop_id": format!("17-{n}")})).collect();
    five.extend(one);
    // Five persons, but the fines are all of one: the sum is withheld.
    assert_eq!(told(&of_persons, &five), json!([{"count": 15, "sum": {"fine": null}}]));
}

fn rows_json(groups: &Groups) -> Value {
    rows(groups).into_iter().map(|r| Value::Object(r.doc)).collect()
}

fn a_row() -> impl Strategy<Value = Map<String, Value>> {
    let time = (2016i32..2018, 1u32..13, 1u32..29, 0u32..24);
    (0u32..60, 0usize..4, time, proptest::option::weighted(0.9, Just(()))).prop_map(
        |(person, place, (y, m, d, h), timed)| {
            let place = ["Loring Park", "Lowry Hill", "Uptown"].get(place);
            let time = timed.map(|()| format!("{y}-{m:02}-{d:02}T{h:02}:00:00Z"));
            let row = json!({"stop_id": format!("17-{person}"), "neighborhood": place, "time": time});
            row.as_object().unwrap().clone()
        },
    )
}

fn a_filter() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"neighborhood": "Uptown"})),
        Just(json!({"neighborhood": {"in": ["Uptown", "Lowry Hill"]}})),
        Just(json!({"neighborhood": {"prefix": "Lo"}})),
        Just(json!({"neighborhood": {"exists": false}})),
        Just(json!({"time": {"exists": true}})),
        (2016i32..2018, 1u32..13).prop_map(|(y, m)| json!({"time": {"time": format!("{y}-{m:02}")}})),
        (2016i32..2018, 1u32..13)
            .prop_map(|(y, m)| json!({"time": {"range": {"from": format!("{y}-{m:02}-01T00:00:00Z")}}})),
        // These two would cut a month.
        (1u32..13, 2u32..29)
            .prop_map(|(m, d)| json!({"time": {"range": {"to": format!("2017-{m:02}-{d:02}T00:00:00Z")}}})),
        (0u32..60).prop_map(|n| json!({"stop_id": format!("17-{n}")})),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..3).prop_map(|all| json!({"and": all})),
            proptest::collection::vec(inner.clone(), 1..3).prop_map(|all| json!({"or": all})),
            inner.prop_map(|one| json!({"not": one})),
        ]
    })
}

/// Neighbourhood and month.
type Labels<'a> = (Option<&'a str>, Option<&'a str>);

proptest! {
    // Whatever filter is let through, the answer is a part of the one table: nothing can be subtracted.
    #[test]
    fn every_answer_is_a_part_of_one_table(
        data in proptest::collection::vec(a_row(), 0..200),
        filter in a_filter(),
        persons in any::<bool>(),
    ) {
        let subject = SubjectField { name: "stop_id".into(), ty: FieldType::String };
        let subject = persons.then_some(&subject);
        let answer = |query: Value| {
            let permitted = plan_for(query).ok()?;
            let totals = guarded(permitted.totals.unwrap(), subject);
            let mut groups = BTreeMap::new();
            data.iter().filter(|r| permitted.plan.filter.matches(r)).for_each(|r| totals.add(&mut groups, r));
            Some(rows_json(&totals.finish(groups)).as_array().unwrap().clone())
        };
        // The table again, by nothing of the product.
        let mut naive: BTreeMap<Labels<'_>, (u64, BTreeSet<&str>)> = BTreeMap::new();
        for row in &data {
            let text = |field: &str| row[field].as_str();
            let group = naive.entry((text("neighborhood"), text("time").map(|t| &t[..7]))).or_default();
            group.0 += 1;
            group.1.insert(text("stop_id").unwrap());
        }
        let large = |(_, (count, people)): &(_, &(u64, BTreeSet<&str>))| {
            *count >= 10 && (!persons || people.len() >= 10)
        };
        let table: Vec<Value> = naive
            .iter()
            .filter(large)
            .map(|((place, month), (count, _))| json!({"by": {"neighborhood": place, "time": month}, "count": count}))
            .collect();
        prop_assert_eq!(&answer(json!({"aggregate": {}})).unwrap(), &table);
        if let Some(part) = answer(json!({"aggregate": {}, "where": filter})) {
            prop_assert!(part.iter().all(|g| table.contains(g)), "{:?} is no part of {:?}", part, table);
        }
    }
}
