//! The loop that owns the step and the release store.

#![allow(
    clippy::result_large_err,
    reason = "a denial is as usual an outcome as an answer, and it moves only a few times"
)]

#[path = "query_effects.rs"]
mod effects;
#[path = "gated.rs"]
mod gated;
#[path = "repeat.rs"]
mod repeat;
#[path = "resume.rs"]
mod resume;
#[path = "write_loop.rs"]
mod write_loop;

use super::HostError;
use super::bounded;
use super::calls::Sessions;
use super::feed::{Feeds, View};
use super::fetch::Fetcher;
use super::hosted::Gate;
use super::job::{Done, Job};
use super::lead::Lead;
use super::listen::Listener;
use super::policy::{Policies, load_documents};
use super::releases::{ReleaseStore, Round};
use super::stages::{Passage, Stage, Stages};
use super::subjects::Subjects;
use crate::config::NodeConfig;
use crate::ledger::follow::{Followed, follow};
use crate::ledger::node_client::NodeClient;
use crate::ledger::writer::Writer;
use concordat_executor::answer;
use concordat_executor::holding::Fate;
use concordat_executor::step::{Effect, Input, Key, ReplyTo, Step};
use concordat_protocol::keys::PublicKey;
use concordat_protocol::node::Frame;
use concordat_protocol::session::Denied;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, watch};
use tracing::warn;

/// Calls that may be prepared at once: enough to keep a networked store busy while others are sealed.
const PREPARING: usize = 16;
/// Messages that may wait for the loop.
const QUEUE: usize = 8_192;
/// Messages the loop takes in one round.
const ROUND: usize = 512;
/// How often old response bytes are forgotten.
const PRUNE: Duration = Duration::from_secs(60);

/// What comes to the loop from its workers.
pub(super) enum Message {
    Call(Box<Job>, async_nats::Subject, Instant),
    Prepared(Key, Box<Result<Done, Denied>>),
    Applied(Key, Option<Fate>),
}

/// What the loop holds of a call on its way.
struct Live {
    job: Arc<Job>,
    done: Option<Done>,
    passage: Passage,
}

/// The host's parts.
pub struct Host {
    /// Configuration.
    pub cfg: Arc<NodeConfig>,
    /// The own node.
    pub node: NodeClient,
    /// The executor's writer.
    pub writer: Writer,
    /// The streams.
    pub nats: async_nats::Client,
    /// The release store.
    pub store: ReleaseStore,
    /// The worker.
    pub fetcher: Arc<Fetcher>,
    /// What subscriptions are asked of.
    pub feeds: Arc<Feeds>,
    /// Who is told of a person's accesses, and forgets.
    pub subjects: Arc<Subjects>,
    /// Newest tick and agreements, for the feeds.
    pub view: watch::Sender<View>,
    /// Whether this executor is at work.
    pub lead: Arc<Lead>,
    /// Where the time of queries goes.
    pub stages: Arc<Stages>,
    /// The last look before a release, where the agency has no node of its own.
    pub gate: Option<Gate>,
}

struct Loop {
    host: Host,
    step: Step,
    live: BTreeMap<Key, Live>,
    replies: BTreeMap<ReplyTo, async_nats::Subject>,
    next_reply: ReplyTo,
    meta_rev: u64,
    policies: Arc<Policies>,
    messages: mpsc::Sender<Message>,
    sessions: Arc<Sessions>,
    permits: Arc<Semaphore>,
    started: Instant,
    /// Height at the start: up to it, nobody knows how long ago a block was made.
    made_before: u64,
}

impl Host {
    /// Serves until the store or the writer fails.
    pub async fn run(self) -> Result<(), HostError> {
        let (messages, mut inbox) = mpsc::channel(QUEUE);
        let mut this = Loop {
            step: Step::default(),
            live: BTreeMap::new(),
            replies: BTreeMap::new(),
            next_reply: 1,
            meta_rev: u64::MAX,
            policies: Arc::new(Policies::resumed(&self.cfg.dir).map_err(HostError::Enforced)?),
            messages,
            sessions: Arc::new(Sessions::new(self.node.clone())),
            permits: Arc::new(Semaphore::new(PREPARING)),
            started: Instant::now(),
            made_before: u64::MAX,
            host: self,
        };
        let head = this.host.node.head().await?;
        this.made_before = head.height;
        let from = this.restore(head.height, head.tick_ms)?;
        let writer = format!("{}/executor", this.host.cfg.agency);
        let mut frames = follow(this.host.node.path(), from, vec![writer]);
        this.refresh_policies(head.meta_rev).await?;
        while this.step.height() < head.height {
            if let Followed::Frame(frame) = frames.next().await {
                this.frame(frame).await?;
            }
        }
        this.drop_unrecorded()?;
        this.caught_up().await?;
        bounded::record_again(&this.host.store, &this.host.writer).await?;
        Listener::new(&this.host, &this.sessions, &this.messages).listen().await?;
        let mut prune = tokio::time::interval(PRUNE);
        let mut batch = Vec::with_capacity(ROUND);
        loop {
            tokio::select! {
                _ = inbox.recv_many(&mut batch, ROUND) => {
                    let inputs: Vec<Input> = batch.drain(..).filter_map(|m| this.take(m)).collect();
                    this.advance(inputs, None).await?;
                }
                followed = frames.next() => match followed {
                    Followed::Frame(frame) => this.frame(frame).await?,
                    Followed::Lost(why) => {
                        warn!(why, "the ledger node is lost: nothing is released until it is back");
                        this.host.view.send_modify(|v| v.lost = true);
                        this.advance(vec![Input::Lost], None).await?;
                    }
                },
                _ = prune.tick() => {
                    this.sweep()?;
                    this.count_denials().await?;
                }
            }
        }
    }
}

impl Loop {
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Forgets what is too old to be asked for again, in memory and in the store.
    fn sweep(&mut self) -> Result<(), HostError> {
        let tick = self.step.tick_ms().unwrap_or_default();
        self.host.subjects.erased_up_to(self.step.height())?;
        self.step.sweep();
        let left = self.sessions.sweep(tick);
        self.host.fetcher.forget_sessions(|s| !left.contains(&s));
        Ok(self.host.store.prune(tick).map(|_| ())?)
    }

    /// Records how often each session was denied beyond what was recorded one by one.
    async fn count_denials(&mut self) -> Result<(), HostError> {
        let (now, tick) = (self.now_ms(), self.step.tick_ms().unwrap_or_default());
        for (session, reason, count) in self.step.counted_denials(now) {
            match answer::deny_count(session, &reason, count, tick) {
                Ok(op) => self.record(op).await?,
                Err(e) => warn!(session, reason, count, error = %e, "denials not counted on the ledger"),
            }
        }
        Ok(())
    }

    async fn refresh_policies(&mut self, meta_rev: u64) -> Result<(), HostError> {
        let views = self.host.node.agreements().await?;
        let mut keys: BTreeMap<_, PublicKey> = BTreeMap::new();
        for id in views.iter().flat_map(|v| v.approvals.iter().map(|a| a.key_id)).collect::<BTreeSet<_>>() {
            if let Some(view) = self.host.node.key(id).await? {
                keys.insert(id, view.key);
            }
        }
        let cfg = &self.host.cfg;
        let documents = load_documents(&cfg.dir);
        let policies = Policies::build(&self.policies, &cfg.agency, &cfg.chain, &views, &documents, &keys);
        policies.keep(&self.policies, &cfg.dir, &self.host.lead).map_err(HostError::NotKept)?;
        self.policies = Arc::new(policies);
        self.host.fetcher.set_policies(self.policies.clone());
        self.host.fetcher.forget_keys();
        self.meta_rev = meta_rev;
        self.step.step(Input::Agreements { standings: self.policies.standings() }, self.now_ms());
        Ok(())
    }

    /// The newest agreements come before the frame that changed them, so that nothing is released on old ones.
    async fn frame(&mut self, frame: Frame) -> Result<(), HostError> {
        if frame.meta_rev != self.meta_rev {
            // Feeds wait too until the newest agreements are known.
            self.host.view.send_modify(|v| v.lost = true);
            while let Err(e) = self.refresh_policies(frame.meta_rev).await {
                warn!(error = %e, "agreements cannot be read: nothing is released");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        let height = frame.height;
        let seen = View::at_block(self.policies.clone(), self.meta_rev, frame.tick_ms, height > self.made_before);
        self.host.view.send_replace(seen);
        let mut inputs = self.gated(&frame.entries).await?;
        inputs.push(Input::Frame { height, tick_ms: frame.tick_ms, entries: frame.entries });
        self.advance(inputs, Some(height)).await
    }

    fn take(&mut self, message: Message) -> Option<Input> {
        match message {
            Message::Call(job, subject, arrived) => {
                let key = (job.call.request.session, job.call.request.n);
                let reply = self.next_reply;
                self.next_reply += 1;
                self.replies.insert(reply, subject);
                let call = job.call.clone();
                let mut passage = Passage::begin(arrived);
                passage.leave(Stage::Admit);
                self.live.entry(key).or_insert_with(|| Live { job: Arc::new(*job), done: None, passage });
                Some(Input::Call { call, reply })
            }
            Message::Prepared(key, result) => {
                let result = match *result {
                    Ok(done) => {
                        let prepared = done.prepared.clone();
                        let live = self.live.get_mut(&key)?;
                        live.done = Some(done);
                        live.passage.leave(Stage::Prepare);
                        Ok(prepared)
                    }
                    Err(denied) => Err(denied),
                };
                Some(Input::Prepared { key, result })
            }
            Message::Applied(key, fate) => Some(Input::Applied { key, fate }),
        }
    }

    /// Steps through inputs and carries out their effects, round by round: one durable write a round.
    async fn advance(&mut self, inputs: Vec<Input>, cursor: Option<u64>) -> Result<(), HostError> {
        let mut inputs: VecDeque<Input> = inputs.into();
        let mut cursor = cursor;
        while !inputs.is_empty() {
            let now = self.now_ms();
            let mut effects = Vec::new();
            for input in inputs.drain(..) {
                effects.extend(self.step.step(input, now));
            }
            let (round, after) = self.sort(effects);
            let (stored, marked) = (
                round.stores.iter().map(|r| r.key).collect::<Vec<_>>(),
                round.released.iter().map(|r| r.0).chain(round.writes.marked()).collect::<Vec<_>>(),
            );
            let concluded = round.writes.settled();
            let round = Round { cursor: cursor.take().filter(|_| !round.is_empty()), ..round };
            if !round.is_empty() {
                tokio::task::block_in_place(|| self.host.store.write(&round))?;
                stored.iter().for_each(|key| self.leave(*key, Stage::Store));
            }
            for (_, index) in &round.withheld {
                let op = answer::withheld(*index, "not-released").map_err(|e| HostError::Nats(e.to_string()))?;
                self.host.writer.enqueue(op).await?;
            }
            for effect in after {
                self.carry_out(effect).await?;
            }
            if !stored.is_empty() {
                inputs.push_back(Input::Stored { keys: stored });
            }
            if !marked.is_empty() {
                inputs.push_back(Input::Marked { keys: marked });
            }
            inputs.extend(concluded);
        }
        Ok(())
    }

    /// Splits effects into what must be durable first and what follows.
    fn sort(&mut self, effects: Vec<Effect>) -> (Round, Vec<Effect>) {
        let (mut round, mut after) = (Round::default(), Vec::new());
        let tick = self.step.tick_ms().unwrap_or_default();
        for effect in effects {
            let Some(effect) = self.sort_write(&mut round.writes, effect, tick) else { continue };
            match effect {
                Effect::Store { key } => {
                    let done = self.live.get(&key).and_then(|l| l.done.as_ref());
                    round.stores.extend(done.map(|d| d.row.clone()));
                    round.writes.stores.extend(done.and_then(|d| Some((key, (**d.write.as_ref()?).clone()))));
                }
                Effect::MarkReleased { key, index, height } => {
                    self.leave(key, Stage::Order);
                    if let Some(released) =
                        self.live.get_mut(&key).and_then(|l| l.done.as_mut()).and_then(|d| d.released.as_mut())
                    {
                        (released.ticket.log_index, released.ticket.height) = (index, height);
                    }
                    round.released.push((key, index, height, tick));
                }
                Effect::MarkClosed { key, index } => round.closed.push((key, index)),
                Effect::Withhold { key, index } => round.withheld.push((key, index)),
                other => after.push(other),
            }
        }
        (round, after)
    }
}
