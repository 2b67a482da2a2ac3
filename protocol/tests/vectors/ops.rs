//! Operations, tags, batches and the log.

use crate::samples::{self, CHAIN, assert_every_kind, ed25519, hybrid, ops as made, shown};
use crate::{hx, kept, sampled, shape, unreduced};
use concordat_protocol::cbor::{Bytes, decode, encode};
use concordat_protocol::codes;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::keys::{SigningKey, Statement, signed_bytes, verify_ed25519};
use concordat_protocol::ops::{Batch, Op, Tags, Tx, batch_hash, log_key};
use concordat_protocol::tree;
use serde_json::{Value, json};

fn operations() -> Vec<Value> {
    let ops = made::ops();
    assert_every_kind::<Op>(ops.iter().map(|s| s.value.kind()));
    let case = |s: &samples::Sample<Op>| {
        let mut case = sampled(&s.fields, &s.value, Some(s.value.kind()));
        let hash = s.value.hash();
        assert_eq!(hash, sha256(&[&encode(&s.value)]));
        case["name"] = s.value.kind_word().into();
        case["op_hash"] = hx(hash);
        case
    };
    ops.iter().map(case).collect()
}

fn tags() -> Value {
    let list = |n: u64| {
        let (tags, bytes) = (made::tags(n), encode(&made::tags(n)));
        assert_eq!(decode::<Tags>(&bytes).unwrap(), tags);
        let code = tags.check().err().unwrap_or(codes::OK);
        let mut case =
            json!({"count": n, "cbor_length": bytes.len(), "cbor_sha256": hx(sha256(&[&bytes])), "code": code});
        if n <= 4 {
            case["cbor"] = hx(bytes);
        }
        case
    };
    let bulk = |count: u64| {
        let tags = Tags::Bulk { count, root: samples::h(14) };
        assert_eq!(decode::<Tags>(&encode(&tags)).unwrap(), tags);
        json!({"count": count, "cbor": hx(encode(&tags)), "code": tags.check().err().unwrap_or(codes::OK)})
    };
    let lists: Vec<Value> = [0, 1, 4, 16, 64, 256, 1_024, 2, 3, 5, 1_000].map(list).into();
    let bulks: Vec<Value> = [1_025, 1_000_000, 1_024, 0].map(bulk).into();
    let root = "0e".repeat(32);
    let refused = [
        ("8219040141ff".to_owned(), "a root of one byte"),
        (format!("821a000004015820{root}"), "a count in five bytes"),
        (format!("831904015820{root}00"), "bulk with three items"),
        (format!("815820{root}"), "a tag of 32 bytes"),
        (hex::encode(encode(&made::tags(1_025))), "1,025 tags"),
    ];
    let refused = refused.each_ref().map(|(b, why)| (b.as_str(), *why));
    json!({
        "rule": "tag i is the first 16 bytes of SHA-256 over i as u64 big-endian; a list holds tags 0 to count - 1",
        "lists": lists, "bulks": bulks, "refused": shape::<Tags>("tags", &[], &refused)["refused"],
    })
}

/// What a node says of a batch's bytes before it looks at its own state.
fn judge(tx: &[u8], writer: &[u8; 32]) -> u16 {
    let Ok(Tx::Batch { body, signature }) = decode::<Tx>(tx) else { return codes::NOT_CANONICAL };
    let Ok(batch) = decode::<Batch>(&body) else { return codes::NOT_CANONICAL };
    if batch.chain != CHAIN {
        return codes::WRONG_CHAIN;
    }
    let signed = signed_bytes(Statement::TxBatch, CHAIN, &body);
    verify_ed25519(writer, &signed, &signature).map_or(codes::BAD_SIGNATURE, |()| codes::OK)
}

fn sign(key: &SigningKey, st: Statement, chain: &str, body: &[u8]) -> [u8; 64] {
    key.sign(st, chain, body).ed25519.0.as_slice().try_into().unwrap()
}

fn tx(body: &[u8], signature: [u8; 64]) -> Vec<u8> {
    encode(&Tx::Batch { body: Bytes(body.to_vec()), signature })
}

fn batches() -> Vec<Value> {
    let key = ed25519(made::WRITER_SEED);
    let case = |s: samples::Sample<Batch>| {
        let body = encode(&s.value);
        let signature = sign(&key, Statement::TxBatch, CHAIN, &body);
        let tx = tx(&body, signature);
        assert_eq!(judge(&tx, &samples::point(made::WRITER_SEED)), codes::OK);
        assert_eq!(batch_hash(&body), sha256(&[&body]));
        let mut case = sampled(&s.fields, &s.value, None);
        case["last_seq"] = s.value.last_seq().into();
        case["batch_hash"] = hx(batch_hash(&body));
        case["signed_bytes"] = hx(signed_bytes(Statement::TxBatch, CHAIN, &body));
        case["signature"] = hx(signature);
        case["tx"] = hx(tx);
        case
    };
    made::batches().map(case).into()
}

/// Batches that no node may take.
fn forged() -> Vec<Value> {
    let key = ed25519(made::WRITER_SEED);
    let [first, _] = made::batches().map(|s| s.value);
    let body = encode(&first);
    let good = sign(&key, Statement::TxBatch, CHAIN, &body);
    let with = |change: &dyn Fn(&mut Batch)| {
        let mut batch = first.clone();
        change(&mut batch);
        encode(&batch)
    };
    let unreduced: [u8; 64] = unreduced(&good).try_into().unwrap();
    let elsewhere = with(&|b| b.chain = "city-2".into());
    let elsewhere_signed = sign(&key, Statement::TxBatch, "city-2", &elsewhere);
    let chain_length = body.windows(7).position(|w| w == b"\x66city-1").unwrap();
    let mut long = body.clone();
    long.splice(chain_length..=chain_length, [0x78, 6]);
    let mut short = tx(&body, good);
    let at = short.len() - 66;
    assert_eq!(short[at..at + 2], [0x58, 64]);
    short[at + 1] = 63;
    short.pop();
    let signed = |st, chain| tx(&body, sign(&key, st, chain, &body));
    let cases = [
        ("signed by another key", tx(&body, sign(&ed25519(0x12), Statement::TxBatch, CHAIN, &body))),
        (
            "signed by the Ed25519 half of a hybrid key",
            tx(&body, sign(&hybrid(0x12), Statement::TxBatch, CHAIN, &body)),
        ),
        ("an operation changed", tx(&with(&|b| b.ops[0] = Op::Ack { reference: 1, commitment: samples::h(4) }), good)),
        ("an operation added", tx(&with(&|b| b.ops.push(b.ops[0].clone())), good)),
        ("the sequence number changed", tx(&with(&|b| b.first_seq = 2), good)),
        ("the incarnation changed", tx(&with(&|b| b.incarnation = 2), good)),
        ("the previous hash changed", tx(&with(&|b| b.prev[31] = 1), good)),
        ("the writer changed", tx(&with(&|b| b.writer = samples::id("police/broker")), good)),
        ("signed as another statement", signed(Statement::Act, CHAIN)),
        ("signed for another chain, named as this one's", signed(Statement::TxBatch, "city-2")),
        ("of another chain, and signed for it", tx(&elsewhere, elsewhere_signed)),
        ("Ed25519 S not reduced", tx(&body, unreduced)),
        ("a signature of zeros", tx(&body, [0; 64])),
        ("a signature of 63 bytes", short),
        ("the body is not canonical, but signed", tx(&long, sign(&key, Statement::TxBatch, CHAIN, &long))),
        ("a byte follows the transaction", [tx(&body, good), vec![0]].concat()),
        ("a byte follows the body, signed", {
            let body = [&body[..], &[0]].concat();
            tx(&body, sign(&key, Statement::TxBatch, CHAIN, &body))
        }),
    ];
    let case = |(why, tx): (&str, Vec<u8>)| {
        let code = judge(&tx, &samples::point(made::WRITER_SEED));
        assert_ne!(code, codes::OK, "{why}");
        json!({"why": why, "tx": hx(tx), "code": code})
    };
    cases.into_iter().map(case).collect()
}

fn log() -> Value {
    let entries = made::entries();
    let leaf = |(i, s): (usize, &samples::Sample<_>)| tree::value_leaf(&log_key(i as u64), &encode(&s.value));
    let leaves: Vec<Hash> = entries.iter().enumerate().map(leaf).collect();
    let case = |(i, s): (usize, &samples::Sample<_>)| {
        let mut case = sampled(&s.fields, &s.value, None);
        case["index"] = i.into();
        case["key"] = hx(log_key(i as u64));
        case["leaf_hash"] = hx(leaves[i]);
        case
    };
    let listed: Vec<Value> = entries.iter().enumerate().map(case).collect();
    let roots = samples::node::roots();
    json!({
        "entries": listed, "root": hx(tree::root(&leaves)),
        "app_hash": {"roots": shown(&roots), "cbor": hx(encode(&roots)), "app_hash": hx(concordat_protocol::receipt::app_hash(&roots))},
    })
}

#[test]
fn operations_and_batches() {
    let refused_ops = [
        ("8100", "kind 0"),
        ("820d00", "kind 13"),
        ("820c09", "a field left out"),
        ("840c0941ff00", "a field too many"),
        ("830c0941ff", "a commitment of one byte"),
        ("a0", "a map"),
    ];
    kept(
        "operations.json",
        &json!({
            "about": "Operations, their tags, signed batches and log entries. Fields stand in the order of the encoding, after the kind where there is one",
            "chain": CHAIN, "operations": operations(), "refused_operations": shape::<Op>("op", &[], &refused_ops)["refused"],
            "tags": tags(),
            "batches": {
                "writer_seed": hx([made::WRITER_SEED; 32]), "writer_key": hx(samples::point(made::WRITER_SEED)),
                "taken": batches(), "refused": forged(),
            },
            "tick": {"ms": samples::TICK, "tx": hx(encode(&Tx::Tick { ms: samples::TICK }))},
            "log": log(),
        }),
    );
}
