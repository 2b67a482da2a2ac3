//! One row put in the place of another, and writes that are carried out once: their ids are kept in the same transaction.

use std::sync::Arc;

use deadpool_postgres::Transaction;
use serde_json::{Map, Value};
use tokio_postgres::types::Type;

use super::pool::{take, told};
use super::schema::Table;
use super::{PostgresHolding, lease, refs, rows};
use crate::holding::row::check_row;
use crate::holding::{Checked, Expect, Fate, HoldingError, Once, Version, Written};

/// Puts another row, or none, in the place of a key's, within a transaction.
pub(super) async fn exchange(
    tx: &Transaction<'_>,
    table: &Table,
    key: &str,
    expect: &Expect,
    new: Option<&(Checked, Map<String, Value>)>,
) -> Result<Written, HoldingError> {
    let name = &table.layout.table;
    let find = format!("SELECT doc::text FROM {name} WHERE key = $1 FOR UPDATE");
    let old = tx.query_typed(&find, &[(&key, Type::TEXT)]).await.map_err(told)?;
    let old: Option<String> = old.first().map(|r| r.get(0));
    expect.check(key, old.as_deref())?;
    match new {
        Some((checked, row)) => {
            // A row that came meanwhile is what the writer did not expect, unless anything may be there.
            let over = match (&old, &expect) {
                (None, Expect::Absent) => "ON CONFLICT (key) DO NOTHING".to_owned(),
                _ => rows::replacing(table),
            };
            let arrays = rows::arrays(table, &[(checked, row)]);
            let put = tx.execute_typed(&rows::insertion(table, &over), &refs(&arrays)).await.map_err(told)?;
            if put == 0 {
                let there = tx.query_typed(&find, &[(&key, Type::TEXT)]).await.map_err(told)?;
                let found = there.first().map(|r| Version::of(r.get(0)));
                return Err(HoldingError::Conflict { key: key.to_owned(), found });
            }
        }
        None => {
            let delete = format!("DELETE FROM {name} WHERE key = $1");
            tx.execute_typed(&delete, &[(&key, Type::TEXT)]).await.map_err(told)?;
        }
    }
    let now = new.map(|(checked, _)| Version::of(&checked.doc));
    Ok(Written { key: key.to_owned(), before: old.as_deref().map(Version::of), now })
}

impl PostgresHolding {
    /// Carries a write out, or forbids it; where one of the two was done before, tells which.
    pub(super) fn settle(&self, table: Arc<Table>, once: &Once, apply: bool) -> Result<Fate, HoldingError> {
        let checked = |row: &Map<String, Value>| check_row(&table.spec, 0, row).map(|c| (c, row.clone()));
        let new = once.row.as_ref().map(checked).transpose()?;
        if new.as_ref().is_some_and(|(row, _)| row.key != once.key) {
            return Err(HoldingError::Plan("the row of a write has another key than the write".into()));
        }
        let (pool, once, writes) = (self.pools.write.clone(), once.clone(), format!("{}.writes", self.schema));
        let (schema, own) = (self.schema.clone(), self.bound.term());
        self.bridge.run(async move {
            let mut client = take(&pool).await?;
            let there = client.query_typed("SELECT to_regclass($1) IS NOT NULL", &[(&writes, Type::TEXT)]).await;
            if !there.map_err(told)?.first().is_some_and(|r| r.get(0)) {
                let make = format!("CREATE TABLE IF NOT EXISTS {writes} (id bytea PRIMARY KEY, done boolean NOT NULL)");
                client.batch_execute(&make).await.map_err(told)?;
            }
            let id = once.id.to_vec();
            let tx = client.transaction().await.map_err(told)?;
            lease::check(&tx, &schema, own).await?;
            // The id is taken first: whoever else has it waits for this transaction, and finds its end.
            let take_id = format!("INSERT INTO {writes} (id, done) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING");
            let taken = tx.execute_typed(&take_id, &[(&id, Type::BYTEA), (&apply, Type::BOOL)]).await.map_err(told)?;
            if taken == 0 {
                let known = format!("SELECT done FROM {writes} WHERE id = $1");
                let known = tx.query_typed(&known, &[(&id, Type::BYTEA)]).await.map_err(told)?;
                return Ok(if known.first().is_some_and(|r| r.get(0)) { Fate::Done } else { Fate::Void });
            }
            let mut fate = if apply { Fate::Done } else { Fate::Void };
            if apply {
                match exchange(&tx, &table, &once.key, &once.expect, new.as_ref()).await {
                    Ok(_) => {}
                    Err(HoldingError::Conflict { .. }) => {
                        let undone = format!("UPDATE {writes} SET done = false WHERE id = $1");
                        tx.execute_typed(&undone, &[(&id, Type::BYTEA)]).await.map_err(told)?;
                        fate = Fate::Void;
                    }
                    Err(e) => return Err(e),
                }
            }
            tx.commit().await.map_err(told)?;
            Ok(fate)
        })
    }
}
