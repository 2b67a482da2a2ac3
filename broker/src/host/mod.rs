//! The executor's host: a process of its own, with the provider's credentials, that runs the executor's pure step.
//!
//! One task owns the step and the release store. Work that takes the processor or the store (deciding, fetching,
//! redacting, sealing) runs on blocking threads and reports back. Effects of many inputs share one durable write.

mod bounded;
mod calls;
pub mod feed;
mod fetch;
mod forget;
pub mod hosted;
mod job;
pub mod lead;
mod listen;
pub mod notices;
pub mod policy;
mod query_loop;
pub mod recorded;
mod refusals;
mod releases;
pub mod renewal;
mod role_maps;
pub mod stages;
pub mod subjects;
mod touched;
pub mod unsettled;

use crate::config::{ConfigError, NodeConfig};
use crate::keys::{self, KeyFileError, KeyFolder};
use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use crate::ledger::rpc::CometRpc;
use crate::ledger::writer::{Writer, WriterSetup};
use concordat_executor::holding::{self, DatasetSpec, Holding, HoldingError, SqliteHolding, SqliteOptions};
use concordat_executor::policies::dataset::{DatasetDoc, FieldType as DocType};
use concordat_executor::query::{FieldType, Fields};
use concordat_protocol::ids::{IdError, WriterId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tracing::info;

pub use releases::{ReleaseStore, StoreError};

/// Why the host cannot start or go on.
#[derive(Debug, Error)]
pub enum HostError {
    /// The node's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The held records.
    #[error(transparent)]
    Holding(#[from] HoldingError),
    /// The release store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Subjects.
    #[error(transparent)]
    Subjects(#[from] subjects::SubjectsError),
    /// The feed store.
    #[error(transparent)]
    Feed(#[from] feed::FeedStoreError),
    /// A name.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A dataset document.
    #[error("{path}: {rule}")]
    Dataset {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        rule: String,
    },
    /// Which terms it enforces.
    #[error(
        "executor/enforced.json: {0}; restore it from a backup, or move it away and have both sides propose the next \
         version of what is denied then"
    )]
    Enforced(#[source] std::io::Error),
    /// Which terms it enforces is not kept.
    #[error("executor/enforced.json is not written: {0}")]
    NotKept(#[source] std::io::Error),
    /// The stream server.
    #[error("streams: {0}; is nats-server running, and do user and password fit?")]
    Nats(String),
    /// It does not sync before it acknowledges.
    #[error(transparent)]
    Durable(#[from] crate::durable::NotDurable),
    /// It is not the executor at work any more, or cannot become it.
    #[error("{0}; it starts again and stands by")]
    Lead(String),
    /// The highest header by which a hosted provider released something.
    #[error("{0}; restore it: without it a host could show an old state")]
    Believed(String),
    /// The cryptographic library failed its self test.
    #[error(transparent)]
    SelfTest(#[from] concordat_protocol::keys::KeyError),
}

impl HostError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(e) => e.code(),
            Self::Key(e) => e.code(),
            Self::Ledger(e) => e.code(),
            Self::Holding(e) => e.code(),
            Self::Store(_) => "release-store",
            Self::Subjects(e) => e.code(),
            Self::Feed(e) => e.code(),
            Self::Id(_) => "name",
            Self::Durable(e) => e.code(),
            Self::Dataset { .. } => "dataset",
            Self::Nats(_) => "streams",
            Self::Lead(_) => "executor-lease",
            Self::Enforced(_) | Self::NotKept(_) => "enforced-terms",
            Self::Believed(_) => "believed-header",
            Self::SelfTest(_) => "self-test",
        }
    }
}

/// Reads every dataset document of a node's folder with its schema.
pub fn load_datasets(dir: &Path) -> Result<Vec<DatasetDoc>, HostError> {
    let folder = dir.join("datasets");
    let bad = |path: &Path, rule: String| HostError::Dataset { path: path.to_owned(), rule };
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(vec![]) };
    let mut files: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    files
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).map_err(|e| bad(path, e.to_string()))?;
            let file = concordat_executor::policies::dataset::DatasetFile::parse(&text)
                .map_err(|e| bad(path, e.to_string()))?;
            let schema = dir.join(&file.schema);
            let json = std::fs::read_to_string(&schema).map_err(|e| bad(&schema, e.to_string()))?;
            file.with_schema(&json).map_err(|e| bad(path, e.to_string()))
        })
        .collect()
}

/// What the holding must know of a dataset document.
pub fn holding_spec(doc: &DatasetDoc) -> Result<DatasetSpec, HostError> {
    let kind = |k: DocType| match k {
        DocType::String => FieldType::String,
        DocType::Integer => FieldType::Integer,
        // A binary number has an exact decimal rendering in JSON; it is compared as that.
        DocType::Decimal | DocType::Number => FieldType::Decimal,
        DocType::Boolean => FieldType::Boolean,
        DocType::Timestamp => FieldType::Timestamp,
    };
    let list = doc.fields().iter().map(|f| (f.name.clone(), kind(f.kind))).collect();
    let bad = |rule: String| HostError::Dataset { path: doc.id.as_str().into(), rule };
    let fields = Fields::new(list).map_err(|e| bad(e.to_string()))?;
    Ok(DatasetSpec { id: doc.id.to_string(), key: doc.key.clone(), fields, indexes: doc.indexes.clone() })
}

/// Opens the node's holding: the store that its configuration names, or the embedded one.
pub fn open_holding(cfg: &NodeConfig) -> Result<Arc<dyn Holding>, HostError> {
    if let Some(named) = &cfg.holding {
        return Ok(holding::open(&named.setup(&cfg.dir)?, Arc::new(jiff::Timestamp::now))?);
    }
    let path = cfg.holdings();
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|source| ConfigError::Read { path: dir.to_owned(), source })?;
    }
    Ok(Arc::new(SqliteHolding::open(&path, SqliteOptions::default())?))
}

/// Connects to the streams as the agency's own user.
pub async fn connect_streams(cfg: &NodeConfig, name: &str) -> Result<async_nats::Client, HostError> {
    let password = cfg.nats.password.resolve(&cfg.dir)?;
    let options = crate::durable::connect_options(&cfg.nats, &password, &format!("{}/{name}", cfg.agency));
    options.connect(&cfg.nats.url).await.map_err(|e| HostError::Nats(e.to_string()))
}

/// Runs the host of the node in `dir` until a signal asks it to stop.
pub async fn run(dir: &Path) -> Result<(), HostError> {
    concordat_protocol::keys::self_test()?;
    let cfg = Arc::new(NodeConfig::load(dir)?);
    let folder = KeyFolder::of(&cfg);
    let release_key = Arc::new(folder.signing(keys::RELEASE)?);
    let holding = open_holding(&cfg)?;
    let writes = load_datasets(dir)?.iter().any(|d| d.writable);
    let keeper = tokio::select! {
        taken = lead::take_over(&cfg, &holding, writes) => taken?,
        () = crate::stop_signal() => return Ok(()),
    };
    // Now, and not before it stood by: documents may have come meanwhile.
    let datasets = load_datasets(dir)?;
    let writable = fetch::Writable::new(&datasets)?;
    let keeper = Arc::new(keeper);
    // A task of its own: the lease is kept while the host's own task waits for a store.
    let of = keeper.clone();
    let mut keeping = tokio::spawn(async move { of.keep().await });
    let served = async {
        lead::fence_stores(&cfg, &keeper).await?;
        serve(&cfg, datasets, writable, holding, release_key, keeper.lead.clone()).await
    };
    let result = tokio::select! {
        result = served => result,
        lost = &mut keeping => return Err(lost.unwrap_or_else(|e| HostError::Lead(e.to_string()))),
    };
    keeping.abort();
    keeper.give_back().await;
    result
}

/// Serves as the executor at work.
async fn serve(
    cfg: &Arc<NodeConfig>,
    datasets: Vec<DatasetDoc>,
    writable: fetch::Writable,
    holding: Arc<dyn Holding>,
    release_key: Arc<concordat_protocol::keys::SigningKey>,
    lead: Arc<lead::Lead>,
) -> Result<(), HostError> {
    let (folder, mut specs) = (KeyFolder::of(cfg), Vec::new());
    let writes = datasets.iter().any(|d| d.writable);
    for doc in datasets.iter().filter(|d| d.is_held()) {
        let spec = holding_spec(doc)?;
        holding.ensure_dataset(&spec)?;
        specs.push((doc.id.clone(), spec));
    }
    let store = ReleaseStore::open(&cfg.releases())?.under(lead.term())?;
    let vault = subjects::Vault::open(&cfg.path("executor")).and_then(|v| v.under(lead.term()));
    let vault = vault.map_err(subjects::SubjectsError::from)?;
    let people = subjects::People::new(Arc::new(vault), &datasets);
    let node = NodeClient::new(cfg.node_socket());
    let writer = Writer::start(WriterSetup {
        chain: cfg.chain.clone(),
        writer: WriterId::new(format!("{}/executor", cfg.agency))?,
        key: folder.signing(keys::WRITER_EXECUTOR)?,
        journal: cfg.path("executor/writer.sqlite"),
        node: node.clone(),
        rpc: CometRpc::new(&cfg.rpc()?)?,
        peers: cfg.peers.iter().map(|p| p.url.clone()).collect(),
        term: lead.term(),
    })
    .await?;
    let nats = connect_streams(cfg, "executor").await?;
    let durable = crate::durable::Durable::start(&nats, &cfg.nats);
    durable.ready().await?;
    info!(agency = %cfg.agency, datasets = specs.len(), "executor serves");
    let (view, seen) = tokio::sync::watch::channel(feed::View::default());
    let feeds = feed::start(feed::FeedSetup {
        cfg: cfg.clone(),
        // A hosted provider delivers nothing under a promise.
        datasets: if cfg.hosted.is_some() { vec![] } else { datasets },
        node: NodeClient::new(cfg.node_socket()),
        writer: writer.clone(),
        nats: nats.clone(),
        release_key: release_key.clone(),
        people: people.clone(),
        view: seen.clone(),
        lead: lead.clone(),
    })?;
    let setup = subjects::SubjectsSetup {
        agency: cfg.agency.clone(),
        node: NodeClient::new(cfg.node_socket()),
        rpc: CometRpc::new(&cfg.rpc()?)?,
        writer: writer.clone(),
        holding: holding.clone(),
    };
    let subjects = Arc::new(subjects::Subjects::new(cfg, setup, people.clone(), lead.term())?);
    // What the ledger says is forgotten is forgotten before anything is served.
    subjects.replay().await?;
    subjects.clone().serve(seen)?;
    if writes {
        tokio::spawn(forget::forget_writes(holding.clone(), cfg.releases()));
    }
    let fetcher = fetch::Fetcher::new(cfg.clone(), node.clone(), holding, release_key, specs, people);
    let fetcher = Arc::new(fetcher.with_writable(writable));
    let stages = Arc::new(stages::Stages::default());
    tokio::spawn(stages::answer(nats.clone(), stages.clone(), lead.clone()));
    let gate = hosted::Gate::of(cfg)?;
    let cfg = cfg.clone();
    let host = query_loop::Host { cfg, node, writer, nats, store, fetcher, feeds, subjects, view, lead, stages, gate };
    tokio::select! {
        result = host.run() => result,
        refused = durable.refused() => Err(refused.into()),
        () = crate::stop_signal() => Ok(()),
    }
}
