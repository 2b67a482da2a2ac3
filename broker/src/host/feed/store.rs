//! Where the deliveries of a provider stand, `executor/feeds.sqlite`: every item before it is appended, every operation
//! before it is written. After a crash the same bytes go out again.
//!
//! Many subscriptions write at once: see [`super::group`]. What a call wrote is durable when it returns.

use super::group::Group;
use crate::host::releases::Detail;
use bytes::Bytes;
use concordat_protocol::hash::Hash;
use rusqlite::{Connection, OptionalExtension, params};
use std::path::Path;
use thiserror::Error;

/// Why the store failed. Nothing is delivered that it did not take.
#[derive(Debug, Error)]
pub enum FeedStoreError {
    /// SQLite's word.
    #[error("the feed store failed: {0}; free disk space, then restart the executor")]
    Sqlite(#[from] rusqlite::Error),
    /// The transaction that others shared.
    #[error("the feed store did not commit: {0}; free disk space, then restart the executor")]
    Commit(String),
    /// The folder.
    #[error("the feed store's folder: {0}")]
    Folder(#[from] std::io::Error),
    /// The process ends.
    #[error("the feed store is closed: the executor stops")]
    Stopped,
}

impl FeedStoreError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        "feed-store"
    }
}

/// An item to keep before it is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewItem {
    /// Number of the delivery in its subscription.
    pub sub_seq: u64,
    /// Place of its envelope in the own stream.
    pub place: u64,
    /// What it shows: [`super::Lens::id`].
    pub lens: Hash,
    /// The promise's root.
    pub root: Hash,
    /// The promise's time, milliseconds.
    pub delivered_ms: u64,
    /// Messages shown in it.
    pub messages: u64,
    /// Canonical feed item.
    pub bytes: Bytes,
    /// Ids of the subjects whose records it shows, one after another.
    pub subjects: Vec<u8>,
}

/// A delivery that may not be appended yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    /// Number of the delivery in its subscription.
    pub sub_seq: u64,
    /// Place of its envelope in the own stream.
    pub place: u64,
    /// What it shows: [`super::Lens::id`].
    pub lens: Hash,
    /// Canonical feed item.
    pub bytes: Bytes,
}

/// A delivery that no accepted operation covers yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Number of the delivery in its subscription.
    pub sub_seq: u64,
    /// The promise's root.
    pub root: Hash,
    /// The promise's time, milliseconds.
    pub delivered_ms: u64,
    /// Messages shown in it.
    pub messages: u64,
}

/// An operation that was made and is not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOp {
    /// Last delivery it covers.
    pub last_sub_seq: u64,
    /// Its hash.
    pub op_hash: Hash,
}

/// Where a subscription stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Place in the own stream up to which everything is handled.
    pub stream_seq: u64,
    /// Newest delivery.
    pub last_sub_seq: u64,
    /// Messages shown in all deliveries.
    pub delivered_messages: u64,
    /// Deliveries that may not be appended yet.
    pub unsent: Vec<Unsent>,
    /// Deliveries that are not anchored.
    pub open: Vec<Open>,
    /// Operations that are not settled.
    pub ops: Vec<OpenOp>,
}

/// What a round of a subscription leaves behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// Its new items.
    pub items: Vec<NewItem>,
    /// Place in the own stream up to which everything is handled.
    pub stream_seq: u64,
    /// Newest delivery.
    pub last_sub_seq: u64,
    /// The clause it delivers under, JSON, where it changed.
    pub clause: Option<String>,
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct FeedStore {
    pub(super) group: Group,
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS subscription (
  subscription INTEGER PRIMARY KEY, stream_seq INTEGER NOT NULL, last_sub_seq INTEGER NOT NULL,
  delivered_messages INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS clause (subscription INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS item (
  subscription INTEGER NOT NULL, sub_seq INTEGER NOT NULL, root BLOB NOT NULL, delivered_ms INTEGER NOT NULL,
  messages INTEGER NOT NULL, bytes BLOB, place INTEGER NOT NULL DEFAULT 0, lens BLOB NOT NULL DEFAULT x'',
  subjects BLOB NOT NULL DEFAULT x'', PRIMARY KEY (subscription, sub_seq)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS item_unsent ON item (subscription, sub_seq) WHERE bytes IS NOT NULL;
CREATE TABLE IF NOT EXISTS deliver (
  subscription INTEGER NOT NULL, last_sub_seq INTEGER NOT NULL, op BLOB NOT NULL, op_hash BLOB NOT NULL,
  secret BLOB NOT NULL, op_index INTEGER, openings BLOB NOT NULL DEFAULT x'', sentence TEXT NOT NULL DEFAULT '',
  bulk BLOB NOT NULL DEFAULT x'', PRIMARY KEY (subscription, last_sub_seq)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliver_op ON deliver (op_hash);
CREATE TABLE IF NOT EXISTS deliver_subject (
  subject BLOB NOT NULL, subscription INTEGER NOT NULL, last_sub_seq INTEGER NOT NULL,
  PRIMARY KEY (subject, subscription, last_sub_seq)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS created (
  subscription INTEGER PRIMARY KEY, handle INTEGER NOT NULL, consumer TEXT NOT NULL, name TEXT NOT NULL,
  session INTEGER NOT NULL, n INTEGER NOT NULL, terms TEXT NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL,
  UNIQUE (session, n)) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS created_name ON created (consumer, name) WHERE state = 'live';";

/// Columns that a store of the first version lacks.
const LATER: [(&str, &str, &str); 7] = [
    ("subscription", "delivered_messages", "INTEGER NOT NULL DEFAULT 0"),
    ("item", "place", "INTEGER NOT NULL DEFAULT 0"),
    ("item", "lens", "BLOB NOT NULL DEFAULT x''"),
    ("item", "subjects", "BLOB NOT NULL DEFAULT x''"),
    ("deliver", "openings", "BLOB NOT NULL DEFAULT x''"),
    ("deliver", "sentence", "TEXT NOT NULL DEFAULT ''"),
    ("deliver", "bulk", "BLOB NOT NULL DEFAULT x''"),
];

pub(super) fn hash_of(blob: Vec<u8>) -> Hash {
    blob.try_into().unwrap_or([0; 32])
}

fn number(row: &rusqlite::Row<'_>, i: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(i)? as u64)
}

impl FeedStore {
    /// Opens or makes the store.
    pub fn open(path: &Path) -> Result<Self, FeedStoreError> {
        Self::open_under(path, None)
    }

    /// The store of the executor with this term: another one's later term ends its writing.
    pub fn open_under(path: &Path, term: Option<u64>) -> Result<Self, FeedStoreError> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut db = Connection::open(path)?;
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;")?;
        db.execute_batch(SCHEMA)?;
        for (table, column, kind) in LATER {
            let sql = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2";
            if db.query_row(sql, [table, column], |r| r.get::<_, i64>(0))? == 0 {
                db.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"))?;
            }
        }
        if let Some(term) = term {
            crate::fence::guard(&mut db, term)?;
        }
        Ok(Self { group: Group::start(db)? })
    }

    /// Clauses (JSON) of subscriptions with deliveries that are not anchored.
    pub async fn open_clauses(&self) -> Result<Vec<String>, FeedStoreError> {
        let sql = "SELECT body FROM clause WHERE subscription IN (SELECT subscription FROM item)";
        self.group.run(move |db| db.prepare(sql)?.query_map([], |r| r.get(0))?.collect()).await
    }

    /// The clause (JSON) a subscription delivered under last.
    pub async fn clause(&self, subscription: u64) -> Result<Option<String>, FeedStoreError> {
        let sql = "SELECT body FROM clause WHERE subscription = ?1";
        self.group.run(move |db| db.query_row(sql, [subscription as i64], |r| r.get(0)).optional()).await
    }

    /// Keeps under which clause (JSON) a subscription delivers.
    pub async fn keep_clause(&self, subscription: u64, body: String) -> Result<(), FeedStoreError> {
        let sql = "INSERT OR REPLACE INTO clause VALUES (?1, ?2)";
        self.group.run(move |db| db.execute(sql, params![subscription as i64, body]).map(drop)).await
    }

    /// Where a subscription stands, given what the ledger has anchored.
    pub async fn standing(&self, subscription: u64, anchored: u64) -> Result<Standing, FeedStoreError> {
        self.group.run(move |db| standing(db, subscription as i64, anchored as i64)).await
    }

    /// Keeps items and how far the own stream is handled.
    pub async fn keep(&self, subscription: u64, round: Round) -> Result<(), FeedStoreError> {
        self.group.run(move |db| keep(db, subscription as i64, &round)).await
    }

    /// Items up to this number are in the consumer's stream: their bytes are needed no more. Not awaited: what is lost in
    /// a crash is appended again, and dropped by its number. Without evidence to come the items go altogether.
    pub fn appended(&self, subscription: u64, up_to: u64, anchors: bool) -> Result<(), FeedStoreError> {
        let sql = if anchors {
            "UPDATE item SET bytes = NULL WHERE subscription = ?1 AND sub_seq <= ?2 AND bytes IS NOT NULL"
        } else {
            "DELETE FROM item WHERE subscription = ?1 AND sub_seq <= ?2"
        };
        let job = move |db: &Connection| db.prepare_cached(sql)?.execute([subscription as i64, up_to as i64]).map(drop);
        self.group.queue(job).map(drop)
    }

    /// Items from this number on are not sent: they show more than the clause opens now. The own stream is read again
    /// behind `stream_seq`. They stay as deliveries, because an operation may name them already.
    pub async fn withdraw(&self, subscription: u64, from: u64, stream_seq: u64) -> Result<(), FeedStoreError> {
        let (sub, from, place) = (subscription as i64, from as i64, stream_seq as i64);
        let job = move |db: &Connection| {
            db.execute("UPDATE item SET bytes = NULL WHERE subscription = ?1 AND sub_seq >= ?2", [sub, from])?;
            db.execute("UPDATE subscription SET stream_seq = ?2 WHERE subscription = ?1", [sub, place]).map(drop)
        };
        self.group.run(job).await
    }

    /// Forgets what is left of a subscription that ended and is anchored.
    pub async fn forget_items(&self, subscription: u64) -> Result<(), FeedStoreError> {
        let sql = "DELETE FROM item WHERE subscription = ?1";
        self.group.run(move |db| db.execute(sql, [subscription as i64]).map(drop)).await
    }

    /// Subjects of the deliveries of a subscription from a number on up to another, one id after another, with repeats.
    pub async fn subjects(&self, subscription: u64, from: u64, to: u64) -> Result<Vec<u8>, FeedStoreError> {
        let sql = "SELECT subjects FROM item WHERE subscription = ?1 AND sub_seq BETWEEN ?2 AND ?3";
        let key = [subscription as i64, from as i64, to as i64];
        let job = move |db: &Connection| {
            let lists: Vec<Vec<u8>> =
                db.prepare_cached(sql)?.query_map(key, |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
            Ok(lists.concat())
        };
        self.group.run(job).await
    }

    /// Keeps an operation with its commitment's secret and what opens it.
    pub async fn operation(
        &self,
        subscription: u64,
        last_sub_seq: u64,
        op_hash: Hash,
        secret: [u8; 32],
        detail: Detail,
    ) -> Result<(), FeedStoreError> {
        let sql =
            "INSERT OR REPLACE INTO deliver (subscription, last_sub_seq, op, op_hash, secret, openings, sentence, bulk)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let touch = "INSERT OR IGNORE INTO deliver_subject VALUES (?1, ?2, ?3)";
        let job = move |db: &Connection| {
            let (key, d) = ((subscription as i64, last_sub_seq as i64), &detail);
            db.prepare_cached(sql)?
                .execute(params![key.0, key.1, d.op, op_hash, secret, d.openings, d.sentence, d.bulk])?;
            let mut touch = db.prepare_cached(touch)?;
            d.subjects.iter().try_for_each(|s| touch.execute(params![s, key.0, key.1]).map(drop))
        };
        self.group.run(job).await
    }

    /// Forgets an operation that never left this machine.
    pub async fn drop_operation(&self, subscription: u64, last_sub_seq: u64) -> Result<(), FeedStoreError> {
        let key = [subscription as i64, last_sub_seq as i64];
        let job = move |db: &Connection| {
            db.execute("DELETE FROM deliver_subject WHERE subscription = ?1 AND last_sub_seq = ?2", key)?;
            db.execute("DELETE FROM deliver WHERE subscription = ?1 AND last_sub_seq = ?2", key).map(drop)
        };
        self.group.run(job).await
    }

    /// The ledger anchored everything up to this number by the operation `index`. What opens its commitment stays.
    pub async fn anchored(&self, subscription: u64, up_to: u64, index: u64) -> Result<(), FeedStoreError> {
        let (sub, up_to, index) = (subscription as i64, up_to as i64, index as i64);
        let done = "UPDATE deliver SET op_index = ?3 WHERE subscription = ?1 AND last_sub_seq = ?2";
        let settled = "DELETE FROM item WHERE subscription = ?1 AND sub_seq <= ?2 AND bytes IS NULL";
        let job = move |db: &Connection| {
            db.prepare_cached(done)?.execute([sub, up_to, index])?;
            db.prepare_cached(settled)?.execute([sub, up_to]).map(drop)
        };
        self.group.run(job).await
    }
}

fn standing(db: &Connection, sub: i64, anchored: i64) -> rusqlite::Result<Standing> {
    let sql = "SELECT stream_seq, last_sub_seq, delivered_messages FROM subscription WHERE subscription = ?1";
    let place = db.query_row(sql, [sub], |r| Ok((number(r, 0)?, number(r, 1)?, number(r, 2)?))).optional()?;
    let (stream_seq, last_sub_seq, delivered_messages) = place.unwrap_or_default();
    let sql =
        "SELECT sub_seq, place, lens, bytes FROM item WHERE subscription = ?1 AND bytes IS NOT NULL ORDER BY sub_seq";
    let row = |r: &rusqlite::Row<'_>| {
        Ok(Unsent {
            sub_seq: number(r, 0)?,
            place: number(r, 1)?,
            lens: hash_of(r.get(2)?),
            bytes: r.get::<_, Vec<u8>>(3)?.into(),
        })
    };
    let unsent = db.prepare(sql)?.query_map([sub], row)?.collect::<rusqlite::Result<_>>()?;
    let sql = "SELECT sub_seq, root, delivered_ms, messages FROM item WHERE subscription = ?1 AND sub_seq > ?2 ORDER BY sub_seq";
    let row = |r: &rusqlite::Row<'_>| {
        let (sub_seq, root) = (number(r, 0)?, hash_of(r.get(1)?));
        Ok(Open { sub_seq, root, delivered_ms: number(r, 2)?, messages: number(r, 3)? })
    };
    let open = db.prepare(sql)?.query_map([sub, anchored], row)?.collect::<rusqlite::Result<_>>()?;
    let sql =
        "SELECT last_sub_seq, op_hash FROM deliver WHERE subscription = ?1 AND last_sub_seq > ?2 ORDER BY last_sub_seq";
    let row = |r: &rusqlite::Row<'_>| Ok(OpenOp { last_sub_seq: number(r, 0)?, op_hash: hash_of(r.get(1)?) });
    let ops = db.prepare(sql)?.query_map([sub, anchored], row)?.collect::<rusqlite::Result<_>>()?;
    Ok(Standing { stream_seq, last_sub_seq, delivered_messages, unsent, open, ops })
}

const ITEM: &str = "
INSERT INTO item (subscription, sub_seq, root, delivered_ms, messages, bytes, place, lens, subjects)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

fn keep(db: &Connection, sub: i64, round: &Round) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached(ITEM)?;
    let mut shown = 0;
    for i in &round.items {
        let n = (i.sub_seq as i64, i.delivered_ms as i64, i.messages as i64, i.place as i64);
        insert.execute(params![sub, n.0, i.root, n.1, n.2, &i.bytes[..], n.3, i.lens, i.subjects])?;
        shown += n.2;
    }
    if let Some(clause) = &round.clause {
        db.prepare_cached("INSERT OR REPLACE INTO clause VALUES (?1, ?2)")?.execute(params![sub, clause])?;
    }
    let sql = "INSERT INTO subscription VALUES (?1, ?2, ?3, ?4) ON CONFLICT (subscription) DO UPDATE SET
               stream_seq = ?2, last_sub_seq = ?3, delivered_messages = delivered_messages + ?4";
    let place = [sub, round.stream_seq as i64, round.last_sub_seq as i64, shown];
    db.prepare_cached(sql)?.execute(place).map(drop)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
