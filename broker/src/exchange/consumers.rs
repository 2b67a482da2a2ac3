//! Durable consumers on the feed streams. What a created one was opened for stands in its own metadata: the manager keeps
//! no store, and the streams outlive it.

use super::plan::{Wanted, created, plan};
use super::{ExchangeError, Manager, streams};
use crate::streams::{feed_consumer, feed_subject};
use async_nats::jetstream::consumer::pull::Config as PullConfig;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, Info};
use async_nats::jetstream::stream::Stream;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::node::AgreementView;
use futures::TryStreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tracing::info;

/// After how long an item that was not acknowledged is given out again; a broker that holds one says so meanwhile.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// Items a consumer may hold unacknowledged.
const MAX_ACK_PENDING: i64 = 1_024;
/// Keys of the metadata.
const PROVIDER: &str = "concordat-provider";
const SUBSCRIPTION: &str = "concordat-subscription";
const HANDLE: &str = "concordat-handle";

/// What a consumer was opened for on request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Created {
    pub provider: AgencyId,
    pub subscription: u64,
    pub handle: u64,
}

impl Created {
    /// From a consumer's metadata; none for a default one.
    pub fn of(info: &Info) -> Option<Self> {
        let get = |key: &str| info.config.metadata.get(key);
        Some(Self {
            provider: AgencyId::new(get(PROVIDER)?).ok()?,
            subscription: get(SUBSCRIPTION)?.parse().ok()?,
            handle: get(HANDLE)?.parse().ok()?,
        })
    }
}

/// Makes the consumer of a subscription; one that is there already stays as it is.
pub(super) async fn make(
    stream: &Stream,
    subject: String,
    name: &str,
    created: Option<&Created>,
) -> Result<(), ExchangeError> {
    let metadata = created.into_iter().flat_map(|c| {
        [(PROVIDER, c.provider.to_string()), (SUBSCRIPTION, c.subscription.to_string()), (HANDLE, c.handle.to_string())]
    });
    let config = PullConfig {
        durable_name: Some(name.to_owned()),
        filter_subject: subject,
        ack_policy: AckPolicy::Explicit,
        deliver_policy: DeliverPolicy::All,
        ack_wait: ACK_WAIT,
        max_ack_pending: MAX_ACK_PENDING,
        metadata: metadata.map(|(k, v)| (k.to_owned(), v)).collect(),
        ..PullConfig::default()
    };
    let _: Consumer<PullConfig> = stream.get_or_create_consumer(name, config).await.map_err(streams)?;
    Ok(())
}

/// All consumers of a stream, by name.
pub(super) async fn list(stream: &Stream) -> Result<BTreeMap<String, Info>, ExchangeError> {
    stream.consumers().map_ok(|info| (info.name.clone(), info)).try_collect().await.map_err(streams)
}

/// What was settled last.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Subjects that subscriptions of the ledger's agreements own.
    pub subjects: BTreeSet<String>,
    /// Subjects that were purged for good.
    purged: BTreeSet<String>,
}

impl Manager {
    /// Makes consumers be what the agreements say. What is so already is left alone.
    pub(super) async fn settle(&self, done: &Settled) -> Result<Settled, ExchangeError> {
        let views = self.node.agreements().await?;
        let wanted = plan(&views, &self.agencies);
        let mut settled = Settled { subjects: BTreeSet::new(), purged: done.purged.clone() };
        for agency in &self.agencies {
            let stream = self.js.get_stream(agency.account()).await.map_err(streams)?;
            let mut there = list(&stream).await?;
            for (number, w) in wanted.iter().filter(|(_, w)| w.parties().1 == agency) {
                let now = there.remove(&feed_consumer(w.parties().0, *number));
                self.apply(&stream, *number, w, now.as_ref(), &mut settled).await?;
            }
            for info in there.values() {
                self.apply_created(&stream, agency, &views, info, &mut settled).await?;
            }
        }
        Ok(settled)
    }

    async fn apply_created(
        &self,
        stream: &Stream,
        consumer: &AgencyId,
        views: &[AgreementView],
        info: &Info,
        settled: &mut Settled,
    ) -> Result<(), ExchangeError> {
        let Some(c) = Created::of(info) else { return Ok(()) };
        let wanted = created(views, c.handle, &c.provider, consumer);
        self.apply(stream, c.subscription, &wanted, Some(info), settled).await
    }

    /// Makes one subscription's consumer be what it should, given what is there `now`.
    async fn apply(
        &self,
        stream: &Stream,
        number: u64,
        w: &Wanted,
        now: Option<&Info>,
        settled: &mut Settled,
    ) -> Result<(), ExchangeError> {
        let (provider, consumer) = w.parties();
        let (name, subject) = (feed_consumer(provider, number), feed_subject(provider, consumer, number));
        match (w, now) {
            (Wanted::Open { .. }, None) => {
                make(stream, subject.clone(), &name, None).await?;
                info!(consumer = name, "subscription open");
            }
            (Wanted::Open { .. }, Some(info)) if info.paused => {
                stream.resume_consumer(&name).await.map_err(streams)?;
                info!(consumer = name, "subscription open again");
            }
            (Wanted::Paused { .. }, Some(info)) if !info.paused => {
                let forever = async_nats::datetime::from_nanos(4_102_444_800_000_000_000).map_err(streams)?;
                stream.pause_consumer(&name, forever).await.map_err(streams)?;
                info!(consumer = name, "subscription paused");
            }
            (Wanted::Gone { .. }, Some(_)) => {
                stream.delete_consumer(&name).await.map_err(streams)?;
                stream.purge().filter(subject.clone()).await.map_err(streams)?;
                info!(consumer = name, "subscription ended");
            }
            (Wanted::Gone { .. }, None) if !settled.purged.contains(&subject) => {
                stream.purge().filter(subject.clone()).await.map_err(streams)?;
            }
            _ => {}
        }
        if matches!(w, Wanted::Gone { .. }) {
            settled.purged.insert(subject);
        } else {
            settled.subjects.insert(subject);
        }
        Ok(())
    }
}
