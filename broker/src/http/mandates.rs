//! `/admin/v1/subjects/mandates`: a clerk registers who represents whom. `/admin/v1/subjects/looks`: what citizens and their
//! representatives looked at.

use super::auth::{AUDITOR, DATA_PROTECTION, OPERATOR};
use super::body::{self, Body, Params};
use super::me::{hidden_holder, hidden_subject, now_ms};
use super::openapi::Doc;
use super::pages::{Page, page};
use super::subjects::dataset_of;
use super::{AppState, Caller, Problem};
use crate::people::mandates::{self, Mandate};
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;
use utoipa::ToSchema;

/// Longest id of a person or of a holder, bytes.
const ID_BYTES_MAX: usize = 255;
/// Longest life of a mandate: then the clerk sees the document again.
const YEARS_MAX: i64 = 5;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/admin/v1/subjects/mandates", get(list).post(add))
        .route("/admin/v1/subjects/mandates/revoke", post(revoke))
        .route("/admin/v1/subjects/looks", get(looks))
}

pub(super) fn docs() -> Vec<Doc> {
    let who = "data-protection, operator";
    let path = "/admin/v1/subjects/mandates";
    vec![
        Doc::new("post", path, "Registers who represents a person; ids are kept as keyed hashes.", who)
            .takes::<Given>()
            .gives(200, "The mandate.", "mandate:str until:str"),
        Doc::new("get", path, "Mandates, without the persons.", "data-protection, operator, auditor")
            .query::<Page>()
            .gives(200, "A page, the newest first.", "mandates:[obj] next_cursor:str?"),
        Doc::new("post", "/admin/v1/subjects/mandates/revoke", "Ends a mandate at once.", who).takes::<Ended>().gives(
            200,
            "It ended.",
            "mandate:str revoked:bool",
        ),
        Doc::new(
            "get",
            "/admin/v1/subjects/looks",
            "What citizens and representatives looked at.",
            "data-protection, operator, auditor",
        )
        .query::<Page>()
        .gives(200, "A page, the newest first.", "looks:[obj] next_cursor:str?"),
    ]
}

/// A mandate that a clerk saw.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Given {
    dataset: String,
    /// The represented person's id in that dataset.
    subject: String,
    /// The representative: their `sub` at the citizens' issuer.
    holder: String,
    /// `2027-01-31`, the last day (UTC).
    until: String,
    /// SHA-256 of the document, in hex.
    #[serde(default)]
    document_sha256: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Ended {
    mandate: String,
}

/// First moment after the last day of a mandate.
fn end_of(day: &str, now_ms: i64) -> Result<i64, String> {
    let day: Date = day.parse().map_err(|_| "until: a day like 2027-01-31")?;
    let end = day.tomorrow().and_then(|d| d.to_zoned(TimeZone::UTC)).map_err(|_| "until: a day like 2027-01-31")?;
    let end = end.timestamp().as_millisecond();
    let longest = now_ms.saturating_add(YEARS_MAX * 366 * 86_400_000);
    if end <= now_ms || end > longest {
        return Err(format!("until: a day from today on, at most {YEARS_MAX} years away"));
    }
    Ok(end)
}

async fn add(State(state): State<AppState>, caller: Caller, Body(bytes): Body) -> Result<Json<Value>, Problem> {
    caller.require(&[DATA_PROTECTION, OPERATOR])?;
    let asked: Given = body::json(&bytes)?;
    let dataset = dataset_of(&state, &asked.dataset)?;
    let Some(citizens) = state.citizens.as_ref().filter(|c| c.cfg.has(&dataset)) else {
        let detail = format!("citizens cannot ask about {dataset} here");
        return Err(Problem::not_found("no-citizens", detail).next("name it under `citizens` in node.yaml"));
    };
    for (name, value) in [("subject", &asked.subject), ("holder", &asked.holder)] {
        if value.is_empty() || value.len() > ID_BYTES_MAX {
            return Err(Problem::bad_request(format!("{name}: 1 to {ID_BYTES_MAX} bytes")));
        }
    }
    let hash = |h: &String| h.len() == 64 && h.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !asked.document_sha256.as_ref().is_none_or(hash) {
        return Err(Problem::bad_request("document_sha256: 64 digits of hex"));
    }
    let now = now_ms();
    let until_ms = end_of(&asked.until, now).map_err(Problem::bad_request)?;
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|e| Problem::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "internal", e.to_string()))?;
    let mandate = Mandate {
        id: format!("mnd-{}", hex::encode(random)),
        dataset: dataset.to_string(),
        subject: hidden_subject(&state, &dataset, &asked.subject),
        holder: hidden_holder(&state, &citizens.cfg.issuer, &asked.holder),
        until_ms,
        document: asked.document_sha256,
        by: caller.name.clone(),
    };
    let id = mandate.id.clone();
    state.store.run(move |db| mandates::add(db, &mandate, now)).await?;
    info!(mandate = id, %dataset, by = caller.name, "a mandate was registered");
    Ok(Json(json!({"mandate": id, "until": asked.until})))
}

async fn revoke(State(state): State<AppState>, caller: Caller, Body(bytes): Body) -> Result<Json<Value>, Problem> {
    caller.require(&[DATA_PROTECTION, OPERATOR])?;
    let Ended { mandate } = body::json(&bytes)?;
    let (id, by, now) = (mandate.clone(), caller.name.clone(), now_ms());
    if !state.store.run(move |db| mandates::revoke(db, &id, &by, now)).await? {
        return Err(Problem::not_found("unknown-mandate", "no mandate of this name runs: see `subject mandate list`"));
    }
    info!(mandate, by = caller.name, "a mandate was revoked");
    Ok(Json(json!({"mandate": mandate, "revoked": true})))
}

async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Params(asked): Params<Page>,
) -> Result<Json<Value>, Problem> {
    caller.require(&[DATA_PROTECTION, OPERATOR, AUDITOR])?;
    let now = now_ms();
    let older = asked.older()?;
    Ok(Json(page("mandates", state.store.run(move |db| mandates::list(db, now, older)).await?, older)))
}

async fn looks(
    State(state): State<AppState>,
    caller: Caller,
    Params(asked): Params<Page>,
) -> Result<Json<Value>, Problem> {
    caller.require(&[DATA_PROTECTION, OPERATOR, AUDITOR])?;
    let older = asked.older()?;
    Ok(Json(page("looks", state.store.run(move |db| mandates::looks(db, older)).await?, older)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mandate_runs_through_its_last_day() {
        let now = "2026-11-23T10:00:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond();
        let end = |day: &str| end_of(day, now);
        let midnight = "2026-11-24T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond();
        assert_eq!(end("2026-11-23"), Ok(midnight));
        for bad in ["2026-11-22", "2040-01-01", "2026-13-01", "tomorrow", "", "9999-12-31"] {
            assert!(end(bad).is_err(), "{bad}");
        }
    }
}
