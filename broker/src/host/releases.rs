//! The release store: every response before its record, and what became of it.

#[path = "write_store.rs"]
pub mod writes;

use super::subjects::SubjectId;
use super::touched;
use concordat_executor::step::{Kept, Key};
use concordat_protocol::hash::Hash;
use concordat_protocol::limits::RELEASE_REPEAT_MS;
use rusqlite::{Connection, OptionalExtension, params};
use std::path::Path;
use thiserror::Error;

/// Why the store failed. Nothing is released that it did not take.
#[derive(Debug, Error)]
#[error("the release store failed: {0}; free disk space, then restart the executor")]
pub struct StoreError(#[from] rusqlite::Error);

/// What became of a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Stored; its record may be on the ledger.
    Stored = 0,
    /// Released.
    Released = 1,
    /// Refused or denied.
    Closed = 2,
    /// Accepted and never released.
    Withheld = 3,
    /// Stored under a promise: it may have left, and its record is due.
    Promised = 4,
    /// A write whose intent was accepted; its outcome is not on the ledger yet.
    Accepted = 5,
}

/// A response to store.
#[derive(Debug, Clone)]
pub struct NewRelease {
    /// (session, n).
    pub key: Key,
    /// Hash of the request.
    pub request_hash: Hash,
    /// Hash of the operation.
    pub op_hash: Hash,
    /// The commitment's secret; destroying it forgets the person.
    pub secret: [u8; 32],
    /// Canonical `Released` with an empty ticket, or nothing for a denial.
    pub body: Option<Vec<u8>>,
    /// The decision as JSON, for `why`.
    pub decision: String,
    /// When the session is over, tick milliseconds.
    pub session_expires_ms: u64,
    /// What is kept for ever to tell a person who looked.
    pub detail: Detail,
}

/// What opens an operation to the persons whose records it touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detail {
    /// Canonical operation.
    pub op: Vec<u8>,
    /// All leaves of its commitment, canonical.
    pub openings: Vec<u8>,
    /// The clause's sentence.
    pub sentence: String,
    /// Sorted tags that travel as bulk, one after another.
    pub bulk: Vec<u8>,
    /// Ids of the subjects.
    pub subjects: Vec<SubjectId>,
    /// The signed promise under which it leaves before its record, empty where the record comes first.
    pub promise: Vec<u8>,
    /// When it left under a promise, milliseconds of ledger time.
    pub delivered_ms: u64,
    /// When an override was decided that operators are told of, milliseconds of ledger time; 0 for anything else.
    pub notice_ms: u64,
}

/// A stored response as it is found again.
#[derive(Debug, Clone)]
pub struct Found {
    /// What became of it.
    pub state: i64,
    /// Canonical `Released` with an empty ticket, if it is still kept.
    pub body: Option<Vec<u8>>,
    /// Global index of its record.
    pub index: u64,
    /// Height of its record.
    pub height: u64,
    /// When it was released, milliseconds of ledger time.
    pub released_ms: u64,
    /// The signed promise, empty where there is none.
    pub promise: Vec<u8>,
}

/// The store, an SQLite file owned by one task.
pub struct ReleaseStore {
    db: Connection,
    /// Subjects that wait for their index.
    waiting: usize,
}

/// Effects of one round, written together.
#[derive(Debug, Default)]
pub struct Round {
    /// Responses to store.
    pub stores: Vec<NewRelease>,
    /// (key, global index, height, ledger time) to mark released.
    pub released: Vec<(Key, u64, u64, u64)>,
    /// (key, global index) to mark closed.
    pub closed: Vec<(Key, u64)>,
    /// (key, global index) to mark withheld.
    pub withheld: Vec<(Key, u64)>,
    /// Writes.
    pub writes: writes::WriteRound,
    /// Height up to which frames are done with.
    pub cursor: Option<u64>,
}

impl Round {
    /// Whether there is nothing that must be durable before the next step.
    pub fn is_empty(&self) -> bool {
        let queries = [self.released.is_empty(), self.closed.is_empty(), self.withheld.is_empty()];
        self.stores.is_empty() && self.writes.is_empty() && queries.into_iter().all(|empty| empty)
    }
}

/// Columns that a store of an earlier version lacks.
const LATER: [(&str, &str, &str); 7] = [
    ("release", "op", "BLOB NOT NULL DEFAULT x''"),
    ("release", "openings", "BLOB NOT NULL DEFAULT x''"),
    ("release", "sentence", "TEXT NOT NULL DEFAULT ''"),
    ("release", "bulk", "BLOB NOT NULL DEFAULT x''"),
    ("release", "promise", "BLOB NOT NULL DEFAULT x''"),
    ("release", "notice_ms", "INTEGER NOT NULL DEFAULT 0"),
    ("write", "accepted_ms", "INTEGER NOT NULL DEFAULT 0"),
];

fn hash_of(blob: Vec<u8>) -> Hash {
    blob.try_into().unwrap_or([0; 32])
}

impl ReleaseStore {
    /// Opens or makes the store.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let db = Connection::open(path)?;
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 4000; PRAGMA synchronous = FULL;
             PRAGMA secure_delete = ON;
             CREATE TABLE IF NOT EXISTS release (
               session INTEGER NOT NULL, n INTEGER NOT NULL, request_hash BLOB NOT NULL, op_hash BLOB NOT NULL,
               secret BLOB NOT NULL, body BLOB, decision TEXT NOT NULL, state INTEGER NOT NULL,
               session_ends_ms INTEGER NOT NULL,
               op_index INTEGER NOT NULL DEFAULT 0, height INTEGER NOT NULL DEFAULT 0, released_ms INTEGER NOT NULL DEFAULT 0,
               op BLOB NOT NULL DEFAULT x'', openings BLOB NOT NULL DEFAULT x'', sentence TEXT NOT NULL DEFAULT '',
               bulk BLOB NOT NULL DEFAULT x'', promise BLOB NOT NULL DEFAULT x'', notice_ms INTEGER NOT NULL DEFAULT 0,
               PRIMARY KEY (session, n)) STRICT, WITHOUT ROWID;
             CREATE INDEX IF NOT EXISTS release_op ON release (op_hash);
             CREATE INDEX IF NOT EXISTS release_open ON release (session, n) WHERE state = 0;
             CREATE TABLE IF NOT EXISTS mark (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;",
        )?;
        db.execute_batch(writes::TABLES)?;
        for (table, column, kind) in LATER {
            let sql = "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2";
            if db.query_row(sql, [table, column], |r| r.get::<_, i64>(0))? == 0 {
                db.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"))?;
            }
        }
        db.execute_batch(
            "CREATE INDEX IF NOT EXISTS release_promised ON release (session, n) WHERE state = 4;
             CREATE INDEX IF NOT EXISTS release_notice ON release (notice_ms) WHERE notice_ms > 0;",
        )?;
        db.execute_batch(touched::TABLES)?;
        let waiting = touched::waiting(&db)?;
        Ok(Self { db, waiting })
    }

    /// The store of the executor with this term: another one's later term ends its writing.
    pub fn under(mut self, term: Option<u64>) -> Result<Self, StoreError> {
        if let Some(term) = term {
            crate::fence::guard(&mut self.db, term)?;
        }
        Ok(self)
    }

    /// Writes a round; all of it is durable when this returns, or none.
    pub fn write(&mut self, round: &Round) -> Result<(), StoreError> {
        let tx = self.db.transaction()?;
        let mut waiting = self.waiting;
        {
            let mut insert = tx.prepare_cached(
                "INSERT OR REPLACE INTO release (session, n, request_hash, op_hash, secret, body, decision, state, session_ends_ms,
                   op, openings, sentence, bulk, promise, released_ms, notice_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
            )?;
            for r in &round.stores {
                let (session, n, ends) = (r.key.0 as i64, r.key.1 as i64, r.session_expires_ms as i64);
                let stored = if r.detail.promise.is_empty() { State::Stored } else { State::Promised } as i64;
                insert.execute(params![
                    session,
                    n,
                    r.request_hash,
                    r.op_hash,
                    r.secret,
                    r.body,
                    r.decision,
                    stored,
                    ends,
                    r.detail.op,
                    r.detail.openings,
                    r.detail.sentence,
                    r.detail.bulk,
                    r.detail.promise,
                    r.detail.delivered_ms as i64,
                    r.detail.notice_ms as i64,
                ])?;
                touched::add(&tx, (session, n), &r.detail.subjects)?;
                waiting += r.detail.subjects.len();
            }
            let mut settle = tx.prepare_cached(
                "UPDATE release SET released_ms = CASE WHEN state = 4 THEN released_ms ELSE ?6 END, state = ?3, op_index = ?4,
                   height = ?5 WHERE session = ?1 AND n = ?2",
            )?;
            for (k, index, height, ms) in &round.released {
                settle.execute(params![
                    k.0 as i64,
                    k.1 as i64,
                    State::Released as i64,
                    *index as i64,
                    *height as i64,
                    *ms as i64
                ])?;
            }
            for (state, list) in [(State::Closed, &round.closed), (State::Withheld, &round.withheld)] {
                for (k, index) in list {
                    settle.execute(params![k.0 as i64, k.1 as i64, state as i64, *index as i64, 0, 0])?;
                }
            }
            round.writes.write(&tx)?;
            if let Some(height) = round.cursor {
                tx.prepare_cached("INSERT OR REPLACE INTO mark (name, value) VALUES ('cursor', ?1)")?
                    .execute([height as i64])?;
            }
        }
        waiting = touched::fold(&tx, waiting)?;
        tx.commit()?;
        self.waiting = waiting;
        Ok(())
    }

    /// Height up to which frames were done with.
    pub fn cursor(&self) -> Result<Option<u64>, StoreError> {
        let found =
            self.db.query_row("SELECT value FROM mark WHERE name = 'cursor'", [], |r| r.get::<_, i64>(0)).optional()?;
        Ok(found.map(|v| v as u64))
    }

    /// Stored responses whose record may be on the ledger.
    pub fn open_releases(&self) -> Result<Vec<Kept>, StoreError> {
        self.list("state = 0", 0)
    }

    /// Settled responses of sessions that are not over at `tick_ms`.
    pub fn settled(&self, tick_ms: u64) -> Result<Vec<Kept>, StoreError> {
        self.list("state > 0 AND state <> 4", tick_ms)
    }

    /// Responses under a promise that may have left and whose entry was not seen, with their canonical operations.
    pub fn promised(&self) -> Result<Vec<(Kept, Vec<u8>)>, StoreError> {
        let kept = self.list("state = 4", 0)?;
        let mut op = self.db.prepare("SELECT op FROM release WHERE session = ?1 AND n = ?2")?;
        let with_op = kept.into_iter().map(|k| Ok((k, op.query_row([k.key.0 as i64, k.key.1 as i64], |r| r.get(0))?)));
        Ok(with_op.collect::<Result<_, rusqlite::Error>>()?)
    }

    fn list(&self, which: &str, tick_ms: u64) -> Result<Vec<Kept>, StoreError> {
        let sql = format!(
            "SELECT session, n, request_hash, op_hash, session_ends_ms FROM release WHERE {which} AND session_ends_ms > ?1"
        );
        let mut statement = self.db.prepare(&sql)?;
        let rows = statement.query_map([tick_ms as i64], |r| {
            Ok(Kept {
                key: (r.get::<_, i64>(0)? as u64, r.get::<_, i64>(1)? as u64),
                request_hash: hash_of(r.get(2)?),
                op_hash: hash_of(r.get(3)?),
                session_expires_ms: r.get::<_, i64>(4)? as u64,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Removes a response whose operation never left this machine.
    pub fn drop_unrecorded(&mut self, keys: &[Key]) -> Result<(), StoreError> {
        let tx = self.db.transaction()?;
        for k in keys {
            let key = [k.0 as i64, k.1 as i64];
            if tx.execute("DELETE FROM release WHERE session = ?1 AND n = ?2 AND state = 0", key)? > 0 {
                touched::remove(&tx, key)?;
            }
        }
        Ok(tx.commit()?)
    }

    /// A stored response.
    pub fn find(&self, key: Key) -> Result<Option<Found>, StoreError> {
        let mut statement = self.db.prepare_cached(
            "SELECT state, body, op_index, height, released_ms, promise FROM release WHERE session = ?1 AND n = ?2",
        )?;
        let found = statement.query_row([key.0 as i64, key.1 as i64], |r| {
            Ok(Found {
                state: r.get(0)?,
                body: r.get(1)?,
                index: r.get::<_, i64>(2)? as u64,
                height: r.get::<_, i64>(3)? as u64,
                released_ms: r.get::<_, i64>(4)? as u64,
                promise: r.get(5)?,
            })
        });
        Ok(found.optional()?)
    }

    /// Forgets response bytes that are too old to be repeated; what opens the commitment stays.
    pub fn prune(&mut self, tick_ms: u64) -> Result<usize, StoreError> {
        let before = tick_ms.saturating_sub(RELEASE_REPEAT_MS) as i64;
        Ok(self.db.execute(
            "UPDATE release SET body = NULL WHERE state = 1 AND released_ms < ?1 AND body IS NOT NULL",
            [before],
        )?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn new(n: u64) -> NewRelease {
        NewRelease {
            key: (1, n),
            request_hash: [n as u8; 32],
            op_hash: [n as u8 + 100; 32],
            secret: [0; 32],
            body: Some(vec![7]),
            decision: "{}".into(),
            session_expires_ms: 5_000,
            detail: Detail::default(),
        }
    }

    #[test]
    fn what_was_stored_is_found_after_a_restart_in_its_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.sqlite");
        let mut store = ReleaseStore::open(&path).unwrap();
        store.write(&Round { stores: vec![new(1), new(2), new(3)], ..Round::default() }).unwrap();
        store
            .write(&Round {
                released: vec![((1, 1), 40, 9, 1_000)],
                withheld: vec![((1, 2), 41)],
                cursor: Some(9),
                ..Round::default()
            })
            .unwrap();
        drop(store);
        let mut store = ReleaseStore::open(&path).unwrap();
        assert_eq!(store.cursor().unwrap(), Some(9));
        assert_eq!(
            store.open_releases().unwrap(),
            [Kept { key: (1, 3), request_hash: [3; 32], op_hash: [103; 32], session_expires_ms: 5_000 }]
        );
        assert_eq!(store.settled(4_999).unwrap().len(), 2);
        assert!(store.settled(5_000).unwrap().is_empty(), "requests of that session are refused anyway");
        let found = store.find((1, 1)).unwrap().unwrap();
        assert_eq!((found.state, found.index, found.height), (State::Released as i64, 40, 9));
        store.drop_unrecorded(&[(1, 3), (1, 1)]).unwrap();
        assert!(store.find((1, 3)).unwrap().is_none() && store.find((1, 1)).unwrap().is_some());
        assert!(store.promised().unwrap().is_empty());
        assert_eq!(store.prune(1_001 + RELEASE_REPEAT_MS).unwrap(), 1);
        assert!(store.find((1, 1)).unwrap().unwrap().body.is_none());
    }

    #[test]
    fn what_may_have_left_under_a_promise_is_neither_open_nor_settled_until_it_is_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = ReleaseStore::open(&dir.path().join("r.sqlite")).unwrap();
        let detail = Detail { op: vec![9], promise: vec![1], delivered_ms: 700, notice_ms: 699, ..Detail::default() };
        store.write(&Round { stores: vec![NewRelease { detail, ..new(1) }, new(2)], ..Round::default() }).unwrap();
        assert_eq!(store.open_releases().unwrap().iter().map(|k| k.key).collect::<Vec<_>>(), [(1, 2)]);
        assert!(store.settled(0).unwrap().is_empty());
        let promised = store.promised().unwrap();
        assert_eq!((promised.len(), promised[0].0.key, promised[0].1.as_slice()), (1, (1, 1), &[9][..]));
        store.drop_unrecorded(&[(1, 1)]).unwrap();
        assert_eq!(store.find((1, 1)).unwrap().unwrap().promise, [1], "it is never dropped");
        store.write(&Round { released: vec![((1, 1), 40, 9, 5_000)], ..Round::default() }).unwrap();
        let found = store.find((1, 1)).unwrap().unwrap();
        assert_eq!((found.state, found.index, found.released_ms), (State::Released as i64, 40, 700), "when it left");
        assert_eq!(store.settled(0).unwrap().len(), 1);
        assert!(store.promised().unwrap().is_empty());
    }
}
