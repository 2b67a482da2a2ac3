//! The task of one subscription: delivers in the own stream's order, and anchors what it delivered.

use super::anchor::anchor;
use super::deliver::Work;
use super::error::FeedError;
use super::evidence::{Clause, Resume, Unanchored, resume};
use super::source::Source;
use super::store::{FeedStore, Standing};
use super::supervise::Delivery;
use super::{FeedSetup, FeedStoreError};
use crate::ledger::LedgerError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

/// How long to wait after a failure.
pub(super) const RETRY: Duration = Duration::from_millis(500);
/// How long an operation of a former process may take to be committed.
const REOPENED: Duration = Duration::from_secs(30);

/// Why nothing more is delivered under a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its consumer deleted it.
    Deleted,
    /// The agreement was revoked.
    Revoked,
    /// A newer version made a subscription with another number.
    Superseded,
}

impl End {
    /// The reason in words.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Deleted => "its consumer deleted it",
            Self::Revoked => "the agreement is revoked",
            Self::Superseded => "a newer version of the agreement is in force",
        }
    }
}

/// How a subscription is doing, for people.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// `delivering`, `held` (by the duty delay), `paused`, `full`, `waiting` or `ended`.
    pub(super) state: &'static str,
    /// Why it does not deliver; empty while it does.
    pub(super) why: String,
    pub(super) last_sub_seq: u64,
    pub(super) stream_seq: u64,
    pub(super) unsent: usize,
    pub(super) delivered_messages: u64,
    pub(super) anchored_sub_seq: u64,
}

/// What delivering, anchoring and telling share.
pub(super) struct Shared {
    pub(super) setup: Arc<FeedSetup>,
    pub(super) store: FeedStore,
    pub(super) number: u64,
    clause: Mutex<Clause>,
    unanchored: Mutex<Unanchored>,
    progress: Mutex<Progress>,
    pub(super) ended: watch::Sender<Option<End>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(setup: Arc<FeedSetup>, store: FeedStore, clause: Clause) -> Arc<Self> {
        Arc::new(Self {
            setup,
            store,
            number: clause.subscription,
            clause: Mutex::new(clause),
            unanchored: Mutex::default(),
            progress: Mutex::new(Progress { state: "waiting", why: "it starts".into(), ..Progress::default() }),
            ended: watch::channel(None).0,
        })
    }

    /// The clause it delivers under now.
    pub(super) fn clause(&self) -> Clause {
        lock(&self.clause).clone()
    }

    pub(super) fn set_clause(&self, clause: Clause) {
        *lock(&self.clause) = clause;
    }

    pub(super) fn unanchored<T>(&self, read: impl FnOnce(&mut Unanchored) -> T) -> T {
        read(&mut lock(&self.unanchored))
    }

    pub(super) fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }

    pub(super) fn tell(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut lock(&self.progress));
    }

    /// Delivers nothing more from now on.
    pub(super) fn end(&self, end: End) {
        let changed = self.ended.send_if_modified(|e| e.is_none() && e.replace(end).is_none());
        if changed {
            info!(subscription = self.number, why = end.why(), "subscription ends");
            self.tell(|p| (p.state, p.why) = ("ended", end.why().to_owned()));
        }
    }

    pub(super) async fn anchored(&self) -> Result<u64, LedgerError> {
        self.setup.node.subscription(&self.setup.cfg.agency, self.number).await
    }

    /// Takes over what the store has, where the ledger has anchored so far.
    pub(super) async fn reload(&self, anchored: u64) -> Result<Standing, FeedStoreError> {
        let mut standing = self.store.standing(self.number, anchored).await?;
        // The ledger goes on counting even where the store was lost.
        standing.last_sub_seq = standing.last_sub_seq.max(anchored);
        if self.clause().max_lag_ms == 0 {
            standing.open.clear();
        }
        self.unanchored(|u| *u = Unanchored::restored(standing.open.clone()));
        self.tell(|p| {
            (p.last_sub_seq, p.stream_seq, p.anchored_sub_seq) = (standing.last_sub_seq, standing.stream_seq, anchored);
            (p.delivered_messages, p.unsent) = (standing.delivered_messages, standing.unsent.len());
        });
        Ok(standing)
    }
}

/// Delivers and anchors until the subscription ends. Without a delivery it ends when everything is anchored.
pub(super) async fn run(shared: Arc<Shared>, delivery: Option<(Delivery, Arc<Source>)>) {
    let standing = loop {
        match restore(&shared).await {
            Ok(standing) => break standing,
            Err(e) => {
                warn!(subscription = shared.number, error = %e, "subscription waits");
                shared.tell(|p| (p.state, p.why) = ("waiting", e.to_string()));
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    match delivery {
        Some((delivery, source)) => {
            let work = Work::new(shared.clone(), delivery, source, standing);
            tokio::join!(work.run(), anchor(&shared, true));
        }
        None => anchor(&shared, false).await,
    }
    // What was promised is anchored; what was promised and never sent needs no bytes any more.
    if shared.ended.borrow().is_some()
        && let Err(e) = shared.store.forget_items(shared.number).await
    {
        warn!(subscription = shared.number, error = %e, "items of an ended subscription stay in the store");
    }
}

/// Takes over what a former process left.
async fn restore(shared: &Shared) -> Result<Standing, FeedError> {
    let number = shared.number;
    let mut anchored = shared.anchored().await?;
    let before = shared.store.standing(number, anchored).await?;
    for op in resume(&before.ops, shared.setup.writer.reopened()) {
        match op {
            Resume::Wait(last) => {
                let until = tokio::time::Instant::now() + REOPENED;
                while anchored < last && tokio::time::Instant::now() < until {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    anchored = shared.anchored().await?;
                }
            }
            Resume::Drop(last) => shared.store.drop_operation(number, last).await?,
        }
    }
    let clause = serde_json::to_string(&shared.clause()).map_err(|e| FeedError::Library(e.to_string()))?;
    shared.store.keep_clause(number, clause).await?;
    shared.store.anchored(number, anchored, 0).await?;
    let standing = shared.reload(anchored).await?;
    let (last, unsent) = (standing.last_sub_seq, standing.unsent.len());
    info!(subscription = number, anchored, last, unsent, "subscription restored");
    Ok(standing)
}
