//! Envelopes of the own stream, verified once and shared by all subscriptions of a dataset; bounded by bytes.

use super::redaction::{Lens, Shown};
use concordat_executor::policies::view::Pseudonyms;
use concordat_protocol::hash::Hash;
use concordat_protocol::message::Opened;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Redactions kept beside an envelope: more different ones are made each time.
const LENSES: usize = 16;

/// An envelope at its place.
pub(super) struct Entry {
    /// Place in the own stream.
    pub(super) place: u64,
    /// Bytes in the stream.
    pub(super) size: usize,
    opened: Opened,
    shown: Mutex<BTreeMap<Hash, Option<Arc<Shown>>>>,
}

impl Entry {
    pub(super) fn new(place: u64, size: usize, opened: Opened) -> Arc<Self> {
        Arc::new(Self { place, size, opened, shown: Mutex::default() })
    }

    /// The envelope as a lens shows it; subscriptions that see the same share it.
    pub(super) fn shown(&self, lens: &Lens, with: Pseudonyms<'_>) -> Option<Arc<Shown>> {
        let known = || self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let id = lens.id_at(with.at_ms);
        if let Some(shown) = known().get(&id) {
            return shown.clone();
        }
        let shown = lens.show(&self.opened, with).map(Arc::new);
        let mut known = known();
        if known.len() < LENSES {
            known.insert(id, shown.clone());
        }
        shown
    }
}

/// Values by place, the ones that came first forgotten first.
pub(super) struct Cache<T> {
    by_place: BTreeMap<u64, (usize, T)>,
    order: VecDeque<u64>,
    bytes: usize,
    most: usize,
}

impl<T: Clone> Cache<T> {
    /// An empty cache of at most so many bytes (at least one value).
    pub(super) fn new(most: usize) -> Self {
        Self { by_place: BTreeMap::new(), order: VecDeque::new(), bytes: 0, most }
    }

    /// The value at a place, made if it is not there.
    pub(super) fn get_or(&mut self, place: u64, size: usize, make: impl FnOnce() -> T) -> T {
        if let Some((_, known)) = self.by_place.get(&place) {
            return known.clone();
        }
        let made = make();
        self.by_place.insert(place, (size, made.clone()));
        self.order.push_back(place);
        self.bytes += size;
        while self.bytes > self.most && self.order.len() > 1 {
            if let Some((size, _)) = self.order.pop_front().and_then(|p| self.by_place.remove(&p)) {
                self.bytes -= size;
            }
        }
        made
    }

    /// Values from a place on without a gap, at most so many and so many bytes (at least one).
    pub(super) fn run(&self, from: u64, count: usize, bytes: usize) -> Vec<T> {
        let (mut due, mut left, mut out) = (from, bytes, Vec::new());
        for (place, (size, value)) in self.by_place.range(from..).take(count) {
            if *place != due || (!out.is_empty() && *size > left) {
                break;
            }
            (due, left) = (due + 1, left.saturating_sub(*size));
            out.push(value.clone());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_no_gap_and_keeps_its_bounds() {
        let mut cache = Cache::new(1_000);
        for place in [5, 6, 7, 9] {
            cache.get_or(place, 100, || place);
        }
        assert_eq!(cache.run(5, 9, 1_000), [5, 6, 7]);
        assert_eq!(cache.run(6, 9, 1_000), [6, 7]);
        assert_eq!(cache.run(5, 2, 1_000), [5, 6]);
        assert_eq!(cache.run(5, 9, 150), [5], "a second one would be too much");
        assert_eq!(cache.run(5, 9, 10), [5], "one always goes");
        assert_eq!(cache.run(8, 9, 1_000), [] as [u64; 0]);
    }

    #[test]
    fn the_first_that_came_goes_first() {
        let mut cache = Cache::new(250);
        for place in [1, 2, 3, 4] {
            cache.get_or(place, 100, || place);
        }
        assert_eq!((cache.run(1, 9, 999), cache.run(3, 9, 999)), (vec![], vec![3, 4]));
        assert_eq!(cache.get_or(3, 100, || 99), 3, "made once");
    }
}
