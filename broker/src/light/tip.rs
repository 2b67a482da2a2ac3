//! The newest block that is believed: followed, proven by the header after it, kept durably, told to who waits.

use super::host::Host;
use super::proofs::{Claim, believe, fail};
use super::seen::Seen;
use super::{LightError, SEEN_FILE, clock_ms, is_stale};
use crate::config::NodeConfig;
use crate::ledger::follow::{Followed, Frames, follow};
use concordat_protocol::hash::Hash;
use concordat_protocol::node::{Frame, NodeReply, NodeRequest, StoreRoots};
use concordat_protocol::receipt::app_hash;
use concordat_protocol::trust::Trust;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::{info, warn};

/// How long to wait before the host is asked again.
const RETRY: Duration = Duration::from_millis(200);
/// How often a header that does not verify is asked for again before that counts.
const TRIES: u32 = 4;
/// A writer's name that nobody has: the follower wants heights, not entries.
const NOBODY: &str = "-";

/// A block that is believed.
#[derive(Debug, Clone)]
pub(super) struct Tip {
    /// Its height; the header of the next one carries its roots.
    pub height: u64,
    /// Its tick, milliseconds.
    pub tick_ms: u64,
    /// Roots after it.
    pub roots: Arc<StoreRoots>,
    /// App hash after it.
    pub app_hash: Hash,
    /// Grows whenever the root of `meta` changed between two tips.
    pub meta_rev: u64,
    /// When it was believed.
    pub at: Instant,
}

/// What is known of the newest block.
#[derive(Debug, Clone, Default)]
struct Known {
    tip: Option<Tip>,
    /// Why nothing newer is believed.
    trouble: Option<String>,
}

/// The newest block, as it changes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tips(watch::Receiver<Known>);

impl Tips {
    /// The newest block; an error while the host is not believed, or shows none for too long.
    pub fn now(&self) -> Result<Tip, LightError> {
        let known = self.0.borrow();
        let why = |rest: &str| LightError::Stale(known.trouble.clone().unwrap_or_else(|| rest.to_owned()));
        match &known.tip {
            _ if known.trouble.is_some() => Err(why("")),
            Some(tip) if is_stale(tip.at) => Err(why("the host keeps newer blocks back, or the ledger stands still")),
            Some(tip) => Ok(tip.clone()),
            None => Err(why("no block was proven yet")),
        }
    }

    /// Waits until something changes.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

struct Follower {
    host: Host,
    seen: Seen,
    known: watch::Sender<Known>,
    /// Where the next revision of `meta` begins.
    meta_rev: u64,
}

/// Follows the host in a task of its own.
pub(super) fn start(cfg: &NodeConfig, host: Host) -> Result<Tips, LightError> {
    let path = cfg.path(SEEN_FILE);
    let seen = Seen::open(&path).map_err(|source| LightError::Seen { path, source })?;
    info!(height = seen.height(), "highest header believed before");
    let (known, tips) = watch::channel(Known::default());
    // Clock and counter together never give a revision twice, also over restarts.
    let follower = Follower { host: host.apart(), seen, known, meta_rev: clock_ms() };
    tokio::spawn(follower.run());
    Ok(Tips(tips))
}

impl Follower {
    async fn run(mut self) {
        loop {
            if let Err(e) = self.follow().await {
                self.trouble(&e);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn trouble(&self, e: &LightError) {
        let why = e.to_string();
        self.known.send_if_modified(|known| {
            let news = known.trouble.as_ref() != Some(&why);
            if news {
                warn!(code = e.code(), why, "the host is not believed: nothing is released");
            }
            known.trouble = Some(why.clone());
            news
        });
    }

    /// Follows from the host's newest block on until something is wrong.
    async fn follow(&mut self) -> Result<(), LightError> {
        let NodeReply::Head { body } = self.host.ask(&NodeRequest::Head {}).await? else {
            return Err(fail("head", "the host's node tells no head").into());
        };
        let from = body.height.saturating_sub(1).max(1);
        let mut frames = follow(self.host.node().path(), from, vec![NOBODY.to_owned()]);
        let mut before: Option<Frame> = None;
        loop {
            let frame = match next(&mut frames).await? {
                Followed::Frame(frame) => frame,
                Followed::Lost(why) => return Err(LightError::Stale(format!("the host's node is lost: {why}"))),
            };
            // Of blocks that come together the newest proves the others.
            if let Some(block) = before.filter(|_| !frames.has_more()) {
                self.prove(&block, frame.height, &frames).await?;
            }
            before = Some(frame);
        }
    }

    /// Proves a block by the header of the next; asked again while that may help.
    async fn prove(&mut self, block: &Frame, header: u64, frames: &Frames) -> Result<(), LightError> {
        let mut tries = 1;
        loop {
            match self.try_prove(block, header).await {
                Ok(()) => return Ok(()),
                // CometBFT shows a commit a moment after the application has the block; a newer block proves as much.
                Err(LightError::Host(_) | LightError::Comet(_)) if frames.has_more() => return Ok(()),
                Err(LightError::Host(_) | LightError::Comet(_)) if tries < TRIES => tries += 1,
                Err(e) => return Err(e),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn try_prove(&mut self, block: &Frame, header: u64) -> Result<(), LightError> {
        let question = NodeRequest::Leaves { height: block.height, keys: vec![], sessions: vec![] };
        let NodeReply::Leaves { body } = self.host.ask(&question).await? else {
            return Err(fail("roots", "the host's node tells no roots").into());
        };
        let packed = self.host.packed(header).await?;
        let claim = Claim {
            header: &packed.header,
            validators: &packed.validators,
            roots: &body.roots,
            tick_ms: block.tick_ms,
        };
        let (seen, now_ms) = (self.seen.height(), clock_ms());
        let height = self.host.with_trust(|trust: &Trust| believe(trust, &claim, seen, now_ms)).await?;
        if height != block.height {
            return Err(fail("header", format!("header {} where {header} was asked for", height + 1)).into());
        }
        self.keep(header)?;
        self.publish(block, body.roots);
        Ok(())
    }

    fn keep(&mut self, header: u64) -> Result<(), LightError> {
        let kept = tokio::task::block_in_place(|| self.seen.keep(header));
        kept.map_err(|source| LightError::Seen { path: SEEN_FILE.into(), source })
    }

    fn publish(&mut self, block: &Frame, roots: StoreRoots) {
        let of = |known: &Known| known.tip.as_ref().map(|t| (t.roots.meta, t.meta_rev));
        let meta_rev = match of(&self.known.borrow()) {
            Some((meta, rev)) if meta == roots.meta => rev,
            _ => {
                self.meta_rev += 1;
                self.meta_rev
            }
        };
        let (height, tick_ms, app_hash) = (block.height, block.tick_ms, app_hash(&roots));
        let tip = Tip { height, tick_ms, roots: Arc::new(roots), app_hash, meta_rev, at: Instant::now() };
        let was = self.known.send_replace(Known { tip: Some(tip), trouble: None });
        if was.trouble.is_some() || was.tip.is_none() {
            info!(height, "the host's blocks are believed");
        }
    }
}

/// The next frame, or a loss; a host that shows none for too long is lost.
async fn next(frames: &mut Frames) -> Result<Followed, LightError> {
    let silent = || LightError::Stale("the host keeps newer blocks back, or the ledger stands still".into());
    tokio::time::timeout(super::STALE, frames.next()).await.map_err(|_| silent())
}
