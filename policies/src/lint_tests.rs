#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::{court, demo};

fn rules(found: &[Finding]) -> Vec<(&str, Option<&str>)> {
    found.iter().map(|f| (f.rule, f.clause.as_deref())).collect()
}

#[test]
fn the_demo_asks_nothing_that_todays_executor_cannot_do() {
    let found = lint(&Agreement::parse(&demo("AGR-2026-0142")).unwrap());
    assert!(found.iter().all(|f| f.rule != "unfulfillable-duty"), "{found:?}");
    assert!(!rules(&found).contains(&("overlap", Some("S1"))));
    assert!(found.iter().all(|f| f.severity < Severity::Error));
    for name in ["AGR-2026-0144", "AGR-2026-0145"] {
        assert_eq!(rules(&lint(&Agreement::parse(&demo(name)).unwrap())), [], "{name}");
    }
}

#[test]
fn overlaps_missing_fields_and_hidden_filters_are_found() {
    let doc = court(
        "- {id: A, text: a, effect: permit, assignee: {org: org:court, role: role:clerk}, actions: [query], purpose: purp:x, duties: [{type: fields, allow: [time]}, {type: require-filter, any_of: [race]}]}
- {id: B, text: b, effect: permit, assignee: {org: org:court}, actions: [query], purpose: purp:x}",
    );
    let found = lint(&Agreement::parse(&doc).unwrap());
    for want in [
        ("overlap", Some("B")),
        ("all-fields", Some("B")),
        ("filter-on-hidden", Some("A")),
        ("no-quota", Some("A")),
        ("no-paper", None),
    ] {
        assert!(rules(&found).contains(&want), "{want:?} in {:?}", rules(&found));
    }
}

#[test]
fn unknown_and_sensitive_fields_are_errors() {
    let doc = Agreement::parse(&demo("AGR-2026-0142")).unwrap();
    let names = ["stop_id", "time", "problem", "citation_issued", "neighborhod", "precinct"];
    let mut fields: FieldMap = names.iter().map(|n| ((*n).to_owned(), None)).collect();
    let found = lint_fields(&doc, &fields);
    assert!(found.iter().any(|f| f.rule == "unknown-field" && f.text.contains("did you mean \"neighborhod\"")));
    fields.insert("neighborhood".to_owned(), None);
    fields.insert("lat".to_owned(), Some("exact-location".to_owned()));
    let found = lint_fields(&doc, &fields);
    // C1 names its fields and S1 only counts; the override B1 shows everything.
    assert_eq!(rules(&found), [("sensitive-visible", Some("B1"))]);
}

#[test]
fn the_demo_names_fields_that_its_datasets_have() {
    let demo_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/demo");
    let read = |path: &str| std::fs::read_to_string(format!("{demo_dir}/{path}")).unwrap();
    for (agreement, dataset, schema) in [
        ("AGR-2026-0142", "police-stops", "stops"),
        ("AGR-2026-0143", "grid-load", "load"),
        ("AGR-2026-0144", "transport-i94", "i94"),
        ("AGR-2026-0145", "court-register", "register"),
    ] {
        let data =
            DatasetDoc::parse(&read(&format!("datasets/{dataset}.yaml")), &read(&format!("schemas/{schema}@1.json")))
                .unwrap();
        let doc = Agreement::parse(&demo(agreement)).unwrap();
        assert_eq!(doc.target, data.id);
        let errors: Vec<_> =
            lint_fields(&doc, &field_map(&data)).into_iter().filter(|f| f.severity == Severity::Error).collect();
        assert_eq!(errors, [], "{agreement}");
    }
}
