//! The task of one subscription at the consumer: fetch, check, hold; and look whether promises are kept.

use super::check::{self, FeedProofError};
use super::{Awaited, Buffer, HELD, Held, Offer, Parts, Subscription};
use crate::ledger::LedgerError;
use crate::streams::feed_consumer;
use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::message::Acker;
use concordat_protocol::terms::Status;
use futures::StreamExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tracing::{error, warn};

/// Deliveries asked for at once.
const BATCH: usize = 64;
/// How long the server keeps an open request. A dead consumer's request across a leaf stays that long.
const EXPIRES: Duration = Duration::from_secs(2);
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_millis(500);
/// How often the server is told that a delivery is still held (its own patience is 5 s).
const PROGRESS: Duration = Duration::from_secs(2);
/// How often promises are looked at while one is open.
const LOOK: Duration = Duration::from_millis(200);
/// After how long a delivery that did not come is given up. The server gives it out again every 5 s until then.
const GAP: Duration = Duration::from_secs(60);
/// What a promise may take beyond its bound before it counts as broken, milliseconds.
const GRACE_MS: u64 = 10_000;

#[derive(Debug, Error)]
enum PullError {
    #[error("streams: {0}")]
    Streams(String),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("does not prove itself: {0}")]
    Proof(#[from] FeedProofError),
}

fn streams(e: impl std::fmt::Display) -> PullError {
    PullError::Streams(e.to_string())
}

/// Pulls for as long as the process lives.
pub(super) async fn run(parts: Arc<Parts>, sub: Arc<Subscription>) {
    tokio::join!(fetch(&parts, &sub), look_after(&parts, &sub));
}

async fn fetch(parts: &Parts, sub: &Subscription) {
    let mut said = String::new();
    loop {
        let (open, room) = sub.with(|i| (is_open(i.status), HELD.saturating_sub(i.buffer.held_count())));
        if !open || room == 0 {
            let _ = tokio::time::timeout(EXPIRES, sub.room.notified()).await;
            continue;
        }
        match fetch_batch(parts, sub, room.min(BATCH)).await {
            Ok(()) => said.clear(),
            Err(e) => {
                if said != e.to_string() {
                    said = e.to_string();
                    warn!(subscription = sub.terms.name, error = said, "fetching waits");
                    sub.count(|c| c.last_error.clone_from(&said));
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn is_open(status: Status) -> bool {
    matches!(status, Status::Active | Status::Superseded)
}

async fn fetch_batch(parts: &Parts, sub: &Subscription, max: usize) -> Result<(), PullError> {
    let x = &sub.terms.expected;
    let (name, stream) = (feed_consumer(&x.provider, x.subscription), parts.setup.cfg.exchange.own.clone());
    let consumer: PullConsumer = parts.js.get_consumer_from_stream(name, stream).await.map_err(streams)?;
    loop {
        let mut batch = consumer.batch().max_messages(max).expires(EXPIRES).messages().await.map_err(streams)?;
        let mut any = false;
        while let Some(message) = batch.next().await {
            let (message, acker) = message.map_err(streams)?.split();
            any = true;
            take(parts, sub, &message.payload, acker).await?;
        }
        let (open, full) = sub.with(|i| (is_open(i.status), i.buffer.held_count() + max > HELD));
        if !open || full || !any {
            return Ok(());
        }
    }
}

/// Checks one delivery and holds it. What does not prove itself is never handed on: it is terminated upstream, counted
/// and reported. Without the ledger nothing can be checked: it stays with the server and comes again.
async fn take(parts: &Parts, sub: &Subscription, payload: &[u8], acker: Acker) -> Result<(), PullError> {
    let (sub_seq, messages, delivered_ms) = match verified(parts, sub, payload).await {
        Ok(found) => found,
        Err(PullError::Proof(e)) => {
            error!(subscription = sub.terms.name, check = e.check, error = %e, "a delivery does not prove itself: nothing of it is handed on");
            parts.setup.metrics.proof_invalid.with_label_values(&[e.check]).inc();
            sub.count(|c| {
                c.invalid += 1;
                c.last_error = e.to_string();
            });
            return acker.ack_with(AckKind::Term).await.map_err(streams);
        }
        Err(e) => return Err(e),
    };
    let held = Held { sub_seq, messages, ack: Arc::new(acker) };
    let (offer, empty) = sub.with(|i| {
        let offer = i.buffer.offer(held);
        if matches!(offer, Offer::Kept) {
            i.awaited.push_back(Awaited { sub_seq, delivered_ms });
        } else {
            i.counts.duplicates += 1;
        }
        let at = i.buffer.acked();
        (offer, i.buffer.ack(at))
    });
    if let Offer::Done(acker) = offer {
        acker.ack().await.map_err(streams)?;
    }
    for held in empty {
        held.ack.ack().await.map_err(streams)?;
    }
    sub.news.notify_waiters();
    Ok(())
}

async fn verified(
    parts: &Parts,
    sub: &Subscription,
    payload: &[u8],
) -> Result<(u64, Vec<check::Message>, u64), PullError> {
    let x = &sub.terms.expected;
    let (item, promise) = check::read(payload)?;
    let key = parts.setup.watch.key(item.release_key).await?;
    check::promise(x, &item, &promise, key.as_ref())?;
    let sub_seq = promise.first_sub_seq;
    let envelope = tokio::task::block_in_place(|| check::unseal(x, &item, &promise, &parts.kem))?;
    let key = parts.setup.watch.key(envelope.key).await?;
    let messages = tokio::task::block_in_place(|| check::messages(x, sub_seq, &envelope, key.as_ref()))?;
    Ok((sub_seq, messages, promise.delivered_ms))
}

/// Keeps the server patient, watches gaps, and looks whether promises are kept.
async fn look_after(parts: &Parts, sub: &Subscription) {
    let (mut progress, mut look) = (tokio::time::interval(PROGRESS), tokio::time::interval(LOOK));
    let mut gap: Option<((u64, u64), Instant)> = None;
    loop {
        tokio::select! {
            _ = progress.tick() => tell_progress(sub).await,
            _ = look.tick() => {
                watch_gap(sub, &mut gap);
                look_at_promises(parts, sub).await;
            }
        }
    }
}

async fn tell_progress(sub: &Subscription) {
    let held: Vec<Arc<Acker>> = sub.with(|i| copies(&i.buffer));
    for acker in held {
        if acker.ack_with(AckKind::Progress).await.is_err() {
            return;
        }
    }
}

fn copies(buffer: &Buffer<Arc<Acker>>) -> Vec<Arc<Acker>> {
    buffer.held().map(|h| h.ack.clone()).collect()
}

fn watch_gap(sub: &Subscription, gap: &mut Option<((u64, u64), Instant)>) {
    let now = sub.with(|i| i.buffer.gap());
    *gap = match (now, gap.take()) {
        (None, _) => None,
        (Some(missing), Some((before, since))) if before.0 == missing.0 => {
            if since.elapsed() < GAP {
                Some((missing, since))
            } else {
                error!(
                    subscription = sub.terms.name,
                    from = missing.0,
                    to = missing.1,
                    "deliveries never came: going on without them"
                );
                sub.with(|i| {
                    i.buffer.skip_gap();
                    i.counts.missing += missing.1 - missing.0 + 1;
                    i.counts.last_error = format!("deliveries {} to {} never came", missing.0, missing.1);
                });
                sub.news.notify_waiters();
                None
            }
        }
        (Some(missing), _) => Some((missing, Instant::now())),
    };
}

/// A promise is kept when the ledger anchored its number in time; it is looked up after its bound and 10 s.
async fn look_at_promises(parts: &Parts, sub: &Subscription) {
    let Some(now) = parts.setup.watch.now() else { return };
    let now_ms = now.tick_ms.saturating_add(now.at.elapsed().as_millis() as u64);
    let (pending, oldest) = sub.with(|i| (i.buffer.pending(), i.awaited.front().map(|a| a.delivered_ms)));
    let metrics = &parts.setup.metrics;
    metrics.subscription_pending.with_label_values(&[sub.terms.name.as_str()]).set(pending as i64);
    let limit = sub.terms.expected.max_lag_ms;
    let lag_ms = oldest.map_or(0, |ms| now_ms.saturating_sub(ms));
    metrics.evidence_lag_limit.with_label_values(&[sub.terms.agreement.as_str()]).set(limit as f64 / 1_000.0);
    metrics.evidence_lag.with_label_values(&[sub.terms.agreement.as_str()]).set(lag_ms as f64 / 1_000.0);
    if oldest.is_none() {
        return;
    }
    let x = &sub.terms.expected;
    let Ok(anchored) = parts.setup.node.subscription(&x.provider, x.subscription).await else { return };
    let broken = sub.with(|i| {
        i.anchored = anchored;
        i.awaited.retain(|a| a.sub_seq > anchored);
        let due = |a: &Awaited| now_ms > a.delivered_ms.saturating_add(limit + GRACE_MS);
        let broken: Vec<u64> = i.awaited.iter().filter(|a| due(a)).map(|a| a.sub_seq).collect();
        i.awaited.retain(|a| !due(a));
        i.counts.unanchored += broken.len() as u64;
        broken
    });
    if let (Some(first), Some(last)) = (broken.first(), broken.last()) {
        error!(subscription = sub.terms.name, provider = %x.provider, first, last, "the provider broke its promise: deliveries are not on the ledger");
        metrics.proof_invalid.with_label_values(&["promise-unkept"]).inc_by(broken.len() as f64);
        sub.count(|c| c.last_error = format!("deliveries {first} to {last} are not on the ledger"));
    }
}
