//! Permits as they were decided, for asks that come again while no clause begins or ends to hold.

use crate::ask::{Ask, Decision};
use crate::time::UTC_MS_MAX;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// Permits that one set remembers; a newer one takes the place of one with the same slot.
const SLOTS: usize = 64;

/// What was asked, in which span of time, and what was said.
struct Known {
    ask: Ask,
    span: usize,
    decision: Decision,
}

/// Remembered permits of one set of agreements. What else a decision depends on than the ask stays the same for as long
/// as the set lives: agreements never change, a newer version makes another set.
pub(crate) struct Memo {
    /// Times at which a clause begins or ends to hold, ascending.
    edges: Vec<u64>,
    slots: Mutex<Vec<Option<Box<Known>>>>,
    hasher: RandomState,
}

impl Memo {
    /// An empty one for clauses that begin or end at these times, ascending.
    pub(crate) fn new(edges: Vec<u64>) -> Self {
        Self { edges, slots: Mutex::default(), hasher: RandomState::new() }
    }

    /// The decision on an ask: as it was decided before, or as `decide` decides it now.
    pub(crate) fn decision(&self, ask: &Ask, decide: impl FnOnce() -> Decision) -> Decision {
        // A time that no ask may have is left to the decision.
        if ask.at_ms == 0 || ask.at_ms > UTC_MS_MAX {
            return decide();
        }
        let span = self.edges.partition_point(|e| *e <= ask.at_ms);
        let slot = self.slot(ask, span);
        {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let known = slots.get(slot).and_then(Option::as_ref);
            if let Some(known) = known.filter(|k| k.span == span && alike(&k.ask, ask)) {
                return known.decision.clone();
            }
        }
        let decision = decide();
        if matches!(decision, Decision::Permit(_)) {
            let known = Box::new(Known { ask: ask.clone(), span, decision: decision.clone() });
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.resize_with(SLOTS, || None);
            slots[slot] = Some(known);
        }
        decision
    }

    fn slot(&self, ask: &Ask, span: usize) -> usize {
        let mut hasher = self.hasher.build_hasher();
        (ask.action as u8, ask.break_glass, span).hash(&mut hasher);
        (&ask.purpose, &ask.case, &ask.clause).hash(&mut hasher);
        // Alike asks have the same roles; those of other agencies' people differ seldom.
        ask.roles.first().hash(&mut hasher);
        (hasher.finish() % SLOTS as u64) as usize
    }
}

/// Whether two asks differ in nothing but their time.
fn alike(a: &Ask, b: &Ask) -> bool {
    let Ask { consumer, roles, action, break_glass, purpose, agreement, clause, case, at_ms: _ } = a;
    *action == b.action
        && *break_glass == b.break_glass
        && *case == b.case
        && *purpose == b.purpose
        && *clause == b.clause
        && *agreement == b.agreement
        && *consumer == b.consumer
        && *roles == b.roles
}
