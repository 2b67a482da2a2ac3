//! What a block needs to know of earlier operations. It is read from the store, so that memory does not grow with the
//! log, and depends on the chain alone like everything else.

use std::collections::BTreeMap;
use std::sync::Arc;

use concordat_protocol::codes::Verdict;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::WriterId;

use crate::sorted::SortedRun;

/// Marks on an operation: what was said of it later.
pub mod mark {
    /// Its outcome is recorded.
    pub const OUTCOME: u8 = 1;
    /// Its data was withheld.
    pub const WITHHELD: u8 = 2;
    /// It was reviewed.
    pub const REVIEWED: u8 = 4;
    /// The consumer countersigned it.
    pub const ACKED: u8 = 8;
}

/// Bytes of a stored [`PastOp`].
pub const PAST_LEN: usize = 32;

/// What stays known of an operation: enough to check what later ones say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastOp {
    /// Kind of the operation ([`concordat_protocol::ops::Op::kind`]), 0 for an act.
    pub kind: u8,
    /// What the ledger said.
    pub verdict: u8,
    /// Number of the agency that wrote it.
    pub provider: u16,
    /// Number of the consuming agency, 0 where there is none.
    pub consumer: u16,
    /// Handle it relied on, or 0.
    pub handle: u64,
    /// Session it belongs to, or 0.
    pub session: u64,
    /// Tick of its block.
    pub tick_ms: u64,
}

impl PastOp {
    /// A record of an act.
    pub fn act(tick_ms: u64, verdict: Verdict) -> Self {
        Self { kind: 0, verdict: verdict as u8, provider: 0, consumer: 0, handle: 0, session: 0, tick_ms }
    }

    /// The stored bytes.
    pub fn to_bytes(self) -> [u8; PAST_LEN] {
        let mut out = [0; PAST_LEN];
        out[0] = self.kind;
        out[1] = self.verdict;
        out[2..4].copy_from_slice(&self.provider.to_be_bytes());
        out[4..6].copy_from_slice(&self.consumer.to_be_bytes());
        out[8..16].copy_from_slice(&self.handle.to_be_bytes());
        out[16..24].copy_from_slice(&self.session.to_be_bytes());
        out[24..32].copy_from_slice(&self.tick_ms.to_be_bytes());
        out
    }

    /// Reads the stored bytes.
    pub fn from_bytes(b: &[u8; PAST_LEN]) -> Self {
        let word = |at: usize| b[at..at + 8].iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
        Self {
            kind: b[0],
            verdict: b[1],
            provider: u16::from_be_bytes([b[2], b[3]]),
            consumer: u16::from_be_bytes([b[4], b[5]]),
            handle: word(8),
            session: word(16),
            tick_ms: word(24),
        }
    }

    /// Whether the ledger accepted it.
    pub fn accepted(&self) -> bool {
        self.verdict == Verdict::Accepted as u8
    }
}

/// Where a batch stood: (writer, (incarnation, first sequence number)).
pub type BatchKey = (WriterId, (u64, u64));

/// Earlier blocks, as far as later ones ask for them.
pub trait History {
    /// The operation at a global index.
    fn op(&self, index: u64) -> Option<PastOp>;
    /// Its [`mark`]s.
    fn marks(&self, index: u64) -> u8;
    /// The hash of the batch that begins there.
    fn batch(&self, key: &BatchKey) -> Option<Hash>;
    /// A closed run that is not in state yet, in order.
    fn run(&self, number: u64) -> Arc<SortedRun>;
}

/// What a block adds to history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// Operations from the block's first index on.
    pub ops: Vec<PastOp>,
    /// Marks, whole, by operation.
    pub marks: BTreeMap<u64, u8>,
    /// Batches that were taken.
    pub batches: BTreeMap<BatchKey, Hash>,
}

/// History with a block's news on top.
pub struct Recall<'a> {
    /// Earlier blocks.
    pub past: &'a dyn History,
    /// Index of the block's first entry.
    pub first: u64,
    /// What the block adds.
    pub news: News,
}

impl Recall<'_> {
    /// The operation at a global index.
    pub fn op(&self, index: u64) -> Option<PastOp> {
        match index.checked_sub(self.first) {
            Some(at) => self.news.ops.get(at as usize).copied(),
            None => self.past.op(index),
        }
    }

    /// Its marks.
    pub fn marks(&self, index: u64) -> u8 {
        self.news.marks.get(&index).copied().unwrap_or_else(|| self.past.marks(index))
    }

    /// Sets a mark.
    pub fn mark(&mut self, index: u64, mark: u8) {
        let marks = self.marks(index) | mark;
        self.news.marks.insert(index, marks);
    }

    /// The hash of the batch that begins there.
    pub fn batch(&self, key: &BatchKey) -> Option<Hash> {
        self.news.batches.get(key).copied().or_else(|| self.past.batch(key))
    }
}

/// A chain that has no past: before genesis, and in tests of single blocks.
pub struct NoHistory;

impl History for NoHistory {
    fn op(&self, _: u64) -> Option<PastOp> {
        None
    }
    fn marks(&self, _: u64) -> u8 {
        0
    }
    fn batch(&self, _: &BatchKey) -> Option<Hash> {
        None
    }
    fn run(&self, _: u64) -> Arc<SortedRun> {
        Arc::new(SortedRun::of(Vec::new()))
    }
}
