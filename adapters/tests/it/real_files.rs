use std::collections::BTreeSet;

use concordat_adapters::contract::{Record, Reject};
use jiff::Timestamp;
use serde_json::Value;

use crate::{demo, demo_plan, rows_of};

fn rows(name: &str) -> (Vec<Record>, Vec<Reject>) {
    let (good, bad) = rows_of(&demo(), &demo_plan(name));
    let ids: BTreeSet<_> = good.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(ids.len(), good.len(), "{name}: two records share an id");
    (good, bad)
}

fn seconds(record: &Record) -> i64 {
    record.time.as_deref().unwrap().parse::<Timestamp>().unwrap().as_second()
}

fn text<'a>(record: &'a Record, field: &str) -> &'a str {
    record.data[field].as_str().unwrap()
}

#[test]
fn traffic_has_two_hours_that_do_not_exist() {
    let (good, bad) = rows("i94");
    assert_eq!(good.len(), 17_518);
    let seen: Vec<_> = bad
        .iter()
        .map(|r| (r.line, r.column, r.field.as_deref().unwrap(), r.rule.as_str(), r.raw.as_slice()))
        .collect();
    assert_eq!(
        seen,
        [
            (3892, 1, "datetime", "time.nonexistent", b"2017-03-12 02:00:00,,,,,,\n".as_slice()),
            (12628, 1, "datetime", "time.nonexistent", b"2018-03-11 02:00:00,,,,,,\n".as_slice()),
        ]
    );
    // The hour that happens twice stands once, read as the earlier: two steps of two hours, none back.
    let steps: Vec<i64> = good.windows(2).map(|w| seconds(&w[1]) - seconds(&w[0])).collect();
    assert!(steps.iter().all(|s| *s == 3_600 || *s == 7_200));
    assert_eq!(steps.iter().filter(|s| **s == 7_200).count(), 2);
    assert_eq!(good[865].time.as_deref(), Some("2016-11-06T06:00:00Z"));
    // 104 rows hold nothing but their time; two of them are the ones above.
    assert_eq!(good.iter().filter(|r| r.data.len() == 1).count(), 102);
    assert_eq!(good[0].data["volume"], Value::from(1195));
    assert_eq!(good[0].data["temp_k"], Value::from("286.22"));
}

#[test]
fn every_grid_step_is_a_quarter_of_an_hour() {
    let (good, bad) = rows("load");
    assert_eq!((good.len(), bad.len()), (8_736, 0));
    assert!(good.windows(2).all(|w| seconds(&w[1]) - seconds(&w[0]) == 900));
    assert!(good.iter().all(|r| r.data.len() == 33));
    assert_eq!(good[0].time.as_deref(), Some("2015-12-31T23:00:00Z"));
    assert_eq!(good[0].data["G4-A"], Value::from("0.43298"));
}

#[test]
fn police_stops_are_all_there() {
    let (good, bad) = rows("stops");
    assert_eq!((good.len(), bad.len()), (51_920, 0));
    let day = good.iter().filter(|r| r.time.as_deref().unwrap().starts_with("2017-03-14"));
    assert_eq!(day.filter(|r| matches!(text(r, "precinct"), "1" | "2")).count(), 47);
    assert_eq!(good.iter().filter(|r| r.data.get("citation_issued") == Some(&Value::Bool(true))).count(), 3_211);
    assert_eq!(good.iter().filter(|r| !r.data.contains_key("race")).count(), 8_221);
}

#[test]
fn the_register_of_courts_is_all_there() {
    let (good, bad) = rows("register");
    assert_eq!((good.len(), bad.len()), (2_809, 0));
    assert_eq!(text(&good[0], "id"), "alacirct");
    assert_eq!(text(&good[0], "type"), "trial");
}

#[test]
fn every_record_fits_its_schema() {
    for (adapter, schema) in [("i94", "i94@1"), ("load", "load@1"), ("stops", "stops@1"), ("register", "register@1")] {
        let text = std::fs::read_to_string(demo().join(format!("schemas/{schema}.json"))).unwrap();
        let schema: Value = serde_json::from_str(&text).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        for record in rows(adapter).0 {
            let line = record.origin.line;
            if let Err(error) = validator.validate(&Value::Object(record.data)) {
                panic!("{adapter} line {line}: {error}");
            }
        }
    }
}
