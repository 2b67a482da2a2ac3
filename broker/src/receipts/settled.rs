//! Final receipts: at the height of a checkpoint with enough cosignatures, from leaves that were kept then.

use super::{Receipts, ReceiptsError, Subject};
use crate::evidence::KeptCheckpoint;
use crate::evidence::trust::enough;
use crate::gateway::records::Header;
use concordat_protocol::evidence::CheckpointView;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::limits::RECEIPT_BYTES_MAX;
use concordat_protocol::node::{key_leaf_key, session_leaf_key};
use concordat_protocol::receipt::{CheckpointPart, Receipt};
use concordat_protocol::verify::{Status, verify};
use tracing::error;

/// A checkpoint that covers an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covering {
    /// The checkpoint with its cosignatures.
    pub view: CheckpointView,
    /// Whether enough agencies cosigned it.
    pub is_final: bool,
}

impl Covering {
    /// Who cosigned it.
    pub fn cosigners(&self) -> impl Iterator<Item = &AgencyId> {
        self.view.cosignatures.iter().map(|c| &c.agency)
    }
}

/// Leaves out the last cosignature that is of no party, if the rest is enough.
fn spare(
    part: &mut CheckpointPart,
    parties: &[Option<&str>],
    enough: impl Fn(&mut dyn Iterator<Item = &AgencyId>) -> bool,
) -> bool {
    let party = |a: &AgencyId| parties.contains(&Some(a.as_str()));
    let Some(at) = part.cosignatures.iter().rposition(|c| !party(&c.agency)) else { return false };
    let mut rest = part.cosignatures.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, c)| &c.agency);
    if !enough(&mut rest) {
        return false;
    }
    part.cosignatures.remove(at);
    true
}

impl Receipts {
    /// The final receipt, where there is one. It was verified as its reader will verify it.
    pub(super) async fn settled(&self, x: &Subject) -> Result<Option<Receipt>, ReceiptsError> {
        let keys = x.released().map(|r| key_leaf_key(&r.release_key));
        let session = keys.is_some().then(|| x.kept.as_ref().map(|k| session_leaf_key(k.session))).flatten();
        let wanted = session.into_iter().chain(keys).collect();
        let Some((kept, mut leaves)) = self.shelf.final_with(x.index, wanted).await? else { return Ok(None) };
        let c = &kept.view.checkpoint;
        let mut proof = self.node.proof(x.index, c.height, vec![], 0).await?;
        if proof.roots != c.roots {
            return Err(ReceiptsError::Mismatch(c.height + 1));
        }
        if leaves.len() == 2 {
            proof.keys = leaves.split_off(1);
            proof.session = leaves.pop();
        }
        let mut part =
            CheckpointPart { tick_ms: c.tick_ms, log_size: c.log_size, cosignatures: kept.view.cosignatures.clone() };
        let header = Header { header: kept.header, validators: kept.validators };
        let mut made = self.build(x, &proof, &header, Some(&part))?;
        let (mut bytes, trust) = (made.to_bytes()?, self.trust.now().await?);
        // A cosignature has 3.4 KB. Beyond the limit those of the parties stay, and as many others as are needed.
        let parties = [x.entry.writer.split('/').next(), x.record.as_ref().map(|_| self.agency.as_str())];
        while bytes.len() > RECEIPT_BYTES_MAX && spare(&mut part, &parties, |rest| enough(&trust, c.height, rest)) {
            made = self.build(x, &proof, &header, Some(&part))?;
            bytes = made.to_bytes()?;
        }
        match tokio::task::block_in_place(|| verify(&bytes, &trust, None)) {
            // A checkpoint of before would hide that the key counts as compromised: then the state of now is shown.
            Ok(v) if v.status == Status::Final && !v.contested && self.contested(x).await? => Ok(None),
            Ok(v) if v.status == Status::Final => Ok(Some(made)),
            Ok(_) => Ok(None),
            Err(e) => {
                error!(op = x.index, check = e.check, error = %e, "a final receipt does not verify: it stays provisional");
                Ok(None)
            }
        }
    }

    /// Whether the ledger now says that the key which signed this release was compromised by then.
    pub(super) async fn contested(&self, x: &Subject) -> Result<bool, ReceiptsError> {
        let Some(released) = x.released() else { return Ok(false) };
        let key = self.node.key(released.release_key).await?;
        Ok(key.is_some_and(|k| k.compromised_since_ms != 0 && k.compromised_since_ms <= x.entry.tick_ms))
    }

    /// The newest final checkpoint that covers an operation; where none is final, the newest that covers it.
    pub async fn covering(&self, index: u64) -> Result<Option<Covering>, ReceiptsError> {
        if let Some((k, _)) = self.shelf.final_with(index, vec![]).await? {
            return Ok(Some(Covering { view: k.view, is_final: true }));
        }
        let newest = self.shelf.newest().await?;
        let found = newest.into_iter().find(|k: &KeptCheckpoint| k.view.checkpoint.log_size > index);
        Ok(found.map(|k| Covering { view: k.view, is_final: k.last }))
    }
}
