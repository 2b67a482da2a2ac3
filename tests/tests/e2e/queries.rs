//! What a clerk asks, gets and is denied.

use crate::World;
use concordat_tests::harness::{Agreement, City, Client};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The stops of one day in 2017.
pub fn day(day: &str, next: &str) -> Value {
    json!({"time": {"range": {"from": format!("{day}T00:00:00Z"), "to": format!("{next}T00:00:00Z")}}})
}

/// The demo's query under clause C1.
pub fn stops() -> Value {
    json!({
        "dataset": "ds:police/stops@1", "purpose": "purp:pending-case", "case": "26-CR-1042", "limit": 1000,
        "where": day("2017-03-14", "2017-03-15"),
    })
}

/// A body with some members changed.
pub fn with(mut body: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

fn clerk(world: &World) -> Client {
    world.shared().api("court", "clerk")
}

/// The rows of the original file, read here and by nothing of the product: id to (time, precinct).
pub fn original(city: &City) -> BTreeMap<String, (String, String)> {
    let file = std::fs::File::open(city.dir("police").join("data/police_stops_2017.csv.gz")).expect("the data");
    let mut reader = csv::Reader::from_reader(flate2::read::GzDecoder::new(file));
    let rows = reader.records().map(|r| r.expect("a row"));
    rows.map(|r| (r[0].to_owned(), (r[1].to_owned(), r[11].to_owned()))).collect()
}

fn ids(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|r| r["stop_id"].as_str().expect("a stop_id").to_owned()).collect()
}

pub fn released_rows_are_those_of_the_file(world: &World) {
    let city = world.shared();
    let answer = clerk(world).query(&stops()).is(200);
    // The clause's row filter opens the precincts 1 and 2 only.
    let expected: BTreeSet<String> = original(city)
        .into_iter()
        .filter(|(_, (time, precinct))| time.starts_with("2017-03-14") && ["1", "2"].contains(&precinct.as_str()))
        .map(|(id, _)| id)
        .collect();
    let got: BTreeSet<String> = ids(answer.rows()).into_iter().collect();
    assert_eq!(got.len(), answer.rows().len(), "a row came twice");
    assert_eq!(got, expected);
    assert_eq!(expected.len(), 47);
    let open = ["citation_issued", "neighborhood", "problem", "stop_id", "time"];
    for row in answer.rows() {
        let fields: Vec<&String> = row.as_object().expect("an object").keys().collect();
        assert!(fields.iter().all(|f| open.contains(&f.as_str())), "{fields:?}");
    }
    assert_eq!((answer.text("agreement").as_str(), answer.text("clause").as_str()), ("AGR-2026-0142", "C1"));
    let entry = city.entry("court", answer.op());
    assert_eq!((entry.verdict.word(), entry.writer.as_str()), ("accepted", "police/executor"));
    assert_eq!(answer.body["height"], entry.height);
}

pub fn select_order_and_limit(world: &World) {
    let body = with(stops(), json!({"select": ["stop_id", "time"], "limit": 3, "order": "-key"}));
    let newest = clerk(world).query(&body).is(200);
    let mut all: Vec<String> = ids(clerk(world).query(&stops()).is(200).rows());
    assert!(all.is_sorted(), "by key, unless asked otherwise: {all:?}");
    all.reverse();
    assert_eq!(ids(newest.rows()), all[..3]);
    for row in newest.rows() {
        let fields: Vec<&String> = row.as_object().expect("an object").keys().collect();
        assert_eq!(fields, ["stop_id", "time"]);
    }
    let none = with(stops(), json!({"where": {"stop_id": {"eq": "17-nothing"}}}));
    let empty = clerk(world).query(&none).is(200);
    assert!(empty.rows().is_empty(), "an empty result is a release like any other: {}", empty.body);
    assert_eq!(world.shared().entry("court", empty.op()).verdict.word(), "accepted");
    // A row that exists, in a precinct that the clause does not open, looks the same.
    let hidden = original(world.shared()).into_iter().find(|(_, (_, precinct))| precinct == "4").expect("a stop");
    let closed = with(stops(), json!({"where": {"stop_id": {"eq": hidden.0}}}));
    assert!(clerk(world).query(&closed).is(200).rows().is_empty());
}

pub fn denials_name_clause_and_missing_term(world: &World) {
    let race = json!({"and": [day("2017-03-14", "2017-03-15"), {"race": {"eq": "Black"}}]});
    let wide = day("2017-03-01", "2017-03-15");
    let cases = [
        ("fields", "field race", json!({"where": race})),
        ("fields", "field race", json!({"select": ["stop_id", "race"]})),
        ("require-filter", "stop_id or time within 24 h", json!({"where": {"problem": {"eq": "traffic"}}})),
        ("require-filter", "stop_id or time within 24 h", json!({"where": wide})),
        ("reference", "a case reference", json!({"case": "26-1042"})),
        ("reference", "a case reference", json!({"case": ""})),
        ("purpose", "the purpose purp:pending-case", json!({"purpose": "purp:curiosity"})),
        ("unknown-clause", "a clause that grants something", json!({"clause": "C9"})),
        ("prohibited", "", json!({"purpose": "purp:profiling"})),
    ];
    for (reason, missing, changes) in cases {
        let said = clerk(world).query(&with(stops(), changes.clone())).is(403);
        assert_eq!((said.text("code").as_str(), said.text("reason").as_str()), ("denied", reason), "{changes}");
        assert!(said.text("missing").starts_with(missing), "{changes}: {}", said.body);
        assert!(said.body["rows"].is_null(), "{changes}");
        let clause = if reason == "prohibited" { "AGR-2026-0142/X1" } else { "AGR-2026-0142/C1" };
        assert!(reason == "unknown-clause" || said.text("clause") == clause, "{changes}: {}", said.body);
        assert_eq!(world.shared().entry("court", said.op()).verdict.word(), "accepted", "the denial is on the ledger");
    }
    let planner = world.shared().api("court", "planner");
    let said = planner.query(&with(stops(), json!({"clause": "C1"}))).is(403);
    assert_eq!((said.text("reason").as_str(), said.text("missing").as_str()), ("role", "the role role:clerk"));
    // An adapter's token asks nothing at all.
    world.shared().api("court", "adapter").query(&stops()).is(403);
    Client::new(&world.shared().config("court").listen, &"0".repeat(48)).query(&stops()).is(401);
    // A third agency has no agreement, and is not told what others have.
    let stranger = world.shared().api("grid", "clerk").query(&stops()).is(403);
    assert!(!stranger.body.to_string().contains("C1"), "{}", stranger.body);
}

pub fn mistakes_are_usage_errors(world: &World) {
    let city = world.shared();
    let cases = [
        (r#"{"problm": {"eq": "traffic"}}"#, "did you mean problem?", "/where/problm"),
        (r#"{"time": {"rnge": {}}}"#, "did you mean range?", "/where/time/rnge"),
        (r#"{"stop_id": {"eq": {"a": 1}}}"#, "", "/where/stop_id"),
        (r#"{"time": {"range": {"from": "yesterday", "to": "today"}}}"#, "", "/where/time"),
        (r#"{"time""#, "", "--where"),
    ];
    for (filter, hint, place) in cases {
        let args = ["--dataset", "ds:police/stops@1", "--purpose", "purp:pending-case", "--case", "26-CR-1042"];
        let line =
            [&["--context", "court/clerk", "query", "run", "--output", "json", "--where", filter][..], &args].concat();
        let problem = city.run(&line).ends(2).problem();
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(hint) && detail.contains(place), "{filter}: {problem}");
    }
    let mistakes = [
        (json!({"select": ["tme"]}), "did you mean time?"),
        (json!({"limit": 0}), "limit"),
        (json!({"limit": 100_000}), "limit"),
        (json!({"order": "newest"}), "order"),
        (json!({"filter": {}}), "filter"),
        (json!({"purpose": "pending-case"}), "purpose"),
    ];
    for (changes, hint) in mistakes {
        let said = clerk(world).query(&with(stops(), changes.clone()));
        assert!([400, 422].contains(&said.status), "{changes}: {} {}", said.status, said.body);
        assert!(said.text("detail").contains(hint), "{changes}: {}", said.body);
    }
    let unknown = clerk(world).query(&with(stops(), json!({"dataset": "ds:police/stps@1"}))).is(404);
    assert_eq!(unknown.text("code"), "unknown-dataset");
}

pub fn one_idempotency_key_is_one_operation(world: &World) {
    let (city, clerk) = (world.shared(), clerk(world));
    let key = [("idempotency-key", "e2e-once")];
    let first = clerk.query_with(&stops(), &key).is(200);
    let size = city.log_size("court");
    let again = clerk.query_with(&stops(), &key).is(200);
    assert_eq!(again.op(), first.op());
    assert_eq!(again.body["rows"], first.body["rows"]);
    assert_eq!(city.log_size("court"), size, "the second answer has no operation of its own");
    let other = clerk.query_with(&with(stops(), json!({"limit": 5})), &key).is(422);
    assert_eq!(other.text("code"), "idempotency-key-reused");
    // Another caller's key is another key.
    let officer = city.api("court", "planner").query_with(&stops(), &key);
    assert_eq!(officer.status, 403, "{}", officer.body);
    // Many at once are one, too.
    let key = [("idempotency-key", "e2e-at-once")];
    let body = stops();
    let answers =
        concordat_tests::harness::wait(futures::future::join_all((0..8).map(|_| clerk.query_async(&body, &key))));
    let ops: BTreeSet<u64> = answers.iter().filter(|a| a.status == 200).map(|a| a.op()).collect();
    assert_eq!(ops.len(), 1, "{ops:?}");
    assert!(
        answers.iter().all(|a| [200, 409].contains(&a.status)),
        "{:?}",
        answers.iter().map(|a| a.status).collect::<Vec<_>>()
    );
}

pub fn a_denial_is_recorded_and_why_explains_it(world: &World) {
    let city = world.shared();
    let said = clerk(world).query(&with(stops(), json!({"case": "no-case"}))).is(403);
    let op = format!("op:{}", said.op());
    let why = city.run(&["--context", "court/clerk", "why", &op, "--output", "json"]).done().json();
    assert_eq!((why["outcome"].as_str(), why["case"].as_str()), (Some("denied"), Some("no-case")), "{why}");
    assert!(why["sentence"].as_str().unwrap_or_default().contains("a case reference of the form"), "{why}");
    assert_eq!(why["ledger"]["verdict"], "accepted", "{why}");
    let by_request =
        city.run(&["--context", "court/clerk", "why", &said.text("request_id"), "--output", "json"]).done().json();
    assert_eq!(by_request["operation"], op);
    // Another person of the same agency is not told, its operator is; another agency knows nothing.
    city.run(&["--context", "court/planner", "why", &op]).ends(5);
    city.run(&["--context", "court/operator", "why", &op]).done();
    city.run(&["--context", "grid/operator", "why", &op]).ends(5);
    city.run(&["--context", "court/clerk", "why", "op:99999999"]).ends(5);
}

pub fn a_quota_ends(world: &World) {
    let city = world.shared();
    let mut agreement = Agreement::new("AGR-2026-9301", "quota-test");
    agreement.duties.push("{type: quota, max: 2, per: day}".into());
    agreement.activate(city);
    let clerk = clerk(world);
    let body = json!({"dataset": "ds:police/stops@1", "purpose": agreement.purpose, "limit": 1, "where": {"stop_id": {"eq": "17-089556"}}});
    let denied = with(body.clone(), json!({"select": ["race"]}));
    clerk.query(&denied).is(403);
    clerk.query(&body).is(200);
    let key = [("idempotency-key", "e2e-quota")];
    clerk.query_with(&body, &key).is(200);
    // The same request again takes no unit; a denial took none either.
    clerk.query_with(&body, &key).is(200);
    let over = clerk.query(&body).is(403);
    assert_eq!(over.body["ledger_code"], 410, "{}", over.body);
    let entry = city.entry("court", over.op());
    assert_eq!((entry.verdict.word(), entry.code), ("refused", 410));
}
