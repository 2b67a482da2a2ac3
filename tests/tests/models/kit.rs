//! A ledger of two agencies in memory: the shipped state, and the history that a store would keep.

use bytes::Bytes;
use concordat_abci_app::sorted::SortedRun;
use concordat_abci_app::state::State;
use concordat_abci_app::state::apply::{Applied, Block, apply};
use concordat_abci_app::state::genesis::{GENESIS_VERSION, Genesis, GenesisAgency, GenesisKey};
use concordat_abci_app::state::history::{BatchKey, History, PastOp};
use concordat_abci_app::tx::Parsed;
use concordat_protocol::acts::{Act, ActBody, KeyRole};
use concordat_protocol::cbor::{self, Bytes as Raw};
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ids::{AgencyId, WriterId};
use concordat_protocol::keys::{PublicKey, Signature, SigningKey, Statement, Suite};
use concordat_protocol::ops::{Batch, LogEntry, Op, Tx, batch_hash};
use std::collections::BTreeMap;
use std::hash::{Hash as StdHash, Hasher};
use std::sync::Arc;

/// The chain.
pub const CHAIN: &str = "model";
/// Ledger time of the first block, milliseconds.
pub const START: u64 = 1_767_225_600_000;
/// The writer of the models.
pub const WRITER: &str = "police/executor";

/// A key whose post-quantum half is filler: consensus measures its length only.
pub struct Key {
    secret: SigningKey,
    pub public: PublicKey,
}

impl Key {
    pub fn of(name: &str, suite: Suite) -> Self {
        let secret = SigningKey::from_seed(Suite::Ed25519, &sha256(&[name.as_bytes()])).unwrap();
        let pq = vec![7; suite.key_lens().1];
        let public = PublicKey { suite, ed25519: secret.public().ed25519.clone(), pq: pq.into() };
        Self { secret, public }
    }

    pub fn sign(&self, statement: Statement, body: &[u8]) -> Signature {
        let ed25519 = self.secret.sign(statement, CHAIN, body).ed25519;
        let pq = vec![9; self.public.suite.signature_lens().unwrap().1];
        Signature { suite: self.public.suite, ed25519, pq: pq.into() }
    }
}

const KEYS: [(&str, KeyRole, &str); 5] = [
    ("root", KeyRole::Root, "root"),
    ("gateway", KeyRole::Gateway, "gateway"),
    ("legal", KeyRole::Approver, "legal"),
    ("steward", KeyRole::Approver, "data-steward"),
    ("executor", KeyRole::Writer, "executor"),
];

/// A key of an agency.
pub fn key(agency: &str, name: &str) -> Key {
    let role = KEYS.iter().find(|k| k.0 == name).unwrap().1;
    let hybrid = matches!(role, KeyRole::Root | KeyRole::Approver);
    Key::of(&format!("{agency}/{name}"), if hybrid { Suite::Hybrid } else { Suite::Ed25519 })
}

/// What a store would know of earlier blocks.
#[derive(Clone, Default)]
pub struct Past {
    ops: BTreeMap<u64, PastOp>,
    marks: BTreeMap<u64, u8>,
    batches: BTreeMap<BatchKey, Hash>,
}

impl History for Past {
    fn op(&self, index: u64) -> Option<PastOp> {
        self.ops.get(&index).copied()
    }
    fn marks(&self, index: u64) -> u8 {
        self.marks.get(&index).copied().unwrap_or_default()
    }
    fn batch(&self, key: &BatchKey) -> Option<Hash> {
        self.batches.get(key).copied()
    }
    fn run(&self, _: u64) -> Arc<SortedRun> {
        Arc::new(SortedRun::of(Vec::new()))
    }
}

/// The ledger after some blocks.
#[derive(Clone)]
pub struct Ledger {
    pub state: State,
    pub past: Past,
    pub entries: Vec<LogEntry>,
}

impl StdHash for Ledger {
    fn hash<H: Hasher>(&self, to: &mut H) {
        (self.state.app_hash(), self.state.head.height, self.state.head.tick_ms).hash(to);
    }
}

impl Ledger {
    /// Two agencies, police and court.
    pub fn genesis() -> Self {
        let agencies = ["court", "police"].map(|name| GenesisAgency {
            agency: agency(name),
            roles: vec!["legal".into()],
            keys: KEYS
                .iter()
                .map(|(k, role, label)| GenesisKey {
                    role: role.word().into(),
                    label: (*label).into(),
                    key: key(name, k).public.to_text(),
                })
                .collect(),
            validator: None,
        });
        let genesis = Genesis { version: GENESIS_VERSION, agencies: agencies.into(), params: BTreeMap::new() };
        let mut ledger = Self { state: State::empty(), past: Past::default(), entries: Vec::new() };
        ledger.take(genesis.apply(CHAIN).unwrap());
        ledger
    }

    /// The block's effect, beside this ledger.
    pub fn compute(&self, txs: &[Arc<Parsed>]) -> Applied {
        apply(&self.state, &self.past, &Block { height: self.state.head.height + 1, txs })
    }

    /// Commits a computed block.
    pub fn take(&mut self, block: Applied) {
        for (i, op) in block.news.ops.iter().enumerate() {
            self.past.ops.insert(block.first_index + i as u64, *op);
        }
        self.past.marks.extend(block.news.marks.clone());
        self.past.batches.extend(block.news.batches.clone());
        self.entries.extend(block.entries.clone());
        self.state.merge(block);
    }

    /// The ledger after a block.
    pub fn after(&self, txs: &[Arc<Parsed>]) -> (Self, Vec<u16>) {
        let block = self.compute(txs);
        let codes = block.results.iter().map(|r| r.code).collect();
        let mut next = self.clone();
        next.take(block);
        (next, codes)
    }

    /// A block of its tick and these transactions, a tenth of a second later.
    pub fn block(&self, txs: Vec<Arc<Parsed>>) -> (Self, Vec<u16>) {
        let ms = self.state.head.tick_ms.max(START) + 100;
        let tick = Parsed::read(concordat_abci_app::tx::tick_tx(ms));
        self.after(&std::iter::once(tick).chain(txs).collect::<Vec<_>>())
    }

    /// Numbers and hashes of the writer's operations in the log.
    pub fn written(&self) -> Vec<(u64, Hash)> {
        self.entries.iter().filter(|e| e.writer == WRITER).map(|e| (e.seq, e.op_hash)).collect()
    }
}

/// An agency's name.
pub fn agency(name: &str) -> AgencyId {
    AgencyId::new(name).unwrap()
}

/// An operation that no other state depends on, told apart by a number.
pub fn remark(n: u64) -> Op {
    Op::Annotate { reference: 0, commitment: sha256(&[&n.to_be_bytes()]) }
}

/// A batch of the models' writer.
pub fn batch(first_seq: u64, prev: Hash, ops: Vec<Op>) -> (Arc<Parsed>, Hash) {
    let writer = WriterId::new(WRITER).unwrap();
    let body = cbor::encode(&Batch { chain: CHAIN.into(), writer, incarnation: 1, first_seq, prev, ops });
    let hash = batch_hash(&body);
    (parsed(&Tx::Batch { signature: sign_batch(&body), body: Raw(body) }), hash)
}

/// The writer's signature.
pub fn sign_batch(body: &[u8]) -> [u8; 64] {
    let signature = key("police", "executor").sign(Statement::TxBatch, body);
    signature.ed25519.0.try_into().unwrap()
}

/// An act with a counter.
pub fn act(who: &str, name: &str, counter: u64, body: ActBody) -> Arc<Parsed> {
    let key = key(who, name);
    let act = Act { chain: CHAIN.into(), agency: agency(who), key_id: key.public.key_id(), counter, body };
    let body = cbor::encode(&act);
    parsed(&Tx::Act { signature: key.sign(Statement::Act, &body), body: Raw(body) })
}

fn parsed(tx: &Tx) -> Arc<Parsed> {
    Parsed::read(Bytes::from(cbor::encode(tx)))
}
