//! `GET /v1/operations/{op}/decision`: what this provider's executor decided an operation from, for its auditors.

use super::auth::{AUDITOR, OPERATOR};
use super::openapi::Doc;
use super::operations::{entry_json, op_ref};
use super::{AppState, Caller, Problem};
use crate::host::recorded::Decisions;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/v1/operations/{op}/decision", get(decision))
}

/// Who is shown a decision.
const WHO: &str = "operator or auditor";

pub(super) fn docs() -> Vec<Doc> {
    let what = "What this provider's executor decided an operation from, for deciding it again.";
    vec![Doc::new("get", "/v1/operations/{op}/decision", what, WHO).gives(
        200,
        "The record, and what the ledger commits to of it.",
        "operation:str op:str openings:str decision:obj entry:@Entry",
    )]
}

async fn decision(
    State(state): State<AppState>,
    caller: Caller,
    Path(op): Path<String>,
) -> Result<Json<Value>, Problem> {
    caller.require(&[OPERATOR, AUDITOR])?;
    let index = op_ref(&op)?;
    let unknown = || Problem::not_found("unknown-operation", format!("op:{index} is not in the log"));
    let entry = state.watch.entry(index).await?.ok_or_else(unknown)?;
    let (decisions, hash) = (Decisions::new(state.cfg.releases()), entry.op_hash);
    let found = tokio::task::spawn_blocking(move || decisions.of_op(&hash)).await;
    let failed = |e: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "release-store", e);
    let found = found.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
    let other =
        || Problem::not_found("unknown-decision", format!("op:{index} was not decided by this agency's executor"));
    let kept = found.ok_or_else(other)?;
    if kept.openings.is_empty() {
        let gone = "what it was decided from was erased with the person whom it concerned";
        return Err(Problem::new(StatusCode::GONE, "decision-erased", gone));
    }
    let decision: Value = serde_json::from_str(&kept.decision).unwrap_or_default();
    Ok(Json(json!({
        "operation": format!("op:{index}"),
        "op": hex::encode(&kept.op),
        "openings": hex::encode(&kept.openings),
        "decision": decision,
        "entry": entry_json(index, &entry),
    })))
}
