//! Crashes between the steps of a block: decided, finalized, committed, and CometBFT's own note of it. What the application
//! keeps is written once, in Commit, so that a block that comes again gives the same app hash.

use crate::kit::{Ledger, batch, remark};
use concordat_abci_app::tx::{Parsed, tick_tx};
use concordat_protocol::hash::Hash;
use stateright::{Checker, Model, Property};
use std::hash::{Hash as StdHash, Hasher};
use std::sync::Arc;

/// Blocks of the chain.
const BLOCKS: usize = 4;
/// Crashes in a life.
const CRASHES: u8 = 3;

/// The model; `early` seeds the bug: the height is kept at FinalizeBlock already, what the block did only at Commit.
struct Recovery {
    early: bool,
    blocks: Vec<Vec<Arc<Parsed>>>,
    expected: Vec<Hash>,
}

#[derive(Clone)]
struct Node {
    /// What is on disk.
    disk: Arc<Ledger>,
    /// The height that the disk names.
    height: usize,
    /// A finalized block that is not committed.
    memory: Option<Arc<Ledger>>,
    /// Blocks in CometBFT's store.
    decided: usize,
    /// The height that CometBFT has noted as applied.
    noted: usize,
    crashes: u8,
}

impl Node {
    fn mark(&self) -> impl StdHash + PartialEq + use<> {
        let memory = self.memory.as_ref().map(|m| m.state.app_hash());
        (self.disk.state.app_hash(), self.height, memory, self.decided, self.noted, self.crashes)
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.mark() == other.mark()
    }
}

impl StdHash for Node {
    fn hash<H: Hasher>(&self, to: &mut H) {
        self.mark().hash(to);
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "disk {} decided {} noted {}", self.height, self.decided, self.noted)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Do {
    Decide,
    Finalize,
    Commit,
    Note,
    Crash,
}

impl Recovery {
    fn new(early: bool) -> Self {
        let (mut prev, mut blocks) = ([0; 32], Vec::new());
        for n in 0..BLOCKS as u64 {
            let (tx, hash) = batch(n * 2 + 1, prev, vec![remark(2 * n), remark(2 * n + 1)]);
            prev = hash;
            let tick = Parsed::read(tick_tx(crate::kit::START + n * 100));
            blocks.push(vec![tick, tx]);
        }
        let mut expected = vec![Ledger::genesis().state.app_hash()];
        let mut ledger = Ledger::genesis();
        for block in &blocks {
            ledger = ledger.after(block).0;
            expected.push(ledger.state.app_hash());
        }
        Self { early, blocks, expected }
    }

    fn finalize(&self, node: &mut Node) {
        node.memory = Some(Arc::new(node.disk.after(&self.blocks[node.height]).0));
        node.height += usize::from(self.early);
    }

    fn commit(&self, node: &mut Node) {
        if let Some(next) = node.memory.take() {
            node.disk = next;
            node.height += usize::from(!self.early);
        }
    }
}

impl Model for Recovery {
    type State = Node;
    type Action = Do;

    fn init_states(&self) -> Vec<Node> {
        let disk = Arc::new(Ledger::genesis());
        vec![Node { disk, height: 0, memory: None, decided: 0, noted: 0, crashes: CRASHES }]
    }

    fn actions(&self, node: &Node, out: &mut Vec<Do>) {
        if node.decided == node.noted && node.decided < BLOCKS {
            out.push(Do::Decide);
        }
        if node.decided > node.height && node.memory.is_none() {
            out.push(Do::Finalize);
        }
        if node.memory.is_some() {
            out.push(Do::Commit);
        }
        if node.height == node.decided && node.noted < node.decided {
            out.push(Do::Note);
        }
        if node.crashes > 0 {
            out.push(Do::Crash);
        }
    }

    fn next_state(&self, last: &Node, action: Do) -> Option<Node> {
        let mut node = last.clone();
        match action {
            Do::Decide => node.decided += 1,
            Do::Finalize => self.finalize(&mut node),
            Do::Commit => self.commit(&mut node),
            Do::Note => node.noted = node.decided,
            Do::Crash => {
                // Memory is gone. The handshake replays what the application's disk does not have.
                (node.memory, node.crashes) = (None, node.crashes - 1);
                while node.height < node.decided {
                    self.finalize(&mut node);
                    self.commit(&mut node);
                }
                node.noted = node.decided;
            }
        }
        Some(node)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the disk has the app hash of its height", |m: &Self, node: &Node| {
                m.early && node.memory.is_some() || node.disk.state.app_hash() == m.expected[node.height]
            }),
            Property::always("every operation once", |_, node: &Node| {
                let written = node.disk.written();
                written.iter().enumerate().all(|(i, (seq, _))| *seq == i as u64 + 1)
            }),
            Property::sometimes("the end is reached after every crash", |m: &Self, node: &Node| {
                node.crashes == 0 && node.noted == BLOCKS && node.disk.state.app_hash() == m.expected[BLOCKS]
            }),
        ]
    }
}

#[test]
fn a_crash_at_any_step_gives_the_same_chain() {
    Recovery::new(false).checker().spawn_bfs().join().assert_properties();
}

#[test]
fn keeping_the_height_before_the_block_is_found() {
    let checker = Recovery::new(true).checker().spawn_bfs().join();
    assert!(checker.discovery("the disk has the app hash of its height").is_some());
}
