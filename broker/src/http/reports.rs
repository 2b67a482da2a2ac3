//! `GET /v1/agreements/{id}/report`: what happened under an agreement in a span of time, counted and proven by this node.

use super::auth::{AUDITOR, OPERATOR};
use super::body::Params;
use super::openapi::Doc;
use super::{AppState, Caller, Problem, Side};
use crate::evidence::Shelf;
use crate::host::recorded::{Decisions, Deliveries};
use crate::host::subjects::listing::Listing;
use crate::ledger::node_client::NodeClient;
use crate::report::{ReportError, Sources, Span, report};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use concordat_protocol::ids::AgreementId;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/v1/agreements/{id}/report", get(of_agreement))
}

pub(super) fn docs() -> Vec<Doc> {
    let what = "What happened under an agreement: counts, operations, and a proof of each.";
    vec![Doc::new("get", "/v1/agreements/{id}/report", what, "operator, auditor").query::<Asked>().gives(
        200,
        "The report.",
        "agreement:str from_ms:int to_ms:int counted:int clauses:obj verdicts:obj reasons:obj purposes:obj cases:int \
             rows:int withheld:int feeds:obj? operations:[obj] proof:obj",
    )]
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// First ledger time, RFC 3339.
    from: String,
    /// First ledger time after it, RFC 3339.
    to: String,
}

fn ms(name: &str, text: &str) -> Result<u64, Problem> {
    let time = text.parse::<jiff::Timestamp>().ok().and_then(|t| u64::try_from(t.as_millisecond()).ok());
    time.ok_or_else(|| Problem::bad_request(format!("{name}: a time like 2026-01-31T00:00:00Z")))
}

async fn of_agreement(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Params(asked): Params<Asked>,
) -> Result<Json<Value>, Problem> {
    caller.require(&[OPERATOR, AUDITOR])?;
    let agreement = AgreementId::new(id).map_err(|e| Problem::bad_request(e.to_string()))?;
    let span = Span { from_ms: ms("from", &asked.from)?, to_ms: ms("to", &asked.to)? };
    if span.from_ms >= span.to_ms {
        return Err(Problem::bad_request("to: must be after from"));
    }
    let known = state.node.agreements().await?;
    if !known.iter().any(|v| v.agreement == agreement) {
        return Err(Problem::not_found("unknown-agreement", format!("{agreement} is not on the ledger")));
    }
    // A connection of its own: a long report must not hold up queries.
    let node = NodeClient::new(state.cfg.node_socket());
    let proofs = Listing::new(&state.cfg, node, state.rpc.clone(), Shelf::new(state.store.clone()));
    let decisions = Decisions::new(state.cfg.releases());
    let deliveries = Deliveries::new(state.cfg.path("executor/feeds.sqlite"));
    let (records, agency) = (state.gateway.records().clone(), state.cfg.agency.clone());
    let sources = Sources { decisions, deliveries, records, proofs, agreements: known, agency };
    Ok(Json(report(&sources, &agreement, span).await?))
}

impl From<ReportError> for Problem {
    fn from(e: ReportError) -> Self {
        match e {
            ReportError::Store(e) => e.into(),
            ReportError::TooMany => Self::new(StatusCode::UNPROCESSABLE_ENTITY, e.code(), e.to_string()),
            other => Self::new(StatusCode::SERVICE_UNAVAILABLE, other.code(), other.to_string()).on(Side::Ledger),
        }
    }
}
