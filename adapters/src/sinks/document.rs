//! The document of a sink: members of every sink, and where one kind delivers to.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_saphyr::Spanned;

use crate::document::{DocumentError, OnAuth, OnTransient, Period};
use crate::strict;

/// Most messages of one page, and where nothing is said.
const PAGE: (usize, usize) = (1_000, 500);
/// Longest wait of one question at the gateway.
const WAIT_MAX: Duration = Duration::from_secs(25);

/// What every sink's document says.
#[derive(Debug, Clone)]
pub struct Head {
    /// Name of the sink, 1 to 48 of `a-z 0-9 -`.
    pub sink: String,
    /// The subscription that it delivers.
    pub subscription: String,
    /// Most messages of one page.
    pub max: usize,
    /// Longest wait of one question at the gateway.
    pub wait: Duration,
    /// What to do about errors that may pass.
    pub transient: OnTransient,
    /// What to do about refused credentials.
    pub auth: OnAuth,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, bound = "T: DeserializeOwned")]
struct Doc<T> {
    sink: Spanned<String>,
    #[allow(dead_code)]
    kind: String,
    subscription: Spanned<String>,
    #[serde(default)]
    page: Page,
    #[serde(default)]
    on_error: OnError,
    to: T,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    max: Option<usize>,
    #[serde(default)]
    wait: Option<Period>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnError {
    #[serde(default)]
    transient: OnTransient,
    #[serde(default)]
    auth: OnAuth,
}

/// Reads a document whose `to` is `T`.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<(Head, T), DocumentError> {
    let doc: Doc<T> = strict::from_str(text).map_err(DocumentError::Yaml)?;
    let name = &doc.sink.value;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=48).contains(&name.len()) || !name.bytes().all(plain) || name.starts_with('-') {
        return Err(DocumentError::at(&doc.sink, "sink", "use 1 to 48 of a-z, 0-9 and -"));
    }
    if doc.subscription.value.is_empty() {
        return Err(DocumentError::at(&doc.subscription, "subscription", "name it: `concordat subscription list`"));
    }
    let max = doc.page.max.unwrap_or(PAGE.1);
    let wait = doc.page.wait.map_or(Duration::from_secs(20), |p| p.0);
    if !(1..=PAGE.0).contains(&max) || wait > WAIT_MAX {
        return Err(DocumentError::rule("page", "max from 1 to 1000, wait at most 25s"));
    }
    let head = Head {
        sink: doc.sink.value,
        subscription: doc.subscription.value,
        max,
        wait,
        transient: doc.on_error.transient,
        auth: doc.on_error.auth,
    };
    Ok((head, doc.to))
}
