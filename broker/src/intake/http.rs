//! `POST /v1/datasets/{dataset}/messages` and `GET /v1/intake/{adapter}`.

use super::{Accepted, Incoming, Intake, IntakeError, Position};
use crate::http::auth::{ADAPTER, OPERATOR};
use crate::http::body::{Body, header};
use crate::http::openapi::{Doc, PEOPLE};
use crate::http::{AppState, Caller, Problem};
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header as names};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use concordat_protocol::hash::Hash;
use concordat_protocol::limits::CHECKPOINT_BYTES_MAX;
use concordat_protocol::message::SourceState;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The resources of intake. The router needs an `Extension<Arc<Intake>>`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/datasets/{dataset}/messages", post(messages))
        .route("/v1/intake/{adapter}", get(position))
        .route("/v1/feeds", get(feeds))
}

pub(crate) fn docs() -> Vec<Doc> {
    vec![
        Doc::new(
            "post",
            "/v1/datasets/{dataset}/messages",
            "Messages of a feed, durable once answered.",
            "adapter, operator",
        )
        .header("Concordat-Adapter", "the adapter's name; an adapter sends the next two as well")
        .header("Concordat-Batch", "number of the batch, from 1")
        .header("Concordat-Checkpoint", "where the adapter stands after it, base64")
        .header("Concordat-After", "SHA-256 of the checkpoint before it, hexadecimal")
        .takes_bytes("application/x-ndjson", "1 to 256 lines of {\"id\"?, \"time\"?, \"data\": {}}.")
        .gives(200, "All are on disk.", "accepted:int duplicates:int last_seq:int"),
        Doc::new("get", "/v1/intake/{adapter}", "Where an adapter stands.", "adapter, operator").gives(
            200,
            "Its position.",
            "batch_no:int checkpoint:str",
        ),
        Doc::new("get", "/v1/feeds", "This agency's own feeds, both sides.", PEOPLE).gives(
            200,
            "The feeds.",
            "feeds:[obj] executor:any",
        ),
    ]
}

fn status(e: &IntakeError) -> StatusCode {
    match e {
        IntakeError::UnknownDataset(_) => StatusCode::NOT_FOUND,
        IntakeError::Header(..) | IntakeError::OtherAdapter { .. } | IntakeError::Count(0) => StatusCode::BAD_REQUEST,
        IntakeError::Count(_) | IntakeError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        IntakeError::Lines(_) => StatusCode::UNPROCESSABLE_ENTITY,
        IntakeError::Elsewhere(_) => StatusCode::CONFLICT,
        IntakeError::Busy(_) => StatusCode::TOO_MANY_REQUESTS,
        IntakeError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
        IntakeError::Unavailable(_) | IntakeError::StreamConfig { .. } | IntakeError::Schema(..) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        IntakeError::Library(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn place(p: &Position) -> Map<String, Value> {
    let members = [("batch_no", json!(p.batch_no)), ("checkpoint", json!(STANDARD.encode(&p.checkpoint)))];
    members.map(|(k, v)| (k.to_owned(), v)).into_iter().collect()
}

/// A problem with the members an adapter acts on: its position, or the lines that were refused.
fn refuse(e: &IntakeError) -> Response {
    let status = status(e);
    let again = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::INSUFFICIENT_STORAGE];
    let retry = again.contains(&status);
    let problem = Problem::new(status, e.code(), e.to_string()).retry(retry);
    let more = match e {
        IntakeError::Elsewhere(p) => place(p),
        IntakeError::Lines(lines) => Map::from_iter([("errors".to_owned(), json!(lines))]),
        _ => Map::new(),
    };
    let wait = match e {
        IntakeError::Busy(_) => Some("1"),
        IntakeError::Full(_) => Some("5"),
        _ => None,
    };
    if more.is_empty() && wait.is_none() {
        return problem.into_response();
    }
    let mut body = serde_json::to_value(&problem).unwrap_or_default();
    if let Some(members) = body.as_object_mut() {
        members.extend(more);
    }
    let mut response = (status, [(names::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response();
    if let Some(seconds) = wait {
        response.headers_mut().insert(names::RETRY_AFTER, names::HeaderValue::from_static(seconds));
    }
    response
}

/// The three headers of an adapter's batch, all or none.
fn source(headers: &HeaderMap) -> Result<Option<SourceState>, IntakeError> {
    const NAMES: [&str; 3] = ["concordat-adapter", "concordat-batch", "concordat-checkpoint"];
    if NAMES.iter().all(|n| !headers.contains_key(*n)) {
        return Ok(None);
    }
    let [adapter, batch, checkpoint] = NAMES.map(|n| header(headers, n));
    let missing = |name| IntakeError::Header(name, "an adapter sends its name, its batch number and its checkpoint");
    let adapter = adapter.ok_or(missing(NAMES[0]))?;
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if adapter.is_empty() || adapter.len() > 64 || !adapter.chars().all(ok) {
        return Err(IntakeError::Header(NAMES[0], "is 1 to 64 of a-z, 0-9 and -"));
    }
    let batch_no =
        batch.ok_or(missing(NAMES[1]))?.parse().map_err(|_| IntakeError::Header(NAMES[1], "is a number from 1"))?;
    let checkpoint =
        STANDARD.decode(checkpoint.ok_or(missing(NAMES[2]))?).ok().filter(|c| c.len() <= CHECKPOINT_BYTES_MAX);
    let checkpoint = checkpoint.ok_or(IntakeError::Header(NAMES[2], "is base64 of at most 4,096 bytes"))?;
    Ok(Some(SourceState { adapter: adapter.to_owned(), batch_no, checkpoint: checkpoint.into() }))
}

/// SHA-256 of the checkpoint before this batch's, if the adapter names it.
fn after(headers: &HeaderMap) -> Result<Option<Hash>, IntakeError> {
    const NAME: &str = "concordat-after";
    let Some(text) = header(headers, NAME) else { return Ok(None) };
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).map_err(|_| IntakeError::Header(NAME, "is 64 hex digits"))?;
    Ok(Some(hash))
}

async fn messages(
    Extension(intake): Extension<Arc<Intake>>,
    caller: Caller,
    Path(dataset): Path<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Response {
    if let Err(problem) = caller.require(&[ADAPTER, OPERATOR]) {
        return problem.into_response();
    }
    let taken = match source(&headers).and_then(|s| Ok((s, after(&headers)?))) {
        Ok((source, after)) => intake.post(&dataset, Incoming { source, after, body }).await,
        Err(e) => Err(e),
    };
    match taken {
        Ok(Accepted { accepted, last_seq }) => {
            Json(json!({"accepted": accepted, "duplicates": 0, "last_seq": last_seq})).into_response()
        }
        Err(e) => refuse(&e),
    }
}

async fn feeds(Extension(intake): Extension<Arc<Intake>>, caller: Caller) -> Response {
    if let Err(problem) = caller.require_person() {
        return problem.into_response();
    }
    Json(intake.stats().await).into_response()
}

async fn position(Extension(intake): Extension<Arc<Intake>>, caller: Caller, Path(adapter): Path<String>) -> Response {
    if let Err(problem) = caller.require(&[ADAPTER, OPERATOR]) {
        return problem.into_response();
    }
    match intake.position(&adapter) {
        Ok(p) => Json(Value::Object(place(&p))).into_response(),
        Err(e) => refuse(&e),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (names::HeaderName::from_static(k), v.parse().unwrap())).collect()
    }

    #[test]
    fn an_adapter_names_itself_whole_or_not_at_all() {
        assert_eq!(source(&headers(&[])).unwrap(), None);
        let good = [("concordat-adapter", "load"), ("concordat-batch", "3"), ("concordat-checkpoint", "AQI=")];
        let read = source(&headers(&good)).unwrap().unwrap();
        assert_eq!((read.adapter.as_str(), read.batch_no, read.checkpoint.0.as_slice()), ("load", 3, &[1, 2][..]));
        for (i, bad) in ["Load Adapter", "three", "not base64!"].iter().enumerate() {
            let mut wrong = good;
            wrong[i].1 = bad;
            assert!(
                matches!(source(&headers(&wrong)), Err(IntakeError::Header(name, _)) if name == good[i].0),
                "{bad}"
            );
            let mut less = good.to_vec();
            less.remove(i);
            assert!(matches!(source(&headers(&less)), Err(IntakeError::Header(name, _)) if name == good[i].0));
        }
    }

    #[test]
    fn what_came_before_is_a_hash_or_nothing() {
        assert_eq!(after(&headers(&[])).unwrap(), None);
        assert_eq!(after(&headers(&[("concordat-after", &"0a".repeat(32))])).unwrap(), Some([10; 32]));
        assert!(after(&headers(&[("concordat-after", "0a")])).is_err());
    }

    #[tokio::test]
    async fn refusals_carry_what_an_adapter_acts_on() {
        let response = refuse(&IntakeError::Elsewhere(Position { batch_no: 7, checkpoint: vec![1, 2] }));
        assert_eq!(response.status(), StatusCode::CONFLICT);
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&body["batch_no"], &body["checkpoint"], &body["code"]),
            (&json!(7), &json!("AQI="), &json!("batch-number"))
        );
        let busy = refuse(&IntakeError::Busy("d".into()));
        assert_eq!(
            (busy.status(), busy.headers()[names::RETRY_AFTER].to_str().unwrap()),
            (StatusCode::TOO_MANY_REQUESTS, "1")
        );
        let full = refuse(&IntakeError::Full("d".into()));
        assert_eq!(
            (full.status(), full.headers()[names::RETRY_AFTER].to_str().unwrap()),
            (StatusCode::INSUFFICIENT_STORAGE, "5")
        );
    }
}
