//! The lease of the executor at work. It is renewed in a small file beside the records, so that it waits for no load; the term
//! stands with the records too, where every write compares it.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::pool::{held, told};
use super::{SqliteHolding, private_file};
use crate::holding::{HoldingError, fence};
use crate::lease::{Answer, Bid, Lease, decide};

/// The term with the records. An older program never looks at it.
pub(super) const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS executor_term (one INTEGER PRIMARY KEY CHECK (one = 1), term INTEGER NOT NULL) STRICT";
/// The lease beside them. What a power loss takes of it does not matter: nobody who had it is left, and terms are kept.
const LEASE: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
  CREATE TABLE IF NOT EXISTS executor_lease (one INTEGER PRIMARY KEY CHECK (one = 1), term INTEGER NOT NULL,
    holder TEXT NOT NULL, until_ms INTEGER NOT NULL) STRICT;";

fn term(tx: &Connection) -> Result<Option<u64>, HoldingError> {
    let found = tx.query_row("SELECT term FROM executor_term", [], |r| r.get::<_, i64>(0)).optional();
    found.map(|t| t.map(|t| t as u64)).map_err(told)
}

/// Refuses a write of an executor that is not at work any more, within the write's transaction.
pub(super) fn check(tx: &Connection, own: Option<u64>) -> Result<(), HoldingError> {
    let Some(own) = own else { return Ok(()) };
    fence::check(own, term(tx)?)
}

impl SqliteHolding {
    pub(super) fn bid(&self, bid: &Bid) -> Result<Answer, HoldingError> {
        let mut slot = held(&self.leases);
        let db = match &mut *slot {
            Some(db) => db,
            None => {
                let path = self.path.with_extension("lease");
                private_file(&path)?;
                let db = Connection::open(&path).map_err(told)?;
                db.busy_timeout(self.lock_timeout).map_err(told)?;
                db.execute_batch(LEASE).map_err(told)?;
                slot.insert(db)
            }
        };
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(told)?;
        let read = |r: &rusqlite::Row<'_>| {
            Ok(Lease { term: r.get::<_, i64>(0)? as u64, holder: r.get(1)?, until_ms: r.get::<_, i64>(2)? as u64 })
        };
        let found = tx.query_row("SELECT term, holder, until_ms FROM executor_lease", [], read).optional();
        let found = found.map_err(told)?.unwrap_or_default();
        // The file is on this machine: its clock is this one.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let Some(mut lease) = decide(&found, bid, now) else { return Ok(Answer { lease: found, granted: false }) };
        if bid.term.is_none() {
            lease.term = self.raise(lease.term)?;
        }
        let put = "INSERT INTO executor_lease (one, term, holder, until_ms) VALUES (1, ?, ?, ?)
                   ON CONFLICT (one) DO UPDATE SET term = excluded.term, holder = excluded.holder, until_ms = excluded.until_ms";
        tx.execute(put, params![lease.term as i64, lease.holder, lease.until_ms as i64]).map_err(told)?;
        tx.commit().map_err(told)?;
        Ok(Answer { lease, granted: true })
    }

    /// Puts a new term with the records, newer than the one there. Nobody else does so meanwhile: the lease's file is held.
    fn raise(&self, wanted: u64) -> Result<u64, HoldingError> {
        let mut conn = held(&self.writer);
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(told)?;
        let new = wanted.max(term(&tx)?.unwrap_or_default().saturating_add(1));
        let put =
            "INSERT INTO executor_term (one, term) VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET term = excluded.term";
        tx.execute(put, [new as i64]).map_err(told)?;
        tx.commit().map_err(told)?;
        Ok(new)
    }
}
