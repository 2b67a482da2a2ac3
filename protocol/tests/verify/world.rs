//! A city of four agencies whose keys come from seeds, so that everything but ML-DSA signatures is the same each run.

pub use crate::chain::*;
use crate::comet::block;
use concordat_protocol::acts::{Act, ActBody, KeyRole, act_hash};
use concordat_protocol::cbor::{Bytes, encode};
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::keys::{KeyId, SigningKey, Statement, Suite};
use concordat_protocol::leaves::{LeafSet, commitment as names};
use concordat_protocol::node::{
    EntryProof, KeyView, LeafProof, SessionLeaf, StoreRoots, key_leaf_key, session_leaf_key,
};
use concordat_protocol::ops::{LogEntry, Op, Tags, log_key};
use concordat_protocol::receipt::{self, Checkpoint, CheckpointPart, Cosign, Cosignature, Parts, Receipt, app_hash};
use concordat_protocol::session::{Content, Release, Request, SignedRequest};
use concordat_protocol::tree;
use concordat_protocol::verify::comet::Packed;
use std::collections::BTreeMap;

pub const CHAIN: &str = "concordat-test";
pub const AGENCIES: [&str; 4] = ["court", "grid", "police", "transport"];
pub const TICK: u64 = 1_790_000_000_000;

pub fn agency(name: &str) -> AgencyId {
    AgencyId::new(name).unwrap()
}

/// What a receipt is to be about; tests change what they need.
pub struct Spec {
    pub seed: &'static str,
    pub session: u64,
    pub n: u64,
    pub index: u64,
    pub log_size: u64,
    pub height: u64,
    pub verdict: Verdict,
    pub code: u16,
    pub revoked_ms: u64,
    pub compromised_since_ms: u64,
    pub release_role: KeyRole,
    pub release_agency: &'static str,
    pub provider: &'static str,
    pub purpose: &'static str,
    pub opened_purpose: &'static str,
    pub open: fn(&str) -> bool,
    pub vals: Vec<Val>,
    pub signers: Vec<usize>,
    pub cosigners: Vec<&'static str>,
    pub cosign_epoch: u64,
    pub op: Option<fn(&mut Op)>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            seed: "a",
            session: 7,
            n: 3,
            index: 29,
            log_size: 37,
            height: 12,
            verdict: Verdict::Accepted,
            code: codes::OK,
            revoked_ms: 0,
            compromised_since_ms: 0,
            release_role: KeyRole::Release,
            release_agency: "police",
            provider: "police",
            purpose: "purp:pending-case",
            opened_purpose: "purp:pending-case",
            open: |name| name != names::ACTOR && name != names::ROWS_HASH,
            vals: vals("a"),
            signers: vec![0, 1, 2, 3],
            cosigners: vec![],
            cosign_epoch: 0,
            op: None,
        }
    }
}

/// All parts of a receipt, before they are put together.
pub struct Made {
    pub proof: EntryProof,
    pub op: Op,
    pub openings: Vec<u8>,
    pub signed: SignedRequest,
    pub release: Vec<u8>,
    pub release_key: KeyId,
    pub block: Packed,
    pub checkpoint: Option<CheckpointPart>,
    pub content: Content,
}

impl Made {
    pub fn parts(&self, op: &'static [u8]) -> Parts<'_> {
        Parts {
            chain: CHAIN,
            proof: &self.proof,
            op,
            openings: Some(&self.openings),
            request: Some(&self.signed),
            release: Some((&self.release, self.release_key)),
            header: &self.block.header,
            validators: &self.block.validators,
            checkpoint: self.checkpoint.as_ref(),
        }
    }

    pub fn receipt(&self) -> Receipt {
        let op = encode(&self.op);
        receipt::build(Parts { op: &op, ..self.parts(&[]) }).unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.receipt().to_bytes().unwrap()
    }
}

pub fn content(seed: &str) -> Content {
    let rows = (0..3).map(|i| Bytes(format!("{{\"stop_id\":\"{seed}-{i}\"}}").into_bytes())).collect();
    Content { secret: sha256(&[b"content/", seed.as_bytes()]), rows }
}

fn request(s: &Spec) -> Request {
    Request {
        chain: CHAIN.into(),
        session: s.session,
        n: s.n,
        provider: agency(s.provider),
        dataset: DatasetId::new("ds:police/stops@1").unwrap(),
        clause: "C1".into(),
        purpose: s.purpose.into(),
        case: "27-CR-2026".into(),
        query_hash: sha256(&[b"query/", s.seed.as_bytes()]),
        kem_key_id: KeyId([4; 16]),
        not_after_ms: TICK + 60_000,
    }
}

fn leaves(s: &Spec, q: &Request, c: &Content) -> LeafSet {
    let text = |t: &str| t.as_bytes().to_vec();
    let fields: BTreeMap<String, Vec<u8>> = [
        (names::CONSUMER, text("court")),
        (names::ACTOR, text("clerk-4711")),
        (names::CLAUSE, text("AGR-2026-0142/C1")),
        (names::PURPOSE, text(s.opened_purpose)),
        (names::CASE, text("27-CR-2026")),
        (names::REQUEST_HASH, q.hash().to_vec()),
        (names::ROWS_HASH, sha256(&[b"rows"]).to_vec()),
        (names::COUNT, (c.rows.len() as u64).to_be_bytes().to_vec()),
        (names::CONTENT_ROOT, c.root().to_vec()),
        (names::BEFORE, vec![]),
        (names::AFTER, vec![]),
        (names::EVIDENCE, text("strict")),
        (names::OPEN_BY, vec![]),
    ]
    .map(|(n, v)| (n.to_owned(), v))
    .into();
    LeafSet::new(&sha256(&[b"commitment/", s.seed.as_bytes()]), fields).unwrap()
}

/// Five requests under one signature; ours is the fourth.
fn sign_request(q: &Request, key: &SigningKey) -> SignedRequest {
    let mut leaves: Vec<Hash> = (0..5u8).map(|i| tree::leaf_hash(&[i, q.n as u8])).collect();
    leaves[3] = tree::leaf_hash(&encode(q));
    let root = tree::root(&leaves);
    let signature = key.sign(Statement::Request, CHAIN, &encode(&root));
    SignedRequest {
        request: Bytes(encode(q)),
        index: 3,
        size: 5,
        path: tree::inclusion_path(&leaves, 3).unwrap(),
        signature: signature.ed25519.0.try_into().unwrap(),
    }
}

/// A tree in which `key` and `value` stand at `index` among other leaves.
pub fn planted(seed: &str, key: Vec<u8>, value: Vec<u8>, index: u64, size: u64) -> (Hash, LeafProof) {
    let other = |i: u64| tree::value_leaf(format!("{seed}/{i}").as_bytes(), &i.to_be_bytes());
    let mut leaves: Vec<Hash> = (0..size).map(other).collect();
    leaves[index as usize] = tree::value_leaf(&key, &value);
    let path = tree::inclusion_path(&leaves, index as usize).unwrap();
    (tree::root(&leaves), LeafProof { key: Bytes(key), value: Bytes(value), index, size, path })
}

pub fn make(s: &Spec) -> Made {
    let session_key = key(Suite::Ed25519, &format!("session/{}", s.session));
    let release_key = key(Suite::Ed25519, &format!("release/{}", s.release_agency));
    let (q, content) = (request(s), content(s.seed));
    let set = leaves(s, &q, &content);
    let mut op = Op::Query {
        handle: 5,
        session: s.session,
        n: s.n,
        day: TICK / 86_400_000,
        tags: Tags::List(vec![[9; 16]; 4]),
        commitment: set.root(),
    };
    if let Some(change) = s.op {
        change(&mut op);
    }
    let entry = LogEntry {
        height: s.height,
        tick_ms: TICK,
        writer: "police/executor".into(),
        incarnation: 1,
        seq: 900 + s.n,
        op_hash: op.hash(),
        verdict: s.verdict,
        code: s.code,
    };
    let session = SessionLeaf {
        consumer: agency("court"),
        provider: agency(s.provider),
        key: session_key.public().ed25519.0.clone().try_into().unwrap(),
        expires_ms: TICK + 3_600_000,
        newest_n: s.n,
        window_hash: [3; 32],
    };
    let view = KeyView {
        agency: agency(s.release_agency),
        role: s.release_role,
        label: "executor".into(),
        key: release_key.public().clone(),
        revoked_ms: s.revoked_ms,
        compromised_since_ms: s.compromised_since_ms,
    };
    let (log, entry_leaf) = planted("log", log_key(s.index).to_vec(), encode(&entry), s.index, s.log_size);
    let (heads, session_leaf) = planted("heads", session_leaf_key(s.session), encode(&session), 2, 11 + s.session);
    let id = release_key.key_id();
    let (meta, key_leaf) = planted("meta", key_leaf_key(&id), encode(&view), 6, 20 + s.session);
    let roots = StoreRoots { heads, log, meta, runs: tree::empty_root() };
    let release = Release { request_hash: q.hash(), op_hash: op.hash(), content_root: content.root() };
    let signature = release_key.sign(Statement::Release, CHAIN, &encode(&release));
    Made {
        openings: encode(&set.redact(s.open)),
        signed: sign_request(&q, &session_key),
        release: signature.ed25519.0,
        release_key: id,
        block: block(s, &app_hash(&roots)),
        checkpoint: cosign(s, &roots),
        proof: EntryProof {
            height: s.height,
            roots,
            entry: entry_leaf,
            keys: vec![key_leaf],
            session: Some(session_leaf),
        },
        op,
        content,
    }
}

pub fn cosign(s: &Spec, roots: &StoreRoots) -> Option<CheckpointPart> {
    let (tick_ms, log_size) = (TICK + 500, s.log_size);
    let checkpoint = Checkpoint { chain: CHAIN.into(), height: s.height, tick_ms, log_size, roots: roots.clone() };
    let one = |name: &&str| {
        let body = Cosign { checkpoint: checkpoint.clone(), agency: agency(name), archived_height: 4 };
        let signature = sign_fixed(&cosign_name(name, s.cosign_epoch), Statement::Cosign, &encode(&body));
        Cosignature { agency: agency(name), archived_height: 4, signature }
    };
    let cosignatures: Vec<_> = s.cosigners.iter().map(one).collect();
    (!cosignatures.is_empty()).then_some(CheckpointPart { tick_ms, log_size, cosignatures })
}

/// Puts another operation in the place of the query's.
pub fn with_entry(spec: &Spec, writer: &str, op: Vec<u8>, op_hash: Hash, seq: u64) -> Receipt {
    let mut made = make(spec);
    let entry = LogEntry {
        height: spec.height,
        tick_ms: TICK,
        writer: writer.into(),
        incarnation: 0,
        seq,
        op_hash,
        verdict: spec.verdict,
        code: spec.code,
    };
    made.proof.entry.value = Bytes(encode(&entry));
    let leaf = tree::value_leaf(&made.proof.entry.key, &made.proof.entry.value);
    let p = &made.proof.entry;
    made.proof.roots.log = tree::root_of_path(&leaf, p.index, p.size, &p.path).unwrap();
    made.block = block(spec, &app_hash(&made.proof.roots));
    made.checkpoint = cosign(spec, &made.proof.roots);
    let parts = made.parts(&[]);
    receipt::build(Parts { op: &op, openings: None, request: None, release: None, ..parts }).unwrap()
}

/// What makes the query a denial.
pub fn denial(op: &mut Op) {
    if let Op::Query { handle, session, n, day, commitment, .. } = op.clone() {
        *op = Op::Deny { handle, session, n, day, tags: Tags::none(), commitment };
    }
}

pub fn publish(spec: &Spec) -> Receipt {
    let op = Op::Publish { dataset: 2, last_seq: 400, count: 400, root: [8; 32] };
    with_entry(spec, "grid/broker", encode(&op), op.hash(), 6)
}

pub fn session_close(spec: &Spec) -> Receipt {
    let body = ActBody::SessionClose { sessions: vec![4] };
    let act = Act { chain: CHAIN.into(), agency: agency("court"), key_id: KeyId([1; 16]), counter: 9, body };
    with_entry(spec, "act:court", encode(&act), act_hash(&act), 9)
}
