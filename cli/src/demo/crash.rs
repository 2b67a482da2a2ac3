//! kill -9 of executor and application under a load of queries. What is judged are the answers the application of the
//! consumer got and the log of the ledger, never a counter of the broker.

use super::steps::{Checked, Found, expect};
use crate::context::Api;
use crate::failure::{Exit, Failure};
use crate::layout::City;
use crate::supervisor;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Queries sent.
const QUERIES: usize = 600;
/// Queries in flight.
const IN_FLIGHT: usize = 32;
/// How long a query may be tried again.
const WITHIN: Duration = Duration::from_secs(60);
/// The processes that are killed, at these shares of the load.
const KILLS: [(usize, &str); 4] = [(5, "executor"), (3, "app"), (2, "executor"), (1, "executor")];

/// The answers one query got: the first, and one more under the same idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// op:N
    pub operation: String,
    /// The rows.
    pub rows: String,
}

/// One query's history.
#[derive(Debug, Clone)]
pub struct History {
    /// Every answer with data, in order.
    pub answers: Vec<Answered>,
    /// How often it was denied because the provider withheld it after a crash.
    pub withheld: u32,
}

/// Judges histories against the ledger: every query answered, no second answer with other bytes, no answer without an
/// accepted entry, no entry behind two queries.
pub fn judge(histories: &[History], verdicts: &BTreeMap<String, String>) -> Result<(), String> {
    let mut owner: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, h) in histories.iter().enumerate() {
        let first = h.answers.first().ok_or_else(|| format!("query {i} was never answered"))?;
        for a in &h.answers {
            expect(a == first, || {
                format!("query {i} was answered twice with different bytes: {} and {}", first.operation, a.operation)
            })?;
            let verdict = verdicts.get(&a.operation).map_or("missing", String::as_str);
            expect(verdict == "accepted", || {
                format!("query {i} was answered under {}, which is {verdict}", a.operation)
            })?;
        }
        if let Some(other) = owner.insert(&first.operation, i) {
            return Err(format!("queries {other} and {i} share {}", first.operation));
        }
    }
    Ok(())
}

fn body(i: usize) -> Value {
    let day = 1 + i % 28;
    json!({
        "dataset": "ds:transport/i94@1", "purpose": "purp:public-information", "limit": 100,
        "where": {"time": {"range": {"from": format!("2017-02-{day:02}T00:00:00Z"), "to": format!("2017-02-{day:02}T{:02}:00:00Z", 6 + i % 12)}}},
    })
}

fn kill(dir: &Path, name: &str) -> Result<u32, String> {
    let state = supervisor::status(dir).state.ok_or("the node has no supervisor")?;
    let found = state.processes.iter().find(|p| p.name == name).and_then(|p| p.process);
    let process = found.ok_or_else(|| format!("{name} is not running"))?;
    expect(process.kill_hard(), || format!("{name} is gone"))?;
    Ok(process.pid)
}

/// Asks until there is an answer with data. The same idempotency key is the same query, however often it is sent.
async fn ask(api: &Api, i: usize, run: u64) -> Result<History, String> {
    let (begun, mut history, mut attempt) = (Instant::now(), History { answers: vec![], withheld: 0 }, 0);
    while history.answers.len() < 2 {
        let key = format!("crash-{run}-{i}-{attempt}");
        match api.query(&body(i), Some(&key)).await {
            Ok(answer) => {
                let operation = answer["operation"].as_str().unwrap_or_default().to_owned();
                history.answers.push(Answered { operation, rows: answer["rows"].to_string() });
            }
            Err(e) if begun.elapsed() > WITHIN => return Err(format!("query {i} has no answer: {e}")),
            Err(Failure { exit: Exit::Denied, .. }) if history.answers.is_empty() => {
                // Accepted before the crash and withheld for ever: a new query is needed, and is another operation.
                (history.withheld, attempt) = (history.withheld + 1, attempt + 1);
            }
            Err(Failure { exit: Exit::Unavailable | Exit::Conflict, .. }) => {
                tokio::time::sleep(Duration::from_millis(50)).await
            }
            Err(e) => return Err(format!("query {i}: {e}")),
        }
    }
    Ok(history)
}

/// The check.
pub async fn check(city: &City) -> Checked {
    let provider = city.root.join("transport");
    let api = Arc::new(Api::of(&city.root.join("court"), Some("clerk"), "clerk").map_err(|e| e.to_string())?);
    let run = u64::from(std::process::id());
    let (gate, done) =
        (Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT)), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..QUERIES)
        .map(|i| {
            let (api, gate, done) = (api.clone(), gate.clone(), done.clone());
            tokio::spawn(async move {
                let _permit = gate.acquire().await.map_err(|e| e.to_string())?;
                let history = ask(&api, i, run).await;
                done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                history
            })
        })
        .collect();
    let begun = Instant::now();
    let mut killed: BTreeMap<&str, u32> = BTreeMap::new();
    for (share, process) in KILLS {
        let done = || done.load(std::sync::atomic::Ordering::Relaxed);
        while done() < QUERIES / (share + 1) && begun.elapsed() < WITHIN {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // It may be between two lives from the kill before.
        while let Err(e) = kill(&provider, process) {
            expect(begun.elapsed() < WITHIN, || format!("{process} could not be killed: {e}"))?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        expect(done() < QUERIES, || format!("the load was over before {process} was killed"))?;
        *killed.entry(process).or_default() += 1;
    }
    let mut histories = Vec::new();
    for task in tasks {
        histories.push(task.await.map_err(|e| e.to_string())??);
    }
    let mut verdicts = BTreeMap::new();
    let answered: BTreeSet<String> =
        histories.iter().flat_map(|h| h.answers.iter().map(|a| a.operation.clone())).collect();
    for op in answered {
        let entry = api.get(&format!("/v1/operations/{op}")).await.map_err(|e| e.to_string())?;
        verdicts.insert(op, entry["verdict"].as_str().unwrap_or_default().to_owned());
    }
    judge(&histories, &verdicts)?;
    let withheld: u32 = histories.iter().map(|h| h.withheld).sum();
    let facts = json!({"queries": QUERIES, "answered": histories.len(), "withheld": withheld, "killed": killed});
    let kills = killed.iter().map(|(name, n)| format!("{name} {n}x")).collect::<Vec<_>>().join(", ");
    let text = format!("kill -9 under load ({kills}): {QUERIES} queries, each answered once, an entry behind each");
    Ok(Found { text, facts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(op: &str, rows: &[&str]) -> History {
        let answers = rows.iter().map(|r| Answered { operation: op.into(), rows: (*r).into() }).collect();
        History { answers, withheld: 0 }
    }

    #[test]
    fn the_judge_catches_a_loss_a_double_and_a_missing_entry() {
        let accepted: BTreeMap<String, String> =
            [("op:1", "accepted"), ("op:2", "refused")].map(|(a, b)| (a.into(), b.into())).into();
        assert_eq!(judge(&[history("op:1", &["a", "a"])], &accepted), Ok(()));
        assert!(judge(&[history("op:1", &[])], &accepted).is_err(), "a lost query");
        assert!(judge(&[history("op:1", &["a", "b"])], &accepted).is_err(), "two answers that differ");
        assert!(judge(&[history("op:2", &["a"])], &accepted).is_err(), "released although refused");
        assert!(judge(&[history("op:9", &["a"])], &accepted).is_err(), "released without an entry");
        assert!(judge(&[history("op:1", &["a"]), history("op:1", &["a"])], &accepted).is_err(), "one entry for two");
    }
}
