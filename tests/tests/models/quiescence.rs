//! The chain comes to rest: whatever clients send, every transaction leaves every mempool by inclusion, and then blocks of
//! their tick alone keep the app hash, so that CometBFT makes no further ones.

use crate::kit::{Ledger, START, act, batch, remark};
use concordat_abci_app::proposal::{admissible, prepare};
use concordat_abci_app::tx::Parsed;
use concordat_protocol::acts::ActBody;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::DatasetId;
use stateright::{Checker, Model, Property};
use std::hash::{Hash as StdHash, Hasher};
use std::sync::Arc;

/// Blocks within which everything must have left.
const REST: usize = 8;

/// The model; `waits` seeds the bug: what has a gap before it is left out for ever.
struct Quiescence {
    waits: bool,
    txs: Vec<Arc<Parsed>>,
}

#[derive(Clone)]
struct Chain {
    ledger: Arc<Ledger>,
    pool: Vec<Arc<Parsed>>,
    sent: Vec<bool>,
}

impl Chain {
    fn mark(&self) -> impl StdHash + PartialEq + use<> {
        let pool: Vec<Hash> = self.pool.iter().map(|t| t.hash).collect();
        (self.ledger.state.app_hash(), pool, self.sent.clone())
    }

    /// A block of this node; `overdue` says that everything has waited long enough.
    fn block(&self, overdue: bool) -> Self {
        let state = &self.ledger.state;
        let (now, height) = (state.head.tick_ms.max(START) + 100, state.head.height + 1);
        let txs = prepare(state, self.pool.clone(), now, 1_000_000, height, |_| overdue);
        let txs: Vec<_> = txs.into_iter().map(Parsed::read).collect();
        let mut next = self.clone();
        next.ledger = Arc::new(self.ledger.after(&txs).0);
        next.pool.retain(|t| !txs.iter().any(|in_block| in_block.hash == t.hash));
        next
    }
}

impl PartialEq for Chain {
    fn eq(&self, other: &Self) -> bool {
        self.mark() == other.mark()
    }
}

impl StdHash for Chain {
    fn hash<H: Hasher>(&self, to: &mut H) {
        self.mark().hash(to);
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "height {} waiting {} sent {:?}", self.ledger.state.head.height, self.pool.len(), self.sent)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Do {
    Send(usize),
    Block,
    /// A block when everything has waited longer than a gap may last.
    Late,
}

impl Quiescence {
    fn new(waits: bool) -> Self {
        let dataset = |name: &str| ActBody::Dataset {
            id: DatasetId::new(format!("ds:police/{name}@1")).unwrap(),
            schema_hash: [1; 32],
        };
        let (first, hash) = batch(1, [0; 32], vec![remark(1)]);
        let txs = vec![
            first,
            batch(2, hash, vec![remark(2)]).0,
            // Another one in the first's place, and one after a gap.
            batch(1, [0; 32], vec![remark(3)]).0,
            batch(9, [9; 32], vec![remark(4)]).0,
            act("police", "gateway", 1, dataset("a")),
            act("police", "gateway", 5, dataset("b")),
        ];
        Self { waits, txs }
    }
}

impl Model for Quiescence {
    type State = Chain;
    type Action = Do;

    fn init_states(&self) -> Vec<Chain> {
        vec![Chain { ledger: Arc::new(Ledger::genesis()), pool: Vec::new(), sent: vec![false; self.txs.len()] }]
    }

    fn actions(&self, chain: &Chain, out: &mut Vec<Do>) {
        out.extend((0..self.txs.len()).filter(|i| !chain.sent[*i]).map(Do::Send));
        if !chain.pool.is_empty() {
            out.extend([Do::Block, Do::Late]);
        }
    }

    fn next_state(&self, last: &Chain, action: Do) -> Option<Chain> {
        Some(match action {
            Do::Send(i) => {
                let mut next = last.clone();
                next.sent[i] = true;
                if admissible(&next.ledger.state, &self.txs[i]).is_ok() {
                    next.pool.push(Arc::clone(&self.txs[i]));
                }
                next
            }
            Do::Block => last.block(false),
            Do::Late => last.block(!self.waits),
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a block of its tick alone changes nothing", |_, chain: &Chain| {
                let (after, _) = chain.ledger.block(Vec::new());
                after.state.app_hash() == chain.ledger.state.app_hash()
            }),
            Property::always("everything leaves and the chain rests", |m: &Self, chain: &Chain| {
                let mut at = chain.clone();
                for _ in 0..REST {
                    if at.pool.is_empty() {
                        return true;
                    }
                    at = at.block(!m.waits);
                }
                at.pool.is_empty()
            }),
            Property::sometimes("all were sent and have left", |_, chain: &Chain| {
                chain.sent.iter().all(|s| *s) && chain.pool.is_empty()
            }),
        ]
    }
}

#[test]
fn the_chain_comes_to_rest() {
    Quiescence::new(false).checker().threads(2).spawn_bfs().join().assert_properties();
}

#[test]
fn a_gap_that_waits_for_ever_is_found() {
    let checker = Quiescence::new(true).checker().threads(2).spawn_bfs().join();
    assert!(checker.discovery("everything leaves and the chain rests").is_some());
}
