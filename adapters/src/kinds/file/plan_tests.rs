#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;
use crate::document::Pace;
use crate::files::csv::Head;
use proptest::prelude::*;
use serde_json::{Map, Value};

const GOOD: &str = "\
adapter: load
kind: file
path: load.csv
format: {csv: {delimiter: ';', decimal: ',', nulls: ['', NA], columns: [ts, P_KW, note]}}
into: ds:grid/load@1
map:
  time: {from: ts, type: timestamp, zone: Europe/Berlin, fold: later, gap: dead-letter}
  mw: {from: P_KW, type: decimal, scale: 0.001, trim: true}
ignore: [note]
constants: {unit: MW}
key: [time]
time: time
pace: 200
on_error: {transient: retry, data: dead-letter, auth: stop}
";

#[test]
fn a_whole_document_is_understood() {
    let plan = Plan::parse(GOOD).unwrap();
    let Form::Csv(form, Head::Exactly(columns, mapper)) = &plan.form else { panic!("not CSV") };
    assert_eq!((form.delimiter, form.point, columns.len()), (b';', ',', 3));
    assert_eq!(plan.common.pace, Pace::RowsPerSecond(200));
    let targets: Vec<_> = mapper.steps().iter().map(|s| (s.target.as_str(), s.required)).collect();
    assert_eq!(targets, [("time", true), ("mw", false)]);
    assert_eq!(mapper.constants().get("unit"), Some(&Value::from("MW")));
}

#[test]
fn mistakes_are_named_with_place_and_remedy() {
    for (from, to, wanted) in [
        ("pace: 200", "pase: 200", "line 13, column 1: unknown key `pase`; did you mean `pace`?"),
        ("pace: 200", "pace: fast", "pace must be `max` or rows per second"),
        ("type: decimal", "type: decimall", "unknown value `decimall`; did you mean `decimal`?"),
        ("time: time\n", "time: time\ntime: time\n", "key `time` stands twice"),
        ("into: ds:grid/load@1\n", "", "key `into` is missing"),
        ("into: ds:grid/load@1", "into: grid/load", "line 5"),
        (" zone: Europe/Berlin,", "", "map.time.zone: is mandatory"),
        ("Europe/Berlin", "Europe/Berlim", "line 7, column"),
        ("from: P_KW", "from: P_KV", "did you mean `P_KW`?"),
        ("ignore: [note]\n", "", "column `note` is neither mapped nor in `ignore`"),
        ("key: [time]", "key: [tine]", "did you mean `time`?"),
        ("time: time", "time: mw", "`mw` is not a timestamp"),
        ("scale: 0.001", "scale: abc", "map.mw.scale: not a decimal number"),
        ("scale: 0.001", "fold: later", "does not belong to a field of this type"),
        ("unit: MW", "mw: 1", "also made from a column"),
        ("decimal: ','", "decimal: ';'", "the decimal mark is"),
        ("nulls: [", "null: [", "line 4, column 46: an empty value or the word null"),
        ("adapter: load", "adapter: Load Files", "use 1 to 48 of a-z, 0-9 and -"),
        ("path: load.csv", "<<: {path: load.csv}", "erge"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let text = GOOD.replacen(from, to, 1);
        let error = Plan::parse(&text).expect_err(to).to_string();
        assert!(error.contains(wanted), "{to}: {error}");
    }
}

#[test]
fn ids_depend_on_dataset_and_key_alone() {
    let plan = Plan::parse(GOOD).unwrap();
    let mut data = Map::new();
    data.insert("time".into(), "2016-01-01T00:00:00Z".into());
    let record_id = |plan: &Plan, data: &Map<String, Value>| match &plan.form {
        Form::Csv(_, Head::Exactly(_, mapper)) => mapper.record_id(data),
        _ => panic!("not CSV"),
    };
    let id = record_id(&plan, &data);
    assert_eq!(id.len(), 32);
    data.insert("mw".into(), "1".into());
    assert_eq!(record_id(&plan, &data), id);
    let other = Plan::parse(&GOOD.replacen("load@1", "load@2", 1)).unwrap();
    assert_ne!(record_id(&other, &data), id);
    data.insert("time".into(), "2016-01-01T00:15:00Z".into());
    assert_ne!(record_id(&plan, &data), id);
}

proptest! {
    #[test]
    fn any_text_is_answered_without_panic(cut in 0..GOOD.len(), noise in "[ -~\\n]{0,12}") {
        let mut text = GOOD.to_owned();
        text.insert_str(cut, &noise);
        let _ = Plan::parse(&text);
    }
}
