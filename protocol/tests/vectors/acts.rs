//! Acts, and the terms they carry.

use crate::samples::{self, CHAIN, Sample, acts as made, assert_every_kind, terms};
use crate::{hx, kept, sampled, shape, sign_reproducibly, unreduced};
use concordat_protocol::acts::{Act, ActBody, act_hash};
use concordat_protocol::cbor::{Bytes, decode, encode};
use concordat_protocol::hash::sha256;
use concordat_protocol::keys::{PublicKey, Signature, Statement, Suite, signed_bytes};
use concordat_protocol::ops::Tx;
use concordat_protocol::terms::{Terms, purpose_hash};
use serde_json::{Value, json};

fn signed(suite: Suite, seed: u8, act: &[u8]) -> (PublicKey, Signature) {
    sign_reproducibly(suite, &vec![seed; suite.seed_len()], Statement::Act, CHAIN, act)
}

fn case(body: Sample<ActBody>, suite: Suite, seed: u8) -> Value {
    let key = if suite == Suite::Hybrid { samples::hybrid(seed) } else { samples::ed25519(seed) };
    let (kind, name, urgent) = (body.value.kind(), body.value.kind_word(), body.value.is_urgent());
    let mut case = sampled(&body.fields, &body.value, Some(kind));
    let act = made::act(body.value, &key).value;
    let bytes = encode(&act);
    assert_eq!(act_hash(&act), sha256(&[&bytes]));
    case["name"] = name.into();
    case["urgent"] = urgent.into();
    case["act"] = hx(&bytes);
    case["act_hash"] = hx(act_hash(&act));
    // Nobody signs the act of genesis.
    if kind != 1 {
        let (public, signature) = signed(suite, seed, &bytes);
        assert_eq!(public.key_id(), act.key_id);
        case["signed_bytes"] = hx(signed_bytes(Statement::Act, CHAIN, &bytes));
        case["signature_cbor"] = hx(encode(&signature));
        case["tx_sha256"] = hx(sha256(&[&encode(&Tx::Act { body: bytes.into(), signature })]));
    }
    case
}

/// Signatures of an approval that must not verify. Consensus sees only the Ed25519 part; executors and receipt
/// verifiers must refuse all of them.
fn forged() -> Value {
    let key = samples::hybrid(made::HYBRID_SEED);
    let act = made::act(made::approve().value, &key).value;
    let bytes = encode(&act);
    let (public, good) = signed(Suite::Hybrid, made::HYBRID_SEED, &bytes);
    let (_, other) = signed(Suite::Hybrid, 0x29, &bytes);
    let as_other = |st, chain| sign_reproducibly(Suite::Hybrid, &[made::HYBRID_SEED; 64], st, chain, &bytes).1;
    let changed = |change: &dyn Fn(&mut Act)| {
        let mut act = act.clone();
        change(&mut act);
        encode(&act)
    };
    let more = changed(&|a| a.counter += 1);
    let agency = changed(&|a| a.agency = samples::id("court"));
    let terms = changed(&|a| {
        if let ActBody::Approve { terms_hash, .. } = &mut a.body {
            terms_hash[0] ^= 1;
        }
    });
    let classical = Signature { suite: Suite::Ed25519, pq: Bytes::default(), ..good.clone() };
    let s = Signature { ed25519: unreduced(&good.ed25519).into(), ..good.clone() };
    let cases = [
        ("signed by another key", &bytes, other.clone()),
        ("Ed25519 part of another key", &bytes, Signature { ed25519: other.ed25519, ..good.clone() }),
        ("ML-DSA part of another key", &bytes, Signature { pq: other.pq, ..good.clone() }),
        ("only the Ed25519 part", &bytes, classical),
        ("Ed25519 S not reduced", &bytes, s),
        ("the counter changed", &more, good.clone()),
        ("the agency changed", &agency, good.clone()),
        ("other terms", &terms, good.clone()),
        ("signed as another statement", &bytes, as_other(Statement::Complaint, CHAIN)),
        ("signed for another chain", &bytes, as_other(Statement::Act, "city-2")),
    ];
    let case = |(why, act, signature): (&str, &Vec<u8>, Signature)| {
        assert!(public.verify_full(Statement::Act, CHAIN, act, &signature).is_err(), "{why}");
        let consensus = public.verify_classical(Statement::Act, CHAIN, act, &signature).is_ok();
        assert_eq!(consensus, why.starts_with("ML-DSA"), "{why}");
        json!({"why": why, "act": hx(act), "signature_cbor": hx(encode(&signature)), "consensus_takes_it": consensus})
    };
    let list: Vec<Value> = cases.into_iter().map(case).collect();
    json!({"public_key_cbor": hx(encode(&public)), "cases": list})
}

#[test]
fn acts() {
    let bodies = made::bodies();
    assert_every_kind::<ActBody>(bodies.iter().map(|s| s.value.kind()));
    let list: Vec<Value> = bodies.into_iter().map(|b| case(b, Suite::Ed25519, made::ED25519_SEED)).collect();
    let key_add = made::bodies().swap_remove(1);
    let hybrid: Vec<Value> = [key_add, made::approve()].map(|b| case(b, Suite::Hybrid, made::HYBRID_SEED)).into();
    let fixed = samples::ed25519(made::ED25519_SEED);
    let act = made::act(ActBody::AgencyRemove { agency: samples::id("court") }, &fixed);
    let refused = [
        ("8118", "nothing"),
        ("8100", "kind 0"),
        ("821818a0", "kind 24"),
        ("8114", "agency-remove without an agency"),
        ("821465436f757274", "an agency in capitals"),
        ("82146563c3bc7274", "an agency with an umlaut"),
        ("83040141ff", "dataset with a number for a name"),
        ("84020a6083014040", "key-add of role 10"),
    ];
    kept(
        "acts.json",
        &json!({
            "about": "Acts of every kind. Fields are those of the body, `cbor` is the body, `act` the act around it: [chain, agency, key id, counter, body]. Who may sign which kind is not judged here: all are signed by one Ed25519 key, two again by a hybrid one (ML-DSA deterministic, empty context)",
            "chain": CHAIN,
            "ed25519": {"seed": hx([made::ED25519_SEED; 32]), "public_key_cbor": hx(encode(fixed.public())), "key_id": hx(fixed.key_id().0), "acts": list},
            "hybrid": {
                "seed": hx([made::HYBRID_SEED; 64]),
                "public_key_cbor": hx(encode(samples::hybrid(made::HYBRID_SEED).public())),
                "key_id": hx(samples::hybrid(made::HYBRID_SEED).key_id().0),
                "acts": hybrid,
            },
            "act_shape": sampled(&act.fields, &act.value, None),
            "refused_bodies": shape::<ActBody>("act body", &[], &refused)["refused"],
            "refused_signatures": forged(),
        }),
    );
}

#[test]
fn compiled_terms() {
    let case = |s: Sample<Terms>| {
        let mut case = sampled(&s.fields, &s.value, None);
        assert_eq!(s.value.hash(), sha256(&[&encode(&s.value)]));
        case["terms_hash"] = hx(s.value.hash());
        case
    };
    let list: Vec<Value> = terms::all().into_iter().map(case).collect();
    let purposes: Vec<Value> =
        terms::PURPOSES.iter().map(|p| json!({"text": p, "purpose_hash": hx(purpose_hash(p))})).collect();
    let good = encode(&terms::query().value);
    let changed = |find: &[u8], put: &[u8]| {
        let at = good.windows(find.len()).position(|w| w == find).unwrap();
        hex::encode([&good[..at], put, &good[at + find.len()..]].concat())
    };
    let refused = [
        (changed(b"\x6dAGR-2026-0142", b"\x6dAGR_2026-0142"), "an agreement's name with _"),
        (changed(b"\x71ds:police/stops@1", b"\x71ds:police/stops@0"), "version 0 of a dataset"),
        (changed(b"\x81\x65court", b"\x82\x65court\x60"), "two assignees"),
        (changed(b"\x81\x65court", b"\x65court"), "an assignee that is not optional"),
        (changed(b"\x62C1\x01", b"\x62C1\x04"), "effect 4"),
        (changed(b"\x62C1\x01", b"\x62C1\x18\x01"), "effect 1 in two bytes"),
    ];
    let refused: Vec<(&str, &str)> = refused.iter().map(|(b, why)| (b.as_str(), *why)).collect();
    assert!(decode::<Terms>(&good).is_ok());
    kept(
        "terms.json",
        &json!({
            "about": "Compiled agreements: for a query, for a feed, for public data. A clause is [id, effect, actions, purpose hash, evidence, from, until, quota or none, review]",
            "terms": list, "purposes": purposes, "refused": shape::<Terms>("terms", &[], &refused)["refused"],
        }),
    );
}
