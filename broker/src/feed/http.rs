//! `/v1/subscriptions`: list, messages by pull and by server-sent events, acknowledgements.

use super::manage::{NewBody, SeekBody, act, create, delete, refused, refused_one};
use super::view::view;
use super::{Cursor, Subscriptions, sse};
use crate::http::body::{Body, Params, header, json as read_json};
use crate::http::openapi::{Doc, PEOPLE};
use crate::http::{AppState, Caller, Problem, RequestId};
use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

/// Messages of one answer at most, and where nothing is asked for.
const MAX: (usize, usize) = (1_000, 100);
/// Longest wait for a first message, seconds.
const WAIT_MAX: f64 = 30.0;

/// The resources of subscriptions. The router needs an `Extension<Subscriptions>`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/subscriptions", get(list).post(create))
        // POST takes `{id}:pause`, `{id}:resume` and `{id}:seek`.
        .route("/v1/subscriptions/{id}", get(one).delete(delete).post(act))
        .route("/v1/subscriptions/{id}/messages", get(messages))
        .route("/v1/subscriptions/{id}/acks", post(acks))
        .route("/v1/subscriptions/{id}/events", get(events))
        .route("/v1/subscriptions/{id}/dead-letters", get(refused))
        .route("/v1/subscriptions/{id}/dead-letters/{n}", get(refused_one))
}

pub(crate) fn docs() -> Vec<Doc> {
    let doc = |method, path, summary| Doc::new(method, path, summary, PEOPLE);
    vec![
        doc("get", "/v1/subscriptions", "The subscriptions of this agency.").gives(
            200,
            "The subscriptions.",
            "subscriptions:[@Subscription]",
        ),
        doc("post", "/v1/subscriptions", "A subscription under an agreement or of public data.")
            .header("Idempotency-Key", "the same key makes the same subscription")
            .takes::<NewBody>()
            .gives(200, "It is there already.", "@Subscription")
            .gives(201, "It was created.", "@Subscription"),
        doc("get", "/v1/subscriptions/{id}", "One of them.").gives(200, "The subscription.", "@Subscription"),
        doc("delete", "/v1/subscriptions/{id}", "Ends a created subscription everywhere.")
            .gives_nothing(204, "It ended."),
        doc("post", "/v1/subscriptions/{id}:pause", "Nothing is fetched until it is resumed.").gives(
            200,
            "The subscription.",
            "@Subscription",
        ),
        doc("post", "/v1/subscriptions/{id}:resume", "Goes on.").gives(200, "The subscription.", "@Subscription"),
        doc("post", "/v1/subscriptions/{id}:seek", "Reads again from a place.")
            .takes::<SeekBody>()
            .gives(200, "The subscription.", "@Subscription")
            .gives(202, "It is kept and goes on.", "@Subscription"),
        doc("get", "/v1/subscriptions/{id}/messages", "Messages that proved themselves, behind a cursor.")
            .query::<Ask>()
            .gives(200, "Messages.", "messages:[@Message] cursor:str?"),
        doc("post", "/v1/subscriptions/{id}/acks", "Acknowledges everything up to and with a cursor.")
            .takes::<Ack>()
            .gives(200, "Durable.", "acked_sub_seq:int acked_messages:int"),
        doc("get", "/v1/subscriptions/{id}/events", "The same as server-sent events.")
            .query::<Events>()
            .header("Last-Event-ID", "the cursor behind which it goes on")
            .gives_bytes(200, "An open stream.", "text/event-stream"),
        doc("get", "/v1/subscriptions/{id}/dead-letters", "Deliveries that did not prove themselves.").gives(
            200,
            "The newest.",
            "dead_letters:[@Refused]",
        ),
        doc("get", "/v1/subscriptions/{id}/dead-letters/{n}", "One of them with its bytes.").gives(
            200,
            "The delivery.",
            "@Refused",
        ),
    ]
}

async fn list(Extension(subs): Extension<Subscriptions>, caller: Caller) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    let tick_ms = subs.tick_ms();
    Ok(Json(json!({"subscriptions": subs.all().iter().map(|s| view(s, tick_ms)).collect::<Vec<_>>()})))
}

async fn one(
    Extension(subs): Extension<Subscriptions>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    Ok(Json(view(&*subs.get(&id)?, subs.tick_ms())))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Ask {
    max: Option<usize>,
    /// Seconds.
    wait: Option<f64>,
    after: Option<String>,
}

pub(super) fn cursor(text: &str) -> Result<Cursor, Problem> {
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

#[derive(Deserialize, ToSchema)]
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

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Events {
    after: Option<String>,
    #[serde(default)]
    ack: bool,
}

async fn events(
    Extension(subs): Extension<Subscriptions>,
    caller: Caller,
    RequestId(request_id): RequestId,
    Path(id): Path<String>,
    headers: HeaderMap,
    Params(ask): Params<Events>,
) -> Result<Response, Problem> {
    caller.require_person()?;
    let resume = header(&headers, "last-event-id").filter(|id| !id.is_empty()).or(ask.after.as_deref());
    let after = resume.map(cursor).transpose()?;
    let sub = subs.get(&id)?;
    subs.permitted(&sub)?;
    Ok(sse::response(subs, sub, after, ask.ack, request_id))
}
