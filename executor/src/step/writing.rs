//! Writes: applied after the ledger accepted their intent, answered after it accepted their outcome.
//!
//! ```text
//! Record (intent) -> accepted -> MarkAccepted -> Apply -> Applied -> Settle -> Record (outcome) -> MarkWritten -> Release
//!                                           \-> Void (revoked meanwhile) ------^
//! ```
//! Each mark is durable before what follows it, and the store of records carries out each id once. So after a restart the
//! write goes on from its mark: what was applied is found to be, what was not is applied now or never.

use super::{Effect, Input, Key, Mode, Open, Phase, Prepared, Reason, ReplyTo, Step, refuse};
use crate::holding::Fate;
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::hash::Hash;
use concordat_protocol::ops::{LogEntry, Op};
use std::collections::{BTreeMap, BTreeSet};

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// The record is as the writer wanted it.
    Applied,
    /// Nothing was changed, for the reason of this code.
    Failed(u16),
}

/// How far a write of a former process came.
#[derive(Debug, Clone)]
pub enum Reached {
    /// Its intent is stored and may be on the ledger.
    Stored,
    /// Its intent was accepted.
    Accepted {
        /// Global index of the intent.
        index: u64,
    },
    /// Its outcome is stored and may be on the ledger.
    Concluded {
        /// Global index of the intent.
        index: u64,
        /// The outcome.
        conclusion: Conclusion,
        /// The outcome's operation.
        op: Op,
    },
}

/// A write of a former process.
#[derive(Debug, Clone)]
pub struct Resumed {
    /// Which.
    pub key: Key,
    /// Hash of the request.
    pub request_hash: Hash,
    /// Hash of the intent.
    pub op_hash: Hash,
    /// When the session is over, tick milliseconds.
    pub session_expires_ms: u64,
    /// Handle of the clause.
    pub handle: u64,
    /// How far it came.
    pub reached: Reached,
}

/// A write on its way.
#[derive(Debug)]
pub(super) struct Writing {
    handle: u64,
    index: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Recorded by a former process; the ledger has not said.
    Recorded,
    /// Accepted, and the mark is on its way to the release store.
    Accepting,
    /// Marked as accepted, until the ledger is followed again.
    Waiting,
    /// The store of records is at work.
    Applying,
    /// It may not be done any more; the store of records is told so.
    Voiding(u16),
    /// The outcome is on its way to the release store.
    Settling(Conclusion),
    /// The outcome is on its way to the ledger.
    Concluding(Conclusion, Op),
    /// The end is on its way to the release store.
    Ending(Conclusion),
}

/// What the step knows of writes beside their calls.
#[derive(Debug, Default)]
pub(super) struct Writes {
    by_outcome: BTreeMap<Hash, Key>,
    waiting: BTreeSet<Key>,
    /// Until everything that the ledger had at the start was seen, nothing is applied.
    catching_up: bool,
}

impl Step {
    pub(super) fn write_input(&mut self, input: Input, now_ms: u64) -> Vec<Effect> {
        match input {
            Input::Resumed { writes } => {
                self.resume(writes);
                vec![]
            }
            Input::CaughtUp { on_their_way } => self.caught_up(&on_their_way, now_ms),
            Input::Applied { key, fate } => self.applied(key, fate, now_ms),
            Input::Settled { key, op } => self.settled(key, op),
            _ => vec![],
        }
    }

    fn resume(&mut self, writes: Vec<Resumed>) {
        self.writes.catching_up = true;
        for w in writes {
            self.note(w.key, w.session_expires_ms);
            let (index, stage) = match w.reached {
                Reached::Stored => {
                    self.by_op.insert(w.op_hash, w.key);
                    (0, Stage::Recorded)
                }
                Reached::Accepted { index } => {
                    self.writes.waiting.insert(w.key);
                    (index, Stage::Waiting)
                }
                Reached::Concluded { index, conclusion, op } => {
                    self.writes.by_outcome.insert(op.hash(), w.key);
                    (index, Stage::Concluding(conclusion, op))
                }
            };
            let phase = Phase::Writing(Writing { handle: w.handle, index, stage });
            self.calls.insert(w.key, Open { request_hash: w.request_hash, replies: vec![], phase });
        }
    }

    /// What is neither on the ledger nor on its way never was (an intent), or is recorded again (an outcome).
    fn caught_up(&mut self, on_their_way: &BTreeSet<Hash>, now_ms: u64) -> Vec<Effect> {
        self.writes.catching_up = false;
        let recorded = |o: &Open| matches!(&o.phase, Phase::Writing(Writing { stage: Stage::Recorded, .. }));
        let (by_op, calls) = (&self.by_op, &self.calls);
        let gone =
            by_op.iter().filter(|(hash, key)| !on_their_way.contains(*hash) && calls.get(key).is_some_and(recorded));
        let gone: Vec<(Hash, Key)> = gone.map(|(hash, key)| (*hash, *key)).collect();
        for (hash, key) in gone {
            self.by_op.remove(&hash);
            self.calls.remove(&key);
        }
        let lost = self.writes.by_outcome.iter().filter(|(hash, _)| !on_their_way.contains(*hash));
        let again = lost.filter_map(|(_, key)| match &self.calls.get(key)?.phase {
            Phase::Writing(Writing { stage: Stage::Concluding(_, op), .. }) => {
                Some(Effect::Record { key: *key, op: op.clone() })
            }
            _ => None,
        });
        let mut effects: Vec<Effect> = again.collect();
        effects.extend(self.wake(now_ms));
        effects
    }

    /// Goes on with writes that waited for the ledger.
    pub(super) fn wake(&mut self, now_ms: u64) -> Vec<Effect> {
        let waiting: Vec<Key> = self.writes.waiting.iter().copied().collect();
        waiting.into_iter().filter_map(|key| self.go(key, now_ms)).collect()
    }

    /// Applies an accepted write, or has it forbidden where the newest state of the ledger bars it.
    fn go(&mut self, key: Key, now_ms: u64) -> Option<Effect> {
        let handle = self.writing(key)?.handle;
        let follows = !self.writes.catching_up && self.fresh_head(now_ms).is_some();
        let barred = self.barred(handle, now_ms);
        let (stage, effect) = match barred {
            _ if !follows => (Stage::Waiting, None),
            None => (Stage::Applying, Some(Effect::Apply { key })),
            Some(code) => (Stage::Voiding(code), Some(Effect::Void { key })),
        };
        if follows {
            self.writes.waiting.remove(&key);
        } else {
            self.writes.waiting.insert(key);
        }
        self.writing(key)?.stage = stage;
        effect
    }

    fn writing(&mut self, key: Key) -> Option<&mut Writing> {
        match &mut self.calls.get_mut(&key)?.phase {
            Phase::Writing(writing) => Some(writing),
            _ => None,
        }
    }

    /// An entry of an intent that was accepted, of an intent of a former process, or of an outcome; none of anything else.
    pub(super) fn write_entry(&mut self, index: u64, entry: &LogEntry) -> Option<Vec<Effect>> {
        if let Some(key) = self.writes.by_outcome.remove(&entry.op_hash) {
            let writing = self.writing(key)?;
            if let Stage::Concluding(conclusion, _) = writing.stage {
                writing.stage = Stage::Ending(conclusion);
                return Some(vec![Effect::MarkWritten { key, index, height: entry.height }]);
            }
            return Some(vec![]);
        }
        let key = *self.by_op.get(&entry.op_hash)?;
        let open = self.calls.get_mut(&key)?;
        let handle = match &open.phase {
            Phase::Recording(Prepared { mode: Mode::Write, denied: None, handle, .. }) => *handle,
            Phase::Writing(Writing { stage: Stage::Recorded, handle, .. }) => *handle,
            _ => return None,
        };
        self.by_op.remove(&entry.op_hash);
        if entry.verdict != Verdict::Accepted {
            let replies = core::mem::take(&mut open.replies);
            open.phase = Phase::Settled;
            let mut denied = refuse(Reason::Ledger(entry.code));
            denied.operation = Some(index);
            let closed = Effect::MarkClosed { key, index };
            return Some(vec![closed, Effect::Deny { replies, denied }, Effect::Forget { key }]);
        }
        open.phase = Phase::Writing(Writing { handle, index, stage: Stage::Accepting });
        Some(vec![Effect::MarkAccepted { key, index, height: entry.height }])
    }

    /// A mark of a write is durable; none where the call is no write.
    pub(super) fn write_marked(&mut self, key: Key, now_ms: u64) -> Option<Vec<Effect>> {
        let writing = self.writing(key)?;
        match writing.stage {
            Stage::Accepting => Some(self.go(key, now_ms).into_iter().collect()),
            Stage::Ending(conclusion) => {
                let index = writing.index;
                let open = self.calls.get_mut(&key)?;
                open.phase = Phase::Settled;
                let replies = core::mem::take(&mut open.replies);
                Some(vec![ended(key, index, conclusion, replies), Effect::Forget { key }])
            }
            _ => Some(vec![]),
        }
    }

    fn applied(&mut self, key: Key, fate: Option<Fate>, now_ms: u64) -> Vec<Effect> {
        let Some(writing) = self.writing(key) else { return vec![] };
        let conclusion = match (&writing.stage, fate) {
            (Stage::Applying | Stage::Voiding(_), Some(Fate::Done)) => Conclusion::Applied,
            (Stage::Applying, Some(Fate::Void)) => Conclusion::Failed(codes::RECORD_CONFLICT),
            (Stage::Voiding(code), Some(Fate::Void)) => Conclusion::Failed(*code),
            // The store did not say: it is asked again, about what the ledger says by then.
            (Stage::Applying, None) => return self.go(key, now_ms).into_iter().collect(),
            (Stage::Voiding(_), None) => return vec![Effect::Void { key }],
            _ => return vec![],
        };
        writing.stage = Stage::Settling(conclusion);
        vec![Effect::Settle { key, index: writing.index, conclusion }]
    }

    fn settled(&mut self, key: Key, op: Op) -> Vec<Effect> {
        let Some(writing) = self.writing(key) else { return vec![] };
        let Stage::Settling(conclusion) = writing.stage else { return vec![] };
        writing.stage = Stage::Concluding(conclusion, op.clone());
        self.writes.by_outcome.insert(op.hash(), key);
        vec![Effect::Record { key, op }]
    }
}

fn ended(key: Key, index: u64, conclusion: Conclusion, replies: Vec<ReplyTo>) -> Effect {
    match conclusion {
        Conclusion::Applied => Effect::Release { key, replies },
        Conclusion::Failed(code) => Effect::Deny { replies, denied: failed(index, code) },
    }
}

/// The answer to a write that was accepted and came to nothing.
#[must_use]
pub fn failed(index: u64, code: u16) -> concordat_protocol::session::Denied {
    let mut denied = match code {
        codes::RECORD_CONFLICT => crate::decide::denied(code, "conflict", codes::text(code)),
        other => refuse(Reason::Ledger(other)),
    };
    denied.operation = Some(index);
    denied
}

#[cfg(test)]
#[path = "writing_tests.rs"]
mod tests;
