//! The task of one subscription at the consumer: ask the exchange for its place, fetch, check, hold.

use super::ask::{AskError, ask};
use super::check::{self, FeedProofError};
use super::complaint::Complaint;
use super::duties::NO_DOCUMENT;
use super::look::look_after;
use super::subscription::{Awaited, Resync, Subscription, wall_ms};
use super::{Held, Offer, Parts};
use crate::ledger::LedgerError;
use crate::store::StoreError;
use crate::streams::feed_consumer;
use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::message::Acker;
use concordat_protocol::subscribe::ExchangeCommand;
use futures::{FutureExt, StreamExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use thiserror::Error;
use tracing::{error, info, warn};

/// Deliveries asked for at once.
const BATCH: usize = 64;
/// How long the server keeps an open request. A dead consumer's request across a leaf stays that long.
const EXPIRES: Duration = Duration::from_secs(2);
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_millis(500);
/// How long to wait before an exchange manager that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
enum PullError {
    #[error("streams: {0}")]
    Streams(String),
    #[error(transparent)]
    Exchange(#[from] AskError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("does not prove itself: {0}")]
    Proof(#[from] FeedProofError),
    /// It cannot be checked before a document is here.
    #[error(transparent)]
    Document(FeedProofError),
    /// Items were lost on their way while a seek looks for its first: they are asked for again.
    #[error("items were lost on their way")]
    Torn,
}

fn streams(e: impl std::fmt::Display) -> PullError {
    PullError::Streams(e.to_string())
}

/// Pulls until the subscription is deleted or the process ends.
pub(super) async fn run(parts: Arc<Parts>, sub: Arc<Subscription>) {
    // What was anchored before is not awaited again when it is read again.
    if let Ok(anchored) = parts.setup.node.subscription(&sub.key.provider, sub.key.number).await {
        sub.with(|i| i.anchored = anchored);
    }
    tokio::join!(fetch(&parts, &sub), look_after(&parts, &sub));
}

async fn fetch(parts: &Parts, sub: &Subscription) {
    let mut said = String::new();
    loop {
        // Whatever it was, it is seen below.
        let _ = sub.turn.notified().now_or_never();
        let (gone, fetches, room) = sub.with(|i| (i.gone, i.fetches(), i.room()));
        if gone {
            return;
        }
        if !fetches || (room == 0 && sub.with(|i| i.resync == Resync::None)) {
            tokio::select! {
                () = sub.room.notified() => {}
                () = sub.turn.notified() => {}
                () = tokio::time::sleep(EXPIRES) => {}
            }
            continue;
        }
        let done = match settle(parts, sub).await {
            Ok(()) if room == 0 => Ok(()),
            Ok(()) => fetch_batch(parts, sub, room.min(BATCH)).await,
            Err(e) => Err(e),
        };
        match done {
            Ok(()) => said.clear(),
            Err(PullError::Torn) => {}
            Err(e) => {
                if said != e.to_string() {
                    said = e.to_string();
                    warn!(subscription = sub.id(), error = said, "fetching waits");
                }
                sub.count(|c| c.failed(&said));
                tokio::select! {
                    () = sub.turn.notified() => {}
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }
}

async fn opened(parts: &Parts, sub: &Subscription) -> Result<(), PullError> {
    parts.shelf.opened(&sub.key, super::Acked::default()).await?;
    sub.with(|i| i.open = None);
    sub.news.notify_waiters();
    Ok(())
}

/// Makes the exchange's consumer be where this subscription stands, if it is not known to be.
async fn settle(parts: &Parts, sub: &Subscription) -> Result<(), PullError> {
    let (provider, subscription, nats) = (sub.key.provider.clone(), sub.key.number, &parts.setup.nats);
    let open = sub.with(|i| i.open.is_some_and(|at| Instant::now() >= at));
    if let (true, Some(created)) = (open, &sub.created) {
        let handle = created.handle;
        match ask(nats, &ExchangeCommand::Open { provider: provider.clone(), subscription, handle }).await {
            // Under another version's handle it is the same consumer.
            Err(AskError::Refused { code, .. }) if code == "exists" => opened(parts, sub).await?,
            Ok(()) => opened(parts, sub).await?,
            // It may be there from before: then it can be fetched from.
            Err(e @ AskError::Unheard(_)) => {
                warn!(subscription = sub.id(), error = %e, "not opened at the exchange yet");
                sub.with(|i| {
                    i.open = Some(Instant::now() + ASK_AGAIN);
                    i.counts.failed(e.to_string());
                });
            }
            Err(e) => return Err(e.into()),
        }
    }
    let (resync, place, seeks) = sub.with(|i| (i.resync, i.resync_place(), i.seeks));
    let Some(place) = place else {
        sub.with(|i| i.resync = Resync::None);
        return Ok(());
    };
    let asked = ask(nats, &ExchangeCommand::Seek { provider, subscription, place }).await;
    match (asked, resync) {
        (Ok(()), _) => info!(subscription = sub.id(), place, "items come again from here"),
        (Err(e), Resync::Hard) => {
            if matches!(&e, AskError::Refused { code, .. } if code == "unknown-subscription") {
                sub.with(|i| i.open = sub.created.as_ref().map(|_| Instant::now()));
            }
            return Err(e.into());
        }
        // They come again by themselves when the server's patience ends.
        (Err(e), _) => warn!(subscription = sub.id(), place, error = %e, "items are not asked for again"),
    }
    sub.with(|i| {
        i.expect = 1;
        // Another seek may have begun meanwhile.
        if i.seeks == seeks {
            i.resync = Resync::None;
        }
    });
    sub.news.notify_waiters();
    Ok(())
}

async fn fetch_batch(parts: &Parts, sub: &Subscription, max: usize) -> Result<(), PullError> {
    let (name, stream) = (feed_consumer(&sub.key.provider, sub.key.number), parts.setup.cfg.exchange.own.clone());
    let consumer: PullConsumer = parts.js.get_consumer_from_stream(name, stream).await.map_err(streams)?;
    loop {
        let mut batch = consumer.batch().max_messages(max).expires(EXPIRES).messages().await.map_err(streams)?;
        let mut any = false;
        loop {
            let message = tokio::select! {
                biased;
                () = sub.turn.notified() => {
                    // What is on its way for this request is lost with it.
                    sub.with(|i| i.resync = i.resync.max(Resync::Soft));
                    return Ok(());
                }
                message = batch.next() => message,
            };
            let Some(message) = message else { break };
            let message = message.map_err(streams)?;
            let (place, nth) = message.info().map(|i| (i.stream_sequence, i.consumer_sequence)).map_err(streams)?;
            let (message, acker) = message.split();
            any = true;
            take(parts, sub, &message.payload, Place { place, nth }, acker).await?;
        }
        sub.count(|c| c.last_ok_ms = wall_ms());
        let (go_on, full) = sub.with(|i| (i.fetches(), i.room() < max));
        if !go_on || full || !any {
            return Ok(());
        }
    }
}

/// A delivery's number, its promise, its messages.
type Checked = (u64, Awaited, Vec<check::Message>);

/// Where an item stands: in the feed stream, and among those that the consumer at the exchange gave out.
#[derive(Clone, Copy)]
struct Place {
    place: u64,
    nth: u64,
}

/// Checks one delivery and holds it. What does not prove itself is never handed on: it is kept as evidence, terminated
/// upstream, counted and reported.
async fn take(parts: &Parts, sub: &Subscription, payload: &[u8], at: Place, acker: Acker) -> Result<(), PullError> {
    let (in_turn, seeks) = sub.with(|i| {
        // What was on its way when a seek began was asked for before it.
        let in_turn = i.resync != Resync::Hard && (i.buffer.seeking().is_none() || at.nth == i.expect);
        if in_turn {
            i.expect += 1;
        } else {
            i.resync = Resync::Hard;
        }
        (in_turn, i.seeks)
    });
    if !in_turn {
        return Err(PullError::Torn);
    }
    let checked = match verified(parts, sub, payload).await {
        Ok(found) => found,
        Err(PullError::Proof(e)) => {
            refuse(parts, sub, payload, at.place, &e).await?;
            return acker.ack_with(AckKind::Term).await.map_err(streams);
        }
        Err(e) => return Err(e),
    };
    let (sub_seq, awaited, messages) = checked;
    if awaited.max_lag_ms > 0 {
        contradicted(parts, sub, sub_seq, &awaited);
    }
    let delivered_ms = awaited.delivered_ms;
    let held = Held { sub_seq, place: at.place, delivered_ms, messages, ack: Arc::new(acker) };
    let offered = sub.with(|i| {
        // A seek began while this one was verified.
        if i.seeks != seeks {
            return None;
        }
        let offer = i.buffer.offer(held);
        let mut milestone = false;
        if let Offer::Kept { in_order } = offer {
            if awaited.max_lag_ms > 0 && sub_seq > i.anchored {
                i.awaited.insert(sub_seq, awaited);
            }
            milestone = in_order && i.is_milestone(sub_seq, delivered_ms);
        } else {
            i.counts.duplicates += 1;
        }
        i.newest = i.newest.max(sub_seq);
        let acked = i.buffer.acked();
        Some((offer, i.buffer.ack(acked), milestone))
    });
    let Some((offer, empty, milestone)) = offered else { return Err(PullError::Torn) };
    if milestone {
        // Without it a seek only starts at an earlier place, so nobody waits for it.
        let (shelf, key) = (parts.shelf.clone(), sub.key.clone());
        tokio::spawn(async move { shelf.index(key, sub_seq, at.place, delivered_ms).await });
    }
    if let Offer::Done(acker) = offer {
        acker.ack().await.map_err(streams)?;
    }
    for held in empty {
        held.ack.ack().await.map_err(streams)?;
    }
    sub.news.notify_waiters();
    Ok(())
}

/// Shows the ledger two promises of one delivery that exclude each other.
fn contradicted(parts: &Parts, sub: &Subscription, sub_seq: u64, now: &Awaited) {
    let Some(first) = sub.with(|i| i.promises.take(sub_seq, now)) else { return };
    error!(subscription = sub.id(), provider = %sub.key.provider, sub_seq, "the provider promised two things for one delivery");
    parts.setup.metrics.proof_invalid.with_label_values(&["promise-double"]).inc();
    sub.count(|c| c.failed(format!("two promises for delivery {sub_seq}")));
    let (promise, signature) = (now.promise.clone(), now.signature.clone());
    let complaint = Complaint { agreement: sub.terms().agreement.clone(), promise, signature, first: Some(first) };
    if parts.setup.complaints.try_send(complaint).is_err() {
        warn!(subscription = sub.id(), "too many complaints wait");
    }
}

async fn refuse(
    parts: &Parts,
    sub: &Subscription,
    payload: &[u8],
    place: u64,
    e: &FeedProofError,
) -> Result<(), PullError> {
    if !sub.with(|i| i.refuse(place)) {
        return Ok(());
    }
    error!(subscription = sub.id(), check = e.check, error = %e, "a delivery does not prove itself: nothing of it is handed on");
    parts.setup.metrics.proof_invalid.with_label_values(&[e.check]).inc();
    sub.count(|c| {
        c.invalid += 1;
        c.failed(e.to_string());
    });
    let kept = parts.shelf.refuse(&sub.key, parts.now_ms(), place, e, payload).await;
    if kept.is_err() {
        sub.with(|i| i.refused.remove(&place));
    }
    Ok(kept?)
}

/// Checks a delivery. While the ledger does not answer, or the clause's document is missing, nothing can be checked: the item
/// is not let go of, since later ones would overtake it.
async fn verified(parts: &Parts, sub: &Subscription, payload: &[u8]) -> Result<Checked, PullError> {
    let mut said = false;
    loop {
        match verify(parts, sub, payload).await {
            Err(e @ (PullError::Ledger(_) | PullError::Document(_)))
                if sub.with(|i| i.fetches() && i.resync == Resync::None) =>
            {
                if matches!(e, PullError::Document(_)) {
                    parts.lacking.store(true, Ordering::Relaxed);
                }
                if !said {
                    warn!(subscription = sub.id(), error = %e, "a delivery cannot be checked: it waits");
                    sub.count(|c| c.failed(e.to_string()));
                    said = true;
                }
                tokio::time::sleep(RETRY).await;
            }
            other => return other,
        }
    }
}

async fn verify(parts: &Parts, sub: &Subscription, payload: &[u8]) -> Result<Checked, PullError> {
    let terms = sub.terms();
    let x = &terms.expected;
    let (item, promise) = check::read(payload)?;
    let key = parts.setup.watch.key(item.release_key).await?;
    check::promise(x, &item, &promise, key.as_ref())?;
    let sub_seq = promise.first_sub_seq;
    let envelope = tokio::task::block_in_place(|| check::unseal(x, &item, &promise, &parts.kem))?;
    let key = parts.setup.watch.key(envelope.key).await?;
    let messages = tokio::task::block_in_place(|| check::messages(x, sub_seq, &envelope, key.as_ref()));
    let messages = messages.map_err(|e| if e.check == NO_DOCUMENT { PullError::Document(e) } else { e.into() })?;
    let (delivered_ms, max_lag_ms) = (promise.delivered_ms, promise.max_lag_ms);
    let awaited = Awaited { delivered_ms, max_lag_ms, promise: item.promise, signature: item.promise_signature };
    Ok((sub_seq, awaited, messages))
}
