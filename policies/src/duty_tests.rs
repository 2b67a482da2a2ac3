#![allow(clippy::unwrap_used)]
use super::*;

fn accepts(p: &str, case: Option<&str>) -> bool {
    check_reference(&[Duty::Reference { field: "case".to_owned(), pattern: p.to_owned() }], case).is_ok()
}

#[test]
fn a_pattern_describes_the_whole_reference() {
    let p = "^[0-9]{2}-[A-Z]{2}-[0-9]{4}$";
    assert!(accepts(p, Some("26-CR-1042")));
    for bad in [None, Some(""), Some("26-CR-10420"), Some("x26-CR-1042"), Some("26-CR-1042\n"), Some("26-CR-1042\nx")] {
        assert!(!accepts(p, bad), "{bad:?}");
    }
    assert!(accepts("^a|b$", Some("b")));
    assert!(!accepts("^a|b$", Some("ax")));
    assert!(!accepts("^(?m)a$", Some("a\nb")));
}

#[test]
fn a_pattern_cannot_leave_its_anchors() {
    for bad in ["^a)|(b$", "a$", "^a", "^a\\$", "", "^", "$", "^($", "^(a{1000}){1000}$"] {
        assert!(pattern(bad).is_err(), "{bad}");
        assert!(!accepts(bad, Some("ax")), "{bad}");
    }
}

#[test]
fn an_unknown_field_is_never_satisfied() {
    let d = Duty::Reference { field: "warrant".to_owned(), pattern: "^.*$".to_owned() };
    assert!(check_reference(&[d], Some("x")).is_err());
}

#[test]
fn a_sign_in_must_be_strong_and_fresh() {
    let d = [Duty::StepUp { level: "loa:high".to_owned(), within_ms: 1_000 }];
    let by = |level: &str, at_ms| SignIn { level: level.to_owned(), at_ms };
    for at in [9_000, 9_500, 10_000] {
        assert!(check_step_up(&d, Some(&by("loa:high", at)), 10_000).is_ok(), "{at}");
    }
    let bad = [
        None,
        Some(by("loa:high", 8_999)),
        Some(by("loa:high", 10_001)),
        Some(by("loa:low", 10_000)),
        Some(by("", 10_000)),
    ];
    for bad in bad {
        assert!(check_step_up(&d, bad.as_ref(), 10_000).unwrap_err().contains("loa:high"), "{bad:?}");
    }
    assert!(check_step_up(&[], None, 0).is_ok());
}

#[test]
fn a_delay_is_a_filter_on_time() {
    let d = [
        Duty::RowFilter { filter: serde_json::json!({"a": {"eq": 1}}) },
        Duty::Delay { field: "t".to_owned(), for_ms: 3_600_000 },
        Duty::Justification,
    ];
    let want = serde_json::json!([{"a": {"eq": 1}}, {"t": {"range": {"to": "2026-05-31T23:00:00.000Z"}}}]);
    assert_eq!(Value::from(row_filters(&d, crate::testing::NOW)), want);
    for at in [0, u64::MAX] {
        let to = row_filters(&d[1..], at)[0]["t"]["range"]["to"].clone();
        assert_eq!(to, "1970-01-01T00:00:00.000Z", "nothing is visible");
    }
}
