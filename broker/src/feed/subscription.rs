//! One subscription as this process holds it.

use super::buffer::{Buffer, Start};
use super::error::FeedError;
use super::store::{Created, Kept, Key, Seek};
use super::terms::FeedTerms;
use async_nats::jetstream::message::Acker;
use concordat_protocol::cbor::Bytes;
use concordat_protocol::terms::Status;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Notify;
use tracing::info;

/// Deliveries of one subscription held at most; more are fetched as these are acknowledged.
pub(super) const HELD: usize = 256;
/// Places of refused deliveries remembered, so that a replay does not report them twice.
const REFUSED_PLACES: usize = 1_024;
/// A place of the feed stream is kept after so many deliveries, or so many milliseconds.
const INDEX: (u64, u64) = (64, 10_000);

/// What is counted of a subscription since this process started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages handed on, those read again included.
    pub handed_on: u64,
    /// Deliveries that did not prove themselves.
    pub invalid: u64,
    /// Deliveries that came again.
    pub duplicates: u64,
    /// Deliveries that never came.
    pub missing: u64,
    /// Deliveries whose record was not on the ledger in time.
    pub unanchored: u64,
    /// What went wrong last.
    pub last_error: String,
    /// When, milliseconds since 1970; 0 if nothing did.
    pub last_error_ms: u64,
    /// When a delivery was last taken, milliseconds since 1970; 0 if none was.
    pub last_ok_ms: u64,
}

impl Counts {
    /// Notes a failure.
    pub(super) fn failed(&mut self, why: impl Into<String>) {
        (self.last_error, self.last_error_ms) = (why.into(), wall_ms());
    }
}

/// Milliseconds since 1970 by this machine's clock; only shown, never decided on.
pub(super) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// A delivery whose record is awaited on the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Awaited {
    pub delivered_ms: u64,
    pub max_lag_ms: u64,
    /// The promise as it was signed, and its signature: what a complaint shows.
    pub promise: Bytes,
    pub signature: Bytes,
}

/// What is asked of the exchange before more is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Resync {
    /// Nothing.
    None,
    /// Items again from behind the last good one. If it cannot be had they come by themselves, later.
    Soft,
    /// Items from a seek's place. Nothing is fetched before it is so.
    Hard,
}

pub(super) struct Inner {
    pub terms: Arc<FeedTerms>,
    pub buffer: Buffer<Arc<Acker>>,
    /// By number.
    pub awaited: BTreeMap<u64, Awaited>,
    pub promises: super::double::Promises,
    pub anchored: u64,
    pub counts: Counts,
    pub paused: Option<(String, u64)>,
    /// A seek under way, as it is kept.
    pub seek: Option<Seek>,
    /// Grows with every seek: readers begin anew.
    pub seeks: u64,
    pub resync: Resync,
    /// The consumer at the exchange is to be opened, not before this.
    pub open: Option<Instant>,
    /// While a seek is under way: the consumer's number of the next item. Another one means that some were lost on the
    /// way, and that what comes now may not be the first.
    pub expect: u64,
    /// Newest delivery ever seen.
    pub newest: u64,
    pub indexed: Option<(u64, u64)>,
    /// Whether what is missing was asked for again.
    pub closing_gap: bool,
    pub refused: BTreeSet<u64>,
    pub ending: bool,
    pub gone: bool,
}

impl Inner {
    /// Whether items are fetched now.
    pub fn fetches(&self) -> bool {
        let open = matches!(self.terms.status, Status::Active | Status::Superseded);
        open && self.paused.is_none() && !self.ending && !self.gone
    }

    /// Whether nothing more is fetched because nothing is acknowledged.
    pub fn is_full(&self) -> bool {
        self.buffer.held_count() >= HELD && self.buffer.gap().is_none()
    }

    /// How many more deliveries may be fetched. While a gap is being closed there is room in any case, since what is
    /// missing comes before what is held; the server's own bound on what is not acknowledged still holds.
    pub fn room(&self) -> usize {
        if self.closing_gap { HELD } else { HELD.saturating_sub(self.buffer.held_count()) }
    }

    /// From which place of the feed stream items have to come again; none where it is not known.
    pub fn resync_place(&self) -> Option<u64> {
        match (self.resync, self.buffer.seeking().and(self.seek.as_ref())) {
            (Resync::None, _) => None,
            (_, Some(seek)) => Some(seek.place),
            _ if self.buffer.place() > 0 => Some(self.buffer.place() + 1),
            _ if self.buffer.last() == 0 => Some(1),
            _ => None,
        }
    }

    /// Begins a seek that is kept already.
    pub fn begin_seek(&mut self, seek: Seek) {
        self.buffer.seek(seek.start);
        self.seek = Some(seek);
        self.seeks += 1;
        self.resync = Resync::Hard;
    }

    /// Whether this place is one to keep, so that a later seek starts near it.
    pub fn is_milestone(&mut self, sub_seq: u64, delivered_ms: u64) -> bool {
        let due = |(seq, ms): (u64, u64)| sub_seq >= seq + INDEX.0 || (sub_seq > seq && delivered_ms >= ms + INDEX.1);
        let is_due = self.indexed.is_none_or(due);
        if is_due {
            self.indexed = Some((sub_seq, delivered_ms));
        }
        is_due
    }

    /// Remembers a refused delivery; false if it was refused before.
    pub fn refuse(&mut self, place: u64) -> bool {
        while self.refused.len() >= REFUSED_PLACES {
            self.refused.pop_first();
        }
        self.refused.insert(place)
    }
}

/// One subscription of this agency.
pub struct Subscription {
    /// Its key.
    pub key: Key,
    /// What was asked for, where this agency created it; none for one that an agreement gives by itself.
    pub created: Option<Created>,
    inner: Mutex<Inner>,
    /// Something came, or the agreement changed.
    pub(super) news: Notify,
    /// The application acknowledged.
    pub(super) room: Notify,
    /// The fetching task has to look up: pause, seek, another state of the agreement.
    pub(super) turn: Notify,
    pub(super) acking: tokio::sync::Mutex<()>,
}

impl Subscription {
    /// Takes up where the store says it stood.
    pub(super) fn new(key: Key, terms: FeedTerms, created: Option<Created>, kept: Option<&Kept>) -> Self {
        let old = kept.cloned().unwrap_or_default();
        let mut inner = Inner {
            buffer: Buffer::new(old.acked, old.place),
            terms: Arc::new(terms),
            awaited: BTreeMap::new(),
            promises: super::double::Promises::default(),
            anchored: 0,
            counts: Counts::default(),
            paused: old.paused,
            seek: None,
            seeks: 0,
            // What the process before had fetched and not acknowledged would come only after the server's patience ended.
            resync: if kept.is_some() { Resync::Soft } else { Resync::None },
            open: created.as_ref().map(|_| Instant::now()),
            expect: 0,
            newest: old.acked.sub_seq.max(old.indexed.map_or(0, |(seq, _)| seq)),
            indexed: old.indexed,
            closing_gap: false,
            refused: BTreeSet::new(),
            ending: created.as_ref().is_some_and(|c| c.ending),
            gone: false,
        };
        if let Some(seek) = old.seek {
            inner.begin_seek(seek);
        }
        let (news, room, turn) = (Notify::new(), Notify::new(), Notify::new());
        Self { key, created, inner: Mutex::new(inner), news, room, turn, acking: Default::default() }
    }

    pub(super) fn with<T>(&self, job: impl FnOnce(&mut Inner) -> T) -> T {
        job(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn count(&self, what: impl FnOnce(&mut Counts)) {
        self.with(|i| what(&mut i.counts));
    }

    /// Its clause as the ledger has it now.
    pub fn terms(&self) -> Arc<FeedTerms> {
        self.with(|i| i.terms.clone())
    }

    /// Name to applications.
    pub fn id(&self) -> String {
        crate::streams::subscription_name(&self.key.provider, self.key.number)
    }

    /// The own name, where one was given.
    pub fn name(&self) -> Option<&str> {
        self.created.as_ref().map(|c| c.name.as_str())
    }

    /// Changes something that readers and the fetching task have to see.
    pub(super) fn change<T>(&self, job: impl FnOnce(&mut Inner) -> T) -> T {
        let done = self.with(job);
        self.news.notify_waiters();
        self.turn.notify_one();
        done
    }

    /// Takes new terms: readers that wait are told, and what a revocation ended is let go of.
    pub(super) fn take_terms(&self, terms: FeedTerms) {
        if *self.terms() == terms {
            return;
        }
        info!(subscription = terms.id, agreement = terms.agreement, version = terms.version, status = %terms.status, "agreement changed");
        self.change(|i| {
            if terms.status == Status::Revoked {
                i.buffer.clear();
            }
            i.terms = Arc::new(terms);
        });
    }

    /// What a reader is refused with while the agreement, or this agency, does not let it read. `tick_ms`: ledger time.
    pub(super) fn readable(&self, tick_ms: u64) -> Result<(), FeedError> {
        self.with(|i| {
            if i.gone {
                return Err(FeedError::Unknown(self.id()));
            }
            if i.ending {
                return Err(FeedError::Ending(self.id(), self.key.provider.clone()));
            }
            let t = &i.terms;
            let status = match t.status {
                Status::Active | Status::Superseded if tick_ms < t.from_ms => "not in force yet",
                Status::Active | Status::Superseded if tick_ms >= t.until_ms => "expired",
                Status::Active | Status::Superseded => "",
                other => other.word(),
            };
            match (&i.paused, status) {
                (Some((by, ms)), "") => Err(FeedError::Paused { id: self.id(), by: by.clone(), at: time(*ms) }),
                (None, "") => Ok(()),
                (_, status) => Err(FeedError::NotActive { agreement: t.agreement.clone(), status }),
            }
        })
    }
}

/// Milliseconds as RFC 3339.
pub(super) fn time(ms: u64) -> String {
    jiff::Timestamp::from_millisecond(ms.min(i64::MAX as u64) as i64).map(|t| t.to_string()).unwrap_or_default()
}

/// What a seek goes to, in words.
pub(super) fn start_word(start: Start) -> String {
    match start {
        Start::First => "first".into(),
        Start::After(c) => format!("after {c}"),
        Start::From(n) => format!("delivery {n}"),
        Start::Since(ms) => time(ms),
    }
}
