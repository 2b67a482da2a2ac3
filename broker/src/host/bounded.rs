//! Overrides at the provider: the promise that goes with a release before its record, what an overdue review means, and
//! what a former process may have let out.

use super::HostError;
use super::releases::ReleaseStore;
use crate::ledger::writer::Writer;
use concordat_executor::decide::denied;
use concordat_executor::policies::ask::{ClauseRef, Grant};
use concordat_executor::policies::duty::Duty;
use concordat_executor::step::Mode;
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::codes;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, OpRef};
use concordat_protocol::keys::{KeyError, SigningKey, Statement};
use concordat_protocol::node::ReviewDue;
use concordat_protocol::ops::Op;
use concordat_protocol::session::{Denied, Promised, QueryReply, ReleasePromise, Released, Request};
use concordat_protocol::terms::{Effect, Evidence};
use serde_json::{Value, json};
use tracing::{info, warn};

/// How a permitted query is answered. `clock_ms` is ledger time now.
pub(super) fn mode(grant: &Grant, clock_ms: u64) -> Mode {
    match (grant.effect, &grant.evidence) {
        (Effect::BreakGlass, Evidence::Bounded { max_lag_ms }) => {
            Mode::Bounded { due_ms: clock_ms.saturating_add(*max_lag_ms) }
        }
        _ => Mode::Strict,
    }
}

/// What is promised of a release.
pub(super) struct Due<'a> {
    /// The request.
    pub request: &'a Request,
    /// Handle of the clause.
    pub handle: u64,
    /// The operation that will record it.
    pub op_hash: Hash,
    /// Ledger time now, milliseconds.
    pub clock_ms: u64,
    /// Ledger time by which it is recorded, milliseconds.
    pub due_ms: u64,
}

impl Due<'_> {
    /// The promise with its signature, as the store keeps it.
    pub(super) fn sign(&self, key: &SigningKey) -> Result<Vec<u8>, KeyError> {
        let r = self.request;
        let promise = cbor::encode(&ReleasePromise {
            chain: r.chain.clone(),
            provider: r.provider.clone(),
            session: r.session,
            n: r.n,
            handle: self.handle,
            request_hash: r.hash(),
            op_hash: self.op_hash,
            delivered_ms: self.clock_ms,
            max_lag_ms: self.due_ms.saturating_sub(self.clock_ms),
        });
        let signature = key.try_sign(Statement::Promise, &r.chain, &promise)?;
        Ok(cbor::encode(&(Bytes(promise), signature.ed25519)))
    }
}

/// The answer of a kept response and its kept promise.
pub(super) fn reply(released: Released, promise: &[u8]) -> Option<QueryReply> {
    let (promise, promise_signature): (Bytes, Bytes) = cbor::decode(promise).ok()?;
    Some(QueryReply::Promised { body: Promised { released, promise, promise_signature } })
}

/// The denial of an override under a clause whose use was not reviewed in time, if there is one.
pub(super) fn overdue(
    clause: &ClauseRef,
    (provider, consumer): (&AgencyId, &AgencyId),
    due: &[ReviewDue],
    tick_ms: u64,
) -> Option<Denied> {
    let late = |d: &&ReviewDue| d.agreement == clause.agreement && d.clause == clause.clause && d.due_ms <= tick_ms;
    let first = due.iter().filter(late).min_by_key(|d| d.due_ms)?;
    let name = format!("{}/{}", clause.agreement, clause.clause);
    let op = OpRef(first.reference);
    let since = jiff::Timestamp::from_millisecond(i64::try_from(first.due_ms).unwrap_or(i64::MAX));
    let since = since.map_or_else(|_| format!("{} ms", first.due_ms), |t| t.to_string());
    let detail = format!(
        "the review of {op} was due at {since}: nobody overrides under {name} until it is made; ask {} or {} for `break-glass review {op}`",
        consumer.org(),
        provider.org()
    );
    Some(Denied {
        clause: name,
        clause_text: clause.text.clone(),
        missing: format!("a review of {op}"),
        ..denied(codes::DUTY_OVERDUE, "review-overdue", detail)
    })
}

/// What the decision of an override keeps, for the notices of operators and for who explains it later.
pub(super) fn notice(grant: &Grant, request: &Request, consumer: &AgencyId, actor: &str, why: Option<&str>) -> Value {
    let told = |d: &Duty| if let Duty::Notify { to } = d { Some(to.org()) } else { None };
    let notify: Vec<String> = grant.duties.iter().filter_map(told).collect();
    let within =
        grant.duties.iter().find_map(|d| if let Duty::Review { within_ms } = d { Some(*within_ms) } else { None });
    warn!(
        agreement = %grant.clause.agreement, clause = grant.clause.clause, consumer = %consumer, session = request.session,
        n = request.n, notify = notify.join(" "), "break-glass: an override is answered, see GET /v1/notices"
    );
    json!({
        "consumer": consumer.org(), "actor": actor, "purpose": request.purpose, "case": request.case,
        "dataset": request.dataset, "justification": why, "notify": notify, "review_within_ms": within,
    })
}

/// Records what a former process may have let out: operations that are neither on the ledger nor on their way.
pub(super) async fn record_again(store: &ReleaseStore, writer: &Writer) -> Result<(), HostError> {
    let on_their_way = writer.reopened();
    let open = store.promised()?.into_iter().filter(|(kept, _)| !on_their_way.contains(&kept.op_hash));
    let ops: Vec<Op> = open.filter_map(|(_, op)| cbor::decode(&op).ok()).collect();
    if !ops.is_empty() {
        info!(
            operations = ops.len(),
            "releases under a promise are recorded now: they may have left before the restart"
        );
    }
    for op in ops {
        writer.enqueue(op).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use concordat_protocol::ids::AgreementId;

    #[test]
    fn an_overdue_review_is_named_with_whom_to_ask_and_only_for_its_clause() {
        let id = |t: &str| AgreementId::new(t).unwrap();
        let clause = |agreement: &str, clause: &str| ClauseRef {
            agreement: id(agreement),
            version: 1,
            clause: clause.into(),
            text: "In danger to life.".into(),
        };
        let (police, court) = (AgencyId::new("police").unwrap(), AgencyId::new("court").unwrap());
        let due = |reference, due_ms| ReviewDue { agreement: id("AGR-2026-1"), clause: "B1".into(), reference, due_ms };
        let all = [due(7, 2_000), due(5, 1_000), due(6, 500_000)];
        let said = overdue(&clause("AGR-2026-1", "B1"), (&police, &court), &all, 2_000).unwrap();
        assert_eq!(
            (said.code, said.reason.as_str(), said.missing.as_str()),
            (430, "review-overdue", "a review of op:5")
        );
        assert!(
            said.detail.contains("org:court") && said.detail.contains("break-glass review op:5"),
            "{}",
            said.detail
        );
        assert!(said.detail.contains("1970-01-01T00:00:01Z"), "{}", said.detail);
        assert_eq!(overdue(&clause("AGR-2026-1", "B1"), (&police, &court), &all, 999), None, "due is not overdue");
        assert_eq!(overdue(&clause("AGR-2026-1", "B2"), (&police, &court), &all, 2_000), None);
        assert_eq!(overdue(&clause("AGR-2026-2", "B1"), (&police, &court), &all, 2_000), None);
    }
}
