//! Writes whose intent the ledger accepted and that have no outcome yet, read from the executor's release store by the
//! broker of the same node.

use concordat_protocol::hash::Hash;
use rusqlite::{Connection, OpenFlags, Row};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most writes that are looked at.
const MOST: u32 = 1_000;

/// Reads the store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Unsettled {
    path: PathBuf,
}

impl Unsettled {
    /// Of the executor whose release store is at `path`; it need not be there yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Global indexes of the intents, oldest first, each with the ledger time at which it was accepted, milliseconds.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn intents(&self) -> rusqlite::Result<Vec<(u64, u64)>> {
        if !self.path.exists() {
            return Ok(vec![]);
        }
        let db = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(Duration::from_secs(2))?;
        let sql = "SELECT op_index, accepted_ms FROM write WHERE outcome_index IS NULL AND op_index > 0
                   ORDER BY op_index LIMIT ?1";
        let number = |r: &Row<'_>, at| r.get::<_, i64>(at).map(|v| v as u64);
        db.prepare(sql)?.query_map([MOST], |r| Ok((number(r, 0)?, number(r, 1)?)))?.collect()
    }
}

/// Which of these intents nobody will ask the store of records for again: the executor's release store at `path` has their
/// outcome, as the ledger took it, or does not know them, and then not what they were to do either.
///
/// # Errors
/// The store cannot be read.
pub fn ended(path: &Path, intents: &[Hash]) -> rusqlite::Result<Vec<bool>> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(Duration::from_secs(2))?;
    let sql = "SELECT count(*) = 0 FROM release r JOIN write w USING (session, n)
               WHERE r.op_hash = ?1 AND w.outcome_index IS NULL";
    let mut found = db.prepare(sql)?;
    intents.iter().map(|id| found.query_row([id], |r| r.get(0))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::host::ReleaseStore;

    #[test]
    fn accepted_writes_without_an_outcome_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("releases.sqlite");
        assert_eq!(Unsettled::new(path.clone()).intents().unwrap(), [] as [(u64, u64); 0], "no store yet");
        drop(ReleaseStore::open(&path).unwrap());
        let db = Connection::open(&path).unwrap();
        // Sent and not accepted, accepted, ended.
        for (n, index, outcome) in [(1, 0, None), (2, 41, None), (3, 30, None), (4, 20, Some(22))] {
            db.execute(
                "INSERT INTO write (session, n, handle, dataset, op_index, outcome_index, accepted_ms)
                 VALUES (1, ?1, 7, 'd', ?2, ?3, 1000 + ?2)",
                rusqlite::params![n, index, outcome],
            )
            .unwrap();
        }
        for n in 1..=4 {
            let sql =
                "INSERT INTO release (session, n, request_hash, op_hash, secret, decision, state, session_ends_ms)
                       VALUES (1, ?1, x'', ?2, x'', '', 0, 0)";
            db.execute(sql, rusqlite::params![n, [n as u8; 32]]).unwrap();
        }
        let asked = [[1; 32], [2; 32], [4; 32], [9; 32]];
        assert_eq!(ended(&path, &asked).unwrap(), [false, false, true, true], "the last is not known");
        assert_eq!(Unsettled::new(path).intents().unwrap(), [(30, 1_030), (41, 1_041)]);
    }
}
