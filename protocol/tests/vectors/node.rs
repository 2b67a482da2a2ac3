//! The node's socket: questions and answers with their length before them.

use crate::samples::{Sample, assert_every_kind, node as made};
use crate::{hx, kept, sampled, shape};
use concordat_protocol::cbor::{Canon, encode};
use concordat_protocol::limits::NODE_FRAME_BYTES_MAX;
use concordat_protocol::node::{NodeReply, NodeRequest, key_leaf_key, session_leaf_key};
use serde_json::{Value, json};

fn case<T: Canon + PartialEq>(s: &Sample<T>, kind: u64, name: &str) -> Value {
    let mut case = sampled(&s.fields, &s.value, Some(kind));
    let bytes = encode(&s.value);
    case["name"] = name.into();
    case["message"] = hx([&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat());
    case
}

#[test]
fn node_socket() {
    let (requests, replies) = (made::requests(), made::replies());
    assert_every_kind::<NodeRequest>(requests.iter().map(|s| s.value.kind()));
    assert_every_kind::<NodeReply>(replies.iter().map(|s| s.value.kind()));
    let requests: Vec<Value> = requests.iter().map(|s| case(s, s.value.kind(), s.value.kind_name())).collect();
    let replies: Vec<Value> = replies.iter().map(|s| case(s, s.value.kind(), s.value.kind_name())).collect();
    let refused_requests = [
        ("02", "no array"),
        ("8100", "kind 0"),
        ("8112", "kind 16"),
        ("820200", "head with a field"),
        ("810201", "a byte follows"),
        ("98010e", "the array's length in two bytes"),
        ("82036670 6f6c696365", "a writer without a name"),
        ("820741ff", "a key id of one byte"),
        ("8117", "kind 23"),
        ("821865636f757274", "named operations without a place to begin"),
    ]
    .map(|(bytes, why)| (bytes.replace(' ', ""), why));
    let refused_requests = refused_requests.each_ref().map(|(b, why)| (b.as_str(), *why));
    let refused_replies = [
        ("8105", "kind 5"),
        ("8107", "kind 7"),
        ("8203f6", "null for an unknown writer"),
        ("82048101", "a session that is a number"),
        ("83001a0001000060", "a code over 16 bits"),
    ];
    let id = made::key().key.key_id();
    kept(
        "node.json",
        &json!({
            "about": "Messages on a node's socket: `message` is the length as u32 big-endian and the canonical bytes. A struct in `fields` is the array of its fields",
            "largest_frame": NODE_FRAME_BYTES_MAX, "requests": requests, "replies": replies,
            "refused_requests": shape::<NodeRequest>("request", &[], &refused_requests)["refused"],
            "refused_replies": shape::<NodeReply>("reply", &[], &refused_replies)["refused"],
            "state_keys": [
                {"of": "key", "key_id": hx(id.0), "key": hx(key_leaf_key(&id))},
                {"of": "session", "session": 70_000, "key": hx(session_leaf_key(70_000))},
            ],
        }),
    );
}
