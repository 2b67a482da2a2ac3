//! Room on the feed streams. A subject takes [`Limits::per_subject`] items and then refuses its own appends only; what was
//! acknowledged is kept for replay, but makes room when a subject is half full. Subjects of no subscription are emptied.

use super::consumers::list;
use super::{ExchangeError, Manager, streams};
use async_nats::jetstream::consumer::pull::Config as PullConfig;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, Info};
use async_nats::jetstream::stream::Stream;
use concordat_protocol::ids::AgencyId;
use futures::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How much of what is kept.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Items of one subscription.
    pub per_subject: u64,
    /// Acknowledged items of one subscription that are kept for replay.
    pub replay: u64,
    /// By how much a subject passes `replay` before it is looked at.
    pub slack: u64,
    /// Bytes of one agency's feed stream.
    pub stream_bytes: u64,
    /// How long a subject may have no subscription: its provider may begin before its consumer asks for it.
    pub stranger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_subject: 65_536,
            replay: 32_768,
            slack: 4_096,
            stream_bytes: crate::config::FEED_STREAM_BYTES,
            stranger: Duration::from_secs(600),
        }
    }
}

/// What was seen of one stream.
#[derive(Debug, Default)]
pub(super) struct Seen {
    last: u64,
    strangers: BTreeMap<String, Instant>,
}

impl Manager {
    /// Looks at every feed stream once. An idle one costs one request.
    pub(super) async fn sweep(
        &self,
        limits: &Limits,
        known: &BTreeSet<String>,
        seen: &mut BTreeMap<AgencyId, Seen>,
        now: Instant,
    ) -> Result<(), ExchangeError> {
        for agency in &self.agencies {
            let stream = self.js.get_stream(agency.account()).await.map_err(streams)?;
            let seen = seen.entry(agency.clone()).or_default();
            let state = &stream.cached_info().state;
            let idle = state.last_sequence == seen.last && seen.strangers.is_empty() && state.messages <= limits.replay;
            if !idle {
                look(&stream, limits, known, seen, now).await?;
                seen.last = state.last_sequence;
            }
        }
        Ok(())
    }
}

async fn look(
    stream: &Stream,
    limits: &Limits,
    known: &BTreeSet<String>,
    seen: &mut Seen,
    now: Instant,
) -> Result<(), ExchangeError> {
    let subjects = stream.info_with_subjects(">").await.map_err(streams)?;
    let subjects: BTreeMap<String, usize> = subjects.try_collect().await.map_err(streams)?;
    let consumers = list(stream).await?;
    let mut strangers = BTreeMap::new();
    for (subject, count) in &subjects {
        match consumer_of(subject).and_then(|name| consumers.get(&name)) {
            Some(info) if *count as u64 > limits.replay + limits.slack => {
                make_room(stream, subject, info, limits).await?
            }
            Some(_) => {}
            None if known.contains(subject) => {}
            None => {
                let since = seen.strangers.get(subject).copied().unwrap_or(now);
                if now.saturating_duration_since(since) >= limits.stranger {
                    stream.purge().filter(subject.clone()).await.map_err(streams)?;
                    warn!(subject, items = count, "emptied: no subscription has this subject");
                } else {
                    strangers.insert(subject.clone(), since);
                }
            }
        }
    }
    seen.strangers = strangers;
    Ok(())
}

/// `GRID-17` of `feed.GRID.TRANSPORT.17`.
fn consumer_of(subject: &str) -> Option<String> {
    let mut tokens = subject.split('.');
    match (tokens.next(), tokens.next(), tokens.next(), tokens.next(), tokens.next()) {
        (Some("feed"), Some(provider), Some(_), Some(number), None) => Some(format!("{provider}-{number}")),
        _ => None,
    }
}

/// Drops acknowledged items beyond the newest `replay` of a subject; never one above the consumer's floor.
async fn make_room(stream: &Stream, subject: &str, consumer: &Info, limits: &Limits) -> Result<(), ExchangeError> {
    let floor = consumer.ack_floor.stream_sequence;
    let first = stream.cached_info().state.first_sequence;
    // The largest sequence from which on `replay` items are left, between the stream's first and the floor.
    let (mut low, mut high) = (first, floor + 1);
    if low >= high {
        return Ok(());
    }
    if left(stream, subject, high).await? >= limits.replay {
        low = high;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match left(stream, subject, middle).await? {
            n if n < limits.replay => high = middle,
            n => {
                low = middle;
                if n <= limits.replay + limits.slack / 4 {
                    break;
                }
            }
        }
    }
    let purged = stream.purge().sequence(low).filter(subject).await.map_err(streams)?;
    info!(subject, items = purged.purged, "acknowledged items dropped to make room");
    Ok(())
}

/// Items of a subject from a sequence on. Only a consumer can count that; this one lives for the question.
async fn left(stream: &Stream, subject: &str, from: u64) -> Result<u64, ExchangeError> {
    let config = PullConfig {
        filter_subject: subject.to_owned(),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
        ack_policy: AckPolicy::None,
        memory_storage: true,
        inactive_threshold: Duration::from_secs(5),
        ..PullConfig::default()
    };
    let probe = stream.create_consumer(config).await.map_err(streams)?;
    let (pending, name) = (probe.cached_info().num_pending, probe.cached_info().name.clone());
    stream.delete_consumer(&name).await.map_err(streams)?;
    Ok(pending)
}
