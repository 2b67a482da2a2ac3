//! Beside fetching: keeps the server patient, watches gaps, looks whether promises are kept, and counts.

use super::complaint::Complaint;
use super::subscription::{Awaited, Resync, Subscription};
use super::{Buffer, Parts, Subscriptions};
use async_nats::jetstream::AckKind;
use async_nats::jetstream::message::Acker;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{error, warn};

/// How often the server is told that a delivery is still held (its own patience is 5 s).
const PROGRESS: Duration = Duration::from_secs(2);
/// How often promises and gaps are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// After how long a delivery that did not come is asked for again, once.
const GAP_AGAIN: Duration = Duration::from_secs(5);
/// After how long it is given up.
const GAP: Duration = Duration::from_secs(60);
/// What a promise may take beyond its bound before it counts as broken, milliseconds.
const GRACE_MS: u64 = 10_000;
/// How often the metrics of all subscriptions are set.
const OBSERVE: Duration = Duration::from_secs(1);

/// A gap that is watched.
struct Gap {
    first: u64,
    since: Instant,
    asked: bool,
}

pub(super) async fn look_after(parts: &Parts, sub: &Subscription) {
    let (mut progress, mut look) = (tokio::time::interval(PROGRESS), tokio::time::interval(LOOK));
    let (mut gap, mut seen) = (None, (0, 0));
    while !sub.with(|i| i.gone) {
        tokio::select! {
            _ = progress.tick() => tell_progress(sub).await,
            _ = look.tick() => {
                watch_gap(sub, &mut gap, Instant::now());
                look_at_promises(parts, sub, &mut seen).await;
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

fn watch_gap(sub: &Subscription, gap: &mut Option<Gap>, now: Instant) {
    // While nothing is fetched a gap cannot close.
    let missing = sub.with(|i| i.buffer.gap().filter(|_| i.fetches()));
    let Some((first, last)) = missing else {
        *gap = None;
        sub.with(|i| i.closing_gap = false);
        return;
    };
    let watched = match gap.take().filter(|g| g.first == first) {
        Some(watched) => gap.insert(watched),
        None => gap.insert(Gap { first, since: now, asked: false }),
    };
    let age = now.duration_since(watched.since);
    if age >= GAP {
        error!(subscription = sub.id(), from = first, to = last, "deliveries never came: going on without them");
        sub.with(|i| {
            i.buffer.skip_gap();
            i.counts.missing += last - first + 1;
            i.counts.failed(format!("deliveries {first} to {last} never came"));
        });
        sub.news.notify_waiters();
        *gap = None;
    } else if age >= GAP_AGAIN && !watched.asked {
        watched.asked = true;
        warn!(subscription = sub.id(), from = first, to = last, "deliveries are missing: asked for again");
        sub.with(|i| {
            i.resync = i.resync.max(Resync::Soft);
            i.closing_gap = true;
        });
        sub.turn.notify_one();
    }
}

/// A promise is kept when the ledger anchored its number in time; it counts as broken after its bound and 10 s. The own
/// node is asked only while one is open, and only after a block or a delivery, since nothing changes without.
async fn look_at_promises(parts: &Parts, sub: &Subscription, seen: &mut (u64, u64)) {
    let Some(now) = parts.setup.watch.now() else { return };
    let Some(newest) = sub.with(|i| i.awaited.last_key_value().map(|(n, _)| *n)) else { return };
    if (now.height, newest) == *seen {
        return;
    }
    let Ok(anchored) = parts.setup.node.subscription(&sub.key.provider, sub.key.number).await else { return };
    *seen = (now.height, newest);
    let broken = sub.with(|i| {
        i.anchored = i.anchored.max(anchored);
        i.awaited.retain(|n, _| *n > anchored);
        let due = |a: &Awaited| now.tick_ms > a.delivered_ms.saturating_add(a.max_lag_ms + GRACE_MS);
        let broken: Vec<(u64, Awaited)> =
            i.awaited.iter().filter(|(_, a)| due(a)).map(|(n, a)| (*n, a.clone())).collect();
        i.awaited.retain(|_, a| !due(a));
        i.counts.unanchored += broken.len() as u64;
        broken
    });
    if let (Some((first, _)), Some((last, shown))) = (broken.first(), broken.last()) {
        error!(subscription = sub.id(), provider = %sub.key.provider, first, last, "the provider broke its promise: deliveries are not on the ledger");
        parts.setup.metrics.proof_invalid.with_label_values(&["promise-unkept"]).inc_by(broken.len() as f64);
        sub.count(|c| c.failed(format!("deliveries {first} to {last} are not on the ledger")));
        // One says it for all of them: the ledger's last anchored number is below each.
        let (promise, signature) = (shown.promise.clone(), shown.signature.clone());
        let agreement = sub.terms().agreement.clone();
        let complaint = Complaint { agreement, promise, signature, first: None };
        if parts.setup.complaints.try_send(complaint).is_err() {
            warn!(subscription = sub.id(), "too many complaints wait");
        }
    }
}

/// Sets the metrics of all subscriptions; those of deleted ones go.
pub(super) async fn observe(subs: Subscriptions) {
    let (mut names, mut agreements) = (BTreeSet::new(), BTreeSet::new());
    let mut tick = tokio::time::interval(OBSERVE);
    loop {
        tick.tick().await;
        let (now_ms, metrics) = (subs.parts.now_ms(), &subs.parts.setup.metrics);
        let (mut pending, mut lags) = (BTreeMap::new(), BTreeMap::new());
        for sub in subs.all() {
            sub.with(|i| {
                pending.insert(i.terms.id.clone(), i.buffer.pending());
                let oldest = i.awaited.values().next().map_or(0, |a| now_ms.saturating_sub(a.delivered_ms));
                let limit = i.terms.expected.max_lag_ms.last().copied().unwrap_or(0);
                if limit > 0 {
                    // Subscriptions of one agreement share a label: the worst of them counts.
                    let (lag, bound): &mut (u64, u64) = lags.entry(i.terms.agreement.clone()).or_default();
                    (*lag, *bound) = (oldest.max(*lag), limit.max(*bound));
                }
            });
        }
        for name in names.iter().filter(|n| !pending.contains_key(*n)) {
            let _ = metrics.subscription_pending.remove_label_values(&[String::as_str(name)]);
        }
        for name in agreements.iter().filter(|n| !lags.contains_key(*n)) {
            let _ = metrics.evidence_lag.remove_label_values(&[String::as_str(name)]);
            let _ = metrics.evidence_lag_limit.remove_label_values(&[String::as_str(name)]);
        }
        for (name, count) in &pending {
            metrics.subscription_pending.with_label_values(&[name.as_str()]).set(*count as i64);
        }
        for (name, (lag, limit)) in &lags {
            metrics.evidence_lag.with_label_values(&[name.as_str()]).set(*lag as f64 / 1_000.0);
            metrics.evidence_lag_limit.with_label_values(&[name.as_str()]).set(*limit as f64 / 1_000.0);
        }
        (names, agreements) = (pending.into_keys().collect(), lags.into_keys().collect());
    }
}
