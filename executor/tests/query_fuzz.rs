//! A bounded run over the query language with what nobody would write: no input panics, every refusal names its place and
//! rule, and what was read and printed reads the same.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use concordat_executor::query::{FieldType, Fields, Query, QueryError, TotalsQuery, parse_filter, read_json};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn fields() -> Fields {
    use FieldType::{Boolean, Decimal, Integer, String, Timestamp};
    let list = [
        ("stop_id", String),
        ("time", Timestamp),
        ("count", Integer),
        ("lat", Decimal),
        ("lon", Decimal),
        ("done", Boolean),
    ];
    Fields::new(list.map(|(n, t)| (n.to_owned(), t)).to_vec()).unwrap()
}

/// Words of the language, and near misses.
const WORDS: [&str; 40] = [
    "dataset",
    "where",
    "select",
    "order",
    "limit",
    "aggregate",
    "by",
    "sum",
    "mean",
    "min_group",
    "and",
    "or",
    "not",
    "eq",
    "ne",
    "in",
    "range",
    "prefix",
    "exists",
    "bbox",
    "near",
    "time",
    "from",
    "to",
    "lat",
    "lon",
    "at",
    "metres",
    "south",
    "west",
    "north",
    "east",
    "zone",
    "stop_id",
    "count",
    "done",
    "hour",
    "Time",
    "$gt",
    "",
];

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-200i32..200).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        prop::sample::select(WORDS.to_vec()).prop_map(Value::from),
        prop::sample::select(vec![
            "2017-03-14T00:00:00Z",
            "2017-03",
            "America/Chicago",
            "44.97",
            "-key",
            "1e400",
            "9999-12-31T23",
            "0000"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(7, 60, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(WORDS.to_vec()).prop_map(str::to_owned), inner, 0..5)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// Conditions that are mostly well formed, so that what is deeper is reached.
fn likely_filter() -> impl Strategy<Value = Value> {
    let degrees = -90i32..=90;
    let cond = prop_oneof![
        any_value().prop_map(|v| json!({"stop_id": v})),
        "\\PC{0,6}".prop_map(|s| json!({"stop_id": {"prefix": s}, "done": true})),
        any::<i32>().prop_map(|n| json!({"count": {"range": {"from": n}, "ne": n}})),
        (any::<bool>(), "[0-9]{1,3}(\\.[0-9]{1,3})?")
            .prop_map(|(b, d)| json!({"lat": {"in": [d, 1.5]}, "lon": {"exists": b}})),
        (degrees.clone(), -180i32..=180, 0u32..=600_000)
            .prop_map(|(y, x, m)| json!({"lat": {"near": {"lon": "lon", "at": {"lat": y, "lon": x}, "metres": m}}})),
        (degrees.clone(), degrees, -180i32..=180, -180i32..=180).prop_map(
            |(s, n, w, e)| json!({"lat": {"bbox": {"lon": "lon", "south": s, "north": n, "west": w, "east": e}}})
        ),
        "(19|20)[0-9]{2}(-[01][0-9](-[0-3][0-9](T[0-2][0-9])?)?)?".prop_map(|t| json!({"time": {"time": t}})),
        "(19|20)[0-9]{2}-[01][0-9]".prop_map(|t| json!({"time": {"time": {"in": t, "zone": "Asia/Kathmandu"}}})),
    ];
    cond.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|v| json!({"and": v})),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|v| json!({"or": v})),
            inner.prop_map(|v| json!({"not": v})),
        ]
    })
}

/// A refusal points at a place of the document, or at a member that its object lacks, and says which rule broke.
fn told(document: &Value, e: &QueryError) {
    assert!(e.code().starts_with("query."), "{e}");
    let words = e.to_string();
    let (place, rule) = words.split_once(": ").expect("place and rule");
    assert!(!rule.trim().is_empty() && !place.is_empty(), "{words}");
    let parent = e.pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
    // Long names are cut, so their own place may not be found; the object they stand in is.
    assert!(document.pointer(&e.pointer).is_some() || document.pointer(parent).is_some(), "{words} in {document}");
}

fn read_all(document: &Value) {
    let fields = fields();
    match Query::parse(document, &fields) {
        Ok(q) => assert_eq!(Query::parse(&q.to_json(), &fields).unwrap(), q, "{document}"),
        Err(e) => told(document, &e),
    }
    match TotalsQuery::parse(document, &fields) {
        Ok(q) => assert_eq!(TotalsQuery::parse(&q.to_json(), &fields).unwrap(), q, "{document}"),
        Err(e) => told(document, &e),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(document) = read_json(&bytes) {
            read_all(&document);
        }
    }

    #[test]
    fn a_changed_byte_never_panics(filter in likely_filter(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = json!({"dataset": "d", "where": filter, "limit": 10}).to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(document) = read_json(&bytes) {
            read_all(&document);
        }
    }

    #[test]
    fn documents_are_read_or_refused_with_place_and_rule(v in any_value(), w in any_value()) {
        read_all(&v);
        read_all(&json!({"dataset": "d", "where": v}));
        read_all(&json!({"dataset": "d", "where": {"time": v, "lat": w}}));
        read_all(&json!({"dataset": "d", "aggregate": v}));
        read_all(&json!({"dataset": "d", "aggregate": {"by": v, "sum": w}}));
        read_all(&json!({"dataset": "d", "select": v, "order": w}));
    }

    #[test]
    fn what_is_printed_reads_the_same_and_means_the_same(filter in likely_filter(), lat in -90.0f64..90.0, lon in -180.0f64..180.0, n in any::<i32>()) {
        let fields = fields();
        match parse_filter(&filter, &fields, "") {
            Err(e) => told(&filter, &e),
            Ok(f) => {
                let again = parse_filter(&f.to_json(), &fields, "").unwrap();
                prop_assert_eq!(&again, &f);
                let row: Map<String, Value> = json!({"lat": lat, "lon": lon, "count": n, "time": "2017-03-14T10:00:00Z", "done": true}).as_object().unwrap().clone();
                prop_assert_eq!(again.matches(&row), f.matches(&row));
                // A store that narrows by the coarse filter loses no row.
                prop_assert!(!f.matches(&row) || f.coarse().matches(&row), "{}", filter);
                prop_assert!(f.coarse().is_exact());
            }
        }
    }
}
