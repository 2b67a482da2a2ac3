//! How fast a table is read, beside the plainest reader of the same table. Run by hand: the machine decides.

use std::time::Instant;

use concordat_adapters::contract::{Checkpoint, Next};
use concordat_adapters::parse;

use crate::servers::{Db, Kind, unique};

#[test]
#[ignore = "a measurement"]
fn initial_load_and_change_to_event() {
    const ROWS: u64 = 300_000;
    let Some(db) = Db::of(Kind::Postgres, "speed") else { return };
    let table = unique("load");
    db.sql(&format!(
        "CREATE TABLE {table} (id bigint, ts timestamptz, mw numeric(12,3), feeder text, ok boolean, PRIMARY KEY (ts, id)); \
         INSERT INTO {table} SELECT n, '2026-01-01'::timestamptz + n / 10 * interval '1 s', n / 7.0, 'F' || n % 100, n % 2 = 0 \
         FROM generate_series(1, {ROWS}) n; ANALYZE {table}"
    ));
    for overlap in ["", ", overlap: 10m"] {
        let yaml = format!(
            "adapter: t\nkind: sql-poll\nconnect: {{dsn: file:dsn, tls: off}}\ninto: ds:grid/load@1\ntable: {table}\n\
             cursor: {{columns: [ts]{overlap}}}\ndeletes: none\nmap:\n  id: {{type: integer}}\n  ts: {{type: timestamp, zone: offset}}\n\
             \x20 mw: {{type: decimal}}\n  feeder: {{}}\n  ok: {{type: boolean}}\nkey: [id, ts]\ntime: ts\n"
        );
        let mut source = parse(&yaml).unwrap().open(db.base()).unwrap();
        let (mut at, mut rows, begun) = (Checkpoint::default(), 0, Instant::now());
        loop {
            let batch = source.read(&at, 256).unwrap();
            rows += batch.rows() as u64;
            at = batch.checkpoint;
            source.ack(&at).unwrap();
            if matches!(batch.next, Next::Idle(_)) {
                break;
            }
        }
        assert_eq!(rows, ROWS);
        eprintln!("sql-poll{overlap}: {:.0} rows/s", rows as f64 / begun.elapsed().as_secs_f64());
    }
    let begun = Instant::now();
    let out = db.sql(&format!("SELECT * FROM {table} ORDER BY ts, id"));
    eprintln!("psql: {:.0} rows/s", out.lines().count() as f64 / begun.elapsed().as_secs_f64());
    // A change, from its commit to the batch.
    let small = unique("live");
    db.sql(&format!("CREATE TABLE {small} (id bigint PRIMARY KEY); CREATE PUBLICATION p_{small} FOR TABLE {small}"));
    let yaml = format!(
        "adapter: t\nkind: postgres-changes\nconnect: {{dsn: file:dsn, tls: off}}\ninto: ds:grid/load@1\ntable: {small}\n\
         publication: p_{small}\nslot: s_{small}\nmap:\n  id: {{type: integer}}\nkey: [id]\n"
    );
    let mut source = parse(&yaml).unwrap().open(db.base()).unwrap();
    let mut at = source.read(&Checkpoint::default(), 256).unwrap().checkpoint;
    let uri = format!("host={} user=owner dbname=postgres", db.server_folder().display());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&uri, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    });
    let mut took = Vec::new();
    for n in 0..50_i64 {
        runtime.block_on(client.execute(&format!("INSERT INTO {small} VALUES ({n})"), &[])).unwrap();
        let begun = Instant::now();
        loop {
            let batch = source.read(&at, 256).unwrap();
            at = batch.checkpoint.clone();
            source.ack(&at).unwrap();
            if batch.rows() > 0 {
                break;
            }
        }
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    eprintln!("postgres-changes: p50 {:?}, p95 {:?} from commit to batch", took[25], took[47]);
}
