//! Who calls, found once for each request: a service token, an access token of the issuer, or a certificate (`tls`). Then the request is counted.
//! `GET /v1/whoami` shows what was found.

use super::AppState;
use super::auth::Caller;
use super::openapi::Doc;
use super::problem::Problem;
use super::tls::Peer;
use crate::people::recorded::{self, NotRecorded};
use crate::people::{Person, TokenError};
use axum::extract::{ConnectInfo, FromRequestParts, OptionalFromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// What the header says, kept for the handler.
#[derive(Clone)]
struct Found(Result<Caller, Problem>);

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/v1/whoami", get(whoami))
}

pub(super) fn docs() -> Vec<Doc> {
    vec![Doc::new("get", "/v1/whoami", "Who the caller is to this broker, and by what.", "anybody with a token").gives(
        200,
        "The caller.",
        "agency:str name:str roles:[str] by:str after_step_up:[obj] issuer:str? role_map_sha256:str? role_map:obj?",
    )]
}

impl From<TokenError> for Problem {
    fn from(e: TokenError) -> Self {
        let detail = e.to_string();
        match e {
            TokenError::Unavailable(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, e.code(), detail).retry(true),
            _ => Self::new(StatusCode::UNAUTHORIZED, e.code(), detail)
                .challenge("Bearer error=\"invalid_token\"")
                .next("sign in again at the agency's issuer"),
        }
    }
}

fn of_person(person: Person) -> Caller {
    // No token of keys/tokens.yaml has a colon in its name, so that nobody is taken for another.
    let name = format!("oidc:{}", person.subject);
    let role_map = Some(person.role_map);
    Caller { name, roles: person.roles, after_step_up: person.after_step_up, sign_in: person.sign_in, role_map }
}

/// Roles of people count only while the ledger names the map that made them.
async fn vouched(state: &AppState, person: Person) -> Result<Caller, Problem> {
    if !person.roles.is_empty() || !person.after_step_up.is_empty() {
        recorded::in_force(&state.watch, &state.cfg.agency, &person.role_map).await?;
    }
    Ok(of_person(person))
}

impl From<NotRecorded> for Problem {
    fn from(e: NotRecorded) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, e.code(), e.to_string())
            .retry(true)
            .next("the broker records its map by itself: see `concordat role-map show` and the broker's log")
    }
}

async fn authenticate(state: &AppState, headers: &HeaderMap, peer: Option<&Peer>) -> Option<Result<Caller, Problem>> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return state.applications.find(peer?).cloned().map(Ok);
    };
    let refuse = |detail: &str| Err(unauthorized(detail));
    let Ok(text) = value.to_str() else { return Some(refuse("the Authorization header is not text")) };
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Some(refuse("the Authorization header does not hold a Bearer token"));
    }
    let token = token.trim();
    if let Some(caller) = state.tokens.find(token) {
        return Some(Ok(caller.clone()));
    }
    let is_jwt = token.bytes().filter(|b| *b == b'.').count() == 2;
    match &state.issuer {
        Some(issuer) if is_jwt => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
            match issuer.person(token, now).await {
                Ok(person) => Some(vouched(state, person).await),
                Err(e) => Some(Err(e.into())),
            }
        }
        _ => Some(refuse("the token is not known here")),
    }
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
        .next("send `Authorization: Bearer <token>` with a token of this agency's keys/tokens.yaml")
}

/// Finds out who calls, counts the request, and says on the answer what is left.
pub(super) async fn identify(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    if request.uri().path().starts_with(super::me::DOOR) {
        // Citizens have an issuer and limits of their own.
        return next.run(request).await;
    }
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|c| c.0.clone());
    let found = authenticate(&state, request.headers(), peer.as_ref()).await;
    let Some(found) = found else { return next.run(request).await };
    let counted = match &found {
        Ok(caller) if !caller.is_adapter() => Some(state.rates.count(&caller.name)),
        _ => None,
    };
    let (mut response, left) = match counted {
        Some(Err(left)) => (state.rates.refuse(&left), Some(left)),
        other => {
            request.extensions_mut().insert(Found(found));
            (next.run(request).await, other.and_then(Result::ok))
        }
    };
    if let Some(left) = left {
        state.rates.say(&left, response.headers_mut());
    }
    response
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        match parts.extensions.get::<Found>() {
            Some(Found(found)) => found.clone(),
            None => Err(unauthorized("no token was sent")),
        }
    }
}

impl OptionalFromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Option<Self>, Problem> {
        parts.extensions.get::<Found>().map(|f| f.0.clone()).transpose()
    }
}

async fn whoami(State(state): State<AppState>, caller: Caller) -> Result<Json<Value>, Problem> {
    let by = match caller.name.split_once(':') {
        Some(("oidc", _)) => "issuer",
        Some(_) => "certificate",
        None => "token",
    };
    let issuer = state.issuer.as_ref().filter(|_| by == "issuer");
    let step_up =
        caller.after_step_up.iter().map(|(role, s)| json!({"role": role, "acr": s.acr, "max_age_s": s.max_age_s}));
    let role_map = match &caller.role_map {
        Some(used) => {
            let maps = state.watch.role_maps(&state.cfg.agency).await?;
            maps.iter().rfind(|m| hex::encode(m.sha256) == *used).map(super::role_maps::map_json)
        }
        None => None,
    };
    Ok(Json(json!({
        "agency": state.cfg.agency,
        "name": caller.name,
        "roles": caller.roles,
        "by": by,
        "after_step_up": step_up.collect::<Vec<_>>(),
        "issuer": issuer.map(|i| i.name()),
        "role_map_sha256": caller.role_map,
        "role_map": role_map,
    })))
}
