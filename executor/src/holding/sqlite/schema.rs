//! The file's own tables: its format version, the datasets it holds, their tables and indexes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use rusqlite::{Connection, TransactionBehavior, params};

use super::pool::told;
use super::{Table, lease, sql};
use crate::holding::{DatasetSpec, HoldingError, checks};

/// The format of the file; raised with each change that an older program cannot read.
const FORMAT: i64 = 1;
/// Marks the file as a holding (`"CcdH"`).
const APPLICATION: i64 = 0x4363_6448;

/// Checks or makes the file's own tables, and reads what it holds.
pub(super) fn load(conn: &mut Connection) -> Result<BTreeMap<String, Arc<Table>>, HoldingError> {
    let pragma = |c: &Connection, name: &str| c.pragma_query_value(None, name, |r| r.get::<_, i64>(0)).map_err(told);
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(told)?;
    let (application, format) = (pragma(&tx, "application_id")?, pragma(&tx, "user_version")?);
    let anything: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).map_err(told)?;
    if anything == 0 {
        tx.execute_batch(&format!(
            "CREATE TABLE datasets (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, spec TEXT NOT NULL) STRICT;
             PRAGMA application_id = {APPLICATION};
             PRAGMA user_version = {FORMAT};"
        ))
        .map_err(told)?;
    } else if application != APPLICATION {
        return Err(HoldingError::Damaged("the file belongs to another program".into()));
    } else if format > FORMAT {
        return Err(HoldingError::Format { found: format, known: FORMAT });
    }
    // Ids of writes that were carried out once. An older program never looks at them.
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS writes (id BLOB PRIMARY KEY NOT NULL, done INTEGER NOT NULL,
           at INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID",
    )
    .map_err(told)?;
    let at = "SELECT count(*) FROM pragma_table_info('writes') WHERE name = 'at'";
    if tx.query_row(at, [], |r| r.get::<_, i64>(0)).map_err(told)? == 0 {
        tx.execute_batch("ALTER TABLE writes ADD COLUMN at INTEGER NOT NULL DEFAULT 0").map_err(told)?;
    }
    tx.execute_batch("CREATE INDEX IF NOT EXISTS writes_at ON writes (at)").map_err(told)?;
    tx.execute_batch(lease::TABLE).map_err(told)?;
    let mut tables = BTreeMap::new();
    {
        let mut all = tx.prepare("SELECT number, id, spec FROM datasets").map_err(told)?;
        let mut rows = all.query([]).map_err(told)?;
        while let Some(row) = rows.next().map_err(told)? {
            let number = row.get(0).map_err(told)?;
            let (id, text): (String, String) = (row.get(1).map_err(told)?, row.get(2).map_err(told)?);
            let spec: DatasetSpec =
                serde_json::from_str(&text).map_err(|e| HoldingError::Damaged(format!("dataset {id}: {e}")))?;
            // Statistics are taken anew at the first write after a start.
            tables.insert(id, Arc::new(Table { number, spec, analyzed: AtomicI64::new(0) }));
        }
    }
    tx.commit().map_err(told)?;
    Ok(tables)
}

/// Makes or changes a dataset's table and indexes.
pub(super) fn ensure(conn: &mut Connection, spec: &DatasetSpec, old: Option<&Table>) -> Result<Table, HoldingError> {
    if let Some(old) = old {
        checks::fits(&old.spec, spec)?;
        if old.spec == *spec {
            let analyzed = AtomicI64::new(old.analyzed.load(Ordering::Relaxed));
            return Ok(Table { number: old.number, spec: spec.clone(), analyzed });
        }
    }
    let text = serde_json::to_string(spec).map_err(|e| HoldingError::Store(e.to_string()))?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(told)?;
    let number = match old {
        Some(old) => {
            tx.execute("UPDATE datasets SET spec = ? WHERE number = ?", params![text, old.number]).map_err(told)?;
            old.number
        }
        None => {
            tx.execute("INSERT INTO datasets (id, spec) VALUES (?, ?)", params![spec.id, text]).map_err(told)?;
            let number = tx.last_insert_rowid();
            tx.execute_batch(&format!(
                "CREATE TABLE d{number} (key TEXT PRIMARY KEY NOT NULL, doc TEXT NOT NULL, ord TEXT NOT NULL) STRICT"
            ))
            .map_err(told)?;
            number
        }
    };
    let wanted = indexes(number, spec);
    let there = old.map(|o| indexes(number, &o.spec)).unwrap_or_default();
    for name in there.keys().filter(|n| !wanted.contains_key(*n)) {
        tx.execute_batch(&format!("DROP INDEX IF EXISTS {name}")).map_err(told)?;
    }
    for (name, columns) in wanted.iter().filter(|(n, _)| !there.contains_key(*n)) {
        tx.execute_batch(&format!("CREATE INDEX {name} ON d{number} ({columns})")).map_err(told)?;
    }
    tx.commit().map_err(told)?;
    Ok(Table { number, spec: spec.clone(), analyzed: AtomicI64::new(0) })
}

/// Takes a sample of the table's indexes when it has more than doubled since it had `analyzed`
/// rows; answers its rows then.
pub(super) fn statistics(conn: &Connection, table: i64, analyzed: i64) -> Result<Option<i64>, rusqlite::Error> {
    // Few rows are removed one by one, so the highest row number is about their count.
    let rows: i64 = conn.query_row(&format!("SELECT ifnull(max(rowid),0) FROM d{table}"), [], |r| r.get(0))?;
    if rows < 1_000 || rows < analyzed.saturating_mul(2) {
        return Ok(None);
    }
    conn.execute_batch(&format!("PRAGMA analysis_limit = 1000; ANALYZE d{table}"))?;
    Ok(Some(rows))
}

/// Index names (told by their fields) and columns.
fn indexes(table: i64, spec: &DatasetSpec) -> BTreeMap<String, String> {
    sql::index_lists(spec)
        .into_iter()
        .map(|fields| {
            let columns = fields.iter().filter_map(|f| Some(sql::column(f, spec.fields.get(f)?)));
            let columns = columns.collect::<Vec<_>>().join(", ");
            // A dot is in no field name, so it keeps lists apart.
            (format!("\"d{table}.{}\"", fields.join(".")), columns)
        })
        .collect()
}
