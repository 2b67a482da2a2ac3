//! `GET /v1/role-maps/{agency}`: which role maps an agency recorded on the ledger. `GET /admin/v1/role-map`: the one this
//! broker uses.

use super::auth::{AUDITOR, OPERATOR};
use super::openapi::{Doc, PEOPLE};
use super::{AppState, Caller, Problem};
use crate::people::recorded;
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use concordat_protocol::ids::{AgencyId, OpRef};
use concordat_protocol::node::RoleMapView;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/v1/role-maps/{agency}", get(of_agency)).route("/admin/v1/role-map", get(own))
}

pub(super) fn docs() -> Vec<Doc> {
    vec![
        Doc::new("get", "/v1/role-maps/{agency}", "The role maps that an agency recorded on the ledger.", PEOPLE)
            .gives(200, "By number; the last one is in force.", "agency:str role_maps:[obj]"),
        Doc::new(
            "get",
            "/admin/v1/role-map",
            "The role map in use, and whether the ledger names it.",
            "operator, auditor",
        )
        .gives(200, "The map.", "agency:str file:str sha256:str in_force:bool recorded:obj? why:str?"),
    ]
}

/// A recorded role map as JSON.
pub(super) fn map_json(m: &RoleMapView) -> Value {
    json!({
        "number": m.number,
        "sha256": hex::encode(m.sha256),
        "operation": OpRef(m.index).to_string(),
        "height": m.height,
        "since": jiff::Timestamp::from_millisecond(m.tick_ms as i64).map(|t| t.to_string()).ok(),
    })
}

async fn of_agency(
    State(state): State<AppState>,
    caller: Caller,
    Path(agency): Path<String>,
) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    let agency = AgencyId::new(&agency).map_err(|e| Problem::bad_request(format!("agency: {e}")))?;
    let maps = state.watch.role_maps(&agency).await?;
    Ok(Json(json!({"agency": agency, "role_maps": maps.iter().map(map_json).collect::<Vec<_>>()})))
}

async fn own(State(state): State<AppState>, caller: Caller) -> Result<Json<Value>, Problem> {
    caller.require(&[OPERATOR, AUDITOR])?;
    let (Some(issuer), Some(oidc)) = (&state.issuer, &state.cfg.oidc) else {
        let detail = "no people sign in here: node.yaml has no `oidc`";
        return Err(Problem::not_found("no-role-map", detail));
    };
    let map = issuer.role_map();
    let newest = state.watch.role_maps(&state.cfg.agency).await?.last().map(map_json);
    let why = recorded::in_force(&state.watch, &state.cfg.agency, map.sha256()).await.err().map(|e| e.to_string());
    Ok(Json(json!({
        "agency": state.cfg.agency,
        "file": oidc.role_map,
        "sha256": map.sha256(),
        "in_force": why.is_none(),
        "recorded": newest,
        "why": why,
    })))
}
