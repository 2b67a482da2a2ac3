//! Intake: messages of this agency's feeds become signed envelopes in its own streams, then `publish` operations.
//!
//! One task owns a dataset's stream, so that an envelope's place is never contended within the process; against other
//! processes the stream's expected sequence decides. Nothing is acknowledged before JetStream acknowledged it, and the
//! newest envelope alone says where an adapter stands.

mod anchor;
mod check;
mod envelope;
mod feeds;
pub mod http;
mod kept;
mod pipeline;
mod quick;
mod stats;
mod stream;

use crate::config::NodeConfig;
use crate::keys::{ENVELOPE, KeyFileError, KeyFolder};
use crate::ledger::node_client::NodeClient;
use crate::ledger::writer::Writer;
use crate::metrics::Metrics;
use concordat_executor::policies::dataset::DatasetDoc;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::DatasetId;
use concordat_protocol::message::SourceState;
use feeds::Feeds;
use pipeline::Post;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::info;

pub use check::{Batch, Checker, LineError};

/// Batches that may wait for one dataset before the sender is told to come later.
const QUEUE: usize = 1_024;
/// Bytes of batches that may be in memory before senders are told to come later, a KiB a permit.
const QUEUE_KIB: usize = 64 << 10;
/// Bodies up to this size are checked where they come in: handing them to another thread would take longer.
const SMALL: usize = 4 << 10;

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
    /// The stream takes no more.
    #[error(
        "the stream of dataset {0} is full: give the streams' disk more room, raise retention.stream_bytes or shorten retention.stream in the dataset's document; send this batch again later"
    )]
    Full(String),
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
            Self::Full(_) => "stream-full",
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
    /// SHA-256 of the checkpoint before this batch's: it is refused behind another one.
    pub after: Option<Hash>,
    /// JSON lines.
    pub body: bytes::Bytes,
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

/// A feed's checker and its task.
struct Door {
    checker: Arc<Checker>,
    posts: mpsc::Sender<Post<stream::Reply>>,
}

/// Handle of intake. All its tasks live as long as the process.
pub struct Intake {
    doors: BTreeMap<DatasetId, Door>,
    feeds: Feeds,
    js: async_nats::jetstream::Context,
    nats: async_nats::Client,
    metrics: Metrics,
    /// Memory for batches.
    room: Arc<Semaphore>,
    /// Threads that check and hash.
    hands: Arc<Semaphore>,
}

impl Intake {
    /// Starts a task for every feed of this agency. The streams need not be up yet.
    pub fn start(setup: IntakeSetup) -> Result<Arc<Self>, IntakeStartError> {
        let key = Arc::new(KeyFolder::of(&setup.cfg).signing(ENVELOPE)?);
        let feeds = Feeds::default();
        let js = async_nats::jetstream::new(setup.nats.clone());
        let mut doors = BTreeMap::new();
        for doc in setup.datasets.iter().filter(|d| d.is_feed() && d.id.owner() == setup.cfg.agency) {
            let checker = Arc::new(Checker::new(doc)?);
            let (posts, rx) = mpsc::channel(QUEUE);
            let anchors = anchor::start(
                doc.id.clone(),
                js.clone(),
                setup.node.clone(),
                setup.writer.clone(),
                setup.metrics.clone(),
                feeds.clone(),
            );
            let kept = kept::Kept::new(setup.cfg.path(format!("broker/intake/{}.json", doc.id.token())));
            tokio::spawn(kept.clone().keep());
            let task = stream::Task {
                chain: setup.cfg.chain.clone(),
                dataset: doc.id.clone(),
                limits: stream::Limits { age_ms: doc.retention.stream_ms, bytes: doc.retention.stream_bytes },
                checker: checker.clone(),
                key: key.clone(),
                node: setup.node.clone(),
                nats: setup.nats.clone(),
                js: js.clone(),
                anchors,
                feeds: feeds.clone(),
                kept,
                metrics: setup.metrics.clone(),
            };
            tokio::spawn(task.run(rx));
            doors.insert(doc.id.clone(), Door { checker, posts });
        }
        tokio::spawn(feeds.clone().watch(setup.metrics.clone(), setup.cfg.path("adapters")));
        info!(feeds = doors.len(), "intake serves");
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let (room, hands) = (Arc::new(Semaphore::new(QUEUE_KIB)), Arc::new(Semaphore::new(cores)));
        Ok(Arc::new(Self { doors, feeds, js, nats: setup.nats, metrics: setup.metrics, room, hands }))
    }

    /// Takes a batch; returns when it is durable.
    pub async fn post(&self, dataset: &str, incoming: Incoming) -> Answer {
        let door = DatasetId::new(dataset).ok().and_then(|d| self.doors.get(&d));
        let door = door.ok_or_else(|| IntakeError::UnknownDataset(dataset.chars().take(80).collect()))?;
        let busy = || IntakeError::Busy(dataset.to_owned());
        let kib = u32::try_from(incoming.body.len() / 1_024 + 1).map_err(|_| IntakeError::TooLarge)?;
        let _room = self.room.try_acquire_many(kib).map_err(|_| busy())?;
        let Incoming { source, after, body } = incoming;
        let batch = self.check(&door.checker, body).await.inspect_err(|e| {
            self.metrics.intake_messages.with_label_values(&[dataset, e.code()]).inc();
        })?;
        let (reply, answer) = oneshot::channel();
        door.posts.try_send(Post { source, after, batch, reply }).map_err(|_| busy())?;
        answer.await.map_err(|_| IntakeError::Unavailable("the dataset's task has stopped".into()))?
    }

    /// Checks and hashes off the runtime's threads, unless there is little to do.
    async fn check(&self, checker: &Arc<Checker>, body: bytes::Bytes) -> Result<Batch, IntakeError> {
        if body.len() <= SMALL {
            return checker.read(&body);
        }
        let library = |e: String| IntakeError::Library(e);
        let _hand = self.hands.acquire().await.map_err(|e| library(e.to_string()))?;
        let checker = checker.clone();
        let read = tokio::task::spawn_blocking(move || checker.read(&body));
        read.await.map_err(|e| library(e.to_string()))?
    }

    /// Where an adapter stands. Unknown until every stream was read once: a guess would make it begin again.
    pub fn position(&self, adapter: &str) -> Result<Position, IntakeError> {
        self.feeds.position(adapter, self.doors.len())
    }

    /// How every feed of this agency stands: this side as it publishes, the executor's as it delivers.
    pub async fn stats(&self) -> Value {
        stats::stats(self).await
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
