//! Up to which number each session may have been asked under. An operation of a provider under a number beyond is one that
//! nobody asked for, and is disputed (PROTOCOL 4).
//!
//! Numbers of a session are given in order, so the newest says all. What is durable runs ahead of it, so that a request does
//! not wait for the disk: after a crash at most [`AHEAD`] numbers of a session count as asked that were not.

use crate::store::{Store, StoreError};
use rusqlite::{Connection, OptionalExtension};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The table, made when the store opens.
pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS asked_to (session INTEGER PRIMARY KEY, n INTEGER NOT NULL) STRICT;
";

/// How far what is durable runs ahead. It is moved on when half of it is used up.
pub(crate) const AHEAD: u64 = 256;

/// One session of this process.
#[derive(Debug, Default)]
struct Asking {
    newest: u64,
    durable: Arc<AtomicU64>,
    ordered: u64,
}

/// The sessions of this process. Those of former ones stand in the table alone.
#[derive(Debug, Default)]
pub(crate) struct Asked(Mutex<BTreeMap<u64, Asking>>);

impl Asked {
    /// Whether a number of a session was asked under; none where the session is not one of this process.
    pub(crate) fn covers(&self, session: u64, n: u64) -> Option<bool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&session).map(|a| n <= a.newest)
    }

    /// Notes a number; what has to be made durable on the way, and how far the session is durable.
    fn note(&self, session: u64, n: u64) -> (Option<u64>, Arc<AtomicU64>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let asking = all.entry(session).or_default();
        asking.newest = asking.newest.max(n);
        let lost = asking.durable.load(Ordering::Acquire) < n && asking.ordered >= n;
        let order = (lost || asking.ordered < n + AHEAD / 2).then(|| asking.ordered.max(n + AHEAD));
        asking.ordered = order.unwrap_or(asking.ordered);
        (order, asking.durable.clone())
    }
}

/// A request was signed at this place: when this returns, the place is known to be asked under, also after a crash.
///
/// # Errors
/// The store does not take it.
pub(super) async fn asked(store: &Store, session: u64, n: u64) -> Result<(), StoreError> {
    let (order, durable) = store.asked.note(session, n);
    if let Some(to) = order {
        let durable = durable.clone();
        let write = move |db: &Connection| {
            let sql = "INSERT INTO asked_to (session, n) VALUES (?1, ?2)
                       ON CONFLICT (session) DO UPDATE SET n = max(n, excluded.n)";
            db.prepare_cached(sql)?.execute((session as i64, to as i64)).map(drop)
        };
        store.post(write, move |done| {
            if done.is_ok() {
                durable.fetch_max(to, Ordering::AcqRel);
            }
        })?;
    }
    if durable.load(Ordering::Acquire) >= n {
        return Ok(());
    }
    // Jobs end in the order in which they came: when this one has, what was ordered before has too.
    store.run(|_| Ok(())).await?;
    match durable.load(Ordering::Acquire) >= n {
        true => Ok(()),
        false => Err(StoreError::Failed("the place of a request could not be kept".to_owned())),
    }
}

/// Whether a place of a former process's session may have been asked under.
pub(crate) fn asked_before(db: &Connection, session: i64, n: i64) -> rusqlite::Result<bool> {
    let found = db.prepare_cached("SELECT n FROM asked_to WHERE session = ?1")?.query_row([session], |r| r.get(0));
    Ok(found.optional()?.is_some_and(|to: i64| n <= to))
}
