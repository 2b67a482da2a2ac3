//! Columns of JSON values that nobody described yet.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::contract::{Column, Discovery};
use crate::discover::{Guess, draft};
use crate::document::Common;

/// Most columns of a draft.
const COLUMNS_MAX: usize = 200;
/// Deepest member that becomes a column of its own.
const DEPTH_MAX: usize = 4;

/// What the leaves of some JSON values look like.
#[derive(Debug, Default)]
pub struct Sample {
    count: u64,
    /// By path: its guess, and in how many values it was.
    leaves: BTreeMap<String, (Guess, u64)>,
    /// Paths in the order they were first seen.
    order: Vec<String>,
}

impl Sample {
    /// Values that were seen.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes one JSON value and words of its kind, such as `$topic[1]`, with their text. What is no JSON is left out.
    pub fn see(&mut self, json: &[u8], words: &[(String, String)]) {
        let Ok(value) = serde_json::from_slice::<Value>(json) else { return };
        self.count += 1;
        for (word, text) in words {
            self.leaf(word.clone(), Some(text));
        }
        self.walk("$", &value, 0);
    }

    fn walk(&mut self, path: &str, value: &Value, depth: usize) {
        match value {
            Value::Object(members) if depth < DEPTH_MAX => {
                for (name, member) in members {
                    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                    let step = if plain { format!("{path}.{name}") } else { format!("{path}['{name}']") };
                    self.walk(&step, member, depth + 1);
                }
            }
            Value::Null => self.leaf(path.to_owned(), None),
            Value::String(text) => self.leaf(path.to_owned(), Some(text)),
            other => self.leaf(path.to_owned(), Some(&other.to_string())),
        }
    }

    fn leaf(&mut self, path: String, text: Option<&str>) {
        if !self.leaves.contains_key(&path) {
            if self.leaves.len() == COLUMNS_MAX {
                return;
            }
            self.order.push(path.clone());
            self.leaves.insert(path.clone(), (Guess::new(name_of(&path), '.'), 0));
        }
        if let Some((guess, seen)) = self.leaves.get_mut(&path) {
            guess.see(text);
            *seen += 1;
        }
    }

    /// The drafts: a field a leaf, with the path it is from.
    pub fn draft(mut self, common: &Common) -> Discovery {
        let mut columns: Vec<(Column, String)> = Vec::new();
        for path in &self.order {
            let Some((guess, seen)) = self.leaves.remove(path) else { continue };
            let mut column = guess.column();
            // A level that is the same in every message identifies nothing and tells nothing.
            column.nullable |= seen < self.count;
            column.key &= !column.nullable;
            while columns.iter().any(|(c, _)| c.name == column.name) {
                column.name.push('_');
            }
            columns.push((column, path.clone()));
        }
        let paths: Vec<(String, String)> = columns.iter().map(|(c, p)| (c.name.clone(), p.clone())).collect();
        let mut drafts = draft(common, columns.into_iter().map(|(c, _)| c).collect(), self.count);
        for (name, path) in paths {
            let from = format!("  {name}: {{from: {}, ", serde_json::Value::from(path));
            drafts.adapter = drafts.adapter.replacen(&format!("  {name}: {{"), &from, 1);
        }
        drafts
    }
}

/// A field's name from its path: `$.p.q` becomes `p_q`, `$topic[3]` `topic_3`.
fn name_of(path: &str) -> String {
    let mut name = String::new();
    for c in path.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
    }
    let name = name.trim_end_matches('_');
    if name.is_empty() { "value".to_owned() } else { name.to_owned() }
}
