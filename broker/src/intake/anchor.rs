//! `publish` operations: consecutive envelopes of one dataset, at most a second or 65,536 messages each.
//!
//! The ledger's head says what is anchored. Everything after it is read from the stream again after a restart, so that
//! nothing is left out and nothing is doubled: an operation that does not follow the head is refused.

use super::envelope::Head;
use super::feeds::Feeds;
use super::stream::{decode, newest_envelope, open};
use super::{IntakeError, WriterWatch};
use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use crate::ledger::writer::Writer;
use crate::metrics::Metrics;
use async_nats::jetstream::Context;
use async_nats::jetstream::stream::Stream;
use concordat_protocol::codes::Verdict;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::DatasetId;
use concordat_protocol::limits::PUBLISH_MESSAGES_MAX;
use concordat_protocol::message::EnvelopeHeader;
use concordat_protocol::node::DatasetView;
use concordat_protocol::ops::Op;
use concordat_protocol::tree;
use std::collections::VecDeque;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::mpsc;
use tracing::{info, warn};

/// The longest an envelope waits for its operation.
const EVERY: Duration = Duration::from_secs(1);
/// Envelopes that may wait in memory; what does not fit is read from the stream.
const WAITING: usize = 65_536;
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// A durable envelope that the ledger does not know yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Published {
    /// Its first message.
    pub first_seq: u64,
    /// Its messages.
    pub count: u64,
    /// Its root.
    pub root: Hash,
}

impl Published {
    /// The newest envelope of a stream.
    pub fn of(head: &Head) -> Self {
        let count = head.answer.accepted;
        Self { first_seq: head.next_seq - count, count, root: head.root }
    }

    fn of_header(h: &EnvelopeHeader) -> Self {
        Self { first_seq: h.first_seq, count: h.count, root: h.root }
    }

    fn next(&self) -> u64 {
        self.first_seq + self.count
    }
}

#[derive(Debug, Error)]
enum AnchorError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Stream(#[from] IntakeError),
    #[error("dataset {0} is not registered on the ledger yet")]
    Unregistered(DatasetId),
    #[error("messages from {0} on are neither anchored nor in the stream any more: they can never be anchored")]
    Gone(u64),
}

/// What waits, in order and without gaps.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Published>,
}

impl Queue {
    /// Takes an envelope that follows what is here (or `head`, when nothing is); false when one between is missing.
    fn push(&mut self, head: u64, p: Published) -> bool {
        let next = self.waiting.back().map_or(head + 1, Published::next);
        if p.first_seq == next {
            self.waiting.push_back(p);
        }
        p.first_seq <= next
    }

    /// The longest range one operation may cover: how many envelopes, the operation.
    fn operation(&self, dataset: u64) -> Option<(usize, Op)> {
        let (mut roots, mut count, mut last_seq) = (Vec::new(), 0, 0);
        for p in &self.waiting {
            if count + p.count > PUBLISH_MESSAGES_MAX {
                break;
            }
            count += p.count;
            last_seq = p.next() - 1;
            roots.push(tree::leaf_hash(&p.root));
        }
        (!roots.is_empty()).then(|| (roots.len(), Op::Publish { dataset, last_seq, count, root: tree::root(&roots) }))
    }

    /// Whether an operation of a former process is still on its way: its last sequence number. Such a one covers the
    /// first envelopes after the head, it is only unknown how many.
    fn on_its_way(&self, dataset: u64, hashes: &[Hash]) -> Option<u64> {
        if hashes.is_empty() {
            return None;
        }
        let (mut roots, mut count) = (tree::Frontier::new(), 0);
        self.waiting.iter().find_map(|p| {
            roots.push(tree::leaf_hash(&p.root));
            count += p.count;
            let last_seq = p.next() - 1;
            let op = Op::Publish { dataset, last_seq, count, root: roots.root() };
            (count <= PUBLISH_MESSAGES_MAX && hashes.contains(&op.hash())).then_some(last_seq)
        })
    }
}

struct Anchor {
    dataset: DatasetId,
    js: Context,
    node: NodeClient,
    writer: WriterWatch,
    metrics: Metrics,
    feeds: Feeds,
    rx: mpsc::Receiver<Published>,
    queue: Queue,
}

/// Starts the anchoring task of a dataset.
pub(super) fn start(
    dataset: DatasetId,
    js: Context,
    node: NodeClient,
    writer: WriterWatch,
    metrics: Metrics,
    feeds: Feeds,
) -> mpsc::Sender<Published> {
    let (tx, rx) = mpsc::channel(WAITING);
    let anchor = Anchor { dataset, js, node, writer, metrics, feeds, rx, queue: Queue::default() };
    tokio::spawn(anchor.run());
    tx
}

impl Anchor {
    async fn run(mut self) {
        let mut said = String::new();
        while !self.rx.is_closed() {
            if let Err(e) = self.work().await {
                if said != e.to_string() {
                    warn!(dataset = %self.dataset, error = %e, "publish operations wait");
                    said = e.to_string();
                }
                tokio::time::sleep(RETRY).await;
            } else {
                said.clear();
            }
        }
    }

    /// The writer, once the ledger knows it.
    async fn writer(&mut self) -> Option<Writer> {
        self.writer.wait_for(Option::is_some).await.ok().and_then(|w| w.clone())
    }

    async fn view(&self) -> Result<DatasetView, AnchorError> {
        let all = self.node.datasets().await?;
        all.into_iter().find(|d| d.id == self.dataset).ok_or_else(|| AnchorError::Unregistered(self.dataset.clone()))
    }

    /// Begins at the ledger's head and anchors until something must be looked at anew.
    async fn work(&mut self) -> Result<(), AnchorError> {
        let Some(writer) = self.writer().await else { return Ok(()) };
        let view = self.view().await?;
        self.feeds.anchored(&self.dataset, view.head);
        self.queue = Queue::default();
        self.read_from(view.head).await?;
        if let Some(last_seq) = self.queue.on_its_way(view.number, writer.reopened()) {
            info!(dataset = %self.dataset, last_seq, "an operation of the former process is on its way");
            while self.view().await?.head < last_seq {
                tokio::time::sleep(RETRY).await;
            }
            return Ok(());
        }
        let mut head = view.head;
        loop {
            if self.queue.waiting.is_empty() {
                let Some(p) = self.rx.recv().await else { return Ok(()) };
                if !self.queue.push(head, p) {
                    return Ok(());
                }
                tokio::time::sleep(EVERY).await;
            }
            while let Ok(p) = self.rx.try_recv() {
                if !self.queue.push(head, p) {
                    return Ok(());
                }
            }
            let Some((covered, op)) = self.queue.operation(view.number) else { continue };
            let Op::Publish { last_seq, .. } = op else { continue };
            self.metrics.oplog_unanchored.inc();
            let recorded = writer.record(op).await;
            self.metrics.oplog_unanchored.dec();
            let recorded = recorded?;
            if recorded.verdict != Verdict::Accepted {
                warn!(dataset = %self.dataset, op = recorded.index, code = recorded.code, "publish refused: beginning at the ledger's head again");
                tokio::time::sleep(RETRY).await;
                return Ok(());
            }
            head = last_seq;
            self.feeds.anchored(&self.dataset, head);
            self.queue.waiting.drain(..covered);
        }
    }

    /// Fills the queue with everything after `head` that is in the stream.
    async fn read_from(&mut self, head: u64) -> Result<(), AnchorError> {
        let stream = open(&self.js, &self.dataset).await?;
        let Some((newest, last)) = newest_envelope(&stream, &self.dataset).await? else { return Ok(()) };
        if newest.header.last_seq() <= head {
            return Ok(());
        }
        let first = stream.get_info().await.map_err(failed)?.state.first_sequence;
        let mut at = place_of(&stream, first, last, head + 1).await?;
        while at <= last {
            let p = read(&stream, at).await?;
            if !self.queue.push(head, p) {
                return Err(AnchorError::Gone(head + 1));
            }
            at += 1;
        }
        Ok(())
    }
}

fn failed(e: impl std::fmt::Display) -> IntakeError {
    IntakeError::Unavailable(e.to_string())
}

async fn read(stream: &Stream, at: u64) -> Result<Published, IntakeError> {
    let message = stream.get_raw_message(at).await.map_err(failed)?;
    Ok(Published::of_header(&decode(&message.payload)?.header))
}

/// Place of the envelope that holds message `seq`: sequence numbers rise with places, so halving finds it.
async fn place_of(stream: &Stream, first: u64, last: u64, seq: u64) -> Result<u64, AnchorError> {
    let (mut low, mut high) = (first, last);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if read(stream, middle).await?.first_seq <= seq { low = middle } else { high = middle - 1 }
    }
    if read(stream, low).await?.first_seq > seq { Err(AnchorError::Gone(seq)) } else { Ok(low) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn p(first_seq: u64, count: u64) -> Published {
        Published { first_seq, count, root: [first_seq as u8; 32] }
    }

    fn queue(head: u64, sizes: &[u64]) -> Queue {
        let mut q = Queue::default();
        let mut next = head + 1;
        for s in sizes {
            assert!(q.push(head, p(next, *s)));
            next += s;
        }
        q
    }

    #[test]
    fn what_is_known_is_passed_over_and_a_gap_is_seen() {
        let mut q = queue(10, &[5, 5]);
        assert!(q.push(10, p(11, 5)), "known already");
        assert_eq!(q.waiting.len(), 2);
        assert!(!q.push(10, p(26, 5)), "21 to 25 are missing");
        assert!(q.push(10, p(21, 5)));
        assert_eq!(q.waiting.len(), 3);
    }

    #[test]
    fn an_operation_covers_whole_envelopes_up_to_its_limit() {
        let q = queue(10, &[1, 2, 3]);
        let (covered, op) = q.operation(4).unwrap();
        let roots = [p(11, 1), p(12, 2), p(14, 3)].map(|p| tree::leaf_hash(&p.root));
        assert_eq!((covered, op), (3, Op::Publish { dataset: 4, last_seq: 16, count: 6, root: tree::root(&roots) }));
        let many = queue(0, &[256; 300]);
        let (covered, op) = many.operation(4).unwrap();
        assert!(covered == 256 && matches!(op, Op::Publish { count: PUBLISH_MESSAGES_MAX, .. }));
        assert!(Queue::default().operation(4).is_none());
    }

    #[test]
    fn an_operation_on_its_way_is_recognised_and_not_written_twice() {
        let q = queue(10, &[1, 2, 3, 4]);
        let (_, op) = queue(10, &[1, 2]).operation(4).unwrap();
        assert_eq!(q.on_its_way(4, &[[9; 32], op.hash()]), Some(13));
        assert_eq!(q.on_its_way(5, &[op.hash()]), None, "another dataset");
        assert_eq!(q.on_its_way(4, &[]), None);
    }
}
