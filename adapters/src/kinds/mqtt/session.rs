//! A [`Client`] on a thread of its own: it keeps the connection alive whatever its owner does, and stops reading from
//! the server while its owner takes nothing.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mqtt_protocol_core::mqtt::prelude::TimerKind;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::client::{Client, LinkError, Message, News, Qos, Stage, Token};
use super::wire::{Hello, Incoming, Wire};
use crate::contract::ErrorClass;
use crate::dial::{Stream, connect};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const SEND_TIMEOUT: Duration = Duration::from_secs(15);
const READ_BYTES: usize = 64 * 1024;
/// Messages and bytes that are read ahead of the owner.
const AHEAD_MAX: usize = 2_048;
const AHEAD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Published messages that are under way at once.
const PUBLISHING_MAX: usize = 256;

/// Where the server is, and what is said to it.
#[derive(Clone)]
pub struct Server {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How TLS is spoken, if it is.
    pub tls: Option<Arc<ClientConfig>>,
    /// How a connection begins.
    pub hello: Hello,
}

impl Server {
    /// Host and port.
    pub fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn failed(&self, stage: Stage, class: ErrorClass, detail: impl Into<String>) -> LinkError {
        LinkError { server: self.name(), detail: detail.into(), class, stage }
    }

    /// A connection that is gone, or could not be made.
    fn gone(&self, stage: Stage, detail: impl Into<String>) -> LinkError {
        self.failed(stage, ErrorClass::Transient, detail)
    }
}

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Where to.
    pub topic: String,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// 1 or 2: with 0 nobody would ever know that it arrived.
    pub qos: Qos,
    /// The server keeps it for later subscribers.
    pub retain: bool,
}

#[derive(Default)]
struct State {
    news: VecDeque<News>,
    bytes: usize,
    acks: Vec<Token>,
    outgoing: VecDeque<Outgoing>,
    delivered: usize,
    failed: Option<LinkError>,
    up: bool,
    closing: bool,
}

/// What both threads see.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something came, or the connection ended.
    news: Condvar,
    /// There is room again, or something to send.
    work: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, wait: Duration) -> MutexGuard<'a, State> {
        self.news.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// An MQTT client; see the module.
pub struct Session {
    server: Arc<Server>,
    link: Option<Arc<Shared>>,
    connections: u64,
}

impl Session {
    /// A client that connects when it is first asked for something.
    pub fn new(server: Server) -> Self {
        Self { server: Arc::new(server), link: None, connections: 0 }
    }

    fn link(&mut self) -> Result<Arc<Shared>, LinkError> {
        if let Some(link) = &self.link {
            return Ok(Arc::clone(link));
        }
        self.connections += 1;
        let (shared, server, number) = (Arc::<Shared>::default(), Arc::clone(&self.server), self.connections);
        let theirs = Arc::clone(&shared);
        let spawned = std::thread::Builder::new().name("mqtt".to_owned()).spawn(move || keep(&server, number, &theirs));
        spawned.map_err(|e| self.server.gone(Stage::Link, format!("no thread for it: {e}")))?;
        self.link = Some(Arc::clone(&shared));
        Ok(shared)
    }

    /// Publishes messages and returns once the server has them all; at most `wait`.
    pub fn publish(&mut self, messages: Vec<Outgoing>, wait: Duration) -> Result<(), LinkError> {
        let (link, count) = (self.link()?, messages.len());
        let until = std::time::Instant::now() + wait;
        let mut state = link.lock();
        state.delivered = 0;
        state.outgoing.extend(messages);
        link.work.notify_one();
        while state.delivered < count {
            if let Some(error) = state.failed.take() {
                drop(state);
                self.link = None;
                return Err(error);
            }
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                drop(state);
                self.close();
                return Err(self.server.gone(Stage::Link, "the server did not take the messages in time"));
            }
            state = link.wait(state, left);
        }
        Ok(())
    }

    fn close(&mut self) {
        if let Some(link) = self.link.take() {
            link.lock().closing = true;
            link.work.notify_one();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close();
    }
}

impl Client for Session {
    fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<News>, LinkError> {
        let link = self.link()?;
        let mut state = link.lock();
        if state.news.is_empty() && state.failed.is_none() {
            state = link.wait(state, wait);
        }
        if state.news.is_empty()
            && let Some(error) = state.failed.take()
        {
            drop(state);
            self.link = None;
            return Err(error);
        }
        let count = state.news.len().min(max);
        let news: Vec<News> = state.news.drain(..count).collect();
        state.bytes = if state.news.is_empty() { 0 } else { state.bytes.saturating_sub(bytes_of(&news)) };
        drop(state);
        link.work.notify_one();
        Ok(news)
    }

    fn acknowledge(&mut self, tokens: &[Token]) {
        let Some(link) = &self.link else { return };
        let current = self.connections;
        link.lock().acks.extend(tokens.iter().filter(|t| t.connection == current));
        link.work.notify_one();
    }
}

fn bytes_of(news: &[News]) -> usize {
    news.iter().map(|n| if let News::Message(m) = n { size(m) } else { 0 }).sum()
}

fn size(message: &Message) -> usize {
    message.topic.len() + message.payload.len() + 64
}

/// The thread: one connection from its beginning to its end.
fn keep(server: &Server, number: u64, shared: &Shared) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(connection(server, number, shared)),
        Err(e) => Err(server.gone(Stage::Link, format!("no runtime for it: {e}"))),
    };
    let mut state = shared.lock();
    state.up = false;
    state.failed = Some(match ended {
        Ok(()) => server.gone(Stage::Link, "the connection was closed"),
        Err(error) => error,
    });
    shared.news.notify_all();
}

struct Link<'a> {
    server: &'a Server,
    shared: &'a Shared,
    number: u64,
    wire: Wire,
    timers: HashMap<u8, (TimerKind, Instant)>,
    session_kept: bool,
    /// Messages that came before the connection stood: a kept session sends at once.
    early: Vec<Message>,
    publishing: usize,
}

async fn connection(server: &Server, number: u64, shared: &Shared) -> Result<(), LinkError> {
    let late = |_| server.gone(Stage::Reach, "no connection within 10 seconds");
    let dialed = timeout(CONNECT_TIMEOUT, connect(&server.host, server.port, server.tls.as_ref())).await;
    let mut stream = dialed.map_err(late)?.map_err(|e| {
        let stage = if e.tls { Stage::Tls } else { Stage::Reach };
        server.failed(stage, e.class, e.detail)
    })?;
    let wire = Wire::new(server.hello.clone(), number);
    let mut link = Link {
        server,
        shared,
        number,
        wire,
        timers: HashMap::new(),
        session_kept: false,
        early: vec![],
        publishing: 0,
    };
    let mut buffer = vec![0; READ_BYTES];
    // Nothing of the server is waited for longer than this before the connection stands.
    let greeted = Instant::now() + CONNECT_TIMEOUT;
    loop {
        if link.gather() {
            link.wire.goodbye();
            let _ = timeout(SEND_TIMEOUT, stream.write_all(&link.wire.out)).await;
            let _ = timeout(SEND_TIMEOUT, stream.shutdown()).await;
            return Ok(());
        }
        link.send(&mut stream).await?;
        let (up, room) = link.standing();
        let next = link.timers.values().min_by_key(|(_, at)| *at).copied();
        tokio::select! {
            read = stream.read(&mut buffer), if room => {
                let count = read.map_err(|e| link.broken(&e))?;
                if count == 0 {
                    return Err(server.gone(Stage::Link, "the server closed the connection"));
                }
                let bytes = buffer.get(..count).unwrap_or_default();
                let found = link.wire.feed(bytes);
                link.take(found)?;
            }
            () = shared.work.notified() => {}
            () = sleep_until(greeted), if !up => return Err(server.gone(Stage::Link, "no answer within 10 seconds")),
            () = sleep_until(next.map_or_else(Instant::now, |(_, at)| at)), if next.is_some() => {
                if let Some((kind, _)) = next {
                    link.timer(kind, room)?;
                }
            }
        }
    }
}

impl Link<'_> {
    fn broken(&self, error: &io::Error) -> LinkError {
        self.server.gone(Stage::Link, format!("the connection broke: {error}"))
    }

    /// Takes what the owner wants to say; true when it wants no more.
    fn gather(&mut self) -> bool {
        let (acks, outgoing, closing) = {
            let mut state = self.shared.lock();
            let room = if state.up { PUBLISHING_MAX.saturating_sub(self.publishing) } else { 0 };
            let count = state.outgoing.len().min(room);
            let outgoing: Vec<Outgoing> = state.outgoing.drain(..count).collect();
            (std::mem::take(&mut state.acks), outgoing, state.closing)
        };
        acks.into_iter().for_each(|token| self.wire.acknowledge(token));
        let mut rest = VecDeque::new();
        for message in outgoing {
            let sent = self.wire.publish(&message.topic, &message.payload, message.qos, message.retain);
            if sent.is_some() { self.publishing += 1 } else { rest.push_back(message) }
        }
        if !rest.is_empty() {
            let mut state = self.shared.lock();
            rest.into_iter().rev().for_each(|message| state.outgoing.push_front(message));
        }
        closing
    }

    async fn send(&mut self, stream: &mut Box<dyn Stream>) -> Result<(), LinkError> {
        for (kind, after) in std::mem::take(&mut self.wire.timers) {
            match Instant::now().checked_add(after).filter(|_| after != Duration::MAX) {
                Some(at) => drop(self.timers.insert(kind as u8, (kind, at))),
                None => drop(self.timers.remove(&(kind as u8))),
            }
        }
        if self.wire.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.wire.out);
        let sent = async {
            stream.write_all(&out).await?;
            stream.flush().await
        };
        match timeout(SEND_TIMEOUT, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(self.broken(&e)),
            Err(_) => Err(self.server.gone(Stage::Link, "the server takes nothing any more")),
        }
    }

    /// Whether the connection stands, and whether there is room for what the server says.
    fn standing(&self) -> (bool, bool) {
        let state = self.shared.lock();
        (state.up, state.news.len() < AHEAD_MAX && state.bytes < AHEAD_BYTES_MAX)
    }

    fn timer(&mut self, kind: TimerKind, reading: bool) -> Result<(), LinkError> {
        if kind == TimerKind::PingrespRecv && !reading {
            // The answer may well have come: nobody reads at present.
            self.timers.insert(kind as u8, (kind, Instant::now() + self.server.hello.keep_alive));
            return Ok(());
        }
        self.timers.remove(&(kind as u8));
        let found = self.wire.timer(kind);
        if kind == TimerKind::PingrespRecv {
            return Err(self.server.gone(Stage::Link, "the server does not answer any more"));
        }
        self.take(found)
    }

    fn take(&mut self, found: Vec<Incoming>) -> Result<(), LinkError> {
        let mut state = self.shared.lock();
        for incoming in found {
            match incoming {
                Incoming::Connected { session_kept } => self.session_kept = session_kept,
                Incoming::Subscribed => {
                    state.up = true;
                    // Before any message of the connection, so that what comes again is seen as that.
                    state.news.push_back(News::Up { connection: self.number, session_kept: self.session_kept });
                    for message in self.early.drain(..) {
                        state.bytes += size(&message);
                        state.news.push_back(News::Message(message));
                    }
                }
                Incoming::Message(message) if !state.up => self.early.push(message),
                Incoming::Message(message) => {
                    state.bytes += size(&message);
                    state.news.push_back(News::Message(message));
                }
                Incoming::Delivered(_) => {
                    self.publishing = self.publishing.saturating_sub(1);
                    state.delivered += 1;
                }
                Incoming::Refused(stage, class, detail) => {
                    self.shared.news.notify_all();
                    return Err(self.server.failed(stage, class, detail));
                }
            }
        }
        self.shared.news.notify_all();
        Ok(())
    }
}
