//! Feeds, the consumer's side: deliveries are pulled from the exchange, checked, and handed on to applications, which
//! acknowledge them. Only then are they acknowledged upstream.

mod buffer;
mod check;
pub mod http;
mod pull;
#[cfg(test)]
mod tests;

use crate::config::NodeConfig;
use crate::exchange::plan::feed_clauses;
use crate::gateway::watch::LedgerWatch;
use crate::keys::{KeyFileError, KeyFolder};
use crate::ledger::LedgerError;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};
use crate::streams::{EXCHANGE_API, subscription_name};
use async_nats::jetstream::message::Acker;
use concordat_protocol::cbor;
use concordat_protocol::keys::KemKey;
use concordat_protocol::node::AgreementView;
use concordat_protocol::terms::{Status, Terms};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::Notify;
use tracing::{info, warn};

pub use buffer::{Acked, Buffer, Cursor, Held, Offer};
pub use check::{Expected, FeedProofError, Message, messages, promise, read, unseal};

/// Deliveries of one subscription held at most; more are fetched as these are acknowledged.
const HELD: usize = 256;

/// Why a subscription cannot be read. Nothing was acknowledged.
#[derive(Debug, Error)]
pub enum FeedError {
    /// No such subscription.
    #[error("there is no subscription {0}: see GET /v1/subscriptions")]
    Unknown(String),
    /// The agreement does not hold now.
    #[error("{agreement} is {status}: nothing of it is handed on")]
    NotActive {
        /// The agreement.
        agreement: String,
        /// Its state.
        status: &'static str,
    },
    /// The own node has no new block for too long.
    #[error("the ledger's newest block is {0} s old: nothing is handed on while the ledger stands still")]
    StaleLedger(u64),
    /// A cursor that no answer named.
    #[error("cursor {0}: it was never handed on; acknowledge with the cursor of an answer of /messages")]
    Cursor(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl FeedError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown-subscription",
            Self::NotActive { .. } => "not-active",
            Self::StaleLedger(_) => "stale-ledger",
            Self::Cursor(_) => "bad-cursor",
            Self::Store(e) => e.code(),
            Self::Ledger(e) => e.code(),
        }
    }
}

/// What is counted of a subscription since this process started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Deliveries that did not prove themselves.
    pub invalid: u64,
    /// Deliveries that came again.
    pub duplicates: u64,
    /// Deliveries that never came.
    pub missing: u64,
    /// Deliveries whose record was not on the ledger in time.
    pub unanchored: u64,
    /// What went wrong last.
    pub last_error: String,
}

/// A subscription's clause, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedTerms {
    /// Name to applications.
    pub name: String,
    /// `AGR-2026-0143`
    pub agreement: String,
    /// The clause's id.
    pub clause: String,
    /// First millisecond of ledger time at which it holds.
    pub from_ms: u64,
    /// First millisecond at which it holds no more.
    pub until_ms: u64,
    /// What deliveries are checked against.
    pub expected: Expected,
}

/// A delivery whose record is awaited on the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Awaited {
    sub_seq: u64,
    delivered_ms: u64,
}

struct Inner {
    status: Status,
    buffer: Buffer<Arc<Acker>>,
    awaited: std::collections::VecDeque<Awaited>,
    anchored: u64,
    counts: Counts,
}

/// One subscription of this agency.
pub struct Subscription {
    /// Its clause.
    pub terms: FeedTerms,
    inner: Mutex<Inner>,
    /// Something came, or the agreement changed.
    news: Notify,
    /// The application acknowledged, or the agreement changed.
    room: Notify,
    acking: tokio::sync::Mutex<()>,
}

impl Subscription {
    fn with<T>(&self, job: impl FnOnce(&mut Inner) -> T) -> T {
        job(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count(&self, what: impl FnOnce(&mut Counts)) {
        self.with(|i| what(&mut i.counts));
    }
}

/// What the consumer's side needs.
pub struct FeedSetup {
    /// Configuration.
    pub cfg: Arc<NodeConfig>,
    /// What the own node says.
    pub watch: LedgerWatch,
    /// The own node, a connection of its own.
    pub node: crate::ledger::node_client::NodeClient,
    /// The streams, as the agency's own user.
    pub nats: async_nats::Client,
    /// The broker's store.
    pub store: Store,
    /// Metrics.
    pub metrics: Metrics,
}

struct Parts {
    setup: FeedSetup,
    kem: KemKey,
    js: async_nats::jetstream::Context,
    all: Mutex<BTreeMap<u64, Arc<Subscription>>>,
}

/// All subscriptions of this agency. Cheap to clone.
#[derive(Clone)]
pub struct Subscriptions {
    parts: Arc<Parts>,
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS feed_position (
  subscription INTEGER PRIMARY KEY, sub_seq INTEGER NOT NULL, messages INTEGER NOT NULL) STRICT;";

impl Subscriptions {
    /// Starts pulling for every subscription that the ledger's agreements give this agency. Neither ledger nor streams
    /// need be up yet.
    pub fn start(setup: FeedSetup) -> Result<Self, KeyFileError> {
        let kem = KeyFolder::new(setup.cfg.keys()).kem()?;
        let js = async_nats::jetstream::with_prefix(setup.nats.clone(), EXCHANGE_API);
        let this = Self { parts: Arc::new(Parts { setup, kem, js, all: Mutex::default() }) };
        tokio::spawn(this.clone().supervise());
        Ok(this)
    }

    fn all(&self) -> Vec<Arc<Subscription>> {
        self.parts.all.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// A subscription by its name or number.
    pub fn get(&self, name: &str) -> Result<Arc<Subscription>, FeedError> {
        let fits = |s: &Arc<Subscription>| s.terms.name == name || s.terms.expected.subscription.to_string() == name;
        self.all().into_iter().find(fits).ok_or_else(|| FeedError::Unknown(name.chars().take(80).collect()))
    }

    /// Follows the agreements for ever.
    async fn supervise(self) {
        let setup = &self.parts.setup;
        while let Err(e) = setup.store.run(|db| db.execute_batch(TABLE)).await {
            warn!(error = %e, "feeds wait for the store");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let (mut height, mut rev, mut said) = (0, None, String::new());
        loop {
            setup.watch.reach(height + 1, Duration::from_secs(1)).await;
            let Some(now) = setup.watch.now() else { continue };
            height = now.height.max(height);
            if rev == Some(now.meta_rev) {
                continue;
            }
            match self.refresh().await {
                Ok(()) => rev = Some(now.meta_rev),
                Err(e) => {
                    if said != e.to_string() {
                        said = e.to_string();
                        warn!(error = said, "subscriptions wait");
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    async fn refresh(&self) -> Result<(), FeedError> {
        let setup = &self.parts.setup;
        let views = setup.watch.agreements().await?;
        for (terms, status) in own_clauses(&views, &setup.cfg) {
            let number = terms.expected.subscription;
            let known = self.parts.all.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
            match known {
                Some(known) => change(&known, status),
                None => {
                    let acked = self.position(number).await?;
                    info!(subscription = terms.name, agreement = terms.agreement, %status, from = acked.sub_seq + 1, "subscription");
                    let inner = Inner {
                        status,
                        buffer: Buffer::new(acked),
                        awaited: Default::default(),
                        anchored: 0,
                        counts: Counts::default(),
                    };
                    let (inner, news, room, acking) =
                        (Mutex::new(inner), Notify::new(), Notify::new(), Default::default());
                    let made = Arc::new(Subscription { terms, inner, news, room, acking });
                    self.parts.all.lock().unwrap_or_else(PoisonError::into_inner).insert(number, made.clone());
                    tokio::spawn(pull::run(self.parts.clone(), made));
                }
            }
        }
        Ok(())
    }

    async fn position(&self, number: u64) -> Result<Acked, FeedError> {
        let found = self.parts.setup.store.run(move |db| {
            let mut statement =
                db.prepare_cached("SELECT sub_seq, messages FROM feed_position WHERE subscription = ?1")?;
            let mut rows = statement.query([number as i64])?;
            let Some(row) = rows.next()? else { return Ok(Acked::default()) };
            Ok(Acked { sub_seq: row.get::<_, i64>(0)? as u64, messages: row.get::<_, i64>(1)? as u64 })
        });
        Ok(found.await?)
    }

    /// Refuses unless the clause holds now at this agency's own node.
    pub fn permitted(&self, sub: &Subscription) -> Result<(), FeedError> {
        let now = self.parts.setup.watch.fresh().map_err(FeedError::StaleLedger)?;
        let status = sub.with(|i| i.status);
        let tick_ms = now.tick_ms;
        let word = match status {
            Status::Active | Status::Superseded if tick_ms < sub.terms.from_ms => "not in force yet",
            Status::Active | Status::Superseded if tick_ms >= sub.terms.until_ms => "expired",
            Status::Active | Status::Superseded => return Ok(()),
            other => other.word(),
        };
        Err(FeedError::NotActive { agreement: sub.terms.agreement.clone(), status: word })
    }

    /// At most `max` messages after a place (by default after what is acknowledged). Waits up to `wait` for the first.
    pub async fn messages(
        &self,
        sub: &Subscription,
        after: Option<Cursor>,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Message>, FeedError> {
        let until = tokio::time::Instant::now() + wait;
        loop {
            let news = sub.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            self.permitted(sub)?;
            let found = sub.with(|i| i.buffer.after(after, max));
            if !found.is_empty() || tokio::time::timeout_at(until, news).await.is_err() {
                return Ok(found);
            }
        }
    }

    /// Acknowledges everything up to and with a place: durable here first, then upstream.
    pub async fn ack(&self, sub: &Subscription, cursor: Cursor) -> Result<Acked, FeedError> {
        let _one = sub.acking.lock().await;
        let to = sub.with(|i| i.buffer.ack_to(cursor)).ok_or_else(|| FeedError::Cursor(cursor.to_string()))?;
        let number = sub.terms.expected.subscription;
        let put = self.parts.setup.store.run(move |db| {
            let row = [number as i64, to.sub_seq as i64, to.messages as i64];
            db.execute("INSERT OR REPLACE INTO feed_position VALUES (?1, ?2, ?3)", row)
        });
        put.await?;
        let (done, acked) = sub.with(|i| (i.buffer.ack(to), i.buffer.acked()));
        for held in done {
            // A lost acknowledgement brings the delivery again, and it is then known as done.
            if let Err(e) = held.ack.ack().await {
                warn!(subscription = sub.terms.name, error = %e, "acknowledgement not sent");
            }
        }
        sub.room.notify_one();
        Ok(acked)
    }
}

/// The clauses that let this agency follow a feed.
fn own_clauses(views: &[AgreementView], cfg: &NodeConfig) -> Vec<(FeedTerms, Status)> {
    let mut out = Vec::new();
    for view in views {
        let Ok(terms) = cbor::decode::<Terms>(&view.terms) else { continue };
        if terms.assignee.as_ref() != Some(&cfg.agency) {
            continue;
        }
        for (subscription, clause, max_lag_ms) in feed_clauses(view, &terms) {
            let expected = Expected {
                chain: cfg.chain.clone(),
                provider: terms.assigner.clone(),
                subscription,
                dataset: terms.dataset.clone(),
                max_lag_ms,
            };
            let (name, agreement) = (subscription_name(&terms.assigner, subscription), terms.agreement.to_string());
            let (clause, from_ms, until_ms) = (clause.id.clone(), clause.from_ms, clause.until_ms);
            out.push((FeedTerms { name, agreement, clause, from_ms, until_ms, expected }, view.status));
        }
    }
    out
}

/// Takes a new state: readers that wait are told, and what a revocation ended is let go of.
fn change(sub: &Subscription, status: Status) {
    let changed = sub.with(|i| {
        let changed = i.status != status;
        i.status = status;
        if status == Status::Revoked {
            i.buffer.clear();
        }
        changed
    });
    if changed {
        info!(subscription = sub.terms.name, %status, "agreement changed");
        sub.news.notify_waiters();
        sub.room.notify_one();
    }
}
