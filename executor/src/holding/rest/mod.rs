//! Datasets that an agency's own HTTP service answers for, beside a store of any kind for all others.
//!
//! The service narrows: equalities of fields that the setup names become parameters or parts of the path. What comes is
//! at most so many rows; the one evaluator decides on them, and here they are sorted and paged. So an answer is that of
//! any other store, or there is none.

mod ask;
mod client;
mod rows;
mod setup;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

pub use setup::{RestPaging, RestSetup, path as rest_path};

use super::bridge::Bridge;
use super::page::Page;
use super::{
    DatasetSpec, Ended, Expect, Fate, Health, Holding, HoldingError, Once, Plan, PutReport, Row, Rows, Written, checks,
    refine,
};
use crate::lease::{Answer, Bid};
use crate::limits::{MAX_GROUPS, MAX_REFINED_GROUPS};
use crate::query::{Filter, Groups, Order, Totals};

use client::Service;
use setup::Checked;

/// A store whose external datasets are services.
pub struct WithRest {
    inner: Box<dyn Holding>,
    bridge: Bridge,
    timeout: Duration,
    services: BTreeMap<String, (Checked, Service)>,
    specs: RwLock<BTreeMap<String, Arc<DatasetSpec>>>,
}

impl WithRest {
    /// Puts services beside a store. `ca` is for services that name no certificates of their own; `timeout` is how long one
    /// read may take, all of its pages together.
    ///
    /// # Errors
    /// [`HoldingError::Setup`]: a setup breaks a rule. No service is asked yet.
    pub fn new(
        inner: Box<dyn Holding>,
        setups: &BTreeMap<String, RestSetup>,
        ca: Option<&Path>,
        timeout: Duration,
    ) -> Result<Self, HoldingError> {
        let mut services = BTreeMap::new();
        for (id, setup) in setups {
            let named = |e: HoldingError| HoldingError::Setup(format!("external {id}: {e}"));
            let checked = Checked::new(setup).map_err(named)?;
            let service = Service::new(&checked, setup.ca.as_deref().or(ca)).map_err(named)?;
            services.insert(id.clone(), (checked, service));
        }
        let specs = RwLock::new(BTreeMap::new());
        Ok(Self { inner, bridge: Bridge::new("rest")?, timeout, services, specs })
    }

    fn known(&self, dataset: &str) -> Result<(Arc<DatasetSpec>, &Checked, &Service), HoldingError> {
        let specs = self.specs.read().unwrap_or_else(PoisonError::into_inner);
        let spec = specs.get(dataset).cloned().ok_or_else(|| checks::unknown(dataset))?;
        let (setup, service) = self.services.get(dataset).ok_or_else(|| checks::unknown(dataset))?;
        Ok((spec, setup, service))
    }

    fn is_ours(&self, dataset: &str) -> bool {
        self.services.contains_key(dataset)
    }

    fn read_only(&self, dataset: &str) -> Result<(), HoldingError> {
        if self.is_ours(dataset) { Err(HoldingError::ReadOnly(dataset.to_owned())) } else { Ok(()) }
    }

    /// The rows that match, by key. One read of the service, all of its pages.
    fn rows(&self, dataset: &str, filter: &Filter) -> Result<BTreeMap<String, Map<String, Value>>, HoldingError> {
        let (spec, setup, service) = self.known(dataset)?;
        checks::fields(&spec, filter, &[])?;
        let until = Instant::now() + self.timeout;
        let (mut found, mut read) = (BTreeMap::new(), 0);
        for question in ask::questions(setup, filter)? {
            let (service, paging, max) = (service.clone(), setup.paging.clone(), setup.rows_max);
            let bodies = self.bridge.run(async move { service.read(question, &paging, max, until).await })?;
            for page in bodies {
                read += page.rows.len();
                if read > setup.rows_max {
                    return Err(ask::too_wide(setup, filter));
                }
                for row in page.rows {
                    if let Some((key, doc)) = rows::typed(setup, &spec, &row)
                        && filter.matches(&doc)
                    {
                        // A list that changes while it is paged may show a row twice.
                        found.entry(key).or_insert(doc);
                    }
                }
            }
        }
        Ok(found)
    }
}

impl Holding for WithRest {
    fn ensure_dataset(&self, spec: &DatasetSpec) -> Result<(), HoldingError> {
        let Some((setup, _)) = self.services.get(&spec.id) else { return self.inner.ensure_dataset(spec) };
        spec.check()?;
        setup.fits(spec)?;
        self.specs.write().unwrap_or_else(PoisonError::into_inner).insert(spec.id.clone(), Arc::new(spec.clone()));
        Ok(())
    }

    fn spec(&self, dataset: &str) -> Result<DatasetSpec, HoldingError> {
        match self.is_ours(dataset) {
            true => Ok((*self.known(dataset)?.0).clone()),
            false => self.inner.spec(dataset),
        }
    }

    fn put_many(&self, dataset: &str, rows: &[Map<String, Value>]) -> Result<PutReport, HoldingError> {
        self.read_only(dataset)?;
        self.inner.put_many(dataset, rows)
    }

    fn write(&self, dataset: &str, row: &Map<String, Value>, expect: &Expect) -> Result<Written, HoldingError> {
        self.read_only(dataset)?;
        self.inner.write(dataset, row, expect)
    }

    fn delete(&self, dataset: &str, key: &str, expect: &Expect) -> Result<Written, HoldingError> {
        self.read_only(dataset)?;
        self.inner.delete(dataset, key, expect)
    }

    fn apply(&self, dataset: &str, once: &Once) -> Result<Fate, HoldingError> {
        self.read_only(dataset)?;
        self.inner.apply(dataset, once)
    }

    fn void(&self, dataset: &str, once: &Once) -> Result<Fate, HoldingError> {
        self.read_only(dataset)?;
        self.inner.void(dataset, once)
    }

    fn forget_writes(&self, kept: Duration, ended: &Ended<'_>) -> Result<u64, HoldingError> {
        self.inner.forget_writes(kept, ended)
    }

    fn lease(&self, bid: &Bid) -> Result<Answer, HoldingError> {
        self.inner.lease(bid)
    }

    fn bind(&self, term: u64) {
        self.inner.bind(term);
    }

    fn may_write(&self, dataset: &str) -> Result<bool, HoldingError> {
        if self.is_ours(dataset) {
            return self.known(dataset).map(|_| false);
        }
        self.inner.may_write(dataset)
    }

    fn page(&self, plan: &Plan) -> Result<Rows, HoldingError> {
        if !self.is_ours(&plan.dataset) {
            return self.inner.page(plan);
        }
        let spec = self.known(&plan.dataset)?.0;
        checks::plan(&spec, plan)?;
        let mut page = Page::new(plan.limit);
        let mut found: Vec<(String, Map<String, Value>)> =
            self.rows(&plan.dataset, &plan.filter)?.into_iter().collect();
        if plan.order == Order::KeyDescending {
            found.reverse();
        }
        let behind = |key: &str| {
            plan.after.as_deref().is_none_or(|after| match plan.order {
                Order::Key => key > after,
                Order::KeyDescending => key < after,
            })
        };
        for (key, mut doc) in found.into_iter().filter(|(key, _)| behind(key)) {
            if let Some(names) = &plan.select {
                doc = names.iter().filter_map(|n| Some((n.clone(), doc.remove(n)?))).collect();
            }
            let row = Row { key, doc };
            let size = refine::size(&row);
            if !page.take(|| Ok((row, size)))? {
                break;
            }
        }
        Ok(page.done(None))
    }

    fn tally(&self, dataset: &str, filter: &Filter) -> Result<u64, HoldingError> {
        if !self.is_ours(dataset) {
            return self.inner.tally(dataset, filter);
        }
        Ok(self.rows(dataset, filter)?.len() as u64)
    }

    fn query(&self, plan: &Plan) -> Result<Rows, HoldingError> {
        // Distances are measured on the rows too: one read is enough.
        if self.is_ours(&plan.dataset) { self.page(plan) } else { self.inner.query(plan) }
    }

    fn count(&self, dataset: &str, filter: &Filter) -> Result<u64, HoldingError> {
        if self.is_ours(dataset) { self.tally(dataset, filter) } else { self.inner.count(dataset, filter) }
    }

    fn totals(&self, dataset: &str, filter: &Filter, totals: &Totals) -> Result<Groups, HoldingError> {
        if !self.is_ours(dataset) {
            return self.inner.totals(dataset, filter, totals);
        }
        let names: Vec<String> = totals.reads().into_iter().map(str::to_owned).collect();
        checks::fields(&self.known(dataset)?.0, filter, &names)?;
        let mut groups = BTreeMap::new();
        for doc in self.rows(dataset, filter)?.values() {
            totals.add(&mut groups, doc);
            if groups.len() > MAX_REFINED_GROUPS {
                return Err(HoldingError::TooMuch { what: "groups", max: MAX_GROUPS as u64 });
            }
        }
        let told = totals.finish(groups);
        if told.groups.len() > MAX_GROUPS {
            return Err(HoldingError::TooMuch { what: "groups", max: MAX_GROUPS as u64 });
        }
        Ok(told)
    }

    fn aggregate(&self, dataset: &str, filter: &Filter, totals: &Totals) -> Result<Groups, HoldingError> {
        if self.is_ours(dataset) {
            self.totals(dataset, filter, totals)
        } else {
            self.inner.aggregate(dataset, filter, totals)
        }
    }

    fn get(&self, dataset: &str, key: &str) -> Result<Option<Map<String, Value>>, HoldingError> {
        if !self.is_ours(dataset) {
            return self.inner.get(dataset, key);
        }
        let spec = self.known(dataset)?.0;
        let Some(filter) = ask::of_key(&spec, key) else { return Ok(None) };
        Ok(self.rows(dataset, &filter)?.remove(key))
    }

    fn forget(&self, dataset: &str, field: &str, gone: &dyn Fn(&str) -> bool) -> Result<u64, HoldingError> {
        self.read_only(dataset)?;
        self.inner.forget(dataset, field, gone)
    }

    fn explain(&self, plan: &Plan) -> Result<String, HoldingError> {
        if !self.is_ours(&plan.dataset) {
            return self.inner.explain(plan);
        }
        let (_, setup, _) = self.known(&plan.dataset)?;
        let asked = ask::questions(setup, &plan.filter)?;
        Ok(asked.iter().map(|q| format!("GET {}", q.url)).collect::<Vec<_>>().join("\n"))
    }

    fn health(&self) -> Result<Health, HoldingError> {
        let mut health = self.inner.health()?;
        health.datasets += self.specs.read().unwrap_or_else(PoisonError::into_inner).len();
        Ok(health)
    }
}
