//! JSON text to a value, refusing a member named twice: of two conditions on one field the usual
//! reader keeps the last and says nothing.

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::error::{Problem, QueryError};
use crate::limits::{MAX_JSON_DEPTH, MAX_QUERY_BYTES};

/// Reads JSON text of at most [`MAX_QUERY_BYTES`], refusing duplicate members and deep nesting.
pub fn read_json(text: &[u8]) -> Result<Value, QueryError> {
    let at_top = |problem| QueryError { pointer: String::new(), problem };
    if text.len() > MAX_QUERY_BYTES {
        return Err(at_top(Problem::TooLong));
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = Strict(MAX_JSON_DEPTH).deserialize(&mut reader);
    read.and_then(|v| reader.end().map(|()| v)).map_err(|e| at_top(Problem::Json(e.to_string())))
}

#[derive(Clone, Copy)]
struct Strict(usize);

impl Strict {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        match self.0.checked_sub(1) {
            Some(left) => Ok(Self(left)),
            None => Err(E::custom("nested too deep")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_string()))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(v) = seq.next_element_seed(inner)? {
            list.push(v);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(name) = access.next_key_seed(Name)? {
            let v = access.next_value_seed(inner)?;
            if map.contains_key(&name) {
                let shown: String = name.chars().take(80).collect();
                return Err(de::Error::custom(format!("member {shown:?} is written twice")));
            }
            map.insert(name, v);
        }
        Ok(Value::Object(map))
    }
}

struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<String, D::Error> {
        String::deserialize(d)
    }
}
