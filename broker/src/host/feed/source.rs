//! The own stream of a dataset as its subscriptions read it: at its end one reader serves all, and whoever is behind
//! reads by itself, so that nobody waits for anybody.

use super::FeedSetup;
use super::cache::{Cache, Entry};
use super::error::{FeedError, streams};
use crate::streams::publish_stream;
use async_nats::Statistics;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig, OrderedError};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use concordat_protocol::acts::KeyRole;
use concordat_protocol::cbor;
use concordat_protocol::ids::DatasetId;
use concordat_protocol::keys::{KeyId, PublicKey};
use concordat_protocol::message::{Envelope, Opened};
use futures::StreamExt;
use futures::stream::ReadyChunks;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OnceCell, watch};
use tracing::{error, info, warn};

/// Envelopes that one subscription takes at a time.
pub(super) const CHUNK: usize = 64;
/// Bytes that one subscription takes at a time (one envelope at least): what a dead one keeps in memory.
const CHUNK_BYTES: usize = 2 << 20;
/// Bytes of the newest envelopes that are kept for all.
const NEWEST_BYTES: usize = 16 << 20;
/// Bytes kept for those that catch up.
const OLDER_BYTES: usize = 8 << 20;
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_millis(500);
/// How often a reader looks whether its connection was made anew.
const LOOK: Duration = Duration::from_millis(200);

/// How far the shared reader is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tail {
    /// Newest place that is known.
    newest: Option<u64>,
    /// Why it stands still.
    trouble: String,
}

/// A reader of a subscription that is behind.
pub(super) struct Behind {
    next: u64,
    reader: Reader,
}

/// Reads the own stream over one connection.
struct Reader {
    messages: ReadyChunks<Ordered>,
    statistics: Arc<Statistics>,
    connects: u64,
}

impl Reader {
    /// What came. A server that was started again has forgotten the reader's consumer, which the client would notice after
    /// 15 s only: a connection made anew ends the reader.
    async fn next(&mut self) -> Result<Vec<Result<Message, OrderedError>>, FeedError> {
        loop {
            match tokio::time::timeout(LOOK, self.messages.next()).await {
                Ok(chunk) => return chunk.ok_or_else(|| streams("the reader ended")),
                Err(_) if self.statistics.connects.load(Ordering::Relaxed) != self.connects => {
                    return Err(streams("the connection was made anew"));
                }
                Err(_) => {}
            }
        }
    }
}

type Slot = Arc<OnceCell<Arc<Entry>>>;

/// One dataset's own stream.
pub(super) struct Source {
    setup: Arc<FeedSetup>,
    dataset: DatasetId,
    js: Context,
    keys: Mutex<BTreeMap<KeyId, PublicKey>>,
    newest: Mutex<Cache<Arc<Entry>>>,
    older: Mutex<Cache<Slot>>,
    tail: watch::Sender<Tail>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source {
    /// A source with its shared reader, which runs as long as the process.
    pub(super) fn start(setup: Arc<FeedSetup>, dataset: DatasetId) -> Arc<Self> {
        let this = Arc::new(Self {
            js: jetstream::new(setup.nats.clone()),
            setup,
            dataset,
            keys: Mutex::default(),
            newest: Mutex::new(Cache::new(NEWEST_BYTES)),
            older: Mutex::new(Cache::new(OLDER_BYTES)),
            tail: watch::channel(Tail::default()).0,
        });
        let reads = this.clone();
        tokio::spawn(async move {
            loop {
                let Err(e) = reads.follow().await;
                let trouble = e.to_string();
                if reads.tail.borrow().trouble != trouble {
                    warn!(dataset = %reads.dataset, error = trouble, "the own stream cannot be read");
                }
                reads.tail.send_modify(|t| t.trouble = trouble);
                tokio::time::sleep(RETRY).await;
            }
        });
        this
    }

    /// The own stream.
    pub(super) async fn stream(&self) -> Result<Stream, FeedError> {
        self.js.get_stream(publish_stream(&self.dataset)).await.map_err(streams)
    }

    async fn read_from(&self, place: u64) -> Result<Reader, FeedError> {
        let statistics = self.setup.nats.statistics();
        let connects = statistics.connects.load(Ordering::Relaxed);
        let stream = self.js.get_stream_no_info(publish_stream(&self.dataset)).await.map_err(streams)?;
        let policy = DeliverPolicy::ByStartSequence { start_sequence: place };
        let config = OrderedConfig { deliver_policy: policy, ..OrderedConfig::default() };
        let consumer = stream.create_consumer(config).await.map_err(streams)?;
        let messages = consumer.messages().await.map_err(streams)?.ready_chunks(CHUNK);
        Ok(Reader { messages, statistics, connects })
    }

    /// The shared reader: from where the stream ended when it first looked.
    async fn follow(&self) -> Result<std::convert::Infallible, FeedError> {
        let known = self.tail.borrow().newest;
        let mut newest = match known {
            Some(newest) => newest,
            None => self.stream().await?.cached_info().state.last_sequence,
        };
        let mut reader = self.read_from(newest + 1).await?;
        self.tail.send_modify(|t| *t = Tail { newest: Some(newest), trouble: String::new() });
        info!(dataset = %self.dataset, from = newest + 1, "reading the own stream");
        loop {
            let chunk = reader.next().await?;
            for message in chunk {
                let message = message.map_err(streams)?;
                let place = message.info().map_err(streams)?.stream_sequence;
                if place <= newest {
                    continue;
                }
                let entry = self.open(place, &message.payload).await?;
                lock(&self.newest).get_or(place, entry.size, || entry);
                newest = place;
            }
            self.tail.send_modify(|t| *t = Tail { newest: Some(newest), trouble: String::new() });
        }
    }

    /// Envelopes from a place on, as soon as there is one; the first one's place is later only where the stream lost
    /// what lay before. Nothing is lost when the caller stops waiting.
    pub(super) async fn next(&self, from: u64, behind: &mut Option<Behind>) -> Result<Vec<Arc<Entry>>, FeedError> {
        let mut tail = self.tail.subscribe();
        loop {
            let at = tail.borrow_and_update().clone();
            let found = lock(&self.newest).run(from, CHUNK, CHUNK_BYTES);
            if !found.is_empty() {
                *behind = None;
                return Ok(found);
            }
            match at.newest {
                Some(newest) if from <= newest => return self.catch_up(from, behind).await,
                _ if !at.trouble.is_empty() => return Err(FeedError::Streams(at.trouble)),
                _ => tail.changed().await.map_err(streams)?,
            }
        }
    }

    async fn catch_up(&self, from: u64, behind: &mut Option<Behind>) -> Result<Vec<Arc<Entry>>, FeedError> {
        // Put back only when all of a chunk is handed on: a reader that was left half way is not used again.
        let mut reader = match behind.take().filter(|b| b.next == from) {
            Some(reader) => reader,
            None => Behind { next: from, reader: self.read_from(from).await? },
        };
        let chunk = reader.reader.next().await?;
        let mut out: Vec<Arc<Entry>> = Vec::with_capacity(chunk.len());
        for message in chunk {
            let message = message.map_err(streams)?;
            let place = message.info().map_err(streams)?.stream_sequence;
            if place < reader.next {
                continue;
            }
            let slot = lock(&self.older).get_or(place, message.payload.len(), Slot::default);
            let entry = slot.get_or_try_init(|| self.open(place, &message.payload)).await?.clone();
            self.check_place(reader.next, place).await?;
            reader.next = place + 1;
            out.push(entry);
        }
        *behind = Some(reader);
        Ok(out)
    }

    /// Nothing is deleted from the own stream, so places follow one another, except where it aged out unread.
    async fn check_place(&self, due: u64, place: u64) -> Result<(), FeedError> {
        if place == due {
            return Ok(());
        }
        let first = self.stream().await?.cached_info().state.first_sequence;
        if place > first {
            return Err(streams(format!("place {place} came where {due} was due")));
        }
        error!(dataset = %self.dataset, from = due, to = place - 1, "envelopes aged out before they were delivered");
        Ok(())
    }

    /// Checks an envelope against the key it names.
    async fn open(&self, place: u64, payload: &Bytes) -> Result<Arc<Entry>, FeedError> {
        let damaged = |e: String| FeedError::Damaged(place, e);
        let envelope: Envelope =
            tokio::task::block_in_place(|| cbor::decode(payload)).map_err(|e| damaged(e.to_string()))?;
        if envelope.header.chain != self.setup.cfg.chain || envelope.header.dataset != self.dataset {
            return Err(damaged("it is of another chain or dataset".into()));
        }
        let key = self.key(place, envelope.key).await?;
        let opened = tokio::task::block_in_place(|| Opened::verify(&envelope, &key));
        Ok(Entry::new(place, payload.len(), opened.map_err(|e| damaged(e.to_string()))?))
    }

    async fn key(&self, place: u64, id: KeyId) -> Result<PublicKey, FeedError> {
        if let Some(known) = lock(&self.keys).get(&id) {
            return Ok(known.clone());
        }
        let view = self.setup.node.key(id).await?;
        let own = view.filter(|k| k.role == KeyRole::Envelope && k.agency == self.setup.cfg.agency);
        let own =
            own.ok_or_else(|| FeedError::Damaged(place, "its key is not an envelope key of this agency".into()))?;
        lock(&self.keys).insert(id, own.key.clone());
        Ok(own.key)
    }
}
