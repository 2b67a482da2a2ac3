//! Reading bodies and parameters, with problems instead of plain refusals.

use super::problem::Problem;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use concordat_executor::query::read_json;
use serde::de::DeserializeOwned;

/// The body's bytes, within the limit.
pub struct Body(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Bytes::from_request(request, state).await.map(Self).map_err(|e| match e.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "the body is over limits.http_body_bytes")
                    .next("send less at once")
            }
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
