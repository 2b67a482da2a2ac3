//! Writes whose intent the ledger accepted and that have no outcome yet, read from the executor's release store by the
//! broker of the same node.

use rusqlite::{Connection, OpenFlags};
use std::path::PathBuf;
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

    /// Global indexes of the intents, oldest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn intents(&self) -> rusqlite::Result<Vec<u64>> {
        if !self.path.exists() {
            return Ok(vec![]);
        }
        let db = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(Duration::from_secs(2))?;
        let sql = "SELECT op_index FROM write WHERE outcome_index IS NULL AND op_index > 0 ORDER BY op_index LIMIT ?1";
        db.prepare(sql)?.query_map([MOST], |r| r.get::<_, i64>(0).map(|i| i as u64))?.collect()
    }
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
        assert_eq!(Unsettled::new(path.clone()).intents().unwrap(), [] as [u64; 0], "no store yet");
        drop(ReleaseStore::open(&path).unwrap());
        let db = Connection::open(&path).unwrap();
        // Sent and not accepted, accepted, ended.
        for (n, index, outcome) in [(1, 0, None), (2, 41, None), (3, 30, None), (4, 20, Some(22))] {
            db.execute(
                "INSERT INTO write (session, n, handle, dataset, op_index, outcome_index) VALUES (1, ?1, 7, 'd', ?2, ?3)",
                rusqlite::params![n, index, outcome],
            )
            .unwrap();
        }
        assert_eq!(Unsettled::new(path).intents().unwrap(), [30, 41]);
    }
}
