#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;
use crate::cbor::{decode, encode};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::json;

fn sample() -> Value {
    json!({
        "specversion": "1.0", "id": "e-1", "source": "/grid/load", "type": "load.v1", "time": "2026-01-01T00:00:00Z",
        "priority": 3, "data": {"zone": "N", "mw": 12.50, "note": {"b": [1, 2], "a": "ü"}}
    })
}

fn members() -> BTreeSet<String> {
    ["zone", "mw", "note", "alarm"].map(String::from).into()
}

fn parse(v: &Value) -> Result<Event, MessageError> {
    Event::parse(&serde_json::to_vec(v).unwrap())
}

fn refusal(text: &str) -> String {
    parse_ijson(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn equal_keys_are_refused_and_named() {
    let text = r#"{"data":{"rows":[{"a":1},{"b":2,"b":3}]}}"#;
    assert!(refusal(text).contains(r#"field "data.rows[1].b" appears twice"#), "{}", refusal(text));
    // The same key spelled with an escape is the same key.
    assert!(refusal(r#"{"a":1,"\u0061":2}"#).contains(r#"field "a" appears twice"#));
    assert!(refusal(r#"{"specversion":"1.0","data":{},"data":{}}"#).contains(r#""data" appears twice"#));
}

#[test]
fn numbers_that_readers_would_round_are_refused_and_named() {
    for n in
        ["9007199254740992", "-9007199254740992", "18446744073709551616", "1e300", "123456789012345678901234567890"]
    {
        let error = refusal(&format!(r#"{{"data":{{"meter":{n}}}}}"#));
        assert!(error.contains("data.meter") && error.contains("string"), "{n}: {error}");
    }
    for n in ["1e400", "NaN", "Infinity", "-Infinity", "01", "1.", "+1"] {
        assert!(parse_ijson(n.as_bytes()).is_err(), "{n}");
    }
    for n in ["9007199254740991", "-9007199254740991", "0.1", "-0", "1e15"] {
        parse_ijson(n.as_bytes()).unwrap();
    }
}

#[test]
fn what_is_not_one_json_document_is_refused() {
    for text in ["", "{} {}", "{", "[1,]", "\"\\ud800\"", "\u{feff}{}"] {
        assert!(parse_ijson(text.as_bytes()).is_err(), "{text:?}");
    }
    assert!(parse_ijson(b"\"\xff\"").is_err());
    assert!(parse_ijson("[".repeat(100_000).as_bytes()).is_err());
}

#[test]
fn events_keep_the_rules_of_cloudevents() {
    parse(&sample()).unwrap();
    for (field, value) in [
        ("specversion", json!("0.3")),
        ("id", json!("")),
        ("id", json!(7)),
        ("source", Value::Null),
        ("type", json!(["x"])),
        ("Upper", json!("x")),
        ("with-dash", json!("x")),
        ("priority", json!(1.5)),
        ("priority", json!(3_000_000_000u64)),
        ("datacontenttype", json!("text/plain")),
        ("data", json!([1])),
        ("data_base64", json!("AA==")),
    ] {
        let mut event = sample();
        event[field] = value.clone();
        let error = parse(&event).unwrap_err();
        assert!(error.to_string().contains(field), "{field}={value}: {error}");
    }
    for missing in ["id", "source", "type", "specversion", "data"] {
        let mut event = sample();
        event.as_object_mut().unwrap().remove(missing);
        assert!(parse(&event).unwrap_err().to_string().contains(missing));
    }
    assert_eq!(Event::parse(&vec![b' '; EVENT_BYTES_MAX + 1]), Err(MessageError::Size(EVENT_BYTES_MAX + 1)));
}

#[test]
fn leaves_are_attributes_and_members_in_canonical_json() {
    let event = parse(&sample()).unwrap();
    let set = event.leaves(&[1; 32], &members()).unwrap();
    let value = |name| String::from_utf8(set.get(name).unwrap().to_vec()).unwrap();
    assert_eq!(value("d/note"), r#"{"a":"ü","b":[1,2]}"#);
    assert_eq!((value("d/mw"), value("a/priority"), value("a/id")), ("12.5".into(), "3".into(), "\"e-1\"".into()));
    assert_eq!((value("d/alarm"), value("a/subject")), (String::new(), String::new()));
    assert_eq!(set.names().count(), CORE_ATTRIBUTES.len() + 1 + 4);
    let few = ["zone"].map(String::from).into();
    assert!(matches!(event.leaves(&[1; 32], &few), Err(MessageError::Member(_))));
    // Whitespace and order of the source do not matter.
    let other = Event::parse(&serde_json::to_vec_pretty(&sample()).unwrap()).unwrap();
    assert_eq!(other.leaves(&[1; 32], &members()).unwrap().root(), set.root());
    assert_eq!(Event::parse(&event.to_bytes().unwrap()).unwrap(), event);
}

fn draft(n: usize) -> EnvelopeDraft {
    let record = |i: usize| {
        let mut event = sample();
        event["id"] = json!(format!("e-{i}"));
        event["data"]["zone"] = json!(if i.is_multiple_of(2) { "N" } else { "S" });
        Record { secret: crate::hash::sha256(&[&i.to_be_bytes()]), event: serde_json::to_vec(&event).unwrap().into() }
    };
    EnvelopeDraft {
        chain: "city".into(),
        dataset: crate::ids::DatasetId::new("ds:grid/load@1").unwrap(),
        first_seq: 41,
        source: EnvelopeSource {
            salt: [5; 16],
            state: SourceState { adapter: "csv".into(), batch_no: 3, checkpoint: b"row 812".to_vec().into() },
        },
        members: members(),
        records: (0..n).map(record).collect(),
    }
}

#[test]
fn limits_of_an_envelope() {
    draft(256).header().unwrap();
    assert_eq!(draft(0).header(), Err(MessageError::Count(0)));
    assert_eq!(draft(257).header(), Err(MessageError::Count(257)));
    for first_seq in [0, u64::MAX] {
        assert_eq!(EnvelopeDraft { first_seq, ..draft(1) }.header(), Err(MessageError::Sequence(first_seq)));
    }
    let mut large = draft(1);
    large.source.state.checkpoint = vec![0; 4097].into();
    assert_eq!(large.header(), Err(MessageError::Checkpoint(4097)));
    let mut bad = draft(2);
    bad.records[1].event = b"{\"a\":1,\"a\":2}".to_vec().into();
    assert!(bad.header().unwrap_err().to_string().contains("appears twice"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), text in "[\\[\\]{}:,\"a0-9eE.+\\\\u-]{0,80}") {
        let _ = Event::parse(&bytes);
        let _ = parse_ijson(text.as_bytes());
        if let Ok(e) = decode::<Envelope>(&bytes) { prop_assert_eq!(encode(&e), bytes.clone()); }
        if let Ok(e) = decode::<RedactedEnvelope>(&bytes) { prop_assert_eq!(encode(&e), bytes); }
    }

    /// Where no key repeats and numbers are small, the checked reader reads what serde_json reads.
    #[test]
    fn the_checked_reader_reads_the_same(members in btree_map("[a-z\\\\\"ü]{0,5}", (-9007199254740991i64..=9007199254740991, any::<bool>(), -1e15..1e15), 0..8)) {
        let value = json!(members);
        prop_assert_eq!(parse_ijson(value.to_string().as_bytes()).unwrap(), value);
    }
}

#[cfg(feature = "node")]
mod signed {
    use super::*;
    use crate::keys::{SigningKey, Suite};
    use crate::leaves::LeafView;

    fn key() -> SigningKey {
        SigningKey::from_seed(Suite::Ed25519, &[7; 32]).unwrap()
    }

    fn only(names: &'static [&'static str]) -> Option<impl Fn(&str) -> bool> {
        Some(move |name: &str| names.contains(&name))
    }

    #[test]
    fn a_consumer_proves_what_it_got_and_learns_nothing_else() {
        let envelope = draft(5).sign(&key()).unwrap();
        envelope.verify(key().public()).unwrap();
        let north = |seq: u64, event: &Event| {
            assert!((41..46).contains(&seq));
            if event.data()["zone"] == "N" { only(&["a/id", "d/zone", "d/alarm"]) } else { None }
        };
        let got = envelope.redact(north).unwrap();
        let wire = encode(&got);
        let got: RedactedEnvelope = decode(&wire).unwrap();
        let shown = got.verify(key().public()).unwrap();
        assert_eq!(shown.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [41, 43, 45]);
        assert_eq!(Event::shown(shown[1].1).unwrap(), json!({"id": "e-2", "data": {"zone": "N"}}));
        assert_eq!(shown[1].1.get("d/alarm"), Some(&b""[..]));
        assert_eq!(shown[1].1.get("d/mw"), None);
        for secret in ["12.5", "ü", "row 812", "e-1\"", "\"S\"", "/grid/load"] {
            assert!(!wire.windows(secret.len()).any(|w| w == secret.as_bytes()), "{secret} leaks");
        }
    }

    /// Two envelopes that differ only in what is hidden look the same but for hashes, and so does one whose messages
    /// were left out.
    #[test]
    fn hidden_values_leave_no_trace() {
        let size = |mw: f64| {
            let mut d = draft(3);
            let mut event = sample();
            event["data"]["mw"] = json!(mw);
            event["data"]["alarm"] = json!("long text about an alarm");
            d.records[1].event = serde_json::to_vec(&event).unwrap().into();
            let got = d.sign(&key()).unwrap().redact(|_, _| only(&["d/zone", "a/id"])).unwrap();
            encode(&got).len()
        };
        assert_eq!(size(1.0), size(123_456.789));
    }

    /// A forged one: every part of a redacted envelope changed in turn.
    #[test]
    fn every_change_is_refused() {
        let (key, other) = (key(), SigningKey::generate(Suite::Ed25519).unwrap());
        let good = draft(4)
            .sign(&key)
            .unwrap()
            .redact(|seq, _| if seq == 42 { None } else { only(&["a/id", "d/mw"]) })
            .unwrap();
        good.verify(key.public()).unwrap();
        type Change = fn(&mut RedactedEnvelope);
        let changes: &[Change] = &[
            |e| e.header.chain.push('x'),
            |e| e.header.dataset = crate::ids::DatasetId::new("ds:grid/load@2").unwrap(),
            |e| e.header.first_seq += 1,
            |e| e.header.count += 1,
            |e| e.header.source[0] ^= 1,
            |e| e.header.root[0] ^= 1,
            |e| e.key.0[0] ^= 1,
            |e| e.signature.ed25519.0[40] ^= 1,
            |e| {
                e.messages.pop();
            },
            |e| {
                e.messages.pop();
                e.header.count -= 1;
            },
            |e| e.messages.swap(0, 2),
            |e| {
                let first = e.messages[0].clone();
                e.messages.push(first);
            },
            |e| e.messages[1] = MessageView::LeftOut { root: [0; 32] },
            |e| {
                if let MessageView::Shown { leaves } = &mut e.messages[0] {
                    for leaf in &mut leaves.leaves {
                        if let LeafView::Opened { value, .. } = leaf {
                            value.0 = b"99".to_vec();
                        }
                    }
                }
            },
            |e| {
                if let MessageView::Shown { leaves } = &mut e.messages[0] {
                    leaves.leaves.reverse();
                }
            },
            |e| {
                if let MessageView::Shown { leaves } = &mut e.messages[0] {
                    leaves.leaves.pop();
                }
            },
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut forged = good.clone();
            change(&mut forged);
            assert!(forged.verify(key.public()).is_err(), "change {i} passed");
        }
        assert!(good.verify(other.public()).is_err());
        // Signed by another key that claims the publisher's id.
        let mut forged = draft(4).sign(&other).unwrap();
        forged.key = key.key_id();
        assert!(forged.verify(key.public()).is_err());
        // The same content signed as another statement.
        let header = draft(4).header().unwrap();
        let sig = key.sign(crate::keys::Statement::Promise, "city", &encode(&header));
        assert!(draft(4).finish(key.key_id(), sig).unwrap().verify(key.public()).is_err());
    }

    /// What the provider keeps is checked too: its own store is not trusted.
    #[test]
    fn a_changed_store_is_noticed() {
        let key = key();
        let good = draft(3).sign(&key).unwrap();
        assert_eq!(decode::<Envelope>(&encode(&good)).unwrap(), good);
        type Change = fn(&mut Envelope);
        let changes: &[Change] = &[
            |e| e.records[0].secret[0] ^= 1,
            |e| e.records.swap(0, 1),
            |e| e.source.state.batch_no += 1,
            |e| e.source.state.checkpoint.0.push(0),
            |e| e.members.push("zz".into()),
            |e| e.members.reverse(),
            |e| {
                e.records.pop();
            },
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut forged = good.clone();
            change(&mut forged);
            assert!(forged.verify(key.public()).is_err(), "change {i} passed");
        }
    }

    #[test]
    fn hybrid_envelopes_need_both_signatures() {
        let key = SigningKey::generate(Suite::Hybrid).unwrap();
        let mut envelope = draft(1).sign(&key).unwrap();
        envelope.verify(key.public()).unwrap();
        envelope.signature.pq.0[0] ^= 1;
        assert!(envelope.verify(key.public()).is_err());
    }
}

proptest! {
    /// Opened once or redacted each time: the same bytes, and the same envelopes are refused.
    #[cfg(feature = "node")]
    #[test]
    fn an_opened_envelope_redacts_as_the_envelope_does(n in 1usize..5, mask: u8, rows: u8, at: prop::sample::Index, flip in 1u8..) {
        let key = crate::keys::SigningKey::from_seed(crate::keys::Suite::Ed25519, &[7; 32]).unwrap();
        let envelope = draft(n).sign(&key).unwrap();
        let opened = Opened::verify(&envelope, key.public()).unwrap();
        let show = |seq: u64| (rows >> (seq % 8) & 1 == 1).then_some(move |name: &str| mask >> (name.len() % 8) & 1 == 1);
        let want = envelope.redact(|seq, _| show(seq)).unwrap();
        prop_assert_eq!(encode(&opened.redact(|seq, _| show(seq))), encode(&want));
        let mut bytes = encode(&envelope);
        let i = at.index(bytes.len());
        bytes[i] ^= flip;
        if let Ok(forged) = decode::<Envelope>(&bytes) {
            prop_assert!(Opened::verify(&forged, key.public()).is_err(), "byte {}", i);
        }
    }
}

/// Signed in two steps, the place last: the same envelope.
#[cfg(feature = "node")]
#[test]
fn a_prepared_envelope_is_the_drafted_one() {
    let key = crate::keys::SigningKey::from_seed(crate::keys::Suite::Ed25519, &[7; 32]).unwrap();
    let mut draft = draft(5);
    let mut prepared = Prepared::with_capacity(5);
    for record in &draft.records {
        prepared.push(record.secret, &Event::parse(&record.event).unwrap(), &draft.members).unwrap();
    }
    draft.records = prepared.records().to_vec();
    let members: Vec<String> = draft.members.iter().cloned().collect();
    let place = (draft.chain.as_str(), &draft.dataset, draft.first_seq);
    let signed = prepared.clone().sign(place, draft.source.clone(), &members, &key).unwrap();
    assert_eq!(signed, draft.clone().sign(&key).unwrap());
    signed.verify(key.public()).unwrap();
    let none = Prepared::default().sign(place, draft.source.clone(), &members, &key);
    assert_eq!(none, Err(MessageError::Count(0)));
    let mut many = Prepared::default();
    (0..52).for_each(|_| many.append(prepared.clone()));
    assert_eq!(many.sign(place, draft.source, &members, &key), Err(MessageError::Count(260)));
}
