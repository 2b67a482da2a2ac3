#![allow(clippy::unwrap_used)]
use super::*;
use crate::document::Agreement;
use crate::testing::court;
use proptest::prelude::*;
use serde_json::json;

const KEY: [u8; 32] = [7; 32];
/// 2026-06-15T12:00:00Z.
const AT: u64 = 1_781_524_800_000;

fn duties(list: &str) -> Vec<Duty> {
    let clause = format!(
        "- {{id: A, text: a, effect: permit, assignee: {{org: org:court}}, actions: [query], purpose: purp:x, duties: [{list}]}}"
    );
    Agreement::parse(&court(&clause)).unwrap().clauses.remove(0).duties
}

fn view(list: &str) -> View {
    View::of(&AgreementId::new("AGR-1").unwrap(), &duties(list))
}

fn seen(list: &str, row: Value) -> Value {
    view(list).apply(row.as_object().unwrap(), Pseudonyms { key: &KEY, at_ms: AT }).into()
}

#[test]
fn masks_show_at_most_half_of_a_value() {
    let list = "{type: mask, fields: [plate], keep_last: 2}";
    for (value, shown) in [
        (json!("B-AB 1234"), json!("***34")),
        (json!("abcd"), json!("***cd")),
        (json!("abc"), json!("***")),
        (json!(""), json!("***")),
        (json!("äöüß"), json!("***üß")),
        (json!(1234), json!("***")),
        (json!(true), json!("***")),
        (json!(null), json!(null)),
    ] {
        assert_eq!(seen(list, json!({"plate": value, "id": 1})), json!({"plate": shown, "id": 1}));
    }
    assert_eq!(seen("{type: mask, fields: [plate]}", json!({"plate": "abcd"})), json!({"plate": "***"}));
}

#[test]
fn values_are_made_coarser_or_left_out() {
    for (duty, value, shown) in [
        (
            "{type: coarsen, field: v, to: day}",
            json!("2017-03-14T23:59:59.9+02:00"),
            Some(json!("2017-03-14T00:00:00Z")),
        ),
        ("{type: coarsen, field: v, to: hour}", json!("2017-03-14T23:59:59Z"), Some(json!("2017-03-14T23:00:00Z"))),
        ("{type: coarsen, field: v, to: month}", json!("2017-03-14T23:59:59Z"), Some(json!("2017-03-01T00:00:00Z"))),
        ("{type: coarsen, field: v, to: year}", json!("2017-03-14T23:59:59Z"), Some(json!("2017-01-01T00:00:00Z"))),
        ("{type: coarsen, field: v, to: day}", json!("yesterday"), None),
        ("{type: coarsen, field: v, to: day}", json!(1_489_449_600), None),
        ("{type: coarsen, field: v, step: 0.01}", json!(44.966_617), Some(json!(44.96))),
        ("{type: coarsen, field: v, step: 0.01}", json!("44.966617"), Some(json!("44.96"))),
        ("{type: coarsen, field: v, step: 10}", json!(57), Some(json!(50))),
        ("{type: coarsen, field: v, step: \"10\"}", json!(-57), Some(json!(-60))),
        ("{type: coarsen, field: v, step: 10}", json!("many"), None),
        ("{type: coarsen, field: v, step: 10}", json!(true), None),
        ("{type: coarsen, field: v, first: 3}", json!("55455"), Some(json!("554"))),
        ("{type: coarsen, field: v, first: 3}", json!(55455), None),
    ] {
        let want = shown.map_or_else(|| json!({}), |s| json!({ "v": s }));
        assert_eq!(seen(duty, json!({"v": value})), want, "{duty}");
    }
}

#[test]
fn a_pseudonym_is_of_one_agreement_one_field_one_period() {
    let of = |v: &View, field: &str, value: Value, at_ms: u64| {
        let row = json!({field: value});
        v.apply(row.as_object().unwrap(), Pseudonyms { key: &KEY, at_ms })[field].as_str().unwrap().to_owned()
    };
    let v = view("{type: pseudonymise, fields: [a, b], per: month}");
    let one = of(&v, "a", json!("x"), AT);
    assert_eq!((one.len(), &one[..2]), (34, "p-"));
    assert_eq!(one, of(&v, "a", json!("x"), AT + 86_400_000), "the same month");
    let other =
        View::of(&AgreementId::new("AGR-2").unwrap(), &duties("{type: pseudonymise, fields: [a, b], per: month}"));
    let differ = [
        of(&v, "a", json!("x"), AT + 31 * 86_400_000),
        of(&v, "b", json!("x"), AT),
        of(&v, "a", json!("y"), AT),
        of(&v, "a", json!(1), AT),
        of(&v, "a", json!("1"), AT),
        of(&other, "a", json!("x"), AT),
    ];
    let all: BTreeSet<&String> = differ.iter().chain([&one]).collect();
    assert_eq!(all.len(), 7, "{differ:?}");
    let row = json!({"a": "x"});
    let key = v.apply(row.as_object().unwrap(), Pseudonyms { key: &[8; 32], at_ms: AT });
    assert_ne!(key["a"], json!(one), "another secret");
}

#[test]
fn a_field_that_is_not_open_is_gone_however_it_is_altered() {
    let v = view("{type: fields, allow: [a, b]}, {type: mask, fields: [b, c]}");
    let row = json!({"a": 1, "b": 2, "c": 3, "d": 4});
    assert_eq!(
        Value::from(v.apply(row.as_object().unwrap(), Pseudonyms { key: &KEY, at_ms: AT })),
        json!({"a": 1, "b": "***"})
    );
    assert_eq!(v.altered().collect::<Vec<_>>(), ["b"]);
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|f| json!(f)),
        "\\PC{0,12}".prop_map(Value::from),
        "-?[0-9]{1,6}(\\.[0-9]{1,6})?".prop_map(Value::from),
        (0i64..2_000_000_000).prop_map(|s| json!(Timestamp::from_second(s).unwrap().to_string())),
        proptest::collection::vec(any::<u8>(), 0..3).prop_map(Value::from),
    ]
}

/// One duty that alters the field `v`, of every kind.
const ALTERING: [&str; 9] = [
    "{type: mask, fields: [v]}",
    "{type: mask, fields: [v], keep_last: 2}",
    "{type: pseudonymise, fields: [v]}",
    "{type: pseudonymise, fields: [v], per: day}",
    "{type: coarsen, field: v, to: month}",
    "{type: coarsen, field: v, to: hour}",
    "{type: coarsen, field: v, step: 0.5}",
    "{type: coarsen, field: v, step: 100}",
    "{type: coarsen, field: v, first: 2}",
];

proptest! {
    /// What is shown is a function of the altered value: two rows that alter to the same are not told apart, other fields
    /// are untouched, and nothing is shown that was not there.
    #[test]
    fn altering_is_total_and_touches_nothing_else(value in any_value(), other in any_value(), which in 0..ALTERING.len(), at in 0u64..4_000_000_000_000) {
        let v = view(ALTERING[which]);
        let row = json!({"v": value, "w": other});
        let with = Pseudonyms { key: &KEY, at_ms: at };
        let shown = v.apply(row.as_object().unwrap(), with);
        prop_assert_eq!(shown.get("w"), Some(&other));
        prop_assert!(shown.keys().all(|k| k == "v" || k == "w"));
        match shown.get("v") {
            // Left out: only where the value is not of the kind that the duty is for.
            None => prop_assert!(which >= 4 && !value.is_null()),
            Some(Value::Null) => prop_assert!(value.is_null()),
            Some(s) if which < 4 => {
                let s = s.as_str().unwrap();
                prop_assert!(s.starts_with(MASK) || s.starts_with("p-"));
                prop_assert!(which == 1 || value.as_str().is_none_or(|text| text.is_empty() || !s.contains(text) || MASK.contains(text) || which > 1));
            }
            // Coarser once is coarse: again changes nothing.
            Some(s) => {
                let again = v.apply(json!({"v": s}).as_object().unwrap(), with);
                prop_assert_eq!(again.get("v"), Some(s));
            }
        }
        prop_assert_eq!(&v.apply(row.as_object().unwrap(), with), &shown);
    }
}
