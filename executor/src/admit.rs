//! Admission: is this call really from the session's consumer, for this provider, and about what it says?

use crate::limits::KEPT_SIGNATURES;
use crate::step::Call;
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::{Statement, signed_bytes, verify_ed25519};
use concordat_protocol::limits::REQUESTS_PER_SIGNATURE;
use concordat_protocol::node::SessionView;
use concordat_protocol::session::{QueryCall, Request};
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use thiserror::Error;

/// Why a call is not admitted. None of these reaches the ledger: nobody is known to have asked.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum AdmitError {
    /// The bytes are not a request.
    #[error("request: {0}")]
    Malformed(String),
    /// Another chain.
    #[error("request.chain: signed for \"{0}\", this is another chain")]
    Chain(String),
    /// Another provider.
    #[error("request.provider: asked of {0}, not of this agency")]
    Provider(String),
    /// No such session between the two.
    #[error("request.session: {0} is not open between this consumer and this provider: open one")]
    Session(u64),
    /// The signature is not the session key's.
    #[error("request.signature: it is not the session key's over this request")]
    Signature,
    /// The query document is not the one that was signed.
    #[error("query: its SHA-256 is not the request's query_hash")]
    QueryHash,
}

impl AdmitError {
    /// Code of the registry.
    pub fn code(&self) -> u16 {
        match self {
            Self::Malformed(_) => codes::NOT_CANONICAL,
            Self::Chain(_) => codes::WRONG_CHAIN,
            Self::Provider(_) => codes::BAD_VALUE,
            Self::Session(_) => codes::SESSION_UNKNOWN,
            Self::Signature => codes::BAD_SIGNATURE,
            Self::QueryHash => codes::BAD_VALUE,
        }
    }
}

/// Reads the request of a call without trusting it, to learn which session to look up.
pub fn read_request(call: &QueryCall) -> Result<Request, AdmitError> {
    cbor::decode(&call.signed.request).map_err(|e| AdmitError::Malformed(e.to_string()))
}

/// Signatures over requests that were found good. One covers many requests, each of which comes as a call of its own.
#[derive(Debug, Default)]
pub struct Signatures(Mutex<VecDeque<Hash>>);

impl Signatures {
    /// Whether this is the key's signature of the message; looked up, or verified and kept. A bad one is never kept.
    fn good(&self, key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        let name = sha256(&[key, signature, message]);
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&name) {
            return true;
        }
        let good = verify_ed25519(key, message, signature).is_ok();
        if good {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.push_front(name);
            known.truncate(KEPT_SIGNATURES);
        }
        good
    }
}

/// Verifies a call against the session as the ledger has it.
pub fn verify_call(
    call: &QueryCall,
    request: Request,
    chain: &str,
    provider: &AgencyId,
    session: &SessionView,
    signatures: &Signatures,
) -> Result<Call, AdmitError> {
    if request.chain != chain {
        return Err(AdmitError::Chain(request.chain));
    }
    if request.provider != *provider || request.dataset.owner() != *provider {
        return Err(AdmitError::Provider(request.provider.to_string()));
    }
    if session.session != request.session || session.provider != *provider {
        return Err(AdmitError::Session(request.session));
    }
    if call.signed.size > REQUESTS_PER_SIGNATURE as u64 {
        return Err(AdmitError::Malformed(format!("one signature covers at most {REQUESTS_PER_SIGNATURE} requests")));
    }
    let root = call.signed.signed_root().map_err(|e| AdmitError::Malformed(e.to_string()))?;
    if !signatures.good(&session.key, &signed_bytes(Statement::Request, chain, &root), &call.signed.signature) {
        return Err(AdmitError::Signature);
    }
    if sha256(&[&call.query]) != request.query_hash {
        return Err(AdmitError::QueryHash);
    }
    Ok(Call { request_hash: request.hash(), request, session_expires_ms: session.expires_ms })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use concordat_protocol::ids::DatasetId;
    use concordat_protocol::keys::{KeyId, SigningKey, Suite};
    use concordat_protocol::session::SignedRequest;

    fn police() -> AgencyId {
        AgencyId::new("police").unwrap()
    }

    fn signed(key: &SigningKey) -> (QueryCall, SessionView) {
        let query = br#"{"dataset":"ds:police/stops@1"}"#.to_vec();
        let request = Request {
            chain: "c".into(),
            session: 4,
            n: 1,
            provider: police(),
            dataset: DatasetId::new("ds:police/stops@1").unwrap(),
            clause: String::new(),
            purpose: "purp:pending-case".into(),
            case: String::new(),
            query_hash: sha256(&[&query]),
            kem_key_id: KeyId([0; 16]),
            not_after_ms: 10,
        };
        let mut s = SignedRequest {
            request: cbor::encode(&request).into(),
            index: 0,
            size: 1,
            path: vec![],
            signature: [0; 64],
        };
        s.signature = key.sign(Statement::Request, "c", &s.signed_root().unwrap()).ed25519.0.try_into().unwrap();
        let view = SessionView {
            session: 4,
            consumer: AgencyId::new("court").unwrap(),
            provider: police(),
            key: key.public().ed25519.0.clone().try_into().unwrap(),
            expires_ms: 100,
            newest_n: 0,
        };
        (QueryCall { signed: s, query: query.into(), request_id: "r".into() }, view)
    }

    fn check(call: &QueryCall, view: &SessionView) -> Result<Call, AdmitError> {
        verify_call(call, read_request(call)?, "c", &police(), view, &Signatures::default())
    }

    #[test]
    fn a_signed_call_is_admitted_and_every_change_refused() {
        let key = SigningKey::generate(Suite::Ed25519).unwrap();
        let (call, view) = signed(&key);
        assert!(check(&call, &view).is_ok());
        let mut other_query = call.clone();
        other_query.query.0[2] ^= 1;
        assert_eq!(check(&other_query, &view).err(), Some(AdmitError::QueryHash));
        for i in 0..call.signed.request.len() {
            let mut forged = call.clone();
            forged.signed.request.0[i] ^= 1;
            assert!(check(&forged, &view).is_err(), "byte {i}");
        }
        let mut forged = call.clone();
        forged.signed.signature[3] ^= 1;
        assert_eq!(check(&forged, &view).err(), Some(AdmitError::Signature));
        let (_, other_view) = signed(&SigningKey::generate(Suite::Ed25519).unwrap());
        assert_eq!(check(&call, &other_view).err(), Some(AdmitError::Signature));
        let elsewhere = SessionView { provider: AgencyId::new("grid").unwrap(), ..view.clone() };
        assert_eq!(check(&call, &elsewhere).err(), Some(AdmitError::Session(4)));
        assert!(matches!(
            verify_call(&call, read_request(&call).unwrap(), "d", &police(), &view, &Signatures::default()),
            Err(AdmitError::Chain(_))
        ));
    }

    #[test]
    fn a_signature_that_was_good_once_is_good_for_nothing_else() {
        let key = SigningKey::generate(Suite::Ed25519).unwrap();
        let (call, view) = signed(&key);
        let known = Signatures::default();
        let check = |call: &QueryCall, view: &SessionView| {
            verify_call(call, read_request(call)?, "c", &police(), view, &known).map(|_| ())
        };
        assert_eq!((check(&call, &view), check(&call, &view)), (Ok(()), Ok(())));
        assert_eq!(known.0.lock().unwrap().len(), 1, "the second time it was looked up");
        let mut other = call.clone();
        other.signed.request = cbor::encode(&Request { n: 2, ..read_request(&call).unwrap() }).into();
        assert_eq!(check(&other, &view), Err(AdmitError::Signature), "another request");
        let (_, stranger) = signed(&SigningKey::generate(Suite::Ed25519).unwrap());
        assert_eq!(check(&call, &stranger), Err(AdmitError::Signature), "another key");
        assert_eq!(known.0.lock().unwrap().len(), 1, "a bad one is not kept");
    }
}
