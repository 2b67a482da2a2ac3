//! The sender of the tour's feed: the grid's real load profiles, through the adapter's own mapping.

use super::assets::ASSETS;
use super::history::Line;
use crate::context::Tokens;
use crate::failure::{Failure, read_text};
use crate::layout::City;
use concordat_adapters::client::{Answer, BrokerClient, Outgoing, Position, event_lines};
use concordat_adapters::contract::{Checkpoint, Record, Row, Source as _};
use concordat_adapters::file::{self, FileSource};
use concordat_adapters::plan::Plan;
use concordat_broker::config::NodeConfig;
use concordat_protocol::hash::sha256;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Name of the adapter.
pub const ADAPTER: &str = "load";
/// Fields that the agreement opens, sorted.
pub const OPEN: [&str; 6] = ["lv_rural1", "lv_rural2", "lv_rural3", "lv_semiurb4", "lv_semiurb5", "time"];
/// Rows of the real file; it begins in a leap year.
const ROWS: u64 = 8_736;
const YEAR: u64 = 2016;

/// Digest of what a receiver must see of a record: the open fields, nothing else.
pub fn digest(data: &Map<String, Value>) -> String {
    let seen: BTreeMap<&String, &Value> = data.iter().collect();
    hex::encode(sha256(&[serde_json::to_string(&seen).unwrap_or_default().as_bytes()]))
}

/// Digest of the open fields of a whole record.
fn opened(data: &Map<String, Value>) -> String {
    digest(&data.iter().filter(|(k, _)| OPEN.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect())
}

/// What a sender and a receiver both know a message by.
pub fn key(data: &Map<String, Value>) -> String {
    data.get("time").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The grid's source with its place in the stream.
pub struct Grid {
    dir: PathBuf,
    plan: Arc<Plan>,
    client: BrokerClient,
}

impl Grid {
    /// The source in the grid's folder.
    pub fn open(city: &City) -> Result<Self, Failure> {
        let dir = city.root.join("grid");
        let cfg = NodeConfig::load(&dir)?;
        let plan = Plan::parse(&read_text(&dir.join("adapters").join(format!("{ADAPTER}.yaml")))?);
        let plan = Arc::new(plan.map_err(|e| Failure::usage(format!("{ADAPTER}.yaml: {e}")))?);
        let tokens = read_text(&cfg.keys().join("tokens.yaml"))?;
        let tokens: Tokens =
            serde_saphyr::from_str(&tokens).map_err(|e| Failure::usage(format!("keys/tokens.yaml: {e}")))?;
        let token = tokens.tokens.iter().find(|t| t.roles.iter().any(|r| r == "adapter"));
        let token = token.ok_or_else(|| Failure::usage("keys/tokens.yaml has no token with the role adapter"))?;
        let client = BrokerClient::new(&format!("http://{}", cfg.listen), &token.token)?;
        Ok(Self { dir, plan, client })
    }

    /// Rows of the file that are not published, and the newest durable batch. Where fewer than `least` are left, the file
    /// grows by the same profiles of four years later, as a meter's file does.
    pub async fn ahead(&self, least: u64) -> Result<(Position, Vec<Record>), String> {
        let at = self.client.position(ADAPTER).await.map_err(|e| e.to_string())?;
        let row = row_of(&at.checkpoint)?;
        let (mut total, mut records) = self.rows_after(row)?;
        if (records.len() as u64) < least {
            grow(&self.dir.join(&self.plan.path), total)?;
            (total, records) = self.rows_after(row)?;
        }
        if records.is_empty() {
            return Err(format!("row {row} of {total} is the last one"));
        }
        Ok((at, records))
    }

    fn rows_after(&self, row: u64) -> Result<(u64, Vec<Record>), String> {
        let (mut total, mut records) = (0, Vec::new());
        for one in file::records(&self.dir, self.plan.clone()).map_err(|e| e.to_string())? {
            total += 1;
            match one.map_err(|e| e.to_string())? {
                Row::Good(record) if record.origin.row > row => records.push(record),
                _ => {}
            }
        }
        Ok((total, records))
    }

    /// Publishes `rows` rows behind a place, `batch` of them every `every`, as the adapter does. Returns when each row was
    /// posted, in order.
    pub async fn publish(
        &self,
        mut at: Position,
        rows: usize,
        batch: usize,
        every: Duration,
    ) -> Result<Vec<(Record, Instant)>, String> {
        let mut source = FileSource::new(&self.dir, self.plan.clone());
        let mut clock = tokio::time::interval(every);
        let mut posted: Vec<(Record, Instant)> = Vec::with_capacity(rows);
        while posted.len() < rows {
            let pulled = source.read(&at.checkpoint, batch.min(rows - posted.len())).map_err(|e| e.to_string())?;
            clock.tick().await;
            let (batch_no, checkpoint) = (at.batch_no + 1, pulled.checkpoint);
            let (dataset, after) = (self.plan.dataset.as_str(), &at.checkpoint);
            let out = Outgoing { adapter: ADAPTER, dataset, batch_no, checkpoint: &checkpoint, after };
            let begun = Instant::now();
            match self.client.post(out, event_lines(pulled.records.iter())).await.map_err(|e| e.to_string())? {
                Answer::Accepted { accepted, .. } if accepted == pulled.records.len() as u64 => {}
                other => return Err(format!("batch {batch_no} of the adapter was not taken: {other:?}")),
            }
            posted.extend(pulled.records.into_iter().map(|r| (r, begun)));
            at = Position { batch_no, checkpoint };
        }
        Ok(posted)
    }
}

/// The sender's history of these records, all of them acknowledged.
pub fn history<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<Line> {
    let lines = |r: &Record| {
        let key = key(&r.data);
        [Line::Attempted { key: key.clone(), digest: opened(&r.data) }, Line::Acknowledged { key }]
    };
    records.flat_map(lines).collect()
}

/// The row a file adapter's checkpoint names.
fn row_of(checkpoint: &Checkpoint) -> Result<u64, String> {
    if checkpoint.is_start() {
        return Ok(0);
    }
    let place: Value = serde_json::from_slice(&checkpoint.0).map_err(|e| format!("the adapter's checkpoint: {e}"))?;
    place["row"].as_u64().ok_or_else(|| "the adapter's checkpoint names no row".to_owned())
}

/// Appends the real file's rows, some years later, to the file of `total` rows: another member of the same gzip file.
fn grow(path: &Path, total: u64) -> Result<(), String> {
    let io = |e: std::io::Error| format!("{}: {e}", path.display());
    let asset = ASSETS.iter().find(|a| a.agency == "grid" && a.path.ends_with(".csv.gz"));
    let asset = asset.ok_or("the real file is not in this program")?;
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(asset.bytes).read_to_string(&mut text).map_err(io)?;
    // Leap years, so that every day of the quarter exists.
    let (from, to) = (format!("{YEAR}-"), format!("{}-", YEAR + 4 * total.div_ceil(ROWS).max(1)));
    let mut more = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for line in text.lines().skip(1) {
        writeln!(more, "{}", line.replacen(&from, &to, 1)).map_err(io)?;
    }
    let more = more.finish().map_err(io)?;
    let mut file = std::fs::OpenOptions::new().append(true).open(path).map_err(io)?;
    file.write_all(&more).and_then(|()| file.sync_all()).map_err(io)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn object(v: Value) -> Map<String, Value> {
        v.as_object().unwrap().clone()
    }

    #[test]
    fn a_receiver_must_see_the_open_fields_and_no_other() {
        let whole = object(json!({"time": "t1", "lv_rural1": "0.5", "BL-H": "0.1"}));
        assert_eq!(opened(&whole), digest(&object(json!({"lv_rural1": "0.5", "time": "t1"}))));
        assert_ne!(opened(&whole), digest(&whole), "a hidden field that came is another content");
        assert_ne!(opened(&whole), digest(&object(json!({"time": "t1"}))), "a field that is missing too");
    }

    #[test]
    fn the_file_grows_behind_what_was_read_and_no_key_comes_twice() {
        let dir = tempfile::tempdir().unwrap();
        let find = |end: &str| ASSETS.iter().find(|a| a.agency == "grid" && a.path.ends_with(end)).unwrap();
        let path = dir.path().join("data/grid_load_profiles_q1.csv.gz");
        std::fs::create_dir(dir.path().join("data")).unwrap();
        std::fs::write(&path, find(".csv.gz").bytes).unwrap();
        let yaml = std::str::from_utf8(find("adapters/load.yaml").bytes).unwrap();
        let plan = Arc::new(Plan::parse(yaml).unwrap());
        let mut source = FileSource::new(dir.path(), plan.clone());
        let first = source.read(&Checkpoint::default(), 100).unwrap();
        grow(&path, ROWS).unwrap();
        grow(&path, 2 * ROWS).unwrap();
        let again = FileSource::new(dir.path(), plan.clone()).read(&first.checkpoint, 10).unwrap();
        assert_eq!(row_of(&again.checkpoint), Ok(110), "the place of before is a place of the longer file");
        let rows: Vec<Row> = file::records(dir.path(), plan).unwrap().map(Result::unwrap).collect();
        assert_eq!(rows.len() as u64, 3 * ROWS);
        let good: Vec<String> =
            rows.iter().filter_map(|r| if let Row::Good(r) = r { Some(key(&r.data)) } else { None }).collect();
        let distinct: std::collections::BTreeSet<&String> = good.iter().collect();
        assert_eq!(distinct.len(), good.len());
        assert!(good.len() as u64 > 3 * ROWS - 20, "an hour a year does not exist: {}", good.len());
    }
}
