//! Follows up promises: a record that is there is checked and kept, one that is not becomes a complaint.

use super::Gateway;
use super::promises::{OpenPromise, Settled};
use super::records::Records;
use super::watch::LedgerWatch;
use crate::evidence::{Disputes, EvidenceError};
use crate::feed::complaint::Complaint;
use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use crate::store::StoreError;
use concordat_protocol::cbor;
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::evidence::NamedOp;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::ops::LogEntry;
use concordat_protocol::session::Released;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

/// How long to wait for a block before looking anyway, and after an error.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after its time a record may still come before the ledger is told, milliseconds.
const GRACE_MS: u64 = 10_000;
/// How long a complaint may take before it is put in again.
const AGAIN: Duration = Duration::from_secs(30);
/// How long after the end of its session a record is still looked for, milliseconds: the ledger forgets the session then.
const LOOK_AFTER_MS: u64 = 3_600_000;

/// Why a look failed; it is repeated.
#[derive(Debug, Error)]
pub enum FollowUpError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The dispute.
    #[error(transparent)]
    Dispute(#[from] EvidenceError),
}

impl FollowUpError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ledger(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::Dispute(e) => e.code(),
        }
    }
}

/// What following up needs.
pub struct FollowUp {
    agency: AgencyId,
    records: Records,
    watch: LedgerWatch,
    node: NodeClient,
    disputes: Disputes,
    complaints: mpsc::Sender<Complaint>,
    /// Up to which log index each query's record was looked for.
    looked: BTreeMap<i64, u64>,
    /// When a complaint was put in.
    sent: BTreeMap<i64, Instant>,
}

impl FollowUp {
    /// Follows up the promises that a gateway keeps. `node` should be a connection of its own.
    pub fn new(
        agency: AgencyId,
        gateway: &Gateway,
        (watch, node): (LedgerWatch, NodeClient),
        disputes: Disputes,
        complaints: mpsc::Sender<Complaint>,
    ) -> Self {
        let records = gateway.records().clone();
        let (looked, sent) = (BTreeMap::new(), BTreeMap::new());
        Self { agency, records, watch, node, disputes, complaints, looked, sent }
    }

    /// Looks at every new block, for as long as the process lives.
    pub async fn run(mut self) {
        let mut seen = 0;
        loop {
            self.watch.reach(seen + 1, PATIENCE).await;
            seen = self.watch.now().map_or(seen, |n| n.height);
            if let Err(e) = self.look().await {
                warn!(code = e.code(), error = %e, "promised records are looked for later");
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }

    async fn look(&mut self) -> Result<(), FollowUpError> {
        let open = self.records.open_promises().await?;
        if open.is_empty() {
            (self.looked, self.sent) = (BTreeMap::new(), BTreeMap::new());
            return Ok(());
        }
        let begin = |p: &OpenPromise| self.looked.get(&p.query).copied().unwrap_or(p.from_index);
        let (end, found) = self.named(open.iter().map(begin).min().unwrap_or_default()).await?;
        let tick_ms = self.watch.now().map_or(0, |n| n.tick_ms);
        for p in open {
            match found.get(&p.place) {
                Some(op) => {
                    let Some(entry) = self.watch.entry(op.index).await? else { continue };
                    self.settle(&p, op, &entry).await?;
                }
                None => {
                    self.looked.insert(p.query, end);
                    self.missing(&p, tick_ms).await?;
                }
            }
        }
        Ok(())
    }

    /// Operations that name sessions of this agency, by place, and the first index that was not looked at.
    async fn named(&self, from: u64) -> Result<(u64, BTreeMap<(u64, u64), NamedOp>), FollowUpError> {
        let (mut at, mut found) = (from, BTreeMap::new());
        loop {
            let (end, ops) = self.node.named(&self.agency, at).await?;
            found.extend(ops.into_iter().filter(|o| o.n > 0).map(|o| ((o.session, o.n), o)));
            if end <= at {
                return Ok((at, found));
            }
            at = end;
        }
    }

    async fn settle(&self, p: &OpenPromise, op: &NamedOp, entry: &LogEntry) -> Result<(), FollowUpError> {
        let at = (op.index, entry.height);
        if op.op_hash != p.op_hash {
            error!(
                op = op.index,
                query = p.query,
                "another operation stands where a release was promised: it is disputed"
            );
            let reason = "the provider promised another operation for this request".to_owned();
            match self.disputes.dispute(op.index, reason.clone(), "broker".into()).await {
                Ok(_) | Err(EvidenceError::Ledger(LedgerError::Refused { .. })) => {}
                Err(e) => return Err(e.into()),
            }
            let problem = Some(json!({"code": "promise-broken", "detail": reason}).to_string());
            return Ok(self.records.promise_settled(p.query, Settled { at, released: None, problem }).await?);
        }
        let problem = (entry.verdict != Verdict::Accepted).then(|| {
            let code = entry.code;
            warn!(op = op.index, verdict = %entry.verdict, code, "the ledger did not accept the record of a release");
            json!({"code": code, "detail": format!("the ledger's verdict is {}: {}", entry.verdict, codes::text(code))})
                .to_string()
        });
        let released = cbor::decode::<Released>(&p.released).ok().map(|mut r| {
            (r.ticket.log_index, r.ticket.height) = at;
            cbor::encode(&r)
        });
        info!(op = op.index, query = p.query, "the promised record is on the ledger");
        Ok(self.records.promise_settled(p.query, Settled { at, released, problem }).await?)
    }

    async fn missing(&mut self, p: &OpenPromise, tick_ms: u64) -> Result<(), FollowUpError> {
        if tick_ms > p.session_ends_ms.saturating_add(LOOK_AFTER_MS) {
            let problem = json!({"code": "promise-broken", "detail": "its record never came"}).to_string();
            return Ok(self.records.promise_given_up(p.query, problem).await?);
        }
        if p.complained || tick_ms <= p.due_ms.saturating_add(GRACE_MS) {
            return Ok(());
        }
        let views = self.watch.agreements().await?;
        if views.iter().any(|v| v.agreement.as_str() == p.agreement && v.bounded_suspended != 0) {
            return Ok(self.records.complained(p.query).await?);
        }
        if self.sent.get(&p.query).is_none_or(|at| at.elapsed() > AGAIN) {
            error!(agreement = p.agreement, query = p.query, "a promised record did not come: a complaint is filed");
            let (promise, signature) = (p.promise.clone().into(), p.signature.clone().into());
            let complaint = Complaint { agreement: p.agreement.clone(), promise, signature, first: None };
            if self.complaints.try_send(complaint).is_ok() {
                self.sent.insert(p.query, Instant::now());
            }
        }
        Ok(())
    }
}
