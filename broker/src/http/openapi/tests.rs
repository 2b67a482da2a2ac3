#![allow(clippy::unwrap_used)]
use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// Method and path of every route, as axum's own rendering of the router names them.
fn routed(router: &Router<AppState>) -> BTreeSet<(String, String)> {
    let text = format!("{router:?}");
    let (text, _) = text.split_once("fallback_router").unwrap();
    let (routes, paths) = text.split_once("paths: {").unwrap();
    let by_id = |text: &str| -> Vec<(String, String)> {
        text.split("RouteId(")
            .skip(1)
            .map(|t| t.split_once(')').unwrap())
            .map(|(id, t)| (id.into(), t.into()))
            .collect()
    };
    let routes: BTreeMap<String, String> = by_id(routes).into_iter().collect();
    let mut found = BTreeSet::new();
    for (id, rest) in by_id(paths) {
        let path = rest.split('"').nth(1).unwrap();
        let allowed = routes[&id].split_once("allow_header: Bytes(b\"").unwrap().1.split_once('"').unwrap().0;
        found.extend(allowed.split(',').filter(|m| *m != "HEAD").map(|m| (m.to_lowercase(), path.to_owned())));
    }
    found
}

/// What the document has, by the router's names: `{id}:pause` is a `{id}` to it.
fn documented(docs: &[Doc]) -> BTreeSet<(String, String)> {
    let path = |p: &str| p.rsplit_once("}:").map_or_else(|| p.to_owned(), |(start, _)| format!("{start}}}"));
    docs.iter().map(|d| (d.method.to_owned(), path(d.path))).collect()
}

#[test]
fn every_route_is_in_the_document_and_the_other_way_round() {
    let (routed, documented) = (routed(&crate::http::resources()), documented(&crate::http::docs()));
    assert!(routed.len() > 40 && routed.contains(&("post".into(), "/v1/queries".into())), "{routed:?}");
    let missing: Vec<_> = routed.difference(&documented).collect();
    assert!(missing.is_empty(), "routes without docs(): {missing:?}");
    let gone: Vec<_> = documented.difference(&routed).collect();
    assert!(gone.is_empty(), "docs() without a route: {gone:?}");
}

#[test]
fn the_document_is_valid_and_its_references_lead_somewhere() {
    let document = document(&crate::http::docs());
    let rules: Value = serde_json::from_str(include_str!("../../../tests/fixtures/openapi-3.1.schema.json")).unwrap();
    let rules = jsonschema::validator_for(&rules).unwrap();
    let wrong: Vec<String> = rules.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(!rules.is_valid(&json!({"openapi": "3.1.0", "paths": {}})), "the rules are the rules");
    let text = document.to_string();
    for name in text.split("#/components/schemas/").skip(1).map(|t| t.split_once('"').unwrap().0) {
        assert!(document["components"]["schemas"][name].is_object(), "{name} is not there");
    }
    let (mut ids, mut schemas) = (BTreeSet::new(), 0);
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{}", operation["operationId"]);
            assert!(operation["summary"].as_str().is_some_and(|s| s.ends_with('.')), "{operation}");
            let bodies = operation["requestBody"]["content"].as_object().into_iter().flat_map(|c| c.values());
            let answers = operation["responses"].as_object().unwrap().values();
            let answers = answers.filter_map(|r| r["content"].as_object()).flat_map(|c| c.values());
            for schema in bodies.chain(answers).filter_map(|m| m.get("schema")) {
                let mut schema = schema.clone();
                schema["components"] = document["components"].clone();
                jsonschema::validator_for(&schema).unwrap();
                schemas += 1;
            }
        }
    }
    assert!(schemas > 30, "{schemas}");
}

#[test]
fn bodies_say_what_the_handlers_read() {
    let document = document(&crate::http::docs());
    let query = &document["paths"]["/v1/queries"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    let rules = jsonschema::validator_for(query).unwrap();
    let good = json!({"dataset": "ds:a/b@1", "purpose": "purp:x", "where": {"time": {"range": {}}}, "limit": 3});
    assert!(rules.is_valid(&good), "{query}");
    for (name, value) in [("whre", json!({})), ("dataset", json!(1))] {
        let mut bad = good.clone();
        bad[name] = value;
        assert!(!rules.is_valid(&bad), "{name}: {query}");
    }
    assert!(!rules.is_valid(&json!({"dataset": "ds:a/b@1"})), "a purpose must be there: {query}");
}
