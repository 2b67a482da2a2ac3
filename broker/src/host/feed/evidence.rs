//! `deliver` operations: what was delivered under a promise, anchored in time (pure).

use super::store::{Open, OpenOp};
use concordat_executor::policies::duty::Duty;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::leaves::{COMMITMENT_NAMES, LeafSet, LeavesError, Redacted, commitment as leaf};
use concordat_protocol::ops::{Op, Tags};
use concordat_protocol::tree;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Milliseconds of a UTC day.
pub(super) const DAY_MS: u64 = 86_400_000;

/// Under which clause a subscription delivers. Kept beside its deliveries: they are anchored even after its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clause {
    /// The subscription's number; in stores of the first version the handle.
    #[serde(default)]
    pub subscription: u64,
    /// The ledger's handle.
    pub handle: u64,
    /// The consumer.
    pub consumer: AgencyId,
    /// `AGR-2026-0143/F1`
    pub name: String,
    /// The purpose.
    pub purpose: String,
    /// Hash of the policy rows.
    pub rows_hash: Hash,
    /// The agreement's bound, milliseconds; 0 where nothing is promised and nothing anchored.
    pub max_lag_ms: u64,
    /// The dataset; empty in stores of the first version.
    #[serde(default)]
    pub dataset: String,
    /// The clause's sentence.
    #[serde(default)]
    pub sentence: String,
    /// For how long a person is told only that there was an access, milliseconds.
    #[serde(default)]
    pub seal_ms: u64,
}

/// For how long a clause's duties seal accesses, milliseconds.
pub fn seal_ms(duties: &[Duty]) -> u64 {
    concordat_executor::answer::open_by(duties, 0).unwrap_or_default()
}

impl Clause {
    /// Reads what a store kept.
    pub fn read(body: &str) -> Option<Self> {
        let mut clause: Self = serde_json::from_str(body).ok()?;
        if clause.subscription == 0 {
            clause.subscription = clause.handle;
        }
        Some(clause)
    }
}

/// The operation over deliveries in a row with all leaves of its commitment; none for an empty list.
pub fn deliver(
    clause: &Clause,
    open: &[Open],
    tick_ms: u64,
    tags: Tags,
    secret: &[u8; 32],
) -> Result<Option<(Op, Redacted)>, LeavesError> {
    let (Some(last), Some(oldest_ms)) = (open.last(), open.iter().map(|o| o.delivered_ms).min()) else {
        return Ok(None);
    };
    let roots: Vec<Hash> = open.iter().map(|o| tree::leaf_hash(&o.root)).collect();
    let root = tree::root(&roots);
    let messages: u64 = open.iter().map(|o| o.messages).sum();
    let open_by = (clause.seal_ms > 0).then(|| tick_ms.saturating_add(clause.seal_ms));
    let mut fields: BTreeMap<String, Vec<u8>> = COMMITMENT_NAMES.iter().map(|n| ((*n).to_owned(), vec![])).collect();
    for (name, value) in [
        (leaf::CONSUMER, clause.consumer.as_str().as_bytes().to_vec()),
        (leaf::CLAUSE, clause.name.clone().into_bytes()),
        (leaf::PURPOSE, clause.purpose.clone().into_bytes()),
        (leaf::ROWS_HASH, clause.rows_hash.to_vec()),
        (leaf::COUNT, messages.to_be_bytes().to_vec()),
        (leaf::CONTENT_ROOT, root.to_vec()),
        (leaf::EVIDENCE, b"bounded".to_vec()),
        (leaf::OPEN_BY, open_by.map(|ms| ms.to_be_bytes().to_vec()).unwrap_or_default()),
    ] {
        fields.insert(name.to_owned(), value);
    }
    let set = LeafSet::new(secret, fields)?;
    let commitment = set.root();
    let op = Op::Deliver {
        handle: clause.handle,
        subscription: clause.subscription,
        last_sub_seq: last.sub_seq,
        count: open.len() as u64,
        root,
        oldest_ms,
        day: tick_ms / DAY_MS,
        tags,
        commitment,
    };
    Ok(Some((op, set.redact(|_| true))))
}

/// Deliveries without an accepted operation, oldest first.
#[derive(Debug, Default)]
pub struct Unanchored {
    open: VecDeque<Open>,
}

impl Unanchored {
    /// What a former process left.
    pub fn restored(open: Vec<Open>) -> Self {
        Self { open: open.into() }
    }

    /// A delivery was kept.
    pub fn push(&mut self, open: Open) {
        self.open.push_back(open);
    }

    /// Everything up to this number is anchored.
    pub fn anchored(&mut self, up_to: u64) {
        while self.open.front().is_some_and(|o| o.sub_seq <= up_to) {
            self.open.pop_front();
        }
    }

    /// All of it.
    pub fn all(&mut self) -> &[Open] {
        self.open.make_contiguous()
    }

    /// How old the oldest promise is, milliseconds.
    pub fn lag_ms(&self, now_ms: u64) -> u64 {
        self.open.front().map_or(0, |o| now_ms.saturating_sub(o.delivered_ms))
    }
}

/// What becomes of an operation that a former process made.
#[derive(Debug, PartialEq, Eq)]
pub enum Resume {
    /// It is in the writer's journal: it will be committed, wait for the ledger to reach this number.
    Wait(u64),
    /// It never left: forget it, its deliveries get another one.
    Drop(u64),
}

/// Sorts operations of a former process that the ledger has not anchored.
pub fn resume(ops: &[OpenOp], reopened: &[Hash]) -> Vec<Resume> {
    let sort = |o: &OpenOp| {
        if reopened.contains(&o.op_hash) { Resume::Wait(o.last_sub_seq) } else { Resume::Drop(o.last_sub_seq) }
    };
    ops.iter().map(sort).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn clause() -> Clause {
        let consumer = AgencyId::new("transport").unwrap();
        Clause {
            subscription: 17 << 32 | 1,
            handle: 17,
            consumer,
            name: "AGR-2026-0143/F1".into(),
            purpose: "purp:grid-dispatch".into(),
            rows_hash: [3; 32],
            max_lag_ms: 2_000,
            dataset: "ds:grid/load@1".into(),
            sentence: "Load may be followed.".into(),
            seal_ms: 0,
        }
    }

    fn open(sub_seq: u64, delivered_ms: u64) -> Open {
        Open { sub_seq, root: [sub_seq as u8; 32], delivered_ms, messages: 4 }
    }

    #[test]
    fn an_operation_covers_the_range_and_its_root_includes_every_promise() {
        let list = [open(5, 100), open(6, 90), open(7, 120)];
        let made =
            |secret: u8| deliver(&clause(), &list, 3 * DAY_MS + 5, Tags::none(), &[secret; 32]).unwrap().unwrap();
        let (op, openings) = made(8);
        let Op::Deliver { handle, subscription, last_sub_seq, count, root, oldest_ms, day, .. } = &op else { panic!() };
        assert_eq!((*handle, *subscription, *last_sub_seq, *count), (17, 17 << 32 | 1, 7, 3));
        assert_eq!((*oldest_ms, *day), (90, 3));
        let leaves: Vec<Hash> = list.iter().map(|o| tree::leaf_hash(&o.root)).collect();
        for (i, leaf) in leaves.iter().enumerate() {
            let path = tree::inclusion_path(&leaves, i).unwrap();
            tree::verify_inclusion(leaf, i as u64, 3, &path, root).unwrap();
        }
        assert_ne!(op.hash(), made(9).0.hash(), "the commitment is salted");
        assert_eq!(openings.get(leaf::OPEN_BY), Some(&[][..]));
        let sealed = Clause { seal_ms: 7, ..clause() };
        let (_, openings) = deliver(&sealed, &list, 100, Tags::none(), &[8; 32]).unwrap().unwrap();
        assert_eq!(openings.get(leaf::OPEN_BY), Some(&107u64.to_be_bytes()[..]));
        assert_eq!(deliver(&clause(), &[], 0, Tags::none(), &[8; 32]).unwrap(), None);
    }

    #[test]
    fn a_clause_of_the_first_version_is_its_default_subscription() {
        let mut body = serde_json::to_value(clause()).unwrap();
        body.as_object_mut().unwrap().remove("subscription");
        assert_eq!(Clause::read(&body.to_string()).unwrap(), Clause { subscription: 17, ..clause() });
    }

    #[test]
    fn the_lag_is_that_of_the_oldest_promise() {
        let mut u = Unanchored::restored(vec![open(1, 1_000)]);
        u.push(open(2, 2_000));
        assert_eq!((u.lag_ms(3_000), u.lag_ms(10)), (2_000, 0));
        u.anchored(1);
        assert_eq!(u.lag_ms(3_000), 1_000);
        u.anchored(9);
        assert_eq!(u.lag_ms(u64::MAX), 0);
    }

    #[test]
    fn operations_in_the_journal_are_waited_for_and_others_made_anew() {
        let ops = [OpenOp { last_sub_seq: 3, op_hash: [1; 32] }, OpenOp { last_sub_seq: 6, op_hash: [2; 32] }];
        assert_eq!(resume(&ops, &[[1; 32]]), [Resume::Wait(3), Resume::Drop(6)]);
    }
}
