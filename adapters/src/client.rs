//! What an adapter says to its agency's broker over loopback HTTP.
//!
//! - `GET /v1/intake/{adapter}` answers `{"batch_no": n, "checkpoint": base64}`: the newest durable batch.
//! - `POST /v1/datasets/{dataset}/messages` takes one batch, a line an event, with the headers
//!   `concordat-adapter`, `concordat-batch` and `concordat-checkpoint`, and `concordat-after`: SHA-256 of the checkpoint
//!   before it, so that a batch never follows one of another reading of the source. Without these headers the messages
//!   are nobody's batch: dead letters that are replayed.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use concordat_protocol::hash::sha256;
use reqwest::{RequestBuilder, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;

use crate::contract::{AdapterError, Checkpoint, Origin, Reject};

pub use crate::lines::event_lines;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest piece of an error answer that is repeated to the user.
const DETAIL_CHARS_MAX: usize = 300;

/// The newest durable batch of an adapter; number 0 and the start when there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// Number of the batch.
    pub batch_no: u64,
    /// Where the next one begins.
    pub checkpoint: Checkpoint,
}

/// One line of a batch that the broker refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineError {
    /// Index in the batch, from 0.
    pub index: usize,
    /// Rule, as `broker.<code>`.
    pub rule: String,
    /// What is wrong.
    pub message: String,
}

impl Reject {
    /// A record whose line the broker refused.
    pub fn by_broker(origin: Origin, raw: Vec<u8>, error: &LineError) -> Self {
        Self {
            line: origin.line,
            origin,
            column: 1,
            field: None,
            rule: error.rule.clone(),
            message: error.message.clone(),
            raw,
            truncated: false,
        }
    }
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The whole batch is durable.
    Accepted {
        /// Events taken.
        accepted: u64,
        /// Events that were known already.
        duplicates: u64,
    },
    /// The broker is elsewhere: go on from there.
    Resume(Position),
    /// Nothing was taken; these lines must go.
    Refused(Vec<LineError>),
}

/// A batch on its way.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Name of the adapter.
    pub adapter: &'a str,
    /// Dataset id.
    pub dataset: &'a str,
    /// Number of the batch: one more than the newest durable one.
    pub batch_no: u64,
    /// Where the source goes on once the batch is durable.
    pub checkpoint: &'a Checkpoint,
    /// The checkpoint of the batch before it: the broker refuses the batch behind another one.
    pub after: &'a Checkpoint,
}

/// A broker, reached with the adapter's service token. Cheap to clone.
#[derive(Clone)]
pub struct BrokerClient {
    http: reqwest::Client,
    base: String,
    token: String,
}

#[derive(Deserialize)]
struct PositionBody {
    batch_no: u64,
    #[serde(default)]
    checkpoint: Option<String>,
}

#[derive(Deserialize)]
struct AcceptedBody {
    accepted: u64,
    #[serde(default)]
    duplicates: u64,
}

#[derive(Deserialize)]
struct RefusedBody {
    errors: Vec<RefusedLine>,
}

#[derive(Deserialize)]
struct RefusedLine {
    line: usize,
    #[serde(default)]
    code: Option<Value>,
    #[serde(default)]
    message: String,
}

impl BrokerClient {
    /// A client for the broker at `base`, for example `http://127.0.0.1:8443`.
    pub fn new(base: &str, token: &str) -> Result<Self, AdapterError> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| AdapterError::Unreachable { broker: base.to_owned(), detail: e.to_string() })?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), token: token.to_owned() })
    }

    /// Where the adapter goes on.
    pub async fn position(&self, adapter: &str) -> Result<Position, AdapterError> {
        let url = format!("{}/v1/intake/{}", self.base, path_segment(adapter));
        let response = self.send(self.http.get(url)).await?;
        let status = response.status();
        let body = self.body(response).await?;
        match status {
            StatusCode::OK => read_position(status, &body),
            _ => Err(failure(status, &body, None)),
        }
    }

    /// Posts one batch.
    pub async fn post(&self, out: Outgoing<'_>, body: Vec<u8>) -> Result<Answer, AdapterError> {
        let request = self
            .messages(out.dataset)
            .header("concordat-adapter", out.adapter)
            .header("concordat-batch", out.batch_no)
            .header("concordat-checkpoint", STANDARD.encode(&out.checkpoint.0))
            .header("concordat-after", hex::encode(sha256(&[&out.after.0])));
        self.answer(request.body(body)).await
    }

    /// Posts messages that no adapter's place stands behind; at most as many as a batch holds. They are taken whole or
    /// not at all, and durable when accepted. Sent twice, they are in the stream twice, under the same ids.
    pub async fn publish(&self, dataset: &str, body: Vec<u8>) -> Result<Answer, AdapterError> {
        self.answer(self.messages(dataset).body(body)).await
    }

    fn messages(&self, dataset: &str) -> RequestBuilder {
        let url = format!("{}/v1/datasets/{}/messages", self.base, path_segment(dataset));
        self.http.post(url).header(header::CONTENT_TYPE, "application/x-ndjson")
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Answer, AdapterError> {
        let response = self.send(request).await?;
        let status = response.status();
        let retry_after_ms = retry_after(&response);
        let body = self.body(response).await?;
        match status {
            StatusCode::OK => {
                let answer: AcceptedBody = read(status, &body)?;
                Ok(Answer::Accepted { accepted: answer.accepted, duplicates: answer.duplicates })
            }
            StatusCode::CONFLICT => read_position(status, &body).map(Answer::Resume),
            StatusCode::UNPROCESSABLE_ENTITY => read_refused(status, &body),
            _ => Err(failure(status, &body, retry_after_ms)),
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, AdapterError> {
        request.bearer_auth(&self.token).send().await.map_err(|e| self.unreachable(&e))
    }

    async fn body(&self, response: Response) -> Result<Vec<u8>, AdapterError> {
        response.bytes().await.map(|b| b.to_vec()).map_err(|e| self.unreachable(&e))
    }

    fn unreachable(&self, error: &reqwest::Error) -> AdapterError {
        let reason = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        AdapterError::Unreachable { broker: self.base.clone(), detail: reason }
    }
}

fn read<T: serde::de::DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, AdapterError> {
    serde_json::from_slice(body).map_err(|e| AdapterError::Refused {
        status: status.as_u16(),
        detail: format!("its answer is not the expected JSON: {e}"),
    })
}

fn read_position(status: StatusCode, body: &[u8]) -> Result<Position, AdapterError> {
    let answer: PositionBody = read(status, body)?;
    let bytes = STANDARD
        .decode(answer.checkpoint.unwrap_or_default())
        .map_err(|e| AdapterError::Checkpoint { detail: format!("not base64: {e}") })?;
    Ok(Position { batch_no: answer.batch_no, checkpoint: Checkpoint(bytes) })
}

fn read_refused(status: StatusCode, body: &[u8]) -> Result<Answer, AdapterError> {
    let answer: RefusedBody = read(status, body)?;
    let lines = answer.errors.into_iter().map(|e| {
        let code = match e.code {
            Some(Value::String(code)) => code,
            Some(code) => code.to_string(),
            None => "refused".to_owned(),
        };
        LineError { index: e.line.wrapping_sub(1), rule: format!("broker.{code}"), message: e.message }
    });
    Ok(Answer::Refused(lines.collect()))
}

fn failure(status: StatusCode, body: &[u8], retry_after_ms: Option<u64>) -> AdapterError {
    let text = String::from_utf8_lossy(body);
    let detail: String = serde_json::from_str::<Value>(&text)
        .ok()
        .and_then(|v| v.get("detail").or_else(|| v.get("title")).and_then(Value::as_str).map(str::to_owned))
        .unwrap_or_else(|| text.into_owned())
        .chars()
        .take(DETAIL_CHARS_MAX)
        .collect();
    let number = status.as_u16();
    match number {
        401 | 403 => AdapterError::Forbidden { status: number, detail },
        408 | 425 | 429 | 500..=599 => AdapterError::Busy { status: number, detail, retry_after_ms },
        _ => AdapterError::Refused { status: number, detail },
    }
}

fn retry_after(response: &Response) -> Option<u64> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse::<u64>().ok().map(|s| s.saturating_mul(1_000))
}

/// Percent-encodes one path segment: a dataset id holds a slash.
fn path_segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 4);
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b':' | b'@') {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_is_one_path_segment() {
        assert_eq!(path_segment("ds:grid/load@1"), "ds:grid%2Fload@1");
        assert_eq!(path_segment("a b/../c"), "a%20b%2F..%2Fc");
    }

    #[test]
    fn statuses_have_their_class() {
        use crate::contract::ErrorClass::{Auth, Permanent, Transient};
        for (status, class) in [
            (401, Auth),
            (403, Auth),
            (429, Transient),
            (503, Transient),
            (500, Transient),
            (404, Permanent),
            (400, Permanent),
            (413, Permanent),
        ] {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            assert_eq!(failure(status, b"{\"detail\":\"why\"}", None).class(), class, "{status}");
        }
    }
}
