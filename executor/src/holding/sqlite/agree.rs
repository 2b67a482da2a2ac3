//! The evaluator and SQLite agree on every filter and row.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::tests::{SMALL, fresh, small};
use super::*;
use crate::query::{FieldType, parse_filter};

fn pool(ty: FieldType) -> Vec<Value> {
    match ty {
        FieldType::String => vec![
            json!(""),
            json!("a"),
            json!("ab"),
            json!("abc"),
            json!("b"),
            json!("1"),
            json!("é"),
            json!("\u{D7FF}"),
            json!("\u{D7FF}x"),
            json!("\u{E000}"),
            json!("\u{10FFFF}"),
            json!("\u{10FFFF}z"),
            json!("a\"'\\%_"),
            json!("\u{1F600}"),
            json!("A"),
        ],
        FieldType::Integer => vec![
            json!(0),
            json!(1),
            json!(-1),
            json!(2),
            json!(10),
            json!(9_007_199_254_740_991i64),
            json!(-9_007_199_254_740_991i64),
        ],
        FieldType::Decimal => vec![
            json!("0"),
            json!("-0.0"),
            json!("1.5"),
            json!("1.50"),
            json!(1.5),
            json!("-1.5"),
            json!("10"),
            json!(9),
            json!("-20"),
            json!("0.1"),
            json!(0.1),
            json!("0.10000000000000000001"),
            json!("1e2"),
            json!(100),
        ],
        FieldType::Boolean => vec![json!(true), json!(false)],
        FieldType::Timestamp => vec![
            json!("2017-03-14T00:00:00Z"),
            json!("2017-03-14T02:00:00+02:00"),
            json!("2017-03-14T00:00:00.5Z"),
            json!("2017-03-14T00:00:00.500Z"),
            json!("2017-03-13T23:59:59Z"),
            json!("1969-12-31T23:59:59Z"),
            json!("2017-03-15T00:00:00Z"),
        ],
    }
}

fn any_row() -> impl Strategy<Value = Map<String, Value>> {
    let cell = |ty| prop_oneof![1 => Just(None), 1 => Just(Some(Value::Null)), 6 => prop::sample::select(pool(ty)).prop_map(Some)];
    let cells: Vec<_> = SMALL[1..].iter().map(|(n, ty)| cell(*ty).prop_map(move |v| (*n, v))).collect();
    cells.prop_map(|cells| cells.into_iter().filter_map(|(n, v)| Some((n.to_string(), v?))).collect())
}

fn any_cond() -> impl Strategy<Value = Value> {
    prop::sample::select(SMALL[1..].to_vec()).prop_flat_map(|(name, ty)| {
        let one = prop::sample::select(pool(ty));
        let op = prop_oneof![
            one.clone().prop_map(|v| json!({"eq": v})),
            one.clone().prop_map(|v| json!({"ne": v})),
            prop::collection::vec(one.clone(), 1..4).prop_map(|v| json!({"in": v})),
            one.clone().prop_map(|v| json!({"range": {"from": v}})),
            one.clone().prop_map(|v| json!({"range": {"to": v}})),
            (one.clone(), one.clone()).prop_map(|(a, b)| json!({"range": {"from": a, "to": b}})),
            one.clone().prop_map(|v| json!({"prefix": v})),
            any::<bool>().prop_map(|b| json!({"exists": b})),
        ];
        op.prop_map(move |op| json!({name: op}))
    })
}

fn any_filter() -> impl Strategy<Value = Value> {
    any_cond().prop_recursive(4, 20, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|v| json!({"and": v})),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|v| json!({"or": v})),
            inner.prop_map(|v| json!({"not": v})),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn sqlite_and_the_evaluator_agree(mut all in prop::collection::vec(any_row(), 1..60), filters in prop::collection::vec(any_filter(), 40)) {
        let spec = small();
        let (_dir, holding) = fresh(&spec);
        for (n, row) in all.iter_mut().enumerate() {
            row.insert("id".into(), json!(format!("{n:03}")));
        }
        holding.put_many(&spec.id, &all).unwrap();
        let mut tried = 0;
        for json in filters {
            // Ranges upside down and prefixes of numbers are refused; the rest must agree.
            let Ok(filter) = parse_filter(&json, &spec.fields, "") else { continue };
            tried += 1;
            let wanted: Vec<&Map<String, Value>> = all.iter().filter(|r| filter.matches(r)).collect();
            let found = holding.query(&Plan::new(&spec.id, filter.clone())).unwrap();
            let found: Vec<&Map<String, Value>> = found.rows.iter().map(|r| &r.doc).collect();
            prop_assert_eq!(&found, &wanted, "{}", json);
            prop_assert_eq!(holding.count(&spec.id, &filter).unwrap(), wanted.len() as u64);
        }
        prop_assert!(tried > 0);
    }
}
