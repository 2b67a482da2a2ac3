//! Leaves of the state as those who ask for proofs of them name and read them.

use super::AgreementView;
use crate::acts::ApprovalKind;
use crate::canon_struct;
use crate::hash::Hash;
use crate::ids::{AgencyId, AgreementId};
use crate::keys::KeyId;
use crate::terms::Status;

/// Key of a registered key's leaf in `meta`: `key/` and the key id in hex.
pub fn key_leaf_key(id: &KeyId) -> Vec<u8> {
    format!("key/{}", hex::encode(id.0)).into_bytes()
}

/// Key of a session's leaf in `heads`: `session/` and the number.
pub fn session_leaf_key(session: u64) -> Vec<u8> {
    format!("session/{session}").into_bytes()
}

canon_struct! {
    /// Value of a session's leaf in `heads`: what never changes first, then where it stands.
    pub struct SessionLeaf {
        /// Who asks.
        pub consumer: AgencyId,
        /// Who is asked.
        pub provider: AgencyId,
        /// Ed25519 public key.
        pub key: [u8; 32],
        /// First tick at which it is over, milliseconds.
        pub expires_ms: u64,
        /// Newest request number.
        pub newest_n: u64,
        /// SHA-256 of the window of used numbers.
        pub window_hash: Hash,
    }
}

/// The `prev_terms_hash` that an approval of a version must name now: the hash of the terms that it replaces, zeros
/// where it replaces none. Activating replaces the other version in force, renewing the version's own terms.
pub fn replaced_terms(views: &[AgreementView], agreement: &AgreementId, version: u64, what: ApprovalKind) -> Hash {
    let in_force = |v: &&AgreementView| matches!(v.status, Status::Active | Status::Suspended);
    let mut versions = views.iter().filter(|v| v.agreement == *agreement);
    let replaced = match what {
        ApprovalKind::Activate => versions.filter(|v| v.version != version).filter(in_force).max_by_key(|v| v.version),
        ApprovalKind::Renew => versions.find(|v| v.version == version),
        ApprovalKind::Resume => None,
    };
    replaced.map_or([0; 32], |v| v.terms_hash)
}
