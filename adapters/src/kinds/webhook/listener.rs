//! The listener: who may send, how much, and when a sender is answered.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use axum::routing::post;
use concordat_protocol::hash::{hmac_sha256_of, sha256};
use serde_json::json;
use tokio::sync::oneshot;

use crate::document::Secret;

/// Longest wait for a whole request.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for the broker, before a sender is asked to send again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests that are remembered while the adapter runs.
const RECENT_MAX: usize = 20_000;

/// The fingerprint of a request.
pub type Print = [u8; 6];

/// Who may send.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Who knows a token: `Authorization: Bearer`.
    Token(Secret),
    /// Who signs the body with a shared secret, HMAC with SHA-256 in hexadecimal.
    Hmac {
        /// The secret.
        secret: Secret,
        /// The header with the signature.
        header: HeaderName,
        /// What stands before the signature, for example `sha256=`.
        prefix: String,
    },
}

/// What the listener is told.
#[derive(Clone)]
pub struct Settings {
    /// The node folder: secrets are read below it.
    pub base: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
    /// The path that takes requests.
    pub path: String,
    /// Who may send.
    pub auth: Auth,
    /// The header that tells requests apart; their bytes do when left out.
    pub id_header: Option<HeaderName>,
    /// Most bytes of a request.
    pub bytes_max: usize,
    /// Most requests that wait.
    pub pending_max: usize,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Items that were good.
    pub good: usize,
    /// Items that are dead letters now.
    pub bad: usize,
}

/// A request that waits until it is durable.
pub struct Pending {
    /// Its number in this run, from 1.
    pub seq: u64,
    /// Its fingerprint.
    pub print: Print,
    /// Its bytes.
    pub body: Vec<u8>,
    /// What became of it, once it was read.
    pub outcome: Option<Outcome>,
    waiters: Vec<oneshot::Sender<Outcome>>,
}

/// Requests that wait, and those that were answered.
#[derive(Default)]
pub struct Inbox {
    /// In the order they came.
    pub pending: VecDeque<Pending>,
    newest: u64,
    known: HashSet<Print>,
    /// Those of `known` in order.
    recent: VecDeque<Print>,
    /// Why nothing can come.
    pub failed: Option<std::io::Error>,
}

impl Inbox {
    /// Remembers a durable request.
    pub fn remember(&mut self, print: Print) {
        if self.known.insert(print) {
            self.recent.push_back(print);
        }
        while self.recent.len() > RECENT_MAX {
            if let Some(old) = self.recent.pop_front() {
                self.known.remove(&old);
            }
        }
    }

    /// True when the request is durable already.
    pub fn knows(&self, print: &Print) -> bool {
        self.known.contains(print)
    }

    /// The newest durable requests, at most `max`, oldest first.
    pub fn recent(&self, max: usize) -> impl Iterator<Item = &Print> {
        self.recent.iter().skip(self.recent.len().saturating_sub(max))
    }

    /// Requests up to `seq` are durable: their senders are answered.
    pub fn durable(&mut self, seq: u64) {
        while self.pending.front().is_some_and(|p| p.seq <= seq) {
            let Some(pending) = self.pending.pop_front() else { return };
            self.remember(pending.print);
            let outcome = pending.outcome.unwrap_or(Outcome { good: 0, bad: 0 });
            for waiter in pending.waiters {
                // A sender that went away sends again.
                let _ = waiter.send(outcome);
            }
        }
    }
}

/// What the listener and the source share.
#[derive(Default)]
pub struct Shared {
    inbox: Mutex<Inbox>,
    came: Condvar,
}

impl Shared {
    /// The inbox.
    pub fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inbox, once something came or after `wait`.
    pub fn wait<'a>(&self, inbox: MutexGuard<'a, Inbox>, wait: Duration) -> MutexGuard<'a, Inbox> {
        self.came.wait_timeout(inbox, wait).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A listener on a thread of its own; it ends with this value.
pub struct Listener {
    /// What came.
    pub shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

impl Listener {
    /// Begins to listen.
    pub fn start(settings: Settings) -> std::io::Result<Self> {
        let socket = std::net::TcpListener::bind(settings.address)?;
        socket.set_nonblocking(true)?;
        let shared = Arc::<Shared>::default();
        let (stop, stopped) = oneshot::channel();
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name("webhook".to_owned()).spawn(move || {
            let ended = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
                runtime.block_on(async {
                    tokio::select! {
                        ended = serve(socket, settings, Arc::clone(&theirs)) => ended,
                        _ = stopped => Ok(()),
                    }
                })
            });
            theirs.inbox().failed = ended.err();
            theirs.came.notify_all();
        })?;
        Ok(Self { shared, stop: Some(stop) })
    }
}

#[derive(Clone)]
struct Desk {
    settings: Arc<Settings>,
    shared: Arc<Shared>,
}

async fn serve(socket: std::net::TcpListener, settings: Settings, shared: Arc<Shared>) -> std::io::Result<()> {
    let path = settings.path.clone();
    let desk = Desk { settings: Arc::new(settings), shared };
    let routes = Router::new().route(&path, post(take)).with_state(desk);
    axum::serve(tokio::net::TcpListener::from_std(socket)?, routes).await
}

fn say(status: StatusCode, title: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(json!({"title": title, "status": status.as_u16()}).to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/problem+json"));
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    response
}

fn done(outcome: Outcome, known: bool) -> Response<Body> {
    let body = json!({"accepted": outcome.good, "dead_letters": outcome.bad, "known": known});
    let mut response = Response::new(Body::from(body.to_string()));
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

async fn take(State(desk): State<Desk>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if let Auth::Token(secret) = &desk.settings.auth {
        // Before the body: a stranger does not get to send one.
        match secret.reveal(&desk.settings.base) {
            Ok(token) if bearer(&parts.headers).is_some_and(|given| same(given.as_bytes(), token.as_bytes())) => {}
            Ok(_) => return say(StatusCode::UNAUTHORIZED, "the token is missing or wrong"),
            Err(_) => return say(StatusCode::SERVICE_UNAVAILABLE, "the receiver is not ready"),
        }
    }
    if desk.shared.inbox().pending.len() >= desk.settings.pending_max {
        return say(StatusCode::TOO_MANY_REQUESTS, "too many requests wait; send again later");
    }
    let read = tokio::time::timeout(READ_TIMEOUT, axum::body::to_bytes(body, desk.settings.bytes_max)).await;
    let body = match read {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return say(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large, or was broken off"),
        Err(_) => return say(StatusCode::REQUEST_TIMEOUT, "the request did not come in time"),
    };
    if let Auth::Hmac { secret, header, prefix } = &desk.settings.auth {
        match secret.reveal(&desk.settings.base) {
            Ok(secret) if signed(&parts.headers, header, prefix, secret.as_bytes(), &body) => {}
            Ok(_) => return say(StatusCode::UNAUTHORIZED, "the signature is missing or wrong"),
            Err(_) => return say(StatusCode::SERVICE_UNAVAILABLE, "the receiver is not ready"),
        }
    }
    wait_until_durable(&desk, &parts.headers, body.to_vec()).await
}

async fn wait_until_durable(desk: &Desk, headers: &HeaderMap, body: Vec<u8>) -> Response<Body> {
    let id = match &desk.settings.id_header {
        Some(name) => match headers.get(name) {
            Some(id) => Some(id.as_bytes().to_vec()),
            None => return say(StatusCode::BAD_REQUEST, "the header that tells requests apart is missing"),
        },
        None => None,
    };
    let print = print(id.as_deref(), &body);
    let waiter = {
        let mut inbox = desk.shared.inbox();
        if inbox.knows(&print) {
            return done(Outcome { good: 0, bad: 0 }, true);
        }
        let (tell, told) = oneshot::channel();
        let full = inbox.pending.len() >= desk.settings.pending_max;
        match inbox.pending.iter_mut().find(|p| p.print == print) {
            // Sent again while the first one still waits.
            Some(pending) => pending.waiters.push(tell),
            None if full => {
                return say(StatusCode::TOO_MANY_REQUESTS, "too many requests wait; send again later");
            }
            None => {
                inbox.newest += 1;
                let seq = inbox.newest;
                inbox.pending.push_back(Pending { seq, print, body, outcome: None, waiters: vec![tell] });
            }
        }
        told
    };
    desk.shared.came.notify_all();
    match tokio::time::timeout(ANSWER_TIMEOUT, waiter).await {
        Ok(Ok(outcome)) => done(outcome, false),
        _ => say(StatusCode::SERVICE_UNAVAILABLE, "it is not durable yet; send the same request again"),
    }
}

fn print(id: Option<&[u8]>, body: &[u8]) -> Print {
    let hash = match id {
        Some(id) => sha256(&[b"id\0", id]),
        None => sha256(&[b"body\0", body]),
    };
    let mut out = Print::default();
    out.iter_mut().zip(hash).for_each(|(o, h)| *o = h);
    out
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Compares hashes, so that the time it takes tells nothing of the secret.
fn same(a: &[u8], b: &[u8]) -> bool {
    sha256(&[a]) == sha256(&[b])
}

fn signed(headers: &HeaderMap, name: &HeaderName, prefix: &str, secret: &[u8], body: &[u8]) -> bool {
    let given = headers.get(name).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix(prefix));
    let Some(given) = given.and_then(|v| hex::decode(v.trim()).ok()) else { return false };
    same(&hmac_sha256_of(secret, &[body]), &given)
}
