//! Forgetting rows so that nothing of them is left in the store's files.

use super::pool::{held, told};
use super::{SqliteHolding, Table, lease};
use crate::holding::{HoldingError, checks, value_key};
use rusqlite::{Connection, TransactionBehavior};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the write-ahead log may be in use by reads before it can be emptied.
const READS_WITHIN: Duration = Duration::from_secs(10);
/// How often it is tried meanwhile.
const LOOK: Duration = Duration::from_millis(20);

impl SqliteHolding {
    pub(super) fn forget_rows(
        &self,
        table: &Arc<Table>,
        field: &str,
        gone: &dyn Fn(&str) -> bool,
    ) -> Result<u64, HoldingError> {
        let ty = checks::field(&table.spec, field)?;
        let mut conn = held(&self.writer);
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(told)?;
        lease::check(&tx, self.bound.term())?;
        let t = table.number;
        let mut count = 0;
        {
            let mut all = tx.prepare(&format!("SELECT key, doc -> '$.\"{field}\"' FROM d{t}")).map_err(told)?;
            let mut rows = all.query([]).map_err(told)?;
            let mut keys: Vec<String> = Vec::new();
            while let Some(row) = rows.next().map_err(told)? {
                let json: Option<String> = row.get(1).map_err(told)?;
                let value = json.and_then(|j| serde_json::from_str(&j).ok());
                if value.and_then(|v| value_key(ty, &v)).is_some_and(|text| gone(&text)) {
                    keys.push(row.get(0).map_err(told)?);
                }
            }
            let mut delete = tx.prepare(&format!("DELETE FROM d{t} WHERE key = ?")).map_err(told)?;
            for key in keys {
                count += delete.execute([key]).map_err(told)? as u64;
            }
        }
        tx.commit().map_err(told)?;
        if count > 0 {
            // Deleted cells are overwritten (secure_delete); what earlier versions of the rows left behind is not.
            conn.execute_batch("VACUUM").map_err(told)?;
        }
        empty_log(&conn).map_err(told)?;
        Ok(count)
    }
}

/// Moves everything from an SQLite file's write-ahead log into the file and empties the log, so that nothing deleted is left in
/// it. Readers hold it for as long as they read: this waits for them, on a blocking thread.
///
/// # Errors
/// SQLite's; `SQLITE_BUSY` when reads went on for ten seconds.
pub fn empty_log(db: &Connection) -> rusqlite::Result<()> {
    let end = Instant::now() + READS_WITHIN;
    loop {
        let busy: i64 = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get(0))?;
        if busy == 0 {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None));
        }
        // Nothing tells when a reader of another connection ends.
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::holding::sqlite::tests::{fresh, small};
    use crate::holding::{Holding, Plan};
    use crate::query::Filter;
    use serde_json::{Map, Value, json};

    /// Every file of a folder that holds these bytes.
    fn holding_bytes(dir: &std::path::Path, wanted: &[u8]) -> Vec<String> {
        let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        let has = |p: &std::path::PathBuf| std::fs::read(p).unwrap().windows(wanted.len()).any(|w| w == wanted);
        files.filter(has).map(|p| p.display().to_string()).collect()
    }

    #[test]
    fn a_forgotten_row_is_in_no_file_and_the_others_stay() {
        let spec = small();
        let (dir, holding) = fresh(&spec);
        let (id, field) = (&spec.key[0], &spec.key[0]);
        let row = |n: usize| -> Map<String, Value> {
            let name = if n == 77 { "canary-5d1f".to_owned() } else { format!("row-{n}") };
            json!({ id: name }).as_object().unwrap().clone()
        };
        holding.put_many(&spec.id, &(0..200).map(row).collect::<Vec<_>>()).unwrap();
        assert!(!holding_bytes(dir.path(), b"canary-5d1f").is_empty());
        assert_eq!(holding.forget(&spec.id, field, &|t| t == "canary-5d1f").unwrap(), 1);
        assert_eq!(holding_bytes(dir.path(), b"canary-5d1f"), Vec::<String>::new());
        let left = holding.query(&Plan { limit: 1_000, ..Plan::new(&spec.id, Filter::All) }).unwrap();
        assert_eq!(left.rows.len(), 199);
        assert_eq!(holding.forget(&spec.id, field, &|t| t == "canary-5d1f").unwrap(), 0);
        assert_eq!(holding.forget(&spec.id, "nothing", &|_| true).unwrap_err().code(), "holding.plan");
    }
}
