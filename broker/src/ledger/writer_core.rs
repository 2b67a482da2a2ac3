//! The pure part of a writer: which operations form the next batch, what is open, what to send again.
//!
//! At most [`CLIENT_WINDOW_BATCHES`] batches are uncommitted, formed [`SPACING_MS`] apart, so that the window covers the
//! time between two blocks: were they formed at once, the first would be small and all that comes after them would wait
//! for a block. A batch once formed is never signed again: the same bytes
//! are sent until the writer's `last_seq` on the ledger passes it.

use concordat_protocol::cbor;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::WriterId;
use concordat_protocol::limits::{BATCH_OPS_MAX, CLIENT_WINDOW_BATCHES};
use concordat_protocol::node::WriterView;
use concordat_protocol::ops::{Batch, LogEntry, Op, Tx, batch_hash};
use std::collections::VecDeque;

/// After how long without progress the lowest open batch is sent again, milliseconds.
pub const RESEND_MS: u64 = 1_000;
/// Bytes of operations after which a batch is closed. Measured best between 64 and 200 KB.
pub const BATCH_BYTES: usize = 64_000;
/// How long after a batch the next one is formed while others are open, milliseconds. A writer with nothing open does
/// not wait.
pub const SPACING_MS: u64 = 25;
/// So many waiting operations fill a batch, and are not kept waiting.
const FULL: usize = BATCH_BYTES / 100;

/// A formed and signed batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Sequence number of its first operation.
    pub first_seq: u64,
    /// Sequence number of its last operation.
    pub last_seq: u64,
    /// Its hash.
    pub hash: Hash,
    /// Hashes of its operations.
    pub op_hashes: Vec<Hash>,
    /// The transaction's bytes.
    pub tx: Vec<u8>,
}

impl Outgoing {
    /// Reads back a transaction that was kept.
    pub fn from_tx(tx: Vec<u8>) -> Option<Self> {
        let Ok(Tx::Batch { body, .. }) = cbor::decode::<Tx>(&tx) else { return None };
        let batch: Batch = cbor::decode(&body).ok()?;
        let op_hashes = batch.ops.iter().map(Op::hash).collect();
        Some(Self { first_seq: batch.first_seq, last_seq: batch.last_seq(), hash: batch_hash(&body), op_hashes, tx })
    }
}

#[derive(Debug, Clone)]
struct Open {
    batch: Outgoing,
    sent_ms: u64,
    attempts: u32,
}

/// A batch to send, and how often it was sent before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// The transaction's bytes.
    pub tx: Vec<u8>,
    /// 0 for the first attempt (own node); later ones go round the other agencies' nodes too.
    pub attempt: u32,
}

/// Another batch stands at this sequence number.
#[derive(Debug, PartialEq, Eq)]
pub struct Conflict(pub u64);

/// State of a writer.
#[derive(Debug, Clone)]
pub struct WriterCore {
    chain: String,
    writer: WriterId,
    incarnation: u64,
    next_seq: u64,
    prev: Hash,
    queue: VecDeque<Op>,
    open: VecDeque<Open>,
    progress_ms: u64,
}

impl WriterCore {
    /// A writer that goes on from the ledger's view, with the batches its journal kept. Those the ledger has are
    /// dropped; one that differs from what the ledger has is a conflict.
    pub fn resume(chain: &str, view: &WriterView, kept: Vec<Outgoing>, now_ms: u64) -> Result<Self, Conflict> {
        let mut core = Self {
            chain: chain.to_owned(),
            writer: view.writer.clone(),
            incarnation: view.incarnation,
            next_seq: view.last_seq + 1,
            prev: view.last_hash,
            queue: VecDeque::new(),
            open: VecDeque::new(),
            progress_ms: now_ms,
        };
        for batch in kept {
            if batch.last_seq == view.last_seq && batch.hash != view.last_hash {
                return Err(Conflict(batch.first_seq));
            }
            if batch.last_seq > view.last_seq {
                if batch.first_seq != core.next_seq {
                    return Err(Conflict(batch.first_seq));
                }
                core.next_seq = batch.last_seq + 1;
                core.prev = batch.hash;
                core.open.push_back(Open { batch, sent_ms: 0, attempts: 0 });
            }
        }
        Ok(core)
    }

    /// Takes an operation into the queue.
    pub fn push(&mut self, op: Op) {
        self.queue.push_back(op);
    }

    /// Operations that wait for a batch.
    #[cfg(test)]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Operations in batches that are not committed.
    pub fn uncommitted(&self) -> usize {
        self.open.iter().map(|o| o.batch.op_hashes.len()).sum()
    }

    /// How long to wait until the next batch is formed, milliseconds; none where nothing waits or the window is full.
    /// `since_ms` is how long ago the last one was formed.
    pub fn rest_ms(&self, since_ms: u64) -> Option<u64> {
        match (self.queue.len(), self.open.len() as u64) {
            (0, _) | (_, CLIENT_WINDOW_BATCHES..) => None,
            (FULL.., _) | (_, 0) => Some(0),
            _ => Some(SPACING_MS.saturating_sub(since_ms)),
        }
    }

    /// Forms the next batch if the window has room and something waits. The caller keeps it durably before it sends it.
    pub fn form<E>(&mut self, sign: impl FnOnce(&[u8]) -> Result<[u8; 64], E>) -> Result<Option<Outgoing>, E> {
        if self.queue.is_empty() || self.open.len() as u64 >= CLIENT_WINDOW_BATCHES {
            return Ok(None);
        }
        let (mut ops, mut bytes) = (Vec::new(), 0);
        while let Some(op) = self.queue.front() {
            bytes += cbor::encode(op).len();
            if ops.len() == BATCH_OPS_MAX || (bytes > BATCH_BYTES && !ops.is_empty()) {
                break;
            }
            ops.extend(self.queue.pop_front());
        }
        let batch = Batch {
            chain: self.chain.clone(),
            writer: self.writer.clone(),
            incarnation: self.incarnation,
            first_seq: self.next_seq,
            prev: self.prev,
            ops,
        };
        let body = cbor::encode(&batch);
        let hash = batch_hash(&body);
        let signature = sign(&body)?;
        let out = Outgoing {
            first_seq: batch.first_seq,
            last_seq: batch.last_seq(),
            hash,
            op_hashes: batch.ops.iter().map(Op::hash).collect(),
            tx: cbor::encode(&Tx::Batch { body: body.into(), signature }),
        };
        self.next_seq = out.last_seq + 1;
        self.prev = hash;
        self.open.push_back(Open { batch: out.clone(), sent_ms: 0, attempts: 0 });
        Ok(Some(out))
    }

    /// What to send now: batches never sent, and after [`RESEND_MS`] without progress the lowest one and its successor.
    pub fn due(&mut self, now_ms: u64) -> Vec<Send> {
        let lowest_stalls = self
            .open
            .front()
            .is_some_and(|o| o.attempts > 0 && now_ms.saturating_sub(self.progress_ms.max(o.sent_ms)) >= RESEND_MS);
        let mut sends = Vec::new();
        for open in &mut self.open {
            if open.attempts == 0 || lowest_stalls {
                sends.push(Send { tx: open.batch.tx.clone(), attempt: open.attempts });
                open.attempts += 1;
                open.sent_ms = now_ms;
            }
        }
        sends
    }

    /// The incarnation it writes in.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Takes one entry of this writer from a frame. Returns the last sequence number and the hash of a batch that is now
    /// committed whole, so that the journal can forget it. An operation that was never formed here is a conflict too.
    pub fn committed(&mut self, entry: &LogEntry, now_ms: u64) -> Result<Option<(u64, Hash)>, Conflict> {
        if entry.incarnation == self.incarnation && entry.seq >= self.next_seq {
            return Err(Conflict(entry.seq));
        }
        let Some(open) = self.open.front() else { return Ok(None) };
        if entry.incarnation != self.incarnation || entry.seq < open.batch.first_seq {
            return Ok(None);
        }
        let at = (entry.seq - open.batch.first_seq) as usize;
        if open.batch.op_hashes.get(at) != Some(&entry.op_hash) {
            return Err(Conflict(entry.seq));
        }
        self.progress_ms = now_ms;
        if entry.seq == open.batch.last_seq {
            let done = (entry.seq, open.batch.hash);
            self.open.pop_front();
            return Ok(Some(done));
        }
        Ok(None)
    }
}

#[cfg(test)]
#[path = "writer_core_tests.rs"]
mod tests;
