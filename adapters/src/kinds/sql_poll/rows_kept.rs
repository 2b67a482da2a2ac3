//! What was told of every row of a table, so that the next look finds what is new, changed or gone.
//!
//! A file of SQLite beside the adapter's dead letters. A page's changes are on disk before its rows are handed out, each with
//! what was there before under the number of its row: what never became durable at the broker is undone.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

/// 16 bytes of a hash over a row's values.
pub(crate) type Print = [u8; 16];

/// The rows that were told.
pub(crate) struct Kept(Connection);

/// One change of what is kept.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// Number of the row that tells it.
    pub row: u64,
    /// The row's key.
    pub key: String,
    /// What the row is now, and the cells that a delete will need; none when it is gone.
    pub now: Option<(Print, String)>,
}

impl Kept {
    /// Opens the file, as far as it belongs to rows up to number `row`.
    pub(crate) fn open(path: &Path, row: u64) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             CREATE TABLE IF NOT EXISTS told (key TEXT PRIMARY KEY, print BLOB NOT NULL, cells TEXT NOT NULL) WITHOUT ROWID; \
             CREATE TABLE IF NOT EXISTS undo (n INTEGER PRIMARY KEY, key TEXT NOT NULL, print BLOB, cells TEXT);",
        )?;
        let mut kept = Self(connection);
        kept.rewind(row)?;
        Ok(kept)
    }

    /// Undoes what was told after number `row`; everything for 0, where an adapter begins.
    pub(crate) fn rewind(&mut self, row: u64) -> rusqlite::Result<()> {
        if row == 0 {
            return self.0.execute_batch("DELETE FROM told; DELETE FROM undo");
        }
        let tx = self.0.transaction()?;
        {
            let mut list = tx.prepare("SELECT key, print, cells FROM undo WHERE n > ?1 ORDER BY n DESC")?;
            let mut rows = list.query([row.cast_signed()])?;
            while let Some(found) = rows.next()? {
                let (key, print): (String, Option<Vec<u8>>) = (found.get(0)?, found.get(1)?);
                let cells: Option<String> = found.get(2)?;
                match print {
                    Some(print) => {
                        tx.execute("INSERT OR REPLACE INTO told VALUES (?1, ?2, ?3)", params![key, print, cells])?
                    }
                    None => tx.execute("DELETE FROM told WHERE key = ?1", [key])?,
                };
            }
        }
        tx.execute("DELETE FROM undo WHERE n > ?1", [row.cast_signed()])?;
        tx.commit()
    }

    /// Rows up to number `row` are durable.
    pub(crate) fn ack(&mut self, row: u64) -> rusqlite::Result<()> {
        self.0.execute("DELETE FROM undo WHERE n <= ?1", [row.cast_signed()]).map(drop)
    }

    /// What was told of a row.
    pub(crate) fn print(&self, key: &str) -> rusqlite::Result<Option<Print>> {
        let mut statement = self.0.prepare_cached("SELECT print FROM told WHERE key = ?1")?;
        let found: Option<Vec<u8>> = statement.query_row([key], |row| row.get(0)).optional()?;
        Ok(found.and_then(|print| print.try_into().ok()))
    }

    /// True when nothing was told yet.
    pub(crate) fn is_empty(&self) -> rusqlite::Result<bool> {
        self.0.query_row("SELECT NOT EXISTS (SELECT 1 FROM told)", [], |row| row.get(0))
    }

    /// Key and cells of every row for which `gone` says so.
    pub(crate) fn all(&self, gone: impl Fn(&str) -> bool) -> rusqlite::Result<Vec<(String, String)>> {
        let mut statement = self.0.prepare("SELECT key, cells FROM told ORDER BY key")?;
        let mut rows = statement.query([])?;
        let mut out = Vec::new();
        while let Some(row) = rows.next()? {
            let key: String = row.get(0)?;
            if gone(&key) {
                out.push((key, row.get(1)?));
            }
        }
        Ok(out)
    }

    /// Keeps changes, on disk when this returns.
    pub(crate) fn keep(&mut self, changes: &[Change]) -> rusqlite::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let tx = self.0.transaction()?;
        {
            let mut undo = tx.prepare_cached(
                "INSERT INTO undo SELECT ?1, ?2, (SELECT print FROM told WHERE key = ?2), (SELECT cells FROM told WHERE key = ?2)",
            )?;
            let mut put = tx.prepare_cached("INSERT OR REPLACE INTO told VALUES (?1, ?2, ?3)")?;
            let mut remove = tx.prepare_cached("DELETE FROM told WHERE key = ?1")?;
            for change in changes {
                undo.execute(params![change.row.cast_signed(), change.key])?;
                match &change.now {
                    Some((print, cells)) => put.execute(params![change.key, print, cells])?,
                    None => remove.execute([&change.key])?,
                };
            }
        }
        tx.commit()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn put(row: u64, key: &str, print: u8) -> Change {
        Change { row, key: key.into(), now: Some(([print; 16], "[]".into())) }
    }

    #[test]
    fn what_was_not_durable_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.rows");
        let mut kept = Kept::open(&path, 0).unwrap();
        assert!(kept.is_empty().unwrap());
        kept.keep(&[put(1, "a", 1), put(2, "b", 1)]).unwrap();
        kept.ack(2).unwrap();
        kept.keep(&[put(3, "a", 2), Change { row: 4, key: "b".into(), now: None }, put(5, "a", 3)]).unwrap();
        drop(kept);
        let kept = Kept::open(&path, 3).unwrap();
        assert_eq!((kept.print("a").unwrap(), kept.print("b").unwrap()), (Some([2; 16]), Some([1; 16])));
        drop(kept);
        let kept = Kept::open(&path, 2).unwrap();
        assert_eq!(kept.print("a").unwrap(), Some([1; 16]));
        assert_eq!(kept.all(|k| k == "b").unwrap(), [("b".to_owned(), "[]".to_owned())]);
    }
}
