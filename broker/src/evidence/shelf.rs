//! What the broker keeps for its cosignatures and for final receipts: what was asked under which session, how far the log
//! was checked, what is denied, checkpoints with their leaves.

use super::judge::Accused;
use crate::gateway::asked::{Asked, asked_before};
use crate::store::{Store, StoreError};
use concordat_protocol::cbor;
use concordat_protocol::evidence::{CheckpointView, LeavesProof};
use concordat_protocol::node::LeafProof;
use rusqlite::{Connection, OptionalExtension};

/// Tables of this module, made when the store opens.
pub(crate) const TABLES: &str = "
CREATE INDEX IF NOT EXISTS query_place ON query (session, n);
CREATE TABLE IF NOT EXISTS evidence_mark (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS dispute (
  reference INTEGER PRIMARY KEY, salt BLOB NOT NULL, reason TEXT NOT NULL, by TEXT NOT NULL, op INTEGER) STRICT;
CREATE TABLE IF NOT EXISTS unsettled (session INTEGER PRIMARY KEY, last_op INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS checkpoint (
  height INTEGER PRIMARY KEY, log_size INTEGER NOT NULL, view BLOB NOT NULL, header BLOB NOT NULL,
  validators BLOB NOT NULL, leaves INTEGER NOT NULL DEFAULT 0, final INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS leaf (
  height INTEGER NOT NULL, key BLOB NOT NULL, proof BLOB NOT NULL, PRIMARY KEY (height, key)) STRICT, WITHOUT ROWID;
";

/// Checkpoints kept without leaves or time-stamp: as many as the ledger itself keeps.
const BARE_KEPT: u32 = 16;
/// Mark: the first log index whose operations were not compared with what this agency asked.
const NAMED: &str = "named";

/// A checkpoint that this agency's node and the validators agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCheckpoint {
    /// With the cosignatures seen so far.
    pub view: CheckpointView,
    /// `SignedHeader` of the next height, packed for a receipt.
    pub header: Vec<u8>,
    /// Its validators, packed for a receipt.
    pub validators: Vec<u8>,
    /// Whether enough agencies cosigned it.
    pub last: bool,
}

/// A dispute as it is kept: the ledger has its salted hash alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptDispute {
    /// The operation.
    pub reference: u64,
    /// Salt of the reason.
    pub salt: [u8; 16],
    /// Why, in words.
    pub reason: String,
    /// Who filed it: a token's name, or `broker`.
    pub by: String,
    /// The act's own entry, once it is on the ledger.
    pub op: Option<u64>,
}

/// What is known of a place in a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Whether this agency signed a request there.
    pub asked: bool,
    /// The operation under which an answer was released there.
    pub released: Option<u64>,
}

/// The evidence's part of the broker's store.
#[derive(Clone)]
pub struct Shelf {
    store: Store,
}

fn blob<T: cbor::Canon>(bytes: &[u8]) -> rusqlite::Result<T> {
    cbor::decode(bytes)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, e.to_string().into()))
}

fn checkpoint(r: &rusqlite::Row<'_>) -> rusqlite::Result<KeptCheckpoint> {
    let view: Vec<u8> = r.get(0)?;
    Ok(KeptCheckpoint { view: blob(&view)?, header: r.get(1)?, validators: r.get(2)?, last: r.get::<_, i64>(3)? != 0 })
}

const CHECKPOINT: &str = "view, header, validators, final";

impl Shelf {
    /// The evidence's part of `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The first log index that was not compared yet.
    pub async fn named_from(&self) -> Result<u64, StoreError> {
        let sql = "SELECT value FROM evidence_mark WHERE name = ?1";
        let found = self.store.run(move |db| db.query_row(sql, [NAMED], |r| r.get::<_, i64>(0)).optional()).await?;
        Ok(found.unwrap_or_default() as u64)
    }

    /// What is known of places in sessions, in the order asked.
    pub async fn places(&self, places: Vec<(u64, u64)>) -> Result<Vec<Place>, StoreError> {
        let asked = self.store.asked.clone();
        self.store.run(move |db| places.iter().map(|(s, n)| place(db, &asked, *s, *n)).collect()).await
    }

    /// Everything up to `end` was compared: sessions used, with their newest operation, and what is denied.
    pub async fn compared(&self, end: u64, used: Vec<(u64, u64)>, accused: Vec<Accused>) -> Result<(), StoreError> {
        let salted = accused.into_iter().map(|a| Ok((a, salt()?))).collect::<Result<Vec<_>, StoreError>>()?;
        self.store
            .run(move |db| {
                for (session, op) in used {
                    let sql = "INSERT INTO unsettled (session, last_op) VALUES (?1, ?2)
                               ON CONFLICT (session) DO UPDATE SET last_op = max(last_op, excluded.last_op)";
                    db.prepare_cached(sql)?.execute((session as i64, op as i64))?;
                }
                for (a, salt) in salted {
                    insert_dispute(db, a.index, &salt, &a.reason, "broker")?;
                }
                let sql = "INSERT INTO evidence_mark (name, value) VALUES (?1, ?2)
                           ON CONFLICT (name) DO UPDATE SET value = excluded.value";
                db.execute(sql, (NAMED, end as i64)).map(drop)
            })
            .await
    }

    /// Keeps a dispute before it is filed; one of the same operation stays as it is. Returns the one that is kept.
    pub async fn dispute(&self, reference: u64, reason: String, by: String) -> Result<KeptDispute, StoreError> {
        let salt = salt()?;
        self.store
            .run(move |db| {
                insert_dispute(db, reference, &salt, &reason, &by)?;
                read_dispute(db, reference).map(|d| d.unwrap_or(KeptDispute { reference, salt, reason, by, op: None }))
            })
            .await
    }

    /// Disputes that are not on the ledger yet.
    pub async fn unfiled(&self) -> Result<Vec<KeptDispute>, StoreError> {
        self.store
            .run(|db| {
                let refs: Vec<i64> = db
                    .prepare_cached("SELECT reference FROM dispute WHERE op IS NULL ORDER BY reference")?
                    .query_map([], |r| r.get(0))?
                    .collect::<rusqlite::Result<_>>()?;
                refs.into_iter().filter_map(|r| read_dispute(db, r as u64).transpose()).collect()
            })
            .await
    }

    /// The own dispute of an operation.
    pub async fn dispute_of(&self, reference: u64) -> Result<Option<KeptDispute>, StoreError> {
        self.store.run(move |db| read_dispute(db, reference)).await
    }

    /// A dispute is on the ledger, by the act at `op` (0 where that is not known).
    pub async fn filed(&self, reference: u64, op: u64) -> Result<(), StoreError> {
        let sql = "UPDATE dispute SET op = ?2 WHERE reference = ?1";
        self.store.run(move |db| db.execute(sql, (reference as i64, op as i64)).map(drop)).await
    }

    /// A person's dispute that the ledger does not take is forgotten.
    pub async fn withdrawn(&self, reference: u64) -> Result<(), StoreError> {
        let sql = "DELETE FROM dispute WHERE reference = ?1 AND op IS NULL";
        self.store.run(move |db| db.execute(sql, [reference as i64]).map(drop)).await
    }

    /// Sessions whose newest operations have no leaf at a final checkpoint yet.
    pub async fn unsettled(&self, below: u64) -> Result<Vec<u64>, StoreError> {
        let sql = "SELECT session FROM unsettled WHERE last_op < ?1 ORDER BY session";
        let run = move |db: &Connection| {
            db.prepare_cached(sql)?.query_map([below as i64], |r| r.get::<_, i64>(0).map(|s| s as u64))?.collect()
        };
        self.store.run(run).await
    }

    /// Keeps a checkpoint with the leaves at its height.
    pub async fn keep(&self, kept: KeptCheckpoint, leaves: Option<LeavesProof>) -> Result<(), StoreError> {
        self.store
            .run(move |db| {
                let c = &kept.view.checkpoint;
                let height = c.height as i64;
                let sql = "INSERT OR IGNORE INTO checkpoint (height, log_size, view, header, validators, leaves)
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
                let has = leaves.is_some();
                db.execute(
                    sql,
                    (height, c.log_size as i64, cbor::encode(&kept.view), &kept.header, &kept.validators, has),
                )?;
                for l in leaves.iter().flat_map(|l| l.keys.iter().chain(&l.sessions)) {
                    let sql = "INSERT OR IGNORE INTO leaf (height, key, proof) VALUES (?1, ?2, ?3)";
                    db.prepare_cached(sql)?.execute((height, &l.key.0, cbor::encode(l)))?;
                }
                prune(db)
            })
            .await
    }

    /// Newest checkpoints kept, newest first, at most as many as the ledger shows.
    pub async fn newest(&self) -> Result<Vec<KeptCheckpoint>, StoreError> {
        let sql = format!("SELECT {CHECKPOINT} FROM checkpoint ORDER BY height DESC LIMIT {BARE_KEPT}");
        self.store.run(move |db| db.prepare_cached(&sql)?.query_map([], checkpoint)?.collect()).await
    }

    /// Keeps further cosignatures of a checkpoint. Where it is final now, the sessions that its leaves cover are settled.
    pub async fn cosigned(&self, view: CheckpointView, is_final: bool) -> Result<(), StoreError> {
        self.store
            .run(move |db| {
                let (height, size) = (view.checkpoint.height as i64, view.checkpoint.log_size as i64);
                let sql = "UPDATE checkpoint SET view = ?2, final = max(final, ?3) WHERE height = ?1";
                db.execute(sql, (height, cbor::encode(&view), is_final))?;
                if is_final {
                    let sql = "DELETE FROM unsettled WHERE last_op < ?2
                               AND EXISTS (SELECT 1 FROM checkpoint WHERE height = ?1 AND leaves)";
                    db.execute(sql, (height, size))?;
                }
                Ok(())
            })
            .await
    }

    /// The final checkpoint that covers an operation and has these leaves at its height, with them in order: of those that
    /// an authority stamped the newest, before all others, so that a receipt and a time-stamp meet in one checkpoint.
    pub async fn final_with(
        &self,
        index: u64,
        keys: Vec<Vec<u8>>,
    ) -> Result<Option<(KeptCheckpoint, Vec<LeafProof>)>, StoreError> {
        self.store
            .run(move |db| {
                let sql = "SELECT height FROM checkpoint WHERE final AND log_size > ?1
                           ORDER BY height IN (SELECT height FROM timestamp) DESC, height DESC";
                let mut statement = db.prepare_cached(sql)?;
                let mut heights = statement.query_map([index as i64], |r| r.get::<_, i64>(0))?;
                while let Some(height) = heights.next().transpose()? {
                    let leaves = keys.iter().map(|k| leaf(db, height, k)).collect::<rusqlite::Result<Vec<_>>>()?;
                    if let Some(leaves) = leaves.into_iter().collect::<Option<Vec<_>>>() {
                        let sql = format!("SELECT {CHECKPOINT} FROM checkpoint WHERE height = ?1");
                        return Ok(Some((db.prepare_cached(&sql)?.query_row([height], checkpoint)?, leaves)));
                    }
                }
                Ok(None)
            })
            .await
    }
}

fn salt() -> Result<[u8; 16], StoreError> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|e| StoreError::Failed(format!("no randomness: {e}")))?;
    Ok(salt)
}

fn place(db: &Connection, now: &Asked, session: u64, n: u64) -> rusqlite::Result<Place> {
    let at = (session as i64, n as i64);
    let sql = "SELECT iif(released IS NULL, NULL, op) FROM query WHERE session = ?1 AND n = ?2
               ORDER BY released IS NULL, id DESC LIMIT 1";
    let kept: Option<Option<i64>> = db.prepare_cached(sql)?.query_row(at, |r| r.get(0)).optional()?;
    let asked = match now.covers(session, n) {
        Some(asked) => asked,
        None => asked_before(db, at.0, at.1)?,
    };
    Ok(Place { asked: asked || kept.is_some(), released: kept.flatten().map(|op| op as u64) })
}

fn insert_dispute(db: &Connection, reference: u64, salt: &[u8; 16], reason: &str, by: &str) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO dispute (reference, salt, reason, by) VALUES (?1, ?2, ?3, ?4)";
    db.prepare_cached(sql)?.execute((reference as i64, &salt[..], reason, by)).map(drop)
}

fn read_dispute(db: &Connection, reference: u64) -> rusqlite::Result<Option<KeptDispute>> {
    let sql = "SELECT salt, reason, by, op FROM dispute WHERE reference = ?1";
    let read = |r: &rusqlite::Row<'_>| {
        let op: Option<i64> = r.get(3)?;
        Ok(KeptDispute { reference, salt: r.get(0)?, reason: r.get(1)?, by: r.get(2)?, op: op.map(|v| v as u64) })
    };
    db.prepare_cached(sql)?.query_row([reference as i64], read).optional()
}

fn leaf(db: &Connection, height: i64, key: &[u8]) -> rusqlite::Result<Option<LeafProof>> {
    let sql = "SELECT proof FROM leaf WHERE height = ?1 AND key = ?2";
    let bytes: Option<Vec<u8>> = db.prepare_cached(sql)?.query_row((height, key), |r| r.get(0)).optional()?;
    bytes.as_deref().map(blob).transpose()
}

/// Checkpoints without leaves matter only while the ledger shows them.
fn prune(db: &Connection) -> rusqlite::Result<()> {
    let sql = "DELETE FROM checkpoint WHERE height NOT IN (SELECT height FROM checkpoint ORDER BY height DESC LIMIT ?1)
               AND NOT EXISTS (SELECT 1 FROM leaf WHERE leaf.height = checkpoint.height)
               AND height NOT IN (SELECT height FROM timestamp)";
    db.execute(sql, [BARE_KEPT]).map(drop)
}

#[cfg(test)]
#[path = "shelf_tests.rs"]
mod tests;
