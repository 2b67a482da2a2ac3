//! Where the deliveries of a provider stand, `executor/feeds.sqlite`: every item before it is appended, every operation
//! before it is written. After a crash the same bytes go out again.

use concordat_protocol::hash::Hash;
use rusqlite::{Connection, OptionalExtension, params};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;

/// Why the store failed. Nothing is delivered that it did not take.
#[derive(Debug, Error)]
pub enum FeedStoreError {
    /// SQLite's word.
    #[error("the feed store failed: {0}; free disk space, then restart the executor")]
    Sqlite(#[from] rusqlite::Error),
    /// The folder.
    #[error("the feed store's folder: {0}")]
    Folder(#[from] std::io::Error),
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
    /// The promise's root.
    pub root: Hash,
    /// The promise's time, milliseconds.
    pub delivered_ms: u64,
    /// Messages shown in it.
    pub messages: u64,
    /// Canonical feed item.
    pub bytes: Vec<u8>,
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
    /// Deliveries that may not be appended yet: (number, item).
    pub unsent: Vec<(u64, Vec<u8>)>,
    /// Deliveries that are not anchored.
    pub open: Vec<Open>,
    /// Operations that are not settled.
    pub ops: Vec<OpenOp>,
}

/// The store. Cheap to clone; calls block.
#[derive(Clone)]
pub struct FeedStore {
    db: Arc<Mutex<Connection>>,
}

fn hash_of(blob: Vec<u8>) -> Hash {
    blob.try_into().unwrap_or([0; 32])
}

impl FeedStore {
    /// Opens or makes the store.
    pub fn open(path: &Path) -> Result<Self, FeedStoreError> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let db = Connection::open(path)?;
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE IF NOT EXISTS subscription (
               subscription INTEGER PRIMARY KEY, stream_seq INTEGER NOT NULL, last_sub_seq INTEGER NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS clause (subscription INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS item (
               subscription INTEGER NOT NULL, sub_seq INTEGER NOT NULL, root BLOB NOT NULL, delivered_ms INTEGER NOT NULL,
               messages INTEGER NOT NULL, bytes BLOB, PRIMARY KEY (subscription, sub_seq)) STRICT, WITHOUT ROWID;
             CREATE INDEX IF NOT EXISTS item_unsent ON item (subscription, sub_seq) WHERE bytes IS NOT NULL;
             CREATE TABLE IF NOT EXISTS deliver (
               subscription INTEGER NOT NULL, last_sub_seq INTEGER NOT NULL, op BLOB NOT NULL, op_hash BLOB NOT NULL,
               secret BLOB NOT NULL, op_index INTEGER, PRIMARY KEY (subscription, last_sub_seq)) STRICT, WITHOUT ROWID;",
        )?;
        Ok(Self { db: Arc::new(Mutex::new(db)) })
    }

    fn with<T>(&self, job: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, FeedStoreError> {
        Ok(job(&mut self.db.lock().unwrap_or_else(PoisonError::into_inner))?)
    }

    /// Keeps under which clause a subscription delivers, JSON.
    pub fn keep_clause(&self, subscription: u64, body: &str) -> Result<(), FeedStoreError> {
        let sql = "INSERT OR REPLACE INTO clause VALUES (?1, ?2)";
        self.with(|db| db.execute(sql, params![subscription as i64, body]).map(drop))
    }

    /// Clauses of subscriptions with deliveries that are not anchored.
    pub fn open_clauses(&self) -> Result<Vec<String>, FeedStoreError> {
        let sql = "SELECT body FROM clause WHERE subscription IN (SELECT subscription FROM item)";
        self.with(|db| db.prepare(sql)?.query_map([], |r| r.get(0))?.collect())
    }

    /// Where a subscription stands, given what the ledger has anchored.
    pub fn standing(&self, subscription: u64, anchored: u64) -> Result<Standing, FeedStoreError> {
        let (sub, anchored) = (subscription as i64, anchored as i64);
        self.with(|db| {
            let place = db
                .query_row("SELECT stream_seq, last_sub_seq FROM subscription WHERE subscription = ?1", [sub], |r| {
                    Ok((r.get::<_, i64>(0)? as u64, r.get::<_, i64>(1)? as u64))
                })
                .optional()?;
            let (stream_seq, last_sub_seq) = place.unwrap_or_default();
            let unsent = db
                .prepare("SELECT sub_seq, bytes FROM item WHERE subscription = ?1 AND bytes IS NOT NULL ORDER BY sub_seq")?
                .query_map([sub], |r| Ok((r.get::<_, i64>(0)? as u64, r.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            let open = db
                .prepare("SELECT sub_seq, root, delivered_ms, messages FROM item WHERE subscription = ?1 AND sub_seq > ?2 ORDER BY sub_seq")?
                .query_map([sub, anchored], |r| {
                    let (sub_seq, root) = (r.get::<_, i64>(0)? as u64, hash_of(r.get(1)?));
                    Ok(Open { sub_seq, root, delivered_ms: r.get::<_, i64>(2)? as u64, messages: r.get::<_, i64>(3)? as u64 })
                })?
                .collect::<rusqlite::Result<_>>()?;
            let ops = db
                .prepare("SELECT last_sub_seq, op_hash FROM deliver WHERE subscription = ?1 AND last_sub_seq > ?2 ORDER BY last_sub_seq")?
                .query_map([sub, anchored], |r| Ok(OpenOp { last_sub_seq: r.get::<_, i64>(0)? as u64, op_hash: hash_of(r.get(1)?) }))?
                .collect::<rusqlite::Result<_>>()?;
            Ok(Standing { stream_seq, last_sub_seq, unsent, open, ops })
        })
    }

    /// Keeps items and how far the own stream is handled; durable when it returns.
    pub fn keep(
        &self,
        subscription: u64,
        items: &[NewItem],
        stream_seq: u64,
        last_sub_seq: u64,
    ) -> Result<(), FeedStoreError> {
        self.with(|db| {
            let tx = db.transaction()?;
            {
                let mut insert = tx.prepare_cached("INSERT INTO item VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
                for i in items {
                    let numbers = (subscription as i64, i.sub_seq as i64, i.delivered_ms as i64, i.messages as i64);
                    insert.execute(params![numbers.0, numbers.1, i.root, numbers.2, numbers.3, i.bytes])?;
                }
                let place = [subscription as i64, stream_seq as i64, last_sub_seq as i64];
                tx.prepare_cached("INSERT OR REPLACE INTO subscription VALUES (?1, ?2, ?3)")?.execute(place)?;
            }
            tx.commit()
        })
    }

    /// Items up to this number are in the consumer's stream: their bytes are needed no more.
    pub fn appended(&self, subscription: u64, up_to: u64) -> Result<(), FeedStoreError> {
        self.with(|db| {
            let sql = "UPDATE item SET bytes = NULL WHERE subscription = ?1 AND sub_seq <= ?2 AND bytes IS NOT NULL";
            db.prepare_cached(sql)?.execute([subscription as i64, up_to as i64]).map(drop)
        })
    }

    /// Keeps an operation with its commitment's secret; durable when it returns.
    pub fn operation(
        &self,
        subscription: u64,
        last_sub_seq: u64,
        op: &[u8],
        op_hash: &Hash,
        secret: &[u8; 32],
    ) -> Result<(), FeedStoreError> {
        self.with(|db| {
            let sql = "INSERT OR REPLACE INTO deliver VALUES (?1, ?2, ?3, ?4, ?5, NULL)";
            db.prepare_cached(sql)?
                .execute(params![subscription as i64, last_sub_seq as i64, op, op_hash, secret])
                .map(drop)
        })
    }

    /// Forgets an operation that never left this machine.
    pub fn drop_operation(&self, subscription: u64, last_sub_seq: u64) -> Result<(), FeedStoreError> {
        self.with(|db| {
            let sql = "DELETE FROM deliver WHERE subscription = ?1 AND last_sub_seq = ?2";
            db.execute(sql, [subscription as i64, last_sub_seq as i64]).map(drop)
        })
    }

    /// The ledger anchored everything up to this number by the operation `index`. What opens its commitment stays.
    pub fn anchored(&self, subscription: u64, up_to: u64, index: u64) -> Result<(), FeedStoreError> {
        let (sub, up_to, index) = (subscription as i64, up_to as i64, index as i64);
        self.with(|db| {
            let tx = db.transaction()?;
            tx.execute(
                "UPDATE deliver SET op_index = ?3 WHERE subscription = ?1 AND last_sub_seq = ?2",
                [sub, up_to, index],
            )?;
            tx.execute("DELETE FROM item WHERE subscription = ?1 AND sub_seq <= ?2 AND bytes IS NULL", [sub, up_to])?;
            tx.commit()
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn item(sub_seq: u64) -> NewItem {
        NewItem {
            sub_seq,
            root: [sub_seq as u8; 32],
            delivered_ms: 1_000 + sub_seq,
            messages: 2,
            bytes: vec![sub_seq as u8; 3],
        }
    }

    #[test]
    fn after_a_crash_the_same_bytes_are_there_until_they_are_appended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("executor/feeds.sqlite");
        let store = FeedStore::open(&path).unwrap();
        assert_eq!(store.standing(7, 0).unwrap(), Standing::default());
        store.keep(7, &[item(1), item(2), item(3)], 40, 3).unwrap();
        store.keep(8, &[item(1)], 5, 1).unwrap();
        store.appended(7, 1).unwrap();
        drop(store);
        let store = FeedStore::open(&path).unwrap();
        let at = store.standing(7, 0).unwrap();
        assert_eq!((at.stream_seq, at.last_sub_seq), (40, 3));
        assert_eq!(at.unsent, [(2, vec![2; 3]), (3, vec![3; 3])]);
        assert_eq!(at.open.iter().map(|o| o.sub_seq).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(store.keep(7, &[item(3)], 41, 3).is_err(), "a number is never given twice");
        assert_eq!(store.standing(7, 0).unwrap().stream_seq, 40, "a refused write changes nothing");
    }

    #[test]
    fn what_is_anchored_is_settled_and_unsent_bytes_stay() {
        let dir = tempfile::tempdir().unwrap();
        let store = FeedStore::open(&dir.path().join("f.sqlite")).unwrap();
        store.keep(7, &[item(1), item(2), item(3)], 40, 3).unwrap();
        store.appended(7, 1).unwrap();
        store.operation(7, 2, b"op", &[9; 32], &[1; 32]).unwrap();
        assert_eq!(store.standing(7, 0).unwrap().ops, [OpenOp { last_sub_seq: 2, op_hash: [9; 32] }]);
        store.anchored(7, 2, 90).unwrap();
        let at = store.standing(7, 2).unwrap();
        assert!(at.ops.is_empty());
        assert_eq!(at.open.iter().map(|o| o.sub_seq).collect::<Vec<_>>(), [3]);
        assert_eq!(at.unsent.len(), 2, "2 is anchored, but may not be appended yet");
    }
}
