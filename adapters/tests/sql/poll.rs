//! Polling, the same for every database.

use std::collections::BTreeMap;

use concordat_adapters::contract::{AdapterError, Batch, Checkpoint, Next, Source};
use concordat_adapters::parse;
use serde_json::Value;

use crate::servers::{Db, Kind, unique};

/// A document; `more` are further members.
pub fn document(table: &str, more: &str) -> String {
    let cursor =
        if more.contains("cursor:") || more.contains("snapshot-diff") { "" } else { "cursor: {columns: [ts]}\n" };
    let deletes = if more.contains("deletes:") { "" } else { "deletes: none\n" };
    let poll = if more.contains("poll:") { "" } else { "poll: {every: 50ms, max_rows: 7, statement_timeout: 3s}\n" };
    format!(
        "adapter: t\nkind: sql-poll\nconnect: {{dsn: file:dsn, tls: off}}\ninto: ds:grid/load@1\ntable: {table}\n{cursor}{deletes}{poll}{more}\
         map:\n  id: {{type: integer}}\n  ts: {{type: string}}\n  v: {{type: string}}\nkey: [id]\nignore: [gone]\n"
    )
}

/// A source that is read as the runner does.
pub struct Reader {
    source: Box<dyn Source>,
    pub at: Checkpoint,
}

impl Reader {
    pub fn open(db: &Db, yaml: &str, at: Checkpoint) -> Self {
        let mut source = parse(yaml).unwrap().open(db.base()).unwrap();
        source.ack(&at).unwrap();
        Self { source, at }
    }

    pub fn read(&mut self, max: usize) -> Result<Batch, AdapterError> {
        let batch = self.source.read(&self.at, max)?;
        assert!(batch.rows() <= max);
        self.at = batch.checkpoint.clone();
        Ok(batch)
    }

    pub fn ack(&mut self) {
        let at = self.at.clone();
        self.source.ack(&at).unwrap();
    }

    /// Reads until there is nothing at present; every batch is durable at once.
    pub fn all(&mut self, max: usize) -> Vec<Value> {
        let mut out = Vec::new();
        loop {
            let batch = self.read(max).unwrap();
            assert_eq!(batch.rejects, [], "no rejects");
            let over = matches!(batch.next, Next::Idle(_)) && batch.rows() == 0;
            out.extend(batch.records.into_iter().map(|r| Value::Object(r.data)));
            self.ack();
            if over {
                return out;
            }
        }
    }
}

fn ids(rows: &[Value]) -> Vec<i64> {
    rows.iter().map(|r| r["id"].as_i64().unwrap()).collect()
}

fn sorted(mut list: Vec<i64>) -> Vec<i64> {
    list.sort_unstable();
    list
}

/// Sixty rows of which groups of twenty have the same instant.
fn table(db: &Db) -> String {
    let name = unique("load");
    db.sql(&format!(
        "CREATE TABLE {name} (id bigint PRIMARY KEY, ts {} NOT NULL, v varchar(40), gone int)",
        db.stamp()
    ));
    let rows: Vec<String> = (0..60).map(|n| format!("({n}, '2026-01-01 00:{:02}:00', 'v{n}', 0)", n / 20)).collect();
    db.sql(&format!("INSERT INTO {name} VALUES {}", rows.join(",")));
    db.sql(&format!("CREATE INDEX {name}_ts ON {name} (ts, id)"));
    name
}

/// Runs a scenario with each kind of database.
macro_rules! each {
    ($($name:ident),* $(,)?) => { $(mod $name {
        use super::*;
        #[test]
        fn postgres() { if let Some(db) = Db::of(Kind::Postgres, stringify!($name)) { super::$name(&db); } }
        #[test]
        fn mariadb() { if let Some(db) = Db::of(Kind::Maria, stringify!($name)) { super::$name(&db); } }
        #[test]
        fn sqlite() { if let Some(db) = Db::of(Kind::Sqlite, stringify!($name)) { super::$name(&db); } }
    })* };
}

each!(
    equal_cursors_across_pages_lose_nothing,
    killed_at_any_batch_everything_comes_once,
    rows_committed_late_come_once,
    long_loads_forget_what_left_the_overlap,
    without_the_memory_nothing_is_lost,
    deleted_rows_are_told,
    changed_and_vanished_rows_are_found_by_comparing,
    a_statement_with_a_cursor_is_polled,
    a_start_is_kept_even_with_an_overlap,
    dropped_columns_and_tables_are_named,
    a_draft_can_be_used,
);

fn equal_cursors_across_pages_lose_nothing(db: &Db) {
    let table = table(db);
    for max in [1, 7, 256] {
        let rows = Reader::open(db, &document(&table, ""), Checkpoint::default()).all(max);
        assert_eq!(ids(&rows), (0..60).collect::<Vec<_>>());
    }
    // Later rows come with the next poll.
    let mut reader = Reader::open(db, &document(&table, ""), Checkpoint::default());
    reader.all(256);
    db.sql(&format!(
        "INSERT INTO {table} VALUES (60, '2026-01-01 00:02:00', 'x', 0), (61, '2026-01-01 00:03:00', NULL, 0)"
    ));
    let rows = reader.all(256);
    assert_eq!(ids(&rows), [60, 61]);
    assert_eq!(rows[1].get("v"), None);
}

fn killed_at_any_batch_everything_comes_once(db: &Db) {
    let table = table(db);
    for more in ["", "cursor: {columns: [ts], overlap: 10m}\n"] {
        for durable in 0..9 {
            let _ = std::fs::remove_dir_all(db.base().join("adapters"));
            let yaml = document(&table, more);
            let mut got = Vec::new();
            let mut reader = Reader::open(db, &yaml, Checkpoint::default());
            for _ in 0..durable {
                let batch = reader.read(9).unwrap();
                got.extend(batch.records.into_iter().map(|r| Value::Object(r.data)));
                reader.ack();
            }
            let at = reader.at.clone();
            // Two more were handed out and never became durable.
            reader.read(9).unwrap();
            reader.read(9).unwrap();
            drop(reader);
            got.extend(Reader::open(db, &yaml, at.clone()).all(9));
            assert_eq!(sorted(ids(&got)), (0..60).collect::<Vec<_>>(), "{durable} durable, {more:?}");
            // The same process that goes back does the same.
            let mut reader = Reader::open(db, &yaml, at.clone());
            let first = reader.read(9).unwrap();
            reader.read(9).unwrap();
            reader.at = at;
            let again = reader.read(9).unwrap();
            assert!(again.records == first.records && again.rows() > 0 || durable > 6, "going back");
        }
    }
}

fn rows_committed_late_come_once(db: &Db) {
    let table = table(db);
    let yaml = document(&table, "cursor: {columns: [ts], overlap: 10m}\n");
    let mut reader = Reader::open(db, &yaml, Checkpoint::default());
    let mut got = ids(&reader.all(256));
    db.sql(&format!("INSERT INTO {table} VALUES (100, '2026-01-01 00:00:30.5', 'late', 0)"));
    got.extend(ids(&reader.all(256)));
    assert_eq!(got.last(), Some(&100));
    // After a restart too, and only what is new.
    let at = reader.at.clone();
    drop(reader);
    db.sql(&format!(
        "INSERT INTO {table} VALUES (101, '2026-01-01 00:01:30', 'late', 0), (102, '2026-01-01 00:09:00', 'new', 0)"
    ));
    let mut reader = Reader::open(db, &yaml, at);
    got.extend(ids(&reader.all(3)));
    got.extend(ids(&reader.all(3)));
    // Later than the overlap is too late: that is what the overlap says.
    db.sql(&format!("INSERT INTO {table} VALUES (103, '2025-12-31 23:50:00', 'too late', 0)"));
    got.extend(ids(&reader.all(3)));
    let want: Vec<i64> = (0..60).chain([100, 101, 102]).collect();
    assert_eq!(sorted(got), want);
    // The twin without an overlap loses them.
    let mut blind = Reader::open(db, &document(&table, ""), Checkpoint::default());
    blind.all(256);
    db.sql(&format!("INSERT INTO {table} VALUES (104, '2026-01-01 00:00:30', 'late', 0)"));
    assert_eq!(blind.all(256).len(), 0);
}

fn long_loads_forget_what_left_the_overlap(db: &Db) {
    let table = table(db);
    let rows: Vec<String> =
        (1_000..1_400).map(|n| format!("({n}, '2026-01-0{} 00:00:{:02}', 'x', 0)", 2 + n / 100 - 10, n % 60)).collect();
    db.sql(&format!("INSERT INTO {table} VALUES {}", rows.join(",")));
    let yaml = document(&table, "cursor: {columns: [ts], overlap: 10m}\npoll: {every: 50ms, max_rows: 50}\n");
    let mut reader = Reader::open(db, &yaml, Checkpoint::default());
    assert_eq!(reader.all(50).len(), 460);
    assert_eq!(reader.all(50).len(), 0, "nothing twice");
    let at = reader.at.clone();
    drop(reader);
    assert_eq!(Reader::open(db, &yaml, at).all(50).len(), 0, "nothing twice after a restart");
    let kept = std::fs::metadata(db.base().join("adapters/t.seen")).unwrap().len() / 24;
    assert!((100..=460).contains(&kept), "{kept} rows are kept for the last ten minutes");
}

fn without_the_memory_nothing_is_lost(db: &Db) {
    let table = table(db);
    let yaml = document(&table, "cursor: {columns: [ts], overlap: 90s}\n");
    let mut reader = Reader::open(db, &yaml, Checkpoint::default());
    reader.all(256);
    let at = reader.at.clone();
    drop(reader);
    std::fs::remove_dir_all(db.base().join("adapters")).unwrap();
    db.sql(&format!("INSERT INTO {table} VALUES (100, '2026-01-01 00:01:30', 'late', 0)"));
    let mut reader = Reader::open(db, &yaml, at);
    let batch = reader.read(256).unwrap();
    assert!(batch.notes.iter().any(|n| n.contains("t.seen")), "{:?}", batch.notes);
    reader.at = Checkpoint(reader.at.0.clone());
    let mut got: Vec<i64> = batch.records.iter().map(|r| r.data["id"].as_i64().unwrap()).collect();
    got.extend(ids(&reader.all(256)));
    assert_eq!(sorted(got), (20..60).chain([100]).collect::<Vec<_>>());
}

const WITH_OP: &str = "  op: {from: _op}\n";

/// The document of a table whose rows can go.
fn with_op(table: &str, more: &str) -> String {
    let yaml = document(table, more).replace("key: [id]", &format!("{WITH_OP}  gone: {{type: integer}}\nkey: [id]"));
    yaml.replace("\nignore: [gone]", "\ntime: ts").replace("ts: {type: string}", "ts: {type: timestamp, zone: UTC}")
}

fn deleted_rows_are_told(db: &Db) {
    let table = table(db);
    let yaml = with_op(&table, "deletes: {soft: gone}\n")
        .replace("ts: {type: timestamp, zone: UTC}", "ts: {type: string}")
        .replace("\ntime: ts", "");
    let mut reader = Reader::open(db, &yaml, Checkpoint::default());
    assert!(reader.all(256).iter().all(|r| r["op"] == "upsert"));
    db.sql(&format!("UPDATE {table} SET gone = 1, ts = '2026-01-01 01:00:00' WHERE id = 5"));
    let rows = reader.all(256);
    assert_eq!((ids(&rows), &rows[0]["op"]), (vec![5], &Value::from("delete")));
    // A document that would tell nobody is refused.
    let silent = document(&table, "deletes: {soft: gone}\n");
    let error = parse(&silent).unwrap().open(db.base()).unwrap().read(&Checkpoint::default(), 9).unwrap_err();
    assert!(error.to_string().contains("deletes.soft"), "{error}");
}

fn changed_and_vanished_rows_are_found_by_comparing(db: &Db) {
    let table = table(db);
    let yaml = with_op(&table, "deletes: snapshot-diff\n");
    let mut reader = Reader::open(db, &yaml, Checkpoint::default());
    assert_eq!(ids(&reader.all(256)), (0..60).collect::<Vec<_>>());
    assert_eq!(reader.all(256).len(), 0, "nothing changed");
    db.sql(&format!("UPDATE {table} SET v = 'other' WHERE id = 33"));
    db.sql(&format!("DELETE FROM {table} WHERE id IN (7, 8)"));
    db.sql(&format!("INSERT INTO {table} VALUES (200, '2020-01-01 00:00:00', 'old but new', 0)"));
    // Killed before the changes are durable, and once more after the first of them.
    let at = reader.at.clone();
    reader.read(256).unwrap();
    reader.read(256).unwrap();
    drop(reader);
    let mut reader = Reader::open(db, &yaml, at);
    let mut rows: Vec<Value> = Vec::new();
    rows.extend(reader.read(1).unwrap().records.into_iter().map(|r| Value::Object(r.data)));
    let at = reader.at.clone();
    reader.read(1).unwrap();
    drop(reader);
    rows.extend(Reader::open(db, &yaml, at).all(1));
    let told: BTreeMap<i64, String> =
        rows.iter().map(|r| (r["id"].as_i64().unwrap(), r["op"].as_str().unwrap().to_owned())).collect();
    assert_eq!(rows.len(), 4, "{rows:?}");
    let want = [(7, "delete"), (8, "delete"), (33, "upsert"), (200, "upsert")];
    assert_eq!(told, want.map(|(id, op)| (id, op.to_owned())).into());
}

fn a_statement_with_a_cursor_is_polled(db: &Db) {
    let table = table(db);
    let query = format!("SELECT id, ts, v FROM {table} WHERE ts >= :cursor AND v <> ':cursor'");
    let yaml = document(&table, "cursor: {columns: [ts, id], start: 2026-01-01 00:01:00}\n")
        .replace(&format!("table: {table}"), &format!("query: \"{query}\""))
        .replace("ignore: [gone]\n", "");
    let mut reader = Reader::open(db, &yaml, Checkpoint::default());
    assert_eq!(ids(&reader.all(8)), (20..60).collect::<Vec<_>>());
    assert_eq!(reader.all(8).len(), 0);
}

fn a_start_is_kept_even_with_an_overlap(db: &Db) {
    let table = table(db);
    let yaml = document(&table, "cursor: {columns: [ts], overlap: 1h, start: 2026-01-01 00:01:00}\n");
    let mut reader = Reader::open(db, &yaml, Checkpoint::default());
    assert_eq!(ids(&reader.all(8)), (20..60).collect::<Vec<_>>());
    assert_eq!(reader.all(8).len(), 0);
}

fn dropped_columns_and_tables_are_named(db: &Db) {
    let table = table(db);
    let mut reader = Reader::open(db, &document(&table, ""), Checkpoint::default());
    reader.read(5).unwrap();
    db.sql(&format!("ALTER TABLE {table} DROP COLUMN v"));
    let error = (0..9).find_map(|_| reader.read(5).err()).unwrap();
    assert_eq!((error.class().name(), error.code()), ("permanent", "source.changed"), "{error}");
    assert!(error.to_string().contains("`v`"), "{error}");
    db.sql(&format!("DROP TABLE {table}"));
    let error = Reader::open(db, &document(&table, ""), Checkpoint::default()).read(5).unwrap_err();
    assert_eq!((error.class().name(), error.code()), ("permanent", "source.changed"), "{error}");
    assert!(error.to_string().contains(&table), "{error}");
}

fn a_draft_can_be_used(db: &Db) {
    let name = unique("people");
    db.sql(&format!(
        "CREATE TABLE {name} (area int NOT NULL, no bigint NOT NULL, changed {} NOT NULL, last_name varchar(40), kwh decimal(12,3), PRIMARY KEY (area, no))",
        db.stamp()
    ));
    db.sql(&format!("INSERT INTO {name} VALUES (1, 1, '2026-01-01 00:00:00', 'Kim', 1.5), (1, 2, '2026-01-01 00:00:01', NULL, 12.25)"));
    let yaml = format!(
        "adapter: t\nkind: sql-poll\nconnect: {{dsn: file:dsn, tls: off}}\ninto: ds:grid/load@1\ntable: {name}\ncursor: {{columns: [changed]}}\ndeletes: none\n"
    );
    let drafts = parse(&yaml).unwrap().discover(db.base()).unwrap();
    assert!(drafts.adapter.contains("key: [area, no]"), "{}", drafts.adapter);
    assert!(drafts.dataset.contains("last_name: name"), "{}", drafts.dataset);
    assert_eq!(drafts.sampled, 2);
    let chosen = drafts.adapter.replace("CHOOSE", "UTC");
    let rows = Reader::open(db, &chosen, Checkpoint::default()).all(9);
    assert_eq!(rows.iter().map(|r| r["kwh"].as_str().unwrap()).collect::<Vec<_>>(), ["1.5", "12.25"]);
    let found = parse(&chosen).unwrap().check(db.base());
    assert!(found.iter().any(|f| f.name == "index" && f.next.is_some()), "{found:?}");
    assert!(found.iter().all(|f| f.level != concordat_adapters::contract::Level::Fail), "{found:?}");
    db.sql(&format!("CREATE INDEX {name}_c ON {name} (changed)"));
    let found = parse(&chosen).unwrap().check(db.base());
    assert!(found.iter().any(|f| f.name == "index" && f.next.is_none()), "{found:?}");
}
