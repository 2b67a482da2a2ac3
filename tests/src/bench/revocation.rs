//! How long data still goes out after a suspension was sent, under load; also with one validator killed.

use super::city::{AGREEMENT, City, PURPOSE};
use super::failed::BenchError;
use super::http::Connection;
use super::query::{Clerk, DATASET};
use super::report::{Results, percentile};
use concordat_broker::keys::{self, KeyFolder};
use concordat_broker::ledger::acts::sign_act;
use concordat_broker::ledger::node_client::NodeClient;
use concordat_cli::commands::agreement::{Side, approve_as};
use concordat_protocol::acts::{ActBody, ApprovalKind};
use concordat_protocol::ids::AgreementId;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Clients that ask at the same time.
const CLIENTS: usize = 128;
/// Answers that every round has before its suspension.
const BEFORE: u64 = 2_000;
/// How long a round may take, seconds.
const WITHIN: u64 = 60;
/// The validator that is killed: neither of the parties.
const KILLED: &str = "transport";

/// The last release of a round.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    ms: f64,
    blocks: u64,
}

/// What a client saw: when each of its last answers came, and at which height its operation stands.
type Seen = Vec<(Instant, u64)>;

/// Adds the rows `revocation_to_last_release*`: the worst of several rounds, and the median.
pub async fn rows(city: &City, all: &Arc<Vec<String>>, quick: bool, results: &mut Results) -> Result<(), BenchError> {
    let rounds = if quick { 2 } else { 10 };
    for name in ["revocation_to_last_release", "revocation_to_last_release_3_of_4v"] {
        if name.ends_with("4v") {
            city.kill_node(KILLED)?;
        }
        let mut found = Vec::new();
        for _ in 0..rounds {
            found.push(round(city, all, if quick { BEFORE / 20 } else { BEFORE }).await?);
        }
        let took: Vec<f64> = found.iter().map(|l| l.ms).collect();
        results.add(name, percentile(&took, 1.0), "ms", None);
        results.add(&format!("{name}_p50"), percentile(&took, 0.5), "ms", None);
        let blocks = found.iter().map(|l| l.blocks).max().unwrap_or_default();
        results.add(&format!("{name}_blocks"), blocks as f64, "blocks", None);
    }
    Ok(())
}

/// Load, a suspension, the last release, and the agreement in force again.
async fn round(city: &City, all: &Arc<Vec<String>>, before: u64) -> Result<Last, BenchError> {
    let failed = |e: concordat_cli::failure::Failure| BenchError::refused("the suspension", e);
    let clerk = Clerk::of(city)?;
    // The provider's executor learns that the agreement is in force again a moment after its node.
    let begun = Instant::now();
    while !ask(&clerk, &mut Connection::new(clerk.addr()), all, 0).await?.0 {
        if begun.elapsed() > Duration::from_secs(WITHIN) {
            return Err(BenchError::Late { what: "a first answer".into(), seconds: WITHIN });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answered = Arc::new(AtomicU64::new(0));
    let mut asking = JoinSet::new();
    for i in 0..CLIENTS {
        let (clerk, all, answered) = (clerk.clone(), Arc::clone(all), Arc::clone(&answered));
        asking.spawn(async move { until_denied(&clerk, &all, i, &answered).await });
    }
    let police = Side::open(&city.dir("police")).map_err(failed)?;
    let agreement = AgreementId::new(AGREEMENT).map_err(|e| BenchError::refused("the agreement's name", e))?;
    let act = suspension(&police, &agreement).await?;
    let node = NodeClient::new(police.cfg.node_socket());
    let end = Instant::now() + Duration::from_secs(WITHIN);
    while answered.load(Ordering::SeqCst) < before {
        if asking.len() < CLIENTS || Instant::now() > end {
            return Err(BenchError::Late { what: format!("{before} answers before a suspension"), seconds: WITHIN });
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        if let Some(ended) = asking.try_join_next() {
            ended.map_err(|e| BenchError::refused("a client", e))??;
            return Err(BenchError::refused("a query", "it was denied before the suspension"));
        }
    }
    let height = node.head().await?.height;
    let sent = Instant::now();
    let taken = police.api.post_bytes("/admin/v1/acts", "application/cbor", act).await.map_err(failed)?;
    let mut last = Last::default();
    loop {
        let left = tokio::time::timeout_at(end.into(), asking.join_next()).await;
        let late =
            || BenchError::Late { what: "the denial of every client after a suspension".into(), seconds: WITHIN };
        let Some(ended) = left.map_err(|_| late())? else { break };
        for (at, of) in ended.map_err(|e| BenchError::refused("a client", e))?? {
            if at > sent {
                last.ms = last.ms.max(at.duration_since(sent).as_secs_f64() * 1e3);
            }
            last.blocks = last.blocks.max(of.saturating_sub(height));
            // The law itself, which no figure excuses.
            if Some(of) >= taken["height"].as_u64() {
                return Err(BenchError::refused("the suspension", format!("a release at height {of} came after it")));
            }
        }
    }
    resume(city, &police, &agreement).await.map_err(failed)?;
    Ok(last)
}

/// One client: it asks until it is denied, and remembers its last answers.
async fn until_denied(clerk: &Clerk, all: &[String], first: usize, answered: &AtomicU64) -> Result<Seen, BenchError> {
    let (mut connection, mut seen, mut at) = (Connection::new(clerk.addr()), Seen::new(), first);
    loop {
        at += CLIENTS;
        let (released, said) = ask(clerk, &mut connection, all, at).await?;
        if !released {
            return Ok(seen);
        }
        seen.push((Instant::now(), said["height"].as_u64().unwrap_or(u64::MAX)));
        answered.fetch_add(1, Ordering::SeqCst);
        if seen.len() > 64 {
            seen.drain(..32);
        }
    }
}

/// One query: whether it was released or denied, and the answer.
async fn ask(
    clerk: &Clerk,
    connection: &mut Connection,
    all: &[String],
    at: usize,
) -> Result<(bool, serde_json::Value), BenchError> {
    let body = json!({"dataset": DATASET, "purpose": PURPOSE, "clause": format!("{AGREEMENT}/C1"),
        "where": {"stop_id": {"eq": all[at % all.len()]}}, "limit": 1});
    let answer = connection.post("/v1/queries", clerk.headers(), body.to_string().as_bytes()).await;
    let answer = answer.map_err(|e| BenchError::io("the gateway", e))?;
    let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match answer.status {
        200 => Ok((true, said)),
        403 => Ok((false, said)),
        _ => Err(BenchError::refused("a query", said)),
    }
}

/// The signed act, ready to be sent.
async fn suspension(side: &Side, agreement: &AgreementId) -> Result<Vec<u8>, BenchError> {
    let failed = |e: concordat_cli::failure::Failure| BenchError::refused("the suspension", e);
    let key = KeyFolder::of(&side.cfg).signing(keys::SECURITY).map_err(|e| BenchError::refused("the key", e))?;
    let version = side.newest(agreement).await.map_err(failed)?["version"].as_u64().unwrap_or_default();
    let counters = side.api.get(&format!("/admin/v1/keys/{}/counters", key.key_id())).await.map_err(failed)?;
    let counter = counters["urgent"].as_u64().unwrap_or_default() + 1;
    let body = ActBody::Suspend { agreement: agreement.clone(), version, reason: [7; 32] };
    Ok(sign_act(&side.cfg.chain, &side.cfg.agency, &key, counter, body)?)
}

/// Both sides resume, and the consumer's node knows it.
async fn resume(city: &City, police: &Side, agreement: &AgreementId) -> Result<(), concordat_cli::failure::Failure> {
    let court = Side::open(&city.dir("court"))?;
    court.reaches(agreement, "suspended").await?;
    for (side, role) in [(police, "data-steward"), (police, "legal"), (&court, "legal")] {
        approve_as(side, agreement, role, ApprovalKind::Resume).await?;
    }
    police.reaches(agreement, "active").await?;
    court.reaches(agreement, "active").await
}
