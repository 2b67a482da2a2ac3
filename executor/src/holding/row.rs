//! Rows as every store keeps them: checked, with key text and order keys.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{DatasetSpec, HoldingError};
use crate::limits::{MAX_KEY_BYTES, MAX_ROW_BYTES};
use crate::query::value::{timestamp_nanos, timestamp_text};
use crate::query::{FieldType, Key};

/// A row ready for a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The key text.
    pub key: String,
    /// The row as JSON text with members sorted; values as they came.
    pub doc: String,
    /// JSON text: the order keys of decimals and timestamps, whose own texts do not sort. Stores
    /// compare these, so that all of them compare alike.
    pub ord: String,
}

/// Checks a row against its dataset; `position` is for messages.
pub fn check_row(spec: &DatasetSpec, position: usize, row: &Map<String, Value>) -> Result<Checked, HoldingError> {
    let mut doc = BTreeMap::new();
    let mut ord = BTreeMap::new();
    for (name, value) in row {
        let Some(ty) = spec.fields.get(name) else {
            let nearest = spec.fields.nearest(name);
            let field = name.chars().take(80).collect();
            return Err(HoldingError::UnknownField { row: position, field, nearest });
        };
        doc.insert(name.as_str(), value);
        if value.is_null() {
            continue;
        }
        let key = Key::of(ty, value).ok_or_else(|| HoldingError::Type { row: position, field: name.clone(), ty })?;
        if matches!(ty, FieldType::Decimal | FieldType::Timestamp) {
            let key = match key {
                Key::Int(n) => Value::from(n),
                Key::Bool(b) => Value::from(b),
                Key::Text(t) => Value::from(t),
            };
            ord.insert(name.as_str(), key);
        }
    }
    let key = row_key(spec, position, row)?;
    let json = |e: serde_json::Error| HoldingError::Store(e.to_string());
    let doc = serde_json::to_string(&doc).map_err(json)?;
    if doc.len() > MAX_ROW_BYTES {
        let next = "leave out or shorten fields";
        return Err(HoldingError::TooLarge { what: "a row's bytes", max: MAX_ROW_BYTES, next });
    }
    Ok(Checked { key, doc, ord: serde_json::to_string(&ord).map_err(json)? })
}

fn row_key(spec: &DatasetSpec, position: usize, row: &Map<String, Value>) -> Result<String, HoldingError> {
    let mut values = Vec::with_capacity(spec.key.len());
    for field in &spec.key {
        match row.get(field) {
            Some(v) if !v.is_null() => values.push(v.clone()),
            _ => return Err(HoldingError::NoKey { row: position, field: field.clone() }),
        }
    }
    key_text(spec, &values)
}

/// The key text of the key fields' values, in the order of `spec.key`.
///
/// One field: its text. Several: joined by `|`, with `\` before each `|` and `\` inside. An instant
/// is written in UTC and a decimal by value, so that one value has one key. Rows are ordered by the
/// bytes of this text.
pub fn key_text(spec: &DatasetSpec, values: &[Value]) -> Result<String, HoldingError> {
    if values.len() != spec.key.len() {
        return Err(HoldingError::Plan(format!("the key has {} fields", spec.key.len())));
    }
    let mut parts = Vec::with_capacity(values.len());
    for (field, value) in spec.key.iter().zip(values) {
        let ty = spec.fields.get(field).unwrap_or(FieldType::String);
        let text = value_key(ty, value).ok_or_else(|| HoldingError::Type { row: 0, field: field.clone(), ty })?;
        parts.push(text);
    }
    let key = match parts.as_slice() {
        [one] => one.clone(),
        several => {
            let escaped = several.iter().map(|p| p.replace('\\', "\\\\").replace('|', "\\|"));
            escaped.collect::<Vec<_>>().join("|")
        }
    };
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        let next = "it has at least one byte; choose shorter key fields";
        return Err(HoldingError::TooLarge { what: "a key's bytes", max: MAX_KEY_BYTES, next });
    }
    Ok(key)
}

/// The text of one value: an instant in UTC, a decimal by value, so that one value has one text. None for null and
/// values of another type.
pub fn value_key(ty: FieldType, value: &Value) -> Option<String> {
    let key = Key::of(ty, value)?;
    Some(match (ty, value) {
        (FieldType::Timestamp, Value::String(s)) => timestamp_text(timestamp_nanos(s)?),
        (FieldType::Decimal, _) => match key {
            Key::Text(encoded) => encoded,
            _ => return None,
        },
        (_, Value::String(s)) => s.clone(),
        (_, other) => other.to_string(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::query::Fields;
    use proptest::prelude::*;
    use serde_json::json;

    fn spec(key: &[&str]) -> DatasetSpec {
        use FieldType::*;
        let fields = [("a", String), ("b", String), ("t", Timestamp), ("n", Integer), ("d", Decimal)];
        DatasetSpec {
            id: "ds:x/y@1".into(),
            key: key.iter().map(|k| k.to_string()).collect(),
            fields: Fields::new(fields.map(|(n, t)| (n.to_string(), t)).to_vec()).unwrap(),
            indexes: vec![],
        }
    }

    #[test]
    fn one_instant_or_decimal_has_one_key() {
        let s = spec(&["a", "t"]);
        let a = key_text(&s, &[json!("f1"), json!("2017-03-14T02:00:00+02:00")]).unwrap();
        assert_eq!(a, "f1|2017-03-14T00:00:00Z");
        let s = spec(&["d"]);
        assert_eq!(key_text(&s, &[json!("1.50")]), key_text(&s, &[json!(1.5)]));
    }

    #[test]
    fn a_row_keeps_its_own_texts_and_gets_order_keys() {
        let row = json!({"t": "1970-01-01T00:00:01+00:00", "d": "1.50", "a": "k", "n": null});
        let c = check_row(&spec(&["a"]), 0, row.as_object().unwrap()).unwrap();
        assert_eq!(c.doc, r#"{"a":"k","d":"1.50","n":null,"t":"1970-01-01T00:00:01+00:00"}"#);
        assert_eq!(c.ord, r#"{"d":"2500115","t":1000000000}"#);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let refused = |row: Value| check_row(&spec(&["a"]), 7, row.as_object().unwrap()).unwrap_err();
        for (row, code, words) in [
            (json!({"a": "k", "N": 1}), "holding.unknown-field", vec!["row 7", "\"N\""]),
            (json!({"a": "k", "n": "1"}), "holding.type", vec!["row 7", "field n", "integer"]),
            (json!({"a": "k", "t": "2017-03-14"}), "holding.type", vec!["field t", "timestamp"]),
            (json!({"a": "k\u{0}"}), "holding.type", vec!["field a"]),
            (json!({"n": 1}), "holding.no-key", vec!["row 7", "field a"]),
            (json!({"a": ""}), "holding.too-large", vec!["key"]),
            (json!({"a": "k", "b": "x".repeat(300_000)}), "holding.too-large", vec!["row"]),
        ] {
            let e = refused(row);
            assert_eq!(e.code(), code);
            assert!(words.iter().all(|w| e.to_string().contains(w)), "{e}");
        }
    }

    proptest! {
        #[test]
        fn different_pairs_have_different_keys(a in "[a|\\\\]{1,4}", b in "[a|\\\\]{1,4}", c in "[a|\\\\]{1,4}", d in "[a|\\\\]{1,4}") {
            let s = spec(&["a", "b"]);
            let one = key_text(&s, &[json!(a), json!(b)]).unwrap();
            let two = key_text(&s, &[json!(c), json!(d)]).unwrap();
            prop_assert_eq!(one == two, (a, b) == (c, d));
        }
    }
}
