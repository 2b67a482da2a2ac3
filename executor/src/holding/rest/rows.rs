//! Rows of an answer, typed as the dataset says.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::setup::Checked;
use crate::holding::{DatasetSpec, key_text};
use crate::query::{FieldType, Key};

/// An object whose members are not read yet.
pub(super) type Raw<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// What stands at a path; none where there is nothing.
pub(super) fn at<'a>(raw: &'a RawValue, path: &[String]) -> Option<&'a RawValue> {
    let mut here = raw;
    for step in path {
        let members: Raw<'a> = serde_json::from_str(here.get()).ok()?;
        here = members.get(step.as_str()).copied()?;
    }
    Some(here)
}

/// The row's key and what it has of the dataset's fields: what is not of a field's type is no value, a row without its key
/// is no row.
pub(super) fn typed(setup: &Checked, spec: &DatasetSpec, row: &RawValue) -> Option<(String, Map<String, Value>)> {
    let members: Raw<'_> = serde_json::from_str(row.get()).ok()?;
    let mut doc = Map::new();
    for (name, ty) in spec.fields.iter() {
        let raw = match setup.fields.get(name) {
            Some(path) => at(row, path),
            None => members.get(name).copied(),
        };
        if let Some(value) = raw.and_then(|raw| value(ty, raw)) {
            doc.insert(name.to_owned(), value);
        }
    }
    let values: Option<Vec<Value>> = spec.key.iter().map(|f| doc.get(f).cloned()).collect();
    Some((key_text(spec, &values?).ok()?, doc))
}

fn value(ty: FieldType, raw: &RawValue) -> Option<Value> {
    // A decimal keeps all its digits: a float would not.
    let number = ty == FieldType::Decimal && raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let value = match number {
        true => Value::String(raw.get().to_owned()),
        false => serde_json::from_str(raw.get()).ok()?,
    };
    Key::of(ty, &value).map(|_| value)
}
