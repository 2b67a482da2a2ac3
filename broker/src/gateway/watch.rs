//! What the own node says, as it says it: newest height and tick, the latest log entries, governance by revision.

use crate::ledger::LedgerError;
use crate::ledger::follow::{Followed, follow};
use crate::ledger::node_client::NodeClient;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::KeyId;
use concordat_protocol::node::{AgreementView, DatasetView, Frame, KeyView, RoleMapView};
use concordat_protocol::ops::LogEntry;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::{info, warn};

/// Latest entries kept in memory; older ones are asked of the node.
const ENTRIES_KEPT: usize = 32_768;
/// After how long without a new block the ledger counts as standing still (PROTOCOL 2).
pub const STALE: Duration = Duration::from_millis(concordat_protocol::limits::HEAD_STALE_MS);

/// The newest block.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Height.
    pub height: u64,
    /// Tick, milliseconds.
    pub tick_ms: u64,
    /// Grows with governance.
    pub meta_rev: u64,
    /// When this process learnt of it.
    pub at: Instant,
}

/// Follows the own node. Cheap to clone.
#[derive(Clone)]
pub struct LedgerWatch {
    node: NodeClient,
    now: watch::Receiver<Option<Now>>,
    entries: Arc<Mutex<BTreeMap<u64, LogEntry>>>,
    cache: Arc<Mutex<Cache>>,
}

/// Governance as of one revision.
#[derive(Default)]
struct Cache {
    meta_rev: u64,
    keys: BTreeMap<KeyId, KeyView>,
    datasets: Option<Arc<Vec<DatasetView>>>,
    agreements: Option<Arc<Vec<AgreementView>>>,
    role_maps: BTreeMap<AgencyId, Arc<Vec<RoleMapView>>>,
}

impl LedgerWatch {
    /// Starts following. The node need not be up yet.
    pub fn start(node: NodeClient) -> Self {
        let (tx, now) = watch::channel(None);
        let entries = Arc::new(Mutex::new(BTreeMap::new()));
        tokio::spawn(run(node.clone(), tx, entries.clone()));
        Self { node, now, entries, cache: Arc::default() }
    }

    /// The newest block, none before the node answered.
    pub fn now(&self) -> Option<Now> {
        *self.now.borrow()
    }

    /// The newest block if it is recent; otherwise for how many seconds nothing came.
    pub fn fresh(&self) -> Result<Now, u64> {
        match self.now() {
            Some(now) if now.at.elapsed() < STALE => Ok(now),
            Some(now) => Err(now.at.elapsed().as_secs()),
            None => Err(STALE.as_secs()),
        }
    }

    /// Waits until the own node has this height; false when it does not in time.
    pub async fn reach(&self, height: u64, within: Duration) -> bool {
        let mut now = self.now.clone();
        let reached = now.wait_for(|n| n.is_some_and(|n| n.height >= height));
        matches!(tokio::time::timeout(within, reached).await, Ok(Ok(_)))
    }

    /// An entry of the log by its global index, none if there is no such entry yet.
    pub async fn entry(&self, index: u64) -> Result<Option<LogEntry>, LedgerError> {
        let kept = self.entries.lock().unwrap_or_else(PoisonError::into_inner).get(&index).cloned();
        match kept {
            Some(entry) => Ok(Some(entry)),
            None => Ok(self.node.log(index, 1).await?.into_iter().next()),
        }
    }

    /// How many entries the own node's log has.
    pub async fn log_size(&self) -> Result<u64, LedgerError> {
        Ok(self.node.head().await?.log_size)
    }

    fn with_cache<T>(&self, read: impl FnOnce(&mut Cache) -> T) -> T {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let meta_rev = self.now().map_or(0, |n| n.meta_rev);
        if cache.meta_rev != meta_rev {
            *cache = Cache { meta_rev, ..Cache::default() };
        }
        read(&mut cache)
    }

    /// Puts an answer in the cache, unless governance moved on while it was asked for.
    fn keep(&self, rev: u64, put: impl FnOnce(&mut Cache)) {
        self.with_cache(|c| {
            if c.meta_rev == rev {
                put(c)
            }
        });
    }

    fn rev(&self) -> u64 {
        self.with_cache(|c| c.meta_rev)
    }

    /// A registered key.
    pub async fn key(&self, id: KeyId) -> Result<Option<KeyView>, LedgerError> {
        if let Some(key) = self.with_cache(|c| c.keys.get(&id).cloned()) {
            return Ok(Some(key));
        }
        let rev = self.rev();
        let key = self.node.key(id).await?;
        if let Some(key) = &key {
            self.keep(rev, |c| drop(c.keys.insert(id, key.clone())));
        }
        Ok(key)
    }

    /// All agreement versions.
    pub async fn agreements(&self) -> Result<Arc<Vec<AgreementView>>, LedgerError> {
        if let Some(kept) = self.with_cache(|c| c.agreements.clone()) {
            return Ok(kept);
        }
        let rev = self.rev();
        let all = Arc::new(self.node.agreements().await?);
        self.keep(rev, |c| c.agreements = Some(all.clone()));
        Ok(all)
    }

    /// All role maps that an agency recorded, by number.
    pub async fn role_maps(&self, agency: &AgencyId) -> Result<Arc<Vec<RoleMapView>>, LedgerError> {
        if let Some(kept) = self.with_cache(|c| c.role_maps.get(agency).cloned()) {
            return Ok(kept);
        }
        let rev = self.rev();
        let all = Arc::new(self.node.role_maps(agency).await?);
        self.keep(rev, |c| drop(c.role_maps.insert(agency.clone(), all.clone())));
        Ok(all)
    }

    /// All datasets; their heads are as of the revision, not of now.
    pub async fn datasets(&self) -> Result<Arc<Vec<DatasetView>>, LedgerError> {
        if let Some(kept) = self.with_cache(|c| c.datasets.clone()) {
            return Ok(kept);
        }
        let rev = self.rev();
        let all = Arc::new(self.node.datasets().await?);
        self.keep(rev, |c| c.datasets = Some(all.clone()));
        Ok(all)
    }
}

async fn run(node: NodeClient, now: watch::Sender<Option<Now>>, entries: Arc<Mutex<BTreeMap<u64, LogEntry>>>) {
    let mut said = false;
    let head = loop {
        match node.head().await {
            Ok(head) => break head,
            Err(e) if !said => warn!(error = %e, "waiting for the ledger node"),
            Err(_) => {}
        }
        said = true;
        tokio::time::sleep(Duration::from_millis(200)).await;
        if now.is_closed() {
            return;
        }
    };
    info!(height = head.height, "following the ledger");
    let first = Now { height: head.height, tick_ms: head.tick_ms, meta_rev: head.meta_rev, at: Instant::now() };
    now.send_replace(Some(first));
    let mut frames = follow(node.path(), head.height + 1, Vec::new());
    let mut lost = false;
    while !now.is_closed() {
        match frames.next().await {
            Followed::Frame(frame) => {
                lost = false;
                take(&frame, &entries);
                let at = Instant::now();
                let (height, tick_ms, meta_rev) = (frame.height, frame.tick_ms, frame.meta_rev);
                now.send_replace(Some(Now { height, tick_ms, meta_rev, at }));
            }
            Followed::Lost(why) if !lost => {
                lost = true;
                warn!(why, "the ledger node is lost");
            }
            Followed::Lost(_) => {}
        }
    }
}

fn take(frame: &Frame, entries: &Mutex<BTreeMap<u64, LogEntry>>) {
    let mut kept = entries.lock().unwrap_or_else(PoisonError::into_inner);
    kept.extend(frame.entries.iter().cloned());
    while kept.len() > ENTRIES_KEPT {
        kept.pop_first();
    }
}
