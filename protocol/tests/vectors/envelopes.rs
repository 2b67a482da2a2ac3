//! Events, envelopes and what a consumer gets of them.

use super::{hx, kept};
use concordat_protocol::cbor::encode;
use concordat_protocol::keys::{SigningKey, Suite};
use concordat_protocol::message::{
    Alterations, Altering, Envelope, EnvelopeDraft, EnvelopeSource, Event, MessageView, Opened, Record,
    RedactedEnvelope, SourceState,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The envelope with fields altered, what a reader makes of it, and forged ones.
fn altered(envelope: &Envelope, key: &SigningKey) -> (RedactedEnvelope, Vec<Value>, Vec<Value>) {
    let opened = Opened::verify(envelope, key.public()).unwrap();
    let altering = || {
        let mw = Altering::member("mw", "coarsen", &json!(1)).unwrap();
        vec![mw, Altering::member("zone", "mask", &json!("***")).unwrap()]
    };
    let show = |name: &str| matches!(name, "a/id" | "d/alarm" | "d/mw");
    let altered = opened.redact_altered("AGR-2026-0143/F1", |seq, _| (seq != 8).then(|| (show, altering())));
    altered.verify(key.public()).unwrap();
    let shown = altered.altered().map(|(seq, a)| {
        let members = a
            .members()
            .unwrap()
            .into_iter()
            .map(|(name, value, duty)| json!({"name": name, "json": value, "duty": duty}));
        json!({"seq": seq, "clause": a.clause, "members": members.collect::<Vec<_>>()})
    });
    let forged = |why: &str, change: &dyn Fn(&mut Alterations)| {
        let mut forged = altered.clone();
        let MessageView::Altered { altered, .. } = &mut forged.messages[0] else { panic!() };
        change(altered);
        assert!(forged.verify(key.public()).is_err(), "{why}");
        json!({"why": why, "cbor": hx(encode(&forged))})
    };
    let refused = vec![
        forged("no clause", &|a| a.clause.clear()),
        forged("nothing is altered", &|a| a.fields.clear()),
        forged("the order is another", &|a| a.fields.reverse()),
        forged("the place is of a field that is shown", &|a| a.fields[0].place = 2),
        forged("the name does not belong to that place", &|a| a.fields[1].name = "d/alar".into()),
        forged("an attribute", &|a| a.fields[0].name = "a/mw".into()),
        forged("no duty that alters", &|a| a.fields[0].duty = "fields".into()),
        forged("a mask without asterisks", &|a| a.fields[1].value = b"\"N\"".to_vec().into()),
        forged("not canonical JSON", &|a| a.fields[0].value = b" 1".to_vec().into()),
    ];
    let shown = shown.collect();
    (altered, shown, refused)
}

#[test]
fn envelopes() {
    let members: BTreeSet<String> = ["zone", "mw", "alarm"].map(String::from).into();
    let record = |i: u8| {
        let event = json!({"specversion": "1.0", "id": format!("e-{i}"), "source": "/grid", "type": "load",
                           "data": {"zone": "N", "mw": f64::from(i) + 0.5}});
        Record {
            secret: [i; 32],
            event: Event::parse(event.to_string().as_bytes()).unwrap().to_bytes().unwrap().into(),
        }
    };
    let draft = EnvelopeDraft {
        chain: "city-1".into(),
        dataset: "ds:grid/load@1".parse().unwrap(),
        first_seq: 7,
        source: EnvelopeSource {
            salt: [3; 16],
            state: SourceState { adapter: "csv".into(), batch_no: 2, checkpoint: b"row 9".to_vec().into() },
        },
        members: members.clone(),
        records: (1..=3).map(record).collect(),
    };
    let key = SigningKey::from_seed(Suite::Ed25519, &[7; 32]).unwrap();
    let envelope = draft.sign(&key).unwrap();
    let messages: Vec<Value> = envelope.records.iter().map(|r| {
        let set = Event::parse(&r.event).unwrap().leaves(&r.secret, &members).unwrap();
        let leaves: Vec<Value> = set.names().map(|n| json!({"name_text": n, "value": hx(set.get(n).unwrap())})).collect();
        json!({"json": String::from_utf8(r.event.0.clone()).unwrap(), "secret": hx(r.secret), "leaves": leaves, "root": hx(set.root())})
    }).collect();
    let redacted = envelope
        .redact(|seq, _| (seq != 8).then_some(|name: &str| matches!(name, "a/id" | "d/alarm" | "d/mw")))
        .unwrap();
    let shown: Vec<Value> = redacted
        .verify(key.public())
        .unwrap()
        .iter()
        .map(|(seq, m)| json!({"seq": seq, "json": Event::shown(m).unwrap()}))
        .collect();
    let (altered, as_shown, refused) = altered(&envelope, &key);
    kept(
        "envelopes.json",
        &json!({
            "about": "Events to leaves to message roots to the signed envelope header, and one redacted envelope: message 8 left out, of the others a/id, d/alarm (absent) and d/mw shown. And the same with d/mw and d/zone altered under a clause: the true values are hidden",
            "altered_cbor": hx(encode(&altered)), "altered": as_shown, "altered_refused": refused,
            "public_key_cbor": hx(encode(key.public())), "members": members, "messages": messages,
            "source_cbor": hx(encode(&envelope.source)), "header_cbor": hx(encode(&envelope.header)), "root": hx(envelope.header.root),
            "envelope_cbor": hx(encode(&envelope)), "redacted_cbor": hx(encode(&redacted)), "shown": shown,
        }),
    );
}
