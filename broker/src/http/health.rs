//! `/livez`, `/readyz`, `/metrics`: for supervisors and scrapers, without a token. None says anything of a query.

use super::AppState;
use super::openapi::{ANYBODY, Doc};
use crate::host::feed::FeedsStatus;
use crate::host::lead::Leading;
use crate::host::stages::StageTimes;
use crate::notices::Sources;
use crate::streams::{EXECUTOR_FEEDS, EXECUTOR_STAGES};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::future::Future;
use std::time::Duration;

/// How long one check may take.
const CHECK: Duration = Duration::from_secs(2);

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/livez", get(async || "ok\n")).route("/readyz", get(ready)).route("/metrics", get(metrics))
}

pub(super) fn docs() -> Vec<Doc> {
    vec![
        Doc::new("get", "/livez", "Whether the process serves.", ANYBODY).gives_bytes(200, "It does.", "text/plain"),
        Doc::new("get", "/readyz", "Whether it can do its work.", ANYBODY)
            .gives(200, "It can.", "ready:bool checks:obj")
            .gives(503, "It cannot: each failing check says why.", "ready:bool checks:obj"),
        Doc::new("get", "/metrics", "Metrics of Prometheus.", ANYBODY).gives_bytes(200, "Text.", "text/plain"),
    ]
}

async fn checked<E: std::fmt::Display>(check: impl Future<Output = Result<(), E>>) -> Result<(), String> {
    match tokio::time::timeout(CHECK, check).await {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no answer within {} s", CHECK.as_secs())),
    }
}

async fn ready(State(state): State<AppState>) -> Response {
    let node = checked(async {
        state.node.head().await.map_err(|e| e.to_string())?;
        state.watch.fresh().map(drop).map_err(|s| format!("no new block for {s} s"))
    });
    let comet = checked(async {
        let status = state.rpc.status().await.map_err(|e| e.to_string())?;
        if status.catching_up { Err("catching up with the chain".to_owned()) } else { Ok(()) }
    });
    let store = checked(state.store.run(|db| db.query_row("SELECT 1", [], |_| Ok(()))));
    let (node, comet, store) = tokio::join!(node, comet, store);
    let nats = match state.nats.connection_state() {
        async_nats::connection::State::Connected => Ok(()),
        other => Err(format!("the connection to {} is {other}", state.cfg.nats.url)),
    };
    let writer = match *state.writer.borrow() {
        Some(_) => Ok(()),
        None => Err(format!("the writer {}/broker is not registered on the ledger yet", state.cfg.agency)),
    };
    let checks = [("node", node), ("comet", comet), ("nats", nats), ("store", store), ("writer", writer)];
    let failing = checks.iter().filter(|(_, r)| r.is_err()).count();
    let list: Map<String, Value> = checks
        .into_iter()
        .map(|(name, r)| (name.to_owned(), r.map_or_else(|e| json!({"ok": false, "why": e}), |()| json!({"ok": true}))))
        .collect();
    let status = if failing == 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": failing == 0, "checks": list}))).into_response()
}

/// What the own executor says; none where it does not answer.
async fn told<T: DeserializeOwned>(state: &AppState, subject: &'static str) -> Option<T> {
    let said = tokio::time::timeout(CHECK, state.nats.request(subject, "".into())).await.ok()?.ok()?;
    serde_json::from_slice(&said.payload).ok()
}

async fn metrics(State(state): State<AppState>) -> Response {
    if let Some(now) = state.watch.now() {
        state.metrics.head_age(now.at.elapsed().as_secs_f64());
    }
    if let Ok(Ok(agreements)) = tokio::time::timeout(CHECK, state.watch.agreements()).await {
        state.metrics.agreements(&agreements);
    }
    if let Some(leading) = Leading::read(&state.cfg) {
        state.metrics.executor(&leading);
    }
    if let Some(now) = state.watch.now()
        && let Ok(overdue) = tokio::time::timeout(CHECK, Sources::of(&state.cfg).overdue_writes(now.tick_ms)).await
    {
        // -1: it cannot be said, which is no reason to be calm.
        state.metrics.writes_overdue.set(overdue.map_or(-1, |all| i64::try_from(all.len()).unwrap_or(i64::MAX)));
    }
    // What this agency delivers and answers is its executor's to say.
    let (feeds, stages) =
        tokio::join!(told::<FeedsStatus>(&state, EXECUTOR_FEEDS), told::<StageTimes>(&state, EXECUTOR_STAGES));
    if let Some(status) = feeds {
        state.metrics.deliveries(&status);
    }
    if let Some(times) = stages {
        state.metrics.stages(&times);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], state.metrics.text()).into_response()
}
