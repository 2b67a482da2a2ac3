//! A connection to an outstation on a thread of its own: it keeps the timers whatever its owner does, and stops reading
//! while its owner takes nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

use super::controlling::{Came, Controlling, End, Plan};
use super::frame::{Control, Frame, Reader};
use crate::contract::{AdapterError, ErrorClass};
use crate::dial::{REFUSED_HINT, Stream, certificate_refused, connect, tls_error};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// Frames that are read ahead of the owner.
const AHEAD_MAX: usize = 1_024;

/// Where an outstation is, and what is said to it.
#[derive(Clone)]
pub struct Line {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How TLS is spoken, if it is.
    pub tls: Option<Arc<ClientConfig>>,
    /// What is said.
    pub plan: Plan,
}

/// What came, in order.
#[derive(Debug, Clone)]
pub enum News {
    /// A connection stands; frames of the one before come no more.
    Up {
        /// Its number, from 1.
        connection: u64,
    },
    /// A frame.
    Frame {
        /// Its number on the connection, from 0.
        number: u64,
        /// The ASDU.
        asdu: Vec<u8>,
        /// When it came.
        received: Timestamp,
    },
}

impl Line {
    /// Host and port.
    pub fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn failed(&self, class: ErrorClass, code: &'static str, detail: impl std::fmt::Display) -> AdapterError {
        AdapterError::source_failed(class, code, format!("{}: {detail}", self.name()))
    }

    fn gone(&self, detail: impl std::fmt::Display) -> AdapterError {
        self.failed(ErrorClass::Transient, "source.unreachable", detail)
    }

    fn broke(&self, error: &std::io::Error) -> AdapterError {
        if tls_error(error).is_none() {
            return self.gone(format!("the connection broke: {error}"));
        }
        let class = if certificate_refused(error) { ErrorClass::Auth } else { ErrorClass::Transient };
        self.failed(class, "source.tls", format!("TLS: {error}; if it stays so, {REFUSED_HINT}"))
    }

    fn ended(&self, end: End) -> AdapterError {
        match end {
            End::Broken(broken @ super::frame::Broken::Silent { .. }) => self.gone(broken),
            End::Broken(broken) => self.failed(ErrorClass::Transient, "source.protocol", broken),
            End::Refused { .. } => self.failed(ErrorClass::Permanent, "source.missing", end),
            End::Unanswered { .. } => self.failed(ErrorClass::Transient, "source.timeout", end),
        }
    }

    async fn dial(&self) -> Result<Box<dyn Stream>, AdapterError> {
        let dialed = timeout(CONNECT_TIMEOUT, connect(&self.host, self.port, self.tls.as_ref())).await;
        dialed.map_err(|_| self.gone("no connection within 10 seconds"))?.map_err(|e| {
            let code = if e.tls { "source.tls" } else { "source.unreachable" };
            self.failed(e.class, code, e.detail)
        })
    }

    /// Connects and asks whether anybody is there. It does not let data begin: that would take it from whoever has it.
    pub fn knock(&self) -> Result<(), AdapterError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| self.gone(e))?;
        runtime.block_on(async {
            let mut stream = self.dial().await?;
            let answer = timeout(self.plan.limits.t1, async {
                stream.write_all(&Frame::Control(Control::TestAct).encode()).await.map_err(|e| self.broke(&e))?;
                let (mut reader, mut buffer) = (Reader::default(), [0; 512]);
                loop {
                    let count = stream.read(&mut buffer).await.map_err(|e| self.broke(&e))?;
                    if count == 0 {
                        return Err(self.gone("the outstation closed the connection"));
                    }
                    let frames = reader.feed(buffer.get(..count).unwrap_or_default());
                    if frames.map_err(|e| self.ended(e.into()))?.contains(&Frame::Control(Control::TestCon)) {
                        return Ok(());
                    }
                }
            });
            answer.await.map_err(|_| self.gone("it does not answer a test frame"))?
        })
    }
}

#[derive(Default)]
struct State {
    news: VecDeque<News>,
    acknowledged: u64,
    failed: Option<AdapterError>,
    closing: bool,
    complete: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something came, or the connection ended.
    news: Condvar,
    /// There is room again, or something to acknowledge.
    work: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections to an outstation, one at a time.
pub struct Session {
    line: Arc<Line>,
    link: Option<Arc<Shared>>,
    connections: u64,
}

impl Session {
    /// A session that connects when it is first asked for something.
    pub fn new(line: Line) -> Self {
        Self { line: Arc::new(line), link: None, connections: 0 }
    }

    /// Host and port.
    pub fn name(&self) -> String {
        self.line.name()
    }

    fn link(&mut self) -> Result<Arc<Shared>, AdapterError> {
        if let Some(link) = &self.link {
            return Ok(Arc::clone(link));
        }
        self.connections += 1;
        let (shared, line, number) = (Arc::<Shared>::default(), Arc::clone(&self.line), self.connections);
        let theirs = Arc::clone(&shared);
        let spawned = std::thread::Builder::new().name("iec104".to_owned()).spawn(move || keep(&line, number, &theirs));
        spawned.map_err(|e| self.line.gone(format!("no thread for it: {e}")))?;
        self.link = Some(Arc::clone(&shared));
        Ok(shared)
    }

    /// What came, at most `max`; waits for it up to `wait`. Connects when there is no connection. An error comes after
    /// everything that was read before it, and ends the connection.
    pub fn receive(&mut self, max: usize, wait: Duration) -> Result<Vec<News>, AdapterError> {
        let link = self.link()?;
        let mut state = link.lock();
        if state.news.is_empty() && state.failed.is_none() {
            state = link.news.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.news.is_empty()
            && let Some(error) = state.failed.take()
        {
            drop(state);
            self.link = None;
            return Err(error);
        }
        let count = state.news.len().min(max);
        let news = state.news.drain(..count).collect();
        drop(state);
        link.work.notify_one();
        Ok(news)
    }

    /// All frames before a number of a connection are safe with us; nothing happens when it is gone.
    pub fn acknowledge(&mut self, connection: u64, before: u64) {
        let Some(link) = self.link.as_ref().filter(|_| connection == self.connections) else { return };
        let mut state = link.lock();
        if before > state.acknowledged {
            state.acknowledged = before;
            link.work.notify_one();
        }
    }

    /// True once every station has told its whole state on this connection.
    pub fn complete(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.lock().complete)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            link.lock().closing = true;
            link.work.notify_one();
        }
    }
}

/// The thread: one connection from its beginning to its end.
fn keep(line: &Line, number: u64, shared: &Shared) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(connection(line, number, shared)),
        Err(e) => Err(line.gone(format!("no runtime for it: {e}"))),
    };
    let closed = || line.gone("the connection was closed");
    shared.lock().failed = Some(ended.err().unwrap_or_else(closed));
    shared.news.notify_all();
}

async fn connection(line: &Line, number: u64, shared: &Shared) -> Result<(), AdapterError> {
    let mut stream = line.dial().await?;
    let mut station = Controlling::new(line.plan.clone(), Instant::now());
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let (closing, room, acknowledged) = {
            let mut state = shared.lock();
            state.complete |= station.complete();
            (state.closing, state.news.len() < AHEAD_MAX, state.acknowledged)
        };
        if closing {
            // Without an end of data: what is not acknowledged stays at the outstation.
            return Ok(());
        }
        station.acknowledge(acknowledged);
        send(line, &mut stream, station.out()).await?;
        tokio::select! {
            read = stream.read(&mut buffer), if room => {
                let count = read.map_err(|e| line.broke(&e))?;
                if count == 0 {
                    return Err(line.gone("the outstation closed the connection"));
                }
                let bytes = buffer.get(..count).unwrap_or_default();
                let (came, ended) = station.feed(bytes, Instant::now(), Timestamp::now());
                take(shared, number, came);
                ended.map_err(|end| line.ended(end))?;
            }
            () = shared.work.notified() => {}
            () = sleep_until(station.due().into()) => station.tick(Instant::now()).map_err(|end| line.ended(end))?,
        }
    }
}

fn take(shared: &Shared, connection: u64, came: Vec<Came>) {
    let received = Timestamp::now();
    shared.lock().news.extend(came.into_iter().map(|came| match came {
        Came::Up => News::Up { connection },
        Came::Frame { number, asdu } => News::Frame { number, asdu, received },
    }));
    shared.news.notify_all();
}

async fn send(line: &Line, stream: &mut Box<dyn Stream>, out: Vec<u8>) -> Result<(), AdapterError> {
    if out.is_empty() {
        return Ok(());
    }
    let sent = async {
        stream.write_all(&out).await?;
        stream.flush().await
    };
    match timeout(SEND_TIMEOUT, sent).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(line.broke(&e)),
        Err(_) => Err(line.gone("the outstation takes nothing any more")),
    }
}
