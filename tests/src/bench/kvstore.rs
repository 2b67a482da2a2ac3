//! The baseline: CometBFT's built-in key-value store, one operation a transaction, no signatures.

use super::chain::Network;
use super::failed::BenchError;
use super::http::Connection;
use super::ordered::{Stretch, Throughput};
use super::process::CpuMeter;
use concordat_broker::config::RpcAddr;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Keep-alive connections in all.
pub const CONNECTIONS: usize = 32;
/// How often the committed count is read.
const LOOK: Duration = Duration::from_millis(20);

/// A transaction as long as one of our operations with a tag.
fn transaction(connection: usize, n: u64) -> Vec<u8> {
    format!("{connection:04x}{n:012x}={n:047x}").into_bytes()
}

/// Sends transactions over [`CONNECTIONS`] connections spread over the nodes, and counts what is committed.
pub async fn throughput(network: &mut Network, stretch: Stretch) -> Result<Throughput, BenchError> {
    let mut sending = JoinSet::new();
    for c in 0..CONNECTIONS {
        let rpc = network.nodes[c % network.nodes.len()].rpc.clone();
        sending.spawn(send(rpc, c));
    }
    let mut look = Connection::new(&network.nodes[0].rpc);
    let mut marks = Vec::new();
    watch(network, &mut look, &mut marks, stretch.warm_up).await?;
    let from = marks.len();
    let meter = CpuMeter::start(network.groups());
    watch(network, &mut look, &mut marks, stretch.measured).await?;
    let cpu = meter.stop();
    sending.abort_all();
    let inside = marks.get(from..).unwrap_or_default();
    let (Some(first), Some(last)) = (inside.first(), inside.last()) else {
        return Err(BenchError::refused("measuring the baseline", "no block came"));
    };
    let (seconds, operations) = (last.0.duration_since(first.0).as_secs_f64(), last.1 - first.1);
    if operations == 0 {
        return Err(BenchError::refused("measuring the baseline", "nothing was committed"));
    }
    let blocks = inside.len() as u64 - 1;
    Ok(Throughput { per_second: operations as f64 / seconds, operations, seconds, blocks, cpu, growth_mb: 0.0 })
}

/// Notes each new committed count with its time.
async fn watch(
    network: &mut Network,
    look: &mut Connection,
    marks: &mut Vec<(Instant, u64)>,
    length: Duration,
) -> Result<(), BenchError> {
    let end = Instant::now() + length;
    while Instant::now() < end {
        let size = committed(look).await?;
        if marks.last().is_none_or(|(_, before)| *before != size) {
            marks.push((Instant::now(), size));
        }
        network.check()?;
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// How many transactions the store holds.
async fn committed(connection: &mut Connection) -> Result<u64, BenchError> {
    let answer = connection.get("/abci_info").await.map_err(|e| BenchError::io("CometBFT's RPC", e))?;
    size_of(&answer.body).ok_or_else(|| BenchError::refused("abci_info", String::from_utf8_lossy(&answer.body)))
}

fn size_of(body: &[u8]) -> Option<u64> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let data: serde_json::Value = serde_json::from_str(value["result"]["response"]["data"].as_str()?).ok()?;
    data["size"].as_u64()
}

async fn send(rpc: RpcAddr, connection: usize) {
    let mut open = Connection::new(&rpc);
    for n in 0.. {
        let accepted = match open.submit("broadcast_tx_sync", &transaction(connection, n)).await {
            Ok(answer) => find(&answer.body, b"\"code\":0"),
            Err(_) => false,
        };
        if !accepted {
            // A full mempool, or a connection that was closed.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn find(body: &[u8], what: &[u8]) -> bool {
    body.windows(what.len()).any(|w| w == what)
}

/// Waits until nothing more is committed.
pub async fn drained(network: &Network) -> Result<(), BenchError> {
    let mut connection = Connection::new(&network.nodes[0].rpc);
    let mut before = 0;
    for _ in 0..30 {
        let now = committed(&mut connection).await?;
        if now == before {
            return Ok(());
        }
        before = now;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    Err(BenchError::Late { what: "an empty mempool of the baseline".into(), seconds: 60 })
}

/// Milliseconds from handing a transaction in to its commit, one after another.
pub async fn latency(network: &Network, count: u64, rest: Duration) -> Result<Vec<f64>, BenchError> {
    let mut connection = Connection::new(&network.nodes[0].rpc);
    let mut samples = Vec::new();
    for n in 0..count {
        tokio::time::sleep(rest).await;
        let begun = Instant::now();
        let answer = connection.submit("broadcast_tx_commit", &transaction(CONNECTIONS, n)).await;
        let answer = answer.map_err(|e| BenchError::io("CometBFT's RPC", e))?;
        if answer.status != 200 {
            return Err(BenchError::refused("a transaction of the baseline", String::from_utf8_lossy(&answer.body)));
        }
        samples.push(begun.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_count_is_read_from_the_stores_own_words() {
        let body = br#"{"jsonrpc":"2.0","id":-1,"result":{"response":{"data":"{\"size\":1234}","version":"1"}}}"#;
        assert_eq!(size_of(body), Some(1234));
        assert_eq!(size_of(b"{}"), None);
        assert_eq!(transaction(3, 9).len(), 64);
    }
}
