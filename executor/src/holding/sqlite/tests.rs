#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::super::PageEnd;
use super::*;
use crate::limits::MAX_PUT_ROWS;
use crate::query::{FieldType, Fields, Order, Query, parse_filter};

fn spec(id: &str, key: &[&str], fields: &[(&str, FieldType)], indexes: &[&[&str]]) -> DatasetSpec {
    let names = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
    DatasetSpec {
        id: id.into(),
        key: names(key),
        fields: Fields::new(fields.iter().map(|(n, t)| (n.to_string(), *t)).collect()).unwrap(),
        indexes: indexes.iter().map(|i| names(i)).collect(),
    }
}

pub(super) const SMALL: [(&str, FieldType); 6] = [
    ("id", FieldType::String),
    ("s", FieldType::String),
    ("i", FieldType::Integer),
    ("d-x", FieldType::Decimal),
    ("b", FieldType::Boolean),
    ("t", FieldType::Timestamp),
];

pub(in crate::holding) fn small() -> DatasetSpec {
    spec("ds:x/small@1", &["id"], &SMALL, &[&["s"], &["i"], &["d-x", "s"], &["t"]])
}

fn opened(dir: &TempDir, options: SqliteOptions) -> SqliteHolding {
    SqliteHolding::open(&dir.path().join("holdings.sqlite"), options).unwrap()
}

pub(in crate::holding) fn fresh(spec: &DatasetSpec) -> (TempDir, SqliteHolding) {
    let dir = TempDir::new().unwrap();
    let holding = opened(&dir, SqliteOptions::default());
    holding.ensure_dataset(spec).unwrap();
    (dir, holding)
}

fn rows(list: Value) -> Vec<Map<String, Value>> {
    serde_json::from_value(list).unwrap()
}

fn plan(spec: &DatasetSpec, filter: Value) -> Plan {
    Plan::new(&spec.id, parse_filter(&filter, &spec.fields, "").unwrap())
}

fn keys(found: &Rows) -> Vec<&str> {
    found.rows.iter().map(|r| r.key.as_str()).collect()
}

const STOPS: &str = "ds:police/stops@1";

fn stops_spec() -> DatasetSpec {
    use FieldType::*;
    let fields = [
        ("stop_id", String),
        ("time", Timestamp),
        ("problem", String),
        ("citation_issued", String),
        ("person_search", String),
        ("vehicle_search", String),
        ("pre_race", String),
        ("race", String),
        ("gender", String),
        ("lat", Decimal),
        ("long", Decimal),
        ("precinct", String),
        ("neighborhood", String),
    ];
    spec(STOPS, &["stop_id"], &fields, &[&["time"], &["precinct"]])
}

fn real_stops() -> Vec<Map<String, Value>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/demo/data/police_stops_2017.csv.gz");
    let file = std::fs::File::open(path).expect("the sample data is part of the project");
    let mut csv = csv::Reader::from_reader(flate2::read::GzDecoder::new(file));
    let names = csv.headers().unwrap().clone();
    csv.records()
        .map(|record| {
            let record = record.unwrap();
            let filled = names.iter().zip(record.iter()).filter(|(_, v)| !v.is_empty());
            filled.map(|(n, v)| (n.to_string(), json!(v))).collect()
        })
        .collect()
}

#[test]
fn a_day_of_real_stops_is_found_by_index_with_only_the_asked_fields() {
    let spec = stops_spec();
    let (_dir, holding) = fresh(&spec);
    let stops = real_stops();
    let mut inserted = 0;
    for batch in stops.chunks(10_000) {
        inserted += holding.put_many(STOPS, batch).unwrap().inserted;
    }
    assert_eq!((inserted, holding.count(STOPS, &Filter::All).unwrap()), (51_920, 51_920));

    let query = json!({"dataset": STOPS, "limit": 1000, "select": ["stop_id", "time", "problem", "citation_issued", "neighborhood"],
        "where": {"precinct": {"in": ["1", "2"]}, "time": {"range": {"from": "2017-03-14T00:00:00Z", "to": "2017-03-15T00:00:00Z"}}}});
    let plan = Plan::from(Query::parse(&query, &spec.fields).unwrap());
    let found = holding.query(&plan).unwrap();
    assert_eq!((found.rows.len(), found.end, found.scanned), (47, PageEnd::Complete, Some(0)));
    let explained = holding.explain(&plan).unwrap();
    assert!(explained.contains("USING INDEX d1.time"), "{explained}");

    let by_hand: Vec<&Map<String, Value>> = stops.iter().filter(|r| plan.filter.matches(r)).collect();
    assert_eq!(by_hand.len(), 47);
    for row in &found.rows {
        let whole = by_hand.iter().find(|r| r["stop_id"] == json!(row.key)).unwrap();
        let allowed = ["stop_id", "time", "problem", "citation_issued", "neighborhood"];
        let wanted: Map<String, Value> =
            allowed.iter().filter_map(|n| Some((n.to_string(), whole.get(*n)?.clone()))).collect();
        assert_eq!(row.doc, wanted);
    }
    let mut sorted = keys(&found);
    sorted.sort_unstable();
    assert_eq!(keys(&found), sorted);

    let one = self::plan(&spec, json!({"stop_id": {"in": ["17-089556", "17-000003", "nobody"]}}));
    let found = holding.query(&one).unwrap();
    assert_eq!((keys(&found), found.scanned), (vec!["17-000003", "17-089556"], Some(0)));
    let explained = holding.explain(&one).unwrap();
    assert!(explained.contains("USING INDEX d1.stop_id"), "{explained}");
    // The proof that the figure is no constant: without an index the same rows are found by a scan.
    let slow = holding.query(&self::plan(&spec, json!({"lat": "44.96661711"}))).unwrap();
    assert!(!slow.rows.is_empty() && slow.scanned > Some(50_000), "{:?}", slow.scanned);
}

#[test]
fn pages_follow_each_other_without_gap_or_repeat() {
    let spec = small();
    let (_dir, holding) = fresh(&spec);
    let all: Vec<_> = (0..250).map(|n| json!({"id": format!("k{n:03}"), "i": n % 7})).collect();
    holding.put_many(&spec.id, &rows(Value::Array(all))).unwrap();
    for (filter, order) in [
        (json!({}), Order::Key),
        (json!({}), Order::KeyDescending),
        (json!({"i": {"in": [1, 3]}}), Order::Key),
        (json!({"i": {"ne": 1}}), Order::KeyDescending),
    ] {
        let mut p = plan(&spec, filter);
        (p.order, p.limit) = (order, 13);
        let mut seen: Vec<String> = Vec::new();
        loop {
            let page = holding.query(&p).unwrap();
            seen.extend(page.rows.iter().map(|r| r.key.clone()));
            match page.next_after() {
                Some(key) => p.after = Some(key.to_string()),
                None => break,
            }
        }
        let mut wanted: Vec<String> = (0..250)
            .filter(|n| p.filter.matches(rows(json!([{"i": n % 7}])).first().unwrap()))
            .map(|n| format!("k{n:03}"))
            .collect();
        if order == Order::KeyDescending {
            wanted.reverse();
        }
        assert_eq!(seen, wanted);
    }
}

#[test]
fn large_rows_end_a_page_early_and_lose_nothing() {
    let spec = small();
    let (_dir, holding) = fresh(&spec);
    let text = "x".repeat(200_000);
    let all: Vec<_> = (0..30).map(|n| json!({"id": format!("k{n:02}"), "s": text})).collect();
    holding.put_many(&spec.id, &rows(Value::Array(all))).unwrap();
    let mut p = plan(&spec, json!({}));
    let first = holding.query(&p).unwrap();
    assert_eq!(first.end, PageEnd::Bytes);
    assert!(first.rows.len() < 30);
    p.after = first.next_after().map(String::from);
    let second = holding.query(&p).unwrap();
    assert_eq!((second.end, first.rows.len() + second.rows.len()), (PageEnd::Complete, 30));
}

#[test]
fn a_repeat_changes_nothing_and_one_bad_row_keeps_the_whole_batch_out() {
    let spec = small();
    let (_dir, holding) = fresh(&spec);
    let put = |v: Value| holding.put_many(&spec.id, &rows(v));
    let batch = json!([{"id": "a", "s": "x\"'%;"}, {"id": "b", "d-x": 0.1, "t": "2017-03-14T02:00:00+02:00"}]);
    assert_eq!(put(batch.clone()).unwrap(), PutReport { inserted: 2, updated: 0, unchanged: 0 });
    assert_eq!(put(batch).unwrap(), PutReport { inserted: 0, updated: 0, unchanged: 2 });
    assert_eq!(put(json!([{"id": "a", "s": "y"}, {"id": "a", "s": "z"}])).unwrap().updated, 2);
    assert_eq!(put(json!([{"id": "c"}, {"id": "d", "i": "1"}])).unwrap_err().code(), "holding.type");
    assert_eq!(holding.get(&spec.id, "c").unwrap(), None);
    assert_eq!(Value::Object(holding.get(&spec.id, "a").unwrap().unwrap()), json!({"id": "a", "s": "z"}));
    let b = holding.get(&spec.id, "b").unwrap().unwrap();
    assert_eq!(Value::Object(b), json!({"id": "b", "d-x": 0.1, "t": "2017-03-14T02:00:00+02:00"}));
    let many = vec![Map::new(); MAX_PUT_ROWS + 1];
    assert_eq!(holding.put_many(&spec.id, &many).unwrap_err().code(), "holding.too-large");
    assert_eq!(holding.put_many("ds:no/such@1", &[]).unwrap_err().code(), "holding.unknown-dataset");
}

#[test]
fn constants_and_keys_are_data_never_sql() {
    let spec = small();
    let (_dir, holding) = fresh(&spec);
    let evil = "'); DROP TABLE d1; --";
    holding.put_many(&spec.id, &rows(json!([{"id": evil, "s": evil}, {"id": "x"}]))).unwrap();
    for f in [json!({"s": evil}), json!({"s": {"in": [evil, "\"]"]}}), json!({"s": {"prefix": "'); DROP"}})] {
        assert_eq!(keys(&holding.query(&plan(&spec, f)).unwrap()), [evil]);
    }
    assert!(holding.get(&spec.id, evil).unwrap().is_some());
    let mut p = plan(&spec, json!({}));
    p.select = Some(vec!["s' || key || '".into()]);
    assert_eq!(holding.query(&p).unwrap_err().code(), "holding.plan");
    assert_eq!(holding.count(&spec.id, &Filter::All).unwrap(), 2);
}

#[test]
fn what_is_held_survives_reopening_and_a_spec_only_grows() {
    let dir = TempDir::new().unwrap();
    let old = small();
    {
        let holding = opened(&dir, SqliteOptions::default());
        holding.ensure_dataset(&old).unwrap();
        holding.put_many(&old.id, &rows(json!([{"id": "a", "i": 5}]))).unwrap();
    }
    let holding = opened(&dir, SqliteOptions::default());
    assert_eq!(holding.spec(&old.id).unwrap(), old);
    assert_eq!(holding.count(&old.id, &Filter::All).unwrap(), 1);

    let mut grown = SMALL.to_vec();
    grown.push(("extra", FieldType::Decimal));
    let new = spec(&old.id, &["id"], &grown, &[&["b"], &["extra"]]);
    holding.ensure_dataset(&new).unwrap();
    holding.put_many(&new.id, &rows(json!([{"id": "b", "extra": "7.0"}]))).unwrap();
    let by_extra = plan(&new, json!({"extra": 7}));
    assert_eq!(keys(&holding.query(&by_extra).unwrap()), ["b"]);
    assert!(holding.explain(&by_extra).unwrap().contains("d1.extra"));
    let by_s = plan(&new, json!({"s": "x"}));
    assert!(holding.explain(&by_s).unwrap().starts_with("SCAN"), "the dropped index is gone");

    assert_eq!(holding.ensure_dataset(&old).unwrap_err().code(), "holding.spec-conflict");
    let mut other = new.clone();
    other.key = vec!["s".into()];
    assert_eq!(holding.ensure_dataset(&other).unwrap_err().code(), "holding.spec-conflict");
    other.indexes = vec![vec!["nowhere".into()]];
    assert_eq!(holding.ensure_dataset(&other).unwrap_err().code(), "holding.spec");
    assert_eq!(holding.health().unwrap().datasets, 1);
}

#[test]
fn full_disk_lock_timeout_and_foreign_file_are_told_apart() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("holdings.sqlite");
    let spec = small();
    let quick =
        |max_bytes| SqliteOptions { lock_timeout: Duration::from_millis(1), max_bytes, ..SqliteOptions::default() };
    let holding = SqliteHolding::open(&path, quick(Some(256 * 1024))).unwrap();
    holding.ensure_dataset(&spec).unwrap();
    holding.put_many(&spec.id, &rows(json!([{"id": "kept"}]))).unwrap();
    let text = "x".repeat(1_000);
    let big: Vec<_> = (0..1_000).map(|n| json!({"id": format!("{n}"), "s": text})).collect();
    let full = holding.put_many(&spec.id, &rows(Value::Array(big))).unwrap_err();
    assert_eq!((full.code(), full.retry()), ("holding.disk-full", true));
    assert_eq!(keys(&holding.query(&plan(&spec, json!({}))).unwrap()), ["kept"]);
    holding.put_many(&spec.id, &rows(json!([{"id": "small"}]))).unwrap();

    let intruder = Connection::open(&path).unwrap();
    intruder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let put = holding.put_many(&spec.id, &rows(json!([{"id": "z"}])));
    assert_eq!(put.unwrap_err().code(), "holding.locked");
    assert_eq!(holding.health().unwrap_err().code(), "holding.locked");
    assert_eq!(holding.count(&spec.id, &Filter::All).unwrap(), 2, "reads go on");
    intruder.execute_batch("ROLLBACK").unwrap();
    holding.health().unwrap();

    std::fs::write(dir.path().join("text"), vec![b'x'; 8192]).unwrap();
    let open = |name: &str| SqliteHolding::open(&dir.path().join(name), quick(None)).err().unwrap();
    assert_eq!(open("text").code(), "holding.damaged");
    assert_eq!(open("no/such/folder").code(), "holding.access");
    let other = Connection::open(dir.path().join("other")).unwrap();
    other.execute_batch("CREATE TABLE mine (x)").unwrap();
    assert_eq!(open("other").code(), "holding.damaged");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(open("holdings.sqlite").code(), "holding.format");
}

#[test]
fn a_read_past_its_time_is_stopped_and_the_next_one_works() {
    let dir = TempDir::new().unwrap();
    let spec = small();
    let options = SqliteOptions { readers: 1, statement_timeout: Duration::ZERO, ..SqliteOptions::default() };
    let all: Vec<_> = (0..5_000).map(|n| json!({"id": format!("{n}"), "i": n})).collect();
    {
        let holding = opened(&dir, options);
        holding.ensure_dataset(&spec).unwrap();
        holding.put_many(&spec.id, &rows(Value::Array(all))).unwrap();
        let slow = parse_filter(&json!({"b": true}), &spec.fields, "").unwrap();
        for _ in 0..3 {
            assert_eq!(holding.count(&spec.id, &slow).unwrap_err().code(), "holding.timeout");
        }
        assert!(holding.get(&spec.id, "7").unwrap().is_some(), "the one connection was given back");
    }
}

#[cfg(unix)]
#[test]
fn the_file_is_its_owners_alone_and_commits_are_synced() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, holding) = fresh(&small());
    holding.put_many("ds:x/small@1", &rows(json!([{"id": "a"}]))).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
    }
    let synchronous: i64 = held(&holding.writer).pragma_query_value(None, "synchronous", |r| r.get(0)).unwrap();
    assert_eq!(synchronous, 2, "FULL");
}

#[test]
fn many_threads_read_while_one_writes() {
    let spec = small();
    let (_dir, holding) = fresh(&spec);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    // A batch is seen whole or not at all.
                    assert_eq!(holding.count(&spec.id, &Filter::All).unwrap() % 10, 0);
                }
            });
        }
        for n in 0..20 {
            let batch: Vec<_> = (0..10).map(|m| json!({"id": format!("{n}-{m}")})).collect();
            holding.put_many(&spec.id, &rows(Value::Array(batch))).unwrap();
        }
    });
    assert_eq!(holding.count(&spec.id, &Filter::All).unwrap(), 200);
}

#[test]
fn what_was_answered_is_there_when_the_process_dies_at_once() {
    let spec = small();
    let (dir, holding) = fresh(&spec);
    let after = TempDir::new().unwrap();
    for n in 0..5 {
        holding.put_many(&spec.id, &rows(json!([{"id": format!("{n}"), "s": "x"}]))).unwrap();
        // What a crash leaves: the file and its log as they are now, nothing closed or flushed.
        for name in ["holdings.sqlite", "holdings.sqlite-wal"] {
            std::fs::copy(dir.path().join(name), after.path().join(name)).unwrap();
        }
        let _ = std::fs::remove_file(after.path().join("holdings.sqlite-shm"));
        let found = opened(&after, SqliteOptions::default()).count(&spec.id, &Filter::All).unwrap();
        assert_eq!(found, n + 1);
    }
}
