//! The preparing worker: decide, fetch, commit to it, seal. Everything here may run on many threads at once.

#![allow(
    clippy::result_large_err,
    reason = "a denial is as usual an outcome as an answer, and it moves only a few times"
)]

use super::policy::Policies;
use super::releases::NewRelease;
use crate::config::NodeConfig;
use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use concordat_executor::answer::{self, Facts};
use concordat_executor::decide::{QueryDocument, decide, denied};
use concordat_executor::holding::{DatasetSpec, Holding, Plan, SqliteHolding};
use concordat_executor::step::{Call, Prepared};
use concordat_protocol::acts::KeyRole;
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::keys::{KeyId, PublicKey, SigningKey};
use concordat_protocol::seal::SealSender;
use concordat_protocol::session::{Denied, Released, Request};
use concordat_protocol::terms::Status;
use serde_json::json;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// What a worker needs of a call.
#[derive(Debug, Clone)]
pub struct Job {
    /// The verified call.
    pub call: Call,
    /// The consumer, from the session.
    pub consumer: AgencyId,
    /// The query document's bytes.
    pub query: Vec<u8>,
    /// The consumer's key that the response is sealed to.
    pub kem: Arc<PublicKey>,
    /// Ledger time, milliseconds.
    pub tick_ms: u64,
}

/// What a worker makes.
#[derive(Debug)]
pub struct Done {
    /// For the step.
    pub prepared: Prepared,
    /// For the store.
    pub row: NewRelease,
    /// The response with an empty ticket, none for a denial.
    pub released: Option<Released>,
}

/// Shared by all workers.
pub struct Fetcher {
    cfg: Arc<NodeConfig>,
    node: NodeClient,
    holding: Arc<SqliteHolding>,
    release_key: Arc<SigningKey>,
    specs: BTreeMap<DatasetId, DatasetSpec>,
    policies: RwLock<Arc<Policies>>,
    senders: Mutex<BTreeMap<(u64, KeyId), SealSender>>,
    kems: Mutex<BTreeMap<KeyId, Arc<PublicKey>>>,
}

fn busy(detail: String) -> Denied {
    Denied { retry: 1, ..denied(codes::BUSY, "provider-busy", detail) }
}

impl Fetcher {
    /// A fetcher over a holding.
    pub fn new(
        cfg: Arc<NodeConfig>,
        node: NodeClient,
        holding: Arc<SqliteHolding>,
        release_key: Arc<SigningKey>,
        specs: Vec<(DatasetId, DatasetSpec)>,
    ) -> Self {
        Self {
            cfg,
            node,
            holding,
            release_key,
            specs: specs.into_iter().collect(),
            policies: RwLock::default(),
            senders: Mutex::default(),
            kems: Mutex::default(),
        }
    }

    /// Swaps in the policies of a newer height.
    pub fn set_policies(&self, policies: Arc<Policies>) {
        *self.policies.write().unwrap_or_else(PoisonError::into_inner) = policies;
    }

    /// The policies in force.
    pub fn policies(&self) -> Arc<Policies> {
        self.policies.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets sealing contexts of sessions that are over.
    pub fn forget_sessions(&self, over: impl Fn(u64) -> bool) {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).retain(|(session, _), _| !over(*session));
    }

    /// Forgets cached keys, so that revocations are seen; called when governance changed.
    pub fn forget_keys(&self) {
        self.kems.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The consumer's registered sealing key.
    pub async fn kem(&self, id: KeyId, consumer: &AgencyId) -> Result<Option<Arc<PublicKey>>, LedgerError> {
        if let Some(known) = self.kems.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Some(known.clone()));
        }
        let fits = |k: &concordat_protocol::node::KeyView| {
            k.role == KeyRole::Kem && k.agency == *consumer && k.revoked_ms == 0
        };
        let Some(view) = self.node.key(id).await?.filter(fits) else { return Ok(None) };
        let key = Arc::new(view.key);
        self.kems.lock().unwrap_or_else(PoisonError::into_inner).insert(id, key.clone());
        Ok(Some(key))
    }

    /// Does the work of one call; blocks.
    pub fn prepare(&self, job: &Job) -> Result<Done, Denied> {
        let document = QueryDocument::read(&job.query)?;
        let policies = self.policies();
        let request = &job.call.request;
        let facts = Facts {
            request,
            request_hash: &job.call.request_hash,
            consumer: &job.consumer,
            actor: &document.actor,
            tick_ms: job.tick_ms,
        };
        let Some(spec) = self.specs.get(&request.dataset) else {
            return self.deny(
                &facts,
                job,
                denied(codes::UNKNOWN_DATASET, "unknown-dataset", format!("{} is not held here", request.dataset)),
            );
        };
        let set = policies.set(&request.dataset, &job.consumer);
        let permitted = match decide(request, &job.consumer, &document, &set, &spec.fields, job.tick_ms) {
            Ok(permitted) => permitted,
            Err(denied) if denied.code == codes::BAD_VALUE => return Err(denied),
            Err(denied) => {
                let denied = explain_inactive(denied, &policies, request, &job.consumer);
                return self.deny(&facts, job, denied);
            }
        };
        let clause = &permitted.grant.clause;
        let Some(handle) = policies.handle(&clause.agreement, clause.version, permitted.grant.index) else {
            return Err(busy("the ledger has no handle for the clause yet: ask again".into()));
        };
        let limit = u32::try_from(self.cfg.limits.page_rows).unwrap_or(u32::MAX);
        let plan = Plan { limit: permitted.plan.limit.min(limit), ..permitted.plan.clone() };
        let rows = self.holding.query(&plan).map_err(|e| busy(format!("the provider's store: {}", e.code())))?;
        let failed = |e: answer::AnswerError| busy(e.to_string());
        let made = answer::disclose(&facts, &permitted.grant, handle, &rows, &self.release_key).map_err(failed)?;
        let mut released = made.released;
        let content = cbor::encode(&made.content);
        if content.len() > self.cfg.limits.response_bytes {
            let rule = format!(
                "the answer has {} bytes, this provider releases at most {}: ask for fewer rows or fields",
                content.len(),
                self.cfg.limits.response_bytes
            );
            return Err(denied(codes::TOO_LARGE, "too-large", rule));
        }
        self.seal(job, &mut released, &content)?;
        let decision = json!({"agreement": clause.agreement, "version": clause.version, "clause": clause.clause, "rows": rows.rows.len()});
        let row = NewRelease {
            key: (request.session, request.n),
            request_hash: job.call.request_hash,
            op_hash: made.prepared.op_hash,
            secret: *made.secret,
            body: Some(cbor::encode(&released)),
            decision: decision.to_string(),
            session_expires_ms: job.call.session_expires_ms,
        };
        Ok(Done { prepared: made.prepared, row, released: Some(released) })
    }

    fn deny(&self, facts: &Facts<'_>, job: &Job, denied: Denied) -> Result<Done, Denied> {
        let decision = json!({"denied": denied.reason, "clause": denied.clause, "missing": denied.missing}).to_string();
        let (prepared, secret) = answer::deny(facts, denied, 0).map_err(|e| busy(e.to_string()))?;
        let row = NewRelease {
            key: (facts.request.session, facts.request.n),
            request_hash: job.call.request_hash,
            op_hash: prepared.op_hash,
            secret: *secret,
            body: None,
            decision,
            session_expires_ms: job.call.session_expires_ms,
        };
        Ok(Done { prepared, row, released: None })
    }

    fn seal(&self, job: &Job, released: &mut Released, content: &[u8]) -> Result<(), Denied> {
        let request = &job.call.request;
        let failed = |e: concordat_protocol::seal::SealError| busy(e.to_string());
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (request.session, request.kem_key_id);
        let sender = match senders.entry(place) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => {
                let scope = format!("session/{}", request.session);
                free.insert(SealSender::new(&job.kem, &self.cfg.chain, &scope, 0).map_err(failed)?)
            }
        };
        released.encapsulation = sender.encapsulation().to_vec().into();
        released.sealed = sender.seal(request.n, &job.call.request_hash, content).map_err(failed)?.into();
        Ok(())
    }
}

/// What no agreement in force covers is told as "suspended" or "revoked" where that is the reason.
fn explain_inactive(denied: Denied, policies: &Policies, request: &Request, consumer: &AgencyId) -> Denied {
    let nothing = denied.code == codes::NO_AGREEMENT;
    // Another agreement's nearest clause is no help to somebody whose own agreement was stopped.
    let uncovered = nothing || ["purpose", "unknown-clause"].contains(&denied.reason.as_str());
    let found = policies.why_inactive(&request.dataset, consumer, &request.purpose);
    let Some(found) = found.filter(|f| nothing || (uncovered && f.covers)) else { return denied };
    let code = match found.status {
        Status::Suspended => codes::SUSPENDED,
        Status::Revoked => codes::REVOKED,
        Status::Superseded => codes::SUPERSEDED,
        _ => codes::NO_AGREEMENT,
    };
    let detail = format!("{} is {}: {}", found.agreement, found.status, codes::text(code));
    self::denied(code, found.status.word(), detail)
}
