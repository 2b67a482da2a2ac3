//! Events, messages and envelopes (PROTOCOL 8).
//!
//! A message is a CloudEvents 1.0 event in structured JSON. Its attributes and the members of its `data` become one
//! salted leaf set; the roots of up to 256 messages become the root of an envelope, which is signed once. So a
//! consumer who gets some fields of some messages can still check them against the publisher's signature.

use crate::codes;
use crate::ids::IdError;
use crate::keys::KeyError;
use crate::leaves::{LeafSet, LeavesError, Redacted};
use crate::limits::{ENVELOPE_MESSAGES_MAX, EVENT_BYTES_MAX};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

mod altered;
mod envelope;
mod ijson;
mod opened;
mod plain;
mod prepared;

pub use altered::{ALTERING_DUTIES, Alterations, AlteredField, Altering};
pub use envelope::{
    Envelope, EnvelopeDraft, EnvelopeHeader, EnvelopeSource, MessageView, Record, RedactedEnvelope, SourceState,
};
pub use ijson::parse as parse_ijson;
pub use opened::Opened;
pub use plain::{Kind as PlainKind, Plain, Reader as PlainReader};
pub use prepared::{PlainEvent, Prepared};

/// Attributes that every message has a leaf for, present or not, so that their presence does not show.
pub const CORE_ATTRIBUTES: [&str; 8] =
    ["datacontenttype", "dataschema", "id", "source", "specversion", "subject", "time", "type"];
/// Longest name of an attribute.
pub const ATTRIBUTE_NAME_MAX: usize = 64;

/// Why an event or an envelope was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// More bytes than an event may have.
    #[error("event: {0} bytes are more than {EVENT_BYTES_MAX}; split it or refer to the large part by its hash")]
    Size(usize),
    /// Not I-JSON (RFC 7493): the message names the field and the place.
    #[error("event: {0}")]
    Json(String),
    /// A rule of CloudEvents 1.0 or of this protocol is broken.
    #[error("event attribute \"{name}\": {rule}")]
    Attribute {
        /// The attribute.
        name: String,
        /// The rule.
        rule: &'static str,
    },
    /// A member of `data` that the dataset's schema does not have.
    #[error(
        "event field \"data.{0}\": the dataset's schema has no such member; add it in a new version or leave it out"
    )]
    Member(String),
    /// The leaf set is refused.
    #[error(transparent)]
    Leaves(#[from] LeavesError),
    /// Not between 1 and 256 messages, or not as many as the header says.
    #[error("envelope: {0} messages; it must hold 1 to {ENVELOPE_MESSAGES_MAX}, as many as its header says")]
    Count(usize),
    /// Sequence numbers begin at 1 and must fit 64 bits.
    #[error("envelope: first_seq {0} is out of range; sequence numbers begin at 1")]
    Sequence(u64),
    /// The adapter's checkpoint is too large.
    #[error("envelope: a checkpoint of {0} bytes is too large; keep a position, not the data")]
    Checkpoint(usize),
    /// What the envelope holds is not what its header says.
    #[error("envelope: {0} is not what the signed header says; it was changed after signing")]
    Content(&'static str),
    /// An id is malformed.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The key or the signature is refused.
    #[error("envelope: {0}")]
    Key(#[from] KeyError),
}

impl MessageError {
    /// Stable code of the error, from the registry in [`crate::codes`].
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::Size(_) | Self::Count(_) | Self::Checkpoint(_) => codes::TOO_LARGE,
            Self::Content(_) => codes::BAD_SIGNATURE,
            Self::Leaves(e) => e.code(),
            Self::Key(e) => e.code(),
            _ => codes::BAD_VALUE,
        }
    }
}

/// A CloudEvents 1.0 event whose `data` is a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    attributes: Map<String, Value>,
    data: Map<String, Value>,
}

/// RFC 8785 bytes of a value.
fn jcs(value: &Value) -> Result<Vec<u8>, MessageError> {
    serde_json_canonicalizer::to_vec(value).map_err(|e| MessageError::Json(e.to_string()))
}

fn check_attribute(name: &str, value: &Value) -> Result<(), MessageError> {
    let wrong = |rule| Err(MessageError::Attribute { name: name.chars().take(80).collect(), rule });
    let named = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !named || name.is_empty() || name.len() > ATTRIBUTE_NAME_MAX {
        return wrong("names are 1 to 64 of a-z and 0-9 (CloudEvents 1.0, naming conventions)");
    }
    match value {
        Value::String(text) if text.is_empty() => wrong("must not be empty; leave it out instead"),
        Value::String(_) | Value::Bool(_) => Ok(()),
        Value::Number(n) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(()),
        _ => wrong("must be text, true, false or an integer of 32 bits (CloudEvents 1.0, type system)"),
    }
}

impl Event {
    /// Reads structured JSON and checks it: size, I-JSON, the required attributes, `data` an object.
    ///
    /// # Errors
    /// The field and the rule it breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > EVENT_BYTES_MAX {
            return Err(MessageError::Size(bytes.len()));
        }
        match parse_ijson(bytes)? {
            Value::Object(members) => Self::from_members(members),
            _ => Err(MessageError::Json("must be one JSON object".into())),
        }
    }

    fn from_members(mut members: Map<String, Value>) -> Result<Self, MessageError> {
        let wrong = |name: &str, rule| MessageError::Attribute { name: name.into(), rule };
        if members.contains_key("data_base64") {
            return Err(wrong("data_base64", "binary data is not carried; put it in a string member of data"));
        }
        let Some(Value::Object(data)) = members.remove("data") else {
            return Err(wrong("data", "must be present and a JSON object"));
        };
        members.iter().try_for_each(|(name, value)| check_attribute(name, value))?;
        for name in ["id", "source", "type", "specversion"] {
            if !members.get(name).is_some_and(Value::is_string) {
                return Err(wrong(name, "must be present and text (CloudEvents 1.0, required attributes)"));
            }
        }
        if members.get("specversion").and_then(Value::as_str) != Some("1.0") {
            return Err(wrong("specversion", "must be \"1.0\""));
        }
        if members.get("datacontenttype").is_some_and(|t| t.as_str() != Some("application/json")) {
            return Err(wrong("datacontenttype", "must be \"application/json\" or left out"));
        }
        Ok(Self { attributes: members, data })
    }

    /// Context attributes by name.
    #[must_use]
    pub fn attributes(&self) -> &Map<String, Value> {
        &self.attributes
    }

    /// Members of `data` by name.
    #[must_use]
    pub fn data(&self) -> &Map<String, Value> {
        &self.data
    }

    /// The event as RFC 8785 JSON: the form to keep.
    ///
    /// # Errors
    /// The canonicaliser refuses a value.
    pub fn to_bytes(&self) -> Result<Vec<u8>, MessageError> {
        let mut members = self.attributes.clone();
        members.insert("data".into(), Value::Object(self.data.clone()));
        jcs(&Value::Object(members))
    }

    /// The leaf set: `a/<attribute>` and `d/<member>`, values in RFC 8785. `members` are the top-level members of the
    /// dataset's schema; one that this event lacks gets an empty value.
    ///
    /// # Errors
    /// A member of `data` that the schema lacks, or a leaf set past its limits.
    pub fn leaves(&self, secret: &[u8; 32], members: &BTreeSet<String>) -> Result<LeafSet, MessageError> {
        if let Some(unknown) = self.data.keys().find(|name| !members.contains(*name)) {
            return Err(MessageError::Member(unknown.chars().take(80).collect()));
        }
        let mut fields = BTreeMap::new();
        for name in CORE_ATTRIBUTES {
            fields.insert(format!("a/{name}"), Vec::new());
        }
        for (name, value) in &self.attributes {
            fields.insert(format!("a/{name}"), jcs(value)?);
        }
        for name in members {
            let value = self.data.get(name).map_or(Ok(Vec::new()), jcs)?;
            fields.insert(format!("d/{name}"), value);
        }
        Ok(LeafSet::new(secret, fields)?)
    }

    /// Rebuilds what a redacted message shows, as structured JSON: hidden and absent fields are left out. Call it on
    /// messages that [`RedactedEnvelope::verify`] returned.
    ///
    /// # Errors
    /// A name that is neither `a/` nor `d/`, or a value that is not canonical I-JSON.
    pub fn shown(message: &Redacted) -> Result<Value, MessageError> {
        let (mut event, mut data) = (Map::new(), Map::new());
        for (name, bytes) in message.opened().filter(|(_, bytes)| !bytes.is_empty()) {
            let value = parse_ijson(bytes)?;
            if jcs(&value)? != bytes {
                return Err(MessageError::Json(format!("field \"{name}\" is not canonical (RFC 8785)")));
            }
            match name.split_once('/') {
                Some(("a", name)) => event.insert(name.to_owned(), value),
                Some(("d", name)) => data.insert(name.to_owned(), value),
                _ => return Err(MessageError::Json(format!("field \"{name}\" is neither attribute nor data"))),
            };
        }
        event.insert("data".into(), Value::Object(data));
        Ok(Value::Object(event))
    }
}

#[cfg(test)]
mod tests;
