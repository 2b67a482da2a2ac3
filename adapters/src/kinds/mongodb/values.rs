//! BSON as JSON whose text is exact: what the mapping converts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use mongodb::bson::{Bson, DateTime, Document, doc};
use serde_json::{Map, Value, json};

/// A document as JSON: instants in ISO 8601, identifiers in hexadecimal, decimals as text with all their digits.
pub fn json(document: &Document) -> Value {
    let members = document.iter().map(|(name, value)| (name.clone(), value_of(value)));
    Value::Object(members.collect::<Map<_, _>>())
}

fn value_of(bson: &Bson) -> Value {
    match bson {
        Bson::Null | Bson::Undefined | Bson::MinKey | Bson::MaxKey => Value::Null,
        Bson::String(text) | Bson::Symbol(text) | Bson::JavaScriptCode(text) => json!(text),
        Bson::Boolean(yes) => json!(yes),
        Bson::Int32(n) => json!(n),
        Bson::Int64(n) => json!(n),
        // A number that is none has no JSON: its word is refused where a number is expected.
        Bson::Double(n) => serde_json::Number::from_f64(*n).map_or_else(|| json!(n.to_string()), Value::Number),
        Bson::Decimal128(n) => json!(n.to_string()),
        Bson::ObjectId(id) => json!(id.to_hex()),
        Bson::DateTime(at) => json!(instant(*at)),
        Bson::Timestamp(at) => json!(u64::from(at.time) << 32 | u64::from(at.increment)),
        Bson::Binary(binary) => match binary.to_uuid() {
            Ok(uuid) => json!(uuid.to_string()),
            Err(_) => json!(STANDARD.encode(&binary.bytes)),
        },
        Bson::Array(list) => Value::Array(list.iter().map(value_of).collect()),
        Bson::Document(document) => json(document),
        other => json!(other.to_string()),
    }
}

fn instant(at: DateTime) -> String {
    let ms = at.timestamp_millis();
    Timestamp::from_millisecond(ms)
        .map_or_else(|_| ms.to_string(), |s| s.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
}

/// A value as text that gives the same value again.
pub fn keep(bson: &Bson) -> String {
    let mut bytes = Vec::new();
    // A document of one value always serializes; where it did not, the text is none that comes back.
    let _ = doc! {"": bson.clone()}.to_writer(&mut bytes);
    STANDARD.encode(bytes)
}

/// A value that was kept.
pub fn kept(text: &str) -> Option<Bson> {
    let bytes = STANDARD.decode(text).ok()?;
    Document::from_reader(bytes.as_slice()).ok()?.remove("")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mongodb::bson::oid::ObjectId;

    #[test]
    fn values_are_exact_and_come_back() {
        let id = ObjectId::parse_str("65a000000000000000000001").unwrap();
        let document = doc! {
            "_id": id, "n": 9_007_199_254_740_993_i64, "x": 0.1, "at": DateTime::from_millis(1_700_000_000_123),
            "d": Bson::Decimal128("12.340".parse().unwrap()), "sub": {"list": [1, "a"]}, "none": Bson::Null, "nan": f64::NAN,
        };
        let want = json!({"_id": "65a000000000000000000001", "n": 9_007_199_254_740_993_i64, "x": 0.1,
            "at": "2023-11-14T22:13:20.123Z", "d": "12.340", "sub": {"list": [1, "a"]}, "none": null, "nan": "NaN"});
        assert_eq!(json(&document), want);
        for value in document.iter().map(|(_, v)| v).filter(|v| !matches!(v, Bson::Double(n) if n.is_nan())) {
            assert_eq!(kept(&keep(value)).as_ref(), Some(value));
        }
    }
}
