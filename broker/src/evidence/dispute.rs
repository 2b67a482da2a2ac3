//! Disputes: the ledger learns that this agency did not ask for an operation that names it. The reason stays here, the
//! ledger has its salted hash.

use super::EvidenceError;
use super::judge::{ACCUSED_MAX, Doubt};
use super::shelf::{KeptDispute, Shelf};
use crate::gateway::Gateway;
use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use crate::metrics::Metrics;
use concordat_protocol::acts::ActBody;
use concordat_protocol::evidence::DisputeView;
use concordat_protocol::hash::sha256;
use concordat_protocol::ids::AgencyId;
use std::sync::Arc;
use tokio::sync::Mutex;
use tracing::info;

/// Files disputes, one after another. Cheap to clone.
#[derive(Clone)]
pub struct Disputes {
    agency: AgencyId,
    node: NodeClient,
    gateway: Gateway,
    shelf: Shelf,
    metrics: Metrics,
    turn: Arc<Mutex<()>>,
}

impl Disputes {
    /// Disputes of this agency, signed with its gateway's key.
    pub fn new(agency: AgencyId, node: NodeClient, gateway: Gateway, shelf: Shelf, metrics: Metrics) -> Self {
        Self { agency, node, gateway, shelf, metrics, turn: Arc::default() }
    }

    /// The dispute of an operation on the ledger, whoever filed it.
    pub async fn on_ledger(&self, reference: u64) -> Result<Option<DisputeView>, LedgerError> {
        Ok(self.node.disputes().await?.into_iter().find(|d| d.reference == reference))
    }

    /// What is kept here of the own dispute of an operation.
    pub async fn kept(&self, reference: u64) -> Result<Option<KeptDispute>, EvidenceError> {
        Ok(self.shelf.dispute_of(reference).await?)
    }

    /// Disputes an operation for a person, and waits until the ledger has it. The same operation again is no error.
    pub async fn dispute(&self, reference: u64, reason: String, by: String) -> Result<KeptDispute, EvidenceError> {
        let _turn = self.turn.lock().await;
        let kept = self.shelf.dispute(reference, reason, by).await?;
        match self.settle(&kept).await {
            Ok(op) => Ok(KeptDispute { op: Some(op), ..kept }),
            Err(e) => {
                // The ledger does not take it: it must not hold up cosignatures.
                if matches!(e, EvidenceError::Ledger(LedgerError::Refused { .. })) && kept.by != "broker" {
                    self.shelf.withdrawn(reference).await?;
                }
                Err(e)
            }
        }
    }

    /// Files all that are not on the ledger. Nothing is cosigned before this is done.
    pub async fn file(&self) -> Result<(), EvidenceError> {
        let _turn = self.turn.lock().await;
        let unfiled = self.shelf.unfiled().await?;
        if unfiled.len() > ACCUSED_MAX {
            return Err(Doubt::TooMany(unfiled.len()).into());
        }
        for kept in unfiled {
            self.settle(&kept).await?;
        }
        Ok(())
    }

    /// Brings one onto the ledger; returns the act's own entry, 0 where another process filed it.
    async fn settle(&self, kept: &KeptDispute) -> Result<u64, EvidenceError> {
        if let Some(op) = kept.op {
            return Ok(op);
        }
        let reference = kept.reference;
        if self.on_ledger(reference).await?.is_some_and(|d| d.agency == self.agency) {
            self.shelf.filed(reference, 0).await?;
            return Ok(0);
        }
        let reason = sha256(&[&kept.salt, kept.reason.as_bytes()]);
        let (op, _) = self.gateway.desk().submit(ActBody::Dispute { reference, reason }).await?;
        info!(op = reference, dispute = op, by = kept.by, "dispute is on the ledger");
        self.metrics.disputes.inc();
        self.shelf.filed(reference, op).await?;
        Ok(op)
    }
}
