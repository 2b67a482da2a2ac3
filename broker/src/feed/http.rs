//! `/v1/subscriptions`: list, messages by pull, acknowledgements.

use super::{Cursor, FeedError, Subscription, Subscriptions};
use crate::http::body::{Body, Params, json as read_json};
use crate::http::{AppState, Caller, Problem, Side};
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// Messages of one answer at most, and where nothing is asked for.
const MAX: (usize, usize) = (1_000, 100);
/// Longest wait for a first message, seconds.
const WAIT_MAX: f64 = 30.0;

/// The resources of subscriptions. The router needs an `Extension<Subscriptions>`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/subscriptions", get(list))
        .route("/v1/subscriptions/{id}", get(one))
        .route("/v1/subscriptions/{id}/messages", get(messages))
        .route("/v1/subscriptions/{id}/acks", post(acks))
}

impl From<FeedError> for Problem {
    fn from(e: FeedError) -> Self {
        let (code, detail) = (e.code(), e.to_string());
        match e {
            FeedError::Unknown(_) => Self::not_found(code, detail),
            FeedError::NotActive { .. } => Self::new(StatusCode::FORBIDDEN, code, detail)
                .on(Side::Ledger)
                .next("see GET /v1/agreements; it goes on where it stopped when the agreement is active again"),
            FeedError::StaleLedger(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
                .on(Side::Ledger)
                .retry(true)
                .next("see GET /v1/ledger/status"),
            FeedError::Cursor(_) => {
                Self::new(StatusCode::CONFLICT, code, detail).next("read /messages again and take its cursor")
            }
            FeedError::Store(e) => e.into(),
            FeedError::Ledger(e) => e.into(),
        }
    }
}

fn view(s: &Subscription) -> Value {
    let (t, x) = (&s.terms, &s.terms.expected);
    s.with(|i| {
        let acked = i.buffer.acked();
        json!({
            "id": t.name, "subscription": x.subscription, "provider": x.provider, "dataset": x.dataset,
            "agreement": t.agreement, "clause": t.clause, "state": i.status.word(), "max_lag_ms": x.max_lag_ms,
            "last_sub_seq": i.buffer.last(), "anchored_sub_seq": i.anchored, "acked_sub_seq": acked.sub_seq,
            "pending": i.buffer.pending(),
            "invalid": i.counts.invalid, "duplicates": i.counts.duplicates, "missing": i.counts.missing,
            "unanchored": i.counts.unanchored, "last_error": i.counts.last_error,
        })
    })
}

async fn list(Extension(subs): Extension<Subscriptions>, caller: Caller) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    Ok(Json(json!({"subscriptions": subs.all().iter().map(|s| view(s)).collect::<Vec<_>>()})))
}

async fn one(
    Extension(subs): Extension<Subscriptions>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    Ok(Json(view(&*subs.get(&id)?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    max: Option<usize>,
    /// Seconds.
    wait: Option<f64>,
    after: Option<String>,
}

fn cursor(text: &str) -> Result<Cursor, Problem> {
    text.parse().map_err(|e: String| Problem::bad_request(format!("cursor: {e}")))
}

async fn messages(
    Extension(subs): Extension<Subscriptions>,
    caller: Caller,
    Path(id): Path<String>,
    Params(ask): Params<Ask>,
) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    let max = ask.max.unwrap_or(MAX.1);
    if max == 0 || max > MAX.0 {
        return Err(Problem::bad_request(format!("max: 1 to {}", MAX.0)));
    }
    let wait = ask.wait.unwrap_or(0.0);
    if !(0.0..=WAIT_MAX).contains(&wait) {
        return Err(Problem::bad_request(format!("wait: 0 to {WAIT_MAX} seconds")));
    }
    let after = ask.after.as_deref().map(cursor).transpose()?;
    let sub = subs.get(&id)?;
    let found = subs.messages(&sub, after, max, Duration::from_secs_f64(wait)).await?;
    let last = found.last().map(|m| Cursor { sub_seq: m.sub_seq, index: m.index }).or(after);
    Ok(Json(json!({"messages": found, "cursor": last.map(|c| c.to_string())})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ack {
    cursor: String,
}

async fn acks(
    Extension(subs): Extension<Subscriptions>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    let ack: Ack = read_json(&body)?;
    let sub = subs.get(&id)?;
    let acked = subs.ack(&sub, cursor(&ack.cursor)?).await?;
    Ok(Json(json!({"acked_sub_seq": acked.sub_seq, "acked_messages": acked.messages})))
}
