//! The write path with crashes, lost and repeated answers, revocations: a small world around the shipped step.
#![allow(clippy::unwrap_used)]

use super::super::tests::{call, standing, words};
use super::*;
use crate::step::Kept;
use concordat_protocol::ops::Tags;
use concordat_protocol::terms::Status;
use std::collections::VecDeque;

const HANDLE: u64 = 7;

fn intent(n: u64) -> Prepared {
    let op = Op::Intent { handle: HANDLE, session: 1, n, day: 1, tags: Tags::none(), commitment: [n as u8; 32] };
    Prepared { op_hash: op.hash(), op, handle: HANDLE, denied: None, mode: Mode::Write }
}

fn entry_of(op: &Op, height: u64, verdict: Verdict, code: u16) -> LogEntry {
    let (writer, op_hash) = ("police/executor".into(), op.hash());
    LogEntry { height, tick_ms: 10 * height, writer, incarnation: 1, seq: 1, op_hash, verdict, code }
}

fn frame(height: u64, entries: Vec<(u64, LogEntry)>) -> Input {
    Input::Frame { height, tick_ms: 10 * height, entries }
}

/// A step with call 1 recorded as a write.
fn recorded() -> (Step, Prepared) {
    let (mut s, p) = (Step::default(), intent(1));
    s.step(standing(Status::Active), 0);
    s.step(frame(1, vec![]), 0);
    s.step(Input::Call { call: call(1, 1), reply: 10 }, 0);
    s.step(Input::Prepared { key: (1, 1), result: Ok(p.clone()) }, 0);
    assert_eq!(words(&s.step(Input::Stored { keys: vec![(1, 1)] }, 0)), ["record"]);
    (s, p)
}

#[test]
fn a_write_is_applied_after_its_intent_and_answered_after_its_outcome() {
    let (mut s, p) = recorded();
    assert!(s.step(Input::Applied { key: (1, 1), fate: Some(Fate::Done) }, 0).is_empty(), "nobody asked for it");
    assert_eq!(words(&s.step(frame(2, vec![(41, entry_of(&p.op, 2, Verdict::Accepted, 0))]), 1)), ["mark-accepted"]);
    assert!(s.step(Input::Applied { key: (1, 1), fate: Some(Fate::Done) }, 1).is_empty(), "not before the mark");
    assert_eq!(words(&s.step(Input::Marked { keys: vec![(1, 1)] }, 1)), ["apply"]);
    assert!(s.step(Input::Call { call: call(1, 1), reply: 11 }, 1).is_empty(), "the same request waits with the first");
    let settle = s.step(Input::Applied { key: (1, 1), fate: Some(Fate::Done) }, 2);
    assert!(matches!(settle[..], [Effect::Settle { index: 41, conclusion: Conclusion::Applied, .. }]));
    let outcome = Op::Outcome { reference: 41, commitment: [9; 32] };
    assert_eq!(words(&s.step(Input::Settled { key: (1, 1), op: outcome.clone() }, 2)), ["record"]);
    let ended = s.step(frame(3, vec![(42, entry_of(&outcome, 3, Verdict::Accepted, 0))]), 3);
    assert!(matches!(ended[..], [Effect::MarkWritten { index: 42, height: 3, .. }]));
    let released = s.step(Input::Marked { keys: vec![(1, 1)] }, 3);
    assert!(matches!(&released[0], Effect::Release { replies, .. } if *replies == [10, 11]));
    assert_eq!(words(&s.step(Input::Call { call: call(1, 1), reply: 12 }, 4)), ["repeat"]);
}

#[test]
fn a_refused_intent_applies_nothing() {
    let (mut s, p) = recorded();
    let effects = s.step(frame(2, vec![(41, entry_of(&p.op, 2, Verdict::Refused, codes::QUOTA))]), 1);
    assert_eq!(words(&effects), ["mark-closed", "deny", "forget"]);
    assert!(s.step(Input::Marked { keys: vec![(1, 1)] }, 1).is_empty());
}

#[test]
fn revoked_between_commit_and_apply_it_is_forbidden_and_fails() {
    let (mut s, p) = recorded();
    s.step(frame(2, vec![(41, entry_of(&p.op, 2, Verdict::Accepted, 0))]), 1);
    s.step(standing(Status::Revoked), 1);
    assert_eq!(words(&s.step(Input::Marked { keys: vec![(1, 1)] }, 1)), ["void"]);
    let settle = s.step(Input::Applied { key: (1, 1), fate: Some(Fate::Void) }, 2);
    assert!(
        matches!(settle[..], [Effect::Settle { conclusion: Conclusion::Failed(code), .. }] if code == codes::REVOKED)
    );
    let outcome = Op::Outcome { reference: 41, commitment: [9; 32] };
    s.step(Input::Settled { key: (1, 1), op: outcome.clone() }, 2);
    s.step(frame(3, vec![(42, entry_of(&outcome, 3, Verdict::Accepted, 0))]), 3);
    let denied = s.step(Input::Marked { keys: vec![(1, 1)] }, 3);
    assert!(
        matches!(&denied[0], Effect::Deny { denied, .. } if denied.code == codes::REVOKED && denied.operation == Some(41))
    );
}

#[test]
fn while_the_node_is_lost_nothing_is_applied() {
    let (mut s, p) = recorded();
    s.step(frame(2, vec![(41, entry_of(&p.op, 2, Verdict::Accepted, 0))]), 1);
    s.step(Input::Lost, 1);
    assert!(s.step(Input::Marked { keys: vec![(1, 1)] }, 1).is_empty());
    assert_eq!(words(&s.step(frame(3, vec![]), 2)), ["apply"]);
    s.step(Input::Lost, 2);
    assert!(s.step(Input::Applied { key: (1, 1), fate: None }, 3).is_empty(), "the store did not say");
    assert_eq!(words(&s.step(frame(4, vec![]), 4)), ["apply"]);
}

/// What a process keeps on disk of a write.
#[derive(Clone)]
struct Row {
    request_hash: Hash,
    p: Prepared,
    reached: Reached,
    ended: bool,
    closed: bool,
}

/// Ledger, stores and writer around a step. What is volatile goes when the process is killed.
struct World {
    seed: u64,
    step: Step,
    inbox: VecDeque<Input>,
    rows: BTreeMap<Key, Row>,
    journal: Vec<Op>,
    log: Vec<(Op, LogEntry)>,
    /// Log entries by block, from height 1.
    blocks: Vec<Vec<(u64, LogEntry)>>,
    seen: usize,
    cursor: usize,
    active: bool,
    fates: BTreeMap<Hash, Fate>,
    changes: BTreeMap<Hash, u32>,
    acknowledged: BTreeSet<u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            seed: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            step: Step::default(),
            inbox: VecDeque::new(),
            rows: BTreeMap::new(),
            journal: vec![],
            log: vec![],
            blocks: vec![vec![]],
            seen: 0,
            cursor: 0,
            active: true,
            fates: BTreeMap::new(),
            changes: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
        };
        world.start();
        world
    }

    fn below(&mut self, n: u64) -> u64 {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        (self.seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }

    fn status(&self) -> Input {
        standing(if self.active { Status::Active } else { Status::Suspended })
    }

    /// A process begins with what the one before left on disk.
    fn start(&mut self) {
        self.inbox.clear();
        self.step = Step::default();
        let kept = |(key, r): (&Key, &Row)| Kept {
            key: *key,
            request_hash: r.request_hash,
            op_hash: r.p.op_hash,
            session_expires_ms: 1_000_000,
        };
        let stored = |r: &Row| matches!(r.reached, Reached::Stored) && !r.closed;
        let open = self.rows.iter().filter(|(_, r)| stored(r)).map(kept).collect();
        let settled = self.rows.iter().filter(|(_, r)| !stored(r)).map(kept).collect();
        self.step.step(Input::Restored { open, settled }, 0);
        let resumed = self.rows.iter().filter(|(_, r)| !r.ended && !r.closed).map(|(key, r)| Resumed {
            key: *key,
            request_hash: r.request_hash,
            op_hash: r.p.op_hash,
            session_expires_ms: 1_000_000,
            handle: HANDLE,
            reached: r.reached.clone(),
        });
        let writes = resumed.collect();
        self.step.step(Input::Resumed { writes }, 0);
        self.step.step(self.status(), 0);
        self.seen = self.cursor;
        while self.seen < self.blocks.len() {
            self.next_frame();
        }
        let on_their_way: BTreeSet<Hash> = self.journal.iter().map(Op::hash).collect();
        let known: BTreeSet<Hash> = self.log.iter().map(|(op, _)| op.hash()).collect();
        let gone = |r: &Row| !known.contains(&r.p.op_hash) && !on_their_way.contains(&r.p.op_hash);
        self.rows.retain(|_, r| !stored(r) || !gone(r));
        self.take(Input::CaughtUp { on_their_way });
    }

    fn next_frame(&mut self) {
        let Some(entries) = self.blocks.get(self.seen).cloned() else { return };
        self.seen += 1;
        let durable = self.take(frame(self.seen as u64, entries));
        if durable {
            self.cursor = self.seen - 1;
        }
    }

    /// Carries out what the step says; whether something of it was made durable.
    fn take(&mut self, input: Input) -> bool {
        let effects = self.step.step(input, 0);
        let mut durable = false;
        for effect in effects {
            match effect {
                Effect::Prepare { key } => {
                    self.inbox.push_back(Input::Prepared { key, result: Ok(intent(key.1)) });
                }
                Effect::Store { key } => {
                    let request_hash = call(key.1, 1).request_hash;
                    let row =
                        Row { request_hash, p: intent(key.1), reached: Reached::Stored, ended: false, closed: false };
                    self.rows.insert(key, row);
                    self.inbox.push_back(Input::Stored { keys: vec![key] });
                    durable = true;
                }
                Effect::Record { op, .. } => {
                    assert!(!self.log.iter().any(|(known, _)| *known == op), "recorded twice");
                    self.journal.push(op);
                }
                Effect::MarkAccepted { key, index, .. } => {
                    self.rows.get_mut(&key).unwrap().reached = Reached::Accepted { index };
                    self.inbox.push_back(Input::Marked { keys: vec![key] });
                    durable = true;
                }
                Effect::Apply { key } | Effect::Void { key } if self.below(5) == 0 => {
                    self.inbox.push_back(Input::Applied { key, fate: None });
                }
                Effect::Apply { key } => {
                    assert!(self.active, "applied although the step knows that it is suspended");
                    self.settle(key, true);
                }
                Effect::Void { key } => self.settle(key, false),
                Effect::Settle { key, index, conclusion } => {
                    let op = Op::Outcome { reference: index, commitment: [key.1 as u8; 32] };
                    self.rows.get_mut(&key).unwrap().reached = Reached::Concluded { index, conclusion, op: op.clone() };
                    self.inbox.push_back(Input::Settled { key, op });
                    durable = true;
                }
                Effect::MarkWritten { key, .. } => {
                    self.rows.get_mut(&key).unwrap().ended = true;
                    self.inbox.push_back(Input::Marked { keys: vec![key] });
                    durable = true;
                }
                Effect::MarkClosed { key, .. } => {
                    self.rows.get_mut(&key).unwrap().closed = true;
                    durable = true;
                }
                Effect::Release { key, .. } => {
                    self.acknowledged.insert(key.1);
                }
                Effect::Withhold { .. } | Effect::MarkReleased { .. } => panic!("a write is no release"),
                _ => {}
            }
        }
        durable
    }

    /// The store of records, which carries each id out once.
    fn settle(&mut self, key: Key, apply: bool) {
        let id = intent(key.1).op_hash;
        let accepted = |(op, e): &(Op, LogEntry)| op.hash() == id && e.verdict == Verdict::Accepted;
        assert!(self.log.iter().any(accepted), "touched without an accepted intent");
        let fate = *self.fates.entry(id).or_insert(if apply { Fate::Done } else { Fate::Void });
        if apply && fate == Fate::Done && !self.changes.contains_key(&id) {
            self.changes.insert(id, 1);
        }
        // The answer may be lost with the process, or say nothing.
        let fate = if self.below(4) == 0 { None } else { Some(fate) };
        self.inbox.push_back(Input::Applied { key, fate });
    }

    fn commit(&mut self) {
        let height = self.blocks.len() as u64 + 1;
        let take = self.below(3) as usize;
        let ops: Vec<Op> = self.journal.drain(..take.min(self.journal.len())).collect();
        let mut block = vec![];
        for op in ops {
            let accepted = self.active || matches!(op, Op::Outcome { .. });
            let (verdict, code) = if accepted { (Verdict::Accepted, 0) } else { (Verdict::Refused, codes::SUSPENDED) };
            let e = entry_of(&op, height, verdict, code);
            self.log.push((op, e.clone()));
            block.push((self.log.len() as u64, e));
        }
        self.blocks.push(block);
    }

    fn act(&mut self, calls: u64) {
        match self.below(12) {
            0 => {
                let n = 1 + self.below(calls);
                self.take(Input::Call { call: call(n, 1), reply: n });
            }
            1 | 2 => self.commit(),
            3 | 4 => self.next_frame(),
            5 if self.below(6) == 0 => self.start(),
            6 if self.below(4) == 0 => {
                self.active = !self.active;
                let status = self.status();
                self.take(status);
            }
            7 => {
                self.take(Input::Lost);
            }
            8 => {
                // An answer comes twice.
                if let Some(input) = self.inbox.front().cloned() {
                    self.take(input);
                }
            }
            _ => {
                if let Some(input) = self.inbox.pop_front() {
                    self.take(input);
                }
            }
        }
    }

    fn end(&mut self) {
        self.active = true;
        let status = self.status();
        self.take(status);
        for _ in 0..2_000 {
            while let Some(input) = self.inbox.pop_front() {
                self.take(input);
            }
            self.commit();
            self.next_frame();
        }
    }

    fn check(&self) {
        for (index, (op, e)) in self.log.iter().enumerate() {
            let Op::Intent { n, .. } = op else { continue };
            let reference = index as u64 + 1;
            let outcomes =
                self.log.iter().filter(|(o, _)| matches!(o, Op::Outcome { reference: r, .. } if *r == reference));
            let changes = self.changes.get(&op.hash()).copied().unwrap_or_default();
            if e.verdict != Verdict::Accepted {
                assert_eq!((outcomes.count(), changes), (0, 0));
                continue;
            }
            assert_eq!(outcomes.count(), 1, "each accepted intent has one outcome");
            let row = &self.rows[&(1, *n)];
            let Reached::Concluded { conclusion, .. } = row.reached else { panic!("write {n} is not concluded") };
            assert!(row.ended);
            assert_eq!(conclusion == Conclusion::Applied, changes == 1, "the outcome is true");
        }
        for n in &self.acknowledged {
            assert_eq!(self.changes.get(&intent(*n).op_hash), Some(&1), "acknowledged and not done");
        }
    }
}

#[test]
fn whatever_happens_each_accepted_write_ends_once_and_its_outcome_is_true() {
    let (mut done, mut failed, mut refused) = (0, 0, 0);
    for seed in 1..=400 {
        let mut world = World::new(seed);
        for _ in 0..250 {
            world.act(5);
        }
        world.end();
        world.check();
        done += world.changes.len();
        failed += world.fates.values().filter(|f| **f == Fate::Void).count();
        refused += world.log.iter().filter(|(_, e)| e.verdict != Verdict::Accepted).count();
    }
    assert!(done > 500 && failed > 20 && refused > 100, "{done} done, {failed} failed, {refused} refused");
}
