#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::limits::{MAX_FILTER_DEPTH, MAX_LIST};

const DAY: u128 = 86_400_000_000_000;

fn fields() -> Fields {
    use FieldType::*;
    Fields::new(
        [
            ("stop_id", String),
            ("time", Timestamp),
            ("precinct", String),
            ("count", Integer),
            ("lat", Decimal),
            ("done", Boolean),
        ]
        .map(|(n, t)| (n.to_string(), t))
        .to_vec(),
    )
    .unwrap()
}

fn filter(v: Value) -> Filter {
    parse_filter(&v, &fields(), "").unwrap()
}

fn refused(v: Value) -> QueryError {
    parse_filter(&v, &fields(), "/where").unwrap_err()
}

fn row(v: Value) -> Map<String, Value> {
    v.as_object().unwrap().clone()
}

#[test]
fn a_query_reads_as_written() {
    let q = Query::parse(
        &json!({"dataset": "ds:police/stops@1", "where": {"precinct": "1"}, "select": ["time", "stop_id"], "order": "-key", "limit": 7}),
        &fields(),
    )
    .unwrap();
    assert_eq!((q.dataset.as_str(), q.limit, q.order), ("ds:police/stops@1", 7, Order::KeyDescending));
    assert_eq!(q.select.unwrap(), ["time", "stop_id"]);
    assert_eq!(q.filter, filter(json!({"precinct": {"eq": "1"}})));
    let bare = Query::parse(&json!({"dataset": "d"}), &fields()).unwrap();
    assert_eq!((bare.filter, bare.select, bare.limit), (Filter::All, None, 100));
}

#[test]
fn refusals_name_place_code_and_nearest_word() {
    let day = json!("2017-03-14T00:00:00Z");
    let long: Vec<String> = (0..=MAX_LIST).map(|n| n.to_string()).collect();
    for (bad, code, pointer, nearest) in [
        (json!({"precint": "1"}), "query.unknown-field", "/where/precint", Some("precinct")),
        (json!({"salary/x": "1"}), "query.unknown-field", "/where/salary~1x", None),
        (json!({"or": [{"done": true}, {"tme": "x"}]}), "query.unknown-field", "/where/or/1/tme", Some("time")),
        (json!({"nto": {"done": true}}), "query.unknown-field", "/where/nto", Some("not")),
        (json!({"time": {"rnage": {}}}), "query.unknown-operator", "/where/time/rnage", Some("range")),
        (json!({"precinct": {"$gt": ""}}), "query.unknown-operator", "/where/precinct/$gt", None),
        (json!({"precinct": 1}), "query.type", "/where/precinct", None),
        (json!({"count": "1"}), "query.type", "/where/count", None),
        (json!({"count": 1.5}), "query.type", "/where/count", None),
        (json!({"count": {"in": [1, 9_007_199_254_740_992u64]}}), "query.type", "/where/count/in/1", None),
        (json!({"time": {"range": {"from": "2017-03-14"}}}), "query.type", "/where/time/range/from", None),
        (json!({"time": {"range": {"from": day, "to": day}}}), "query.empty-range", "/where/time/range", None),
        (json!({"time": {"range": {"gte": day}}}), "query.shape", "/where/time/range/gte", None),
        (json!({"time": {"prefix": "2017-03-14"}}), "query.operator-type", "/where/time/prefix", None),
        (json!({"done": {"range": {"from": true}}}), "query.operator-type", "/where/done/range", None),
        (json!({"precinct": []}), "query.shape", "/where/precinct", None),
        (json!({"precinct": null}), "query.shape", "/where/precinct", None),
        (json!({"precinct": {}}), "query.empty", "/where/precinct", None),
        (json!({"precinct": {"in": []}}), "query.empty", "/where/precinct/in", None),
        (json!({"precinct": {"prefix": ""}}), "query.empty", "/where/precinct/prefix", None),
        (json!({"or": []}), "query.empty", "/where/or", None),
        (json!({"or": [{"precinct": "1"}, {}]}), "query.empty", "/where/or/1", None),
        (json!({"not": {}}), "query.empty", "/where/not", None),
        (json!([]), "query.shape", "/where", None),
        (json!({"precinct": "a\u{0}b"}), "query.constant", "/where/precinct", None),
        (json!({"precinct": "x".repeat(1025)}), "query.constant", "/where/precinct", None),
        (json!({"precinct": {"in": long}}), "query.too-many", "/where/precinct/in", None),
    ] {
        let e = refused(bad.clone());
        assert_eq!((e.code(), e.pointer.as_str(), e.nearest()), (code, pointer, nearest), "{bad} -> {e}");
    }
    assert!(refused(json!({"precint": "1"})).to_string().contains("did you mean precinct?"));
    for (bad, code, pointer) in [
        (json!({"dataset": "d", "wher": {}}), "query.unknown-member", "/wher"),
        (json!({"where": {}}), "query.shape", "/dataset"),
        (json!({"dataset": "d", "select": []}), "query.empty", "/select"),
        (json!({"dataset": "d", "select": ["tiem"]}), "query.unknown-field", "/select/0"),
        (json!({"dataset": "d", "select": ["time", "time"]}), "query.twice", "/select/1"),
        (json!({"dataset": "d", "limit": 0}), "query.limit", "/limit"),
        (json!({"dataset": "d", "limit": 1001}), "query.limit", "/limit"),
        (json!({"dataset": "d", "limit": "5"}), "query.limit", "/limit"),
        (json!({"dataset": "d", "order": "time"}), "query.order", "/order"),
    ] {
        let e = Query::parse(&bad, &fields()).unwrap_err();
        assert_eq!((e.code(), e.pointer.as_str()), (code, pointer), "{bad} -> {e}");
    }
}

#[test]
fn depth_and_number_of_conditions_are_limited() {
    let nest = |n: usize| (1..n).fold(json!({"done": true}), |inner, _| json!({"not": inner}));
    filter(nest(MAX_FILTER_DEPTH));
    assert_eq!(refused(nest(MAX_FILTER_DEPTH + 1)).code(), "query.too-deep");
    let many: Vec<Value> = (0..257).map(|n| json!({"count": n})).collect();
    assert_eq!(refused(json!({"or": many})).code(), "query.too-many");
    let wide: Vec<Value> = (0..5).map(|_| json!({"count": {"in": (0..1000).collect::<Vec<_>>()}})).collect();
    assert_eq!(refused(json!({"or": wide})).code(), "query.too-many");
}

#[test]
fn text_with_a_member_twice_is_refused() {
    let e = read_json(br#"{"where": {"precinct": "1", "precinct": "2"}}"#).unwrap_err();
    assert_eq!(e.code(), "query.json");
    assert!(e.to_string().contains("precinct"), "{e}");
    assert_eq!(read_json("[".repeat(100).as_bytes()).unwrap_err().code(), "query.json");
    assert_eq!(read_json(&vec![b' '; 300_000]).unwrap_err().code(), "query.too-long");
    assert_eq!(read_json(b"{} x").unwrap_err().code(), "query.json");
    assert_eq!(
        read_json(br#"{"a": [1, -2, 1.5, "x", null, true]}"#).unwrap(),
        json!({"a": [1, -2, 1.5, "x", null, true]})
    );
}

#[test]
fn a_missing_value_matches_only_ne_exists_false_and_negations() {
    for empty in [json!({}), json!({"count": null}), json!({"count": "5"})] {
        let holds = |f: Value| filter(f).matches(&row(empty.clone()));
        assert!(!holds(json!({"count": 5})));
        assert!(!holds(json!({"count": {"in": [5, 6]}})));
        assert!(!holds(json!({"count": {"range": {"from": -1000}}})));
        assert!(holds(json!({"count": {"ne": 5}})));
        assert!(holds(json!({"count": {"exists": false}})));
        assert!(!holds(json!({"count": {"exists": true}})));
        assert!(holds(json!({"not": {"count": {"range": {"from": 0}}}})));
    }
}

#[test]
fn ranges_are_half_open_and_compare_by_type() {
    let f = filter(json!({"time": {"range": {"from": "2017-03-14T00:00:00Z", "to": "2017-03-15T00:00:00Z"}}}));
    let at = |t: &str| f.matches(&row(json!({"time": t})));
    assert!(at("2017-03-14T00:00:00Z") && at("2017-03-14T23:59:59.999Z") && at("2017-03-15T01:00:00+02:00"));
    assert!(!at("2017-03-15T00:00:00Z") && !at("2017-03-13T23:59:59Z") && !at("2017-03-14T01:00:00+02:00"));
    let f = filter(json!({"lat": {"range": {"from": "9", "to": 10.5}}}));
    assert!(f.matches(&row(json!({"lat": "10.10"}))) && !f.matches(&row(json!({"lat": "10.50"}))));
    assert!(!f.matches(&row(json!({"lat": "-9.5"}))));
}

#[test]
fn require_filter_is_decided_soundly() {
    let range = |a: &str, b: &str| json!({"range": {"from": format!("2017-03-{a}T00:00:00Z"), "to": format!("2017-03-{b}T00:00:00Z")}});
    for (f, named, day) in [
        (json!({"stop_id": "a"}), true, false),
        (json!({"stop_id": {"in": ["a", "b"]}, "precinct": "1"}), true, false),
        (json!({"or": [{"stop_id": "a"}, {"stop_id": "b", "done": true}]}), true, false),
        (json!({"or": [{"stop_id": "a"}, {"precinct": "1"}]}), false, false),
        (json!({"stop_id": {"ne": "a"}}), false, false),
        (json!({"not": {"stop_id": "a"}}), false, false),
        (json!({"stop_id": {"prefix": "a"}}), false, false),
        (json!({"time": range("14", "15")}), false, true),
        (json!({"time": range("14", "16")}), false, false),
        (json!({"not": {"time": range("14", "15")}}), false, false),
        (json!({"and": [{"time": range("10", "15")}, {"time": range("14", "20")}]}), false, true),
        (json!({"and": [{"time": range("10", "12")}, {"time": range("14", "20")}]}), false, true),
        (json!({"or": [{"time": range("14", "15")}, {"time": range("20", "21")}]}), false, false),
        (json!({"or": [{"time": range("14", "15")}, {"precinct": "1"}]}), false, false),
        (json!({"time": "2017-03-14T10:00:00Z"}), false, true),
        (json!({"time": {"in": ["2017-03-14T10:00:00Z", "2017-03-14T11:00:00Z"]}}), false, true),
        (json!({"time": {"range": {"from": "2017-03-14T00:00:00Z"}}}), false, false),
        (json!({}), false, false),
    ] {
        let parsed = filter(f.clone());
        assert_eq!((parsed.names_field("stop_id"), parsed.bounded_within("time", DAY)), (named, day), "{f}");
    }
    let asked = filter(json!({"not": {"stop_id": "a"}, "or": [{"stop_id": {"ne": "b"}}, {"stop_id": {"in": ["c"]}}]}));
    assert_eq!(asked.mentioned_values("stop_id"), [&json!("a"), &json!("b"), &json!("c")]);
    assert_eq!(
        filter(json!({"time": {"exists": true}, "done": true, "not": {"done": false}})).fields(),
        ["done", "time"]
    );
    assert_eq!(filter(json!({"done": true, "and": [{"count": 1}, {"count": 2}]})).conjuncts().len(), 3);
}

/// Any JSON a client could send.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "and", "or", "not", "eq", "in", "range", "from", "to", "prefix", "exists", "time", "count", "stop_id", "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        Just(json!("2017-03-14T00:00:00Z")),
    ];
    leaf.prop_recursive(6, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(word.clone().prop_map(String::from), inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_parsed_or_refused_and_reads_back(v in any_json()) {
        if let Ok(f) = parse_filter(&v, &fields(), "") {
            prop_assert_eq!(&parse_filter(&f.to_json(), &fields(), "").unwrap(), &f);
            f.matches(&Map::new());
        }
        let _ = Query::parse(&v, &fields());
        let _ = Query::parse(&json!({"dataset": "d", "where": v, "select": v}), &fields());
    }

    #[test]
    fn strict_reader_agrees_with_the_usual_one(v in any_json()) {
        let text = v.to_string();
        let usual: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(read_json(text.as_bytes()).unwrap(), usual);
    }
}
