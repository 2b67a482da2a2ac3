//! The task that owns a dataset's stream.

use super::anchor::Published;
use super::envelope::Head;
use super::{Accepted, Answer, Checker, Incoming, IntakeError, Positions, Post};
use crate::ledger::node_client::NodeClient;
use crate::metrics::Metrics;
use crate::streams::{publish_stream, publish_subject};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, LastRawMessageErrorKind, PersistenceMode, StorageType, Stream};
use async_nats::jetstream::{self, Context};
use concordat_protocol::cbor;
use concordat_protocol::ids::DatasetId;
use concordat_protocol::keys::SigningKey;
use concordat_protocol::message::{Envelope, EnvelopeDraft, EnvelopeSource};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

/// How long JetStream remembers message ids.
const DEDUP: Duration = Duration::from_secs(120);
/// How long a stream keeps envelopes where the dataset's document names nothing: 7 days.
const RETENTION_MS: u64 = 7 * 24 * 3_600_000;
/// How long to wait before the stream is read again.
const RETRY: Duration = Duration::from_millis(500);

/// What the task works with.
pub(super) struct Task {
    pub chain: String,
    pub dataset: DatasetId,
    pub retention_ms: Option<u64>,
    pub checker: Arc<Checker>,
    pub key: Arc<SigningKey>,
    pub node: NodeClient,
    pub js: Context,
    pub anchors: mpsc::Sender<Published>,
    pub positions: Positions,
    pub metrics: Metrics,
}

fn down(e: impl std::fmt::Display) -> IntakeError {
    IntakeError::Unavailable(e.to_string())
}

/// What a stream of envelopes must be.
fn stream_config(dataset: &DatasetId, retention_ms: Option<u64>) -> Config {
    Config {
        name: publish_stream(dataset),
        description: Some(format!("envelopes of {dataset}")),
        subjects: vec![publish_subject(dataset)],
        storage: StorageType::File,
        max_age: Duration::from_millis(retention_ms.unwrap_or(RETENTION_MS)),
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
    pub async fn run(self, mut posts: mpsc::Receiver<Post>) {
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
                    if !refuse_for(&mut posts, &e).await {
                        return;
                    }
                }
            }
        }
    }

    /// Serves until the stream must be read again; `None` when nobody can post any more.
    async fn serve(&self, mut head: Head, posts: &mut mpsc::Receiver<Post>) -> Option<()> {
        self.tell(&head);
        loop {
            let Post { incoming, reply } = posts.recv().await?;
            let answer = self.take(&mut head, incoming).await;
            let again = matches!(&answer, Err(IntakeError::Unavailable(_)));
            if let Err(e) = &answer {
                warn!(dataset = %self.dataset, code = e.code(), "batch not taken");
                self.metrics.intake_messages.with_label_values(&[self.dataset.as_str(), e.code()]).inc();
            }
            // An adapter that went away asks where it stands when it is back.
            let _ = reply.send(answer);
            if again {
                return Some(());
            }
        }
    }

    fn tell(&self, head: &Head) {
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        positions.insert(self.dataset.clone(), (head.source.adapter.clone(), head.position()));
    }

    async fn take(&self, head: &mut Head, incoming: Incoming) -> Answer {
        if let Some(again) = head.place(self.dataset.as_str(), incoming.source.as_ref())? {
            return Ok(again);
        }
        let envelope = self.sign(head, incoming).await?;
        let answer = Accepted { accepted: envelope.header.count, last_seq: envelope.header.last_seq() };
        let seq = self.publish(&envelope, head.subject_seq).await?;
        *head = Head::of(&envelope, seq);
        self.tell(head);
        self.metrics.intake_messages.with_label_values(&[self.dataset.as_str(), "accepted"]).inc_by(answer.accepted);
        // A full channel is no loss: the anchoring task reads the stream where it lacks something.
        let _ = self.anchors.try_send(Published::of(&envelope.header));
        Ok(answer)
    }

    /// Checks and signs off the runtime's threads: hashing 256 messages takes milliseconds.
    async fn sign(&self, head: &Head, incoming: Incoming) -> Result<Envelope, IntakeError> {
        let (checker, key) = (self.checker.clone(), self.key.clone());
        let (chain, dataset, first_seq) = (self.chain.clone(), self.dataset.clone(), head.next_seq);
        let state = incoming.source.unwrap_or_else(|| head.source.clone());
        let made = tokio::task::spawn_blocking(move || {
            let records = checker.read(&incoming.body)?;
            let mut salt = [0; 16];
            salt.copy_from_slice(&super::random32()?[..16]);
            let source = EnvelopeSource { salt, state };
            let draft =
                EnvelopeDraft { chain, dataset, first_seq, source, members: checker.members().clone(), records };
            draft.sign(&key).map_err(|e| IntakeError::Library(e.to_string()))
        });
        made.await.map_err(|e| IntakeError::Library(e.to_string()))?
    }

    async fn publish(&self, envelope: &Envelope, expected: u64) -> Result<u64, IntakeError> {
        let message = PublishMessage::build()
            .message_id(hex::encode(envelope.header.root))
            .expected_last_subject_sequence(expected)
            .payload(cbor::encode(envelope).into());
        let sent = async { self.js.send_publish(publish_subject(&self.dataset), message).await?.await };
        let trouble: PublishError = match sent.await {
            Ok(ack) => return Ok(ack.sequence),
            Err(e) => e,
        };
        if trouble.kind() == PublishErrorKind::MaxPayloadExceeded {
            return Err(IntakeError::TooLarge);
        }
        // It may be durable all the same; the stream knows.
        match self.newest().await {
            Ok(Some((newest, seq))) if newest.header.root == envelope.header.root => Ok(seq),
            _ => Err(down(trouble)),
        }
    }

    async fn stream(&self) -> Result<Stream, IntakeError> {
        let wanted = stream_config(&self.dataset, self.retention_ms);
        let stream = self.js.get_or_create_stream(wanted.clone()).await.map_err(down)?;
        let found = &stream.cached_info().config;
        check_config(found)?;
        if found.max_age != wanted.max_age {
            self.js.update_stream(Config { max_age: wanted.max_age, ..found.clone() }).await.map_err(down)?;
        }
        Ok(stream)
    }

    /// The newest envelope with its place.
    async fn newest(&self) -> Result<Option<(Envelope, u64)>, IntakeError> {
        let stream = self.stream().await?;
        newest_envelope(&stream, &self.dataset).await
    }

    async fn recover(&self) -> Result<Head, IntakeError> {
        let Some((envelope, seq)) = self.newest().await? else { return Ok(Head::empty()) };
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
async fn refuse_for(posts: &mut mpsc::Receiver<Post>, why: &IntakeError) -> bool {
    let until = tokio::time::Instant::now() + RETRY;
    loop {
        match tokio::time::timeout_at(until, posts.recv()).await {
            Ok(Some(post)) => drop(post.reply.send(Err(why.clone()))),
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}
