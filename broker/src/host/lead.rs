//! Which of a node's executors is at work: stands by until the holding's lease is its own, fences what a former one left,
//! keeps the lease, and stops the moment it may be another's (`docs/adr/0027`).

use super::HostError;
use crate::config::NodeConfig;
use crate::fence;
use concordat_executor::holding::{Holding, HoldingError, SqliteHolding, SqliteOptions};
use concordat_executor::lease::{Answer, Bid, Tenure};
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tracing::{info, warn};

/// How often one that stands by looks.
const LOOK: Duration = Duration::from_millis(250);
/// How long the files of a former executor may be locked before that process is ended.
const LOCKED: Duration = Duration::from_secs(2);
/// What the broker and operators read of it, in the node's folder.
pub const LEAD_FILE: &str = "executor/lead.json";
/// Stores of the executor beside the holding, in the node's folder.
const STORES: [&str; 4] =
    ["executor/releases.sqlite", "executor/writer.sqlite", "executor/feeds.sqlite", "executor/vault.sqlite"];

/// A process of this machine by what no other one shares, also after a restart of either.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    /// Boot and process namespace: ids of processes mean the same within them.
    place: String,
    pid: u32,
    /// Start in clock ticks since boot.
    start: u64,
}

/// What the system says of a process id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// It runs since then.
    Since(u64),
    /// No such process, or one that ended and is not yet waited for.
    Gone,
    /// It could not be read: nothing follows from that.
    Unknown,
}

fn started(pid: u32) -> Said {
    let stat = match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        // Where others' processes are hidden, they are not found either: this one must be, to take it for gone.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && shows_others() => return Said::Gone,
        Err(_) => return Said::Unknown,
    };
    // The name in parentheses may hold anything: the fields begin after the last one.
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect::<Vec<_>>()).unwrap_or_default();
    match (fields.first(), fields.get(19).and_then(|f| f.parse().ok())) {
        (Some(&("Z" | "X")), _) => Said::Gone,
        (Some(_), Some(start)) => Said::Since(start),
        _ => Said::Unknown,
    }
}

/// Whether processes of other users can be seen: the first one of the namespace is somebody's.
fn shows_others() -> bool {
    std::fs::metadata("/proc/self/stat").is_ok() && std::fs::metadata("/proc/1/stat").is_ok()
}

fn place() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let space = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{},{}", boot.trim(), space.display()))
}

impl Holder {
    fn own() -> Option<Self> {
        let pid = std::process::id();
        let Said::Since(start) = started(pid) else { return None };
        Some(Self { place: place()?, pid, start })
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let (place, pid, start) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { place: place.into(), pid: pid.parse().ok()?, start: start.parse().ok()? })
    }

    /// Whether it is a process of this machine that no longer runs. Of another machine's nobody here can tell.
    fn is_dead(&self, here: &str) -> bool {
        self.place == here
            && match started(self.pid) {
                Said::Since(start) => start != self.start,
                Said::Gone => true,
                Said::Unknown => false,
            }
    }

    /// Ends a process of this machine that holds locks and does not go on. Its own lease is over: it may do nothing any more.
    fn end(&self, here: &str) {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        let Some(pid) = pid.filter(|_| self.place == here && started(self.pid) == Said::Since(self.start)) else {
            return;
        };
        warn!(pid = self.pid, "a former executor holds the stores and stands still: it is ended");
        if let Err(e) = rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
            warn!(pid = self.pid, error = %e, "it could not be ended: end it by hand");
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.place, self.pid, self.start)
    }
}

/// The name of this process. Where the system does not tell what makes it one of its kind, it is random.
fn own_name() -> Result<String, HostError> {
    if let Some(own) = Holder::own() {
        return Ok(own.to_string());
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|e| HostError::Lead(format!("no randomness: {e}")))?;
    Ok(hex::encode(random))
}

/// How the executor at work stands, for the broker of the same node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leading {
    /// Its term.
    pub term: u64,
    /// Its process, by what no other one shares.
    pub holder: String,
    /// Until when it said to be at work, milliseconds since 1970 of this machine's clock.
    pub until_ms: u64,
}

impl Leading {
    /// What the executor at work said last; none where there never was one.
    #[must_use]
    pub fn read(cfg: &NodeConfig) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(cfg.path(LEAD_FILE)).ok()?).ok()
    }

    /// Whether it is still at work.
    #[must_use]
    pub fn is_active(&self) -> bool {
        wall_ms() < self.until_ms
    }
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// This process's lease. What leaves the process asks it right before.
#[derive(Debug)]
pub struct Lead {
    term: u64,
    started: Instant,
    ends_ms: AtomicU64,
}

impl Lead {
    /// A lease that never ends, of a process that shares its stores with no other.
    #[must_use]
    pub fn alone() -> Arc<Self> {
        Arc::new(Self { term: 0, started: Instant::now(), ends_ms: AtomicU64::new(u64::MAX) })
    }

    /// A lease that is over.
    #[cfg(test)]
    pub(super) fn over() -> Arc<Self> {
        Arc::new(Self { term: 1, started: Instant::now(), ends_ms: AtomicU64::new(0) })
    }

    /// The term; none where nothing is shared.
    #[must_use]
    pub fn term(&self) -> Option<u64> {
        Some(self.term).filter(|t| *t > 0)
    }

    fn tenure(&self) -> Tenure {
        Tenure { term: self.term, ends_ms: self.ends_ms.load(Ordering::SeqCst) }
    }

    /// Whether this process is at work. Where it is not, or nobody can tell, nothing leaves it.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.tenure().holds(self.now_ms())
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn left(&self) -> Duration {
        Duration::from_millis(self.tenure().ends_ms.saturating_sub(self.now_ms()))
    }
}

/// The lease and where it is kept.
pub(super) struct Keeper {
    /// What others ask.
    pub(super) lead: Arc<Lead>,
    store: Arc<dyn Holding>,
    name: String,
    lease_ms: u64,
    file: PathBuf,
    former: Option<Holder>,
}

/// The lease beside the node, where the login may only read the records: nothing is written there that a fence would guard.
fn beside(cfg: &NodeConfig, writes: bool, e: HoldingError) -> Result<Arc<dyn Holding>, HostError> {
    if writes || cfg.holding.is_none() {
        return Err(e.into());
    }
    info!("the login may only read the records: the executor's lease is kept in the node's folder");
    Ok(Arc::new(SqliteHolding::open(&cfg.path("executor/lease.sqlite"), SqliteOptions::default())?))
}

/// Stands by until this process is the executor at work, and fences the stores against the one before. `writes` is whether
/// any record may be written.
pub(super) async fn take_over(cfg: &NodeConfig, holding: &Arc<dyn Holding>, writes: bool) -> Result<Keeper, HostError> {
    let (name, lease_ms, here) = (own_name()?, cfg.executor.lease_ms, place().unwrap_or_default());
    let started = Instant::now();
    let (mut store, mut said, mut dead) = (holding.clone(), String::new(), None);
    std::fs::create_dir_all(cfg.path("executor")).map_err(|e| HostError::Lead(e.to_string()))?;
    loop {
        let asked_ms = started.elapsed().as_millis() as u64;
        let floor = STORES.iter().map(|s| fence::newest(&cfg.path(s)).unwrap_or_default()).max().unwrap_or_default();
        let bid = Bid { holder: name.clone(), term: None, lease_ms, dead: dead.take(), floor };
        match ask(&store, bid).await {
            Ok(Answer { lease, granted: true }) => {
                let tenure = Tenure::granted(lease.term, asked_ms, lease_ms);
                let lead = Lead { term: lease.term, started, ends_ms: AtomicU64::new(tenure.ends_ms) };
                let bound = Arc::ptr_eq(&store, holding);
                if bound {
                    holding.bind(lead.term);
                }
                let former = Leading::read(cfg).and_then(|l| Holder::read(&l.holder));
                let former = former.filter(|h| h.to_string() != name);
                info!(term = lead.term, "this executor is at work");
                return Ok(Keeper { lead: Arc::new(lead), store, name, lease_ms, file: cfg.path(LEAD_FILE), former });
            }
            Ok(Answer { lease, .. }) => {
                let holder = Holder::read(&lease.holder);
                if holder.as_ref().is_some_and(|h| h.is_dead(&here)) {
                    dead = Some(lease.holder);
                    continue;
                }
                let now = lease.to_string();
                if said != now {
                    info!(term = lease.term, holder = lease.holder, "another executor is at work: this one stands by");
                    said = now;
                }
            }
            Err(e @ HoldingError::Access(_)) => store = beside(cfg, writes, e)?,
            Err(e) => {
                let now = e.to_string();
                if said != now {
                    warn!(code = e.code(), error = now, "the executor's lease cannot be asked for");
                    said = now;
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Raises the term of every store before any of them is read: what a former executor wrote up to here counts, as after a
/// crash, and nothing later.
pub(super) async fn fence_stores(cfg: &NodeConfig, keeper: &Keeper) -> Result<(), HostError> {
    let (term, begun, here) = (keeper.lead.term, Instant::now(), place().unwrap_or_default());
    let mut told = false;
    for store in STORES {
        let path = cfg.path(store);
        loop {
            let (at, file) = (path.clone(), store);
            let raised = tokio::task::spawn_blocking(move || fence::raise(&at, term)).await;
            match raised.map_err(|e| HostError::Lead(e.to_string()))? {
                Ok(()) => break,
                Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                    if let Some(former) = keeper.former.as_ref().filter(|_| begun.elapsed() > LOCKED) {
                        former.end(&here);
                    }
                    if begun.elapsed() > LOCKED && !std::mem::replace(&mut told, true) {
                        warn!(
                            store = file,
                            "another process keeps this store locked: nothing is served until it lets go"
                        );
                    }
                }
                Err(e) => return Err(HostError::Lead(format!("{file}: {e}"))),
            }
        }
    }
    Ok(())
}

async fn ask(store: &Arc<dyn Holding>, bid: Bid) -> Result<Answer, HoldingError> {
    let store = store.clone();
    let asked = tokio::task::spawn_blocking(move || store.lease(&bid)).await;
    asked.unwrap_or_else(|e| Err(HoldingError::Store(e.to_string())))
}

impl Keeper {
    /// Keeps the lease, and returns once another executor has it. Where the store does not answer, nothing leaves this process
    /// from the lease's end on until it does.
    pub(super) async fn keep(&self) -> HostError {
        let step = Duration::from_millis(self.lease_ms / 5);
        loop {
            self.tell();
            tokio::time::sleep(step).await;
            let (asked_ms, held) = (self.lead.now_ms(), self.lead.holds());
            let bid = Bid {
                holder: self.name.clone(),
                term: Some(self.lead.term),
                lease_ms: self.lease_ms,
                ..Bid::default()
            };
            match tokio::time::timeout(Duration::from_millis(self.lease_ms), ask(&self.store, bid)).await {
                Ok(Ok(Answer { granted: true, .. })) => {
                    let ends_ms = Tenure::granted(self.lead.term, asked_ms, self.lease_ms).ends_ms;
                    self.lead.ends_ms.store(ends_ms, Ordering::SeqCst);
                    if !held {
                        info!(term = self.lead.term, "the executor's lease was over and nobody took it: it goes on");
                    }
                }
                Ok(Ok(Answer { lease, .. })) => {
                    self.lead.ends_ms.store(0, Ordering::SeqCst);
                    return HostError::Lead(format!("another executor is at work: {lease}"));
                }
                Ok(Err(e)) => warn!(code = e.code(), error = %e, "the executor's lease is not renewed yet"),
                Err(_) => warn!("the executor's lease is not renewed yet: the store does not answer"),
            }
        }
    }

    /// Stops acting, then gives the lease back: another need not wait for its end.
    pub(super) async fn give_back(&self) {
        self.lead.ends_ms.store(0, Ordering::SeqCst);
        let bid = Bid { holder: self.name.clone(), term: Some(self.lead.term), ..Bid::default() };
        let asked = ask(&self.store, bid);
        if !matches!(tokio::time::timeout(Duration::from_secs(1), asked).await, Ok(Ok(_))) {
            warn!("the executor's lease was not given back: another takes over when it is over");
        }
    }

    fn tell(&self) {
        let until_ms = wall_ms().saturating_add(self.lead.left().as_millis() as u64);
        let leading = Leading { term: self.lead.term, holder: self.name.clone(), until_ms };
        let temporary = self.file.with_extension(format!("json.{}", std::process::id()));
        let text = serde_json::to_vec(&leading).unwrap_or_default();
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
        let written = file.and_then(|mut f| f.write_all(&text)).and_then(|()| std::fs::rename(&temporary, &self.file));
        if let Err(e) = written {
            warn!(error = %e, "the state of the executor could not be told");
        }
    }
}
