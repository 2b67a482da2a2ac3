//! NGSI-LD entities as flat JSON objects: normalized (an attribute is an object) and key-values (it is its value).

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Members of an attribute that become columns of their own, `<attribute>_<member>`.
const BESIDE: &[&str] = &["observedAt", "unitCode", "datasetId"];

type Members<'a> = BTreeMap<String, &'a RawValue>;

fn members(raw: &RawValue) -> Option<Members<'_>> {
    serde_json::from_str(raw.get()).ok()
}

fn is(raw: Option<&&RawValue>, words: &[&str]) -> bool {
    raw.is_some_and(|raw| words.iter().any(|w| raw.get().trim_matches('"') == *w))
}

/// One entity, flat. An attribute's value keeps its digits; a point becomes `<attribute>_longitude` and `_latitude`
/// besides. None when it is no entity.
pub fn flat(entity: &RawValue) -> Option<Vec<u8>> {
    let found = members(entity)?;
    let mut out: Vec<(String, &str)> = Vec::new();
    for (name, raw) in &found {
        match members(raw).filter(|_| !matches!(name.as_str(), "id" | "type" | "@context")) {
            Some(attribute) => put_attribute(&mut out, name, raw, &attribute),
            None => out.push((name.clone(), raw.get())),
        }
    }
    let mut text = String::from("{");
    for (n, (name, json)) in out.iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        text.push_str(&serde_json::Value::from(name.as_str()).to_string());
        text.push(':');
        text.push_str(json);
    }
    text.push('}');
    Some(text.into_bytes())
}

fn put_attribute<'a>(out: &mut Vec<(String, &'a str)>, name: &str, raw: &'a RawValue, attribute: &Members<'a>) {
    let kind = attribute.get("type");
    let value = match kind {
        kind if is(kind, &["Relationship"]) => attribute.get("object"),
        kind if is(kind, &["LanguageProperty"]) => attribute.get("languageMap"),
        kind if is(kind, &["VocabProperty"]) => attribute.get("vocab"),
        kind if is(kind, &["Property", "GeoProperty", "JsonProperty", "ListProperty"]) => {
            attribute.get("value").or_else(|| attribute.get("json")).or_else(|| attribute.get("valueList"))
        }
        // Key-values: an object is the value itself.
        _ => Some(&raw),
    };
    let Some(value) = value else { return };
    out.push((name.to_owned(), value.get()));
    for beside in BESIDE {
        if let Some(raw) = attribute.get(*beside).filter(|_| kind.is_some()) {
            out.push((format!("{name}_{beside}"), raw.get()));
        }
    }
    let Some(geometry) = members(value).filter(|g| is(g.get("type"), &["Point"])) else { return };
    let point: Option<Vec<&RawValue>> = geometry.get("coordinates").and_then(|c| serde_json::from_str(c.get()).ok());
    for (n, axis) in ["longitude", "latitude"].iter().enumerate() {
        if let Some(raw) = point.as_ref().and_then(|p| p.get(n)) {
            out.push((format!("{name}_{axis}"), raw.get()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn flat_of(text: &str) -> Option<String> {
        flat(serde_json::from_str(text).unwrap()).map(|b| String::from_utf8(b).unwrap())
    }

    #[test]
    fn both_representations_give_the_same_columns() {
        let normalized = r#"{"id": "urn:ngsi-ld:AirQualityObserved:1", "type": "AirQualityObserved",
            "no2": {"type": "Property", "value": 22.10, "unitCode": "GQ", "observedAt": "2026-01-01T00:00:00Z"},
            "refDevice": {"type": "Relationship", "object": "urn:ngsi-ld:Device:7"},
            "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [-3.7, 40.40]}},
            "@context": ["https://example/context.jsonld"]}"#;
        let flat = flat_of(normalized).unwrap();
        assert!(flat.contains("\"no2\":22.10"), "digits stay: {flat}");
        let value: Value = serde_json::from_str(&flat).unwrap();
        assert_eq!(value["no2_observedAt"], "2026-01-01T00:00:00Z");
        assert_eq!((&value["refDevice"], &value["location_latitude"]), (&json!("urn:ngsi-ld:Device:7"), &json!(40.4)));
        let values = r#"{"id": "urn:ngsi-ld:AirQualityObserved:1", "type": "AirQualityObserved", "no2": 22.10,
            "refDevice": "urn:ngsi-ld:Device:7", "location": {"type": "Point", "coordinates": [-3.7, 40.40]}}"#;
        let short: Value = serde_json::from_str(&flat_of(values).unwrap()).unwrap();
        for name in ["id", "type", "no2", "refDevice", "location", "location_longitude"] {
            assert_eq!(short[name], value[name], "{name}");
        }
        assert_eq!(flat_of("[1]"), None);
    }
}
