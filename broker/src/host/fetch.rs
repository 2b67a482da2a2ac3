//! The preparing worker: decide, fetch, commit to it, seal. Everything here may run on many threads at once.

#![allow(
    clippy::result_large_err,
    reason = "a denial is as usual an outcome as an answer, and it moves only a few times"
)]

#[path = "writes.rs"]
mod writes;

use super::bounded;
use super::hosted::{self, Agreed};
use super::job::{Done, Job};
use super::policy::Policies;
use super::refusals::{busy, explain_inactive, store_failed};
use super::releases::{Detail, NewRelease};
use super::role_maps::RoleMaps;
use super::subjects::{People, SubjectId};
use crate::config::NodeConfig;
use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use concordat_executor::answer::{self, Facts};
use concordat_executor::decide::{Permitted, QueryDocument, decide, denied};
use concordat_executor::decide_totals;
use concordat_executor::holding::{DatasetSpec, Holding, PageEnd, Plan, Rows};
use concordat_executor::policies::ask::Grant;
use concordat_executor::policies::evaluate::AgreementSet;
use concordat_executor::policies::view::{Pseudonyms, View};
use concordat_executor::query::Totals;
use concordat_executor::replay::Record;
use concordat_executor::step::Mode;
use concordat_executor::subjects::{Marked, SubjectField};
use concordat_executor::writing::WriteAsk;
use concordat_protocol::acts::KeyRole;
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::keys::{KeyId, PublicKey, SigningKey};
use concordat_protocol::ops::{Op, Tag};
use concordat_protocol::seal::SealSender;
use concordat_protocol::session::{Denied, Released};
use concordat_protocol::terms::Effect;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

pub use writes::Writable;

/// Shared by all workers.
pub struct Fetcher {
    cfg: Arc<NodeConfig>,
    node: NodeClient,
    holding: Arc<dyn Holding>,
    release_key: Arc<SigningKey>,
    specs: BTreeMap<DatasetId, DatasetSpec>,
    people: People,
    writable: Writable,
    policies: RwLock<Arc<Policies>>,
    senders: Mutex<BTreeMap<(u64, KeyId), SealSender>>,
    kems: Mutex<BTreeMap<KeyId, Arc<PublicKey>>>,
    role_maps: RoleMaps,
}

/// Milliseconds of a UTC day.
const DAY_MS: u64 = 86_400_000;

fn detail(op: &Op, openings: Vec<u8>, sentence: String, marked: &Marked, subjects: Vec<SubjectId>) -> Detail {
    let bulk = marked.bulk.iter().flat_map(Tag::as_slice).copied().collect();
    Detail { op: cbor::encode(op), openings, sentence, bulk, subjects, ..Detail::default() }
}

impl Fetcher {
    /// A fetcher over a holding.
    pub fn new(
        cfg: Arc<NodeConfig>,
        node: NodeClient,
        holding: Arc<dyn Holding>,
        release_key: Arc<SigningKey>,
        specs: Vec<(DatasetId, DatasetSpec)>,
        people: People,
    ) -> Self {
        Self {
            cfg,
            node,
            holding,
            release_key,
            specs: specs.into_iter().collect(),
            people,
            writable: Writable::default(),
            policies: RwLock::default(),
            senders: Mutex::default(),
            kems: Mutex::default(),
            role_maps: RoleMaps::default(),
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

    /// Forgets cached keys and role maps, so that revocations are seen; called when governance changed.
    pub fn forget_keys(&self) {
        self.role_maps.forget();
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
            justification: document.break_glass.as_ref().and_then(|b| b.justification.as_deref()),
        };
        let Some(spec) = self.specs.get(&request.dataset) else {
            return self.deny(
                &facts,
                job,
                denied(codes::UNKNOWN_DATASET, "unknown-dataset", format!("{} is not held here", request.dataset)),
                &BTreeSet::new(),
            );
        };
        if WriteAsk::member(&document.query).is_some() {
            if let Some(denied) = hosted::refuse_write(&self.cfg) {
                return self.deny(&facts, job, denied, &BTreeSet::new());
            }
            return self.prepare_write(job, &facts, &document, spec);
        }
        let subject = self.people.field(&request.dataset);
        let set = policies.set(&request.dataset, &job.consumer);
        let record = Record::of(&job.asked(), &set);
        let permitted = match decide(request, &job.consumer, &document, &set, &spec.fields, job.tick_ms) {
            Ok(permitted) => permitted,
            Err(denied) if denied.code == codes::BAD_VALUE => return Err(denied),
            Err(denied) => {
                let record = record.denied(&denied);
                let denied = explain_inactive(denied, &policies, request, &job.consumer);
                let record = record.told(&denied);
                // A denied question about somebody is one about somebody, too.
                let filter = decide_totals::asked_filter(&document.query, &spec.fields);
                let named = filter.zip(subject).map(|(f, s)| s.named(&f)).unwrap_or_default();
                return self.deny_as(&facts, job, denied, &named, &record);
            }
        };
        let unmapped = self.unmapped(&document, job)?;
        if let Some(denied) = unmapped.map_or_else(|| self.unreviewed(&permitted.grant, job), |d| Ok(Some(d)))? {
            let named = subject.map(|s| s.named(&permitted.asked)).unwrap_or_default();
            let record = record.denied_beside(&denied);
            return self.deny_as(&facts, job, denied, &named, &record);
        }
        let clause = &permitted.grant.clause;
        let Some(handle) = policies.handle(&clause.agreement, clause.version, permitted.grant.index) else {
            return Err(busy("the ledger has no handle for the clause yet: ask again".into()));
        };
        let (rows, met) = self.fetch(job, &document, spec, &permitted)?;
        let done = self.disclose(job, &facts, &permitted, handle, &rows, &met, record)?;
        Ok(Done { agreed: Agreed::of(&policies, handle), ..done })
    }

    /// The rows of a permitted query as its clause shows them, and whose they are.
    fn fetch(
        &self,
        job: &Job,
        document: &QueryDocument,
        spec: &DatasetSpec,
        permitted: &Permitted,
    ) -> Result<(Rows, BTreeSet<String>), Denied> {
        let subject = self.people.field(&job.call.request.dataset);
        let limit = u32::try_from(self.cfg.limits.page_rows).unwrap_or(u32::MAX);
        let plan = Plan { limit: permitted.plan.limit.min(limit), ..permitted.plan.clone() };
        let mut versions = Vec::new();
        let (mut rows, mut met) = match permitted.totals.clone() {
            Some(totals) => (self.add_up(&plan, totals, subject)?, BTreeSet::new()),
            None if document.versions => {
                let (rows, met, seen) = self.read_versions(plan, subject, spec, &job.consumer)?;
                versions = seen;
                (rows, met)
            }
            None => self.read(plan, subject)?,
        };
        met.extend(subject.map(|s| s.named(&permitted.asked)).unwrap_or_default());
        if permitted.totals.is_none() {
            self.show(&mut rows, &permitted.view, job.tick_ms);
        }
        for (row, version) in rows.rows.iter_mut().zip(versions) {
            row.doc.insert(writes::VERSION.into(), version.into());
        }
        Ok((rows, met))
    }

    /// The operation of a disclosure and the sealed answer; an override's notice and promise too.
    #[allow(clippy::too_many_arguments, reason = "the parts of one decision, each made by another step of it")]
    fn disclose(
        &self,
        job: &Job,
        facts: &Facts<'_>,
        permitted: &Permitted,
        handle: u64,
        rows: &Rows,
        met: &BTreeSet<String>,
        record: Record,
    ) -> Result<Done, Denied> {
        let (request, clause) = (&job.call.request, &permitted.grant.clause);
        let (marked, subjects) = self.mark(facts, met)?;
        let made = answer::disclose(facts, &permitted.grant, handle, rows, &marked, &self.release_key);
        let made = made.map_err(|e| busy(e.to_string()))?;
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
        let mut decision = record.permitted(&permitted.grant, rows.rows.len() as u64).to_json();
        let openings = released.openings.0.clone();
        let mut prepared = made.prepared;
        let mut detail = detail(&prepared.op, openings, clause.text.clone(), &marked, subjects);
        if permitted.grant.effect == Effect::BreakGlass {
            let told = bounded::notice(&permitted.grant, request, &job.consumer, facts.actor, facts.justification);
            decision["break_glass"] = told;
            detail.notice_ms = job.tick_ms;
            prepared.mode = bounded::mode(&permitted.grant, job.clock_ms);
        }
        if let Mode::Bounded { due_ms } = prepared.mode {
            let (op_hash, clock_ms) = (prepared.op_hash, job.clock_ms);
            let due = bounded::Due { request, handle, op_hash, clock_ms, due_ms };
            detail.promise = due.sign(&self.release_key).map_err(|e| busy(e.to_string()))?;
            detail.delivered_ms = clock_ms;
        }
        let row = NewRelease {
            key: (request.session, request.n),
            detail,
            request_hash: job.call.request_hash,
            op_hash: prepared.op_hash,
            secret: *made.secret,
            body: Some(cbor::encode(&released)),
            decision: decision.to_string(),
            session_expires_ms: job.call.session_expires_ms,
        };
        Ok(Done { prepared, row, released: Some(released), agreed: None, write: None })
    }

    /// The denial of an override whose clause has an overdue review. The ledger would refuse it too, but under bounded
    /// evidence only after the data left.
    fn unreviewed(&self, grant: &Grant, job: &Job) -> Result<Option<Denied>, Denied> {
        if grant.effect != Effect::BreakGlass {
            return Ok(None);
        }
        if let Some(denied) = hosted::refuse_promise(&self.cfg, grant, job.clock_ms) {
            return Ok(Some(denied));
        }
        let due = tokio::runtime::Handle::current().block_on(self.node.reviews());
        let due = due.map_err(|e| Denied { retry: 1, ..denied(0, "stale-ledger", e.to_string()) })?;
        Ok(bounded::overdue(&grant.clause, (&job.call.request.provider, &job.consumer), &due, job.clock_ms))
    }

    /// The denial of a request whose roles were made by another role map than the consumer recorded.
    fn unmapped(&self, document: &QueryDocument, job: &Job) -> Result<Option<Denied>, Denied> {
        let Some(named) = &document.role_map else { return Ok(None) };
        let found = self.role_maps.refuse(&self.node, &job.consumer, named, job.tick_ms);
        found.map_err(|e| Denied { retry: 1, ..denied(0, "stale-ledger", e.to_string()) })
    }

    /// What a plan finds, and whom: the subject's field is read even where the clause does not open it, and dropped.
    fn read(&self, plan: Plan, subject: Option<&SubjectField>) -> Result<(Rows, BTreeSet<String>), Denied> {
        let mut plan = plan;
        let hidden = subject.filter(|s| plan.select.as_ref().is_some_and(|list| !list.contains(&s.name)));
        if let (Some(field), Some(select)) = (hidden, plan.select.as_mut()) {
            select.push(field.name.clone());
        }
        let rows = self.holding.query(&plan);
        let mut rows = rows.map_err(store_failed)?;
        let met = subject.map(|s| s.of_rows(&rows.rows)).unwrap_or_default();
        if let Some(field) = hidden {
            rows.rows.iter_mut().for_each(|r| drop(r.doc.remove(&field.name)));
        }
        Ok((rows, met))
    }

    /// The totals of what a plan finds, as rows. Nobody is met by them: a group has as many persons as the agreement and
    /// the query ask for.
    fn add_up(&self, plan: &Plan, totals: Totals, subject: Option<&SubjectField>) -> Result<Rows, Denied> {
        let totals = decide_totals::guarded(totals, subject);
        let groups = self.holding.aggregate(&plan.dataset, &plan.filter, &totals).map_err(store_failed)?;
        Ok(Rows { rows: decide_totals::rows(&groups), end: PageEnd::Complete, scanned: None })
    }

    /// Alters rows as the clause shows them.
    fn show(&self, rows: &mut Rows, view: &View, at_ms: u64) {
        if view.is_plain() {
            return;
        }
        let key = self.people.pseudonym_key();
        for row in &mut rows.rows {
            row.doc = view.apply(&row.doc, Pseudonyms { key: &key, at_ms });
        }
    }

    fn mark(&self, facts: &Facts<'_>, met: &BTreeSet<String>) -> Result<(Marked, Vec<SubjectId>), Denied> {
        let dataset = &facts.request.dataset;
        let ids = self.people.ids(dataset, met);
        let marked = self.people.mark(dataset, &ids, facts.tick_ms / DAY_MS);
        Ok((marked.map_err(|e| busy(e.to_string()))?, ids))
    }

    fn deny(&self, facts: &Facts<'_>, job: &Job, denied: Denied, named: &BTreeSet<String>) -> Result<Done, Denied> {
        let none = AgreementSet::new(facts.request.dataset.clone(), job.consumer.clone(), []);
        let record = Record::of(&job.asked(), &none).denied(&denied);
        self.deny_as(facts, job, denied, named, &record)
    }

    /// A denial with what it was decided from.
    fn deny_as(
        &self,
        facts: &Facts<'_>,
        job: &Job,
        denied: Denied,
        named: &BTreeSet<String>,
        record: &Record,
    ) -> Result<Done, Denied> {
        let (marked, subjects) = self.mark(facts, named)?;
        let sentence = denied.clause_text.clone();
        let decision = record.to_json().to_string();
        let made = answer::deny(facts, denied, 0, &marked).map_err(|e| busy(e.to_string()))?;
        let (prepared, secret) = (made.prepared, made.secret);
        let detail = detail(&prepared.op, made.openings, sentence, &marked, subjects);
        let row = NewRelease {
            key: (facts.request.session, facts.request.n),
            request_hash: job.call.request_hash,
            op_hash: prepared.op_hash,
            secret: *secret,
            body: None,
            decision,
            session_expires_ms: job.call.session_expires_ms,
            detail,
        };
        Ok(Done { prepared, row, released: None, agreed: None, write: None })
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
