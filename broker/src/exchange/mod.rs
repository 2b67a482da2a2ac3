//! The exchange manager: makes a feed stream for each agency and a durable consumer for each subscription, as the
//! ledger's agreements say, and takes away what a revocation ended. It holds the exchange's account and nothing else:
//! what passes through the streams is sealed.

pub(crate) mod plan;

use crate::config::{ConfigError, ExchangeConfig};
use crate::ledger::LedgerError;
use crate::ledger::follow::{Followed, follow};
use crate::ledger::node_client::NodeClient;
use crate::streams::{feed_consumer, feed_subject};
use async_nats::jetstream::consumer::pull::Config as PullConfig;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy};
use async_nats::jetstream::stream::{Config, StorageType};
use async_nats::jetstream::{self, Context};
use concordat_protocol::ids::AgencyId;
use plan::{Wanted, plan};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use thiserror::Error;
use tracing::{info, warn};

/// How long a feed stream keeps items.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How long message ids are remembered.
const DEDUP: Duration = Duration::from_secs(120);
/// After how long an item that was not acknowledged is given out again; a broker that holds one says so meanwhile.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// Items a consumer may hold unacknowledged.
const MAX_ACK_PENDING: i64 = 1_024;
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
}

impl ExchangeError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(e) => e.code(),
            Self::Ledger(e) => e.code(),
            Self::Streams(_) => "streams",
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
    let options = async_nats::ConnectOptions::with_user_and_password(cfg.nats.user.clone(), password.to_string())
        .name("exchange")
        .retry_on_initial_connect();
    let nats = options.connect(&cfg.nats.url).await.map_err(streams)?;
    let manager =
        Manager { js: jetstream::new(nats), node: NodeClient::new(cfg.node_socket()), agencies: cfg.agencies.clone() };
    tokio::select! {
        () = manager.run() => Ok(()),
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
    /// Follows the ledger for ever.
    pub async fn run(&self) {
        let mut head = self.until("the ledger node", || self.node.head()).await;
        self.until("feed streams", || self.make_streams()).await;
        let mut frames = follow(self.node.path(), head.height + 1, vec![NO_ENTRIES.into()]);
        let mut done: BTreeMap<u64, Wanted> = BTreeMap::new();
        loop {
            done = self.until("subscriptions", || self.settle(&done)).await;
            let before = head.meta_rev;
            while head.meta_rev == before {
                if let Followed::Frame(frame) = frames.next().await {
                    head.meta_rev = frame.meta_rev;
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

    /// Makes the feed stream of every agency.
    pub async fn make_streams(&self) -> Result<(), ExchangeError> {
        for agency in &self.agencies {
            let account = agency.account();
            let config = Config {
                description: Some(format!("feeds to {agency}")),
                subjects: vec![format!("feed.*.{account}.*")],
                name: account,
                storage: StorageType::File,
                max_age: MAX_AGE,
                duplicate_window: DEDUP,
                deny_delete: true,
                num_replicas: 1,
                ..Config::default()
            };
            self.js.get_or_create_stream(config).await.map_err(streams)?;
        }
        info!(agencies = self.agencies.len(), "feed streams are there");
        Ok(())
    }

    /// Makes consumers be what the agreements say; returns what is settled now. What did not change is left alone.
    async fn settle(&self, done: &BTreeMap<u64, Wanted>) -> Result<BTreeMap<u64, Wanted>, ExchangeError> {
        let wanted = plan(&self.node.agreements().await?, &self.agencies);
        for (number, w) in &wanted {
            if done.get(number) != Some(w) {
                self.apply(*number, w).await?;
            }
        }
        Ok(wanted)
    }

    /// Makes one subscription's consumer be what it should.
    async fn apply(&self, number: u64, w: &Wanted) -> Result<(), ExchangeError> {
        let (provider, consumer) = w.parties();
        let (stream, name) =
            (self.js.get_stream(consumer.account()).await.map_err(streams)?, feed_consumer(provider, number));
        let subject = feed_subject(provider, consumer, number);
        match w {
            Wanted::Open { .. } => {
                let config = PullConfig {
                    durable_name: Some(name.clone()),
                    filter_subject: subject,
                    ack_policy: AckPolicy::Explicit,
                    deliver_policy: DeliverPolicy::All,
                    ack_wait: ACK_WAIT,
                    max_ack_pending: MAX_ACK_PENDING,
                    ..PullConfig::default()
                };
                let _: Consumer<PullConfig> = stream.get_or_create_consumer(&name, config).await.map_err(streams)?;
                stream.resume_consumer(&name).await.map_err(streams)?;
                info!(consumer = name, "subscription open");
            }
            Wanted::Paused { .. } => {
                if stream.consumer_info(&name).await.is_ok() {
                    let forever = async_nats::datetime::from_nanos(4_102_444_800_000_000_000).map_err(streams)?;
                    stream.pause_consumer(&name, forever).await.map_err(streams)?;
                    info!(consumer = name, "subscription paused");
                }
            }
            Wanted::Gone { .. } => {
                if stream.consumer_info(&name).await.is_ok() {
                    stream.delete_consumer(&name).await.map_err(streams)?;
                    info!(consumer = name, "subscription ended");
                }
                stream.purge().filter(subject).await.map_err(streams)?;
            }
        }
        Ok(())
    }
}
