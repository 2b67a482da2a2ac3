#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

const YAML: &str = "\
dataset: ds:police/stops@1
title: Stops
kind: records
schema: schemas/stops@1.json
key: [stop_id]
time: {field: time, zone: UTC}
subject: {field: stop_id, role: principal}
sensitive: {race: special-category}
retention: {stream: 7d, holdings: 400d, stream_bytes: 10GB}
indexes:
- [time]
- [race, time]
";
const SCHEMA: &str = r#"{
  "type": "object",
  "properties": {
    "stop_id": {"type": "string"},
    "time": {"type": "string", "format": "date-time"},
    "race": {"type": "string", "description": "determined"},
    "lat": {"type": "string", "format": "decimal"},
    "count": {"type": "integer"},
    "ratio": {"type": "number"},
    "searched": {"type": "boolean"}
  },
  "required": ["stop_id", "time"],
  "additionalProperties": false
}"#;

#[test]
fn records_are_written_by_others_only_where_the_document_says_so() {
    assert!(!DatasetDoc::parse(YAML, SCHEMA).unwrap().writable);
    assert!(DatasetDoc::parse(&format!("{YAML}writable: true\n"), SCHEMA).unwrap().writable);
    let feed = format!("{YAML}writable: true\n").replace("kind: records", "kind: feed");
    assert!(DatasetDoc::parse(&feed, SCHEMA).unwrap_err().to_string().contains("kind: both"));
    assert!(DatasetDoc::parse(&format!("{YAML}writable: perhaps\n"), SCHEMA).is_err());
}

#[test]
fn document_and_schema_make_a_dataset() {
    let doc = DatasetDoc::parse(YAML, SCHEMA).unwrap();
    assert_eq!(doc.id.as_str(), "ds:police/stops@1");
    assert!(doc.is_held() && !doc.is_feed());
    let types: Vec<_> = doc.fields().iter().map(|f| (f.name.as_str(), f.kind, f.required)).collect();
    assert_eq!(
        types,
        [
            ("count", FieldType::Integer, false),
            ("lat", FieldType::Decimal, false),
            ("race", FieldType::String, false),
            ("ratio", FieldType::Number, false),
            ("searched", FieldType::Boolean, false),
            ("stop_id", FieldType::String, true),
            ("time", FieldType::Timestamp, true),
        ]
    );
    let sensitive: Vec<_> = doc.sensitive().map(|f| f.name.as_str()).collect();
    assert_eq!(sensitive, ["race"]);
    assert_eq!(doc.field("race").unwrap().sensitive.as_deref(), Some("special-category"));
    assert_eq!(doc.subject.as_ref().unwrap().field, "stop_id");
    assert_eq!(doc.retention.stream_ms, Some(7 * 86_400_000));
    assert_eq!(doc.retention.stream_bytes, Some(10_000_000_000));
    for wrong in ["10", "GB", "-1GB", "1.5GB", "010MB", "10 GB", "10gb", "99999999999TB"] {
        assert_eq!(Size::parse(wrong), None, "{wrong}");
    }
    assert_eq!(doc.indexes, [vec!["time".to_owned()], vec!["race".to_owned(), "time".to_owned()]]);
    let nobody = YAML.replace("{field: stop_id, role: principal}", "none");
    assert_eq!(DatasetDoc::parse(&nobody, SCHEMA).unwrap().subject, None);
}

#[test]
fn mistakes_in_the_document_are_named_with_their_place() {
    for (from, to, wanted) in [
        ("kind: records", "kind: recrods", "did you mean \"records\"?"),
        ("indexes:", "indices:", "did you mean \"indexes\"?"),
        (
            "title: Stops\n",
            "title: Stops\ntitle: Stops\n",
            "line 3, column 1: the key \"title\" stands here a second time",
        ),
        (
            "key: [stop_id]",
            "key: [stopid]",
            "line 5, column 7: key: \"stopid\" is not a property of the schema; did you mean \"stop_id\"?",
        ),
        ("key: [stop_id]", "key: [race]", "list \"race\" under \"required\""),
        ("key: [stop_id]", "key: []", "name the fields that identify a record"),
        ("key: [stop_id]", "key: [stop_id, stop_id]", "stands twice"),
        ("field: time, zone: UTC", "field: race, zone: UTC", "needs \"format\": \"date-time\""),
        ("zone: UTC", "zone: Mars/Olympus", "not an IANA time zone"),
        ("{race: special", "{rase: special", "did you mean \"race\"?"),
        ("[race, time]", "[race, tine]", "line 12, column 10"),
        ("field: stop_id, role", "field: stop_id, rolle", "did you mean \"role\"?"),
        ("400d", "400", "is not a duration"),
        ("subject: {field: stop_id, role: principal}\n", "", "the key \"subject\" is missing"),
        ("sensitive: {race: special-category}\n", "", "the key \"sensitive\" is missing"),
        ("ds:police/stops@1", "police/stops", "ds:agency/name@1"),
    ] {
        assert!(YAML.contains(from), "{from}");
        let error = DatasetDoc::parse(&YAML.replacen(from, to, 1), SCHEMA).expect_err(to).to_string();
        assert!(error.contains(wanted), "{to}: {error}");
    }
}

#[test]
fn a_schema_that_lets_undescribed_fields_pass_is_refused() {
    for (from, to, wanted) in [
        (": false", ": true", "additionalProperties: must be false"),
        (",\n  \"additionalProperties\": false", "", "additionalProperties: must be false"),
        ("\"object\"", "\"array\"", "type: must be \"object\""),
        ("[\"stop_id\", \"time\"]", "[\"stop_id\", \"tyme\"]", "required: must name properties only"),
        ("{\"type\": \"integer\"}", "{\"type\": \"object\"}", "count: \"type\" must be one of"),
        ("{\"type\": \"integer\"}", "{\"type\": [\"integer\", \"null\"]}", "count: \"type\" must be one of"),
        ("\"ratio\"", "\"count\"", "key \"count\" stands twice"),
        ("\"properties\": {", "\"properties\": {}, \"x\": {", "properties: must list the fields"),
    ] {
        assert!(SCHEMA.contains(from), "{from}");
        let error = DatasetDoc::parse(YAML, &SCHEMA.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.contains(wanted), "{to}: {error}");
        assert!(error.contains("schemas/stops@1.json"), "{error}");
    }
}

#[test]
fn the_demo_datasets_are_whole() {
    let demo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo");
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(demo.join("datasets")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let file = DatasetFile::parse(&text).unwrap();
        let schema = std::fs::read_to_string(demo.join(&file.schema)).unwrap();
        let doc = file.with_schema(&schema).unwrap();
        seen.push((doc.id.as_str().to_owned(), doc.fields().len(), doc.sensitive().count()));
    }
    seen.sort();
    let want = [
        ("ds:court/register@1", 8, 0),
        ("ds:grid/load@1", 33, 0),
        ("ds:police/stops@1", 13, 5),
        ("ds:transport/i94@1", 7, 0),
    ];
    assert_eq!(seen, want.map(|(id, fields, sensitive)| (id.to_owned(), fields, sensitive)));
}
