//! Decoders meet damaged encodings: each either is refused, or is itself the one encoding of what was read.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use concordat_protocol::cbor::{Bytes, Canon, decode, encode};
use concordat_protocol::keys::{PublicKey, Signature, SigningKey, Statement, Suite};
use concordat_protocol::leaves::{LeafSet, Redacted};
use concordat_protocol::message::{Envelope, EnvelopeDraft, EnvelopeSource, Record, RedactedEnvelope, SourceState};
use concordat_protocol::tree::{self, AdjacentProof, Frontier, SortedLeaf, SortedProof};
use proptest::prelude::*;
use std::collections::BTreeMap;

mod samples;

#[path = "decoders/wire.rs"]
mod wire;

#[derive(Debug, Clone)]
enum Damage {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Append(Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(i, b)| Damage::Set(i, b)),
        1 => any::<prop::sample::Index>().prop_map(Damage::Cut),
        2 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(i, b)| Damage::Insert(i, b)),
        2 => any::<prop::sample::Index>().prop_map(Damage::Remove),
        1 => proptest::collection::vec(any::<u8>(), 1..4).prop_map(Damage::Append),
    ]
}

fn apply(bytes: &[u8], damage: &Damage) -> Vec<u8> {
    let mut out = bytes.to_vec();
    match damage {
        Damage::Set(i, b) => out[i.index(bytes.len())] = *b,
        Damage::Cut(i) => out.truncate(i.index(bytes.len())),
        Damage::Insert(i, b) => out.insert(i.index(bytes.len() + 1), *b),
        Damage::Remove(i) => {
            out.remove(i.index(bytes.len()));
        }
        Damage::Append(more) => out.extend(more),
    }
    out
}

/// Reads damaged bytes; what is read must have exactly these bytes, and must differ from the original if they do.
fn check<T: Canon + PartialEq>(value: &T, damage: &Damage) -> Result<Option<T>, TestCaseError> {
    let good = encode(value);
    prop_assert!(decode::<T>(&good).is_ok_and(|v| v == *value));
    let bad = apply(&good, damage);
    let read = decode::<T>(&bad).ok();
    if let Some(read) = &read {
        prop_assert!(encode(read) == bad, "two encodings of one value");
        prop_assert!((bad == good) == (read == value));
    }
    Ok(read)
}

fn envelope() -> (SigningKey, Envelope, RedactedEnvelope) {
    let key = SigningKey::from_seed(Suite::Ed25519, &[1; 32]).unwrap();
    let event = br#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"a":1}}"#;
    let draft = EnvelopeDraft {
        chain: "c".into(),
        dataset: "ds:a/b@1".parse().unwrap(),
        first_seq: 1,
        source: EnvelopeSource {
            salt: [0; 16],
            state: SourceState { adapter: "x".into(), batch_no: 1, checkpoint: Bytes::default() },
        },
        members: ["a".to_owned()].into(),
        records: vec![Record { secret: [2; 32], event: event.to_vec().into() }; 2],
    };
    let envelope = draft.sign(&key).unwrap();
    let redacted = envelope.redact(|seq, _| (seq == 1).then_some(|name: &str| name == "d/a")).unwrap();
    (key, envelope, redacted)
}

proptest! {
    #[test]
    fn trees(damage in damage(), n in 0usize..20) {
        let leaves: Vec<SortedLeaf> = (0..n as u8).map(|i| SortedLeaf::new(&[i / 4, i], b"v")).collect();
        let hashes: Vec<_> = leaves.iter().map(SortedLeaf::hash).collect();
        let root = tree::root(&hashes);
        let mut frontier = Frontier::new();
        hashes.iter().for_each(|h| frontier.push(*h));
        check(&frontier, &damage)?;
        let list = SortedProof::prove(&leaves, &[1]).unwrap();
        if let Some(read) = check(&list, &damage)? {
            // A damaged proof that still verifies shows the same list.
            if let Ok(found) = read.verify(&[1], &root) { prop_assert_eq!(found, &list.found[..]); }
        }
        if let Some(adjacent) = AdjacentProof::prove(&hashes, 0, 1) { check(&adjacent, &damage)?; }
    }

    #[test]
    fn leaf_sets(damage in damage(), hide: u8) {
        let fields: BTreeMap<String, Vec<u8>> = (0..5u8).map(|i| (format!("f{i}"), vec![i; i as usize])).collect();
        let set = LeafSet::new(&[4; 32], fields).unwrap();
        let shown: Redacted = set.redact(|n| !n.ends_with(char::from(b'0' + hide % 5)));
        if let Some(read) = check(&shown, &damage)? {
            prop_assert_eq!(read.verify(&set.root()).is_ok(), read == shown);
        }
    }

    #[test]
    fn keys_and_signatures(damage in damage()) {
        let key = SigningKey::from_seed(Suite::Ed25519, &[3; 32]).unwrap();
        let sig = key.sign(Statement::Ack, "c", b"\x80");
        if let Some(read) = check::<Signature>(&sig, &damage)? {
            let ok = key.public().verify_full(Statement::Ack, "c", b"\x80", &read).is_ok();
            prop_assert_eq!(ok, read == sig);
        }
        if let Some(read) = check::<PublicKey>(key.public(), &damage)? {
            let ok = read.verify_full(Statement::Ack, "c", b"\x80", &sig).is_ok();
            prop_assert_eq!(ok, read == *key.public());
        }
    }

    #[test]
    fn envelopes(damage in damage()) {
        let (key, envelope, redacted) = envelope();
        if let Some(read) = check(&envelope, &damage)? {
            let same = read.verify(key.public()).is_ok();
            // The event's bytes are not signed, its meaning is: a changed space or key order is the same event.
            prop_assert!(!same || read.header == envelope.header);
        }
        if let Some(read) = check(&redacted, &damage)? {
            prop_assert_eq!(read.verify(key.public()).is_ok(), read == redacted);
        }
    }
}
