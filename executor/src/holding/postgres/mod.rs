//! PostgreSQL (13 or later): our own tables, one a dataset, or an agency's own tables and views, only read.

mod lease;
mod once;
mod pool;
mod rows;
mod schema;
mod sql;
pub(super) mod tls;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::TryStreamExt;
use serde_json::{Map, Value};
use tokio_postgres::types::{ToSql, Type};

use super::bridge::Bridge;
use super::fence::Bound;
use super::page::Page;
use super::row::check_row;
use super::{Checked, DatasetSpec, Health, Holding, HoldingError, PageEnd, Plan, PutReport, Rows, checks, value_key};
use super::{Ended, Expect, Fate, Once, Written};
use crate::lease::{Answer, Bid};
use crate::limits::{CONCURRENT_QUERIES, LOCK_TIMEOUT, MAX_GROUPS, STATEMENT_TIMEOUT};
use crate::query::{Filter, Groups, Totals};
use pool::{Pools, take, told};
use schema::Table;
use sql::{Param, Statement};

/// Rows of one statement of a load.
const PUT_ROWS: usize = 1_000;
/// Rows of a load after which the database takes its statistics anew.
const MANY: u64 = 1_000;

/// How a PostgreSQL store is used.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The schema of our own tables: lower-case letters, digits and `_`.
    pub schema: String,
    /// Datasets that are an agency's own table or view, `schema.table`: read, never written.
    pub external: BTreeMap<String, String>,
    /// Certificates that the server's is checked against (PEM); the machine's where there is none.
    pub ca: Option<PathBuf>,
    /// Connections that read at once.
    pub readers: usize,
    /// How long one read may take; the database stops it then.
    pub statement_timeout: Duration,
    /// How long to wait for a lock.
    pub lock_timeout: Duration,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            schema: "concordat".into(),
            external: BTreeMap::new(),
            ca: None,
            readers: CONCURRENT_QUERIES,
            statement_timeout: STATEMENT_TIMEOUT,
            lock_timeout: LOCK_TIMEOUT,
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// A holding in a PostgreSQL database.
pub struct PostgresHolding {
    bridge: Bridge,
    pools: Pools,
    schema: String,
    external: BTreeMap<String, String>,
    tables: RwLock<BTreeMap<String, Arc<Table>>>,
    bound: Bound,
}

fn refs(params: &[(Param, Type)]) -> Vec<(&(dyn ToSql + Sync), Type)> {
    params.iter().map(|(p, ty)| (p.as_ref() as &(dyn ToSql + Sync), ty.clone())).collect()
}

impl PostgresHolding {
    /// Connects to `postgresql://user:password@host:port/database`. Without `sslmode` in the URI a server on another
    /// machine must speak TLS. Our tables are made when first needed, so a login that may only read is enough for
    /// external datasets.
    pub fn open(uri: &str, options: PostgresOptions) -> Result<Self, HoldingError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if options.schema.is_empty() || options.schema.len() > 60 || !options.schema.chars().all(plain) {
            return Err(HoldingError::Setup("schema is 1 to 60 of a-z, 0-9 and _".into()));
        }
        let bridge = Bridge::new("postgres")?;
        let pools = Pools::new(uri, &options)?;
        let schema = sql::quoted(&options.schema);
        let (reading, of) = (pools.read.clone(), schema.clone());
        let tables = bridge.run(async move {
            let client = take(&reading).await?;
            schema::load(&**client, &of).await
        })?;
        let tables = tables.into_iter().map(|(id, table)| (id, Arc::new(table))).collect();
        let (external, tables) = (options.external, RwLock::new(tables));
        Ok(Self { bridge, pools, schema, external, tables, bound: Bound::default() })
    }

    fn table(&self, dataset: &str) -> Result<Arc<Table>, HoldingError> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.get(dataset).cloned().ok_or_else(|| checks::unknown(dataset))
    }

    /// A table that we may write.
    fn own(&self, dataset: &str) -> Result<Arc<Table>, HoldingError> {
        let table = self.table(dataset)?;
        if table.layout.own { Ok(table) } else { Err(HoldingError::ReadOnly(table.spec.id.clone())) }
    }

    fn read(&self, statement: Statement) -> Result<Vec<tokio_postgres::Row>, HoldingError> {
        let pool = self.pools.read.clone();
        self.bridge.run(async move {
            let client = take(&pool).await?;
            client.query_typed(&statement.text, &refs(&statement.params)).await.map_err(told)
        })
    }

    /// Puts another row, or none, in the place of a key's, if that is as expected.
    fn change(
        &self,
        table: &Arc<Table>,
        key: &str,
        expect: &Expect,
        new: Option<(Checked, Map<String, Value>)>,
    ) -> Result<Written, HoldingError> {
        let (pool, table, key, expect) = (self.pools.write.clone(), table.clone(), key.to_owned(), expect.clone());
        self.bridge.run(async move {
            let mut client = take(&pool).await?;
            let tx = client.transaction().await.map_err(told)?;
            let written = once::exchange(&tx, &table, &key, &expect, new.as_ref()).await?;
            tx.commit().await.map_err(told)?;
            Ok(written)
        })
    }
}

impl Holding for PostgresHolding {
    fn ensure_dataset(&self, spec: &DatasetSpec) -> Result<(), HoldingError> {
        spec.check()?;
        let (pools, schema, wanted) = (self.pools.clone(), self.schema.clone(), spec.clone());
        let external = self.external.get(&spec.id).cloned();
        let old = self.table(&spec.id).ok().filter(|t| t.layout.own);
        let table = self.bridge.run(async move {
            if let Some(name) = external {
                return schema::external(&**take(&pools.read).await?, &name, &wanted).await;
            }
            if let Some(old) = old.filter(|t| t.spec == wanted) {
                return Ok((*old).clone());
            }
            schema::ensure(&mut take(&pools.write).await?, &schema, &wanted).await
        })?;
        self.tables.write().unwrap_or_else(PoisonError::into_inner).insert(spec.id.clone(), Arc::new(table));
        Ok(())
    }

    fn spec(&self, dataset: &str) -> Result<DatasetSpec, HoldingError> {
        Ok(self.table(dataset)?.spec.clone())
    }

    fn put_many(&self, dataset: &str, rows: &[Map<String, Value>]) -> Result<PutReport, HoldingError> {
        let table = self.own(dataset)?;
        let checked = checks::rows(&table.spec, rows)?;
        let (pool, given) = (self.pools.write.clone(), rows.to_vec());
        self.bridge.run(async move {
            let mut client = take(&pool).await?;
            let tx = client.transaction().await.map_err(told)?;
            let find = format!("SELECT key, doc::text FROM {} WHERE key = ANY($1) FOR UPDATE", table.layout.table);
            let put = rows::insertion(&table, &rows::replacing(&table));
            let mut report = PutReport::default();
            for (checked, given) in checked.chunks(PUT_ROWS).zip(given.chunks(PUT_ROWS)) {
                let keys: Vec<&str> = checked.iter().map(|c| c.key.as_str()).collect();
                let there = tx.query_typed(&find, &[(&keys, Type::TEXT_ARRAY)]).await.map_err(told)?;
                let mut now: BTreeMap<String, String> = there.iter().map(|r| (r.get(0), r.get(1))).collect();
                let mut last = BTreeMap::new();
                for (new, row) in checked.iter().zip(given) {
                    match now.insert(new.key.clone(), new.doc.clone()) {
                        Some(doc) if doc == new.doc => {
                            report.unchanged += 1;
                            continue;
                        }
                        Some(_) => report.updated += 1,
                        None => report.inserted += 1,
                    }
                    last.insert(new.key.as_str(), (new, row));
                }
                let changed: Vec<_> = last.into_values().collect();
                if !changed.is_empty() {
                    tx.execute_typed(&put, &refs(&rows::arrays(&table, &changed))).await.map_err(told)?;
                }
            }
            tx.commit().await.map_err(told)?;
            if report.inserted >= MANY {
                // A failure costs speed only: the rows are safe already.
                let _ = client.batch_execute(&format!("ANALYZE {}", table.layout.table)).await;
            }
            Ok(report)
        })
    }

    fn write(&self, dataset: &str, row: &Map<String, Value>, expect: &Expect) -> Result<Written, HoldingError> {
        let table = self.own(dataset)?;
        let new = check_row(&table.spec, 0, row)?;
        self.change(&table, &new.key.clone(), expect, Some((new, row.clone())))
    }

    fn delete(&self, dataset: &str, key: &str, expect: &Expect) -> Result<Written, HoldingError> {
        self.change(&self.own(dataset)?, key, expect, None)
    }

    fn apply(&self, dataset: &str, once: &Once) -> Result<Fate, HoldingError> {
        self.settle(self.own(dataset)?, once, true)
    }

    fn void(&self, dataset: &str, once: &Once) -> Result<Fate, HoldingError> {
        self.settle(self.own(dataset)?, once, false)
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
        Ok(self.table(dataset)?.layout.own)
    }

    fn page(&self, plan: &Plan) -> Result<Rows, HoldingError> {
        let table = self.table(&plan.dataset)?;
        checks::plan(&table.spec, plan)?;
        let statement = sql::page(&table.layout, &table.spec, plan);
        let (pools, limit, select) = (self.pools.clone(), plan.limit, plan.select.clone());
        self.bridge.run(async move {
            let client = take(&pools.read).await?;
            let found = client.query_typed_raw(&statement.text, statement.params).await.map_err(told)?;
            let mut found = std::pin::pin!(found);
            let mut page = Page::new(limit);
            while let Some(row) = found.try_next().await.map_err(told)? {
                if !page.take(|| rows::read(&table, &row, select.as_deref()))? {
                    break;
                }
            }
            if page.end == PageEnd::Bytes {
                pools.cancel(&client);
                // What is cancelled late must not meet the connection's next query.
                drop(deadpool_postgres::Client::take(client));
            }
            Ok(page.done(None))
        })
    }

    fn tally(&self, dataset: &str, filter: &Filter) -> Result<u64, HoldingError> {
        let table = self.table(dataset)?;
        checks::fields(&table.spec, filter, &[])?;
        let rows = self.read(sql::count(&table.layout, &table.spec, filter))?;
        Ok(rows.first().and_then(|r| u64::try_from(r.get::<_, i64>(0)).ok()).unwrap_or(0))
    }

    fn totals(&self, dataset: &str, filter: &Filter, totals: &Totals) -> Result<Groups, HoldingError> {
        let table = self.table(dataset)?;
        let rows = self.read(sql::totals(&table.layout, &table.spec, filter, totals))?;
        if rows.len() > MAX_GROUPS {
            // The large ones come first: either too many of those, or the small ones are not all here, nor needed.
            let last = rows.get(MAX_GROUPS).map(|r| r.get::<_, i64>(totals.by.len()));
            if last.is_some_and(|n| n >= i64::try_from(totals.min_group).unwrap_or(i64::MAX)) {
                return Err(HoldingError::TooMuch { what: "groups", max: MAX_GROUPS as u64 });
            }
        }
        let mut groups = BTreeMap::new();
        for row in &rows {
            let (labels, group) = rows::group(totals, row)?;
            // Without rows the database still answers with the one group that no key makes.
            if group.count > 0 {
                groups.insert(labels, group);
            }
        }
        Ok(totals.finish(groups))
    }

    fn get(&self, dataset: &str, key: &str) -> Result<Option<Map<String, Value>>, HoldingError> {
        let table = self.table(dataset)?;
        let mut s = Statement::default();
        let cells = sql::cells(&table.layout, &table.spec, None).join(", ");
        let (from, key_text) = (&table.layout.table, &table.layout.key);
        s.text = format!("SELECT {key_text} AS key, {cells} FROM {from} WHERE {key_text} = ");
        s.bind(Box::new(key.to_owned()), Type::TEXT);
        let rows = self.read(s)?;
        rows.first().map(|r| Ok(rows::read(&table, r, None)?.0.doc)).transpose()
    }

    fn forget(&self, dataset: &str, field: &str, gone: &dyn Fn(&str) -> bool) -> Result<u64, HoldingError> {
        let table = self.own(dataset)?;
        let ty = checks::field(&table.spec, field)?;
        let name = table.layout.table.clone();
        let all = Statement { text: format!("SELECT key, (doc -> '{field}')::text FROM {name}"), params: vec![] };
        let mut keys: Vec<String> = Vec::new();
        for row in self.read(all)? {
            let value = row.get::<_, Option<&str>>(1).and_then(|json| serde_json::from_str(json).ok());
            if value.and_then(|v| value_key(ty, &v)).is_some_and(|text| gone(&text)) {
                keys.push(row.get(0));
            }
        }
        let (pool, schema, own) = (self.pools.write.clone(), self.schema.clone(), self.bound.term());
        self.bridge.run(async move {
            let mut client = take(&pool).await?;
            let delete = format!("DELETE FROM {name} WHERE key = ANY($1)");
            let tx = client.transaction().await.map_err(told)?;
            lease::check(&tx, &schema, own).await?;
            let count = tx.execute_typed(&delete, &[(&keys, Type::TEXT_ARRAY)]).await.map_err(told)?;
            tx.commit().await.map_err(told)?;
            if count > 0 {
                // The table is written anew: nothing of the rows, nor of what they were before, is left in its files.
                client.batch_execute(&format!("VACUUM FULL {name}")).await.map_err(told)?;
            }
            Ok(count)
        })
    }

    fn explain(&self, plan: &Plan) -> Result<String, HoldingError> {
        let table = self.table(&plan.dataset)?;
        let plan = Plan { filter: plan.filter.coarse(), ..plan.clone() };
        checks::plan(&table.spec, &plan)?;
        let mut statement = sql::page(&table.layout, &table.spec, &plan);
        statement.text.insert_str(0, "EXPLAIN ");
        let lines: Vec<String> = self.read(statement)?.iter().map(|r| r.get(0)).collect();
        Ok(lines.join("\n"))
    }

    fn health(&self) -> Result<Health, HoldingError> {
        let text =
            "SELECT current_setting('server_version'), coalesce((SELECT sum(pg_total_relation_size(c.oid))::bigint
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname = ";
        let mut s = Statement { text: text.to_owned(), params: vec![] };
        s.bind(Box::new(self.schema.trim_matches('"').to_owned()), Type::TEXT);
        s.text.push_str("), 0)");
        let rows = self.read(s)?;
        let row = rows.first().ok_or_else(|| HoldingError::Store("no answer".into()))?;
        let datasets = self.tables.read().unwrap_or_else(PoisonError::into_inner).len();
        let bytes = u64::try_from(row.get::<_, i64>(1)).unwrap_or(0);
        Ok(Health { store: format!("postgresql {}", row.get::<_, String>(0)), datasets, bytes })
    }
}
