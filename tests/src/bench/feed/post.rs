//! The adapter of the benchmark: batches over keep-alive HTTP connections, several in flight, numbered without a gap.

use super::lines::Lines;
use super::{BATCH, FLIGHTS, PROVIDER};
use crate::failed::BenchError;
use crate::http::Connection;
use base64::Engine as _;
use concordat_broker::config::RpcAddr;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long one batch may take, with everything it waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a flood did.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Messages acknowledged.
    pub messages: u64,
    /// From the first post to the last acknowledgement.
    pub seconds: f64,
}

impl Rate {
    /// Messages a second.
    pub fn per_second(&self) -> f64 {
        self.messages as f64 / self.seconds
    }
}

/// Posts batches to one dataset.
pub struct Poster {
    addr: RpcAddr,
    path: Arc<str>,
    headers: Arc<str>,
    batch: Arc<AtomicU64>,
    message: AtomicU64,
}

/// One of the connections.
pub struct Flight {
    connection: Connection,
    path: Arc<str>,
    headers: Arc<str>,
}

impl Poster {
    /// A poster to the provider's dataset of this name, which is also the adapter's; its first batch is number 1.
    pub fn new(addr: RpcAddr, token: &str, name: &str) -> Self {
        let path = format!("/v1/datasets/ds:{PROVIDER}%2F{name}@1/messages");
        let headers = format!(
            "Authorization: Bearer {token}\r\nContent-Type: application/x-ndjson\r\nConcordat-Adapter: {name}\r\n"
        );
        let (batch, message) = (Arc::new(AtomicU64::new(1)), AtomicU64::new(0));
        Self { addr, path: path.into(), headers: headers.into(), batch, message }
    }

    /// A connection of its own.
    pub fn flight(&self) -> Flight {
        Flight { connection: Connection::new(&self.addr), path: self.path.clone(), headers: self.headers.clone() }
    }

    /// The next batch's number.
    pub fn next_batch(&self) -> u64 {
        self.batch.fetch_add(1, Ordering::SeqCst)
    }

    /// The first of so many numbers of messages that nobody had before.
    pub fn numbers(&self, count: u64) -> u64 {
        self.message.fetch_add(count, Ordering::SeqCst)
    }

    /// Posts as fast as it goes, up to `messages` or `within`; returns when everything posted is durable.
    pub async fn flood(&self, messages: u64, within: Duration) -> Result<Rate, BenchError> {
        let batches = (messages / BATCH as u64).max(1);
        let first = self.numbers(batches * BATCH as u64);
        let (begun, left) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let mut flights = JoinSet::new();
        for _ in 0..FLIGHTS {
            let (mut flight, left, batch) = (self.flight(), left.clone(), self.batch.clone());
            flights.spawn(async move {
                let (mut lines, mut sent) = (Lines::new(BATCH), 0);
                loop {
                    let n = left.fetch_add(1, Ordering::SeqCst);
                    if n >= batches || begun.elapsed() > within {
                        return Ok::<u64, BenchError>(sent);
                    }
                    let body = lines.numbered(first + n * BATCH as u64, BATCH);
                    flight.post(batch.fetch_add(1, Ordering::SeqCst), body).await?;
                    sent += BATCH as u64;
                }
            });
        }
        let mut messages = 0;
        while let Some(done) = flights.join_next().await {
            messages += done.map_err(|e| BenchError::refused("a connection", e))??;
        }
        Ok(Rate { messages, seconds: begun.elapsed().as_secs_f64() })
    }
}

impl Flight {
    /// Posts one batch until it is durable. A batch that came before its predecessor is sent again.
    pub async fn post(&mut self, batch: u64, body: &[u8]) -> Result<(), BenchError> {
        let checkpoint = base64::engine::general_purpose::STANDARD.encode(batch.to_string());
        let headers = format!("{}Concordat-Batch: {batch}\r\nConcordat-Checkpoint: {checkpoint}\r\n", self.headers);
        let begun = Instant::now();
        loop {
            let answer = self.connection.post(&self.path, &headers, body).await;
            let answer = answer.map_err(|e| BenchError::io("the provider's broker", e))?;
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            match answer.status {
                200 => return Ok(()),
                409 => {
                    let at: Value = serde_json::from_str(&said).unwrap_or_default();
                    if at["batch_no"].as_u64() >= Some(batch) {
                        return Ok(());
                    }
                }
                429 | 503 => {}
                _ => return Err(BenchError::refused(format!("batch {batch}"), said)),
            }
            if begun.elapsed() > PATIENCE {
                return Err(BenchError::refused(format!("batch {batch}, for {} s", PATIENCE.as_secs()), said));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
