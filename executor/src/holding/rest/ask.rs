//! From a filter to the questions that a service is asked.

use std::collections::BTreeSet;

use reqwest::Url;
use serde_json::Value;

use super::setup::Checked;
use crate::holding::{DatasetSpec, HoldingError};
use crate::query::{Cond, FieldType, Filter, Key, Op, Scalar};

/// Most questions of one query: the values of one list.
const QUESTIONS_MAX: usize = 50;

/// One question, without the parameters of its page.
pub(super) struct Question {
    /// The address.
    pub url: Url,
    /// Whether "not found" means that there is no row.
    pub one: bool,
}

/// The texts of the values to which a filter confines a field, each once.
fn named(filter: &Filter, field: &str) -> Option<BTreeSet<String>> {
    let values = filter.named_values(field)?;
    let text = |value: &&Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(values.iter().map(text).collect())
}

/// What the service is asked, so that all rows that can match are among the answers. None: no row can.
///
/// # Errors
/// [`HoldingError::TooWide`]: the filter does not name what the service must be told.
pub(super) fn questions(setup: &Checked, filter: &Filter) -> Result<Vec<Question>, HoldingError> {
    let told: Vec<(&String, BTreeSet<String>)> =
        setup.pushed().into_iter().filter_map(|f| Some((f, named(filter, f)?))).collect();
    let missing = setup.require.iter().any(|f| !told.iter().any(|(t, _)| *t == f));
    if missing {
        return Err(too_wide(setup, filter));
    }
    // Fields with one value go into every question. One list makes a question of each of its values.
    let list = told.iter().filter(|(_, values)| values.len() != 1);
    let needed = list.clone().filter(|(f, _)| setup.require.contains(*f)).count();
    let single = told.iter().any(|(_, values)| values.len() == 1);
    let list = match needed {
        0 if single => None,
        0 => list.min_by_key(|(_, values)| values.len()).filter(|(_, values)| values.len() <= QUESTIONS_MAX),
        1 => list.clone().find(|(f, values)| setup.require.contains(*f) && values.len() <= QUESTIONS_MAX),
        _ => None,
    };
    if needed > 0 && list.is_none() {
        return Err(too_wide(setup, filter));
    }
    let same: Vec<(&str, &str)> = told
        .iter()
        .filter(|(_, values)| values.len() == 1)
        .flat_map(|(f, values)| values.iter().map(|v| (f.as_str(), v.as_str())))
        .collect();
    match list {
        None => Ok(vec![question(setup, filter, &same)?]),
        Some((field, values)) => values
            .iter()
            .map(|value| {
                let mut all = same.clone();
                all.push((field, value));
                question(setup, filter, &all)
            })
            .collect(),
    }
}

fn question(setup: &Checked, filter: &Filter, told: &[(&str, &str)]) -> Result<Question, HoldingError> {
    let mut address = setup.url.clone();
    for (field, value) in told.iter().filter(|(f, _)| setup.in_path.contains(*f)) {
        // Such a part would be another resource.
        if matches!(*value, "" | "." | "..") {
            return Err(too_wide(setup, filter));
        }
        address = address.replace(&format!("{{{field}}}"), &encoded(value));
    }
    let mut url = Url::parse(&address).map_err(|e| HoldingError::Setup(format!("url: {e}")))?;
    let parameters = told.iter().filter_map(|(field, value)| Some((setup.push_down.get(*field)?, *value)));
    for (name, value) in parameters {
        url.query_pairs_mut().append_pair(name, value);
    }
    Ok(Question { url, one: !setup.in_path.is_empty() })
}

fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// More rows than one query may read, with the fields that would make them fewer.
pub(super) fn too_wide(setup: &Checked, filter: &Filter) -> HoldingError {
    let missing = |f: &&&String| named(filter, f).is_none_or(|values| values.len() != 1);
    let pushed = setup.pushed();
    let mut names: Vec<&str> = setup.require.iter().filter(|f| missing(&f)).map(String::as_str).collect();
    let all_of = !names.is_empty();
    if !all_of {
        names = pushed.iter().filter(|f| missing(f)).map(|f| f.as_str()).collect();
    }
    let fields = match names.is_empty() {
        true => None,
        false => Some(names.join(if all_of { " and " } else { " or " })),
    };
    HoldingError::TooWide { max: setup.rows_max as u64, fields }
}

/// The filter of one key: each of its fields equal to what the key says. None for a text that is no key.
pub(super) fn of_key(spec: &DatasetSpec, key: &str) -> Option<Filter> {
    let parts = if spec.key.len() == 1 { vec![key.to_owned()] } else { split(key) };
    if parts.len() != spec.key.len() {
        return None;
    }
    let mut all = Vec::new();
    for (field, text) in spec.key.iter().zip(parts) {
        let ty = spec.fields.get(field)?;
        let value = match ty {
            FieldType::String | FieldType::Timestamp => Value::String(text),
            FieldType::Integer | FieldType::Boolean => serde_json::from_str(&text).ok()?,
            // The text of a decimal's key is not one that can be sent back; the rows are compared by their key anyway.
            FieldType::Decimal => continue,
        };
        Key::of(ty, &value)?;
        let op = Op::Eq(Scalar::new(ty, value)?);
        all.push(Filter::Cond(Cond { field: field.clone(), ty, op }));
    }
    Some(Filter::all_of(all))
}

/// The parts of a key of several fields: they stand between `|`, with `\` before each `|` and `\` inside.
fn split(key: &str) -> Vec<String> {
    let (mut parts, mut chars) = (vec![String::new()], key.chars());
    while let Some(c) = chars.next() {
        let next = match c {
            '|' => {
                parts.push(String::new());
                continue;
            }
            '\\' => chars.next(),
            c => Some(c),
        };
        if let Some(last) = parts.last_mut() {
            last.extend(next);
        }
    }
    parts
}
