#![allow(clippy::unwrap_used)]
use super::*;
use concordat_protocol::hash::sha256;
use std::fs;

const YAML: &str = "dataset: ds:grid/load@1\ntitle: Load\nkind: feed\nschema: schemas/load@1.json\nkey: [time]\ntime: {field: time, zone: UTC}\nsubject: none\nsensitive: {meter: identifier}\n";
const SCHEMA: &str = r#"{"type":"object","properties":{"time":{"type":"string","format":"date-time"},"meter":{"type":"string","description":"which"}},"required":["time"],"additionalProperties":false}"#;

fn node(with_document: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("schemas")).unwrap();
    fs::create_dir(dir.path().join("datasets")).unwrap();
    fs::write(dir.path().join("schemas/load@1.json"), SCHEMA).unwrap();
    if with_document {
        fs::write(dir.path().join("datasets/load.yaml"), YAML).unwrap();
        fs::write(dir.path().join("datasets/broken.yaml"), "dataset: [").unwrap();
    }
    dir
}

fn registered(schema: &str) -> DatasetView {
    let id = DatasetId::new("ds:grid/load@1").unwrap();
    DatasetView { id, number: 3, schema_hash: sha256(&[schema.as_bytes()]), head: 7 }
}

#[test]
fn a_dataset_is_shown_as_far_as_the_folder_knows_it() {
    let grid = AgencyId::new("grid").unwrap();
    let shown = |with_document: bool, schema: &str| {
        let folder = Folder::read(node(with_document).path());
        let d = registered(schema);
        (Value::Object(view(&d, &folder, &[], &grid).unwrap()), folder.fields(&d))
    };
    let (whole, fields) = shown(true, SCHEMA);
    assert_eq!(
        (&whole["kind"], &whole["fed_here"], &whole["held_here"]),
        (&json!("feed"), &json!(true), &json!(false))
    );
    let fields = fields.unwrap();
    let meter = fields.as_array().unwrap().iter().find(|f| f["name"] == "meter").unwrap();
    assert_eq!((&meter["sensitive"], &meter["required"]), (&json!("identifier"), &json!(false)));
    // Another agency's schema: known by its hash, without a document.
    let (schema_only, fields) = shown(false, SCHEMA);
    assert_eq!((&schema_only["schema_known"], &schema_only["fed_here"]), (&json!(true), &json!(false)));
    assert!(schema_only["kind"].is_null() && fields.unwrap()[1]["type"] == "date-time");
    // Something else is registered: the file is not passed off as it.
    let (other, fields) = shown(true, "{}");
    assert!(other["schema_known"] == false && other["fed_here"] == false && fields.is_none());
    assert!(other["warning"].as_str().unwrap().contains("another schema"));
}
