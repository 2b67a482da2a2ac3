//! What the ledger says of a subscription (pure). Nothing of it is taken from the provider's word.

use super::check::Expected;
use super::duties::Altering;
use super::store::{Created, Key};
use crate::config::NodeConfig;
use crate::host::policy::Documents;
use crate::streams::subscription_name;
use concordat_protocol::cbor;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::node::AgreementView;
use concordat_protocol::subscribe::{CREATED_FROM, Subscribed};
use concordat_protocol::terms::{Action, ClauseTerms, Effect, Evidence, Status, Terms};
use std::collections::BTreeSet;

/// A subscription's clause, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedTerms {
    /// Name to applications.
    pub id: String,
    /// `AGR-2026-0143`
    pub agreement: String,
    /// The agreement's version.
    pub version: u64,
    /// The clause's id.
    pub clause: String,
    /// The clause's handle.
    pub handle: u64,
    /// First millisecond of ledger time at which it holds.
    pub from_ms: u64,
    /// First millisecond at which it holds no more.
    pub until_ms: u64,
    /// The agreement's state.
    pub status: Status,
    /// What deliveries are checked against.
    pub expected: Expected,
}

/// A subscribe clause of a version: its handle, its terms, its bound (0 where no evidence is asked for).
type Clause<'a> = (u64, &'a ClauseTerms, u64);

fn subscribe_clauses<'a>(view: &'a AgreementView, terms: &'a Terms) -> impl Iterator<Item = Clause<'a>> {
    view.handles.iter().zip(&terms.clauses).filter_map(|(handle, clause)| {
        let max_lag_ms = match clause.evidence {
            Evidence::Bounded { max_lag_ms } => max_lag_ms,
            Evidence::None {} => 0,
            Evidence::Strict {} => return None,
        };
        let opens = clause.effect == Effect::Permit && clause.actions & Action::Subscribe.bit() != 0;
        opens.then_some((*handle, clause, max_lag_ms))
    })
}

/// Versions that this agency is a party to as consumer, public ones included.
fn ours<'a>(views: &'a [AgreementView], own: &'a AgencyId) -> impl Iterator<Item = (&'a AgreementView, Terms)> {
    views.iter().filter_map(move |view| {
        let terms = cbor::decode::<Terms>(&view.terms).ok()?;
        terms.assignee.as_ref().is_none_or(|a| a == own).then_some((view, terms))
    })
}

fn terms_of(
    cfg: &NodeConfig,
    key: &Key,
    view: &AgreementView,
    terms: &Terms,
    clause: Clause<'_>,
    documents: &Documents,
) -> FeedTerms {
    let (handle, clause, max_lag_ms) = clause;
    let expected = Expected {
        chain: cfg.chain.clone(),
        provider: terms.assigner.clone(),
        subscription: key.number,
        dataset: terms.dataset.clone(),
        clause: format!("{}/{}", terms.agreement, clause.id),
        max_lag_ms: BTreeSet::from([max_lag_ms]),
        altering: Altering::of(view, &clause.id, documents),
    };
    FeedTerms {
        id: subscription_name(&key.provider, key.number),
        agreement: terms.agreement.to_string(),
        version: view.version,
        clause: clause.id.clone(),
        handle,
        from_ms: clause.from_ms,
        until_ms: clause.until_ms,
        status: view.status,
        expected,
    }
}

/// The subscriptions that agreements give this agency by themselves: one for each bounded clause that names it. `documents`:
/// this agency's own copies.
pub fn default_ones(views: &[AgreementView], cfg: &NodeConfig, documents: &Documents) -> Vec<(Key, FeedTerms)> {
    let mut out = Vec::new();
    for (view, terms) in ours(views, &cfg.agency).filter(|(_, t)| t.assignee.is_some()) {
        for clause in subscribe_clauses(view, &terms).filter(|(_, _, max_lag_ms)| *max_lag_ms > 0) {
            let key = Key { provider: terms.assigner.clone(), number: clause.0 };
            let made = terms_of(cfg, &key, view, &terms, clause, documents);
            out.push((key, made));
        }
    }
    out
}

/// The clause of a created subscription: that of the newest version in force, or of the newest there was. What was
/// delivered under an older version keeps its bound and its duties. None while the own node does not know the agreement.
pub fn created_one(views: &[AgreementView], cfg: &NodeConfig, c: &Created, documents: &Documents) -> Option<FeedTerms> {
    let mut found: Option<FeedTerms> = None;
    let (mut bounds, mut altering) = (BTreeSet::new(), Altering::default());
    for (view, terms) in ours(views, &cfg.agency) {
        let settled = !matches!(view.status, Status::Proposed | Status::Rejected);
        let same =
            view.agreement.as_str() == c.agreement && terms.assigner == c.key.provider && terms.dataset == c.dataset;
        if !settled || !same {
            continue;
        }
        for clause in subscribe_clauses(view, &terms).filter(|(_, t, _)| t.id == c.clause) {
            bounds.insert(clause.2);
            let made = terms_of(cfg, &c.key, view, &terms, clause, documents);
            altering.join(made.expected.altering.clone());
            let rank = |t: &FeedTerms| (t.status == Status::Active, t.version);
            if found.as_ref().is_none_or(|f| rank(f) < rank(&made)) {
                found = Some(made);
            }
        }
    }
    found.map(|mut f| {
        (f.expected.max_lag_ms, f.expected.altering) = (bounds, altering);
        f
    })
}

/// Whether the ledger bears out what a provider says of a new subscription; the error is a sentence.
pub fn bears_out(
    views: &[AgreementView],
    own: &AgencyId,
    dataset: &DatasetId,
    said: &Subscribed,
) -> Result<(), String> {
    if said.subscription < CREATED_FROM {
        return Err(format!("number {} is that of a default subscription", said.subscription));
    }
    let Some((view, terms)) =
        ours(views, own).find(|(v, _)| v.agreement.as_str() == said.agreement && v.version == said.version)
    else {
        return Err(format!("this agency is no party to {} version {}", said.agreement, said.version));
    };
    if terms.dataset != *dataset {
        return Err(format!("{} is about {}", said.agreement, terms.dataset));
    }
    let clause = subscribe_clauses(view, &terms).find(|(_, t, _)| t.id == said.clause);
    let Some((handle, _, max_lag_ms)) = clause else {
        return Err(format!(
            "{} version {} has no clause {} that opens a feed",
            said.agreement, said.version, said.clause
        ));
    };
    if handle != said.handle || max_lag_ms != said.max_lag_ms {
        return Err(format!(
            "{}/{} has handle {handle} and bound {max_lag_ms} ms, not {} and {} ms",
            said.agreement, said.clause, said.handle, said.max_lag_ms
        ));
    }
    match view.status {
        Status::Active | Status::Superseded => Ok(()),
        other => Err(format!("{} version {} is {other}", said.agreement, said.version)),
    }
}

/// The clauses in force under which a feed of this dataset may be followed, as `AGR-2026-0143/F1`.
pub fn open_clauses(views: &[AgreementView], own: &AgencyId, dataset: &DatasetId) -> Vec<(String, String)> {
    let active = ours(views, own).filter(|(v, t)| v.status == Status::Active && t.dataset == *dataset);
    let named = |(v, t): (&AgreementView, Terms)| {
        let ids: Vec<_> = subscribe_clauses(v, &t).map(|(_, c, _)| (t.agreement.to_string(), c.id.clone())).collect();
        ids
    };
    active.flat_map(named).collect()
}

#[cfg(test)]
#[path = "terms_tests.rs"]
mod tests;
