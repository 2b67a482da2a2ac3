//! `/admin/v1/actors`: who stands behind a pseudonym, for oversight. Every look is kept with its reason.

use super::auth::{AUDITOR, DATA_PROTECTION};
use super::body::{self, Body, Params};
use super::openapi::Doc;
use super::pages::{Page, page};
use super::{AppState, Caller, Problem};
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use concordat_protocol::ids::AgencyId;
use rusqlite::params;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tracing::info;
use utoipa::ToSchema;

/// Table of the looks behind pseudonyms.
pub const TABLES: &str = "
CREATE TABLE IF NOT EXISTS actor_opening (
  id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, by TEXT NOT NULL, reason TEXT NOT NULL, pseudonym TEXT NOT NULL,
  provider TEXT NOT NULL, month TEXT NOT NULL, found INTEGER NOT NULL) STRICT;
";
/// Longest reason, bytes.
const REASON_MAX: usize = 500;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/admin/v1/actors/open", post(open)).route("/admin/v1/actors/openings", get(openings))
}

pub(super) fn docs() -> Vec<Doc> {
    let who = "auditor, data-protection";
    vec![
        Doc::new(
            "post",
            "/admin/v1/actors/open",
            "Who of this agency stands behind a pseudonym; the look is kept.",
            who,
        )
        .takes::<Opening>()
        .gives(200, "The person.", "name:str pseudonym:str provider:str month:str operations:[str]"),
        Doc::new("get", "/admin/v1/actors/openings", "Who looked behind pseudonyms, and why.", who)
            .query::<Page>()
            .gives(200, "A page, the newest first.", "openings:[obj] next_cursor:str?"),
    ]
}

/// A look behind a pseudonym.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Opening {
    /// `psn:...`
    pseudonym: String,
    /// The agency that was asked: towards each a person has another pseudonym.
    provider: String,
    /// `2026-11`, the month (UTC) of the operation.
    month: String,
    /// Why, for the record.
    reason: String,
}

async fn open(State(state): State<AppState>, caller: Caller, Body(bytes): Body) -> Result<Json<Value>, Problem> {
    caller.require(&[AUDITOR, DATA_PROTECTION])?;
    let asked: Opening = body::json(&bytes)?;
    let provider = AgencyId::new(&asked.provider).map_err(|e| Problem::bad_request(format!("provider: {e}")))?;
    if asked.reason.trim().is_empty() || asked.reason.len() > REASON_MAX {
        return Err(Problem::bad_request(format!("reason: 1 to {REASON_MAX} bytes, it is kept for the record")));
    }
    let of_provider = provider.to_string();
    let asking = "SELECT DISTINCT caller FROM query WHERE provider = ?1";
    let callers = state.store.run(move |db| {
        let mut found = db.prepare_cached(asking)?;
        found.query_map(params![of_provider], |r| r.get::<_, String>(0))?.collect::<rusqlite::Result<BTreeSet<_>>>()
    });
    let names = callers.await?.into_iter().chain(state.tokens.names().map(str::to_owned));
    let fits = |name: &String| state.actors.pseudonym(&provider, &asked.month, name) == asked.pseudonym;
    let name = names.into_iter().find(fits);
    let (by, found) = (caller.name.clone(), name.is_some());
    info!(by, provider = provider.as_str(), month = asked.month, found, "a look behind a pseudonym");
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let (who, of_provider, month) = (name.clone(), provider.to_string(), asked.month.clone());
    let (pseudonym, reason) = (asked.pseudonym.clone(), asked.reason);
    let operations = state.store.run(move |db| {
        let keep = "INSERT INTO actor_opening (at_ms, by, reason, pseudonym, provider, month, found)
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        db.execute(keep, params![now_ms, by, reason, pseudonym, of_provider, month, found])?;
        let mut ops = db.prepare_cached(
            "SELECT op FROM query WHERE provider = ?1 AND caller = ?2 AND op IS NOT NULL
             AND strftime('%Y-%m', at_ms / 1000, 'unixepoch') = ?3 ORDER BY op",
        )?;
        ops.query_map(params![of_provider, who, month], |r| r.get::<_, i64>(0))?.collect::<rusqlite::Result<Vec<_>>>()
    });
    let operations: Vec<String> = operations.await?.into_iter().map(|op| format!("op:{op}")).collect();
    let Some(name) = name else {
        let detail = format!("nobody of this agency had {} towards {provider} in {}", asked.pseudonym, asked.month);
        return Err(Problem::not_found("unknown-actor", detail).next("check provider and month: each has its own"));
    };
    Ok(Json(json!({"name": name, "pseudonym": asked.pseudonym, "provider": provider, "month": asked.month,
        "operations": operations})))
}

async fn openings(
    State(state): State<AppState>,
    caller: Caller,
    Params(asked): Params<Page>,
) -> Result<Json<Value>, Problem> {
    caller.require(&[AUDITOR, DATA_PROTECTION])?;
    let older = asked.older()?;
    let looks = state.store.run(move |db| {
        let mut kept = db.prepare_cached(
            "SELECT at_ms, by, reason, pseudonym, provider, month, found, id FROM actor_opening WHERE id < ?1
             ORDER BY id DESC LIMIT ?2",
        )?;
        let look = |r: &rusqlite::Row<'_>| {
            let word = |i| r.get::<_, String>(i);
            let look = json!({"at_ms": r.get::<_, i64>(0)?, "by": word(1)?, "reason": word(2)?, "pseudonym": word(3)?,
                "provider": word(4)?, "month": word(5)?, "found": r.get::<_, bool>(6)?});
            Ok((r.get::<_, i64>(7)?, look))
        };
        kept.query_map(params![older.than, older.most], look)?.collect::<rusqlite::Result<Vec<_>>>()
    });
    Ok(Json(page("openings", looks.await?, older)))
}
