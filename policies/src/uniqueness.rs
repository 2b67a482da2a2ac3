//! How many released rows stand alone by what they show: whoever knows those values of a person finds the person's row.

use crate::document::Clause;
use crate::lint::{Finding, Severity};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Rows in groups smaller than this are counted as few.
pub const FEW: u64 = 5;
/// Share of rows that stand alone from which a finding is a warning, in a hundred.
const WARN_PERCENT: u64 = 1;

/// What some fields together tell of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Telling {
    /// The fields.
    pub fields: Vec<String>,
    /// Rows that no other row is like in these fields.
    pub alone: u64,
    /// Rows that fewer than [`FEW`] are like, themselves counted.
    pub few: u64,
}

/// What the visible fields of rows tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Uniqueness {
    /// Rows looked at.
    pub rows: u64,
    /// All fields together, each field and each pair of fields: the most telling first, fewer fields before more.
    pub telling: Vec<Telling>,
}

/// Counts rows as they are shown. `skip` are fields that are unique by nature (the key): they say nothing new.
pub fn uniqueness(rows: &[Map<String, Value>], skip: &[String]) -> Uniqueness {
    let mut columns: Vec<(String, Vec<u32>)> = Vec::new();
    let mut names: Vec<&String> = rows.iter().flat_map(Map::keys).collect();
    names.sort();
    names.dedup();
    for name in names.into_iter().filter(|n| !skip.contains(n)) {
        columns.push((name.clone(), numbered(rows, name)));
    }
    let mut sets: Vec<Vec<usize>> = (0..columns.len()).map(|i| vec![i]).collect();
    for a in 0..columns.len() {
        sets.extend((a + 1..columns.len()).map(|b| vec![a, b]));
    }
    if columns.len() > 2 {
        sets.push((0..columns.len()).collect());
    }
    let mut telling: Vec<Telling> = sets.iter().map(|set| tell(rows.len(), &columns, set)).collect();
    telling
        .sort_by(|a, b| (b.alone, b.few, a.fields.len(), &a.fields).cmp(&(a.alone, a.few, b.fields.len(), &b.fields)));
    Uniqueness { rows: rows.len() as u64, telling }
}

/// Each row's value of a field as a number: the same number for the same value.
fn numbered(rows: &[Map<String, Value>], name: &str) -> Vec<u32> {
    let mut known: HashMap<String, u32> = HashMap::new();
    let number = |row: &Map<String, Value>| {
        let value = row.get(name).unwrap_or(&Value::Null).to_string();
        let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
        *known.entry(value).or_insert(next)
    };
    rows.iter().map(number).collect()
}

fn tell(rows: usize, columns: &[(String, Vec<u32>)], set: &[usize]) -> Telling {
    let mut groups: HashMap<Vec<u32>, u64> = HashMap::new();
    for row in 0..rows {
        let key = set.iter().filter_map(|c| columns.get(*c).and_then(|(_, v)| v.get(row)).copied()).collect();
        *groups.entry(key).or_default() += 1;
    }
    let fields = set.iter().filter_map(|c| columns.get(*c).map(|(n, _)| n.clone())).collect();
    let alone = groups.values().filter(|n| **n == 1).count() as u64;
    let few = groups.values().filter(|n| **n < FEW).sum();
    Telling { fields, alone, few }
}

/// The finding for one clause: the fewest fields by which most rows stand alone.
pub fn finding(c: &Clause, found: &Uniqueness) -> Option<Finding> {
    let worst = found.telling.first().filter(|t| t.alone > 0)?;
    // Fewer fields that tell nearly as much are what people may know.
    let near = |t: &&Telling| t.alone * 10 >= worst.alone * 9;
    let said = found.telling.iter().filter(near).min_by_key(|t| (t.fields.len(), u64::MAX - t.alone)).unwrap_or(worst);
    let severity = if worst.alone * 100 >= found.rows * WARN_PERCENT { Severity::Warning } else { Severity::Note };
    let text = format!(
        "{} of {} rows are the only one with their {}: whoever knows that of somebody finds the row; consider coarsen, \
         aggregate or fewer fields",
        said.alone,
        found.rows,
        said.fields.join(" and ")
    );
    Some(Finding { severity, rule: "unique-rows", clause: Some(c.id.clone()), at: c.at, text })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::document::Agreement;
    use crate::testing::demo;
    use proptest::prelude::*;
    use serde_json::json;

    fn rows(list: &[(u8, u8)]) -> Vec<Map<String, Value>> {
        let row = |(i, (a, b)): (usize, &(u8, u8))| json!({"id": i, "a": a, "b": b}).as_object().unwrap().clone();
        list.iter().enumerate().map(row).collect()
    }

    #[test]
    fn rows_that_stand_alone_are_counted_for_the_fewest_fields() {
        let found = uniqueness(&rows(&[(1, 1), (1, 2), (2, 1), (2, 2), (3, 3)]), &["id".to_owned()]);
        let telling: Vec<_> = found.telling.iter().map(|t| (t.fields.join("+"), t.alone, t.few)).collect();
        assert_eq!(telling, [("a+b".to_owned(), 5, 5), ("a".to_owned(), 1, 5), ("b".to_owned(), 1, 5)]);
        let doc = Agreement::parse(&demo("AGR-2026-0142")).unwrap();
        let said = finding(&doc.clauses[0], &found).unwrap();
        assert!(
            said.severity == Severity::Warning
                && said.text.starts_with("5 of 5 rows are the only one with their a and b")
        );
        let same = uniqueness(&rows(&[(1, 1); 9]), &["id".to_owned()]);
        assert_eq!(finding(&doc.clauses[0], &same), None);
        assert!(same.telling.iter().all(|t| t.few == 0));
    }

    proptest! {
        #[test]
        fn counts_are_those_of_comparing_every_row_with_every_other(list in proptest::collection::vec((0u8..4, 0u8..4), 0..30)) {
            let found = uniqueness(&rows(&list), &["id".to_owned()]);
            for t in &found.telling {
                let like = |x: &(u8, u8), y: &(u8, u8)| t.fields.iter().all(|f| if f == "a" { x.0 == y.0 } else { x.1 == y.1 });
                let sizes: Vec<usize> = list.iter().map(|x| list.iter().filter(|y| like(x, y)).count()).collect();
                prop_assert_eq!(t.alone, sizes.iter().filter(|n| **n == 1).count() as u64);
                prop_assert_eq!(t.few, sizes.iter().filter(|n| **n < 5).count() as u64);
            }
        }
    }
}
