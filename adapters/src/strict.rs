//! Strict YAML: YAML 1.2 booleans, no merge keys, duplicate and unknown keys refused with line,
//! column and the nearest known key.

use serde::de::DeserializeOwned;
use serde_saphyr::options::MergeKeyPolicy;

/// Where and why a document was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Line from 1, 0 when the parser gave none.
    pub line: u64,
    /// Column from 1, 0 when the parser gave none.
    pub column: u64,
    /// What is wrong and what to write instead.
    pub detail: String,
}

/// Parses one document into `T`, which should deny unknown fields.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Refusal> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        merge_keys: MergeKeyPolicy::Error,
        with_snippet: false,
        reject_unsupported_tags: true,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| refusal(&e))
}

fn refusal(error: &serde_saphyr::Error) -> Refusal {
    use serde_saphyr::Error;
    let inner = error.without_snippet();
    let (line, column) = inner.location().map_or((0, 0), |at| (at.line(), at.column()));
    let detail = match inner {
        Error::SerdeUnknownField { field, expected, .. } => unknown("key", field, expected),
        Error::SerdeUnknownVariant { variant, expected, .. } => unknown("value", variant, expected),
        Error::DuplicateMappingKey { key, .. } => {
            format!("key `{}` stands twice in the same mapping; keep one", key.as_deref().unwrap_or("?"))
        }
        Error::SerdeMissingField { field, .. } => format!("key `{field}` is missing"),
        Error::NullIntoString { .. } => {
            "an empty value or the word null stands where text is expected; quote it if the word is meant".to_owned()
        }
        other => other.to_string(),
    };
    Refusal { line, column, detail }
}

fn unknown(what: &str, word: &str, expected: &[&'static str]) -> String {
    match nearest(word, expected.iter().copied()) {
        Some(near) => format!("unknown {what} `{word}`; did you mean `{near}`?"),
        None => format!("unknown {what} `{word}`; known here: {}", expected.join(", ")),
    }
}

/// The known word closest to `word`, if one is close enough to be a slip of the pen.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(2);
    known.map(|k| (distance(word, k), k)).filter(|(d, _)| *d <= limit).min().map(|(_, k)| k)
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, cb) in row.iter_mut().skip(1).zip(&b) {
            let change = diagonal + usize::from(ca != *cb);
            diagonal = *cell;
            left = change.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_levenshtein() {
        for (a, b, d) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("forman", "format", 1)] {
            assert_eq!(distance(a, b), d, "{a} {b}");
        }
    }

    #[test]
    fn nearest_offers_slips_only() {
        let known = ["format", "path", "into"];
        assert_eq!(nearest("formats", known.into_iter()), Some("format"));
        assert_eq!(nearest("completely", known.into_iter()), None);
    }
}
