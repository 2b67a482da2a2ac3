//! Intake: messages of this agency's feeds become signed envelopes in its own streams, then `publish` operations.
//!
//! One task owns a dataset's stream, so that an envelope's place is never contended within the process; against other
//! processes the stream's expected sequence decides. Nothing is acknowledged before JetStream acknowledged it, and the
//! newest envelope alone says where an adapter stands.

mod anchor;
mod check;
mod envelope;
pub mod http;
mod stream;

use crate::config::NodeConfig;
use crate::keys::{ENVELOPE, KeyFileError, KeyFolder};
use crate::ledger::node_client::NodeClient;
use crate::ledger::writer::Writer;
use crate::metrics::Metrics;
use concordat_executor::policies::dataset::DatasetDoc;
use concordat_protocol::ids::DatasetId;
use concordat_protocol::message::SourceState;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

pub use check::{Checker, LineError};

/// Batches that may wait for one dataset before the adapter is told to come later.
const QUEUE: usize = 64;

/// Where an adapter stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// Newest durable batch, 0 when there is none.
    pub batch_no: u64,
    /// The adapter's note that came with it.
    pub checkpoint: Vec<u8>,
}

/// Why a batch was not taken. Nothing of it is in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IntakeError {
    /// Not a feed of this agency.
    #[error("dataset {0} is not a feed of this node: put its document in datasets/ and restart the broker")]
    UnknownDataset(String),
    /// Its schema does not compile.
    #[error("dataset {0}: its schema does not compile: {1}")]
    Schema(String, String),
    /// A header is missing or malformed.
    #[error("header {0}: {1}")]
    Header(&'static str, &'static str),
    /// No line, or too many.
    #[error("{0} lines: a batch has 1 to 256, one JSON object a line")]
    Count(usize),
    /// Lines that break a rule; the whole batch was refused.
    #[error("{} lines break a rule: correct or leave out the named ones and send the rest again", .0.len())]
    Lines(Vec<LineError>),
    /// The envelope is larger than the streams take.
    #[error("the batch is too large for one message of the streams: send fewer lines at once")]
    TooLarge,
    /// The adapter is elsewhere than it thinks.
    #[error("the newest durable batch is {}: go on from there", .0.batch_no)]
    Elsewhere(Position),
    /// Another adapter feeds the dataset.
    #[error(
        "dataset {dataset} is fed by the adapter {adapter}: one adapter feeds a dataset, give the other one a dataset of its own"
    )]
    OtherAdapter {
        /// The dataset.
        dataset: String,
        /// Who feeds it.
        adapter: String,
    },
    /// Too much waits.
    #[error("dataset {0} has too many batches waiting: send this one again in a second")]
    Busy(String),
    /// The streams do not acknowledge.
    #[error(
        "the streams do not acknowledge ({0}): the batch may or may not be durable, send it again with the same number"
    )]
    Unavailable(String),
    /// The stream exists with settings that lose data.
    #[error("stream {stream}: {rule}")]
    StreamConfig {
        /// Its name.
        stream: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// Keys or randomness.
    #[error("cryptographic library: {0}")]
    Library(String),
}

impl IntakeError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownDataset(_) => "unknown-dataset",
            Self::Schema(..) => "dataset-schema",
            Self::Header(..) => "header",
            Self::Count(_) => "batch-size",
            Self::Lines(_) => "bad-lines",
            Self::TooLarge => "too-large",
            Self::Elsewhere(_) => "batch-number",
            Self::OtherAdapter { .. } => "other-adapter",
            Self::Busy(_) => "busy",
            Self::Unavailable(_) => "streams-down",
            Self::StreamConfig { .. } => "stream-config",
            Self::Library(_) => "library",
        }
    }
}

/// A batch as it comes in.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The adapter's name; none for single messages that no adapter stands behind.
    pub source: Option<SourceState>,
    /// JSON lines.
    pub body: Vec<u8>,
}

/// A batch that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Messages of the batch.
    pub accepted: u64,
    /// Sequence number of the last message in the dataset.
    pub last_seq: u64,
}

/// The broker's writer, absent until the ledger knows it.
type WriterWatch = watch::Receiver<Option<Writer>>;
type Answer = Result<Accepted, IntakeError>;

/// A batch with the place where its answer goes.
struct Post {
    incoming: Incoming,
    reply: oneshot::Sender<Answer>,
}

/// What intake needs.
pub struct IntakeSetup {
    /// Configuration.
    pub cfg: Arc<NodeConfig>,
    /// Documents of the node's folder.
    pub datasets: Vec<DatasetDoc>,
    /// The streams, as the agency's own user.
    pub nats: async_nats::Client,
    /// The own node.
    pub node: NodeClient,
    /// The broker's writer, absent until the ledger knows it.
    pub writer: WriterWatch,
    /// Metrics.
    pub metrics: Metrics,
}

/// Positions by dataset: the adapter's name and where it stands; absent until the stream was read.
type Positions = Arc<Mutex<BTreeMap<DatasetId, (String, Position)>>>;

/// Handle of intake. All its tasks live as long as the process.
pub struct Intake {
    posts: BTreeMap<DatasetId, mpsc::Sender<Post>>,
    positions: Positions,
}

impl Intake {
    /// Starts a task for every feed of this agency. The streams need not be up yet.
    pub fn start(setup: IntakeSetup) -> Result<Arc<Self>, IntakeStartError> {
        let key = Arc::new(KeyFolder::new(setup.cfg.keys()).signing(ENVELOPE)?);
        let positions = Positions::default();
        let mut posts = BTreeMap::new();
        for doc in setup.datasets.iter().filter(|d| d.is_feed() && d.id.owner() == setup.cfg.agency) {
            let (tx, rx) = mpsc::channel(QUEUE);
            let js = async_nats::jetstream::new(setup.nats.clone());
            let anchors = anchor::start(
                doc.id.clone(),
                js.clone(),
                setup.node.clone(),
                setup.writer.clone(),
                setup.metrics.clone(),
            );
            let task = stream::Task {
                chain: setup.cfg.chain.clone(),
                dataset: doc.id.clone(),
                retention_ms: doc.retention.stream_ms,
                checker: Arc::new(Checker::new(doc)?),
                key: key.clone(),
                node: setup.node.clone(),
                js,
                anchors,
                positions: positions.clone(),
                metrics: setup.metrics.clone(),
            };
            tokio::spawn(task.run(rx));
            posts.insert(doc.id.clone(), tx);
        }
        info!(feeds = posts.len(), "intake serves");
        Ok(Arc::new(Self { posts, positions }))
    }

    /// Takes a batch; returns when it is durable.
    pub async fn post(&self, dataset: &str, incoming: Incoming) -> Answer {
        let posts = DatasetId::new(dataset).ok().and_then(|d| self.posts.get(&d));
        let posts = posts.ok_or_else(|| IntakeError::UnknownDataset(dataset.chars().take(80).collect()))?;
        let (reply, answer) = oneshot::channel();
        posts.try_send(Post { incoming, reply }).map_err(|_| IntakeError::Busy(dataset.to_owned()))?;
        answer.await.map_err(|_| IntakeError::Unavailable("the dataset's task has stopped".into()))?
    }

    /// Where an adapter stands. Unknown until every stream was read once: a guess would make it begin again.
    pub fn position(&self, adapter: &str) -> Result<Position, IntakeError> {
        let positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, position)) = positions.values().find(|(name, _)| name == adapter) {
            return Ok(position.clone());
        }
        if positions.len() < self.posts.len() {
            return Err(IntakeError::Unavailable("the streams were not read yet".into()));
        }
        Ok(Position::default())
    }
}

/// Why intake cannot start.
#[derive(Debug, Error)]
pub enum IntakeStartError {
    /// The envelope key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A dataset.
    #[error(transparent)]
    Dataset(#[from] IntakeError),
}

impl IntakeStartError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Key(e) => e.code(),
            Self::Dataset(e) => e.code(),
        }
    }
}

fn random32() -> Result<[u8; 32], IntakeError> {
    let mut out = [0; 32];
    getrandom::fill(&mut out).map_err(|e| IntakeError::Library(e.to_string()))?;
    Ok(out)
}
