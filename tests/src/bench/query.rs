//! Strict queries through the consumer's gateway.

use super::city::{AGREEMENT, City, PURPOSE};
use super::failed::BenchError;
use super::http::Connection;
use super::ordered::Stretch;
use super::process::CpuMeter;
use super::stages::{Shares, Sums};
use concordat_executor::holding::{Holding, Plan, SqliteHolding, SqliteOptions};
use concordat_executor::query::Query;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The dataset that is asked for.
pub const DATASET: &str = "ds:police/stops@1";

/// What came of a load of queries.
#[derive(Debug, Default)]
pub struct Load {
    /// Answered queries a second.
    pub per_second: f64,
    /// Milliseconds from question to answer.
    pub latencies: Vec<f64>,
    /// Percent of one core by kind of process.
    pub cpu: Vec<(String, f64)>,
    /// Where the time of a query goes.
    pub shares: Shares,
}

/// The clerk's gateway with what every request carries.
#[derive(Clone)]
pub struct Clerk {
    addr: concordat_broker::config::RpcAddr,
    headers: Arc<str>,
}

impl Clerk {
    /// A clerk of the consumer.
    pub fn of(city: &City) -> Result<Self, BenchError> {
        Self::from(city.clerk()?)
    }

    /// A person of the consumer, by where the gateway listens and the token.
    pub fn from((addr, token): (concordat_broker::config::RpcAddr, String)) -> Result<Self, BenchError> {
        let headers = format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n");
        Ok(Self { addr, headers: headers.into() })
    }

    /// Where the gateway listens.
    pub fn addr(&self) -> &concordat_broker::config::RpcAddr {
        &self.addr
    }

    /// Header lines of every request.
    pub fn headers(&self) -> &str {
        &self.headers
    }

    /// Asks for one record and returns the operation.
    pub async fn operation(&self, connection: &mut Connection, key: &str) -> Result<String, BenchError> {
        let body = json!({"dataset": DATASET, "purpose": PURPOSE, "clause": format!("{AGREEMENT}/C1"),
            "where": {"stop_id": {"eq": key}}, "limit": 1});
        let answer = self.ask(connection, body.to_string().as_bytes()).await?;
        let op = answer["operation"].as_str();
        op.map(str::to_owned).ok_or_else(|| BenchError::refused("a query", "its answer names no operation"))
    }

    /// Asks and returns the whole answer.
    pub async fn ask(&self, connection: &mut Connection, body: &[u8]) -> Result<Value, BenchError> {
        let answer =
            connection.post("/v1/queries", &self.headers, body).await.map_err(|e| BenchError::io("the gateway", e))?;
        if answer.status != 200 {
            return Err(BenchError::refused("a query", String::from_utf8_lossy(&answer.body)));
        }
        serde_json::from_slice(&answer.body).map_err(|e| BenchError::refused("the gateway's answer", e))
    }

    /// Numbers of stops that are held, at least `count`.
    pub async fn keys(&self, count: usize) -> Result<Vec<String>, BenchError> {
        let mut connection = Connection::new(&self.addr);
        let mut keys = BTreeSet::new();
        for month in 1..=12 {
            for first in [1, 4, 7, 10, 13, 16, 19, 22, 25] {
                let range = json!({"from": format!("2017-{month:02}-{first:02}T00:00:00Z"), "to": format!("2017-{month:02}-{:02}T00:00:00Z", first + 3)});
                let body = json!({"dataset": DATASET, "purpose": PURPOSE, "clause": format!("{AGREEMENT}/C1"),
                    "where": {"time": {"range": range}}, "select": ["stop_id"], "limit": 1000});
                let answer = self.ask(&mut connection, body.to_string().as_bytes()).await?;
                let rows = answer["rows"].as_array().cloned().unwrap_or_default();
                keys.extend(rows.iter().filter_map(|r| r["stop_id"].as_str().map(str::to_owned)));
                if keys.len() >= count {
                    return Ok(keys.into_iter().collect());
                }
            }
        }
        Err(BenchError::refused("finding keys", format!("{} stops were found, {count} are needed", keys.len())))
    }

    /// Asks with so many clients at a time, `keys` of `all` in each query, each query another choice.
    pub async fn load(
        &self,
        city: &City,
        all: &Arc<Vec<String>>,
        clients: usize,
        keys: usize,
        stretch: Stretch,
    ) -> Result<Load, BenchError> {
        let (counting, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let next = Arc::new(AtomicU64::new(0));
        let mut asking = JoinSet::new();
        for _ in 0..clients {
            let (clerk, all, next) = (self.clone(), Arc::clone(all), Arc::clone(&next));
            let (counting, stop) = (Arc::clone(&counting), Arc::clone(&stop));
            asking.spawn(async move { clerk.keep_asking(&all, keys, &next, &counting, &stop).await });
        }
        wait(&mut asking, stretch.warm_up).await?;
        let before = Sums::now(city).await?;
        let meter = CpuMeter::start(city.groups());
        let begun = Instant::now();
        counting.store(true, Ordering::SeqCst);
        wait(&mut asking, stretch.measured).await?;
        counting.store(false, Ordering::SeqCst);
        let (seconds, cpu) = (begun.elapsed().as_secs_f64(), meter.stop());
        let shares = Sums::now(city).await?.since(&before);
        stop.store(true, Ordering::SeqCst);
        let mut latencies = Vec::new();
        while let Some(done) = asking.join_next().await {
            latencies.extend(done.map_err(|e| BenchError::refused("a client", e))??);
        }
        Ok(Load { per_second: latencies.len() as f64 / seconds, latencies, cpu, shares })
    }

    /// One client: a query, its answer, the next query. Returns how long those took that ended while counting.
    async fn keep_asking(
        &self,
        all: &[String],
        keys: usize,
        next: &AtomicU64,
        counting: &AtomicBool,
        stop: &AtomicBool,
    ) -> Result<Vec<f64>, BenchError> {
        let mut connection = Connection::new(&self.addr);
        let mut latencies = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let at = next.fetch_add(1, Ordering::SeqCst) as usize * keys;
            let chosen: Vec<&String> = (at..at + keys).map(|i| &all[i % all.len()]).collect();
            let filter = if keys == 1 { json!({"eq": chosen[0]}) } else { json!({"in": chosen}) };
            let body = json!({"dataset": DATASET, "purpose": PURPOSE, "clause": format!("{AGREEMENT}/C1"),
                "where": {"stop_id": filter}, "limit": keys.max(1)});
            let begun = Instant::now();
            let answer = self.ask(&mut connection, body.to_string().as_bytes()).await?;
            let rows = answer["rows"].as_array().map_or(0, Vec::len);
            if rows != keys {
                return Err(BenchError::refused("a query", format!("{rows} rows came where {keys} keys were named")));
            }
            if counting.load(Ordering::SeqCst) {
                latencies.push(begun.elapsed().as_secs_f64() * 1_000.0);
            }
        }
        Ok(latencies)
    }
}

/// Waits while every client goes on.
async fn wait(asking: &mut JoinSet<Result<Vec<f64>, BenchError>>, length: Duration) -> Result<(), BenchError> {
    tokio::select! {
        () = tokio::time::sleep(length) => Ok(()),
        Some(done) = asking.join_next() => match done {
            Ok(Err(e)) => Err(e),
            Ok(Ok(_)) => Err(BenchError::refused("a client", "it stopped by itself")),
            Err(e) => Err(BenchError::refused("a client", e)),
        },
    }
}

/// The same lookups in the provider's own store, one after another: no policy, no evidence, no network.
pub fn holding_lookups(city: &City, all: &[String], length: Duration) -> Result<f64, BenchError> {
    let refused = |e: &dyn std::fmt::Display| BenchError::refused("the provider's store", e);
    let holding = SqliteHolding::open(&city.holding()?, SqliteOptions::default()).map_err(|e| refused(&e))?;
    let spec = holding.spec(DATASET).map_err(|e| refused(&e))?;
    let (begun, mut done) = (Instant::now(), 0u64);
    while begun.elapsed() < length {
        let key = &all[done as usize * 7 % all.len()];
        let query = json!({"dataset": DATASET, "where": {"stop_id": {"eq": key}}, "limit": 1,
            "select": ["stop_id", "time", "problem", "citation_issued", "neighborhood"]});
        let query = Query::parse(&query, &spec.fields).map_err(|e| refused(&e))?;
        let rows = holding.query(&Plan::from(query)).map_err(|e| refused(&e))?;
        if rows.rows.len() != 1 {
            return Err(refused(&format!("{} rows for one key", rows.rows.len())));
        }
        done += 1;
    }
    Ok(done as f64 / begun.elapsed().as_secs_f64())
}
