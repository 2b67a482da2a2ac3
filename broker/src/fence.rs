//! The fence of a process's own stores: SQLite files that a former process may still have open. Each file has the newest
//! term, and every statement of a guarded connection is refused where that is another one, in its own transaction. So what
//! a former process still wants to write, it cannot, whatever it was doing when it was stopped.

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};
use std::path::Path;
use std::time::Duration;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS executor_fence (one INTEGER PRIMARY KEY CHECK (one = 1), term INTEGER NOT NULL) STRICT;";
/// What SQLite says of a statement that came too late.
const SAID: &str = "another executor took over";

/// How long to wait for a lock of another process.
const BUSY: Duration = Duration::from_millis(500);

fn too_late() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT_TRIGGER);
    rusqlite::Error::SqliteFailure(code, Some(SAID.into()))
}

/// The newest term of a file; none where it was never fenced.
fn term(db: &Connection) -> rusqlite::Result<Option<u64>> {
    let there = "SELECT count(*) FROM sqlite_schema WHERE name = 'executor_fence'";
    if db.query_row(there, [], |r| r.get::<_, i64>(0))? == 0 {
        return Ok(None);
    }
    db.query_row("SELECT term FROM executor_fence", [], |r| r.get::<_, i64>(0)).optional().map(|t| t.map(|t| t as u64))
}

fn set(db: &mut Connection, term: u64) -> rusqlite::Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(TABLE)?;
    let raise = "INSERT INTO executor_fence (one, term) VALUES (1, ?1)
                 ON CONFLICT (one) DO UPDATE SET term = excluded.term WHERE term <= excluded.term";
    if tx.execute(raise, [term as i64])? == 0 {
        return Err(too_late());
    }
    tx.commit()
}

/// Raises a file's term, where there is such a file: from now on nobody with an older one writes to it.
///
/// # Errors
/// It has a newer term, it is locked, or what else SQLite says.
pub fn raise(path: &Path, term: u64) -> rusqlite::Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    let mut db = Connection::open(path)?;
    db.busy_timeout(BUSY)?;
    set(&mut db, term)
}

/// The newest term of a file; 0 where there is no such file, or it was never fenced.
///
/// # Errors
/// What SQLite says.
pub fn newest(path: &Path) -> rusqlite::Result<u64> {
    if !path.is_file() {
        return Ok(0);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    term(&Connection::open_with_flags(path, flags)?).map(Option::unwrap_or_default)
}

/// Lets a connection write while the file has this term, and no longer. Called when all tables are there.
///
/// # Errors
/// The file has a newer term, or what else SQLite says.
pub fn guard(db: &mut Connection, term: u64) -> rusqlite::Result<()> {
    set(db, term)?;
    let tables = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'executor_fence'";
    let tables: Vec<String> = db.prepare(tables)?.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?;
    for table in tables {
        for (verb, word) in [("i", "INSERT"), ("u", "UPDATE"), ("d", "DELETE")] {
            // Of this connection alone: others know nothing of it, and the file is as it was.
            db.execute_batch(&format!(
                "CREATE TEMP TRIGGER \"fence_{verb}_{table}\" BEFORE {word} ON main.\"{table}\"
                 WHEN (SELECT term FROM main.executor_fence) IS NOT {term} BEGIN SELECT RAISE(ABORT, '{SAID}'); END"
            ))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn open(path: &Path) -> Connection {
        let db = Connection::open(path).unwrap();
        db.execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t (k INTEGER PRIMARY KEY, v TEXT) STRICT;
             CREATE TABLE IF NOT EXISTS w (k TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;",
        )
        .unwrap();
        db
    }

    #[test]
    fn a_former_process_writes_nothing_whatever_it_was_doing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sqlite");
        let mut old = open(&path);
        guard(&mut old, 1).unwrap();
        old.execute("INSERT INTO t VALUES (1, 'old')", []).unwrap();
        // A transaction that has read and not written yet.
        let begun = old.unchecked_transaction().unwrap();
        assert_eq!(begun.query_row("SELECT count(*) FROM t", [], |r| r.get::<_, i64>(0)).unwrap(), 1);
        raise(&path, 2).unwrap();
        begun.execute("INSERT INTO t VALUES (2, 'late')", []).unwrap_err();
        drop(begun);
        let mut new = open(&path);
        guard(&mut new, 2).unwrap();
        for late in [
            "INSERT INTO t VALUES (3, 'late')",
            "INSERT OR REPLACE INTO t VALUES (1, 'late')",
            "INSERT OR IGNORE INTO w VALUES ('late')",
            "INSERT INTO t VALUES (1, 'late') ON CONFLICT (k) DO UPDATE SET v = 'late'",
            "UPDATE t SET v = 'late'",
            "DELETE FROM t",
        ] {
            let said = old.execute(late, []).unwrap_err().to_string();
            assert!(said.contains(SAID), "{late}: {said}");
        }
        new.execute("UPDATE t SET v = 'new'", []).unwrap();
        let rows: Vec<(i64, String)> = new
            .prepare("SELECT k, v FROM t")
            .unwrap()
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(rows, [(1, "new".to_owned())]);
        // Terms only grow, and who is not fenced is let alone.
        assert!(guard(&mut open(&path), 1).unwrap_err().to_string().contains(SAID));
        assert!(raise(&path, 1).is_err());
        assert_eq!(newest(&path).unwrap(), 2);
        open(&path).execute("INSERT INTO t VALUES (9, 'tool')", []).unwrap();
        raise(&dir.path().join("none.sqlite"), 1).unwrap();
        assert!(!dir.path().join("none.sqlite").exists());
    }
}
