//! The HTTP API as its document has it, the catalogue, and the ways of applications: by the page for them, in Python, in Rust.

use crate::World;
use crate::oidc::{cache, run};
use crate::queries::stops;
use concordat_client::{Client as Application, Query};
use concordat_protocol::hash::sha256;
use concordat_tests::harness::{City, Client, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn document(client: &Client) -> Value {
    client.get("/openapi.json").is(200).body
}

/// Every operation: method, path, whether it asks for a token.
fn operations(document: &Value) -> Vec<(String, String, bool)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let of = |(path, item): (&String, &Value)| {
        let methods = item.as_object().unwrap().iter();
        let one = |(method, op): (&String, &Value)| (method.to_uppercase(), path.clone(), op["security"].is_null());
        methods.map(one).collect::<Vec<_>>()
    };
    paths.flat_map(of).collect()
}

fn is_problem(answer: &concordat_tests::harness::Answer, what: &str) {
    assert_eq!(answer.content_type, "application/problem+json", "{what}: {} {}", answer.status, answer.body);
    let b = &answer.body;
    assert_eq!(b["status"], answer.status, "{what}: {b}");
    assert_eq!(b["type"], format!("urn:concordat:problem:{}", b["code"].as_str().unwrap()), "{what}: {b}");
    for member in ["title", "detail", "side", "request_id"] {
        assert!(b[member].as_str().is_some_and(|t| !t.is_empty()), "{what}: {member}: {b}");
    }
    assert!(b["retry"].is_boolean(), "{what}: {b}");
}

pub fn every_operation_of_the_document_answers_with_problems(world: &World) {
    let city = world.shared();
    let listen = city.config("court").listen;
    let document = document(&Client::new(&listen, ""));
    assert_eq!(document["openapi"], "3.1.0");
    let all = operations(&document);
    assert!(all.len() > 40, "{all:?}");
    let operator = city.api("court", "operator");
    let strangers = Client::new(&listen, "no-token-0123456789abcdef0123456789abcd");
    for (method, path, secured) in &all {
        let what = format!("{method} {path}");
        // A segment that is no UTF-8 is refused by the router before any handler.
        let broken = path.split('/').map(|s| if s.starts_with('{') { "%FF" } else { s }).collect::<Vec<_>>().join("/");
        let plain = path.split('/').map(|s| if s.starts_with('{') { "x" } else { s }).collect::<Vec<_>>().join("/");
        if *secured {
            let refused = strangers.request(method, &plain);
            assert_eq!(refused.status, 401, "{what}: {}", refused.body);
            is_problem(&refused, &what);
        }
        if path.contains('{') {
            let refused = operator.request(method, &broken);
            assert!((400..500).contains(&refused.status), "{what}: {}", refused.body);
            is_problem(&refused, &what);
        }
        let patched = all.iter().any(|(m, p, _)| p == path && m.eq_ignore_ascii_case("patch"));
        let other = if patched { "PUT" } else { "PATCH" };
        let refused = operator.request(other, &plain);
        assert_eq!(refused.status, 405, "{other} {plain}: {}", refused.body);
        is_problem(&refused, &format!("{other} {plain}"));
        let odd = operator.request(method, &format!("{plain}?no-such-parameter=1"));
        assert_ne!(odd.body["code"], "unknown-resource", "{what} is there");
        if odd.status >= 400 && odd.status != 503 {
            is_problem(&odd, &what);
        }
    }
}

/// Names that an answer must have by the document and does not, or that are null against it.
fn lacking(document: &Value, schema: &Value, answer: &Value) -> Vec<String> {
    let schema = match schema["$ref"].as_str() {
        Some(name) => &document["components"]["schemas"][name.rsplit('/').next().unwrap()],
        None => schema,
    };
    let mut out = Vec::new();
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if answer.get(name).is_none_or(Value::is_null) {
            out.push(name.to_owned());
        }
    }
    for (name, of) in schema["properties"].as_object().into_iter().flatten() {
        let Some(value) = answer.get(name).filter(|v| !v.is_null()) else { continue };
        let kind = of["type"].as_str().or(of["anyOf"][0]["type"].as_str());
        let fits = match kind {
            Some("string") => value.is_string(),
            Some("integer") => value.is_u64() || value.is_i64(),
            Some("boolean") => value.is_boolean(),
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            _ => true,
        };
        if !fits {
            out.push(format!("{name} is no {kind:?}: {value}"));
        }
        let items = if of["items"].is_object() { &of["items"] } else { &Value::Null };
        for item in value.as_array().into_iter().flatten().take(3) {
            out.extend(lacking(document, items, item).into_iter().map(|n| format!("{name}[].{n}")));
        }
    }
    out
}

pub fn answers_are_what_the_document_says(world: &World) {
    let city = world.shared();
    let (clerk, operator) = (city.api("court", "clerk"), city.api("court", "operator"));
    let document = document(&clerk);
    let schema = |method: &str, path: &str| {
        let found = &document["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(found.is_object(), "{method} {path}");
        found.clone()
    };
    let asked = clerk.query(&stops()).is(200);
    assert_eq!(lacking(&document, &schema("post", "/v1/queries"), &asked.body), Vec::<String>::new());
    let op = asked.text("operation");
    let key =
        city.api("court", "operator").get("/admin/v1/agencies/court/keys").is(200).body["keys"][0]["key_id"].clone();
    for (path, at) in [
        ("/v1/operations", "/v1/operations?limit=5".to_owned()),
        ("/v1/operations/{op}", format!("/v1/operations/{op}")),
        ("/v1/decisions/{id}", format!("/v1/decisions/{op}")),
        ("/v1/agreements", "/v1/agreements".into()),
        ("/v1/agreements/{id}", "/v1/agreements/AGR-2026-0142".into()),
        ("/v1/catalogue/datasets", "/v1/catalogue/datasets".into()),
        ("/v1/catalogue/datasets/{dataset}", "/v1/catalogue/datasets/ds:court%2Fregister@1".into()),
        ("/v1/subscriptions", "/v1/subscriptions".into()),
        ("/v1/feeds", "/v1/feeds".into()),
        ("/v1/ledger/status", "/v1/ledger/status".into()),
        ("/v1/ledger/timestamps", "/v1/ledger/timestamps".into()),
        ("/v1/whoami", "/v1/whoami".into()),
        ("/readyz", "/readyz".into()),
        ("/admin/v1/dead-letters", "/admin/v1/dead-letters".into()),
        ("/admin/v1/agencies/{agency}/keys", "/admin/v1/agencies/police/keys".into()),
        ("/admin/v1/keys/{key_id}/counters", format!("/admin/v1/keys/{}/counters", key.as_str().unwrap())),
    ] {
        let by = if path.starts_with("/admin") { &operator } else { &clerk };
        let answer = by.get(&at).is(200);
        assert_eq!(lacking(&document, &schema("get", path), &answer.body), Vec::<String>::new(), "{path}");
    }
    // The check itself finds what is missing.
    assert!(!lacking(&document, &schema("get", "/v1/whoami"), &json!({"agency": 1})).is_empty());
}

pub fn the_catalogue_is_searched_and_linked(world: &World) {
    let city = world.shared();
    let clerk = city.api("court", "clerk");
    let ids = |query: &str| -> BTreeSet<String> {
        let found = clerk.get(&format!("/v1/catalogue/datasets?{query}")).is(200).body;
        found["datasets"].as_array().unwrap().iter().map(|d| d["dataset"].as_str().unwrap().to_owned()).collect()
    };
    let only = |id: &str| BTreeSet::from([id.to_owned()]);
    assert_eq!(ids("text=stops&access=agreed"), only("ds:police/stops@1"));
    assert_eq!(ids("theme=TRAN"), only("ds:transport/i94@1"));
    assert_eq!(ids("field=jurisdiction"), only("ds:court/register@1"));
    assert!(ids("area=Minneapolis").len() == 2 && ids("area=100,0,110,10").is_empty());
    assert!(ids("access=public").contains("ds:transport/i94@1"));
    // Pages of one are all of it, each once.
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = clerk.get(&format!("/v1/catalogue/datasets?limit=1{cursor}")).is(200).body;
        seen.extend(page["datasets"].as_array().unwrap().iter().map(|d| d["dataset"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let whole = ids("");
    assert_eq!((seen.len(), seen.into_iter().collect::<BTreeSet<_>>()), (whole.len(), whole));
    assert_eq!(clerk.get(&format!("/v1/catalogue/datasets?text=x{cursor}")).is(409).body["code"], "bad-cursor");
    // Portals see what is public; this agency's people also what was agreed.
    let linked = |client: &Client| -> BTreeSet<String> {
        let out = client.get("/catalogue.jsonld").is(200);
        assert_eq!((out.content_type.as_str(), &out.body["@type"]), ("application/ld+json", &json!("dcat:Catalog")));
        let list = out.body["dcat:dataset"].as_array().unwrap().clone();
        list.iter().map(|d| d["dct:identifier"].as_str().unwrap().to_owned()).collect()
    };
    let (public, ours) = (linked(&Client::anonymous(&city.config("court").listen)), linked(&clerk));
    assert!(public.contains("ds:transport/i94@1") && !public.contains("ds:police/stops@1"), "{public:?}");
    assert!(ours.is_superset(&public) && ours.contains("ds:police/stops@1"), "{ours:?}");
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Runs the blocks of `sh` of a page of docs/, in their order, in one shell and an empty folder; gives what was said.
pub fn run_page(world: &World, city: &City, page: &str, more: &[(&str, &Path)]) -> String {
    let text = std::fs::read_to_string(checkout().join("docs").join(page)).unwrap();
    let blocks = text.split("\n```sh\n").skip(1).map(|b| b.split_once("\n```").expect("a closed block").0);
    let script = format!("set -euo pipefail\n{}", blocks.collect::<Vec<_>>().join("\n"));
    assert!(script.contains("concordat demo up"), "{page} has no commands: {script}");
    let path = format!("{}:{}", city.root.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(world.folder(page)).env("PATH", path).envs(more.iter().copied());
    command.env("CONCORDAT", checkout()).env("CONCORDAT_DEMO", &city.root).env_remove("CONCORDAT_DIR");
    let out = command.output().expect("bash");
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{page}: {said}");
    said
}

/// The packages of the Python verifier as files, fetched once, so that the page can be run without a network.
fn wheels() -> Result<PathBuf, String> {
    run(Command::new("curl").arg("--version"))?;
    run(Command::new("openssl").arg("version"))?;
    run(Command::new("python3").args(["-c", "import sys, venv; sys.exit(sys.version_info < (3, 11))"]))?;
    let pinned = checkout().join("protocol/python/requirements.txt");
    let hash = hex::encode(sha256(&[&std::fs::read(&pinned).unwrap()]));
    let folder = cache().join(format!("wheels-{}", &hash[..16]));
    if !folder.join("complete").exists() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--require-hashes", "--only-binary", ":all:", "-d"]).arg(&folder);
        run(pip.arg("-r").arg(&pinned))?;
        std::fs::write(folder.join("complete"), "").map_err(|e| e.to_string())?;
    }
    Ok(folder)
}

pub fn the_page_for_applications_runs_as_it_stands(world: &World) {
    let wheels = match wheels() {
        Ok(folder) => folder,
        Err(why) => return eprintln!("SKIPPED page: the_page_for_applications_runs_as_it_stands: {why}"),
    };
    let more = [("PIP_NO_INDEX", Path::new("1")), ("PIP_FIND_LINKS", wheels.as_path())];
    let said = run_page(world, world.shared(), "connect-your-application.md", &more);
    assert!(said.contains("VALID (") && said.contains("denied (denied):"), "{said}");
}

fn application(city: &City) -> Application {
    let token = city.tokens("court").into_iter().find(|t| t.name == "clerk").unwrap().token;
    let trust = std::fs::read_to_string(city.root.join("trust.json")).unwrap();
    let client = Application::new(&format!("http://{}", city.config("court").listen), &token).unwrap();
    client.with_trust(&trust).unwrap()
}

pub fn the_rust_client_believes_nothing_that_is_not_proven(world: &World) {
    let client = application(world.shared());
    let day = stops()["where"].clone();
    let query = Query::new("ds:police/stops@1", "purp:pending-case").case("26-CR-1042").filter(day).limit(3);
    wait(async {
        let answer = client.query(&query, Some("rust-client-1")).await.unwrap();
        let proven = client.verify(&query, &answer, None).await.unwrap();
        assert_eq!((proven.provider.as_str(), answer.rows.len()), ("police", 3));
        let again = client.query(&query, Some("rust-client-1")).await.unwrap();
        assert_eq!((again.operation, again.rows[0].get()), (answer.operation.clone(), answer.rows[0].get()));
        // Rows, place or question that are not those of the receipt.
        let mut fewer = answer.clone();
        fewer.rows.pop();
        assert_eq!(client.verify(&query, &fewer, None).await.unwrap_err().code(), "content_root");
        let mut swapped = answer.clone();
        swapped.rows.swap(0, 1);
        assert_eq!(client.verify(&query, &swapped, None).await.unwrap_err().code(), "content_root");
        let other = Query::new("ds:police/stops@1", "purp:pending-case").case("26-CR-1043");
        assert_eq!(client.verify(&other, &answer, None).await.unwrap_err().code(), "answer");
        let elsewhere = Query::new("ds:grid/load@1", "purp:pending-case").case("26-CR-1042");
        assert_eq!(client.verify(&elsewhere, &answer, None).await.unwrap_err().code(), "answer");
        let denied = Query::new("ds:police/stops@1", "purp:profiling").limit(1);
        assert_eq!(client.query(&denied, None).await.unwrap_err().code(), "denied");
    });
}
