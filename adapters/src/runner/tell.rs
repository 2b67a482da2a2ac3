//! What a run says of itself in the adapter's status file.

use std::time::Duration;

use tokio::time::Instant;

use super::{Phase, Progress, Run, now};
use crate::contract::{AdapterError, Source};
use crate::document::Pace;
use crate::status::{self, Status};

/// How often the status file is written.
pub(super) const EVERY: Duration = Duration::from_secs(1);

impl<S: Source, F: FnMut(&Progress) + Send> Run<'_, S, F> {
    /// Writes the status now and then: its time is the run's heartbeat.
    pub(super) fn tell(&mut self) {
        if self.said.is_none_or(|at| at.elapsed() >= EVERY) {
            self.write_status();
        }
    }

    /// The end of the run.
    pub(super) fn tell_all(&mut self, failed: Option<&AdapterError>) {
        if let Some(error) = failed {
            self.progress.last_error = Some(error.to_string());
        }
        let phase = match (failed, self.progress.phase) {
            (Some(_), _) => "failed",
            (None, Phase::Done) => "done",
            (None, _) => "stopped",
        };
        self.write(phase);
        (self.report)(&self.progress);
    }

    pub(super) fn write_status(&mut self) {
        self.said = Some(Instant::now());
        self.write(self.progress.phase.name());
    }

    fn write(&mut self, phase: &str) {
        let dead_letters = self.dead.counts();
        let (config, p) = (self.config, &self.progress);
        let pace = match config.pace {
            Pace::Max => "max".to_owned(),
            Pace::RowsPerSecond(rows) => rows.to_string(),
        };
        let said = Status {
            v: 1,
            adapter: config.adapter.clone(),
            dataset: config.dataset.clone(),
            phase: phase.to_owned(),
            started_at: self.started_at.clone(),
            updated_at: now(),
            pace,
            batch_no: p.batch_no,
            rows: p.rows,
            accepted: p.accepted,
            newest_event: self.newest_event.clone(),
            failures: p.failures,
            last_error: p.last_error.clone(),
            dead_letters,
            notes: p.notes.clone(),
        };
        if let Err(error) = status::write(self.dead.folder(), &said) {
            tracing::warn!(adapter = %config.adapter, %error, "the status was not written");
        }
    }
}

impl Phase {
    /// The word in the status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Idle => "idle",
            Self::Paused => "paused",
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Stopped => "stopped",
        }
    }
}
