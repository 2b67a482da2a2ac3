//! What operators of a provider are told of: overrides (break-glass), read from the executor's release store by the broker.

use super::releases::State;
use concordat_protocol::ids::OpRef;
use rusqlite::{Connection, OpenFlags, Row};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Reads notices. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Notices {
    path: PathBuf,
}

/// An override at this provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// When it was decided, milliseconds of ledger time.
    pub at_ms: u64,
    /// Global index of its operation, once it is on the ledger.
    pub op: Option<u64>,
    /// `recording`, `released`, `refused`, `withheld` or `promised` (released, the record is on its way).
    pub state: &'static str,
    /// The decision as JSON: clause, who, why. `{}` once erased.
    pub decision: Value,
}

impl Notice {
    /// For the API.
    pub fn to_json(&self) -> Value {
        let d = &self.decision;
        let mut out = json!({
            "kind": "break-glass", "at_ms": self.at_ms, "operation": self.op.map(|op| OpRef(op).to_string()),
            "state": self.state, "agreement": d["agreement"], "clause": d["clause"], "rows": d["rows"],
        });
        if let (Some(out), Some(more)) = (out.as_object_mut(), d["break_glass"].as_object()) {
            out.extend(more.clone());
        }
        out
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Notice> {
    let (state, op, decision): (i64, i64, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
    let word = match state {
        s if s == State::Released as i64 => "released",
        s if s == State::Closed as i64 => "refused",
        s if s == State::Withheld as i64 => "withheld",
        s if s == State::Promised as i64 => "promised",
        _ => "recording",
    };
    let decision = serde_json::from_str(&decision).unwrap_or_default();
    Ok(Notice { at_ms: row.get::<_, i64>(0)? as u64, op: (op > 0).then_some(op as u64), state: word, decision })
}

impl Notices {
    /// Notices of the executor whose release store is at `path`; it need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    fn list(&self, condition: &str, values: &[i64]) -> rusqlite::Result<Vec<Notice>> {
        if !self.path.exists() {
            return Ok(vec![]);
        }
        let db = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(std::time::Duration::from_secs(2))?;
        let sql =
            format!("SELECT notice_ms, state, op_index, decision FROM release WHERE notice_ms > 0 AND {condition}");
        db.prepare(&sql)?.query_map(rusqlite::params_from_iter(values), read)?.collect()
    }

    /// The newest, newest first.
    pub fn newest(&self, limit: u32) -> rusqlite::Result<Vec<Notice>> {
        self.list("1 ORDER BY notice_ms DESC LIMIT ?1", &[i64::from(limit)])
    }

    /// Those decided after a time, oldest first.
    pub fn after(&self, at_ms: u64) -> rusqlite::Result<Vec<Notice>> {
        self.list("notice_ms > ?1 ORDER BY notice_ms LIMIT 1000", &[at_ms as i64])
    }

    /// The notice of an operation.
    pub fn of_op(&self, op: u64) -> rusqlite::Result<Option<Notice>> {
        Ok(self.list("op_index = ?1 LIMIT 1", &[op as i64])?.pop())
    }
}
