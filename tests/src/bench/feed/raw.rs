//! The same by plain JetStream on the same server, synced before every acknowledgement as well: no signature, no
//! verification, no evidence, no HTTP.

use super::lines::{LINE, Lines};
use super::{BATCH, FLIGHTS};
use crate::failed::BenchError;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Config as PullConfig, OrderedConfig};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, StorageType, Stream};
use futures::StreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Single publishes in flight.
const SINGLES: usize = 1_000;
const SUBJECT: &str = "bench.raw";
/// How long the last message may take to come.
const LAST: Duration = Duration::from_secs(30);

fn refused(e: impl std::fmt::Display) -> BenchError {
    BenchError::refused("the stream server", e)
}

/// The stream of this measurement. An agency's user may not delete streams, so each measurement has its own.
async fn stream(js: &Context, name: &str) -> Result<(Stream, String), BenchError> {
    let subject = format!("{SUBJECT}.{name}");
    let config = Config {
        name: format!("BENCH_{name}"),
        subjects: vec![subject.clone()],
        storage: StorageType::File,
        num_replicas: 1,
        ..Config::default()
    };
    Ok((js.create_stream(config).await.map_err(refused)?, subject))
}

/// Bytes of the newest message of a stream.
pub async fn newest_size(js: &Context, name: &str) -> Result<usize, BenchError> {
    let stream = js.get_stream(name).await.map_err(refused)?;
    let last = stream.get_raw_message(stream.cached_info().state.last_sequence).await.map_err(refused)?;
    Ok(last.payload.len())
}

/// Single messages of [`LINE`] bytes, each acknowledged for itself; messages a second.
pub async fn singles(js: &Context, count: u64, within: Duration) -> Result<f64, BenchError> {
    let (_, subject) = stream(js, "single").await?;
    let message = PublishMessage::build().payload(Lines::new(1).numbered(1, 1)[..LINE].to_vec().into());
    let begun = Instant::now();
    let publishes =
        futures::stream::iter(0..count).take_while(|_| std::future::ready(begun.elapsed() < within)).map(|_| {
            let (js, subject, message) = (js.clone(), subject.clone(), message.clone());
            async move { js.send_publish(subject, message).await.map_err(refused)?.await.map_err(refused) }
        });
    let mut acks = publishes.buffer_unordered(SINGLES);
    let mut done = 0;
    while let Some(ack) = acks.next().await {
        ack?;
        done += 1;
    }
    Ok(f64::from(done) / begun.elapsed().as_secs_f64())
}

/// Messages of an envelope's size, as many in flight as the adapter has; messages of the feed a second. With a reader,
/// until it has got the last one.
pub async fn envelopes(js: &Context, count: u64, size: usize, within: Duration, read: bool) -> Result<f64, BenchError> {
    let (stream, subject) = stream(js, if read { "read" } else { "envelope" }).await?;
    let config = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
    let mut reader = match read {
        true => Some(stream.create_consumer(config).await.map_err(refused)?.messages().await.map_err(refused)?),
        false => None,
    };
    let message = PublishMessage::build().payload(vec![b'x'; size].into());
    let (begun, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut flights = JoinSet::new();
    for _ in 0..FLIGHTS {
        let (js, subject, message, next) = (js.clone(), subject.clone(), message.clone(), next.clone());
        flights.spawn(async move {
            let mut sent = 0u64;
            while next.fetch_add(1, Ordering::SeqCst) < count && begun.elapsed() < within {
                let ack = js.send_publish(subject.clone(), message.clone()).await.map_err(refused)?;
                ack.await.map_err(refused)?;
                sent += 1;
            }
            Ok::<u64, BenchError>(sent)
        });
    }
    let (mut sent, mut got) = (0, 0);
    loop {
        tokio::select! {
            done = flights.join_next() => match done {
                Some(done) => sent += done.map_err(refused)??,
                None => break,
            },
            Some(message) = next_of(&mut reader) => { message?; got += 1; }
        }
    }
    while reader.is_some() && got < sent {
        let came = tokio::time::timeout(LAST, next_of(&mut reader)).await;
        came.map_err(|_| late())?.ok_or_else(late)??;
        got += 1;
    }
    Ok((sent * BATCH as u64) as f64 / begun.elapsed().as_secs_f64())
}

fn late() -> BenchError {
    BenchError::Late { what: "the last message of plain JetStream".into(), seconds: LAST.as_secs() }
}

async fn next_of(
    reader: &mut Option<async_nats::jetstream::consumer::pull::Ordered>,
) -> Option<Result<(), BenchError>> {
    match reader {
        Some(reader) => reader.next().await.map(|m| m.map(drop).map_err(refused)),
        None => std::future::pending().await,
    }
}

/// Five messages every 5 ms in one JetStream message, to a pull consumer that acknowledges: milliseconds from publishing
/// to receiving.
pub async fn latency(js: &Context, length: Duration) -> Result<Vec<f64>, BenchError> {
    let (stream, subject) = stream(js, "latency").await?;
    let consumer = stream.create_consumer(PullConfig { durable_name: Some("bench".into()), ..PullConfig::default() });
    let mut messages = consumer.await.map_err(refused)?.messages().await.map_err(refused)?;
    let payload = Lines::new(super::latency::FULL.lines).numbered(1, super::latency::FULL.lines).to_vec();
    let every = super::latency::FULL.every;
    let count = (length.as_millis() / every.as_millis()) as usize;
    let begun = Instant::now();
    let publisher = tokio::spawn({
        let js = js.clone();
        async move {
            let mut clock = tokio::time::interval(every);
            let mut acks = JoinSet::new();
            for _ in 0..count {
                clock.tick().await;
                let mut stamped = (begun.elapsed().as_nanos() as u64).to_be_bytes().to_vec();
                stamped.extend_from_slice(&payload);
                let ack = js.publish(subject.clone(), stamped.into()).await.map_err(refused)?;
                acks.spawn(async move { ack.await.map_err(refused) });
            }
            while let Some(ack) = acks.join_next().await {
                ack.map_err(refused)??;
            }
            Ok::<(), BenchError>(())
        }
    });
    let mut samples = Vec::with_capacity(count);
    while samples.len() < count {
        let message = tokio::time::timeout(LAST, messages.next()).await.map_err(|_| late())?.ok_or_else(late)?;
        let message = message.map_err(refused)?;
        let stamp: [u8; 8] = message.payload.get(..8).and_then(|b| b.try_into().ok()).unwrap_or_default();
        let took = begun.elapsed().as_nanos() as u64 - u64::from_be_bytes(stamp);
        samples.push(took as f64 / 1e6);
        message.ack().await.map_err(refused)?;
    }
    publisher.await.map_err(refused)??;
    Ok(samples)
}
