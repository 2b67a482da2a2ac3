//! Groups of rows, as an `aggregate` duty shows them: the meaning that a store must match, and what `preview` shows.

use crate::duty::GroupKey;
use crate::filter::canonical_json;
use crate::view::cut_time;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The member that holds the number of rows of a group.
pub const COUNT: &str = "count";

/// Groups of at least `min_group` rows with their keys and [`COUNT`], ordered by their keys. Smaller groups are not shown
/// and leave no trace. A key without a value, or a time that is none, is null.
///
/// Small groups are hidden one by one: who may ask for groups of two overlapping choices of rows can subtract one answer
/// from the other. Only a row filter fixed by the clause, or none at all, keeps that from him.
pub fn groups<'a>(
    rows: impl IntoIterator<Item = &'a Map<String, Value>>,
    group_by: &[GroupKey],
    min_group: u64,
) -> Vec<Map<String, Value>> {
    let mut found: BTreeMap<Vec<String>, (Vec<Value>, u64)> = BTreeMap::new();
    for row in rows {
        let keys: Vec<Value> = group_by.iter().map(|k| key(row, k)).collect();
        let order = keys.iter().map(canonical_json).collect();
        found.entry(order).or_insert((keys, 0)).1 += 1;
    }
    let shown = found.into_values().filter(|(_, count)| *count >= min_group.max(1));
    let group = |(keys, count): (Vec<Value>, u64)| {
        let named = group_by.iter().map(|k| k.field.clone()).zip(keys);
        named.chain([(COUNT.to_owned(), Value::from(count))]).collect()
    };
    shown.map(group).collect()
}

fn key(row: &Map<String, Value>, by: &GroupKey) -> Value {
    let value = row.get(&by.field).unwrap_or(&Value::Null);
    match by.cut {
        None => value.clone(),
        Some(cut) => value.as_str().and_then(|t| cut_time(t, cut)).map_or(Value::Null, Value::String),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::duty::Cut;
    use proptest::prelude::*;
    use serde_json::json;

    fn by(field: &str, cut: Option<Cut>) -> GroupKey {
        GroupKey { field: field.to_owned(), cut }
    }

    #[test]
    fn small_groups_are_not_shown() {
        let row = |n: &str, t: &str| json!({"n": n, "time": t}).as_object().unwrap().clone();
        let rows = [
            row("a", "2017-03-14T10:00:00Z"),
            row("a", "2017-03-31T23:59:59Z"),
            row("a", "2017-04-01T00:00:00Z"),
            row("b", "2017-03-01T00:00:00Z"),
            row("b", "never"),
        ];
        let shown = groups(&rows, &[by("n", None), by("time", Some(Cut::Month))], 2);
        assert_eq!(Value::from(shown), json!([{"n": "a", "time": "2017-03-01T00:00:00Z", "count": 2}]));
        let all = groups(&rows, &[by("gone", None)], 2);
        assert_eq!(Value::from(all), json!([{"gone": null, "count": 5}]));
        assert_eq!(groups(&[], &[by("n", None)], 2), Vec::<Map<_, _>>::new());
    }

    proptest! {
        #[test]
        fn no_group_is_too_small_and_none_is_counted_twice(values in proptest::collection::vec(0u8..4, 0..60), min in 2u64..6) {
            let rows: Vec<_> = values.iter().map(|v| json!({"v": v}).as_object().unwrap().clone()).collect();
            let shown = groups(&rows, &[by("v", None)], min);
            prop_assert!(shown.iter().all(|g| g["count"].as_u64().unwrap() >= min));
            for v in 0u8..4 {
                let count = values.iter().filter(|x| **x == v).count() as u64;
                let found: Vec<_> = shown.iter().filter(|g| g["v"] == json!(v)).collect();
                prop_assert_eq!(found.len(), usize::from(count >= min));
                prop_assert!(found.iter().all(|g| g["count"] == json!(count)));
            }
        }
    }
}
