//! Signing requests: one signature of a session's key over up to 256 of them.

use super::pool::Slot;
use concordat_protocol::cbor;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::keys::{KeyError, KeyId, SigningKey, Statement};
use concordat_protocol::session::{Request, SignedRequest};
use concordat_protocol::tree;

/// A request before it has its place in a session.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Who is asked.
    pub provider: AgencyId,
    /// What about.
    pub dataset: DatasetId,
    /// `AGR-2026-0142/C1`, `C1`, or empty.
    pub clause: String,
    /// `purp:...`
    pub purpose: String,
    /// Case reference, or empty.
    pub case: String,
    /// SHA-256 of the query document.
    pub query_hash: Hash,
    /// Key that the response is sealed to.
    pub kem_key_id: KeyId,
    /// Last tick, milliseconds.
    pub not_after_ms: u64,
}

impl Draft {
    /// The request at its place.
    pub fn at(self, chain: &str, slot: Slot) -> Request {
        Request {
            chain: chain.to_owned(),
            session: slot.session,
            n: slot.n,
            provider: self.provider,
            dataset: self.dataset,
            clause: self.clause,
            purpose: self.purpose,
            case: self.case,
            query_hash: self.query_hash,
            kem_key_id: self.kem_key_id,
            not_after_ms: self.not_after_ms,
        }
    }
}

/// Signs requests of one session together; at most [`concordat_protocol::limits::REQUESTS_PER_SIGNATURE`].
pub fn sign(key: &SigningKey, chain: &str, requests: &[Request]) -> Result<Vec<SignedRequest>, KeyError> {
    let bytes: Vec<Vec<u8>> = requests.iter().map(cbor::encode).collect();
    let leaves: Vec<Hash> = bytes.iter().map(|b| tree::leaf_hash(b)).collect();
    let signature = key.try_sign(Statement::Request, chain, &cbor::encode(&tree::root(&leaves)))?;
    let signature: [u8; 64] =
        signature.ed25519.0.try_into().map_err(|_| KeyError::Library("a session's key must be Ed25519"))?;
    let signed = bytes.into_iter().enumerate().map(|(i, request)| SignedRequest {
        request: request.into(),
        index: i as u64,
        size: leaves.len() as u64,
        path: tree::inclusion_path(&leaves, i).unwrap_or_default(),
        signature,
    });
    Ok(signed.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use concordat_protocol::keys::{Suite, signed_bytes, verify_ed25519};

    #[test]
    fn every_request_of_a_batch_carries_its_proof_and_no_other_passes() {
        let key = SigningKey::generate(Suite::Ed25519).unwrap();
        let draft = Draft {
            provider: AgencyId::new("police").unwrap(),
            dataset: DatasetId::new("ds:police/stops@1").unwrap(),
            clause: String::new(),
            purpose: "purp:pending-case".into(),
            case: String::new(),
            query_hash: [1; 32],
            kem_key_id: KeyId([2; 16]),
            not_after_ms: 9,
        };
        let public: [u8; 32] = key.public().ed25519.0.clone().try_into().unwrap();
        for size in [1, 2, 5, 256] {
            let requests: Vec<Request> = (1..=size).map(|n| draft.clone().at("city", Slot { session: 3, n })).collect();
            for (signed, request) in sign(&key, "city", &requests).unwrap().into_iter().zip(&requests) {
                assert_eq!(cbor::decode::<Request>(&signed.request).unwrap(), *request);
                let ok = |s: &SignedRequest, chain| {
                    let message = signed_bytes(Statement::Request, chain, &s.signed_root().unwrap());
                    verify_ed25519(&public, &message, &s.signature).is_ok()
                };
                assert!(ok(&signed, "city"));
                assert!(!ok(&signed, "town"), "another chain");
                let mut forged = signed.clone();
                *forged.request.0.last_mut().unwrap() ^= 1;
                assert!(!ok(&forged, "city"), "another request under the same signature");
            }
        }
    }
}
