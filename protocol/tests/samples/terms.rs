//! Compiled agreements.

use super::{Sample, TICK, h, id, sample};
use concordat_protocol::hash::Hash;
use concordat_protocol::terms::{
    Action, ClauseTerms, Effect, Evidence, Per, Quota, QuotaBy, QuotaUnit, Terms, purpose_hash,
};

const DAY_MS: u64 = 86_400_000;
/// Purposes with their hashes in the vectors.
pub const PURPOSES: [&str; 3] = ["purp:pending-case", "purp:grid-balance", "purp:open-data"];

fn clause(id: &str, effect: Effect, actions: &[Action], purpose: Hash, evidence: Evidence) -> ClauseTerms {
    ClauseTerms {
        id: id.to_owned(),
        effect,
        actions: actions.iter().map(|a| a.bit()).sum(),
        purpose,
        evidence,
        from_ms: TICK - DAY_MS,
        until_ms: TICK + 365 * DAY_MS,
        quota: None,
        review_ms: 0,
    }
}

/// Between two agencies, with all effects.
pub fn query() -> Sample<Terms> {
    let strict = || Evidence::Strict {};
    let pending = purpose_hash(PURPOSES[0]);
    let quota = Quota { max: 500, per: Per::Day, by: QuotaBy::Agreement, unit: QuotaUnit::Operations };
    let clauses = vec![
        ClauseTerms { quota: Some(quota), ..clause("C1", Effect::Permit, &[Action::Query], pending, strict()) },
        clause("C2", Effect::Prohibit, &[Action::Insert, Action::Modify, Action::Delete], [0; 32], Evidence::None {}),
        ClauseTerms { review_ms: 3 * DAY_MS, ..clause("C3", Effect::BreakGlass, &[Action::Query], pending, strict()) },
    ];
    sample!(Terms {
        agreement: id("AGR-2026-0142"),
        version: 1,
        assigner: id("police"),
        assignee: Some(id("court")),
        dataset: id("ds:police/stops@1"),
        assigner_roles: vec!["data-protection".to_owned(), "records".to_owned()],
        assignee_roles: vec!["registrar".to_owned()],
        clauses,
        yaml_hash: h(20),
        rows_hash: h(21),
        text_hash: h(22),
        paper_hashes: vec![h(23), h(24)],
        compiler_version: 1,
    })
}

/// A feed under bounded evidence.
pub fn feed() -> Sample<Terms> {
    let evidence = Evidence::Bounded { max_lag_ms: 60_000 };
    let quota = Quota { max: 10_000, per: Per::Hour, by: QuotaBy::Session, unit: QuotaUnit::Operations };
    let follow = clause("C1", Effect::Permit, &[Action::Subscribe], purpose_hash(PURPOSES[1]), evidence);
    sample!(Terms {
        agreement: id("AGR-2026-0143"),
        version: 2,
        assigner: id("grid"),
        assignee: Some(id("transport")),
        dataset: id("ds:grid/load@1"),
        assigner_roles: vec!["operations".to_owned()],
        assignee_roles: vec!["traffic".to_owned()],
        clauses: vec![ClauseTerms { quota: Some(quota), ..follow }],
        yaml_hash: h(25),
        rows_hash: h(26),
        text_hash: h(27),
        paper_hashes: vec![],
        compiler_version: 1,
    })
}

/// Public data.
pub fn public() -> Sample<Terms> {
    sample!(Terms {
        agreement: id("AGR-2026-0001"),
        version: 1,
        assigner: id("transport"),
        assignee: None,
        dataset: id("ds:transport/i94@1"),
        assigner_roles: vec!["publisher".to_owned()],
        assignee_roles: vec![],
        clauses: vec![clause("C1", Effect::Permit, &[Action::Query, Action::Subscribe], [0; 32], Evidence::None {})],
        yaml_hash: h(28),
        rows_hash: h(29),
        text_hash: h(30),
        paper_hashes: vec![],
        compiler_version: 1,
    })
}

/// All of them.
pub fn all() -> Vec<Sample<Terms>> {
    vec![query(), feed(), public()]
}
