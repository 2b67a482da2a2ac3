//! A restored backup brings back what was forgotten: before an executor serves it compares the erasures on the ledger with
//! its stores, and forgets again.

use super::SubjectsError;
use super::serve::Subjects;
use crate::ledger::follow::follow;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use concordat_protocol::cbor;
use concordat_protocol::codes::Verdict;
use concordat_protocol::ops::{Batch, LogEntry, Op, Tx};
use tracing::{info, warn};

/// The operations of a block, each batch decoded once.
pub(crate) struct BlockOps(Vec<Batch>);

impl BlockOps {
    /// The batches among a block's transactions, as CometBFT writes these: base64.
    pub(crate) fn of(txs: &[String]) -> Self {
        let batch = |tx: &String| match cbor::decode::<Tx>(&STANDARD.decode(tx).ok()?) {
            Ok(Tx::Batch { body, .. }) => cbor::decode::<Batch>(&body).ok(),
            _ => None,
        };
        Self(txs.iter().filter_map(batch).collect())
    }

    /// The operation of an entry, if it is in this block.
    pub(crate) fn of_entry(&self, entry: &LogEntry) -> Option<&Op> {
        let ours = |b: &&Batch| b.writer.as_str() == entry.writer && b.incarnation == entry.incarnation;
        let at = |b: &Batch| usize::try_from(entry.seq.checked_sub(b.first_seq)?).ok();
        let mut found = self.0.iter().filter(ours).filter_map(|b| b.ops.get(at(b)?));
        found.find(|op| op.hash() == entry.op_hash)
    }
}

impl Subjects {
    /// Finishes erasures that were broken off, and carries out those of the ledger that this store does not know of.
    pub async fn replay(&self) -> Result<(), SubjectsError> {
        for (id, what) in self.people.vault.erasing()? {
            self.finish(&id, what).await?;
        }
        let head = self.setup.node.head().await?.height;
        let known = self.disclosures().erased_up_to()?;
        let from = match known {
            Some(height) => height + 1,
            None if self.disclosures().is_empty()? => head + 1,
            None => 1,
        };
        if from <= head {
            self.replay_from(from, head).await?;
        }
        Ok(self.disclosures().set_erased_up_to(head)?)
    }

    async fn replay_from(&self, from: u64, head: u64) -> Result<(), SubjectsError> {
        let writer = format!("{}/executor", self.setup.agency);
        let mut frames = follow(self.setup.node.path(), from, vec![writer.clone()]);
        let mut erased = 0;
        loop {
            let frame = frames.next_frame().await;
            let accepted = |e: &&LogEntry| e.writer == writer && e.verdict == Verdict::Accepted;
            let entries: Vec<&LogEntry> = frame.entries.iter().map(|(_, e)| e).filter(accepted).collect();
            if !entries.is_empty() {
                erased += self.replay_block(frame.height, &entries).await?;
            }
            if frame.height >= head {
                break;
            }
        }
        if erased > 0 {
            warn!(erased, from, "this store was older than the ledger: what is erased there is forgotten here again");
        } else {
            info!(from, head, "no erasure on the ledger that this store does not know");
        }
        Ok(())
    }

    async fn replay_block(&self, height: u64, entries: &[&LogEntry]) -> Result<u64, SubjectsError> {
        let txs = match self.setup.rpc.block_txs(height).await {
            Ok(txs) => txs,
            Err(e) => {
                warn!(height, error = %e, "the block's bodies are not here: erasures in it cannot be compared");
                return Ok(0);
            }
        };
        let ops = BlockOps::of(&txs);
        let mut erased = 0;
        for op in entries.iter().filter_map(|e| ops.of_entry(e)) {
            let Op::Erase { reference, .. } = *op else { continue };
            let Some(entry) = self.setup.node.log(reference, 1).await?.into_iter().next() else { continue };
            if let Some((id, what)) = self.erased_subject(op, reference, &entry.op_hash)? {
                self.forget(&id, what).await?;
                erased += 1;
            }
            self.disclosures().forget_op(&entry.op_hash)?;
        }
        Ok(erased)
    }
}
