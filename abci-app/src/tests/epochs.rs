//! Epochs, the agencies' signatures on them, and the life of root and cosigning keys.

use concordat_protocol::acts::{ActBody, KeyRole};
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::codes;
use concordat_protocol::evidence::SignedEpoch;
use concordat_protocol::keys::{KeyId, PublicKey, SigningKey, Statement};
use concordat_protocol::node::{KeyView, NodeReply, NodeRequest};
use concordat_protocol::trust::{EpochBody, Trust, TrustError};

use super::council::{Council, MEMBERS, hybrid, validator};
use super::kit::{CHAIN, DAY, agency, key, open};

fn add(role: KeyRole, key: &SigningKey) -> ActBody {
    ActBody::KeyAdd { role, label: "next".into(), key: key.public().clone() }
}

fn revoke(key: &SigningKey) -> ActBody {
    ActBody::KeyRevoke { key_id: key.public().key_id(), compromised_since_ms: 0 }
}

fn reasons() -> ActBody {
    ActBody::Roles { roles: vec!["legal".into()] }
}

fn key_view(council: &Council, id: KeyId) -> Option<KeyView> {
    let NodeReply::Keys { body } = council.city.ask(&NodeRequest::Key { key_id: id }) else { panic!() };
    body.into_iter().next()
}

fn cosign_of(council: &Council, who: &str) -> Option<PublicKey> {
    let epochs = council.epochs();
    epochs.last().unwrap().keys.iter().find(|k| k.agency == agency(who)).unwrap().cosign.clone()
}

#[test]
fn epoch_0_is_what_trust_json_reads_from_genesis() {
    let council = Council::new();
    let trust = Trust::from_genesis(Council::text(), vec![]).unwrap();
    let epochs = council.epochs();
    assert_eq!(epochs.len(), 1);
    assert_eq!(cbor::encode(&epochs[0].body), cbor::encode(&trust.epochs[0].body()));
    assert_eq!(council.trust().unwrap(), trust);
}

#[test]
fn each_change_of_keys_or_validators_is_an_epoch_that_the_one_before_signs() {
    let mut council = Council::new();
    // A cosigning key.
    let new = hybrid("police/cosign/2");
    assert_eq!(council.root("police", add(KeyRole::Cosign, &new)), 0);
    let first = council.newest();
    assert_eq!((first.n, first.from_height), (1, council.city.mock.height() as u64 + 2));
    assert_eq!(cosign_of(&council, "police").unwrap(), *new.public());
    for (i, who) in MEMBERS.iter().enumerate() {
        assert_eq!(council.trust().unwrap().epochs.len(), if i < 3 { 1 } else { 2 }, "after {i} signatures");
        assert_eq!(council.sign_epoch(who, &hybrid(&format!("{who}/root")), &first), 0);
    }
    // A root key: the old one signs the epoch in which the new one stands.
    let (old, root) = (hybrid("grid/root"), hybrid("grid/root/2"));
    assert_eq!(council.root("grid", add(KeyRole::Root, &root)), 0);
    council.city.clock.advance(DAY);
    assert_eq!(council.gateway("court", reasons()), 0);
    let second = council.newest();
    assert_eq!(second.n, 2);
    council.roots.insert("grid".into(), hybrid("grid/root/2"));
    assert_eq!(council.sign_epoch("grid", &root, &second), codes::BAD_SIGNATURE);
    assert_eq!(council.sign_epoch("grid", &old, &second), 0);
    for who in ["court", "police"] {
        assert_eq!(council.sign_epoch(who, &hybrid(&format!("{who}/root")), &second), 0);
    }
    // Validators.
    let body = ActBody::Validator { agency: agency("transport"), key: validator("transport"), power: 14 };
    council.vote(&["court", "grid", "police"], &body);
    let third = council.newest();
    assert_eq!((third.n, third.from_height), (3, council.city.mock.height() as u64 + 2));
    for who in ["court", "grid", "transport"] {
        let name = if who == "grid" { "grid/root/2".to_owned() } else { format!("{who}/root") };
        assert_eq!(council.sign_epoch(who, &hybrid(&name), &third), 0);
    }
    let trust = council.trust().unwrap();
    trust.check().unwrap();
    assert_eq!(trust.epochs.len(), 4);
    assert_eq!(trust.epochs.iter().map(|e| e.signatures.len()).collect::<Vec<_>>(), [0, 4, 3, 3]);
    assert_eq!(trust.epoch_at(third.from_height - 1).unwrap().n, 2);
    assert_eq!(trust.epoch_at(third.from_height).unwrap().validators[3].power, 14);
    assert_eq!(Trust::from_json(&trust.to_json()).unwrap(), trust);
    // A restart forgets nothing of it, and another node computes the same.
    let before = council.epochs();
    council.city.reopen();
    assert_eq!(council.epochs(), before);
    let other = open(&council.city.dir.path().join("other.redb"), &council.city.clock);
    council.city.mock.replay_into(other);
}

#[test]
fn a_signature_on_an_epoch_is_the_ledgers_epoch_signed_by_a_validators_root_of_the_one_before() {
    let mut council = Council::new();
    // An agency without a validator has no vote.
    let body = ActBody::AgencyAdd { agency: agency("harbour"), root: hybrid("harbour/root").public().clone() };
    council.vote(&["court", "grid", "police"], &body);
    let one = council.newest();
    assert_eq!(one.n, 1);
    council.roots.insert("harbour".into(), hybrid("harbour/root"));
    assert_eq!(council.root("harbour", add(KeyRole::Cosign, &hybrid("harbour/cosign"))), 0);
    let two = council.newest();
    let signed = |root: &SigningKey, body: &EpochBody| SignedEpoch {
        body: body.clone(),
        signature: root.sign(Statement::Epoch, CHAIN, &cbor::encode(body)),
    };
    let court = hybrid("court/root");
    let act = |signed: &SignedEpoch| ActBody::Epoch { body: cbor::encode(signed).into() };
    assert_eq!(council.root("harbour", act(&signed(&hybrid("harbour/root"), &two))), codes::WRONG_AGENCY);
    let zero = council.epochs()[0].body.clone();
    assert_eq!(council.file("court", &signed(&court, &zero)), codes::UNKNOWN_REF);
    assert_eq!(council.file("court", &signed(&court, &EpochBody { n: 3, ..two.clone() })), codes::UNKNOWN_REF);
    let later = EpochBody { from_height: one.from_height + 1, ..one.clone() };
    assert_eq!(council.file("court", &signed(&court, &later)), codes::BAD_VALUE);
    assert_eq!(council.file("court", &signed(&hybrid("court/cosign"), &one)), codes::BAD_SIGNATURE);
    assert_eq!(council.file("court", &signed(&hybrid("grid/root"), &one)), codes::BAD_SIGNATURE);
    let mut short = signed(&court, &one);
    short.signature.pq.0.pop();
    assert_eq!(council.file("court", &short), codes::BAD_SIGNATURE);
    let mut classical = signed(&court, &one);
    classical.signature.suite = concordat_protocol::keys::Suite::Ed25519;
    classical.signature.pq = Vec::new().into();
    assert_eq!(council.file("court", &classical), codes::BAD_SIGNATURE);
    let other_chain =
        SignedEpoch { body: one.clone(), signature: court.sign(Statement::Epoch, "another", &cbor::encode(&one)) };
    assert_eq!(council.file("court", &other_chain), codes::BAD_SIGNATURE);
    let junk = ActBody::Epoch { body: Bytes(vec![1, 2, 3]) };
    assert_eq!(council.gateway("court", junk), codes::NOT_CANONICAL);
    let release = council.city.act("court", "legal", act(&signed(&court, &one)));
    assert_eq!(council.submit(release), codes::WRONG_ROLE);
    assert!(council.epochs().iter().all(|e| e.votes.is_empty()), "nothing was kept");
    let good = signed(&court, &one);
    assert_eq!(council.root("court", act(&good)), 0, "the root may file it too");
    assert_eq!(council.file("court", &good), codes::APPROVAL, "the same again");
    assert_eq!(council.epochs()[1].votes.len(), 1);
}

#[test]
fn forged_votes_never_reach_trust_json_and_can_be_mended() {
    let mut council = Council::new();
    assert_eq!(council.root("police", add(KeyRole::Cosign, &hybrid("police/cosign/2"))), 0);
    let one = council.newest();
    for who in ["court", "grid"] {
        assert_eq!(council.sign_epoch(who, &hybrid(&format!("{who}/root")), &one), 0);
    }
    // Consensus only measures the post-quantum half.
    let mut half = hybrid("police/root").sign(Statement::Epoch, CHAIN, &cbor::encode(&one));
    half.pq.0[100] ^= 1;
    assert_eq!(council.file("police", &SignedEpoch { body: one.clone(), signature: half }), 0);
    assert_eq!(council.epochs()[1].votes.len(), 3);
    assert_eq!(council.trust().unwrap().epochs.len(), 1, "two good signatures of four are not enough");
    assert_eq!(council.sign_epoch("police", &hybrid("police/root"), &one), 0);
    let trust = council.trust().unwrap();
    assert_eq!((trust.epochs.len(), trust.epochs[1].signatures.len()), (2, 3));
    // A node that tells other things is found out.
    let lie = |change: fn(&mut Vec<concordat_protocol::evidence::EpochView>)| {
        let mut epochs = council.epochs();
        change(&mut epochs);
        Trust::with_epochs(Council::text(), vec![], &epochs)
    };
    let epoch_1 = |r: Result<Trust, TrustError>| matches!(r, Err(TrustError::Epoch { n: 1, .. }));
    assert!(epoch_1(lie(|e| e[1].validators[0].power = 99)));
    assert!(epoch_1(lie(|e| e[1].keys.truncate(3))));
    assert!(epoch_1(lie(|e| e[1].body.prev_hash[0] ^= 1)));
    // Nor can it call another agency's validator its own: the next epoch's votes are counted by it.
    assert!(epoch_1(lie(|e| {
        let (court, grid) = (e[1].validators[0].key, e[1].validators[1].key);
        (e[1].validators[0].key, e[1].validators[1].key) = (grid, court);
    })));
    assert!(matches!(lie(|e| e[0].body.from_height = 2), Err(TrustError::Genesis(_))));
    assert!(matches!(lie(Vec::clear), Err(TrustError::Genesis(_))));
    // A changed body has no votes.
    assert_eq!(lie(|e| e[1].body.from_height += 1).unwrap().epochs.len(), 1);
    // One agency's vote given thrice is one vote.
    let thrice = lie(|e| {
        let vote = e[1].votes[0].clone();
        e[1].votes = vec![vote; 3];
    });
    assert_eq!(thrice.unwrap().epochs.len(), 1);
}

#[test]
fn a_root_key_waits_and_takes_its_place_in_a_block_that_holds_more_than_its_tick() {
    let mut council = Council::new();
    let (old, new) = (hybrid("grid/root"), hybrid("grid/root/2"));
    assert_eq!(council.root("grid", add(KeyRole::Root, &new)), 0);
    assert_eq!(council.epochs().len(), 1, "nothing has changed yet");
    let by_new = council.rooted("grid", &new, reasons());
    assert_eq!(council.submit(by_new), codes::UNKNOWN_KEY, "it is no key before its time");
    council.city.clock.advance(DAY - 1_000);
    assert_eq!(council.root("grid", reasons()), 0, "the old one signs until then");
    council.city.clock.advance(10_000);
    let quiet = council.city.app_hash();
    for _ in 0..3 {
        assert_eq!(council.city.tick().app_hash, quiet, "time alone changes nothing");
    }
    let by_old = council.rooted("grid", &old, reasons());
    assert_eq!(council.submit(by_old), codes::KEY_REVOKED, "the rotation comes before the block's acts");
    let view = key_view(&council, old.public().key_id()).unwrap();
    assert_eq!(view.revoked_ms, council.city.clock_ms());
    let by_new = council.rooted("grid", &new, reasons());
    assert_eq!(council.submit(by_new), 0);
    let epochs = council.epochs();
    assert_eq!(epochs.len(), 2);
    assert_eq!(epochs[1].keys.iter().find(|k| k.agency == agency("grid")).unwrap().root, *new.public());
    // The old one cannot come back.
    council.roots.insert("grid".into(), new);
    assert_eq!(council.root("grid", add(KeyRole::Root, &old)), codes::KEY_EXISTS);
}

#[test]
fn a_waiting_root_key_can_be_taken_back_and_is_nobody_elses() {
    let mut council = Council::new();
    let new = hybrid("grid/root/2");
    assert_eq!(council.root("grid", revoke(&hybrid("grid/root"))), codes::BAD_VALUE, "a root ends by rotation");
    assert_eq!(council.root("grid", revoke(&new)), codes::UNKNOWN_KEY);
    let classical = ActBody::KeyAdd { role: KeyRole::Root, label: "r".into(), key: key("grid", "new").public };
    assert_eq!(council.root("grid", classical), codes::BAD_KEY);
    assert_eq!(council.root("grid", add(KeyRole::Root, &hybrid("grid/cosign"))), codes::KEY_EXISTS);
    let gateway = council.city.act("grid", "gateway", add(KeyRole::Root, &new));
    assert_eq!(council.submit(gateway), codes::WRONG_ROLE);
    assert_eq!(council.root("grid", add(KeyRole::Root, &new)), 0);
    assert_eq!(council.root("grid", add(KeyRole::Root, &hybrid("grid/root/3"))), codes::BAD_VALUE);
    assert_eq!(council.root("court", add(KeyRole::Cosign, &new)), codes::KEY_EXISTS, "it is taken");
    assert_eq!(council.root("court", revoke(&new)), codes::UNKNOWN_KEY, "and not the court's to take back");
    assert_eq!(council.root("grid", revoke(&new)), 0);
    council.city.clock.advance(2 * DAY);
    assert_eq!(council.root("grid", reasons()), 0, "the root is the same as before");
    assert_eq!(council.epochs().len(), 1);
    assert_eq!(council.root("grid", add(KeyRole::Root, &new)), 0);
    council.city.reopen();
    council.city.clock.advance(DAY);
    assert_eq!(council.gateway("court", reasons()), 0);
    assert_eq!(council.epochs().len(), 2, "a restart does not forget what waits");
}

#[test]
fn the_newest_cosigning_key_that_is_not_revoked_stands_in_the_epoch() {
    let mut council = Council::new();
    let (first, second) = (hybrid("police/cosign"), hybrid("police/cosign/2"));
    assert_eq!(council.root("police", add(KeyRole::Cosign, &second)), 0);
    assert_eq!(cosign_of(&council, "police").unwrap(), *second.public());
    assert_eq!(council.root("police", revoke(&second)), 0);
    assert_eq!(cosign_of(&council, "police").unwrap(), *first.public());
    assert_eq!(council.root("police", revoke(&first)), 0);
    assert_eq!(cosign_of(&council, "police"), None);
    assert_eq!(council.epochs().len(), 4);
    assert_eq!(council.root("police", add(KeyRole::Cosign, &second)), codes::KEY_EXISTS);
    // Other keys make no epoch.
    let gateway = ActBody::KeyAdd { role: KeyRole::Gateway, label: "b".into(), key: key("police", "b").public };
    assert_eq!(council.root("police", gateway), 0);
    assert_eq!(council.gateway("police", reasons()), 0);
    assert_eq!(council.epochs().len(), 4);
}

#[test]
fn epochs_and_waiting_keys_are_proven_under_the_app_hash() {
    let mut council = Council::new();
    assert_eq!(council.root("grid", add(KeyRole::Root, &hybrid("grid/root/2"))), 0);
    assert_eq!(council.root("police", add(KeyRole::Cosign, &hybrid("police/cosign/2"))), 0);
    council.city.tick();
    council.city.tick();
    let body = council.newest();
    for restart in [false, true] {
        if restart {
            council.city.reopen();
            council.city.tick();
            council.city.tick();
        }
        let leaf = council.city.mock.query("/store/meta/key", "epoch/0000000001", true);
        assert_eq!((leaf.code, &leaf.value[..]), (0, &cbor::encode(&body)[..]), "restart: {restart}");
        let waits = council.city.mock.query("/store/meta/key", "root-pending/grid", true);
        assert_eq!(waits.code, 0, "{}", waits.log);
        assert_ne!(council.city.mock.query("/store/meta/key", "epoch/1", true).code, 0, "one way to write a key");
    }
}
