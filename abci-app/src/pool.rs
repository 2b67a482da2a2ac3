//! What waits for a block: acts in a list of our own, and a count of the batches that CheckTx let in.
//!
//! None of this is durable or part of the state: a client resends until its counter or sequence number moves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use concordat_protocol::codes;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, WriterId};
use concordat_protocol::limits::{
    CHECK_WINDOW_BATCHES, GAP_WAIT_MS, WAITING_ACTS_BYTES_MAX, WAITING_ACTS_MAX, WAITING_ACTS_PER_KEY,
};

use crate::state::State;
use crate::state::acts::next_counter;
use crate::tx::{ActTx, BatchTx, Content, CosignTx, Parsed, Place};

/// After this long a batch that no block took is no longer counted: CometBFT dropped it, or the client will resend.
const FORGET_MS: u64 = 300_000;
/// Bytes of transactions whose decoded form is kept between CheckTx, ProcessProposal and FinalizeBlock.
const CACHE_BYTES: usize = 16 << 20;

/// The sizes of CometBFT's mempool, from its configuration.
#[derive(Debug, Clone, Copy)]
pub struct MempoolLimits {
    /// `mempool.size`.
    pub txs: usize,
    /// `mempool.max_txs_bytes`.
    pub bytes: usize,
}

impl Default for MempoolLimits {
    fn default() -> Self {
        Self { txs: 50_000, bytes: 268_435_456 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    bytes: usize,
    incarnation: u64,
    last_seq: u64,
    since_ms: u64,
}

/// What waits for a block.
#[derive(Debug, Default)]
pub struct Pool {
    acts: BTreeMap<Place, Arc<Parsed>>,
    act_bytes: usize,
    batches: BTreeMap<WriterId, BTreeMap<Hash, Waiting>>,
    /// Cosignatures by agency and height of the checkpoint: which one waits, and since when.
    cosigns: BTreeMap<(AgencyId, u64), (Hash, u64)>,
    seen: BTreeMap<Hash, u64>,
}

impl Pool {
    /// Lets an act wait.
    ///
    /// # Errors
    /// 304 for a used counter, 111 when too much waits.
    pub fn add_act(&mut self, state: &State, tx: &Arc<Parsed>, act: &ActTx, now_ms: u64) -> Result<(), u16> {
        if act.act.counter < next_counter(state.tables.counters.get(&act.act.key_id), &act.act) {
            return Err(codes::STALE);
        }
        let Some(place) = tx.place() else { return Err(codes::UNKNOWN_KIND) };
        if self.acts.contains_key(&place) {
            return Ok(());
        }
        let of_key = self.acts.keys().filter(|p| p.2 == act.act.key_id.0).count();
        let full = self.acts.len() >= WAITING_ACTS_MAX || self.act_bytes + tx.bytes.len() > WAITING_ACTS_BYTES_MAX;
        if full || of_key >= WAITING_ACTS_PER_KEY {
            return Err(codes::BUSY);
        }
        self.act_bytes += tx.bytes.len();
        self.seen.entry(tx.hash).or_insert(now_ms);
        self.acts.insert(place, Arc::clone(tx));
        Ok(())
    }

    /// Counts a batch in: at most [`CHECK_WINDOW_BATCHES`] a writer, and room is left for acts and for other agencies.
    ///
    /// # Errors
    /// 303 when the writer's window is full, 111 when the node is busy.
    pub fn add_batch(
        &mut self,
        tx: &Parsed,
        batch: &BatchTx,
        limits: MempoolLimits,
        agencies: usize,
        now_ms: u64,
    ) -> Result<(), u16> {
        let writer = &batch.batch.writer;
        let waiting = self.batches.get(writer);
        if waiting.is_some_and(|w| w.contains_key(&tx.hash)) {
            return Ok(());
        }
        if waiting.is_some_and(|w| w.len() as u64 >= CHECK_WINDOW_BATCHES) {
            return Err(codes::WINDOW_FULL);
        }
        let (half_txs, half_bytes) = (limits.txs / 2, limits.bytes / 2);
        let fair = agencies.max(1);
        let (txs, bytes) = self.load(|_| true);
        let (own_txs, own_bytes) = self.load(|a| *a == writer.agency());
        let len = tx.bytes.len();
        if txs >= half_txs
            || bytes + len > half_bytes
            || own_txs >= half_txs.div_ceil(fair)
            || own_bytes + len > half_bytes.div_ceil(fair)
        {
            return Err(codes::BUSY);
        }
        let waiting = Waiting {
            bytes: len,
            incarnation: batch.batch.incarnation,
            last_seq: batch.batch.last_seq(),
            since_ms: now_ms,
        };
        self.batches.entry(writer.clone()).or_default().insert(tx.hash, waiting);
        self.seen.entry(tx.hash).or_insert(now_ms);
        Ok(())
    }

    /// Counts a cosignature in: one an agency and checkpoint waits.
    ///
    /// # Errors
    /// 111 when another one waits.
    pub fn add_cosign(&mut self, tx: &Parsed, c: &CosignTx, now_ms: u64) -> Result<(), u16> {
        let key = (c.cosign.agency.clone(), c.cosign.checkpoint.height);
        let (waits, _) = *self.cosigns.entry(key).or_insert((tx.hash, now_ms));
        if waits == tx.hash { Ok(()) } else { Err(codes::BUSY) }
    }

    fn load(&self, of: impl Fn(&AgencyId) -> bool) -> (usize, usize) {
        let own = self.batches.iter().filter(|(w, _)| of(&w.agency())).flat_map(|(_, w)| w.values());
        own.fold((0, 0), |(n, bytes), w| (n + 1, bytes + w.bytes))
    }

    /// The acts that wait, in their order in a block.
    pub fn acts(&self) -> impl Iterator<Item = &Arc<Parsed>> {
        self.acts.values()
    }

    /// Notes when a transaction was first seen; tells whether it has waited long enough to be put into a block though
    /// something before it is missing.
    pub fn overdue(&mut self, hash: &Hash, now_ms: u64) -> bool {
        let since = *self.seen.entry(*hash).or_insert(now_ms);
        now_ms.saturating_sub(since) >= GAP_WAIT_MS
    }

    /// Forgets what a block took and what can no longer be taken.
    pub fn committed(&mut self, state: &State, txs: &[Arc<Parsed>], now_ms: u64) {
        for tx in txs {
            self.seen.remove(&tx.hash);
            if let (Some(place), Content::Act(_)) = (tx.place(), &tx.content) {
                self.acts.remove(&place);
            }
            if let Content::Batch(b) = &tx.content
                && let Some(waiting) = self.batches.get_mut(&b.batch.writer)
            {
                waiting.remove(&tx.hash);
            }
        }
        let fresh = |since: u64| now_ms.saturating_sub(since) < FORGET_MS;
        self.batches.retain(|writer, waiting| {
            let row = state.tables.writers.get(writer);
            waiting.retain(|_, w| {
                row.is_some_and(|r| (w.incarnation, w.last_seq) > (r.incarnation, r.last_seq)) && fresh(w.since_ms)
            });
            !waiting.is_empty()
        });
        let checkpoints = &state.head.checkpoints;
        self.cosigns.retain(|(agency, height), (_, since)| checkpoints.waits_for(agency, *height) && fresh(*since));
        self.acts.retain(|_, tx| match &tx.content {
            Content::Act(a) => a.act.counter >= next_counter(state.tables.counters.get(&a.act.key_id), &a.act),
            _ => false,
        });
        self.act_bytes = self.acts.values().map(|tx| tx.bytes.len()).sum();
        self.seen.retain(|_, since| fresh(*since));
    }
}

/// Transactions that were read already, the newest up to a bound in bytes.
#[derive(Debug, Default)]
pub struct TxCache {
    known: BTreeMap<Hash, Arc<Parsed>>,
    order: VecDeque<Hash>,
    bytes: usize,
}

impl TxCache {
    /// A transaction that was read already.
    pub fn get(&self, hash: &Hash) -> Option<Arc<Parsed>> {
        self.known.get(hash).map(Arc::clone)
    }

    /// Keeps a transaction that was read.
    pub fn put(&mut self, tx: &Arc<Parsed>) {
        if self.known.insert(tx.hash, Arc::clone(tx)).is_some() {
            return;
        }
        self.bytes += tx.bytes.len();
        self.order.push_back(tx.hash);
        // Forgotten transactions leave their hash in the order until it is their turn.
        while self.bytes > CACHE_BYTES || self.order.len() > 2 * self.known.len() + 1_024 {
            let Some(oldest) = self.order.pop_front() else { break };
            self.bytes -= self.known.remove(&oldest).map_or(0, |tx| tx.bytes.len());
        }
    }

    /// Drops transactions that a block took.
    pub fn forget(&mut self, txs: &[Arc<Parsed>]) {
        for tx in txs {
            if self.known.remove(&tx.hash).is_some() {
                self.bytes -= tx.bytes.len();
            }
        }
    }
}
