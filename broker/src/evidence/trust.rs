//! What this broker trusts of its chain: the genesis file, and the epochs that enough agencies signed.

use super::EvidenceError;
use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use concordat_protocol::cbor;
use concordat_protocol::evidence::EpochView;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::Statement;
use concordat_protocol::receipt::{Checkpoint, Cosign, Cosignature};
use concordat_protocol::trust::{Trust, TrustError};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The chain's trust as of now. Cheap to clone.
#[derive(Clone)]
pub struct TrustKeeper {
    node: NodeClient,
    genesis: Arc<PathBuf>,
    kept: Arc<Mutex<Option<Kept>>>,
}

struct Kept {
    epochs: Vec<EpochView>,
    trust: Arc<Trust>,
}

impl TrustKeeper {
    /// The trust of the chain whose genesis file lies at `genesis`.
    pub fn new(node: NodeClient, genesis: PathBuf) -> Self {
        Self { node, genesis: Arc::new(genesis), kept: Arc::default() }
    }

    /// The trust now: every epoch with enough signatures, checked from genesis on.
    pub async fn now(&self) -> Result<Arc<Trust>, EvidenceError> {
        let epochs = match self.node.epochs().await {
            Ok(epochs) => epochs,
            // A node of an older release knows the genesis alone.
            Err(LedgerError::Refused { .. }) => Vec::new(),
            Err(e) => return Err(e.into()),
        };
        if let Some(trust) = self.kept(&epochs) {
            return Ok(trust);
        }
        let unreadable = |e| EvidenceError::Genesis(format!("{}: {e}", self.genesis.display()));
        let text = tokio::fs::read_to_string(self.genesis.as_path()).await.map_err(unreadable)?;
        let trust = Arc::new(of_node(text, &epochs)?);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Kept { epochs, trust: trust.clone() });
        Ok(trust)
    }

    fn kept(&self, epochs: &[EpochView]) -> Option<Arc<Trust>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|k| k.epochs == epochs).map(|k| k.trust.clone())
    }
}

/// The trust of a chain from its genesis and its node's epochs; from the genesis alone where the node lists none.
pub fn of_node(genesis: String, epochs: &[EpochView]) -> Result<Trust, TrustError> {
    if epochs.is_empty() { Trust::from_genesis(genesis, vec![]) } else { Trust::with_epochs(genesis, vec![], epochs) }
}

/// Whether both halves of a cosignature hold: consensus verified the classical one alone.
pub fn holds(trust: &Trust, checkpoint: &Checkpoint, c: &Cosignature) -> bool {
    let epoch = trust.epoch_at(checkpoint.height + 1);
    let Some(key) = epoch.and_then(|e| e.keys_of(&c.agency)).and_then(|k| k.cosign.as_ref()) else { return false };
    let body = Cosign { checkpoint: checkpoint.clone(), agency: c.agency.clone(), archived_height: c.archived_height };
    key.verify_full(Statement::Cosign, &checkpoint.chain, &cbor::encode(&body), &c.signature).is_ok()
}

/// Whether these agencies are enough to make a checkpoint of `height` final.
pub fn enough<'a>(trust: &Trust, height: u64, agencies: impl Iterator<Item = &'a AgencyId>) -> bool {
    // The header that carries the state is the next one.
    trust.epoch_at(height + 1).is_some_and(|e| e.is_two_thirds(&agencies.collect()))
}
