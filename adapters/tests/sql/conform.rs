//! The conformance kit against real databases.

use std::sync::Arc;
use std::time::Duration;

use concordat_adapters::conform::{Change, Kit, Outcome, Rig, Verdict, battery};
use concordat_adapters::contract::{AdapterError, Source};
use concordat_adapters::parse;
use jiff::Timestamp;
use jiff::tz::Offset;
use serde_json::Value;

use crate::servers::{Db, Kind, unique};

/// A table whose rows come and go as the kit says.
struct Table {
    db: Db,
    name: String,
    yaml: String,
    next: u64,
    good: Vec<u64>,
    bad: usize,
    /// Seconds after the beginning, which was two hours ago.
    clock: i64,
    begin: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Cursor,
    Compare,
    /// Polled without an overlap: the twin that late rows are hidden from.
    Blind,
    Stream,
}

impl Table {
    fn new(kind: Kind, way: Way) -> Option<Self> {
        let db = Db::of(kind, "conform")?;
        let name = unique("kit");
        db.apart(&name);
        db.sql(&format!("CREATE TABLE {name} (id bigint PRIMARY KEY, ts {} NOT NULL, v varchar(20))", db.stamp()));
        let head = format!(
            "adapter: {}\nconnect: {{dsn: file:dsn, tls: off}}\ninto: ds:grid/load@1\ntable: {name}\npoll: {{every: 20ms, max_rows: 11}}\n",
            name.replace('_', "-")
        );
        let map = "map:\n  id: {type: integer}\n  ts: {type: timestamp, zone: UTC}\n  v: {type: integer}\nkey: [id]\ntime: ts\n";
        let own = match way {
            Way::Cursor => format!("kind: sql-poll\ncursor: {{columns: [ts], overlap: 3h}}\ndeletes: none\n{map}"),
            Way::Blind => format!("kind: sql-poll\ncursor: {{columns: [ts]}}\ndeletes: none\n{map}"),
            Way::Compare => {
                format!("kind: sql-poll\ndeletes: snapshot-diff\n{}", map.replace("key:", "  op: {from: _op}\nkey:"))
            }
            Way::Stream => {
                db.sql(&format!("CREATE PUBLICATION p_{name} FOR TABLE {name}"));
                format!("kind: postgres-changes\npublication: p_{name}\nslot: s_{name}\n{map}")
            }
        };
        let begin = Timestamp::from_second(Timestamp::now().as_second() - 7_200).unwrap();
        let mut table = Self { db, name, yaml: head + &own, next: 0, good: vec![], bad: 0, clock: 0, begin };
        table.add(40, 7);
        Some(table)
    }

    fn insert(&mut self, seconds: i64, v: &str) {
        let at = Timestamp::from_second(self.begin.as_second() + seconds).unwrap();
        let at = Offset::UTC.to_datetime(at).strftime("%Y-%m-%d %H:%M:%S").to_string();
        let at = if self.db.kind == Kind::Postgres { at + "+00" } else { at };
        self.db.sql(&format!("INSERT INTO {} (id, ts, v) VALUES ({}, '{at}', '{v}')", self.name, self.next));
        self.next += 1;
    }

    fn add(&mut self, count: u64, step: i64) {
        for _ in 0..count {
            self.good.push(self.next);
            self.clock += step;
            self.insert(self.clock, "7");
        }
    }
}

impl Rig for Table {
    fn open(&mut self) -> Result<Box<dyn Source>, AdapterError> {
        parse(&self.yaml)?.open(self.db.base())
    }

    fn name(&self, event: &Value) -> String {
        event["data"]["id"].to_string()
    }

    fn expected(&self) -> Vec<String> {
        self.good.iter().map(u64::to_string).collect()
    }

    fn dead(&self) -> usize {
        self.bad
    }

    fn change(&mut self, change: Change) -> bool {
        match change {
            Change::Rows => self.add(10, 1),
            Change::EqualCursor => self.add(30, 0),
            Change::LateRow => {
                self.good.push(self.next);
                self.insert(self.clock - 60, "7");
            }
            Change::Poison => {
                self.add(3, 1);
                self.bad += 1;
                self.insert(self.clock, "n/a");
                self.add(3, 1);
            }
            Change::SkewedClock => {
                self.good.push(self.next);
                self.insert(400 * 86_400, "7");
                self.add(5, 1);
            }
            Change::ChangedHeader => {
                self.db.sql(&format!("ALTER TABLE {0} RENAME COLUMN v TO w", self.name));
                self.add_unmapped(3);
            }
            Change::Drift => {
                self.db.sql(&format!("ALTER TABLE {0} ADD COLUMN more varchar(9)", self.name));
                self.add(3, 1);
            }
            Change::Cut => return self.db.cut(&self.name, true),
            Change::Restored => return self.db.cut(&self.name, false),
            _ => return false,
        }
        true
    }
}

impl Table {
    /// Rows for which there is no field `v` any more.
    fn add_unmapped(&mut self, count: u64) {
        for _ in 0..count {
            self.good.push(self.next);
            self.clock += 1;
            let at = self.db.sql_now();
            self.db.sql(&format!("INSERT INTO {} (id, ts, w) VALUES ({}, {at}, '7')", self.name, self.next));
            self.next += 1;
        }
    }
}

async fn outcomes(kind: Kind, way: Way) -> Option<Vec<Outcome>> {
    Db::of(kind, "conform")?;
    let scratch = tempfile::tempdir().unwrap();
    let make = move || {
        let table = tokio::task::block_in_place(|| Table::new(kind, way).unwrap());
        Ok(Box::new(table) as Box<dyn Rig>)
    };
    let kit = Kit { make: Box::new(make), patience: Duration::from_secs(30), scratch: scratch.path().to_owned() };
    Some(battery(&kit, |o| eprintln!("{kind:?} {way:?}: {} {:?}", o.check, o.verdict)).await)
}

fn failed(all: &[Outcome]) -> Vec<(&'static str, String)> {
    let reason = |o: &Outcome| if let Verdict::Failed(why) = &o.verdict { Some((o.check, why.clone())) } else { None };
    all.iter().filter_map(reason).collect()
}

fn skipped(all: &[Outcome]) -> Vec<&'static str> {
    all.iter().filter(|o| o.verdict == Verdict::Skipped).map(|o| o.check).collect()
}

/// Runs on a thread that may wait: rigs open and read sources themselves.
fn battery_of(kind: Kind, way: Way) -> Option<Vec<Outcome>> {
    let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
    let task = runtime.spawn(outcomes(kind, way));
    runtime.block_on(task).unwrap()
}

fn conforms(kind: Kind, way: Way) {
    let Some(all) = battery_of(kind, way) else { return };
    assert_eq!(failed(&all), [], "{kind:?} {way:?}");
    assert!(all.len() - skipped(&all).len() >= 11, "{:?}", skipped(&all));
}

#[test]
fn polling_postgres_conforms() {
    conforms(Kind::Postgres, Way::Cursor);
}

#[test]
fn polling_mariadb_conforms() {
    conforms(Kind::Maria, Way::Cursor);
}

#[test]
fn polling_sqlite_conforms() {
    conforms(Kind::Sqlite, Way::Cursor);
}

#[test]
fn comparing_postgres_conforms() {
    conforms(Kind::Postgres, Way::Compare);
}

#[test]
fn streaming_postgres_conforms() {
    conforms(Kind::Postgres, Way::Stream);
}

#[test]
fn the_twin_without_an_overlap_is_caught() {
    let Some(all) = battery_of(Kind::Sqlite, Way::Blind) else { return };
    let caught: Vec<&str> = failed(&all).into_iter().map(|(check, _)| check).collect();
    assert!(caught.contains(&"late-rows") || caught.contains(&"late-row"), "{caught:?}");
}
