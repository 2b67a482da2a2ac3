//! Time-stamps of checkpoints: asked from an authority over HTTP, checked, and kept in the broker's store.

use super::tsp::{self, NONCE_LEN, RESPONSE_BYTES_MAX, Stamp, TspError};
use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use crate::store::{Store, StoreError};
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::evidence::TimeStamp;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::receipt::Checkpoint;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;
use tracing::{info, warn};

/// Table of this module, made when the store opens.
pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS timestamp (
  id INTEGER PRIMARY KEY, height INTEGER NOT NULL, tsa TEXT NOT NULL, at_ms INTEGER NOT NULL,
  stamp BLOB NOT NULL, certificates BLOB NOT NULL) STRICT;
";
/// Longest wait for an authority.
const WITHIN: Duration = Duration::from_secs(30);
/// After a failure the task waits so long, or `every` when that is shorter.
const AGAIN: Duration = Duration::from_secs(600);
/// Shortest `every`.
const EVERY_MIN: Duration = Duration::from_secs(60);

/// `timestamp` in `node.yaml`: the broker has the newest checkpoint stamped by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimestampConfig {
    /// The authority, `http://host/path`.
    pub url: String,
    /// Its certificate, PEM or DER, relative to the node's folder. Several PEM blocks are allowed.
    pub certificate: PathBuf,
    /// How often: `1d`, `6h`, `90m`.
    #[serde(default = "daily")]
    pub every: String,
}

fn daily() -> String {
    "1d".into()
}

impl TimestampConfig {
    /// How often, at least every minute.
    ///
    /// # Errors
    /// The rule that the text breaks.
    pub fn every(&self) -> Result<Duration, &'static str> {
        let rule = "is a duration of at least 1m: write 1d, 6h or 90m";
        let span: jiff::Span = self.every.parse().map_err(|_| rule)?;
        let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| rule)?;
        Duration::try_from(duration).ok().filter(|d| *d >= EVERY_MIN).ok_or(rule)
    }
}

/// Why there is no time-stamp.
#[derive(Debug, Error)]
pub enum TimestampError {
    /// The token or the answer.
    #[error(transparent)]
    Tsp(#[from] TspError),
    /// The authority does not answer.
    #[error("the time-stamp authority {url} does not answer: {why}")]
    Down {
        /// Its address.
        url: String,
        /// What happened.
        why: String,
    },
    /// The address is not one.
    #[error(
        "\"{0}\" is no address of a time-stamp authority: write http://host/path (tokens are signed; https is not built in)"
    )]
    Url(String),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger has no checkpoint yet.
    #[error("the ledger has no checkpoint yet: one is due after checkpoint_ms when the log grew; try again later")]
    NoCheckpoint,
    /// The system gives no randomness.
    #[error("the operating system gives no randomness")]
    Random,
}

impl TimestampError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Tsp(e) => e.code(),
            Self::Down { .. } => "timestamp-authority-down",
            Self::Url(_) => "timestamp-url",
            Self::Ledger(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::NoCheckpoint => "timestamp-no-checkpoint",
            Self::Random => "timestamp-random",
        }
    }
}

/// What a token's imprint is of a checkpoint: SHA-256 of its canonical bytes.
pub fn imprint(checkpoint: &Checkpoint) -> Hash {
    sha256(&[&cbor::encode(checkpoint)])
}

/// A kept time-stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its number in this store.
    pub id: i64,
    /// The authority's address.
    pub tsa: String,
    /// When it came, own clock, milliseconds.
    pub at_ms: i64,
    /// Checkpoint and token.
    pub stamp: TimeStamp,
    /// The certificates that were given for the authority, DER.
    pub certificates: Vec<Vec<u8>>,
}

impl Kept {
    /// Judges the token again, with the certificates kept or with others.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn check(&self, certificates: Option<&[Vec<u8>]>) -> Result<(Stamp, i64), TspError> {
        let given = certificates.unwrap_or(&self.certificates);
        let stamp = tsp::check_token(&self.stamp.token, &imprint(&self.stamp.checkpoint), given)?;
        let lag = stamp.lag_ms(self.stamp.checkpoint.tick_ms)?;
        Ok((stamp, lag))
    }
}

/// Asks an authority for a time-stamp of a checkpoint and judges its answer.
///
/// # Errors
/// The authority does not answer, refuses, or answers something that does not hold.
pub async fn ask(
    url: &str,
    certificates: &[Vec<u8>],
    checkpoint: &Checkpoint,
) -> Result<(TimeStamp, Stamp), TimestampError> {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(|_| TimestampError::Random)?;
    let imprint = imprint(checkpoint);
    let response = post(url, tsp::request(&imprint, nonce)?).await?;
    let (token, stamp) = tsp::check_response(&response, &imprint, nonce, certificates)?;
    stamp.lag_ms(checkpoint.tick_ms)?;
    Ok((TimeStamp { checkpoint: checkpoint.clone(), token: Bytes(token) }, stamp))
}

async fn post(url: &str, request: Vec<u8>) -> Result<Vec<u8>, TimestampError> {
    if !url.starts_with("http://") {
        return Err(TimestampError::Url(url.to_owned()));
    }
    let down = |why: String| TimestampError::Down { url: url.to_owned(), why };
    let broken = |e: reqwest::Error| down(e.without_url().to_string());
    // No redirects: the operator named the authority, and nobody else chooses where this agency's broker asks.
    let client = reqwest::Client::builder().timeout(WITHIN).redirect(reqwest::redirect::Policy::none());
    let request =
        client.build().map_err(broken)?.post(url).header("content-type", "application/timestamp-query").body(request);
    let mut response = request.send().await.map_err(broken)?;
    if !response.status().is_success() {
        return Err(down(format!("HTTP status {}", response.status().as_u16())));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > RESPONSE_BYTES_MAX {
            return Err(down(format!("the answer is over {RESPONSE_BYTES_MAX} bytes")));
        }
    }
    Ok(bytes)
}

/// The kept time-stamps of a broker's store.
#[derive(Clone)]
pub struct TimeStamps {
    store: Store,
}

const COLUMNS: &str = "SELECT id, tsa, at_ms, stamp, certificates FROM timestamp";

fn kept(r: &rusqlite::Row<'_>) -> rusqlite::Result<Kept> {
    let bad = |e: cbor::CborError| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, e.to_string().into())
    };
    let certificates: Vec<Bytes> = cbor::decode(&r.get::<_, Vec<u8>>(4)?).map_err(bad)?;
    Ok(Kept {
        id: r.get(0)?,
        tsa: r.get(1)?,
        at_ms: r.get(2)?,
        stamp: cbor::decode(&r.get::<_, Vec<u8>>(3)?).map_err(bad)?,
        certificates: certificates.into_iter().map(|c| c.0).collect(),
    })
}

impl TimeStamps {
    /// In this store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Keeps one; returns it with its number.
    ///
    /// # Errors
    /// The store's.
    pub async fn keep(&self, tsa: String, stamp: TimeStamp, certificates: Vec<Vec<u8>>) -> Result<Kept, StoreError> {
        let at_ms = Timestamp::now().as_millisecond();
        let height = i64::try_from(stamp.checkpoint.height).unwrap_or(i64::MAX);
        let given = cbor::encode(&certificates.iter().cloned().map(Bytes).collect::<Vec<_>>());
        let (row, name) = (cbor::encode(&stamp), tsa.clone());
        let id = self
            .store
            .run(move |db| {
                let sql = "INSERT INTO timestamp (height, tsa, at_ms, stamp, certificates) VALUES (?1, ?2, ?3, ?4, ?5)";
                db.execute(sql, (height, name, at_ms, row, given))?;
                Ok(db.last_insert_rowid())
            })
            .await?;
        Ok(Kept { id, tsa, at_ms, stamp, certificates })
    }

    /// The newest ones first.
    ///
    /// # Errors
    /// The store's.
    pub async fn newest(&self, limit: u32) -> Result<Vec<Kept>, StoreError> {
        let sql = format!("{COLUMNS} ORDER BY id DESC LIMIT ?1");
        self.store.run(move |db| db.prepare(&sql)?.query_map([limit], kept)?.collect()).await
    }

    /// Those of one checkpoint.
    ///
    /// # Errors
    /// The store's.
    pub async fn of_checkpoint(&self, height: u64) -> Result<Vec<Kept>, StoreError> {
        let height = i64::try_from(height).unwrap_or(i64::MAX);
        let sql = format!("{COLUMNS} WHERE height = ?1 ORDER BY id");
        self.store.run(move |db| db.prepare(&sql)?.query_map([height], kept)?.collect()).await
    }

    /// One.
    ///
    /// # Errors
    /// The store's.
    pub async fn one(&self, id: i64) -> Result<Option<Kept>, StoreError> {
        let sql = format!("{COLUMNS} WHERE id = ?1");
        self.store
            .run(move |db| Ok(db.prepare(&sql)?.query_map([id], kept)?.collect::<rusqlite::Result<Vec<_>>>()?.pop()))
            .await
    }

    /// Has the newest checkpoint stamped and keeps the token.
    ///
    /// # Errors
    /// Nothing is kept then.
    pub async fn stamp(
        &self,
        node: &NodeClient,
        url: &str,
        certificates: Vec<Vec<u8>>,
    ) -> Result<(Kept, Stamp), TimestampError> {
        let view = node.checkpoints(0).await?.pop().ok_or(TimestampError::NoCheckpoint)?;
        let (token, stamp) = ask(url, &certificates, &view.checkpoint).await?;
        Ok((self.keep(url.to_owned(), token, certificates).await?, stamp))
    }

    /// Stamps every so often, for ever. A checkpoint that this authority stamped already is left alone.
    pub async fn every(self, node: NodeClient, url: String, certificates: Vec<Vec<u8>>, every: Duration) {
        loop {
            let pause = match self.due(&node, &url, &certificates, every).await {
                Ok(wait) => wait,
                Err(e) => {
                    warn!(code = e.code(), tsa = url, error = %e, "no time-stamp of the newest checkpoint");
                    every.min(AGAIN)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn due(
        &self,
        node: &NodeClient,
        url: &str,
        certificates: &[Vec<u8>],
        every: Duration,
    ) -> Result<Duration, TimestampError> {
        let last = self.newest(100).await?.into_iter().find(|k| k.tsa == url);
        if let Some(last) = &last {
            let age = u64::try_from(Timestamp::now().as_millisecond().saturating_sub(last.at_ms)).unwrap_or(0);
            let left = every.saturating_sub(Duration::from_millis(age));
            if !left.is_zero() {
                return Ok(left);
            }
        }
        let view = node.checkpoints(0).await?.pop().ok_or(TimestampError::NoCheckpoint)?;
        if last.is_some_and(|l| l.stamp.checkpoint == view.checkpoint) {
            return Ok(every.min(AGAIN));
        }
        let (token, stamp) = ask(url, certificates, &view.checkpoint).await?;
        self.keep(url.to_owned(), token, certificates.to_vec()).await?;
        info!(tsa = url, height = view.checkpoint.height, time_ms = stamp.time_ms, "checkpoint stamped");
        Ok(every)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use concordat_protocol::node::StoreRoots;

    #[tokio::test]
    async fn time_stamps_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = TimeStamps::new(Store::open(&dir.path().join("broker/broker.sqlite")).unwrap());
        assert!(store.newest(9).await.unwrap().is_empty());
        let roots = StoreRoots { heads: [1; 32], log: [2; 32], meta: [3; 32], runs: [4; 32] };
        let checkpoint = Checkpoint { chain: "city".into(), height: 7, tick_ms: 8, log_size: 9, roots };
        let stamp = TimeStamp { checkpoint, token: Bytes(vec![1, 2]) };
        let kept = store.keep("http://tsa".into(), stamp.clone(), vec![vec![5]]).await.unwrap();
        assert_eq!(store.newest(9).await.unwrap(), vec![kept.clone()]);
        assert_eq!(store.of_checkpoint(7).await.unwrap(), vec![kept.clone()]);
        assert!(store.of_checkpoint(8).await.unwrap().is_empty());
        assert_eq!(store.one(kept.id).await.unwrap(), Some(kept));
    }

    #[test]
    fn how_often_is_a_duration() {
        let every = |text: &str| {
            TimestampConfig { url: "http://tsa".into(), certificate: "tsa.pem".into(), every: text.into() }.every()
        };
        assert_eq!(every("1d"), Ok(Duration::from_secs(86_400)));
        assert_eq!(every("90m"), Ok(Duration::from_secs(5_400)));
        for bad in ["", "1", "30s", "-1d", "1mo", "often"] {
            assert!(every(bad).is_err(), "{bad}");
        }
    }
}
