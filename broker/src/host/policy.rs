//! The agreements in force, as evaluators: documents of the node's folder, held against what the ledger approved.

use super::lead::Lead;
use super::renewal::{self, Chosen, Enforced};
use concordat_executor::policies::compile::{Compiled, compile};
use concordat_executor::policies::duty::Capabilities;
use concordat_executor::policies::evaluate::{AgreementSet, Evaluator};
use concordat_executor::step::Standing;
use concordat_protocol::acts::Act;
use concordat_protocol::cbor;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, AgreementId, DatasetId};
use concordat_protocol::keys::{KeyId, PublicKey, Signature, Statement};
use concordat_protocol::node::AgreementView;
use concordat_protocol::terms::{Action, ClauseTerms, Effect, Status, Terms, purpose_hash};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tracing::warn;

/// An agreement version as this provider's executor uses it.
#[derive(Debug, Clone)]
pub struct InForce {
    /// Its terms.
    pub terms: Terms,
    /// Its state on the ledger.
    pub status: Status,
    /// Handles by clause position.
    pub handles: Vec<u64>,
    /// Whether bounded evidence is suspended under it, after a promise was broken.
    pub bounded_suspended: bool,
    /// The evaluator, if the document is here and every approval verifies.
    pub evaluator: Option<Arc<Evaluator>>,
}

/// An agreement that is not in force.
#[derive(Debug, Clone, Copy)]
pub struct Inactive<'a> {
    /// Which.
    pub agreement: &'a AgreementId,
    /// Its state.
    pub status: Status,
    /// Whether it would cover the purpose that was asked for, had it not ended.
    pub covers: bool,
}

/// All agreements of one provider at one point of the ledger. Immutable: a new one is made and swapped in whole.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    versions: BTreeMap<(AgreementId, u64), InForce>,
    /// What is in force between a consumer and this provider, by dataset; a consumer of none has the public ones.
    sets: BTreeMap<DatasetId, Sets>,
    /// The terms that are enforced of each version.
    enforced: Enforced,
    /// Agreements whose renewal is not applied, and why.
    refused: BTreeMap<AgreementId, String>,
}

/// The agreements in force on one dataset.
#[derive(Debug, Clone, Default)]
struct Sets {
    by_consumer: BTreeMap<AgencyId, Arc<AgreementSet>>,
    public: Vec<Arc<Evaluator>>,
}

/// What is active on one dataset.
#[derive(Default)]
struct Active {
    agreed: BTreeMap<AgencyId, Vec<Arc<Evaluator>>>,
    public: Vec<Arc<Evaluator>>,
}

impl Active {
    fn into_sets(self, dataset: &DatasetId) -> Sets {
        let Self { agreed, public } = self;
        let set = |consumer: &AgencyId, agreed: Vec<Arc<Evaluator>>| {
            let all = agreed.into_iter().chain(public.iter().cloned());
            Arc::new(AgreementSet::new(dataset.clone(), consumer.clone(), all))
        };
        let by_consumer = agreed.into_iter().map(|(consumer, list)| (consumer.clone(), set(&consumer, list))).collect();
        Sets { by_consumer, public }
    }
}

/// Sets by dataset and consumer of what is active.
fn sets(versions: &BTreeMap<(AgreementId, u64), InForce>) -> BTreeMap<DatasetId, Sets> {
    let mut found: BTreeMap<DatasetId, Active> = BTreeMap::new();
    for v in versions.values().filter(|v| v.status == Status::Active) {
        let Some(evaluator) = &v.evaluator else { continue };
        let active = found.entry(v.terms.dataset.clone()).or_default();
        match &v.terms.assignee {
            Some(consumer) => active.agreed.entry(consumer.clone()).or_default().push(evaluator.clone()),
            None => active.public.push(evaluator.clone()),
        }
    }
    found
        .into_iter()
        .map(|(dataset, active)| {
            let sets = active.into_sets(&dataset);
            (dataset, sets)
        })
        .collect()
}

/// Documents of a folder by the hash of their terms.
pub type Documents = BTreeMap<Hash, Arc<Compiled>>;

/// Compiles every document of `dir/agreements`. One that does not compile is named in the log and left out.
pub fn load_documents(dir: &Path) -> Documents {
    let Ok(entries) = std::fs::read_dir(dir.join("agreements")) else { return Documents::new() };
    let mut documents = Documents::new();
    for path in entries.filter_map(|e| e.ok().map(|e| e.path())).filter(|p| p.extension().is_some_and(|e| e == "yaml"))
    {
        match std::fs::read_to_string(&path)
            .map_err(|e| e.to_string())
            .and_then(|t| compile(&t).map_err(|e| e.to_string()))
        {
            Ok(compiled) => {
                documents.insert(compiled.terms_hash(), Arc::new(compiled));
            }
            Err(why) => warn!(document = %path.display(), why, "agreement document left out"),
        }
    }
    documents
}

/// Whether both halves of every approval verify (code 408 where not).
fn approvals_hold(view: &AgreementView, chain: &str, keys: &BTreeMap<KeyId, PublicKey>) -> bool {
    view.approvals.iter().all(|a| {
        let (Some(key), Ok(act), Ok(signature)) =
            (keys.get(&a.key_id), cbor::decode::<Act>(&a.act), cbor::decode::<Signature>(&a.signature))
        else {
            return false;
        };
        act.agency == a.agency
            && act.key_id == a.key_id
            && key.verify_full(Statement::Act, chain, &a.act, &signature).is_ok()
    })
}

impl Policies {
    /// Gathers what the ledger says with the documents at hand. Evaluators of unchanged versions are taken over.
    pub fn build(
        before: &Self,
        provider: &AgencyId,
        chain: &str,
        views: &[AgreementView],
        documents: &Documents,
        keys: &BTreeMap<KeyId, PublicKey>,
    ) -> Self {
        let mut versions = BTreeMap::new();
        let (mut enforced, mut refused) = (before.enforced.clone(), BTreeMap::new());
        for view in views {
            let Ok(terms) = cbor::decode::<Terms>(&view.terms) else { continue };
            if terms.assigner != *provider {
                continue;
            }
            let id = (view.agreement.clone(), view.version);
            let mut evaluator = None;
            if view.status == Status::Active {
                let chosen = renewal::choose(before.enforced.get(&id), view, documents);
                if let Some(e) = &chosen.refused {
                    renewal::tell(view, e);
                    refused.insert(id.0.clone(), format!("its renewal is not applied: {e}"));
                } else {
                    enforced.insert(id.clone(), chosen.terms_hash);
                }
                let known = before.versions.get(&id).filter(|v| v.terms == terms).and_then(|v| v.evaluator.clone());
                let known = known.filter(|e| *e.terms_hash() == chosen.terms_hash);
                evaluator = known.or_else(|| self::evaluator(view, &chosen, chain, documents, keys));
            }
            let (status, handles) = (view.status, view.handles.clone());
            let bounded_suspended = view.bounded_suspended != 0;
            versions.insert(id, InForce { terms, status, handles, bounded_suspended, evaluator });
        }
        Self { sets: sets(&versions), versions, enforced, refused }
    }

    /// What a former process of this node left: which terms it enforced.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn resumed(dir: &Path) -> std::io::Result<Self> {
        Ok(Self { enforced: renewal::load(dir)?, ..Self::default() })
    }

    /// Keeps which terms are enforced, where that is other than before, so that it outlives this process.
    ///
    /// # Errors
    /// It cannot be written, or the lease is over: then nothing may be decided on these.
    pub fn keep(&self, before: &Self, dir: &Path, lead: &Lead) -> std::io::Result<()> {
        if self.enforced == before.enforced { Ok(()) } else { renewal::save(dir, &self.enforced, lead) }
    }

    /// Why the newest renewal of an agreement is not applied, if it is not.
    pub fn refused_renewal(&self, agreement: &AgreementId) -> Option<&str> {
        self.refused.get(agreement).map(String::as_str)
    }

    /// The evaluators between a consumer and this provider for a dataset.
    pub fn set(&self, dataset: &DatasetId, consumer: &AgencyId) -> Arc<AgreementSet> {
        let sets = self.sets.get(dataset);
        if let Some(set) = sets.and_then(|s| s.by_consumer.get(consumer)) {
            return set.clone();
        }
        let public = sets.map(|s| s.public.clone()).unwrap_or_default();
        Arc::new(AgreementSet::new(dataset.clone(), consumer.clone(), public))
    }

    /// The newest version between the two that is not active, to say why nothing is permitted: one with a clause for
    /// the purpose where there is one.
    pub fn why_inactive(&self, dataset: &DatasetId, consumer: &AgencyId, purpose: &str) -> Option<Inactive<'_>> {
        let purpose = purpose_hash(purpose);
        let fits = |v: &InForce| v.terms.dataset == *dataset && v.terms.assignee.as_ref().is_none_or(|a| a == consumer);
        let ended = |s: Status| matches!(s, Status::Suspended | Status::Revoked | Status::Superseded);
        let covers = |v: &InForce| {
            let grants = |c: &ClauseTerms| {
                c.effect != Effect::Prohibit && c.purpose == purpose && c.actions & Action::Query.bit() != 0
            };
            ended(v.status) && v.terms.clauses.iter().any(grants)
        };
        let found = self.versions.iter().rfind(|(_, v)| fits(v) && covers(v));
        let found = found.or_else(|| self.versions.iter().rfind(|(_, v)| fits(v) && v.status != Status::Active));
        found.map(|((agreement, _), v)| Inactive { agreement, status: v.status, covers: covers(v) })
    }

    /// The ledger's handle of a clause.
    pub fn handle(&self, agreement: &AgreementId, version: u64, clause: usize) -> Option<u64> {
        self.versions.get(&(agreement.clone(), version))?.handles.get(clause).copied()
    }

    /// Whether bounded evidence is suspended under a version.
    pub fn bounded_suspended(&self, agreement: &AgreementId, version: u64) -> bool {
        self.versions.get(&(agreement.clone(), version)).is_some_and(|v| v.bounded_suspended)
    }

    /// How an agreement stands: as its newest version that was ever approved.
    pub fn standing_of(&self, agreement: &AgreementId) -> Option<Status> {
        let all = self.versions.range((agreement.clone(), 0)..=(agreement.clone(), u64::MAX));
        let mut statuses = all.map(|(_, v)| v.status).rev();
        statuses.find(|s| !matches!(s, Status::Proposed | Status::Rejected))
    }

    /// The status of the version that a handle belongs to.
    pub fn status_of(&self, handle: u64) -> Option<Status> {
        self.versions.values().find(|v| v.handles.contains(&handle)).map(|v| v.status)
    }

    /// Where every handle stands.
    pub fn standings(&self) -> BTreeMap<u64, Standing> {
        let of = |v: &InForce| {
            let (status, bounded_suspended) = (v.status, v.bounded_suspended);
            let pairs = v.handles.iter().zip(&v.terms.clauses);
            let standing =
                |c: &ClauseTerms| Standing { status, from_ms: c.from_ms, until_ms: c.until_ms, bounded_suspended };
            pairs.map(|(h, c)| (*h, standing(c))).collect::<Vec<_>>()
        };
        self.versions.values().flat_map(of).collect()
    }

    /// All versions.
    pub fn versions(&self) -> impl Iterator<Item = (&(AgreementId, u64), &InForce)> {
        self.versions.iter()
    }
}

fn evaluator(
    view: &AgreementView,
    chosen: &Chosen,
    chain: &str,
    documents: &Documents,
    keys: &BTreeMap<KeyId, PublicKey>,
) -> Option<Arc<Evaluator>> {
    let agreement = format!("{} version {}", view.agreement, view.version);
    // Why was said already.
    let refused = chosen.refused.as_ref();
    if refused.is_some_and(|e| !matches!(e, renewal::RenewalError::Beyond(_))) {
        return None;
    }
    let Some(compiled) = documents.get(&chosen.terms_hash) else {
        warn!(agreement, "active on the ledger, but its document is not in agreements/: everything under it is denied");
        return None;
    };
    if !approvals_hold(view, chain, keys) {
        warn!(agreement, code = 408, "an approval's signature does not verify: everything under it is denied");
        return None;
    }
    match Evaluator::new(compiled.clone(), Capabilities::default()) {
        Ok(evaluator) => Some(Arc::new(evaluator)),
        Err(e) => {
            warn!(agreement, error = %e, "the policy engine refused it: everything under it is denied");
            None
        }
    }
}
