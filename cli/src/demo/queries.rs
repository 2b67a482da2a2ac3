//! A load of queries while processes are killed. What is judged are the answers that the consumer's application got and the
//! log of the ledger, never a counter of the broker.

use super::steps::expect;
use crate::context::Api;
use crate::failure::{Exit, Failure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Clients that ask at the same time.
const CLIENTS: usize = 8;
/// Queries that are asked at least.
const LEAST: usize = 100;
/// How long a query may be tried again.
const WITHIN: Duration = Duration::from_secs(120);

/// One answer of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// op:N
    pub operation: String,
    /// The rows.
    pub rows: String,
}

/// One query's history: the first answer, and one more under the same idempotency key.
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

/// Clients that ask until they are told to finish.
pub struct Load {
    asking: JoinSet<Result<Vec<History>, String>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Load {
    /// Begins to ask.
    pub fn start(api: &Api) -> Self {
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let answered = Arc::new(AtomicUsize::new(0));
        let mut asking = JoinSet::new();
        for _ in 0..CLIENTS {
            let client =
                Client { api: api.clone(), next: next.clone(), stop: stop.clone(), answered: answered.clone() };
            asking.spawn(client.keep_asking());
        }
        Self { asking, stop, answered }
    }

    /// Queries answered so far.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// Lets every client end its last query; returns all histories.
    pub async fn finish(mut self) -> Result<Vec<History>, String> {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        while let Some(done) = self.asking.join_next().await {
            all.extend(done.map_err(|e| e.to_string())??);
        }
        Ok(all)
    }
}

struct Client {
    api: Api,
    next: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

impl Client {
    async fn keep_asking(self) -> Result<Vec<History>, String> {
        let mut histories = Vec::new();
        loop {
            let i = self.next.fetch_add(1, Ordering::SeqCst);
            if self.stop.load(Ordering::SeqCst) && i >= LEAST {
                return Ok(histories);
            }
            histories.push(ask(&self.api, i).await?);
            self.answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn body(i: usize) -> Value {
    let day = 1 + i % 28;
    json!({
        "dataset": "ds:transport/i94@1", "purpose": "purp:public-information", "limit": 100,
        "where": {"time": {"range": {"from": format!("2017-02-{day:02}T00:00:00Z"), "to": format!("2017-02-{day:02}T{:02}:00:00Z", 6 + i % 12)}}},
    })
}

/// Asks until there is an answer with data. The same idempotency key is the same query, however often it is sent.
async fn ask(api: &Api, i: usize) -> Result<History, String> {
    // Keys are remembered for longer than a tour takes, and process ids come again.
    let run = format!("{}-{}", std::process::id(), jiff::Timestamp::now().as_millisecond());
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
