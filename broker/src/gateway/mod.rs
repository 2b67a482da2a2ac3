//! The consumer's side of a query: it signs under a session, asks the provider, and checks everything before a byte
//! goes to an application (PROTOCOL 4 and 5).

pub(crate) mod asked;
pub mod check;
pub mod erasures;
pub mod error;
pub mod follow_up;
pub mod pool;
pub mod promised;
pub mod promises;
pub mod provider;
pub mod records;
pub mod sign;
mod subscribe;
pub mod watch;
pub mod wire;
pub mod writes;

mod answer;
mod outcome;
#[cfg(test)]
pub(crate) mod testing;

pub use answer::{Answer, Answered};
pub use error::GatewayError;

use crate::config::NodeConfig;
use crate::ledger::node_client::NodeClient;
use crate::ledger::rpc::CometRpc;
use crate::metrics::Metrics;
use crate::store::Store;
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::hash::sha256;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::keys::{KemKey, SigningKey};
use concordat_protocol::seal::SealReceiver;
use concordat_protocol::session::{Denied, QueryCall, QueryReply, Request, SignedRequest};
use provider::{ActDesk, Provider, Signed};
use records::{IdempotencyKey, KeptAnswer, Known, Records};
use serde_json::{Map, Value, json};
use sign::Draft;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tracing::info;
use watch::LedgerWatch;

/// By how many entries a provider's node may be behind the own one when it promises a record.
const PROVIDER_BEHIND: u64 = 10_000;

/// What a gateway needs.
pub struct GatewaySetup {
    /// The node.
    pub cfg: Arc<NodeConfig>,
    /// The own node.
    pub node: NodeClient,
    /// Where acts are submitted.
    pub rpc: CometRpc,
    /// What the own node says.
    pub watch: LedgerWatch,
    /// The streams.
    pub nats: async_nats::Client,
    /// The store.
    pub store: Store,
    /// Metrics.
    pub metrics: Metrics,
    /// Opens sessions.
    pub key: SigningKey,
    /// Opens sealed responses.
    pub kem: KemKey,
}

/// A question of an application, authenticated by the API.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What about; its owner is asked.
    pub dataset: DatasetId,
    /// `where`, `select`, `order`, `limit` as far as given; checked by the provider.
    pub query: Map<String, Value>,
    /// `purp:...`
    pub purpose: String,
    /// Case reference or empty.
    pub case: String,
    /// The clause relied on, or empty.
    pub clause: String,
    /// Name of the caller's token.
    pub caller: String,
    /// Roles of the caller.
    pub roles: Vec<String>,
    /// The caller's pseudonym.
    pub actor: String,
    /// Why the caller overrides (break-glass); nothing for an ordinary question.
    pub justification: Option<String>,
    /// Request id.
    pub request_id: String,
    /// The caller's Idempotency-Key.
    pub idempotency: Option<IdempotencyKey>,
}

/// The gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

/// Opened encapsulations by session.
type Receivers = BTreeMap<(u64, Vec<u8>), Arc<SealReceiver>>;

struct Inner {
    cfg: Arc<NodeConfig>,
    watch: LedgerWatch,
    nats: async_nats::Client,
    records: Records,
    metrics: Metrics,
    desk: Arc<ActDesk>,
    kem: KemKey,
    providers: Mutex<BTreeMap<AgencyId, Provider>>,
    receivers: Mutex<Receivers>,
    busy_keys: Arc<Mutex<BTreeSet<IdempotencyKey>>>,
    room: Semaphore,
}

/// A call that is ready to be sent. Its place in the session is given back when it is dropped.
struct Call {
    request: Request,
    signed: SignedRequest,
    session_ends_ms: u64,
    bytes: Vec<u8>,
    _place: Option<Signed>,
}

/// Frees an Idempotency-Key for the next attempt.
struct BusyKey(IdempotencyKey, Arc<Mutex<BTreeSet<IdempotencyKey>>>);

impl Drop for BusyKey {
    fn drop(&mut self) {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

enum Begun {
    Answered(KeptAnswer),
    Resume(Box<Call>),
    Fresh,
}

impl Gateway {
    /// A gateway; nothing is opened before somebody asks.
    pub fn new(s: GatewaySetup) -> Self {
        let desk = ActDesk::new(s.cfg.chain.clone(), s.cfg.agency.clone(), s.key, s.node, s.rpc);
        let room = Semaphore::new(s.cfg.limits.queries_in_flight);
        let inner = Inner {
            cfg: s.cfg,
            watch: s.watch,
            nats: s.nats,
            records: Records::new(s.store),
            metrics: s.metrics,
            desk: Arc::new(desk),
            kem: s.kem,
            providers: Mutex::default(),
            receivers: Mutex::default(),
            busy_keys: Arc::default(),
            room,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Where acts are signed with the gateway's key, or submitted for others.
    pub fn desk(&self) -> &ActDesk {
        &self.inner.desk
    }

    /// What was asked before.
    pub fn records(&self) -> &Records {
        &self.inner.records
    }

    /// Queries that are open now.
    pub fn in_flight(&self) -> usize {
        self.inner.cfg.limits.queries_in_flight.saturating_sub(self.inner.room.available_permits())
    }

    /// Asks a provider. The answer was verified; an error carries nothing of the provider's data.
    pub async fn query(&self, ask: Ask) -> Result<Answered, GatewayError> {
        let x = &self.inner;
        let started = Instant::now();
        let Ok(_room) = x.room.try_acquire() else { return Err(GatewayError::Busy(x.cfg.limits.queries_in_flight)) };
        let now = x.watch.fresh().map_err(GatewayError::StaleLedger)?;
        x.known(&ask.dataset).await?;
        let _busy = x.take_key(&ask)?;
        let call = match x.begin(&ask, now.tick_ms).await? {
            Begun::Answered(kept) => return x.replay(&ask, kept),
            Begun::Resume(call) => *call,
            Begun::Fresh => x.prepare(&ask, now.tick_ms).await?,
        };
        x.time("session", started);
        let deadline = started + Duration::from_millis(x.cfg.limits.query_ms);
        let mut result = x.attempt(&ask, &call, deadline, now.tick_ms).await;
        drop(call);
        if ask.write_action().is_none() && result.as_ref().is_err_and(is_withheld) {
            // The provider restarted between record and release: that operation is withheld for ever, so another is made.
            info!(request_id = %ask.request_id, "withheld by the provider, asked anew");
            let tick_ms = x.watch.fresh().map_err(GatewayError::StaleLedger)?.tick_ms;
            let call = x.prepare(&ask, tick_ms).await?;
            result = x.attempt(&ask, &call, deadline, tick_ms).await;
        }
        x.time("total", started);
        result
    }
}

/// Whether the request was recorded, and its answer withheld for ever: data was never released for it.
fn is_withheld(e: &GatewayError) -> bool {
    let GatewayError::Denied { denied, .. } = e else { return false };
    denied.operation.is_none() && (denied.code == codes::REPLAY || denied.reason == "withheld")
}

impl Inner {
    /// Sends a call once; what became of it is kept.
    async fn attempt(&self, ask: &Ask, call: &Call, deadline: Instant, at_ms: u64) -> Result<Answered, GatewayError> {
        let sent = Instant::now();
        let within = deadline.saturating_duration_since(sent);
        let (provider, dataset) = (&call.request.provider, &call.request.dataset);
        // The record of an override is looked for from here on.
        let from_index = if ask.justification.is_some() { self.watch.log_size().await? } else { 0 };
        let result = match wire::call(&self.nats, provider, dataset, call.bytes.clone(), within).await {
            Ok(QueryReply::Released { .. } | QueryReply::Promised { .. }) if ask.write_action().is_some() => {
                Err(self.invalid(call, writes::no_answer_to_a_write()))
            }
            Ok(QueryReply::Released { body }) => {
                self.time("provider", sent);
                self.released(ask, call, body, sent, at_ms).await
            }
            Ok(QueryReply::Promised { body }) => {
                self.time("provider", sent);
                let from_index = from_index.saturating_sub(PROVIDER_BEHIND);
                self.promised(ask, call, (body, from_index), sent, at_ms).await
            }
            Ok(QueryReply::Written { body }) => {
                self.time("provider", sent);
                self.written(ask, call, body, at_ms).await
            }
            Ok(QueryReply::Denied { body }) => Err(self.denied(ask, call, body, at_ms).await),
            Err(e) => Err(e),
        };
        if let Err(e) = &result {
            self.failed(ask, call, e, at_ms).await;
        }
        result
    }

    fn time(&self, stage: &str, since: Instant) {
        self.metrics.query_duration.with_label_values(&[stage]).observe(since.elapsed().as_secs_f64());
    }

    async fn known(&self, dataset: &DatasetId) -> Result<(), GatewayError> {
        if dataset.owner() == self.cfg.agency {
            let rule = "is this agency's own: ask its store directly, the gateway asks other agencies".to_owned();
            return Err(GatewayError::BadQuery { field: "dataset", rule });
        }
        let known = self.watch.datasets().await?.iter().any(|d| d.id == *dataset);
        if known { Ok(()) } else { Err(GatewayError::UnknownDataset(dataset.to_string())) }
    }

    fn take_key(&self, ask: &Ask) -> Result<Option<BusyKey>, GatewayError> {
        let Some(key) = &ask.idempotency else { return Ok(None) };
        let slot = IdempotencyKey { body_hash: [0; 32], ..key.clone() };
        if !self.busy_keys.lock().unwrap_or_else(PoisonError::into_inner).insert(slot.clone()) {
            return Err(GatewayError::InProgress);
        }
        Ok(Some(BusyKey(slot, self.busy_keys.clone())))
    }

    async fn begin(&self, ask: &Ask, tick_ms: u64) -> Result<Begun, GatewayError> {
        let Some(key) = ask.idempotency.clone() else { return Ok(Begun::Fresh) };
        match self.records.begin(key, tick_ms).await? {
            Known::New => Ok(Begun::Fresh),
            Known::Other => Err(GatewayError::KeyReused),
            Known::Answered(kept) => Ok(Begun::Answered(kept)),
            Known::Sent { call, session_ends_ms } => {
                let kept =
                    |e: cbor::CborError| crate::store::StoreError::Failed(format!("a kept call does not decode: {e}"));
                let sent: QueryCall = cbor::decode(&call).map_err(kept)?;
                let request = cbor::decode(&sent.signed.request).map_err(kept)?;
                info!(request_id = %ask.request_id, "the same bytes are sent again under this Idempotency-Key");
                let call = Call { request, signed: sent.signed, session_ends_ms, bytes: call, _place: None };
                Ok(Begun::Resume(Box::new(call)))
            }
        }
    }

    fn replay(&self, ask: &Ask, kept: KeptAnswer) -> Result<Answered, GatewayError> {
        if kept.status == 200 {
            return Ok(Answered { body: kept.body, replayed: true });
        }
        let denied: Denied = cbor::decode(&kept.body)
            .map_err(|e| crate::store::StoreError::Failed(format!("a kept denial does not decode: {e}")))?;
        Err(GatewayError::Denied { provider: ask.dataset.owner(), denied: Box::new(denied), id: 0 })
    }

    fn provider(&self, agency: &AgencyId) -> Provider {
        let mut all = self.providers.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || Provider::start(agency.clone(), self.cfg.chain.clone(), self.desk.clone(), self.watch.clone());
        all.entry(agency.clone()).or_insert_with(start).clone()
    }

    async fn prepare(&self, ask: &Ask, tick_ms: u64) -> Result<Call, GatewayError> {
        let call = self.sign(ask, document(ask)?, tick_ms).await?;
        if let Some(key) = &ask.idempotency {
            self.records.sending(key.clone(), Some(call.bytes.clone()), call.session_ends_ms).await?;
        }
        Ok(call)
    }

    /// Signs a query document under a session.
    async fn sign(&self, ask: &Ask, query: Vec<u8>, tick_ms: u64) -> Result<Call, GatewayError> {
        let owner = ask.dataset.owner();
        let draft = Draft {
            provider: owner.clone(),
            dataset: ask.dataset.clone(),
            clause: ask.clause.clone(),
            purpose: ask.purpose.clone(),
            case: ask.case.clone(),
            query_hash: sha256(&[&query]),
            kem_key_id: self.kem.public().key_id(),
            not_after_ms: tick_ms + self.cfg.limits.query_ms,
        };
        let within = Duration::from_millis(self.cfg.limits.query_ms);
        let signed = tokio::time::timeout(within, self.provider(&owner).sign(draft)).await;
        let signed = signed.map_err(|_| {
            GatewayError::Ledger(format!("no session with {owner} was opened in time"), "session-not-opened", true)
        })??;
        self.records.asked(signed.request.session, signed.request.n).await?;
        let call = QueryCall { signed: signed.signed.clone(), query: query.into(), request_id: ask.request_id.clone() };
        let bytes = cbor::encode(&call);
        Ok(Call {
            request: signed.request.clone(),
            signed: signed.signed.clone(),
            session_ends_ms: signed.session_ends_ms,
            bytes,
            _place: Some(signed),
        })
    }
}

/// The query document: what is asked, who asks, and a nonce, so that its hash tells nothing.
fn document(ask: &Ask) -> Result<Vec<u8>, GatewayError> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|e| GatewayError::Library(e.to_string()))?;
    let mut query = ask.query.clone();
    query.insert("dataset".into(), json!(ask.dataset));
    query.insert("roles".into(), json!(ask.roles));
    query.insert("actor".into(), json!(ask.actor));
    if let Some(why) = &ask.justification {
        let said = if why.is_empty() { json!({}) } else { json!({"justification": why}) };
        query.insert("break_glass".into(), said);
    }
    query.insert("nonce".into(), json!(hex::encode(nonce)));
    Ok(Value::Object(query).to_string().into_bytes())
}
