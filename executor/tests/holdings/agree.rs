//! The same random rows and queries on every store: each answers as the one evaluator does.

use std::collections::BTreeMap;

use concordat_executor::holding::{Holding, Plan};
use concordat_executor::query::{FieldType, TotalsQuery, parse_filter};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};

use crate::{FIELDS, Store, small};

fn pool(ty: FieldType) -> Vec<Value> {
    let texts = |list: &[&str]| list.iter().map(|s| json!(s)).collect::<Vec<_>>();
    match ty {
        FieldType::String => texts(&[
            "",
            "a",
            "ab",
            "abc",
            "b",
            "1",
            "10",
            "é",
            "e\u{301}",
            "\u{D7FF}",
            "\u{D7FF}x",
            "\u{E000}",
            "\u{10FFFF}",
            "\u{10FFFF}z",
            "a\"'\\%_",
            "%",
            "_",
            "a%",
            "a_c",
            "\\",
            "a\\b",
            "\u{1F600}",
            "A",
            "Z",
            "ß",
            " a",
            "a ",
            "null",
            "2017-03-14",
            "\n\t",
            "$1",
            "{}",
        ]),
        FieldType::Integer => {
            [0, 1, -1, 2, 10, 9_007_199_254_740_991i64, -9_007_199_254_740_991].iter().map(|n| json!(n)).collect()
        }
        FieldType::Decimal => {
            let mut all = texts(&[
                "0",
                "-0.0",
                "1.5",
                "1.50",
                "-1.5",
                "10",
                "-20",
                "0.1",
                "0.10000000000000000001",
                "1e2",
                "1e400",
                "-1e400",
                "1E-400",
                "123456789012345678901234567890.123456789012345678901234567890",
                "9007199254740993",
                "44.97",
                "-93.265",
            ]);
            all.extend([json!(1.5), json!(9), json!(0.1), json!(100), json!(1e300), json!(-0.0)]);
            all
        }
        FieldType::Boolean => vec![json!(true), json!(false)],
        FieldType::Timestamp => texts(&[
            "2017-03-14T00:00:00Z",
            "2017-03-14T02:00:00+02:00",
            "2017-03-14T00:00:00.5Z",
            "2017-03-14T00:00:00.500Z",
            "2017-03-13T23:59:59Z",
            "1969-12-31T23:59:59Z",
            "2017-03-15T00:00:00Z",
            "2017-03-14T00:00:00.000000001Z",
            "2017-03-14T00:00:00.000001Z",
            "1678-01-01T00:00:00Z",
            "2261-12-31T23:59:59.999999999Z",
            "2016-02-29T12:00:00-11:30",
        ]),
    }
}

pub fn any_row() -> impl Strategy<Value = Map<String, Value>> {
    let cell = |ty| prop_oneof![1 => Just(None), 1 => Just(Some(Value::Null)), 6 => prop::sample::select(pool(ty)).prop_map(Some)];
    let cells: Vec<_> = FIELDS[1..].iter().map(|(n, ty)| cell(*ty).prop_map(move |v| (*n, v))).collect();
    cells.prop_map(|cells| cells.into_iter().filter_map(|(n, v)| Some((n.to_string(), v?))).collect())
}

fn any_cond() -> impl Strategy<Value = Value> {
    let plain = prop::sample::select(FIELDS[1..].to_vec()).prop_flat_map(|(name, ty)| {
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
    });
    let period = prop::sample::select(vec!["2017", "2017-03", "2017-03-14", "2017-03-13T23", "1969-12-31"]);
    let around = (-90i32..=90, -180i32..=180, 1u32..=500_000);
    let box_of = (-90i32..90, 1i32..90, -180i32..=180, -180i32..=180);
    prop_oneof![
        12 => plain,
        1 => period.prop_map(|p| json!({"t": {"time": p}})),
        1 => around.prop_map(|(y, x, m)| json!({"lat": {"near": {"lon": "lon", "at": {"lat": y, "lon": x}, "metres": m}}})),
        1 => box_of.prop_map(|(s, h, w, e)| json!({"lat": {"bbox": {"lon": "lon", "south": s, "north": (s + h).min(90), "west": w, "east": e}}})),
    ]
}

pub fn any_filter() -> impl Strategy<Value = Value> {
    any_cond().prop_recursive(4, 20, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|v| json!({"and": v})),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|v| json!({"or": v})),
            inner.prop_map(|v| json!({"not": v})),
        ]
    })
}

fn check(holding: &dyn Holding, all: &[Map<String, Value>], filters: &[Value]) -> Result<(), TestCaseError> {
    let spec = small();
    let old = holding
        .query(&Plan { limit: 1_000, ..Plan::new(&spec.id, parse_filter(&json!({}), &spec.fields, "").unwrap()) });
    for row in old.unwrap().rows {
        holding.delete(&spec.id, &row.key, &concordat_executor::holding::Expect::Any).unwrap();
    }
    holding.put_many(&spec.id, all).unwrap();
    for json in filters {
        // Ranges upside down and prefixes of numbers are refused; the rest must agree.
        let Ok(filter) = parse_filter(json, &spec.fields, "") else { continue };
        let wanted: Vec<&Map<String, Value>> = all.iter().filter(|r| filter.matches(r)).collect();
        let found = holding.query(&Plan::new(&spec.id, filter.clone())).unwrap();
        let found: Vec<&Map<String, Value>> = found.rows.iter().map(|r| &r.doc).collect();
        prop_assert_eq!(&found, &wanted, "{}", json);
        prop_assert_eq!(holding.count(&spec.id, &filter).unwrap(), wanted.len() as u64, "{}", json);
    }
    let everything = parse_filter(&json!({}), &spec.fields, "").unwrap();
    for json in all_totals() {
        let asked = TotalsQuery::parse(&json!({"dataset": spec.id, "aggregate": json}), &spec.fields).unwrap();
        let filter = parse_filter(&filters[0], &spec.fields, "").unwrap_or_else(|_| everything.clone());
        let mut groups = BTreeMap::new();
        all.iter().filter(|r| filter.matches(r)).for_each(|r| asked.totals.add(&mut groups, r));
        let wanted = asked.totals.finish(groups);
        prop_assert_eq!(
            holding.aggregate(&spec.id, &filter, &asked.totals).unwrap(),
            wanted,
            "{} {}",
            json,
            filters[0]
        );
    }
    Ok(())
}

pub fn all_totals() -> Vec<Value> {
    let mut all = vec![
        json!({"sum": ["i", "d-x"], "mean": ["d-x"], "min_group": 1}),
        json!({"mean": ["i", "lat"], "min_group": 3}),
    ];
    for field in ["s", "i", "d-x", "b", "t"] {
        all.push(json!({"by": [field], "sum": ["lat"], "mean": ["i"], "min_group": 1}));
        let by = if field == "b" { vec!["b"] } else { vec![field, "b"] };
        all.push(json!({"by": by, "sum": ["i"], "min_group": 2}));
    }
    all.extend(
        ["hour", "day", "month", "year"].map(|unit| json!({"by": [{"t": unit}], "mean": ["d-x"], "min_group": 1})),
    );
    all
}

fn agrees(store: &Store, cases: u32) {
    store.holding.ensure_dataset(&small()).unwrap();
    let input = (prop::collection::vec(any_row(), 1..40), prop::collection::vec(any_filter(), 40));
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let result = runner.run(&input, |(mut all, filters)| {
        for (n, row) in all.iter_mut().enumerate() {
            row.insert("id".into(), json!(format!("{n:03}")));
        }
        check(&*store.holding, &all, &filters)
    });
    if let Err(e) = result {
        panic!("{e}");
    }
}

#[test]
fn sqlite_answers_as_the_evaluator_does() {
    agrees(&crate::sqlite().unwrap(), 48);
}

#[test]
fn postgres_answers_as_the_evaluator_does() {
    if let Some(store) = crate::postgres::fresh() {
        agrees(&store, 24);
    }
}

#[test]
fn mongodb_answers_as_the_evaluator_does() {
    if let Some(store) = crate::mongo::fresh() {
        agrees(&store, 4);
    }
}
