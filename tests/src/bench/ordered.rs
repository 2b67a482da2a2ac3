//! Operations ordered a second, and the time one small batch takes.

use super::chain::Network;
use super::evidence::resident;
use super::failed::BenchError;
use super::http::Connection;
use super::process::CpuMeter;
use super::supply::{Ready, Supply};
use concordat_broker::config::RpcAddr;
use concordat_broker::ledger::follow::follow;
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::limits::CLIENT_WINDOW_BATCHES;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// After how long without progress the lowest open batch is sent again, as the production writer does.
const RESEND: Duration = Duration::from_secs(1);

/// What came of a throughput measurement.
#[derive(Debug)]
pub struct Throughput {
    /// Accepted operations a second.
    pub per_second: f64,
    /// Accepted operations in the measured stretch.
    pub operations: u64,
    /// Its length, seconds.
    pub seconds: f64,
    /// Blocks in it.
    pub blocks: u64,
    /// Percent of one core by kind of process.
    pub cpu: Vec<(String, f64)>,
    /// By how much the resident memory of the largest application grew in it, MB.
    pub growth_mb: f64,
}

/// When entries came back, and how many were accepted.
#[derive(Debug, Default)]
struct Tally {
    /// Arrival of each frame of the first node, with the operations accepted by all nodes until then.
    marks: Vec<(Instant, u64)>,
    accepted: u64,
    refused: Option<(u16, u64)>,
}

/// Length of a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    /// Before counting begins.
    pub warm_up: Duration,
    /// Counted.
    pub measured: Duration,
}

/// Sends every supply with at most two open batches a writer, and counts the operations whose accepted verdicts come
/// back from the writers' own nodes.
pub async fn throughput(
    network: &mut Network,
    supplies: Vec<Supply>,
    stretch: Stretch,
) -> Result<Throughput, BenchError> {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let mut tasks = JoinSet::new();
    let mut by_node: BTreeMap<usize, BTreeMap<String, watch::Sender<u64>>> = BTreeMap::new();
    let mut writers = Vec::new();
    for supply in supplies {
        let (tx, rx) = watch::channel(0);
        by_node.entry(supply.agency).or_default().insert(supply.writer.to_string(), tx);
        writers.push((network.node_of(supply.agency).rpc.clone(), supply, rx));
    }
    for (place, senders) in by_node {
        let client = network.node_of(place).client.clone();
        let from = client.head().await?.height + 1;
        tasks.spawn(count(client.path().to_owned(), from, place == 0, senders, Arc::clone(&tally)));
    }
    let meter_groups = network.groups();
    let mut sending = JoinSet::new();
    for (rpc, supply, rx) in writers {
        sending.spawn(send_all(rpc, supply, rx));
    }
    run_until(network, &mut sending, stretch.warm_up).await?;
    let meter = CpuMeter::start(meter_groups);
    let (begun, before) = (Instant::now(), resident(network).0);
    run_until(network, &mut sending, stretch.measured).await?;
    let (cpu, ended) = (meter.stop(), Instant::now());
    let growth_mb = resident(network).0 - before;
    sending.abort_all();
    tasks.abort_all();
    let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((code, index)) = tally.refused {
        return Err(BenchError::refused(format!("op:{index}"), format!("{} ({code})", codes::text(code))));
    }
    rate(&tally.marks, begun, ended, cpu).map(|t| Throughput { growth_mb, ..t })
}

/// Waits, while every process lives and no writer fails. Ends early when every supply is used up.
async fn run_until(
    network: &mut Network,
    sending: &mut JoinSet<Result<(), BenchError>>,
    length: Duration,
) -> Result<(), BenchError> {
    let end = tokio::time::Instant::now() + length;
    let mut look = tokio::time::interval(Duration::from_millis(500));
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(end) => return Ok(()),
            _ = look.tick() => network.check()?,
            done = sending.join_next() => match done {
                None => return Ok(()),
                Some(Ok(result)) => result?,
                Some(Err(e)) => return Err(BenchError::refused("sending", e)),
            },
        }
    }
}

fn rate(
    marks: &[(Instant, u64)],
    begun: Instant,
    ended: Instant,
    cpu: Vec<(String, f64)>,
) -> Result<Throughput, BenchError> {
    let inside: Vec<_> = marks.iter().filter(|(at, _)| (begun..=ended).contains(at)).collect();
    let (Some(first), Some(last)) = (inside.first(), inside.last()) else {
        return Err(BenchError::refused("measuring", "no block came in the measured time"));
    };
    let seconds = last.0.duration_since(first.0).as_secs_f64();
    let operations = last.1 - first.1;
    if seconds <= 0.0 || operations == 0 {
        return Err(BenchError::refused(
            "measuring",
            "fewer than two blocks with operations came in the measured time",
        ));
    }
    let blocks = inside.len() as u64 - 1;
    Ok(Throughput { per_second: operations as f64 / seconds, operations, seconds, blocks, cpu, growth_mb: 0.0 })
}

/// Follows one node, as its broker does: own writers' entries only.
async fn count(
    socket: std::path::PathBuf,
    from: u64,
    marks: bool,
    senders: BTreeMap<String, watch::Sender<u64>>,
    tally: Arc<Mutex<Tally>>,
) {
    let mut frames = follow(socket, from, senders.keys().cloned().collect());
    loop {
        let frame = frames.next_frame().await;
        let at = Instant::now();
        let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut accepted, mut refused) = (0, None);
        for (index, entry) in &frame.entries {
            newest.insert(&entry.writer, entry.seq);
            if entry.verdict == Verdict::Accepted {
                accepted += 1;
            } else {
                refused = refused.or(Some((entry.code, *index)));
            }
        }
        {
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.accepted += accepted;
            tally.refused = tally.refused.or(refused);
            if marks {
                let total = tally.accepted;
                tally.marks.push((at, total));
            }
        }
        for (writer, seq) in newest {
            if let Some(sender) = senders.get(writer) {
                sender.send_replace(seq);
            }
        }
    }
}

/// One writer: at most two batches open, the lowest sent again after a second without progress.
async fn send_all(rpc: RpcAddr, supply: Supply, mut committed: watch::Receiver<u64>) -> Result<(), BenchError> {
    let mut connection = Connection::new(&rpc);
    let (mut sent, mut done) = (0, 0);
    while done < supply.batches.len() {
        while sent < supply.batches.len() && sent < done + CLIENT_WINDOW_BATCHES as usize {
            submit(&mut connection, &supply.batches[sent]).await?;
            sent += 1;
        }
        let last = supply.batches[done].last_seq;
        let reached = async { committed.wait_for(|seq| *seq >= last).await.map(|seq| *seq) };
        match tokio::time::timeout(RESEND, reached).await {
            Ok(Ok(seq)) => {
                done += supply.batches[done..sent].iter().take_while(|b| b.last_seq <= seq).count();
            }
            Ok(Err(_)) => return Ok(()),
            Err(_) => submit(&mut connection, &supply.batches[done]).await?,
        }
    }
    Ok(())
}

/// Hands a batch in. "Known already", "busy" and "window full" mean: look at the ledger later.
async fn submit(connection: &mut Connection, batch: &Ready) -> Result<(), BenchError> {
    let answer =
        connection.submit("broadcast_tx_sync", &batch.tx).await.map_err(|e| BenchError::io("CometBFT's RPC", e))?;
    let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = value["result"]["code"].as_u64().unwrap_or_default();
    let later = [codes::OK, codes::BUSY, codes::WINDOW_FULL, codes::STALE].iter().any(|c| u64::from(*c) == code);
    if later { Ok(()) } else { Err(BenchError::refused("a batch", &value["result"])) }
}

/// Waits until the log no longer grows.
pub async fn drained(network: &Network) -> Result<(), BenchError> {
    let mut before = 0;
    for _ in 0..30 {
        let now = network.node_of(0).client.head().await?.log_size;
        if now == before {
            return Ok(());
        }
        before = now;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    Err(BenchError::Late { what: "an empty mempool".into(), seconds: 60 })
}

/// Sends one small batch after another, each when the one before is committed and `rest` has passed, and returns the
/// milliseconds from handing it in to its accepted verdict at the writer's own node.
pub async fn latency(network: &Network, supply: &Supply, rest: Duration) -> Result<Vec<f64>, BenchError> {
    let node = network.node_of(supply.agency);
    let from = node.client.head().await?.height + 1;
    let mut frames = follow(node.client.path(), from, vec![supply.writer.to_string()]);
    let mut connection = Connection::new(&node.rpc);
    let mut samples = Vec::new();
    for batch in &supply.batches {
        tokio::time::sleep(rest).await;
        let begun = Instant::now();
        submit(&mut connection, batch).await?;
        let accepted = async {
            loop {
                let frame = frames.next_frame().await;
                if let Some((_, entry)) = frame.entries.into_iter().find(|(_, e)| e.seq == batch.last_seq) {
                    return entry;
                }
            }
        };
        let late = |_| BenchError::Late { what: "a commit".into(), seconds: 10 };
        let entry = tokio::time::timeout(Duration::from_secs(10), accepted).await.map_err(late)?;
        if entry.verdict != Verdict::Accepted {
            return Err(BenchError::refused("a small batch", codes::text(entry.code)));
        }
        samples.push(begun.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_counts_from_frame_to_frame_inside_the_measured_time() {
        let t = Instant::now();
        let at = |ms: u64| t + Duration::from_millis(ms);
        let marks = [(at(0), 50), (at(100), 100), (at(600), 300), (at(1_100), 1_100), (at(1_600), 9_000)];
        let found = rate(&marks, at(50), at(1_500), Vec::new()).unwrap();
        assert_eq!((found.operations, found.blocks), (1_000, 2));
        assert!((found.per_second - 1_000.0).abs() < 1e-6);
        assert!(rate(&marks, at(50), at(90), Vec::new()).is_err());
        assert!(rate(&marks, at(50), at(150), Vec::new()).is_err(), "one block is no rate");
    }
}
