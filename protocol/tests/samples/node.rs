//! Messages on the node's socket.

use super::{CHAIN, Sample, TICK, acts, ed25519, evidence, h, hybrid, id, ops, point, sample, terms};
use concordat_protocol::acts::{ApprovalKind, KeyRole};
use concordat_protocol::cbor::{Bytes, encode};
use concordat_protocol::evidence::{MetaList, StateLeaves};
use concordat_protocol::keys::{KeyId, Statement};
use concordat_protocol::node::{
    AgreementView, ApprovalView, DatasetView, EntryProof, Frame, HeadView, KeyView, LeafProof, NodeReply, NodeRequest,
    ReviewDue, RoleMapView, SessionView, StoreRoots, WriterView, key_leaf_key, session_leaf_key,
};
use concordat_protocol::ops::{LogEntry, log_key};
use concordat_protocol::runs::{RunProof, RunView, entry_leaf, run_key};
use concordat_protocol::terms::Status;
use concordat_protocol::tree::{SortedLeaf, SortedProof, root, value_leaf};

/// One question of each kind.
pub fn requests() -> Vec<Sample<NodeRequest>> {
    vec![
        sample!(NodeRequest::Subscribe { from_height: 0, writers: vec!["police/executor".to_owned()] }),
        sample!(NodeRequest::Head {}),
        sample!(NodeRequest::Writer { writer: id("police/executor") }),
        sample!(NodeRequest::Session { session: 70_000 }),
        sample!(NodeRequest::SessionByKey { key: point(0x31) }),
        sample!(NodeRequest::Keys { agency: id("police") }),
        sample!(NodeRequest::Key { key_id: KeyId([90; 16]) }),
        sample!(NodeRequest::Datasets {}),
        sample!(NodeRequest::Agreements {}),
        sample!(NodeRequest::Counters { key_id: KeyId([91; 16]) }),
        sample!(NodeRequest::Log { from: 5_800, count: 100 }),
        sample!(NodeRequest::Proof { index: 5_821, height: 0, keys: vec![KeyId([92; 16])], session: 70_000 }),
        sample!(NodeRequest::Subscription { provider: id("grid"), subscription: 41 }),
        sample!(NodeRequest::Params {}),
        sample!(NodeRequest::Agencies {}),
        sample!(NodeRequest::Runs {}),
        sample!(NodeRequest::Run { number: 1, tag: [0xa1; 16], height: 0 }),
        sample!(NodeRequest::Checkpoints { from_height: 7 }),
        sample!(NodeRequest::Named { agency: id("court"), from: 5_800 }),
        sample!(NodeRequest::Epochs {}),
        sample!(NodeRequest::Disputes {}),
        sample!(NodeRequest::Leaves { height: 12, keys: vec![KeyId([92; 16])], sessions: vec![70_000u64, 70_001] }),
        sample!(NodeRequest::Proofs { height: 12, indexes: vec![5_821u64, 70_000] }),
        sample!(NodeRequest::Reviews {}),
        sample!(NodeRequest::RoleMaps { agency: id("police") }),
        sample!(NodeRequest::MetaList { height: 12, prefix: b"agreement/".to_vec().into() }),
        sample!(NodeRequest::StateLeaves {
            height: 0,
            meta: vec![Bytes(b"agency/court".to_vec())],
            heads: vec![Bytes(session_leaf_key(70_000))],
        }),
    ]
}

fn review_due() -> ReviewDue {
    ReviewDue { agreement: id("AGR-2026-0142"), clause: "B1".to_owned(), reference: 5_821, due_ms: TICK + 86_400_000 }
}

fn role_map() -> RoleMapView {
    RoleMapView { agency: id("police"), number: 1, sha256: h(54), index: 5_700, height: 11, tick_ms: TICK }
}

/// The list under a prefix of a meta tree of three leaves.
fn meta_list(prefix: &str) -> MetaList {
    let all = [("agency/court", 1u64), ("agreement/AGR-2026-0142/0000000001", 2), ("key/00", 3)];
    let leaves: Vec<SortedLeaf> = all.iter().map(|(k, v)| SortedLeaf::new(k.as_bytes(), &encode(v))).collect();
    let list = SortedProof::prove(&leaves, prefix.as_bytes()).unwrap();
    let values = all.iter().filter(|(k, _)| k.starts_with(prefix)).map(|(_, v)| encode(v).into()).collect();
    let meta = root(&leaves.iter().map(SortedLeaf::hash).collect::<Vec<_>>());
    MetaList { height: 12, roots: StoreRoots { meta, ..roots() }, values, list }
}

fn state_leaves() -> StateLeaves {
    let proof = evidence::leaves().value;
    StateLeaves { height: proof.height, roots: proof.roots, meta: proof.keys, heads: proof.sessions }
}

fn entries() -> Vec<LogEntry> {
    ops::entries().into_iter().map(|s| s.value).collect()
}

/// Roots of the four trees; `runs` is empty.
pub fn roots() -> StoreRoots {
    StoreRoots { heads: h(100), log: h(101), meta: h(102), runs: concordat_protocol::tree::empty_root() }
}

fn frame() -> Frame {
    let entries = entries().into_iter().enumerate().skip(2).take(2).map(|(i, e)| (i as u64, e)).collect();
    Frame { height: 12, tick_ms: TICK + 2, app_hash: h(103), meta_rev: 9, entries }
}

fn head() -> HeadView {
    HeadView {
        chain: CHAIN.into(),
        height: 12,
        tick_ms: TICK + 2,
        app_hash: h(103),
        log_size: 6,
        meta_rev: 9,
        app_version: 1,
    }
}

fn writer() -> WriterView {
    let writer = id("police/executor");
    WriterView { writer, key: point(ops::WRITER_SEED), incarnation: 1, last_seq: 14, last_hash: h(104) }
}

fn session() -> SessionView {
    SessionView {
        session: 70_000,
        consumer: id("court"),
        provider: id("police"),
        key: point(0x31),
        expires_ms: TICK + 3_600_000,
        newest_n: 25,
    }
}

/// A release key, revoked.
pub fn key() -> KeyView {
    KeyView {
        agency: id("police"),
        role: KeyRole::Release,
        label: "release-1".into(),
        key: ed25519(0x41).public().clone(),
        revoked_ms: TICK + 9,
        compromised_since_ms: TICK,
    }
}

fn agreement() -> AgreementView {
    let key = ed25519(acts::ED25519_SEED);
    let act = encode(&acts::act(acts::approve().value, &key).value);
    let approval = ApprovalView {
        agency: id("police"),
        role: "records".into(),
        key_id: key.key_id(),
        what: ApprovalKind::Activate,
        signature: encode(&key.sign(Statement::Act, CHAIN, &act)).into(),
        act: act.into(),
    };
    let terms = terms::query().value;
    AgreementView {
        agreement: terms.agreement.clone(),
        version: terms.version,
        revision: 2,
        status: Status::Active,
        terms_hash: terms.hash(),
        terms: encode(&terms).into(),
        expires_ms: TICK + 86_400_000,
        approvals: vec![approval],
        handles: vec![300, 301, 302],
        bounded_suspended: 0,
    }
}

fn proof() -> EntryProof {
    let leaf = |key: Vec<u8>, value: Vec<u8>, index, size, path| LeafProof {
        key: key.into(),
        value: value.into(),
        index,
        size,
        path,
    };
    EntryProof {
        height: 12,
        roots: roots(),
        entry: leaf(log_key(2).to_vec(), encode(&entries()[2]), 2, 6, vec![h(105), h(106), h(107)]),
        keys: vec![leaf(key_leaf_key(&key().key.key_id()), encode(&key()), 1, 2, vec![h(108)])],
        session: Some(leaf(session_leaf_key(70_000), encode(&super::session::leaf().value), 0, 1, vec![])),
    }
}

/// The second of two runs, and what it holds under a tag: two entries, or none.
pub fn run_proof(tag: u8) -> RunProof {
    let entries = [(0xa0, 10), (0xa1, 11), (0xa1, 40), (0xa3, 12)];
    let leaves: Vec<SortedLeaf> = entries.iter().map(|(t, i)| entry_leaf(&[*t; 16], *i, &h(110))).collect();
    let hashes: Vec<_> = leaves.iter().map(SortedLeaf::hash).collect();
    let run = |first_index, end_index, count, root| RunView {
        first_index,
        end_index,
        from_ms: TICK,
        to_ms: TICK + 5_000,
        count,
        root,
    };
    let runs = [run(0, 10, 3, h(111)), run(10, 90, 4, root(&hashes))].map(|r| encode(&r));
    let tree: Vec<_> = runs.iter().enumerate().map(|(i, v)| value_leaf(&run_key(i as u64), v)).collect();
    RunProof {
        height: 12,
        roots: StoreRoots { runs: root(&tree), ..roots() },
        run: LeafProof {
            key: run_key(1).to_vec().into(),
            value: runs[1].clone().into(),
            index: 1,
            size: 2,
            path: vec![tree[0]],
        },
        list: SortedProof::prove(&leaves, &[tag; 16]).expect("sorted"),
    }
}

fn values<T>(list: Vec<Sample<T>>) -> Vec<T> {
    list.into_iter().map(|s| s.value).collect()
}

/// An answer of each kind, and the two that say that there is none.
pub fn replies() -> Vec<Sample<NodeReply>> {
    let dataset = |name, number, head| DatasetView { id: id(name), number, schema_hash: h(109), head };
    let root = KeyView {
        role: KeyRole::Root,
        label: "root".into(),
        key: hybrid(0x24).public().clone(),
        revoked_ms: 0,
        compromised_since_ms: 0,
        ..key()
    };
    vec![
        sample!(NodeReply::Error { code: 310, detail: "log index 7: the log has 6 entries".to_owned() }),
        sample!(NodeReply::Frame { body: frame() }),
        sample!(NodeReply::Frame { body: Frame { entries: vec![], ..frame() } }),
        sample!(NodeReply::Head { body: head() }),
        sample!(NodeReply::Writer { body: Some(writer()) }),
        sample!(NodeReply::Writer { body: None }),
        sample!(NodeReply::Session { body: Some(session()) }),
        sample!(NodeReply::Session { body: None }),
        sample!(NodeReply::Keys { body: vec![root, key()] }),
        sample!(NodeReply::Datasets {
            body: vec![dataset("ds:grid/load@1", 1, 5_000), dataset("ds:police/stops@1", 2, 0)]
        }),
        sample!(NodeReply::Agreements { body: vec![agreement()] }),
        sample!(NodeReply::Counters { urgent: 1, other: 23 }),
        sample!(NodeReply::Log { from: 0, entries: entries() }),
        sample!(NodeReply::Proof { body: proof() }),
        sample!(NodeReply::Subscription { last_sub_seq: 900 }),
        sample!(NodeReply::Params {
            body: vec![("app_version".to_owned(), 1u64), ("checkpoint_ms".to_owned(), 600_000u64)]
        }),
        sample!(NodeReply::Agencies { body: vec![id("court"), id("police")] }),
        sample!(NodeReply::Runs { size: 2, end_index: 90 }),
        sample!(NodeReply::Run { body: run_proof(0xa1) }),
        sample!(NodeReply::Run { body: run_proof(0xa2) }),
        sample!(NodeReply::Checkpoints { body: values(evidence::checkpoints()) }),
        sample!(NodeReply::Named { end: 5_823u64, body: values(evidence::named()) }),
        sample!(NodeReply::Epochs { body: values(evidence::epochs()) }),
        sample!(NodeReply::Disputes { body: vec![evidence::dispute().value] }),
        sample!(NodeReply::Leaves { body: evidence::leaves().value }),
        sample!(NodeReply::Proofs { body: evidence::log_proofs().value }),
        sample!(NodeReply::Reviews { body: vec![review_due()] }),
        sample!(NodeReply::RoleMaps { body: vec![role_map()] }),
        sample!(NodeReply::MetaList { body: meta_list("agreement/") }),
        sample!(NodeReply::MetaList { body: meta_list("agreement/AGR-2026-0143/") }),
        sample!(NodeReply::StateLeaves { body: state_leaves() }),
    ]
}
