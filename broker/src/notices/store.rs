//! What was told, and what waits to be: durable, so that a restart tells nothing twice and forgets nothing.

use super::Notice;
use crate::store::{Store, StoreError};
use rusqlite::{Row, params};
use serde_json::Value;

/// The table of this module, made when the store opens.
pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS notice (
  id TEXT NOT NULL, channel TEXT NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
  next_ms INTEGER NOT NULL, error TEXT, PRIMARY KEY (id, channel)) STRICT;
CREATE INDEX IF NOT EXISTS notice_due ON notice (next_ms) WHERE state = 'waiting';
";

/// Longest time between two attempts, milliseconds.
const RETRY_MAX_MS: u64 = 3_600_000;
/// Most notices of one round.
const ROUND: u32 = 100;

/// How somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// By HTTP.
    Webhook,
    /// By mail.
    Mail,
}

impl Channel {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Mail => "mail",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Webhook, Self::Mail].into_iter().find(|c| c.word() == word)
    }
}

/// A notice that is to be told now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its name.
    pub id: String,
    /// How.
    pub channel: Channel,
    /// What.
    pub notice: Value,
    /// Attempts made.
    pub attempts: u32,
}

/// The store of notices. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    store: Store,
    retry_ms: u64,
    attempts: u32,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Option<Waiting>> {
    let (channel, body): (String, String) = (row.get(1)?, row.get(2)?);
    let notice = serde_json::from_str(&body).unwrap_or_default();
    let (id, attempts) = (row.get(0)?, row.get(3)?);
    Ok(Channel::from_word(&channel).map(|channel| Waiting { id, channel, notice, attempts }))
}

impl Outbox {
    /// Over the broker's store.
    pub fn new(store: Store, retry_ms: u64, attempts: u32) -> Self {
        Self { store, retry_ms, attempts }
    }

    /// Keeps notices that were not kept before; they are due at once.
    pub async fn keep(&self, channel: Channel, found: &[Notice], now_ms: u64) -> Result<(), StoreError> {
        let rows: Vec<(String, String)> = found.iter().map(|n| (n.id.clone(), n.to_json().to_string())).collect();
        if rows.is_empty() {
            return Ok(());
        }
        self.store
            .run(move |db| {
                let sql = "INSERT OR IGNORE INTO notice (id, channel, body, state, attempts, next_ms) VALUES (?1, ?2, ?3, 'waiting', 0, ?4)";
                let mut insert = db.prepare_cached(sql)?;
                for (id, body) in rows {
                    insert.execute(params![id, channel.word(), body, now_ms as i64])?;
                }
                Ok(())
            })
            .await
    }

    /// Those that are due, oldest first.
    pub async fn due(&self, now_ms: u64) -> Result<Vec<Waiting>, StoreError> {
        let sql = "SELECT id, channel, body, attempts FROM notice WHERE state = 'waiting' AND next_ms <= ?1 ORDER BY next_ms, id LIMIT ?2";
        let run = move |db: &rusqlite::Connection| -> rusqlite::Result<Vec<Option<Waiting>>> {
            db.prepare_cached(sql)?.query_map(params![now_ms as i64, ROUND], read)?.collect()
        };
        Ok(self.store.run(run).await?.into_iter().flatten().collect())
    }

    /// Keeps what became of an attempt: told, to be tried again, or dead.
    pub async fn tried(&self, waiting: &Waiting, error: Option<String>, now_ms: u64) -> Result<(), StoreError> {
        let attempts = waiting.attempts.saturating_add(1);
        let state = match &error {
            None => "sent",
            Some(_) if attempts >= self.attempts => "dead",
            Some(_) => "waiting",
        };
        let wait = self.retry_ms.saturating_mul(1 << attempts.saturating_sub(1).min(20)).min(RETRY_MAX_MS);
        let (id, channel, next) = (waiting.id.clone(), waiting.channel.word(), now_ms.saturating_add(wait));
        self.store
            .run(move |db| {
                let sql = "UPDATE notice SET state = ?3, attempts = ?4, next_ms = ?5, error = ?6 WHERE id = ?1 AND channel = ?2";
                db.execute(sql, params![id, channel, state, attempts, next as i64, error]).map(drop)
            })
            .await
    }

    /// What became of every notice: (id, channel, state).
    pub async fn states(&self) -> Result<Vec<(String, String, String)>, StoreError> {
        let sql = "SELECT id, channel, state FROM notice";
        self.store
            .run(move |db| db.prepare_cached(sql)?.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?.collect())
            .await
    }
}
