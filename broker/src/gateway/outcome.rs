//! What becomes of a call: checked and handed on, denied, or failed. Each is kept before the application hears of it.

use super::answer::{Answer, Answered};
use super::check::{self, Checked, Expected, ProofError};
use super::error::GatewayError;
use super::promised::check_promised;
use super::promises::OpenPromise;
use super::records::{KeptAnswer, QueryRecord};
use super::writes::may_be_done;
use super::{Ask, Call, Inner};
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::limits::TICKET_CHECK_MS;
use concordat_protocol::ops::Op;
use concordat_protocol::seal::SealReceiver;
use concordat_protocol::session::{Content, Denied, Promised, Released};
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Sessions whose opened encapsulation is kept.
const RECEIVERS_KEPT: usize = 512;

impl Inner {
    /// Checks a response; what is handed on was proven, and its record is durable.
    pub(super) async fn released(
        &self,
        ask: &Ask,
        call: &Call,
        r: Released,
        sent: Instant,
        at_ms: u64,
    ) -> Result<Answered, GatewayError> {
        let since = Instant::now();
        let (checked, content) = self.prove(ask, call, &r).await?;
        let answer = Answer {
            index: r.ticket.log_index,
            height: r.ticket.height,
            agreement: checked.agreement,
            clause: checked.clause,
            released_after_ms: sent.elapsed().as_millis() as u64,
            request_id: ask.request_id.clone(),
            content,
        };
        let body = answer.body().map_err(|e| self.invalid(call, e))?;
        self.time("verify", since);
        if matches!(checked.op, Op::BreakGlass { .. }) {
            self.metrics.break_glass.inc();
        }
        let kept = Released { sealed: cbor::Bytes::default(), ..r };
        let record = QueryRecord {
            outcome: "released".into(),
            op: Some(answer.index),
            height: Some(answer.height),
            agreement: answer.agreement,
            clause: answer.clause,
            rows: Some(answer.content.rows.len() as u64),
            released: Some(cbor::encode(&kept)),
            ..record(ask, call, at_ms)
        };
        let again = ask.idempotency.clone().map(|k| (k, KeptAnswer { status: 200, body: body.clone() }));
        let since = Instant::now();
        self.records.keep(record, again).await?;
        self.time("store", since);
        self.metrics.decision("query", "permit", "permitted");
        info!(request_id = %ask.request_id, op = answer.index, height = answer.height, "released");
        Ok(Answered { body, replayed: false })
    }

    /// Checks a response that came before its record; rows are handed on, and the record is waited for.
    pub(super) async fn promised(
        &self,
        ask: &Ask,
        call: &Call,
        (p, from_index): (Promised, u64),
        sent: Instant,
        at_ms: u64,
    ) -> Result<Answered, GatewayError> {
        let now = self.watch.fresh().map_err(GatewayError::StaleLedger)?;
        let now_ms = now.tick_ms.saturating_add(now.at.elapsed().as_millis() as u64);
        let (key, agreements) = (self.watch.key(p.released.release_key).await?, self.watch.agreements().await?);
        let expected = Expected {
            chain: &self.cfg.chain,
            consumer: &self.cfg.agency,
            request: &call.request,
            key: key.as_ref(),
            entry: None,
            agreements: &agreements,
        };
        let proven = check_promised(&expected, &p, now_ms).and_then(|(checked, said)| {
            check::overridden(&checked, ask.justification.as_deref())?;
            let receiver = self.receiver(call.request.session, &p.released)?;
            let content = check::open(&expected, &p.released, &checked, &receiver)?;
            Ok((checked, said, content))
        });
        let (checked, said, content) = proven.map_err(|e| self.invalid(call, e))?;
        let due_ms = said.delivered_ms.saturating_add(said.max_lag_ms);
        let answer = Answer {
            index: 0,
            height: 0,
            agreement: checked.agreement,
            clause: checked.clause,
            released_after_ms: sent.elapsed().as_millis() as u64,
            request_id: ask.request_id.clone(),
            content,
        };
        let body = answer.provisional_body(due_ms).map_err(|e| self.invalid(call, e))?;
        self.metrics.break_glass.inc();
        let kept = Released { sealed: cbor::Bytes::default(), ..p.released };
        let promise = OpenPromise {
            query: 0,
            place: (said.session, said.n),
            op_hash: said.op_hash,
            from_index,
            session_ends_ms: call.session_ends_ms,
            agreement: answer.agreement.clone(),
            due_ms,
            promise: p.promise.0,
            signature: p.promise_signature.0,
            released: cbor::encode(&kept),
            complained: false,
        };
        let record = QueryRecord {
            outcome: "provisional".into(),
            agreement: answer.agreement,
            clause: answer.clause,
            rows: Some(answer.content.rows.len() as u64),
            ..record(ask, call, at_ms)
        };
        let again = ask.idempotency.clone().map(|k| (k, KeptAnswer { status: 200, body: body.clone() }));
        self.records.keep_promised(record, promise, again).await?;
        self.metrics.decision("query", "permit", "promised");
        info!(request_id = %ask.request_id, due_ms, "released under a promise");
        Ok(Answered { body, replayed: false })
    }

    pub(super) fn invalid(&self, call: &Call, error: ProofError) -> GatewayError {
        self.metrics.proof_invalid.with_label_values(&[error.check]).inc();
        GatewayError::Proof { provider: call.request.provider.clone(), error }
    }

    /// Asks the own node for what the response names, and checks every part of it.
    async fn prove(&self, ask: &Ask, call: &Call, r: &Released) -> Result<(Checked, Content), GatewayError> {
        let reached = self.watch.reach(r.ticket.height, Duration::from_millis(TICKET_CHECK_MS)).await;
        if !reached {
            // A node that stands still proves nothing against the provider; one that goes on does.
            self.watch.fresh().map_err(GatewayError::StaleLedger)?;
        }
        let (key, entry) = (self.watch.key(r.release_key).await?, self.watch.entry(r.ticket.log_index).await?);
        let agreements = self.watch.agreements().await?;
        let expected = Expected {
            chain: &self.cfg.chain,
            consumer: &self.cfg.agency,
            request: &call.request,
            key: key.as_ref(),
            entry: entry.as_ref(),
            agreements: &agreements,
        };
        let proven = check::check(&expected, r).and_then(|checked| {
            check::overridden(&checked, ask.justification.as_deref())?;
            let receiver = self.receiver(call.request.session, r)?;
            let content = check::open(&expected, r, &checked, &receiver)?;
            Ok((checked, content))
        });
        proven.map_err(|e| self.invalid(call, e))
    }

    /// One encapsulation serves a whole session: opening it once saves most of a query's cost here.
    pub(super) fn receiver(&self, session: u64, r: &Released) -> Result<Arc<SealReceiver>, ProofError> {
        let key = (session, r.encapsulation.0.clone());
        let kept = self.receivers.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(receiver) = kept {
            return Ok(receiver);
        }
        let made = SealReceiver::new(&self.kem, &r.encapsulation, &self.cfg.chain, &format!("session/{session}"), 0);
        let receiver = Arc::new(made.map_err(|e| ProofError { check: "seal", sentence: e.to_string() })?);
        let mut all = self.receivers.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(key, receiver.clone());
        while all.len() > RECEIVERS_KEPT {
            all.pop_first();
        }
        Ok(receiver)
    }

    /// Keeps a denial and makes the error of it.
    pub(super) async fn denied(&self, ask: &Ask, call: &Call, denied: Denied, at_ms: u64) -> GatewayError {
        self.metrics.decision("query", "deny", &denied.reason);
        let provider = call.request.provider.clone();
        if matches!(denied.code, codes::SESSION_UNKNOWN | codes::SESSION_EXPIRED | codes::SESSION_WINDOW) {
            self.provider(&provider).give_up(call.request.session).await;
        }
        info!(request_id = %ask.request_id, code = denied.code, reason = %denied.reason, op = denied.operation, "denied");
        let record = QueryRecord {
            outcome: "denied".into(),
            op: denied.operation,
            clause: denied.clause.clone(),
            problem: Some(denied_json(&denied).to_string()),
            ..record(ask, call, at_ms)
        };
        let is_final = denied.operation.is_some() && denied.retry == 0;
        let kept = KeptAnswer { status: 403, body: cbor::encode(&denied) };
        let again = ask.idempotency.clone().filter(|_| is_final).map(|k| (k, kept));
        let id = match self.records.keep(record, again).await {
            Ok(id) => id,
            Err(e) => {
                warn!(request_id = %ask.request_id, error = %e, "the denial was not kept");
                0
            }
        };
        if let (false, false, Some(key)) = (is_final, may_be_done(ask, &denied), ask.idempotency.clone()) {
            // Nothing stands on the ledger, or the data was withheld for ever: the next attempt signs a new request.
            let _ = self.records.sending(key, None, 0).await;
        }
        GatewayError::Denied { provider, denied: Box::new(denied), id }
    }

    /// Keeps why a query failed.
    pub(super) async fn failed(&self, ask: &Ask, call: &Call, e: &GatewayError, at_ms: u64) {
        if matches!(e, GatewayError::Denied { .. }) {
            return;
        }
        warn!(request_id = %ask.request_id, code = e.code(), error = %e, "query failed");
        self.metrics.decision("query", "error", e.code());
        let problem = json!({"code": e.code(), "detail": e.to_string()}).to_string();
        let record = QueryRecord { outcome: "failed".into(), problem: Some(problem), ..record(ask, call, at_ms) };
        if let Err(e) = self.records.keep(record, None).await {
            warn!(request_id = %ask.request_id, error = %e, "the failure was not kept");
        }
    }
}

/// A denial as JSON, for the store and for `why`.
fn denied_json(d: &Denied) -> Value {
    json!({
        "code": d.code,
        "code_text": codes::text(d.code),
        "reason": d.reason,
        "detail": d.detail,
        "clause": d.clause,
        "clause_text": d.clause_text,
        "missing": d.missing,
        "clauses": d.clauses,
        "retry": d.retry != 0,
    })
}

pub(super) fn record(ask: &Ask, call: &Call, at_ms: u64) -> QueryRecord {
    QueryRecord {
        request_id: ask.request_id.clone(),
        caller: ask.caller.clone(),
        at_ms,
        provider: call.request.provider.to_string(),
        dataset: ask.dataset.to_string(),
        purpose: ask.purpose.clone(),
        case_ref: ask.case.clone(),
        session: call.request.session,
        n: call.request.n,
        session_ends_ms: call.session_ends_ms,
        signed: cbor::encode(&call.signed),
        ..QueryRecord::default()
    }
}
