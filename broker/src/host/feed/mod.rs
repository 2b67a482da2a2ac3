//! Feeds, the provider's side: for every active clause that lets somebody follow a feed of this agency, envelopes of
//! the own stream are redacted, promised, sealed and appended to the consumer's feed stream.
//!
//! The own stream's place and the subscription's numbers stand in one store and change in one transaction, so nothing is
//! left out and nothing gets two numbers. Evidence is anchored from that store, not from what was sent: what may have
//! left is anchored.

mod evidence;
mod item;
mod redaction;
mod store;
mod subscription;

use super::policy::Policies;
use crate::config::NodeConfig;
use crate::ledger::node_client::NodeClient;
use crate::ledger::writer::Writer;
use concordat_executor::policies::dataset::DatasetDoc;
use concordat_executor::policies::document::Who;
use concordat_protocol::ids::{AgreementId, DatasetId};
use concordat_protocol::keys::SigningKey;
use concordat_protocol::terms::{Action, Effect, Evidence, Status};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use evidence::Clause;
pub use item::{ItemError, Maker, Sealer, scope};
pub use redaction::{Lens, UnfitClause};
pub use store::{FeedStore, FeedStoreError};

/// After how long without a new block the ledger counts as standing still (PROTOCOL 2).
const STALE: Duration = Duration::from_millis(concordat_protocol::limits::HEAD_STALE_MS);

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
    /// The ledger as the query loop sees it.
    pub view: watch::Receiver<View>,
}

/// Starts the feeds beside the query loop. The task ends with the process.
pub fn start(setup: FeedSetup) -> Result<JoinHandle<()>, FeedStoreError> {
    let store = FeedStore::open(&setup.cfg.path("executor/feeds.sqlite"))?;
    Ok(tokio::spawn(supervise(Arc::new(setup), store)))
}

/// Keeps one task for each subscription. A task stops delivering by itself the moment its clause does not permit it.
async fn supervise(setup: Arc<FeedSetup>, store: FeedStore) {
    let docs: BTreeMap<DatasetId, Arc<DatasetDoc>> =
        setup.datasets.iter().filter(|d| d.is_feed()).map(|d| (d.id.clone(), Arc::new(d.clone()))).collect();
    let mut view = setup.view.clone();
    let mut running: BTreeMap<u64, JoinHandle<()>> = BTreeMap::new();
    let (mut seen, mut wanted): (Option<Arc<Policies>>, Vec<Delivery>) = (None, Vec::new());
    let mut left: Vec<Clause> = left_open(&store);
    loop {
        let policies = view.borrow_and_update().policies.clone();
        if seen.as_ref().is_none_or(|s| !Arc::ptr_eq(s, &policies)) {
            wanted = deliveries(&policies, &docs);
            seen = Some(policies);
        }
        let is_free =
            |running: &BTreeMap<u64, JoinHandle<()>>, n: u64| running.get(&n).is_none_or(JoinHandle::is_finished);
        for delivery in wanted.iter().filter(|d| is_free(&running, d.clause.handle)).cloned().collect::<Vec<_>>() {
            let number = delivery.clause.handle;
            info!(subscription = number, consumer = %delivery.clause.consumer, dataset = %delivery.doc.id, "subscription");
            running.insert(
                number,
                tokio::spawn(subscription::run(setup.clone(), store.clone(), delivery.clause.clone(), Some(delivery))),
            );
        }
        // Nothing is delivered for these any more, but what was delivered is anchored.
        for clause in std::mem::take(&mut left) {
            if is_free(&running, clause.handle) {
                running
                    .insert(clause.handle, tokio::spawn(subscription::run(setup.clone(), store.clone(), clause, None)));
            }
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

fn left_open(store: &FeedStore) -> Vec<Clause> {
    let bodies = store.open_clauses().unwrap_or_else(|e| {
        error!(code = e.code(), error = %e, "deliveries of the former process cannot be read");
        vec![]
    });
    bodies.iter().filter_map(|b| serde_json::from_str(b).ok()).collect()
}

/// A subscription that is delivered to.
#[derive(Debug, Clone)]
pub struct Delivery {
    clause: Clause,
    agreement: AgreementId,
    clause_id: String,
    /// The clause's role, which the consumer's broker vouches for.
    role: Option<String>,
    doc: Arc<DatasetDoc>,
}

/// The subscriptions that agreements in force make at this provider: the default one of a clause has its handle as
/// number.
fn deliveries(policies: &Policies, docs: &BTreeMap<DatasetId, Arc<DatasetDoc>>) -> Vec<Delivery> {
    let mut out = Vec::new();
    for ((agreement, version), inforce) in policies.versions() {
        let Some(evaluator) = inforce.evaluator.as_ref().filter(|_| inforce.status == Status::Active) else { continue };
        for (i, clause) in evaluator.compiled().document.clauses.iter().enumerate() {
            let subscribes = clause.effect == Effect::Permit && clause.actions.contains(&Action::Subscribe);
            let Some(handle) = inforce.handles.get(i).copied().filter(|_| subscribes) else { continue };
            let (who, role) = match &clause.who {
                Who::Org { org, role } => (Some(org.clone()), role.clone()),
                Who::Any => (inforce.terms.assignee.clone(), None),
            };
            let (Some(consumer), Some(purpose), Evidence::Bounded { max_lag_ms }) =
                (who, clause.purpose.clone(), clause.evidence.clone())
            else {
                // Everybody's feed needs a number for each follower, and a strict one a query's way.
                warn!(%agreement, version, clause = clause.id, "only feeds to one agency under bounded evidence are delivered");
                continue;
            };
            let Some(doc) = docs.get(&inforce.terms.dataset) else {
                warn!(dataset = %inforce.terms.dataset, %agreement, "a clause lets somebody follow it, but it is no feed of this node");
                continue;
            };
            let (name, rows_hash) = (format!("{agreement}/{}", clause.id), inforce.terms.rows_hash);
            let evidence = Clause { handle, consumer, name, purpose, rows_hash, max_lag_ms };
            let (agreement, clause_id) = (agreement.clone(), clause.id.clone());
            out.push(Delivery { clause: evidence, agreement, clause_id, role, doc: doc.clone() });
        }
    }
    out
}
