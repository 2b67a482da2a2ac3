//! A dataset's fields and their types: what filters and rows are checked against.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::{MAX_FIELD_NAME, MAX_FIELDS};

/// The type of a field. Rows carry JSON: strings, integers to 2^53-1, decimals as strings (exact)
/// or numbers, booleans, timestamps as RFC 3339 strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// Text, compared by code points.
    String,
    /// A whole number of at most 2^53 - 1.
    Integer,
    /// An exact decimal, compared as a number: `"1.50"` equals `1.5`.
    Decimal,
    /// `true` or `false`.
    Boolean,
    /// An instant (RFC 3339 with a zone), compared as an instant.
    Timestamp,
}

impl FieldType {
    /// The type's name in schemas and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Decimal => "decimal",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
        }
    }
}

/// Why a list of fields is no schema.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FieldsError {
    /// The name is not usable in filters and stores.
    #[error("field name {0:?}: use a letter or _, then letters, digits, _ or -, at most 63; and, or, not are taken")]
    Name(String),
    /// The name occurs twice.
    #[error("field {0} is declared twice; remove one")]
    Twice(String),
    /// None, or more than the limit.
    #[error("a dataset has 1 to {MAX_FIELDS} fields, this one {0}")]
    Count(usize),
    /// The JSON Schema describes no flat row.
    #[error("field {field} {rule}")]
    Schema {
        /// The field.
        field: String,
        /// What it needs.
        rule: &'static str,
    },
}

impl FieldsError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "fields.name",
            Self::Twice(_) => "fields.twice",
            Self::Count(_) => "fields.count",
            Self::Schema { .. } => "fields.schema",
        }
    }
}

/// A dataset's fields in schema order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(String, FieldType)>", into = "Vec<(String, FieldType)>")]
pub struct Fields {
    list: Vec<(String, FieldType)>,
    by_name: BTreeMap<String, FieldType>,
}

impl Fields {
    /// Checks names (`[A-Za-z_][A-Za-z0-9_-]*`, so that every store can carry them) and count.
    pub fn new(list: Vec<(String, FieldType)>) -> Result<Self, FieldsError> {
        if list.is_empty() || list.len() > MAX_FIELDS {
            return Err(FieldsError::Count(list.len()));
        }
        let mut by_name = BTreeMap::new();
        for (name, ty) in &list {
            if !usable(name) {
                return Err(FieldsError::Name(name.chars().take(80).collect()));
            }
            if by_name.insert(name.clone(), *ty).is_some() {
                return Err(FieldsError::Twice(name.clone()));
            }
        }
        Ok(Self { list, by_name })
    }

    /// The field's type, if there is such a field.
    pub fn get(&self, name: &str) -> Option<FieldType> {
        self.by_name.get(name).copied()
    }

    /// Names and types in schema order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, FieldType)> {
        self.list.iter().map(|(n, t)| (n.as_str(), *t))
    }

    /// The declared name nearest to a mistyped one, if any is near.
    pub fn nearest(&self, word: &str) -> Option<String> {
        nearest(word, self.list.iter().map(|(n, _)| n.as_str()))
    }
}

impl TryFrom<Vec<(String, FieldType)>> for Fields {
    type Error = FieldsError;
    fn try_from(list: Vec<(String, FieldType)>) -> Result<Self, FieldsError> {
        Self::new(list)
    }
}

impl From<Fields> for Vec<(String, FieldType)> {
    fn from(fields: Fields) -> Self {
        fields.list
    }
}

fn usable(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first
        && name.len() <= MAX_FIELD_NAME
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        && !matches!(name, "and" | "or" | "not")
}

/// The known word nearest to `word` by edit distance (case ignored), if within a third of its
/// length (at least 2 edits, so that short words find theirs). Ties go to the first.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let word: Vec<char> = word.to_lowercase().chars().take(64).collect();
    let reach = (word.len() / 3).max(2);
    known
        .into_iter()
        .map(|k| {
            let chars: Vec<char> = k.to_lowercase().chars().collect();
            (distance(&word, &chars), chars.len(), k)
        })
        .filter(|(d, len, _)| *d <= reach && *d < (*len).max(word.len()))
        .min_by_key(|(d, _, _)| *d)
        .map(|(_, _, k)| k.to_string())
}

fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_store_could_misread_are_refused() {
        for bad in ["", "a.b", "a\"b", "$x", "1a", "and", "ä", "a b", &"x".repeat(64)] {
            let got = Fields::new(vec![(bad.to_string(), FieldType::String)]);
            assert_eq!(got.unwrap_err().code(), "fields.name", "{bad}");
        }
    }

    #[test]
    fn a_typing_slip_finds_its_word() {
        let known = ["precinct", "problem", "time"];
        assert_eq!(nearest("precint", known), Some("precinct".into()));
        assert_eq!(nearest("Tmie", known), Some("time".into()));
        assert_eq!(nearest("salary", known), None);
        assert_eq!(nearest("x", ["in", "eq"]), None);
    }
}
