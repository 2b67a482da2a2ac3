//! A small city for tests: agencies with keys, a clock that is set by hand, and a chain driven by the mock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use concordat_protocol::acts::{Act, ActBody, ApprovalKind, KeyRole, SessionKey};
use concordat_protocol::cbor;
use concordat_protocol::codes::Verdict;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ids::{AgencyId, AgreementId, DatasetId, WriterId};
use concordat_protocol::keys::{KeyId, PublicKey, Signature, Statement, Suite, signed_bytes};
use concordat_protocol::node::{AgreementView, NodeReply, NodeRequest};
use concordat_protocol::ops::{Batch, LogEntry, Op, Tags, Tx, batch_hash};
use concordat_protocol::terms::Terms;
use ed25519_dalek::{Signer, SigningKey};

use crate::app::App;
use crate::clock::Clock;
use crate::mock::{Decided, Mock};
use crate::pool::MempoolLimits;
use crate::query::ask;
use crate::state::genesis::{Genesis, GenesisAgency, GenesisKey};
use crate::store::Store;

pub use super::terms::{Agreement, approvers, clause, terms};

/// Chain of the test city.
pub const CHAIN: &str = "test-city";
/// Ledger time at which tests begin: 2026-01-01T00:00:00Z.
pub const START: u64 = 1_767_225_600_000;
/// A UTC day.
pub const DAY: u64 = 86_400_000;

/// A clock set by hand; clones are one clock.
#[derive(Clone)]
pub struct TestClock(Arc<(AtomicU64, AtomicU64)>);

impl TestClock {
    /// Moves ledger and monotonic time.
    pub fn advance(&self, ms: u64) {
        self.0.0.fetch_add(ms, Ordering::SeqCst);
        self.0.1.fetch_add(ms, Ordering::SeqCst);
    }
    /// Sets the wall clock alone.
    pub fn set_wall(&self, ms: u64) {
        self.0.0.store(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.0.load(Ordering::SeqCst)
    }
    fn monotonic_ms(&self) -> u64 {
        self.0.1.load(Ordering::SeqCst)
    }
}

/// A key pair made from a name. Post-quantum parts are filler of the right length: consensus only measures them.
#[derive(Clone)]
pub struct Key {
    secret: SigningKey,
    pub public: PublicKey,
}

impl Key {
    pub fn new(name: &str, suite: Suite) -> Self {
        let secret = SigningKey::from_bytes(&sha256(&[name.as_bytes()]));
        let pq = vec![7; suite.key_lens().1];
        let ed25519 = if suite == Suite::XWing { vec![] } else { secret.verifying_key().to_bytes().to_vec() };
        Self { secret, public: PublicKey { suite, ed25519: ed25519.into(), pq: pq.into() } }
    }
    pub fn id(&self) -> KeyId {
        self.public.key_id()
    }
    pub fn sign(&self, st: Statement, chain: &str, body: &[u8]) -> Signature {
        let ed = self.secret.sign(&signed_bytes(st, chain, body)).to_bytes().to_vec();
        let pq = vec![9; self.public.suite.signature_lens().unwrap().1];
        Signature { suite: self.public.suite, ed25519: ed.into(), pq: pq.into() }
    }
    pub fn point(&self) -> [u8; 32] {
        self.public.ed25519.0.as_slice().try_into().unwrap()
    }
}

/// The keys every agency of the test city has: (name, role, label).
pub const KEYS: [(&str, KeyRole, &str); 9] = [
    ("root", KeyRole::Root, "root"),
    ("gateway", KeyRole::Gateway, "gateway"),
    ("legal", KeyRole::Approver, "legal"),
    ("steward", KeyRole::Approver, "data-steward"),
    ("security", KeyRole::Security, "security"),
    ("executor", KeyRole::Writer, "executor"),
    ("broker", KeyRole::Writer, "broker"),
    ("release", KeyRole::Release, "release"),
    ("cosign", KeyRole::Cosign, "cosign"),
];

pub fn suite_of(role: KeyRole) -> Suite {
    match role {
        KeyRole::Root | KeyRole::Approver | KeyRole::Cosign => Suite::Hybrid,
        _ => Suite::Ed25519,
    }
}

pub fn key(agency: &str, name: &str) -> Key {
    let role = KEYS.iter().find(|k| k.0 == name).map_or(KeyRole::Writer, |k| k.1);
    Key::new(&format!("{agency}/{name}"), suite_of(role))
}

pub fn agency(name: &str) -> AgencyId {
    AgencyId::new(name).unwrap()
}

pub fn genesis() -> Genesis {
    let agencies = ["court", "grid", "police"].map(|a| GenesisAgency {
        agency: agency(a),
        roles: vec!["legal".into()],
        keys: KEYS
            .iter()
            .map(|(name, role, label)| GenesisKey {
                role: role.word().into(),
                label: (*label).into(),
                key: key(a, name).public.to_text(),
            })
            .collect(),
        validator: None,
    });
    Genesis { version: 1, agencies: agencies.into(), params: BTreeMap::new() }
}

/// Where a writer's sequence stands for the test's client.
#[derive(Clone, Default)]
pub struct Seq {
    pub last: u64,
    pub prev: Hash,
}

/// The test city.
pub struct City {
    pub clock: TestClock,
    pub mock: Mock<App>,
    pub dir: tempfile::TempDir,
    pub writers: BTreeMap<String, Seq>,
    counters: BTreeMap<(KeyId, bool), u64>,
}

impl City {
    /// A chain at genesis.
    pub fn new() -> Self {
        Self::with(&[])
    }

    fn with(params: &[(&str, u64)]) -> Self {
        let mut genesis = genesis();
        genesis.params = params.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Self::of(&genesis)
    }

    /// A chain at a genesis of one's own.
    pub fn of(genesis: &Genesis) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = TestClock(Arc::new((AtomicU64::new(START), AtomicU64::new(0))));
        let app = open(&dir.path().join("state.redb"), &clock);
        let mock = Mock::new(app, CHAIN, &serde_json::to_string(genesis).unwrap());
        Self { clock, mock, dir, writers: BTreeMap::new(), counters: BTreeMap::new() }
    }

    /// A chain with the stops dataset, an active agreement police -> court, and a session.
    pub fn ready() -> (Self, Agreement) {
        Self::ready_with(&[])
    }

    /// [`City::ready`] under other parameters.
    pub fn ready_with(params: &[(&str, u64)]) -> (Self, Agreement) {
        let mut city = Self::with(params);
        let agreement = city.agree(&terms("AGR-1", 1));
        let session = city.open_session("court", "police", "s1");
        (city, Agreement { session, ..agreement })
    }

    pub fn store_path(&self) -> PathBuf {
        self.dir.path().join("state.redb")
    }

    /// The application starts again on what it stored.
    pub fn reopen(&mut self) {
        let spare = open(&self.dir.path().join("spare.redb"), &self.clock);
        drop(std::mem::replace(&mut self.mock.app, spare));
        let app = open(&self.store_path(), &self.clock);
        self.mock.restart(app);
    }

    pub fn app_hash(&self) -> Bytes {
        self.mock.app_hash()
    }

    pub fn ask(&self, question: &NodeRequest) -> NodeReply {
        ask(&self.mock.app, question)
    }

    /// A signed act with the next counter of its key.
    pub fn act(&mut self, who: &str, name: &str, body: ActBody) -> Bytes {
        let key = key(who, name);
        let counter = self.counters.entry((key.id(), body.is_urgent())).or_default();
        *counter += 1;
        signed_act(who, &key, *counter, body)
    }

    /// Submits an act, makes a block, and gives its code.
    pub fn do_act(&mut self, who: &str, name: &str, body: ActBody) -> u16 {
        let tx = self.act(who, name, body);
        self.mock.submit(tx.clone());
        let block = self.tick();
        let at = block.txs.iter().position(|t| *t == tx).expect("the act is in the block");
        block.results[at].code as u16
    }

    /// A block 100 ms later.
    pub fn tick(&mut self) -> Decided {
        self.clock.advance(100);
        self.mock.block()
    }

    /// The next batch of a writer.
    pub fn batch(&mut self, writer: &str, ops: Vec<Op>) -> Bytes {
        let seq = self.writers.entry(writer.into()).or_default();
        let (tx, hash) = signed_batch(writer, 1, seq.last + 1, seq.prev, ops.clone());
        seq.last += ops.len() as u64;
        seq.prev = hash;
        tx
    }

    /// Submits operations as one batch, makes a block, and gives verdict and code of each.
    pub fn write(&mut self, writer: &str, ops: Vec<Op>) -> Vec<(Verdict, u16)> {
        let before = self.log_size();
        let tx = self.batch(writer, ops);
        self.mock.submit(tx);
        self.tick();
        self.log(before).into_iter().map(|e| (e.verdict, e.code)).collect()
    }

    /// [`City::write`] of one operation.
    pub fn say(&mut self, writer: &str, op: Op) -> (Verdict, u16) {
        self.write(writer, vec![op])[0]
    }

    pub fn log_size(&self) -> u64 {
        let NodeReply::Head { body } = self.ask(&NodeRequest::Head {}) else { panic!() };
        body.log_size
    }

    /// Log entries from an index on.
    pub fn log(&self, from: u64) -> Vec<LogEntry> {
        let NodeReply::Log { entries, .. } = self.ask(&NodeRequest::Log { from, count: 10_000 }) else { panic!() };
        entries
    }

    pub fn view(&self, id: &str, version: u64) -> AgreementView {
        let NodeReply::Agreements { body } = self.ask(&NodeRequest::Agreements {}) else { panic!() };
        body.into_iter().find(|a| a.agreement.as_str() == id && a.version == version).expect("agreement")
    }

    pub fn dataset(&mut self, id: &str) -> u64 {
        let id = DatasetId::new(id).unwrap();
        let body = ActBody::Dataset { id: id.clone(), schema_hash: [1; 32] };
        let owner = id.owner();
        let code = self.do_act(owner.as_str(), "gateway", body);
        assert!(code == 0 || code == concordat_protocol::codes::DATASET_EXISTS);
        let NodeReply::Datasets { body } = self.ask(&NodeRequest::Datasets {}) else { panic!() };
        body.iter().find(|d| d.id == id).unwrap().number
    }

    pub fn propose(&mut self, terms: &Terms) -> u16 {
        self.dataset(terms.dataset.as_str());
        let now = self.clock.now_ms();
        let body = ActBody::Propose { terms: cbor::encode(terms).into(), expires_ms: now + DAY };
        self.do_act(terms.assigner.as_str(), "gateway", body)
    }

    /// An approval by the key of this name, for what the version wants now.
    pub fn approve(&mut self, terms: &Terms, prev: Hash, what: ApprovalKind, who: &str, name: &str) -> u16 {
        let body = self.approval(terms, prev, what, name);
        self.do_act(who, name, body)
    }

    pub fn approval(&self, terms: &Terms, prev: Hash, what: ApprovalKind, name: &str) -> ActBody {
        let revision = self.view(terms.agreement.as_str(), terms.version).revision;
        ActBody::Approve {
            agreement: terms.agreement.clone(),
            version: terms.version,
            revision,
            what,
            terms_hash: terms.hash(),
            prev_terms_hash: prev,
            role: KEYS.iter().find(|k| k.0 == name).unwrap().2.into(),
            expires_ms: self.clock.now_ms() + DAY,
        }
    }

    /// Proposes and approves a version; gives its handles.
    pub fn agree(&mut self, terms: &Terms) -> Agreement {
        self.agree_after(terms, [0; 32])
    }

    pub fn agree_after(&mut self, terms: &Terms, prev: Hash) -> Agreement {
        assert_eq!(self.propose(terms), 0);
        for (who, name) in approvers(terms) {
            assert_eq!(self.approve(terms, prev, ApprovalKind::Activate, &who, name), 0, "{who} {name}");
        }
        let view = self.view(terms.agreement.as_str(), terms.version);
        Agreement { handles: view.handles, session: 0 }
    }

    /// Opens a session with a key made from a name; gives its number.
    pub fn open_session(&mut self, consumer: &str, provider: &str, name: &str) -> u64 {
        self.open_session_for(consumer, provider, name, DAY)
    }

    pub fn open_session_for(&mut self, consumer: &str, provider: &str, name: &str, life: u64) -> u64 {
        let point = Key::new(name, Suite::Ed25519).point();
        let expires_ms = self.clock.now_ms() + life;
        let keys = vec![SessionKey { key: point }];
        let body = ActBody::SessionOpen { provider: agency(provider), keys, expires_ms };
        assert_eq!(self.do_act(consumer, "gateway", body), 0);
        let NodeReply::Session { body: Some(view) } = self.ask(&NodeRequest::SessionByKey { key: point }) else {
            panic!("session is open")
        };
        view.session
    }

    pub fn clock_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub fn day(&self) -> u64 {
        self.clock.now_ms() / DAY
    }

    /// A query under a handle.
    pub fn query(&self, handle: u64, session: u64, n: u64) -> Op {
        Op::Query { handle, session, n, day: self.day(), tags: Tags::none(), commitment: [n as u8; 32] }
    }

    pub fn deliver(&self, handle: u64, last_sub_seq: u64, count: u64, oldest_ms: u64) -> Op {
        let (day, root, commitment) = (self.day(), [2; 32], [3; 32]);
        Op::Deliver {
            handle,
            subscription: handle,
            last_sub_seq,
            count,
            root,
            oldest_ms,
            day,
            tags: Tags::none(),
            commitment,
        }
    }

    pub fn suspend(&mut self, who: &str, name: &str) -> u16 {
        let body = ActBody::Suspend { agreement: AgreementId::new("AGR-1").unwrap(), version: 1, reason: [0; 32] };
        self.do_act(who, name, body)
    }

    pub fn revoke(&mut self, who: &str, name: &str) -> u16 {
        let body = ActBody::Revoke { agreement: AgreementId::new("AGR-1").unwrap(), version: 1, reason: [0; 32] };
        self.do_act(who, name, body)
    }
}

pub fn open(path: &std::path::Path, clock: &TestClock) -> App {
    App::new(Store::open(path).unwrap(), clock.clone(), MempoolLimits::default()).unwrap()
}

pub fn signed_act(who: &str, key: &Key, counter: u64, body: ActBody) -> Bytes {
    let act = Act { chain: CHAIN.into(), agency: agency(who), key_id: key.id(), counter, body };
    let body = cbor::encode(&act);
    let signature = key.sign(Statement::Act, CHAIN, &body);
    Bytes::from(cbor::encode(&Tx::Act { body: body.into(), signature }))
}

pub fn signed_batch(writer: &str, incarnation: u64, first_seq: u64, prev: Hash, ops: Vec<Op>) -> (Bytes, Hash) {
    let (who, name) = writer.split_once('/').unwrap();
    batch_by(&key(who, name), writer, incarnation, first_seq, prev, ops)
}

pub fn batch_by(key: &Key, writer: &str, incarnation: u64, first_seq: u64, prev: Hash, ops: Vec<Op>) -> (Bytes, Hash) {
    let writer = WriterId::new(writer).unwrap();
    let body = cbor::encode(&Batch { chain: CHAIN.into(), writer, incarnation, first_seq, prev, ops });
    let hash = batch_hash(&body);
    let signature = key.sign(Statement::TxBatch, CHAIN, &body).ed25519.0.try_into().unwrap();
    (Bytes::from(cbor::encode(&Tx::Batch { body: body.into(), signature })), hash)
}
