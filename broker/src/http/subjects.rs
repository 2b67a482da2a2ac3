//! `/admin/v1/subjects`: who looked at a person's records, with proof, and forgetting the person.
//!
//! A person's id comes in the body, never in a path, and stands in no log: there it is the keyed hash under which the
//! provider's stores know the person.

use super::auth::{DATA_PROTECTION, OPERATOR};
use super::body::{self, Body};
use super::openapi::Doc;
use super::{AppState, Caller, Problem};
use crate::evidence::Shelf;
use crate::host::subjects::listing::{self, ListError, Listed, Listing, Meaning};
use crate::ledger::node_client::NodeClient;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use concordat_protocol::access::{ACCESS_DECODE_MAX, AccessEntry, AccessList, subject_tag};
use concordat_protocol::cbor;
use concordat_protocol::ids::{DatasetId, OpRef};
use concordat_protocol::leaves::commitment as leaf;
use concordat_protocol::ops::Op;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;
use utoipa::ToSchema;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/admin/v1/subjects/log", post(log))
        .route("/admin/v1/subjects/proof", post(proof))
        .route("/admin/v1/subjects/erase", post(erase))
}

pub(super) fn docs() -> Vec<Doc> {
    let who = "data-protection, operator";
    vec![
        Doc::new("post", "/admin/v1/subjects/log", "Who looked at a person's records.", who).takes::<Asked>().gives(
            200,
            "The list in words.",
            "dataset:str accesses:[obj] sealed:obj may_include:int complete:bool complete_to:obj status:str erased:time?",
        ),
        Doc::new("post", "/admin/v1/subjects/proof", "The same as a file that anybody verifies.", who)
            .takes::<Asked>()
            .gives_bytes(200, "The proof.", "application/cbor"),
        Doc::new("post", "/admin/v1/subjects/erase", "Forgets a person.", who)
            .takes::<Forget>()
            .gives(200, "What was forgotten.", "dataset:str operations:[str] records:any"),
    ]
}

/// Whose accesses.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    dataset: String,
    subject: String,
    /// RFC 3339; runs that ended before are left out.
    #[serde(default)]
    from: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Forget {
    dataset: String,
    subject: String,
    #[serde(default)]
    keep_records: bool,
}

impl From<ListError> for Problem {
    fn from(e: ListError) -> Self {
        let (status, retry) = match &e {
            ListError::Refused { code, .. } if code == "subject-pending" => (StatusCode::CONFLICT, true),
            ListError::Refused { code, .. } if code == "no-subjects" => (StatusCode::NOT_FOUND, false),
            ListError::Refused { code, .. } if code == "bad-subject" => (StatusCode::BAD_REQUEST, false),
            ListError::Refused { .. } => (StatusCode::SERVICE_UNAVAILABLE, true),
            ListError::Erased { .. } => (StatusCode::GONE, false),
            ListError::Down(_) | ListError::Ledger(_) => (StatusCode::SERVICE_UNAVAILABLE, true),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, false),
        };
        Self::new(status, e.code(), e.to_string()).retry(retry)
    }
}

pub(super) fn dataset_of(state: &AppState, text: &str) -> Result<DatasetId, Problem> {
    let dataset = DatasetId::new(text).map_err(|e| Problem::bad_request(format!("dataset: {e}")))?;
    if dataset.owner() == state.cfg.agency {
        return Ok(dataset);
    }
    let detail = format!("{dataset} is of {}: only its provider can say who looked", dataset.owner());
    Err(Problem::not_found("not-the-provider", detail))
}

fn bad_from() -> Problem {
    Problem::bad_request("from: a time like 2026-01-31T00:00:00Z")
}

/// A connection of its own: a long list must not hold up queries.
fn lists(state: &AppState) -> Listing {
    Listing::new(
        &state.cfg,
        NodeClient::new(state.cfg.node_socket()),
        state.rpc.clone(),
        Shelf::new(state.store.clone()),
    )
}

async fn listed(state: &AppState, caller: &Caller, body: &[u8], what: &str) -> Result<Listed, Problem> {
    caller.require(&[DATA_PROTECTION, OPERATOR])?;
    let asked: Asked = body::json(body)?;
    let dataset = dataset_of(state, &asked.dataset)?;
    let listed = list_of(state, &dataset, &asked.subject, asked.from.as_deref()).await?;
    let (subject, entries) = (hex::encode(listed.id), listed.list.entries.len());
    info!(subject, %dataset, by = caller.name, entries, what, "who looked");
    Ok(listed)
}

/// The list of a person, from a time on.
pub(super) async fn list_of(
    state: &AppState,
    dataset: &DatasetId,
    subject: &str,
    from: Option<&str>,
) -> Result<Listed, Problem> {
    let from: Option<jiff::Timestamp> = from.map(str::parse).transpose().map_err(|_| bad_from())?;
    let from_ms = from.map_or(0, |t| t.as_millisecond().max(0) as u64);
    Ok(lists(state).list(dataset, subject, from_ms).await?)
}

fn time(ms: u64) -> Option<String> {
    jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok().map(|t| t.to_string())
}

async fn log(State(state): State<AppState>, caller: Caller, Body(body): Body) -> Result<Json<Value>, Problem> {
    let listed = listed(&state, &caller, &body, "log").await?;
    Ok(Json(list_json(&listed)))
}

async fn proof(State(state): State<AppState>, caller: Caller, Body(body): Body) -> Result<Response, Problem> {
    let listed = listed(&state, &caller, &body, "proof").await?;
    as_file(&listed)
}

/// A list as the file that anybody verifies.
pub(super) fn as_file(listed: &Listed) -> Result<Response, Problem> {
    let bytes = cbor::encode(&listed.list);
    if bytes.len() > ACCESS_DECODE_MAX {
        let detail = format!("the proof has {} bytes, at most {ACCESS_DECODE_MAX} are read", bytes.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail).next("ask with a later `from`"));
    }
    let name = "attachment; filename=\"accesses.list\"".to_owned();
    let headers = [(header::CONTENT_TYPE, "application/cbor".to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, bytes).into_response())
}

/// The list in words. Every access is proven to be in the log, and that there is no other up to `complete_to`.
pub(super) fn list_json(listed: &Listed) -> Value {
    let list = &listed.list;
    let (mut accesses, mut sealed, mut may_include) = (Vec::new(), Vec::new(), 0);
    for entry in &list.entries {
        let tag = subject_tag(&list.subject_key, &list.dataset, listing::day(entry));
        match listing::meaning(entry, &tag) {
            Meaning::Other => {}
            Meaning::Maybe => may_include += 1,
            Meaning::Access => match listing::sealed_until(entry) {
                Some(ms) => sealed.push(json!({"opens": time(ms), "opens_ms": ms})),
                None => accesses.push(access_json(list, entry, listed.withheld.contains(&entry.index))),
            },
        }
    }
    let end = list.runs.last().map(|r| &r.run);
    let first = list.runs.first().map_or(0, |r| r.number);
    json!({
        "dataset": list.dataset,
        "accesses": accesses,
        "sealed": {"count": sealed.len(), "entries": sealed},
        "may_include": may_include,
        "complete": first == 0 && may_include == 0,
        "complete_to": {
            "operation": end.map(|r| OpRef(r.end_index.saturating_sub(1)).to_string()),
            "log_index": end.map_or(0, |r| r.end_index),
            "time": end.and_then(|r| time(r.to_ms)),
        },
        "status": if list.checkpoint.is_some() { "final" } else { "provisional" },
        "erased": Some(listed.erased_ms).filter(|ms| *ms > 0).and_then(time),
    })
}

fn access_json(list: &AccessList, entry: &AccessEntry, withheld: bool) -> Value {
    let openings = entry.openings.as_ref();
    let word = |name: &str| Some(listing::text(openings, name)).filter(|t| !t.is_empty());
    let kind = cbor::decode::<Op>(&entry.op).map_or_else(|_| "unknown".to_owned(), |op| op.kind_word());
    // A denial discloses nothing, and what was never released neither.
    let disclosed = kind != "deny" && !withheld;
    json!({
        "operation": OpRef(entry.index).to_string(),
        "time": time(entry.entry.tick_ms),
        "kind": kind,
        "disclosed": disclosed,
        "dataset": list.dataset,
        "consumer": word(leaf::CONSUMER),
        "purpose": word(leaf::PURPOSE),
        "clause": word(leaf::CLAUSE),
        "case": word(leaf::CASE),
        "sentence": entry.sentence,
        "erased": openings.is_none(),
    })
}

async fn erase(State(state): State<AppState>, caller: Caller, Body(body): Body) -> Result<Json<Value>, Problem> {
    caller.require(&[DATA_PROTECTION, OPERATOR])?;
    let asked: Forget = body::json(&body)?;
    let dataset = dataset_of(&state, &asked.dataset)?;
    let forgotten = lists(&state).erase(&dataset, &asked.subject, asked.keep_records).await?;
    let (subject, operations) = (hex::encode(forgotten.id), forgotten.operations.len());
    info!(subject, %dataset, by = caller.name, operations, records = forgotten.records, "subject forgotten");
    let operations: Vec<String> = forgotten.operations.iter().map(|i| OpRef(*i).to_string()).collect();
    Ok(Json(json!({"dataset": dataset, "operations": operations, "records": forgotten.records})))
}
