//! Checkpoint and cosignatures: what makes a receipt final, and outlive Ed25519.

use super::{Invalid, Passed, bytes, fail};
use crate::ids::AgencyId;
use crate::keys::{Statement, Suite};
use crate::node::StoreRoots;
use crate::receipt::{Checkpoint, CheckpointPart, Cosign, Receipt};
use crate::trust::Epoch;
use std::collections::BTreeSet;

/// What a checkpoint stands for, and what has to lie before it.
pub(super) struct State<'a> {
    pub(super) chain: &'a str,
    /// Height of the header, which carries the state of the height before it.
    pub(super) header: u64,
    pub(super) roots: &'a StoreRoots,
    /// First log index that need not be covered.
    pub(super) end: u64,
    pub(super) part: Option<&'a CheckpointPart>,
}

/// Checks a receipt's cosignatures, if there are any, and gives the cosigners.
pub(super) fn check(r: &Receipt, height: u64, epoch: &Epoch, passed: &mut Passed) -> Result<Vec<AgencyId>, Invalid> {
    let end = r.index.saturating_add(1);
    let part = r.checkpoint.as_ref();
    of_state(&State { chain: &r.chain, header: height, roots: &r.roots, end, part }, epoch, passed)
}

/// Checks the cosignatures of a state, if there are any, and gives the cosigners.
pub(super) fn of_state(s: &State<'_>, epoch: &Epoch, passed: &mut Passed) -> Result<Vec<AgencyId>, Invalid> {
    let Some(part) = s.part else { return Ok(Vec::new()) };
    if s.end > part.log_size {
        let last = s.end.saturating_sub(1);
        return Err(fail("checkpoint", format!("the checkpoint covers {} entries, not op:{last}", part.log_size)));
    }
    let checkpoint = Checkpoint {
        chain: s.chain.to_owned(),
        height: s.header.saturating_sub(1),
        tick_ms: part.tick_ms,
        log_size: part.log_size,
        roots: s.roots.clone(),
    };
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
        key.verify_full(Statement::Cosign, s.chain, &bytes(&body), &c.signature)
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

/// Parties of the operation that are not among the cosigners; nobody while the receipt is provisional.
pub(super) fn not_countersigned(
    r: &Receipt,
    provider: &AgencyId,
    consumer: Option<&AgencyId>,
    cosigners: &[AgencyId],
) -> Vec<AgencyId> {
    if r.checkpoint.is_none() {
        return Vec::new();
    }
    let parties: BTreeSet<&AgencyId> = core::iter::once(provider).chain(consumer).collect();
    parties.into_iter().filter(|p| !cosigners.contains(p)).cloned().collect()
}
