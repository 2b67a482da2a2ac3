//! What the consumer keeps of its subscriptions: those it created, how far each is acknowledged, seeks under way, places
//! of the feed stream, and deliveries that did not prove themselves.

use super::buffer::{Acked, Start};
use crate::store::{Store, StoreError};
use concordat_protocol::ids::{AgencyId, DatasetId};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

/// Places are kept a little longer than the exchange keeps items, milliseconds.
const INDEX_MS: u64 = 8 * 24 * 3_600_000;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS subscription (
  provider TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL UNIQUE, agreement TEXT NOT NULL,
  version INTEGER NOT NULL, clause TEXT NOT NULL, handle INTEGER NOT NULL, dataset TEXT NOT NULL,
  max_lag_ms INTEGER NOT NULL, filter TEXT NOT NULL, fields TEXT NOT NULL, purpose TEXT NOT NULL, case_ref TEXT NOT NULL,
  created_by TEXT NOT NULL, created_ms INTEGER NOT NULL, ending INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (provider, number)) STRICT;
CREATE TABLE IF NOT EXISTS feed_state (
  provider TEXT NOT NULL, number INTEGER NOT NULL, sub_seq INTEGER NOT NULL DEFAULT 0, messages INTEGER NOT NULL DEFAULT 0,
  place INTEGER NOT NULL DEFAULT 0, seek TEXT, paused_by TEXT, paused_ms INTEGER,
  PRIMARY KEY (provider, number)) STRICT;
CREATE TABLE IF NOT EXISTS feed_index (
  provider TEXT NOT NULL, number INTEGER NOT NULL, sub_seq INTEGER NOT NULL, place INTEGER NOT NULL,
  delivered_ms INTEGER NOT NULL, PRIMARY KEY (provider, number, sub_seq)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS feed_refused (
  provider TEXT NOT NULL, number INTEGER NOT NULL, n INTEGER NOT NULL, at_ms INTEGER NOT NULL, place INTEGER NOT NULL,
  code TEXT NOT NULL, sentence TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL, bytes BLOB,
  PRIMARY KEY (provider, number, n)) STRICT;
CREATE TABLE IF NOT EXISTS feed_position (
  subscription INTEGER PRIMARY KEY, sub_seq INTEGER NOT NULL, messages INTEGER NOT NULL) STRICT;
";

/// A subscription everywhere: numbers are unique at one provider only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Who delivers.
    pub provider: AgencyId,
    /// Its number there.
    pub number: u64,
}

impl Key {
    pub(super) fn sql(&self) -> (String, i64) {
        (self.provider.to_string(), self.number as i64)
    }
}

/// A subscription that this agency created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its key.
    pub key: Key,
    /// This agency's own name of it.
    pub name: String,
    /// `AGR-2026-0143`
    pub agreement: String,
    /// The version under which it was created.
    pub version: u64,
    /// The clause's id.
    pub clause: String,
    /// The clause's handle in that version.
    pub handle: u64,
    /// The dataset.
    pub dataset: DatasetId,
    /// The clause's bound in that version, milliseconds.
    pub max_lag_ms: u64,
    /// JSON, or empty.
    pub filter: String,
    /// JSON list of fields asked for; `[]` for all that the clause opens.
    pub fields: String,
    /// `purp:...` or empty.
    pub purpose: String,
    /// Case reference or empty.
    pub case: String,
    /// Name of the token that created it.
    pub created_by: String,
    /// When, milliseconds.
    pub created_ms: u64,
    /// Whether its deletion has begun.
    pub ending: bool,
}

/// A seek under way: durable before anything moves, gone with the first acknowledgement after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seek {
    /// What the next delivery is.
    pub start: Start,
    /// Place of the feed stream at or before it.
    pub place: u64,
}

/// How a subscription stood when it was last written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Acknowledged so far.
    pub acked: Acked,
    /// Place of the last delivery acknowledged whole; 0 where it is not known.
    pub place: u64,
    /// A seek under way.
    pub seek: Option<Seek>,
    /// By whom and when it was paused, milliseconds.
    pub paused: Option<(String, u64)>,
    /// Newest place kept: number of the delivery and its time.
    pub indexed: Option<(u64, u64)>,
}

/// The feeds' part of the broker's store.
#[derive(Clone)]
pub struct Shelf {
    pub(super) store: Store,
}

const COLUMNS: &str = "provider, number, name, agreement, version, clause, handle, dataset, max_lag_ms, filter, fields, \
    purpose, case_ref, created_by, created_ms, ending";

fn created(r: &Row<'_>) -> rusqlite::Result<Created> {
    let bad = |at, e: String| rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, e.into());
    let number = |at| r.get::<_, i64>(at).map(|v| v as u64);
    let provider = AgencyId::new(r.get::<_, String>(0)?).map_err(|e| bad(0, e.to_string()))?;
    Ok(Created {
        key: Key { provider, number: number(1)? },
        name: r.get(2)?,
        agreement: r.get(3)?,
        version: number(4)?,
        clause: r.get(5)?,
        handle: number(6)?,
        dataset: DatasetId::new(r.get::<_, String>(7)?).map_err(|e| bad(7, e.to_string()))?,
        max_lag_ms: number(8)?,
        filter: r.get(9)?,
        fields: r.get(10)?,
        purpose: r.get(11)?,
        case: r.get(12)?,
        created_by: r.get(13)?,
        created_ms: number(14)?,
        ending: r.get(15)?,
    })
}

impl Shelf {
    /// The feeds' part of `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Makes the tables.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        self.store.run(|db| db.execute_batch(TABLES)).await
    }

    /// All that this agency created.
    pub async fn created(&self) -> Result<Vec<Created>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM subscription ORDER BY provider, number");
        self.store.run(move |db| db.prepare_cached(&sql)?.query_map([], created)?.collect()).await
    }

    /// The one with this name.
    pub async fn named(&self, name: String) -> Result<Option<Created>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM subscription WHERE name = ?1");
        self.store.run(move |db| db.prepare_cached(&sql)?.query_row([name], created).optional()).await
    }

    /// Keeps a created subscription. What is there under its key stays, but for what its provider said anew; true if
    /// it was not there.
    pub async fn create(&self, c: Created) -> Result<bool, StoreError> {
        let put = move |db: &Connection| {
            let (provider, number) = c.key.sql();
            let sql = "UPDATE subscription SET version = ?3, handle = ?4, max_lag_ms = ?5, ending = 0 WHERE provider = ?1 AND number = ?2";
            let was =
                db.execute(sql, params![provider, number, c.version as i64, c.handle as i64, c.max_lag_ms as i64])?;
            if was > 0 {
                return Ok(false);
            }
            let sql = format!(
                "INSERT INTO subscription ({COLUMNS}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,0)"
            );
            let values = params![
                provider,
                number,
                c.name,
                c.agreement,
                c.version as i64,
                c.clause,
                c.handle as i64,
                c.dataset.to_string(),
                c.max_lag_ms as i64,
                c.filter,
                c.fields,
                c.purpose,
                c.case,
                c.created_by,
                c.created_ms as i64
            ];
            db.execute(&sql, values).map(|_| true)
        };
        self.store.run(put).await
    }

    /// Its deletion has begun: nothing is fetched for it any more.
    pub async fn ending(&self, key: &Key) -> Result<(), StoreError> {
        let key = key.sql();
        let sql = "UPDATE subscription SET ending = 1 WHERE provider = ?1 AND number = ?2";
        self.store.run(move |db| db.execute(sql, key).map(drop)).await
    }

    /// Forgets all of a subscription.
    pub async fn forget(&self, key: &Key) -> Result<(), StoreError> {
        let key = key.sql();
        let forget = move |db: &Connection| {
            for table in ["subscription", "feed_state", "feed_index", "feed_refused"] {
                db.execute(&format!("DELETE FROM {table} WHERE provider = ?1 AND number = ?2"), (&key.0, key.1))?;
            }
            Ok(())
        };
        self.store.run(forget).await
    }

    /// How it stood; none if it was never opened here.
    pub async fn kept(&self, key: &Key) -> Result<Option<Kept>, StoreError> {
        let key = key.sql();
        self.store.run(move |db| kept(db, &key)).await
    }

    /// Marks it as opened, acknowledged so far; what is there stays.
    pub async fn opened(&self, key: &Key, acked: Acked) -> Result<(), StoreError> {
        let (provider, number) = key.sql();
        let sql = "INSERT OR IGNORE INTO feed_state (provider, number, sub_seq, messages) VALUES (?1, ?2, ?3, ?4)";
        let row = (provider, number, acked.sub_seq as i64, acked.messages as i64);
        self.store.run(move |db| db.execute(sql, row).map(drop)).await
    }

    /// Keeps how far it is acknowledged; a seek is over with it.
    pub async fn acked(&self, key: &Key, to: Acked, place: u64) -> Result<(), StoreError> {
        let (provider, number) = key.sql();
        let sql = "INSERT INTO feed_state (provider, number, sub_seq, messages, place) VALUES (?1, ?2, ?3, ?4, ?5)
            ON CONFLICT DO UPDATE SET sub_seq = ?3, messages = ?4, place = ?5, seek = NULL";
        let row = (provider, number, to.sub_seq as i64, to.messages as i64, place as i64);
        self.store.run(move |db| db.execute(sql, row).map(drop)).await
    }

    /// Keeps a seek before anything moves.
    pub async fn seek(&self, key: &Key, seek: &Seek) -> Result<(), StoreError> {
        let (provider, number) = key.sql();
        let text = serde_json::to_string(seek).map_err(|e| StoreError::Failed(e.to_string()))?;
        let sql =
            "INSERT INTO feed_state (provider, number, seek) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET seek = ?3";
        self.store.run(move |db| db.execute(sql, (provider, number, text)).map(drop)).await
    }

    /// Keeps that it is paused, or not any more.
    pub async fn pause(&self, key: &Key, paused: Option<(String, u64)>) -> Result<(), StoreError> {
        let (provider, number) = key.sql();
        let (by, ms) = paused.map_or((None, None), |(by, ms)| (Some(by), Some(ms as i64)));
        let sql = "INSERT INTO feed_state (provider, number, paused_by, paused_ms) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT DO UPDATE SET paused_by = ?3, paused_ms = ?4";
        self.store.run(move |db| db.execute(sql, (provider, number, by, ms)).map(drop)).await
    }

    /// Keeps a place, and forgets those of items that are not kept any more.
    pub async fn index(&self, key: Key, sub_seq: u64, place: u64, delivered_ms: u64) -> Result<(), StoreError> {
        let (provider, number) = key.sql();
        let put = move |db: &Connection| {
            let sql = "INSERT OR IGNORE INTO feed_index VALUES (?1, ?2, ?3, ?4, ?5)";
            db.prepare_cached(sql)?.execute(params![
                provider,
                number,
                sub_seq as i64,
                place as i64,
                delivered_ms as i64
            ])?;
            let sql = "DELETE FROM feed_index WHERE provider = ?1 AND number = ?2 AND delivered_ms < ?3";
            let old = delivered_ms.saturating_sub(INDEX_MS) as i64;
            db.prepare_cached(sql)?.execute(params![provider, number, old]).map(drop)
        };
        self.store.run(put).await
    }

    /// The newest known place at or before what a seek begins with; 1 where none is known.
    pub async fn place_before(&self, key: &Key, start: Start) -> Result<u64, StoreError> {
        let (column, at) = match start {
            Start::First => return Ok(1),
            Start::From(n) | Start::After(super::Cursor { sub_seq: n, .. }) => ("sub_seq <= ?3", n),
            Start::Since(ms) => ("delivered_ms < ?3", ms),
        };
        let (provider, number) = key.sql();
        let sql = format!("SELECT max(place) FROM feed_index WHERE provider = ?1 AND number = ?2 AND {column}");
        let found = move |db: &Connection| {
            let place: Option<i64> = db
                .prepare_cached(&sql)?
                .query_row(params![provider, number, at.min(i64::MAX as u64) as i64], |r| r.get(0))?;
            Ok(place.map_or(1, |p| p as u64))
        };
        self.store.run(found).await
    }
}

fn kept(db: &Connection, key: &(String, i64)) -> rusqlite::Result<Option<Kept>> {
    let sql = "SELECT sub_seq, messages, place, seek, paused_by, paused_ms FROM feed_state WHERE provider = ?1 AND number = ?2";
    let read = |r: &Row<'_>| {
        let number = |at| r.get::<_, i64>(at).map(|v| v as u64);
        let paused = r.get::<_, Option<String>>(4)?.zip(r.get::<_, Option<i64>>(5)?.map(|ms| ms as u64));
        let seek: Option<String> = r.get(3)?;
        let bad = |e: serde_json::Error| {
            rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, e.to_string().into())
        };
        let seek = seek.map(|s| serde_json::from_str(&s).map_err(bad)).transpose()?;
        let acked = Acked { sub_seq: number(0)?, messages: number(1)? };
        Ok(Kept { acked, place: number(2)?, seek, paused, indexed: None })
    };
    let found = db.prepare_cached(sql)?.query_row((&key.0, key.1), read).optional()?;
    let Some(found) = found else {
        // Written before numbers were kept by provider.
        let sql = "SELECT sub_seq, messages FROM feed_position WHERE subscription = ?1";
        let read = |r: &Row<'_>| Ok((r.get::<_, i64>(0)? as u64, r.get::<_, i64>(1)? as u64));
        let old = db.prepare_cached(sql)?.query_row([key.1], read).optional()?;
        return Ok(old.map(|(sub_seq, messages)| Kept { acked: Acked { sub_seq, messages }, ..Kept::default() }));
    };
    let sql = "SELECT sub_seq, delivered_ms FROM feed_index WHERE provider = ?1 AND number = ?2 ORDER BY sub_seq DESC LIMIT 1";
    let read = |r: &Row<'_>| Ok((r.get::<_, i64>(0)? as u64, r.get::<_, i64>(1)? as u64));
    let indexed = db.prepare_cached(sql)?.query_row((&key.0, key.1), read).optional()?;
    Ok(Some(Kept { indexed, ..found }))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
