//! The executor's strict path as a pure step: input and state give effects (PROTOCOL 5).
//!
//! The step decides *when*: a response is stored before its operation is recorded, recorded before it is marked released,
//! marked durably before its first byte leaves. The shell does what the effects say and reports back. Time is passed in
//! as monotonic milliseconds, ledger time comes with frames.
//!
//! ```text
//! Call -> Prepare -> Prepared -> Store -> Stored -> Record -> (ledger) -> Frame -> MarkReleased -> Marked -> Reply
//!                                                                            \-> Withhold (revoked, late, restart)
//! ```

mod bounded;
mod denials;
mod refusal;
mod types;
mod writing;

pub use denials::Denials;
pub use refusal::{Reason, refuse};
pub use types::{Call, Effect, Input, Kept, Key, Mode, Prepared, ReplyTo, Standing};
pub use writing::{Conclusion, Reached, Resumed, failed};

use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::hash::Hash;
use concordat_protocol::limits::{HEAD_STALE_MS, RELEASE_WITHIN_MS, SESSION_WINDOW};
use concordat_protocol::ops::LogEntry;
use concordat_protocol::session::Denied;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
enum Phase {
    Preparing,
    Storing(Prepared),
    Recording(Prepared),
    /// Released under a promise; the ledger has not said yet.
    Promised,
    /// Recorded before a restart: nobody may get it any more.
    Orphan,
    Marking,
    /// A write whose intent was accepted, or recorded by a former process.
    Writing(writing::Writing),
    /// Released, refused, denied or withheld: the store knows.
    Settled,
}

#[derive(Debug)]
struct Open {
    request_hash: Hash,
    replies: Vec<ReplyTo>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    height: u64,
    tick_ms: u64,
    seen_ms: u64,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, Default)]
struct Session {
    newest_n: u64,
    expires_ms: u64,
}

/// State of the executor's strict path.
#[derive(Debug, Default)]
pub struct Step {
    head: Option<Head>,
    lost_since_ms: Option<u64>,
    standings: BTreeMap<u64, Standing>,
    calls: BTreeMap<Key, Open>,
    by_op: BTreeMap<Hash, Key>,
    sessions: BTreeMap<u64, Session>,
    denials: Denials,
    writes: writing::Writes,
    /// Operations whose acceptance releases nothing, and why: of the frame that comes next.
    forbidden: BTreeMap<Hash, u16>,
    /// Releases that were promised and are not on the ledger, with the ledger time by which they are due.
    promises: BTreeMap<Key, u64>,
}

impl Step {
    /// Tick of the newest block, none before the first frame.
    pub fn tick_ms(&self) -> Option<u64> {
        self.head.map(|h| h.tick_ms)
    }

    /// Newest height seen.
    pub fn height(&self) -> u64 {
        self.head.map_or(0, |h| h.height)
    }

    /// Calls that are not settled.
    pub fn open_calls(&self) -> usize {
        self.calls.values().filter(|c| !matches!(c.phase, Phase::Settled)).count()
    }

    /// One step. `now_ms` is monotonic.
    pub fn step(&mut self, input: Input, now_ms: u64) -> Vec<Effect> {
        match input {
            Input::Call { call, reply } => self.call(call, reply, now_ms),
            Input::Prepared { key, result } => self.prepared(key, result, now_ms),
            Input::Stored { keys } => keys.into_iter().flat_map(|k| self.stored(k, now_ms)).collect(),
            Input::Agreements { standings } => {
                self.standings = standings;
                vec![]
            }
            Input::Frame { height, tick_ms, entries } => self.frame(height, tick_ms, &entries, now_ms),
            Input::Forbidden { op_hash, code } => {
                self.forbidden.insert(op_hash, code);
                vec![]
            }
            Input::Lost => {
                self.lost_since_ms.get_or_insert(now_ms);
                vec![]
            }
            Input::Marked { keys } => keys.into_iter().flat_map(|k| self.marked(k, now_ms)).collect(),
            Input::Resumed { .. } | Input::CaughtUp { .. } | Input::Applied { .. } | Input::Settled { .. } => {
                self.write_input(input, now_ms)
            }
            Input::Restored { open, settled } => {
                self.restore(open, settled);
                vec![]
            }
            Input::RestoredPromises { kept } => {
                self.restore_promised(kept);
                vec![]
            }
        }
    }

    fn restore(&mut self, open: Vec<Kept>, settled: Vec<Kept>) {
        for kept in &open {
            self.by_op.insert(kept.op_hash, kept.key);
        }
        let phases = [(open, true), (settled, false)];
        for (kept, orphan) in phases.into_iter().flat_map(|(list, orphan)| list.into_iter().map(move |k| (k, orphan))) {
            self.note(kept.key, kept.session_expires_ms);
            let phase = if orphan { Phase::Orphan } else { Phase::Settled };
            self.calls.insert(kept.key, Open { request_hash: kept.request_hash, replies: vec![], phase });
        }
    }

    fn note(&mut self, (session, n): Key, expires_ms: u64) {
        let known = self.sessions.entry(session).or_default();
        known.newest_n = known.newest_n.max(n);
        known.expires_ms = expires_ms;
    }

    fn call(&mut self, call: Call, reply: ReplyTo, now_ms: u64) -> Vec<Effect> {
        let deny = |reason| vec![Effect::Deny { replies: vec![reply], denied: refuse(reason) }];
        let key = (call.request.session, call.request.n);
        let Some(head) = self.fresh_head(now_ms) else { return deny(Reason::StaleLedger) };
        if call.session_expires_ms <= head.tick_ms {
            return deny(Reason::SessionExpired);
        }
        if let Some(known) = self.calls.get_mut(&key) {
            return match known.phase {
                _ if known.request_hash != call.request_hash => deny(Reason::Replay),
                Phase::Orphan => deny(Reason::Withheld),
                Phase::Settled | Phase::Promised => vec![Effect::Repeat { key, reply }],
                _ => {
                    known.replies.push(reply);
                    vec![]
                }
            };
        }
        if call.request.not_after_ms < head.tick_ms {
            return deny(Reason::RequestExpired);
        }
        let newest = self.sessions.get(&key.0).map_or(0, |s| s.newest_n);
        if key.1 == 0 || key.1 + SESSION_WINDOW <= newest {
            return deny(Reason::SessionWindow);
        }
        self.note(key, call.session_expires_ms);
        let open = Open { request_hash: call.request_hash, replies: vec![reply], phase: Phase::Preparing };
        self.calls.insert(key, open);
        vec![Effect::Prepare { key }]
    }

    fn prepared(&mut self, key: Key, result: Result<Prepared, Denied>, now_ms: u64) -> Vec<Effect> {
        let barred = match &result {
            Ok(Prepared { mode: Mode::Bounded { .. }, denied: None, handle, .. }) => {
                self.barred_bounded(*handle, now_ms)
            }
            _ => None,
        };
        let Some(open) = self.calls.get_mut(&key) else { return vec![] };
        if !matches!(open.phase, Phase::Preparing) {
            return vec![];
        }
        let unrecorded = match result {
            Err(denied) => denied,
            Ok(_) if barred.is_some() => refuse(barred.unwrap_or(Reason::StaleLedger)),
            Ok(prepared) => match &prepared.denied {
                Some(denied) if !self.denials.record_one(key.0, &denied.reason, now_ms) => denied.clone(),
                _ => {
                    self.by_op.insert(prepared.op_hash, key);
                    open.phase = Phase::Storing(prepared);
                    return vec![Effect::Store { key }];
                }
            },
        };
        // Nothing of this request reaches the ledger, so its number stays free for an honest second attempt.
        let replies = core::mem::take(&mut open.replies);
        self.calls.remove(&key);
        vec![Effect::Deny { replies, denied: unrecorded }, Effect::Forget { key }]
    }

    fn stored(&mut self, key: Key, now_ms: u64) -> Vec<Effect> {
        let Some(open) = self.calls.get_mut(&key) else { return vec![] };
        match core::mem::replace(&mut open.phase, Phase::Preparing) {
            Phase::Storing(prepared) => match prepared.mode {
                Mode::Bounded { due_ms } if prepared.denied.is_none() => {
                    self.release_promised(key, prepared, due_ms, now_ms)
                }
                _ => {
                    let op = prepared.op.clone();
                    open.phase = Phase::Recording(prepared);
                    vec![Effect::Record { key, op }]
                }
            },
            other => {
                open.phase = other;
                vec![]
            }
        }
    }

    fn frame(&mut self, height: u64, tick_ms: u64, entries: &[(u64, LogEntry)], now_ms: u64) -> Vec<Effect> {
        self.head = Some(Head { height, tick_ms, seen_ms: now_ms });
        let effects = entries.iter().flat_map(|(index, entry)| self.entry(*index, entry, now_ms));
        let mut effects: Vec<Effect> = effects.collect();
        self.forbidden.clear();
        self.lost_since_ms = None;
        effects.extend(self.wake(now_ms));
        effects
    }

    /// The newest state forbids a release of this handle, with the code that says why.
    fn barred(&self, handle: u64, now_ms: u64) -> Option<u16> {
        let tick = self.head.map_or(0, |h| h.tick_ms);
        let code = self.standings.get(&handle).map_or(codes::NO_AGREEMENT, |s| s.code_at(tick));
        // After a loss the moment of the commit is not known: the loss began before it, so it counts from there.
        let late = self.lost_since_ms.is_some_and(|since| now_ms.saturating_sub(since) > RELEASE_WITHIN_MS);
        if code != codes::OK { Some(code) } else { late.then_some(codes::BUSY) }
    }

    /// The head, if the node is followed and its newest block is young enough to decide on.
    fn fresh_head(&self, now_ms: u64) -> Option<Head> {
        self.head.filter(|h| self.lost_since_ms.is_none() && now_ms.saturating_sub(h.seen_ms) <= HEAD_STALE_MS)
    }

    /// The code that forbids handing out a stored response of this handle now, if any.
    pub fn barred_now(&self, handle: u64, now_ms: u64) -> Option<u16> {
        if self.fresh_head(now_ms).is_none() { Some(codes::BUSY) } else { self.barred(handle, now_ms) }
    }

    /// Denials of minutes that are over and got no entry of their own: (session, reason, how many).
    pub fn counted_denials(&mut self, now_ms: u64) -> Vec<(u64, String, u64)> {
        self.denials.close(now_ms)
    }

    fn entry(&mut self, index: u64, entry: &LogEntry, now_ms: u64) -> Vec<Effect> {
        if let Some(effects) = self.write_entry(index, entry) {
            return effects;
        }
        let Some(key) = self.by_op.remove(&entry.op_hash) else { return vec![] };
        let Some(open) = self.calls.get_mut(&key) else { return vec![] };
        let phase = core::mem::replace(&mut open.phase, Phase::Settled);
        let replies = core::mem::take(&mut open.replies);
        let accepted = entry.verdict == Verdict::Accepted;
        match phase {
            Phase::Recording(Prepared { denied: Some(mut denied), .. }) => {
                denied.operation = Some(index);
                vec![Effect::MarkClosed { key, index }, Effect::Deny { replies, denied }, Effect::Forget { key }]
            }
            Phase::Recording(prepared) if accepted => {
                match self.barred(prepared.handle, now_ms).or_else(|| self.forbidden.remove(&entry.op_hash)) {
                    None => {
                        if let Some(open) = self.calls.get_mut(&key) {
                            (open.phase, open.replies) = (Phase::Marking, replies);
                        }
                        vec![Effect::MarkReleased { key, index, height: entry.height }]
                    }
                    Some(code) => {
                        let mut denied = refuse(Reason::Ledger(code));
                        denied.operation = Some(index);
                        vec![Effect::Withhold { key, index }, Effect::Deny { replies, denied }, Effect::Forget { key }]
                    }
                }
            }
            Phase::Recording(_) => {
                let mut denied = refuse(Reason::Ledger(entry.code));
                denied.operation = Some(index);
                vec![Effect::MarkClosed { key, index }, Effect::Deny { replies, denied }, Effect::Forget { key }]
            }
            Phase::Promised => {
                // Whatever the ledger says of it, the data left.
                self.promises.remove(&key);
                vec![Effect::MarkReleased { key, index, height: entry.height }]
            }
            Phase::Orphan if accepted => vec![Effect::Withhold { key, index }],
            _ => vec![Effect::MarkClosed { key, index }],
        }
    }

    fn marked(&mut self, key: Key, now_ms: u64) -> Vec<Effect> {
        if let Some(effects) = self.write_marked(key, now_ms) {
            return effects;
        }
        let Some(open) = self.calls.get_mut(&key) else { return vec![] };
        if !matches!(open.phase, Phase::Marking) {
            return vec![];
        }
        open.phase = Phase::Settled;
        let replies = core::mem::take(&mut open.replies);
        vec![Effect::Release { key, replies }, Effect::Forget { key }]
    }

    /// Forgets settled calls of sessions that are over, so that memory stays bounded: a request of such a session is
    /// refused before anything else is looked at.
    pub fn sweep(&mut self) {
        let Some(tick) = self.tick_ms() else { return };
        let over: BTreeSet<u64> =
            self.sessions.iter().filter(|(_, s)| s.expires_ms <= tick).map(|(id, _)| *id).collect();
        self.calls.retain(|(session, _), open| !over.contains(session) || !matches!(open.phase, Phase::Settled));
        self.sessions.retain(|session, _| !over.contains(session));
    }
}

#[cfg(test)]
mod tests;
