//! Calls as they come in over the streams: who they come from, whether they are genuine.

#![allow(
    clippy::result_large_err,
    reason = "a denial is as usual an outcome as an answer, and it moves only a few times"
)]

use super::fetch::Fetcher;
use super::job::Job;
use crate::ledger::node_client::NodeClient;
use concordat_executor::admit::{AdmitError, Signatures, read_request, verify_call};
use concordat_executor::decide::denied;
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::node::SessionView;
use concordat_protocol::session::{Denied, QueryCall};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::debug;

/// Sessions already looked up; a session's parties, key and expiry never change.
pub struct Sessions {
    node: NodeClient,
    known: Mutex<BTreeMap<u64, Arc<SessionView>>>,
    signatures: Signatures,
}

impl Sessions {
    /// An empty cache over a node.
    pub fn new(node: NodeClient) -> Self {
        Self { node, known: Mutex::default(), signatures: Signatures::default() }
    }

    /// Forgets sessions that are over at `tick_ms`; returns those that are left.
    pub fn sweep(&self, tick_ms: u64) -> BTreeSet<u64> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, s| s.expires_ms > tick_ms);
        known.keys().copied().collect()
    }

    async fn get(&self, session: u64) -> Result<Option<Arc<SessionView>>, Denied> {
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&session) {
            return Ok(Some(known.clone()));
        }
        let stale = |e: crate::ledger::LedgerError| Denied { retry: 1, ..denied(0, "stale-ledger", e.to_string()) };
        let Some(view) = self.node.session(session).await.map_err(stale)? else { return Ok(None) };
        let view = Arc::new(view);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(session, view.clone());
        Ok(Some(view))
    }
}

fn refused(e: &AdmitError) -> Denied {
    denied(e.code(), "not-admitted", e.to_string())
}

/// Reads and verifies a call. `via` is the consumer's account as the streams' server put it into the subject.
pub async fn admit(
    payload: &[u8],
    via: &str,
    chain: &str,
    provider: &AgencyId,
    sessions: &Sessions,
    fetcher: &Fetcher,
) -> Result<(Job, String), Denied> {
    let call: QueryCall =
        cbor::decode(payload).map_err(|e| denied(codes::NOT_CANONICAL, "not-admitted", e.to_string()))?;
    let request = read_request(&call).map_err(|e| refused(&e))?;
    let session = sessions.get(request.session).await?.filter(|s| s.consumer.account() == via);
    let session = session.ok_or_else(|| refused(&AdmitError::Session(request.session)))?;
    let kem_id = request.kem_key_id;
    let verified = verify_call(&call, request, chain, provider, &session, &sessions.signatures);
    let verified = verified.map_err(|e| refused(&e))?;
    let stale = |e: crate::ledger::LedgerError| Denied { retry: 1, ..denied(0, "stale-ledger", e.to_string()) };
    let kem = fetcher.kem(kem_id, &session.consumer).await.map_err(stale)?;
    let kem = kem.ok_or_else(|| {
        denied(
            codes::UNKNOWN_KEY,
            "not-admitted",
            "request.kem_key_id: no such sealing key of the consumer is registered",
        )
    })?;
    debug!(request_id = call.request_id, consumer = %session.consumer, "call admitted");
    let job = Job {
        call: verified,
        consumer: session.consumer.clone(),
        query: call.query.0,
        kem,
        tick_ms: 0,
        height: 0,
        clock_ms: 0,
    };
    Ok((job, call.request_id))
}
