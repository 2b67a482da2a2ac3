//! Cosigning the newest checkpoint, once all that the signature says was looked at.

use super::judge::{self, OwnWriter};
use super::{Evidence, EvidenceError};
use crate::ledger::rpc::Submission;
use crate::ledger::writer_journal::{self, Known};
use concordat_protocol::cbor;
use concordat_protocol::evidence::CheckpointView;
use concordat_protocol::keys::Statement;
use concordat_protocol::ops::Tx;
use concordat_protocol::receipt::Cosign;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// After how long the same bytes are sent again.
const RESEND: Duration = Duration::from_secs(3);

/// A cosignature on its way.
pub(super) struct Sent {
    height: u64,
    tx: Vec<u8>,
    at: Option<Instant>,
}

impl From<Known> for OwnWriter {
    fn from(k: Known) -> Self {
        Self { mark: k.mark.map(|m| (m.incarnation, m.last_seq, m.last_hash)), open: k.open, conflict: k.conflict }
    }
}

impl Evidence {
    /// Cosigns the newest checkpoint: the caller has compared and filed everything below its size.
    pub(super) async fn cosign(&mut self, newest: &CheckpointView) -> Result<(), EvidenceError> {
        let height = newest.checkpoint.height;
        if newest.cosignatures.iter().any(|c| c.agency == self.x.agency) {
            self.x.metrics.cosigned_height.set(height as i64);
            if self.sent.take().is_some() {
                debug!(height, "cosigned");
            }
            return Ok(());
        }
        if self.sent.as_ref().is_none_or(|s| s.height != height) {
            // `keep` verified the header of a checkpoint that is kept.
            let kept = self.x.shelf.newest().await?;
            if !kept.iter().any(|k| k.view.checkpoint == newest.checkpoint) {
                return Err(EvidenceError::NotYet("the checkpoint is not kept"));
            }
            self.writers().await?;
            self.sent = Some(Sent { height, tx: self.sign(newest)?, at: None });
        }
        let Some(sent) = self.sent.as_mut().filter(|s| s.at.is_none_or(|at| at.elapsed() >= RESEND)) else {
            return Ok(());
        };
        match self.x.rpc.submit(&sent.tx).await {
            Submission::Pending if sent.at.is_none() => info!(height, "cosignature sent"),
            Submission::Pending => {}
            Submission::Unknown(why) => warn!(height, why, "cosignature not taken yet"),
            // A newer checkpoint came meanwhile, or the key is not registered: the next one tells.
            Submission::Refused { code, text } => warn!(height, code, text, "cosignature refused"),
        }
        sent.at = Some(Instant::now());
        Ok(())
    }

    fn sign(&self, newest: &CheckpointView) -> Result<Vec<u8>, EvidenceError> {
        let body = Cosign {
            checkpoint: newest.checkpoint.clone(),
            agency: self.x.agency.clone(),
            // Nothing is archived elsewhere yet.
            archived_height: 0,
        };
        let body = cbor::encode(&body);
        let signature = self.x.key.try_sign(Statement::Cosign, &self.x.chain, &body)?;
        Ok(cbor::encode(&Tx::Cosign { body: body.into(), signature }))
    }

    /// Every writer that this node runs wrote what stands under its name. The ledger is asked first: what it has was kept
    /// in the journal before it was sent.
    async fn writers(&self) -> Result<(), EvidenceError> {
        for (writer, journal) in &self.x.journals {
            let Some(view) = self.x.node.writer(writer).await? else { continue };
            let known = tokio::task::block_in_place(|| writer_journal::known(journal, view.incarnation))?;
            // A writer that another process of this agency runs is that process's to watch.
            let Some(known) = known else { continue };
            if known.mark.is_none() && known.conflict.is_none() && view.last_seq > 0 {
                return Err(EvidenceError::NotYet("a writer has not started"));
            }
            judge::writer(&view, &known.into())?;
        }
        Ok(())
    }
}
