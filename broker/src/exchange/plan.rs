//! What consumers there should be, given the agreements (pure).

use concordat_protocol::cbor;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::node::AgreementView;
use concordat_protocol::terms::{Action, Effect, Evidence, Status, Terms};
use std::collections::BTreeMap;

/// What should become of a subscription: (provider, consumer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Items are given out.
    Open {
        /// Who delivers.
        provider: AgencyId,
        /// Who receives.
        consumer: AgencyId,
    },
    /// Items stay, and none is given out.
    Paused {
        /// Who delivers.
        provider: AgencyId,
        /// Who receives.
        consumer: AgencyId,
    },
    /// Neither consumer nor items.
    Gone {
        /// Who delivers.
        provider: AgencyId,
        /// Who receives.
        consumer: AgencyId,
    },
}

impl Wanted {
    /// (provider, consumer)
    pub fn parties(&self) -> (&AgencyId, &AgencyId) {
        match self {
            Self::Open { provider, consumer }
            | Self::Paused { provider, consumer }
            | Self::Gone { provider, consumer } => (provider, consumer),
        }
    }
}

/// A clause that makes a feed: its handle is the number of the default subscription.
pub fn feed_clauses<'a>(
    view: &'a AgreementView,
    terms: &'a Terms,
) -> impl Iterator<Item = (u64, &'a concordat_protocol::terms::ClauseTerms, u64)> {
    view.handles.iter().zip(&terms.clauses).filter_map(|(handle, clause)| match clause.evidence {
        Evidence::Bounded { max_lag_ms }
            if clause.effect == Effect::Permit && clause.actions & Action::Subscribe.bit() != 0 =>
        {
            Some((*handle, clause, max_lag_ms))
        }
        _ => None,
    })
}

/// The state that counts for what was agreed under `view`: a superseded version stands as the newest one that was ever
/// in force stands, since what was delivered under it was delivered rightly and may still be fetched.
pub fn effective(view: &AgreementView, views: &[AgreementView]) -> Status {
    if view.status != Status::Superseded {
        return view.status;
    }
    let in_force = views.iter().filter(|v| v.agreement == view.agreement && !v.handles.is_empty());
    match in_force.max_by_key(|v| v.version).map(|v| v.status) {
        None | Some(Status::Superseded) => Status::Active,
        Some(status) => status,
    }
}

/// Why a consumer gets none, as a stable word and a sentence.
pub type Refusal = (&'static str, String);

/// Whether `asker` may follow `provider` under the clause with this handle, now.
pub fn may_open(views: &[AgreementView], handle: u64, provider: &AgencyId, asker: &AgencyId) -> Result<(), Refusal> {
    let unknown = || {
        (
            "no-agreement",
            format!("no clause with handle {handle} lets {asker} follow {provider}: see `agreement status`"),
        )
    };
    let (view, at) =
        views.iter().find_map(|v| Some((v, v.handles.iter().position(|h| *h == handle)?))).ok_or_else(unknown)?;
    let terms = cbor::decode::<Terms>(&view.terms).map_err(|_| unknown())?;
    let clause = terms.clauses.get(at).ok_or_else(unknown)?;
    let theirs = terms.assigner == *provider && terms.assignee.as_ref().is_none_or(|a| a == asker);
    if !theirs || clause.effect != Effect::Permit || clause.actions & Action::Subscribe.bit() == 0 {
        return Err(unknown());
    }
    match effective(view, views) {
        Status::Active => Ok(()),
        status => Err(("not-active", format!("{} is {}: nothing of it is handed on", view.agreement, word(status)))),
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Proposed => "proposed",
        Status::Active => "active",
        Status::Suspended => "suspended",
        Status::Superseded => "superseded",
        Status::Revoked => "revoked",
        Status::Rejected => "rejected",
    }
}

/// What should become of a subscription that `consumer` opened under a handle. One whose agreement is not known here waits.
pub fn created(views: &[AgreementView], handle: u64, provider: &AgencyId, consumer: &AgencyId) -> Wanted {
    let (provider, consumer) = (provider.clone(), consumer.clone());
    match views.iter().find(|v| v.handles.contains(&handle)).map(|v| effective(v, views)) {
        Some(Status::Active) => Wanted::Open { provider, consumer },
        Some(Status::Revoked) => Wanted::Gone { provider, consumer },
        _ => Wanted::Paused { provider, consumer },
    }
}

/// What there should be, by the ledger's handle. Agreements of agencies that are not served here are passed over.
pub fn plan(views: &[AgreementView], agencies: &[AgencyId]) -> BTreeMap<u64, Wanted> {
    let mut out = BTreeMap::new();
    for view in views {
        let Ok(terms) = cbor::decode::<Terms>(&view.terms) else { continue };
        let (provider, Some(consumer)) = (terms.assigner.clone(), terms.assignee.clone()) else { continue };
        if !agencies.contains(&provider) || !agencies.contains(&consumer) {
            continue;
        }
        for (handle, _, _) in feed_clauses(view, &terms) {
            let (provider, consumer) = (provider.clone(), consumer.clone());
            let wanted = match effective(view, views) {
                Status::Active | Status::Superseded => Wanted::Open { provider, consumer },
                Status::Suspended => Wanted::Paused { provider, consumer },
                Status::Revoked => Wanted::Gone { provider, consumer },
                Status::Proposed | Status::Rejected => continue,
            };
            out.insert(handle, wanted);
        }
    }
    out
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;
    use concordat_protocol::hash::Hash;
    use concordat_protocol::ids::{AgreementId, DatasetId};
    use concordat_protocol::terms::{ClauseTerms, purpose_hash};

    pub fn agency(name: &str) -> AgencyId {
        AgencyId::new(name).unwrap()
    }

    /// An agreement grid -> transport with one feed clause and one query clause.
    pub fn view(status: Status, handles: Vec<u64>) -> AgreementView {
        let zero: Hash = [0; 32];
        let clause = |id: &str, actions, evidence| ClauseTerms {
            id: id.into(),
            effect: Effect::Permit,
            actions,
            purpose: purpose_hash("purp:grid-dispatch"),
            evidence,
            from_ms: 1,
            until_ms: u64::MAX,
            quota: None,
            review_ms: 0,
        };
        let terms = Terms {
            agreement: AgreementId::new("AGR-2026-0143").unwrap(),
            version: 1,
            assigner: agency("grid"),
            assignee: Some(agency("transport")),
            dataset: DatasetId::new("ds:grid/load@1").unwrap(),
            assigner_roles: vec![],
            assignee_roles: vec![],
            clauses: vec![
                clause("F1", Action::Subscribe.bit(), Evidence::Bounded { max_lag_ms: 2_000 }),
                clause("C1", Action::Query.bit(), Evidence::Strict {}),
            ],
            yaml_hash: zero,
            rows_hash: zero,
            text_hash: zero,
            paper_hashes: vec![],
            compiler_version: 1,
        };
        AgreementView {
            agreement: terms.agreement.clone(),
            version: 1,
            revision: 1,
            status,
            terms_hash: terms.hash(),
            terms: cbor::encode(&terms).into(),
            expires_ms: 0,
            approvals: vec![],
            handles,
            bounded_suspended: 0,
        }
    }

    #[test]
    fn each_state_of_an_agreement_has_its_consequence() {
        let all = [agency("grid"), agency("transport")];
        let of = |status| plan(&[view(status, vec![17, 18])], &all);
        let (provider, consumer) = (agency("grid"), agency("transport"));
        let one = |w| BTreeMap::from([(17, w)]);
        assert_eq!(of(Status::Active), one(Wanted::Open { provider: provider.clone(), consumer: consumer.clone() }));
        assert_eq!(
            of(Status::Suspended),
            one(Wanted::Paused { provider: provider.clone(), consumer: consumer.clone() })
        );
        assert_eq!(of(Status::Revoked), one(Wanted::Gone { provider, consumer }));
        assert!(of(Status::Rejected).is_empty());
        assert!(plan(&[view(Status::Proposed, vec![])], &all).is_empty());
        assert!(plan(&[view(Status::Active, vec![17, 18])], &[agency("grid")]).is_empty(), "not served here");
    }

    #[test]
    fn a_superseded_version_stands_as_the_newest_in_force_stands() {
        let all = [agency("grid"), agency("transport")];
        let (provider, consumer) = (agency("grid"), agency("transport"));
        let version = |version, status, handles| AgreementView { version, ..view(status, handles) };
        let old = || version(1, Status::Superseded, vec![17, 18]);
        let of = |newer: AgreementView| created(&[old(), newer], 17, &provider, &consumer);
        assert!(matches!(of(version(2, Status::Active, vec![21, 22])), Wanted::Open { .. }));
        assert!(matches!(of(version(2, Status::Suspended, vec![21, 22])), Wanted::Paused { .. }));
        assert!(matches!(of(version(2, Status::Revoked, vec![21, 22])), Wanted::Gone { .. }));
        // A proposal that was withdrawn was never in force.
        assert!(matches!(of(version(2, Status::Revoked, vec![])), Wanted::Open { .. }));
        assert!(matches!(created(&[], 17, &provider, &consumer), Wanted::Paused { .. }), "not known here");
        let both = plan(&[old(), version(2, Status::Revoked, vec![21, 22])], &all);
        assert!(both.values().all(|w| matches!(w, Wanted::Gone { .. })) && both.len() == 2, "{both:?}");
    }

    #[test]
    fn only_the_parties_of_a_subscribe_clause_in_force_may_open() {
        let (grid, transport, court) = (agency("grid"), agency("transport"), agency("court"));
        let views = [view(Status::Active, vec![17, 18])];
        let code = |views: &[AgreementView], handle, provider, asker| {
            may_open(views, handle, provider, asker).err().map(|e| e.0)
        };
        assert_eq!(code(&views, 17, &grid, &transport), None);
        assert_eq!(code(&views, 17, &grid, &court), Some("no-agreement"), "another's agreement");
        assert_eq!(code(&views, 17, &court, &transport), Some("no-agreement"), "another provider");
        assert_eq!(code(&views, 18, &grid, &transport), Some("no-agreement"), "a query clause");
        assert_eq!(code(&views, 99, &grid, &transport), Some("no-agreement"));
        for status in [Status::Suspended, Status::Revoked, Status::Proposed, Status::Rejected] {
            assert_eq!(code(&[view(status, vec![17, 18])], 17, &grid, &transport), Some("not-active"), "{status:?}");
        }
        let mut public = view(Status::Active, vec![17, 18]);
        let mut terms: Terms = cbor::decode(&public.terms).unwrap();
        terms.assignee = None;
        public.terms = cbor::encode(&terms).into();
        assert_eq!(code(&[public], 17, &grid, &court), None, "public");
    }
}
