//! Overrides: rows at once under a promise, beside the same query straight to the provider's store.

use super::city::{AGREEMENT, City};
use super::failed::BenchError;
use super::http::Connection;
use super::query::{Clerk, DATASET};
use super::report::{Results, percentile};
use concordat_executor::holding::{Holding, Plan, SqliteHolding, SqliteOptions};
use concordat_executor::query::Query;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write as _;
use std::time::Instant;

/// Overrides of one row, one after another.
const SINGLE: usize = 200;
/// Overrides of [`ROWS`] rows.
const MANY: usize = 30;
/// Rows of a large override.
const ROWS: usize = 1_000;

/// The parts of a query that override and store are both asked.
fn asked(filter: &Value, limit: usize) -> Value {
    json!({"dataset": DATASET, "where": filter, "limit": limit})
}

/// Milliseconds of each of `count` lookups in the store.
fn in_store(city: &City, filters: &[Value], limit: usize, count: usize) -> Result<Vec<f64>, BenchError> {
    let refused = |e: &dyn std::fmt::Display| BenchError::refused("the provider's store", e);
    let holding = SqliteHolding::open(&city.holding()?, SqliteOptions::default()).map_err(|e| refused(&e))?;
    let spec = holding.spec(DATASET).map_err(|e| refused(&e))?;
    let mut took = Vec::with_capacity(count);
    for i in 0..count {
        let begun = Instant::now();
        let query = Query::parse(&asked(&filters[i % filters.len()], limit), &spec.fields).map_err(|e| refused(&e))?;
        let rows = holding.query(&Plan::from(query)).map_err(|e| refused(&e))?.rows.len();
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        if rows != limit {
            return Err(refused(&format!("{rows} rows instead of {limit}")));
        }
    }
    Ok(took)
}

/// Milliseconds of each of `count` overrides through the consumer's gateway.
async fn overrides(officer: &Clerk, filters: &[Value], limit: usize, count: usize) -> Result<Vec<f64>, BenchError> {
    let mut connection = Connection::new(officer.addr());
    let mut took = Vec::with_capacity(count);
    // The first one opens the session.
    for i in 0..=count {
        let mut body = asked(&filters[i % filters.len()], limit);
        body["purpose"] = json!("purp:bench-override");
        body["clause"] = json!(format!("{AGREEMENT}/B1"));
        body["break_glass"] = json!({"justification": "Measuring the system"});
        let begun = Instant::now();
        let answer = officer.ask(&mut connection, body.to_string().as_bytes()).await?;
        if i > 0 {
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let rows = answer["rows"].as_array().map_or(0, Vec::len);
        if rows != limit {
            return Err(BenchError::refused("an override", format!("{rows} rows instead of {limit}")));
        }
    }
    Ok(took)
}

/// Milliseconds in which the disk keeps a page that was appended to a file, one after another.
fn syncs(city: &City, count: usize) -> Result<Vec<f64>, BenchError> {
    let path = city.dir("police").join("bench.sync");
    let failed = |e: std::io::Error| BenchError::io(format!("writing {}", path.display()), e);
    let (mut file, mut took) = (File::create(&path).map_err(failed)?, Vec::with_capacity(count));
    for _ in 0..count {
        file.write_all(&[7; 4_096]).map_err(failed)?;
        let begun = Instant::now();
        file.sync_data().map_err(failed)?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    std::fs::remove_file(&path).map_err(failed)?;
    Ok(took)
}

/// Adds the rows `bounded_*`, `store_*` and `disk_sync_*`, medians in milliseconds.
pub async fn rows(city: &City, keys: &[String], quick: bool, results: &mut Results) -> Result<(), BenchError> {
    let officer = Clerk::from(city.gateway("court", "duty-officer")?)?;
    let one: Vec<Value> = keys.iter().take(SINGLE).map(|k| json!({"stop_id": {"eq": k}})).collect();
    let many = [json!({"time": {"range": {"from": "2017-01-01T00:00:00Z", "to": "2017-12-31T00:00:00Z"}}})];
    results.add("disk_sync_p50_ms", percentile(&syncs(city, SINGLE)?, 0.5), "ms", None);
    let part = |n: usize| if quick { n.div_ceil(10) } else { n };
    for (name, filters, limit, count) in
        [("row", &one[..], 1, part(SINGLE)), ("1000_rows", &many[..], ROWS, part(MANY))]
    {
        let store = format!("store_{name}_p50_ms");
        let direct = in_store(city, filters, limit, count)?;
        results.add(&store, percentile(&direct, 0.5), "ms", None);
        let through = overrides(&officer, filters, limit, count).await?;
        results.add(&format!("bounded_{name}_p50_ms"), percentile(&through, 0.5), "ms", Some(&store));
        results.add(&format!("bounded_{name}_p99_ms"), percentile(&through, 0.99), "ms", None);
    }
    Ok(())
}
