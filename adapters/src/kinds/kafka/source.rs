//! A topic as a source of batches: offsets are our own, in the checkpoint, and no group of consumers knows of us.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};

use super::batch::{Message, stretch};
use super::cluster::{Cluster, Fetched, NEWEST, OLDEST};
use super::document::{Gone, KafkaDoc, Start};
use super::rows::Rows;
use crate::contract::{AdapterError, BATCH_BYTES_MAX, Batch, Checkpoint, ErrorClass, Next, Source};

/// How often it is asked which partitions there are.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Questions of one read at most; a server that throttles answers with nothing.
const ROUNDS: usize = 8;
/// Longest checkpoint.
const CHECKPOINT_BYTES_MAX: usize = 2_900;

/// The contents of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    v: u8,
    /// Messages handed out so far.
    n: u64,
    /// What tells the topic from an earlier one of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    /// The partition that is read first.
    turn: i32,
    /// By partition: the offset that is read next.
    offsets: BTreeMap<i32, i64>,
}

/// What was fetched of a partition and not handed out.
#[derive(Debug, Default)]
struct Buffer {
    messages: VecDeque<Message>,
    /// The offset behind all of them.
    next: i64,
    /// There was nothing behind them.
    end: bool,
}

/// A runtime that may be dropped within another one.
pub(crate) struct Waits(Option<Runtime>);

impl Waits {
    pub(crate) fn new() -> Result<Self, AdapterError> {
        let made = Builder::new_current_thread().enable_all().build();
        made.map(|r| Self(Some(r))).map_err(|source| AdapterError::Io {
            file: "a runtime".to_owned(),
            action: "make",
            source,
        })
    }

    /// Waits for a future.
    pub(crate) fn on<T>(&self, future: impl Future<Output = Result<T, AdapterError>>) -> Result<T, AdapterError> {
        match &self.0 {
            Some(runtime) => runtime.block_on(future),
            None => Err(failed(ErrorClass::Permanent, "source.protocol", "the source is closed".to_owned())),
        }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The messages of a topic.
pub(crate) struct KafkaSource {
    cluster: Cluster,
    waits: Waits,
    rows: Rows,
    only: Option<BTreeSet<i32>>,
    start: Start,
    skips: bool,
    every: Duration,
    place: Place,
    expected: Option<Checkpoint>,
    buffers: BTreeMap<i32, Buffer>,
    /// Where this process began, so that it begins there again.
    began: Option<BTreeMap<i32, i64>>,
    looked: Option<Instant>,
    notes: Vec<String>,
}

fn failed(class: ErrorClass, code: &'static str, message: String) -> AdapterError {
    AdapterError::source_failed(class, code, message)
}

impl KafkaSource {
    /// A source that has not connected yet.
    pub(crate) fn new(doc: &KafkaDoc, cluster: Cluster, rows: Rows) -> Result<Self, AdapterError> {
        Ok(Self {
            cluster,
            waits: Waits::new()?,
            rows,
            only: doc.partitions.as_ref().map(|list| list.value.iter().copied().collect()),
            start: doc.start,
            skips: doc.gone == Gone::Skip,
            every: doc.every(),
            place: Place::default(),
            expected: None,
            buffers: BTreeMap::new(),
            began: None,
            looked: None,
            notes: Vec::new(),
        })
    }

    fn reset(&mut self, from: &Checkpoint) -> Result<(), AdapterError> {
        self.buffers.clear();
        self.notes.clear();
        self.place = if from.is_start() { Place { v: 1, ..Place::default() } } else { from.json()? };
        // Partitions that the place does not know must be looked for again.
        self.looked = None;
        self.expected = Some(from.clone());
        Ok(())
    }

    /// The partitions that are read, the one whose turn it is first.
    fn order(&self) -> Vec<i32> {
        let wanted = |p: &i32| self.only.as_ref().is_none_or(|only| only.contains(p));
        let mut all: Vec<i32> = self.cluster.partitions().filter(wanted).collect();
        let first = all.iter().position(|p| *p >= self.place.turn).unwrap_or(0);
        all.rotate_left(first);
        all
    }

    /// Learns which partitions there are, and where those begin that are new.
    fn know(&mut self) -> Result<(), AdapterError> {
        let known = self.cluster.partitions().next().is_some();
        if known && self.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        self.waits.on(self.cluster.look())?;
        self.looked = Some(Instant::now());
        self.same_topic()?;
        let order = self.order();
        if let Some(missing) = self.only.as_ref().and_then(|only| only.iter().find(|p| !order.contains(p))) {
            let message = format!("topic `{}` has no partition {missing}; correct `partitions`", self.cluster.topic());
            return Err(failed(ErrorClass::Permanent, "source.missing", message));
        }
        let fresh: Vec<i32> = order.into_iter().filter(|p| !self.place.offsets.contains_key(p)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let beginning = self.place.offsets.is_empty();
        if let (true, Some(began)) = (beginning, &self.began) {
            self.place.offsets.clone_from(began);
            return Ok(());
        }
        // What is in a partition that came later was sent while we read.
        let at = if beginning && self.start == Start::Latest { NEWEST } else { OLDEST };
        let found = self.waits.on(self.cluster.offsets(&fresh, at))?;
        if beginning {
            self.began = Some(found.clone());
        } else {
            self.notes.extend(fresh.iter().map(|p| format!("partition {p} is new; it is read from its beginning")));
        }
        self.place.offsets.extend(found);
        Ok(())
    }

    /// A topic of the same name that was made anew has other messages under the offsets.
    fn same_topic(&mut self) -> Result<(), AdapterError> {
        let (Some(had), Some(has)) = (&self.place.topic, &self.cluster.id) else {
            self.place.topic.clone_from(&self.cluster.id);
            return Ok(());
        };
        if had == has {
            return Ok(());
        }
        let text = format!("topic `{}` was deleted and made anew since it was read last", self.cluster.topic());
        if !self.skips {
            let message = format!("{text}; write `gone: skip` to read the new one from its beginning");
            return Err(failed(ErrorClass::Permanent, "source.changed", message));
        }
        self.notes.push(format!("{text}; the new one is read from its beginning"));
        self.place.topic.clone_from(&self.cluster.id);
        self.buffers.clear();
        let all: Vec<i32> = self.order();
        self.place.offsets = self.waits.on(self.cluster.offsets(&all, OLDEST))?;
        Ok(())
    }

    /// Fetches for partitions that have nothing to hand out, until each has something or is at its end.
    fn fill(&mut self, partitions: &[i32]) -> Result<(), AdapterError> {
        let idle = |p: &&i32| self.buffers.get(p).is_none_or(|b| b.messages.is_empty());
        let mut open: Vec<i32> = partitions.iter().filter(idle).copied().collect();
        for _ in 0..ROUNDS {
            if open.is_empty() {
                break;
            }
            let wanted: Vec<(i32, i64)> = open.iter().map(|p| (*p, self.offset(*p))).collect();
            for fetched in self.waits.on(self.cluster.fetch(&wanted))? {
                let partition = fetched.partition;
                if self.take_in(fetched)? {
                    open.retain(|p| *p != partition);
                }
            }
        }
        Ok(())
    }

    fn offset(&self, partition: i32) -> i64 {
        self.place.offsets.get(&partition).copied().unwrap_or_default()
    }

    /// Takes what was fetched of a partition; true when there is something to hand out, or nothing more.
    fn take_in(&mut self, fetched: Fetched) -> Result<bool, AdapterError> {
        let (partition, wanted) = (fetched.partition, self.offset(fetched.partition));
        let Some(data) = fetched.data else {
            self.gone(partition, wanted)?;
            return Ok(false);
        };
        let aborted = data.aborted_transactions.unwrap_or_default();
        let aborted: Vec<(i64, i64)> = aborted.iter().map(|t| (t.producer_id.0, t.first_offset)).collect();
        let found = stretch(data.records.unwrap_or_default(), wanted, &aborted).map_err(|detail| {
            let topic = self.cluster.topic();
            let message = format!(
                "topic `{topic}`, partition {partition}, from offset {wanted} on: {detail}; have the records deleted up \
                 to the next batch, and write `gone: skip`"
            );
            failed(ErrorClass::Data, "source.protocol", message)
        })?;
        let end = if data.last_stable_offset >= 0 { data.last_stable_offset } else { data.high_watermark };
        let buffer = Buffer { messages: found.messages.into(), next: found.next, end: found.next >= end };
        if buffer.messages.is_empty() {
            self.place.offsets.insert(partition, buffer.next);
        }
        let done = buffer.end || !buffer.messages.is_empty();
        self.buffers.insert(partition, buffer);
        Ok(done)
    }

    /// An offset that the server does not have: deleted, or of a topic that was longer once.
    fn gone(&mut self, partition: i32, wanted: i64) -> Result<(), AdapterError> {
        let oldest = self.waits.on(self.cluster.offsets(&[partition], OLDEST))?.remove(&partition).unwrap_or_default();
        let newest = self.waits.on(self.cluster.offsets(&[partition], NEWEST))?.remove(&partition).unwrap_or_default();
        let place = format!("topic `{}`, partition {partition}", self.cluster.topic());
        let text = match wanted {
            _ if wanted < oldest => format!(
                "{place}: offset {wanted} is gone, the oldest one kept is {oldest}: what was between was deleted \
                 before it was read"
            ),
            _ if wanted > newest => {
                format!("{place}: offset {wanted} is behind its end, {newest}: the partition was cut back")
            }
            _ => {
                let message = format!("{place}: offset {wanted} is not there yet; it is tried again");
                return Err(failed(ErrorClass::Transient, "source.unreachable", message));
            }
        };
        if !self.skips {
            let message = format!("{text}; write `gone: skip` to go on with offset {oldest}");
            return Err(failed(ErrorClass::Permanent, "source.changed", message));
        }
        self.notes.push(format!("{text}; it goes on with offset {oldest}"));
        self.place.offsets.insert(partition, oldest);
        Ok(())
    }

    /// The next message of a partition.
    fn take(&mut self, partition: i32) -> Result<Option<Message>, AdapterError> {
        if self.buffers.get(&partition).is_some_and(|b| b.messages.is_empty() && !b.end) {
            self.fill(&[partition])?;
        }
        let Some(buffer) = self.buffers.get_mut(&partition) else { return Ok(None) };
        let Some(message) = buffer.messages.pop_front() else { return Ok(None) };
        // Behind the last one there may be records that are none of ours.
        let next = if buffer.messages.is_empty() { buffer.next } else { message.offset.saturating_add(1) };
        self.place.offsets.insert(partition, next);
        self.place.n += 1;
        Ok(Some(message))
    }

    fn has(&self, partition: i32) -> bool {
        self.buffers.get(&partition).is_some_and(|b| !b.messages.is_empty())
    }

    /// Rows of all partitions that have some, each as many as its share.
    fn gather(&mut self, batch: &mut Batch, max: usize) -> Result<(), AdapterError> {
        let (order, mut bytes) = (self.order(), 0);
        self.fill(&order)?;
        loop {
            let active: Vec<i32> = order.iter().filter(|p| self.has(**p)).copied().collect();
            let share = ((max - batch.rows().min(max)) / active.len().max(1)).max(1);
            if active.is_empty() {
                return Ok(());
            }
            for partition in active {
                for _ in 0..share {
                    if batch.rows() >= max || bytes >= BATCH_BYTES_MAX {
                        return Ok(());
                    }
                    let Some(message) = self.take(partition)? else { break };
                    let row = self.rows.row(partition, &message);
                    bytes += row.size_hint();
                    batch.push(row);
                    self.place.turn = partition.saturating_add(1);
                }
            }
        }
    }

    fn attempt(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        if self.expected.as_ref() != Some(from) {
            self.reset(from)?;
        }
        let before = self.place.clone();
        self.know()?;
        let mut batch = Batch::at(from, Next::Idle(self.every));
        self.gather(&mut batch, max)?;
        let more = self.buffers.values().any(|b| !b.messages.is_empty() || !b.end);
        if more && batch.rows() > 0 {
            batch.next = Next::More;
        }
        if self.place != before {
            batch.checkpoint = Checkpoint::of_json(&self.place);
        }
        if batch.checkpoint.0.len() > CHECKPOINT_BYTES_MAX {
            let message = format!(
                "topic `{}` has too many partitions for one adapter: share them out by `partitions`",
                self.cluster.topic()
            );
            return Err(failed(ErrorClass::Permanent, "source.limit", message));
        }
        self.expected = Some(batch.checkpoint.clone());
        batch.notes = std::mem::take(&mut self.notes);
        Ok(batch)
    }
}

impl Source for KafkaSource {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        let mut read = self.attempt(from, max);
        if matches!(&read, Err(error) if error.class() == ErrorClass::Transient) {
            // A leader that moved, or a connection that was closed while nobody spoke: once more, from the beginning.
            self.cluster.forget();
            self.expected = None;
            read = self.attempt(from, max);
        }
        if read.is_err() {
            // What was taken before the error is taken again.
            self.cluster.forget();
            self.expected = None;
        }
        read
    }
}
