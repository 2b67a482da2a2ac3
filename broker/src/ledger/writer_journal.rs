//! The writer's journal: batches that may be on their way, kept durably before they are sent.

use super::LedgerError;
use super::writer_core::Outgoing;
use rusqlite::Connection;
use std::path::Path;

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
             CREATE TABLE IF NOT EXISTS batch (last_seq INTEGER PRIMARY KEY, tx BLOB NOT NULL) STRICT;",
        )
        .map_err(failed)?;
        Ok(Self { db })
    }

    /// All batches kept, in order.
    pub fn load(&self) -> Result<Vec<Outgoing>, LedgerError> {
        let mut statement = self.db.prepare("SELECT tx FROM batch ORDER BY last_seq").map_err(failed)?;
        let rows = statement.query_map([], |r| r.get::<_, Vec<u8>>(0)).map_err(failed)?;
        rows.map(|tx| {
            let tx = tx.map_err(failed)?;
            Outgoing::from_tx(tx).ok_or_else(|| LedgerError::Journal("a kept batch does not decode".into()))
        })
        .collect()
    }

    /// Keeps a batch; durable when it returns.
    pub fn keep(&self, batch: &Outgoing) -> Result<(), LedgerError> {
        let mut statement =
            self.db.prepare_cached("INSERT INTO batch (last_seq, tx) VALUES (?1, ?2)").map_err(failed)?;
        statement.execute((batch.last_seq as i64, &batch.tx)).map_err(failed).map(|_| ())
    }

    /// Forgets batches that are committed.
    pub fn forget(&self, last_seq: u64) -> Result<(), LedgerError> {
        let mut statement = self.db.prepare_cached("DELETE FROM batch WHERE last_seq <= ?1").map_err(failed)?;
        statement.execute([last_seq as i64]).map_err(failed).map(|_| ())
    }
}
