//! Complaints: a promise that is due and not on the ledger, or two promises that exclude each other, are shown to it, and
//! bounded evidence of the agreement ends until both sides resume it (PROTOCOL 10).

use crate::gateway::Gateway;
use crate::gateway::watch::LedgerWatch;
use crate::ledger::LedgerError;
use concordat_protocol::acts::ActBody;
use concordat_protocol::cbor::Bytes;
use concordat_protocol::codes;
use concordat_protocol::terms::Status;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

/// Complaints that may wait. A full channel loses none for good: the next delivery that is due complains again.
pub const QUEUE: usize = 64;
/// How long to wait after the ledger did not take one.
const RETRY: Duration = Duration::from_secs(5);

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// `AGR-2026-0143`
    pub agreement: String,
    /// Canonical promise, as it was signed.
    pub promise: Bytes,
    /// Its signature, 64 bytes.
    pub signature: Bytes,
    /// An earlier promise that it excludes, with its signature.
    pub first: Option<(Bytes, Bytes)>,
}

/// Files complaints one after another, for as long as somebody can complain.
pub async fn file(mut complaints: mpsc::Receiver<Complaint>, gateway: Gateway, watch: LedgerWatch) {
    while let Some(complaint) = complaints.recv().await {
        while !settled(&complaint, &gateway, &watch).await {
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Whether nothing is left to do about it.
async fn settled(complaint: &Complaint, gateway: &Gateway, watch: &LedgerWatch) -> bool {
    let agreement = complaint.agreement.as_str();
    match watch.agreements().await {
        Ok(views) => {
            let mut standing = views.iter().filter(|v| {
                v.agreement.as_str() == agreement && matches!(v.status, Status::Active | Status::Suspended)
            });
            // Two promises for one delivery are evidence of their own.
            if complaint.first.is_none() && standing.all(|v| v.bounded_suspended != 0) {
                return true;
            }
        }
        Err(e) => {
            warn!(agreement, error = %e, "a complaint waits for the ledger");
            return false;
        }
    }
    let (promise, signature) = (complaint.promise.clone(), complaint.signature.clone());
    let body = match complaint.first.clone() {
        None => ActBody::Complaint { promise, signature },
        Some((first, first_signature)) => {
            ActBody::Equivocation { first, first_signature, second: promise, second_signature: signature }
        }
    };
    match gateway.desk().submit(body).await {
        Ok((index, _)) => {
            error!(agreement, op = index, "complaint filed: bounded evidence is suspended until both sides resume it");
            true
        }
        Err(LedgerError::Refused { code: codes::PROMISE_KEPT, .. }) => {
            info!(agreement, "the promise was anchored late, before the complaint");
            true
        }
        Err(LedgerError::Refused { code: codes::PROMISE_NOT_DUE, .. }) => false,
        Err(LedgerError::Refused { code: codes::REF_DONE, .. }) => true,
        Err(e @ LedgerError::Refused { .. }) => {
            error!(agreement, error = %e, "the ledger refused a complaint");
            true
        }
        Err(e) => {
            warn!(agreement, error = %e, "a complaint waits for the ledger");
            false
        }
    }
}
