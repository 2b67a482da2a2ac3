//! From the commit of a change at the source to the application of another agency that follows the feed.

use super::postgres::MAPPING;
use super::{Amount, PROVIDER, document};
use crate::city::City;
use crate::failed::BenchError;
use crate::feed::receive::{self, Events};
use crate::report::{Results, percentile};
use concordat_tests::harness::Cluster;
use std::process::Stdio;
use std::time::{Duration, Instant};

const AGREEMENT: &str = "AGR-2026-0903";
const CONSUMER: &str = "transport";
/// How long the adapter may take until its first change went through.
const SOON: Duration = Duration::from_secs(30);
/// Between two changes: each is on its way alone.
const REST: Duration = Duration::from_millis(40);

const DOCUMENT: &str = r#"agreement: AGR-2026-0903
version: 1
paper: {title: "Benchmark", sha256: "0000000000000000000000000000000000000000000000000000000000000903"}
assigner: org:grid
assignee: org:transport
target: ds:grid/bench-live@1
valid: {from: 2020-01-01T00:00:00Z, until: 2090-01-01T00:00:00Z}
approvals: {assigner: [legal, data-steward], assignee: [legal]}
clauses:
- id: F1
  text: The benchmark may follow the meters.
  effect: permit
  assignee: {org: org:transport}
  actions: [subscribe]
  evidence: {bounded: {max_lag: 2s}}
  purpose: purp:bench
  legal_basis: "Measuring the system"
  duties:
  - {type: fields, allow: [id, feeder, mw, time]}
"#;

/// Milliseconds from before the statement that inserts a row to its message at the consumer's application.
pub(super) async fn changes(
    city: &City,
    cluster: &Cluster,
    amount: Amount,
    results: &mut Results,
) -> Result<(), BenchError> {
    let text = format!(
        "adapter: bench-live\nkind: postgres-changes\nconnect: {{dsn: file:keys/bench.uri, tls: off}}\n\
         into: ds:{PROVIDER}/bench-live@1\ntable: public.live\npublication: bench\nslot: bench\n{MAPPING}pace: max\n"
    );
    document(city, "bench-live", &text)?;
    city.agree(AGREEMENT, DOCUMENT, PROVIDER, CONSUMER).await?;
    let subscription = receive::default_subscription(city, AGREEMENT).await?;
    let mut events = Events::open(city, &subscription).await?;
    let dir = city.dir(PROVIDER).to_string_lossy().into_owned();
    let command = city.command(&["adapter", "run", "bench-live", "--quiet", "--dir", &dir]);
    let mut command = tokio::process::Command::from(command);
    let running = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn();
    let mut running = running.map_err(|e| BenchError::io("starting an adapter", e))?;
    let mut session = cluster.session().map_err(|e| BenchError::refused("PostgreSQL", e))?;
    let mut took = Vec::new();
    // The first one waits for the slot and the first look.
    for n in 0..=amount.changes {
        let begun = Instant::now();
        let insert = format!("INSERT INTO live VALUES ({n}, 'F1', 1.5, now())");
        session.run(&insert).map_err(|e| BenchError::refused("PostgreSQL", e))?;
        let id = n.to_string();
        let came = tokio::time::timeout(SOON, async {
            loop {
                if events.next().await?.iter().any(|m| m["data"]["id"] == id.as_str()) {
                    return Ok::<Instant, BenchError>(Instant::now());
                }
            }
        });
        let came = came.await.map_err(|_| BenchError::Late { what: "a change".into(), seconds: SOON.as_secs() })??;
        if n > 0 {
            took.push((came - begun).as_secs_f64() * 1e3);
        }
        tokio::time::sleep(REST).await;
    }
    events.finish().await?;
    let _ = running.kill().await;
    for (tag, share) in [("p50", 0.5), ("p99", 0.99)] {
        let base = format!("feed_{tag}_ms");
        results.add(&format!("postgres_change_{tag}_ms"), percentile(&took, share), "ms", Some(&base));
    }
    Ok(())
}
