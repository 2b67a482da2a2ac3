//! How the agency's own feeds stand: what `GET /v1/feeds` says of the side that publishes.

use super::envelope::Head;
use super::pipeline::Durable;
use super::{IntakeError, Position};
use crate::metrics::Metrics;
use concordat_protocol::ids::DatasetId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often ages are computed.
const EVERY: Duration = Duration::from_secs(5);
/// Largest status file of an adapter that is read, bytes.
const STATUS_BYTES_MAX: u64 = 64 << 10;

/// How a feed's intake does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum State {
    /// It takes messages.
    Ok,
    /// It does not yet, or no longer: why.
    Waiting(String),
    /// The stream is full.
    Full,
    /// Its stream was not read yet.
    #[default]
    Starting,
}

/// One feed.
#[derive(Debug, Clone, Default)]
pub(super) struct Feed {
    read: bool,
    state: State,
    head_seq: u64,
    messages: u64,
    envelopes: u64,
    anchored_seq: Option<u64>,
    adapter: String,
    position: Position,
    waiting: usize,
    in_flight: usize,
    newest_ms: Option<i64>,
}

/// All feeds of this agency. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Feeds {
    all: Arc<Mutex<BTreeMap<DatasetId, Feed>>>,
}

impl Feeds {
    fn all(&self) -> MutexGuard<'_, BTreeMap<DatasetId, Feed>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, dataset: &DatasetId, change: impl FnOnce(&mut Feed)) {
        let mut all = self.all();
        match all.get_mut(dataset) {
            Some(feed) => change(feed),
            None => change(all.entry(dataset.clone()).or_default()),
        }
    }

    /// The stream was read.
    pub fn read(&self, dataset: &DatasetId, head: &Head) {
        self.change(dataset, |f| {
            f.read = true;
            f.head_seq = head.next_seq - 1;
            f.adapter.clone_from(&head.source.adapter);
            f.position = head.position();
        });
    }

    /// An envelope is durable.
    pub fn durable(&self, dataset: &DatasetId, durable: &Durable) {
        self.change(dataset, |f| {
            let head = &durable.head;
            f.head_seq = head.next_seq - 1;
            f.envelopes += 1;
            f.messages += head.answer.accepted;
            f.newest_ms = f.newest_ms.max(durable.newest_ms);
            f.state = State::Ok;
            if f.position.batch_no != head.source.batch_no || f.adapter != head.source.adapter {
                f.adapter.clone_from(&head.source.adapter);
                f.position = head.position();
            }
        });
    }

    /// How it does.
    pub fn state(&self, dataset: &DatasetId, state: State) {
        self.change(dataset, |f| f.state = state);
    }

    /// What waits.
    pub fn waiting(&self, dataset: &DatasetId, waiting: usize, in_flight: usize) {
        self.change(dataset, |f| (f.waiting, f.in_flight) = (waiting, in_flight));
    }

    /// What the ledger knows.
    pub fn anchored(&self, dataset: &DatasetId, seq: u64) {
        self.change(dataset, |f| f.anchored_seq = Some(seq));
    }

    /// Where an adapter stands. Unknown until every one of `feeds` streams was read once: a guess would make it begin
    /// again.
    pub fn position(&self, adapter: &str, feeds: usize) -> Result<Position, IntakeError> {
        let all = self.all();
        if let Some(feed) = all.values().find(|f| f.read && f.adapter == adapter) {
            return Ok(feed.position.clone());
        }
        if all.values().filter(|f| f.read).count() < feeds {
            return Err(IntakeError::Unavailable("the streams were not read yet".into()));
        }
        Ok(Position::default())
    }

    /// Every feed as the API shows it.
    pub fn json(&self) -> BTreeMap<DatasetId, Value> {
        let show = |f: &Feed| {
            let (state, why) = match &f.state {
                State::Ok => ("ok", None),
                State::Starting => ("starting", None),
                State::Waiting(why) => ("waiting", Some(why.clone())),
                State::Full => {
                    ("full", Some("the stream is full: give it more room or a shorter retention".to_owned()))
                }
            };
            let unanchored = f.anchored_seq.map(|a| f.head_seq.saturating_sub(a));
            json!({
                "state": state, "why": why, "head_seq": f.head_seq, "anchored_seq": f.anchored_seq, "unanchored": unanchored,
                "messages_accepted": f.messages, "envelopes_accepted": f.envelopes, "waiting": f.waiting, "in_flight": f.in_flight,
                "adapter": (!f.adapter.is_empty()).then_some(&f.adapter), "batch_no": f.position.batch_no,
                "newest_event_ms": f.newest_ms,
            })
        };
        self.all().iter().map(|(id, f)| (id.clone(), show(f))).collect()
    }

    /// Sets the gauges that age by themselves, and what adapters of this folder say of their dead letters.
    fn measure(&self, metrics: &Metrics, now_ms: i64, adapters: &[(String, Value)]) {
        for feed in self.all().values().filter(|f| !f.adapter.is_empty()) {
            if let Some(newest) = feed.newest_ms {
                let age = now_ms.saturating_sub(newest).max(0) as f64 / 1_000.0;
                metrics.adapter_source_age.with_label_values(&[feed.adapter.as_str()]).set(age);
            }
        }
        let mut classes = BTreeMap::<&str, i64>::new();
        let of = |status: &'_ Value| {
            status.get("dead_letters").and_then(|d| d.get("by_class")).and_then(Value::as_object).cloned()
        };
        let lists: Vec<_> = adapters.iter().filter_map(|(_, status)| of(status)).collect();
        for (class, n) in lists.iter().flatten() {
            *classes.entry(class).or_default() += n.as_i64().unwrap_or_default();
        }
        for (class, n) in classes {
            metrics.adapter_dead_letters.with_label_values(&[class]).set(n);
        }
    }

    /// Measures every few seconds, as long as the process lives. `folder` is where adapters of this node keep their
    /// status.
    pub async fn watch(self, metrics: Metrics, folder: PathBuf) {
        loop {
            let from = folder.clone();
            let found = tokio::task::spawn_blocking(move || statuses(&from)).await.unwrap_or_default();
            self.measure(&metrics, jiff::Timestamp::now().as_millisecond(), &found);
            tokio::time::sleep(EVERY).await;
        }
    }
}

/// The status files that adapters of this node wrote.
fn statuses(folder: &std::path::Path) -> Vec<(String, Value)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let read = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?.strip_suffix(".status.json")?.to_owned();
        if entry.metadata().ok()?.len() > STATUS_BYTES_MAX {
            return None;
        }
        Some((name, serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok()?))
    };
    entries.filter_map(|e| read(e.ok()?)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use concordat_protocol::message::SourceState;

    fn dataset(name: &str) -> DatasetId {
        DatasetId::new(name).unwrap()
    }

    fn head(batch_no: u64, next_seq: u64) -> Head {
        let source = SourceState { adapter: "load".into(), batch_no, checkpoint: vec![batch_no as u8].into() };
        Head {
            next_seq,
            source,
            answer: super::super::Accepted { accepted: 5, last_seq: next_seq - 1 },
            ..Head::empty()
        }
    }

    #[test]
    fn a_position_is_not_guessed_before_every_stream_was_read() {
        let feeds = Feeds::default();
        let (one, two) = (dataset("ds:grid/load@1"), dataset("ds:grid/meter@1"));
        feeds.state(&one, State::Waiting("down".into()));
        assert!(feeds.position("load", 2).is_err());
        feeds.read(&one, &Head::empty());
        assert!(feeds.position("load", 2).is_err(), "it may feed the other one");
        feeds.read(&two, &head(3, 16));
        assert_eq!(feeds.position("load", 2).unwrap(), Position { batch_no: 3, checkpoint: vec![3] });
        assert_eq!(feeds.position("new", 2).unwrap(), Position::default());
        feeds.durable(&two, &Durable { head: head(4, 21), newest_ms: None });
        assert_eq!(feeds.position("load", 2).unwrap().batch_no, 4);
    }

    #[test]
    fn a_feed_shows_what_is_not_anchored_and_its_age() {
        let (feeds, id, metrics) = (Feeds::default(), dataset("ds:grid/load@1"), Metrics::new().unwrap());
        feeds.read(&id, &head(3, 16));
        feeds.durable(&id, &Durable { head: head(4, 21), newest_ms: Some(4_000) });
        feeds.anchored(&id, 15);
        let shown = feeds.json().remove(&id).unwrap();
        assert_eq!((&shown["head_seq"], &shown["unanchored"], &shown["state"]), (&json!(20), &json!(5), &json!("ok")));
        assert_eq!(
            (&shown["messages_accepted"], &shown["adapter"], &shown["batch_no"]),
            (&json!(5), &json!("load"), &json!(4))
        );
        let dir = tempfile::tempdir().unwrap();
        let status = json!({"dead_letters": {"by_class": {"time": 3, "broker": 1}}});
        std::fs::write(dir.path().join("load.status.json"), status.to_string()).unwrap();
        std::fs::write(dir.path().join("other.status.json"), "{").unwrap();
        feeds.measure(&metrics, 10_000, &statuses(dir.path()));
        let text = metrics.text();
        assert!(text.contains("concordat_adapter_source_age_seconds{adapter=\"load\"} 6\n"), "{text}");
        assert!(text.contains("concordat_adapter_dead_letters{class=\"time\"} 3\n"), "{text}");
    }
}
