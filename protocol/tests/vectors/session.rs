//! A query from request to released content, and a delivery of a feed.

use crate::samples::{self, CHAIN, Sample, ed25519, session as made};
use crate::{hx, kept, sampled, unreduced};
use concordat_protocol::cbor::{Canon, decode, encode};
use concordat_protocol::codes;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::keys::{KemKey, Signature, SigningKey, Statement, signed_bytes, verify_ed25519};
use concordat_protocol::leaves::{Redacted, salts};
use concordat_protocol::message::RedactedEnvelope;
use concordat_protocol::seal::SealReceiver;
use concordat_protocol::session::{Content, Promise, QueryReply, Release, Request, SignedRequest};
use concordat_protocol::tree;
use serde_json::{Value, json};

fn plain<T: Canon + PartialEq>(s: &Sample<T>) -> Value {
    sampled(&s.fields, &s.value, None)
}

/// What an executor says of a signed request before it looks at its own state.
fn judge(signed: &[u8], session: &[u8; 32]) -> u16 {
    let Ok(signed) = decode::<SignedRequest>(signed) else { return codes::NOT_CANONICAL };
    let Ok(request) = decode::<Request>(&signed.request) else { return codes::NOT_CANONICAL };
    if request.chain != CHAIN {
        return codes::WRONG_CHAIN;
    }
    let Ok(root) = signed.signed_root() else { return codes::NOT_CANONICAL };
    let message = signed_bytes(Statement::Request, CHAIN, &root);
    verify_ed25519(session, &message, &signed.signature).map_or(codes::BAD_SIGNATURE, |()| codes::OK)
}

fn requests() -> Value {
    let requests = made::requests();
    let leaves: Vec<Hash> = requests.iter().map(|s| tree::leaf_hash(&encode(&s.value))).collect();
    let root = encode(&tree::root(&leaves));
    let case = |(s, signed): (&Sample<Request>, SignedRequest)| {
        assert_eq!(s.value.hash(), sha256(&[&encode(&s.value)]));
        assert_eq!(signed.signed_root().unwrap(), root);
        assert_eq!(judge(&encode(&signed), &samples::point(made::SESSION_SEED)), codes::OK);
        let mut case = plain(s);
        case["request_hash"] = hx(s.value.hash());
        case["path"] = signed.path.iter().map(hx).collect();
        case["signed_request_cbor"] = hx(encode(&signed));
        case
    };
    let list: Vec<Value> = requests.iter().zip(made::signed()).map(case).collect();
    // Nothing signs the size: the same path under another size that leads to the same root is the same proof.
    let resized = SignedRequest { size: 4, ..made::signed().swap_remove(0) };
    assert_eq!(judge(&encode(&resized), &samples::point(made::SESSION_SEED)), codes::OK);
    let alone = made::sign(&[requests[0].value.clone()], &ed25519(made::SESSION_SEED), Statement::Request, CHAIN);
    json!({
        "session_seed": hx([made::SESSION_SEED; 32]), "session_key": hx(samples::point(made::SESSION_SEED)), "query_text": made::QUERY,
        "leaf_hashes": leaves.iter().map(hx).collect::<Value>(), "signed_root_cbor": hx(&root),
        "signed_bytes": hx(signed_bytes(Statement::Request, CHAIN, &root)), "signature": hx(made::signed()[0].signature),
        "requests": list, "signed_alone_cbor": hx(encode(&alone[0])), "same_path_of_size_4_cbor": hx(encode(&resized)),
         "refused": forged_requests(), "call": plain(&made::call()),
    })
}

fn forged_requests() -> Vec<Value> {
    let all: Vec<Request> = made::requests().into_iter().map(|s| s.value).collect();
    let (signed, key) = (made::signed(), ed25519(made::SESSION_SEED));
    let with = |change: &dyn Fn(&mut SignedRequest)| {
        let mut signed = signed[0].clone();
        change(&mut signed);
        signed
    };
    let changed = |change: &dyn Fn(&mut Request)| {
        let mut request = all[0].clone();
        change(&mut request);
        with(&|s| s.request = encode(&request).into())
    };
    let by = |key: &SigningKey, st, chain| made::sign(&all, key, st, chain).swap_remove(0);
    let abroad: Vec<Request> = all.iter().map(|r| Request { chain: "city-2".into(), ..r.clone() }).collect();
    let cases = [
        ("signed by another session's key", by(&ed25519(0x32), Statement::Request, CHAIN)),
        ("signed as another statement", by(&key, Statement::Ack, CHAIN)),
        ("signed for another chain", by(&key, Statement::Request, "city-2")),
        ("of another chain, and signed for it", made::sign(&abroad, &key, Statement::Request, "city-2").swap_remove(0)),
        ("its number changed", changed(&|r| r.n = 26)),
        ("its purpose changed", changed(&|r| r.purpose = "purp:open-data".into())),
        ("another query", changed(&|r| r.query_hash[0] ^= 1)),
        ("another sealing key", changed(&|r| r.kem_key_id.0[0] ^= 1)),
        ("the path of another request", with(&|s| s.path = signed[1].path.clone())),
        ("the place of another request", with(&|s| s.index = 1)),
        ("a place outside", with(&|s| s.index = 3)),
        ("a path that is too short", with(&|s| s.path.truncate(1))),
        ("a path that is too long", with(&|s| s.path.push([0; 32]))),
        ("the root as a request of its own", with(&|s| (s.size, s.path) = (1, vec![]))),
        ("a size of 0", with(&|s| (s.size, s.path) = (0, vec![]))),
        ("Ed25519 S not reduced", with(&|s| s.signature = unreduced(&s.signature).try_into().unwrap())),
    ];
    let case = |(why, signed): (&str, SignedRequest)| {
        let bytes = encode(&signed);
        let code = judge(&bytes, &samples::point(made::SESSION_SEED));
        assert_ne!(code, codes::OK, "{why}");
        json!({"why": why, "signed_request_cbor": hx(bytes), "code": code})
    };
    cases.into_iter().map(case).collect()
}

/// Signatures over a statement of the release key, the good one and those that must not verify.
fn statement(st: Statement, body: &[u8], changed: &[(&str, Vec<u8>)]) -> Value {
    let key = ed25519(made::RELEASE_SEED);
    let good = key.sign(st, CHAIN, body);
    key.public().verify_full(st, CHAIN, body, &good).unwrap();
    let as_other = if st == Statement::Release { Statement::Promise } else { Statement::Release };
    let zeros = Signature { ed25519: vec![0; 64].into(), ..good.clone() };
    let unreduced = Signature { ed25519: unreduced(&good.ed25519).into(), ..good.clone() };
    let mut cases = vec![
        ("signed by another key", body.to_vec(), ed25519(0x42).sign(st, CHAIN, body)),
        ("signed as another statement", body.to_vec(), key.sign(as_other, CHAIN, body)),
        ("signed for another chain", body.to_vec(), key.sign(st, "city-2", body)),
        ("Ed25519 S not reduced", body.to_vec(), unreduced),
        ("a signature of zeros", body.to_vec(), zeros),
    ];
    cases.extend(changed.iter().map(|(why, body)| (*why, body.clone(), good.clone())));
    let case = |(why, body, signature): (&str, Vec<u8>, Signature)| {
        assert!(key.public().verify_full(st, CHAIN, &body, &signature).is_err(), "{why}");
        json!({"why": why, "cbor": hx(body), "signature": hx(&signature.ed25519.0)})
    };
    let refused: Vec<Value> = cases.into_iter().map(case).collect();
    json!({
        "statement": st.name(), "signed_bytes": hx(signed_bytes(st, CHAIN, body)), "signature": hx(&good.ed25519.0), "refused": refused,
    })
}

fn contents() -> Vec<Value> {
    let case = |c: Content| {
        let rows: Vec<&str> = c.rows.iter().map(|r| core::str::from_utf8(r).unwrap()).collect();
        let salts: Vec<Value> = salts(&c.secret, c.rows.len() + 1).iter().map(hx).collect();
        json!({"secret": hx(c.secret), "rows": rows, "salts": salts, "cbor": hx(encode(&c)), "content_root": hx(c.root())})
    };
    made::contents().into_iter().map(case).collect()
}

fn changed_release(change: impl Fn(&mut Release)) -> Vec<u8> {
    let mut release = made::release().value;
    change(&mut release);
    encode(&release)
}

fn released() -> Value {
    let (released, request) = (made::released(), made::requests()[0].value.hash());
    let body = released.value.clone();
    let receiver = SealReceiver::new(&made::kem(), &body.encapsulation, CHAIN, "session/70000", 0).unwrap();
    let opened = receiver.open(23, &request, &body.sealed).unwrap();
    assert_eq!(decode::<Content>(&opened).unwrap(), made::contents()[2]);
    assert!(receiver.open(24, &request, &body.sealed).is_err());
    decode::<Redacted>(&body.openings).unwrap().verify(&made::commitment().root()).unwrap();
    let release = encode(&made::release().value);
    let changes = [
        ("another request", changed_release(|r| r.request_hash[0] ^= 1)),
        ("another operation", changed_release(|r| r.op_hash[0] ^= 1)),
        ("other content", changed_release(|r| r.content_root = made::contents()[0].root())),
    ];
    let set = made::commitment();
    let leaves: Vec<Value> = set.names().map(|n| json!({"name_text": n, "value": hx(set.get(n).unwrap())})).collect();
    let (denied, written) = (made::denied(), made::written());
    let written = QueryReply::Written { body: written.value };
    let promised = QueryReply::Promised { body: made::promised().value };
    let replies = [QueryReply::Released { body }, QueryReply::Denied { body: denied.value }, written, promised];
    let replies: Vec<Value> =
        replies.iter().map(|r| json!({"name": r.kind_name(), "kind": r.kind(), "cbor": hx(encode(r))})).collect();
    json!({
        "commitment": {"secret": hx(made::COMMITMENT_SECRET), "leaves": leaves, "root": hx(set.root())},
        "op_cbor": hx(encode(&made::op())), "ticket": plain(&made::ticket()), "release": plain(&made::release()),
        "release_signature": statement(Statement::Release, &release, &changes),
        "seal_scope": "session/70000", "seal_epoch": 0, "seal_n": 23, "seal_header": hx(request),
        "released": plain(&released), "denied": plain(&made::denied()), "replies": replies,
    })
}

fn changed_promise(change: impl Fn(&mut Promise)) -> Vec<u8> {
    let mut promise = made::promise().value;
    change(&mut promise);
    encode(&promise)
}

fn feed() -> Value {
    let (item, promise) = (made::item(), encode(&made::promise().value));
    let receiver =
        SealReceiver::new(&made::kem(), &item.value.encapsulation, CHAIN, "subscription/41", made::EPOCH).unwrap();
    let opened = receiver.open(item.value.seal_n, &promise, &item.value.sealed).unwrap();
    assert_eq!(sha256(&[&opened]), made::promise().value.root);
    decode::<RedactedEnvelope>(&opened).unwrap().verify(ed25519(7).public()).unwrap();
    let changes = [
        ("another envelope", changed_promise(|p| p.root[0] ^= 1)),
        ("another delivery", changed_promise(|p| (p.first_sub_seq, p.last_sub_seq) = (901, 901))),
        ("another subscription", changed_promise(|p| p.subscription = 42)),
        ("delivered later", changed_promise(|p| p.delivered_ms += 1)),
        ("more time to anchor", changed_promise(|p| p.max_lag_ms += 1)),
    ];
    json!({
        "redacted_envelope_cbor": hx(encode(&made::redacted())), "promise": plain(&made::promise()),
        "promise_signature": statement(Statement::Promise, &promise, &changes),
        "seal_scope": "subscription/41", "seal_epoch": made::EPOCH, "item": plain(&item),
    })
}

#[test]
fn sessions() {
    let kem: KemKey = made::kem();
    let release = ed25519(made::RELEASE_SEED);
    kept(
        "sessions.json",
        &json!({
            "about": "Three requests under one signature, the released answer to the first, a denial, contents, and one delivery of a feed. Sealed as in sealing.json with the named scope and epoch; the associated data is `seal_header`, of a feed the promise",
            "chain": CHAIN,
            "keys": {
                "release_seed": hx([made::RELEASE_SEED; 32]), "release_public_key_cbor": hx(encode(release.public())),
                "kem_seed": hx([made::KEM_SEED; 32]), "kem_public_key_cbor": hx(encode(kem.public())), "encapsulation_randomness": hx([made::KEM_RANDOM; 64]),
            },
            "request": requests(), "contents": contents(), "answer": released(), "feed": feed(), "session_leaf": plain(&made::leaf()),
        }),
    );
}
