//! The HTTP API of an agency's broker. Clients speak only to their own agency's broker.
//!
//! Every resource is a module with `routes()`, merged in [`router`], and beside it `docs()`, which says the same in the
//! OpenAPI document.

pub mod auth;
pub mod body;
pub mod problem;

pub(crate) mod actors;
mod admin;
mod agreements;
mod catalogue;
mod dead_letters;
mod decisions;
mod evidence;
mod health;
mod ledger;
mod mandates;
mod me;
mod notices;
pub(crate) mod openapi;
mod operations;
mod overrides;
pub(crate) mod pages;
mod queries;
pub mod rates;
mod records;
mod replays;
mod reports;
mod request;
mod role_maps;
mod subjects;
pub mod tls;
mod who;

pub use auth::Caller;
pub use problem::{Problem, Side};
pub use request::RequestId;

use crate::config::NodeConfig;
use crate::evidence::Disputes;
use crate::gateway::Gateway;
use crate::gateway::watch::LedgerWatch;
use crate::ledger::node_client::NodeClient;
use crate::ledger::rpc::CometRpc;
use crate::ledger::writer::Writer;
use crate::metrics::Metrics;
use crate::people::{Actors, Citizens, Issuer};
use crate::receipts::Receipts;
use crate::store::Store;
use auth::Tokens;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use std::ops::Deref;
use std::sync::Arc;
use tokio::sync::watch;

/// What every handler can use. Cheap to clone: each layer of a request has its own.
#[derive(Clone)]
pub struct AppState(Arc<Parts>);

impl AppState {
    /// Of its parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for AppState {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The parts of [`AppState`].
pub struct Parts {
    /// `node.yaml`.
    pub cfg: Arc<NodeConfig>,
    /// The own node.
    pub node: NodeClient,
    /// The own CometBFT.
    pub rpc: CometRpc,
    /// What the own node says as it says it.
    pub watch: LedgerWatch,
    /// The streams, as this agency's own user.
    pub nats: async_nats::Client,
    /// The broker's store.
    pub store: Store,
    /// The consumer's side of queries.
    pub gateway: Gateway,
    /// Receipts.
    pub receipts: Receipts,
    /// Disputes of operations that name this agency.
    pub disputes: Disputes,
    /// Metrics.
    pub metrics: Metrics,
    /// Who may call.
    pub tokens: Arc<Tokens>,
    /// Where people sign in.
    pub issuer: Option<Arc<Issuer>>,
    /// Where people outside the agency sign in.
    pub citizens: Option<Arc<Citizens>>,
    /// Who shows a certificate.
    pub applications: Arc<tls::Applications>,
    /// How much each may call.
    pub rates: Arc<rates::Rates>,
    /// Pseudonyms of callers, which only this agency can trace back.
    pub actors: Actors,
    /// The writer `<agency>/broker`; absent until the ledger knows it.
    pub writer: watch::Receiver<Option<Writer>>,
}

/// All resources. Further ones are merged here.
fn resources() -> Router<AppState> {
    Router::new()
        .merge(queries::routes())
        .merge(records::routes())
        .merge(operations::routes())
        .merge(overrides::routes())
        .merge(notices::routes())
        .merge(decisions::routes())
        .merge(replays::routes())
        .merge(reports::routes())
        .merge(agreements::routes())
        .merge(catalogue::routes())
        .merge(dead_letters::routes())
        .merge(admin::routes())
        .merge(actors::routes())
        .merge(evidence::routes())
        .merge(subjects::routes())
        .merge(ledger::routes())
        .merge(health::routes())
        .merge(openapi::routes())
        .merge(who::routes())
        .merge(role_maps::routes())
        .merge(me::routes())
        .merge(mandates::routes())
        .merge(crate::intake::http::routes())
        .merge(crate::feed::http::routes())
        .merge(crate::outside::http::routes())
}

/// What the OpenAPI document says of them.
fn docs() -> Vec<openapi::Doc> {
    let own = [
        queries::docs(),
        records::docs(),
        operations::docs(),
        decisions::docs(),
        agreements::docs(),
        catalogue::docs(),
    ];
    let administration = [dead_letters::docs(), admin::docs(), evidence::docs(), subjects::docs(), overrides::docs()];
    let rest = [
        ledger::docs(),
        health::docs(),
        openapi::docs(),
        who::docs(),
        actors::docs(),
        role_maps::docs(),
        me::docs(),
        mandates::docs(),
    ];
    let elsewhere = [crate::intake::http::docs(), crate::feed::http::docs(), crate::outside::http::docs()];
    let audit = [replays::docs(), reports::docs(), notices::docs()];
    own.into_iter().chain(audit).chain(administration).chain(rest).chain(elsewhere).flatten().collect()
}

/// The API.
pub fn router(state: AppState) -> Router {
    let limit = state.cfg.limits.http_body_bytes;
    resources()
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "this resource has no such method")
        })
        .fallback(async || {
            Problem::not_found("unknown-resource", "there is no such resource: check the path and its version")
        })
        .layer(DefaultBodyLimit::max(limit))
        .layer(axum::middleware::from_fn_with_state(limit, body::refuse_large))
        .layer(axum::middleware::from_fn_with_state(state.clone(), who::identify))
        .layer(axum::middleware::from_fn_with_state(state.clone(), request::frame))
        .with_state(state)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod testing_ledger;
#[cfg(test)]
mod tests;
