#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

const YAML: &str = "dataset: ds:grid/load@1\ntitle: t\nkind: feed\nschema: s.json\nkey: [time]\ntime: {field: time, zone: UTC}\nsubject: none\nsensitive: {}\n";

fn of(schema: &str) -> Checker {
    Checker::new(&DatasetDoc::parse(YAML, schema).unwrap()).unwrap()
}

fn checker() -> Checker {
    of(
        r#"{"type":"object","properties":{"time":{"type":"string","format":"date-time"},"mw":{"type":"string","format":"decimal"}},
            "required":["time"],"additionalProperties":false}"#,
    )
}

fn events(checker: &Checker, body: &[u8]) -> Vec<Event> {
    let batch = checker.read(body).unwrap();
    batch.messages.records().iter().map(|r| Event::parse(&r.event).unwrap()).collect()
}

#[test]
fn a_good_line_becomes_the_same_event_every_time() {
    let body = br#"{"id":"a","time":"2026-01-01T00:00:00Z","data":{"mw":"1.5","time":"2026-01-01T00:00:00Z"}}"#;
    let (one, two) = (checker().read(body).unwrap(), checker().read(body).unwrap());
    let (one, two) = (&one.messages.records()[0], &two.messages.records()[0]);
    assert_eq!(one.event, two.event);
    assert_ne!(one.secret, two.secret, "salts are fresh");
    let event = Event::parse(&one.event).unwrap();
    assert_eq!(event.attributes()["source"], "ds:grid/load@1");
    assert_eq!(event.data()["mw"], "1.5");
}

#[test]
fn id_and_time_come_from_the_key_and_time_fields_when_left_out() {
    let body = br#"{"data":{"time":"2026-01-01T00:00:00Z"}}"#;
    let event = &events(&checker(), body)[0];
    assert_eq!(event.attributes()["id"], "2026-01-01T00:00:00Z");
    assert_eq!(event.attributes()["time"], "2026-01-01T00:00:00Z");
    assert_eq!(checker().read(body).unwrap().newest_ms, Some(1_767_225_600_000));
}

#[test]
fn every_wrong_line_is_named_and_nothing_is_taken() {
    let large = format!(r#"{{"data":{{"time":"2026-01-01T00:00:00Z","mw":"{}"}}}}"#, "1".repeat(EVENT_BYTES_MAX));
    let body = [
        r#"{"data":{"time":"2026-01-01T00:00:00Z"}}"#,
        r#"{"data":{"time":"yesterday"}}"#,
        r#"{"data":{"time":"2026-01-01T00:00:00Z","mw":1}}"#,
        r#"{"data":{"time":"2026-01-01T00:00:00Z","mw":"1","mw":"2"}}"#,
        r#"{"data":{"time":"2026-01-01T00:00:00Z"},"shadow":1}"#,
        r#"{"id":"x","time":"noon","data":{"time":"2026-01-01T00:00:00Z"}}"#,
        r#"[]"#,
        r#"{"data":{}}"#,
        &large,
        r#"{"id":"","data":{"time":"2026-01-01T00:00:00Z"}}"#,
        r#"{"data":{"time":"2026-01-01T00:00:00Z"}} x"#,
    ]
    .join("\n");
    let Err(IntakeError::Lines(errors)) = checker().read(body.as_bytes()) else { panic!("taken") };
    let found: Vec<_> = errors.iter().map(|e| (e.line, e.code)).collect();
    let want = [
        (2, "schema"),
        (3, "schema"),
        (4, "json"),
        (5, "member"),
        (6, "time"),
        (7, "json"),
        (8, "schema"),
        (9, "too-large"),
        (10, "id"),
        (11, "json"),
    ];
    assert_eq!(found, want);
}

#[test]
fn empty_and_oversize_batches_are_refused() {
    let line = "{\"data\":{\"time\":\"2026-01-01T00:00:00Z\"}}\n";
    assert!(matches!(checker().read(b"\n\n"), Err(IntakeError::Count(0))));
    assert!(matches!(checker().read(line.repeat(257).as_bytes()), Err(IntakeError::Count(257))));
    assert_eq!(checker().read(line.repeat(256).as_bytes()).unwrap().messages.len(), 256);
    assert_eq!(checker().read(line.trim_end().as_bytes()).unwrap().messages.len(), 1);
}

/// A schema with a rule of every kind that the short way knows, and one it does not.
const ALL: &str = r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","additionalProperties":false,
  "required":["time","n"],"properties":{
  "time":{"type":"string","format":"date-time","description":"d"},
  "mw":{"type":"string","format":"decimal","pattern":"^-?(0|[1-9][0-9]*)(\\.[0-9]*[1-9])?$"},
  "n":{"type":"integer","minimum":-5,"maximum":1000},
  "f":{"type":"number"}, "g":{"type":"number","minimum":0},
  "on":{"type":"boolean"},
  "zone":{"type":"string","enum":["N","S"]},
  "code":{"type":"string","pattern":"^[A-Z]{2}-\\d+$","maxLength":6},
  "name":{"type":"string","minLength":2,"maxLength":3},
  "odd":{"type":"string","format":"email"}}}"#;

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "\"(N|S|AB-1|AB-1234|a@b.ch|0.5|-12|1.0|\u{e4}\u{e4}|abc|)\"",
        "\"2026-0[1-9]-[0-3][0-9]T1[0-9]:00:[0-9]{2}Z\"",
        "-?[0-9]{1,4}",
        "-?[0-9]{1,2}\\.[0-9]{1,3}",
        "true|false|null|1e2|\\[1, 2\\]|\\{\\}|\"\\\\n\"",
    ]
}

fn line() -> impl Strategy<Value = String> {
    let member = ("time|mw|n|f|g|on|zone|code|name|odd|other", value());
    let good = Just(vec![("time".to_owned(), "\"2026-01-01T00:00:00Z\"".to_owned()), ("n".to_owned(), "5".to_owned())]);
    let head = proptest::option::weighted(0.3, "\"[a-z\\\\\"]{0,3}\"|7");
    let time = proptest::option::weighted(0.3, "\"2026-01-01T00:00:00(Z|\\+01:00)\"|\"noon\"");
    let gap = prop_oneof![Just(""), Just(" "), Just("\t")];
    (good, proptest::collection::vec(member, 0..4), head, time, gap, any::<bool>()).prop_map(
        |(mut data, more, id, time, gap, last)| {
            data.extend(more);
            let list: Vec<String> = data.iter().map(|(k, v)| format!("{gap}\"{k}\"{gap}:{v}{gap}")).collect();
            let mut parts = vec![format!("\"data\":{{{}}}", list.join(","))];
            parts.extend(id.map(|v| format!("\"id\":{v}")));
            parts.extend(time.map(|v| format!("\"time\":{gap}{v}")));
            if last {
                parts.reverse();
            }
            format!("{gap}{{{}}}{gap}", parts.join(","))
        },
    )
}

fn quick<'a>(checker: &Checker, line: &'a str, out: &mut Prepared) -> Option<Option<&'a str>> {
    let quick = checker.quick.as_ref().unwrap();
    quick.push(&checker.frame, line.as_bytes(), &mut Scratch::default(), [7; 32], &checker.list, out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    /// The short way takes nothing that the general way refuses, and makes the same messages of what both take.
    #[test]
    fn both_ways_agree(line in line()) {
        let checker = of(ALL);
        let (mut short, mut general) = (Prepared::default(), Prepared::default());
        let taken = quick(&checker, &line, &mut short);
        prop_assert_eq!(taken.is_some(), short.len() == 1);
        if taken.is_some() {
            let event = checker.line(line.as_bytes());
            prop_assert!(event.is_ok(), "{line}: {event:?}");
            general.push([7; 32], &event.unwrap(), &checker.members).unwrap();
            prop_assert_eq!(&short, &general, "{}", line);
        }
    }
}

#[test]
fn plain_lines_go_the_short_way() {
    let line = r#"{ "id": "x", "data": {"n": 3, "time": "2026-01-01T00:00:00Z", "mw": "12.5", "zone":"N", "code":"AB-1", "f": 0.25, "on":true}}"#;
    assert_eq!(quick(&of(ALL), line, &mut Prepared::default()), Some(Some("2026-01-01T00:00:00Z")));
    for name in ["load@1", "i94@1"] {
        let path = format!("{}/../cli/demo/schemas/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let schema = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(Quick::new(&schema).is_some(), "{name}");
    }
}
