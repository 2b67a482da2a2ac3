//! The frame of every request: its id, its span in the log, its longest time.

use super::AppState;
use super::body::header as header_of;
use super::problem::Problem;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Map, Value};
use std::time::{Duration, Instant};
use tracing::{Instrument, debug, info, info_span};

/// Header of the request id, in and out.
pub const HEADER: &str = "x-request-id";
/// Longest request id that is taken over.
const ID_CHARS_MAX: usize = 64;
/// Longest sentence of axum's own that is taken over, bytes.
const SENTENCE_MAX: usize = 4_096;
/// Media type of problems.
const PROBLEM: &str = "application/problem+json";
/// Longest problem: it may name each refused line of a batch.
const PROBLEM_MAX: usize = 1 << 20;
/// Time beyond a query's own that a request may take: an act waits 30 s for its commit.
const SPARE: Duration = Duration::from_secs(10);

/// The id that goes through all processes' logs, answers and errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

impl RequestId {
    /// The caller's id where it is well formed, else a new one.
    pub fn of(given: Option<&str>) -> Self {
        let plain = |s: &&str| {
            (1..=ID_CHARS_MAX).contains(&s.len())
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
        };
        match given.filter(plain) {
            Some(id) => Self(id.to_owned()),
            None => {
                let mut random = [0; 12];
                // Without randomness ids may repeat; requests are still served.
                let _ = getrandom::fill(&mut random);
                Self(hex::encode(random))
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self::of(None)))
    }
}

/// A path as it may stand in a log: the key of a record may be a person.
fn without_key(path: &str) -> &str {
    path.find("/records/").map_or(path, |at| &path[..at + "/records".len()])
}

/// Puts id, span and time limit around a request.
pub async fn frame(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(header_of(request.headers(), HEADER));
    request.extensions_mut().insert(id.clone());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let quiet = matches!(path.as_str(), "/livez" | "/readyz" | "/metrics");
    let span = info_span!("request", id = %id.0, %method, path = without_key(&path));
    // An export proves up to a thousand operations.
    let own = (path == super::evidence::PATH).then_some(super::evidence::WITHIN);
    let limit = own.unwrap_or(Duration::from_millis(state.cfg.limits.query_ms) + SPARE);
    async move {
        let since = Instant::now();
        let response = match tokio::time::timeout(limit, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "the request took too long here")
                .retry(true)
                .next("look up what became of it before it is repeated")
                .respond(),
        };
        let mut response = named(as_problem(response).await, &id).await;
        let status = response.status();
        state.metrics.http_answers.with_label_values(&[class(status)]).inc();
        let ms = since.elapsed().as_millis() as u64;
        // Supervisors and scrapers ask every few seconds: only what is wrong is worth a line.
        if quiet && status.is_success() {
            debug!(status = status.as_u16(), ms, "answered");
        } else {
            info!(status = status.as_u16(), ms, "answered");
        }
        if let Ok(value) = HeaderValue::from_str(&id.0) {
            response.headers_mut().insert(HEADER, value);
        }
        response
    }
    .instrument(span)
    .await
}

/// What axum refuses by itself is a sentence in plain text: it becomes a problem like every other error.
async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let plain = |kind: &HeaderValue| kind.as_bytes().starts_with(b"text/plain");
    if !(status.is_client_error() || status.is_server_error())
        || !response.headers().get(header::CONTENT_TYPE).is_none_or(plain)
    {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), SENTENCE_MAX).await.unwrap_or_default();
    let detail = match std::str::from_utf8(&text) {
        Ok(text) if !text.is_empty() && !status.is_server_error() => text.to_owned(),
        _ => status.canonical_reason().unwrap_or("refused").to_owned(),
    };
    let code = if status.is_server_error() { "internal" } else { "bad-request" };
    Problem::new(status, code, detail).respond()
}

/// Problems carry the id in their body too.
async fn named(mut response: Response, id: &RequestId) -> Response {
    if response.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind != PROBLEM) {
        return response;
    }
    // Headers that were set beside the body stay.
    let problem = response.extensions_mut().remove::<Problem>();
    let (mut parts, body) = response.into_parts();
    let body = match problem {
        Some(mut problem) => {
            if problem.request_id.is_empty() {
                problem.request_id.clone_from(&id.0);
            }
            serde_json::to_string(&problem).unwrap_or_default()
        }
        None => {
            let text = axum::body::to_bytes(body, PROBLEM_MAX).await.unwrap_or_default();
            let mut members: Map<String, Value> = serde_json::from_slice(&text).unwrap_or_default();
            members.insert("request_id".into(), id.0.clone().into());
            Value::Object(members).to_string()
        }
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, body.into())
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        0..400 => "ok",
        400..500 => "refused",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_over_only_when_they_cannot_forge_a_log_line() {
        assert_eq!(RequestId::of(Some("a-1_2.3:4")).0, "a-1_2.3:4");
        for bad in [Some("a\nb"), Some("a b"), Some(""), Some(&*"x".repeat(65)), None] {
            let made = RequestId::of(bad).0;
            assert_eq!(made.len(), 24, "{made}");
        }
        assert_ne!(RequestId::of(None), RequestId::of(None));
    }

    #[test]
    fn a_record_s_key_stands_in_no_log() {
        assert_eq!(without_key("/v1/datasets/ds:a%2Fb@1/records/17-089556"), "/v1/datasets/ds:a%2Fb@1/records");
        assert_eq!(without_key("/v1/operations/op:7"), "/v1/operations/op:7");
    }
}
