//! `POST /v1/queries`.

use super::auth::pseudonym;
use super::body::{self, Body};
use super::openapi::{Doc, PEOPLE};
use super::{AppState, Caller, Problem, RequestId};
use crate::gateway::Ask;
use crate::gateway::records::IdempotencyKey;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use concordat_protocol::hash::sha256;
use concordat_protocol::ids::DatasetId;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Longest Idempotency-Key.
const KEY_CHARS_MAX: usize = 128;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/v1/queries", post(query))
}

pub(super) fn docs() -> Vec<Doc> {
    vec![
        Doc::new("post", "/v1/queries", "Rows of a provider, under an agreement, recorded before they are released.", PEOPLE)
            .header("Idempotency-Key", "1 to 128 characters: the same key and body give the same rows and receipt")
            .takes::<QueryBody>()
            .gives(
                200,
                "The rows, after every proof was checked here.",
                "rows:[obj] count:int operation:str height:int agreement:str clause:str released_after_ms:int request_id:str \
                 receipt:str content_secret:str",
            ),
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
    purpose: String,
    #[serde(default)]
    case: String,
    #[serde(default)]
    clause: String,
}

fn unprocessable(detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-query", detail).next("correct the named member")
}

fn short(name: &str, value: &str, max: usize) -> Result<(), Problem> {
    if value.len() <= max && !value.chars().any(char::is_control) {
        return Ok(());
    }
    Err(unprocessable(format!("{name}: at most {max} bytes without control characters")))
}

fn idempotency(headers: &HeaderMap, caller: &Caller, body: &[u8]) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > KEY_CHARS_MAX {
        return Err(Problem::bad_request(format!("Idempotency-Key: 1 to {KEY_CHARS_MAX} printable characters")));
    }
    Ok(Some(IdempotencyKey { caller: caller.name.clone(), key: key.to_owned(), body_hash: sha256(&[body]) }))
}

async fn query(
    State(state): State<AppState>,
    caller: Caller,
    RequestId(request_id): RequestId,
    headers: HeaderMap,
    Body(bytes): Body,
) -> Result<Response, Problem> {
    caller.require_person()?;
    let idempotency = idempotency(&headers, &caller, &bytes)?;
    let q: QueryBody = body::json(&bytes)?;
    let dataset = DatasetId::new(q.dataset).map_err(|e| unprocessable(e.to_string()))?;
    if !q.purpose.starts_with("purp:") {
        return Err(unprocessable("purpose: write it as purp:<name>, as the agreement's clause does".into()));
    }
    short("purpose", &q.purpose, 128)?;
    short("case", &q.case, 128)?;
    short("clause", &q.clause, 64)?;
    let members = [("where", q.filter), ("select", q.select), ("order", q.order), ("limit", q.limit)];
    let query: Map<String, Value> = members.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))).collect();
    let ask = Ask {
        dataset,
        query,
        purpose: q.purpose,
        case: q.case,
        clause: q.clause,
        actor: pseudonym(&state, &caller),
        roles: caller.agreement_roles(),
        caller: caller.name,
        request_id,
        idempotency,
    };
    let answered = state.gateway.query(ask).await?;
    let replayed = if answered.replayed { "true" } else { "false" };
    let headers = [(header::CONTENT_TYPE.as_str(), "application/json"), ("idempotency-replayed", replayed)];
    Ok((headers, answered.body).into_response())
}
