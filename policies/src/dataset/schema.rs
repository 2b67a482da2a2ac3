//! The JSON Schema of a dataset as a list of typed fields.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{DatasetError, FIELDS_MAX, Field, FieldType};
use crate::yaml;

/// Largest schema read, bytes.
const SCHEMA_BYTES_MAX: usize = 1 << 20;

/// Reads a schema; no object in it has a key twice. `path` is for the error.
pub(super) fn read(path: &str, json: &str) -> Result<Value, DatasetError> {
    let refuse = |rule: String| DatasetError::Schema { path: path.to_owned(), field: "document".to_owned(), rule };
    if json.len() > SCHEMA_BYTES_MAX {
        return Err(refuse(format!("is larger than {SCHEMA_BYTES_MAX} bytes")));
    }
    let unique: Unique = serde_json::from_str(json).map_err(|e| refuse(e.to_string()))?;
    Ok(unique.0)
}

/// The fields a schema describes, by name.
pub(super) fn fields(path: &str, schema: &Value) -> Result<Vec<Field>, DatasetError> {
    let refuse = |field: &str, rule: &str| DatasetError::Schema {
        path: path.to_owned(),
        field: yaml::clip(field),
        rule: rule.to_owned(),
    };
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        return Err(refuse("type", "must be \"object\""));
    }
    if schema.get("additionalProperties") != Some(&Value::Bool(false)) {
        return Err(refuse("additionalProperties", "must be false: a field nobody described may not pass"));
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|p| !p.is_empty()) else {
        return Err(refuse("properties", "must list the fields"));
    };
    if properties.len() > FIELDS_MAX {
        return Err(refuse("properties", "must list at most 256 fields"));
    }
    let mut required = Vec::new();
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        match name.as_str() {
            Some(name) if properties.contains_key(name) => required.push(name),
            _ => return Err(refuse("required", "must name properties only")),
        }
    }
    let mut fields = Vec::new();
    for (name, property) in properties {
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return Err(refuse(name, "a field's name has 1 to 64 bytes and no control characters"));
        }
        let kind = field_type(property).ok_or_else(|| {
            refuse(name, "\"type\" must be one of string, integer, number, boolean (decimals and times are strings with a \"format\")")
        })?;
        fields.push(Field {
            name: name.clone(),
            kind,
            required: required.contains(&name.as_str()),
            sensitive: None,
            description: property.get("description").and_then(Value::as_str).map(str::to_owned),
        });
    }
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(fields)
}

fn field_type(property: &Value) -> Option<FieldType> {
    let format = property.get("format").and_then(Value::as_str);
    match (property.get("type")?.as_str()?, format) {
        ("string", Some("decimal")) => Some(FieldType::Decimal),
        ("string", Some("date-time")) => Some(FieldType::Timestamp),
        ("string", _) => Some(FieldType::String),
        ("integer", _) => Some(FieldType::Integer),
        ("number", _) => Some(FieldType::Number),
        ("boolean", _) => Some(FieldType::Boolean),
        _ => None,
    }
}

/// A JSON value none of whose objects has a key twice.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> serde::de::Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Unique, E> {
        Ok(Unique(v.into()))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Unique, E> {
        Ok(Unique(v.into()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Unique, E> {
        Ok(Unique(v.into()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Unique, E> {
        Ok(Unique(v.into()))
    }
    fn visit_str<E>(self, v: &str) -> Result<Unique, E> {
        Ok(Unique(v.into()))
    }
    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique(Value::Null))
    }
    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Unique, A::Error> {
        let mut items = Vec::new();
        while let Some(Unique(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Unique(Value::Array(items)))
    }
    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
        let mut object = serde_json::Map::new();
        while let Some((key, Unique(value))) = map.next_entry::<String, Unique>()? {
            if object.contains_key(&key) {
                return Err(serde::de::Error::custom(format!("key \"{}\" stands twice", yaml::clip(&key))));
            }
            object.insert(key, value);
        }
        Ok(Unique(Value::Object(object)))
    }
}
