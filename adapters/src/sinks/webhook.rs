//! Messages posted to an address, a page or a message a request, signed if asked for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use concordat_protocol::hash::hmac_sha256_of;
use reqwest::{StatusCode, Url, header};
use serde::Deserialize;
use serde_json::json;
use serde_saphyr::Spanned;
use tokio::runtime::{Builder, Runtime};

use super::document::Head;
use super::{Message, Sink};
use crate::contract::{AdapterError, ErrorClass, Origin, Reject};
use crate::document::{DocumentError, Period, Secret};
use crate::tls;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Where messages are posted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct To {
    /// The address.
    pub url: Spanned<String>,
    /// A message a request, or a page of JSON lines.
    #[serde(default)]
    pub each: bool,
    /// A token by reference.
    #[serde(default)]
    pub bearer: Option<Secret>,
    /// A secret by reference: the body is signed with HMAC-SHA-256 in `x-hub-signature-256`.
    #[serde(default)]
    pub hmac: Option<Secret>,
    /// Certificates that are trusted, a PEM file.
    #[serde(default)]
    pub ca: Option<String>,
    /// Longest wait for an answer; 30s when left out.
    #[serde(default)]
    pub timeout: Option<Period>,
}

/// Opens the sink.
pub fn open(head: &Head, to: &To, base: &Path) -> Result<Box<dyn Sink>, AdapterError> {
    let bad = |detail: &str| DocumentError::at(&to.url, "to.url", detail);
    let url = Url::parse(&to.url.value).map_err(|_| bad("write https://HOST/PATH"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return Err(bad("write https://HOST/PATH without user and password").into());
    }
    let config = tls::client(base, tls::Files { ca: to.ca.as_deref(), ..tls::Files::default() })?;
    let failed = |detail: String| AdapterError::source_failed(ErrorClass::Permanent, "source.protocol", detail);
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| failed(e.to_string()))?;
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured((*config).clone())
        .connect_timeout(Duration::from_secs(10))
        .timeout(to.timeout.map_or(TIMEOUT, |p| p.0))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|e| failed(e.to_string()))?;
    Ok(Box::new(WebhookSink {
        http,
        runtime: Some(runtime),
        url,
        to: to.clone(),
        base: base.to_owned(),
        place: head.subscription.clone(),
        done: None,
    }))
}

struct WebhookSink {
    http: reqwest::Client,
    runtime: Option<Runtime>,
    url: Url,
    to: To,
    base: PathBuf,
    place: String,
    /// The last message of this page that was taken.
    done: Option<String>,
}

impl Drop for WebhookSink {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A message that a sink does not take for good.
pub(super) fn refused(place: &str, message: &Message, rule: &str, detail: String) -> Reject {
    let origin = Origin::row(place, message.seq);
    Reject {
        line: origin.line,
        origin,
        column: 1,
        field: None,
        rule: rule.to_owned(),
        message: detail,
        raw: message.line(),
        truncated: false,
    }
}

impl WebhookSink {
    fn post(&self, key: &str, content_type: &str, body: Vec<u8>) -> Result<StatusCode, AdapterError> {
        let place = format!("{}{}", self.url.origin().ascii_serialization(), self.url.path());
        let mut request = self
            .http
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, content_type)
            // The same page or message has the same key, so that the receiver can know it again.
            .header("idempotency-key", format!("{}:{key}", self.place));
        if let Some(secret) = &self.to.bearer {
            request = request.bearer_auth(secret.reveal(&self.base)?.as_str());
        }
        if let Some(secret) = &self.to.hmac {
            let signature = sign(secret.reveal(&self.base)?.as_bytes(), &body);
            request = request.header("x-hub-signature-256", format!("sha256={signature}"));
        }
        let Some(runtime) = &self.runtime else { return Ok(StatusCode::SERVICE_UNAVAILABLE) };
        let answer = runtime.block_on(async { request.body(body).send().await });
        let response = answer.map_err(|e| {
            let message = format!("{place}: no answer: {}", e.without_url());
            AdapterError::source_failed(ErrorClass::Transient, "source.unreachable", message)
        })?;
        let status = response.status();
        let (class, code) = match status.as_u16() {
            200..=299 | 400 | 413 | 415 | 422 => return Ok(status),
            401 => (ErrorClass::Auth, "source.login"),
            403 => (ErrorClass::Auth, "source.rights"),
            408 | 425 | 429 | 500..=599 => (ErrorClass::Transient, "source.unreachable"),
            _ => (ErrorClass::Permanent, "source.protocol"),
        };
        let after =
            response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse::<u64>().ok());
        let message = format!("{place}: refused with status {}", status.as_u16());
        Err(AdapterError::Source { class, code, message, retry_after_ms: after.map(|s| s.saturating_mul(1_000)) })
    }

    fn refusal(&self, message: &Message, status: StatusCode) -> Reject {
        refused(
            &self.place,
            message,
            "sink.refused",
            format!("the receiver refused it with status {}", status.as_u16()),
        )
    }

    fn each(&mut self, page: &[Message]) -> Result<Vec<Reject>, AdapterError> {
        let known = self.done.as_ref().and_then(|done| page.iter().position(|m| m.cursor() == *done));
        let mut rejects = Vec::new();
        for message in page.get(known.map_or(0, |n| n + 1)..).unwrap_or_default() {
            let body = json!({"id": message.id, "seq": message.seq, "time": message.time, "data": message.data});
            let status = self.post(&message.cursor(), "application/json", body.to_string().into_bytes())?;
            if !status.is_success() {
                rejects.push(self.refusal(message, status));
            }
            // What a failure leaves is gone on with; what was refused before it would be forgotten otherwise.
            if rejects.is_empty() {
                self.done = Some(message.cursor());
            }
        }
        self.done = None;
        Ok(rejects)
    }
}

impl Sink for WebhookSink {
    fn deliver(&mut self, page: &[Message]) -> Result<Vec<Reject>, AdapterError> {
        if self.to.each {
            return self.each(page);
        }
        let (Some(first), Some(last)) = (page.first(), page.last()) else { return Ok(vec![]) };
        let mut body = Vec::new();
        for message in page {
            body.extend_from_slice(&message.line());
            body.push(b'\n');
        }
        let status = self.post(&format!("{}-{}", first.cursor(), last.cursor()), "application/x-ndjson", body)?;
        if status.is_success() {
            return Ok(vec![]);
        }
        // Which of them it was, nobody said: one by one.
        self.each(page)
    }
}

/// HMAC with SHA-256 (RFC 2104) in hexadecimal.
fn sign(secret: &[u8], body: &[u8]) -> String {
    hex::encode(hmac_sha256_of(secret, &[body]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_standard() {
        // RFC 4231, test cases 2 and 6.
        let two = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(sign(b"Jefe", b"what do ya want for nothing?"), two);
        let six = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
        assert_eq!(sign(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First"), six);
    }
}
