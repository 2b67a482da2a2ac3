//! What a consumer is shown of what a publisher signed: any subset verifies, and what is hidden leaves no trace but hashes.
#![cfg(feature = "node")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use concordat_protocol::cbor::{Bytes, decode, encode};
use concordat_protocol::keys::{SigningKey, Suite};
use concordat_protocol::leaves::{LeafView, Redacted};
use concordat_protocol::message::{
    CORE_ATTRIBUTES, EnvelopeDraft, EnvelopeSource, Event, MessageView, Record, RedactedEnvelope, SourceState,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Members of the schema.
const MEMBERS: [&str; 6] = ["alarm", "mw", "note", "zone", "ü", "z z"];
/// Attributes beside the four that an event must have.
const OPTIONAL: [&str; 4] = ["datacontenttype", "dataschema", "subject", "time"];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
        (-9_007_199_254_740_991i64..=9_007_199_254_740_991).prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        "[a-zü€\"\\\\ ]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map("[a-z]{0,3}", inner, 0..4).prop_map(|m| json!(m)),
        ]
    })
}

/// An event whose members, optional attributes and their values are anything.
fn event() -> impl Strategy<Value = Value> {
    let text = "[a-z0-9-]{1,12}";
    let optional = btree_map(prop::sample::select(OPTIONAL.to_vec()), text, 0..4);
    (text, text, text, optional, btree_map(prop::sample::select(MEMBERS.to_vec()), value(), 0..6)).prop_map(
        |(id, source, kind, optional, data)| {
            let mut event = json!({"specversion": "1.0", "id": id, "source": source, "type": kind, "data": data});
            for (name, text) in optional {
                let text = if name == "datacontenttype" { "application/json".into() } else { text };
                event[name] = text.into();
            }
            event
        },
    )
}

/// Names of leaves; any of them may be shown.
fn names() -> Vec<String> {
    let attributes = CORE_ATTRIBUTES.iter().map(|a| format!("a/{a}"));
    attributes.chain(MEMBERS.iter().map(|m| format!("d/{m}"))).collect()
}

/// Per message: nothing (it is left out), or the names that are shown.
fn choices(n: usize) -> impl Strategy<Value = Vec<Option<BTreeSet<String>>>> {
    let some = btree_set(prop::sample::select(names()), 0..14);
    vec(prop_oneof![1 => Just(None), 4 => some.prop_map(Some)], n)
}

fn key() -> SigningKey {
    SigningKey::from_seed(Suite::Ed25519, &[7; 32]).unwrap()
}

fn draft(events: &[Value]) -> EnvelopeDraft {
    let record = |(i, e): (usize, &Value)| Record { secret: [i as u8; 32], event: e.to_string().into_bytes().into() };
    EnvelopeDraft {
        chain: "city".into(),
        dataset: "ds:grid/load@1".parse().unwrap(),
        first_seq: 41,
        source: EnvelopeSource {
            salt: [5; 16],
            state: SourceState { adapter: "csv".into(), batch_no: 3, checkpoint: Bytes::default() },
        },
        members: MEMBERS.iter().map(|m| (*m).to_owned()).collect(),
        records: events.iter().enumerate().map(record).collect(),
    }
}

fn redacted(events: &[Value], show: &[Option<BTreeSet<String>>]) -> RedactedEnvelope {
    let envelope = draft(events).sign(&key()).unwrap();
    let choose = |seq: u64, _: &Event| show[(seq - 41) as usize].clone().map(|set| move |n: &str| set.contains(n));
    // As it travels.
    decode(&encode(&envelope.redact(choose).unwrap())).unwrap()
}

/// What an event shows under these names.
fn only(event: &Value, names: &BTreeSet<String>) -> Value {
    let mut out = Map::new();
    for name in names {
        match name.split_at(2) {
            ("a/", attribute) => {
                event.get(attribute).map(|v| out.insert(attribute.into(), v.clone()));
            }
            (_, member) => {
                let data = out.entry("data").or_insert_with(|| json!({}));
                if let Some(value) = event["data"].get(member) {
                    data[member] = value.clone();
                }
            }
        }
    }
    Value::Object(out)
}

/// The same without what proves it: hashes of hidden leaves and of messages left out, the root and its signature.
fn without_proof(mut e: RedactedEnvelope) -> RedactedEnvelope {
    e.header.root = [0; 32];
    e.signature.ed25519 = vec![0; 64].into();
    for message in &mut e.messages {
        match message {
            MessageView::LeftOut { root } => *root = [0; 32],
            MessageView::Shown { leaves } | MessageView::Altered { leaves, .. } => {
                for leaf in &mut leaves.leaves {
                    if let LeafView::Hidden { hash } = leaf {
                        *hash = [0; 32];
                    }
                }
            }
        }
    }
    e
}

/// Another event that shows the same under these names and differs elsewhere as `other` does.
fn mixed(event: &Value, other: &Value, names: &BTreeSet<String>) -> Value {
    let mut out = other.clone();
    for name in names {
        let (kind, rest) = name.split_at(2);
        let (from, to) = if kind == "a/" { (event, &mut out) } else { (&event["data"], &mut out["data"]) };
        let to = to.as_object_mut().unwrap();
        match from.get(rest) {
            Some(v) => drop(to.insert(rest.into(), v.clone())),
            None => drop(to.remove(rest)),
        }
    }
    out
}

fn data_of(mut shown: Value) -> Value {
    // Whether an empty `data` is written says nothing.
    if shown["data"].as_object().is_some_and(Map::is_empty) {
        shown.as_object_mut().unwrap().remove("data");
    }
    shown
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// Any subset of fields of any message verifies against the publisher's signature, and is what was signed.
    #[test]
    fn any_subset_verifies((events, show) in vec(event(), 1..5).prop_flat_map(|e| { let n = e.len(); (Just(e), choices(n)) })) {
        let got = redacted(&events, &show);
        let messages: BTreeMap<u64, &Redacted> = got.verify(key().public()).unwrap().into_iter().collect();
        for (i, (event, show)) in events.iter().zip(&show).enumerate() {
            let message = messages.get(&(41 + i as u64));
            prop_assert_eq!(message.is_some(), show.is_some());
            let (Some(message), Some(show)) = (message, show) else { continue };
            let opened: BTreeSet<String> = message.opened().map(|(n, _)| n.to_owned()).collect();
            prop_assert_eq!(&opened, show, "what is shown is what was chosen, absent fields too");
            // Numbers travel as RFC 8785 writes them: the same number, read the same way.
            let read = |v: &Value| String::from_utf8(serde_json_canonicalizer::to_vec(&data_of(v.clone())).unwrap()).unwrap();
            prop_assert_eq!(read(&Event::shown(message).unwrap()), read(&only(event, show)));
        }
    }

    /// And one changed value, name or salt of a shown field, or hash of a hidden one, does not.
    #[test]
    fn no_changed_leaf_verifies(event in event(), show in btree_set(prop::sample::select(names()), 1..14), at: prop::sample::Index, kind in 0u8..3) {
        let mut forged = redacted(std::slice::from_ref(&event), &[Some(show)]);
        let MessageView::Shown { leaves } = &mut forged.messages[0] else { panic!() };
        let i = at.index(leaves.leaves.len());
        match (&mut leaves.leaves[i], kind) {
            (LeafView::Hidden { hash }, _) => hash[0] ^= 1,
            (LeafView::Opened { value, .. }, 0) => value.0.push(b'1'),
            (LeafView::Opened { name, .. }, 1) => name.push('x'),
            (LeafView::Opened { salt, .. }, _) => salt[0] ^= 1,
        }
        prop_assert!(forged.verify(key().public()).is_err());
    }

    /// Two messages that differ only in hidden fields give the same bytes outside the proof, whatever the hidden fields
    /// are, and whether they are there at all; so do two that differ in a message that is left out.
    #[test]
    fn what_is_hidden_leaves_no_trace((first, others, show) in vec(event(), 1..5).prop_flat_map(|e| {
        let n = e.len();
        (Just(e), vec(event(), n), choices(n))
    })) {
        let none = BTreeSet::new();
        let second: Vec<Value> = first.iter().zip(&others).zip(&show)
            .map(|((a, b), names)| mixed(a, b, names.as_ref().unwrap_or(&none))).collect();
        let (one, two) = (redacted(&first, &show), redacted(&second, &show));
        one.verify(key().public()).unwrap();
        two.verify(key().public()).unwrap();
        prop_assert_eq!(encode(&one).len(), encode(&two).len());
        prop_assert_eq!(encode(&without_proof(one)), encode(&without_proof(two)));
    }
}

/// What the property above would not find if it compared too little: shown fields are in the bytes it compares.
#[test]
fn what_is_shown_is_compared() {
    let event = |mw: u64| json!({"specversion": "1.0", "id": "e", "source": "s", "type": "t", "data": {"mw": mw, "zone": 7 - mw}});
    let show = [Some(BTreeSet::from(["d/mw".to_owned()]))];
    let of = |mw: u64| encode(&without_proof(redacted(&[event(mw)], &show)));
    assert_ne!(of(1), of(2));
    let shown = redacted(&[event(1)], &show);
    let bytes = encode(&shown);
    assert!(!bytes.windows(4).any(|w| w == b"zone"), "the name of a hidden field is in the bytes");
}
