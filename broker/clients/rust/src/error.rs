//! What can go wrong, and what the broker says of it.

use concordat_protocol::verify::Invalid;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

/// What the broker answers when it refuses (RFC 9457).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Problem {
    /// HTTP status.
    #[serde(default)]
    pub status: u16,
    /// Stable code.
    #[serde(default)]
    pub code: String,
    /// What happened.
    #[serde(default)]
    pub detail: String,
    /// Whether the same request may succeed later.
    #[serde(default)]
    pub retry: bool,
    /// What to do next.
    #[serde(default)]
    pub next: String,
    /// All other members.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Problem {
    pub(crate) fn read(status: u16, bytes: &[u8]) -> Self {
        let plain = || Self {
            status,
            code: String::new(),
            detail: String::from_utf8_lossy(bytes).into_owned(),
            retry: false,
            next: String::new(),
            more: Map::new(),
        };
        serde_json::from_slice(bytes).map_or_else(|_| plain(), |p: Self| Self { status, ..p })
    }
}

/// Why a call did not succeed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The broker's address.
    #[error("the broker's address: {0}")]
    Address(String),
    /// The connection.
    #[error("the broker cannot be reached: {0}")]
    Http(#[from] reqwest::Error),
    /// The broker refused.
    #[error("{} {}: {}", .0.status, .0.code, .0.detail)]
    Problem(Box<Problem>),
    /// What it answered is not what its API says.
    #[error("the broker's answer: {0}")]
    Json(#[from] serde_json::Error),
    /// `trust.json`.
    #[error("trust.json: {0}")]
    Trust(String),
    /// The answer is not proven.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl ClientError {
    /// A stable name of the error.
    pub fn code(&self) -> &str {
        match self {
            Self::Address(_) => "address",
            Self::Http(_) => "http",
            Self::Problem(p) => &p.code,
            Self::Json(_) => "json",
            Self::Trust(_) => "trust",
            Self::Invalid(e) => e.code(),
        }
    }
}
