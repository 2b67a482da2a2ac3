//! Auditors: a decision is made again and forgeries are told apart; both parties report the same of an agreement.

use crate::World;
use crate::queries::with;
use concordat_tests::harness::{Agreement, City, Feed, SOON, until};
use serde_json::{Value, json};
use std::path::PathBuf;

fn ask(agreement: &Agreement, more: Value) -> Value {
    let body = json!({"dataset": "ds:police/stops@1", "purpose": agreement.purpose, "where": {"stop_id": "17-089556"}});
    with(body, more)
}

fn replayed(city: &City, op: u64, more: &[&str]) -> (i32, Value) {
    let op = format!("op:{op}");
    let line = [&["op", "show", &op, "--replay", "--output", "json"][..], more].concat();
    let ran = city.at("police", &line);
    let shown: Value = serde_json::from_str(ran.out.trim()).unwrap_or_default();
    (ran.code, shown)
}

/// The executor's release store of a node.
fn store(city: &City) -> rusqlite::Connection {
    let db = rusqlite::Connection::open(city.dir("police").join("executor/releases.sqlite")).expect("the store");
    db.busy_timeout(SOON).expect("a timeout");
    db
}

pub fn a_decision_is_made_again_and_a_forged_one_is_told(world: &World) {
    let city = world.shared();
    let agreement = Agreement::new("AGR-2026-9556", "replay-test");
    agreement.activate(city);
    let clerk = city.api("court", "clerk");
    let released = clerk.query(&ask(&agreement, json!({"clause": "AGR-2026-9556/C1"}))).is(200).op();
    let denied = clerk.query(&ask(&agreement, json!({"select": ["race"]}))).is(403).op();
    let totals = json!({"dataset": "ds:police/stops@1", "purpose": "purp:planning", "aggregate": {}});
    let planned = city.api("court", "planner").query(&totals).is(200).op();
    for op in [released, denied, planned] {
        let (code, shown) = replayed(city, op, &[]);
        assert_eq!((code, shown["replay"].as_str()), (0, Some("same")), "{shown}");
        assert!(shown["decided_at_height"].as_u64() < shown["recorded_at_height"].as_u64(), "{shown}");
    }
    let (_, shown) = replayed(city, released, &[]);
    assert_eq!((shown["agreement"].as_str(), shown["version"].as_u64()), (Some("AGR-2026-9556"), Some(1)), "{shown}");
    assert_eq!(shown["rows_hash"].as_str().map(str::len), Some(64), "{shown}");
    // What was decided elsewhere cannot be made again here.
    city.at("court", &["op", "show", &format!("op:{released}"), "--replay"]).ends(5);
    // A provider that rewrites its record, in each way that would matter.
    let db = store(city);
    let read = "SELECT decision FROM release WHERE op_index = ?1";
    let honest: String = db.query_row(read, [released as i64], |r| r.get(0)).unwrap();
    let forge = |from: &str, to: &str| {
        assert!(honest.contains(from), "{from} is not in {honest}");
        let forged = honest.replacen(from, to, 1);
        db.execute("UPDATE release SET decision = ?2 WHERE op_index = ?1", (released as i64, forged)).unwrap();
        let (code, shown) = replayed(city, released, &[]);
        assert_eq!((code, shown["replay"].as_str()), (4, Some("different")), "{from} -> {to}: {shown}");
        shown["term"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(forge("17-089556", "17-000003"), "query");
    assert_eq!(forge("\"clause\":\"C1\"", "\"clause\":\"C2\""), "clause");
    assert_eq!(forge("\"rows\":1", "\"rows\":2"), "rows");
    assert_eq!(forge("\"version\":1", "\"version\":2"), "terms", "the ledger has no such version");
    assert_eq!(forge("clerk", "judge"), "query");
    db.execute("UPDATE release SET decision = ?2 WHERE op_index = ?1", (released as i64, &honest)).unwrap();
    // A document that was changed after it was approved, in another folder and in the node's own.
    let folder: PathBuf = world.folder("changed-documents");
    let wider = agreement.yaml().replace("[stop_id, time,", "[stop_id, time, race,");
    std::fs::write(folder.join("AGR-2026-9556.yaml"), wider).unwrap();
    let (code, shown) = replayed(city, released, &["--documents", folder.to_str().unwrap()]);
    assert_eq!((code, shown["term"].as_str()), (4, Some("document")), "{shown}");
    assert_eq!(replayed(city, released, &[]).0, 0, "the approved one still says the same");
}

/// A report of an agreement over the whole time, at one of its parties.
fn report(city: &City, agency: &str, agreement: &str) -> Value {
    let span = ["--from", "2020-01-01", "--to", "2090-01-01", "--output", "json"];
    let line = [&["agreement", "report", agreement][..], &span].concat();
    city.at(agency, &line).done().json()
}

pub fn both_parties_report_the_same_of_an_agreement(world: &World) {
    let city = world.shared();
    let mut agreement = Agreement::new("AGR-2026-9557", "report-test");
    agreement.duties.push("{type: quota, max: 3, per: day}".into());
    agreement.activate(city);
    let clerk = city.api("court", "clerk");
    let asked = |more: Value| clerk.query(&ask(&agreement, more));
    let mut ops =
        vec![asked(json!({"case": "26-CR-0001"})).is(200).op(), asked(json!({"case": "26-CR-0001"})).is(200).op()];
    ops.push(asked(json!({"case": "26-CR-0002", "limit": 1})).is(200).op());
    ops.push(asked(json!({"select": ["race"]})).is(403).op());
    ops.push(asked(json!({"case": "26-CR-0003"})).is(403).op());
    ops.sort_unstable();
    // A report tells of what a header covers: the newest entry needs one block more.
    let of = |agency: &str| {
        until(&format!("{agency} counts all five"), SOON, || {
            let counted = report(city, agency, &agreement.id)["counted"].clone();
            if counted == 5 { Ok(()) } else { Err(counted.to_string()) }
        });
        report(city, agency, &agreement.id)
    };
    let (provider, consumer) = (of("police"), of("court"));
    for name in ["clauses", "verdicts", "purposes", "cases", "reasons", "rows"] {
        assert_eq!(provider[name], consumer[name], "{name}");
    }
    assert_eq!(provider["clauses"], json!({"C1": {"released": 3, "denied": 1, "refused": 1}}));
    assert_eq!((&provider["verdicts"], &provider["cases"]), (&json!({"accepted": 4, "refused": 1}), &json!(3)));
    assert_eq!(provider["reasons"]["fields"], 1, "{provider}");
    let named: Vec<String> = ops.iter().map(|op| format!("op:{op}")).collect();
    for made in [&provider, &consumer] {
        let list: Vec<&str> =
            made["operations"].as_array().unwrap().iter().map(|o| o["operation"].as_str().unwrap()).collect();
        assert_eq!(list, named);
        proven(made);
    }
    for agency in ["police", "court"] {
        forged_reports_are_refused(world, agency, &agreement.id);
    }
    // Nobody else's: grid is no party.
    assert_eq!(report(city, "grid", &agreement.id)["counted"], 0);
    let text =
        city.at("court", &["agreement", "report", &agreement.id, "--from", "2020-01-01", "--to", "2090-01-01"]).done();
    assert!(text.out.contains("5 operations, 3 rows released, 3 cases"), "{}", text.out);
    let before =
        city.at("court", &["agreement", "report", &agreement.id, "--from", "2020-01-01", "--to", "2020-01-02"]).done();
    assert!(before.out.contains("0 operations"), "{}", before.out);
    city.at("court", &["agreement", "report", &agreement.id, "--from", "soon", "--to", "2090-01-01"]).ends(2);
    city.at("court", &["agreement", "report", "AGR-2026-0000", "--from", "2020-01-01", "--to", "2090-01-01"]).ends(5);
}

/// What a feed delivered stands in its provider's report, by the ledger's own operations; and nothing of it in the consumer's.
pub fn a_provider_s_report_counts_its_feeds(world: &World) {
    let city = world.shared();
    let messages = || report(city, "grid", "AGR-2026-0143")["feeds"]["messages"].as_u64().expect("a number");
    let before = messages();
    // Rows of its own: the demo's file may have been published to its end by now.
    let schema = std::fs::read(city.dir("grid").join("schemas/load@1.json")).unwrap();
    let schema: Value = serde_json::from_slice(&schema).unwrap();
    let row = |minute: u64| -> Value {
        let names = schema["properties"].as_object().unwrap().keys();
        let time = format!("2015-01-01T00:{minute:02}:00Z");
        names.map(|name| (name.clone(), json!(if name == "time" { &time } else { "0.5" }))).collect()
    };
    let rows: Vec<Value> = (0..30).map(row).collect();
    let answer = Feed::named("grid", "load").post(city, &rows, &[]).is(200);
    assert_eq!(answer.body["accepted"], 30, "{}", answer.body);
    until("the messages are delivered and counted", SOON, || match messages() - before {
        30 => Ok(()),
        counted => Err(format!("{counted} of 30")),
    });
    let made = report(city, "grid", "AGR-2026-0143");
    let deliveries = made["operations"].as_array().unwrap().iter().filter(|o| o["outcome"] == "delivered");
    let sum: u64 = deliveries.map(|o| o["deliveries"].as_u64().unwrap()).sum();
    assert_eq!(made["feeds"]["deliveries"], sum, "{made}");
    assert!(made["clauses"].to_string().contains("delivered") && made["withheld"] == 0, "{}", made["clauses"]);
    proven(&made);
    assert_eq!(report(city, "transport", "AGR-2026-0143")["feeds"], Value::Null);
    let folder = world.folder("report-feeds");
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (file, trust) = (path("r.json"), path("trust.json"));
    city.at("court", &["trust", "export", &trust]).done();
    let verify = |r: &Value| {
        std::fs::write(&file, r.to_string()).unwrap();
        city.run(&["verify", "report", &file, "--trust", &trust, "--output", "json"])
    };
    verify(&made).done();
    let mut forged = made;
    let one = forged["operations"].as_array_mut().unwrap().iter_mut().find(|o| o["outcome"] == "delivered").unwrap();
    let more = one["messages"].as_u64().unwrap() + 1;
    one["messages"] = json!(more);
    assert_eq!(verify(&forged).ends(4).json()["check"], "commitment");
}

/// A report as a file proves itself elsewhere, and one that was changed does not.
fn forged_reports_are_refused(world: &World, agency: &str, agreement: &str) {
    let (city, folder) = (world.shared(), world.folder(&format!("report-{agency}")));
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (file, trust, forged) = (path("r.json"), path("trust.json"), path("forged.json"));
    let span = ["--from", "2020-01-01", "--to", "2090-01-01", "--file", &file];
    city.at(agency, &[&["agreement", "report", agreement][..], &span].concat()).done();
    city.at("grid", &["trust", "export", &trust]).done();
    let verify = |file: &str| city.run(&["verify", "report", file, "--trust", &trust, "--output", "json"]);
    let found = verify(&file).done().json();
    assert_eq!((&found["valid"], &found["counted"]), (&json!(true), &json!(5)), "{found}");
    // A consumer is not given what opens a denial.
    assert_eq!(found["opened"], if agency == "police" { 5 } else { 3 }, "{found}");
    let honest: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let forge = |pointer: &str, value: Value| {
        let mut r = honest.clone();
        *r.pointer_mut(pointer).unwrap() = value;
        std::fs::write(&forged, r.to_string()).unwrap();
        verify(&forged).ends(4).json()["check"].as_str().unwrap().to_owned()
    };
    assert_eq!(forge("/rows", json!(0)), "counts");
    assert_eq!(forge("/operations/0/case", json!("26-CR-9999")), "commitment");
    assert_eq!(forge("/operations/0/verdict", json!("refused")), "entry");
    assert_eq!(forge("/operations", json!([])), "entry");
    assert_eq!(forge("/to_ms", honest["operations"][1]["tick_ms"].clone()), "span");
}

/// Follows every path to the log's root and the roots to the app hash, by the formats of the protocol alone.
fn proven(report: &Value) {
    use concordat_protocol::node::StoreRoots;
    use concordat_protocol::receipt::{Path, app_hash};
    use concordat_protocol::tree::value_leaf;
    let proof = &report["proof"];
    let hash = |v: &Value| -> [u8; 32] { hex::decode(v.as_str().unwrap()).unwrap().try_into().unwrap() };
    let root = |name: &str| hash(&proof["roots"][name]);
    let roots = StoreRoots { heads: root("heads"), log: root("log"), meta: root("meta"), runs: root("runs") };
    assert_eq!(app_hash(&roots), hash(&proof["app_hash"]));
    let entries = proof["entries"].as_array().unwrap();
    assert_eq!(entries.len(), report["operations"].as_array().unwrap().len());
    for e in entries {
        let index: u64 = e["operation"].as_str().unwrap().strip_prefix("op:").unwrap().parse().unwrap();
        let hashes = e["hashes"].as_array().unwrap().iter().map(&hash).collect();
        let path = Path { sides: e["sides"].as_u64().unwrap(), hashes };
        let bytes = hex::decode(e["entry"].as_str().unwrap()).unwrap();
        assert_eq!(path.root(&value_leaf(&index.to_be_bytes(), &bytes)).unwrap(), roots.log, "op:{index}");
    }
}
