//! Which operations touched which subjects, in the release store. An answer appends its subjects as one row; the index by
//! subject, whose places are random, is written for many answers at once.

use super::subjects::SubjectId;
use rusqlite::{Connection, OptionalExtension, params};

/// Subjects that may wait for the index. Until then they are found by looking through their rows.
const WAITING_MAX: usize = 16_384;

/// Its tables: the index, and what waits for it.
pub(crate) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS touched (subject BLOB NOT NULL, session INTEGER NOT NULL, n INTEGER NOT NULL,
      PRIMARY KEY (subject, session, n)) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS touched_new (session INTEGER NOT NULL, n INTEGER NOT NULL, subjects BLOB NOT NULL,
      PRIMARY KEY (session, n)) STRICT, WITHOUT ROWID;";

/// The condition by which an operation touched subject `?1`.
pub(crate) const OF_SUBJECT: &str = "(session, n) IN (SELECT session, n FROM touched WHERE subject = ?1
    UNION ALL SELECT session, n FROM touched_new WHERE instr(subjects, ?1) > 0)";

fn ids(blob: &[u8]) -> impl Iterator<Item = SubjectId> + '_ {
    blob.as_chunks::<32>().0.iter().copied()
}

/// How many subjects wait for the index.
pub(crate) fn waiting(db: &Connection) -> rusqlite::Result<usize> {
    let sql = "SELECT coalesce(sum(length(subjects)), 0) / 32 FROM touched_new";
    db.query_row(sql, [], |r| r.get::<_, i64>(0)).map(|n| usize::try_from(n).unwrap_or_default())
}

/// Notes the subjects of an operation.
pub(crate) fn add(tx: &Connection, (session, n): (i64, i64), subjects: &[SubjectId]) -> rusqlite::Result<()> {
    if subjects.is_empty() {
        return Ok(());
    }
    let sql = "INSERT OR REPLACE INTO touched_new (session, n, subjects) VALUES (?1, ?2, ?3)";
    tx.prepare_cached(sql)?.execute(params![session, n, subjects.as_flattened()]).map(drop)
}

/// Writes the index where enough wait for it; returns how many wait then.
pub(crate) fn fold(tx: &Connection, waiting: usize) -> rusqlite::Result<usize> {
    if waiting < WAITING_MAX {
        return Ok(waiting);
    }
    let mut all = Vec::with_capacity(waiting);
    {
        let mut list = tx.prepare_cached("SELECT session, n, subjects FROM touched_new")?;
        let mut rows = list.query([])?;
        while let Some(row) = rows.next()? {
            let (session, n): (i64, i64) = (row.get(0)?, row.get(1)?);
            all.extend(ids(row.get_ref(2)?.as_blob()?).map(|id| (id, session, n)));
        }
    }
    // In the index's own order each of its pages is written once.
    all.sort_unstable();
    let mut put = tx.prepare_cached("INSERT OR IGNORE INTO touched VALUES (?1, ?2, ?3)")?;
    for (id, session, n) in all {
        put.execute(params![id, session, n])?;
    }
    tx.execute("DELETE FROM touched_new", [])?;
    Ok(0)
}

/// Removes an operation.
pub(crate) fn remove(tx: &Connection, key: [i64; 2]) -> rusqlite::Result<()> {
    for table in ["touched", "touched_new"] {
        tx.execute(&format!("DELETE FROM {table} WHERE session = ?1 AND n = ?2"), key)?;
    }
    Ok(())
}

/// The subjects of the operation with this hash.
pub(crate) fn of_op(db: &Connection, op_hash: &[u8; 32]) -> rusqlite::Result<Vec<SubjectId>> {
    let sql = "SELECT subject FROM touched NATURAL JOIN release WHERE op_hash = ?1";
    let mut all: Vec<SubjectId> =
        db.prepare_cached(sql)?.query_map([op_hash], |r| r.get(0))?.collect::<Result<_, _>>()?;
    let sql = "SELECT subjects FROM touched_new NATURAL JOIN release WHERE op_hash = ?1";
    let new = db.prepare_cached(sql)?.query_row([op_hash], |r| r.get::<_, Vec<u8>>(0)).optional()?;
    all.extend(new.iter().flat_map(|blob| ids(blob)));
    Ok(all)
}

/// Removes a subject from all operations.
pub(crate) fn forget(tx: &Connection, id: &SubjectId) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM touched WHERE subject = ?1", [id])?;
    let sql = "SELECT session, n, subjects FROM touched_new WHERE instr(subjects, ?1) > 0";
    let found = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get(1)?, r.get(2)?));
    let rows: Vec<(i64, i64, Vec<u8>)> = tx.prepare(sql)?.query_map([id], found)?.collect::<Result<_, _>>()?;
    for (session, n, blob) in rows {
        let others: Vec<SubjectId> = ids(&blob).filter(|s| s != id).collect();
        let sql = "UPDATE touched_new SET subjects = ?3 WHERE session = ?1 AND n = ?2";
        tx.execute(sql, params![session, n, others.as_flattened()])?;
    }
    Ok(())
}
