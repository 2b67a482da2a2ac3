//! The task of one subscription: delivers in the own stream's order, and anchors what it delivered.

use super::evidence::{Clause, Resume, Unanchored, deliver, resume};
use super::item::{ItemError, Maker, Sealer};
use super::redaction::Lens;
use super::store::{FeedStore, FeedStoreError, NewItem, Open};
use super::{Delivery, FeedSetup, View};
use crate::ledger::LedgerError;
use crate::streams::{feed_append, publish_stream};
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context};
use concordat_executor::answer::random32;
use concordat_executor::policies::ask::{Ask, Decision};
use concordat_protocol::acts::KeyRole;
use concordat_protocol::cbor;
use concordat_protocol::codes::Verdict;
use concordat_protocol::keys::{KeyId, PublicKey};
use concordat_protocol::message::{Envelope, MessageView};
use concordat_protocol::terms::Action;
use futures::StreamExt;
use futures::stream::ReadyChunks;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;
use tracing::{error, info, warn};

/// Envelopes that share one durable write.
const CHUNK: usize = 64;
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_millis(500);
/// How long an operation of a former process may take to be committed.
const REOPENED: Duration = Duration::from_secs(30);

#[derive(Debug, Error)]
enum FeedError {
    #[error(transparent)]
    Store(#[from] FeedStoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Item(#[from] ItemError),
    #[error("streams: {0}")]
    Streams(String),
    #[error("{0} has no sealing key on the ledger: it must register one before it can be delivered to")]
    NoKem(String),
    #[error("envelope at place {0} of the own stream is not what this agency signed: {1}")]
    Damaged(u64, String),
    #[error("cryptographic library: {0}")]
    Library(String),
    #[error("paused: {0}")]
    Paused(String),
}

fn streams(e: impl std::fmt::Display) -> FeedError {
    FeedError::Streams(e.to_string())
}

/// What delivering and anchoring share.
struct Shared {
    setup: Arc<FeedSetup>,
    store: FeedStore,
    clause: Clause,
    unanchored: Mutex<Unanchored>,
}

impl Shared {
    fn unanchored<T>(&self, read: impl FnOnce(&mut Unanchored) -> T) -> T {
        read(&mut self.unanchored.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn anchored(&self) -> Result<u64, LedgerError> {
        self.setup.node.subscription(&self.setup.cfg.agency, self.clause.handle).await
    }
}

/// Delivers (if there is a delivery) and anchors. Without a delivery it ends when everything is anchored.
pub(super) async fn run(setup: Arc<FeedSetup>, store: FeedStore, clause: Clause, delivery: Option<Delivery>) {
    let mut shared = Shared { setup, store, clause, unanchored: Mutex::default() };
    let standing = loop {
        match restore(&mut shared).await {
            Ok(standing) => break standing,
            Err(e) => {
                warn!(subscription = shared.clause.handle, error = %e, "subscription waits");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    let shared = Arc::new(shared);
    let Some(delivery) = delivery else {
        return anchor(&shared, false).await;
    };
    let work = Work {
        js: jetstream::new(shared.setup.nats.clone()),
        view: shared.setup.view.clone(),
        shared: shared.clone(),
        delivery,
        stream_seq: standing.stream_seq,
        last_sub_seq: standing.last_sub_seq,
        unsent: standing.unsent.into(),
        sealer: None,
        keys: BTreeMap::new(),
    };
    tokio::join!(work.run(), anchor(&shared, true));
}

/// Takes over what a former process left.
async fn restore(shared: &mut Shared) -> Result<super::store::Standing, FeedError> {
    let number = shared.clause.handle;
    let mut anchored = shared.anchored().await?;
    let before = tokio::task::block_in_place(|| shared.store.standing(number, anchored))?;
    for op in resume(&before.ops, shared.setup.writer.reopened()) {
        match op {
            Resume::Wait(last) => {
                let until = tokio::time::Instant::now() + REOPENED;
                while anchored < last && tokio::time::Instant::now() < until {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    anchored = shared.anchored().await?;
                }
            }
            Resume::Drop(last) => tokio::task::block_in_place(|| shared.store.drop_operation(number, last))?,
        }
    }
    let clause = serde_json::to_string(&shared.clause).map_err(|e| FeedError::Library(e.to_string()))?;
    let standing = tokio::task::block_in_place(|| {
        shared.store.keep_clause(number, &clause)?;
        shared.store.anchored(number, anchored, 0)?;
        shared.store.standing(number, anchored)
    })?;
    info!(
        subscription = number,
        anchored,
        last = standing.last_sub_seq,
        unsent = standing.unsent.len(),
        "subscription restored"
    );
    shared.unanchored = Mutex::new(Unanchored::restored(standing.open.clone()));
    Ok(standing)
}

/// Anchors every quarter of `max_lag`, one operation at a time. An operation is durable here before it is written, and
/// its verdict is awaited however long that takes, so that none is made twice.
async fn anchor(shared: &Shared, forever: bool) {
    let number = shared.clause.handle;
    let mut every = tokio::time::interval(Duration::from_millis((shared.clause.max_lag_ms / 4).max(20)));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shared.setup.view.has_changed().is_ok() {
        every.tick().await;
        let Some(now_ms) = shared.setup.view.borrow().now_ms() else { continue };
        let open: Vec<Open> = shared.unanchored(|u| u.all().to_vec());
        if open.is_empty() {
            if forever { continue } else { return }
        }
        match anchor_once(shared, &open, now_ms).await {
            Ok(()) => {}
            Err(FeedError::Ledger(e @ LedgerError::Stopped)) => {
                error!(subscription = number, error = %e, "deliveries are not anchored any more");
                return;
            }
            Err(e) => {
                error!(subscription = number, error = %e, "deliveries wait for their operation");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn anchor_once(shared: &Shared, open: &[Open], now_ms: u64) -> Result<(), FeedError> {
    let number = shared.clause.handle;
    let library = |e: &dyn std::fmt::Display| FeedError::Library(e.to_string());
    let secret = random32().map_err(|e| library(&e))?;
    let made = deliver(&shared.clause, open, now_ms, &secret).map_err(|e| library(&e))?;
    let (Some(op), Some(last)) = (made, open.last()) else { return Ok(()) };
    let (body, hash, last) = (cbor::encode(&op), op.hash(), last.sub_seq);
    tokio::task::block_in_place(|| shared.store.operation(number, last, &body, &hash, &secret))?;
    let recorded = shared.setup.writer.record(op).await?;
    match recorded.verdict {
        Verdict::Accepted => {}
        Verdict::Refused => {
            // The ledger's number is truth: this range, or a part of it, may be anchored already.
            warn!(subscription = number, op = recorded.index, code = recorded.code, "deliver refused");
            let anchored = shared.anchored().await?;
            shared.unanchored(|u| u.anchored(anchored));
            tokio::task::block_in_place(|| {
                shared.store.drop_operation(number, last)?;
                shared.store.anchored(number, anchored, recorded.index)
            })?;
            tokio::time::sleep(RETRY).await;
            return Ok(());
        }
        // The entry stays as it is, for both sides to see.
        verdict => error!(
            subscription = number,
            op = recorded.index,
            code = recorded.code,
            ?verdict,
            "bounded evidence was not in order"
        ),
    }
    shared.unanchored(|u| u.anchored(last));
    tokio::task::block_in_place(|| shared.store.anchored(number, last, recorded.index))?;
    Ok(())
}

/// The delivering side.
struct Work {
    shared: Arc<Shared>,
    delivery: Delivery,
    js: Context,
    view: watch::Receiver<View>,
    stream_seq: u64,
    last_sub_seq: u64,
    unsent: VecDeque<(u64, Vec<u8>)>,
    /// The consumer's key and the governance it was read at.
    sealer: Option<(KeyId, u64, Sealer)>,
    keys: BTreeMap<KeyId, PublicKey>,
}

type Reader = ReadyChunks<Ordered>;

impl Work {
    fn number(&self) -> u64 {
        self.shared.clause.handle
    }

    async fn run(mut self) {
        let mut said = String::new();
        loop {
            let Err(e) = self.deliver().await;
            let paused = matches!(e, FeedError::Paused(_));
            if said != e.to_string() {
                said = e.to_string();
                warn!(subscription = self.number(), error = %e, "delivery stops");
            }
            if !paused {
                // What was sealed and not kept must not be sealed again under the same number.
                self.sealer = None;
                tokio::time::sleep(RETRY).await;
            } else if tokio::time::timeout(RETRY, self.view.changed()).await.is_ok_and(|c| c.is_err()) {
                return;
            }
        }
    }

    async fn deliver(&mut self) -> Result<std::convert::Infallible, FeedError> {
        self.permitted()?;
        self.append_unsent().await?;
        let mut reader = self.read_from(self.stream_seq + 1).await?;
        info!(subscription = self.number(), from = self.stream_seq + 1, "delivering");
        loop {
            let chunk = tokio::select! {
                chunk = reader.next() => chunk.ok_or_else(|| streams("the reader ended"))?,
                changed = self.view.changed() => {
                    changed.map_err(streams)?;
                    self.permitted()?;
                    continue;
                }
            };
            let mut envelopes = Vec::with_capacity(chunk.len());
            for message in chunk {
                let message = message.map_err(streams)?;
                let place = message.info().map_err(streams)?.stream_sequence;
                if place <= self.stream_seq {
                    continue;
                }
                let envelope: Envelope =
                    cbor::decode(&message.payload).map_err(|e| FeedError::Damaged(place, e.to_string()))?;
                envelopes.push((place, envelope));
            }
            self.check_places(&envelopes).await?;
            self.refresh_keys(&envelopes).await?;
            self.make(&envelopes)?;
            self.append_unsent().await?;
        }
    }

    /// Whether the clause permits delivery now. Asked before every append, so that a revocation stops it at once.
    fn permitted(&self) -> Result<(Lens, u64), FeedError> {
        let view = self.view.borrow().clone();
        let paused = |why: String| Err(FeedError::Paused(why));
        if self.view.has_changed().is_err() {
            return paused("the host stops".into());
        }
        let Some(now_ms) = view.now_ms() else { return paused("the ledger stands still".into()) };
        let (d, c) = (&self.delivery, &self.shared.clause);
        let ask = Ask {
            consumer: c.consumer.clone(),
            roles: d.role.iter().cloned().collect(),
            action: Action::Subscribe,
            break_glass: false,
            purpose: c.purpose.clone(),
            agreement: Some(d.agreement.clone()),
            clause: Some(d.clause_id.clone()),
            case: None,
            at_ms: now_ms,
        };
        let decision = view.policies.set(&d.doc.id, &c.consumer).decide(&ask);
        let Decision::Permit(grant) = &decision else {
            return paused(
                decision
                    .denial()
                    .map_or_else(|| "not permitted".into(), |d| format!("{}: {}", d.reason.word(), d.text)),
            );
        };
        if view.policies.handle(&grant.clause.agreement, grant.clause.version, grant.index) != Some(c.handle) {
            return paused("a newer version of the agreement is in force".into());
        }
        let lens = match Lens::of(grant, &d.doc) {
            Ok(lens) => lens,
            Err(e) => return paused(e.to_string()),
        };
        let lag_ms = self.shared.unanchored(|u| u.lag_ms(now_ms));
        if lag_ms > lens.max_lag_ms {
            return paused(format!(
                "evidence lags behind by {} s, {} s are agreed",
                lag_ms / 1_000,
                lens.max_lag_ms / 1_000
            ));
        }
        Ok((lens, now_ms))
    }

    async fn read_from(&self, place: u64) -> Result<Reader, FeedError> {
        let stream = self.js.get_stream_no_info(publish_stream(&self.delivery.doc.id)).await.map_err(streams)?;
        let policy = DeliverPolicy::ByStartSequence { start_sequence: place };
        let config = OrderedConfig { deliver_policy: policy, ..OrderedConfig::default() };
        let consumer = stream.create_consumer(config).await.map_err(streams)?;
        Ok(consumer.messages().await.map_err(streams)?.ready_chunks(CHUNK))
    }

    /// Nothing is deleted from the own stream, so places follow one another, except where it aged out unread.
    async fn check_places(&self, envelopes: &[(u64, Envelope)]) -> Result<(), FeedError> {
        let mut due = self.stream_seq + 1;
        for (place, _) in envelopes {
            if *place != due {
                let stream = self.js.get_stream(publish_stream(&self.delivery.doc.id)).await.map_err(streams)?;
                let first = stream.cached_info().state.first_sequence;
                if *place > first {
                    return Err(streams(format!("place {place} came where {due} was due")));
                }
                error!(
                    subscription = self.number(),
                    from = due,
                    to = place - 1,
                    "envelopes aged out of the own stream before they were delivered"
                );
            }
            due = place + 1;
        }
        Ok(())
    }

    /// The consumer's sealing key, and the own keys that signed these envelopes.
    async fn refresh_keys(&mut self, envelopes: &[(u64, Envelope)]) -> Result<(), FeedError> {
        let (setup, consumer) = (self.shared.setup.clone(), self.shared.clause.consumer.clone());
        for (place, envelope) in envelopes {
            if self.keys.contains_key(&envelope.key) {
                continue;
            }
            let view = setup.node.key(envelope.key).await?;
            let own = view.filter(|k| k.role == KeyRole::Envelope && k.agency == setup.cfg.agency);
            let own =
                own.ok_or_else(|| FeedError::Damaged(*place, "its key is not an envelope key of this agency".into()))?;
            self.keys.insert(envelope.key, own.key);
        }
        let rev = self.view.borrow().meta_rev;
        if self.sealer.as_ref().is_some_and(|(_, at, _)| *at == rev) {
            return Ok(());
        }
        let kem = setup
            .node
            .active_key(&consumer, KeyRole::Kem, None)
            .await?
            .ok_or_else(|| FeedError::NoKem(consumer.to_string()))?;
        match &mut self.sealer {
            Some((id, at, _)) if *id == kem.key.key_id() => *at = rev,
            _ => {
                let sealer = Sealer::new(&kem.key, &setup.cfg.chain, self.number(), self.last_sub_seq)?;
                self.sealer = Some((kem.key.key_id(), rev, sealer));
            }
        }
        Ok(())
    }

    /// Verifies, redacts, promises, seals and keeps; only then may anything be appended.
    fn make(&mut self, envelopes: &[(u64, Envelope)]) -> Result<(), FeedError> {
        let Some((last_place, _)) = envelopes.last() else { return Ok(()) };
        let (lens, now_ms) = self.permitted()?;
        let setup = self.shared.setup.clone();
        let maker = Maker {
            chain: &setup.cfg.chain,
            provider: &setup.cfg.agency,
            subscription: self.number(),
            max_lag_ms: lens.max_lag_ms,
            key: &setup.release_key,
        };
        let (mut items, mut sub_seq) = (Vec::with_capacity(envelopes.len()), self.last_sub_seq);
        let Some((_, _, sealer)) = self.sealer.as_mut() else {
            return Err(FeedError::NoKem(self.shared.clause.consumer.to_string()));
        };
        let keys = &self.keys;
        let store = &self.shared.store;
        tokio::task::block_in_place(|| {
            for (place, envelope) in envelopes {
                let damaged = |e: String| FeedError::Damaged(*place, e);
                let key = keys.get(&envelope.key).ok_or_else(|| damaged("its key is unknown".into()))?;
                if envelope.header.chain != maker.chain || envelope.header.dataset != self.delivery.doc.id {
                    return Err(damaged("it is of another chain or dataset".into()));
                }
                envelope.verify(key).map_err(|e| damaged(e.to_string()))?;
                let Some(redacted) = lens.apply(envelope).map_err(|e| damaged(e.to_string()))? else { continue };
                sub_seq += 1;
                let (item, root) = maker.item(&redacted, sub_seq, now_ms, sealer)?;
                let messages =
                    redacted.messages.iter().filter(|m| matches!(m, MessageView::Shown { .. })).count() as u64;
                items.push(NewItem { sub_seq, root, delivered_ms: now_ms, messages, bytes: cbor::encode(&item) });
            }
            Ok(store.keep(maker.subscription, &items, *last_place, sub_seq)?)
        })?;
        (self.stream_seq, self.last_sub_seq) = (*last_place, sub_seq);
        for i in items {
            self.shared.unanchored(|u| {
                u.push(Open { sub_seq: i.sub_seq, root: i.root, delivered_ms: i.delivered_ms, messages: i.messages })
            });
            self.unsent.push_back((i.sub_seq, i.bytes));
        }
        Ok(())
    }

    /// Appends in order, one at a time: the consumer's stream then has them in order whatever fails. A repeat within two
    /// minutes is dropped by its message id, a later one by the consumer.
    async fn append_unsent(&mut self) -> Result<(), FeedError> {
        let (provider, number) = (self.shared.setup.cfg.agency.clone(), self.number());
        let subject = feed_append(&self.shared.clause.consumer, number);
        let mut appended = 0;
        let mut trouble = Ok(());
        while let Some((sub_seq, bytes)) = self.unsent.front() {
            if let Err(e) = self.permitted() {
                trouble = Err(e);
                break;
            }
            let message = PublishMessage::build()
                .message_id(format!("{provider}-{number}-{sub_seq}"))
                .payload(bytes.clone().into());
            let sent = async { self.js.send_publish(subject.clone(), message).await?.await };
            if let Err(e) = sent.await {
                trouble = Err(streams(e));
                break;
            }
            appended = *sub_seq;
            self.unsent.pop_front();
        }
        if appended > 0 {
            tokio::task::block_in_place(|| self.shared.store.appended(number, appended))?;
        }
        trouble
    }
}
