//! The writer's journal: batches that may be on their way, kept durably before they are sent, and the end of what was
//! committed, so that a batch of somebody else under this writer is found.

use super::LedgerError;
use super::writer_core::Outgoing;
use concordat_protocol::hash::Hash;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use std::path::Path;
use std::time::Duration;

/// The end of what a writer has seen committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Incarnation.
    pub incarnation: u64,
    /// Last operation.
    pub last_seq: u64,
    /// Hash of the last batch.
    pub last_hash: Hash,
}

/// What a journal tells another process of this agency.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The end of what was committed; none before the writer's first start.
    pub mark: Option<Mark>,
    /// Last number and hash of each batch that may be on its way.
    pub open: Vec<(u64, Hash)>,
    /// Number at which another batch stood.
    pub conflict: Option<u64>,
}

/// The journal of one writer, an SQLite file.
#[derive(Debug)]
pub struct Journal {
    db: Connection,
}

fn failed(e: rusqlite::Error) -> LedgerError {
    LedgerError::Journal(e.to_string())
}

impl Journal {
    /// Opens or makes the journal.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(|e| LedgerError::Journal(e.to_string()))?;
        }
        let db = Connection::open(path).map_err(failed)?;
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE IF NOT EXISTS batch (last_seq INTEGER PRIMARY KEY, tx BLOB NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS mark (one INTEGER PRIMARY KEY CHECK (one = 1), incarnation INTEGER NOT NULL,
               last_seq INTEGER NOT NULL, last_hash BLOB NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS conflict (incarnation INTEGER PRIMARY KEY, seq INTEGER NOT NULL) STRICT;",
        )
        .map_err(failed)?;
        Ok(Self { db })
    }

    /// The journal of the executor with this term: another one's later term ends its writing.
    pub fn under(mut self, term: Option<u64>) -> Result<Self, LedgerError> {
        if let Some(term) = term {
            crate::fence::guard(&mut self.db, term).map_err(failed)?;
        }
        Ok(self)
    }

    /// All batches kept, in order.
    pub fn load(&self) -> Result<Vec<Outgoing>, LedgerError> {
        load(&self.db)
    }

    /// Keeps a batch; durable when it returns.
    pub fn keep(&self, batch: &Outgoing) -> Result<(), LedgerError> {
        let mut statement =
            self.db.prepare_cached("INSERT INTO batch (last_seq, tx) VALUES (?1, ?2)").map_err(failed)?;
        statement.execute((batch.last_seq as i64, &batch.tx)).map_err(failed).map(|_| ())
    }

    /// The end of what was committed.
    pub fn mark(&self) -> Result<Option<Mark>, LedgerError> {
        read_mark(&self.db)
    }

    /// Everything up to the mark is committed: its batches are forgotten.
    pub fn committed(&self, mark: Mark) -> Result<(), LedgerError> {
        let write = || -> rusqlite::Result<()> {
            let tx = self.db.unchecked_transaction()?;
            tx.prepare_cached("DELETE FROM batch WHERE last_seq <= ?1")?.execute([mark.last_seq as i64])?;
            let sql = "INSERT INTO mark (one, incarnation, last_seq, last_hash) VALUES (1, ?1, ?2, ?3)
                       ON CONFLICT (one) DO UPDATE SET incarnation = excluded.incarnation,
                         last_seq = excluded.last_seq, last_hash = excluded.last_hash";
            let row = (mark.incarnation as i64, mark.last_seq as i64, &mark.last_hash[..]);
            tx.prepare_cached(sql)?.execute(row)?;
            tx.commit()
        };
        write().map_err(failed)
    }

    /// Another batch stands at this number: kept until a reset begins a new incarnation.
    pub fn conflict(&self, incarnation: u64, seq: u64) -> Result<(), LedgerError> {
        let sql = "INSERT OR IGNORE INTO conflict (incarnation, seq) VALUES (?1, ?2)";
        self.db.execute(sql, (incarnation as i64, seq as i64)).map_err(failed).map(drop)
    }
}

fn read_mark(db: &Connection) -> Result<Option<Mark>, LedgerError> {
    let read = |r: &rusqlite::Row<'_>| {
        Ok(Mark { incarnation: r.get::<_, i64>(0)? as u64, last_seq: r.get::<_, i64>(1)? as u64, last_hash: r.get(2)? })
    };
    db.query_row("SELECT incarnation, last_seq, last_hash FROM mark", [], read).optional().map_err(failed)
}

/// Reads the journal of a writer that may run in another process; none where there is no journal.
pub fn known(path: &Path, incarnation: u64) -> Result<Option<Known>, LedgerError> {
    if !path.is_file() {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(failed)?;
    db.busy_timeout(Duration::from_secs(2)).map_err(failed)?;
    // One view of all tables.
    let tx = db.unchecked_transaction().map_err(failed)?;
    let has: i64 = tx
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name IN ('mark', 'conflict')", [], |r| r.get(0))
        .map_err(failed)?;
    // A journal of an older release, until its writer starts again.
    if has < 2 {
        return Ok(Some(Known::default()));
    }
    let sql = "SELECT seq FROM conflict WHERE incarnation = ?1";
    let conflict = tx.query_row(sql, [incarnation as i64], |r| r.get::<_, i64>(0)).optional().map_err(failed)?;
    let open = load(&tx)?.into_iter().map(|b| (b.last_seq, b.hash)).collect();
    Ok(Some(Known { mark: read_mark(&tx)?, open, conflict: conflict.map(|s| s as u64) }))
}

fn load(db: &Connection) -> Result<Vec<Outgoing>, LedgerError> {
    let mut statement = db.prepare("SELECT tx FROM batch ORDER BY last_seq").map_err(failed)?;
    let rows = statement.query_map([], |r| r.get::<_, Vec<u8>>(0)).map_err(failed)?;
    rows.map(|tx| {
        let tx = tx.map_err(failed)?;
        Outgoing::from_tx(tx).ok_or_else(|| LedgerError::Journal("a kept batch does not decode".into()))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn another_process_sees_the_mark_and_a_conflict_of_this_incarnation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w/writer.sqlite");
        assert_eq!(known(&path, 1).unwrap(), None);
        let journal = Journal::open(&path).unwrap();
        assert_eq!(known(&path, 1).unwrap(), Some(Known::default()));
        let mark = Mark { incarnation: 1, last_seq: 7, last_hash: [3; 32] };
        journal.committed(mark).unwrap();
        journal.conflict(1, 9).unwrap();
        journal.conflict(1, 12).unwrap();
        let seen = Known { mark: Some(mark), open: vec![], conflict: Some(9) };
        assert_eq!(known(&path, 1).unwrap(), Some(seen));
        assert_eq!(known(&path, 2).unwrap().unwrap().conflict, None, "a reset ends it");
        assert_eq!(journal.mark().unwrap(), Some(mark));
    }
}
