//! The loop that publishes a source: pull, dead letters, post, acknowledge; from the newest envelope on.
//!
//! The broker keeps the position in the same durable write as the events, so the runner keeps none:
//! killed at any point, it asks and goes on, and nothing is lost or doubled. Several batches are under
//! way at once; when one does not arrive as it should, the runner waits for the others, asks where the
//! broker stands and goes on from there.

mod config;
mod pause;
mod progress;
mod tell;
mod wait;

pub use config::{IN_FLIGHT, RunConfig};
use pause::Pause;
pub use pause::{Paused, pause, paused, resume};
pub use progress::{Phase, Progress};

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::{Answer, BrokerClient, Position};
use crate::contract::{AdapterError, BATCH_RECORDS_MAX, Checkpoint, Next, Reject, Source};
use crate::dead_letter::DeadLetters;
use crate::document::OnData;
use crate::flights::{Flights, Pulled};
use crate::lines::Ready;
use crate::pace::pull_max;
use crate::read_ahead::Reader;

/// Longest time a source is believed to be idle; after it, it is asked in any case.
const IDLE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How often in a row the broker may name another position before the runner gives up.
const CONFLICTS_MAX: u32 = 3;

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
        wake: None,
        read_failures: 0,
        pause: Pause::default(),
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
    /// When the source may be asked again; none when at once.
    wake: Option<Instant>,
    /// Failures of the source in a row.
    read_failures: u32,
    pause: Pause,
    start: Instant,
    started_at: String,
    said: Option<Instant>,
}

/// What a run waits for.
enum Event {
    Pulled(Result<Ready, AdapterError>),
    Acknowledged(Result<(), AdapterError>),
    Answered,
    Tick,
    Stop,
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
        if !at.checkpoint.is_start() {
            self.reader.durable(at.checkpoint.clone());
        }
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
                    self.wake = None;
                    source = Some(found.checkpoint.clone());
                    self.reader.durable(found.checkpoint.clone());
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
            let from = self.may_pull(source.as_ref(), flights);
            match self.event(from.as_ref(), flights).await {
                Event::Pulled(Ok(batch)) => self.take(batch, source, flights)?,
                Event::Pulled(Err(error)) | Event::Acknowledged(Err(error)) => self.rest_after(error)?,
                Event::Acknowledged(Ok(())) => {}
                Event::Answered => {
                    if let Some(end) = self.answered(at, flights).await? {
                        return Ok(end);
                    }
                }
                Event::Tick => self.beat(flights.is_empty()),
                Event::Stop => self.progress.phase = Phase::Stopped,
            }
            let over = source.is_none() || self.stopped() || self.enough();
            if over && flights.is_empty() {
                self.progress.phase = if source.is_none() { Phase::Done } else { Phase::Stopped };
                self.farewell().await;
                return Ok(Stretch::Over);
            }
        }
    }

    /// Where the source is to be read now, if it is.
    fn may_pull(&mut self, source: Option<&Checkpoint>, flights: &Flights<'_>) -> Option<Checkpoint> {
        let room = flights.len() < self.config.in_flight.max(1);
        let due = self.wake.is_none_or(|at| Instant::now() >= at);
        let go = room && due && !self.stopped() && !self.enough() && !self.paused() && self.pace_wait() == 0;
        source.filter(|_| go).cloned()
    }

    /// Waits for the next thing to do.
    async fn event(&mut self, from: Option<&Checkpoint>, flights: &mut Flights<'_>) -> Event {
        let (max, owes, waiting) = (self.pull_max(), self.reader.owes(), !flights.is_empty());
        let tick = self.tick();
        let mut stop = self.stop.clone();
        let stopped = self.stopped();
        let reader = &mut self.reader;
        let told = async {
            match from {
                Some(from) => Event::Pulled(reader.read(from, max).await),
                None if owes => Event::Acknowledged(reader.acknowledge().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = flights.answered(), if waiting => Event::Answered,
            event = told => event,
            // A dropped sender means that nobody can ask any more: go on.
            Ok(_) = stop.wait_for(|s| *s), if !stopped => Event::Stop,
            () = tokio::time::sleep(tick) => Event::Tick,
        }
    }

    /// A batch came from the source.
    fn take(
        &mut self,
        batch: Ready,
        source: &mut Option<Checkpoint>,
        flights: &mut Flights<'_>,
    ) -> Result<(), AdapterError> {
        self.read_failures = 0;
        self.bury(&batch.rejects)?;
        self.pulled += batch.rows() as u64;
        for note in &batch.notes {
            tracing::info!(adapter = %self.config.adapter, "{note}");
            self.progress.note(note);
        }
        let moved = source.as_ref() != Some(&batch.checkpoint);
        self.wake = match batch.next {
            Next::Idle(time) => Instant::now().checked_add(time.min(IDLE_MAX)),
            Next::More | Next::End => None,
        };
        self.progress.phase = if self.wake.is_some() { Phase::Idle } else { Phase::Running };
        let ended = batch.next == Next::End || (self.config.once && matches!(batch.next, Next::Idle(_)));
        *source = (!ended).then(|| batch.checkpoint.clone());
        if batch.rows() > 0 || moved {
            flights.push(batch);
        }
        self.tell();
        Ok(())
    }

    /// The oldest batch was answered, or needs no answer. What ends the stretch, if anything.
    async fn answered(
        &mut self,
        at: &mut Position,
        flights: &mut Flights<'_>,
    ) -> Result<Option<Stretch>, AdapterError> {
        let Some((front, answer)) = flights.front() else { return Ok(None) };
        let Some((number, answer)) = answer else {
            // Nothing of it was good: it needs no envelope.
            at.checkpoint.clone_from(&front.checkpoint);
            self.progress.rows += front.rows;
            self.reader.durable(front.checkpoint.clone());
            flights.pass();
            return Ok(None);
        };
        match answer {
            Ok(Answer::Accepted { accepted, duplicates }) => {
                self.succeeded();
                *at = Position { batch_no: number, checkpoint: front.checkpoint.clone() };
                self.progress.duplicates += duplicates;
                let known = front.lines.len() as u64;
                if let Some(pulled) = flights.landed() {
                    self.durable(pulled, number);
                }
                self.progress.accepted = self.progress.accepted + accepted - known.min(accepted);
                (self.report)(&self.progress);
                self.tell();
                Ok(None)
            }
            Ok(Answer::Resume(_)) => Ok(Some(Stretch::Ask(true))),
            Ok(Answer::Refused(lines)) => {
                let rejects = front.lines.refuse(&lines);
                if rejects.is_empty() {
                    let detail = "it names no line of the batch".to_owned();
                    return Err(AdapterError::Refused { status: 422, detail });
                }
                self.bury(&rejects)?;
                Ok((!flights.again(number)).then_some(Stretch::Ask(false)))
            }
            Err(error) => {
                flights.land().await;
                Ok(Some(if self.wait_after(error).await? { Stretch::Ask(false) } else { Stretch::Over }))
            }
        }
    }

    /// The last word to the source. What it does not hear now, it hears at the next start.
    async fn farewell(&mut self) {
        if self.reader.owes()
            && let Err(error) = self.reader.acknowledge().await
        {
            tracing::warn!(adapter = %self.config.adapter, code = error.code(), "the source was not told: {error}");
        }
    }

    /// A batch is durable.
    fn durable(&mut self, batch: Pulled, newest: u64) {
        self.progress.batch_no = newest;
        self.progress.accepted += batch.lines.len() as u64;
        self.progress.rows += batch.rows;
        self.reader.durable(batch.checkpoint);
        if let Some(time) = batch.lines.newest() {
            self.newest_event = Some(time.to_owned());
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

    fn pull_max(&self) -> usize {
        let max = pull_max(self.config.pace).min(self.config.batch_max.clamp(1, BATCH_RECORDS_MAX));
        let left = self.config.rows_max.map_or(u64::MAX, |rows| rows.saturating_sub(self.pulled));
        max.min(usize::try_from(left).unwrap_or(max)).max(1)
    }

    fn enough(&self) -> bool {
        self.config.rows_max.is_some_and(|max| self.pulled >= max)
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
        self.progress.failures = self.read_failures;
        if self.progress.phase == Phase::Waiting && self.read_failures == 0 {
            self.progress.phase = Phase::Running;
        }
    }

    fn stopped(&self) -> bool {
        *self.stop.borrow()
    }
}
