//! The shape of row filters as data. The executor owns their meaning; here unknown operators are refused before
//! anybody signs, and a filter gets one canonical text.

use crate::yaml::{Pos, YamlError, clip, nearest};
use serde_json::Value;

/// Operators of the query language that a row filter may use.
pub const OPERATORS: &[&str] = &["eq", "ne", "in", "range", "prefix", "exists", "bbox", "near", "time"];
/// Words that join filters.
pub const JOINERS: &[&str] = &["and", "or", "not"];
const DEPTH_MAX: u8 = 8;

/// A filter that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterProblem {
    /// What is wrong.
    pub problem: String,
    /// The known word nearest to an unknown one.
    pub nearest: Option<String>,
}

impl FilterProblem {
    fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), nearest: None }
    }
    pub(crate) fn at(self, at: Pos) -> YamlError {
        YamlError { at, problem: self.problem, nearest: self.nearest }
    }
}

/// Checks the name of a dataset's field: 1 to 64 of letters, digits, `_`, `-`, beginning with a letter or `_`.
pub fn check_field(name: &str) -> Result<(), String> {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if first && rest && name.len() <= 64 && !JOINERS.contains(&name) {
        Ok(())
    } else {
        Err(format!("\"{}\" is not a field name: use letters, digits, _ and -, beginning with a letter", clip(name)))
    }
}

/// Checks that a filter is an object of fields with operators, joined by `and`, `or`, `not`.
pub fn check(filter: &Value) -> Result<(), FilterProblem> {
    check_at(filter, DEPTH_MAX)
}

fn check_at(filter: &Value, depth: u8) -> Result<(), FilterProblem> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(FilterProblem::new(format!("the filter nests deeper than {DEPTH_MAX}")));
    };
    let map = filter.as_object().filter(|m| !m.is_empty());
    let map = map
        .ok_or_else(|| FilterProblem::new("a filter is a map like {precinct: {in: [\"1\", \"2\"]}}, and not empty"))?;
    for (key, v) in map {
        match key.as_str() {
            "and" | "or" => {
                let parts = v.as_array().filter(|a| !a.is_empty());
                let parts = parts.ok_or_else(|| FilterProblem::new(format!("\"{key}\" needs a list of filters")))?;
                parts.iter().try_for_each(|p| check_at(p, depth))?;
            }
            "not" => check_at(v, depth)?,
            field => check_operators(field, v)?,
        }
    }
    Ok(())
}

fn check_operators(field: &str, v: &Value) -> Result<(), FilterProblem> {
    check_field(field).map_err(FilterProblem::new)?;
    let ops = v.as_object().filter(|m| !m.is_empty());
    let ops = ops
        .ok_or_else(|| FilterProblem::new(format!("\"{field}\" needs an operator, like {{eq: ..}} or {{in: [..]}}")))?;
    for (op, operand) in ops {
        if !OPERATORS.contains(&op.as_str()) {
            let problem = format!("unknown operator \"{}\" (known: {})", clip(op), OPERATORS.join(", "));
            return Err(FilterProblem { problem, nearest: nearest(op, OPERATORS).map(str::to_owned) });
        }
        if operand.is_null() {
            return Err(FilterProblem::new(format!("\"{field}\": {op} has no value")));
        }
        if op == "in" && operand.as_array().is_none_or(Vec::is_empty) {
            return Err(FilterProblem::new(format!("\"{field}\": in needs a list of values")));
        }
    }
    Ok(())
}

/// The fields a filter names.
pub fn field_names(filter: &Value) -> Vec<&str> {
    let Some(map) = filter.as_object() else { return Vec::new() };
    let mut out = Vec::new();
    for (key, v) in map {
        match (key.as_str(), v) {
            ("and" | "or", Value::Array(parts)) => out.extend(parts.iter().flat_map(field_names)),
            ("not", v) => out.extend(field_names(v)),
            (field, _) => out.push(field),
        }
    }
    out
}

/// JSON with sorted keys and no spaces: the same value gives the same text, whatever order it was read in.
pub fn canonical_json(v: &Value) -> String {
    match v {
        Value::Array(a) => format!("[{}]", a.iter().map(canonical_json).collect::<Vec<_>>().join(",")),
        Value::Object(m) => {
            let mut keys: Vec<&String> = m.keys().collect();
            keys.sort();
            let pair = |k: &&String| format!("{}:{}", Value::String((*k).clone()), canonical_json(&m[k.as_str()]));
            format!("{{{}}}", keys.iter().map(pair).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn known_shapes_pass_and_others_name_the_rule() {
        for good in [
            json!({"precinct": {"in": ["1", "2"]}}),
            json!({"and": [{"a": {"eq": 1}}, {"not": {"b": {"exists": true}}}]}),
            json!({"t": {"range": {"gte": "x", "lt": "y"}}, "u": {"prefix": "q"}}),
        ] {
            check(&good).unwrap();
        }
        let e = check(&json!({"precinct": {"inn": ["1"]}})).unwrap_err();
        assert_eq!(e.nearest.as_deref(), Some("in"));
        for bad in [
            json!(null),
            json!({}),
            json!([]),
            json!({"a": "1"}),
            json!({"a": {}}),
            json!({"a": {"eq": null}}),
            json!({"a": {"in": []}}),
            json!({"or": []}),
            json!({"or": {}}),
            json!({"$where": {"eq": 1}}),
            json!({"": {"eq": 1}}),
            json!({"not": {"not": {"not": {"not": {"not": {"not": {"not": {"not": {"a": {"eq": 1}}}}}}}}}}),
        ] {
            assert!(check(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn fields_are_found_and_text_is_canonical() {
        let f = json!({"or": [{"b": {"eq": 1}}, {"not": {"a": {"eq": "x\"y"}}}]});
        assert_eq!(field_names(&f), ["b", "a"]);
        assert_eq!(
            canonical_json(&json!({"b": [1, {"d": 1, "c": "\""}], "a": null})),
            r#"{"a":null,"b":[1,{"c":"\"","d":1}]}"#
        );
    }
}
