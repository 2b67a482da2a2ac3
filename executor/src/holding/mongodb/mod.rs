//! MongoDB: a collection a dataset. Order keys are compared by the server, rows are kept as they came.
//!
//! A write is acknowledged by the majority and their journals. A load is many writes: rows are checked before the first
//! of them, but where the server stops in between, those before are kept; sending the same rows again completes it.

mod filter;
mod lease;
mod load;
mod once;
mod record;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::{Acknowledgment, ClientOptions, ServerAddress, Tls, TlsOptions, WriteConcern};
use mongodb::{Client, Collection, Database, IndexModel};
use serde_json::{Map, Value};

use self::load::PUT_ROWS;
use self::words::{collection, indexes, is_duplicate, told};
use super::bridge::Bridge;
use super::fence::Bound;
use super::page::Page;
use super::row::check_row;
use super::{Checked, DatasetSpec, Expect, Fate, Health, Holding, HoldingError, Once, Plan, PutReport, Row, Rows};
use super::{Ended, Version, Written, checks, value_key};
use crate::lease::{Answer, Bid};
use crate::limits::{CONCURRENT_QUERIES, STATEMENT_TIMEOUT};
use crate::query::{Filter, Order};

/// How a MongoDB store is used.
#[derive(Debug, Clone)]
pub struct MongoOptions {
    /// The database; else the one that the URI names, else `concordat`.
    pub database: Option<String>,
    /// Certificates that the server's is checked against (PEM); Mozilla's roots where there is none.
    pub ca: Option<PathBuf>,
    /// Connections at once.
    pub readers: usize,
    /// How long one read may take; the server stops it then.
    pub statement_timeout: Duration,
    /// How long to look for a server.
    pub connect_timeout: Duration,
}

impl Default for MongoOptions {
    fn default() -> Self {
        Self {
            database: None,
            ca: None,
            readers: CONCURRENT_QUERIES,
            statement_timeout: STATEMENT_TIMEOUT,
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// A dataset and its collection.
#[derive(Clone)]
struct Table {
    spec: DatasetSpec,
    rows: Collection<Document>,
}

/// A holding in a MongoDB database.
pub struct MongoHolding {
    bridge: Bridge,
    database: Database,
    timeout: Duration,
    tables: RwLock<BTreeMap<String, Arc<Table>>>,
    bound: Bound,
}

impl MongoHolding {
    /// Connects to `mongodb://user:password@host:port/database`. Without `tls` in the URI a server on another machine
    /// must speak TLS.
    pub fn open(uri: &str, options: MongoOptions) -> Result<Self, HoldingError> {
        let bridge = Bridge::new("mongodb")?;
        let (uri, timeout) = (uri.to_owned(), options.statement_timeout);
        let (database, tables) = bridge.run(async move {
            // The driver's own words could repeat the URI, which has a password.
            let mut client = ClientOptions::parse(&uri)
                .await
                .map_err(|_| HoldingError::Setup("the URI is not mongodb://user:password@host:port/database".into()))?;
            let local = client.hosts.iter().all(|h| match h {
                ServerAddress::Tcp { host, .. } => matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1"),
                _ => true,
            });
            if client.tls.is_none() && !local {
                client.tls = Some(Tls::Enabled(TlsOptions::default()));
            }
            if let (Some(Tls::Enabled(tls)), Some(ca)) = (&mut client.tls, options.ca) {
                tls.ca_file_path = Some(ca);
            }
            client.app_name = Some("concordat".into());
            client.server_selection_timeout = Some(options.connect_timeout);
            client.connect_timeout = Some(options.connect_timeout);
            client.max_pool_size = u32::try_from(options.readers + 2).ok();
            let mut durable = WriteConcern::default();
            durable.w = Some(Acknowledgment::Majority);
            durable.journal = Some(true);
            client.write_concern = Some(durable);
            let client = Client::with_options(client).map_err(told)?;
            let database = match &options.database {
                Some(name) => client.database(name),
                None => client.default_database().unwrap_or_else(|| client.database("concordat")),
            };
            let mut tables = BTreeMap::new();
            let mut all = datasets(&database).find(doc! {}).await.map_err(told)?;
            while let Some(found) = all.try_next().await.map_err(told)? {
                let table = table_of(&database, &found)?;
                tables.insert(table.spec.id.clone(), Arc::new(table));
            }
            Ok((database, tables))
        })?;
        Ok(Self { bridge, database, timeout, tables: RwLock::new(tables), bound: Bound::default() })
    }

    fn table(&self, dataset: &str) -> Result<Arc<Table>, HoldingError> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.get(dataset).cloned().ok_or_else(|| checks::unknown(dataset))
    }

    /// Puts another row, or none, in the place of a key's, if that is as expected. The server compares the version once
    /// more when it writes, so of two writers who saw the same one wins.
    fn change(
        &self,
        table: &Arc<Table>,
        key: &str,
        expect: &Expect,
        new: Option<(Checked, Map<String, Value>)>,
    ) -> Result<Written, HoldingError> {
        let (table, key, expect) = (table.clone(), key.to_owned(), expect.clone());
        let ids = once::ids(&self.database);
        self.bridge.run(async move {
            let now = new.as_ref().map(|(checked, _)| Version::of(&checked.doc));
            let record = new.map(|(checked, row)| record::write(&table.spec, &checked, &row));
            loop {
                let old = once::find(&table.rows, &ids, &key).await?;
                let before = old.as_ref().map(record::version);
                expect.fits(&key, before.clone())?;
                let done = match (&record, &before) {
                    (Some(record), None) => match table.rows.insert_one(record).await {
                        Ok(_) => true,
                        Err(e) if is_duplicate(&e) => false,
                        Err(e) => return Err(told(e)),
                    },
                    (Some(record), Some(v)) => {
                        let place = once::place(&key, v, old.as_ref());
                        table.rows.replace_one(place, record).await.map_err(told)?.matched_count == 1
                    }
                    (None, None) => true,
                    (None, Some(v)) => {
                        let place = once::place(&key, v, old.as_ref());
                        table.rows.delete_one(place).await.map_err(told)?.deleted_count == 1
                    }
                };
                // Somebody came in between: look again, and judge what is there then.
                if done {
                    return Ok(Written { key, before, now });
                }
            }
        })
    }

    fn find(plan: &Plan) -> Document {
        let matching = filter::filter(&plan.filter);
        let comparison = if plan.order == Order::Key { "$gt" } else { "$lt" };
        match &plan.after {
            Some(key) => doc! {"$and": [matching, {"_id": {comparison: key}}]},
            None => matching,
        }
    }

    fn projection(plan: &Plan) -> Document {
        match &plan.select {
            None => doc! {"doc": 1},
            Some(names) => names.iter().map(|n| (format!("doc.{n}"), Bson::Int32(1))).collect(),
        }
    }
}

fn datasets(database: &Database) -> Collection<Document> {
    database.collection("concordat_datasets")
}

fn table_of(database: &Database, found: &Document) -> Result<Table, HoldingError> {
    let text = found.get_str("spec").map_err(|e| HoldingError::Damaged(e.to_string()))?;
    let spec: DatasetSpec = serde_json::from_str(text).map_err(|e| HoldingError::Damaged(e.to_string()))?;
    let rows = database.collection(&collection(&spec.id));
    Ok(Table { spec, rows })
}

impl Holding for MongoHolding {
    fn ensure_dataset(&self, spec: &DatasetSpec) -> Result<(), HoldingError> {
        spec.check()?;
        let (database, wanted) = (self.database.clone(), spec.clone());
        let table = self.bridge.run(async move {
            let all = datasets(&database);
            let old = all.find_one(doc! {"_id": &wanted.id}).await.map_err(told)?;
            let old = old.map(|found| table_of(&database, &found)).transpose()?;
            if let Some(old) = old.as_ref() {
                checks::fits(&old.spec, &wanted)?;
                if old.spec == wanted {
                    return Ok(old.clone());
                }
            }
            let rows = database.collection::<Document>(&collection(&wanted.id));
            let (new, there) = (indexes(&wanted), old.map(|o| indexes(&o.spec)).unwrap_or_default());
            for keys in there.iter().filter(|k| !new.contains(k)) {
                let name: Vec<String> = keys.keys().map(|k| format!("{k}_1")).collect();
                rows.drop_index(name.join("_")).await.map_err(told)?;
            }
            for keys in new.into_iter().filter(|k| !there.contains(k)) {
                rows.create_index(IndexModel::builder().keys(keys).build()).await.map_err(told)?;
            }
            let text = serde_json::to_string(&wanted).map_err(|e| HoldingError::Store(e.to_string()))?;
            let record = doc! {"_id": &wanted.id, "spec": text};
            all.replace_one(doc! {"_id": &wanted.id}, record).upsert(true).await.map_err(told)?;
            Ok(Table { spec: wanted, rows })
        })?;
        self.tables.write().unwrap_or_else(PoisonError::into_inner).insert(spec.id.clone(), Arc::new(table));
        Ok(())
    }

    fn spec(&self, dataset: &str) -> Result<DatasetSpec, HoldingError> {
        Ok(self.table(dataset)?.spec.clone())
    }

    fn put_many(&self, dataset: &str, rows: &[Map<String, Value>]) -> Result<PutReport, HoldingError> {
        let table = self.table(dataset)?;
        let checked = checks::rows(&table.spec, rows)?;
        let (given, database) = (rows.to_vec(), self.database.clone());
        self.bridge.run(async move { load::put(&database, &table, &checked, &given).await })
    }

    fn write(&self, dataset: &str, row: &Map<String, Value>, expect: &Expect) -> Result<Written, HoldingError> {
        let table = self.table(dataset)?;
        let new = check_row(&table.spec, 0, row)?;
        self.change(&table, &new.key.clone(), expect, Some((new, row.clone())))
    }

    fn delete(&self, dataset: &str, key: &str, expect: &Expect) -> Result<Written, HoldingError> {
        self.change(&self.table(dataset)?, key, expect, None)
    }

    fn apply(&self, dataset: &str, once: &Once) -> Result<Fate, HoldingError> {
        self.settle(self.table(dataset)?, once, true)
    }

    fn void(&self, dataset: &str, once: &Once) -> Result<Fate, HoldingError> {
        self.settle(self.table(dataset)?, once, false)
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
        checks::plan(&table.spec, plan)?;
        let (plan, timeout) = (plan.clone(), self.timeout);
        self.bridge.run(async move {
            let sort = doc! {"_id": if plan.order == Order::Key { 1 } else { -1 }};
            let found = table.rows.find(Self::find(&plan)).projection(Self::projection(&plan)).sort(sort);
            let found = found.limit(i64::from(plan.limit) + 1).max_time(timeout);
            let mut found = found.await.map_err(told)?;
            let mut page = Page::new(plan.limit);
            while let Some(record) = found.try_next().await.map_err(told)? {
                if !page.take(|| record::read(&record, plan.select.as_deref()))? {
                    break;
                }
            }
            Ok(page.done(None))
        })
    }

    fn tally(&self, dataset: &str, filter: &Filter) -> Result<u64, HoldingError> {
        let table = self.table(dataset)?;
        checks::fields(&table.spec, filter, &[])?;
        let (matching, timeout) = (filter::filter(filter), self.timeout);
        self.bridge.run(async move { table.rows.count_documents(matching).max_time(timeout).await.map_err(told) })
    }

    fn get(&self, dataset: &str, key: &str) -> Result<Option<Map<String, Value>>, HoldingError> {
        let (table, key, timeout) = (self.table(dataset)?, key.to_owned(), self.timeout);
        self.bridge.run(async move {
            let found = table.rows.find_one(doc! {"_id": key}).max_time(timeout).await.map_err(told)?;
            found.map(|record| Ok(record::read(&record, None)?.0.doc)).transpose()
        })
    }

    fn forget(&self, dataset: &str, field: &str, gone: &dyn Fn(&str) -> bool) -> Result<u64, HoldingError> {
        let table = self.table(dataset)?;
        let ty = checks::field(&table.spec, field)?;
        let (reading, name) = (table.clone(), field.to_owned());
        let all: Vec<Row> = self.bridge.run(async move {
            let wanted = [name];
            let found = reading.rows.find(doc! {}).projection(doc! {format!("doc.{}", wanted[0]): 1});
            let mut found = found.await.map_err(told)?;
            let mut rows = Vec::new();
            while let Some(record) = found.try_next().await.map_err(told)? {
                rows.push(record::read(&record, Some(&wanted))?.0);
            }
            Ok(rows)
        })?;
        let is_gone = |row: &Row| row.doc.get(field).and_then(|v| value_key(ty, v)).is_some_and(|text| gone(&text));
        let keys: Vec<String> = all.into_iter().filter(is_gone).map(|row| row.key).collect();
        let (leases, own) = (self.leases(), self.bound.term());
        self.bridge.run(async move {
            let mut count = 0;
            for keys in keys.chunks(PUT_ROWS) {
                lease::check(&leases, own).await?;
                count += table.rows.delete_many(doc! {"_id": {"$in": keys}}).await.map_err(told)?.deleted_count;
            }
            Ok(count)
        })
    }

    fn explain(&self, plan: &Plan) -> Result<String, HoldingError> {
        let table = self.table(&plan.dataset)?;
        let plan = Plan { filter: plan.filter.coarse(), ..plan.clone() };
        checks::plan(&table.spec, &plan)?;
        let database = self.database.clone();
        self.bridge.run(async move {
            let find = doc! {"find": table.rows.name(), "filter": Self::find(&plan), "sort": {"_id": 1},
            "projection": Self::projection(&plan), "limit": i64::from(plan.limit) + 1};
            let explain = doc! {"explain": find, "verbosity": "queryPlanner"};
            let found = database.run_command(explain).await.map_err(told)?;
            Ok(found.to_string())
        })
    }

    fn health(&self) -> Result<Health, HoldingError> {
        let datasets = self.tables.read().unwrap_or_else(PoisonError::into_inner).len();
        let database = self.database.clone();
        self.bridge.run(async move {
            let build = database.run_command(doc! {"buildInfo": 1}).await.map_err(told)?;
            let stats = database.run_command(doc! {"dbStats": 1}).await.map_err(told)?;
            let number = |name: &str| match stats.get(name) {
                Some(Bson::Double(n)) => *n as u64,
                Some(Bson::Int64(n)) => u64::try_from(*n).unwrap_or(0),
                Some(Bson::Int32(n)) => u64::try_from(*n).unwrap_or(0),
                _ => 0,
            };
            let store = format!("mongodb {}", build.get_str("version").unwrap_or("?"));
            Ok(Health { store, datasets, bytes: number("storageSize") + number("indexSize") })
        })
    }
}
