//! What more than 2/3 of the agencies decide together.

use concordat_protocol::acts::{ActBody, ApprovalKind, KeyRole};
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::hash::sha256;
use concordat_protocol::keys::Suite;
use concordat_protocol::node::{NodeReply, NodeRequest};
use concordat_protocol::terms::Status;
use concordat_protocol::{cbor, codes::WRONG_ROLE};
use tendermint_proto::v0_38::crypto::public_key::Sum;

use super::council::{Council, MEMBERS, hybrid, validator};
use super::kit::{Agreement, City, DAY, Key, agency, approvers, key, open, terms};
use crate::state::ballots::BALLOTS_OPEN_MAX;

fn param(name: &str, value: u64) -> ActBody {
    ActBody::Params { name: name.into(), value }
}

fn power(who: &str, power: u64) -> ActBody {
    ActBody::Validator { agency: agency(who), key: validator(who), power }
}

fn remove(who: &str) -> ActBody {
    ActBody::AgencyRemove { agency: agency(who) }
}

fn params(city: &City) -> Vec<(String, u64)> {
    let NodeReply::Params { body } = city.ask(&NodeRequest::Params {}) else { panic!() };
    body
}

fn value(city: &City, name: &str) -> u64 {
    params(city).into_iter().find(|(known, _)| known == name).unwrap().1
}

/// The votes on a decision as its leaf says them; `None` where it is not open.
fn open_ballot(city: &City, body: &ActBody) -> Option<Vec<u8>> {
    let hash = sha256(&[&cbor::encode(body)]);
    let leaf = city.mock.query("/store/meta/key", format!("ballot/{}", hex::encode(hash)), false);
    (leaf.code == 0).then(|| leaf.value.to_vec())
}

/// The newest block's changes of validators, by key.
fn updates(council: &Council) -> Vec<(Vec<u8>, i64)> {
    let block = council.city.mock.blocks.last().unwrap();
    let one = |u: &tendermint_proto::v0_38::abci::ValidatorUpdate| match u.pub_key.as_ref().unwrap().sum.as_ref() {
        Some(Sum::Ed25519(key)) => (key.clone(), u.power),
        other => panic!("{other:?}"),
    };
    block.validator_updates.iter().map(one).collect()
}

#[test]
fn three_of_four_roots_decide_and_two_do_not() {
    let mut council = Council::new();
    let body = param("checkpoint_ms", 5_000);
    council.vote(&["court", "grid"], &body);
    assert_eq!(value(&council.city, "checkpoint_ms"), 600_000);
    assert!(open_ballot(&council.city, &body).is_some());
    assert_eq!(council.root("court", body.clone()), codes::APPROVAL, "one vote an agency");
    council.vote(&["transport"], &param("checkpoint_ms", 6_000)); // another body, another decision
    council.city.reopen();
    council.vote(&["police"], &body);
    assert_eq!(value(&council.city, "checkpoint_ms"), 5_000);
    assert!(open_ballot(&council.city, &body).is_none(), "what is decided is no longer open");
    // It can be decided anew.
    council.vote(&["court"], &body);
    assert!(open_ballot(&council.city, &body).is_some());
    let gateway = council.gateway("court", param("checkpoint_ms", 9));
    assert_eq!(gateway, WRONG_ROLE);
    let other = open(&council.city.dir.path().join("other.redb"), &council.city.clock);
    council.city.mock.replay_into(other);
}

#[test]
fn votes_count_for_seven_days_after_the_first() {
    let mut council = Council::new();
    let body = param("run_root_delay", 2);
    council.vote(&["court", "grid"], &body);
    council.city.clock.advance(7 * DAY);
    council.vote(&["police"], &body);
    assert_eq!(value(&council.city, "run_root_delay"), 64, "the two votes were too old");
    council.vote(&["court"], &body);
    council.city.clock.advance(7 * DAY - 1_000);
    council.vote(&["grid"], &body);
    assert_eq!(value(&council.city, "run_root_delay"), 2);
}

#[test]
fn one_agency_cannot_fill_the_room_for_ballots() {
    let mut council = Council::new();
    for i in 0..BALLOTS_OPEN_MAX as u64 {
        council.vote(&["grid"], &param("checkpoint_ms", 10 + i));
    }
    assert_eq!(council.root("grid", param("checkpoint_ms", 99)), codes::TOO_LARGE);
    council.vote(&["court"], &param("checkpoint_ms", 99));
    council.vote(&["grid"], &param("checkpoint_ms", 99)); // votes on others' ballots are free
    council.city.clock.advance(8 * DAY);
    council.vote(&["grid"], &param("checkpoint_ms", 100));
    assert!(open_ballot(&council.city, &param("checkpoint_ms", 10)).is_none(), "what is over is cleared");
}

#[test]
fn what_could_not_be_carried_out_gathers_no_votes() {
    let mut council = Council::new();
    let root = |name: &str| hybrid(name).public().clone();
    let member = |name: &str, root| ActBody::AgencyAdd { agency: agency(name), root };
    let upgrade = |app_version, at_height| ActBody::Upgrade { app_version, at_height };
    let own = |who: &str, key, power| ActBody::Validator { agency: agency(who), key, power };
    let refused = [
        (param("app_version", 2), codes::BAD_VALUE),
        (param("colour", 2), codes::BAD_VALUE),
        (param("checkpoint_ms", 0), codes::BAD_VALUE),
        (power("nobody", 5), codes::BAD_VALUE),
        (own("court", validator("grid"), 10), codes::KEY_EXISTS),
        (own("court", [0; 32], 10), codes::BAD_KEY),
        (own("court", validator("new"), 0), codes::BAD_VALUE),
        (power("court", u64::MAX), codes::BAD_VALUE),
        (power("court", i64::MAX as u64 / 8), codes::BAD_VALUE),
        (member("court", root("court/root/2")), codes::BAD_VALUE),
        (member("harbour", root("court/root")), codes::KEY_EXISTS),
        (member("harbour", key("harbour", "root-classical").public), codes::BAD_KEY),
        (remove("harbour"), codes::BAD_VALUE),
        (upgrade(1, 1_000), codes::BAD_VALUE),
        (upgrade(2, 0), codes::BAD_VALUE),
        (upgrade(2, council.city.mock.height() as u64 + 1), codes::BAD_VALUE),
    ];
    for (body, want) in refused {
        assert_eq!(council.root("court", body.clone()), want, "{body:?}");
        assert!(open_ballot(&council.city, &body).is_none());
    }
}

#[test]
fn validators_change_through_the_consensus_engine_and_one_stays() {
    let mut council = Council::new();
    council.vote(&MEMBERS[..3], &power("police", 25));
    assert_eq!(updates(&council), [(validator("police").to_vec(), 25)]);
    council.vote(&["transport"], &power("police", 25));
    assert_eq!(updates(&council), [], "nothing was decided by that");
    let changed = ActBody::Validator { agency: agency("police"), key: validator("police/2"), power: 7 };
    council.vote(&MEMBERS[..3], &changed);
    let mut want = [(validator("police").to_vec(), 0), (validator("police/2").to_vec(), 7)];
    want.sort();
    let mut got = updates(&council);
    got.sort();
    assert_eq!(got, want, "the old key goes, the new one comes");
    for who in ["court", "grid", "transport"] {
        council.vote(&MEMBERS[..3], &power(who, 0));
        assert_eq!(updates(&council), [(validator(who).to_vec(), 0)]);
    }
    let last = ActBody::Validator { agency: agency("police"), key: validator("police/2"), power: 0 };
    assert_eq!(council.root("court", last), codes::BAD_VALUE, "one must stay");
    assert_eq!(council.root("court", remove("police")), codes::BAD_VALUE);
    assert_eq!(council.newest().n, 5);
    assert_eq!(council.epochs()[5].validators.len(), 1);
    // What a removed validator's key may do again: come back.
    council.vote(&MEMBERS[..3], &power("grid", 3));
    assert_eq!(updates(&council), [(validator("grid").to_vec(), 3)]);
}

#[test]
fn a_new_agency_signs_with_its_root_and_counts() {
    let mut council = Council::new();
    let body = ActBody::AgencyAdd { agency: agency("harbour"), root: hybrid("harbour/root").public().clone() };
    council.vote(&MEMBERS[..3], &body);
    council.roots.insert("harbour".into(), hybrid("harbour/root"));
    let gateway = ActBody::KeyAdd { role: KeyRole::Gateway, label: "g".into(), key: key("harbour", "gateway").public };
    assert_eq!(council.root("harbour", gateway), 0);
    assert_eq!(council.gateway("harbour", ActBody::Roles { roles: vec!["legal".into()] }), 0);
    let NodeReply::Agencies { body } = council.city.ask(&NodeRequest::Agencies {}) else { panic!() };
    assert_eq!(body.len(), 5);
    // Of five, three are no longer enough.
    let body = param("checkpoint_ms", 5_000);
    council.vote(&MEMBERS[..3], &body);
    assert_eq!(value(&council.city, "checkpoint_ms"), 600_000);
    council.vote(&["harbour"], &body);
    assert_eq!(value(&council.city, "checkpoint_ms"), 5_000);
}

#[test]
fn an_agency_is_removed_without_its_signature_and_what_it_did_stays() {
    let mut council = Council::new();
    let t = terms("AGR-1", 1);
    let Agreement { handles: h, .. } = council.city.agree(&t);
    assert_eq!(council.city.propose(&terms("AGR-2", 1)), 0);
    let session = council.city.open_session("court", "police", "s1");
    let op = council.city.query(h[0], session, 1);
    assert_eq!(council.city.say("police/executor", op), (Verdict::Accepted, 0));
    let at = council.city.log_size() - 1;
    let waiting =
        ActBody::KeyAdd { role: KeyRole::Root, label: "r".into(), key: hybrid("police/root/2").public().clone() };
    assert_eq!(council.root("police", waiting), 0);
    council.vote(&["police"], &param("checkpoint_ms", 5_000));

    council.vote(&["court", "grid", "transport"], &remove("police"));
    assert_eq!(updates(&council), [(validator("police").to_vec(), 0)]);
    for id in ["AGR-1", "AGR-2"] {
        assert_eq!(council.city.view(id, 1).status, Status::Suspended, "{id}");
    }
    // Its keys are over: no batch, no act, no approval.
    let op = council.city.query(h[0], session, 2);
    let tx = council.city.batch("police/executor", vec![op]);
    assert_eq!(council.city.mock.check(tx).code, u32::from(codes::KEY_REVOKED));
    assert_eq!(council.root("police", param("checkpoint_ms", 7)), codes::KEY_REVOKED);
    assert_eq!(council.gateway("police", ActBody::Roles { roles: vec![] }), codes::KEY_REVOKED);
    let (who, name) = approvers(&t).into_iter().find(|(who, _)| who == "police").unwrap();
    let approval = council.city.approval(&t, [0; 32], ApprovalKind::Resume, name);
    let tx = council.city.act(&who, name, approval);
    assert_eq!(council.submit(tx), codes::KEY_REVOKED);
    // Its sessions are over, and nobody opens new ones or proposes anything to it.
    let NodeReply::Session { body: Some(view) } = council.city.ask(&NodeRequest::Session { session }) else { panic!() };
    assert!(view.expires_ms <= council.city.clock_ms());
    let keys = vec![concordat_protocol::acts::SessionKey { key: Key::new("s2", Suite::Ed25519).point() }];
    let open = ActBody::SessionOpen { provider: agency("police"), keys, expires_ms: council.city.clock_ms() + DAY };
    assert_eq!(council.gateway("court", open), codes::BAD_VALUE);
    let mut again = terms("AGR-3", 1);
    again.assigner_roles = vec!["data-steward".into(), "legal".into()];
    let propose = ActBody::Propose { terms: cbor::encode(&again).into(), expires_ms: council.city.clock_ms() + DAY };
    assert_eq!(council.gateway("court", propose), codes::BAD_VALUE);
    // Its record stays, with its keys as they were then.
    assert_eq!(council.city.log(at)[0].verdict, Verdict::Accepted);
    let NodeReply::Keys { body } = council.city.ask(&NodeRequest::Keys { agency: agency("police") }) else { panic!() };
    assert!(body.len() >= 8 && body.iter().all(|k| k.revoked_ms > 0));
    // The newest epoch is without it, and the three others sign it.
    let newest = council.newest();
    let epochs = council.epochs();
    assert_eq!((epochs[1].validators.len(), epochs[1].keys.len()), (3, 3));
    for who in ["court", "grid", "transport"] {
        assert_eq!(council.sign_epoch(who, &hybrid(&format!("{who}/root")), &newest), 0);
    }
    assert_eq!(council.trust().unwrap().epochs.len(), 2);
    // Its waiting root never comes, it is not added again, its votes do not count, and of three all three are needed.
    council.city.clock.advance(DAY);
    assert_eq!(council.gateway("court", ActBody::Roles { roles: vec!["legal".into()] }), 0);
    assert_eq!(council.epochs().len(), 2);
    assert_eq!(council.root("court", remove("police")), codes::BAD_VALUE);
    let add = ActBody::AgencyAdd { agency: agency("police"), root: hybrid("police/root/3").public().clone() };
    assert_eq!(council.root("court", add), codes::BAD_VALUE);
    council.vote(&["court", "grid"], &param("checkpoint_ms", 5_000));
    assert_eq!(value(&council.city, "checkpoint_ms"), 600_000);
    council.vote(&["transport"], &param("checkpoint_ms", 5_000));
    assert_eq!(value(&council.city, "checkpoint_ms"), 5_000);
    let NodeReply::Agencies { body } = council.city.ask(&NodeRequest::Agencies {}) else { panic!() };
    assert_eq!(body.len(), 3);
    council.city.reopen();
    let other = super::kit::open(&council.city.dir.path().join("other.redb"), &council.city.clock);
    council.city.mock.replay_into(other);
}

#[test]
fn a_node_of_an_older_version_stops_at_the_height_of_the_upgrade() {
    let mut council = Council::new();
    let at_height = council.city.mock.height() as u64 + 6;
    council.vote(&MEMBERS[..3], &ActBody::Upgrade { app_version: 2, at_height });
    while council.city.mock.height() as u64 + 1 < at_height {
        council.city.tick();
    }
    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| council.city.tick())).unwrap_err();
    let said = stopped.downcast_ref::<String>().unwrap();
    assert!(said.contains("version 2") && said.contains("install"), "{said}");
}
