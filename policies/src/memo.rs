//! Permits as they were decided, for asks that come again while no clause begins or ends to hold.

use crate::ask::{Ask, Decision, Grant};
use crate::duty::check_reference;
use crate::time::UTC_MS_MAX;
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
}

impl Memo {
    /// An empty one for clauses that begin or end at these times, ascending.
    pub(crate) fn new(edges: Vec<u64>) -> Self {
        Self { edges, slots: Mutex::default() }
    }

    /// The decision on an ask: as it was decided before, or as `decide` decides it now.
    pub(crate) fn decision(&self, ask: &Ask, decide: impl FnOnce() -> Decision) -> Decision {
        // A time that no ask may have is left to the decision.
        if ask.at_ms == 0 || ask.at_ms > UTC_MS_MAX {
            return decide();
        }
        let span = self.edges.partition_point(|e| *e <= ask.at_ms);
        let slot = slot(ask);
        {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let known = slots.get(slot).and_then(Option::as_ref);
            if let Some(known) = known.filter(|k| k.span == span && alike(&k.ask, ask) && k.covers(ask)) {
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
}

impl Known {
    /// Whether the permit holds with this ask's case reference too: every case is another one, and the clause that
    /// permits says alone what a reference must look like.
    fn covers(&self, ask: &Ask) -> bool {
        let fits = |grant: &Grant| check_reference(&grant.duties, ask.case.as_deref()).is_ok();
        self.ask.case == ask.case || self.decision.grant().is_some_and(fits)
    }
}

/// Where an ask's permit lies: few kinds of asks are made of one set, and a wrong guess only costs a decision.
fn slot(ask: &Ask) -> usize {
    // FNV-1a, 64 bits: asks of one set differ in few bytes, and nobody gains by a collision.
    let mut sum = 0xcbf2_9ce4_8422_2325_u64 ^ (ask.action as u64) << 1 ^ u64::from(ask.break_glass);
    let clause = ask.clause.as_deref().unwrap_or_default();
    for byte in ask.purpose.bytes().rev().take(12).chain(clause.bytes()) {
        sum = (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (sum >> 32) as usize % SLOTS
}

/// Whether two asks differ in nothing but their time and their case.
fn alike(a: &Ask, b: &Ask) -> bool {
    let Ask { consumer, roles, action, break_glass, purpose, agreement, clause, case: _, at_ms: _ } = a;
    *action == b.action
        && *break_glass == b.break_glass
        && *purpose == b.purpose
        && *clause == b.clause
        && *agreement == b.agreement
        && *consumer == b.consumer
        && *roles == b.roles
}
