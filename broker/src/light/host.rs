//! The host's node and CometBFT, and the trust by which their headers are believed.

use super::proofs::carries;
use super::{ANSWER_WITHIN, LightError};
use crate::config::NodeConfig;
use crate::evidence::trust::of_node;
use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use crate::ledger::rpc::CometRpc;
use concordat_protocol::node::{NodeReply, NodeRequest, StoreRoots};
use concordat_protocol::trust::Trust;
use concordat_protocol::verify::comet::Packed;
use concordat_protocol::verify::{Invalid, verify_block};
use std::sync::{Arc, Mutex, PoisonError};

/// The host, asked and not believed. Cheap to clone.
#[derive(Clone)]
pub(super) struct Host {
    node: NodeClient,
    rpc: CometRpc,
    genesis: Arc<String>,
    trust: Arc<Mutex<Arc<Trust>>>,
}

impl Host {
    /// The host of a node, with the trust of the genesis file in its folder.
    pub fn new(node: NodeClient, rpc: CometRpc, cfg: &NodeConfig) -> Result<Self, LightError> {
        let path = cfg.genesis();
        let bad = |why: String| LightError::Genesis { path: path.clone(), why };
        let text = std::fs::read_to_string(&path).map_err(|e| bad(e.to_string()))?;
        let trust = of_node(text.clone(), &[]).map_err(|e| bad(e.to_string()))?;
        if trust.chain != cfg.chain {
            return Err(bad(format!("it is of chain {}, node.yaml of {}", trust.chain, cfg.chain)));
        }
        Ok(Self { node, rpc, genesis: Arc::new(text), trust: Arc::new(Mutex::new(Arc::new(trust))) })
    }

    /// The host's socket.
    pub fn node(&self) -> &NodeClient {
        &self.node
    }

    /// The same host on a connection of its own, so that questions of one kind do not wait behind others.
    pub fn apart(&self) -> Self {
        Self { node: NodeClient::new(self.node.path()), ..self.clone() }
    }

    /// What the host says. Nothing in it is proven.
    pub async fn ask(&self, request: &NodeRequest) -> Result<NodeReply, LightError> {
        let asked = tokio::time::timeout(ANSWER_WITHIN, self.node.ask(request)).await;
        match asked.map_err(|_| LightError::Silent)?? {
            NodeReply::Error { code, detail } => Err(LedgerError::Refused { code, text: detail }.into()),
            reply => Ok(reply),
        }
    }

    /// Header, commit and validators of a height. Nothing in it is proven.
    pub async fn packed(&self, height: u64) -> Result<Packed, LightError> {
        self.rpc.packed::<LightError>(height).await
    }

    /// The trust now.
    pub fn trust(&self) -> Arc<Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs a check of a header; where its validators are not known, once more with the epochs that the host tells and that
    /// the agencies of the epochs before signed.
    pub async fn with_trust<T>(&self, check: impl Fn(&Trust) -> Result<T, Invalid>) -> Result<T, LightError> {
        match check(&self.trust()) {
            Err(e) if e.check == "validators" => {
                self.learn().await?;
                Ok(check(&self.trust())?)
            }
            other => Ok(other?),
        }
    }

    async fn learn(&self) -> Result<(), LightError> {
        let NodeReply::Epochs { body } = self.ask(&NodeRequest::Epochs {}).await? else {
            return Err(LedgerError::Protocol("no epochs".into()).into());
        };
        let bad = |e: concordat_protocol::trust::TrustError| Invalid { check: "trust", sentence: e.to_string() };
        let trust = of_node((*self.genesis).clone(), &body).map_err(bad)?;
        let mut kept = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        // Epochs are never taken back: a host that keeps some to itself changes nothing.
        if trust.epochs.len() > kept.epochs.len() {
            *kept = Arc::new(trust);
        }
        Ok(())
    }

    /// The header after a height carries these roots.
    pub async fn proves(&self, height: u64, roots: &StoreRoots) -> Result<(), LightError> {
        let packed = self.packed(height + 1).await?;
        let check = |trust: &Trust| {
            let block = verify_block(&packed.header, &packed.validators, trust)?;
            if block.height != height + 1 {
                let sentence = format!("header {} where {} was asked for", block.height, height + 1);
                return Err(Invalid { check: "header", sentence });
            }
            carries(&block.app_hash, roots, block.height)
        };
        self.with_trust(check).await
    }
}
