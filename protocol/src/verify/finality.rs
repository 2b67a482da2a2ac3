//! Checkpoint and cosignatures: what makes a receipt final, and outlive Ed25519.

use super::{Invalid, Passed, bytes, fail};
use crate::ids::AgencyId;
use crate::keys::{Statement, Suite};
use crate::receipt::{Cosign, Receipt};
use crate::trust::Epoch;
use std::collections::BTreeSet;

/// Checks the cosignatures, if there are any, and gives the cosigners.
pub(super) fn check(r: &Receipt, height: u64, epoch: &Epoch, passed: &mut Passed) -> Result<Vec<AgencyId>, Invalid> {
    // The header carries the state of the height before it.
    let (Some(part), Some(checkpoint)) = (&r.checkpoint, r.checkpoint_of(height.saturating_sub(1))) else {
        return Ok(Vec::new());
    };
    if r.index >= part.log_size {
        return Err(fail("checkpoint", format!("the checkpoint covers {} entries, not op:{}", part.log_size, r.index)));
    }
    let mut signers = BTreeSet::new();
    for c in &part.cosignatures {
        if signers.last().is_some_and(|last: &&AgencyId| **last >= c.agency) {
            return Err(fail("checkpoint", "cosignatures must be sorted by agency, each agency once"));
        }
        let key = epoch.keys_of(&c.agency).and_then(|k| k.cosign.as_ref());
        let key = key.ok_or_else(|| fail("checkpoint", format!("trust.json has no cosigning key of {}", c.agency)))?;
        if !matches!(key.suite, Suite::Hybrid | Suite::MlDsa65) {
            return Err(fail("checkpoint", format!("the cosigning key of {} is not post-quantum", c.agency)));
        }
        let body =
            Cosign { checkpoint: checkpoint.clone(), agency: c.agency.clone(), archived_height: c.archived_height };
        key.verify_full(Statement::Cosign, &r.chain, &bytes(&body), &c.signature)
            .map_err(|e| fail("checkpoint", format!("cosignature of {}: {e}", c.agency)))?;
        signers.insert(&c.agency);
    }
    if !epoch.is_two_thirds(&signers) {
        let (got, all) = (signers.len(), epoch.validator_agencies().len());
        return Err(fail("checkpoint", format!("{got} of {all} agencies cosigned, more than 2/3 is needed")));
    }
    passed.add("checkpoint", format!("{} agencies cosigned the state, post-quantum", signers.len()));
    Ok(signers.into_iter().cloned().collect())
}
