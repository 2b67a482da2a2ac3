//! The whole way: a database, the runner, and a broker that enforces the contract of intake and fails as the test says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use concordat_adapters::client::BrokerClient;
use concordat_adapters::contract::Checkpoint;
use concordat_adapters::dead_letter::DeadLetters;
use concordat_adapters::parse;
use concordat_adapters::runner::{Progress, RunConfig, run};
use tokio::sync::watch;

use crate::fake_broker::{Act, FakeBroker, TOKEN};
use crate::servers::{Db, Kind, unique};

const ROWS: usize = 400;

fn table(db: &Db) -> String {
    let table = unique("load");
    db.sql(&format!("CREATE TABLE {table} (id bigint PRIMARY KEY, time {} NOT NULL)", db.stamp()));
    let rows: Vec<String> = (0..ROWS).map(|n| format!("({n}, '2026-01-01 00:{:02}:{:02}')", n / 60, n % 60)).collect();
    db.sql(&format!("INSERT INTO {table} VALUES {}", rows.join(",")));
    table
}

fn polled(table: &str) -> String {
    format!(
        "adapter: load\nkind: sql-poll\nconnect: {{dsn: file:dsn, tls: off}}\ninto: ds:grid/load@1\ntable: {table}\n\
         cursor: {{columns: [time], overlap: 1h}}\npoll: {{every: 20ms, max_rows: 50}}\ndeletes: none\n\
         map:\n  id: {{type: integer}}\n  time: {{type: timestamp, zone: UTC}}\nkey: [id]\ntime: time\n"
    )
}

fn streamed(db: &Db, table: &str) -> String {
    db.sql(&format!("CREATE PUBLICATION p_{table} FOR TABLE {table}"));
    format!(
        "adapter: load\nkind: postgres-changes\nconnect: {{dsn: file:dsn, tls: off}}\ninto: ds:grid/load@1\ntable: {table}\n\
         publication: p_{table}\nslot: s_{table}\n\
         map:\n  id: {{type: integer}}\n  time: {{type: timestamp, zone: UTC}}\nkey: [id]\ntime: time\n"
    )
}

/// Runs until so many events are at the broker.
async fn until(db: &Db, yaml: &str, broker: &FakeBroker, count: usize) -> Progress {
    let connector = parse(yaml).unwrap();
    let mut config = RunConfig::of(connector.common());
    config.batch_max = 16;
    let source = connector.open(db.base()).unwrap();
    let client = BrokerClient::new(&broker.url, TOKEN).unwrap();
    let mut dead = DeadLetters::open(db.base(), "load").unwrap();
    let (stop, stopping) = watch::channel(false);
    let kept = Arc::clone(&broker.kept);
    let mut said = None;
    let task = run(source, &client, &mut dead, &config, stopping, |now| {
        said.clone_from(&now.last_error);
        if kept.lock().unwrap().events.len() >= count {
            stop.send_replace(true);
        }
    });
    let ended = tokio::time::timeout(Duration::from_secs(90), task).await;
    ended.unwrap_or_else(|_| panic!("the run hangs: {said:?}")).unwrap()
}

async fn everything_once_whatever_the_broker_does(db: &Db, yaml: &str, table: &str) {
    let broker = FakeBroker::start(|n, _| match n % 7 {
        2 => Act::DropBefore,
        4 => Act::DropAfter,
        6 => Act::Say(503, "retry-after: 0\r\n", "{}".to_owned()),
        _ => Act::Serve,
    })
    .await;
    until(db, yaml, &broker, ROWS / 2).await;
    // A new process; rows come meanwhile, one of them late.
    db.sql(&format!("INSERT INTO {table} VALUES (9000, '2026-01-01 00:00:30'), (9001, '2026-01-01 00:30:00')"));
    until(db, yaml, &broker, ROWS + 2).await;
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    broker.ids().into_iter().for_each(|id| *counts.entry(id).or_default() += 1);
    let twice: Vec<_> = counts.iter().filter(|(_, n)| **n != 1).collect();
    assert_eq!((counts.len(), twice.len()), (ROWS + 2, 0), "{twice:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn polled_rows_arrive_once_postgres() {
    let Some(db) = Db::of(Kind::Postgres, "runs") else { return };
    let table = table(&db);
    everything_once_whatever_the_broker_does(&db, &polled(&table), &table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polled_rows_arrive_once_mariadb() {
    let Some(db) = Db::of(Kind::Maria, "runs") else { return };
    let table = table(&db);
    everything_once_whatever_the_broker_does(&db, &polled(&table), &table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polled_rows_arrive_once_sqlite() {
    let Some(db) = Db::of(Kind::Sqlite, "runs") else { return };
    let table = table(&db);
    everything_once_whatever_the_broker_does(&db, &polled(&table), &table).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streamed_rows_arrive_once() {
    let Some(db) = Db::of(Kind::Postgres, "runs of changes") else { return };
    let table = table(&db);
    let yaml = streamed(&db, &table);
    // The slot is made first, so that what comes in the middle is a change and no row of the first look.
    tokio::task::block_in_place(|| {
        let mut source = parse(&yaml).unwrap().open(db.base()).unwrap();
        source.read(&Checkpoint::default(), 1).unwrap();
    });
    let broker = FakeBroker::start(|n, _| if n % 5 == 3 { Act::DropAfter } else { Act::Serve }).await;
    until(&db, &yaml, &broker, ROWS).await;
    db.sql(&format!("INSERT INTO {table} SELECT n, '2026-01-02' FROM generate_series(5001, 5100) n"));
    until(&db, &yaml, &broker, ROWS + 40).await;
    until(&db, &yaml, &broker, ROWS + 100).await;
    let ids = broker.ids();
    let different: std::collections::BTreeSet<&String> = ids.iter().collect();
    assert_eq!((ids.len(), different.len()), (ROWS + 100, ROWS + 100));
}
