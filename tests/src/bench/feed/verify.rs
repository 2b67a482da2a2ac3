//! A reader of the provider's own stream that verifies every envelope: signature, leaves, roots.

use crate::failed::BenchError;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use concordat_broker::config::NodeConfig;
use concordat_broker::keys::{ENVELOPE, KeyFolder};
use concordat_protocol::cbor;
use concordat_protocol::keys::PublicKey;
use concordat_protocol::message::Envelope;
use futures::StreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// How long the last envelope may take to be verified.
const LAST: Duration = Duration::from_secs(60);

fn refused(e: impl std::fmt::Display) -> BenchError {
    BenchError::refused("reading the own stream", e)
}

/// The key that signs the provider's envelopes.
pub fn envelope_key(config: &NodeConfig) -> Result<PublicKey, BenchError> {
    let key =
        KeyFolder::new(config.keys()).signing(ENVELOPE).map_err(|e| BenchError::refused("the envelope key", e))?;
    Ok(key.public().clone())
}

/// Verifies one message of the stream; how many messages it holds.
fn verify(payload: &[u8], key: &PublicKey) -> Result<u64, BenchError> {
    let envelope: Envelope = cbor::decode(payload).map_err(refused)?;
    envelope.verify(key).map_err(|e| BenchError::refused("an envelope", e))?;
    Ok(envelope.header.count)
}

/// A reader at work.
pub struct Reader {
    verified: Arc<AtomicU64>,
    task: JoinHandle<Result<(), BenchError>>,
}

impl Reader {
    /// Begins to read behind the newest envelope, on as many threads as there are cores.
    pub async fn start(js: &Context, stream: &str, key: PublicKey) -> Result<Self, BenchError> {
        let stream = js.get_stream(stream).await.map_err(refused)?;
        let start_sequence = stream.cached_info().state.last_sequence + 1;
        let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence };
        let consumer = stream.create_consumer(OrderedConfig { deliver_policy, ..OrderedConfig::default() });
        let mut messages = consumer.await.map_err(refused)?.messages().await.map_err(refused)?;
        let (verified, key) = (Arc::new(AtomicU64::new(0)), Arc::new(key));
        let counted = verified.clone();
        let task = tokio::spawn(async move {
            let cores = Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));
            let failed = Arc::new(std::sync::Mutex::new(None));
            while let Some(message) = messages.next().await {
                let payload = message.map_err(refused)?.message.payload;
                let core = cores.clone().acquire_owned().await.map_err(refused)?;
                if let Some(e) =
                    failed.lock().ok().and_then(|mut f: std::sync::MutexGuard<'_, Option<BenchError>>| f.take())
                {
                    return Err(e);
                }
                let (key, counted, failed) = (key.clone(), counted.clone(), failed.clone());
                tokio::task::spawn_blocking(move || {
                    let _core = core;
                    match verify(&payload, &key) {
                        Ok(count) => drop(counted.fetch_add(count, Ordering::SeqCst)),
                        Err(e) => drop(failed.lock().map(|mut f| *f = Some(e))),
                    }
                });
            }
            Err(refused("the reader ended"))
        });
        Ok(Self { verified, task })
    }

    /// Waits until so many messages are verified.
    pub async fn finish(self, messages: u64) -> Result<u64, BenchError> {
        let begun = Instant::now();
        while self.verified.load(Ordering::SeqCst) < messages {
            if self.task.is_finished() {
                self.task.await.map_err(refused)??;
                return Err(refused("the reader ended"));
            }
            if begun.elapsed() > LAST {
                return Err(BenchError::Late { what: "verifying the last envelope".into(), seconds: LAST.as_secs() });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.task.abort();
        Ok(self.verified.load(Ordering::SeqCst))
    }
}
