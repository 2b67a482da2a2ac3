//! One task owns the sessions towards one provider: it gives numbers, signs requests and opens sessions when needed.

use super::error::GatewayError;
use super::pool::{Pool, SESSION_LIFE_MS, Slot};
use super::sign::{Draft, sign};
use super::watch::LedgerWatch;
use crate::ledger::LedgerError;
use crate::ledger::acts::{sign_and_submit, submit_act};
use crate::ledger::node_client::NodeClient;
use crate::ledger::rpc::CometRpc;
use concordat_protocol::acts::{ActBody, SessionKey};
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::{SigningKey, Suite};
use concordat_protocol::limits::REQUESTS_PER_SIGNATURE;
use concordat_protocol::ops::LogEntry;
use concordat_protocol::session::{Request, SignedRequest};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc, oneshot};
use tracing::{info, warn};

/// Commands that may wait for the task.
const QUEUE: usize = 4_096;
/// While many requests are open, those of so long are signed together: the provider then verifies one signature for all
/// of them. Where few are open none waits.
const GATHER: Duration = Duration::from_millis(5);
/// How many open requests are many.
const MANY_OPEN: usize = 16;
/// How long opening rests after it failed, doubling up to the second.
const REST: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Signs and submits the gateway key's acts one after another, since they share a counter.
pub struct ActDesk {
    chain: String,
    agency: AgencyId,
    key: SigningKey,
    node: NodeClient,
    rpc: CometRpc,
    turn: Mutex<()>,
}

impl ActDesk {
    /// A desk for the gateway's key.
    pub fn new(chain: String, agency: AgencyId, key: SigningKey, node: NodeClient, rpc: CometRpc) -> Self {
        Self { chain, agency, key, node, rpc, turn: Mutex::new(()) }
    }

    /// Signs an act and waits until the ledger took it.
    pub async fn submit(&self, body: ActBody) -> Result<(u64, LogEntry), LedgerError> {
        let _turn = self.turn.lock().await;
        sign_and_submit(&self.node, &self.rpc, &self.chain, &self.agency, &self.key, body).await
    }

    /// Submits an act that a person's key signed; waits its turn, because it may be the gateway's key.
    pub async fn submit_signed(&self, tx: &[u8]) -> Result<(u64, LogEntry), LedgerError> {
        let _turn = self.turn.lock().await;
        submit_act(&self.node, &self.rpc, tx).await
    }
}

/// A request with its signature and its place. Dropping it gives the place back.
pub struct Signed {
    /// The request.
    pub request: Request,
    /// With its signature.
    pub signed: SignedRequest,
    /// When its session ends, tick milliseconds.
    pub session_ends_ms: u64,
    _place: Place,
}

struct Place {
    slot: Slot,
    commands: mpsc::WeakSender<Command>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(commands) = self.commands.upgrade() {
            let slot = self.slot;
            if commands.try_send(Command::Done(slot)).is_err() {
                // The queue is full: wait elsewhere, a place that is never given back narrows the window for ever.
                tokio::spawn(async move { commands.send(Command::Done(slot)).await });
            }
        }
    }
}

/// Where a signed request goes.
type Reply = oneshot::Sender<Result<Signed, GatewayError>>;

enum Command {
    Sign(Draft, Reply),
    Done(Slot),
    GiveUp(u64),
}

/// Handle of a provider's task. Cheap to clone.
#[derive(Clone)]
pub struct Provider {
    commands: mpsc::Sender<Command>,
}

impl Provider {
    /// Starts the task; nothing is opened before somebody asks.
    pub fn start(provider: AgencyId, chain: String, desk: Arc<ActDesk>, watch: LedgerWatch) -> Self {
        let (commands, rx) = mpsc::channel(QUEUE);
        let (opened_tx, opened) = mpsc::channel(1);
        let task = Task {
            provider,
            chain,
            desk,
            watch,
            own: commands.downgrade(),
            pool: Pool::default(),
            waiting: VecDeque::new(),
            opening: false,
            opened_tx,
            rest: None,
            signed: None,
        };
        tokio::spawn(task.run(rx, opened));
        Self { commands }
    }

    /// Gives a request its place and signs it, with others that wait at the same time.
    pub async fn sign(&self, draft: Draft) -> Result<Signed, GatewayError> {
        let gone = || GatewayError::Library("the task of this provider's sessions ended".into());
        let (tx, rx) = oneshot::channel();
        self.commands.send(Command::Sign(draft, tx)).await.map_err(|_| gone())?;
        rx.await.map_err(|_| gone())?
    }

    /// The provider or the ledger does not take this session.
    pub async fn give_up(&self, session: u64) {
        let _ = self.commands.send(Command::GiveUp(session)).await;
    }
}

type OpenedSessions = Result<Vec<(u64, SigningKey, u64)>, LedgerError>;

struct Task {
    provider: AgencyId,
    chain: String,
    desk: Arc<ActDesk>,
    watch: LedgerWatch,
    own: mpsc::WeakSender<Command>,
    pool: Pool<SigningKey>,
    waiting: VecDeque<(Draft, Reply)>,
    opening: bool,
    opened_tx: mpsc::Sender<OpenedSessions>,
    rest: Option<(Instant, Duration, String)>,
    /// When requests were last signed.
    signed: Option<Instant>,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut opened: mpsc::Receiver<OpenedSessions>) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                n = commands.recv_many(&mut batch, QUEUE) => {
                    if n == 0 {
                        return;
                    }
                    batch.drain(..).for_each(|c| self.take(c));
                }
                Some(result) = opened.recv() => self.opened(result),
                () = tokio::time::sleep(self.gathering().unwrap_or_default()), if self.gathering().is_some() => {}
            }
            if self.gathering().is_some() {
                continue;
            }
            let tick = self.watch.now().map_or(0, |n| n.tick_ms);
            self.pool.sweep(tick);
            self.serve(tick);
            self.open_if_wanted(tick);
        }
    }

    /// How much longer what waits is gathered; none where nothing waits, few are open or nothing was signed a moment ago.
    fn gathering(&self) -> Option<Duration> {
        if self.pool.open() + self.waiting.len() < MANY_OPEN {
            return None;
        }
        let since = self.signed.filter(|_| !self.waiting.is_empty())?.elapsed();
        GATHER.checked_sub(since).filter(|left| !left.is_zero())
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Sign(draft, reply) => self.waiting.push_back((draft, reply)),
            Command::Done(slot) => self.pool.done(slot),
            Command::GiveUp(session) => self.pool.drop_session(session),
        }
    }

    /// Gives places to all that wait, and signs those of one session together.
    fn serve(&mut self, tick: u64) {
        let mut by_session: BTreeMap<u64, Vec<_>> = BTreeMap::new();
        while !self.waiting.is_empty() {
            let Some(slot) = self.pool.take(tick) else { break };
            let Some((draft, reply)) = self.waiting.pop_front() else { break };
            let place = Place { slot, commands: self.own.clone() };
            by_session.entry(slot.session).or_default().push((draft.at(&self.chain, slot), place, reply));
        }
        for (session, mut group) in by_session {
            while !group.is_empty() {
                let rest = group.split_off(group.len().min(REQUESTS_PER_SIGNATURE));
                self.sign_group(session, std::mem::replace(&mut group, rest));
            }
        }
    }

    fn sign_group(&mut self, session: u64, group: Vec<(Request, Place, Reply)>) {
        let (Some(key), Some(ends)) = (self.pool.key(session), self.pool.expires_ms(session)) else { return };
        self.signed = Some(Instant::now());
        let requests: Vec<Request> = group.iter().map(|(r, ..)| r.clone()).collect();
        match sign(key, &self.chain, &requests) {
            Ok(signed) => {
                for ((request, place, reply), signed) in group.into_iter().zip(signed) {
                    let _ = reply.send(Ok(Signed { request, signed, session_ends_ms: ends, _place: place }));
                }
            }
            Err(e) => group.into_iter().for_each(|(_, _, reply)| {
                let _ = reply.send(Err(e.clone().into()));
            }),
        }
    }

    fn open_if_wanted(&mut self, tick: u64) {
        let wanted = self.pool.wanted(tick, !self.waiting.is_empty() || !self.pool.is_empty());
        if wanted == 0 || self.opening {
            return;
        }
        if let Some((until, _, why)) = self.rest.as_ref().filter(|(until, ..)| Instant::now() < *until) {
            let wait = until.saturating_duration_since(Instant::now()).as_secs() + 1;
            let why = format!("no session with {}: {why}; next attempt in {wait} s", self.provider);
            self.refuse(&why);
            return;
        }
        self.opening = true;
        let (desk, watch, provider, tx) =
            (self.desk.clone(), self.watch.clone(), self.provider.clone(), self.opened_tx.clone());
        tokio::spawn(async move {
            let result = open(&desk, &watch, provider, wanted).await;
            let _ = tx.send(result).await;
        });
    }

    fn refuse(&mut self, why: &str) {
        for (_, reply) in self.waiting.drain(..) {
            let _ = reply.send(Err(GatewayError::Ledger(why.to_owned(), "session-not-opened", true)));
        }
    }

    fn opened(&mut self, result: OpenedSessions) {
        self.opening = false;
        match result {
            Ok(sessions) => {
                self.rest = None;
                for (number, key, expires_ms) in sessions {
                    info!(provider = %self.provider, session = number, "session opened");
                    self.pool.add(number, key, expires_ms);
                }
            }
            Err(e) => {
                warn!(provider = %self.provider, error = %e, "no session opened");
                let rest = self.rest.as_ref().map_or(REST.0, |(_, last, _)| (*last * 2).min(REST.1));
                self.rest = Some((Instant::now() + rest, rest, e.to_string()));
            }
        }
    }
}

async fn open(desk: &ActDesk, watch: &LedgerWatch, provider: AgencyId, count: usize) -> OpenedSessions {
    let failed = |e: concordat_protocol::keys::KeyError| LedgerError::Protocol(e.to_string());
    let tick = watch.now().map_or(0, |n| n.tick_ms);
    let expires_ms = tick + SESSION_LIFE_MS;
    let (mut keys, mut publics) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let key = SigningKey::generate(Suite::Ed25519).map_err(failed)?;
        let public: [u8; 32] = key.public().ed25519.0.clone().try_into().unwrap_or_default();
        publics.push(SessionKey { key: public });
        keys.push((key, public));
    }
    desk.submit(ActBody::SessionOpen { provider, keys: publics, expires_ms }).await?;
    let mut out = Vec::new();
    for (key, public) in keys {
        let view = desk.node.session_by_key(public).await?;
        let view = view.ok_or_else(|| LedgerError::Protocol("an opened session is not on the ledger".into()))?;
        out.push((view.session, key, view.expires_ms));
    }
    Ok(out)
}
