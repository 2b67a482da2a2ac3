//! One row put in the place of another, and writes that are carried out once: their ids are kept in the same transaction.

use std::sync::Arc;
use std::time::Duration;

use concordat_protocol::hash::Hash;
use deadpool_postgres::Transaction;
use serde_json::{Map, Value};
use tokio_postgres::types::Type;

use super::pool::{take, told};
use super::schema::Table;
use super::{PostgresHolding, lease, refs, rows};
use crate::holding::row::check_row;
use crate::holding::{Checked, Ended, Expect, Fate, HoldingError, Once, Version, Written, only_ended};
use crate::limits::WRITE_IDS_AT_ONCE;

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

/// When an id was kept, by the database's clock.
const AT: &str = "at timestamptz NOT NULL DEFAULT now()";

impl PostgresHolding {
    /// Forgets ids that are old enough and ended.
    pub(super) fn prune(&self, kept: Duration, ended: &Ended<'_>) -> Result<u64, HoldingError> {
        let (pool, writes) = (self.pools.write.clone(), format!("{}.writes", self.schema));
        let seconds = kept.as_secs_f64();
        let old: Vec<Hash> = self.bridge.run(async move {
            let client = take(&pool).await?;
            // A store of an earlier version has no times; what it kept counts from now on.
            let add = format!("ALTER TABLE IF EXISTS {writes} ADD COLUMN IF NOT EXISTS {AT}");
            client.batch_execute(&add).await.map_err(told)?;
            let there = client.query_typed("SELECT to_regclass($1) IS NOT NULL", &[(&writes, Type::TEXT)]).await;
            if !there.map_err(told)?.first().is_some_and(|r| r.get(0)) {
                return Ok(vec![]);
            }
            let sql = format!(
                "SELECT id FROM {writes} WHERE at <= now() - make_interval(secs => $1) ORDER BY at LIMIT {WRITE_IDS_AT_ONCE}"
            );
            let rows = client.query_typed(&sql, &[(&seconds, Type::FLOAT8)]).await.map_err(told)?;
            Ok(rows.iter().filter_map(|r| r.get::<_, Vec<u8>>(0).try_into().ok()).collect())
        })?;
        let gone: Vec<Vec<u8>> = only_ended(old, ended)?.into_iter().map(|id| id.to_vec()).collect();
        let (pool, schema, own) = (self.pools.write.clone(), self.schema.clone(), self.bound.term());
        self.bridge.run(async move {
            if gone.is_empty() {
                return Ok(0);
            }
            let mut client = take(&pool).await?;
            let tx = client.transaction().await.map_err(told)?;
            lease::check(&tx, &schema, own).await?;
            let delete = format!("DELETE FROM {schema}.writes WHERE id = ANY($1)");
            let count = tx.execute_typed(&delete, &[(&gone, Type::BYTEA_ARRAY)]).await.map_err(told)?;
            tx.commit().await.map_err(told)?;
            Ok(count)
        })
    }

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
                let make =
                    format!("CREATE TABLE IF NOT EXISTS {writes} (id bytea PRIMARY KEY, done boolean NOT NULL, {AT})");
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
