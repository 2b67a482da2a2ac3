//! `POST /v1/datasets/{dataset}/records`, `PATCH` and `DELETE .../records/{key}`: records that another agency holds are
//! written under an agreement, recorded before and after.

use super::auth::pseudonym;
use super::body::{Body, header};
use super::openapi::{Doc, PEOPLE};
use super::queries::{idempotency_of, short};
use super::{AppState, Caller, Problem, RequestId};
use crate::gateway::Ask;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header as names};
use axum::response::{IntoResponse, Response};
use axum::routing::{patch, post};
use concordat_executor::query::read_json;
use concordat_protocol::ids::DatasetId;
use serde_json::{Map, Value, json};

const RECORDS: &str = "/v1/datasets/{dataset}/records";
const RECORD: &str = "/v1/datasets/{dataset}/records/{key}";
const MERGE_PATCH: &str = "application/merge-patch+json";
const ANSWER: &str = "action:str key:str version:str? before:str? operation:str outcome:str height:int agreement:str \
    clause:str request_id:str receipt:str content_secret:str";

pub(super) fn routes() -> Router<AppState> {
    Router::new().route(RECORDS, post(insert)).route(RECORD, patch(modify).delete(remove))
}

pub(super) fn docs() -> Vec<Doc> {
    let write = |method, path, summary| {
        Doc::new(method, path, summary, PEOPLE)
            .header("Concordat-Purpose", "purp:<name>, as the agreement's clause has it; required")
            .header("Concordat-Case", "case reference, where the clause asks for one")
            .header("Concordat-Clause", "the clause relied on, where several match")
            .header(
                "Idempotency-Key",
                "1 to 128 characters: the same key and request is one write, whatever is repeated",
            )
    };
    let matching = "the version that a query with include: [\"version\"] showed, in quotes, or *; 428 without it";
    vec![
        write("post", RECORDS, "A new record at its provider, under an agreement.")
            .header("If-None-Match", "* is what is meant anyway")
            .takes_bytes("application/json", "The record: a JSON object of the dataset's fields.")
            .gives(201, "It is there; the outcome is on the ledger. ETag is its version.", ANSWER),
        write("patch", RECORD, "Fields of a record at its provider (RFC 7396), under an agreement.")
            .header("If-Match", matching)
            .takes_bytes(MERGE_PATCH, "The fields to change; null takes one away.")
            .gives(200, "They are changed; the outcome is on the ledger. ETag is the version now.", ANSWER),
        write("delete", RECORD, "A record at its provider is deleted, under an agreement.")
            .header("If-Match", matching)
            .gives(200, "It is gone; the outcome is on the ledger.", ANSWER),
    ]
}

fn unprocessable(detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-write", detail).next("correct the named member")
}

/// What a write expects of the record, from `If-Match`: a version, or `*`.
fn expected(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(value) = headers.get(names::IF_MATCH) else {
        let detail = "If-Match is missing: a record is changed only by whoever says which version of it";
        return Err(Problem::new(StatusCode::PRECONDITION_REQUIRED, "precondition-required", detail)
            .next("query the record with include: [\"version\"] and send its version in quotes, or * for any"));
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok("*".into());
    }
    let tag = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or_default();
    if tag.is_empty() || tag.contains('"') || tag == "*" || tag == "absent" {
        return Err(Problem::bad_request("If-Match: one version in quotes, or *"));
    }
    Ok(tag.to_owned())
}

fn object(bytes: &[u8], what: &str) -> Result<Value, Problem> {
    let value = read_json(bytes).map_err(|e| Problem::bad_request(format!("{what} is no JSON object: {e}")))?;
    if value.as_object().is_none_or(Map::is_empty) {
        return Err(unprocessable(format!("{what} must be a JSON object with at least one field")));
    }
    Ok(value)
}

/// A write of a caller, about to be asked for.
struct Asked<'a> {
    state: &'a AppState,
    caller: &'a Caller,
    request_id: String,
    headers: &'a HeaderMap,
    dataset: String,
    write: Value,
}

/// Names the map that made a person's roles, and how the person signed in.
fn with_role_map(mut query: Map<String, Value>, caller: &Caller) -> Map<String, Value> {
    let signed_in = caller.sign_in.as_ref().map(|s| json!({"level": s.level, "at_ms": s.at_ms}));
    query.extend(signed_in.map(|said| ("sign_in".to_owned(), said)));
    query.extend(caller.role_map.as_ref().map(|sha256| ("role_map".to_owned(), json!(sha256))));
    query
}

impl Asked<'_> {
    async fn run(self, done: StatusCode) -> Result<Response, Problem> {
        self.caller.require_person()?;
        let dataset = DatasetId::new(self.dataset).map_err(|e| unprocessable(e.to_string()))?;
        let said = |name: &str| header(self.headers, name).unwrap_or_default().to_owned();
        let (purpose, case, clause) = (said("concordat-purpose"), said("concordat-case"), said("concordat-clause"));
        if !purpose.starts_with("purp:") {
            let rule = "Concordat-Purpose: write it as purp:<name>, as the agreement's clause does";
            return Err(unprocessable(rule.into()));
        }
        short("Concordat-Purpose", &purpose, 128)?;
        short("Concordat-Case", &case, 128)?;
        short("Concordat-Clause", &clause, 64)?;
        // The same key is for the same write alone: all of it counts, not its body.
        let whole = json!([dataset, self.write, purpose, case, clause]).to_string();
        let actor = pseudonym(self.state, self.caller, &dataset.owner());
        let ask = Ask {
            dataset,
            query: with_role_map(Map::from_iter([("write".to_owned(), self.write)]), self.caller),
            purpose,
            case,
            clause,
            actor,
            roles: self.caller.agreement_roles(),
            justification: None,
            caller: self.caller.name.clone(),
            request_id: self.request_id,
            idempotency: idempotency_of(self.headers, self.caller, whole.as_bytes())?,
        };
        let answered = self.state.gateway.query(ask).await?;
        let answer: Value = serde_json::from_slice(&answered.body).unwrap_or_default();
        let replayed = if answered.replayed { "true" } else { "false" };
        let headers = [(names::CONTENT_TYPE.as_str(), "application/json"), ("idempotency-replayed", replayed)];
        let mut response = (done, headers, answered.body).into_response();
        let etag = answer["version"].as_str().and_then(|v| format!("\"{v}\"").parse().ok());
        if let Some(etag) = etag {
            response.headers_mut().insert(names::ETAG, etag);
        }
        Ok(response)
    }
}

async fn insert(
    State(state): State<AppState>,
    caller: Caller,
    RequestId(request_id): RequestId,
    Path(dataset): Path<String>,
    headers: HeaderMap,
    Body(bytes): Body,
) -> Result<Response, Problem> {
    if header(&headers, "if-none-match").is_some_and(|v| v.trim() != "*") || headers.contains_key(names::IF_MATCH) {
        return Err(Problem::bad_request(
            "a new record has no version: If-None-Match is * or left out, If-Match left out",
        ));
    }
    let write = json!({"action": "insert", "data": object(&bytes, "the record")?, "expect": "absent"});
    let asked = Asked { state: &state, caller: &caller, request_id, headers: &headers, dataset, write };
    asked.run(StatusCode::CREATED).await
}

async fn modify(
    State(state): State<AppState>,
    caller: Caller,
    RequestId(request_id): RequestId,
    Path((dataset, key)): Path<(String, String)>,
    headers: HeaderMap,
    Body(bytes): Body,
) -> Result<Response, Problem> {
    let media = header(&headers, "content-type").unwrap_or(MERGE_PATCH).split(';').next().unwrap_or_default().trim();
    if ![MERGE_PATCH, "application/json"].contains(&media) {
        let detail = format!("Content-Type {media}: a patch is {MERGE_PATCH}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", detail));
    }
    let (patch, expect) = (object(&bytes, "the patch")?, expected(&headers)?);
    let write = json!({"action": "modify", "key": key, "patch": patch, "expect": expect});
    let asked = Asked { state: &state, caller: &caller, request_id, headers: &headers, dataset, write };
    asked.run(StatusCode::OK).await
}

async fn remove(
    State(state): State<AppState>,
    caller: Caller,
    RequestId(request_id): RequestId,
    Path((dataset, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let write = json!({"action": "delete", "key": key, "expect": expected(&headers)?});
    let asked = Asked { state: &state, caller: &caller, request_id, headers: &headers, dataset, write };
    asked.run(StatusCode::OK).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use concordat_executor::policies::duty::SignIn;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn a_write_says_how_its_person_signed_in() {
        let sign_in = SignIn { level: "mfa".into(), at_ms: 7 };
        let token = Caller {
            name: "clerk".into(),
            roles: BTreeSet::new(),
            after_step_up: BTreeMap::new(),
            sign_in: None,
            role_map: None,
        };
        let person = Caller { sign_in: Some(sign_in), ..token.clone() };
        let said = |caller| Value::Object(with_role_map(Map::new(), caller));
        assert_eq!(said(&person), json!({"sign_in": {"level": "mfa", "at_ms": 7}}));
        assert_eq!(said(&token), json!({}), "a token of an application signs nobody in");
    }

    #[test]
    fn a_change_names_the_version_that_it_is_about() {
        let with = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            value.map(|v| headers.insert(names::IF_MATCH, v.parse().unwrap()));
            expected(&headers).map_err(|p| p.status)
        };
        assert_eq!(with(Some("\"0a1b\"")), Ok("0a1b".into()));
        assert_eq!(with(Some("*")), Ok("*".into()));
        assert_eq!(with(None), Err(StatusCode::PRECONDITION_REQUIRED));
        for wrong in ["0a1b", "\"\"", "\"a\", \"b\"", "\"*\"", "W/\"a\"", "\"absent\""] {
            assert_eq!(with(Some(wrong)), Err(StatusCode::BAD_REQUEST), "{wrong}");
        }
    }
}
