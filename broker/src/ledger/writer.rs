//! The writer task: one task owns one writer's sequence.

use super::LedgerError;
use super::follow::{Followed, follow};
use super::node_client::NodeClient;
use super::rpc::{CometRpc, Submission};
use super::writer_core::{Outgoing, WriterCore};
use super::writer_journal::{Journal, Mark};
use concordat_protocol::cbor;
use concordat_protocol::codes::Verdict;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::WriterId;
use concordat_protocol::keys::{SigningKey, Statement};
use concordat_protocol::node::WriterView;
use concordat_protocol::ops::{LogEntry, Op, Tx};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

/// Operations that may wait for the task before `record` waits.
const QUEUE: usize = 16_384;
/// How often open batches are looked at for resending.
const LOOK_MS: u64 = 100;

/// Where the ledger put an operation and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Global index: `op:<index>`.
    pub index: u64,
    /// Height.
    pub height: u64,
    /// Tick, milliseconds.
    pub tick_ms: u64,
    /// Verdict.
    pub verdict: Verdict,
    /// Code.
    pub code: u16,
}

impl Recorded {
    fn of(index: u64, e: &LogEntry) -> Self {
        Self { index, height: e.height, tick_ms: e.tick_ms, verdict: e.verdict, code: e.code }
    }
}

/// What a writer needs.
pub struct WriterSetup {
    /// Chain id.
    pub chain: String,
    /// The writer.
    pub writer: WriterId,
    /// Its key.
    pub key: SigningKey,
    /// The journal's file.
    pub journal: PathBuf,
    /// The own node.
    pub node: NodeClient,
    /// Where batches are sent first.
    pub rpc: CometRpc,
    /// Other agencies' brokers (`http://host:port`), for batches that the own node does not get committed.
    pub peers: Vec<String>,
    /// The term of the executor it writes for; none where nobody else may take over.
    pub term: Option<u64>,
}

struct Command {
    op: Op,
    done: Option<oneshot::Sender<Recorded>>,
}

/// Handle of a writer task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer {
    commands: mpsc::Sender<Command>,
    /// Hashes of the operations that the journal still held at start: they may be committed without anyone asking again.
    reopened: Arc<Vec<Hash>>,
}

impl Writer {
    /// Starts the task. It waits for the node to answer and for the writer to be registered.
    pub async fn start(setup: WriterSetup) -> Result<Self, LedgerError> {
        let journal = Journal::open(&setup.journal)?.under(setup.term)?;
        let mark = journal.mark()?;
        let (head, view) = wait_for_writer(&setup, mark).await?;
        let kept = journal.load()?;
        if let Some(seq) = foreign(&view, mark, &kept) {
            journal.conflict(view.incarnation, seq)?;
            return Err(LedgerError::Equivocation(seq));
        }
        let open = kept.into_iter().filter(|b| b.last_seq >= view.last_seq).map(|b| signed_again(&setup, b));
        let open = open.collect::<Result<Vec<Outgoing>, _>>()?;
        let reopened = open.iter().filter(|b| b.last_seq > view.last_seq).flat_map(|b| b.op_hashes.clone()).collect();
        let core = match WriterCore::resume(&setup.chain, &view, open, 0) {
            Ok(core) => core,
            Err(c) => {
                journal.conflict(view.incarnation, c.0)?;
                return Err(LedgerError::Equivocation(c.0));
            }
        };
        journal.committed(Mark {
            incarnation: view.incarnation,
            last_seq: view.last_seq,
            last_hash: view.last_hash,
        })?;
        info!(writer = %setup.writer, last_seq = view.last_seq, open = core.uncommitted(), "writer goes on");
        let (commands, rx) = mpsc::channel(QUEUE);
        let task = Task {
            setup: Arc::new(setup),
            core,
            journal,
            next_wait: view.last_seq + 1,
            waiting: BTreeMap::new(),
            started: Instant::now(),
            formed_ms: 0,
        };
        tokio::spawn(task.run(rx, head));
        Ok(Self { commands, reopened: Arc::new(reopened) })
    }

    /// Hashes of operations that were on their way when the process last stopped.
    pub fn reopened(&self) -> &[Hash] {
        &self.reopened
    }

    /// Records an operation and waits for the ledger's verdict, however long that takes.
    pub async fn record(&self, op: Op) -> Result<Recorded, LedgerError> {
        let (done, verdict) = oneshot::channel();
        self.commands.send(Command { op, done: Some(done) }).await.map_err(|_| LedgerError::Stopped)?;
        verdict.await.map_err(|_| LedgerError::Stopped)
    }

    /// Records an operation without waiting.
    pub async fn enqueue(&self, op: Op) -> Result<(), LedgerError> {
        self.commands.send(Command { op, done: None }).await.map_err(|_| LedgerError::Stopped)
    }
}

/// The number at which the ledger has something under this writer that it did not write; a journal without a mark
/// knows nothing yet and takes the ledger's word.
fn foreign(view: &WriterView, mark: Option<Mark>, kept: &[Outgoing]) -> Option<u64> {
    let mark = mark.filter(|m| m.incarnation == view.incarnation)?;
    if mark.last_seq == view.last_seq {
        return (mark.last_hash != view.last_hash).then_some(mark.last_seq);
    }
    let end = kept.iter().map(|b| b.last_seq).max().unwrap_or_default().max(mark.last_seq);
    (view.last_seq > end).then_some(end + 1)
}

/// The height is read before the writer's view: entries between the two are replayed and passed over by the core. A node
/// that does not have yet what this writer saw committed is waited for.
async fn wait_for_writer(setup: &WriterSetup, mark: Option<Mark>) -> Result<(u64, WriterView), LedgerError> {
    let mut said = false;
    loop {
        let asked =
            async { Ok::<_, LedgerError>((setup.node.head().await?.height, setup.node.writer(&setup.writer).await?)) };
        let why = match asked.await {
            Ok((_, Some(view)))
                if mark.is_some_and(|m| (m.incarnation, m.last_seq) > (view.incarnation, view.last_seq)) =>
            {
                format!("the own node has this writer up to {} only: it is catching up", view.last_seq)
            }
            Ok((height, Some(view))) if view.key.as_slice() == setup.key.public().ed25519.0.as_slice() => {
                return Ok((height, view));
            }
            Ok((_, Some(_))) => {
                return Err(LedgerError::Refused {
                    code: 203,
                    text: format!("{} is registered with another key", setup.writer),
                });
            }
            Ok((_, None)) => "the writer is not registered on the ledger yet".to_owned(),
            Err(e) => e.to_string(),
        };
        if !said {
            info!(writer = %setup.writer, why, "waiting for the ledger");
            said = true;
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

struct Task {
    setup: Arc<WriterSetup>,
    core: WriterCore,
    journal: Journal,
    /// Sequence number that the next pushed operation will get.
    next_wait: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Recorded>>,
    started: Instant,
    /// When the last batch was formed, as [`Task::now_ms`].
    formed_ms: u64,
}

impl Task {
    fn now_ms(&self) -> u64 {
        // 0 means "never" in the core.
        self.started.elapsed().as_millis() as u64 + 1
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>, head: u64) {
        let mut frames = follow(self.setup.node.path(), head + 1, vec![self.setup.writer.to_string()]);
        let mut look = tokio::time::interval(Duration::from_millis(LOOK_MS));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        self.next_wait += self.core.uncommitted() as u64;
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                n = commands.recv_many(&mut batch, 4_096) => {
                    if n == 0 {
                        return;
                    }
                    batch.drain(..).for_each(|c| self.push(c));
                }
                followed = frames.next() => match followed {
                    Followed::Frame(frame) => {
                        if let Err(e) = self.take(&frame.entries) {
                            error!(writer = %self.setup.writer, error = %e, "the writer stops");
                            return;
                        }
                    }
                    Followed::Lost(why) => warn!(writer = %self.setup.writer, why, "frames lost"),
                },
                () = rest(self.core.rest_ms(self.now_ms().saturating_sub(self.formed_ms))) => {}
                _ = look.tick() => {}
            }
            if let Err(e) = self.send_due() {
                error!(writer = %self.setup.writer, error = %e, "the writer stops");
                return;
            }
        }
    }

    fn push(&mut self, command: Command) {
        if let Some(done) = command.done {
            self.waiting.insert(self.next_wait, done);
        }
        self.next_wait += 1;
        self.core.push(command.op);
    }

    fn take(&mut self, entries: &[(u64, LogEntry)]) -> Result<(), LedgerError> {
        let now = self.now_ms();
        let mut done = None;
        for (index, entry) in entries {
            match self.core.committed(entry, now) {
                Ok(Some(last)) => done = Some(last),
                Ok(None) => {}
                Err(c) => {
                    tokio::task::block_in_place(|| self.journal.conflict(self.core.incarnation(), c.0))?;
                    return Err(LedgerError::Equivocation(c.0));
                }
            }
            if let Some(done) = self.waiting.remove(&entry.seq) {
                let _ = done.send(Recorded::of(*index, entry));
            }
        }
        let Some((last_seq, last_hash)) = done else { return Ok(()) };
        let mark = Mark { incarnation: self.core.incarnation(), last_seq, last_hash };
        tokio::task::block_in_place(|| self.journal.committed(mark))
    }

    fn send_due(&mut self) -> Result<(), LedgerError> {
        while self.core.rest_ms(self.now_ms().saturating_sub(self.formed_ms)) == Some(0) {
            let setup = self.setup.clone();
            let Some(batch) = self.core.form(|body| sign(&setup, body))? else { break };
            self.formed_ms = self.now_ms();
            // An fsync: the runtime's other tasks move to another thread meanwhile.
            tokio::task::block_in_place(|| self.journal.keep(&batch))?;
        }
        for send in self.core.due(self.now_ms()) {
            tokio::spawn(deliver(self.setup.clone(), send.tx, send.attempt));
        }
        Ok(())
    }
}

/// Waits until a batch is to be formed, for ever where none is.
async fn rest(ms: Option<u64>) {
    match ms {
        Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        None => std::future::pending().await,
    }
}

/// What the journal kept may be signed with the writer's key of before: the same body is signed with the one of now.
fn signed_again(setup: &WriterSetup, batch: Outgoing) -> Result<Outgoing, LedgerError> {
    match cbor::decode::<Tx>(&batch.tx) {
        Ok(Tx::Batch { body, .. }) => {
            let signature = sign(setup, &body)?;
            Ok(Outgoing { tx: cbor::encode(&Tx::Batch { body, signature }), ..batch })
        }
        _ => Err(LedgerError::Protocol("the journal holds something else than a batch".into())),
    }
}

fn sign(setup: &WriterSetup, body: &[u8]) -> Result<[u8; 64], LedgerError> {
    let signature =
        setup.key.try_sign(Statement::TxBatch, &setup.chain, body).map_err(|e| LedgerError::Protocol(e.to_string()))?;
    signature.ed25519.0.try_into().map_err(|_| LedgerError::Protocol("the writer's key must be Ed25519".into()))
}

/// One attempt. The answer is only a hint: the writer's sequence on the ledger is truth.
async fn deliver(setup: Arc<WriterSetup>, tx: Vec<u8>, attempt: u32) {
    let ways = setup.peers.len() as u32 + 1;
    let way = attempt % ways;
    if way == 0 {
        match setup.rpc.submit(&tx).await {
            Submission::Pending => {}
            Submission::Unknown(why) => warn!(writer = %setup.writer, attempt, why, "batch not taken yet"),
            Submission::Refused { code, text } => {
                warn!(writer = %setup.writer, attempt, code, text, "batch refused by CheckTx")
            }
        }
        return;
    }
    let url = format!("{}/v1/ledger/batches", setup.peers[way as usize - 1]);
    let client = reqwest::Client::new();
    let sent = client.post(&url).timeout(Duration::from_secs(5)).body(tx).send().await;
    if let Err(e) = sent {
        warn!(writer = %setup.writer, attempt, url, error = %e, "another agency's node did not take the batch");
    }
}
