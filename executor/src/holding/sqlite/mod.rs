//! The embedded holding: one SQLite file, a table a dataset, JSON documents, expression indexes.

mod forget;
mod lease;
mod once;
mod pool;
mod schema;
mod sql;

#[cfg(test)]
pub(super) mod tests;

pub use forget::empty_log;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, StatementStatus, TransactionBehavior, params};
use serde_json::{Map, Value};

use super::fence::Bound;
use super::page::Page;
use super::row::check_row;
use super::{Checked, Ended, Expect, Fate, Once, Version, Written};
use super::{DatasetSpec, Health, Holding, HoldingError, Plan, PutReport, Row, Rows, checks};
use crate::lease::{Answer, Bid};
use crate::limits::{LOCK_TIMEOUT, READERS, STATEMENT_TIMEOUT};
use crate::query::Filter;
use pool::{Readers, held, told, writer};

/// How the embedded store runs.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Connections that read at once.
    pub readers: usize,
    /// How long one read may take.
    pub statement_timeout: Duration,
    /// How long to wait for another process's lock.
    pub lock_timeout: Duration,
    /// The most bytes the file may take; past it a write answers as a full disk does.
    pub max_bytes: Option<u64>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { readers: READERS, statement_timeout: STATEMENT_TIMEOUT, lock_timeout: LOCK_TIMEOUT, max_bytes: None }
    }
}

/// A table and what it holds.
#[derive(Debug)]
struct Table {
    number: i64,
    spec: DatasetSpec,
    /// Rows when the index statistics were taken.
    analyzed: AtomicI64,
}

/// A holding in one SQLite file (and its `-wal` and `-shm` beside it).
pub struct SqliteHolding {
    writer: Mutex<Connection>,
    readers: Readers,
    tables: RwLock<BTreeMap<String, Arc<Table>>>,
    bound: Bound,
    path: PathBuf,
    lock_timeout: Duration,
    /// The file of the executor's lease, opened when first needed.
    leases: Mutex<Option<Connection>>,
}

impl SqliteHolding {
    /// Opens the file, making it (readable by its owner only) where there is none.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Self, HoldingError> {
        private_file(path)?;
        let mut conn = writer(path, &options)?;
        if let Some(bytes) = options.max_bytes {
            let page: i64 = conn.query_row("PRAGMA page_size", [], |r| r.get(0)).map_err(told)?;
            let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
            // The pragma answers with a row.
            conn.query_row(&format!("PRAGMA max_page_count = {}", pages.max(1)), [], |r| r.get::<_, i64>(0))
                .map_err(told)?;
        }
        let tables = schema::load(&mut conn)?;
        Ok(Self {
            writer: Mutex::new(conn),
            bound: Bound::default(),
            path: path.to_owned(),
            lock_timeout: options.lock_timeout,
            leases: Mutex::default(),
            readers: Readers::new(path, options),
            tables: RwLock::new(tables),
        })
    }

    fn table(&self, dataset: &str) -> Result<Arc<Table>, HoldingError> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let table = tables.get(dataset).cloned();
        table.ok_or_else(|| checks::unknown(dataset))
    }

    /// Puts another row, or none, in the place of a key's, if that is as expected.
    fn change(&self, table: &Table, key: &str, expect: &Expect, new: Option<Checked>) -> Result<Written, HoldingError> {
        let mut conn = held(&self.writer);
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(told)?;
        let written = exchange(&tx, table, key, expect, new)?;
        tx.commit().map_err(told)?;
        Ok(written)
    }

    /// Takes index statistics anew when the table has doubled, so that the store chooses the index
    /// that narrows most. Without them it prefers a list of precincts to a day. A failure costs
    /// speed only: the rows are safe already, and the next write tries again.
    fn keep_statistics(&self, conn: &Connection, table: &Table) {
        if let Ok(Some(rows)) = schema::statistics(conn, table.number, table.analyzed.load(Ordering::Relaxed)) {
            table.analyzed.store(rows, Ordering::Relaxed);
            self.readers.renew();
        }
    }
}

/// Puts another row, or none, in the place of a key's, within a transaction.
fn exchange(
    tx: &Connection,
    table: &Table,
    key: &str,
    expect: &Expect,
    new: Option<Checked>,
) -> Result<Written, HoldingError> {
    let t = table.number;
    let old = tx.query_row(&format!("SELECT doc FROM d{t} WHERE key = ?"), [key], |r| r.get::<_, String>(0));
    let old = old.optional().map_err(told)?;
    expect.check(key, old.as_deref())?;
    match &new {
        Some(row) => tx.execute(
            &format!("INSERT OR REPLACE INTO d{t} (key, doc, ord) VALUES (?, ?, ?)"),
            params![row.key, row.doc, row.ord],
        ),
        None => tx.execute(&format!("DELETE FROM d{t} WHERE key = ?"), [key]),
    }
    .map_err(told)?;
    let now = new.map(|row| Version::of(&row.doc));
    Ok(Written { key: key.to_owned(), before: old.as_deref().map(Version::of), now })
}

// The store's own files beside it take the permissions of this one. The folder is synced so that
// a new file's name outlives a power loss as its rows do.
fn private_file(path: &Path) -> Result<(), HoldingError> {
    let new = !path.exists();
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let made = options.open(path).and_then(|_| match path.parent() {
        Some(folder) if new && !folder.as_os_str().is_empty() => std::fs::File::open(folder)?.sync_all(),
        _ => Ok(()),
    });
    made.map_err(|e| match e.kind() {
        std::io::ErrorKind::StorageFull => HoldingError::DiskFull,
        _ => HoldingError::Access(format!("{}: {e}", path.display())),
    })
}

impl Holding for SqliteHolding {
    fn ensure_dataset(&self, spec: &DatasetSpec) -> Result<(), HoldingError> {
        spec.check()?;
        let mut conn = held(&self.writer);
        let old = self.table(&spec.id).ok();
        let table = schema::ensure(&mut conn, spec, old.as_deref())?;
        self.keep_statistics(&conn, &table);
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.insert(spec.id.clone(), Arc::new(table));
        Ok(())
    }

    fn spec(&self, dataset: &str) -> Result<DatasetSpec, HoldingError> {
        Ok(self.table(dataset)?.spec.clone())
    }

    fn put_many(&self, dataset: &str, rows: &[Map<String, Value>]) -> Result<PutReport, HoldingError> {
        let table = self.table(dataset)?;
        let checked = checks::rows(&table.spec, rows)?;
        let mut conn = held(&self.writer);
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(told)?;
        let mut report = PutReport::default();
        {
            let t = table.number;
            let mut find = tx.prepare_cached(&format!("SELECT doc FROM d{t} WHERE key = ?")).map_err(told)?;
            let mut put = tx
                .prepare_cached(&format!(
                    "INSERT INTO d{t} (key, doc, ord) VALUES (?, ?, ?)
                     ON CONFLICT (key) DO UPDATE SET doc = excluded.doc, ord = excluded.ord"
                ))
                .map_err(told)?;
            for row in &checked {
                let old: Option<String> = find.query_row([&row.key], |r| r.get(0)).optional().map_err(told)?;
                match old {
                    Some(doc) if doc == row.doc => {
                        report.unchanged += 1;
                        continue;
                    }
                    Some(_) => report.updated += 1,
                    None => report.inserted += 1,
                }
                put.execute(params![row.key, row.doc, row.ord]).map_err(told)?;
            }
        }
        tx.commit().map_err(told)?;
        if report.inserted > 0 {
            self.keep_statistics(&conn, &table);
        }
        Ok(report)
    }

    fn write(&self, dataset: &str, row: &Map<String, Value>, expect: &Expect) -> Result<Written, HoldingError> {
        let table = self.table(dataset)?;
        let new = check_row(&table.spec, 0, row)?;
        let written = self.change(&table, &new.key.clone(), expect, Some(new))?;
        if written.before.is_none() {
            self.keep_statistics(&held(&self.writer), &table);
        }
        Ok(written)
    }

    fn delete(&self, dataset: &str, key: &str, expect: &Expect) -> Result<Written, HoldingError> {
        self.change(&*self.table(dataset)?, key, expect, None)
    }

    fn apply(&self, dataset: &str, once: &Once) -> Result<Fate, HoldingError> {
        self.settle(&*self.table(dataset)?, once, true)
    }

    fn void(&self, dataset: &str, once: &Once) -> Result<Fate, HoldingError> {
        self.settle(&*self.table(dataset)?, once, false)
    }

    fn forget_writes(&self, kept: Duration, ended: &Ended<'_>) -> Result<u64, HoldingError> {
        self.prune(kept, ended)
    }

    fn lease(&self, bid: &Bid) -> Result<Answer, HoldingError> {
        self.bid(bid)
    }

    fn bind(&self, term: u64) {
        self.bound.set(term);
    }

    fn may_write(&self, dataset: &str) -> Result<bool, HoldingError> {
        self.table(dataset).map(|_| true)
    }

    fn page(&self, plan: &Plan) -> Result<Rows, HoldingError> {
        let table = self.table(&plan.dataset)?;
        let statement = page_of(&table, plan)?;
        self.readers.read(|conn| {
            let mut prepared = conn.prepare_cached(&statement.text).map_err(told)?;
            prepared.reset_status(StatementStatus::FullscanStep);
            let mut page = Page::new(plan.limit);
            {
                let mut found = prepared.query(rusqlite::params_from_iter(&statement.params)).map_err(told)?;
                while let Some(row) = found.next().map_err(told)? {
                    if !page.take(|| read_row(row, plan.select.as_deref()))? {
                        break;
                    }
                }
            }
            let scanned = prepared.get_status(StatementStatus::FullscanStep);
            Ok(page.done(u64::try_from(scanned).ok()))
        })
    }

    fn tally(&self, dataset: &str, filter: &Filter) -> Result<u64, HoldingError> {
        let table = self.table(dataset)?;
        checks::fields(&table.spec, filter, &[])?;
        let statement = sql::count(table.number, filter);
        self.readers.read(|conn| {
            let mut prepared = conn.prepare_cached(&statement.text).map_err(told)?;
            let params = rusqlite::params_from_iter(&statement.params);
            let n: i64 = prepared.query_row(params, |r| r.get(0)).map_err(told)?;
            Ok(u64::try_from(n).unwrap_or(0))
        })
    }

    fn get(&self, dataset: &str, key: &str) -> Result<Option<Map<String, Value>>, HoldingError> {
        let table = self.table(dataset)?;
        self.readers.read(|conn| {
            let text = format!("SELECT key, doc FROM d{} WHERE key = ?", table.number);
            let mut prepared = conn.prepare_cached(&text).map_err(told)?;
            let mut found = prepared.query([key]).map_err(told)?;
            match found.next().map_err(told)? {
                Some(row) => Ok(Some(read_row(row, None)?.0.doc)),
                None => Ok(None),
            }
        })
    }

    fn forget(&self, dataset: &str, field: &str, gone: &dyn Fn(&str) -> bool) -> Result<u64, HoldingError> {
        self.forget_rows(&self.table(dataset)?, field, gone)
    }

    fn explain(&self, plan: &Plan) -> Result<String, HoldingError> {
        let table = self.table(&plan.dataset)?;
        let statement = page_of(&table, &Plan { filter: plan.filter.coarse(), ..plan.clone() })?;
        self.readers.read(|conn| {
            let text = format!("EXPLAIN QUERY PLAN {}", statement.text);
            let mut prepared = conn.prepare(&text).map_err(told)?;
            let params = rusqlite::params_from_iter(&statement.params);
            let lines = prepared.query_map(params, |r| r.get::<_, String>(3)).map_err(told)?;
            let lines: Result<Vec<_>, _> = lines.collect();
            Ok(lines.map_err(told)?.join("\n"))
        })
    }

    fn health(&self) -> Result<Health, HoldingError> {
        {
            let mut conn = held(&self.writer);
            // Takes and gives back the write lock: shows another process's before a write meets it.
            let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(told)?;
            tx.rollback().map_err(told)?;
        }
        let datasets = self.tables.read().unwrap_or_else(PoisonError::into_inner).len();
        self.readers.read(|conn| {
            let number = |pragma: &str| conn.query_row(pragma, [], |r| r.get::<_, i64>(0)).map_err(told);
            let bytes = number("PRAGMA page_count")? * number("PRAGMA page_size")?;
            Ok(Health {
                store: format!("sqlite {}", rusqlite::version()),
                datasets,
                bytes: u64::try_from(bytes).unwrap_or(0),
            })
        })
    }
}

fn page_of(table: &Table, plan: &Plan) -> Result<sql::Statement, HoldingError> {
    checks::plan(&table.spec, plan)?;
    Ok(sql::page(table.number, &table.spec, plan))
}

fn read_row(row: &rusqlite::Row<'_>, select: Option<&[String]>) -> Result<(Row, usize), HoldingError> {
    let damaged = |e: serde_json::Error| HoldingError::Damaged(format!("a row is not JSON: {e}"));
    let text = |i: usize| row.get::<_, Option<String>>(i).map_err(told);
    let key = text(0)?.unwrap_or_default();
    let mut doc = Map::new();
    let mut bytes = key.len();
    match select {
        None => {
            let json = text(1)?.unwrap_or_default();
            bytes += json.len();
            doc = serde_json::from_str(&json).map_err(damaged)?;
        }
        Some(names) => {
            for (i, name) in names.iter().enumerate() {
                if let Some(json) = text(i + 1)? {
                    bytes += name.len() + json.len() + 4;
                    doc.insert(name.clone(), serde_json::from_str(&json).map_err(damaged)?);
                }
            }
        }
    }
    Ok((Row { key, doc }, bytes))
}
