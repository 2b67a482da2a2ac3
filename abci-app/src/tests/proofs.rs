//! Proofs lead from a leaf to an app hash that stands in a header.

use concordat_protocol::acts::{ActBody, KeyRole};
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::evidence::MetaList;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::keys::Suite;
use concordat_protocol::node::{
    EntryProof, KeyView, LeafProof, NodeReply, NodeRequest, SessionLeaf, key_leaf_key, session_leaf_key,
};
use concordat_protocol::ops::LogEntry;
use concordat_protocol::tree::{node_hash, value_leaf, verify_inclusion};
use prost::Message;
use tendermint_proto::v0_38::crypto::{ProofOp, ValueOp};

use super::kit::{City, Key, key, open};
use crate::state::trees::app_hash;

fn prove(city: &City, index: u64, height: u64, session: u64) -> EntryProof {
    let keys = vec![key("police", "executor").id(), key("court", "legal").id()];
    match city.ask(&NodeRequest::Proof { index, height, keys, session }) {
        NodeReply::Proof { body } => body,
        other => panic!("{other:?}"),
    }
}

fn leads_to(leaf: &LeafProof, root: &Hash) {
    let hash = value_leaf(&leaf.key, &leaf.value);
    verify_inclusion(&hash, leaf.index, leaf.size, &leaf.path, root).unwrap();
}

fn verify(city: &City, proof: &EntryProof) {
    let block = city.mock.blocks.iter().find(|b| b.height as u64 == proof.height).unwrap();
    assert_eq!(app_hash(&proof.roots)[..], block.app_hash[..], "height {}", proof.height);
    leads_to(&proof.entry, &proof.roots.log);
    proof.keys.iter().for_each(|leaf| leads_to(leaf, &proof.roots.meta));
    if let Some(session) = &proof.session {
        leads_to(session, &proof.roots.heads);
    }
}

#[test]
fn an_entry_its_keys_and_its_session_are_proven_at_one_height() {
    let (mut city, a) = City::ready();
    let index = city.log_size();
    let op = city.query(a.handles[0], a.session, 1);
    assert_eq!(city.say("police/executor", op.clone()).1, 0);
    let question = NodeRequest::Proof { index, height: 0, keys: vec![], session: 0 };
    let NodeReply::Error { code, detail } = city.ask(&question) else { panic!() };
    assert_eq!(code, codes::BUSY, "its app hash is in no header yet");
    assert!(detail.contains("after the next block"), "{detail}");
    let later = city.query(a.handles[0], a.session, 2);
    city.say("police/executor", later);
    let proof = prove(&city, index, 0, a.session);
    assert_eq!(proof.height, city.mock.height() as u64 - 1);
    verify(&city, &proof);
    let entry: LogEntry = cbor::decode(&proof.entry.value).unwrap();
    assert_eq!((entry.op_hash, entry.code, entry.seq), (op.hash(), 0, 1));
    assert_eq!(proof.keys[0].key.0, key_leaf_key(&key("police", "executor").id()));
    let key: KeyView = cbor::decode(&proof.keys[1].value).unwrap();
    assert_eq!((key.role, key.label.as_str()), (KeyRole::Approver, "legal"));
    let session = proof.session.unwrap();
    assert_eq!(session.key.0, session_leaf_key(a.session));
    let session: SessionLeaf = cbor::decode(&session.value).unwrap();
    assert_eq!(session.newest_n, 1, "as it stood at that height, not as it stands now");
}

#[test]
fn proofs_hold_at_every_height_that_is_kept() {
    let (mut city, a) = City::ready();
    let first = city.log_size();
    let begin = city.mock.height() as u64;
    for n in 1..=12u64 {
        match n % 4 {
            0 => {
                let new = Key::new(&format!("extra {n}"), Suite::Ed25519);
                let body = ActBody::KeyAdd { role: KeyRole::Release, label: "r".into(), key: new.public };
                assert_eq!(city.do_act("grid", "root", body), 0);
            }
            1 => drop(city.open_session("court", "police", &format!("session {n}"))),
            2 => drop(city.tick()),
            _ => {
                let ops = (0..40).map(|i| city.query(a.handles[0], a.session, n * 100 + i)).collect();
                city.write("police/executor", ops);
            }
        }
    }
    for height in begin + 1..city.mock.height() as u64 {
        for index in [0, 1, first - 1, first] {
            verify(&city, &prove(&city, index, height, a.session));
        }
    }
    let NodeReply::Error { code, .. } =
        city.ask(&NodeRequest::Proof { index: 1, height: city.mock.height() as u64, keys: vec![], session: 0 })
    else {
        panic!("the newest app hash is in no header")
    };
    assert_eq!(code, codes::BUSY);
}

#[test]
fn a_revocation_shows_in_the_key_leaf_from_its_height_on() {
    let (mut city, _) = City::ready();
    let id = key("court", "legal").id();
    let body = ActBody::KeyRevoke { key_id: id, compromised_since_ms: 0 };
    assert_eq!(city.do_act("court", "root", body), 0);
    let revoked_at = |city: &City| {
        let proof = prove(city, 1, 0, 0);
        verify(city, &proof);
        cbor::decode::<KeyView>(&proof.keys[1].value).unwrap().revoked_ms
    };
    assert_eq!(revoked_at(&city), 0);
    city.tick();
    assert!(revoked_at(&city) > 0);
}

/// Runs CometBFT's `simple:v` operators: the root that a value and its operators lead to.
fn run_ops(value: &[u8], ops: &[ProofOp]) -> Hash {
    let mut value = value.to_vec();
    for op in ops {
        assert_eq!(op.r#type, "simple:v");
        let decoded = ValueOp::decode(&op.data[..]).unwrap();
        assert_eq!(decoded.key, op.key);
        let proof = decoded.proof.unwrap();
        let mut len = vec![op.key.len() as u8];
        len.extend(&op.key);
        let mut hash = sha256(&[&[0], &len, &[32], &sha256(&[&value])]);
        assert_eq!(proof.leaf_hash, hash);
        let (mut index, mut total) = (proof.index, proof.total);
        for aunt in &proof.aunts {
            let aunt: Hash = aunt.as_slice().try_into().unwrap();
            // The last node of an odd level is lifted without a sibling.
            while index == total - 1 && index % 2 == 0 {
                (index, total) = (index / 2, (total + 1) / 2);
            }
            hash = if index % 2 == 1 { node_hash(&aunt, &hash) } else { node_hash(&hash, &aunt) };
            (index, total) = (index / 2, (total + 1) / 2);
        }
        value = hash.to_vec();
    }
    value.try_into().unwrap()
}

#[test]
fn stock_proofs_lead_to_the_app_hash() {
    let (mut city, a) = City::ready();
    for n in 1..=5 {
        let op = city.query(a.handles[1], a.session, n);
        city.say("police/executor", op);
    }
    let keys: [(&str, Vec<u8>); 7] = [
        ("log", 0u64.to_be_bytes().to_vec()),
        ("log", 9u64.to_be_bytes().to_vec()),
        ("heads", b"writer/police/executor".to_vec()),
        ("heads", b"quota/AGR-1/Q1/0".to_vec()),
        ("heads", b"dataset/1".to_vec()),
        ("meta", b"agreement/AGR-1/0000000001".to_vec()),
        ("meta", b"param/app_version".to_vec()),
    ];
    for (store, k) in keys {
        let path = format!("/store/{store}/key");
        let answer = city.mock.query(&path, k.clone(), true);
        assert_eq!((answer.code, &answer.key[..]), (0, &k[..]), "{}", answer.log);
        assert_eq!(answer.height, city.mock.height() - 1);
        let root = run_ops(&answer.value, &answer.proof_ops.unwrap().ops);
        let block = &city.mock.blocks[answer.height as usize - 1];
        assert_eq!(root[..], block.app_hash[..], "{store} {}", String::from_utf8_lossy(&k));
        assert!(!city.mock.query(&path, k, false).value.is_empty());
    }
}

#[test]
fn questions_without_an_answer_say_what_to_do() {
    let (city, _) = City::ready();
    for (path, data, want) in [
        ("/store/meta/key", b"param/none".to_vec(), "no such key"),
        ("/store/heads/key", b"session/01".to_vec(), "no such key"),
        ("/store/heads/key", b"session/+1".to_vec(), "no such key"),
        ("/store/meta/key", b"agreement/AGR-1/1".to_vec(), "no such key"),
        ("/store/log/key", b"12".to_vec(), "8 bytes"),
        ("/store/log/key", 900u64.to_be_bytes().to_vec(), "not in the log"),
        ("/store/none/key", vec![], "no such key"),
        ("/other", vec![], "use /node or /store"),
        ("/node", vec![0xff], "expected array"),
    ] {
        let answer = city.mock.query(path, data, true);
        assert!(answer.code != 0 && answer.log.contains(want), "{path}: {}", answer.log);
        assert!(answer.proof_ops.is_none());
    }
}

#[test]
fn a_restart_keeps_what_proofs_of_the_height_before_need() {
    let (mut city, a) = City::ready();
    for n in 1..=3 {
        let op = city.query(a.handles[1], a.session, n);
        city.say("police/executor", op);
        let before = prove(&city, 3, 0, a.session);
        let spare = open(&city.dir.path().join("spare.redb"), &city.clock);
        drop(std::mem::replace(&mut city.mock.app, spare));
        let app = open(&city.store_path(), &city.clock);
        city.mock.restart(app);
        let after = prove(&city, 3, 0, a.session);
        verify(&city, &after);
        assert_eq!(after, before);
    }
}

#[test]
fn a_list_of_meta_is_complete_at_every_height_and_absence_has_neighbours() {
    let (mut city, a) = City::ready();
    let list = |city: &City, height: u64, prefix: &str| match city
        .ask(&NodeRequest::MetaList { height, prefix: prefix.as_bytes().to_vec().into() })
    {
        NodeReply::MetaList { body } => body,
        other => panic!("{other:?}"),
    };
    let holds = |city: &City, body: &MetaList, prefix: &str| -> Vec<Vec<u8>> {
        let block = city.mock.blocks.iter().find(|b| b.height as u64 == body.height).unwrap();
        assert_eq!(app_hash(&body.roots)[..], block.app_hash[..], "height {}", body.height);
        let found = body.list.verify(prefix.as_bytes(), &body.roots.meta).unwrap();
        assert_eq!(found.len(), body.values.len());
        found.iter().zip(&body.values).for_each(|(leaf, value)| assert_eq!(leaf.value_hash, sha256(&[value])));
        found.iter().map(|l| l.key.0.clone()).collect()
    };
    city.tick();
    city.tick();
    let then = city.mock.height() as u64 - 1;
    let before = list(&city, then, "agreement/");
    assert_eq!(holds(&city, &before, "agreement/").len(), 1);
    assert!(holds(&city, &list(&city, then, "agreement/AGR-0000-0000/"), "agreement/AGR-0000-0000/").is_empty());
    let keys = holds(&city, &list(&city, then, "key/"), "key/").len();
    let new = Key::new("extra", Suite::Ed25519);
    let body = ActBody::KeyAdd { role: KeyRole::Release, label: "r".into(), key: new.public };
    assert_eq!(city.do_act("grid", "root", body), 0);
    let session = city.open_session("court", "police", "another");
    city.tick();
    city.tick();
    assert_eq!(list(&city, then, "agreement/"), before, "the height asked for, whatever came later");
    assert_eq!(holds(&city, &list(&city, then, "key/"), "key/").len(), keys);
    assert_eq!(holds(&city, &list(&city, 0, "key/"), "key/").len(), keys + 1);
    assert!(holds(&city, &list(&city, 0, ""), "").len() > keys, "all of it");
    // Single leaves of both trees; what is not there is left out.
    let heads = [session, a.session, 999_999].map(|s| session_leaf_key(s).into()).to_vec();
    let meta = vec![b"agency/court".to_vec().into(), b"agency/nobody".to_vec().into()];
    let NodeReply::StateLeaves { body } = city.ask(&NodeRequest::StateLeaves { height: 0, meta, heads }) else {
        panic!()
    };
    assert_eq!((body.meta.len(), body.heads.len()), (1, 2));
    body.meta.iter().for_each(|leaf| leads_to(leaf, &body.roots.meta));
    body.heads.iter().for_each(|leaf| leads_to(leaf, &body.roots.heads));
}
