//! Load that goes on whatever happens to the nodes, and what must be true afterwards.

use super::failed::BenchError;
use super::http::Connection;
use super::supply::{Ready, Supply};
use super::{Network, Node};
use concordat_broker::config::RpcAddr;
use concordat_broker::ledger::node_client::NodeClient;
use concordat_protocol::codes::Verdict;
use concordat_protocol::node::{HeadView, NodeReply, NodeRequest};
use concordat_protocol::ops::LogEntry;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a network may take until it goes on after a crash.
const RECOVERY: Duration = Duration::from_secs(90);
/// Without progress for so long the lowest open batch is sent again, to the next node.
const RESEND: Duration = Duration::from_millis(500);
/// Log entries a question.
const PART: u64 = 10_000;

/// A writer's load in the background. It keeps the production writer's rules: the same bytes again, never signed anew, the
/// lowest open batch and its successor, by turns to every node; the ledger's `last_seq` alone is truth.
pub struct Load {
    acknowledged: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
    last: u64,
}

impl Load {
    /// Begins to send.
    pub fn begin(network: &Network, supply: Supply) -> Self {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let nodes = network.nodes.iter().map(|n| (n.rpc.clone(), NodeClient::new(n.client.path()))).collect();
        let last = supply.batches.last().map_or(0, |b| b.last_seq);
        let task = tokio::spawn(send(nodes, supply, Arc::clone(&acknowledged)));
        Self { acknowledged, task, last }
    }

    /// The last operation that a node has said it holds.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until so many more operations are acknowledged, or all.
    pub async fn more(&self, count: u64) -> Result<(), BenchError> {
        let (want, end) = ((self.acknowledged() + count).min(self.last), Instant::now() + RECOVERY);
        while self.acknowledged() < want {
            if Instant::now() >= end {
                let what = format!("operation {want} (at {})", self.acknowledged());
                return Err(BenchError::Late { what, seconds: RECOVERY.as_secs() });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Stops sending and says up to where operations were acknowledged.
    pub fn stop(self) -> u64 {
        self.task.abort();
        self.acknowledged()
    }
}

async fn send(nodes: Vec<(RpcAddr, NodeClient)>, supply: Supply, acknowledged: Arc<AtomicU64>) {
    let mut open: Vec<Connection> = nodes.iter().map(|(rpc, _)| Connection::new(rpc)).collect();
    let (mut turn, mut sent, mut since) = (0, 0, Instant::now());
    loop {
        let (_, client) = &nodes[turn % nodes.len()];
        if let Ok(Some(view)) = client.writer(&supply.writer).await {
            let before = acknowledged.fetch_max(view.last_seq, Ordering::SeqCst);
            if view.last_seq > before {
                since = Instant::now();
            }
        }
        let done = acknowledged.load(Ordering::SeqCst);
        let lowest = supply.batches.partition_point(|b| b.last_seq <= done);
        if lowest == supply.batches.len() {
            return;
        }
        if since.elapsed() > RESEND {
            (turn, sent, since) = (turn + 1, lowest, Instant::now());
        }
        sent = sent.max(lowest);
        let node = turn % open.len();
        while sent < supply.batches.len().min(lowest + 2) {
            // Whatever is said, the ledger's answer is what counts.
            let _ = hand_in(&mut open[node], &supply.batches[sent]).await;
            sent += 1;
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

async fn hand_in(connection: &mut Connection, batch: &Ready) -> std::io::Result<()> {
    let said = tokio::time::timeout(Duration::from_secs(2), connection.submit("broadcast_tx_sync", &batch.tx)).await;
    said.map(|r| r.map(drop)).unwrap_or(Ok(()))
}

/// Newest height, size and app hash of a node.
pub async fn head(node: &Node) -> Option<HeadView> {
    node.client.head().await.ok()
}

/// Waits until every node has made so many more blocks than `from`, all with the same app hash at the same height.
pub async fn all_agree(network: &Network, from: u64) -> Result<HeadView, BenchError> {
    let end = Instant::now() + RECOVERY;
    loop {
        let mut heads = Vec::new();
        for node in &network.nodes {
            heads.extend(head(node).await);
        }
        let first = heads.first().cloned();
        if let Some(first) = first.filter(|f| heads.len() == network.nodes.len() && f.height > from) {
            let same = heads.iter().filter(|h| h.height == first.height);
            if let Some(other) = same.clone().find(|h| h.app_hash != first.app_hash) {
                return Err(BenchError::refused("equal app hashes", format!("{first:?} and {other:?}")));
            }
            if same.count() == heads.len() {
                return Ok(first);
            }
        }
        if Instant::now() >= end {
            let what = format!("one height above {from} at every node ({heads:?})");
            return Err(BenchError::Late { what, seconds: RECOVERY.as_secs() });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The app hash in every header that a node's CometBFT has, by height.
pub async fn app_hashes(node: &Node) -> Result<BTreeMap<u64, String>, BenchError> {
    let mut connection = Connection::new(&node.rpc);
    let mut found = BTreeMap::new();
    let mut to = super::height(&mut connection).await;
    while to > 0 {
        let from = to.saturating_sub(19).max(1);
        let path = format!("/blockchain?minHeight={from}&maxHeight={to}");
        let answer = connection.get(&path).await.map_err(|e| BenchError::io("CometBFT's RPC", e))?;
        let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        for meta in value["result"]["block_metas"].as_array().into_iter().flatten() {
            let header = &meta["header"];
            let height = header["height"].as_str().and_then(|h| h.parse().ok()).unwrap_or_default();
            found.insert(height, header["app_hash"].as_str().unwrap_or_default().to_owned());
        }
        to = from - 1;
    }
    Ok(found)
}

/// All log entries of a writer at a node, by index.
pub async fn entries(node: &Node, writer: &str) -> Result<Vec<(u64, LogEntry)>, BenchError> {
    let (mut found, mut from) = (Vec::new(), 0);
    loop {
        let reply = node.client.ask(&NodeRequest::Log { from, count: PART }).await?;
        let NodeReply::Log { entries, .. } = reply else {
            return Err(BenchError::refused("the log", format!("{reply:?}")));
        };
        if entries.is_empty() {
            return Ok(found);
        }
        let count = entries.len() as u64;
        let own = entries.into_iter().enumerate().map(|(i, e)| (from + i as u64, e));
        found.extend(own.filter(|(_, e)| e.writer == writer));
        from += count;
    }
}

/// What is wrong with a writer's history: every operation up to `acknowledged` stands in the log exactly once, in order and
/// accepted; what stands above it was sent, and nothing stands twice.
pub fn wrong(entries: &[(u64, LogEntry)], acknowledged: u64, sent: u64) -> Option<String> {
    for (i, (index, entry)) in entries.iter().enumerate() {
        let want = i as u64 + 1;
        if entry.seq != want {
            return Some(format!("op:{index} has number {} where {want} was due", entry.seq));
        }
        if entry.verdict != Verdict::Accepted {
            return Some(format!("op:{index} is {} ({})", entry.verdict, entry.code));
        }
    }
    let count = entries.len() as u64;
    if count < acknowledged {
        return Some(format!("{acknowledged} operations were acknowledged, {count} are there"));
    }
    (count > sent).then(|| format!("{sent} operations were sent, {count} are there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64) -> (u64, LogEntry) {
        let writer = "police/w0".to_owned();
        let (verdict, code) = (Verdict::Accepted, 0);
        (seq + 6, LogEntry { height: 1, tick_ms: 1, writer, incarnation: 1, seq, op_hash: [0; 32], verdict, code })
    }

    #[test]
    fn a_lost_a_doubled_and_an_invented_operation_are_found() {
        let good: Vec<_> = (1..=9).map(entry).collect();
        assert_eq!(wrong(&good, 9, 9), None);
        assert_eq!(wrong(&good, 7, 12), None, "sent and not acknowledged may be there");
        let mut lost = good.clone();
        lost.remove(4);
        assert!(wrong(&lost, 9, 9).is_some());
        assert!(wrong(&good[..8], 9, 9).is_some());
        let mut twice = good.clone();
        twice.insert(3, entry(3));
        assert!(wrong(&twice, 9, 9).is_some());
        assert!(wrong(&good, 5, 8).is_some(), "more than was ever sent");
        let mut refused = good;
        refused[2].1.verdict = Verdict::Refused;
        assert!(wrong(&refused, 9, 9).is_some());
    }
}
