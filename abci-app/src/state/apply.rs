//! A block against the committed state: `apply(state, block) -> (changes, results, log entries)`.

use std::sync::Arc;

use concordat_protocol::cbor;
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::node::StoreRoots;
use concordat_protocol::ops::{LogEntry, log_key};
use concordat_protocol::tree::{Frontier, value_leaf};

use super::checkpoints::EvidenceNews;
use super::history::{History, News, PastOp, Recall};
use super::rows::{EquivocationRow, Head};
use super::runs::RunNews;
use super::trees::{LeafChanges, app_hash};
use super::{State, TableChanges, View};
use crate::tiles::{self, Completed};
use crate::tx::{BatchTx, Content, Parsed};

/// A block as far as the application looks at it.
pub struct Block<'a> {
    /// Its height.
    pub height: u64,
    /// Its transactions in order.
    pub txs: &'a [Arc<Parsed>],
}

/// What came of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxResult {
    /// 0, or why it had no effect.
    pub code: u16,
    /// Canonical (first global index, number of entries) where it made entries.
    pub data: Vec<u8>,
}

impl TxResult {
    fn refused(code: u16) -> Self {
        Self { code, data: Vec::new() }
    }
}

/// A computed block: everything Commit writes.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Shared numbers after the block.
    pub head: Head,
    /// Changed rows.
    pub changes: TableChanges,
    /// Changed leaves and nodes of the trees.
    pub leaves: LeafChanges,
    /// The log's right edge after the block.
    pub log: Frontier,
    /// Subtrees that the log's tiles keep.
    pub completed: Vec<Completed>,
    /// Global index of the first entry.
    pub first_index: u64,
    /// Log entries in order.
    pub entries: Vec<LogEntry>,
    /// Additions to history.
    pub news: News,
    /// What became of the subject runs.
    pub runs: RunNews,
    /// What stands outside the app hash.
    pub evidence: EvidenceNews,
    /// One result a transaction.
    pub results: Vec<TxResult>,
    /// Roots after the block.
    pub roots: StoreRoots,
    /// App hash after the block.
    pub app_hash: Hash,
}

/// A block being computed.
pub struct Work<'a> {
    /// Tables with the block's changes so far.
    pub view: View<'a>,
    /// Shared numbers so far.
    pub head: Head,
    /// Earlier operations.
    pub recall: Recall<'a>,
    /// Slots of the heads tree that became free.
    pub freed: Vec<u64>,
    /// What becomes of the subject runs.
    pub runs: RunNews,
    /// What stands outside the app hash.
    pub evidence: EvidenceNews,
    log: Frontier,
    completed: Vec<Completed>,
    entries: Vec<LogEntry>,
}

/// Computes a block. The state is not changed; the block's tick is taken, never compared (PROTOCOL 2).
pub fn apply(state: &State, history: &dyn History, block: &Block<'_>) -> Applied {
    let mut work = Work::new(state, history, block.height);
    let ticked = match block.txs.first().map(|tx| &tx.content) {
        Some(Content::Tick(ms)) => {
            work.head.tick_ms = *ms;
            true
        }
        _ => false,
    };
    // A block of its tick alone changes nothing, and cosignatures stand outside the app hash.
    let more = |tx: &Arc<Parsed>| matches!(tx.content, Content::Batch(_) | Content::Act(_));
    if ticked && block.txs.iter().any(more) {
        work.rotate_roots();
        work.time_passes();
    }
    let results = block.txs.iter().enumerate().map(|(i, tx)| work.transaction(tx, i == 0, ticked)).collect();
    work.write_epoch();
    work.finish(state, results)
}

impl<'a> Work<'a> {
    /// Begins a block on a state.
    pub fn new(state: &'a State, history: &'a dyn History, height: u64) -> Self {
        let mut head = state.head.clone();
        head.height = height;
        Self {
            view: View::new(&state.tables),
            head,
            recall: Recall { past: history, first: state.log.size(), news: News::default() },
            freed: Vec::new(),
            runs: RunNews::default(),
            evidence: EvidenceNews::default(),
            log: state.log.clone(),
            completed: Vec::new(),
            entries: Vec::new(),
        }
    }

    fn transaction(&mut self, tx: &Parsed, first: bool, ticked: bool) -> TxResult {
        if !ticked {
            return TxResult::refused(codes::BAD_VALUE);
        }
        match &tx.content {
            Content::Tick(_) if first => TxResult { code: codes::OK, data: Vec::new() },
            Content::Tick(_) => TxResult::refused(codes::BAD_VALUE),
            Content::Bad(code) => TxResult::refused(*code),
            Content::Batch(batch) => {
                let before = self.log.size();
                match self.batch(tx, batch) {
                    Ok(()) => self.done(codes::OK, before),
                    Err(code) => TxResult::refused(code),
                }
            }
            Content::Cosign(cosign) => match self.cosign(tx, cosign) {
                Ok(()) => TxResult { code: codes::OK, data: Vec::new() },
                Err(code) => TxResult::refused(code),
            },
            Content::Act(act) => {
                let before = self.log.size();
                match self.act(tx, act) {
                    Ok(code) => self.done(code, before),
                    Err(code) => TxResult::refused(code),
                }
            }
        }
    }

    fn done(&self, code: u16, before: u64) -> TxResult {
        let count = self.log.size() - before;
        let data = if count == 0 { Vec::new() } else { cbor::encode(&(before, count)) };
        TxResult { code, data }
    }

    /// Index that the next entry gets.
    pub fn next_index(&self) -> u64 {
        self.log.size()
    }

    /// Writes an entry into the log.
    pub fn enter(&mut self, entry: LogEntry, past: PastOp) {
        let leaf = value_leaf(&log_key(self.log.size()), &cbor::encode(&entry));
        tiles::push(&mut self.log, leaf, &mut self.completed);
        self.entries.push(entry);
        self.recall.news.ops.push(past);
    }

    /// The sequence rule of batches, then each operation by itself.
    fn batch(&mut self, tx: &Parsed, b: &BatchTx) -> Result<(), u16> {
        let batch = &b.batch;
        if batch.chain != self.head.chain {
            return Err(codes::WRONG_CHAIN);
        }
        if batch.ops.is_empty() || batch.first_seq == 0 || batch.first_seq.checked_add(batch.ops.len() as u64).is_none()
        {
            return Err(codes::BAD_VALUE);
        }
        let writer = self.view.writers.get(&batch.writer).ok_or(codes::UNKNOWN_WRITER)?.clone();
        let key = self.view.keys.get(&writer.key_id).ok_or(codes::UNKNOWN_KEY)?;
        if key.revoked_ms != 0 {
            return Err(codes::KEY_REVOKED);
        }
        if !tx.signed_by(&writer.key_id, &key.key) {
            return Err(codes::BAD_SIGNATURE);
        }
        if batch.incarnation != writer.incarnation {
            return Err(if batch.incarnation < writer.incarnation { codes::STALE } else { codes::GAP });
        }
        let at = (batch.writer.clone(), (batch.incarnation, batch.first_seq));
        if batch.first_seq <= writer.last_seq {
            return if self.recall.batch(&at) == Some(b.hash) {
                Ok(())
            } else {
                Err(self.conflict(b, writer.last_hash))
            };
        }
        if batch.first_seq != writer.last_seq + 1 {
            return Err(codes::GAP);
        }
        if batch.prev != writer.last_hash {
            return Err(codes::PREV_MISMATCH);
        }
        self.operations(b);
        self.recall.news.batches.insert(at, b.hash);
        if let Some(row) = self.view.writers.edit(&batch.writer) {
            row.last_seq = batch.last_seq();
            row.last_hash = b.hash;
        }
        Ok(())
    }

    fn operations(&mut self, b: &BatchTx) {
        let agency = b.batch.writer.agency();
        let number = self.agency_number(&agency);
        for (i, (op, op_hash)) in b.batch.ops.iter().zip(&b.op_hashes).enumerate() {
            let (verdict, code, past) = self.operation(&agency, number, op);
            let entry = LogEntry {
                height: self.head.height,
                tick_ms: self.head.tick_ms,
                writer: b.batch.writer.to_string(),
                incarnation: b.batch.incarnation,
                seq: b.batch.first_seq + i as u64,
                op_hash: *op_hash,
                verdict,
                code,
            };
            let index = self.next_index();
            self.note_named(op, &past, index, op_hash);
            self.enter(entry, past);
            self.index_subjects(op, index, op_hash, verdict);
        }
    }

    /// Stores a writer's first conflicting batch of an incarnation as its equivocation.
    fn conflict(&mut self, b: &BatchTx, kept: Hash) -> u16 {
        let key = (b.batch.writer.clone(), b.batch.incarnation);
        if !self.view.equivocations.has(&key) {
            let row = EquivocationRow { first_seq: b.batch.first_seq, kept, other: b.hash, height: self.head.height };
            self.view.equivocations.put(key, row);
        }
        codes::CONFLICT
    }

    /// The number by which history knows an agency; 0 for none.
    pub fn agency_number(&self, agency: &AgencyId) -> u16 {
        self.view.agencies.get(agency).and_then(|a| u16::try_from(a.number).ok()).unwrap_or_default()
    }

    /// A slot of the heads tree: a free one if there is any, else a new one.
    pub fn slot(&mut self) -> u64 {
        let free = self.view.free_slots.iter().next().map(|(slot, _)| *slot);
        match free {
            Some(slot) => {
                self.view.free_slots.remove(slot);
                slot
            }
            None => {
                self.head.slots += 1;
                self.head.slots - 1
            }
        }
    }

    /// Gives a slot back.
    pub fn free(&mut self, slot: u64) {
        self.freed.push(slot);
        self.view.free_slots.put(slot, 0);
    }

    /// Ends the block: the trees and the app hash after it, and the checkpoint if one is due.
    pub fn finish(self, state: &State, results: Vec<TxResult>) -> Applied {
        let checkpoint_ms = self.param("checkpoint_ms");
        let changes = self.view.into_changes();
        let leaves = state.trees.preview(&changes, &self.freed);
        let mut head = self.head;
        if !leaves.meta.is_empty() {
            head.meta_rev += 1;
        }
        let mut roots = state.roots();
        roots.heads = leaves.heads_root;
        roots.log = self.log.root();
        roots.meta = leaves.meta_root;
        roots.runs = head.runs.tree().root();
        let checkpoint = head.checkpoint_at(self.log.size(), &roots, checkpoint_ms);
        let app_hash = app_hash(&roots);
        Applied {
            head,
            changes,
            leaves,
            log: self.log,
            completed: self.completed,
            first_index: self.recall.first,
            entries: self.entries,
            news: self.recall.news,
            runs: self.runs,
            evidence: EvidenceNews { checkpoint, ..self.evidence },
            results,
            roots,
            app_hash,
        }
    }
}

/// Whether a verdict counts as a use: data went out, or may have.
pub fn counts(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Accepted | Verdict::Uncovered)
}
