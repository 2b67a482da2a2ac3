//! `/admin/v1`: acts signed by people's keys, and the counters they need. The broker never sees those keys.

use super::auth::OPERATOR;
use super::body::{Body, header, json as read_json};
use super::openapi::Doc;
use super::{AppState, Caller, Problem};
use crate::host::policy::load_documents;
use crate::host::renewal;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use concordat_executor::policies::compile::compile;
use concordat_protocol::acts::{Act, ActBody, ApprovalKind};
use concordat_protocol::cbor;
use concordat_protocol::ids::{AgencyId, OpRef};
use concordat_protocol::keys::KeyId;
use concordat_protocol::limits::ACT_BYTES_MAX;
use concordat_protocol::ops::Tx;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/admin/v1/acts", post(act))
        .route("/admin/v1/keys/{key_id}/counters", get(counters))
        .route("/admin/v1/agencies/{agency}/keys", get(keys))
}

pub(super) fn docs() -> Vec<Doc> {
    vec![
        Doc::new("post", "/admin/v1/acts", "A signed act of this agency, handed to the ledger.", OPERATOR)
            .takes_bytes(
                "application/cbor",
                "The transaction's canonical CBOR. Or JSON, `act` (it in hexadecimal) and `document`: of a renewal the gateway \
                 compares the new document with the one in force, and hands it on only if dates and papers alone change.",
            )
            .gives(200, "The ledger took it.", "operation:str height:int tick_ms:int"),
        Doc::new("get", "/admin/v1/keys/{key_id}/counters", "The last counters that a key used.", OPERATOR).gives(
            200,
            "The counters.",
            "key_id:str urgent:int other:int",
        ),
        Doc::new("get", "/admin/v1/agencies/{agency}/keys", "The keys of an agency.", OPERATOR).gives(
            200,
            "The keys.",
            "agency:str keys:[obj]",
        ),
    ]
}

/// Room for the signature beside an act's body: a hybrid one has 3,373 bytes.
const SIGNATURE_BYTES: usize = 4_096;

/// Reads a signed act of this agency.
fn read_act(state: &AppState, bytes: &[u8]) -> Result<Act, Problem> {
    let bad = |detail: String| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-act", detail)
            .next("sign it again with this release of the CLI")
    };
    if bytes.len() > ACT_BYTES_MAX + SIGNATURE_BYTES {
        return Err(bad(format!("the act has {} bytes, at most {ACT_BYTES_MAX} are allowed", bytes.len())));
    }
    let tx: Tx = cbor::decode(bytes).map_err(|e| bad(format!("transaction: {e}")))?;
    let Tx::Act { body, .. } = tx else { return Err(bad("the transaction is no act".into())) };
    let act: Act = cbor::decode(&body).map_err(|e| bad(format!("act: {e}")))?;
    if act.chain != state.cfg.chain {
        return Err(bad(format!("chain: signed for {}, this is {}", act.chain, state.cfg.chain)));
    }
    if act.agency != state.cfg.agency {
        return Err(bad(format!("agency: this is the broker of {}, the act is of {}", state.cfg.agency, act.agency)));
    }
    Ok(act)
}

/// A signed act with the document that it is about.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithDocument {
    /// The transaction, hexadecimal.
    act: String,
    document: String,
}

fn read_body(headers: &HeaderMap, body: &[u8]) -> Result<(Vec<u8>, Option<String>), Problem> {
    if !header(headers, "content-type").is_some_and(|t| t.starts_with("application/json")) {
        return Ok((body.to_vec(), None));
    }
    let read: WithDocument = read_json(body)?;
    let act = hex::decode(read.act).map_err(|_| Problem::bad_request("act: hexadecimal digits"))?;
    Ok((act, Some(read.document)))
}

/// Refuses an act of a renewal that changes more than dates and papers, or that cannot be compared. The ledger cannot tell.
async fn check_renewal(state: &AppState, act: &Act, document: Option<String>) -> Result<(), Problem> {
    let renews =
        |body: &ActBody| matches!(body, ActBody::Renew { .. } | ActBody::Approve { what: ApprovalKind::Renew, .. });
    if !renews(&act.body) {
        return Ok(());
    }
    let views = state.node.agreements().await?;
    let (dir, act) = (state.cfg.dir.clone(), act.clone());
    let compared = tokio::task::spawn_blocking(move || {
        let mut documents = load_documents(&dir);
        if let Some(compiled) = document.and_then(|text| compile(&text).ok()) {
            documents.insert(compiled.terms_hash(), compiled.into());
        }
        let current = |agreement: &_, version| {
            views.iter().find(|v| v.agreement == *agreement && v.version == version).map(|v| v.terms_hash)
        };
        renewal::admit(&act, current, &documents)
    });
    let refused = |code: &str, detail: String| Problem::new(StatusCode::CONFLICT, code, detail);
    match compared.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(refused(e.code(), e.to_string())),
        Err(e) => Err(refused("renewal-document", e.to_string())),
    }
}

async fn act(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    caller.require(&[OPERATOR])?;
    let (bytes, document) = read_body(&headers, &body)?;
    let act = read_act(&state, &bytes)?;
    check_renewal(&state, &act, document).await?;
    let (index, entry) = state.gateway.desk().submit_signed(&bytes).await?;
    info!(op = index, key = %act.key_id, counter = act.counter, by = caller.name, "act taken by the ledger");
    Ok(Json(json!({"operation": OpRef(index).to_string(), "height": entry.height, "tick_ms": entry.tick_ms})))
}

fn key_id(text: &str) -> Result<KeyId, Problem> {
    text.parse().map_err(|_| Problem::bad_request("key_id: 32 hexadecimal digits"))
}

async fn counters(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    caller.require(&[OPERATOR])?;
    let (urgent, other) = state.node.counters(key_id(&id)?).await?;
    Ok(Json(json!({"key_id": id, "urgent": urgent, "other": other})))
}

async fn keys(
    State(state): State<AppState>,
    caller: Caller,
    Path(agency): Path<String>,
) -> Result<Json<Value>, Problem> {
    caller.require(&[OPERATOR])?;
    let agency = AgencyId::new(agency).map_err(|e| Problem::bad_request(e.to_string()))?;
    let keys = state.node.keys(&agency).await?;
    let list = keys.iter().map(|k| {
        json!({
            "key_id": k.key.key_id().to_string(),
            "role": k.role.word(),
            "label": k.label,
            "suite": k.key.suite.word(),
            "revoked_ms": k.revoked_ms,
            "compromised_since_ms": k.compromised_since_ms,
        })
    });
    Ok(Json(json!({"agency": agency, "keys": list.collect::<Vec<_>>()})))
}
