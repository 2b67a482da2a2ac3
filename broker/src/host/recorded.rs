//! What the executor recorded of its decisions, read from its release store by the broker of the same node: for auditors,
//! who have them decided again, and for reports.

use super::releases::State;
use concordat_executor::replay::Record;
use concordat_protocol::hash::Hash;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Reads the store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Decisions {
    path: PathBuf,
}

/// A decision as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Global index of its operation.
    pub index: u64,
    /// Canonical operation.
    pub op: Vec<u8>,
    /// All leaves of its commitment, canonical; empty once erased.
    pub openings: Vec<u8>,
    /// The record as JSON text; `{}` once erased.
    pub decision: String,
    /// Whether it was accepted and never released.
    pub withheld: bool,
}

impl Kept {
    /// The record; none where the person was erased or an older release wrote it.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        serde_json::from_str(&self.decision).ok().filter(|r: &Record| !r.request.is_empty())
    }
}

const COLUMNS: &str = "op_index, op, openings, decision, state";

fn read(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let withheld = row.get::<_, i64>(4)? == State::Withheld as i64;
    let index = row.get::<_, i64>(0)? as u64;
    Ok(Kept { index, op: row.get(1)?, openings: row.get(2)?, decision: row.get(3)?, withheld })
}

/// A store of the executor, to read; none where there is none yet.
fn open(path: &Path) -> rusqlite::Result<Option<Connection>> {
    if !path.exists() {
        return Ok(None);
    }
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(Duration::from_secs(2))?;
    Ok(Some(db))
}

impl Decisions {
    /// Decisions of the executor whose release store is at `path`; it need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The decision of an operation.
    pub fn of_op(&self, op_hash: &Hash) -> rusqlite::Result<Option<Kept>> {
        let Some(db) = open(&self.path)? else { return Ok(None) };
        let sql = format!("SELECT {COLUMNS} FROM release WHERE op_hash = ?1");
        db.query_row(&sql, [op_hash], read).optional()
    }

    /// Decisions whose operations are on the ledger, from an index on up to another, in their order.
    pub fn between(&self, from: u64, end: u64) -> rusqlite::Result<Vec<Kept>> {
        let Some(db) = open(&self.path)? else { return Ok(vec![]) };
        let sql = format!(
            "SELECT {COLUMNS} FROM release WHERE op_index >= ?1 AND op_index < ?2 AND op_index > 0 ORDER BY op_index"
        );
        let bound = |v: u64| i64::try_from(v).unwrap_or(i64::MAX);
        db.prepare(&sql)?.query_map([bound(from), bound(end)], read)?.collect()
    }
}

/// What feeds delivered, read from the executor's feed store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Deliveries {
    path: PathBuf,
}

impl Deliveries {
    /// Of the executor whose feed store is at `path`; it need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// `deliver` operations that are on the ledger, in its order.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn anchored(&self) -> rusqlite::Result<Vec<Kept>> {
        let Some(db) = open(&self.path)? else { return Ok(vec![]) };
        let sql = "SELECT op_index, op, openings FROM deliver WHERE op_index IS NOT NULL ORDER BY op_index";
        let kept = |r: &Row<'_>| {
            let (index, decision) = (r.get::<_, i64>(0)? as u64, String::new());
            Ok(Kept { index, op: r.get(1)?, openings: r.get(2)?, decision, withheld: false })
        };
        db.prepare(sql)?.query_map([], kept)?.collect()
    }
}
