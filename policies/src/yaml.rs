//! Strict YAML 1.2 for every document a person writes: agreements, datasets, adapters, `node.yaml`.
//!
//! Duplicate keys, unknown keys (of types with `deny_unknown_fields`), merge keys, foreign tags and several documents in
//! one text are refused, with line, column and the nearest known word.

use serde::de::DeserializeOwned;
pub use serde_saphyr::Spanned;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use thiserror::Error;

/// Largest document read, bytes.
pub const YAML_BYTES_MAX: usize = 1 << 20;

/// Where something stands in a document; both count from 1, 0 means not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Pos {
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

impl Pos {
    /// The place where a spanned value stands.
    pub fn of<T>(v: &Spanned<T>) -> Self {
        Self { line: v.referenced.line(), column: v.referenced.column() }
    }
}

/// Why a document was refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("line {}, column {}: {problem}{}", at.line, at.column, hint(nearest.as_deref()))]
pub struct YamlError {
    /// Where.
    pub at: Pos,
    /// What is wrong and which rule it breaks.
    pub problem: String,
    /// The known word nearest to an unknown one.
    pub nearest: Option<String>,
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |w| format!("; did you mean \"{w}\"?"))
}

impl YamlError {
    /// A problem at a place.
    pub fn new(at: Pos, problem: impl Into<String>) -> Self {
        Self { at, problem: problem.into(), nearest: None }
    }

    /// An unknown word at a place, with the nearest of the known ones.
    pub fn unknown(at: Pos, what: &str, word: &str, known: &[&str]) -> Self {
        let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let problem = format!("unknown {what} \"{}\" (known: {list})", clip(word));
        Self { at, problem, nearest: nearest(word, known).map(str::to_owned) }
    }

    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        "yaml"
    }
}

/// Text cut to 80 characters, for messages.
pub(crate) fn clip(s: &str) -> String {
    s.chars().take(80).collect()
}

/// Reads one document of type `T`. Give `T` and its parts `#[serde(deny_unknown_fields)]`.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    if text.len() > YAML_BYTES_MAX {
        return Err(YamlError::new(Pos::default(), format!("the document is larger than {YAML_BYTES_MAX} bytes")));
    }
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        // What people read is what they sign: no base64 in disguise.
        ignore_binary_tag_for_string: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| convert(&e))
}

fn convert(e: &serde_saphyr::Error) -> YamlError {
    use serde_saphyr::Error as E;
    let e = e.without_snippet();
    let at = e.location().map_or_else(Pos::default, |l| Pos { line: l.line(), column: l.column() });
    match e {
        E::AliasError { error, .. } => convert(error),
        E::SerdeUnknownField { field, expected, .. } => YamlError::unknown(at, "key", field, expected),
        E::SerdeUnknownVariant { variant, expected, .. } => YamlError::unknown(at, "word", variant, expected),
        E::SerdeMissingField { field, .. } => YamlError::new(at, format!("the key \"{field}\" is missing; add it")),
        E::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().map(clip).unwrap_or_default();
            YamlError::new(at, format!("the key \"{key}\" stands here a second time; keep one"))
        }
        E::MergeKeyNotAllowed { .. } => YamlError::new(at, "merge keys (<<) are not allowed; write the keys out"),
        other => YamlError::new(at, first_line(&other.to_string())),
    }
}

fn first_line(s: &str) -> String {
    s.lines().next().unwrap_or("not valid YAML").chars().take(200).collect()
}

/// The known word nearest to `word` by edit distance, if it is near enough to be meant.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(64).flat_map(char::to_lowercase).collect();
    let far = (word.len() / 2).max(2);
    let scored = known.iter().map(|k| (distance(&word, &k.to_lowercase().chars().collect::<Vec<_>>()), *k));
    scored.filter(|(d, _)| *d <= far).min_by_key(|(d, _)| *d).map(|(_, k)| k)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (row[j] + 1).min(next[j - 1] + 1).min(row[j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Doc {
        effect: String,
        #[serde(default)]
        deep: Option<Deep>,
    }
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Deep {
        purpose: String,
    }

    #[test]
    fn an_unknown_key_names_place_and_nearest_word() {
        let e = parse::<Doc>("effect: a\ndeep:\n  porpuse: x\n").unwrap_err();
        assert_eq!((e.at.line, e.at.column), (3, 3), "{e}");
        assert_eq!(e.nearest.as_deref(), Some("purpose"));
        assert_eq!(
            e.to_string(),
            "line 3, column 3: unknown key \"porpuse\" (known: purpose); did you mean \"purpose\"?"
        );
    }

    #[test]
    fn duplicates_merges_tags_and_second_documents_are_refused() {
        let e = parse::<Doc>("effect: a\neffect: b\n").unwrap_err();
        assert_eq!(e.at.line, 2, "{e}");
        assert!(e.problem.contains("second time"));
        for bad in [
            "effect: a\n---\neffect: b\n",
            "<<: {effect: a}\n",
            "effect: !x a\n",
            "effect: [a\n",
            "- a\n",
            "effect: a\n<<: {effect: b}\n",
            "",
        ] {
            assert!(parse::<Doc>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nearest_word_is_near() {
        let known = ["query", "subscribe", "insert", "modify", "delete"];
        assert_eq!(nearest("qeury", &known), Some("query"));
        assert_eq!(nearest("Querry", &known), Some("query"));
        assert_eq!(nearest("sub", &known), None);
        assert_eq!(nearest("zzzz", &known), None);
    }
}
