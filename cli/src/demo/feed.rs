//! Check 1: the grid's feed reaches transport, whole, once, in order, redacted, quickly, and with evidence in time.

use super::follow::{Follower, anchored, drain, subscription};
use super::history::{self, Fault};
use super::source::{self, Grid};
use super::steps::{Checked, Found, expect};
use super::tour::{LOAD, WITHIN};
use crate::context::Api;
use crate::failure::{Exit, Failure};
use crate::layout::City;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Rows that are published, this many at a time.
const ROWS: usize = 600;
const BATCH: usize = 20;
/// How often: 200 rows a second.
const EVERY: Duration = Duration::from_millis(100);
/// Writer of the provider's deliver operations.
const WRITER: &str = "grid/executor";

/// The value below which a share of the durations lies.
pub fn percentile(samples: &[Duration], share: f64) -> Option<Duration> {
    let mut sorted = samples.to_vec();
    sorted.sort();
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied()
}

/// The first faults of a history, in a sentence.
pub fn sentence(faults: &[Fault]) -> String {
    let first: Vec<String> = faults.iter().take(3).map(ToString::to_string).collect();
    format!("{} faults: {}", faults.len(), first.join("; "))
}

/// From posting to hand-on, for each message that was posted and came.
pub fn latencies(posted: &BTreeMap<String, Instant>, handed_on: &[(String, Instant)]) -> Vec<Duration> {
    let took = |(key, at): &(String, Instant)| Some(at.saturating_duration_since(*posted.get(key)?));
    handed_on.iter().filter_map(took).collect()
}

/// The ledger's own judgment: entries of this writer, all of them accepted. One that is late, uncovered or refused stays on
/// the ledger as such. Returns how many there are.
pub fn judge_evidence(entries: &[Value], writer: &str) -> Result<usize, String> {
    let ours: Vec<&Value> = entries.iter().filter(|e| e["writer"] == writer).collect();
    for e in &ours {
        expect(e["verdict"] == "accepted", || {
            format!("{} of {writer} is {} on the ledger ({})", e["operation"], e["verdict"], e["code_text"])
        })?;
    }
    expect(!ours.is_empty(), || format!("{writer} has no entry on the ledger: nothing was anchored"))?;
    Ok(ours.len())
}

/// The largest evidence lag that the provider's executor shows for an agreement, milliseconds.
fn lag_of(feeds: &Value, agreement: &str) -> Option<u64> {
    match feeds {
        Value::Array(list) => list.iter().filter_map(|v| lag_of(v, agreement)).max(),
        Value::Object(o) => match (o.get("agreement"), o.get("lag_ms")) {
            (Some(a), Some(lag)) if a == agreement => lag.as_u64(),
            _ => o.values().filter_map(|v| lag_of(v, agreement)).max(),
        },
        _ => None,
    }
}

/// Watches the evidence lag as the provider shows it, until told to stop; returns the largest.
fn watch_lag(grid: Api, stop: Arc<AtomicBool>) -> JoinHandle<Option<u64>> {
    tokio::spawn(async move {
        let mut most = None;
        while !stop.load(Ordering::SeqCst) {
            match grid.get("/v1/feeds").await {
                Ok(feeds) => most = most.max(lag_of(&feeds, LOAD)),
                Err(e) if e.exit == Exit::NotFound => return None,
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        most
    })
}

/// All entries of the log from an index on.
pub async fn entries(api: &Api, mut from: u64) -> Result<Vec<Value>, String> {
    let mut all = Vec::new();
    loop {
        let page = api.get(&format!("/v1/operations?from={from}&limit=1000")).await.map_err(|e| e.to_string())?;
        all.extend(page["operations"].as_array().cloned().unwrap_or_default());
        match page["next_from"].as_u64() {
            Some(next) => from = next,
            None => return Ok(all),
        }
    }
}

/// The check.
pub async fn check(city: &City) -> Checked {
    let fail = |e: Failure| e.to_string();
    let transport = Api::of(&city.root.join("transport"), None, "operator").map_err(fail)?;
    let grid = Api::of(&city.root.join("grid"), None, "operator").map_err(fail)?;
    let sub = subscription(&transport, LOAD, WITHIN).await?;
    let id = sub["id"].as_str().unwrap_or_default().to_owned();
    let allowed = sub["max_lag_ms"].as_u64().unwrap_or_default();
    // What an earlier tour left is taken first.
    drain(&transport, &id).await?;
    let before = grid.get("/v1/operations?limit=1").await.map_err(fail)?["log_size"].as_u64().unwrap_or_default();
    let source = Grid::open(city).map_err(fail)?;
    let (at, _) = source.ahead(ROWS as u64 + 500).await?;
    let follower = Follower::start(&transport, &id);
    let stop = Arc::new(AtomicBool::new(false));
    let lag = watch_lag(grid.clone(), stop.clone());
    let posted = source.publish(at, ROWS, BATCH, EVERY).await;
    let came = follower.reach(ROWS, WITHIN).await;
    let rest = anchored(&transport, &id, WITHIN).await;
    stop.store(true, Ordering::SeqCst);
    let lag = lag.await.map_err(|e| e.to_string())?;
    let (posted, seen) = (posted?, follower.finish().await?);
    let sent = source::history(posted.iter().map(|(record, _)| record));
    let counted = history::check(&[sent], &seen.lines).map_err(|f| sentence(&f))?;
    came?;
    // Where the provider shows no lag, what is left is how long the last delivery waited for its entry.
    let lag_ms = lag.unwrap_or(0).max(rest?.as_millis() as u64);
    let operations = judge_evidence(&entries(&grid, before).await?, WRITER)?;
    let posted: BTreeMap<String, Instant> = posted.iter().map(|(r, at)| (source::key(&r.data), *at)).collect();
    let times = latencies(&posted, &seen.when);
    let p50 = percentile(&times, 0.5).ok_or("no message came")?;
    let p99 = percentile(&times, 0.99).ok_or("no message came")?;
    let ms = |d: Duration| (d.as_secs_f64() * 1e4).round() / 10.0;
    let facts = json!({
        "published": counted.acknowledged, "delivered": counted.delivered, "fields": source::OPEN.len(), "of_fields": 33,
        "p50_ms": ms(p50), "p99_ms": ms(p99), "evidence_lag_ms": lag_ms, "evidence_lag_allowed_ms": allowed,
        "deliver_operations": operations,
    });
    let text = format!(
        "grid/load -> transport  {} of {}, {} of 33 fields  p50 {:.0} ms  evidence lag {:.1} s of {:.0} s allowed",
        counted.delivered,
        counted.acknowledged,
        source::OPEN.len(),
        ms(p50),
        lag_ms as f64 / 1e3,
        allowed as f64 / 1e3
    );
    Ok(Found { text, facts })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn latencies_are_of_what_was_posted_and_came() {
        let begun = Instant::now();
        let after = |ms| begun + Duration::from_millis(ms);
        let posted: BTreeMap<String, Instant> = [("a".into(), begun), ("b".into(), after(10))].into();
        let came = [("b".to_owned(), after(13)), ("a".to_owned(), after(5)), ("stranger".to_owned(), after(1))];
        assert_eq!(latencies(&posted, &came), [Duration::from_millis(3), Duration::from_millis(5)]);
    }

    #[test]
    fn percentiles_are_samples_and_none_of_nothing() {
        let samples: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&samples, 0.5), Some(Duration::from_millis(50)));
        assert_eq!(percentile(&samples, 0.99), Some(Duration::from_millis(99)));
        assert_eq!(percentile(&samples[..1], 0.5), Some(Duration::from_millis(100)));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn evidence_that_is_late_uncovered_refused_or_absent_fails() {
        let entry = |writer: &str, verdict: &str| json!({"operation": "op:7", "writer": writer, "verdict": verdict});
        let good = [entry(WRITER, "accepted"), entry("police/executor", "refused"), entry(WRITER, "accepted")];
        assert_eq!(judge_evidence(&good, WRITER), Ok(2));
        for verdict in ["late", "uncovered", "refused"] {
            let why = judge_evidence(&[entry(WRITER, "accepted"), entry(WRITER, verdict)], WRITER).unwrap_err();
            assert!(why.contains("op:7") && why.contains(verdict), "{why}");
        }
        assert!(judge_evidence(&good[1..2], WRITER).is_err(), "nothing anchored");
    }

    #[test]
    fn the_lag_shown_is_the_agreements_own() {
        let feeds = json!({"published": [{"dataset": "d"}], "delivered": {"subscriptions": [
            {"agreement": "A", "lag_ms": 400}, {"agreement": "B", "lag_ms": 9000}, {"agreement": "A", "lag_ms": 700}]}});
        assert_eq!((lag_of(&feeds, "A"), lag_of(&feeds, "C")), (Some(700), None));
    }
}
