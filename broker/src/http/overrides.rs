//! `POST /v1/operations/{op}/review`, `GET /v1/reviews`, overrides (break-glass) and what is due of them.

use super::auth::{OPERATOR, pseudonym};
use super::body::{self, Body};
use super::openapi::Doc;
use super::operations::op_ref;
use super::{AppState, Caller, Problem, Side};
use crate::host::notices::Notices;
use crate::overrides::{Review, ReviewError, Reviewed, Reviews};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use concordat_executor::decide::{JUSTIFICATION_BYTES_MAX, fits_as_justification};
use concordat_protocol::ids::OpRef;
use concordat_protocol::node::ReviewDue;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/v1/operations/{op}/review", post(review)).route("/v1/reviews", get(due))
}

pub(super) fn docs() -> Vec<Doc> {
    vec![
        Doc::new("post", "/v1/operations/{op}/review", "Reviews an override; the text stays in this agency.", OPERATOR)
            .takes::<ReviewBody>()
            .gives(200, "The ledger has the review.", "reviewed:str operation:str? outcome:str text:str by:str"),
        Doc::new("get", "/v1/reviews", "Overrides of this agency's agreements that wait for a review.", OPERATOR)
            .gives(200, "The first to be due first.", "reviews:[obj]"),
    ]
}

pub(super) fn reviews_of(state: &AppState) -> Reviews {
    Reviews::new(state.cfg.agency.clone(), state.node.clone(), state.store.clone())
}

impl From<ReviewError> for Problem {
    fn from(e: ReviewError) -> Self {
        let (code, text) = (e.code(), e.to_string());
        match e {
            ReviewError::NotDue(_) => Self::new(StatusCode::CONFLICT, code, text)
                .next("`op show` says whether a review is due, and who made it"),
            ReviewError::Refused(number) => {
                let mut problem = Self::new(StatusCode::CONFLICT, code, text).on(Side::Ledger);
                problem.ledger_code = Some(number);
                problem
            }
            ReviewError::NoWriter | ReviewError::Timeout => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, code, text).on(Side::Ledger).retry(true)
            }
            ReviewError::Library(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, text),
            ReviewError::Ledger(e) => e.into(),
            ReviewError::Store(e) => e.into(),
        }
    }
}

fn kept_json(kept: &Reviewed) -> Value {
    json!({
        "reviewed": OpRef(kept.review.reference).to_string(),
        "operation": kept.op.map(|op| OpRef(op).to_string()),
        "outcome": kept.review.outcome,
        "text": kept.review.text,
        "by": kept.review.by,
    })
}

fn due_json(due: &ReviewDue, tick_ms: u64) -> Value {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(due.due_ms).unwrap_or(i64::MAX));
    json!({
        "operation": OpRef(due.reference).to_string(),
        "agreement": due.agreement,
        "clause": due.clause,
        "due_ms": due.due_ms,
        "due": time.map(|t| t.to_string()).ok(),
        "overdue": due.due_ms <= tick_ms,
    })
}

/// What is known here of the review of an operation: until when it is due, or what this agency said. Null: no override that
/// waits for a review, and none that this agency reviewed.
pub(super) async fn review_of(state: &AppState, caller: &Caller, index: u64) -> Result<Value, Problem> {
    let reviews = reviews_of(state);
    if let Some(kept) = reviews.kept(index).await?.filter(|k| k.op.is_some()) {
        let mut out = kept_json(&kept);
        if !caller.has(OPERATOR) {
            (out["text"], out["by"]) = (Value::Null, Value::Null);
        }
        return Ok(out);
    }
    let tick_ms = state.watch.now().map_or(0, |n| n.tick_ms);
    Ok(reviews.due_of(index).await?.map_or(Value::Null, |d| due_json(&d, tick_ms)))
}

/// The override as this provider answered it, for its operators.
pub(super) async fn notice_of(state: &AppState, caller: &Caller, index: u64) -> Result<Value, Problem> {
    if !caller.has(OPERATOR) {
        return Ok(Value::Null);
    }
    let notices = Notices::new(state.cfg.releases());
    let found = tokio::task::spawn_blocking(move || notices.of_op(index)).await;
    let found = found.ok().and_then(Result::ok).flatten();
    Ok(found.map_or(Value::Null, |n| n.to_json()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReviewBody {
    /// What the review found.
    text: String,
    /// `justified` (where nothing is said) or `unjustified`.
    outcome: Option<String>,
}

async fn review(
    State(state): State<AppState>,
    caller: Caller,
    Path(op): Path<String>,
    Body(bytes): Body,
) -> Result<Json<Value>, Problem> {
    caller.require(&[OPERATOR])?;
    let reference = op_ref(&op)?;
    let asked: ReviewBody = body::json(&bytes)?;
    if !fits_as_justification(&asked.text) {
        return Err(Problem::bad_request(format!(
            "text: 1 to {JUSTIFICATION_BYTES_MAX} bytes; it stays in this agency"
        )));
    }
    let outcome = asked.outcome.unwrap_or_else(|| "justified".into());
    if !["justified", "unjustified"].contains(&outcome.as_str()) {
        return Err(Problem::bad_request("outcome: justified or unjustified"));
    }
    let by = pseudonym(&state, &caller, &state.cfg.agency);
    let writer = state.writer.borrow().clone();
    let review = Review { reference, text: asked.text, outcome, by };
    Ok(Json(kept_json(&reviews_of(&state).review(review, writer).await?)))
}

async fn due(State(state): State<AppState>, caller: Caller) -> Result<Json<Value>, Problem> {
    caller.require(&[OPERATOR])?;
    let tick_ms = state.watch.now().map_or(0, |n| n.tick_ms);
    let list: Vec<Value> = reviews_of(&state).due().await?.iter().map(|d| due_json(d, tick_ms)).collect();
    Ok(Json(json!({"reviews": list})))
}
