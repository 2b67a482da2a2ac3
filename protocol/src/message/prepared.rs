//! Messages on their way into an envelope, and message roots straight from canonical bytes.

use super::plain::{Kind, Plain, Reader};
use super::{ATTRIBUTE_NAME_MAX, CORE_ATTRIBUTES, Event, MessageError, Record};
use crate::hash::Hash;
use crate::leaves::{LeavesError, RootOf};
use crate::limits::EVENT_BYTES_MAX;
use std::collections::BTreeSet;

/// An event in pieces that are canonical JSON already (RFC 8785). The caller vouches for the values and for the rules
/// of CloudEvents; the order is checked.
#[derive(Debug, Clone, Copy)]
pub struct PlainEvent<'a> {
    /// Attributes with their JSON, by name, without `data`.
    pub attributes: &'a [(&'a str, &'a str)],
    /// Members of `data` with their JSON, by name.
    pub data: &'a [(&'a str, &'a str)],
}

impl PlainEvent<'_> {
    /// The event as [`Event::to_bytes`] writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let room = |list: &[(&str, &str)]| list.iter().map(|(n, v)| n.len() + v.len() + 4).sum::<usize>();
        let mut out = String::with_capacity(room(self.attributes) + room(self.data) + 16);
        out.push('{');
        let before = self.attributes.partition_point(|(name, _)| *name < "data");
        let (head, tail) = self.attributes.split_at(before);
        head.iter().for_each(|(name, json)| member(&mut out, name, json));
        name_of(&mut out, "data");
        out.push('{');
        self.data.iter().for_each(|(name, json)| member(&mut out, name, json));
        out.push('}');
        tail.iter().for_each(|(name, json)| member(&mut out, name, json));
        out.push('}');
        out.into_bytes()
    }

    /// The message root, as the event's leaf set has it.
    fn root<M: AsRef<str>>(&self, secret: &[u8; 32], members: &[M]) -> Result<Hash, MessageError> {
        let rising = |list: &[(&str, &str)]| list.windows(2).all(|w| matches!(w, [(a, _), (b, _)] if a < b));
        if !rising(self.attributes) || !rising(self.data) {
            return Err(LeavesError::Order("data".into()).into());
        }
        match leaf_root(secret, self.attributes.iter().copied(), self.data.iter().copied(), members) {
            Some(root) => Ok(root),
            None => {
                let unknown = self.data.iter().find(|(n, _)| !members.iter().any(|m| m.as_ref() == *n));
                let count = LeavesError::Count(self.attributes.len() + members.len());
                Err(unknown.map_or(count.into(), |(n, _)| MessageError::Member(n.chars().take(80).collect())))
            }
        }
    }
}

fn name_of(out: &mut String, name: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    out.push('"');
    out.push_str(name);
    out.push_str("\":");
}

fn member(out: &mut String, name: &str, json: &str) {
    name_of(out, name);
    out.push_str(json);
}

/// Root of the leaf set of attributes and members, both in order; none past a limit, or for data that no member names.
fn leaf_root<'a, M: AsRef<str>>(
    secret: &[u8; 32],
    attributes: impl Iterator<Item = (&'a str, &'a str)>,
    data: impl Iterator<Item = (&'a str, &'a str)>,
    members: &[M],
) -> Option<Hash> {
    let mut root = RootOf::new(secret);
    let mut core = CORE_ATTRIBUTES.iter().peekable();
    for (name, json) in attributes {
        while let Some(absent) = core.next_if(|c| **c < name) {
            root.push("a/", absent, b"").then_some(())?;
        }
        core.next_if(|c| **c == name);
        root.push("a/", name, json.as_bytes()).then_some(())?;
    }
    for absent in core {
        root.push("a/", absent, b"").then_some(())?;
    }
    let mut data = data.peekable();
    for name in members {
        let name = name.as_ref();
        let json = data.next_if(|(n, _)| *n == name).map_or("", |(_, json)| json);
        root.push("d/", name, json.as_bytes()).then_some(())?;
    }
    data.next().is_none().then(|| root.root())
}

/// The message root of an event that is kept as canonical bytes; none if it is not, or breaks a rule. `members` in
/// order.
pub(super) fn plain_root<M: AsRef<str>>(event: &[u8], secret: &[u8; 32], members: &[M]) -> Option<Hash> {
    if event.len() > EVENT_BYTES_MAX {
        return None;
    }
    let (mut attributes, mut data) = (Vec::with_capacity(12), Vec::with_capacity(members.len()));
    let (mut last, mut has_data) = ("", false);
    let mut reader = Reader::new(event)?;
    reader.object(false, |reader, name| {
        // No name is empty, so that the first one passes too.
        if last >= name {
            return None;
        }
        last = name;
        if name != "data" {
            let value = reader.value()?;
            attribute(name, &value)?;
            attributes.push((name, value.json));
            return Some(());
        }
        has_data = true;
        let mut last: Option<&str> = None;
        reader.object(false, |reader, name| {
            if last.is_some_and(|last| last >= name) {
                return None;
            }
            last = Some(name);
            data.push((name, reader.value()?.json));
            Some(())
        })
    })?;
    let get = |name| attributes.iter().find(|(n, _)| *n == name).map(|(_, json)| *json);
    let text = |name| get(name).is_some_and(|json| json.starts_with('"'));
    let sound = reader.at_end()
        && has_data
        && text("id")
        && text("source")
        && text("type")
        && get("specversion") == Some("\"1.0\"")
        && get("datacontenttype").is_none_or(|t| t == "\"application/json\"");
    if !sound {
        return None;
    }
    leaf_root(secret, attributes.iter().copied(), data.iter().copied(), members)
}

/// The rules of one attribute, as [`super::check_attribute`] has them.
fn attribute(name: &str, value: &Plain<'_>) -> Option<()> {
    let named = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let good = match value.kind {
        Kind::Text => value.json.len() > 2,
        Kind::Boolean => true,
        Kind::Integer(n) => i32::try_from(n).is_ok(),
        Kind::Fraction | Kind::Null | Kind::Nested => false,
    };
    (named && good && !name.is_empty() && name.len() <= ATTRIBUTE_NAME_MAX).then_some(())
}

/// Messages of an envelope with their roots: all the work that needs no sequence number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    pub(super) records: Vec<Record>,
    pub(super) roots: Vec<Hash>,
}

impl Prepared {
    /// Room for `n` messages.
    #[must_use]
    pub fn with_capacity(n: usize) -> Self {
        Self { records: Vec::with_capacity(n), roots: Vec::with_capacity(n) }
    }

    /// Adds a message in pieces. `members`, in order, are the top-level members of the dataset's schema; `secret` is
    /// random and for this message alone.
    ///
    /// # Errors
    /// The event is too large, its members are out of order or not of the schema, or a leaf set past its limits.
    pub fn push_plain<M: AsRef<str>>(
        &mut self,
        secret: [u8; 32],
        event: &PlainEvent<'_>,
        members: &[M],
    ) -> Result<(), MessageError> {
        let bytes = event.to_bytes();
        if bytes.len() > EVENT_BYTES_MAX {
            return Err(MessageError::Size(bytes.len()));
        }
        self.roots.push(event.root(&secret, members)?);
        self.records.push(Record { secret, event: bytes.into() });
        Ok(())
    }

    /// Adds a message of any form.
    ///
    /// # Errors
    /// As [`Event::leaves`] and [`Event::to_bytes`].
    pub fn push(&mut self, secret: [u8; 32], event: &Event, members: &BTreeSet<String>) -> Result<(), MessageError> {
        let bytes = event.to_bytes()?;
        if bytes.len() > EVENT_BYTES_MAX {
            return Err(MessageError::Size(bytes.len()));
        }
        self.roots.push(event.leaves(&secret, members)?.root());
        self.records.push(Record { secret, event: bytes.into() });
        Ok(())
    }

    /// Adds all messages of another one after these.
    pub fn append(&mut self, mut other: Self) {
        self.records.append(&mut other.records);
        self.roots.append(&mut other.roots);
    }

    /// Messages so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes the messages take in an envelope, at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.records.iter().map(|r| r.event.len() + 48).sum()
    }

    /// The messages.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::message::jcs;
    use proptest::collection::btree_map;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};
    use std::collections::BTreeMap;

    fn leaf() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::from),
            (-3_000_000_000i64..3_000_000_000).prop_map(Value::from),
            (-1_000i64..1_000).prop_map(|n| Value::from(n as f64 / 8.0)),
            "[a-zA-Z0-9\"\u{e4}]{0,6}".prop_map(Value::from),
            Just(json!({"b": [1, {"c": null}], "a": "x"})),
        ]
    }

    fn event() -> impl Strategy<Value = Value> {
        let names = "[a-c]{0,2}|id|time|subject|dataz|datacontenttype|data_base64";
        (btree_map(names, leaf(), 0..4), btree_map("[a-d\u{e4}]{1,2}", leaf(), 0..5)).prop_map(|(more, data)| {
            let mut event: Map<String, Value> = [("id", "e-1"), ("source", "s"), ("specversion", "1.0"), ("type", "t")]
                .map(|(k, v)| (k.to_owned(), Value::from(v)))
                .into_iter()
                .collect();
            event.extend(more);
            event.insert("data".into(), Value::Object(data.into_iter().collect()));
            Value::Object(event)
        })
    }

    fn members(event: &Value, also: &BTreeSet<String>) -> BTreeSet<String> {
        event["data"].as_object().unwrap().keys().chain(also).cloned().collect()
    }

    proptest! {
        /// The short way never has another root than the general way, and never takes what that refuses.
        #[test]
        fn roots_agree(event in event(), also: BTreeSet<String>, less: bool, secret: [u8; 32], pretty: bool) {
            let also = also.into_iter().filter(|n| n.len() < 200).collect();
            let mut members = members(&event, &also);
            if less {
                members.pop_first();
            }
            let bytes = if pretty { serde_json::to_vec_pretty(&event).unwrap() } else { jcs(&event).unwrap() };
            let list: Vec<&str> = members.iter().map(String::as_str).collect();
            let general = Event::parse(&bytes).and_then(|e| Ok(e.leaves(&secret, &members)?.root()));
            if let Some(root) = plain_root(&bytes, &secret, &list) {
                prop_assert_eq!(general, Ok(root));
            }
        }

        /// An event in pieces becomes the record that the general way makes.
        #[test]
        fn pieces_make_the_same_record(data in btree_map("[a-d]{1,2}", leaf(), 0..5), id in "[a-z]{1,9}", time: bool, secret: [u8; 32]) {
            let mut event = json!({"specversion": "1.0", "id": id, "source": "s", "type": "t", "data": data});
            if time {
                event["time"] = "2026-01-01T00:00:00Z".into();
            }
            let text = |v: &Value| String::from_utf8(jcs(v).unwrap()).unwrap();
            let list = |m: &Map<String, Value>| m.iter().map(|(k, v)| (k.clone(), text(v))).collect::<BTreeMap<_, _>>();
            let mut attributes = list(event.as_object().unwrap());
            attributes.remove("data");
            let data = list(event["data"].as_object().unwrap());
            let pairs = |m: &'_ BTreeMap<String, String>| m.iter().map(|(k, v)| (k.clone(), v.clone())).collect::<Vec<_>>();
            let (attributes, data) = (pairs(&attributes), pairs(&data));
            let attributes: Vec<(&str, &str)> = attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let data: Vec<(&str, &str)> = data.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let members: BTreeSet<String> = data.iter().map(|(k, _)| (*k).to_owned()).chain(["zz".to_owned()]).collect();
            let list: Vec<&str> = members.iter().map(String::as_str).collect();
            let (mut short, mut general) = (Prepared::default(), Prepared::default());
            short.push_plain(secret, &PlainEvent { attributes: &attributes, data: &data }, &list).unwrap();
            general.push(secret, &Event::parse(&jcs(&event).unwrap()).unwrap(), &members).unwrap();
            prop_assert_eq!(&short, &general);
            let escaped = data.iter().any(|(_, json)| json.contains('\\'));
            let root = plain_root(&short.records[0].event, &secret, &list);
            prop_assert_eq!(root, (!escaped).then_some(short.roots[0]));
        }
    }

    #[test]
    fn pieces_out_of_order_or_outside_the_schema_are_refused() {
        let attributes = [("id", "\"1\""), ("source", "\"s\"")];
        let push = |data: &[(&str, &str)]| {
            Prepared::default().push_plain([0; 32], &PlainEvent { attributes: &attributes, data }, &["a", "b"])
        };
        push(&[("a", "1"), ("b", "2")]).unwrap();
        assert!(matches!(push(&[("b", "1"), ("a", "2")]), Err(MessageError::Leaves(LeavesError::Order(_)))));
        assert!(matches!(push(&[("a", "1"), ("a", "2")]), Err(MessageError::Leaves(LeavesError::Order(_)))));
        assert_eq!(push(&[("c", "1")]), Err(MessageError::Member("c".into())));
        let long = format!("\"{}\"", "x".repeat(EVENT_BYTES_MAX));
        assert!(matches!(push(&[("a", &long)]), Err(MessageError::Size(_))));
    }
}
