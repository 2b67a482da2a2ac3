//! Agreements of the test city.

use concordat_protocol::acts::KeyRole;
use concordat_protocol::ids::{AgreementId, DatasetId};
use concordat_protocol::terms::{Action, ClauseTerms, Effect, Evidence, Terms};

use super::kit::{DAY, KEYS, START, agency};

/// Who has to approve terms: (agency, key name).
pub fn approvers(terms: &Terms) -> Vec<(String, &'static str)> {
    let name = |role: &String| KEYS.iter().find(|k| k.1 == KeyRole::Approver && k.2 == role).unwrap().0;
    let assigner = terms.assigner_roles.iter().map(|r| (terms.assigner.to_string(), name(r)));
    let assignee =
        terms.assignee.iter().flat_map(|a| terms.assignee_roles.iter().map(move |r| (a.to_string(), name(r))));
    assigner.chain(assignee).collect()
}

/// An active agreement of the test city.
pub struct Agreement {
    /// Handles by clause: C1 query, Q1 query with a quota, F1 feed (bounded), W1 write, B1 break-glass, X1 prohibition.
    pub handles: Vec<u64>,
    pub session: u64,
}

pub fn clause(id: &str, effect: Effect, actions: u64, evidence: Evidence) -> ClauseTerms {
    ClauseTerms {
        id: id.into(),
        effect,
        actions,
        purpose: [5; 32],
        evidence,
        from_ms: START,
        until_ms: START + 300 * DAY,
        quota: None,
        review_ms: 0,
    }
}

/// Terms police -> court on `ds:police/stops@1`.
pub fn terms(id: &str, version: u64) -> Terms {
    use concordat_protocol::terms::{Per, Quota, QuotaBy, QuotaUnit};
    let bounded = || Evidence::Bounded { max_lag_ms: 10_000 };
    let mut q1 = clause("Q1", Effect::Permit, Action::Query.bit(), Evidence::Strict {});
    q1.quota = Some(Quota { max: 2, per: Per::Day, by: QuotaBy::Agreement, unit: QuotaUnit::Operations });
    let mut b1 = clause("B1", Effect::BreakGlass, Action::Query.bit(), bounded());
    b1.review_ms = DAY;
    Terms {
        agreement: AgreementId::new(id).unwrap(),
        version,
        assigner: agency("police"),
        assignee: Some(agency("court")),
        dataset: DatasetId::new("ds:police/stops@1").unwrap(),
        assigner_roles: vec!["data-steward".into(), "legal".into()],
        assignee_roles: vec!["legal".into()],
        clauses: vec![
            clause("C1", Effect::Permit, Action::Query.bit(), Evidence::Strict {}),
            q1,
            clause("F1", Effect::Permit, Action::Subscribe.bit(), bounded()),
            clause("W1", Effect::Permit, Action::Insert.bit() | Action::Modify.bit(), Evidence::Strict {}),
            b1,
            clause("X1", Effect::Prohibit, Action::Query.bit(), Evidence::Strict {}),
        ],
        yaml_hash: [1; 32],
        rows_hash: [2; 32],
        text_hash: [3; 32],
        paper_hashes: vec![],
        compiler_version: 1,
    }
}
