//! Streams that do not sync before they acknowledge are refused.
//!
//! JetStream acknowledges before fsync unless `sync_interval: always`, and a client cannot see which it is. The server's
//! monitoring page says it, with the server's id; the id changes at every start of a server, so that a confirmation holds
//! for one run of one server only.

use crate::config::NatsConfig;
use crate::http::problem::Problem;
use async_nats::connection::State as Connection;
use async_nats::{Client, ConnectOptions};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::Value;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::watch;
use tracing::{error, info, warn};

/// How often the connected server's id is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often every page is read again: another server of the cluster may have been started otherwise.
const AGAIN: Duration = Duration::from_secs(30);
/// How long a connected server may stay unconfirmed before that is a refusal.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long one page may take.
const PAGE: Duration = Duration::from_secs(5);
/// Longest wait between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(500);

/// Why nothing that needs a durable acknowledgement is served.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum NotDurable {
    /// It is not known yet, or not any more; it may be in a moment.
    #[error("the stream server is not confirmed to sync always yet: {0}")]
    Unconfirmed(String),
    /// It is known, or was not to be learnt in time.
    #[error("the streams are refused: {0}")]
    Refused(String),
}

impl NotDurable {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        "streams-not-durable"
    }
}

/// What the monitoring pages say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The connected server is among them, and each that answered syncs always.
    Durable,
    /// The connected server's page was not to be had.
    Wait(String),
    /// One of them does not sync always, or none is configured.
    Refused(String),
}

/// Decides over the pages (`/varz`, by the URL of each monitor) for the connected server's id.
pub fn judge(connected: &str, pages: &[(String, Result<Value, String>)]) -> Verdict {
    if pages.is_empty() {
        return Verdict::Refused(
            "`nats.monitor` names no page: write the stream server's `http` address there, as in \
             `monitor: [\"http://127.0.0.1:8222\"]`"
                .into(),
        );
    }
    let (mut found, mut silent) = (false, Vec::new());
    for (url, page) in pages {
        let page = match page {
            Ok(page) => page,
            Err(why) => {
                silent.push(format!("{url} ({why})"));
                continue;
            }
        };
        if page.pointer("/jetstream/config").is_none() {
            return Verdict::Refused(format!("the server at {url} has no JetStream: write `jetstream` into its file"));
        }
        if page.pointer("/jetstream/config/sync_always") != Some(&Value::Bool(true)) {
            return Verdict::Refused(format!(
                "the server at {url} acknowledges before it syncs: write `sync_interval: always` into `jetstream` of its \
                 file and start it again"
            ));
        }
        found |= page.get("server_id").and_then(Value::as_str) == Some(connected);
    }
    match (found, silent.is_empty()) {
        (true, _) => Verdict::Durable,
        (false, false) => Verdict::Wait(format!("no answer from {}: see `nats.monitor`", silent.join(", "))),
        (false, true) => {
            Verdict::Wait(format!("the connected server {connected} is not among those that `nats.monitor` names"))
        }
    }
}

#[derive(Debug, Clone)]
enum Standing {
    Unknown(String),
    Confirmed(String),
    Refused(String),
}

/// Watches whether the server that a client is connected to syncs always.
#[derive(Debug, Clone)]
pub struct Durable {
    client: Client,
    standing: watch::Receiver<Standing>,
}

impl Durable {
    /// Starts to watch; nothing is confirmed before the first look.
    pub fn start(client: &Client, nats: &NatsConfig) -> Self {
        let (tx, standing) = watch::channel(Standing::Unknown("not looked yet".into()));
        tokio::spawn(guard(client.clone(), nats.monitor.clone(), tx));
        Self { client: client.clone(), standing }
    }

    /// The id of the server that is connected to now, when it is confirmed. Ask after an acknowledgement came: what an
    /// unconfirmed server acknowledged counts for nothing.
    pub fn confirmed(&self) -> Result<String, NotDurable> {
        match &*self.standing.borrow() {
            Standing::Confirmed(id) if *id == self.client.server_info().server_id => Ok(id.clone()),
            Standing::Confirmed(_) => Err(NotDurable::Unconfirmed("it was started anew or is another one".into())),
            Standing::Unknown(why) => Err(NotDurable::Unconfirmed(why.clone())),
            Standing::Refused(why) => Err(NotDurable::Refused(why.clone())),
        }
    }

    /// Waits until the server is confirmed for the first time, however long it is away, or refused.
    pub async fn ready(&self) -> Result<(), NotDurable> {
        let mut standing = self.standing.clone();
        let first = standing.wait_for(|s| !matches!(s, Standing::Unknown(_))).await;
        match first.as_deref() {
            Ok(Standing::Refused(why)) => Err(NotDurable::Refused(why.clone())),
            Ok(_) => Ok(()),
            Err(_) => Err(NotDurable::Refused("its watch ended".into())),
        }
    }

    /// Ends when the server is refused; a process that needs it ends then, too.
    pub async fn refused(&self) -> NotDurable {
        let mut standing = self.standing.clone();
        let why = match standing.wait_for(|s| matches!(s, Standing::Refused(_))).await.as_deref() {
            Ok(Standing::Refused(why)) => why.clone(),
            _ => "its watch ended".into(),
        };
        NotDurable::Refused(why)
    }
}

async fn guard(client: Client, monitors: Vec<String>, tx: watch::Sender<Standing>) {
    let http = reqwest::Client::builder().timeout(PAGE).build().unwrap_or_default();
    let (mut confirmed, mut looked) = (String::new(), Instant::now());
    let (mut since, mut said) = (None, String::new());
    while !tx.is_closed() {
        let id = client.server_info().server_id;
        let connected = client.connection_state() == Connection::Connected && !id.is_empty();
        let no_page = monitors.is_empty();
        if !no_page && (!connected || (id == confirmed && looked.elapsed() < AGAIN)) {
            since = since.filter(|_| connected);
            tokio::time::sleep(LOOK).await;
            continue;
        }
        let verdict = judge(&id, &read(&http, &monitors).await);
        looked = Instant::now();
        let refused = match verdict {
            Verdict::Durable => {
                if confirmed != id {
                    info!(server = id, "the stream server syncs always");
                    tx.send_replace(Standing::Confirmed(id.clone()));
                }
                (confirmed, since) = (id, None);
                said.clear();
                continue;
            }
            // It was confirmed, and the connection is the same.
            Verdict::Wait(_) if id == confirmed => continue,
            Verdict::Wait(why) => {
                if said != why {
                    warn!(why, "the stream server is not confirmed to sync always");
                    tx.send_replace(Standing::Unknown(why.clone()));
                    said.clone_from(&why);
                }
                (since.get_or_insert_with(Instant::now).elapsed() > PATIENCE).then_some(why)
            }
            Verdict::Refused(why) => Some(why),
        };
        if let Some(why) = refused {
            error!(code = "streams-not-durable", why, "the streams are refused");
            tx.send_replace(Standing::Refused(why));
            return tx.closed().await;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn read(http: &reqwest::Client, monitors: &[String]) -> Vec<(String, Result<Value, String>)> {
    let mut pages = Vec::new();
    for url in monitors {
        let page = async {
            let answer = http.get(format!("{}/varz", url.trim_end_matches('/'))).send().await?;
            answer.error_for_status()?.json::<Value>().await
        };
        // The error's own text repeats the address.
        pages.push((url.clone(), page.await.map_err(|e| e.without_url().to_string())));
    }
    pages
}

/// Options with which every process connects: it begins before the server does, and is back soon after it.
pub fn connect_options(nats: &NatsConfig, password: &str, name: &str) -> ConnectOptions {
    ConnectOptions::with_user_and_password(nats.user.clone(), password.to_owned())
        .name(name)
        .retry_on_initial_connect()
        .reconnect_delay_callback(|attempts| match attempts {
            0 | 1 => Duration::ZERO,
            n => RECONNECT.min(Duration::from_millis(20 * n as u64)),
        })
}

/// Lets nobody be told that a message is durable while the server is not confirmed, or was another before than after.
pub(crate) async fn gate(State(durable): State<Durable>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if request.method() != Method::POST || !path.starts_with("/v1/datasets/") || !path.ends_with("/messages") {
        return next.run(request).await;
    }
    let before = match durable.confirmed() {
        Ok(id) => id,
        Err(e) => return problem(&e),
    };
    let response = next.run(request).await;
    match durable.confirmed() {
        Ok(after) if after == before => response,
        _ if !response.status().is_success() => response,
        Ok(_) => problem(&NotDurable::Unconfirmed(
            "it was started anew meanwhile; what is stored is not stored twice".into(),
        )),
        Err(e) => problem(&e),
    }
}

fn problem(e: &NotDurable) -> Response {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, e.code(), e.to_string())
        .retry(true)
        .next("send the same again; see the broker's log if it stays")
        .respond()
}

#[cfg(test)]
mod tests;
