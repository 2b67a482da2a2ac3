//! One writer, two nodes that both propose, lost messages, a transaction cache, restarts of writer and nodes: the shipped
//! client ([`WriterCore`]), the shipped proposal rule and the shipped ledger together.

use crate::kit::{CHAIN, Ledger, START, WRITER, remark, sign_batch};
use bytes::Bytes;
use concordat_abci_app::proposal::{admissible, check, prepare};
use concordat_abci_app::tx::Parsed;
use concordat_broker::ledger::writer_core::{Outgoing, RESEND_MS, WriterCore};
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::WriterId;
use concordat_protocol::node::WriterView;
use concordat_protocol::ops::LogEntry;
use stateright::{Checker, Model, Property};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as StdHash, Hasher};
use std::sync::Arc;

/// What may go wrong, and how often.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Budget {
    operations: u8,
    losses: u8,
    writer_restarts: u8,
    node_restarts: u8,
    waits: u8,
}

/// The model; `forgets` seeds the bug: the writer does not keep what it signed.
struct Submission {
    forgets: bool,
}

#[derive(Clone)]
struct World {
    ledger: Arc<Ledger>,
    pools: [Vec<Arc<Parsed>>; 2],
    caches: [BTreeSet<Hash>; 2],
    wire: BTreeMap<(usize, Hash), Arc<Parsed>>,
    frames: Vec<Vec<LogEntry>>,
    core: WriterCore,
    journal: Vec<Outgoing>,
    /// Number of the next operation, so that no two are alike.
    next: u64,
    /// Operations formed into batches so far.
    formed: BTreeSet<Hash>,
    now_ms: u64,
    left: Budget,
    broken: Option<&'static str>,
}

impl World {
    fn mark(&self) -> impl StdHash + PartialEq + use<> {
        let pools = self.pools.each_ref().map(|p| p.iter().map(|t| t.hash).collect::<Vec<_>>());
        let journal: Vec<Hash> = self.journal.iter().map(|b| b.hash).collect();
        let frames: Vec<Vec<u64>> = self.frames.iter().map(|f| f.iter().map(|e| e.seq).collect()).collect();
        let wire: Vec<(usize, Hash)> = self.wire.keys().copied().collect();
        let ledger = (self.ledger.state.app_hash(), self.ledger.state.head.height);
        let core = format!("{:?}", self.core);
        (
            ledger,
            pools,
            self.caches.clone(),
            wire,
            frames,
            journal,
            core,
            (self.next, self.now_ms, self.left),
            self.broken,
        )
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pools = self.pools.each_ref().map(Vec::len);
        write!(
            f,
            "height {} pools {pools:?} journal {} {:?}",
            self.ledger.state.head.height,
            self.journal.len(),
            self.broken
        )
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.mark() == other.mark()
    }
}

impl StdHash for World {
    fn hash<H: Hasher>(&self, to: &mut H) {
        self.mark().hash(to);
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Do {
    /// The application hands in an operation, and the writer forms and keeps a batch if its window has room.
    Push,
    /// The writer forms a batch of what waits.
    Form,
    /// The writer sends what is due.
    Send,
    Deliver(usize),
    Lose(usize),
    /// A node proposes; the block is decided.
    Propose(usize),
    /// The writer reads the oldest frame.
    Frame,
    RestartWriter,
    RestartNode(usize),
    /// A second without progress.
    Wait,
}

fn view(ledger: &Ledger) -> WriterView {
    let writer = WriterId::new(WRITER).unwrap();
    let row = &ledger.state.tables.writers[&writer];
    let (last_seq, last_hash, incarnation) = (row.last_seq, row.last_hash, row.incarnation);
    WriterView { writer, key: [0; 32], incarnation, last_seq, last_hash }
}

impl Submission {
    fn form(&self, w: &mut World) {
        let formed = w.core.form(|body| Ok::<_, ()>(sign_batch(body))).unwrap();
        if let Some(batch) = formed {
            w.formed.extend(batch.op_hashes.iter().copied());
            if !self.forgets {
                w.journal.push(batch);
            }
        }
    }

    fn propose(w: &mut World, node: usize) -> Option<()> {
        let state = &w.ledger.state;
        let (now, height) = (w.now_ms.max(state.head.tick_ms + 1), state.head.height + 1);
        let waiting = w.pools[node].clone();
        let txs: Vec<Bytes> = prepare(state, waiting.clone(), now, 1_000_000, height, |_| false);
        if txs.len() < 2 {
            return None;
        }
        let known = |bytes: &Bytes| waiting.iter().find(|t| t.bytes == *bytes).cloned();
        let txs: Vec<_> = txs.into_iter().map(|b| known(&b).unwrap_or_else(|| Parsed::read(b))).collect();
        if check(state, &txs, now).is_err() {
            w.broken = Some("a node refuses another's proposal");
        }
        let before = w.ledger.entries.len();
        let (next, _) = w.ledger.after(&txs);
        w.frames.push(next.entries[before..].iter().filter(|e| e.writer == WRITER).cloned().collect());
        w.ledger = Arc::new(next);
        for pool in &mut w.pools {
            pool.retain(|t| !txs.iter().any(|in_block| in_block.hash == t.hash));
        }
        Some(())
    }

    fn restart_writer(&self, w: &mut World) {
        w.frames.clear();
        match WriterCore::resume(CHAIN, &view(&w.ledger), w.journal.clone(), w.now_ms) {
            Ok(core) => w.core = core,
            Err(_) => w.broken = Some("the writer finds another batch in its place"),
        }
        let last = view(&w.ledger).last_seq;
        w.journal.retain(|b| b.last_seq > last);
        w.left.writer_restarts -= 1;
    }
}

impl Model for Submission {
    type State = World;
    type Action = Do;

    fn init_states(&self) -> Vec<World> {
        let ledger = Arc::new(Ledger::genesis());
        let core = WriterCore::resume(CHAIN, &view(&ledger), Vec::new(), START).unwrap();
        vec![World {
            ledger,
            pools: Default::default(),
            caches: Default::default(),
            wire: BTreeMap::new(),
            frames: Vec::new(),
            core,
            journal: Vec::new(),
            next: 1,
            formed: BTreeSet::new(),
            now_ms: START,
            left: Budget { operations: 3, losses: 1, writer_restarts: 1, node_restarts: 1, waits: 2 },
            broken: None,
        }]
    }

    fn actions(&self, w: &World, out: &mut Vec<Do>) {
        if w.broken.is_some() {
            return;
        }
        if w.left.operations > 0 {
            out.push(Do::Push);
        }
        out.extend([Do::Form, Do::Send]);
        for i in 0..w.wire.len() {
            out.push(Do::Deliver(i));
            if w.left.losses > 0 {
                out.push(Do::Lose(i));
            }
        }
        out.extend((0..2).filter(|p| !w.pools[*p].is_empty()).map(Do::Propose));
        if !w.frames.is_empty() {
            out.push(Do::Frame);
        }
        if w.left.writer_restarts > 0 {
            out.push(Do::RestartWriter);
        }
        if w.left.node_restarts > 0 {
            out.extend((0..2).filter(|p| !w.caches[*p].is_empty()).map(Do::RestartNode));
        }
        if w.left.waits > 0 && w.core.uncommitted() > 0 {
            out.push(Do::Wait);
        }
    }

    fn next_state(&self, last: &World, action: Do) -> Option<World> {
        let mut w = last.clone();
        let nth = |w: &World, i: usize| w.wire.keys().nth(i).copied();
        match action {
            Do::Push => {
                w.core.push(remark(w.next));
                (w.next, w.left.operations) = (w.next + 1, w.left.operations - 1);
                self.form(&mut w);
            }
            Do::Form => self.form(&mut w),
            Do::Send => {
                for send in w.core.due(w.now_ms) {
                    let tx = Parsed::read(Bytes::from(send.tx));
                    w.wire.insert((send.attempt as usize % 2, tx.hash), tx);
                }
            }
            Do::Deliver(i) => {
                let key = nth(&w, i)?;
                let tx = w.wire.remove(&key)?;
                // CometBFT's cache: known bytes go no further, committed ones included.
                if w.caches[key.0].insert(tx.hash) && admissible(&w.ledger.state, &tx).is_ok() {
                    w.pools[key.0].push(tx);
                }
            }
            Do::Lose(i) => {
                let key = nth(&w, i)?;
                w.wire.remove(&key);
                w.left.losses -= 1;
            }
            Do::Propose(node) => Self::propose(&mut w, node)?,
            Do::Frame => {
                for entry in w.frames.remove(0) {
                    match w.core.committed(&entry, w.now_ms) {
                        Ok(Some((seq, _))) => w.journal.retain(|b| b.last_seq > seq),
                        Ok(None) => {}
                        Err(_) => w.broken = Some("the writer finds an operation that it never formed"),
                    }
                }
            }
            Do::RestartWriter => self.restart_writer(&mut w),
            Do::RestartNode(node) => {
                w.pools[node].clear();
                w.caches[node].clear();
                w.left.node_restarts -= 1;
            }
            Do::Wait => {
                w.now_ms += RESEND_MS;
                w.left.waits -= 1;
            }
        }
        (w != *last).then_some(w)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("every operation once, in order, and only what was formed", |_, w: &World| {
                let written = w.ledger.written();
                let distinct: BTreeSet<Hash> = written.iter().map(|(_, hash)| *hash).collect();
                let in_order = written.iter().enumerate().all(|(i, (seq, _))| *seq == i as u64 + 1);
                in_order && distinct.len() == written.len() && distinct.is_subset(&w.formed)
            }),
            Property::always("nobody is contradicted", |_, w: &World| {
                w.broken.is_none() && w.ledger.state.tables.equivocations.is_empty()
            }),
            Property::sometimes("all is committed after a loss and both restarts", |_, w: &World| {
                let all = w.left.operations == 0 && w.core.uncommitted() == 0 && w.ledger.written().len() == 3;
                all && w.left.losses == 0 && w.left.writer_restarts == 0
            }),
        ]
    }
}

/// How many states the bounded run looks at.
fn states() -> usize {
    std::env::var("CONCORDAT_MODEL_STATES").ok().and_then(|n| n.parse().ok()).unwrap_or(40_000)
}

#[test]
fn submission_loses_doubles_and_contradicts_nothing() {
    let checker = Submission { forgets: false }.checker().threads(2).target_state_count(states()).spawn_dfs().join();
    for name in ["every operation once, in order, and only what was formed", "nobody is contradicted"] {
        if let Some(path) = checker.discovery(name) {
            panic!("{name}: {:?}", path.into_actions());
        }
    }
    println!("{} states of a submission", checker.unique_state_count());
}

#[test]
fn a_submission_can_end_well() {
    let checker = Submission { forgets: false }.checker().threads(2).target_state_count(states()).spawn_dfs().join();
    assert!(checker.discovery("all is committed after a loss and both restarts").is_some());
}

#[test]
fn a_writer_that_forgets_what_it_signed_is_found() {
    let checker = Submission { forgets: true }.checker().threads(2).target_state_count(4 * states()).spawn_bfs().join();
    let found = checker.discovery("nobody is contradicted");
    let found = found.or_else(|| checker.discovery("every operation once, in order, and only what was formed"));
    assert!(found.is_some(), "{} states, and the seeded bug was not found", checker.unique_state_count());
}
