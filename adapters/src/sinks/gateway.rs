//! What a sink says to its own agency's gateway.

use std::time::Duration;

use reqwest::{Response, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Message;
use crate::contract::{AdapterError, ErrorClass};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The own gateway, reached with a service token.
#[derive(Clone)]
pub struct Gateway {
    http: reqwest::Client,
    base: String,
    token: String,
}

#[derive(Deserialize)]
struct Page {
    messages: Vec<Message>,
    #[serde(default)]
    cursor: Option<String>,
}

fn failed(class: ErrorClass, code: &'static str, message: String) -> AdapterError {
    AdapterError::source_failed(class, code, message)
}

impl Gateway {
    /// The gateway at `base`, for example `http://127.0.0.1:8443`.
    pub fn new(base: &str, token: &str) -> Result<Self, AdapterError> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| failed(ErrorClass::Permanent, "source.protocol", e.to_string()))?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), token: token.to_owned() })
    }

    fn path(&self, subscription: &str, rest: &str) -> String {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:@".contains(&b);
        let encode = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
        format!("{}/v1/subscriptions/{}/{rest}", self.base, subscription.bytes().map(encode).collect::<String>())
    }

    async fn read(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, AdapterError> {
        let down = |e: reqwest::Error| {
            let detail = format!("the gateway at {} did not answer: {}", self.base, e.without_url());
            failed(ErrorClass::Transient, "source.unreachable", detail)
        };
        let response = request.bearer_auth(&self.token).send().await.map_err(down)?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        response.bytes().await.map(|b| b.to_vec()).map_err(down)
    }

    /// Messages behind what is acknowledged, with the cursor of the last one.
    pub async fn messages(
        &self,
        subscription: &str,
        max: usize,
        wait: Duration,
    ) -> Result<(Vec<Message>, Option<String>), AdapterError> {
        let url = format!("{}?max={max}&wait={}", self.path(subscription, "messages"), wait.as_secs());
        let body = self.read(self.http.get(url)).await?;
        let page: Page = serde_json::from_slice(&body).map_err(|e| {
            failed(ErrorClass::Permanent, "source.protocol", format!("the gateway's answer is not as expected: {e}"))
        })?;
        Ok((page.messages, page.cursor))
    }

    /// Acknowledges everything up to and with a cursor.
    pub async fn acknowledge(&self, subscription: &str, cursor: &str) -> Result<(), AdapterError> {
        let request = self.http.post(self.path(subscription, "acks")).json(&json!({"cursor": cursor}));
        self.read(request).await.map(|_| ())
    }
}

async fn refused(response: Response) -> AdapterError {
    let status = response.status();
    let seconds = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse::<u64>().ok());
    let body: Value = response.json().await.unwrap_or_default();
    let said = body["detail"].as_str().or_else(|| body["title"].as_str()).unwrap_or("no reason given");
    let detail: String = said.chars().take(300).collect();
    let (class, code) = match status {
        StatusCode::UNAUTHORIZED => (ErrorClass::Auth, "source.login"),
        StatusCode::FORBIDDEN => (ErrorClass::Auth, "source.rights"),
        StatusCode::NOT_FOUND | StatusCode::GONE => (ErrorClass::Permanent, "source.missing"),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => (ErrorClass::Transient, "source.unreachable"),
        // A subscription that was paused or sought meanwhile.
        StatusCode::CONFLICT => (ErrorClass::Transient, "source.changed"),
        status if status.is_server_error() => (ErrorClass::Transient, "source.unreachable"),
        _ => (ErrorClass::Permanent, "source.protocol"),
    };
    let message = format!("the gateway refused (status {}): {detail}", status.as_u16());
    AdapterError::Source { class, code, message, retry_after_ms: seconds.map(|s| s.saturating_mul(1_000)) }
}
