//! `GET /v1/agreements[/{id}]`: agreements as the ledger has them, with their sentences where this agency's folder
//! holds the very document that was approved.

use super::openapi::{Doc, PEOPLE};
use super::{AppState, Caller, Problem};
use crate::host::policy::{Documents, load_documents};
use crate::host::renewal::{self, Enforced, RenewalError};
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use concordat_executor::policies::compile::Compiled;
use concordat_protocol::acts::ApprovalKind;
use concordat_protocol::cbor;
use concordat_protocol::hash::Hash;
use concordat_protocol::node::{AgreementView, replaced_terms};
use concordat_protocol::terms::{Action, ClauseTerms, Evidence, Status, Terms};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/v1/agreements", get(list)).route("/v1/agreements/{id}", get(show))
}

pub(super) fn docs() -> Vec<Doc> {
    vec![
        Doc::new("get", "/v1/agreements", "Every version of every agreement on the ledger.", PEOPLE).gives(
            200,
            "The agreements.",
            "agreements:[@Agreement]",
        ),
        Doc::new("get", "/v1/agreements/{id}", "The versions of one agreement, the newest first.", PEOPLE).gives(
            200,
            "The agreement.",
            "agreement:str newest:@Agreement versions:[@Agreement]",
        ),
    ]
}

/// Sentences of clauses by terms hash and clause id.
type Sentences = BTreeMap<Hash, BTreeMap<String, String>>;

/// Sentences of the documents of this agency's folder.
fn sentences(documents: &Documents) -> Sentences {
    let of = |c: &Compiled| c.document.clauses.iter().map(|k| (k.id.clone(), k.text.clone())).collect();
    documents.iter().map(|(hash, c)| (*hash, of(c))).collect()
}

fn evidence(e: &Evidence) -> Value {
    match e {
        Evidence::None {} => json!("none"),
        Evidence::Strict {} => json!("strict"),
        Evidence::Bounded { max_lag_ms } => json!({"bounded": {"max_lag_ms": max_lag_ms}}),
    }
}

const ACTIONS: [Action; 5] = [Action::Query, Action::Subscribe, Action::Insert, Action::Modify, Action::Delete];

/// What a clause speaks of, in words.
pub(super) fn actions(c: &ClauseTerms) -> Vec<&'static str> {
    ACTIONS.iter().filter(|a| c.actions & a.bit() != 0).map(|a| a.word()).collect()
}

/// The approval that a version can get next. One whose bounded evidence was suspended is resumed first.
fn next_approval(v: &AgreementView) -> ApprovalKind {
    match v.status {
        Status::Suspended => ApprovalKind::Resume,
        Status::Active if v.bounded_suspended != 0 => ApprovalKind::Resume,
        Status::Active => ApprovalKind::Renew,
        _ => ApprovalKind::Activate,
    }
}

/// Why the newest renewal of a version is not applied here, if it is not: it changes more than dates and papers.
fn refused_renewal(v: &AgreementView, enforced: &Enforced, documents: &Documents) -> Option<String> {
    let known = enforced.get(&(v.agreement.clone(), v.version));
    let chosen = (v.status == Status::Active).then(|| renewal::choose(known, v, documents))?;
    chosen.refused.filter(|e| matches!(e, RenewalError::Beyond(_))).map(|e| e.to_string())
}

fn view_json(v: &AgreementView, all: &[AgreementView], known: &Sentences) -> Result<Value, Problem> {
    let terms: Terms = cbor::decode(&v.terms)
        .map_err(|e| crate::ledger::LedgerError::Protocol(format!("terms of {}: {e}", v.agreement)))?;
    let texts = known.get(&v.terms_hash);
    let clauses = terms.clauses.iter().enumerate().map(|(i, c)| {
        json!({
            "id": c.id,
            "text": texts.and_then(|t| t.get(&c.id)),
            "effect": c.effect.word(),
            "actions": actions(c),
            "evidence": evidence(&c.evidence),
            "from_ms": c.from_ms,
            "until_ms": c.until_ms,
            "handle": v.handles.get(i),
            "quota": c.quota.as_ref().map(|q| json!({
                "max": q.max, "per": q.per.word(), "by": q.by.word(), "unit": q.unit.word()})),
            "review_ms": c.review_ms,
        })
    });
    let approvals = v
        .approvals
        .iter()
        .map(|a| json!({"agency": a.agency, "role": a.role, "key_id": a.key_id.to_string(), "what": a.what.word()}));
    Ok(json!({
        "agreement": v.agreement,
        "version": v.version,
        "revision": v.revision,
        "status": v.status.word(),
        "assigner": terms.assigner,
        "assignee": terms.assignee,
        "dataset": terms.dataset,
        "assigner_roles": terms.assigner_roles,
        "assignee_roles": terms.assignee_roles,
        "terms_hash": hex::encode(v.terms_hash),
        "prev_terms_hash": hex::encode(replaced_terms(all, &v.agreement, v.version, next_approval(v))),
        "terms": hex::encode(&v.terms.0),
        "proposal_expires_ms": v.expires_ms,
        "bounded_suspended": v.bounded_suspended != 0,
        "approvals": approvals.collect::<Vec<_>>(),
        "clauses": clauses.collect::<Vec<_>>(),
    }))
}

async fn all(state: &AppState, id: Option<&str>) -> Result<Vec<Value>, Problem> {
    let views = state.node.agreements().await?;
    let dir = state.cfg.dir.clone();
    let read = move || {
        let documents = load_documents(&dir);
        (sentences(&documents), documents, renewal::load(&dir).unwrap_or_default())
    };
    let (known, documents, enforced) = tokio::task::spawn_blocking(read).await.unwrap_or_default();
    let one = |v: &AgreementView| {
        let mut json = view_json(v, &views, &known)?;
        json["renewal_refused"] = refused_renewal(v, &enforced, &documents).into();
        Ok(json)
    };
    views.iter().filter(|v| id.is_none_or(|id| v.agreement.as_str() == id)).map(one).collect()
}

async fn list(State(state): State<AppState>, caller: Caller) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    Ok(Json(json!({"agreements": all(&state, None).await?})))
}

async fn show(State(state): State<AppState>, caller: Caller, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    let mut versions = all(&state, Some(&id)).await?;
    versions.sort_by_key(|v| std::cmp::Reverse(v["version"].as_u64()));
    let unknown = || Problem::not_found("unknown-agreement", format!("{id} is not on the ledger"));
    let newest = versions.first().cloned().ok_or_else(unknown)?;
    Ok(Json(json!({"agreement": id, "newest": newest, "versions": versions})))
}
