//! The receiver of the tour's feed: an application that reads by pull, keeps its own place, and acknowledges.

use super::history::{Line, Place};
use super::source::{digest, key};
use super::steps::expect;
use crate::context::Api;
use crate::failure::{Exit, Failure};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How long a gateway may be unreachable, and an acknowledgement open.
const WITHIN: Duration = Duration::from_secs(120);
/// How long to wait before the next try.
const RETRY: Duration = Duration::from_millis(50);

/// What the receiver wrote down.
#[derive(Debug, Default)]
pub struct Seen {
    /// Its history.
    pub lines: Vec<Line>,
    /// When each message was handed on, by its key.
    pub when: Vec<(String, Instant)>,
}

/// An application that follows one subscription until it is told to finish.
pub struct Follower {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<(), String>>,
}

impl Follower {
    /// Begins to follow.
    pub fn start(api: &Api, id: &str) -> Self {
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let reader = Reader { api: api.clone(), id: id.to_owned(), seen: seen.clone(), stop: stop.clone() };
        Self { seen, stop, task: tokio::spawn(reader.run()) }
    }

    /// Messages handed on so far, repeats included.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).when.len()
    }

    /// Waits until so many messages came.
    pub async fn reach(&self, count: usize, within: Duration) -> Result<(), String> {
        let begun = Instant::now();
        while self.count() < count && !self.task.is_finished() && begun.elapsed() < within {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        expect(self.count() >= count || self.task.is_finished(), || {
            format!("{} of {count} messages came within {} s", self.count(), within.as_secs())
        })
    }

    /// Waits for whatever still comes within a moment, and for the last acknowledgement.
    pub async fn finish(self) -> Result<Seen, String> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.map_err(|e| e.to_string())??;
        Ok(std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

struct Reader {
    api: Api,
    id: String,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
}

impl Reader {
    /// Reads behind its own place, so that nothing is handed on twice even where an acknowledgement was lost.
    async fn run(self) -> Result<(), String> {
        let (mut after, mut owed): (Option<String>, Option<(String, Place)>) = (None, None);
        let mut well = Instant::now();
        loop {
            let stopping = self.stop.load(Ordering::SeqCst);
            let place = after.as_ref().map(|c| format!("&after={c}")).unwrap_or_default();
            let page = self.api.get(&format!("/v1/subscriptions/{}/messages?max=256&wait=1{place}", self.id)).await;
            let Some(page) = again(page, &mut well).await? else { continue };
            if let Some(last) = self.note(&page)? {
                let cursor = page["cursor"].as_str().ok_or("a page of messages has no cursor")?.to_owned();
                after = Some(cursor.clone());
                owed = Some((cursor, last));
            } else if stopping && owed.is_none() {
                return Ok(());
            }
            if let Some((cursor, place)) = owed.take() {
                let (path, body) = (format!("/v1/subscriptions/{}/acks", self.id), json!({"cursor": cursor}));
                match again(self.api.post(&path, &body).await, &mut well).await? {
                    Some(_) => self.write(Line::Committed { at: place }),
                    // A gateway that came back has not fetched it yet: later.
                    None => owed = Some((cursor, place)),
                }
            }
        }
    }

    fn write(&self, line: Line) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).lines.push(line);
    }

    /// Writes a page down; returns the place of its last message.
    fn note(&self, page: &Value) -> Result<Option<Place>, String> {
        let now = Instant::now();
        let mut last = None;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for message in page["messages"].as_array().into_iter().flatten() {
            let at = (message["sub_seq"].as_u64().unwrap_or_default(), message["index"].as_u64().unwrap_or_default());
            let data = message["data"].as_object().ok_or("a message has no data")?;
            let key = key(data);
            seen.lines.push(Line::Received { at, key: key.clone(), digest: digest(data) });
            seen.when.push((key, now));
            last = Some(at);
        }
        Ok(last)
    }
}

/// An answer, or none where it is worth another try; a gateway that is killed comes back.
async fn again(answer: Result<Value, Failure>, well: &mut Instant) -> Result<Option<Value>, String> {
    match answer {
        Ok(value) => {
            *well = Instant::now();
            Ok(Some(value))
        }
        // A subscription is not there until the gateway has read the ledger again.
        Err(e) if well.elapsed() < WITHIN && matches!(e.exit, Exit::Unavailable | Exit::Conflict | Exit::NotFound) => {
            tokio::time::sleep(RETRY).await;
            Ok(None)
        }
        Err(e) => Err(e.to_string()),
    }
}

/// The default subscription of an agency under an agreement, once its gateway shows it.
pub async fn subscription(api: &Api, agreement: &str, within: Duration) -> Result<Value, String> {
    let end = Instant::now() + within;
    loop {
        let all = api.get("/v1/subscriptions").await.map_err(|e| e.to_string())?;
        let list = all["subscriptions"].as_array().cloned().unwrap_or_default();
        let ours = list.into_iter().filter(|s| s["agreement"].as_str() == Some(agreement));
        // The default one has the clause's handle as number; created ones are larger.
        if let Some(one) = ours.min_by_key(|s| s["subscription"].as_u64()) {
            return Ok(one);
        }
        expect(Instant::now() < end, || format!("there is no subscription under {agreement}"))?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Reads and acknowledges once.
pub async fn pull(api: &Api, id: &str, max: u64, wait: &str) -> Result<Vec<Value>, Failure> {
    let page = api.get(&format!("/v1/subscriptions/{id}/messages?max={max}&wait={wait}")).await?;
    let messages = page["messages"].as_array().cloned().unwrap_or_default();
    if !messages.is_empty() {
        api.post(&format!("/v1/subscriptions/{id}/acks"), &json!({"cursor": page["cursor"]})).await?;
    }
    Ok(messages)
}

/// Takes what an earlier tour left, until nothing comes for a second.
pub async fn drain(api: &Api, id: &str) -> Result<(), String> {
    while !pull(api, id, 256, "1").await.map_err(|e| e.to_string())?.is_empty() {}
    Ok(())
}

/// Waits until the ledger has anchored everything that was delivered; returns how long that took.
pub async fn anchored(api: &Api, id: &str, within: Duration) -> Result<Duration, String> {
    let begun = Instant::now();
    loop {
        let ours = api.get(&format!("/v1/subscriptions/{id}")).await.map_err(|e| e.to_string())?;
        let (got, anchored) = (ours["last_sub_seq"].as_u64(), ours["anchored_sub_seq"].as_u64());
        if got.is_some() && anchored >= got {
            return Ok(begun.elapsed());
        }
        expect(begun.elapsed() < within, || format!("delivered up to {got:?}, anchored up to {anchored:?}"))?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
