//! `/v1/ledger/timestamps`: time-stamps of checkpoints; `/v1/log`: the exported log, for anybody.

use super::timestamp::{Kept, TimeStamps, TimestampError};
use super::tsp;
use crate::http::auth::OPERATOR;
use crate::http::body::{Body, json as read};
use crate::http::openapi::{ANYBODY, Doc, PEOPLE};
use crate::http::{AppState, Caller, Problem, Side};
use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use concordat_protocol::c2sp::TileId;
use concordat_protocol::cbor;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use utoipa::ToSchema;

/// Folder of the exported log in the node's folder; from there it is served.
pub const LOG_DIR: &str = "broker/log";
/// Time-stamps in one list.
const LIST: u32 = 100;

/// The resources.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/v1/ledger/timestamps", get(list).post(stamp))
        .route("/v1/ledger/timestamps/{id}", get(one))
        .route("/v1/log/checkpoint", get(checkpoint))
        .route("/v1/log/{*tile}", get(tile))
}

pub(crate) fn docs() -> Vec<Doc> {
    vec![
        Doc::new("get", "/v1/ledger/timestamps", "Time-stamps of checkpoints, judged again.", PEOPLE).gives(
            200,
            "The newest.",
            "timestamps:[@Stamp]",
        ),
        Doc::new("post", "/v1/ledger/timestamps", "Has the newest checkpoint stamped (RFC 3161).", OPERATOR)
            .takes::<Ask>()
            .gives(200, "The time-stamp.", "@Stamp"),
        Doc::new("get", "/v1/ledger/timestamps/{id}", "One time-stamp with its token.", PEOPLE).gives(
            200,
            "The time-stamp.",
            "@Stamp",
        ),
        Doc::new("get", "/v1/log/checkpoint", "The exported log's signed note.", ANYBODY).gives_bytes(
            200,
            "The note.",
            "text/plain",
        ),
        Doc::new("get", "/v1/log/{*tile}", "A tile of the exported log.", ANYBODY).gives_bytes(
            200,
            "The tile.",
            "application/octet-stream",
        ),
    ]
}

impl From<TimestampError> for Problem {
    fn from(e: TimestampError) -> Self {
        let (code, detail) = (e.code(), e.to_string());
        let problem = |status| Self::new(status, code, detail.clone());
        match e {
            TimestampError::Ledger(e) => e.into(),
            TimestampError::Store(e) => e.into(),
            TimestampError::Url(_) => problem(StatusCode::UNPROCESSABLE_ENTITY),
            TimestampError::NoCheckpoint | TimestampError::Random => {
                problem(StatusCode::SERVICE_UNAVAILABLE).on(Side::Ledger).retry(true)
            }
            TimestampError::Down { .. } => problem(StatusCode::BAD_GATEWAY).retry(true),
            TimestampError::Tsp(_) => problem(StatusCode::BAD_GATEWAY),
        }
    }
}

/// What is asked of `POST /v1/ledger/timestamps`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Ask {
    tsa: String,
    certificate: String,
}

fn view(kept: &Kept) -> Value {
    let checkpoint = &kept.stamp.checkpoint;
    let mut out = json!({
        "id": kept.id,
        "tsa": kept.tsa,
        "height": checkpoint.height,
        "tick_ms": checkpoint.tick_ms,
        "log_size": checkpoint.log_size,
    });
    let more = match kept.check(None) {
        Ok((stamp, lag)) => json!({"ok": true, "stamp": stamp, "after_tick_ms": lag}),
        Err(e) => json!({"ok": false, "code": e.code(), "detail": e.to_string()}),
    };
    if let (Some(out), Value::Object(more)) = (out.as_object_mut(), more) {
        out.extend(more);
    }
    out
}

async fn stamp(State(state): State<AppState>, caller: Caller, Body(body): Body) -> Result<Json<Value>, Problem> {
    caller.require(&[OPERATOR])?;
    let ask: Ask = read(&body)?;
    let given = tsp::read_certificates(ask.certificate.as_bytes())
        .map_err(|_| Problem::bad_request("certificate: PEM text of the authority's certificate"))?;
    let (kept, _) = TimeStamps::new(state.store.clone()).stamp(&state.node, &ask.tsa, given).await?;
    Ok(Json(view(&kept)))
}

async fn list(State(state): State<AppState>, caller: Caller) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    let all = TimeStamps::new(state.store.clone()).newest(LIST).await?;
    Ok(Json(json!({"timestamps": all.iter().map(view).collect::<Vec<_>>()})))
}

async fn one(State(state): State<AppState>, caller: Caller, Path(id): Path<i64>) -> Result<Json<Value>, Problem> {
    caller.require_person()?;
    let kept = TimeStamps::new(state.store.clone()).one(id).await?;
    let kept =
        kept.ok_or_else(|| Problem::not_found("unknown-timestamp", format!("there is no time-stamp {id} here")))?;
    let mut out = view(&kept);
    out["checkpoint"] = STANDARD.encode(cbor::encode(&kept.stamp.checkpoint)).into();
    out["token"] = STANDARD.encode(&kept.stamp.token.0).into();
    out["certificates"] = kept.certificates.iter().map(|c| STANDARD.encode(c)).collect();
    Ok(Json(out))
}

type File = ([(HeaderName, &'static str); 2], Vec<u8>);

/// A file of the exported log. Its leaves are hashes alone, so that no token is asked for.
async fn file(state: &AppState, path: PathBuf, kind: &'static str, cache: &'static str) -> Result<File, Problem> {
    let path = state.cfg.path(LOG_DIR).join(path);
    let bytes = tokio::fs::read(path).await.map_err(|_| {
        Problem::not_found("unknown-tile", "this is not exported here").next("concordat ledger export at this node")
    })?;
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)], bytes))
}

async fn checkpoint(State(state): State<AppState>) -> Result<File, Problem> {
    file(&state, super::export::NOTE_FILE.into(), "text/plain; charset=utf-8", "no-cache").await
}

async fn tile(State(state): State<AppState>, Path(path): Path<String>) -> Result<File, Problem> {
    // Only what is a tile's one name becomes a path.
    let id: TileId = path.parse().map_err(|_| Problem::not_found("unknown-tile", "this is no name of a tile"))?;
    file(&state, id.to_string().into(), "application/octet-stream", "public, max-age=31536000, immutable").await
}
