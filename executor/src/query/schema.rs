//! A dataset's fields from its JSON Schema (the part of it that says what a row is made of).

use serde_json::Value;

use super::fields::{FieldType, Fields, FieldsError};

impl Fields {
    /// Reads `properties` of a JSON Schema: `string` (with format `date-time` a timestamp, with
    /// `decimal` a decimal), `integer`, `number` (a decimal), `boolean`, each alone or with `null`.
    /// Other shapes are refused: holdings and filters know flat rows only.
    pub fn from_schema(schema: &Value) -> Result<Self, FieldsError> {
        let whole = |rule| FieldsError::Schema { field: "properties".into(), rule };
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return Err(whole("is missing: list the row's fields there"));
        };
        let fields: Result<Vec<_>, _> = properties.iter().map(|(n, p)| Ok((n.clone(), field_type(n, p)?))).collect();
        Self::new(fields?)
    }
}

fn field_type(name: &str, property: &Value) -> Result<FieldType, FieldsError> {
    let refuse = |rule| FieldsError::Schema { field: name.chars().take(80).collect(), rule };
    let types: Vec<&str> = match property.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).filter(|t| *t != "null").collect(),
        _ => Vec::new(),
    };
    let format = property.get("format").and_then(Value::as_str);
    match (types.as_slice(), format) {
        (["string"], Some("date-time")) => Ok(FieldType::Timestamp),
        (["string"], Some("decimal")) | (["number"], _) => Ok(FieldType::Decimal),
        (["string"], _) => Ok(FieldType::String),
        (["integer"], _) => Ok(FieldType::Integer),
        (["boolean"], _) => Ok(FieldType::Boolean),
        _ => Err(refuse("needs one type of string, integer, number, boolean (null beside it is allowed)")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_demo_schemas_become_fields() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/demo/schemas");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).expect("the demo's schemas are part of the project") {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let fields = Fields::from_schema(&serde_json::from_str(&text).unwrap()).unwrap();
            if let Some(ty) = fields.get("stop_id") {
                assert_eq!(ty, FieldType::String);
                assert_eq!(fields.get("time"), Some(FieldType::Timestamp));
                assert_eq!(fields.get("lat"), Some(FieldType::Decimal));
                assert_eq!(fields.get("person_search"), Some(FieldType::Boolean));
                seen += 1;
            }
        }
        assert_eq!(seen, 1);
    }

    #[test]
    fn a_shape_that_filters_cannot_read_is_named() {
        let read = |p: Value| Fields::from_schema(&json!({"properties": {"f": p}}));
        assert_eq!(read(json!({"type": ["null", "integer"]})).unwrap().get("f"), Some(FieldType::Integer));
        for bad in [json!({"type": "object"}), json!({"type": ["string", "integer"]}), json!({}), json!(true)] {
            let e = read(bad).unwrap_err();
            assert_eq!(e.code(), "fields.schema");
            assert!(e.to_string().contains("field f "), "{e}");
        }
        assert_eq!(Fields::from_schema(&json!({})).unwrap_err().code(), "fields.schema");
    }
}
