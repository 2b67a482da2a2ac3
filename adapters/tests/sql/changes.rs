//! Logical replication of PostgreSQL.

use std::time::{Duration, Instant};

use concordat_adapters::contract::{Checkpoint, Level, Next};
use concordat_adapters::parse;
use serde_json::Value;

use crate::poll::Reader;
use crate::servers::{Db, Kind, unique};

struct Table {
    name: String,
    yaml: String,
}

fn table(db: &Db) -> Table {
    let name = unique("meter");
    db.sql(&format!("CREATE TABLE {name} (id bigint PRIMARY KEY, v text, ok boolean, at timestamptz, raw bytea)"));
    db.sql(&format!("CREATE PUBLICATION p_{name} FOR TABLE {name}"));
    db.sql(&format!("INSERT INTO {name} SELECT n, 'v' || n FROM generate_series(1, 30) n"));
    let yaml = format!(
        "adapter: t\nkind: postgres-changes\nconnect: {{dsn: file:dsn, tls: off}}\ninto: ds:grid/load@1\ntable: {name}\n\
         publication: p_{name}\nslot: s_{name}\nmap:\n  id: {{type: integer}}\n  v: {{type: string}}\n  ok: {{type: boolean}}\n\
         \x20 at: {{type: string}}\n  raw: {{type: string}}\n  op: {{from: _op}}\n  position: {{from: _position}}\nkey: [id, op]\n"
    );
    Table { name, yaml }
}

fn told(rows: &[Value]) -> Vec<(i64, String)> {
    rows.iter().map(|r| (r["id"].as_i64().unwrap(), r["op"].as_str().unwrap().to_owned())).collect()
}

/// Reads until so many rows came.
fn until(reader: &mut Reader, count: usize, max: usize, durable: bool) -> Vec<Value> {
    let (mut out, end) = (Vec::new(), Instant::now() + Duration::from_secs(30));
    while out.len() < count {
        assert!(Instant::now() < end, "{} of {count} rows came", out.len());
        let batch = reader.read(max).unwrap();
        assert_eq!(batch.rejects, []);
        out.extend(batch.records.into_iter().map(|r| Value::Object(r.data)));
        if durable {
            reader.ack();
        }
    }
    assert_eq!(out.len(), count);
    out
}

/// Nothing more comes.
fn quiet(reader: &mut Reader) {
    let batch = reader.read(256).unwrap();
    assert_eq!((batch.rows(), batch.next), (0, Next::Idle(Duration::ZERO)), "{:?}", batch.records);
}

fn confirmed(db: &Db, table: &str) -> i64 {
    let text = format!(
        "SELECT (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint FROM pg_replication_slots WHERE slot_name = 's_{table}'"
    );
    db.sql(&text).parse().unwrap()
}

fn now(db: &Db) -> i64 {
    db.sql("SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint").parse().unwrap()
}

#[test]
fn rows_that_are_there_then_every_change_in_order() {
    let Some(db) = Db::of(Kind::Postgres, "changes") else { return };
    let t = table(&db);
    let mut reader = Reader::open(&db, &t.yaml, Checkpoint::default());
    let first = until(&mut reader, 7, 7, true);
    // These happen while the first look goes on: they come once, as changes.
    db.sql(&format!("INSERT INTO {0} VALUES (31, 'new', true, '2026-01-01 12:00:00.25+02', '\\x00ff'); UPDATE {0} SET v = 'x' WHERE id = 29", t.name));
    let rest = until(&mut reader, 25, 7, true);
    let all: Vec<(i64, String)> = told(&first).into_iter().chain(told(&rest)).collect();
    let mut want: Vec<(i64, String)> = (1..=30).map(|n| (n, "snapshot".to_owned())).collect();
    want.extend([(31, "insert".to_owned()), (29, "update".to_owned())]);
    assert_eq!(all, want);
    let insert = &rest[23];
    assert_eq!(
        (&insert["ok"], &insert["at"], &insert["raw"]),
        (&true.into(), &"2026-01-01T10:00:00.25Z".into(), &"AP8=".into())
    );
    db.sql(&format!("DELETE FROM {} WHERE id = 5", t.name));
    db.sql(&format!("BEGIN; INSERT INTO {} VALUES (99); ROLLBACK", t.name));
    db.sql(&format!("UPDATE {} SET id = 40 WHERE id = 6", t.name));
    let rows = until(&mut reader, 2, 256, true);
    assert_eq!(told(&rows), [(5, "delete".to_owned()), (40, "update".to_owned())]);
    assert_eq!(rows[0].get("v"), None);
    quiet(&mut reader);
    let places: Vec<&str> = rest[23..].iter().chain(&rows).map(|r| r["position"].as_str().unwrap()).collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn killed_at_any_batch_every_change_comes_once() {
    let Some(db) = Db::of(Kind::Postgres, "changes killed") else { return };
    for durable in [0, 1, 3, 5, 6, 10, 13, 14] {
        let t = table(&db);
        let mut reader = Reader::open(&db, &t.yaml, Checkpoint::default());
        until(&mut reader, 30, 256, true);
        // A transaction of five rows, one of nine, one of one.
        for range in ["41, 45", "51, 59", "61, 61"] {
            db.sql(&format!("INSERT INTO {} SELECT n FROM generate_series({range}) n", t.name));
        }
        let mut got = until(&mut reader, durable, 1, true);
        let at = reader.at.clone();
        until(&mut reader, 1, 1, false);
        drop(reader);
        let mut reader = Reader::open(&db, &t.yaml, at);
        got.extend(until(&mut reader, 15 - got.len(), 4, true));
        let ids: Vec<i64> = told(&got).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, (41..=45).chain(51..=59).chain([61]).collect::<Vec<_>>(), "{durable} durable");
        quiet(&mut reader);
    }
}

#[test]
fn a_first_look_that_was_interrupted_tells_every_change_once() {
    let Some(db) = Db::of(Kind::Postgres, "changes look") else { return };
    let t = table(&db);
    let mut reader = Reader::open(&db, &t.yaml, Checkpoint::default());
    let mut all = told(&until(&mut reader, 7, 7, true));
    let at = reader.at.clone();
    drop(reader);
    // Of a row that was told, of one that was not, a new row, and one that nobody saw.
    let sql = "UPDATE {} SET v = 'x' WHERE id = 3; UPDATE {} SET v = 'x' WHERE id = 20; INSERT INTO {} VALUES (31); \
               DELETE FROM {} WHERE id = 30";
    db.sql(&sql.replace("{}", &t.name));
    let mut reader = Reader::open(&db, &t.yaml, at);
    let second = until(&mut reader, 7, 7, true);
    assert!(told(&second).iter().all(|(_, op)| op == "snapshot"));
    all.extend(told(&second));
    let at = reader.at.clone();
    drop(reader);
    db.sql(&"UPDATE {} SET v = 'y' WHERE id IN (4, 12, 21)".replace("{}", &t.name));
    let mut reader = Reader::open(&db, &t.yaml, at);
    let rest = until(&mut reader, 19, 7, true);
    let v = |id: i64| rest.iter().find(|r| r["id"] == id).unwrap()["v"].clone();
    assert_eq!((v(20), v(21)), ("x".into(), "y".into()));
    all.extend(told(&rest));
    let mut want: Vec<(i64, String)> = (1..=29).chain([31]).map(|n| (n, "snapshot".to_owned())).collect();
    want.extend([3, 4, 12].map(|n| (n, "update".to_owned())));
    assert_eq!(all, want);
    quiet(&mut reader);
    db.sql(&"UPDATE {} SET v = 'z' WHERE id = 21".replace("{}", &t.name));
    assert_eq!(told(&until(&mut reader, 1, 7, true)), [(21, "update".to_owned())]);
}

#[test]
fn the_end_of_the_first_look_is_durable_with_its_last_rows() {
    let Some(db) = Db::of(Kind::Postgres, "changes end of look") else { return };
    let t = table(&db);
    let mut reader = Reader::open(&db, &t.yaml, Checkpoint::default());
    until(&mut reader, 30, 10, true);
    let at = reader.at.clone();
    drop(reader);
    db.sql(&format!("INSERT INTO {} VALUES (31)", t.name));
    let mut reader = Reader::open(&db, &t.yaml, at);
    assert_eq!(told(&until(&mut reader, 1, 10, true)), [(31, "insert".to_owned())]);
    quiet(&mut reader);
}

/// The server's order of a column decides which rows a view showed, not that of bytes.
#[test]
fn keys_are_compared_as_the_table_orders_them() {
    let Some(db) = Db::of(Kind::Postgres, "changes order") else { return };
    let name = unique("street");
    db.sql(&format!(
        "CREATE TABLE {name} (id text COLLATE \"en-x-icu\" PRIMARY KEY, v text); CREATE PUBLICATION p_{name} FOR TABLE {name};
         INSERT INTO {name} VALUES ('a', '1'), ('B', '1'), ('c', '1'), ('D', '1')"
    ));
    let yaml = format!(
        "adapter: t\nkind: postgres-changes\nconnect: {{dsn: file:dsn, tls: off}}\ninto: ds:grid/load@1\ntable: {name}\n\
         publication: p_{name}\nslot: s_{name}\nmap:\n  id: {{type: string}}\n  v: {{type: string}}\n  op: {{from: _op}}\nkey: [id, op]\n"
    );
    let mut reader = Reader::open(&db, &yaml, Checkpoint::default());
    let first = until(&mut reader, 2, 2, true);
    let at = reader.at.clone();
    drop(reader);
    db.sql(&format!("UPDATE {name} SET v = '2'"));
    let mut reader = Reader::open(&db, &yaml, at);
    let rest = until(&mut reader, 4, 9, true);
    let all: Vec<String> = first.iter().chain(&rest).map(|r| format!("{} {} {}", r["id"], r["v"], r["op"])).collect();
    let want = ["a 1 snapshot", "B 1 snapshot", "c 2 snapshot", "D 2 snapshot", "a 2 update", "B 2 update"];
    assert_eq!(all, want.map(|w| w.split(' ').map(|w| format!("{w:?}")).collect::<Vec<_>>().join(" ")));
    quiet(&mut reader);
}

#[test]
fn the_slot_never_runs_before_what_is_durable() {
    let Some(db) = Db::of(Kind::Postgres, "changes slot") else { return };
    let t = table(&db);
    let mut reader = Reader::open(&db, &t.yaml, Checkpoint::default());
    until(&mut reader, 30, 256, true);
    quiet(&mut reader);
    db.sql(&format!("INSERT INTO {} VALUES (50); INSERT INTO {} VALUES (51)", t.name, t.name));
    let rows = until(&mut reader, 2, 256, false);
    let before = i64::from_str_radix(&rows[0]["position"].as_str().unwrap()[..16], 16).unwrap();
    quiet(&mut reader);
    let at = reader.at.clone();
    drop(reader);
    assert!(confirmed(&db, &t.name) <= before, "nothing of it was durable");
    // The twin: it is durable now, and the slot follows.
    let mut reader = Reader::open(&db, &t.yaml, at);
    let end = Instant::now() + Duration::from_secs(20);
    while confirmed(&db, &t.name) <= before {
        assert!(Instant::now() < end, "the slot does not follow");
        quiet(&mut reader);
    }
    // Changes of other tables alone do not hold it back.
    let other = unique("other");
    db.sql(&format!("CREATE TABLE {other} (n int); INSERT INTO {other} SELECT generate_series(1, 1000)"));
    let there = now(&db);
    while confirmed(&db, &t.name) < there {
        assert!(Instant::now() < end + Duration::from_secs(20), "the slot does not follow what is not ours");
        quiet(&mut reader);
    }
}

#[test]
fn a_dropped_column_stops_it_by_name() {
    let Some(db) = Db::of(Kind::Postgres, "changes drift") else { return };
    let t = table(&db);
    let mut reader = Reader::open(&db, &t.yaml, Checkpoint::default());
    until(&mut reader, 30, 256, true);
    db.sql(&format!("ALTER TABLE {0} ADD COLUMN more int; INSERT INTO {0} (id) VALUES (50)", t.name));
    until(&mut reader, 1, 256, true);
    db.sql(&format!("ALTER TABLE {0} DROP COLUMN v; INSERT INTO {0} (id) VALUES (51)", t.name));
    let error = (0..20).find_map(|_| reader.read(9).err()).unwrap();
    assert_eq!((error.class().name(), error.code()), ("permanent", "source.changed"), "{error}");
    assert!(error.to_string().contains("`v`"), "{error}");
}

#[test]
fn check_tells_what_is_missing() {
    let Some(db) = Db::of(Kind::Postgres, "changes check") else { return };
    let t = table(&db);
    let found = parse(&t.yaml).unwrap().check(db.base());
    assert!(found.iter().all(|f| f.level != Level::Fail), "{found:?}");
    assert!(found.iter().any(|f| f.name == "slot" && f.sentence.contains("first run")), "{found:?}");
    assert_eq!(
        db.sql(&format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 's_{}'", t.name)),
        "0",
        "check writes nothing"
    );
    let user = unique("poor");
    db.sql(&format!(
        "CREATE ROLE {user} LOGIN PASSWORD 'x'; GRANT SELECT ON {} TO {user}; DROP PUBLICATION p_{0}",
        t.name
    ));
    db.login(&format!("{user}:x"));
    let found = parse(&t.yaml).unwrap().check(db.base());
    let failed: Vec<&str> = found.iter().filter(|f| f.level == Level::Fail).map(|f| f.name).collect();
    assert_eq!(failed, ["rights", "publication"], "{found:?}");
    let error = Reader::open(&db, &t.yaml, Checkpoint::default()).read(9).unwrap_err();
    assert_eq!((error.class().name(), error.code()), ("auth", "source.rights"), "{error}");
    // A login that may: by SCRAM, on the connection for replication too.
    db.sql(&format!("ALTER ROLE {user} REPLICATION; CREATE PUBLICATION p_{0} FOR TABLE {0}", t.name));
    assert_eq!(until(&mut Reader::open(&db, &t.yaml, Checkpoint::default()), 30, 256, true).len(), 30);
}

#[test]
fn a_draft_of_changes_can_be_used() {
    let Some(db) = Db::of(Kind::Postgres, "changes draft") else { return };
    let t = table(&db);
    let (head, _) = t.yaml.split_once("map:").unwrap();
    let drafts = parse(head).unwrap().discover(db.base()).unwrap();
    assert!(drafts.adapter.contains("op: {from: _op}"), "{}", drafts.adapter);
    parse(&drafts.adapter).unwrap();
}
