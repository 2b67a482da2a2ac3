//! What a document's table must be by itself (PROTOCOL 6).

use std::collections::BTreeSet;

use concordat_protocol::codes;
use concordat_protocol::limits::CLAUSES_MAX;
use concordat_protocol::terms::{Action, ClauseTerms, Effect, Evidence, QuotaUnit, Terms};

use super::governance::{LABEL_MAX, roles_fit};

const ACTIONS: u64 = Action::Query as u64
    | Action::Subscribe as u64
    | Action::Insert as u64
    | Action::Modify as u64
    | Action::Delete as u64;

fn clause_fits(clause: &ClauseTerms, public: bool) -> Result<(), u16> {
    if matches!(clause.quota, Some(ref q) if q.unit == QuotaUnit::Records) {
        return Err(codes::NOT_ENABLED); // counts in clear come with a later application version
    }
    let fits = (1..=LABEL_MAX).contains(&clause.id.len())
        && !clause.id.contains('/')
        && clause.actions != 0
        && clause.actions & !ACTIONS == 0
        && clause.from_ms < clause.until_ms
        && clause.quota.as_ref().is_none_or(|q| q.max > 0)
        // A prohibition releases nothing, so it names no evidence.
        && (clause.effect == Effect::Prohibit || matches!(clause.evidence, Evidence::None {}) == public);
    if fits { Ok(()) } else { Err(codes::BAD_VALUE) }
}

/// The rules a document's table keeps by itself.
pub(super) fn terms_fit(terms: &Terms) -> Result<(), u16> {
    if terms.clauses.len() > CLAUSES_MAX {
        return Err(codes::TOO_LARGE);
    }
    let public = terms.assignee.is_none();
    let ids: BTreeSet<&String> = terms.clauses.iter().map(|c| &c.id).collect();
    let fits = terms.version >= 1
        && terms.dataset.owner() == terms.assigner
        && terms.assignee.as_ref() != Some(&terms.assigner)
        && !terms.clauses.is_empty()
        && ids.len() == terms.clauses.len()
        && roles_fit(&terms.assigner_roles)
        && roles_fit(&terms.assignee_roles)
        && !terms.assigner_roles.is_empty()
        && terms.assignee_roles.is_empty() == public;
    if !fits {
        return Err(codes::BAD_VALUE);
    }
    terms.clauses.iter().try_for_each(|c| clause_fits(c, public))
}

/// Whether two tables differ in nothing but dates and the hashes of their texts.
pub(super) fn same_but_dates(old: &Terms, new: &Terms) -> bool {
    let mut dated = new.clone();
    (dated.yaml_hash, dated.rows_hash, dated.text_hash) = (old.yaml_hash, old.rows_hash, old.text_hash);
    dated.paper_hashes.clone_from(&old.paper_hashes);
    dated.compiler_version = old.compiler_version;
    for (d, o) in dated.clauses.iter_mut().zip(&old.clauses) {
        (d.from_ms, d.until_ms) = (o.from_ms, o.until_ms);
    }
    dated == *old
}
