//! Adapters: from a source to its broker's durable acknowledgement, each beside the plainest reader of the same source.

mod files;
mod live;
mod mqtt;
mod postgres;

use super::chain::Programs;
use super::city::City;
use super::failed::BenchError;
use super::process::peak_mb;
use super::report::Results;
use serde_json::Value;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Who reads its sources.
const PROVIDER: &str = "grid";
/// How often the memory of a running adapter is looked at.
const LOOK: Duration = Duration::from_millis(25);

/// A dataset's document; `NAME` is its name.
const DATASET: &str = "dataset: ds:grid/NAME@1
title: What the benchmark reads
kind: feed
schema: schemas/NAME@1.json
key: [KEY]
time: {field: time, zone: UTC}
subject: none
sensitive: {}
retention: {stream: 1d}
";

/// What a meter tells.
const METER: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "A meter's reading",
  "type": "object",
  "properties": {
    "id": {"type": "string"},
    "feeder": {"type": "string"},
    "mw": {"type": "string", "format": "decimal"},
    "time": {"type": "string", "format": "date-time"}
  },
  "required": ["id", "time"],
  "additionalProperties": false
}
"#;

/// How many rows are read.
#[derive(Debug, Clone, Copy)]
struct Amount {
    /// Rows of the narrow file, and of the table.
    rows: u64,
    /// Rows of the file with 33 columns.
    wide: u64,
    /// Rows of the large file.
    large: u64,
    /// Messages.
    messages: u64,
    /// Changes whose way is timed.
    changes: u64,
}

const WHOLE: Amount = Amount { rows: 600_000, wide: 150_000, large: 1_900_000, messages: 150_000, changes: 200 };
const QUICK: Amount = Amount { rows: 10_000, wide: 3_000, large: 3_000, messages: 3_000, changes: 10 };

/// Measures all of it.
pub async fn run(quick: bool, programs: &Programs, results: &mut Results) -> Result<(), BenchError> {
    let amount = if quick { QUICK } else { WHOLE };
    results.set(
        "adapters",
        format!(
            "{} rows of the hourly traffic, {} of the 32 load profiles, {} of the traffic with a remark of 1,000 B, {} rows of a \
             table, {} messages of 60 B with QoS 1",
            amount.rows, amount.wide, amount.large, amount.rows, amount.messages
        ),
    );
    let city = City::plain(&programs.concordat).await?;
    let schema = |agency: &str, name: &str| read(&city.dir(agency).join("schemas").join(name));
    let (traffic, load) = (schema("transport", "i94@1.json")?, schema(PROVIDER, "load@1.json")?);
    let described = [
        ("bench-csv", "time", traffic.as_str()),
        ("bench-wide", "time", &load),
        ("bench-2gb", "time", &traffic),
        ("bench-sql", "id", METER),
        ("bench-mqtt", "id", METER),
        ("bench-live", "id", METER),
    ];
    let files: Vec<(String, String)> = described
        .iter()
        .flat_map(|(name, key, schema)| {
            let dataset = DATASET.replace("NAME", name).replace("KEY", key);
            [(format!("datasets/{name}.yaml"), dataset), (format!("schemas/{name}@1.json"), (*schema).to_owned())]
        })
        .collect();
    city.with_files(PROVIDER, &files).await?;
    files::rows(&city, amount, results).await?;
    postgres::rows(&city, amount, results).await?;
    mqtt::rows(&city, programs, amount, results).await
}

/// What a run of an adapter took.
#[derive(Debug, Clone, Copy)]
struct Took {
    seconds: f64,
    peak_mb: f64,
}

/// Writes an adapter's document.
fn document(city: &City, name: &str, text: &str) -> Result<(), BenchError> {
    let path = city.dir(PROVIDER).join("adapters").join(format!("{name}.yaml"));
    std::fs::write(&path, text).map_err(|e| BenchError::io(format!("writing {}", path.display()), e))
}

/// Runs an adapter until its source has no more, or for `rows`: from the start of the process to its end, which comes after
/// the last acknowledgement. All rows have to be accepted.
async fn adapter(city: &City, name: &str, expected: u64, bounds: &[&str]) -> Result<Took, BenchError> {
    let mut args = vec!["adapter", "run", name, "--output", "json", "--quiet"];
    args.extend(bounds);
    let dir = city.dir(PROVIDER).to_string_lossy().into_owned();
    args.extend(["--dir", &dir]);
    let begun = Instant::now();
    let mut command = tokio::process::Command::from(city.command(&args));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
    let child = child.map_err(|e| BenchError::io("starting an adapter", e))?;
    let (pid, mut peak) = (child.id().unwrap_or_default(), 0f64);
    let ended = child.wait_with_output();
    tokio::pin!(ended);
    let out = loop {
        tokio::select! {
            out = &mut ended => break out.map_err(|e| BenchError::io("an adapter", e))?,
            () = tokio::time::sleep(LOOK) => peak = peak.max(peak_mb(pid)),
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    if !out.status.success() {
        return Err(BenchError::refused(format!("adapter {name}"), String::from_utf8_lossy(&out.stderr)));
    }
    let said: Value =
        serde_json::from_slice(&out.stdout).map_err(|e| BenchError::refused("what an adapter says", e))?;
    if said["accepted"].as_u64() != Some(expected) {
        return Err(BenchError::refused(
            format!("adapter {name}"),
            format!("{expected} rows were to be accepted: {said}"),
        ));
    }
    Ok(Took { seconds, peak_mb: peak })
}

/// The rows of one source: the plainest reader, the adapter beside it, and its memory.
fn both(results: &mut Results, name: &str, unit: &str, rows: u64, plain_seconds: f64, took: Took) {
    let plain = format!("{name}_plain");
    results.add(&plain, rows as f64 / plain_seconds.max(1e-9), unit, None);
    results.add(name, rows as f64 / took.seconds, unit, Some(&plain));
    results.add(&format!("memory_adapter_{name}"), took.peak_mb, "MB", None);
}

fn read(path: &std::path::Path) -> Result<String, BenchError> {
    std::fs::read_to_string(path).map_err(|e| BenchError::io(format!("reading {}", path.display()), e))
}
