//! Writes as the consumer's gateway sees them: intent and outcome are checked at the own node before the application hears
//! that the record was changed.

use super::answer::Answered;
use super::check::{self, Expected, ProofError};
use super::error::GatewayError;
use super::outcome::record;
use super::records::{KeptAnswer, QueryRecord};
use super::{Ask, Call, Inner};
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::ids::OpRef;
use concordat_protocol::limits::TICKET_CHECK_MS;
use concordat_protocol::session::{Content, Denied, Released, Written};
use serde_json::{Value, json};
use std::time::Duration;
use tracing::info;

/// Denials without an entry of their own, after which the intent may be on the ledger all the same.
const UNSETTLED: [&str; 9] = [
    "stale-ledger",
    "session-expired",
    "session-window",
    "replay",
    "withheld",
    "not-admitted",
    "repeat-over",
    "settled",
    "lost",
];

impl Ask {
    /// The action, where a write is asked for.
    pub fn write_action(&self) -> Option<&str> {
        self.query.get("write")?.get("action")?.as_str()
    }
}

/// Whether a write may be done, or on its way, although it was denied: then the same bytes are sent again under the same
/// Idempotency-Key, and never others.
pub(super) fn may_be_done(ask: &Ask, denied: &Denied) -> bool {
    ask.write_action().is_some() && denied.operation.is_none() && UNSETTLED.contains(&denied.reason.as_str())
}

/// Rows came where a write was asked for.
pub(super) fn no_answer_to_a_write() -> ProofError {
    ProofError { check: "reply", sentence: "rows are no answer to a write".into() }
}

impl Inner {
    /// Checks the answer to a write; what is handed on was proven, and its record is durable.
    pub(super) async fn written(
        &self,
        ask: &Ask,
        call: &Call,
        w: Written,
        at_ms: u64,
    ) -> Result<Answered, GatewayError> {
        let highest = w.intent.ticket.height.max(w.outcome_height);
        if !self.watch.reach(highest, Duration::from_millis(TICKET_CHECK_MS)).await {
            self.watch.fresh().map_err(GatewayError::StaleLedger)?;
        }
        let key = self.watch.key(w.intent.release_key).await?;
        let entry = self.watch.entry(w.intent.ticket.log_index).await?;
        let outcome = self.watch.entry(w.outcome_index).await?;
        let agreements = self.watch.agreements().await?;
        let expected = Expected {
            chain: &self.cfg.chain,
            consumer: &self.cfg.agency,
            request: &call.request,
            key: key.as_ref(),
            entry: entry.as_ref(),
            agreements: &agreements,
        };
        let proven = check::check_written(&expected, &w, outcome.as_ref()).and_then(|checked| {
            let receiver = self.receiver(call.request.session, &w.intent)?;
            let content = check::open(&expected, &w.intent, &checked, &receiver)?;
            let said = said(ask, &content)?;
            Ok((checked, content, said))
        });
        let (checked, content, mut answer) = proven.map_err(|e| self.invalid(call, e))?;
        let (op, outcome) = (OpRef(w.intent.ticket.log_index), OpRef(w.outcome_index));
        let more = json!({
            "operation": op.to_string(),
            "outcome": outcome.to_string(),
            "height": w.outcome_height,
            "agreement": checked.agreement,
            "clause": checked.clause,
            "request_id": ask.request_id,
            "receipt": format!("/v1/operations/{op}/receipt"),
            "content_secret": hex::encode(content.secret),
        });
        if let (Some(answer), Value::Object(more)) = (answer.as_object_mut(), more) {
            answer.extend(more);
        }
        let body = answer.to_string().into_bytes();
        let kept = Released { sealed: Bytes::default(), ..w.intent };
        let record = QueryRecord {
            outcome: "written".into(),
            op: Some(op.0),
            height: Some(kept.ticket.height),
            agreement: checked.agreement,
            clause: checked.clause,
            rows: Some(1),
            released: Some(cbor::encode(&kept)),
            problem: Some(json!({"action": ask.write_action(), "outcome": outcome.to_string()}).to_string()),
            ..record(ask, call, at_ms)
        };
        let again = ask.idempotency.clone().map(|k| (k, KeptAnswer { status: 200, body: body.clone() }));
        self.records.keep(record, again).await?;
        self.metrics.decision(ask.write_action().unwrap_or("write"), "permit", "permitted");
        info!(request_id = %ask.request_id, op = op.0, outcome = outcome.0, "written");
        Ok(Answered { body, replayed: false })
    }
}

/// What the provider says that it did, which has to be what was asked for.
fn said(ask: &Ask, content: &Content) -> Result<Value, ProofError> {
    let fail = |sentence: &str| ProofError { check: "content", sentence: sentence.to_owned() };
    let [row] = content.rows.as_slice() else { return Err(fail("a write is told in one row")) };
    let said: Value = serde_json::from_slice(row).map_err(|_| fail("what was done is no JSON"))?;
    let asked = ask.query.get("write").and_then(|w| w.get("key")).filter(|k| k.is_string());
    let same_key = asked.is_none_or(|k| said.get("key") == Some(k));
    if said.get("action").and_then(Value::as_str) != ask.write_action() || !same_key {
        return Err(fail("another write was done than was asked for"));
    }
    Ok(said)
}
