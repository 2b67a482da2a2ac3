//! The command line of feeds: messages published by hand, datasets, dead letters, adapters, subscriptions.

use crate::World;
use crate::subscriptions::{WITHIN, feeds};
use concordat_tests::harness::{City, FeedAgreement, Ran, put, row, seen, until};
use serde_json::{Value, json};

fn line(n: u64) -> String {
    format!("{}\n", json!({"data": row(n)}))
}

/// Writes lines to a file and publishes it as grid.
fn publish(world: &World, name: &str, text: &str, more: &[&str]) -> Ran {
    let path = std::env::temp_dir().join(format!("cl-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let id = &feeds(world)[0].id;
    let file = path.to_string_lossy().into_owned();
    let ran =
        world.shared().at("grid", &[&["message", "publish", id, "--file", &file, "--output", "json"], more].concat());
    std::fs::remove_file(&path).unwrap();
    ran
}

pub fn refused_lines_are_named_and_the_rest_is_published(world: &World) {
    // 600 lines in three batches; a bad one in the first and the last, a blank one between.
    let mut text = String::new();
    for n in 0..600u64 {
        match n {
            6 => text.push_str("{\"data\":{\"n\":\"six\",\"zone\":\"N\",\"mw\":\"1\"}}\n"),
            300 => text.push('\n'),
            598 => text.push_str("not JSON\n"),
            _ => text.push_str(&line(10_000 + n)),
        }
    }
    let feed = || stats(world.shared(), &feeds(world)[0].id);
    let before = feed()["head_seq"].as_u64().unwrap();
    let ran = publish(world, "mixed", &text, &[]).ends(8);
    let said = ran.json();
    assert_eq!((&said["accepted"], &said["refused"]), (&json!(597), &json!(2)), "{said}");
    let lines: Vec<u64> =
        said["refused_lines"].as_array().unwrap().iter().map(|l| l["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [7, 599], "{said}");
    assert!(said["refused_lines"][0]["message"].to_string().contains("n"), "{said}");
    assert!(ran.err.contains("line 7: schema:"), "{}", ran.err);
    // All of them reach the ledger, and nothing else.
    until("what was published is on the ledger", WITHIN, || {
        let now = feed();
        let (head, anchored) = (now["head_seq"].as_u64(), now["anchored_seq"].as_u64());
        if head == Some(before + 597) && anchored == head { Ok(()) } else { Err(now) }
    });
    let nothing = publish(world, "bad", "1\n2\n", &[]).ends(1);
    assert_eq!(nothing.json()["accepted"], 0);
    world.shared().at("grid", &["message", "publish", "ds:grid/nothing@1", "--file", "/nonexistent"]).ends(5);
}

/// A feed of grid as `feed stats` shows it.
fn stats(city: &City, id: &str) -> Value {
    let all = city.at("grid", &["feed", "stats", "--output", "json"]).done().json();
    let found = all["feeds"].as_array().unwrap().iter().find(|f| f["dataset"] == id).cloned();
    found.unwrap_or_else(|| panic!("{all}"))
}

pub fn a_named_file_goes_on_where_it_stopped(world: &World) {
    let mut text: String = (20_000..20_300).map(line).collect();
    let name = ["--adapter", "by-hand"];
    assert_eq!(publish(world, "named", &text, &name).done().json()["accepted"], 300);
    assert_eq!(publish(world, "named", &text, &name).done().json()["accepted"], 0, "nothing comes twice");
    text.push_str(&line(20_300));
    assert_eq!(publish(world, "named", &text, &name).done().json()["accepted"], 1, "the file has grown");
    let other = text.replacen("20000", "20009", 1);
    let said = publish(world, "named", &other, &name).ends(6);
    assert_eq!(said.problem()["code"], "input-changed", "{said:?}");
}

const SCHEMA: &str = r#"{"type":"object","properties":{"id":{"type":"string"},"mw":{"type":"string","format":"decimal"}},"required":["id"],"additionalProperties":false}"#;

pub fn a_dataset_is_registered_once(world: &World) {
    let city = world.shared();
    let dir = world.folder("register");
    std::fs::create_dir_all(dir.join("datasets")).unwrap();
    std::fs::create_dir_all(dir.join("schemas")).unwrap();
    let yaml = "dataset: ds:court/hearing@1\ntitle: Hearings\nkind: records\nschema: schemas/hearing@1.json\nkey: [id]\nsubject: none\nsensitive: {}\n";
    let file = dir.join("datasets/hearing.yaml");
    std::fs::write(&file, yaml).unwrap();
    put(&dir.join("schemas/hearing@1.json"), SCHEMA);
    let file = file.to_string_lossy().into_owned();
    let register = |agency: &str, more: &[&str]| {
        city.at(agency, &[&["dataset", "register", "--file", &file, "--output", "json"], more].concat())
    };
    // Only its owner does.
    assert!(register("police", &[]).ends(2).problem()["detail"].to_string().contains("court"));
    let first = register("court", &[]).done().json();
    assert!(first["registered"] == "now" && first["operation"].as_str().unwrap().starts_with("op:"), "{first}");
    assert_eq!(register("court", &[]).done().json()["registered"], "before");
    // The ledger has the hash; who does not have the schema is told so, who has it finds it by its hash.
    let show = |agency: &str| {
        until("it is in the catalogue", WITHIN, || {
            let ran = city.at(agency, &["dataset", "show", "ds:court/hearing@1", "--output", "json"]);
            if ran.code == 0 { Ok(ran.json()) } else { Err(ran.err) }
        })
    };
    assert_eq!((&show("police")["schema_known"], &show("police")["fields"]), (&json!(false), &Value::Null));
    let said = city.at("police", &["dataset", "show", "ds:court/hearing@1", "--schema"]).ends(5);
    assert!(said.err.contains("ask court"), "{}", said.err);
    put(&city.dir("police").join("schemas/from-court.json"), SCHEMA);
    assert_eq!(show("police")["schema_known"], true);
    let schema = city.at("police", &["dataset", "show", "ds:court/hearing@1", "--schema", "--output", "json"]).done();
    assert_eq!(schema.json(), serde_json::from_str::<Value>(SCHEMA).unwrap());
    // What is registered never changes.
    put(&dir.join("schemas/hearing@1.json"), &SCHEMA.replace("mw", "kw"));
    let said = register("court", &["--install"]);
    let said = said.ends(6);
    assert!(said.problem()["detail"].to_string().contains("ds:court/hearing@2"), "{said:?}");
    assert!(
        !city.dir("court").join("datasets/hearing@1.yaml").exists(),
        "a document that is not the registered one is not installed"
    );
    let list = city.at("court", &["dataset", "list", "--output", "json"]).done().json();
    let ids: Vec<&str> = list.as_array().unwrap().iter().filter_map(|d| d["dataset"].as_str()).collect();
    assert!(ids.contains(&"ds:court/hearing@1") && ids.contains(&"ds:police/stops@1"), "{ids:?}");
}

pub fn dead_letters_keep_the_original_bytes(world: &World) {
    let city = world.shared();
    // The real traffic file has local times that do not exist; the demo's load refused them.
    let list = city.at("transport", &["dead-letter", "list", "i94", "--output", "json"]).done().json();
    let letters = list.as_array().unwrap();
    assert_eq!(letters.len(), 2, "{list}");
    let one = &letters[0];
    assert_eq!((&one["line"], &one["rule"]), (&json!(3892), &json!("time.nonexistent")), "{one}");
    let id = one["id"].as_str().unwrap();
    let raw = city.at("transport", &["dead-letter", "show", "i94", &id[..10], "--raw"]).done().out;
    assert_eq!(raw, "2017-03-12 02:00:00,,,,,,\n", "as it is in the file");
    // The same over HTTP, for operators only.
    let path = format!("/admin/v1/dead-letters/i94/{id}");
    let shown = city.api("transport", "operator").get(&path).is(200);
    assert_eq!(shown.body["line"], 3892);
    assert!(!shown.body["raw"].as_str().unwrap().is_empty());
    city.api("transport", "clerk").get(&path).is(403);
    city.api("transport", "operator").get("/admin/v1/dead-letters/i94/nothing").is(404);
    city.api("transport", "operator").get("/admin/v1/dead-letters/..%2Fkeys").is(400);
    let all = city.api("transport", "operator").get("/admin/v1/dead-letters").is(200);
    assert_eq!(all.body["adapters"][0]["rules"]["time.nonexistent"], 2, "{}", all.body);
    city.at("transport", &["dead-letter", "show", "i94", "zzzz"]).ends(5);
    city.at("transport", &["dead-letter", "list", "nothing"]).ends(5);
}

pub fn adapters_say_where_they_stand(world: &World) {
    let city = world.shared();
    let tried =
        city.at("transport", &["adapter", "check", "i94", "--rows", "20000", "--output", "json"]).ends(8).json();
    assert_eq!(
        (&tried["good"], &tried["bad"], &tried["rules"]["time.nonexistent"]),
        (&json!(17_518), &json!(2), &json!(2))
    );
    assert_eq!(tried["first_bad"][0]["line"], 3892, "{tried}");
    let tried = city.at("grid", &["adapter", "check", "load", "--rows", "300", "--output", "json"]).done().json();
    assert_eq!((&tried["good"], &tried["warnings"]), (&json!(300), &json!([])), "{tried}");
    let status = || city.at("grid", &["adapter", "status", "load", "--output", "json"]).done().json()[0].clone();
    let before = status();
    city.at("grid", &["adapter", "run", "load", "--pace", "max", "--rows", "10"]).done();
    let after = status();
    assert_eq!(after["batch_no"].as_u64().unwrap(), before["batch_no"].as_u64().unwrap() + 1);
    assert_eq!(after["row"].as_u64().unwrap(), before["row"].as_u64().unwrap() + 10);
    assert_eq!((&after["checkpoint"], &after["mode"]), (&json!("ok"), &json!("publish")));
    city.at("grid", &["adapter", "status", "nothing"]).ends(5);
    let load = stats(city, "ds:grid/load@1");
    assert!(load["adapter"] == "load" && load["stream"]["bytes"].as_u64().unwrap() > 0, "{load}");
    assert!(
        city.at("grid", &["feed", "stats"]).done().out.contains("AGR-2026-0143/F1"),
        "what is delivered under which clause"
    );
}

pub fn a_subscription_lives_from_create_to_delete(world: &World) {
    let (city, feed) = (world.shared(), &feeds(world)[1]);
    FeedAgreement::new("AGR-2026-9751", feed, "transport").activate(city);
    feed.publish(city, 0..20);
    let at =
        |args: &[&str]| city.at("transport", &[&["subscription"], args, &["--output", "ndjson", "--quiet"]].concat());
    let create = [
        "create",
        &feed.id,
        "--name",
        "by-hand",
        "--purpose",
        "purp:test-feed",
        "--from",
        "earliest",
        "--select",
        "n,mw",
        "--where",
        r#"{"zone": "N"}"#,
    ];
    let made = at(&create).done().json();
    let id = made["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    assert_eq!(at(&create).done().json()["id"], id.as_str(), "the same again is the same one");
    at(&["create", &feed.id, "--name", "by-hand", "--purpose", "purp:test-feed", "--select", "n"]).ends(6);
    assert!(at(&["list"]).done().out.contains(&id));
    let messages = |more: &[&str]| {
        let ran = at(&[&["tail", &id, "--max", "5"], more].concat()).done();
        ran.out
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap()["data"]["n"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    let want: Vec<u64> = (0..20).filter(|n| seen(*n)["zone"] == "N").collect();
    assert_eq!(messages(&["--idle", "20"]), want);
    assert_eq!(
        messages(&["--follow", "--ack", "--idle", "20"]),
        want,
        "not acknowledged, so it comes again; as events too"
    );
    assert_eq!(messages(&["--idle", "1"]), Vec::<u64>::new(), "acknowledged");
    at(&["pause", &id]).done();
    assert_eq!(at(&["show", &id]).done().json()["state"], "paused");
    at(&["resume", &id]).done();
    assert_ne!(at(&["show", &id]).done().json()["state"], "paused");
    at(&["seek", &id, "--to", "earliest"]).done();
    assert_eq!(messages(&["--idle", "20"]), want, "read again from the beginning");
    assert_eq!(at(&["dead-letters", &id]).done().out.trim(), "", "nothing was refused");
    at(&["delete", &id]).done();
    at(&["show", &id]).ends(5);
    at(&["show", "grid-999999"]).ends(5);
}

pub fn a_taken_agreement_version_is_named(world: &World) {
    let city = world.shared();
    let file = city.dir("police").join("agreements/AGR-2026-0142.yaml");
    let said =
        city.at("police", &["agreement", "propose", &file.to_string_lossy(), "--output", "json"]).ends(6).problem();
    let detail = said["detail"].to_string();
    assert!(detail.contains("version 1 exists already") && detail.contains("raise version to 2"), "{said}");
}
