//! Who looked at a person's records, with proof; and forgetting the person.

use crate::World;
use crate::queries::{day, with};
use concordat_protocol::cbor;
use concordat_protocol::codes::Verdict;
use concordat_protocol::ops::{Op, Tx};
use concordat_tests::harness::{Agreement, Answer, City, Feed, Ran, SOON, put, until, wait};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const STOPS: &str = "ds:police/stops@1";
/// A run closes every 5 s, comes into state, and a checkpoint over it is cosigned every 5 s.
const COVERED: Duration = Duration::from_secs(90);

fn index(op: &str) -> u64 {
    op.strip_prefix("op:").and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{op}"))
}

fn asked(city: &City, dataset: &str, subject: &str) -> Answer {
    let body = json!({"dataset": dataset, "subject": subject}).to_string().into_bytes();
    city.api("police", "operator").post_bytes("/admin/v1/subjects/log", "application/json", body)
}

/// The list, once it covers an operation.
pub fn covered(city: &City, dataset: &str, subject: &str, op: u64) -> Value {
    // A run closes with a later entry and comes into state with one after that: so somebody goes on asking, about nobody.
    let public = json!({"dataset": "ds:transport/i94@1", "purpose": "purp:public-information", "limit": 1,
        "where": {"time": {"range": {"from": "2017-02-01T00:00:00Z", "to": "2017-02-01T06:00:00Z"}}}});
    let court = city.api("court", "clerk");
    until(&format!("the list covers op:{op}"), COVERED, || {
        court.query(&public);
        let list = asked(city, dataset, subject);
        match list.body["complete_to"]["log_index"].as_u64() {
            Some(end) if list.status == 200 && end > op => Ok(list.body),
            _ => Err(list.body),
        }
    })
}

/// (operation, kind, disclosed) of every access of a list.
pub fn accesses(list: &Value) -> Vec<(u64, String, bool)> {
    let all = list["accesses"].as_array().unwrap_or_else(|| panic!("{list}"));
    let one = |a: &Value| {
        let kind = a["kind"].as_str().unwrap_or_default().to_owned();
        (index(a["operation"].as_str().unwrap_or_default()), kind, a["disclosed"] == true)
    };
    all.iter().map(one).collect()
}

/// Writes the proof and verifies it in a process of its own that has nothing but it and trust.json.
fn proven(world: &World, folder: &Path, subject: &str) -> Value {
    let city = world.shared();
    std::fs::copy(city.root.join("trust.json"), folder.join("trust.json")).unwrap();
    let file = folder.join("person.list");
    let to = file.to_str().unwrap();
    city.at("police", &["subject", "proof", "--dataset", STOPS, "--subject", subject, "--out", to]).done();
    let found = verify(city, folder, "person.list").done().json();
    assert_eq!(found["valid"], true, "{found}");
    // A byte changed is found.
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(folder.join("forged.list"), bytes).unwrap();
    verify(city, folder, "forged.list").ends(4);
    found
}

pub fn verify(city: &City, folder: &Path, file: &str) -> Ran {
    let mut command = Command::new(&city.program);
    command.args(["verify", "list", file, "--trust", "trust.json", "--output", "json"]);
    Ran::of(command.current_dir(folder).env_clear())
}

pub fn shown(found: &Value) -> Vec<u64> {
    let all = found["accesses"].as_array().cloned().unwrap_or_default();
    let about = |a: &&Value| !matches!(a["state"].as_str(), Some("maybe" | "not-included"));
    all.iter().filter(about).map(|a| index(a["operation"].as_str().unwrap_or_default())).collect()
}

pub fn a_list_is_complete_and_nobody_is_proven(world: &World) {
    let city = world.shared();
    let agreement = Agreement::new("AGR-2026-9551", "who-looked");
    agreement.activate(city);
    let court = city.api("court", "clerk");
    let ask = json!({"dataset": STOPS, "purpose": agreement.purpose, "case": "26-WL-1", "limit": 1000, "where": {}});
    // All stops of a day that no other test asks for.
    let of_day = with(ask.clone(), json!({"where": day("2017-11-05", "2017-11-06"), "select": ["time", "problem"]}));
    let by_day = court.query(&of_day).is(200);
    let rows = court.query(&with(of_day, json!({"select": ["stop_id"], "limit": 2}))).is(200);
    let id = |n: usize| rows.rows()[n]["stop_id"].as_str().unwrap().to_owned();
    let (subject, other) = (id(0), id(1));
    assert!(by_day.rows()[0].get("stop_id").is_none(), "the subject's field is read, not shown");
    let by_id = court.query(&with(ask.clone(), json!({"where": {"stop_id": subject}}))).is(200);
    let profiling = with(ask.clone(), json!({"purpose": "purp:profiling", "where": {"stop_id": subject}}));
    let denied = court.query(&profiling).is(403);
    let list = covered(city, STOPS, &subject, denied.op());
    let want = [(by_day.op(), true), (rows.op(), true), (by_id.op(), true), (denied.op(), false)];
    let got: Vec<(u64, bool)> = accesses(&list).into_iter().map(|(op, _, disclosed)| (op, disclosed)).collect();
    assert_eq!(got, want, "{list}");
    assert_eq!((list["complete"].as_bool(), list["may_include"].as_u64()), (Some(true), Some(0)), "{list}");
    let last = &list["accesses"][2];
    assert_eq!((last["consumer"].as_str(), last["case"].as_str()), (Some("court"), Some("26-WL-1")), "{last}");
    assert_eq!(last["sentence"], "The tests may look up stops.");
    assert_eq!(last["clause"], "AGR-2026-9551/C1");
    // The other one came twice with its day.
    let theirs: Vec<u64> = accesses(&asked(city, STOPS, &other).is(200).body).iter().map(|a| a.0).collect();
    assert_eq!(theirs, [by_day.op(), rows.op()]);
    let folder = world.folder("who-looked");
    assert_eq!(shown(&proven(world, &folder, &subject)), want.map(|w| w.0));
    // Somebody whom nobody asked for, and somebody of whom there is no record.
    for nobody in ["17-412001-none", "17-412002-none"] {
        let list = asked(city, STOPS, nobody).is(200).body;
        assert!(accesses(&list).is_empty() && list["complete"] == true, "{list}");
        assert!(shown(&proven(world, &folder, nobody)).is_empty());
    }
    // Asked for by name, without a row: it counts.
    let missing = court.query(&with(ask, json!({"where": {"stop_id": {"in": ["17-412002-none"]}}}))).is(200);
    assert!(missing.rows().is_empty());
    let list = covered(city, STOPS, "17-412002-none", missing.op());
    assert_eq!(accesses(&list).iter().map(|a| a.0).collect::<Vec<_>>(), [missing.op()]);
    // Who may ask, and of what.
    let body = || json!({"dataset": STOPS, "subject": subject}).to_string().into_bytes();
    for (agency, user, status) in [("police", "clerk", 403), ("court", "operator", 404)] {
        let said = city.api(agency, user).post_bytes("/admin/v1/subjects/log", "application/json", body());
        assert_eq!(said.status, status, "{agency}/{user}: {}", said.body);
    }
    for agency in ["police", "court"] {
        for process in ["broker", "executor"] {
            let log = city.log(agency, process);
            assert!(
                !log.contains(&subject) && !log.contains("17-412002-none"),
                "{agency}'s {process} log names a person"
            );
        }
    }
}

pub fn a_sealed_access_is_counted_and_opens_on_its_date(world: &World) {
    let city = world.shared();
    let mut agreement = Agreement::new("AGR-2026-9552", "sealed-inquiry");
    agreement.duties.push("{type: seal-access, for: 40s}".into());
    agreement.activate(city);
    let subject = "17-412003-none";
    let body =
        json!({"dataset": STOPS, "purpose": agreement.purpose, "case": "26-SE-9", "where": {"stop_id": subject}});
    let op = city.api("court", "clerk").query(&body).is(200).op();
    let list = covered(city, STOPS, subject, op);
    assert!(accesses(&list).is_empty() && list["sealed"]["count"] == 1, "{list}");
    assert!(!list.to_string().contains("26-SE-9") && !list.to_string().contains("court"), "{list}");
    let opens = list["sealed"]["entries"][0]["opens_ms"].as_u64().unwrap();
    let folder = world.folder("sealed");
    let found = proven(world, &folder, subject);
    assert_eq!(shown(&found), [op], "a sealed access is on the list");
    assert_eq!(found["accesses"][0]["state"], "sealed", "{found}");
    let list = until("the access is opened", Duration::from_secs(80), || {
        let list = asked(city, STOPS, subject).is(200).body;
        if accesses(&list).is_empty() { Err(list) } else { Ok(list) }
    });
    assert!(city.tick_ms() >= opens, "not before its date");
    assert_eq!(list["accesses"][0]["case"], "26-SE-9", "{list}");
    assert_eq!(proven(world, &folder, subject)["accesses"][0]["state"], "open");
}

/// What the executor of police has on the ledger from an index on: accepted queries.
fn accepted_queries(city: &City, from: u64) -> Vec<u64> {
    let entries = wait(city.node("police").log(from, 10_000)).expect("the log");
    let rpc = city.rpc("police");
    let mut found = Vec::new();
    for (at, e) in (from..).zip(&entries) {
        if e.writer != "police/executor" || e.verdict != Verdict::Accepted {
            continue;
        }
        let ops = rpc.block(e.height).into_iter().filter_map(|tx| match cbor::decode::<Tx>(&tx) {
            Ok(Tx::Batch { body, .. }) => cbor::decode::<concordat_protocol::ops::Batch>(&body).ok(),
            _ => None,
        });
        let op = ops.flat_map(|b| b.ops).find(|op| op.hash() == e.op_hash);
        if matches!(op, Some(Op::Query { .. })) {
            found.push(at);
        }
    }
    found
}

pub fn a_killed_executor_leaves_no_access_out(world: &World) {
    let city = world.shared();
    let agreement = Agreement::new("AGR-2026-9553", "killed");
    agreement.activate(city);
    let subject = "17-412004-none";
    let body = json!({"dataset": STOPS, "purpose": agreement.purpose, "case": "x", "where": {"stop_id": subject}});
    let from = city.log_size("police");
    let mut released = Vec::new();
    // Before, while and after the operations are on their way to the ledger.
    for after_ms in [20, 60, 120, 250] {
        let executor = city.process("police", "executor");
        let court = city.api("court", "clerk");
        let answers = wait(async {
            let asking = (0..12).map(|_| async { court.query_async(&body, &[]).await });
            let killing = async {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                executor.0.kill_hard();
            };
            let (answers, ()) = tokio::join!(futures::future::join_all(asking), killing);
            answers
        });
        released.extend(answers.iter().filter(|a| a.status == 200).map(Answer::op));
        city.another("police", "executor", executor);
        city.wait_up("police");
    }
    // One more, so that there is an end to wait for.
    let last = until("the provider answers again", SOON, || {
        let answer = city.api("court", "clerk").query(&body);
        if answer.status == 200 { Ok(answer.op()) } else { Err(answer.body) }
    });
    released.push(last);
    let list = covered(city, STOPS, subject, last);
    let (on_list, disclosed): (Vec<u64>, Vec<u64>) =
        (accesses(&list).iter().map(|a| a.0).collect(), accesses(&list).iter().filter(|a| a.2).map(|a| a.0).collect());
    let on_ledger: Vec<u64> = accepted_queries(city, from).into_iter().filter(|i| *i <= last).collect();
    assert_eq!(on_list, on_ledger, "every accepted operation is on the list");
    assert!(released.iter().all(|op| disclosed.contains(op)), "released {released:?}, disclosed {disclosed:?}");
    println!("    {} accepted, {} of them released to the court", on_ledger.len(), released.len());
}

const PERSONS: &str = "ds:police/persons@1";
const CANARY: &str = "canary-person-7f3a91c2e5";

/// A dataset of persons with one of them nowhere else, and an agreement about it.
fn persons(city: &City) -> String {
    let dir = city.dir("police");
    put(
        &dir.join("schemas/persons@1.json"),
        r#"{"type":"object","properties":{"person_no":{"type":"string"},"name":{"type":"string"}},"required":["person_no"],"additionalProperties":false}"#,
    );
    put(
        &dir.join("datasets/persons.yaml"),
        "dataset: ds:police/persons@1\ntitle: Persons\nkind: records\nschema: schemas/persons@1.json\nkey: [person_no]\n\
         subject: {field: person_no, role: principal}\nsensitive: {}\n",
    );
    let mut csv = "person_no,name\n".to_owned();
    (0..300).for_each(|n| csv.push_str(&format!("p-{n},Somebody {n}\n")));
    csv.push_str(&format!("{CANARY},The name of {CANARY}\n"));
    put(&dir.join("data/persons.csv"), &csv);
    put(
        &dir.join("adapters/persons.yaml"),
        "adapter: persons\nkind: file\npath: data/persons.csv\nformat: {csv: {columns: [person_no, name]}}\n\
         into: ds:police/persons@1\nmap: {person_no: {type: string}, name: {type: string}}\nkey: [person_no]\n",
    );
    Feed::reload(city, "police");
    let file = dir.join("datasets/persons.yaml").to_string_lossy().into_owned();
    city.at("police", &["dataset", "register", "--file", &file]).done();
    city.at("police", &["adapter", "load", "persons"]).done();
    let agreement = Agreement::new("AGR-2026-9554", "erasure");
    let text = agreement.yaml().replace(STOPS, PERSONS);
    let text = text.replace("[stop_id, time, problem, citation_issued, neighborhood]", "[person_no, name]");
    for agency in ["police", "court"] {
        put(&city.dir(agency).join("agreements/AGR-2026-9554.yaml"), &text);
    }
    let path = dir.join("agreements/AGR-2026-9554.yaml").to_string_lossy().into_owned();
    city.at("police", &["agreement", "propose", &path]).done();
    agreement.reaches(city, "court", "proposed");
    for (agency, role) in [("police", "legal"), ("police", "data-steward"), ("court", "legal")] {
        city.at(agency, &["agreement", "approve", &agreement.id, "--role", role]).done();
    }
    agreement.reaches(city, "court", "active");
    agreement.reaches(city, "police", "active");
    agreement.purpose
}

/// A text and its usual disguises.
fn disguises(word: &str) -> Vec<Vec<u8>> {
    use base64::Engine;
    let engine = base64::engine::general_purpose::STANDARD;
    let mut all = vec![word.as_bytes().to_vec(), hex::encode(word).into_bytes(), hex::encode_upper(word).into_bytes()];
    // Base64 looks different at each of three places; what depends on the neighbours is cut off.
    for lead in 0..3 {
        let text = engine.encode([vec![b'x'; lead], word.as_bytes().to_vec()].concat());
        let (from, to) = ([0, 2, 3][lead], text.trim_end_matches('=').len() - 2);
        all.push(text.as_bytes()[from..to].to_vec());
    }
    all
}

/// Files of the city that hold the canary, but for the source.
fn traces(city: &City) -> Vec<String> {
    let (words, source) = (disguises(CANARY), city.dir("police").join("data/persons.csv"));
    let (mut todo, mut found): (Vec<PathBuf>, Vec<String>) = (vec![city.root.clone()], vec![]);
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(k) if k.is_dir() => todo.push(path),
                Ok(k) if k.is_file() && path != source => {
                    let bytes = std::fs::read(&path).unwrap_or_default();
                    let has = |w: &Vec<u8>| bytes.windows(w.len()).any(|b| b == w.as_slice());
                    if words.iter().any(has) {
                        found.push(path.display().to_string());
                    }
                }
                _ => {}
            }
        }
    }
    found
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub fn an_erased_person_is_nowhere_and_stays_so_after_a_restore(world: &World) {
    let city = world.shared();
    let purpose = persons(city);
    let court = city.api("court", "clerk");
    let body = json!({"dataset": PERSONS, "purpose": purpose, "case": "26-ER-1", "where": {"person_no": CANARY}});
    let answer = court.query_with(&body, &[("idempotency-key", "erasure-1")]).is(200);
    assert_eq!(answer.rows().len(), 1);
    let op = answer.op();
    // A second one with its neighbours, which are not to be forgotten.
    let all = json!({"dataset": PERSONS, "purpose": purpose, "case": "26-ER-2", "limit": 1000, "where": {}});
    let wide = court.query(&all).is(200).op();
    let folder = world.folder("erasure");
    std::fs::copy(city.root.join("trust.json"), folder.join("trust.json")).unwrap();
    let receipt = folder.join("op.receipt");
    city.run(&["--context", "court/clerk", "op", "receipt", &format!("op:{op}"), "--file", receipt.to_str().unwrap()])
        .done();
    let list = covered(city, PERSONS, CANARY, wide);
    assert_eq!(accesses(&list).iter().map(|a| a.0).collect::<Vec<_>>(), [op, wide]);
    assert!(!traces(city).is_empty(), "the search finds what is there");
    // A backup of the provider's executor, made while nothing runs.
    city.run(&["demo", "stop", "--quiet"]).done();
    let backup = folder.join("executor-backup");
    copy_dir(&city.dir("police").join("executor"), &backup);
    city.run(&["demo", "up", "--quiet"]).done();
    city.wait_up("police");
    city.wait_up("court");

    let forget = ["subject", "erase", "--dataset", PERSONS, "--subject", CANARY];
    city.at("police", &forget).ends(2);
    let done = city.at("police", &[&forget[..], &["--yes", "--output", "json"]].concat()).done().json();
    assert_eq!(done["operations"], json!([format!("op:{op}"), format!("op:{wide}")]), "{done}");
    assert_eq!(done["records"], 1, "{done}");
    until("no file of the city holds the canary", SOON, || {
        let left = traces(city);
        if left.is_empty() { Ok(()) } else { Err(left.join(" ")) }
    });
    let said = asked(city, PERSONS, CANARY);
    assert_eq!((said.status, said.text("code").as_str()), (410, "subject-erased"), "{}", said.body);
    // Others keep their list: the operation stands on it, without what opened it.
    let list = asked(city, PERSONS, "p-7").is(200).body;
    assert_eq!(accesses(&list).iter().map(|a| a.0).collect::<Vec<_>>(), [wide], "{list}");
    assert_eq!(list["accesses"][0]["erased"], true, "{list}");
    // The consumer forgot, too; what was exported before still verifies.
    let again = city.run(&["--context", "court/clerk", "op", "receipt", &format!("op:{op}"), "--file", "/dev/null"]);
    assert!(again.code != 0 && again.err.contains("erased"), "{again:?}");
    let mut command = Command::new(&city.program);
    command.args(["verify", "receipt", "op.receipt", "--trust", "trust.json", "--output", "json"]);
    let found = Ran::of(command.current_dir(&folder).env_clear()).done().json();
    assert!(found["valid"] == true && found["operation"] == format!("op:{op}"), "{found}");

    // The backup comes back with everything in it: it is forgotten again before anything is served.
    city.run(&["demo", "stop", "--quiet"]).done();
    let executor = city.dir("police").join("executor");
    // All but the writer's journal, which must never go back.
    for entry in std::fs::read_dir(&executor).unwrap().flatten() {
        if !entry.file_name().to_string_lossy().starts_with("writer.") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    for entry in std::fs::read_dir(&backup).unwrap().flatten() {
        if !entry.file_name().to_string_lossy().starts_with("writer.") {
            std::fs::copy(entry.path(), executor.join(entry.file_name())).unwrap();
        }
    }
    assert!(!traces(city).is_empty(), "the backup holds it");
    city.run(&["demo", "up", "--quiet"]).done();
    city.wait_up("police");
    assert_eq!(traces(city), Vec::<String>::new(), "after the restore");
    let said = asked(city, PERSONS, CANARY);
    assert_eq!((said.status, said.text("code").as_str()), (410, "subject-erased"), "{}", said.body);
    assert!(court.query(&body).is(200).rows().is_empty());
}
