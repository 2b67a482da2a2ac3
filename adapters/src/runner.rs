//! The loop that publishes a source: pull, dead letters, post, acknowledge; from the newest envelope on.
//!
//! The broker keeps the position in the same durable write as the events, so the runner keeps none:
//! killed at any point, it asks and goes on, and nothing is lost or doubled.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::{Answer, BrokerClient, LineError, Outgoing, Position, event_lines};
use crate::contract::{AdapterError, BATCH_RECORDS_MAX, Batch, Checkpoint, ErrorClass, Record, Reject, Source};
use crate::dead_letter::DeadLetters;
use crate::document::{OnAuth, OnData, OnError, OnTransient, Pace};
use crate::pace::{backoff_ms, pace_wait_ms, pull_max};
use crate::read_ahead::Reader;

/// How often in a row the broker may name another position before the runner gives up.
const CONFLICTS_MAX: u32 = 3;

/// What a run is told.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// Name of the adapter.
    pub adapter: String,
    /// Dataset id.
    pub dataset: String,
    /// How fast.
    pub pace: Pace,
    /// What to do about errors.
    pub on_error: OnError,
    /// Most records a batch, at most 256.
    pub batch_max: usize,
    /// Stop after this many rows (good and bad), for trials.
    pub rows_max: Option<u64>,
}

impl RunConfig {
    /// The configuration that a plan asks for.
    pub fn of(plan: &crate::plan::Plan) -> Self {
        Self {
            adapter: plan.adapter.clone(),
            dataset: plan.dataset.as_str().to_owned(),
            pace: plan.pace,
            on_error: plan.on_error,
            batch_max: BATCH_RECORDS_MAX,
            rows_max: None,
        }
    }
}

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
    let reader = Reader::new(source);
    let mut run = Run {
        reader,
        client,
        dead,
        config,
        stop,
        report: progress,
        progress: Progress::default(),
        start: Instant::now(),
    };
    run.publish().await?;
    (run.report)(&run.progress);
    Ok(run.progress)
}

struct Run<'a, S, F> {
    reader: Reader<S>,
    client: &'a BrokerClient,
    dead: &'a mut DeadLetters,
    config: &'a RunConfig,
    stop: watch::Receiver<bool>,
    report: F,
    progress: Progress,
    start: Instant,
}

/// What became of a batch.
enum Sent {
    Durable,
    Elsewhere(Position),
    Stopped,
}

impl<S: Source, F: FnMut(&Progress) + Send> Run<'_, S, F> {
    async fn publish(&mut self) -> Result<(), AdapterError> {
        let Some(mut at) = self.position().await? else { return Ok(()) };
        self.progress.batch_no = at.batch_no;
        let mut conflicts = 0;
        loop {
            if self.stopped() || self.config.rows_max.is_some_and(|max| self.progress.rows >= max) {
                self.progress.phase = Phase::Stopped;
                return Ok(());
            }
            let Some(batch) = self.pull(&at.checkpoint).await? else { return Ok(()) };
            self.bury(&batch.rejects)?;
            let rows = (batch.records.len() + batch.rejects.len()) as u64;
            if !self.keep_pace().await {
                return Ok(());
            }
            match self.send(&at, &batch).await? {
                Sent::Durable => conflicts = 0,
                Sent::Stopped => return Ok(()),
                Sent::Elsewhere(position) => {
                    conflicts += 1;
                    if conflicts >= CONFLICTS_MAX {
                        let adapter = self.config.adapter.clone();
                        return Err(AdapterError::Contended { adapter, times: conflicts });
                    }
                    at = position;
                    self.progress.batch_no = at.batch_no;
                    continue;
                }
            }
            self.progress.rows += rows;
            at = Position { batch_no: self.progress.batch_no, checkpoint: batch.checkpoint };
            if batch.end {
                self.progress.phase = Phase::Done;
                return Ok(());
            }
            (self.report)(&self.progress);
        }
    }

    /// Where to go on; `None` when asked to stop meanwhile.
    async fn position(&mut self) -> Result<Option<Position>, AdapterError> {
        loop {
            match self.client.position(&self.config.adapter).await {
                Ok(position) => {
                    self.succeeded();
                    return Ok(Some(position));
                }
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
            let left = rows.saturating_sub(self.progress.rows);
            max = max.min(usize::try_from(left).unwrap_or(max)).max(1);
        }
        loop {
            match self.reader.read(from, max).await {
                Ok(batch) => {
                    self.succeeded();
                    return Ok(Some(batch));
                }
                Err(error) => {
                    if !self.wait_after(error).await? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Sends a batch until it is durable. Lines that the broker refuses become dead letters, and the
    /// rest goes again under the same number.
    async fn send(&mut self, at: &Position, batch: &Batch) -> Result<Sent, AdapterError> {
        let mut records: Vec<&Record> = batch.records.iter().collect();
        let batch_no = at.batch_no + 1;
        while !records.is_empty() {
            let out = Outgoing {
                adapter: &self.config.adapter,
                dataset: &self.config.dataset,
                batch_no,
                checkpoint: &batch.checkpoint,
            };
            match self.client.post(out, event_lines(records.iter().copied())).await {
                Ok(Answer::Accepted { accepted, duplicates }) => {
                    self.succeeded();
                    self.progress.batch_no = batch_no;
                    self.progress.accepted += accepted;
                    self.progress.duplicates += duplicates;
                    return Ok(Sent::Durable);
                }
                Ok(Answer::Resume(position)) => return Ok(Sent::Elsewhere(position)),
                Ok(Answer::Refused(lines)) => {
                    let kept = self.refuse(&records, &lines)?;
                    records = kept;
                }
                Err(error) => {
                    if !self.wait_after(error).await? {
                        return Ok(Sent::Stopped);
                    }
                }
            }
        }
        Ok(Sent::Durable)
    }

    fn refuse<'r>(&mut self, records: &[&'r Record], lines: &[LineError]) -> Result<Vec<&'r Record>, AdapterError> {
        let by_index: BTreeMap<usize, &LineError> = lines.iter().map(|l| (l.index, l)).collect();
        let mut kept = Vec::new();
        let mut rejects = Vec::new();
        for (n, record) in records.iter().enumerate() {
            match by_index.get(&n) {
                Some(error) => rejects.push(refused(record, error)),
                None => kept.push(*record),
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
        let at = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        self.progress.dead_letters += self.dead.append(rejects, &self.config.dataset, &at)?;
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
        Ok(self.sleep(wait_ms).await)
    }

    async fn keep_pace(&mut self) -> bool {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        match pace_wait_ms(self.config.pace, self.progress.rows, elapsed) {
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
