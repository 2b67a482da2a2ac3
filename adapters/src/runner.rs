//! The loop that publishes a source: pull, dead letters, post, acknowledge; from the newest envelope on.
//!
//! The broker keeps the position in the same durable write as the events, so the runner keeps none:
//! killed at any point, it asks and goes on, and nothing is lost or doubled. Several batches are under
//! way at once; when one does not arrive as it should, the runner waits for the others, asks where the
//! broker stands and goes on from there.

mod config;
mod tell;

pub use config::{IN_FLIGHT, RunConfig};

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::{Answer, BrokerClient, LineError, Position};
use crate::contract::{AdapterError, BATCH_RECORDS_MAX, Batch, Checkpoint, ErrorClass, Record, Reject, Source};
use crate::dead_letter::DeadLetters;
use crate::document::{OnAuth, OnData, OnTransient};
use crate::flights::{Flights, Pulled};
use crate::pace::{backoff_ms, pace_wait_ms, pull_max};
use crate::read_ahead::Reader;

/// How often in a row the broker may name another position before the runner gives up.
const CONFLICTS_MAX: u32 = 3;

/// What a run is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Publishing.
    #[default]
    Running,
    /// Waiting to try again.
    Waiting,
    /// The source has no more.
    Done,
    /// Stopped on request or at `rows_max`.
    Stopped,
}

/// How far a run is; counts are of this run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Newest durable batch.
    pub batch_no: u64,
    /// Rows pulled, good and bad.
    pub rows: u64,
    /// Events the broker took.
    pub accepted: u64,
    /// Events the broker knew already.
    pub duplicates: u64,
    /// Rows put into the dead letters that were not there before.
    pub dead_letters: u64,
    /// Failed tries since the last success.
    pub failures: u32,
    /// The last error.
    pub last_error: Option<String>,
}

/// Runs until the source ends, `stop` becomes true or an error stops it. `progress` is called after
/// every batch and every failure.
pub async fn run<S: Source>(
    source: S,
    client: &BrokerClient,
    dead: &mut DeadLetters,
    config: &RunConfig,
    stop: watch::Receiver<bool>,
    progress: impl FnMut(&Progress) + Send,
) -> Result<Progress, AdapterError> {
    let mut run = Run {
        reader: Reader::new(source),
        client,
        dead,
        config,
        stop,
        report: progress,
        progress: Progress::default(),
        pulled: 0,
        newest_event: None,
        start: Instant::now(),
        started_at: now(),
        said: None,
    };
    let done = run.publish().await;
    run.tell_all(done.as_ref().err());
    done.map(|()| run.progress)
}

struct Run<'a, S, F> {
    reader: Reader<S>,
    client: &'a BrokerClient,
    dead: &'a mut DeadLetters,
    config: &'a RunConfig,
    stop: watch::Receiver<bool>,
    report: F,
    progress: Progress,
    /// Rows pulled and not given back.
    pulled: u64,
    newest_event: Option<String>,
    start: Instant,
    started_at: String,
    said: Option<Instant>,
}

/// How a stretch of publishing ended.
enum Stretch {
    /// Nothing is left, or it was asked to stop.
    Over,
    /// A batch did not arrive as it should: true when the broker named another position.
    Ask(bool),
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl<S: Source, F: FnMut(&Progress) + Send> Run<'_, S, F> {
    async fn publish(&mut self) -> Result<(), AdapterError> {
        let (client, config) = (self.client, self.config);
        let Some(mut at) = self.position().await? else { return Ok(()) };
        self.progress.batch_no = at.batch_no;
        let mut flights = Flights::new(client, config, &at);
        // Where the source is read next; none at its end.
        let mut source = Some(at.checkpoint.clone());
        let mut conflicts = 0;
        loop {
            let before = at.clone();
            let other = match self.stretch(&mut at, &mut source, &mut flights).await? {
                Stretch::Over => return Ok(()),
                Stretch::Ask(other) => other,
            };
            conflicts = if at == before { conflicts + u32::from(other) } else { u32::from(other) };
            if conflicts >= CONFLICTS_MAX {
                return Err(AdapterError::Contended { adapter: config.adapter.clone(), times: conflicts });
            }
            flights.land().await;
            let Some(found) = self.position().await? else { return Ok(()) };
            match flights.settle(&at, &found) {
                Some(durable) => {
                    if !durable.is_empty() {
                        self.succeeded();
                    }
                    durable.into_iter().for_each(|p| self.durable(p, found.batch_no));
                }
                None => {
                    // The rows after the broker's place are pulled again.
                    self.pulled = self.progress.rows;
                    source = Some(found.checkpoint.clone());
                }
            }
            self.progress.batch_no = found.batch_no;
            at = found;
        }
    }

    /// Publishes until nothing is left or something must be asked.
    async fn stretch(
        &mut self,
        at: &mut Position,
        source: &mut Option<Checkpoint>,
        flights: &mut Flights<'_>,
    ) -> Result<Stretch, AdapterError> {
        loop {
            while let Some(from) = source.clone().filter(|_| flights.len() < self.config.in_flight.max(1)) {
                if self.stopped() || self.config.rows_max.is_some_and(|max| self.pulled >= max) {
                    self.progress.phase = Phase::Stopped;
                    break;
                }
                let Some(batch) = self.pull(&from).await? else { break };
                self.bury(&batch.rejects)?;
                if !self.keep_pace().await {
                    break;
                }
                self.pulled += (batch.records.len() + batch.rejects.len()) as u64;
                *source = (!batch.end).then(|| batch.checkpoint.clone());
                flights.push(batch);
            }
            let Some((front, answer)) = flights.front().await else {
                if source.is_none() {
                    self.progress.phase = Phase::Done;
                }
                return Ok(Stretch::Over);
            };
            let Some((number, answer)) = answer else {
                // Nothing of it was good: it needs no envelope.
                at.checkpoint.clone_from(&front.checkpoint);
                self.progress.rows += front.rows;
                flights.pass();
                continue;
            };
            match answer {
                Ok(Answer::Accepted { accepted, duplicates }) => {
                    self.succeeded();
                    *at = Position { batch_no: number, checkpoint: front.checkpoint.clone() };
                    self.progress.duplicates += duplicates;
                    let known = front.records.len() as u64;
                    if let Some(pulled) = flights.landed() {
                        self.durable(pulled, number);
                    }
                    self.progress.accepted = self.progress.accepted + accepted - known.min(accepted);
                    (self.report)(&self.progress);
                    self.tell();
                }
                Ok(Answer::Resume(_)) => return Ok(Stretch::Ask(true)),
                Ok(Answer::Refused(lines)) => {
                    let records = std::mem::take(&mut front.records);
                    front.records = self.refuse(records, &lines)?;
                    if !flights.again(number) {
                        return Ok(Stretch::Ask(false));
                    }
                }
                Err(error) => {
                    flights.land().await;
                    if !self.wait_after(error).await? {
                        return Ok(Stretch::Over);
                    }
                    return Ok(Stretch::Ask(false));
                }
            }
        }
    }

    /// A batch is durable.
    fn durable(&mut self, batch: Pulled, newest: u64) {
        self.progress.batch_no = newest;
        self.progress.accepted += batch.records.len() as u64;
        self.progress.rows += batch.rows;
        if let Some(time) = batch.records.into_iter().next_back().and_then(|r| r.time) {
            self.newest_event = Some(time);
        }
    }

    /// Where to go on; `None` when asked to stop meanwhile.
    async fn position(&mut self) -> Result<Option<Position>, AdapterError> {
        loop {
            match self.client.position(&self.config.adapter).await {
                Ok(position) => return Ok(Some(position)),
                Err(error) => {
                    if !self.wait_after(error).await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    async fn pull(&mut self, from: &Checkpoint) -> Result<Option<Batch>, AdapterError> {
        let mut max = pull_max(self.config.pace).min(self.config.batch_max.clamp(1, BATCH_RECORDS_MAX));
        if let Some(rows) = self.config.rows_max {
            let left = rows.saturating_sub(self.pulled);
            max = max.min(usize::try_from(left).unwrap_or(max)).max(1);
        }
        loop {
            match self.reader.read(from, max).await {
                Ok(batch) => return Ok(Some(batch)),
                Err(error) => {
                    if !self.wait_after(error).await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Lines that the broker refuses become dead letters; the rest is returned.
    fn refuse(&mut self, records: Vec<Record>, lines: &[LineError]) -> Result<Vec<Record>, AdapterError> {
        let by_index: BTreeMap<usize, &LineError> = lines.iter().map(|l| (l.index, l)).collect();
        let (mut kept, mut rejects) = (Vec::new(), Vec::new());
        for (n, record) in records.into_iter().enumerate() {
            match by_index.get(&n) {
                Some(error) => rejects.push(refused(&record, error)),
                None => kept.push(record),
            }
        }
        if rejects.is_empty() {
            let detail = "it names no line of the batch".to_owned();
            return Err(AdapterError::Refused { status: 422, detail });
        }
        self.bury(&rejects)?;
        Ok(kept)
    }

    /// Dead letters are durable before the checkpoint passes their rows.
    fn bury(&mut self, rejects: &[Reject]) -> Result<(), AdapterError> {
        let Some(first) = rejects.first() else { return Ok(()) };
        self.progress.dead_letters += self.dead.append(rejects, &self.config.dataset, &now())?;
        match self.config.on_error.data {
            OnData::DeadLetter => Ok(()),
            OnData::Stop => Err(AdapterError::DataStop {
                count: rejects.len(),
                first: format!("{} line {}: {}", first.origin.file, first.line, first.message),
            }),
        }
    }

    fn succeeded(&mut self) {
        self.progress.failures = 0;
        self.progress.phase = Phase::Running;
    }

    /// True after the wait that the error deserves; false when asked to stop; the error itself when
    /// it is one to stop at.
    async fn wait_after(&mut self, error: AdapterError) -> Result<bool, AdapterError> {
        let retry = match error.class() {
            ErrorClass::Transient => self.config.on_error.transient == OnTransient::Retry,
            ErrorClass::Auth => self.config.on_error.auth == OnAuth::Retry,
            ErrorClass::Data | ErrorClass::Permanent => false,
        };
        if !retry {
            return Err(error);
        }
        let asked = match &error {
            AdapterError::Busy { retry_after_ms, .. } => *retry_after_ms,
            _ => None,
        };
        let wait_ms = backoff_ms(self.progress.failures, asked);
        tracing::warn!(adapter = %self.config.adapter, code = error.code(), wait_ms, "{error}");
        self.progress.failures = self.progress.failures.saturating_add(1);
        self.progress.phase = Phase::Waiting;
        self.progress.last_error = Some(error.to_string());
        (self.report)(&self.progress);
        self.write_status("waiting");
        Ok(self.sleep(wait_ms).await)
    }

    async fn keep_pace(&mut self) -> bool {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        match pace_wait_ms(self.config.pace, self.pulled, elapsed) {
            0 => true,
            wait => self.sleep(wait).await,
        }
    }

    /// Sleeps; false when asked to stop meanwhile.
    async fn sleep(&mut self, ms: u64) -> bool {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(ms)) => {}
            // A dropped sender means that nobody can ask any more: sleep on.
            () = async { if stop.wait_for(|s| *s).await.is_err() { std::future::pending::<()>().await } } => {}
        }
        let stopped = self.stopped();
        if stopped {
            self.progress.phase = Phase::Stopped;
        }
        !stopped
    }

    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }
}

fn refused(record: &Record, error: &LineError) -> Reject {
    Reject {
        line: record.origin.line,
        origin: record.origin.clone(),
        column: 1,
        field: None,
        rule: error.rule.clone(),
        message: error.message.clone(),
        raw: record.raw.clone(),
        truncated: false,
    }
}
