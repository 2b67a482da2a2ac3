//! The member `write` of a query document.

use crate::decide::denied;
use crate::holding::{DatasetSpec, key_text};
use concordat_protocol::codes;
use concordat_protocol::session::Denied;
use concordat_protocol::terms::Action;
use serde_json::{Map, Value};

/// Longest version that is read, bytes; ours have 32.
const VERSION_BYTES_MAX: usize = 64;

/// What the writer expects to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// No record.
    Absent,
    /// A record, whatever its version.
    Present,
    /// A record of the version that was shown under this tag.
    Tag(String),
}

/// A write as it is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteAsk {
    /// Insert, modify or delete.
    pub action: Action,
    /// Key text of the record; none where it follows from the data (insert).
    pub key: Option<String>,
    /// The record (insert), or the merge patch (modify); empty for a deletion.
    pub data: Map<String, Value>,
    /// What has to be there.
    pub expect: Expected,
}

fn bad(field: &str, rule: &str) -> Denied {
    let name = if field.is_empty() { "write".to_owned() } else { format!("write.{field}") };
    denied(codes::BAD_VALUE, "bad-write", format!("{name}: {rule}"))
}

impl WriteAsk {
    /// The member of a query document, if it asks for a write.
    #[must_use]
    pub fn member(query: &Value) -> Option<&Value> {
        query.get("write")
    }

    /// Reads a query document that asks for a write: `dataset` and `write` alone.
    ///
    /// # Errors
    /// The member and the rule that it breaks.
    pub fn read(query: &Value, spec: &DatasetSpec) -> Result<Self, Denied> {
        let document = query.as_object().ok_or_else(|| bad("", "the query document must be a JSON object"))?;
        if let Some(other) = document.keys().find(|k| !["dataset", "write"].contains(&k.as_str())) {
            let rule = format!("{other}: a write has no such member; there are dataset and write");
            return Err(denied(codes::BAD_VALUE, "bad-write", rule));
        }
        if document.get("dataset").and_then(Value::as_str) != Some(spec.id.as_str()) {
            let rule = "dataset: the write names another dataset than the request";
            return Err(denied(codes::BAD_VALUE, "bad-write", rule));
        }
        let write = document.get("write").and_then(Value::as_object);
        let write = write.ok_or_else(|| bad("", "must be an object with action, key, data or patch, and expect"))?;
        let (action, allowed) = match write.get("action").and_then(Value::as_str) {
            Some("insert") => (Action::Insert, &["action", "data", "expect"][..]),
            Some("modify") => (Action::Modify, &["action", "key", "patch", "expect"][..]),
            Some("delete") => (Action::Delete, &["action", "key", "expect"][..]),
            _ => return Err(bad("action", "must be insert, modify or delete")),
        };
        if let Some(other) = write.keys().find(|k| !allowed.contains(&k.as_str())) {
            return Err(bad(other, &format!("unknown here; there are {}", allowed.join(", "))));
        }
        let data = |name: &str| match write.get(name) {
            Some(Value::Object(data)) if !data.is_empty() => Ok(data.clone()),
            _ => Err(bad(name, "must be a JSON object with at least one field")),
        };
        let expect = write.get("expect").map(|v| v.as_str().unwrap_or_default());
        if action == Action::Insert {
            if !matches!(expect, None | Some("absent")) {
                return Err(bad("expect", "an insert expects \"absent\""));
            }
            return Ok(Self { action, key: None, data: data("data")?, expect: Expected::Absent });
        }
        let expect = match expect {
            Some("*") => Expected::Present,
            Some(tag) if !tag.is_empty() && tag.len() <= VERSION_BYTES_MAX && tag != "absent" => {
                Expected::Tag(tag.to_owned())
            }
            _ => {
                return Err(bad(
                    "expect",
                    "must be \"*\" or the version that a query with include: [\"version\"] showed",
                ));
            }
        };
        let data = if action == Action::Modify { data("patch")? } else { Map::new() };
        Ok(Self { action, key: Some(key(write.get("key"), spec)?), data, expect })
    }
}

/// A key as text, or as an object of the key fields.
fn key(value: Option<&Value>, spec: &DatasetSpec) -> Result<String, Denied> {
    let wanted = || format!("must be the record's key as text, or an object of {}", spec.key.join(", "));
    match value {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(Value::Object(fields)) if fields.len() == spec.key.len() => {
            let values = spec.key.iter().map(|k| fields.get(k).cloned());
            let values = values.collect::<Option<Vec<_>>>().ok_or_else(|| bad("key", &wanted()))?;
            key_text(spec, &values).map_err(|e| bad("key", &e.to_string()))
        }
        _ => Err(bad("key", &wanted())),
    }
}
