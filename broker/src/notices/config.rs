//! `notices:` of `node.yaml`.

use crate::config::SecretRef;
use serde::{Deserialize, Serialize};

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// What is told, how often it is looked for, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoticesConfig {
    /// How many days before its end an agreement's expiry is told.
    #[serde(default = "default_days")]
    pub expires_within_days: u64,
    /// How often new ones are looked for, milliseconds.
    #[serde(default = "default_every_ms")]
    pub every_ms: u64,
    /// How long after a failed attempt the next one is made, milliseconds; it doubles each time, up to an hour.
    #[serde(default = "default_retry_ms")]
    pub retry_ms: u64,
    /// After so many failed attempts a notice is dead: it stays in the list and is not sent any more.
    #[serde(default = "default_attempts")]
    pub attempts: u32,
    /// By HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookConfig>,
    /// By mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<MailConfig>,
}

/// Where notices are posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// `https://…`
    pub url: String,
    /// The secret that bodies are signed with (HMAC-SHA-256), by reference; 32 characters or more.
    pub secret: SecretRef,
}

/// Where notices are mailed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailConfig {
    /// `smtps://host`, `smtp://host:587?tls=required`, or `smtp://host:25` without TLS, for a server on the same machine.
    pub server: String,
    /// The user, where the server asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password, by reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
    /// Who sends: `Concordat <concordat@police.example>`.
    pub from: String,
    /// Who gets it.
    pub to: Vec<String>,
}

fn default_days() -> u64 {
    30
}
fn default_every_ms() -> u64 {
    30_000
}
fn default_retry_ms() -> u64 {
    10_000
}
fn default_attempts() -> u32 {
    10
}

impl Default for NoticesConfig {
    fn default() -> Self {
        Self {
            expires_within_days: default_days(),
            every_ms: default_every_ms(),
            retry_ms: default_retry_ms(),
            attempts: default_attempts(),
            webhook: None,
            mail: None,
        }
    }
}

impl NoticesConfig {
    /// How long before its end an expiry is told, milliseconds.
    #[must_use]
    pub fn expires_within_ms(&self) -> u64 {
        self.expires_within_days.saturating_mul(DAY_MS)
    }
}
