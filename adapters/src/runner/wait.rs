//! How long a run waits, and for what: after failures, for the pace, for a source that is idle.

use std::time::Duration;

use tokio::time::Instant;

use super::{Phase, Progress, Run, pause, tell};
use crate::contract::{AdapterError, ErrorClass, Source};
use crate::document::{OnAuth, OnTransient};
use crate::pace::{backoff_ms, pace_wait_ms};

impl<S: Source, F: FnMut(&Progress) + Send> Run<'_, S, F> {
    /// True when an error of this class is one to try again after.
    fn retries(&self, class: ErrorClass) -> bool {
        match class {
            ErrorClass::Transient => self.config.on_error.transient == OnTransient::Retry,
            ErrorClass::Auth => self.config.on_error.auth == OnAuth::Retry,
            ErrorClass::Data | ErrorClass::Permanent => false,
        }
    }

    /// The source failed: it is left alone for the time that the error deserves, while answers still come in. The error
    /// itself when it is one to stop at.
    pub(super) fn rest_after(&mut self, error: AdapterError) -> Result<(), AdapterError> {
        if !self.retries(error.class()) {
            return Err(error);
        }
        let wait_ms = backoff_ms(self.read_failures, error.retry_after_ms());
        self.read_failures = self.read_failures.saturating_add(1);
        self.wake = Instant::now().checked_add(Duration::from_millis(wait_ms));
        self.failed(&error, wait_ms);
        Ok(())
    }

    /// The broker failed. True after the wait that the error deserves; false when asked to stop; the error itself when
    /// it is one to stop at.
    pub(super) async fn wait_after(&mut self, error: AdapterError) -> Result<bool, AdapterError> {
        if !self.retries(error.class()) {
            return Err(error);
        }
        let wait_ms = backoff_ms(self.progress.failures, error.retry_after_ms());
        self.failed(&error, wait_ms);
        Ok(self.sleep(Duration::from_millis(wait_ms)).await)
    }

    fn failed(&mut self, error: &AdapterError, wait_ms: u64) {
        tracing::warn!(adapter = %self.config.adapter, code = error.code(), wait_ms, "{error}");
        self.progress.failures = self.progress.failures.saturating_add(1);
        self.progress.phase = Phase::Waiting;
        self.progress.last_error = Some(error.to_string());
        (self.report)(&self.progress);
        self.write_status();
    }

    /// Milliseconds until the pace allows more rows.
    pub(super) fn pace_wait(&self) -> u64 {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        pace_wait_ms(self.config.pace, self.pulled, elapsed)
    }

    /// How long until something may be due without an event.
    pub(super) fn tick(&self) -> Duration {
        let mut tick = tell::EVERY;
        if self.pause.on {
            tick = tick.min(pause::EVERY);
        }
        if let Some(wake) = self.wake {
            tick = tick.min(wake.saturating_duration_since(Instant::now()));
        }
        match self.pace_wait() {
            0 => tick,
            ms => tick.min(Duration::from_millis(ms)),
        }
    }

    /// Sleeps, and says now and then that it does; false when asked to stop meanwhile.
    async fn sleep(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut stop = self.stop.clone();
        while !self.stopped() && Instant::now() < until {
            let slice = until.saturating_duration_since(Instant::now()).min(tell::EVERY);
            tokio::select! {
                () = tokio::time::sleep(slice) => self.tell(),
                // A dropped sender means that nobody can ask any more: sleep on.
                () = async { if stop.wait_for(|s| *s).await.is_err() { std::future::pending::<()>().await } } => {}
            }
        }
        let stopped = self.stopped();
        if stopped {
            self.progress.phase = Phase::Stopped;
        }
        !stopped
    }
}
