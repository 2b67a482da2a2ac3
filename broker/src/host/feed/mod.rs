//! Feeds, the provider's side: for every subscription, envelopes of the own stream are redacted, promised, sealed and
//! appended to the consumer's feed stream.
//!
//! A clause with bounded evidence has a default subscription; consumers create others by command, narrower ones or of
//! public data ([`commands`]). The own stream is verified once and shared ([`source`]), every subscription has a task of
//! its own ([`subscription`]), and all of them share one writer ([`group`]).
//!
//! The own stream's place and the subscription's numbers stand in one store and change in one transaction, so nothing is
//! left out and nothing gets two numbers. Evidence is anchored from that store, not from what was sent: what may have
//! left is anchored.

mod anchor;
mod append;
mod cache;
mod commands;
mod created;
mod deliver;
mod duties;
mod error;
mod evidence;
mod group;
mod item;
mod place;
mod redaction;
mod source;
mod status;
mod store;
mod subscription;
mod supervise;

use super::lead::Lead;
use super::policy::Policies;
use super::subjects::People;
use crate::config::NodeConfig;
use crate::ledger::node_client::NodeClient;
use crate::ledger::writer::Writer;
use concordat_executor::policies::dataset::DatasetDoc;
use concordat_protocol::keys::SigningKey;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, watch};

pub use commands::Asked;
pub use item::{ItemError, Maker, Sealer, scope};
pub use redaction::{Lens, Shown, TooWide, UnfitClause};
pub use status::{FeedsStatus, SubscriptionStatus};
pub use store::{FeedStore, FeedStoreError};

use subscription::{End, Shared};
use supervise::Docs;

/// After how long without a new block the ledger counts as standing still (PROTOCOL 2).
const STALE: Duration = Duration::from_millis(concordat_protocol::limits::HEAD_STALE_MS);
/// Commands that may be worked on at once.
const COMMANDS: usize = 16;

/// The ledger as the host sees it now: newest tick, and the agreements in force at it.
#[derive(Debug, Clone)]
pub struct View {
    /// Agreements in force.
    pub policies: Arc<Policies>,
    /// Grows with governance.
    pub meta_rev: u64,
    /// Newest tick, milliseconds; 0 before the first block.
    pub tick_ms: u64,
    /// When this process learnt of it.
    pub at: Instant,
    /// Whether the node is lost: nothing is delivered.
    pub lost: bool,
}

impl Default for View {
    fn default() -> Self {
        Self { policies: Arc::default(), meta_rev: 0, tick_ms: 0, at: Instant::now(), lost: true }
    }
}

impl View {
    /// The view after a block. A tick of earlier is no time to promise by: deliveries would be late before they are made.
    /// So nothing is fresh at a block that may have been made before this process started, nor at one whose tick is far
    /// behind this machine's clock, as while the node catches up.
    pub fn at_block(policies: Arc<Policies>, meta_rev: u64, tick_ms: u64, is_new: bool) -> Self {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let is_old = clock.saturating_sub(Duration::from_millis(tick_ms)) > STALE;
        Self { policies, meta_rev, tick_ms, at: Instant::now(), lost: !is_new || is_old }
    }

    /// Newest tick plus monotonic time since; none while the ledger is lost or stands still.
    pub fn now_ms(&self) -> Option<u64> {
        let since = self.at.elapsed();
        let fresh = !self.lost && self.tick_ms > 0 && since < STALE;
        fresh.then(|| self.tick_ms.saturating_add(since.as_millis() as u64))
    }
}

/// What the feeds need.
pub struct FeedSetup {
    /// Configuration.
    pub cfg: Arc<NodeConfig>,
    /// Documents of the node's folder.
    pub datasets: Vec<DatasetDoc>,
    /// The own node, a connection of its own.
    pub node: NodeClient,
    /// The executor's writer.
    pub writer: Writer,
    /// The streams, as the agency's own user.
    pub nats: async_nats::Client,
    /// Signs promises.
    pub release_key: Arc<SigningKey>,
    /// Whose records messages are.
    pub people: People,
    /// The ledger as the query loop sees it.
    pub view: watch::Receiver<View>,
    /// Whether this executor is at work.
    pub lead: Arc<Lead>,
}

/// A subscription that has, or had, a task in this process.
struct Known {
    shared: Arc<Shared>,
    dataset: String,
}

/// The feeds of a provider.
pub struct Feeds {
    setup: Arc<FeedSetup>,
    store: FeedStore,
    docs: Docs,
    known: Mutex<BTreeMap<u64, Known>>,
    changed: watch::Sender<()>,
    working: Semaphore,
}

/// Starts the feeds beside the query loop. Their tasks end with the process.
pub fn start(setup: FeedSetup) -> Result<Arc<Feeds>, FeedStoreError> {
    let store = FeedStore::open_under(&setup.cfg.path("executor/feeds.sqlite"), setup.lead.term())?;
    let docs = setup.datasets.iter().filter(|d| d.is_feed()).map(|d| (d.id.clone(), Arc::new(d.clone()))).collect();
    let feeds = Arc::new(Feeds {
        setup: Arc::new(setup),
        store,
        docs,
        known: Mutex::default(),
        changed: watch::channel(()).0,
        working: Semaphore::new(COMMANDS),
    });
    tokio::spawn(supervise::supervise(feeds.clone()));
    tokio::spawn(status::answer(feeds.clone()));
    Ok(feeds)
}

impl Feeds {
    fn known(&self) -> MutexGuard<'_, BTreeMap<u64, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, shared: &Arc<Shared>, dataset: String) {
        self.known().insert(shared.number, Known { shared: shared.clone(), dataset });
    }

    fn forget(&self, number: u64) {
        self.known().remove(&number);
    }

    fn numbers(&self) -> Vec<u64> {
        self.known().keys().copied().collect()
    }

    fn has_ended(&self, number: u64) -> bool {
        self.known().get(&number).is_some_and(|k| k.shared.ended.borrow().is_some())
    }

    fn end(&self, number: u64, end: End) {
        if let Some(known) = self.known().get(&number) {
            known.shared.end(end);
        }
    }
}
