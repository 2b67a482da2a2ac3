//! Bounded evidence in the step: what is released before its record, and what must be recorded whatever happens.
//!
//! ```text
//! Call -> Prepare -> Prepared -> Store -> Stored -> Record + Promise -> (ledger) -> Frame -> MarkReleased
//! ```
//!
//! From the durable store on the bytes may have left: after a restart the operation is recorded, never dropped.

use super::{Effect, Kept, Key, Open, Phase, Prepared, Reason, Step, refuse};
use concordat_protocol::codes;

impl Step {
    /// Ledger time now: the newest tick and the monotonic time since it came, milliseconds.
    pub fn clock_ms(&self, now_ms: u64) -> Option<u64> {
        self.head.map(|h| h.tick_ms.saturating_add(now_ms.saturating_sub(h.seen_ms)))
    }

    /// Releases that were promised and are not on the ledger.
    pub fn open_promises(&self) -> usize {
        self.promises.len()
    }

    /// Why nothing of this handle may be released before its record now, if anything.
    pub fn barred_bounded(&self, handle: u64, now_ms: u64) -> Option<Reason> {
        let clock = self.clock_ms(now_ms).filter(|_| self.fresh_head(now_ms).is_some());
        let Some(clock) = clock else { return Some(Reason::StaleLedger) };
        if let Some(code) = self.barred(handle, now_ms) {
            return Some(Reason::Ledger(code));
        }
        if self.standings.get(&handle).is_none_or(|s| s.bounded_suspended) {
            return Some(Reason::Ledger(codes::BOUNDED_SUSPENDED));
        }
        // A promise that is not kept ends all further ones; so does one of a former process until it is on the ledger.
        self.promises.values().any(|due_ms| *due_ms <= clock).then_some(Reason::Unrecorded)
    }

    /// The response and its operation are durable: the operation goes to the ledger and the response to the consumer.
    pub(super) fn release_promised(&mut self, key: Key, prepared: Prepared, due_ms: u64, now_ms: u64) -> Vec<Effect> {
        let barred = self.barred_bounded(prepared.handle, now_ms);
        let Some(open) = self.calls.get_mut(&key) else { return vec![] };
        let replies = core::mem::take(&mut open.replies);
        if let Some(reason) = barred {
            // Nothing left, so nothing is recorded; a crash before this is durable records it all the same.
            open.phase = Phase::Settled;
            self.by_op.remove(&prepared.op_hash);
            let denied = refuse(reason);
            return vec![
                Effect::MarkClosed { key, index: 0 },
                Effect::Deny { replies, denied },
                Effect::Forget { key },
            ];
        }
        open.phase = Phase::Promised;
        self.promises.insert(key, due_ms);
        let op = prepared.op;
        vec![Effect::Record { key, op }, Effect::Promise { key, replies }, Effect::Forget { key }]
    }

    /// Releases of a former process: their bytes may have left, so their entries are waited for.
    pub(super) fn restore_promised(&mut self, kept: Vec<Kept>) {
        for k in kept {
            self.note(k.key, k.session_expires_ms);
            self.by_op.insert(k.op_hash, k.key);
            self.promises.insert(k.key, 0);
            self.calls.insert(k.key, Open { request_hash: k.request_hash, replies: vec![], phase: Phase::Promised });
        }
    }
}

#[cfg(test)]
#[path = "bounded_tests.rs"]
mod tests;
