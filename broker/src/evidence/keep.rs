//! Keeping checkpoints: the header, the leaves of sessions used and of release keys, the cosignatures as they come.

use super::trust::{enough, holds};
use super::{Evidence, EvidenceError};
use concordat_protocol::acts::KeyRole;
use concordat_protocol::evidence::{CheckpointView, LeavesProof};
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::KeyId;
use concordat_protocol::receipt::Cosignature;
use std::collections::BTreeSet;
use tracing::{info, warn};

impl Evidence {
    /// Keeps a checkpoint that is not kept yet, with the leaves at its height: meta and heads are proven for recent
    /// heights only, so this must not wait for the cosignatures.
    pub(super) async fn keep(&mut self, newest: &CheckpointView) -> Result<(), EvidenceError> {
        let height = newest.checkpoint.height;
        if self.x.shelf.newest().await?.first().is_some_and(|k| k.view.checkpoint.height >= height) {
            return Ok(());
        }
        let kept = self.header(newest).await?;
        let sessions = self.x.shelf.unsettled(newest.checkpoint.log_size).await?;
        let leaves = if sessions.is_empty() { None } else { self.leaves(height, sessions).await? };
        Ok(self.x.shelf.keep(kept, leaves).await?)
    }

    async fn leaves(&mut self, height: u64, sessions: Vec<u64>) -> Result<Option<LeavesProof>, EvidenceError> {
        let mut providers = BTreeSet::new();
        for session in &sessions {
            providers.extend(self.provider(*session).await?);
        }
        let mut keys = Vec::new();
        for provider in providers {
            keys.extend(self.release_keys(&provider).await?);
        }
        match self.x.node.leaves(height, keys, sessions).await {
            Ok(leaves) => Ok(Some(leaves)),
            Err(crate::ledger::LedgerError::Refused { code, text }) => {
                // The broker was away for long: the next checkpoint has the leaves.
                warn!(height, code, text, "no leaves at this checkpoint");
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }

    async fn provider(&mut self, session: u64) -> Result<Option<AgencyId>, EvidenceError> {
        if let Some(known) = self.providers.get(&session) {
            return Ok(Some(known.clone()));
        }
        let found = self.x.node.session(session).await?.map(|s| s.provider);
        if let Some(provider) = &found {
            self.providers.insert(session, provider.clone());
        }
        Ok(found)
    }

    /// All of them: what a key signed before it was revoked stays evidence.
    async fn release_keys(&self, provider: &AgencyId) -> Result<Vec<KeyId>, EvidenceError> {
        let keys = self.x.node.keys(provider).await?;
        Ok(keys.iter().filter(|k| k.role == KeyRole::Release).map(|k| k.key.key_id()).collect())
    }

    /// Takes in cosignatures that came since, of every checkpoint that the ledger still shows.
    pub(super) async fn refresh(&self, newest: &CheckpointView) -> Result<(), EvidenceError> {
        let trust = self.x.trust.now().await?;
        let kept = self.x.shelf.newest().await?;
        let complete = |v: &CheckpointView| {
            let epoch = trust.epoch_at(v.checkpoint.height + 1);
            epoch.is_some_and(|e| v.cosignatures.len() >= e.validator_agencies().len())
        };
        let open = kept.iter().filter(|k| !complete(&k.view));
        let Some(lowest) = open.map(|k| k.view.checkpoint.height).min() else { return Ok(()) };
        let views = match lowest == newest.checkpoint.height {
            true => vec![newest.clone()],
            false => self.x.node.checkpoints(lowest).await?,
        };
        for mut view in views {
            let height = view.checkpoint.height;
            let Some(known) = kept.iter().find(|k| k.view.checkpoint == view.checkpoint) else { continue };
            let CheckpointView { checkpoint, cosignatures } = &mut view;
            let good = |c: &Cosignature| known.view.cosignatures.contains(c) || holds(&trust, checkpoint, c);
            tokio::task::block_in_place(|| cosignatures.retain(good));
            if view.cosignatures.len() <= known.view.cosignatures.len() {
                continue;
            }
            let is_final = enough(&trust, height, view.cosignatures.iter().map(|c| &c.agency));
            if is_final && !known.last {
                info!(height, log_size = view.checkpoint.log_size, "checkpoint is final");
            }
            self.x.shelf.cosigned(view, is_final).await?;
        }
        Ok(())
    }
}
