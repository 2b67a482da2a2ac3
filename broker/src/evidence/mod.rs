//! Checkpoints at this agency: it compares what the ledger says with what it knows, disputes what nobody here asked for,
//! cosigns the rest, and keeps what makes its receipts final (PROTOCOL 4, 9, 11).

pub mod dispute;
pub mod judge;
pub(crate) mod shelf;
pub mod trust;

mod cosign;
mod keep;

pub use dispute::Disputes;
pub use shelf::{KeptCheckpoint, KeptDispute, Shelf};
pub use trust::TrustKeeper;

use crate::gateway::watch::LedgerWatch;
use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use crate::ledger::rpc::CometRpc;
use crate::metrics::Metrics;
use crate::store::StoreError;
use concordat_protocol::evidence::{CheckpointView, NamedOp};
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::SigningKey;
use concordat_protocol::receipt::app_hash;
use concordat_protocol::trust::TrustError;
use concordat_protocol::verify::{Invalid, comet, verify_block};
use judge::Doubt;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;
use tracing::{error, info, warn};

/// How long to wait for a block before looking anyway, and after an error.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// Why nothing was kept or signed this time.
#[derive(Debug, Error)]
pub enum EvidenceError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// CometBFT's answer.
    #[error(transparent)]
    Comet(#[from] comet::CometError),
    /// The header does not prove itself.
    #[error("the header of the own CometBFT is not believed: {0}")]
    Header(#[from] Invalid),
    /// The chain's trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The genesis file.
    #[error("genesis.json cannot be read: {0}")]
    Genesis(String),
    /// The key.
    #[error("the cosigning key does not sign: {0}")]
    Key(#[from] concordat_protocol::keys::KeyError),
    /// Cosigning stops until a person has looked.
    #[error("not cosigned: {0}")]
    Doubt(#[from] Doubt),
    /// Something comes with a later block.
    #[error("not yet: {0}")]
    NotYet(&'static str),
}

impl EvidenceError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ledger(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::Comet(e) => e.code(),
            Self::Header(e) => e.code(),
            Self::Trust(e) => e.code(),
            Self::Genesis(_) => "genesis-file",
            Self::Key(_) => "cosign-key",
            Self::Doubt(e) => e.code(),
            Self::NotYet(_) => "not-yet",
        }
    }
}

/// What the task needs.
pub struct EvidenceSetup {
    /// Chain id.
    pub chain: String,
    /// This agency.
    pub agency: AgencyId,
    /// Its cosigning key.
    pub key: SigningKey,
    /// The own node, on a connection of its own.
    pub node: NodeClient,
    /// The own CometBFT.
    pub rpc: CometRpc,
    /// What the own node says as it says it.
    pub watch: LedgerWatch,
    /// What is kept.
    pub shelf: Shelf,
    /// The chain's trust.
    pub trust: TrustKeeper,
    /// Files disputes.
    pub disputes: Disputes,
    /// Writers of this agency and their journals.
    pub journals: Vec<(concordat_protocol::ids::WriterId, PathBuf)>,
    /// Metrics.
    pub metrics: Metrics,
}

/// The task.
pub struct Evidence {
    x: EvidenceSetup,
    /// Providers of sessions seen, so that the ledger is asked once.
    providers: BTreeMap<u64, AgencyId>,
    sent: Option<cosign::Sent>,
    /// What was said last, so that it is said once.
    said: Option<&'static str>,
}

impl Evidence {
    /// A task that starts with [`Evidence::run`].
    pub fn new(setup: EvidenceSetup) -> Self {
        Self { x: setup, providers: BTreeMap::new(), sent: None, said: None }
    }

    /// Looks at every new block, for as long as the process lives.
    pub async fn run(mut self) {
        let mut seen = 0;
        loop {
            self.x.watch.reach(seen + 1, PATIENCE).await;
            seen = self.x.watch.now().map_or(seen, |n| n.height);
            match self.look().await {
                Ok(()) => {
                    if self.said.take().is_some() {
                        info!("checkpoints are cosigned again");
                    }
                    self.x.metrics.cosign_stopped.set(0);
                }
                Err(EvidenceError::NotYet(_)) => {}
                Err(e) => {
                    let stopped = matches!(e, EvidenceError::Doubt(_));
                    self.x.metrics.cosign_stopped.set(i64::from(stopped));
                    match self.said.replace(e.code()) == Some(e.code()) {
                        true => {}
                        false if stopped => error!(code = e.code(), error = %e, "cosigning stops"),
                        false => warn!(code = e.code(), error = %e, "the newest checkpoint is not cosigned yet"),
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Keeps the newest checkpoint, then cosigns it.
    async fn look(&mut self) -> Result<(), EvidenceError> {
        let Some(newest) = self.x.node.checkpoints(0).await?.pop() else { return Ok(()) };
        let c = &newest.checkpoint;
        self.x.metrics.checkpoint_height.set(c.height as i64);
        let compared = self.compare(c.log_size).await;
        let kept = self.keep(&newest).await;
        self.refresh(&newest).await?;
        kept?;
        compared?;
        self.x.disputes.file().await?;
        self.cosign(&newest).await
    }

    /// Compares every operation that names a session of this agency with what was asked here, up to an index.
    async fn compare(&self, until: u64) -> Result<(), EvidenceError> {
        let mut from = self.x.shelf.named_from().await?;
        while from < until {
            let (end, ops) = self.x.node.named(&self.x.agency, from).await?;
            if end <= from {
                return Err(EvidenceError::NotYet("the node looked at nothing new"));
            }
            let places = self.x.shelf.places(ops.iter().map(|o| (o.session, o.n)).collect()).await?;
            let mut accused = Vec::new();
            for (op, place) in ops.iter().zip(places) {
                if self.fits(op, place) {
                    continue;
                }
                let entry = self.x.watch.entry(op.index).await?.ok_or(EvidenceError::NotYet("an entry is missing"))?;
                accused.extend(judge::named(op, &entry, place));
            }
            for a in &accused {
                error!(
                    op = a.index,
                    why = a.reason,
                    "an operation names this agency, which did not ask: it is disputed"
                );
            }
            self.x.shelf.compared(end, ops.iter().map(|o| (o.session, o.index)).collect(), accused).await?;
            from = end;
        }
        Ok(())
    }

    /// The common case, without a question about the entry.
    fn fits(&self, op: &NamedOp, place: shelf::Place) -> bool {
        op.n == 0 || (place.asked && place.released.is_none_or(|r| r == op.index))
    }

    /// The header after a checkpoint, verified against the chain's trust; it must carry the checkpoint's state.
    async fn header(&self, view: &CheckpointView) -> Result<KeptCheckpoint, EvidenceError> {
        let c = &view.checkpoint;
        let height = c.height + 1;
        if self.x.watch.now().is_none_or(|n| n.height < height) {
            return Err(EvidenceError::NotYet("the next header"));
        }
        let packed = self.x.rpc.packed::<EvidenceError>(height).await?;
        let trust = self.x.trust.now().await?;
        let proven = verify_block(&packed.header, &packed.validators, &trust)?;
        if proven.height != height || proven.app_hash != app_hash(&c.roots) || c.chain != self.x.chain {
            return Err(Doubt::State { height: c.height }.into());
        }
        let (header, validators) = (packed.header, packed.validators);
        Ok(KeptCheckpoint { view: view.clone(), header, validators, last: false })
    }
}
