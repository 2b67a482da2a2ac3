//! Reading bodies and parameters, with problems instead of plain refusals.

use super::problem::Problem;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use concordat_executor::query::read_json;
use futures::StreamExt;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How much of a body that is too large is read and thrown away, as a multiple of the limit.
const DISCARDED: usize = 8;
/// Longest time for that.
const DISCARDING: Duration = Duration::from_secs(5);

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "the body is over limits.http_body_bytes")
        .next("send less at once")
}

/// Refuses a body that says itself that it is over `limit` bytes. It is read first, within bounds: a caller that is
/// still writing when the connection closes sees a broken connection in place of the answer (RFC 9112, section 9.6).
pub async fn refuse_large(State(limit): State<usize>, request: Request, next: Next) -> Response {
    let length = header(request.headers(), header::CONTENT_LENGTH.as_str()).and_then(|v| v.parse::<usize>().ok());
    if length.is_none_or(|l| l <= limit) {
        return next.run(request).await;
    }
    let mut body = request.into_body().into_data_stream();
    let discard = async {
        let mut left = limit.saturating_mul(DISCARDED);
        while let Some(Ok(part)) = body.next().await {
            match left.checked_sub(part.len()) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    let _ = tokio::time::timeout(DISCARDING, discard).await;
    too_large().into_response()
}

/// The body's bytes, within the limit.
pub struct Body(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Bytes::from_request(request, state).await.map(Self).map_err(|e| match e.status() {
            StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            _ => Problem::bad_request("the body could not be read to its end"),
        })
    }
}

/// Reads strict JSON: no double members, no unknown ones.
pub fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let value = read_json(bytes).map_err(|e| Problem::bad_request(format!("the body is no JSON object: {e}")))?;
    serde_json::from_value(value).map_err(|e| Problem::bad_request(format!("body: {e}")))
}

/// A value of a header, if it is there and is text.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// Query parameters; unknown ones and those of a wrong kind are refused.
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        read.map(|q| Self(q.0)).map_err(|e| Problem::bad_request(e.body_text()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::Router;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LIMIT: usize = 1 << 20;

    /// A caller that writes its whole body before it reads, as many do.
    async fn write_all_then_read(bytes: usize) -> std::io::Result<String> {
        let routes = Router::new().route("/", post(async |_: Body| "taken"));
        let routes = routes.layer(axum::middleware::from_fn_with_state(LIMIT, refuse_large));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let at = listener.local_addr()?;
        let server = tokio::spawn(async move { axum::serve(listener, routes).await });
        let mut caller = tokio::net::TcpStream::connect(at).await?;
        let head = format!("POST / HTTP/1.1\r\nhost: here\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n");
        caller.write_all(head.as_bytes()).await?;
        caller.write_all(&vec![b' '; bytes]).await?;
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await?;
        server.abort();
        Ok(answer)
    }

    #[tokio::test]
    async fn a_caller_of_too_large_a_body_reads_why() {
        let answer = write_all_then_read(LIMIT * (DISCARDED - 1)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("body-too-large"), "{answer}");
    }

    #[tokio::test]
    async fn what_is_within_the_limit_reaches_its_handler() {
        let answer = write_all_then_read(LIMIT).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("taken"), "{answer}");
    }
}
