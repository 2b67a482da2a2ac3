//! `GET /v1/catalogue/datasets`: what the ledger knows of datasets.

use super::{AppState, Caller, Problem};
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/v1/catalogue/datasets", get(datasets))
}

async fn datasets(State(state): State<AppState>, caller: Caller) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    let all = state.node.datasets().await?;
    let list = all.iter().map(|d| {
        json!({
            "dataset": d.id,
            "number": d.number,
            "owner": d.id.owner(),
            "schema_sha256": hex::encode(d.schema_hash),
            "head": d.head,
        })
    });
    Ok(Json(json!({"datasets": list.collect::<Vec<_>>()})))
}
