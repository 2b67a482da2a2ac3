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
            let wanted = match view.status {
                // What was delivered under a superseded version was delivered rightly and may still be fetched.
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
}
