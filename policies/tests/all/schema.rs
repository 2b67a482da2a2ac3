//! The published JSON Schema says what the parser says: every example and template validates, and what the parser refuses
//! as unknown the schema refuses too.

use concordat_policies::compile::compile;
use concordat_policies::duty::DutyKind;
use concordat_policies::schema::schema;
use concordat_policies::templates::TEMPLATES;
use serde_json::{Value, json};

const VALUES: [(&str, &str); 8] = [
    ("agreement", "AGR-2026-0200"),
    ("assigner", "org:police"),
    ("assignee", "org:court"),
    ("target", "ds:police/stops@1"),
    ("from", "2026-01-01T00:00:00Z"),
    ("until", "2027-01-01T00:00:00Z"),
    ("key", "stop_id"),
    ("time", "time"),
];

/// Every example of the project, by name: the templates filled in, the demo's agreements, and one of every duty.
fn examples() -> Vec<(String, String)> {
    let values: Vec<(&str, &str)> = VALUES.into_iter().chain([("place", "neighborhood")]).collect();
    let templates = TEMPLATES.iter().map(|t| (t.name.to_owned(), t.fill(&values).unwrap()));
    let demo = ["AGR-2026-0142", "AGR-2026-0143", "AGR-2026-0144", "AGR-2026-0145"];
    let demo = demo.map(|n| (n.to_owned(), super::golden::demo_text(n)));
    templates.chain(demo).chain([("every duty".to_owned(), EVERY.to_owned())]).collect()
}

/// A document with every kind of duty and every optional key.
const EVERY: &str = r#"agreement: AGR-1
version: 3
paper: {title: "MoU", sha256: "2aa734f0ffe6199e3c34790a4838ab0bfe2b23bfd0ad439d0b05b93c80b25324"}
assigner: org:police
assignee: org:court
target: ds:police/stops@1
valid: {from: 2026-01-01T00:00:00Z, until: 2027-01-01T00:00:00Z}
approvals: {assigner: [legal], assignee: [legal]}
prevails: en
clauses:
- id: A
  text: {en: a, de: b}
  effect: permit
  assignee: {org: org:court, role: role:a}
  actions: [query]
  evidence: strict
  purpose: purp:x
  legal_basis: {en: a, de: b}
  valid: {from: 2026-02-01T00:00:00+01:00, until: 2026-12-01T00:00:00Z}
  duties:
  - {type: reference, field: case, pattern: "^a$"}
  - {type: require-filter, any_of: [id, {t: 24h}]}
  - {type: row-filter, where: {or: [{a: {in: ["1"]}}, {not: {b: {range: {from: 1}}}}]}}
  - {type: fields, allow: [id, t, m, n, p, c]}
  - {type: quota, max: 1, per: day, by: session, unit: records}
  - {type: mask, fields: [m], keep_last: 2}
  - {type: pseudonymise, fields: [p, n], per: month}
  - {type: coarsen, field: c, step: 0.5}
  - {type: delay, field: t, for: 2d}
  - {type: retention, keep: 30d}
  - {type: step-up, level: "urn:mace:strong", within: 15m}
  - {type: seal-access, for: 30d}
  - {type: notify, to: org:police}
- id: B
  text: {en: a, de: b}
  effect: break-glass
  assignee: {org: org:court, role: role:b}
  actions: [query]
  evidence: {bounded: {max_lag: 10m}}
  purpose: purp:y
  duties: [{type: justification}, {type: review, within: 24h}, {type: aggregate, group_by: [a, {t: month}], min_group: 10}]
"#;

fn validator() -> jsonschema::Validator {
    jsonschema::validator_for(&schema()).unwrap()
}

fn value(yaml: &str) -> Value {
    concordat_policies::yaml::parse(yaml).unwrap()
}

#[test]
fn the_published_schema_is_the_one_made_here() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/schemas/agreement.schema.json");
    let made = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(there == made, "UPDATE_GOLDEN=1 cargo test -p concordat-policies --test all schema writes {path}");
}

#[test]
fn every_example_and_template_compiles_and_validates() {
    let rules = validator();
    let mut kinds = std::collections::BTreeSet::new();
    for (name, text) in examples() {
        let c = compile(&text).unwrap_or_else(|e| panic!("{name}: {e}\n{text}"));
        kinds.extend(c.document.clauses.iter().flat_map(|c| &c.duties).map(|d| d.kind()));
        let errors: Vec<String> =
            rules.iter_errors(&value(&text)).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}");
    }
    assert_eq!(kinds.len(), DutyKind::ALL.len(), "an example of every duty");
}

/// Every object of a document, by its place.
fn objects(v: &Value, at: String, out: &mut Vec<String>) {
    match v {
        Value::Object(m) => {
            out.push(at.clone());
            m.iter().for_each(|(k, v)| objects(v, format!("{at}/{}", k.replace('~', "~0").replace('/', "~1")), out));
        }
        Value::Array(a) => a.iter().enumerate().for_each(|(i, v)| objects(v, format!("{at}/{i}"), out)),
        _ => {}
    }
}

#[test]
fn what_the_parser_refuses_as_unknown_the_schema_refuses_too() {
    let rules = validator();
    let mut tried = 0;
    for (name, text) in examples() {
        let whole = value(&text);
        let mut places = Vec::new();
        objects(&whole, String::new(), &mut places);
        for place in &places {
            let keys: Vec<String> = whole.pointer(place).unwrap().as_object().unwrap().keys().cloned().collect();
            // A key that nobody knows, and a known one with a letter too many.
            for key in ["Unknown-Key".to_owned()].into_iter().chain(keys.iter().map(|k| format!("{k}q"))) {
                let mut odd = whole.clone();
                let object = odd.pointer_mut(place).unwrap().as_object_mut().unwrap();
                if let Some(original) = key.strip_suffix('q').and_then(|k| object.remove(k)) {
                    object.insert(key.clone(), original);
                } else {
                    object.insert(key.clone(), json!("x"));
                }
                // JSON is YAML: the same document for both.
                if compile(&odd.to_string()).is_err_and(|e| e.problem.contains("unknown")) {
                    tried += 1;
                    assert!(!rules.is_valid(&odd), "{name}: the schema takes {key} in {place}: {odd}");
                }
            }
        }
    }
    assert!(tried > 300, "{tried}");
}

#[test]
fn words_and_values_that_are_none_are_refused_by_both() {
    let rules = validator();
    for (from, to) in [
        ("effect: permit", "effect: permits"),
        ("actions: [query]", "actions: [read]"),
        ("actions: [query]", "actions: []"),
        ("version: 3", "version: 0"),
        ("org:court\n", "court\n"),
        ("role: role:a", "role: a"),
        ("purp:x", "x"),
        ("type: mask", "type: hide"),
        ("min_group: 10", "min_group: 1"),
        ("within: 15m", "within: 15 minutes"),
        ("keep_last: 2", "keep_last: 20"),
        ("step: 0.5", "step: 0"),
        ("step: 0.5", "step: 0.5, to: day"),
        (", step: 0.5", ""),
        ("per: month", "per: week"),
        ("per: day, by", "per: month, by"),
        ("in: [\"1\"]", "inn: [\"1\"]"),
        ("in: [\"1\"]", "in: []"),
        ("field: case", "field: warrant"),
        ("keep: 30d", ""),
        ("en: a, de: b}\n  effect: permit", "english: a}\n  effect: permit"),
        ("2026-01-01T00:00:00Z", "2026-01-01"),
    ] {
        let text = EVERY.replacen(from, to, 1);
        assert_ne!(text, EVERY, "{from}");
        assert!(compile(&text).is_err() && !rules.is_valid(&value(&text)), "{from} -> {to}");
    }
}

#[test]
fn placeholders_are_those_that_a_template_asks_for() {
    for t in TEMPLATES {
        assert!(t.text.starts_with("# ") && !t.about.is_empty(), "{}", t.name);
        let names = t.placeholders();
        assert!(names.contains(&"agreement") && names.contains(&"until"), "{}: {names:?}", t.name);
        let values: Vec<(&str, &str)> = names.iter().map(|n| (*n, "x")).collect();
        assert!(!t.fill(&values).unwrap().contains("{{"), "{}", t.name);
        assert!(t.fill(&values[1..]).is_err());
    }
}
