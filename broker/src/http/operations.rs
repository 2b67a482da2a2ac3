//! `GET /v1/operations[/{op}[/receipt]]`: the ledger's log, and what this agency knows of its entries.
//! `POST /v1/operations/{op}/dispute`: this agency did not ask for what the operation says.

use super::auth::OPERATOR;
use super::body::{self, Body, Params};
use super::openapi::{Doc, PEOPLE};
use super::role_maps::map_json;
use super::{AppState, Caller, Problem};
use crate::gateway::records::QueryRecord;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use concordat_protocol::codes;
use concordat_protocol::ids::OpRef;
use concordat_protocol::node::role_map_at;
use concordat_protocol::ops::LogEntry;
use concordat_protocol::receipt;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

/// Most entries of one page.
const PAGE_MAX: u64 = 1_000;
/// Longest wait for a final receipt, seconds.
const WAIT_MAX: u64 = 120;
/// Longest reason of a dispute, bytes.
const REASON_MAX: usize = 2_000;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/operations", get(list))
        .route("/v1/operations/{op}", get(show))
        .route("/v1/operations/{op}/receipt", get(receipt_of))
        .route("/v1/operations/{op}/dispute", post(dispute))
}

pub(super) fn docs() -> Vec<Doc> {
    let receipt = "/v1/operations/{op}/receipt";
    vec![
        Doc::new("get", "/v1/operations", "The ledger's log, newest first, or upwards from an index.", PEOPLE)
            .query::<Page>()
            .gives(200, "A page.", "operations:[@Entry] log_size:int next_from:int?"),
        Doc::new("get", "/v1/operations/{op}", "One entry, and what this agency knows of it.", PEOPLE).gives(
            200,
            "The entry.",
            "operation:str height:int verdict:str request:@Request? role_map:obj? review:obj? override:obj? disputed:obj? checkpoint:obj?",
        ),
        Doc::new("get", receipt, "The receipt of an operation, provisional or final.", PEOPLE)
            .query::<Wait>()
            .header("Accept", "application/json for reading")
            .gives_bytes(200, "The receipt.", "application/cbor")
            .gives(200, "The receipt.", ""),
        Doc::new("post", "/v1/operations/{op}/dispute", "This agency did not make the request it names.", OPERATOR)
            .takes::<DisputeBody>()
            .gives(200, "The dispute was filed.", "disputed:str operation:str? by:any"),
    ]
}

/// A log entry as JSON.
pub(super) fn entry_json(index: u64, e: &LogEntry) -> Value {
    json!({
        "operation": OpRef(index).to_string(),
        "height": e.height,
        "tick_ms": e.tick_ms,
        "time": jiff::Timestamp::from_millisecond(e.tick_ms as i64).map(|t| t.to_string()).ok(),
        "kind": if e.writer.starts_with("act:") { "act" } else { "operation" },
        "writer": e.writer,
        "incarnation": e.incarnation,
        "seq": e.seq,
        "op_hash": hex::encode(e.op_hash),
        "verdict": e.verdict.word(),
        "code": e.code,
        "code_text": codes::text(e.code),
    })
}

/// What this agency's store knows of a query. Purpose and case stay inside the agency.
pub(super) fn record_json(r: &QueryRecord) -> Value {
    json!({
        "request_id": r.request_id,
        "asked_by": r.caller,
        "asked_at_ms": r.at_ms,
        "provider": r.provider,
        "dataset": r.dataset,
        "purpose": r.purpose,
        "case": r.case_ref,
        "session": r.session,
        "n": r.n,
        "outcome": r.outcome,
        "agreement": r.agreement,
        "clause": r.clause,
        "rows": r.rows,
        "why": r.problem.as_deref().and_then(|p| serde_json::from_str::<Value>(p).ok()),
        "operation": r.op.map(|op| OpRef(op).to_string()),
    })
}

/// Others' queries are for operators; a clerk sees the own ones.
pub(super) fn may_see(caller: &Caller, r: &QueryRecord) -> bool {
    // Nothing is left of an erased one but that it was.
    caller.name == r.caller || r.outcome == crate::gateway::erasures::ERASED || caller.has(super::auth::OPERATOR)
}

pub(super) fn op_ref(text: &str) -> Result<u64, Problem> {
    let op: OpRef = text.parse().map_err(|e| Problem::bad_request(format!("{e}")))?;
    Ok(op.0)
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Page {
    from: Option<u64>,
    limit: Option<u64>,
}

async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Params(page): Params<Page>,
) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    let count = page.limit.unwrap_or(50).clamp(1, PAGE_MAX);
    let size = state.node.head().await?.log_size;
    let (from, newest_first) = match page.from {
        Some(from) => (from, false),
        None => (size.saturating_sub(count), true),
    };
    let entries = state.node.log(from, count).await?;
    let mut list: Vec<Value> = entries.iter().enumerate().map(|(i, e)| entry_json(from + i as u64, e)).collect();
    if newest_first {
        list.reverse();
    }
    let next = from + entries.len() as u64;
    let next = (!newest_first && next < size).then_some(next);
    Ok(Json(json!({"operations": list, "log_size": size, "next_from": next})))
}

async fn show(State(state): State<AppState>, caller: Caller, Path(op): Path<String>) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    let index = op_ref(&op)?;
    let unknown = || Problem::not_found("unknown-operation", format!("op:{index} is not in the log"));
    let entry = state.watch.entry(index).await?.ok_or_else(unknown)?;
    let mut out = entry_json(index, &entry);
    let record = state.gateway.records().by_op(index).await?;
    out["role_map"] = match record.as_ref().filter(|r| r.caller.starts_with("oidc:")) {
        // This agency gave the roles: by the map that it had recorded last.
        Some(_) => role_map_at(&state.watch.role_maps(&state.cfg.agency).await?, index).map(map_json).into(),
        None => Value::Null,
    };
    out["request"] = record.filter(|r| may_see(&caller, r)).map_or(Value::Null, |r| record_json(&r));
    out["review"] = super::overrides::review_of(&state, &caller, index).await?;
    out["override"] = super::overrides::notice_of(&state, &caller, index).await?;
    out["disputed"] = disputed(&state, &caller, index).await?;
    out["checkpoint"] = state.receipts.covering(index).await?.map_or(Value::Null, |c| {
        json!({
            "height": c.view.checkpoint.height,
            "tick_ms": c.view.checkpoint.tick_ms,
            "log_size": c.view.checkpoint.log_size,
            "cosigners": c.cosigners().collect::<Vec<_>>(),
            "final": c.is_final,
        })
    });
    Ok(Json(out))
}

/// Who disputes an operation on the ledger; the reason where it is this agency's own. Null: nobody.
async fn disputed(state: &AppState, caller: &Caller, index: u64) -> Result<Value, Problem> {
    let Some(found) = state.disputes.on_ledger(index).await? else { return Ok(Value::Null) };
    let own = state.disputes.kept(index).await?.filter(|_| caller.has(OPERATOR));
    Ok(json!({
        "agency": found.agency,
        "tick_ms": found.tick_ms,
        "reason_hash": hex::encode(found.reason),
        "reason": own.as_ref().map(|d| &d.reason),
        "salt": own.as_ref().map(|d| hex::encode(d.salt)),
        "operation": own.and_then(|d| d.op).filter(|op| *op > 0).map(|op| OpRef(op).to_string()),
    }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DisputeBody {
    reason: String,
}

async fn dispute(
    State(state): State<AppState>,
    caller: Caller,
    Path(op): Path<String>,
    Body(bytes): Body,
) -> Result<Json<Value>, Problem> {
    caller.require(&[OPERATOR])?;
    let index = op_ref(&op)?;
    let asked: DisputeBody = body::json(&bytes)?;
    if asked.reason.trim().is_empty() || asked.reason.len() > REASON_MAX {
        return Err(Problem::bad_request(format!("reason: 1 to {REASON_MAX} bytes; it stays in this agency")));
    }
    let unknown = || Problem::not_found("unknown-operation", format!("op:{index} is not in the log"));
    state.watch.entry(index).await?.ok_or_else(unknown)?;
    let filed = state.disputes.dispute(index, asked.reason, caller.name.clone()).await?;
    Ok(Json(json!({
        "disputed": OpRef(index).to_string(),
        "operation": filed.op.filter(|op| *op > 0).map(|op| OpRef(op).to_string()),
        "by": filed.by,
    })))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Wait {
    /// Seconds to wait until the receipt is final.
    wait: Option<u64>,
}

async fn receipt_of(
    State(state): State<AppState>,
    caller: Caller,
    Path(op): Path<String>,
    Params(asked): Params<Wait>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.require_person()?;
    let index = op_ref(&op)?;
    // The request's purpose and case stand in the receipt.
    let record = state.gateway.records().by_op(index).await?;
    if record.is_some_and(|r| !may_see(&caller, &r)) {
        caller.require(&[super::auth::OPERATOR])?;
    }
    let made = match asked.wait.map(|s| Duration::from_secs(s.min(WAIT_MAX))) {
        Some(within) => state.receipts.wait_final(index, within).await?,
        None => state.receipts.receipt(index).await?,
    };
    if body::header(&headers, "accept").is_some_and(|a| a.contains("application/json")) {
        return Ok(Json(receipt::to_json(&made)).into_response());
    }
    let bytes = made.to_bytes().map_err(crate::receipts::ReceiptsError::from)?;
    let name = format!("attachment; filename=\"op-{index}.receipt\"");
    let headers = [(header::CONTENT_TYPE, "application/cbor".to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, bytes).into_response())
}
