#![allow(clippy::unwrap_used)]
use super::*;
use crate::holding::DatasetSpec;
use crate::query::{FieldType, Fields};
use concordat_protocol::codes;
use concordat_protocol::leaves::Redacted;
use concordat_protocol::ops::Op;
use concordat_protocol::terms::Action;
use serde_json::{Value, json};

fn spec() -> DatasetSpec {
    let fields = [("no", FieldType::String), ("part", FieldType::Integer), ("note", FieldType::String)];
    DatasetSpec {
        id: "ds:police/cases@1".into(),
        key: vec!["no".into(), "part".into()],
        fields: Fields::new(fields.map(|(n, t)| (n.to_string(), t)).to_vec()).unwrap(),
        indexes: vec![],
    }
}

fn read(write: Value) -> Result<WriteAsk, concordat_protocol::session::Denied> {
    WriteAsk::read(&json!({"dataset": "ds:police/cases@1", "write": write}), &spec())
}

#[test]
fn a_write_is_read_strictly() {
    let modify =
        read(json!({"action": "modify", "key": {"part": 2, "no": "a|b"}, "patch": {"note": null}, "expect": "0a"}));
    let modify = modify.unwrap();
    assert_eq!((modify.action, modify.key.as_deref()), (Action::Modify, Some("a\\|b|2")));
    assert_eq!(modify.expect, Expected::Tag("0a".into()));
    let insert = read(json!({"action": "insert", "data": {"no": "a", "part": 1}})).unwrap();
    assert_eq!((insert.key, insert.expect), (None, Expected::Absent));
    let delete = read(json!({"action": "delete", "key": "a|1", "expect": "*"})).unwrap();
    assert_eq!((delete.key.as_deref(), delete.expect), (Some("a|1"), Expected::Present));
    for (write, wrong) in [
        (json!({"action": "upsert"}), "write.action"),
        (json!([]), "write:"),
        (json!({"action": "insert", "data": {}}), "write.data"),
        (json!({"action": "insert", "data": {"no": "a"}, "expect": "*"}), "write.expect"),
        (json!({"action": "insert", "key": "a|1", "data": {"no": "a"}}), "write.key"),
        (json!({"action": "modify", "key": "a|1", "patch": {"note": "x"}}), "write.expect"),
        (json!({"action": "modify", "key": "a|1", "patch": {"note": "x"}, "expect": "absent"}), "write.expect"),
        (json!({"action": "modify", "key": {"no": "a"}, "patch": {"note": "x"}, "expect": "*"}), "write.key"),
        (json!({"action": "modify", "key": "a|1", "data": {"note": "x"}, "expect": "*"}), "write.data"),
        (json!({"action": "delete", "key": "", "expect": "*"}), "write.key"),
    ] {
        let denied = read(write.clone()).unwrap_err();
        assert_eq!(denied.code, codes::BAD_VALUE, "{write}");
        assert!(denied.detail.starts_with(wrong), "{write}: {}", denied.detail);
    }
    let more = json!({"dataset": "ds:police/cases@1", "where": {}, "write": {"action": "insert", "data": {"no": "a"}}});
    assert!(WriteAsk::read(&more, &spec()).unwrap_err().detail.starts_with("where"));
    let other = json!({"dataset": "ds:police/stops@1", "write": {"action": "insert", "data": {"no": "a"}}});
    assert!(WriteAsk::read(&other, &spec()).unwrap_err().detail.starts_with("dataset"));
}

#[test]
fn an_outcome_shows_the_consumer_what_became_of_it_and_not_the_record() {
    let made = conclude(41, true, 0, Some([7; 32])).unwrap();
    let Op::Outcome { reference: 41, commitment } = made.op else { panic!("{:?}", made.op) };
    let (all, shown): (Redacted, Redacted) = (
        concordat_protocol::cbor::decode(&made.openings).unwrap(),
        concordat_protocol::cbor::decode(&made.shown).unwrap(),
    );
    all.verify(&commitment).unwrap();
    shown.verify(&commitment).unwrap();
    assert_eq!((all.get("after"), shown.get("after")), (Some(&[7; 32][..]), None));
    assert_eq!(shown.get("result"), Some(&b"applied"[..]));
    let failed = conclude(41, false, codes::RECORD_CONFLICT, Some([7; 32])).unwrap();
    let failed: Redacted = concordat_protocol::cbor::decode(&failed.openings).unwrap();
    assert_eq!((failed.get("result"), failed.get("after")), (Some(&b"failed"[..]), Some(&b""[..])));
}
