//! A table of PostgreSQL: its first load by polling, and how long a change takes to the application that follows it.

use super::{Amount, PROVIDER, adapter, both, document, live};
use crate::city::City;
use crate::failed::BenchError;
use crate::report::Results;
use concordat_tests::harness::Cluster;
use std::time::Instant;

pub(super) async fn rows(city: &City, amount: Amount, results: &mut Results) -> Result<(), BenchError> {
    let Some(cluster) = Cluster::with_changes("bench") else {
        println!("  SKIPPED postgres_rows: PostgreSQL is not installed");
        return Ok(());
    };
    let sql = |text: &str| cluster.sql(text).map_err(|e| BenchError::refused("PostgreSQL", e));
    sql(&format!(
        "CREATE TABLE meter (id bigint PRIMARY KEY, feeder text NOT NULL, kw numeric NOT NULL, at timestamptz NOT NULL);
         INSERT INTO meter SELECT i, 'F' || i % 97, (i % 10000) / 10.0, timestamptz '2026-01-01' + i * interval '1 s'
         FROM generate_series(1, {}) i; ANALYZE meter;
         CREATE TABLE live (LIKE meter INCLUDING ALL); CREATE PUBLICATION bench FOR TABLE live",
        amount.rows
    ))?;
    let uri = city.dir(PROVIDER).join("keys/bench.uri");
    std::fs::write(&uri, cluster.uri()).map_err(|e| BenchError::io("writing a URI", e))?;
    let text = format!(
        "adapter: bench-sql\nkind: sql-poll\nconnect: {{dsn: file:keys/bench.uri, tls: off}}\ninto: ds:{PROVIDER}/bench-sql@1\n\
         table: meter\ncursor: {{columns: [id]}}\npoll: {{every: 5s, max_rows: 5000}}\ndeletes: none\n{MAPPING}pace: max\n"
    );
    document(city, "bench-sql", &text)?;
    let begun = Instant::now();
    // The client of PostgreSQL itself, every column as text.
    sql("COPY (SELECT * FROM meter ORDER BY id) TO STDOUT")?;
    let plain = begun.elapsed().as_secs_f64();
    let took = adapter(city, "bench-sql", amount.rows, &["--once"]).await?;
    both(results, "postgres_rows", "rows/s", amount.rows, plain, took);
    live::changes(city, &cluster, amount, results).await
}

/// How a row of these tables becomes an event.
pub(super) const MAPPING: &str = "map:
  id: {}
  feeder: {}
  mw: {from: kw, type: decimal, scale: 0.001}
  time: {from: at, type: timestamp, zone: offset, precision: us}
key: [id]
time: time
";
