//! The task that owns a dataset's stream.

use super::anchor::Published;
use super::envelope::Head;
use super::feeds::{Feeds, State};
use super::kept::Kept;
use super::pipeline::{Draft, Durable, Pipeline, Post, Said};
use super::{Answer, Checker, IntakeError};
use crate::ledger::node_client::NodeClient;
use crate::metrics::Metrics;
use crate::streams::{publish_stream, publish_subject};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, LastRawMessageErrorKind, PersistenceMode, StorageType, Stream,
};
use async_nats::jetstream::{self, Context};
use concordat_protocol::cbor;
use concordat_protocol::ids::DatasetId;
use concordat_protocol::keys::SigningKey;
use concordat_protocol::message::{Envelope, EnvelopeSource};
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

/// How long JetStream remembers message ids.
const DEDUP: Duration = Duration::from_secs(120);
/// How long a stream keeps envelopes where the dataset's document names nothing: 7 days.
const RETENTION_MS: u64 = 7 * 24 * 3_600_000;
/// How long to wait before the stream is read again.
const RETRY: Duration = Duration::from_millis(500);

/// Where an answer goes.
pub(super) type Reply = oneshot::Sender<Answer>;
/// What JetStream says of an envelope: its place.
type Ack = BoxFuture<'static, Result<u64, PublishError>>;

/// What a stream keeps.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    /// How long, milliseconds.
    pub age_ms: Option<u64>,
    /// How much.
    pub bytes: Option<u64>,
}

/// What the task works with.
pub(super) struct Task {
    pub chain: String,
    pub dataset: DatasetId,
    pub limits: Limits,
    pub checker: Arc<Checker>,
    pub key: Arc<SigningKey>,
    pub node: NodeClient,
    pub nats: async_nats::Client,
    pub js: Context,
    pub anchors: mpsc::Sender<Published>,
    pub feeds: Feeds,
    pub kept: Kept,
    pub metrics: Metrics,
}

fn down(e: impl std::fmt::Display) -> IntakeError {
    IntakeError::Unavailable(e.to_string())
}

/// Why an envelope was not taken.
fn refused(dataset: &DatasetId, e: &PublishError) -> IntakeError {
    let said = e.source().map_or_else(|| e.to_string(), |why| format!("{e}: {why}"));
    let full = ["maximum bytes exceeded", "maximum messages exceeded", "resource limits exceeded", "insufficient"];
    if full.iter().any(|f| said.contains(f)) {
        return IntakeError::Full(dataset.to_string());
    }
    match e.kind() {
        PublishErrorKind::MaxPayloadExceeded => IntakeError::TooLarge,
        _ => down(said),
    }
}

/// What a stream of envelopes must be. A full one refuses what comes: it never drops what it acknowledged before its
/// time.
fn stream_config(dataset: &DatasetId, limits: Limits) -> Config {
    Config {
        name: publish_stream(dataset),
        description: Some(format!("envelopes of {dataset}")),
        subjects: vec![publish_subject(dataset)],
        storage: StorageType::File,
        max_age: Duration::from_millis(limits.age_ms.unwrap_or(RETENTION_MS)),
        max_bytes: limits.bytes.and_then(|b| i64::try_from(b).ok()).unwrap_or(-1),
        discard: DiscardPolicy::New,
        duplicate_window: DEDUP,
        deny_delete: true,
        deny_purge: true,
        num_replicas: 1,
        ..Config::default()
    }
}

/// Refuses a stream that would lose what it acknowledged.
pub(super) fn check_config(found: &Config) -> Result<(), IntakeError> {
    let refuse = |rule| Err(IntakeError::StreamConfig { stream: found.name.clone(), rule });
    if found.storage != StorageType::File {
        return refuse("keeps messages in memory: it must have file storage; move it away and restart the broker");
    }
    if found.persist_mode == Some(PersistenceMode::Async) {
        return refuse("has persist_mode async, which acknowledges before fsync: set the default mode");
    }
    if found.no_ack {
        return refuse("has no_ack: it must acknowledge");
    }
    if !found.deny_delete || !found.deny_purge {
        return refuse("allows deleting or purging messages: set deny_delete and deny_purge");
    }
    Ok(())
}

impl Task {
    /// Runs until nobody can post any more.
    pub async fn run(self, mut posts: mpsc::Receiver<Post<Reply>>) {
        let mut said = false;
        loop {
            match self.recover().await {
                Ok(head) => {
                    said = false;
                    info!(dataset = %self.dataset, next_seq = head.next_seq, batch = head.source.batch_no, "stream read");
                    if self.serve(head, &mut posts).await.is_none() {
                        return;
                    }
                }
                Err(e) => {
                    if !said {
                        warn!(dataset = %self.dataset, code = e.code(), error = %e, "intake waits");
                    }
                    said = true;
                    self.feeds.state(&self.dataset, State::Waiting(e.to_string()));
                    if !refuse_for(&mut posts, &e).await {
                        return;
                    }
                }
            }
        }
    }

    /// Serves until the stream cannot be read; `None` when nobody can post any more and nothing is on its way.
    async fn serve(&self, head: Head, posts: &mut mpsc::Receiver<Post<Reply>>) -> Option<()> {
        self.feeds.read(&self.dataset, &head);
        self.feeds.state(&self.dataset, State::Ok);
        let mut pipeline = Pipeline::new(self.dataset.as_str(), head);
        let mut acks = FuturesOrdered::new();
        let mut open = true;
        loop {
            self.send_all(&mut pipeline, &mut acks).await;
            self.feeds.waiting(&self.dataset, pipeline.waiting(), pipeline.in_flight());
            if !open && acks.is_empty() {
                return None;
            }
            let deadline = pipeline.deadline();
            let ack = tokio::select! {
                biased;
                Some(ack) = acks.next(), if !acks.is_empty() => ack,
                post = posts.recv(), if open => {
                    match post {
                        Some(post) => self.take(&mut pipeline, post, posts),
                        None => open = false,
                    }
                    continue;
                }
                () = until(deadline) => {
                    self.answer(pipeline.expire(Instant::now()));
                    continue;
                }
            };
            let landed = match ack {
                Ok(place) => pipeline.acked(place).ok_or_else(|| down("an envelope is not where it should be")),
                Err(e) => Err(refused(&self.dataset, &e)),
            };
            match landed {
                Ok((durable, said)) => self.landed(&durable, said),
                Err(why) => self.settle(&mut pipeline, &mut acks, &why).await?,
            }
        }
    }

    /// Most bytes of an envelope's messages: half of what the streams take, so that it still fits when it is redacted
    /// (a hidden field leaves 34 bytes behind).
    fn bytes_max(&self) -> usize {
        match self.nats.server_info().max_payload {
            0 => 512 << 10,
            most => most / 2,
        }
    }

    /// Takes a post and all that wait behind it.
    fn take(&self, pipeline: &mut Pipeline<Reply>, first: Post<Reply>, posts: &mut mpsc::Receiver<Post<Reply>>) {
        let mut next = Some(first);
        while let Some(post) = next {
            if post.batch.messages.bytes() > self.bytes_max() {
                self.answer(vec![(post.reply, Err(IntakeError::TooLarge))]);
            } else {
                let said = pipeline.take(post, Instant::now());
                self.answer(said);
            }
            next = posts.try_recv().ok();
        }
    }

    /// Signs and sends as much as may be on its way.
    async fn send_all(&self, pipeline: &mut Pipeline<Reply>, acks: &mut FuturesOrdered<Ack>) {
        let mut said = Vec::new();
        while let Some(draft) = pipeline.next(self.bytes_max(), &mut said) {
            let Draft { first_seq, messages, follows, sent } = draft;
            let envelope = super::random32().and_then(|random| {
                let mut salt = [0; 16];
                salt.copy_from_slice(&random[..16]);
                let source = EnvelopeSource { salt, state: sent.state.clone() };
                let place = (self.chain.as_str(), &self.dataset, first_seq);
                let signed = messages.sign(place, source, self.checker.members(), &self.key);
                signed.map_err(|e| IntakeError::Library(e.to_string()))
            });
            match envelope {
                Ok(envelope) => {
                    acks.push_back(self.send(&envelope, sent.place, follows).await);
                    pipeline.sent(&envelope.header, sent);
                }
                Err(e) => said.extend(sent.refuse(&e)),
            }
        }
        self.answer(said);
    }

    /// Hands an envelope to the streams. It must follow what is there: the place decides against other processes, and
    /// behind an envelope that is itself on its way also that one's id.
    async fn send(&self, envelope: &Envelope, place: u64, follows: Option<[u8; 32]>) -> Ack {
        let mut message = PublishMessage::build()
            .message_id(hex::encode(envelope.header.root))
            .expected_last_sequence(place - 1)
            .payload(cbor::encode(envelope).into());
        if let Some(root) = follows {
            message = message.expected_last_message_id(hex::encode(root));
        }
        match self.js.send_publish(publish_subject(&self.dataset), message).await {
            Ok(ack) => Box::pin(async move { ack.await.map(|a| a.sequence) }),
            Err(e) => Box::pin(async move { Err(e) }),
        }
    }

    /// An envelope is durable: its place is told, its answers are given, its operation follows.
    fn landed(&self, durable: &Durable, said: Said<Reply>) {
        let head = &durable.head;
        self.feeds.durable(&self.dataset, durable);
        self.kept.note(head);
        // A full channel is no loss: the anchoring task reads the stream where it lacks something.
        let _ = self.anchors.try_send(Published::of(head));
        let count = head.answer.accepted;
        self.metrics.intake_messages.with_label_values(&[self.dataset.as_str(), "accepted"]).inc_by(count);
        self.answer(said);
    }

    /// One envelope did not arrive as it should: waits for the others, reads the stream and goes on from there. `None`
    /// when it cannot be read.
    async fn settle(
        &self,
        pipeline: &mut Pipeline<Reply>,
        acks: &mut FuturesOrdered<Ack>,
        why: &IntakeError,
    ) -> Option<()> {
        warn!(dataset = %self.dataset, code = why.code(), error = %why, lost = acks.len(), "envelopes not acknowledged: reading the stream");
        while acks.next().await.is_some() {}
        match self.recover().await {
            Ok(head) => {
                let (durable, said) = pipeline.reconcile(head, why);
                durable.iter().for_each(|d| self.landed(d, vec![]));
                self.answer(said);
                self.feeds.read(&self.dataset, pipeline.durable());
                let full = matches!(why, IntakeError::Full(_));
                self.feeds.state(&self.dataset, if full { State::Full } else { State::Ok });
                Some(())
            }
            Err(e) => {
                self.feeds.state(&self.dataset, State::Waiting(e.to_string()));
                self.answer(pipeline.fail(why));
                None
            }
        }
    }

    /// Gives answers. An adapter that went away asks where it stands when it is back.
    fn answer(&self, said: Said<Reply>) {
        for (reply, answer) in said {
            if let Err(e) = &answer {
                self.metrics.intake_messages.with_label_values(&[self.dataset.as_str(), e.code()]).inc();
            }
            let _ = reply.send(answer);
        }
    }

    async fn stream(&self) -> Result<Stream, IntakeError> {
        let wanted = stream_config(&self.dataset, self.limits);
        let stream = self.js.get_or_create_stream(wanted.clone()).await.map_err(down)?;
        let found = &stream.cached_info().config;
        check_config(found)?;
        let Config { max_age, max_bytes, discard, .. } = wanted;
        if (found.max_age, found.max_bytes.max(-1), found.discard) != (max_age, max_bytes, discard) {
            let config = Config { max_age, max_bytes, discard, ..found.clone() };
            self.js.update_stream(config).await.map_err(down)?;
        }
        Ok(stream)
    }

    async fn recover(&self) -> Result<Head, IntakeError> {
        let stream = self.stream().await?;
        let last = stream.get_info().await.map_err(down)?.state.last_sequence;
        let Some((envelope, seq)) = newest_envelope(&stream, &self.dataset).await? else {
            return self.empty(last).await;
        };
        if envelope.header.chain != self.chain || envelope.header.dataset != self.dataset {
            error!(dataset = %self.dataset, "the newest envelope of the stream is of another chain or dataset");
            return Err(down("the stream holds envelopes of another chain: move it away"));
        }
        let public = if envelope.key == self.key.key_id() {
            self.key.public().clone()
        } else {
            // Signed before the key was rotated.
            self.node
                .key(envelope.key)
                .await
                .map_err(down)?
                .map(|k| k.key)
                .ok_or_else(|| down("the envelope's key is not registered"))?
        };
        envelope.verify(&public).map_err(|e| down(format!("the newest envelope does not verify: {e}")))?;
        Ok(Head::of(&envelope, seq))
    }

    /// A stream without envelopes is new, or everything in it is past its time: the ledger's head says from where the
    /// numbers go on, the broker's own note where the adapter stood.
    async fn empty(&self, last: u64) -> Result<Head, IntakeError> {
        let known = self.node.datasets().await.map_err(down)?.into_iter().find(|d| d.id == self.dataset);
        let anchored = known.map_or(0, |d| d.head);
        let mut head = Head { subject_seq: last, ..Head::empty() };
        if let Some(note) = self.kept.read() {
            head.next_seq = note.next_seq;
            head.source = note.source;
        }
        head.next_seq = head.next_seq.max(anchored + 1);
        if head.next_seq > 1 {
            info!(dataset = %self.dataset, next_seq = head.next_seq, "every envelope of the stream is past its time");
        }
        Ok(head)
    }
}

/// Until then; for ever without a time.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Reads and decodes the newest envelope of a stream.
pub(super) async fn newest_envelope(
    stream: &Stream,
    dataset: &DatasetId,
) -> Result<Option<(Envelope, u64)>, IntakeError> {
    match stream.get_last_raw_message_by_subject(&publish_subject(dataset)).await {
        Ok(message) => Ok(Some((decode(&message.payload)?, message.sequence))),
        Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(e) => Err(down(e)),
    }
}

/// Decodes an envelope.
pub(super) fn decode(payload: &[u8]) -> Result<Envelope, IntakeError> {
    cbor::decode(payload).map_err(|e| down(format!("an envelope in the stream does not decode: {e}")))
}

/// The stream of a dataset, if it is there.
pub(super) async fn open(js: &jetstream::Context, dataset: &DatasetId) -> Result<Stream, IntakeError> {
    js.get_stream(publish_stream(dataset)).await.map_err(down)
}

/// Answers everything that comes for a moment; false when nobody can post any more.
async fn refuse_for(posts: &mut mpsc::Receiver<Post<Reply>>, why: &IntakeError) -> bool {
    let until = tokio::time::Instant::now() + RETRY;
    loop {
        match tokio::time::timeout_at(until, posts.recv()).await {
            Ok(Some(post)) => drop(post.reply.send(Err(why.clone()))),
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}
