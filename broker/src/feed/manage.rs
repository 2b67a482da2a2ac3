//! `/v1/subscriptions`: create, delete, pause, resume, seek, and the deliveries that were refused.

use super::http::cursor;
use super::view::{refused as refused_view, view};
use super::{FeedError, NewAsk, SeekTo, Subscriptions};
use crate::gateway::Ask;
use crate::http::auth::pseudonym;
use crate::http::body::{Body, header as header_of, json as read_json};
use crate::http::{AppState, Caller, Problem, RequestId};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use concordat_protocol::hash::sha256;
use concordat_protocol::ids::DatasetId;
use concordat_protocol::subscribe::FeedStart;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBody {
    dataset: String,
    name: Option<String>,
    #[serde(default)]
    agreement: String,
    #[serde(default)]
    clause: String,
    #[serde(default)]
    purpose: String,
    #[serde(default)]
    case: String,
    #[serde(rename = "where")]
    filter: Option<Map<String, Value>>,
    #[serde(default)]
    select: Vec<String>,
    from: Option<Value>,
}

fn unprocessable(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-subscription", detail.into()).next("correct the named member")
}

fn short(name: &str, value: &str, max: usize) -> Result<(), Problem> {
    if value.len() <= max && !value.chars().any(char::is_control) {
        return Ok(());
    }
    Err(unprocessable(format!("{name}: at most {max} bytes without control characters")))
}

/// Milliseconds of an RFC 3339 time.
fn ms(name: &str, text: &Value) -> Result<u64, Problem> {
    let parsed = text.as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok());
    let ms = parsed.and_then(|t| u64::try_from(t.as_millisecond()).ok());
    ms.ok_or_else(|| unprocessable(format!("{name}.time: a time such as 2026-05-01T00:00:00Z")))
}

/// The one member of an object.
fn one_member(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object().filter(|o| o.len() == 1)?;
    object.iter().next().map(|(k, v)| (k.as_str(), v))
}

/// Where a new subscription begins: with what is kept, unless something else is said.
fn from(value: Option<&Value>) -> Result<FeedStart, Problem> {
    let rule = || unprocessable("from: \"earliest\", \"latest\", {\"seq\": n} or {\"time\": \"2026-05-01T00:00:00Z\"}");
    match value {
        None => Ok(FeedStart::Earliest {}),
        Some(Value::String(word)) if word == "earliest" => Ok(FeedStart::Earliest {}),
        Some(Value::String(word)) if word == "latest" => Ok(FeedStart::Latest {}),
        Some(value) => match one_member(value) {
            Some(("seq", n)) => Ok(FeedStart::Sequence { seq: n.as_u64().filter(|n| *n > 0).ok_or_else(rule)? }),
            Some(("time", t)) => Ok(FeedStart::Time { ms: ms("from", t)? }),
            _ => Err(rule()),
        },
    }
}

fn seek_to(value: &Value) -> Result<SeekTo, Problem> {
    let rule = || {
        unprocessable(
            "to: \"earliest\", \"latest\", {\"cursor\": \"12.3\"}, {\"sub_seq\": n} or {\"time\": \"2026-05-01T00:00:00Z\"}",
        )
    };
    match value {
        Value::String(word) if word == "earliest" => Ok(SeekTo::Earliest),
        Value::String(word) if word == "latest" => Ok(SeekTo::Latest),
        value => match one_member(value) {
            Some(("cursor", Value::String(c))) => Ok(SeekTo::Cursor(cursor(c)?)),
            Some(("sub_seq", n)) => Ok(SeekTo::SubSeq(n.as_u64().ok_or_else(rule)?)),
            Some(("time", t)) => Ok(SeekTo::Time(ms("to", t)?)),
            _ => Err(rule()),
        },
    }
}

/// A name of its own; under an Idempotency-Key the same again, so that a repetition is the same subscription.
fn generated(headers: &HeaderMap, caller: &Caller) -> Result<String, Problem> {
    let mut random = [0; 8];
    match header_of(headers, "idempotency-key") {
        Some(key) => random.copy_from_slice(&sha256(&[caller.name.as_bytes(), &[0], key.as_bytes()])[..8]),
        None => getrandom::fill(&mut random).map_err(|e| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "randomness", e.to_string()).next("give it a name")
        })?,
    }
    Ok(format!("sub-{}", hex::encode(random)))
}

pub(super) async fn create(
    State(state): State<AppState>,
    Extension(subs): Extension<Subscriptions>,
    caller: Caller,
    RequestId(request_id): RequestId,
    headers: HeaderMap,
    Body(bytes): Body,
) -> Result<Response, Problem> {
    caller.require_person()?;
    let b: NewBody = read_json(&bytes)?;
    let dataset = DatasetId::new(b.dataset).map_err(|e| unprocessable(e.to_string()))?;
    if !b.purpose.is_empty() && !b.purpose.starts_with("purp:") {
        return Err(unprocessable("purpose: write it as purp:<name>, as the agreement's clause does"));
    }
    for (name, value, max) in [
        ("purpose", &b.purpose, 128),
        ("case", &b.case, 128),
        ("clause", &b.clause, 64),
        ("agreement", &b.agreement, 64),
    ] {
        short(name, value, max)?;
    }
    let new = NewAsk {
        actor: pseudonym(&state, &caller, &dataset.owner()),
        dataset,
        name: b.name.map_or_else(|| generated(&headers, &caller), Ok)?,
        agreement: b.agreement,
        clause: b.clause,
        purpose: b.purpose,
        case: b.case,
        filter: b.filter,
        fields: b.select,
        from: from(b.from.as_ref())?,
        roles: caller.agreement_roles(),
        caller: caller.name,
        request_id,
    };
    let (sub, is_new) = subs.create(&state.gateway, new).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let location = [(header::LOCATION, format!("/v1/subscriptions/{}", sub.id()))];
    Ok((status, location, Json(view(&sub, subs.tick_ms()))).into_response())
}

pub(super) async fn delete(
    State(state): State<AppState>,
    Extension(subs): Extension<Subscriptions>,
    caller: Caller,
    RequestId(request_id): RequestId,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    caller.require_person()?;
    let sub = match subs.get(&id) {
        Ok(sub) => sub,
        // Deleting what is not there is done already; a misspelt id of GET is told there.
        Err(FeedError::Unknown(_)) => return Ok(StatusCode::NO_CONTENT),
        Err(e) => return Err(e.into()),
    };
    let by = Ask {
        dataset: sub.terms().expected.dataset.clone(),
        query: Map::new(),
        purpose: String::new(),
        case: String::new(),
        clause: String::new(),
        actor: pseudonym(&state, &caller, &sub.terms().expected.dataset.owner()),
        roles: caller.agreement_roles(),
        caller: caller.name,
        request_id,
        idempotency: None,
        justification: None,
    };
    subs.delete(&state.gateway, &sub, by).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SeekBody {
    to: Value,
}

/// `{id}:pause`, `{id}:resume` and `{id}:seek`.
pub(super) async fn act(
    Extension(subs): Extension<Subscriptions>,
    caller: Caller,
    Path(path): Path<String>,
    Body(bytes): Body,
) -> Result<Response, Problem> {
    caller.require_person()?;
    let (id, verb) = path.rsplit_once(':').unwrap_or((&path, ""));
    let mut status = StatusCode::OK;
    let sub = subs.get(id)?;
    match verb {
        "pause" => subs.pause(&sub, &caller.name).await?,
        "resume" => subs.resume(&sub).await?,
        "seek" => {
            let body: SeekBody = read_json(&bytes)?;
            if !subs.seek(&sub, seek_to(&body.to)?).await? {
                // It is kept and goes on; `seeking` of the subscription tells when it is done.
                status = StatusCode::ACCEPTED;
            }
        }
        _ => {
            let detail = "a subscription takes POST with :pause, :resume or :seek behind its id";
            return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail));
        }
    }
    Ok((status, Json(view(&sub, subs.tick_ms()))).into_response())
}

pub(super) async fn refused(
    Extension(subs): Extension<Subscriptions>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    let found = subs.refused(&*subs.get(&id)?).await?;
    Ok(Json(json!({"dead_letters": found.iter().map(refused_view).collect::<Vec<_>>()})))
}

pub(super) async fn refused_one(
    Extension(subs): Extension<Subscriptions>,
    caller: Caller,
    Path((id, n)): Path<(String, u64)>,
) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    let found = subs.refused_one(&*subs.get(&id)?, n).await?;
    let gone =
        || Problem::not_found("unknown-dead-letter", format!("{id} has no dead letter {n}: see its /dead-letters"));
    Ok(Json(refused_view(&found.ok_or_else(gone)?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_are_read_strictly() {
        assert_eq!(from(None).unwrap(), FeedStart::Earliest {});
        assert_eq!(from(Some(&json!("latest"))).unwrap(), FeedStart::Latest {});
        assert_eq!(from(Some(&json!({"seq": 7}))).unwrap(), FeedStart::Sequence { seq: 7 });
        assert_eq!(from(Some(&json!({"time": "1970-01-01T00:00:02Z"}))).unwrap(), FeedStart::Time { ms: 2_000 });
        for bad in [json!("now"), json!({"seq": 0}), json!({"seq": 1, "time": "x"}), json!({"time": "today"}), json!(5)]
        {
            assert_eq!(from(Some(&bad)).unwrap_err().status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
        }
        assert_eq!(seek_to(&json!({"cursor": "12.3"})).unwrap(), SeekTo::Cursor("12.3".parse().unwrap()));
        assert_eq!(seek_to(&json!({"sub_seq": 4})).unwrap(), SeekTo::SubSeq(4));
        assert_eq!(seek_to(&json!("earliest")).unwrap(), SeekTo::Earliest);
        for bad in
            [json!({"cursor": 12}), json!({"cursor": "12"}), json!({"sub_seq": -1}), json!({"seq": 1}), json!(null)]
        {
            assert!(seek_to(&bad).is_err(), "{bad}");
        }
    }
}
