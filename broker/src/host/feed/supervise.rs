//! Keeps one task for each subscription: the default ones that agreements in force make, and those that consumers
//! created. A task stops delivering by itself the moment its clause does not permit it.

use super::created::{Created, Life};
use super::evidence::{Clause, seal_ms};
use super::redaction::Lens;
use super::source::Source;
use super::subscription::{End, Shared, run};
use super::{FeedStoreError, Feeds};
use crate::host::policy::Policies;
use concordat_executor::policies::ask::{Ask, Grant};
use concordat_executor::policies::dataset::DatasetDoc;
use concordat_executor::policies::document::Who;
use concordat_protocol::ids::{AgencyId, AgreementId, DatasetId};
use concordat_protocol::terms::{Action, Effect, Evidence, Status};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

/// What a subscription delivers, and under what it may.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) consumer: AgencyId,
    pub(super) agreement: AgreementId,
    pub(super) clause_id: String,
    /// Roles the consumer's broker vouched for; the default subscription has its clause's.
    pub(super) roles: BTreeSet<String>,
    pub(super) purpose: String,
    pub(super) case: Option<String>,
    pub(super) filter: Value,
    pub(super) fields: Vec<String>,
    /// A default subscription belongs to one version; a created one goes on under the next.
    pub(super) pinned: bool,
    pub(super) doc: Arc<DatasetDoc>,
}

impl Delivery {
    /// What policy is asked.
    pub(super) fn ask(&self, at_ms: u64) -> Ask {
        Ask {
            consumer: self.consumer.clone(),
            roles: self.roles.clone(),
            action: Action::Subscribe,
            break_glass: false,
            purpose: self.purpose.clone(),
            agreement: Some(self.agreement.clone()),
            clause: Some(self.clause_id.clone()),
            case: self.case.clone(),
            at_ms,
        }
    }

    /// What it shows under a grant; the error says why nothing.
    pub(super) fn lens(&self, grant: &Grant) -> Result<Lens, String> {
        let lens = Lens::of(grant, &self.doc).map_err(|e| e.to_string())?;
        lens.narrow(&self.filter, &self.fields, &self.doc).map_err(|e| format!("{e}; create it anew with less"))
    }

    fn of(created: &Created, doc: Arc<DatasetDoc>) -> Self {
        let terms = created.terms.clone();
        Self {
            consumer: created.consumer.clone(),
            agreement: terms.agreement,
            clause_id: terms.clause,
            roles: created.roles.clone(),
            purpose: terms.purpose,
            case: terms.case,
            filter: terms.filter,
            fields: terms.fields,
            pinned: false,
            doc,
        }
    }
}

/// Datasets of this node that are feeds.
pub(super) type Docs = BTreeMap<DatasetId, Arc<DatasetDoc>>;

/// The default subscriptions: one for each active bounded clause, with its handle as number.
fn defaults(policies: &Policies, docs: &Docs) -> Vec<(Clause, Delivery)> {
    let mut out = Vec::new();
    for ((agreement, version), inforce) in policies.versions() {
        let Some(evaluator) = inforce.evaluator.as_ref().filter(|_| inforce.status == Status::Active) else { continue };
        for (i, clause) in evaluator.compiled().document.clauses.iter().enumerate() {
            let subscribes = clause.effect == Effect::Permit && clause.actions.contains(&Action::Subscribe);
            let Some(handle) = inforce.handles.get(i).copied().filter(|_| subscribes) else { continue };
            let (who, role) = match &clause.who {
                Who::Org { org, role } => (Some(org.clone()), role.clone()),
                Who::Any => (inforce.terms.assignee.clone(), None),
            };
            let (Some(consumer), Some(purpose), Evidence::Bounded { max_lag_ms }) =
                (who, clause.purpose.clone(), clause.evidence.clone())
            else {
                // Whoever wants a public feed creates a subscription; a strict one is not delivered at all.
                if clause.evidence == (Evidence::Strict {}) {
                    warn!(%agreement, version, clause = clause.id, "a strict feed is not delivered: agree on bounded evidence");
                }
                continue;
            };
            let Some(doc) = docs.get(&inforce.terms.dataset) else {
                warn!(dataset = %inforce.terms.dataset, %agreement, "a clause lets somebody follow it, but it is no feed of this node");
                continue;
            };
            let (name, rows_hash) = (format!("{agreement}/{}", clause.id), evaluator.compiled().terms.rows_hash);
            let evidence = Clause {
                subscription: handle,
                handle,
                consumer,
                name,
                purpose,
                rows_hash,
                max_lag_ms,
                dataset: doc.id.to_string(),
                sentence: clause.text.clone(),
                seal_ms: seal_ms(&clause.duties),
            };
            let delivery = Delivery {
                consumer: evidence.consumer.clone(),
                agreement: agreement.clone(),
                clause_id: clause.id.clone(),
                roles: role.into_iter().collect(),
                purpose: evidence.purpose.clone(),
                case: None,
                filter: json!({}),
                fields: vec![],
                pinned: true,
                doc: doc.clone(),
            };
            out.push((evidence, delivery));
        }
    }
    out
}

/// What the supervisor holds of running tasks.
#[derive(Default)]
struct Running {
    tasks: BTreeMap<u64, JoinHandle<()>>,
    sources: BTreeMap<DatasetId, Arc<Source>>,
}

impl Running {
    fn is_free(&self, number: u64) -> bool {
        self.tasks.get(&number).is_none_or(JoinHandle::is_finished)
    }
}

/// Runs as long as the host.
pub(super) async fn supervise(feeds: Arc<Feeds>) {
    let (mut view, mut commands) = (feeds.setup.view.clone(), feeds.changed.subscribe());
    // Agreements first: what is not in force yet would look like nothing.
    if view.wait_for(|v| v.tick_ms > 0).await.is_err() {
        return;
    }
    let (mut running, mut seen, mut wanted) = (Running::default(), None::<Arc<Policies>>, Vec::new());
    let mut left: Vec<Clause> = left_open(&feeds).await;
    loop {
        let policies = view.borrow_and_update().policies.clone();
        let told = commands.has_changed().unwrap_or(false);
        commands.mark_unchanged();
        if told || seen.as_ref().is_none_or(|s| !Arc::ptr_eq(s, &policies)) {
            match gather(&feeds, &policies).await {
                Ok(found) => {
                    (wanted, seen) = (found, Some(policies.clone()));
                    end_what_ended(&feeds, &policies, &wanted);
                }
                Err(e) => {
                    // Nothing is started on old news: a subscription may have been deleted.
                    wanted.clear();
                    error!(code = e.code(), error = %e, "created subscriptions cannot be read");
                }
            }
        }
        for (clause, delivery) in &wanted {
            if running.is_free(clause.subscription) && !feeds.has_ended(clause.subscription) {
                start(&feeds, &mut running, clause.clone(), Some(delivery.clone()));
            }
        }
        // Nothing is delivered for these any more, but what was delivered is anchored.
        for clause in std::mem::take(&mut left) {
            if running.is_free(clause.subscription) {
                start(&feeds, &mut running, clause, None);
            }
        }
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            changed = commands.changed() => if changed.is_err() { return } else { commands.mark_changed() },
        }
    }
}

fn start(feeds: &Arc<Feeds>, running: &mut Running, clause: Clause, delivery: Option<Delivery>) {
    let number = clause.subscription;
    let dataset = delivery.as_ref().map(|d| d.doc.id.to_string()).unwrap_or_default();
    info!(subscription = number, consumer = %clause.consumer, dataset, "subscription");
    let shared = Shared::new(feeds.setup.clone(), feeds.store.clone(), clause);
    feeds.register(&shared, dataset);
    let delivery = delivery.map(|d| {
        let source = running.sources.entry(d.doc.id.clone());
        let source = source.or_insert_with(|| Source::start(feeds.setup.clone(), d.doc.id.clone()));
        (d, source.clone())
    });
    let feeds = feeds.clone();
    running.tasks.insert(
        number,
        tokio::spawn(async move {
            let deleted = shared.clone();
            run(shared, delivery).await;
            if *deleted.ended.borrow() == Some(End::Deleted) {
                feeds.forget(number);
            }
        }),
    );
}

/// Every subscription that there should be. Created ones end here when their agreement is revoked.
async fn gather(feeds: &Feeds, policies: &Policies) -> Result<Vec<(Clause, Delivery)>, FeedStoreError> {
    let mut out = defaults(policies, &feeds.docs);
    for (created, _) in feeds.store.created().await?.into_iter().filter(|(_, life)| *life == Life::Live) {
        let number = created.subscription;
        if policies.standing_of(&created.terms.agreement) == Some(Status::Revoked) {
            feeds.store.end_created(number, Life::Ended).await?;
            feeds.end(number, End::Revoked);
            continue;
        }
        let Some(clause) = feeds.store.clause(number).await?.as_deref().and_then(Clause::read) else { continue };
        let Some(doc) = feeds.docs.get(&created.terms.dataset) else {
            warn!(subscription = number, dataset = %created.terms.dataset, "it is no feed of this node any more");
            continue;
        };
        out.push((clause, Delivery::of(&created, doc.clone())));
    }
    Ok(out)
}

/// Default subscriptions end with their version, created ones when they are live no more.
fn end_what_ended(feeds: &Feeds, policies: &Policies, wanted: &[(Clause, Delivery)]) {
    let live: BTreeSet<u64> = wanted.iter().map(|(c, _)| c.subscription).collect();
    for number in feeds.numbers() {
        if number >> 32 != 0 {
            if !live.contains(&number) {
                feeds.end(number, End::Deleted);
            }
            continue;
        }
        match policies.status_of(number) {
            Some(Status::Revoked) => feeds.end(number, End::Revoked),
            Some(Status::Superseded) => feeds.end(number, End::Superseded),
            _ => {}
        }
    }
}

async fn left_open(feeds: &Feeds) -> Vec<Clause> {
    let bodies = feeds.store.open_clauses().await.unwrap_or_else(|e| {
        error!(code = e.code(), error = %e, "deliveries of the former process cannot be read");
        vec![]
    });
    bodies.iter().filter_map(|b| Clause::read(b)).collect()
}
