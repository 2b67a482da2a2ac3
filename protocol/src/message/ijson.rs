//! Reading JSON that every reader understands alike (I-JSON, RFC 7493).
//!
//! `serde_json` keeps the last of two equal keys and rounds large integers without a word. Both would let a signed
//! value differ from what the source meant, so the document is checked while it streams by.

use super::MessageError;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Largest integer that every JSON reader keeps exactly: 2^53 - 1.
const SAFE: u64 = (1 << 53) - 1;

/// Reads one JSON document. Equal keys in one object, and numbers beyond 2^53 - 1 either way or not finite, are refused.
///
/// # Errors
/// [`MessageError::Json`] with the field, the rule, line and column.
pub fn parse(bytes: &[u8]) -> Result<Value, MessageError> {
    let refused = |e: serde_json::Error| MessageError::Json(e.to_string());
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Checked { path: &Path::Root }.deserialize(&mut reader).map_err(refused)?;
    reader.end().map_err(refused)?;
    Ok(value)
}

/// Where we are, as a list through the stack; only spelled out when something is wrong.
enum Path<'a> {
    Root,
    Member(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Member(Self::Root, name) => write!(f, "{}", Short(name)),
            Self::Member(parent, name) => write!(f, "{parent}.{}", Short(name)),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A name cut to 80 characters.
struct Short<'a>(&'a str);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.char_indices().nth(80).map_or(self.0.len(), |(at, _)| at);
        f.write_str(&self.0[..end])
    }
}

struct Checked<'a> {
    path: &'a Path<'a>,
}

impl Checked<'_> {
    fn too_large<E: Error>(&self, n: impl fmt::Display) -> E {
        E::custom(format_args!(
            "field \"{}\": the number {n} is beyond 2^53 - 1, readers would round it; send it as a string",
            self.path
        ))
    }
}

impl<'de> DeserializeSeed<'de> for Checked<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_u64<E: Error>(self, v: u64) -> Result<Value, E> {
        if v > SAFE { Err(self.too_large(v)) } else { Ok(Value::Number(v.into())) }
    }

    fn visit_i64<E: Error>(self, v: i64) -> Result<Value, E> {
        if v.unsigned_abs() > SAFE { Err(self.too_large(v)) } else { Ok(Value::Number(v.into())) }
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        // From 2^53 on every double is an integer, so this also catches integers too long for 64 bits.
        if v.abs() > SAFE as f64 {
            return Err(self.too_large(v));
        }
        Number::from_f64(v).map(Value::Number).ok_or_else(|| self.too_large(v))
    }

    fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = items.next_element_seed(Checked { path: &Path::Item(self.path, out.len()) })? {
            out.push(item);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let path = Path::Member(self.path, &name);
            if out.contains_key(&name) {
                return Err(A::Error::custom(format_args!("field \"{path}\" appears twice; send it once")));
            }
            let value = members.next_value_seed(Checked { path: &path })?;
            out.insert(name, value);
        }
        Ok(Value::Object(out))
    }
}
