//! Totals through the gateway: planners count stops by month and neighbourhood, and see no stop.

use crate::World;
use crate::queries::{day, stops, with};
use concordat_tests::harness::{City, Client};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn planner(world: &World) -> Client {
    world.shared().api("court", "planner")
}

/// What a planner asks under the demo's clause S1.
fn asked(more: Value) -> Value {
    with(json!({"dataset": "ds:police/stops@1", "purpose": "purp:planning", "aggregate": {}}), more)
}

/// Stops by neighbourhood and month, counted from the original file and by nothing of the product.
fn counted(city: &City) -> BTreeMap<(String, String), u64> {
    let file = std::fs::File::open(city.dir("police").join("data/police_stops_2017.csv.gz")).expect("the data");
    let mut reader = csv::Reader::from_reader(flate2::read::GzDecoder::new(file));
    let headers = reader.headers().expect("a header").clone();
    let column = |name: &str| headers.iter().position(|h| h == name).expect("the column");
    let (place, time) = (column("neighborhood"), column("time"));
    let mut groups = BTreeMap::new();
    for row in reader.records() {
        let row = row.expect("a row");
        *groups.entry((row[place].to_owned(), row[time][..7].to_owned())).or_default() += 1;
    }
    groups
}

/// An answer's groups.
fn told(rows: &[Value]) -> BTreeMap<(String, String), u64> {
    let group = |r: &Value| {
        let text = |field: &str| r["by"][field].as_str().unwrap_or_default().to_owned();
        assert_eq!(r.as_object().expect("an object").keys().collect::<Vec<_>>(), ["by", "count"], "{r}");
        ((text("neighborhood"), text("time")), r["count"].as_u64().expect("a count"))
    };
    rows.iter().map(group).collect()
}

pub fn the_groups_are_those_of_the_file(world: &World) {
    let city = world.shared();
    let all = counted(city);
    let large: BTreeMap<_, _> = all.iter().filter(|(_, n)| **n >= 10).map(|(k, n)| (k.clone(), *n)).collect();
    let (march, small) = (|k: &(String, String)| k.1 == "2017-03", all.len() - large.len());
    assert!(small > 50, "the file has groups that are too small to be told: {small}");
    let answer = planner(world).query(&asked(json!({}))).is(200);
    assert_eq!(told(answer.rows()), large);
    assert_eq!((answer.text("agreement").as_str(), answer.text("clause").as_str()), ("AGR-2026-0142", "S1"));
    // A part of the same table: a filter chooses groups.
    let of_march = planner(world).query(&asked(json!({"where": {"time": {"time": "2017-03"}}}))).is(200);
    let expected: BTreeMap<_, _> = large.iter().filter(|(k, _)| march(k)).map(|(k, n)| (k.clone(), *n)).collect();
    assert_eq!(told(of_march.rows()), expected);
    let larger = planner(world).query(&asked(json!({"aggregate": {"min_group": 100}}))).is(200);
    assert_eq!(told(larger.rows()), large.iter().filter(|(_, n)| **n >= 100).map(|(k, n)| (k.clone(), *n)).collect());
    // Groups too small and groups that are not there look the same.
    let hidden = all.iter().find(|(_, n)| **n < 10).expect("a small group").0;
    let only = |place: &str| asked(json!({"where": {"neighborhood": place, "time": {"time": hidden.1}}}));
    for place in [hidden.0.as_str(), "Nowhere"] {
        let none = planner(world).query(&only(place)).is(200);
        assert!(none.rows().is_empty(), "{}", none.body);
        assert!(none.body.get("left_out").is_none(), "{}", none.body);
    }
    assert_eq!(city.entry("court", answer.op()).verdict.word(), "accepted");
}

pub fn no_row_is_told_under_a_clause_of_totals(world: &World) {
    let city = world.shared();
    let cases = [
        (
            json!({"purpose": "purp:planning", "dataset": "ds:police/stops@1", "where": day("2017-03-14", "2017-03-15")}),
            "a query for totals",
        ),
        (
            asked(json!({"where": day("2017-03-14", "2017-03-15")})),
            "a filter on neighborhood and month of time that cuts no group",
        ),
        (
            asked(json!({"where": {"stop_id": "17-089556"}})),
            "a filter on neighborhood and month of time that cuts no group",
        ),
        (
            asked(json!({"aggregate": {"by": ["neighborhood", {"time": "day"}]}})),
            "totals by neighborhood and month of time",
        ),
        (asked(json!({"aggregate": {"by": ["stop_id"]}})), "totals by neighborhood and month of time"),
    ];
    for (body, missing) in cases {
        let said = planner(world).query(&body).is(403);
        assert_eq!((said.text("reason").as_str(), said.text("missing").as_str()), ("aggregate", missing), "{body}");
        assert_eq!(said.text("clause"), "AGR-2026-0142/S1");
        assert_eq!(city.entry("court", said.op()).verdict.word(), "accepted", "the denial is on the ledger");
    }
    // Under a clause of rows totals are made of what it opens: 47 stops of that day, of persons who are all different.
    let clerk = city.api("court", "clerk");
    let mut by_problem = with(stops(), json!({"aggregate": {"by": ["problem"], "min_group": 1}}));
    by_problem.as_object_mut().expect("an object").remove("limit");
    let groups = clerk.query(&by_problem).is(200);
    let rows = clerk.query(&stops()).is(200);
    let mut naive: BTreeMap<String, u64> = BTreeMap::new();
    rows.rows()
        .iter()
        .for_each(|r| *naive.entry(r["problem"].as_str().unwrap_or_default().to_owned()).or_default() += 1);
    naive.retain(|_, n| *n >= 5);
    let told: BTreeMap<String, u64> = groups
        .rows()
        .iter()
        .map(|r| (r["by"]["problem"].as_str().unwrap_or_default().to_owned(), r["count"].as_u64().unwrap()))
        .collect();
    assert_eq!(told, naive, "never fewer than five persons, whatever the query asks for");
    let closed = with(by_problem, json!({"aggregate": {"by": ["race"]}}));
    assert_eq!(clerk.query(&closed).is(403).text("missing"), "field race");
}

pub fn totals_have_a_receipt_and_meet_nobody(world: &World) {
    let city = world.shared();
    let folder = world.folder("totals");
    let receipt = folder.join("totals.receipt").to_string_lossy().into_owned();
    let line = ["query", "run", "--dataset", "ds:police/stops@1", "--purpose", "purp:planning"];
    let more = ["--where", r#"{"time": {"time": "2017-03"}}"#, "--aggregate", "{}", "--receipt", &receipt];
    let context = ["--context", "court/planner"];
    let shown = city.run(&[&context[..], &line, &more].concat()).done();
    let head = shown.out.lines().next().unwrap_or_default();
    assert!(head.starts_with("NEIGHBORHOOD") && head.contains("TIME") && head.ends_with("COUNT"), "{}", shown.out);
    assert!(shown.err.contains("groups, clause S1"), "{}", shown.err);
    let trust = city.root.join("trust.json").to_string_lossy().into_owned();
    let verified = city.run(&["verify", "receipt", &receipt, "--trust", &trust, "--output", "json"]).done().json();
    assert_eq!(
        (verified["valid"].as_bool(), verified["verdict"].as_str()),
        (Some(true), Some("accepted")),
        "{verified}"
    );
    let mistake = city.run(&[&context[..], &line, &["--aggregate", r#"{"by": ["nighborhood"]}"#]].concat()).ends(2);
    assert!(mistake.err.contains("did you mean neighborhood?"), "{}", mistake.err);
    // No one counted is on the list of those whose records were looked at.
    let op: u64 =
        verified["operation"].as_str().and_then(|o| o.strip_prefix("op:")?.parse().ok()).expect("an operation");
    let store = rusqlite::Connection::open(city.dir("police").join("executor/releases.sqlite")).unwrap();
    let touched = "SELECT count(*) FROM (SELECT session, n FROM touched UNION ALL SELECT session, n FROM touched_new)
                   NATURAL JOIN release WHERE op_index = ?1";
    let met: i64 = store.query_row(touched, [op as i64], |r| r.get(0)).unwrap();
    assert_eq!(met, 0);
}
