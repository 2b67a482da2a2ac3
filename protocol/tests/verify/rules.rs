//! What a receipt must hold, and what it then says.

use crate::world::{
    AGENCIES, Spec, TICK, agency, denial, make, publish, session_close, trust, trust_of, val, vals, with_entry,
};
use base64::Engine as _;
use concordat_protocol::acts::KeyRole;
use concordat_protocol::cbor::encode;
use concordat_protocol::keys::KeyId;
use concordat_protocol::leaves::commitment as names;
use concordat_protocol::limits;
use concordat_protocol::ops::Op;
use concordat_protocol::receipt::{self, Parts, ReceiptError};
use concordat_protocol::trust::{Epoch, Trust, Validator};
use concordat_protocol::verify::comet::pack;
use concordat_protocol::verify::{Status, Verified, verify, verify_block};

fn check_of(s: &Spec) -> &'static str {
    verify(&make(s).bytes(), &trust(), None).expect_err("must be refused").check
}

fn good(s: &Spec) -> Verified {
    verify(&make(s).bytes(), &trust(), None).unwrap()
}

#[test]
fn a_receipt_says_who_what_when_and_under_which_clause() {
    let made = make(&Spec::default());
    let v = verify(&made.bytes(), &trust(), Some(&made.content)).unwrap();
    assert_eq!((v.status, v.contested, v.accepted(), v.released), (Status::Provisional, false, true, true));
    assert_eq!((v.index, v.height, v.tick_ms, v.kind.as_str()), (29, 12, TICK, "query"));
    assert_eq!((v.provider, v.consumer), (agency("police"), Some(agency("court"))));
    assert_eq!((v.agreement.as_deref(), v.clause.as_deref(), v.handle), (Some("AGR-2026-0142"), Some("C1"), Some(5)));
    assert_eq!(v.opened[names::COUNT], "3");
    assert!(!v.opened.contains_key(names::ACTOR), "what is hidden stays hidden");
    let names: Vec<_> = v.checks.iter().map(|c| c.name).collect();
    let want = [
        "decode",
        "trust",
        "chain",
        "validators",
        "commit",
        "app_hash",
        "log_path",
        "op_hash",
        "commitment",
        "session",
        "request_signature",
        "request",
        "release_key",
        "release_signature",
        "content_root",
        "verdict",
    ];
    assert_eq!(names, want);
    let json = receipt::to_json(&made.receipt());
    assert_eq!(json["entry"]["verdict"], "accepted");
    assert_eq!(json["openings"]["hidden"], 2);
}

#[test]
fn sizes_stay_in_bounds_with_four_validators() {
    let provisional = make(&Spec::default()).bytes().len();
    let last = make(&Spec { cosigners: vec!["court", "police", "transport"], ..Spec::default() }).bytes().len();
    println!("provisional receipt {provisional} bytes, final receipt {last} bytes");
    // A log of a million entries has a path of 20 hashes, heads and meta of 65,536 leaves 16: 27 hashes more than here.
    assert!(provisional + 27 * 34 <= 6_000, "{provisional}");
    assert!(last + 27 * 34 <= limits::RECEIPT_BYTES_MAX, "{last}");
}

#[test]
fn three_cosigners_of_four_make_it_final_and_two_do_not() {
    let v = good(&Spec { cosigners: vec!["court", "grid", "police"], ..Spec::default() });
    assert_eq!((v.status, v.cosigners.len()), (Status::Final, 3));
    assert_eq!(check_of(&Spec { cosigners: vec!["court", "police"], ..Spec::default() }), "checkpoint");
    assert_eq!(check_of(&Spec { cosigners: vec!["court", "court", "police"], ..Spec::default() }), "checkpoint");
    assert_eq!(check_of(&Spec { cosigners: vec!["court", "police", "stranger"], ..Spec::default() }), "checkpoint");
}

#[test]
fn more_than_two_thirds_of_the_power_must_have_signed() {
    good(&Spec { signers: vec![1, 2, 3], ..Spec::default() });
    assert_eq!(check_of(&Spec { signers: vec![1, 2], ..Spec::default() }), "commit");
    assert_eq!(check_of(&Spec { signers: vec![], ..Spec::default() }), "commit");
    // Exactly two thirds are not more than two thirds; and power counts, not heads.
    let three = || [("court", 10), ("grid", 10), ("police", 10)].map(|(a, p)| val(a, "a", p));
    let exact = Spec { vals: three().into(), signers: vec![0, 1], ..Spec::default() };
    let err = verify(&make(&exact).bytes(), &trust_of(&three()), None).unwrap_err();
    assert_eq!(err.check, "commit", "{err}");
    let heavy = || [("court", 10), ("grid", 10), ("police", 10), ("transport", 31)].map(|(a, p)| val(a, "a", p));
    let light = Spec { vals: heavy().into(), signers: vec![0, 1, 2], ..Spec::default() };
    assert_eq!(verify(&make(&light).bytes(), &trust_of(&heavy()), None).unwrap_err().check, "commit");
}

#[test]
fn a_release_key_must_be_the_providers_and_not_revoked() {
    assert_eq!(check_of(&Spec { revoked_ms: TICK, ..Spec::default() }), "release_key");
    assert_eq!(check_of(&Spec { revoked_ms: TICK - 5_000, ..Spec::default() }), "release_key");
    assert_eq!(check_of(&Spec { release_role: KeyRole::Gateway, ..Spec::default() }), "release_key");
    assert_eq!(check_of(&Spec { release_agency: "grid", ..Spec::default() }), "release_key");
    let later = good(&Spec { revoked_ms: TICK + 1, ..Spec::default() });
    assert!(!later.contested, "revoked later, compromised never");
    assert!(good(&Spec { revoked_ms: TICK + 9, compromised_since_ms: TICK, ..Spec::default() }).contested);
    assert!(!good(&Spec { revoked_ms: TICK + 9, compromised_since_ms: TICK + 1, ..Spec::default() }).contested);
}

#[test]
fn parties_and_opened_leaves_must_agree() {
    assert_eq!(check_of(&Spec { provider: "grid", ..Spec::default() }), "session");
    assert_eq!(check_of(&Spec { opened_purpose: "purp:planning", ..Spec::default() }), "request");
    let hidden = Spec {
        opened_purpose: "purp:planning",
        open: |n| n == names::REQUEST_HASH || n == names::CONTENT_ROOT,
        ..Spec::default()
    };
    assert_eq!(good(&hidden).clause.as_deref(), Some("C1"), "from the signed request");
    assert_eq!(check_of(&Spec { open: |n| n == names::CONTENT_ROOT, ..Spec::default() }), "request");
    assert_eq!(check_of(&Spec { open: |n| n == names::REQUEST_HASH, ..Spec::default() }), "content_root");
    let other_n = Spec {
        op: Some(|op| {
            if let Op::Query { n, .. } = op {
                *n += 1
            }
        }),
        ..Spec::default()
    };
    assert_eq!(check_of(&other_n), "request");
}

#[test]
fn content_given_beside_the_receipt_must_be_the_released_one() {
    let made = make(&Spec::default());
    let mut content = made.content.clone();
    content.rows[1].0[3] ^= 1;
    assert_eq!(verify(&made.bytes(), &trust(), Some(&content)).unwrap_err().check, "content_root");
    let mut fewer = made.content.clone();
    fewer.rows.pop();
    assert_eq!(verify(&made.bytes(), &trust(), Some(&fewer)).unwrap_err().check, "content_root");
}

#[test]
fn a_querys_receipt_needs_the_request_and_may_lack_the_release() {
    let made = make(&Spec::default());
    let mut r = made.receipt();
    r.release = None;
    let v = verify(&encode(&r), &trust(), None).unwrap();
    assert!(!v.released, "a withheld operation has no release");
    r.request = None;
    assert_eq!(verify(&encode(&r), &trust(), None).unwrap_err().check, "request_signature");
}

#[test]
fn publications_and_acts_have_receipts_without_a_request() {
    let mut r = publish(&Spec::default());
    let v = verify(&encode(&r), &trust(), None).unwrap();
    assert_eq!((v.kind.as_str(), v.provider, v.consumer, v.released), ("publish", agency("grid"), None, false));
    let query = make(&Spec::default()).receipt();
    r.request = query.request.clone();
    assert_eq!(verify(&encode(&r), &trust(), None).unwrap_err().check, "request");
    (r.request, r.openings) = (None, query.openings);
    assert_eq!(verify(&encode(&r), &trust(), None).unwrap_err().check, "commitment");

    let act = session_close(&Spec::default());
    let v = verify(&encode(&act), &trust(), None).unwrap();
    assert_eq!((v.kind.as_str(), v.provider, v.writer.as_str()), ("session-close", agency("court"), "act:court"));
    let other = with_entry(&Spec::default(), "act:grid", act.op.0, act.entry.op_hash, 9);
    assert_eq!(verify(&encode(&other), &trust(), None).unwrap_err().check, "op_hash");
}

#[test]
fn a_denial_releases_nothing() {
    let deny = Spec { op: Some(denial), ..Spec::default() };
    assert_eq!(check_of(&deny), "release_signature");
    let mut r = make(&deny).receipt();
    r.release = None;
    assert_eq!(verify(&encode(&r), &trust(), None).unwrap().kind, "deny");
}

#[test]
fn building_refuses_parts_that_do_not_fit() {
    let made = make(&Spec::default());
    let other = make(&Spec { session: 8, ..Spec::default() });
    let parts = made.parts(&[]);
    let err = receipt::build(Parts { request: Some(&other.signed), ..parts }).unwrap_err();
    assert!(matches!(err, ReceiptError::Mismatch { part: "session proof", .. }), "{err}");
    let err = receipt::build(Parts { release: Some((&made.release, KeyId([0; 16]))), ..parts }).unwrap_err();
    assert!(matches!(err, ReceiptError::Mismatch { part: "key proof", .. }), "{err}");
    let err = receipt::build(Parts { openings: Some(&[0x80, 0x80]), ..parts }).unwrap_err();
    assert!(matches!(err, ReceiptError::Part { part: "openings", .. }), "{err}");
}

#[test]
fn validators_in_the_set_but_not_in_genesis_order_are_sorted_the_same_everywhere() {
    let mut mixed = vals("a");
    for (v, power) in mixed.iter_mut().zip([3, 900, 40, 900]) {
        v.power = power;
    }
    let spec = Spec { vals: mixed, ..Spec::default() };
    let trust = trust_of(&spec.vals);
    assert_eq!(trust.epochs[0].validator_agencies().len(), AGENCIES.len());
    verify(&make(&spec).bytes(), &trust, None).unwrap();
}

/// Answers of a real CometBFT 0.38.25 with four validators, one of them down.
#[test]
fn a_real_commit_packs_and_verifies() {
    let file = |name: &str| {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/receipt/comet");
        std::fs::read_to_string(dir.join(name)).unwrap()
    };
    let (commit, validators) = (file("commit.json"), file("validators.json"));
    let packed = pack(&commit, &validators).unwrap();
    let listed: serde_json::Value = serde_json::from_str(&validators).unwrap();
    let listed = listed["result"]["validators"].as_array().unwrap();
    let one = |(v, name): (&serde_json::Value, &str)| {
        let key = base64::engine::general_purpose::STANDARD.decode(v["pub_key"]["value"].as_str().unwrap()).unwrap();
        Validator { agency: agency(name), key: key.try_into().unwrap(), power: 1 }
    };
    let epoch = Epoch::next(None, 1, listed.iter().zip(AGENCIES).map(one).collect(), vec![]);
    let city = Trust { chain: "chain-K5j47i".into(), epochs: vec![epoch], ..trust() };
    let block = verify_block(&packed.header, &packed.validators, &city).unwrap();
    assert_eq!((block.height, block.votes, block.epoch), (3, 3, 0));
    assert_eq!(verify_block(&packed.header, &packed.validators, &trust()).unwrap_err().check, "chain");
    let altered = commit.replace("\"app_hash\":\"00", "\"app_hash\":\"01");
    let altered = pack(&altered, &validators).unwrap();
    assert_eq!(verify_block(&altered.header, &altered.validators, &city).unwrap_err().check, "commit");
    assert!(pack(&validators, &commit).is_err());
    // The library that reads base64 panics on some text that is cut; a fuzzer found it.
    let at = commit.find("\"signature\"").unwrap() + 14;
    let ends = commit[at..].find(['"', '=']).unwrap() + at;
    for cut in 1..9 {
        assert!(pack(&format!("{}{}", &commit[..ends - cut], &commit[ends..]), &validators).is_err(), "{cut} cut");
    }
    assert!(pack("{}", "[]").is_err());
}
