//! Tells operators: overrides at this provider as they happen, and reviews that are overdue.

use super::Reviews;
use crate::gateway::watch::LedgerWatch;
use crate::host::notices::Notices;
use crate::ledger::LedgerError;
use crate::metrics::Metrics;
use std::collections::BTreeSet;
use std::time::Duration;
use thiserror::Error;
use tracing::warn;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(2);

/// Why a look failed; it is repeated.
#[derive(Debug, Error)]
enum LookError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the executor's release store cannot be read: {0}")]
    Store(#[from] rusqlite::Error),
}

/// The task.
pub struct OverrideWatch {
    reviews: Reviews,
    notices: Notices,
    watch: LedgerWatch,
    metrics: Metrics,
    /// Overdue reviews that were said.
    said: BTreeSet<u64>,
    /// Newest override that was counted.
    counted_ms: Option<u64>,
    failing: bool,
}

impl OverrideWatch {
    /// A task that starts with [`OverrideWatch::run`].
    pub fn new(reviews: Reviews, notices: Notices, watch: LedgerWatch, metrics: Metrics) -> Self {
        Self { reviews, notices, watch, metrics, said: BTreeSet::new(), counted_ms: None, failing: false }
    }

    /// Looks for as long as the process lives.
    pub async fn run(mut self) {
        loop {
            match self.look().await {
                Ok(()) => self.failing = false,
                Err(e) if !self.failing => {
                    self.failing = true;
                    warn!(error = %e, "overrides and reviews are not watched now");
                }
                Err(_) => {}
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&mut self) -> Result<(), LookError> {
        let Some(now) = self.watch.now() else { return Ok(()) };
        let overdue: Vec<_> = self.reviews.due().await?.into_iter().filter(|d| d.due_ms <= now.tick_ms).collect();
        self.metrics.review_overdue.set(overdue.len() as i64);
        for d in &overdue {
            if self.said.insert(d.reference) {
                warn!(
                    op = d.reference, agreement = %d.agreement, clause = d.clause,
                    "the review of an override is overdue: nobody overrides under this clause until it is made"
                );
            }
        }
        self.said.retain(|r| overdue.iter().any(|d| d.reference == *r));
        let notices = self.notices.clone();
        let since = self.counted_ms.unwrap_or(now.tick_ms);
        let new = tokio::task::spawn_blocking(move || notices.after(since)).await.unwrap_or_else(|_| Ok(vec![]))?;
        for notice in &new {
            self.metrics.break_glass.inc();
            let d = &notice.decision;
            warn!(agreement = %d["agreement"], clause = %d["clause"], "somebody overrode at this provider: see GET /v1/notices");
        }
        self.counted_ms = Some(new.last().map_or(since, |n| n.at_ms));
        Ok(())
    }
}
