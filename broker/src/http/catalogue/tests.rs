#![allow(clippy::unwrap_used)]
//! Search and the linked catalogue on the demo's own dataset documents.
use super::*;
use concordat_protocol::node::AgreementView;
use std::fs;
use std::path::Path as FilePath;

/// Documents and schemas of the demo, as one node would have them that was handed all of them.
fn node() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let demo = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo");
    for sub in ["datasets", "schemas", about::DIR] {
        fs::create_dir(dir.path().join(sub)).unwrap();
        for entry in fs::read_dir(demo.join(sub)).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), dir.path().join(sub).join(entry.file_name())).unwrap();
        }
    }
    dir
}

fn registered(folder: &Folder) -> Vec<DatasetView> {
    let all = folder.documents.iter().enumerate();
    all.map(|(n, (id, (_, hash)))| DatasetView { id: id.clone(), number: n as u64, schema_hash: *hash, head: 1 })
        .collect()
}

fn ids(folder: &Folder, query: &str) -> Vec<String> {
    let url: axum::http::Uri = format!("/?{query}").parse().unwrap();
    let search = axum::extract::Query::<Search>::try_from_uri(&url).unwrap().0;
    let views: &[AgreementView] = &[];
    let own = AgencyId::new("court").unwrap();
    let found = found(&registered(folder), folder, views, &own, &search.read().unwrap()).unwrap();
    found.into_iter().map(|k| k.id.to_string()).collect()
}

#[test]
fn the_demos_datasets_are_found_by_what_they_are() {
    let dir = node();
    let folder = Folder::read(dir.path());
    assert_eq!(folder.unusable, Vec::<String>::new());
    let (register, load, stops, i94) =
        ("ds:court/register@1", "ds:grid/load@1", "ds:police/stops@1", "ds:transport/i94@1");
    for (query, expected) in [
        ("", vec![register, load, stops, i94]),
        ("text=STOPS", vec![stops]),
        ("text=traffic%20weather", vec![i94]),
        ("theme=ener", vec![load]),
        ("area=minneapolis", vec![stops, i94]),
        ("area=-93.3,44.9,-93.2,45.0", vec![stops, i94]),
        ("area=5,47,15,55", vec![load]),
        ("field=race", vec![stops]),
        ("from=2017-06-01T00:00:00Z", vec![stops, i94]),
        ("from=2016-02-01T00:00:00Z&until=2016-03-01T00:00:00Z", vec![load]),
        ("owner=grid", vec![load]),
        ("access=own", vec![register]),
        ("access=public", vec![]),
        ("text=stops&theme=ENER", vec![]),
    ] {
        assert_eq!(ids(&folder, query), expected, "{query}");
    }
}

#[test]
fn a_search_that_cannot_be_meant_is_refused() {
    for search in [
        Search { area: Some("1,2,3".into()), ..Search::default() },
        Search { area: Some("1,5,3,2".into()), ..Search::default() },
        Search { from: Some("yesterday".into()), ..Search::default() },
        Search { access: Some("all".into()), ..Search::default() },
        Search { limit: Some(0), ..Search::default() },
        Search { cursor: Some("AAAA".into()), ..Search::default() },
        Search { cursor: Some("?".into()), ..Search::default() },
    ] {
        assert!(search.read().is_err(), "{search:?}");
    }
}

#[test]
fn pages_follow_each_other_and_cursors_belong_to_their_search() {
    let all = vec!["ds:a/a@1", "ds:a/b@1", "ds:b/a@1", "ds:c/a@1", "ds:d/a@1"];
    let (mut seen, mut cursor) = (Vec::new(), None);
    for _ in 0..3 {
        let search = Search { limit: Some(2), cursor: cursor.clone(), ..Search::default() };
        let (page, next) = search.read().unwrap().page(all.clone(), |id| id);
        seen.extend(page);
        cursor = next;
    }
    assert_eq!((seen, cursor.is_none()), (all.clone(), true));
    let first = Search { limit: Some(2), ..Search::default() };
    let next = first.read().unwrap().page(all, |id| id).1.unwrap();
    let other = Search { text: Some("x".into()), cursor: Some(next.clone()), ..Search::default() };
    assert_eq!(other.read().err().unwrap().code, "bad-cursor");
    assert!(first.next(&next).starts_with("catalogue.jsonld?limit=2&cursor="));
}

#[test]
fn the_linked_catalogue_says_what_dcat_ap_asks_for() {
    let dir = node();
    let folder = Folder::read(dir.path());
    let own = AgencyId::new("court").unwrap();
    let search = Search::default().read().unwrap();
    let found = found(&registered(&folder), &folder, &[], &own, &search).unwrap();
    let entries: Vec<_> = found.iter().map(|k| linked_entry(k, &folder, true)).collect();
    let out = dcat::catalogue("city", &own, &entries, None);
    for member in ["dct:title", "dct:description", "dct:publisher"] {
        assert!(!out[member].is_null(), "{member}");
    }
    let datasets = out["dcat:dataset"].as_array().unwrap();
    assert_eq!(datasets.len(), 4);
    for d in datasets {
        assert!(
            d["dct:title"].is_string()
                && d["dct:description"].is_string()
                && d["dct:publisher"]["foaf:name"].is_string()
        );
        for way in d["dcat:distribution"].as_array().unwrap() {
            assert!(way["dcat:accessURL"]["@id"].is_string(), "{way}");
        }
    }
    let stops = datasets.iter().find(|d| d["dct:identifier"] == "ds:police/stops@1").unwrap();
    assert_eq!(stops["dcat:distribution"].as_array().unwrap().len(), 1, "records are queried alone");
    assert_eq!(stops["dcat:theme"][0]["@id"], "http://publications.europa.eu/resource/authority/data-theme/JUST");
    assert!(stops["dct:spatial"]["dcat:bbox"]["@value"].as_str().unwrap().starts_with("POLYGON((-93."));
    assert_eq!(stops["dct:temporal"]["dcat:endDate"]["@type"], "xsd:dateTime");
    // Every prefix that is used is declared.
    let text = out.to_string();
    for prefix in ["dcat", "dct", "foaf", "skos", "xsd", "vcard"] {
        assert_eq!(text.contains(&format!("\"{prefix}:")), out["@context"][prefix].is_string(), "{prefix}");
    }
}

proptest::proptest! {
    #[test]
    fn any_cursor_and_any_area_is_read_or_refused(cursor in "[A-Za-z0-9_=-]{0,60}", area in "[-0-9.,einfa]{0,30}") {
        let _ = Search { cursor: Some(cursor), ..Search::default() }.read();
        let _ = Search { area: Some(area), ..Search::default() }.read();
    }
}
