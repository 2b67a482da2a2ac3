//! Which figures are measured, in which order.

use super::adapters;
use super::bounded;
use super::chain::{Kind, Network, Programs, Spec};
use super::city::City;
use super::decisions;
use super::evidence;
use super::failed::BenchError;
use super::feed;
use super::kvstore;
use super::ordered::{self, Stretch, Throughput};
use super::process::{Process, peak_mb};
use super::query::{Clerk, holding_lookups};
use super::receipt;
use super::report::{Results, percentile};
use super::revocation;
use super::supply::{self, Amount, Licence};
use super::tessera;
use concordat_cli::layout::CometSettings;
use concordat_cli::servers::{self, Server};
use concordat_protocol::limits::CLIENT_WINDOW_BATCHES;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of operations in a batch: what the production writer closes a batch at.
const BATCH_BYTES: usize = 64_000;
/// Writers of the one agency that has a validator.
const WRITERS_1V: usize = 16;
/// Writers of each of four agencies.
const WRITERS_4V: usize = 6;
/// More operations a second than this are not signed in advance.
const SUPPLY_PER_SECOND: usize = 160_000;
/// Operations in a batch of [`BATCH_BYTES`].
const OPS_A_BATCH: usize = 980;
/// Clients that ask at the same time.
const CLIENTS: usize = 512;
/// Clients that ask for many keys at the same time.
const BATCH_CLIENTS: usize = 128;
/// Keys in such a query.
const KEYS: usize = 64;
/// Times of consensus of what is measured.
const COMET: CometSettings = CometSettings::BASE;

/// A part that may be run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// One validator.
    OneValidator,
    /// Four validators, and the commit latency.
    FourValidators,
    /// Strict queries in the demo's city.
    Queries,
    /// Publishing, following and fan-out in the demo's city.
    Feeds,
    /// Decisions on agreements, without servers.
    Decisions,
    /// Adapters, from their sources to the broker's acknowledgement.
    Adapters,
}

/// What was asked for.
#[derive(Debug)]
pub struct Plan {
    /// Where the results go.
    pub out: Option<PathBuf>,
    /// Half a minute.
    pub quick: bool,
    /// Only these parts; all when empty.
    pub only: Vec<Part>,
    /// The program to measure.
    pub program: Option<PathBuf>,
}

impl Plan {
    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
    /// A measured stretch: short in a quick run.
    fn stretch(&self, seconds: u64) -> Stretch {
        let (warm_up, measured) = if self.quick { (1, 2) } else { (3, seconds) };
        Stretch { warm_up: Duration::from_secs(warm_up), measured: Duration::from_secs(measured) }
    }
}

/// Measures what was asked for and writes the results.
pub async fn run(plan: &Plan) -> Result<(), BenchError> {
    let programs = programs(plan)?;
    let mut results = Results::begin(command(), plan.quick);
    settings(&mut results);
    let m = &results.machine;
    println!("{} cores of {}, load {:.2}, commit {}", m.cores, m.cpu, m.load_before, results.commit);
    if plan.has(Part::OneValidator) {
        one_validator(plan, &programs, &mut results).await?;
    }
    if plan.has(Part::FourValidators) {
        four_validators(plan, &programs, &mut results).await?;
    }
    if plan.has(Part::Queries) {
        queries(plan, &programs, &mut results).await?;
    }
    if plan.has(Part::Decisions) {
        decisions::run(plan.quick, &mut results)?;
    }
    if plan.has(Part::Feeds) {
        feed::run(plan.quick, &programs, &mut results).await?;
    }
    if plan.has(Part::Adapters) {
        adapters::run(plan.quick, &programs, &mut results).await?;
    }
    match &plan.out {
        Some(out) => results.write(out),
        None => Ok(()),
    }
}

fn command() -> String {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(first) = words.first_mut() {
        *first = "concordat-bench".into();
    }
    let typed = words.join(" ");
    if typed == "concordat-bench run --out docs/benchmarks.json" { format!("make bench ({typed})") } else { typed }
}

fn programs(plan: &Plan) -> Result<Programs, BenchError> {
    let beside = std::env::current_exe().map(|own| own.with_file_name("concordat"));
    let beside = beside.map_err(|e| BenchError::io("this program's own path", e))?;
    let concordat = plan.program.clone().unwrap_or(beside);
    if !concordat.is_file() {
        let why = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(BenchError::io(format!("{} (build it, or name it with --program)", concordat.display()), why));
    }
    Ok(Programs { concordat, cometbft: servers::find(Server::CometBft)? })
}

fn settings(results: &mut Results) {
    results.set("CometBFT", format!("{}, {COMET:?} (milliseconds), block 1 MB", Server::CometBft.version()));
    results.set(
        "operations",
        format!("query with one tag, about 64 bytes; batches of {BATCH_BYTES} bytes, window {CLIENT_WINDOW_BATCHES}"),
    );
    results.set("writers", format!("{WRITERS_1V} at one validator; {WRITERS_4V} at each of four"));
    results.set(
        "baseline",
        format!("cometbft start --proxy_app=kvstore, {} keep-alive connections", kvstore::CONNECTIONS),
    );
    results.set(
        "queries",
        format!("{CLIENTS} clients with one key each; {BATCH_CLIENTS} clients with {KEYS} keys a query"),
    );
    results.set("streams", "nats-server with sync_interval always; every store with its production durability");
}

fn throughput_rows(results: &mut Results, name: &str, t: &Throughput, baseline: Option<&str>) {
    results.add(name, t.per_second, "operations/s", baseline);
    let per_block = t.operations as f64 / t.blocks.max(1) as f64;
    println!("  {} operations in {:.1} s, {} blocks of {per_block:.0}", t.operations, t.seconds, t.blocks);
    cpu_rows(results, name, &t.cpu);
}

/// Processor time by kind of process over the stretch of a row.
pub fn cpu_rows(results: &mut Results, name: &str, cpu: &[(String, f64)]) {
    for (group, percent) in cpu {
        results.add(&format!("cpu_{}_{name}", group.replace([' ', '-'], "_")), *percent, "% of a core", None);
    }
}

fn memory_rows(results: &mut Results, network: &Network, tag: &str, baseline: Option<&str>) {
    let most = |pids: &mut dyn Iterator<Item = u32>| pids.map(peak_mb).fold(0.0, f64::max);
    let comet = most(&mut network.nodes.iter().map(|n| n.comet.pid()));
    results.add(&format!("memory_cometbft_{tag}"), comet, "MB", baseline);
    let app = most(&mut network.nodes.iter().filter_map(|n| n.app.as_ref().map(Process::pid)));
    if app > 0.0 {
        results.add(&format!("memory_application_{tag}"), app, "MB", baseline);
    }
}

async fn baseline(plan: &Plan, programs: &Programs, validators: &[&str]) -> Result<(Network, Throughput), BenchError> {
    let spec = Spec { kind: Kind::Kvstore, validators, others: &[], writers: 0, comet: COMET };
    let mut network = Network::start(programs, &spec).await?;
    let found = kvstore::throughput(&mut network, plan.stretch(10)).await?;
    Ok((network, found))
}

/// Operations ordered a second by the writers of these licences.
async fn loaded(
    plan: &Plan,
    network: &mut Network,
    licences: &[Licence],
    seconds: u64,
) -> Result<Throughput, BenchError> {
    let stretch = plan.stretch(seconds);
    let operations = SUPPLY_PER_SECOND * (stretch.warm_up + stretch.measured).as_secs() as usize;
    let batches = (operations / OPS_A_BATCH / licences.len().max(1)).max(4);
    let supplies = supply::sign(network, licences, Amount { batches, bytes: BATCH_BYTES })?;
    ordered::throughput(network, supplies, stretch).await
}

async fn one_validator(plan: &Plan, programs: &Programs, results: &mut Results) -> Result<(), BenchError> {
    let (network, found) = baseline(plan, programs, &["police"]).await?;
    throughput_rows(results, "kvstore_ops_1v", &found, None);
    memory_rows(results, &network, "kvstore_1v", None);
    drop(network);
    let spec = Spec {
        kind: Kind::Concordat,
        validators: &["police"],
        others: &["court"],
        writers: WRITERS_1V + 1,
        comet: COMET,
    };
    let mut network = Network::start(programs, &spec).await?;
    let (quiet, loud): (Vec<_>, Vec<_>) =
        supply::licence(&network).await?.into_iter().partition(|l| l.writer == WRITERS_1V);
    let found = loaded(plan, &mut network, &loud, 15).await?;
    throughput_rows(results, "ordered_ops_1v", &found, Some("kvstore_ops_1v"));
    memory_rows(results, &network, "1v", Some("memory_cometbft_kvstore_1v"));
    let millions = found.operations as f64 / 1e6;
    results.add("memory_growth_1v_per_million", found.growth_mb / millions.max(1e-6), "MB", None);
    evidence::after_load(&mut network, results, &quiet, plan.quick).await?;
    drop(network);
    let Some(tessera_program) = tessera_program() else {
        println!("  SKIPPED tessera: CONCORDAT_TESSERA names no program (make bench sets it)");
        return Ok(());
    };
    let (appended, cpu) = tessera::appends(programs, &tessera_program, plan.stretch(10)).await?;
    results.add("tessera_appends", appended, "operations/s", Some("ordered_ops_1v"));
    cpu_rows(results, "tessera_appends", &cpu);
    Ok(())
}

fn tessera_program() -> Option<PathBuf> {
    std::env::var_os("CONCORDAT_TESSERA").map(PathBuf::from).filter(|p| p.is_file())
}

async fn four_validators(plan: &Plan, programs: &Programs, results: &mut Results) -> Result<(), BenchError> {
    let validators = ["court", "grid", "police", "transport"];
    let samples = if plan.quick { 3 } else { 40 };
    let rest = Duration::from_millis(250);
    let (network, found) = baseline(plan, programs, &validators).await?;
    throughput_rows(results, "kvstore_ops_4v", &found, None);
    memory_rows(results, &network, "kvstore_4v", None);
    kvstore::drained(&network).await?;
    latency_rows(results, "kvstore_latency_4v", &kvstore::latency(&network, samples, rest).await?, "");
    drop(network);
    let spec =
        Spec { kind: Kind::Concordat, validators: &validators, others: &[], writers: WRITERS_4V + 1, comet: COMET };
    let mut network = Network::start(programs, &spec).await?;
    let licences = supply::licence(&network).await?;
    // The last writer of each agency is kept for the latency, so that its batches have no queue of their own before them.
    let (mut quiet, loud): (Vec<_>, Vec<_>) = licences.into_iter().partition(|l| l.writer == WRITERS_4V);
    quiet.truncate(1);
    let found = loaded(plan, &mut network, &loud, 15).await?;
    throughput_rows(results, "ordered_ops_4v", &found, Some("kvstore_ops_4v"));
    memory_rows(results, &network, "4v", Some("memory_cometbft_kvstore_4v"));
    ordered::drained(&network).await?;
    let amount = Amount { batches: 2 * samples as usize, bytes: 0 };
    for mut supply in supply::sign(&network, &quiet, amount)? {
        let later = supply.batches.split_off(samples as usize);
        let found = ordered::latency(&network, &supply, rest).await?;
        latency_rows(results, "commit_latency_4v", &found, "kvstore_latency_4v");
        // Another validator than the writer's own.
        network.stop(validators.len() - 1 - supply.agency.min(1));
        supply.batches = later;
        let found = ordered::latency(&network, &supply, rest).await?;
        latency_rows(results, "commit_latency_3_of_4v", &found, "commit_latency_4v");
    }
    Ok(())
}

fn latency_rows(results: &mut Results, name: &str, samples: &[f64], baseline: &str) {
    for (tag, share) in [("p50", 0.5), ("p99", 0.99)] {
        let base = format!("{baseline}_{tag}");
        results.add(&format!("{name}_{tag}"), percentile(samples, share), "ms", Some(&base));
    }
}

async fn queries(plan: &Plan, programs: &Programs, results: &mut Results) -> Result<(), BenchError> {
    let city = City::up(&programs.concordat).await?;
    let clerk = Clerk::of(&city)?;
    let all = Arc::new(clerk.keys(if plan.quick { 1_000 } else { 5_000 }).await?);
    let length = Duration::from_secs(if plan.quick { 1 } else { 4 });
    results.add("holding_lookups", holding_lookups(&city, &all, length)?, "queries/s", None);
    let clients = if plan.quick { CLIENTS / 8 } else { CLIENTS };
    let single = clerk.load(&city, &all, clients, 1, plan.stretch(20)).await?;
    results.add("query_strict_4v", single.per_second, "queries/s", Some("holding_lookups"));
    latency_rows(results, "query_strict_4v_latency", &single.latencies, "commit_latency_4v");
    single.shares.rows("query_strict_4v", results);
    cpu_rows(results, "query_strict_4v", &single.cpu);
    let batch = clerk.load(&city, &all, BATCH_CLIENTS, KEYS, plan.stretch(10)).await?;
    results.add("query_strict_4v_keys", batch.per_second * KEYS as f64, "keys/s", Some("query_strict_4v"));
    latency_rows(results, "query_strict_4v_keys_latency", &batch.latencies, "commit_latency_4v");
    cpu_rows(results, "query_strict_4v_keys", &batch.cpu);
    bounded::rows(&city, &all, plan.quick, results).await?;
    if let Some(key) = all.first() {
        receipt::rows(&city, &clerk, key, results).await?;
    }
    for (kind, pids) in city.groups() {
        let most = pids.into_iter().map(peak_mb).fold(0.0, f64::max);
        results.add(&format!("memory_{kind}_query"), most, "MB", None);
    }
    // Last, because it kills a validator.
    revocation::rows(&city, &all, plan.quick, results).await
}
