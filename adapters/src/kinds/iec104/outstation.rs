//! An outstation on a thread of its own: it listens, serves the controlling station that began data last, and keeps
//! events until they are acknowledged.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use super::apci::Limits;
use super::controlled::{Controlled, Did, Event, Image};
use crate::contract::AdapterError;
use crate::dial::Stream;

/// Connections at once, whether or not they began data.
const CONNECTIONS_MAX: usize = 8;
const PATIENCE: Duration = Duration::from_secs(15);

/// What an outstation is.
pub struct Serving {
    /// Common addresses.
    pub stations: Vec<u16>,
    /// Windows and timers.
    pub limits: Limits,
    /// How TLS is spoken, if it is.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Who is there to take data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// No connection stands.
    Nobody,
    /// So many connections stand, and none of them began data.
    Waiting(usize),
    /// A controlling station takes data.
    Started,
}

#[derive(Default)]
struct State {
    /// Events that are not acknowledged, in order.
    queue: VecDeque<Event>,
    /// How many of the first ones are under way on the connection that is at work.
    under_way: usize,
    image: Image,
    /// The connection at work, 0 when there is none.
    active: u64,
    /// How many connections there were, and how many stand.
    connections: u64,
    open: usize,
    closing: bool,
}

struct Shared {
    serving: Serving,
    state: Mutex<State>,
    /// Events were acknowledged.
    taken: Condvar,
    /// There is something to send, or another connection is at work.
    work: Notify,
    /// The listener is to end.
    end: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The owner's side.
pub struct Outstation(Arc<Shared>, Option<std::thread::JoinHandle<()>>);

impl Outstation {
    /// Listens. `image` is what was sent last of each point.
    pub fn listen(address: &str, serving: Serving, image: Image) -> Result<Self, AdapterError> {
        let failed = |source| AdapterError::Io { file: address.to_owned(), action: "listen there", source };
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let shared = Arc::new(Shared {
            serving,
            state: Mutex::new(State { image, ..State::default() }),
            taken: Condvar::new(),
            work: Notify::new(),
            end: Notify::new(),
        });
        let theirs = Arc::clone(&shared);
        let serve = move || {
            runtime.block_on(async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => accept(listener, &theirs).await,
                    Err(error) => tracing::error!(%error, "the outstation cannot listen"),
                }
            });
        };
        let thread = std::thread::Builder::new().name("iec104".to_owned()).spawn(serve).map_err(failed)?;
        Ok(Self(shared, Some(thread)))
    }

    /// Takes events to send.
    pub fn push(&self, events: Vec<Event>) {
        self.0.lock().queue.extend(events);
        self.0.work.notify_waiters();
    }

    /// Forgets what is not under way.
    pub fn forget(&self) {
        let mut state = self.0.lock();
        let under_way = state.under_way;
        state.queue.truncate(under_way);
    }

    /// Waits until all events are acknowledged, at most `wait`; returns how many are not.
    pub fn wait(&self, wait: Duration) -> usize {
        let state = self.0.lock();
        let waited = self.0.taken.wait_timeout_while(state, wait, |state| !state.queue.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.queue.len()
    }

    /// Who is there to take data.
    pub fn audience(&self) -> Audience {
        let state = self.0.lock();
        match (state.active, state.open) {
            (0, 0) => Audience::Nobody,
            (0, open) => Audience::Waiting(open),
            _ => Audience::Started,
        }
    }

    /// What was sent last of each point.
    pub fn image(&self) -> Image {
        self.0.lock().image.clone()
    }
}

impl Drop for Outstation {
    fn drop(&mut self) {
        self.0.lock().closing = true;
        self.0.end.notify_one();
        // The port is free once the thread has ended.
        if let Some(thread) = self.1.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, shared: &Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.end.notified() => return,
        };
        let (Ok((tcp, _)), Ok(permit)) = (accepted, Arc::clone(&room).try_acquire_owned()) else {
            // Too many connections, or none to be had: not in a circle.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let id = {
                let mut state = shared.lock();
                state.connections += 1;
                state.open += 1;
                state.connections
            };
            if let Err(error) = serve(tcp, &shared, id).await {
                tracing::warn!(error, "a connection of a controlling station ended");
            }
            let mut state = shared.lock();
            state.open -= 1;
            if state.active == id {
                (state.active, state.under_way) = (0, 0);
            }
            drop(permit);
        });
    }
}

async fn secured(tcp: TcpStream, tls: Option<&Arc<ServerConfig>>) -> Result<Box<dyn Stream>, String> {
    let _ = tcp.set_nodelay(true);
    let Some(config) = tls else { return Ok(Box::new(tcp)) };
    let accepted = timeout(PATIENCE, TlsAcceptor::from(Arc::clone(config)).accept(tcp)).await;
    Ok(Box::new(accepted.map_err(|_| "TLS: no answer in time")?.map_err(|e| format!("TLS: {e}"))?))
}

async fn serve(tcp: TcpStream, shared: &Shared, id: u64) -> Result<(), String> {
    let mut stream = secured(tcp, shared.serving.tls.as_ref()).await?;
    let mut station = Controlled::new(shared.serving.limits, Instant::now());
    let mut buffer = vec![0; 4 * 1024];
    let mut started = false;
    loop {
        let (work, out) = {
            let mut state = shared.lock();
            if state.closing || (started && state.active != id) {
                return Ok(());
            }
            if started {
                let State { queue, under_way, image, .. } = &mut *state;
                *under_way += station.send(queue.iter().skip(*under_way), image, Instant::now());
            }
            // Asked for under the lock, so that nothing that is pushed from now on is missed.
            (shared.work.notified(), station.out())
        };
        tokio::pin!(work);
        work.as_mut().enable();
        if !out.is_empty() {
            let sent = timeout(PATIENCE, async {
                stream.write_all(&out).await?;
                stream.flush().await
            });
            sent.await.map_err(|_| "it takes nothing any more".to_owned())?.map_err(|e| e.to_string())?;
        }
        tokio::select! {
            read = stream.read(&mut buffer) => {
                let count = read.map_err(|e| e.to_string())?;
                if count == 0 {
                    return Ok(());
                }
                let bytes = buffer.get(..count).unwrap_or_default();
                if heard(shared, id, &mut station, bytes, &mut started)? {
                    let _ = timeout(PATIENCE, stream.write_all(&station.out())).await;
                    return Ok(());
                }
            }
            () = work => {}
            () = sleep_until(station.due().into()) => station.tick(Instant::now()).map_err(|e| e.to_string())?,
        }
    }
}

/// Takes bytes; true when the other side wants no more data.
fn heard(shared: &Shared, id: u64, station: &mut Controlled, bytes: &[u8], started: &mut bool) -> Result<bool, String> {
    let mut state = shared.lock();
    if *started && state.active != id {
        return Ok(true);
    }
    let (did, fed) = station.feed(bytes, Instant::now(), &shared.serving.stations, &state.image);
    let mut stopped = false;
    for did in did {
        match did {
            // Asked for once more: it is begun, and nothing is sent a second time.
            Did::Started if *started => {}
            Did::Started => {
                (state.active, state.under_way) = (id, 0);
                *started = true;
                shared.work.notify_waiters();
            }
            Did::Stopped => stopped = true,
            Did::Took(count) => {
                let count = count.min(state.under_way);
                state.queue.drain(..count);
                state.under_way -= count;
                shared.taken.notify_all();
            }
        }
    }
    fed.map_err(|e| e.to_string())?;
    Ok(stopped)
}
