//! Which of a provider's executors is at work. One holds a lease with a term that only grows; the others stand by. Pure:
//! stores carry [`decide`] out as one compare-and-set with their own clock, and time is passed in.
//!
//! Two things follow from a lease, and neither trusts the other. Every store refuses what is written under a term that is
//! not the newest: that holds whatever any clock says. And who holds the lease knows by its own monotonic clock when to stop
//! ([`Tenure`]), before anybody else may take it: that is for what no store sees, an answer on its way out.

use std::fmt;

/// How long a lease is good where nothing else is configured, milliseconds.
pub const LEASE_MS: u64 = 5_000;

/// A lease as a store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Lease {
    /// Grows by one each time somebody takes it; 0 where nobody ever did.
    pub term: u64,
    /// Who took it last.
    pub holder: String,
    /// When another may take it, milliseconds of the store's clock.
    pub until_ms: u64,
}

/// What an executor asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bid {
    /// Who asks; no two processes share a name.
    pub holder: String,
    /// The term it has; none where it stands by.
    pub term: Option<u64>,
    /// For how long, milliseconds. Who has the lease gives it back by 0.
    pub lease_ms: u64,
    /// A holder that is known to have died. Its lease need not be waited for.
    pub dead: Option<String>,
    /// A term that was seen elsewhere: one that is taken is newer. So the lease may move from one store to another.
    pub floor: u64,
}

/// What the store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The lease as it stands now.
    pub lease: Lease,
    /// Whether it is the asker's.
    pub granted: bool,
}

/// The lease to put in the place of the one that is there; none where the asker does not get it.
///
/// A holder whose lease is over may still renew it as long as nobody took it: nothing was done under a newer term.
#[must_use]
pub fn decide(found: &Lease, bid: &Bid, now_ms: u64) -> Option<Lease> {
    let until_ms = now_ms.saturating_add(bid.lease_ms);
    let is_own = found.term > 0 && found.holder == bid.holder;
    let term = match bid.term {
        Some(term) => (is_own && term == found.term).then_some(term)?,
        // The answer to the first bid may have been lost: nobody else acts under that name.
        None if found.until_ms <= now_ms || is_own || bid.dead.as_ref() == Some(&found.holder) => {
            found.term.max(bid.floor).checked_add(1)?
        }
        None => return None,
    };
    Some(Lease { term, holder: bid.holder.clone(), until_ms })
}

/// Whether a write under a term may be done while the store has this one. It must be asked in the write's own transaction.
#[must_use]
pub const fn admits(stored: u64, own: u64) -> bool {
    stored == own
}

/// How long before its end a holder stops by itself, milliseconds: more than two clocks drift apart in one lease.
#[must_use]
pub const fn margin_ms(lease_ms: u64) -> u64 {
    lease_ms / 5
}

/// A lease as its holder sees it, by its own monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tenure {
    /// The term.
    pub term: u64,
    /// When it stops, milliseconds of the holder's clock.
    pub ends_ms: u64,
}

impl Tenure {
    /// A lease that was granted. `asked_ms` is the holder's clock before it asked, so that the store's lease ends later.
    #[must_use]
    pub const fn granted(term: u64, asked_ms: u64, lease_ms: u64) -> Self {
        Self { term, ends_ms: asked_ms.saturating_add(lease_ms - margin_ms(lease_ms)) }
    }

    /// Whether it may still act.
    #[must_use]
    pub const fn holds(&self, now_ms: u64) -> bool {
        now_ms < self.ends_ms
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {} of {}", self.term, self.holder)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn bid(holder: &str, term: Option<u64>) -> Bid {
        Bid { holder: holder.into(), term, lease_ms: 100, ..Bid::default() }
    }

    fn lease(term: u64, holder: &str, until_ms: u64) -> Lease {
        Lease { term, holder: holder.into(), until_ms }
    }

    #[test]
    fn nobody_takes_a_lease_that_is_good_and_everybody_one_that_is_over() {
        assert_eq!(decide(&Lease::default(), &bid("a", None), 50), Some(lease(1, "a", 150)));
        let held = lease(1, "a", 150);
        assert_eq!(decide(&held, &bid("b", None), 149), None);
        assert_eq!(decide(&held, &bid("b", None), 150), Some(lease(2, "b", 250)));
        let knows = Bid { dead: Some("a".into()), ..bid("b", None) };
        assert_eq!(decide(&held, &knows, 60), Some(lease(2, "b", 160)), "the dead do nothing");
        assert_eq!(decide(&lease(3, "c", 150), &knows, 60), None, "another one is not dead");
        let moved = Bid { floor: 7, ..bid("b", None) };
        assert_eq!(decide(&Lease::default(), &moved, 0), Some(lease(8, "b", 100)), "another store had terms up to 7");
    }

    #[test]
    fn only_who_has_the_newest_term_renews() {
        let held = lease(2, "b", 250);
        assert_eq!(decide(&held, &bid("b", Some(2)), 200), Some(lease(2, "b", 300)));
        assert_eq!(decide(&held, &bid("b", Some(2)), 900), Some(lease(2, "b", 1_000)), "nobody took it meanwhile");
        assert_eq!(decide(&held, &bid("a", Some(1)), 900), None, "a former holder, however late it is");
        assert_eq!(decide(&held, &bid("a", Some(2)), 900), None);
        assert_eq!(decide(&held, &bid("b", Some(1)), 200), None);
        assert_eq!(decide(&held, &bid("b", None), 200), Some(lease(3, "b", 300)), "its first answer was lost");
    }

    #[test]
    fn what_is_given_back_is_free_at_once() {
        let back = decide(&lease(2, "b", 250), &Bid { lease_ms: 0, ..bid("b", Some(2)) }, 200).unwrap();
        assert_eq!(back, lease(2, "b", 200));
        assert_eq!(decide(&back, &bid("a", None), 200), Some(lease(3, "a", 300)));
    }

    proptest! {
        /// Whatever is asked in whatever order: a term has one holder, and who holds has stopped before another begins.
        #[test]
        fn two_holders_never_act_at_one_time(asks in prop::collection::vec((0usize..3, 0u64..60, 0u64..40, any::<bool>()), 1..80)) {
            const LEASE: u64 = 100;
            let (mut now, mut stored) = (0u64, Lease::default());
            let mut tenures: [Option<Tenure>; 3] = [None; 3];
            let mut holders = std::collections::BTreeMap::new();
            for (who, pause, travel, lost) in asks {
                now += pause;
                let asked = now;
                now += travel;
                let name = format!("e{who}");
                let term = tenures[who].map(|t| t.term);
                match decide(&stored, &Bid { holder: name.clone(), term, lease_ms: LEASE, ..Bid::default() }, now) {
                    Some(next) => {
                        prop_assert!(next.term >= stored.term);
                        prop_assert_eq!(holders.entry(next.term).or_insert_with(|| name.clone()), &name);
                        tenures[who] = (!lost).then(|| Tenure::granted(next.term, asked, LEASE));
                        stored = next;
                    }
                    None => tenures[who] = None,
                }
                let acting = tenures.iter().flatten().filter(|t| t.holds(now)).count();
                prop_assert!(acting <= 1, "{:?} at {}", tenures, now);
            }
        }
    }
}
