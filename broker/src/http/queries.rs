//! `POST /v1/queries`.

use super::auth::pseudonym;
use super::body::{self, Body};
use super::openapi::{Doc, PEOPLE};
use super::{AppState, Caller, Problem, RequestId};
use crate::gateway::records::IdempotencyKey;
use crate::gateway::{Answered, Ask, GatewayError};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use concordat_protocol::hash::sha256;
use concordat_protocol::ids::DatasetId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::time::Duration;
use utoipa::ToSchema;

/// Longest Idempotency-Key.
const KEY_CHARS_MAX: usize = 128;
/// How long a caller that prefers not to wait is kept waiting all the same, unless it says `wait=`.
const ASYNC_WAIT: Duration = Duration::from_millis(100);

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/v1/queries", post(query))
}

pub(super) fn docs() -> Vec<Doc> {
    vec![
        Doc::new("post", "/v1/queries", "Rows of a provider, under an agreement, recorded before they are released.", PEOPLE)
            .header("Idempotency-Key", "1 to 128 characters: the same key and body give the same rows and receipt")
            .header("Prefer", "respond-async, wait=SECONDS: 202 where it takes longer; the same request again fetches the answer")
            .takes::<QueryBody>()
            .gives(
                200,
                "The rows, after every proof was checked here.",
                "rows:[obj] count:int operation:str? height:int? agreement:str clause:str released_after_ms:int request_id:str \
                 receipt:str? content_secret:str provisional:obj? decision:str?",
            )
            .gives(202, "It is on its way: send the same request again.", "request_id:str status:str"),
    ]
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct QueryBody {
    dataset: String,
    #[serde(rename = "where")]
    filter: Option<Value>,
    select: Option<Value>,
    order: Option<Value>,
    limit: Option<Value>,
    /// Totals instead of rows: `by`, `sum`, `mean`, `min_group`.
    aggregate: Option<Value>,
    /// An override, where a break-glass clause allows it: why.
    #[schema(inline)]
    break_glass: Option<Override>,
    /// `version`: each row says which version of the record it is, as `@version`, so that it can be written.
    include: Option<Value>,
    purpose: String,
    #[serde(default)]
    case: String,
    #[serde(default)]
    clause: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Override {
    /// Why the caller overrides: recorded, opened to the provider, reviewed.
    #[serde(default)]
    justification: String,
}

fn unprocessable(detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-query", detail).next("correct the named member")
}

pub(super) fn short(name: &str, value: &str, max: usize) -> Result<(), Problem> {
    if value.len() <= max && !value.chars().any(char::is_control) {
        return Ok(());
    }
    Err(unprocessable(format!("{name}: at most {max} bytes without control characters")))
}

pub(super) fn idempotency_of(
    headers: &HeaderMap,
    caller: &Caller,
    body: &[u8],
) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > KEY_CHARS_MAX {
        return Err(Problem::bad_request(format!("Idempotency-Key: 1 to {KEY_CHARS_MAX} printable characters")));
    }
    Ok(Some(IdempotencyKey { caller: caller.name.clone(), key: key.to_owned(), body_hash: sha256(&[body]) }))
}

/// How long to wait for the answer where the caller prefers not to (RFC 7240). Its key is how it asks for the answer later.
fn prefers_async(headers: &HeaderMap, ask: &Ask) -> Result<Option<Duration>, Problem> {
    let values = headers.get_all("prefer").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split([',', ';']));
    let words: Vec<String> = values.map(|w| w.trim().to_lowercase()).collect();
    if !words.iter().any(|w| w == "respond-async") {
        return Ok(None);
    }
    if ask.idempotency.is_none() {
        return Err(Problem::bad_request(
            "Prefer: respond-async needs an Idempotency-Key, by which the answer is fetched",
        ));
    }
    let wait = words.iter().find_map(|w| w.strip_prefix("wait=")?.parse().ok());
    Ok(Some(wait.map_or(ASYNC_WAIT, Duration::from_secs)))
}

/// The answer, if it is there in time. If not, the query goes on without its caller.
async fn meanwhile(state: &AppState, ask: Ask, within: Duration) -> Option<Result<Answered, Problem>> {
    let gateway = state.gateway.clone();
    let running = tokio::spawn(async move { gateway.query(ask).await });
    match tokio::time::timeout(within, running).await {
        Ok(Ok(Err(GatewayError::InProgress))) | Err(_) => None,
        Ok(Ok(answered)) => Some(answered.map_err(Problem::from)),
        Ok(Err(e)) => Some(Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", e.to_string()))),
    }
}

/// 202: the same request again, with the same key, fetches the answer.
fn accepted(request_id: &str) -> Response {
    let headers = [("preference-applied", "respond-async"), (header::RETRY_AFTER.as_str(), "1")];
    (StatusCode::ACCEPTED, headers, Json(json!({"request_id": request_id, "status": "in-progress"}))).into_response()
}

/// A denial for want of a role says so where a stronger sign-in would bring one.
fn with_step_up(problem: Problem, caller: &Caller) -> Problem {
    match caller.after_step_up.iter().next() {
        Some((role, wanted)) if problem.reason == "role" => {
            let acr =
                if wanted.acr.is_empty() { String::new() } else { format!(" with acr {}", wanted.acr.join(" or ")) };
            let age = wanted.max_age_s.map_or_else(String::new, |s| format!(", not longer than {s} s ago"));
            problem.next(format!("{role} is a role of yours after a sign-in{acr}{age}: sign in again"))
        }
        _ => problem,
    }
}

async fn query(
    State(state): State<AppState>,
    caller: Caller,
    RequestId(request_id): RequestId,
    headers: HeaderMap,
    Body(bytes): Body,
) -> Result<Response, Problem> {
    caller.require_person()?;
    let idempotency = idempotency_of(&headers, &caller, &bytes)?;
    let q: QueryBody = body::json(&bytes)?;
    let dataset = DatasetId::new(q.dataset).map_err(|e| unprocessable(e.to_string()))?;
    if !q.purpose.starts_with("purp:") {
        return Err(unprocessable("purpose: write it as purp:<name>, as the agreement's clause does".into()));
    }
    short("purpose", &q.purpose, 128)?;
    short("case", &q.case, 128)?;
    short("clause", &q.clause, 64)?;
    let signed_in = caller.sign_in.as_ref().map(|s| json!({"level": s.level, "at_ms": s.at_ms}));
    let members = [
        ("where", q.filter),
        ("select", q.select),
        ("order", q.order),
        ("limit", q.limit),
        ("aggregate", q.aggregate),
        ("include", q.include),
        ("sign_in", signed_in),
        ("role_map", caller.role_map.as_ref().map(|sha256| json!(sha256))),
    ];
    let query: Map<String, Value> = members.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))).collect();
    let actor = pseudonym(&state, &caller, &dataset.owner());
    let ask = Ask {
        dataset,
        query,
        purpose: q.purpose,
        case: q.case,
        clause: q.clause,
        justification: q.break_glass.map(|b| b.justification),
        actor,
        roles: caller.agreement_roles(),
        caller: caller.name.clone(),
        request_id: request_id.clone(),
        idempotency,
    };
    let answered = match prefers_async(&headers, &ask)? {
        None => state.gateway.query(ask).await.map_err(Problem::from),
        Some(within) => match meanwhile(&state, ask, within).await {
            Some(answered) => answered,
            None => return Ok(accepted(&request_id)),
        },
    };
    let answered = answered.map_err(|e| with_step_up(e, &caller))?;
    let replayed = if answered.replayed { "true" } else { "false" };
    let headers = [(header::CONTENT_TYPE.as_str(), "application/json"), ("idempotency-replayed", replayed)];
    Ok((headers, answered.body).into_response())
}
