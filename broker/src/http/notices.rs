//! `GET /v1/notices`: what people of this agency are told of, and whether they were.

use super::auth::OPERATOR;
use super::body::Params;
use super::openapi::Doc;
use super::{AppState, Caller, Problem};
use crate::host::notices::Notices as Overrides;
use crate::notices::{Outbox, Sources};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use utoipa::IntoParams;

/// Most notices of one answer.
const NOTICES_MAX: u32 = 1_000;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/v1/notices", get(notices))
}

pub(super) fn docs() -> Vec<Doc> {
    let what = "What people are told of: overrides at this provider, newest first; approvals that wait, what expires, reviews.";
    vec![Doc::new("get", "/v1/notices", what, OPERATOR).query::<Page>().gives(200, "The notices.", "notices:[obj]")]
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct Page {
    /// Only this kind: approval, expires, review, break-glass, write.
    kind: Option<String>,
    limit: Option<u32>,
}

async fn notices(
    State(state): State<AppState>,
    caller: Caller,
    Params(page): Params<Page>,
) -> Result<Json<Value>, Problem> {
    caller.require(&[OPERATOR])?;
    let limit = page.limit.unwrap_or(50).clamp(1, NOTICES_MAX);
    let overrides = Overrides::new(state.cfg.releases());
    let found = tokio::task::spawn_blocking(move || overrides.newest(limit)).await;
    let failed = |e: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "release-store", e);
    let found = found.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
    let mut list: Vec<Value> = found.iter().map(|n| n.to_json()).collect();
    list.extend(Sources::of(&state.cfg).current().await?.iter().map(|n| n.to_json()));
    list.retain(|n| page.kind.as_ref().is_none_or(|k| n["kind"] == k.as_str()));
    list.truncate(limit as usize);
    let mut told: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (id, channel, what) in Outbox::new(state.store.clone(), 0, 0).states().await? {
        told.entry(id).or_default().insert(channel, what);
    }
    for n in &mut list {
        let id = match (n["id"].as_str(), n["operation"].as_str()) {
            (Some(id), _) => id.to_owned(),
            (None, Some(op)) => format!("break-glass/{op}"),
            (None, None) => continue,
        };
        n["told"] = json!(told.get(&id).cloned().unwrap_or_default());
        n["id"] = id.into();
    }
    Ok(Json(json!({"notices": list})))
}
