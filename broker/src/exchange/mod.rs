//! The exchange manager: makes a feed stream for each agency and a durable consumer for each subscription, as the
//! ledger's agreements say, and takes away what a revocation ended. It holds the exchange's account and nothing else:
//! what passes through the streams is sealed.

mod consumers;
pub(crate) mod plan;
mod serve;
mod sweep;
#[cfg(test)]
mod tests;

use crate::config::{ConfigError, ExchangeConfig};
use crate::durable::{Durable, NotDurable, connect_options};
use crate::ledger::LedgerError;
use crate::ledger::follow::{Followed, follow};
use crate::ledger::node_client::NodeClient;
use crate::streams::EXCHANGE_SERVES;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use concordat_protocol::ids::AgencyId;
use consumers::Settled;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
pub use sweep::Limits;
use thiserror::Error;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

/// How long a feed stream keeps items.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How long message ids are remembered.
const DEDUP: Duration = Duration::from_secs(120);
/// How often the feed streams are looked at.
const SWEEP: Duration = Duration::from_secs(5);
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_millis(500);
/// No writer's entries are needed, only that something changed.
const NO_ENTRIES: &str = "exchange/none";

/// Why the exchange manager cannot start or go on.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The stream server.
    #[error("streams: {0}; is nats-server running, and do user and password fit?")]
    Streams(String),
    /// It does not sync before it acknowledges.
    #[error(transparent)]
    Durable(#[from] NotDurable),
}

impl ExchangeError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(e) => e.code(),
            Self::Ledger(e) => e.code(),
            Self::Streams(_) => "streams",
            Self::Durable(e) => e.code(),
        }
    }
}

fn streams(e: impl std::fmt::Display) -> ExchangeError {
    ExchangeError::Streams(e.to_string())
}

/// Runs the exchange manager of the folder `dir` until a signal asks it to stop.
pub async fn run(dir: &Path) -> Result<(), ExchangeError> {
    let cfg = ExchangeConfig::load(dir)?;
    let password = cfg.nats.password.resolve(&cfg.dir)?;
    let nats = connect_options(&cfg.nats, &password, "exchange").connect(&cfg.nats.url).await.map_err(streams)?;
    let durable = Durable::start(&nats, &cfg.nats);
    let limits = Limits { stream_bytes: cfg.feed_bytes, ..Limits::default() };
    let manager =
        Manager { js: jetstream::new(nats), node: NodeClient::new(cfg.node_socket()), agencies: cfg.agencies.clone() };
    tokio::select! {
        refused = durable.refused() => Err(refused.into()),
        () = async { match durable.ready().await {
            Ok(()) => manager.run(&limits).await,
            // The first branch says why.
            Err(_) => std::future::pending().await,
        } } => Ok(()),
        () = crate::stop_signal() => Ok(()),
    }
}

/// The manager's parts.
pub struct Manager {
    /// The streams, as the exchange's own user.
    pub js: Context,
    /// The node whose ledger it follows.
    pub node: NodeClient,
    /// The agencies it serves.
    pub agencies: Vec<AgencyId>,
}

impl Manager {
    /// Follows the ledger and serves agencies for ever.
    pub async fn run(&self, limits: &Limits) {
        let mut head = self.until("the ledger node", || self.node.head()).await;
        self.until("feed streams", || self.make_streams(limits)).await;
        let mut frames = follow(self.node.path(), head.height + 1, vec![NO_ENTRIES.into()]);
        let mut settled = Settled::default();
        settled = self.until("subscriptions", || self.settle(&settled)).await;
        let client = self.js.client();
        let mut asked = self.until("requests", || client.subscribe(EXCHANGE_SERVES)).await;
        let (mut seen, mut tick) = (BTreeMap::new(), tokio::time::interval(SWEEP));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // One thing at a time: a request never meets a half-settled agreement, nor a sweep a half-opened subscription.
        loop {
            tokio::select! {
                followed = frames.next() => {
                    if let Followed::Frame(frame) = followed && frame.meta_rev != head.meta_rev {
                        head.meta_rev = frame.meta_rev;
                        settled = self.until("subscriptions", || self.settle(&settled)).await;
                    }
                }
                Some(message) = asked.next() => self.serve(&message).await,
                _ = tick.tick() => {
                    if let Err(e) = self.sweep(limits, &settled.subjects, &mut seen, Instant::now()).await {
                        warn!(error = %e, "feed streams were not looked at; they are in a moment");
                    }
                }
            }
        }
    }

    /// Tries until it works; says the first failure of each kind.
    async fn until<T, E, F>(&self, what: &str, mut attempt: impl FnMut() -> F) -> T
    where
        F: Future<Output = Result<T, E>>,
        E: std::fmt::Display,
    {
        let mut said = String::new();
        loop {
            match attempt().await {
                Ok(value) => return value,
                Err(e) => {
                    if said != e.to_string() {
                        said = e.to_string();
                        warn!(what, error = said, "waiting");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Makes the feed stream of every agency, or brings it up to these limits.
    pub async fn make_streams(&self, limits: &Limits) -> Result<(), ExchangeError> {
        for agency in &self.agencies {
            let account = agency.account();
            let config = Config {
                description: Some(format!("feeds to {agency}")),
                subjects: vec![format!("feed.*.{account}.*")],
                name: account,
                storage: StorageType::File,
                max_age: MAX_AGE,
                max_bytes: i64::try_from(limits.stream_bytes).unwrap_or(i64::MAX),
                max_messages_per_subject: i64::try_from(limits.per_subject).unwrap_or(i64::MAX),
                // A full subject, or stream, refuses new items: the provider keeps them and tries again. Nothing that was
                // delivered makes way.
                discard: DiscardPolicy::New,
                discard_new_per_subject: true,
                duplicate_window: DEDUP,
                deny_delete: true,
                num_replicas: 1,
                ..Config::default()
            };
            self.js.create_or_update_stream(config).await.map_err(streams)?;
        }
        info!(agencies = self.agencies.len(), "feed streams are there");
        Ok(())
    }
}
