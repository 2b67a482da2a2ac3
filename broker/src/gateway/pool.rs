//! The pure part of a provider's sessions: who gives the next number, when more are opened.
//!
//! A (session, n) is given once in the life of the process, and a new process opens new sessions, so none is ever used
//! twice. Newest minus oldest open stays below [`GATEWAY_WINDOW`], half of what the ledger remembers.

use concordat_protocol::limits::GATEWAY_WINDOW;
use std::collections::BTreeSet;

/// For how long sessions are opened, milliseconds of tick; half of what the ledger allows.
pub const SESSION_LIFE_MS: u64 = 12 * 3_600_000;
/// With less than this left a session gives no more numbers, milliseconds: a query must end before its session.
pub const LAST_CALL_MS: u64 = 120_000;
/// With less than this left in every session new ones are opened, milliseconds.
pub const RENEW_MS: u64 = 3_600_000;
/// Sessions opened by one act.
pub const OPEN_AT_ONCE: usize = 2;
/// Most sessions kept towards one provider.
pub const SESSIONS_MAX: usize = 64;

/// A number in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The session.
    pub session: u64,
    /// The request's number in it, from 1.
    pub n: u64,
}

#[derive(Debug)]
struct Session<K> {
    number: u64,
    key: K,
    expires_ms: u64,
    next_n: u64,
    open: BTreeSet<u64>,
}

impl<K> Session<K> {
    fn usable(&self, tick_ms: u64) -> bool {
        self.expires_ms > tick_ms.saturating_add(LAST_CALL_MS)
    }

    /// How many more numbers may be given before the oldest open one is done.
    fn room(&self) -> u64 {
        let oldest = self.open.first().copied().unwrap_or(self.next_n);
        GATEWAY_WINDOW.saturating_sub(self.next_n.saturating_sub(oldest))
    }
}

/// Sessions towards one provider. `K` is the session's key.
#[derive(Debug)]
pub struct Pool<K> {
    sessions: Vec<Session<K>>,
}

impl<K> Default for Pool<K> {
    fn default() -> Self {
        Self { sessions: Vec::new() }
    }
}

impl<K> Pool<K> {
    /// Takes an opened session in. A number known already is left as it is.
    pub fn add(&mut self, number: u64, key: K, expires_ms: u64) {
        if self.sessions.iter().all(|s| s.number != number) {
            self.sessions.push(Session { number, key, expires_ms, next_n: 1, open: BTreeSet::new() });
        }
    }

    /// Gives the next number, of the session that ends last among those with room; none when a session has to be
    /// opened first.
    pub fn take(&mut self, tick_ms: u64) -> Option<Slot> {
        let fits = |s: &&mut Session<K>| s.usable(tick_ms) && s.room() > 0;
        // Of equals the lowest number: load stays on few sessions.
        let session = self.sessions.iter_mut().filter(fits).min_by_key(|s| (u64::MAX - s.expires_ms, s.number))?;
        let n = session.next_n;
        session.next_n += 1;
        session.open.insert(n);
        Some(Slot { session: session.number, n })
    }

    /// The request is answered, or nobody waits for it any more.
    pub fn done(&mut self, slot: Slot) {
        if let Some(s) = self.sessions.iter_mut().find(|s| s.number == slot.session) {
            s.open.remove(&slot.n);
        }
    }

    /// Gives up a session that the provider or the ledger does not take.
    pub fn drop_session(&mut self, number: u64) {
        self.sessions.retain(|s| s.number != number);
    }

    /// The key of a session.
    pub fn key(&self, number: u64) -> Option<&K> {
        self.sessions.iter().find(|s| s.number == number).map(|s| &s.key)
    }

    /// When a session ends, tick milliseconds.
    pub fn expires_ms(&self, number: u64) -> Option<u64> {
        self.sessions.iter().find(|s| s.number == number).map(|s| s.expires_ms)
    }

    /// How many sessions to open now. `used`: whether anybody asks this provider at all.
    pub fn wanted(&self, tick_ms: u64, used: bool) -> usize {
        if !used || self.sessions.len() >= SESSIONS_MAX {
            return 0;
        }
        let usable = || self.sessions.iter().filter(|s| s.usable(tick_ms));
        let room: u64 = usable().map(Session::room).sum();
        let last_end = usable().map(|s| s.expires_ms).max().unwrap_or_default();
        let wanted = room < GATEWAY_WINDOW / 2 || last_end < tick_ms.saturating_add(RENEW_MS);
        if wanted { OPEN_AT_ONCE.min(SESSIONS_MAX - self.sessions.len()) } else { 0 }
    }

    /// Forgets sessions that are over and hold nothing open.
    pub fn sweep(&mut self, tick_ms: u64) {
        self.sessions.retain(|s| s.expires_ms > tick_ms || !s.open.is_empty());
    }

    /// Sessions held.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Numbers that are open.
    pub fn open(&self) -> usize {
        self.sessions.iter().map(|s| s.open.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn pool() -> Pool<char> {
        let mut pool = Pool::default();
        pool.add(7, 'a', SESSION_LIFE_MS);
        pool
    }

    #[test]
    fn opening_is_lazy_and_renewed_before_the_end() {
        let mut pool: Pool<char> = Pool::default();
        assert_eq!(pool.wanted(0, false), 0, "nobody asked");
        assert_eq!(pool.wanted(0, true), OPEN_AT_ONCE);
        assert_eq!(pool.take(0), None);
        pool.add(7, 'a', SESSION_LIFE_MS);
        assert_eq!(pool.wanted(0, true), 0);
        assert!(pool.wanted(SESSION_LIFE_MS - RENEW_MS + 1, true) > 0, "renewed an hour before");
        assert!(pool.take(SESSION_LIFE_MS - LAST_CALL_MS - 1).is_some());
        assert_eq!(pool.take(SESSION_LIFE_MS - LAST_CALL_MS), None, "a query must end before its session");
    }

    #[test]
    fn one_slow_request_does_not_stop_the_others() {
        let mut pool = pool();
        let first = pool.take(0).unwrap();
        for _ in 1..GATEWAY_WINDOW {
            let slot = pool.take(0).unwrap();
            pool.done(slot);
        }
        assert_eq!(pool.take(0), None, "newest minus oldest open reached the window");
        assert!(pool.wanted(0, true) > 0, "so more sessions are opened");
        pool.add(8, 'b', SESSION_LIFE_MS);
        assert_eq!(pool.take(0).unwrap().session, 8);
        pool.done(first);
        assert_eq!(pool.take(0).unwrap(), Slot { session: 7, n: GATEWAY_WINDOW + 1 });
    }

    #[test]
    fn a_session_that_is_not_taken_is_never_used_again() {
        let mut pool = pool();
        pool.take(0).unwrap();
        pool.drop_session(7);
        assert_eq!((pool.take(0), pool.len(), pool.key(7)), (None, 0, None));
    }

    proptest! {
        /// Whatever is done, no (session, n) is given twice and the window is kept.
        #[test]
        fn no_number_twice(steps in proptest::collection::vec(0..4u8, 1..400)) {
            let mut pool: Pool<()> = Pool::default();
            let (mut given, mut open, mut number) = (BTreeSet::new(), Vec::new(), 0);
            for step in steps {
                match step {
                    0 => { number += 1; pool.add(number, (), SESSION_LIFE_MS); }
                    1 | 2 => if let Some(slot) = pool.take(0) {
                        prop_assert!(given.insert(slot));
                        open.push(slot);
                    },
                    _ => if let Some(slot) = open.pop() { pool.done(slot) },
                }
            }
            prop_assert_eq!(pool.open(), open.len());
        }
    }
}
