#![allow(clippy::unwrap_used)]
use super::*;
use crate::holding::sqlite::tests::{fresh, small};
use serde_json::json;
use std::sync::Barrier;
use std::sync::atomic::{AtomicI64, Ordering};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn until(hours: &str, now: &str) -> Option<String> {
    let hours: BlackOut = hours.parse().unwrap();
    hours.until(at(now)).map(|z| z.timestamp().to_string())
}

#[test]
fn hours_are_those_of_the_providers_zone_and_may_go_over_midnight() {
    // A Monday; Warsaw is one hour before UTC then.
    let office = "mon-fri 08:00-10:00 Europe/Warsaw";
    assert_eq!(until(office, "2026-11-23T07:30:00Z").as_deref(), Some("2026-11-23T09:00:00Z"));
    assert_eq!(until(office, "2026-11-23T06:59:59Z"), None);
    assert_eq!(until(office, "2026-11-23T09:00:00Z"), None);
    assert_eq!(until(office, "2026-11-22T07:30:00Z"), None, "a Sunday");
    // It begins on Friday and ends on Saturday.
    let night = "fri 22:00-04:00";
    assert_eq!(until(night, "2026-11-28T03:00:00Z").as_deref(), Some("2026-11-28T04:00:00Z"));
    assert_eq!(until(night, "2026-11-27T03:00:00Z"), None);
    assert_eq!(until("sat-mon 00:00-24:00", "2026-11-23T12:00:00Z").as_deref(), Some("2026-11-24T00:00:00Z"));
    assert_eq!(until("00:00-24:00", "2026-11-25T12:00:00Z").as_deref(), Some("2026-11-26T00:00:00Z"));
    for bad in ["", "mon", "8-10", "moo 08:00-10:00", "08:00-25:00", "08:00-10:00 Nowhere", "08:00-10:00 UTC x"] {
        assert_eq!(bad.parse::<BlackOut>().unwrap_err().code(), "holding.setup", "{bad}");
    }
}

#[test]
fn reads_stop_in_a_black_out_and_writes_go_on() {
    let spec = small();
    let (_dir, store) = fresh(&spec);
    let now = Arc::new(AtomicI64::new(at("2026-11-23T08:30:00Z").as_second()));
    let read = now.clone();
    let clock: Clock = Arc::new(move || Timestamp::from_second(read.load(Ordering::Relaxed)).unwrap());
    let guard = Guard { black_out: vec!["08:00-09:00".parse().unwrap()], ..Guard::default() };
    let holding = Guarded::new(Box::new(store), guard, clock);
    let row = json!({"id": "a"}).as_object().unwrap().clone();
    holding.write(&spec.id, &row, &Expect::Absent).unwrap();
    let refused = holding.query(&Plan::new(&spec.id, Filter::All)).unwrap_err();
    assert_eq!((refused.code(), refused.retry()), ("holding.black-out", true));
    assert!(refused.to_string().contains("2026-11-23T09:00:00+00:00"), "{refused}");
    now.store(at("2026-11-23T09:00:00Z").as_second(), Ordering::Relaxed);
    assert_eq!(holding.query(&Plan::new(&spec.id, Filter::All)).unwrap().rows.len(), 1);
}

/// A store whose count ends when it is let.
struct Slow(Box<dyn Holding>, Arc<Barrier>);

impl Holding for Slow {
    fn ensure_dataset(&self, spec: &DatasetSpec) -> Result<(), HoldingError> {
        self.0.ensure_dataset(spec)
    }
    fn spec(&self, dataset: &str) -> Result<DatasetSpec, HoldingError> {
        self.0.spec(dataset)
    }
    fn put_many(&self, dataset: &str, rows: &[Map<String, Value>]) -> Result<PutReport, HoldingError> {
        self.0.put_many(dataset, rows)
    }
    fn write(&self, dataset: &str, row: &Map<String, Value>, expect: &Expect) -> Result<Written, HoldingError> {
        self.0.write(dataset, row, expect)
    }
    fn delete(&self, dataset: &str, key: &str, expect: &Expect) -> Result<Written, HoldingError> {
        self.0.delete(dataset, key, expect)
    }
    fn apply(&self, dataset: &str, once: &Once) -> Result<Fate, HoldingError> {
        self.0.apply(dataset, once)
    }
    fn void(&self, dataset: &str, once: &Once) -> Result<Fate, HoldingError> {
        self.0.void(dataset, once)
    }
    fn lease(&self, bid: &Bid) -> Result<Answer, HoldingError> {
        self.0.lease(bid)
    }
    fn bind(&self, term: u64) {
        self.0.bind(term);
    }
    fn may_write(&self, dataset: &str) -> Result<bool, HoldingError> {
        self.0.may_write(dataset)
    }
    fn page(&self, plan: &Plan) -> Result<Rows, HoldingError> {
        self.0.page(plan)
    }
    fn tally(&self, _: &str, _: &Filter) -> Result<u64, HoldingError> {
        self.1.wait();
        self.1.wait();
        Ok(0)
    }
    fn get(&self, dataset: &str, key: &str) -> Result<Option<Map<String, Value>>, HoldingError> {
        self.0.get(dataset, key)
    }
    fn forget_writes(&self, _: Duration, _: &Ended<'_>) -> Result<u64, HoldingError> {
        unreachable!()
    }
    fn forget(&self, dataset: &str, field: &str, gone: &dyn Fn(&str) -> bool) -> Result<u64, HoldingError> {
        self.0.forget(dataset, field, gone)
    }
    fn explain(&self, plan: &Plan) -> Result<String, HoldingError> {
        self.0.explain(plan)
    }
    fn health(&self) -> Result<Health, HoldingError> {
        self.0.health()
    }
}

#[test]
fn one_query_more_than_allowed_is_told_so_and_the_next_one_works() {
    let spec = small();
    let (_dir, store) = fresh(&spec);
    let gate = Arc::new(Barrier::new(2));
    let guard = Guard { concurrent: 1, wait: Duration::from_millis(1), ..Guard::default() };
    let holding = Guarded::new(Box::new(Slow(Box::new(store), gate.clone())), guard, Arc::new(Timestamp::now));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| holding.count(&spec.id, &Filter::All));
        gate.wait();
        let refused = holding.query(&Plan::new(&spec.id, Filter::All)).unwrap_err();
        assert_eq!((refused.code(), refused.retry()), ("holding.busy", true));
        gate.wait();
        first.join().unwrap().unwrap();
    });
    holding.query(&Plan::new(&spec.id, Filter::All)).unwrap();
}

#[test]
fn rows_and_bytes_of_a_page_are_the_providers_and_nothing_is_lost() {
    let spec = small();
    let (_dir, store) = fresh(&spec);
    let rows: Vec<_> = (0..10).map(|n| json!({"id": format!("k{n}"), "s": "x".repeat(100)})).collect();
    let rows: Vec<_> = rows.iter().map(|r| r.as_object().unwrap().clone()).collect();
    store.put_many(&spec.id, &rows).unwrap();
    let guard = Guard { page_rows: 4, page_bytes: 350, ..Guard::default() };
    let holding = Guarded::new(Box::new(store), guard, Arc::new(Timestamp::now));
    let mut plan = Plan::new(&spec.id, Filter::All);
    let (mut keys, mut ends) = (Vec::new(), Vec::new());
    loop {
        let page = holding.query(&plan).unwrap();
        keys.extend(page.rows.iter().map(|r| r.key.clone()));
        ends.push((page.rows.len(), page.end));
        match page.next_after() {
            Some(key) => plan.after = Some(key.to_owned()),
            None => break,
        }
    }
    assert_eq!(keys.len(), 10);
    assert_eq!(ends[0], (2, PageEnd::Bytes));
}
