//! Writes that are carried out once: their ids are kept beside the rows, in the same transaction.

use std::time::Duration;

use concordat_protocol::hash::Hash;
use rusqlite::{OptionalExtension, TransactionBehavior, params};

use super::pool::{held, told};
use super::{SqliteHolding, Table, exchange, lease};
use crate::holding::row::check_row;
use crate::holding::{Ended, Fate, HoldingError, Once, only_ended};
use crate::limits::WRITE_IDS_AT_ONCE;

impl SqliteHolding {
    /// Carries a write out, or forbids it; where one of the two was done before, tells which.
    pub(super) fn settle(&self, table: &Table, once: &Once, apply: bool) -> Result<Fate, HoldingError> {
        let new = once.row.as_ref().map(|row| check_row(&table.spec, 0, row)).transpose()?;
        if new.as_ref().is_some_and(|row| row.key != once.key) {
            return Err(HoldingError::Plan("the row of a write has another key than the write".into()));
        }
        let mut conn = held(&self.writer);
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(told)?;
        lease::check(&tx, self.bound.term())?;
        let known = tx.query_row("SELECT done FROM writes WHERE id = ?", [&once.id[..]], |r| r.get::<_, bool>(0));
        if let Some(done) = known.optional().map_err(told)? {
            return Ok(if done { Fate::Done } else { Fate::Void });
        }
        let fate = match apply.then(|| exchange(&tx, table, &once.key, &once.expect, new)) {
            None | Some(Err(HoldingError::Conflict { .. })) => Fate::Void,
            Some(Ok(_)) => Fate::Done,
            Some(Err(e)) => return Err(e),
        };
        let keep = "INSERT INTO writes (id, done, at) VALUES (?, ?, unixepoch())";
        tx.execute(keep, params![&once.id[..], fate == Fate::Done]).map_err(told)?;
        tx.commit().map_err(told)?;
        Ok(fate)
    }

    /// Forgets ids that are old enough and ended.
    pub(super) fn prune(&self, kept: Duration, ended: &Ended<'_>) -> Result<u64, HoldingError> {
        let old: Vec<Hash> = {
            let conn = held(&self.writer);
            let sql = "SELECT id FROM writes WHERE at <= unixepoch() - ? ORDER BY at LIMIT ?";
            let mut all = conn.prepare_cached(sql).map_err(told)?;
            let seconds = i64::try_from(kept.as_secs()).unwrap_or(i64::MAX);
            let rows = all.query_map(params![seconds, WRITE_IDS_AT_ONCE], |r| r.get(0)).map_err(told)?;
            rows.collect::<Result<_, _>>().map_err(told)?
        };
        let gone = only_ended(old, ended)?;
        let mut conn = held(&self.writer);
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(told)?;
        lease::check(&tx, self.bound.term())?;
        for id in &gone {
            tx.execute("DELETE FROM writes WHERE id = ?", [&id[..]]).map_err(told)?;
        }
        tx.commit().map_err(told)?;
        Ok(gone.len() as u64)
    }
}
