//! The lease of the executor at work, in a table beside the records.

use deadpool_postgres::Transaction;
use tokio_postgres::types::Type;

use super::PostgresHolding;
use super::pool::{take, told};
use crate::holding::{HoldingError, fence};
use crate::lease::{Answer, Bid, Lease, decide};

/// How long the database leaves a transaction alone that has the lease's row and does nothing: its process may have been
/// stopped right there, and whoever takes over waits for the row.
pub(super) const IDLE: &str = "SET LOCAL idle_in_transaction_session_timeout = 3000";

/// Refuses a write of an executor that is not at work any more. The row is held to the end of the transaction, so that
/// nobody takes the lease between this look and the commit.
pub(super) async fn check(tx: &Transaction<'_>, schema: &str, own: Option<u64>) -> Result<(), HoldingError> {
    let Some(own) = own else { return Ok(()) };
    tx.batch_execute(IDLE).await.map_err(told)?;
    let find = format!("SELECT term FROM {schema}.executor_lease FOR SHARE");
    let found = tx.query_typed(&find, &[]).await.map_err(told)?;
    fence::check(own, found.first().map(|r| r.get::<_, i64>(0) as u64))
}

impl PostgresHolding {
    pub(super) fn bid(&self, bid: &Bid) -> Result<Answer, HoldingError> {
        let (pool, schema, bid) = (self.pools.write.clone(), self.schema.clone(), bid.clone());
        self.bridge.run(async move {
            let mut client = take(&pool).await?;
            let name = format!("{schema}.executor_lease");
            let there = client.query_typed("SELECT to_regclass($1) IS NOT NULL", &[(&name, Type::TEXT)]).await;
            if !there.map_err(told)?.first().is_some_and(|r| r.get(0)) {
                let tx = client.transaction().await.map_err(told)?;
                // Two programs that start at once make it one after the other.
                let made = format!(
                    "SELECT pg_advisory_xact_lock(4857362510);
                     CREATE SCHEMA IF NOT EXISTS {schema};
                     CREATE TABLE IF NOT EXISTS {name} (one boolean PRIMARY KEY CHECK (one), term bigint NOT NULL,
                       holder text NOT NULL, until_ms bigint NOT NULL);
                     INSERT INTO {name} VALUES (true, 0, '', 0) ON CONFLICT DO NOTHING"
                );
                tx.batch_execute(&made).await.map_err(told)?;
                tx.commit().await.map_err(told)?;
            }
            let tx = client.transaction().await.map_err(told)?;
            tx.batch_execute(IDLE).await.map_err(told)?;
            let find = format!("SELECT term, holder, until_ms FROM {name} FOR UPDATE");
            let found = tx.query_typed(&find, &[]).await.map_err(told)?;
            let Some(row) = found.first() else { return Err(HoldingError::Damaged(format!("{name} is empty"))) };
            let found =
                Lease { term: row.get::<_, i64>(0) as u64, holder: row.get(1), until_ms: row.get::<_, i64>(2) as u64 };
            // After the row is had: who waited for it reads the clock of then.
            let clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
            let now = tx.query_typed(clock, &[]).await.map_err(told)?;
            let now = now.first().map_or(0, |r| r.get::<_, i64>(0)) as u64;
            let Some(lease) = decide(&found, &bid, now) else { return Ok(Answer { lease: found, granted: false }) };
            let put = format!("UPDATE {name} SET term = $1, holder = $2, until_ms = $3");
            let (term, until) = (lease.term as i64, lease.until_ms as i64);
            let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
                [(&term, Type::INT8), (&lease.holder, Type::TEXT), (&until, Type::INT8)];
            tx.execute_typed(&put, &params).await.map_err(told)?;
            tx.commit().await.map_err(told)?;
            Ok(Answer { lease, granted: true })
        })
    }
}
