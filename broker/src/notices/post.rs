//! Notices by HTTP: JSON, signed so that the receiver knows who sent it and when.

use super::{Deliver, WebhookConfig};
use crate::config::ConfigError;
use concordat_protocol::hash::{hmac_sha256, sha256};
use futures::future::BoxFuture;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use thiserror::Error;
use zeroize::Zeroizing;

/// How long the receiver may take.
const WITHIN: Duration = Duration::from_secs(10);
/// Fewest characters of a secret.
const SECRET_CHARS_MIN: usize = 32;

/// Why a notice was not posted.
#[derive(Debug, Error)]
pub enum PostError {
    /// No connection, or none in time.
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    /// The receiver did not take it.
    #[error("the receiver answered {0}")]
    Status(u16),
}

impl PostError {
    /// A stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Http(_) => "webhook-unreachable",
            Self::Status(_) => "webhook-refused",
        }
    }
}

/// `Concordat-Signature`: `t=<seconds since 1970>,v1=<hex>`, HMAC-SHA-256 over `t`, a full stop and the body, under the
/// SHA-256 of the secret.
#[must_use]
pub fn signature(secret: &str, seconds: u64, body: &[u8]) -> String {
    let key = Zeroizing::new(sha256(&[secret.as_bytes()]));
    let mac = hmac_sha256(&key, &[seconds.to_string().as_bytes(), b".", body]);
    format!("t={seconds},v1={}", hex::encode(mac))
}

/// A receiver.
pub struct Webhook {
    http: reqwest::Client,
    url: String,
    secret: Zeroizing<String>,
}

impl Webhook {
    /// As configured.
    ///
    /// # Errors
    /// A secret that is not there or too short.
    pub fn new(config: &WebhookConfig, dir: &Path) -> Result<Self, ConfigError> {
        let bad = |field: &str, rule: &str| ConfigError::Field {
            path: dir.join(crate::config::NODE_FILE),
            field: field.into(),
            rule: rule.into(),
        };
        if !config.url.starts_with("https://") && !config.url.starts_with("http://") {
            return Err(bad("notices.webhook.url", "must be an https:// address"));
        }
        let secret = config.secret.resolve(dir)?;
        if secret.trim().len() < SECRET_CHARS_MIN {
            return Err(bad("notices.webhook.secret", "must have 32 characters or more"));
        }
        let http = reqwest::Client::builder().timeout(WITHIN).redirect(reqwest::redirect::Policy::none()).build();
        let http = http.map_err(|e| bad("notices.webhook", &e.to_string()))?;
        Ok(Self { http, url: config.url.clone(), secret: Zeroizing::new(secret.trim().to_owned()) })
    }

    async fn post(&self, notice: &Value) -> Result<(), PostError> {
        let body = notice.to_string().into_bytes();
        let signed = signature(&self.secret, super::now_ms() / 1_000, &body);
        // The same id again is the same notice: a receiver may have taken it without our hearing so.
        let id = notice["id"].as_str().unwrap_or_default();
        let request = self.http.post(&self.url).header("content-type", "application/json");
        let request = request.header("concordat-notice", id).header("concordat-signature", signed).body(body);
        let status = request.send().await?.status();
        if status.is_success() { Ok(()) } else { Err(PostError::Status(status.as_u16())) }
    }
}

impl Deliver for Webhook {
    fn deliver<'a>(&'a self, notice: &'a Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { self.post(notice).await.map_err(|e| format!("{}: {e}", e.code())) })
    }
}
