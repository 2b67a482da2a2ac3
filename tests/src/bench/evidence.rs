//! What the ledger's evidence takes: bytes a chain, complete lists, replay and restart.

use super::chain::Network;
use super::failed::BenchError;
use super::http::Connection;
use super::ordered;
use super::process::Process;
use super::report::{Results, percentile};
use super::supply::{self, Amount, LISTED_TAG, Licence};
use concordat_protocol::node::{NodeReply, NodeRequest};
use concordat_protocol::receipt::Path;
use std::time::{Duration, Instant};

/// How long a node may take to read a million operations again.
const REPLAY_SECONDS: u64 = 300;
/// Times a thing is measured that takes milliseconds.
const ROUNDS: usize = 9;
/// Batches that may be needed until a closed run is in state.
const BATCHES: usize = 200;

/// Everything that is measured on a loaded network of one validator after the load.
pub async fn after_load(
    network: &mut Network,
    results: &mut Results,
    quiet: &[Licence],
    quick: bool,
) -> Result<(), BenchError> {
    ordered::drained(network).await?;
    chain_bytes(network, results).await?;
    // A short run does not fill a subject run.
    if !quick {
        enters(network, quiet).await?;
        list(network, results).await?;
    }
    restarts(network, results).await
}

/// Bytes of CometBFT's blocks an operation, and what they are.
async fn chain_bytes(network: &Network, results: &mut Results) -> Result<(), BenchError> {
    let node = network.node_of(0);
    let head = node.client.head().await?;
    let mut connection = Connection::new(&node.rpc);
    let (mut blocks, mut bytes, mut txs) = (0.0, 0.0, 0.0);
    let mut to = head.height;
    while to > 0 {
        let from = to.saturating_sub(19).max(1);
        let path = format!("/blockchain?minHeight={from}&maxHeight={to}");
        let answer = connection.get(&path).await.map_err(|e| BenchError::io("CometBFT's RPC", e))?;
        let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let metas = value["result"]["block_metas"].as_array().cloned().unwrap_or_default();
        let number = |v: &serde_json::Value| v.as_str().and_then(|s| s.parse::<f64>().ok()).unwrap_or_default();
        for meta in &metas {
            blocks += 1.0;
            bytes += number(&meta["block_size"]);
            txs += number(&meta["num_txs"]);
        }
        to = from - 1;
    }
    let operations = head.log_size as f64;
    let batches = (txs - blocks).max(1.0);
    results.add("chain_bytes_per_op", bytes / operations, "bytes", None);
    // What every block has whatever it holds: header, commit, evidence, tick. Taken from the smallest blocks there are.
    results.add("chain_ops_per_batch", operations / batches, "operations", None);
    results.add("chain_op_bytes", super::supply::operation_bytes() as f64, "bytes", Some("chain_bytes_per_op"));
    let store = std::fs::metadata(network.ledger_store(0)).map_or(0, |m| m.len());
    results.add("ledger_store_bytes_per_op", store as f64 / operations, "bytes", Some("chain_bytes_per_op"));
    Ok(())
}

/// Small batches until the first run is in state: a run enters some blocks after it closed, and idle blocks do nothing.
async fn enters(network: &mut Network, quiet: &[Licence]) -> Result<(), BenchError> {
    let supplies = supply::sign(network, quiet, Amount { batches: BATCHES, bytes: 0 })?;
    for mut supply in supplies {
        while !supply.batches.is_empty() {
            if network.node_of(0).client.runs().await?.0 > 0 {
                return Ok(());
            }
            let later = supply.batches.split_off(supply.batches.len().min(10));
            ordered::latency(network, &supply, Duration::ZERO).await?;
            supply.batches = later;
        }
    }
    Ok(())
}

/// The complete list of 1,000 operations under one tag, with proof: asked for, and checked.
async fn list(network: &Network, results: &mut Results) -> Result<(), BenchError> {
    let client = &network.node_of(0).client;
    let (mut run_ms, mut check_ms, mut paths_ms) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let reply = client.ask(&NodeRequest::Run { number: 0, tag: LISTED_TAG, height: 0 }).await?;
        run_ms.push(ms(begun));
        let NodeReply::Run { body } = reply else {
            return Err(BenchError::refused(
                "the list of run 0",
                format!("{reply:?}").chars().take(200).collect::<String>(),
            ));
        };
        let begun = Instant::now();
        let (_, found) = body.verify(0, &LISTED_TAG).map_err(|e| BenchError::refused("the list of run 0", e))?;
        check_ms.push(ms(begun));
        if found.len() != 1_000 {
            return Err(BenchError::refused("the list of run 0", format!("it has {} entries", found.len())));
        }
        let begun = Instant::now();
        let proofs = client.proofs(body.height, found).await?;
        for proof in &proofs.entries {
            Path::of(proof.index, proof.size, &proof.path).map_err(|e| BenchError::refused("a log path", e))?;
        }
        paths_ms.push(ms(begun));
    }
    let median = |samples: &[f64]| percentile(samples, 0.5);
    results.add("list_1000_ms", median(&run_ms) + median(&paths_ms), "ms", None);
    results.add("list_1000_prove_ms", median(&run_ms), "ms", Some("list_1000_ms"));
    results.add("list_1000_verify_ms", median(&check_ms), "ms", Some("list_1000_ms"));
    results.add("list_1000_log_paths_ms", median(&paths_ms), "ms", Some("list_1000_ms"));
    Ok(())
}

/// A cold restart of application and CometBFT, and a replay of the whole chain into an empty store.
async fn restarts(network: &mut Network, results: &mut Results) -> Result<(), BenchError> {
    let before = network.node_of(0).client.head().await?;
    network.stop(0);
    let begun = Instant::now();
    network.restart(0).await?;
    reach(network, before.height + 1).await?;
    results.add("cold_restart_seconds", begun.elapsed().as_secs_f64(), "s", None);
    network.stop(0);
    let store = network.ledger_store(0);
    std::fs::remove_file(&store).map_err(|e| BenchError::io(format!("removing {}", store.display()), e))?;
    let begun = Instant::now();
    network.restart(0).await?;
    reach(network, before.height).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let after = network.node_of(0).client.head().await?;
    if after.log_size < before.log_size {
        return Err(BenchError::refused("the replay", format!("{} of {} operations", after.log_size, before.log_size)));
    }
    results.add("replay_million_seconds", seconds * 1e6 / before.log_size as f64, "s", None);
    results.add("replay_ops", before.log_size as f64 / seconds, "operations/s", Some("ordered_ops_1v"));
    Ok(())
}

async fn reach(network: &mut Network, height: u64) -> Result<(), BenchError> {
    let end = Instant::now() + Duration::from_secs(REPLAY_SECONDS);
    while network.node_of(0).client.head().await.map_or(0, |h| h.height) < height {
        network.check()?;
        if Instant::now() >= end {
            return Err(BenchError::Late { what: format!("height {height} after a restart"), seconds: REPLAY_SECONDS });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn ms(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1_000.0
}

/// Resident memory of a network's applications and CometBFTs now, MB: the largest of each kind.
pub fn resident(network: &Network) -> (f64, f64) {
    let most = |pids: &mut dyn Iterator<Item = u32>| pids.map(super::process::resident_mb).fold(0.0, f64::max);
    let app = most(&mut network.nodes.iter().filter_map(|n| n.app.as_ref().map(Process::pid)));
    (app, most(&mut network.nodes.iter().map(|n| n.comet.pid())))
}
