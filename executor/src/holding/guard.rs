//! What keeps a query from hurting the provider's own work: so many at once, so many rows, not at this hour.

use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::{Map, Value};

use super::Written;
use super::{DatasetSpec, Ended, Expect, Fate, Health, Holding, HoldingError, Once, PageEnd, Plan, PutReport, Rows};
use crate::lease::{Answer, Bid};
use crate::limits::{CONCURRENT_QUERIES, MAX_PAGE_BYTES, MAX_PAGE_ROWS};
use crate::query::{Filter, Groups, Totals};

/// What a provider allows.
#[derive(Debug, Clone, PartialEq)]
pub struct Guard {
    /// Queries at work at once.
    pub concurrent: usize,
    /// How long a query waits for its turn before it is told that the store is busy.
    pub wait: Duration,
    /// Rows of one page; a query that asks for more gets its answer in more pages.
    pub page_rows: u32,
    /// Bytes of one page, as JSON.
    pub page_bytes: usize,
    /// When no query is served.
    pub black_out: Vec<BlackOut>,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            concurrent: CONCURRENT_QUERIES,
            wait: Duration::from_secs(1),
            page_rows: MAX_PAGE_ROWS,
            page_bytes: MAX_PAGE_BYTES,
            black_out: Vec::new(),
        }
    }
}

/// Hours of the week in which a store is kept free, read from `[DAY[-DAY] ]HH:MM-HH:MM[ ZONE]`, like
/// `mon-fri 08:00-10:00 Europe/Warsaw`. Days are those on which it begins; without a zone it is UTC.
#[derive(Debug, Clone, PartialEq)]
pub struct BlackOut {
    first: Weekday,
    last: Weekday,
    from: Time,
    to: Time,
    zone: TimeZone,
}

impl FromStr for BlackOut {
    type Err = HoldingError;

    fn from_str(text: &str) -> Result<Self, HoldingError> {
        let bad = || {
            let shown: String = text.chars().take(80).collect();
            HoldingError::Setup(format!("black_out {shown:?} is not like \"mon-fri 08:00-10:00 Europe/Warsaw\""))
        };
        let mut words = text.split_whitespace().peekable();
        let days = words.next_if(|w| w.starts_with(|c: char| c.is_ascii_alphabetic()));
        let (first, last) = match days {
            None => (Weekday::Monday, Weekday::Sunday),
            Some(days) => {
                let (a, b) = days.split_once('-').unwrap_or((days, days));
                (weekday(a).ok_or_else(bad)?, weekday(b).ok_or_else(bad)?)
            }
        };
        let (from, to) = words.next().and_then(|w| w.split_once('-')).ok_or_else(bad)?;
        let time = |t: &str| match t {
            "24:00" => Some(Time::midnight()),
            _ if t.len() == 5 => Time::strptime("%H:%M", t).ok(),
            _ => None,
        };
        let (from, to) = time(from).zip(time(to)).ok_or_else(bad)?;
        let zone = match words.next() {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| bad())?,
        };
        if words.next().is_some() {
            return Err(bad());
        }
        Ok(Self { first, last, from, to, zone })
    }
}

fn weekday(name: &str) -> Option<Weekday> {
    use Weekday::{Friday, Monday, Saturday, Sunday, Thursday, Tuesday, Wednesday};
    let all = [Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday];
    let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    names.iter().position(|n| *n == name.to_ascii_lowercase()).map(|i| all[i])
}

impl BlackOut {
    /// When the hours end that `now` lies in, if it does. Equal times are a whole day.
    fn until(&self, now: Timestamp) -> Option<Zoned> {
        let here = now.to_zoned(self.zone.clone());
        // It began today or, where it goes over midnight, yesterday.
        [0, 1].into_iter().find_map(|days_ago| {
            let day = here.date().checked_sub(jiff::Span::new().days(days_ago)).ok()?;
            let offset = |w: Weekday| (w.to_monday_zero_offset() + 7 - self.first.to_monday_zero_offset()) % 7;
            if offset(day.weekday()) > offset(self.last) {
                return None;
            }
            let end_day = if self.from < self.to { day } else { day.tomorrow().ok()? };
            let begin = day.to_datetime(self.from).to_zoned(self.zone.clone()).ok()?;
            let end = end_day.to_datetime(self.to).to_zoned(self.zone.clone()).ok()?;
            (begin <= here && here < end).then_some(end)
        })
    }
}

/// What tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A store behind its provider's limits. Reads are guarded; writing, forgetting and health are not.
pub struct Guarded {
    inner: Box<dyn Holding>,
    guard: Guard,
    clock: Clock,
    at_work: Mutex<usize>,
    done: Condvar,
}

struct Turn<'a>(&'a Guarded);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.at_work.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.done.notify_one();
    }
}

impl Guarded {
    /// Guards a store.
    pub fn new(inner: Box<dyn Holding>, guard: Guard, clock: Clock) -> Self {
        Self { inner, guard, clock, at_work: Mutex::new(0), done: Condvar::new() }
    }

    fn enter(&self) -> Result<Turn<'_>, HoldingError> {
        let now = (self.clock)();
        if let Some(until) = self.guard.black_out.iter().filter_map(|b| b.until(now)).max() {
            return Err(HoldingError::BlackOut { until: until.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string() });
        }
        let max = self.guard.concurrent.max(1);
        let end = Instant::now() + self.guard.wait;
        let mut at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        while *at_work >= max {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(HoldingError::Busy { max });
            }
            at_work = self.done.wait_timeout(at_work, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *at_work += 1;
        Ok(Turn(self))
    }

    fn within(&self, plan: &Plan) -> Plan {
        Plan { limit: plan.limit.min(self.guard.page_rows.max(1)), ..plan.clone() }
    }

    fn cut(&self, mut page: Rows) -> Rows {
        let mut bytes = 0;
        let fits = page.rows.iter().take_while(|row| {
            bytes += super::refine::size(row);
            bytes <= self.guard.page_bytes
        });
        let fits = fits.count().max(1);
        if fits < page.rows.len() {
            page.rows.truncate(fits);
            page.end = PageEnd::Bytes;
        }
        page
    }
}

impl Holding for Guarded {
    fn ensure_dataset(&self, spec: &DatasetSpec) -> Result<(), HoldingError> {
        self.inner.ensure_dataset(spec)
    }
    fn spec(&self, dataset: &str) -> Result<DatasetSpec, HoldingError> {
        self.inner.spec(dataset)
    }
    fn put_many(&self, dataset: &str, rows: &[Map<String, Value>]) -> Result<PutReport, HoldingError> {
        self.inner.put_many(dataset, rows)
    }
    fn write(&self, dataset: &str, row: &Map<String, Value>, expect: &Expect) -> Result<Written, HoldingError> {
        self.inner.write(dataset, row, expect)
    }
    fn delete(&self, dataset: &str, key: &str, expect: &Expect) -> Result<Written, HoldingError> {
        self.inner.delete(dataset, key, expect)
    }
    fn apply(&self, dataset: &str, once: &Once) -> Result<Fate, HoldingError> {
        self.inner.apply(dataset, once)
    }
    fn void(&self, dataset: &str, once: &Once) -> Result<Fate, HoldingError> {
        self.inner.void(dataset, once)
    }
    fn lease(&self, bid: &Bid) -> Result<Answer, HoldingError> {
        self.inner.lease(bid)
    }
    fn bind(&self, term: u64) {
        self.inner.bind(term);
    }
    fn may_write(&self, dataset: &str) -> Result<bool, HoldingError> {
        self.inner.may_write(dataset)
    }
    fn page(&self, plan: &Plan) -> Result<Rows, HoldingError> {
        let _turn = self.enter()?;
        self.inner.page(&self.within(plan)).map(|page| self.cut(page))
    }
    fn tally(&self, dataset: &str, filter: &Filter) -> Result<u64, HoldingError> {
        let _turn = self.enter()?;
        self.inner.tally(dataset, filter)
    }
    fn query(&self, plan: &Plan) -> Result<Rows, HoldingError> {
        let _turn = self.enter()?;
        self.inner.query(&self.within(plan)).map(|page| self.cut(page))
    }
    fn count(&self, dataset: &str, filter: &Filter) -> Result<u64, HoldingError> {
        let _turn = self.enter()?;
        self.inner.count(dataset, filter)
    }
    fn totals(&self, dataset: &str, filter: &Filter, totals: &Totals) -> Result<Groups, HoldingError> {
        let _turn = self.enter()?;
        self.inner.totals(dataset, filter, totals)
    }
    fn aggregate(&self, dataset: &str, filter: &Filter, totals: &Totals) -> Result<Groups, HoldingError> {
        let _turn = self.enter()?;
        self.inner.aggregate(dataset, filter, totals)
    }
    fn get(&self, dataset: &str, key: &str) -> Result<Option<Map<String, Value>>, HoldingError> {
        let _turn = self.enter()?;
        self.inner.get(dataset, key)
    }
    fn forget_writes(&self, kept: Duration, ended: &Ended<'_>) -> Result<u64, HoldingError> {
        self.inner.forget_writes(kept, ended)
    }
    fn forget(&self, dataset: &str, field: &str, gone: &dyn Fn(&str) -> bool) -> Result<u64, HoldingError> {
        self.inner.forget(dataset, field, gone)
    }
    fn explain(&self, plan: &Plan) -> Result<String, HoldingError> {
        let _turn = self.enter()?;
        self.inner.explain(&self.within(plan))
    }
    fn health(&self) -> Result<Health, HoldingError> {
        self.inner.health()
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
