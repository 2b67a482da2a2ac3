//! Holdings: where a provider keeps its records. One trait, several stores, identical results.
//!
//! A row is a JSON object over the dataset's [`Fields`]. Its key text is derived from its key
//! fields, so that a restart never duplicates. Filter, projection, order and page are done by the
//! store. Calls block: run them on a thread that may.
//!
//! Stores carry out [`Holding::page`], [`Holding::tally`] and [`Holding::totals`]; callers use
//! [`Holding::query`], [`Holding::count`] and [`Holding::aggregate`], which add what no store does
//! alike (distances). [`open`] chooses the store by its URI, [`Guarded`] keeps it from harm.

mod bridge;
mod checks;
mod error;
mod fence;
mod guard;
pub mod mongodb;
mod open;
mod page;
pub mod postgres;
mod refine;
mod rest;
pub(crate) mod row;
pub mod sqlite;
mod write;

use std::time::Duration;

use concordat_protocol::hash::Hash;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use error::HoldingError;
pub use guard::{BlackOut, Clock, Guard, Guarded};
pub use mongodb::{MongoHolding, MongoOptions};
pub use open::{HoldingSetup, open};
pub use postgres::{PostgresHolding, PostgresOptions};
pub use rest::{RestPaging, RestSetup, WithRest, rest_path};
pub use row::{Checked, key_text, value_key};
pub use sqlite::{SqliteHolding, SqliteOptions};
pub use write::{Expect, Fate, Once, Version, Written, digest};

use crate::lease::{Answer, Bid};
use crate::limits::{DEFAULT_PAGE_ROWS, MAX_INDEXES, MAX_KEY_FIELDS};
use crate::query::{Fields, Filter, Groups, Order, Query, Totals};

/// What a holding must know of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSpec {
    /// The dataset's id, like `ds:police/stops@1`.
    pub id: String,
    /// The fields whose values make the key, in order.
    pub key: Vec<String>,
    /// All fields with their types.
    pub fields: Fields,
    /// Indexes, each a list of fields.
    pub indexes: Vec<Vec<String>>,
}

impl DatasetSpec {
    /// Checks that key and index fields exist and that their number is within limits.
    pub fn check(&self) -> Result<(), HoldingError> {
        let bad = |rule: String| HoldingError::Spec { dataset: self.id.clone(), rule };
        if self.id.is_empty() || self.id.len() > 200 {
            return Err(bad("its id has 1 to 200 bytes".into()));
        }
        if self.key.is_empty() || self.key.len() > MAX_KEY_FIELDS {
            return Err(bad(format!("its key has 1 to {MAX_KEY_FIELDS} fields")));
        }
        if self.indexes.len() > MAX_INDEXES {
            return Err(bad(format!("it has at most {MAX_INDEXES} indexes")));
        }
        for list in std::iter::once(&self.key).chain(&self.indexes) {
            if list.is_empty() || list.len() > MAX_KEY_FIELDS {
                return Err(bad(format!("an index has 1 to {MAX_KEY_FIELDS} fields")));
            }
            for (i, name) in list.iter().enumerate() {
                if list[..i].contains(name) {
                    return Err(bad(format!("key or index names {name} twice")));
                }
                if self.fields.get(name).is_none() {
                    let near = self.fields.nearest(name).unwrap_or_default();
                    return Err(bad(format!("key or index names {name}, which is no field {near}")));
                }
            }
        }
        Ok(())
    }
}

/// One read, complete: what the store itself carries out.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The dataset's id.
    pub dataset: String,
    /// Which rows.
    pub filter: Filter,
    /// Which fields leave the store; `None` is all.
    pub select: Option<Vec<String>>,
    /// By key, rising or falling.
    pub order: Order,
    /// Only rows after this key in that order (the last key of the page before).
    pub after: Option<String>,
    /// At most so many rows (1 to [`crate::limits::MAX_PAGE_ROWS`]).
    pub limit: u32,
}

impl Plan {
    /// Reads by a filter, all fields, first page.
    pub fn new(dataset: &str, filter: Filter) -> Self {
        Self {
            dataset: dataset.to_string(),
            filter,
            select: None,
            order: Order::Key,
            after: None,
            limit: DEFAULT_PAGE_ROWS,
        }
    }
}

impl From<Query> for Plan {
    fn from(q: Query) -> Self {
        Self { dataset: q.dataset, filter: q.filter, select: q.select, order: q.order, after: None, limit: q.limit }
    }
}

/// One row of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The key text. It tells the key fields' values, selected or not: never show it where an
    /// agreement does not allow them.
    pub key: String,
    /// The selected fields that the row has.
    pub doc: Map<String, Value>,
}

/// Why a page ends where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageEnd {
    /// No more rows match.
    Complete,
    /// The plan's limit was reached and more rows match: go on after the last key.
    Limit,
    /// [`crate::limits::MAX_PAGE_BYTES`] was reached and more rows match: go on after the last key.
    Bytes,
}

/// One page of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// The rows in order.
    pub rows: Vec<Row>,
    /// Why the page ends.
    pub end: PageEnd,
    /// Rows that the store stepped over in scans without an index (0: an index answered); none
    /// where the store does not tell.
    pub scanned: Option<u64>,
}

impl Rows {
    /// The key after which the next page begins, if there is one.
    pub fn next_after(&self) -> Option<&str> {
        match self.end {
            PageEnd::Complete => None,
            _ => self.rows.last().map(|r| r.key.as_str()),
        }
    }
}

/// What a `put_many` changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PutReport {
    /// Rows with a new key.
    pub inserted: u64,
    /// Rows whose content changed.
    pub updated: u64,
    /// Rows that were there already, alike.
    pub unchanged: u64,
}

/// A store's state, for readiness checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The store and its version.
    pub store: String,
    /// Datasets it holds.
    pub datasets: usize,
    /// Bytes it takes on disk, without its write-ahead log.
    pub bytes: u64,
}

/// Which of these writes are ended, in their order: an outcome of theirs is on the ledger.
pub type Ended<'a> = dyn Fn(&[Hash]) -> Result<Vec<bool>, HoldingError> + 'a;

/// The ids among `all` that are ended.
pub(crate) fn only_ended(all: Vec<Hash>, ended: &Ended<'_>) -> Result<Vec<Hash>, HoldingError> {
    let which = ended(&all)?;
    Ok(all.into_iter().zip(which).filter_map(|(id, over)| over.then_some(id)).collect())
}

/// A store of records. All methods may be called from several threads at once.
pub trait Holding: Send + Sync {
    /// Makes room for a dataset, or checks that what is there fits: fields and indexes may be
    /// added and indexes dropped; a changed key, type or removed field is a conflict.
    fn ensure_dataset(&self, spec: &DatasetSpec) -> Result<(), HoldingError>;

    /// The specification of a dataset it holds.
    fn spec(&self, dataset: &str) -> Result<DatasetSpec, HoldingError>;

    /// Inserts or replaces rows by key: all durably, or none. A key twice: the last row counts.
    fn put_many(&self, dataset: &str, rows: &[Map<String, Value>]) -> Result<PutReport, HoldingError>;

    /// Inserts or replaces one row by its key, if what is there is as expected: durably.
    fn write(&self, dataset: &str, row: &Map<String, Value>, expect: &Expect) -> Result<Written, HoldingError>;

    /// Deletes the row of a key, if it is as expected: durably. Without an expectation a missing row is no error.
    fn delete(&self, dataset: &str, key: &str, expect: &Expect) -> Result<Written, HoldingError>;

    /// Carries out a write once, durably: the store keeps its id in the same transaction. Asked again, it only tells what
    /// became of it. An error leaves open whether it is done: ask again.
    fn apply(&self, dataset: &str, once: &Once) -> Result<Fate, HoldingError>;

    /// Tells what became of a write, and forbids it for ever where it is not done.
    fn void(&self, dataset: &str, once: &Once) -> Result<Fate, HoldingError>;

    /// Forgets ids of writes, at most [`crate::limits::WRITE_IDS_AT_ONCE`] a call, that the store has kept for longer than `kept` and
    /// that are `ended`: nobody will ask for those again. Returns how many it forgot.
    fn forget_writes(&self, kept: Duration, ended: &Ended<'_>) -> Result<u64, HoldingError>;

    /// Takes, renews or gives back the lease of the executor at work, by the store's own clock ([`crate::lease`]).
    fn lease(&self, bid: &Bid) -> Result<Answer, HoldingError>;

    /// From now on this handle applies, voids and forgets only while the store has this term; it tells so by
    /// [`HoldingError::Fenced`] otherwise. A handle that is bound to none (a load of records) is not asked.
    fn bind(&self, term: u64);

    /// Whether it may be written at all: not where it is another program's table or a view.
    fn may_write(&self, dataset: &str) -> Result<bool, HoldingError>;

    /// One page of the rows that match an exact filter ([`Filter::is_exact`]), by the store alone.
    fn page(&self, plan: &Plan) -> Result<Rows, HoldingError>;

    /// The number of rows that match an exact filter, by the store alone.
    fn tally(&self, dataset: &str, filter: &Filter) -> Result<u64, HoldingError>;

    /// One page of the matching rows.
    fn query(&self, plan: &Plan) -> Result<Rows, HoldingError> {
        refine::query(self, plan)
    }

    /// The number of matching rows.
    fn count(&self, dataset: &str, filter: &Filter) -> Result<u64, HoldingError> {
        refine::count(self, dataset, filter)
    }

    /// Totals of the rows that match an exact filter. A store that can, adds up by itself; its answer is that of
    /// adding up its rows here.
    fn totals(&self, dataset: &str, filter: &Filter, totals: &Totals) -> Result<Groups, HoldingError> {
        refine::fold(self, dataset, filter, totals)
    }

    /// Totals of the matching rows; groups that are too small are left out.
    fn aggregate(&self, dataset: &str, filter: &Filter, totals: &Totals) -> Result<Groups, HoldingError> {
        refine::aggregate(self, dataset, filter, totals)
    }

    /// The row of a key (see [`key_text`]), whole.
    fn get(&self, dataset: &str, key: &str) -> Result<Option<Map<String, Value>>, HoldingError>;

    /// Forgets every row whose field has one of these texts ([`value_key`]), so that nothing of them is left in the
    /// store's files; returns how many there were.
    fn forget(&self, dataset: &str, field: &str, gone: &dyn Fn(&str) -> bool) -> Result<u64, HoldingError>;

    /// The store's own plan for a read, as text.
    fn explain(&self, plan: &Plan) -> Result<String, HoldingError>;

    /// Whether it can be read and written now.
    fn health(&self) -> Result<Health, HoldingError>;
}
