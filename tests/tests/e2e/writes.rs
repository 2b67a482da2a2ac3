//! The court writes records that the police hold: once, by version, within the clause, and on the ledger before and after.

use crate::World;
use crate::kills::{Random, number};
use concordat_tests::harness::{Agreement, Answer, City, Feed, SOON, put, until, wait};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// A dataset of cases of the police, and an agreement under which the court's clerks write them.
pub struct Cases {
    pub dataset: String,
    pub agreement: Agreement,
}

impl Cases {
    pub fn new(city: &City, name: &str, id: &str) -> Self {
        let dataset = format!("ds:police/{name}@1");
        let dir = city.dir("police");
        put(
            &dir.join(format!("schemas/{name}@1.json")),
            r#"{"type":"object","properties":{"case_no":{"type":"string"},"precinct":{"type":"string"},"state":{"type":"string","enum":["open","closed"]},"note":{"type":"string"},"secret":{"type":"string"}},"required":["case_no","precinct"],"additionalProperties":false}"#,
        );
        put(
            &dir.join(format!("datasets/{name}.yaml")),
            &format!(
                "dataset: {dataset}\ntitle: Cases\nkind: records\nschema: schemas/{name}@1.json\nkey: [case_no]\n\
                 subject: {{field: case_no, role: principal}}\nsensitive: {{}}\nwritable: true\n"
            ),
        );
        put(
            &dir.join(format!("data/{name}.csv")),
            "case_no,precinct,state,note,secret\nk-1,1,open,first,s1\nk-2,1,open,second,s2\nk-9,9,open,hidden,s9\n",
        );
        let columns = "case_no: {type: string}, precinct: {type: string}, state: {type: string}, note: {type: string}, secret: {type: string}";
        put(
            &dir.join(format!("adapters/{name}.yaml")),
            &format!(
                "adapter: {name}\nkind: file\npath: data/{name}.csv\n\
                 format: {{csv: {{columns: [case_no, precinct, state, note, secret]}}}}\n\
                 into: {dataset}\nmap: {{{columns}}}\nkey: [case_no]\n"
            ),
        );
        Feed::reload(city, "police");
        let file = dir.join(format!("datasets/{name}.yaml")).to_string_lossy().into_owned();
        city.at("police", &["dataset", "register", "--file", &file]).done();
        city.at("police", &["adapter", "load", name]).done();
        let agreement = Agreement::new(id, name);
        let text = agreement.yaml().replace("ds:police/stops@1", &dataset);
        let text = text.replace("actions: [query]", "actions: [query, insert, modify]");
        let open = "[case_no, precinct, state, note]}\n  - {type: row-filter, where: {precinct: {in: [\"1\", \"2\"]}}}";
        let text = text.replace("[stop_id, time, problem, citation_issued, neighborhood]}", open);
        for agency in ["police", "court"] {
            put(&city.dir(agency).join(format!("agreements/{id}.yaml")), &text);
        }
        let path = dir.join(format!("agreements/{id}.yaml")).to_string_lossy().into_owned();
        city.at("police", &["agreement", "propose", &path]).done();
        agreement.reaches(city, "court", "proposed");
        for (agency, role) in [("police", "legal"), ("police", "data-steward"), ("court", "legal")] {
            city.at(agency, &["agreement", "approve", id, "--role", role]).done();
        }
        agreement.reaches(city, "court", "active");
        agreement.reaches(city, "police", "active");
        Self { dataset, agreement }
    }

    pub fn path(&self, key: &str) -> String {
        let key = if key.is_empty() { String::new() } else { format!("/{key}") };
        format!("/v1/datasets/{}/records{key}", self.dataset.replace('/', "%2F"))
    }

    /// A record as the court sees it, with its version.
    pub fn record(&self, city: &City, key: &str) -> Option<Value> {
        let body = json!({"dataset": self.dataset, "purpose": self.agreement.purpose, "include": ["version"],
            "where": {"case_no": {"eq": key}}});
        city.api("court", "clerk").query(&body).is(200).rows().first().cloned()
    }

    pub fn version(&self, city: &City, key: &str) -> String {
        let row = self.record(city, key).unwrap_or_else(|| panic!("no record {key}"));
        row["@version"].as_str().expect("a version").to_owned()
    }

    pub fn write(&self, city: &City, method: &str, key: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let mut all = vec![("concordat-purpose", self.agreement.purpose.as_str())];
        all.extend(headers);
        let body = Some(&body).filter(|b| !b.is_null());
        city.api("court", "clerk").write(method, &self.path(key), &all, body)
    }

    pub fn modify(&self, city: &City, key: &str, version: &str, patch: Value) -> Answer {
        self.write(city, "PATCH", key, &[("if-match", &quoted(version))], patch)
    }
}

fn quoted(version: &str) -> String {
    if version == "*" { "*".into() } else { format!("\"{version}\"") }
}

fn outcome(answer: &Answer) -> u64 {
    answer.text("outcome").trim_start_matches("op:").parse().expect("an outcome")
}

pub fn a_record_is_changed_under_an_agreement(world: &World) {
    let city = world.shared();
    let cases = Cases::new(city, "cases", "AGR-2026-9541");
    let seen = cases.record(city, "k-1").expect("a record");
    assert_eq!((&seen["note"], &seen["secret"]), (&json!("first"), &Value::Null));
    let version = seen["@version"].as_str().expect("a version").to_owned();
    let done = cases.modify(city, "k-1", &version, json!({"state": "closed", "note": null})).is(200);
    let now = cases.record(city, "k-1").expect("a record");
    assert_eq!((&now["state"], &now["note"], &now["precinct"]), (&json!("closed"), &Value::Null, &json!("1")));
    assert_eq!(now["@version"], done.body["version"], "the answer tells the version as a query does");
    assert_ne!(now["@version"], json!(version));
    // Intent and outcome stand on the ledger of both.
    for agency in ["police", "court"] {
        for op in [done.op(), outcome(&done)] {
            let entry = city.entry(agency, op);
            assert_eq!((entry.verdict.word(), entry.writer.as_str()), ("accepted", "police/executor"), "{agency} {op}");
        }
        let shown =
            city.at(agency, &["op", "show", &format!("op:{}", outcome(&done)), "--output", "json"]).done().json();
        assert_eq!(shown["verdict"], "accepted");
    }
    let intent = format!("op:{}", done.op());
    let shown = city.run(&["--context", "court/clerk", "op", "show", &intent, "--output", "json"]).done().json();
    assert_eq!(shown["request"]["outcome"], "written", "{shown}");
    assert_eq!(shown["request"]["why"]["outcome"], done.body["outcome"], "{shown}");
    // The provider's decision is made again, and so is a denial's; a forged record is told.
    let replayed = |op: u64| city.at("police", &["op", "show", &format!("op:{op}"), "--replay", "--output", "json"]);
    assert_eq!(replayed(done.op()).done().json()["replay"], "same");
    let denied = cases.modify(city, "k-2", "*", json!({"secret": "mine"})).is(403);
    let shown = replayed(denied.op()).done().json();
    assert_eq!((&shown["replay"], &shown["decision"]), (&json!("same"), &json!("denied: fields")), "{shown}");
    let conflict = cases.modify(city, "k-2", &version, json!({"note": "late"})).is(412);
    assert_eq!(replayed(conflict.op()).done().json()["replay"], "same", "the terms permit it, the record does not");
    let receipt = world.folder("write-receipt").join("op.receipt");
    let file = receipt.to_string_lossy().into_owned();
    city.run(&["--context", "court/clerk", "op", "receipt", &intent, "--file", &file]).done();
    // By the command line, too; what comes from it can be deleted by nobody: no clause permits it.
    let data = world.folder("write-data").join("record.json");
    put(&data, r#"{"case_no": "k-3", "precinct": "2", "state": "open"}"#);
    let data = data.to_string_lossy().into_owned();
    let under = ["--purpose", &cases.agreement.purpose, "--output", "json"];
    let line =
        [&["--context", "court/clerk", "record", "insert", &cases.dataset, "--data", &data][..], &under].concat();
    let inserted = city.run(&line).done().json();
    assert_eq!(inserted["key"], "k-3", "{inserted}");
    assert_eq!(cases.record(city, "k-3").expect("a record")["@version"], inserted["version"]);
    city.run(&line).ends(6);
    let delete = ["--context", "court/clerk", "record", "delete", &cases.dataset, "--key", "k-3", "--if-match", "*"];
    city.run(&[&delete[..], &under].concat()).ends(3);
}

pub fn what_no_clause_permits_changes_nothing(world: &World) {
    let city = world.shared();
    let cases = Cases::new(city, "denied-cases", "AGR-2026-9542");
    let version = cases.version(city, "k-1");
    let denied = |answer: Answer, reason: &str| {
        let answer = answer.is(403);
        assert_eq!(answer.text("reason"), reason, "{}", answer.body);
        let entry = city.entry("court", answer.op());
        assert_eq!(entry.verdict.word(), "accepted", "the denial is on the ledger");
    };
    denied(cases.modify(city, "k-1", &version, json!({"secret": "x"})), "fields");
    denied(cases.write(city, "DELETE", "k-1", &[("if-match", "*")], Value::Null), "action");
    denied(cases.modify(city, "k-1", &version, json!({"precinct": "9"})), "row-filter");
    denied(cases.write(city, "POST", "", &[], json!({"case_no": "k-4", "precinct": "9"})), "row-filter");
    let other = [("if-match", "*"), ("concordat-purpose", "purp:curiosity")];
    let headers = [("concordat-purpose", "purp:curiosity"), other[0]];
    denied(
        city.api("court", "clerk").write("PATCH", &cases.path("k-1"), &headers, Some(&json!({"note": "x"}))),
        "purpose",
    );
    // Without the permission of its own document no dataset is written, whatever an agreement says.
    let stops = Agreement::new("AGR-2026-9543", "unwritable");
    let text = stops.yaml().replace("actions: [query]", "actions: [query, modify]");
    for agency in ["police", "court"] {
        put(&city.dir(agency).join("agreements/AGR-2026-9543.yaml"), &text);
    }
    let path = city.dir("police").join("agreements/AGR-2026-9543.yaml").to_string_lossy().into_owned();
    city.at("police", &["agreement", "propose", &path]).done();
    stops.reaches(city, "court", "proposed");
    for (agency, role) in [("police", "legal"), ("police", "data-steward"), ("court", "legal")] {
        city.at(agency, &["agreement", "approve", &stops.id, "--role", role]).done();
    }
    stops.reaches(city, "police", "active");
    let headers = [("concordat-purpose", stops.purpose.as_str()), ("if-match", "*")];
    let path = "/v1/datasets/ds:police%2Fstops@1/records/17-089556";
    denied(
        city.api("court", "clerk").write("PATCH", path, &headers, Some(&json!({"problem": "none"}))),
        "not-writable",
    );
    // Conflicts and mistakes.
    let conflict = |answer: Answer| assert_eq!(answer.is(412).text("code"), "conflict");
    conflict(cases.modify(city, "k-1", &"0".repeat(32), json!({"note": "x"})));
    conflict(cases.modify(city, "k-7", "*", json!({"note": "x"})));
    conflict(cases.modify(city, "k-9", "*", json!({"note": "x"})));
    conflict(cases.write(city, "POST", "", &[], json!({"case_no": "k-1", "precinct": "1"})));
    assert_eq!(
        cases.write(city, "PATCH", "k-1", &[], json!({"note": "x"})).is(428).text("code"),
        "precondition-required"
    );
    for patch in [json!({"state": "lost"}), json!({"nosuch": 1}), json!({"case_no": "k-8"}), json!({"precinct": null})]
    {
        let answer = cases.modify(city, "k-1", &version, patch.clone());
        assert!([403, 422].contains(&answer.status), "{patch}: {} {}", answer.status, answer.body);
    }
    assert_eq!(cases.version(city, "k-1"), version, "nothing was changed");
    // Of two who saw the same version one writes.
    cases.modify(city, "k-1", &version, json!({"note": "one"})).is(200);
    conflict(cases.modify(city, "k-1", &version, json!({"note": "two"})));
    assert_eq!(cases.record(city, "k-1").expect("a record")["note"], "one");
    // A suspended agreement permits nothing.
    city.at("police", &["agreement", "suspend", &cases.agreement.id, "--reason", "test"]).done();
    cases.agreement.reaches(city, "court", "suspended");
    cases.modify(city, "k-2", "*", json!({"note": "late"})).is(403);
}

pub fn one_idempotency_key_writes_once(world: &World) {
    let city = world.shared();
    let cases = Cases::new(city, "once-cases", "AGR-2026-9544");
    let version = cases.version(city, "k-1");
    let key = [("idempotency-key", "write-once"), ("if-match", &*quoted(&version))];
    let first = cases.write(city, "PATCH", "k-1", &key, json!({"note": "once"})).is(200);
    let size = city.log_size("court");
    let again = cases.write(city, "PATCH", "k-1", &key, json!({"note": "once"})).is(200);
    assert_eq!((again.op(), &again.body["version"]), (first.op(), &first.body["version"]));
    assert_eq!(city.log_size("court"), size, "nothing more stands on the ledger");
    let other = cases.write(city, "PATCH", "k-1", &key, json!({"note": "twice"})).is(422);
    assert_eq!(other.text("code"), "idempotency-key-reused");
    let elsewhere = cases.write(city, "PATCH", "k-2", &key, json!({"note": "once"})).is(422);
    assert_eq!(elsewhere.text("code"), "idempotency-key-reused");
    assert_eq!(cases.version(city, "k-1"), first.text("version"));
}

/// Clerks insert records and count one up while the executor is killed at random moments: what was acknowledged is there, once.
pub fn acknowledged_writes_survive_kills(world: &World) {
    let city = world.second();
    let cases = Cases::new(city, "killed-cases", "AGR-2026-9545");
    let seed = number("CONCORDAT_SEED", u64::from(std::process::id()) << 16 | 1);
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut acknowledged: BTreeMap<String, Value> = BTreeMap::new();
    for round in 0..number("CONCORDAT_KILLS", 4) {
        let executor = city.process("police", "executor");
        let pause = Duration::from_millis(random.below(1_500));
        let numbers: Vec<String> = (0..12).map(|n| format!("r{round}-{n}")).collect();
        let insert = |key: String| {
            let (cases, clerk) = (&cases, city.api("court", "clerk"));
            async move {
                let headers =
                    [("concordat-purpose", cases.agreement.purpose.as_str()), ("idempotency-key", key.as_str())];
                let body = json!({"case_no": key, "precinct": "1", "note": format!("note of {key}")});
                // The same key until there is an answer that lasts.
                for _ in 0..40 {
                    let answer = clerk.write_async("POST", &cases.path(""), &headers, Some(&body)).await;
                    match answer.status {
                        201 => return (key, answer),
                        0 | 403 | 409 | 500.. => tokio::time::sleep(Duration::from_millis(250)).await,
                        other => panic!("{key}: {other} {}", answer.body),
                    }
                }
                panic!("{key} was never written")
            }
        };
        let answers = wait(async {
            let inserting = futures::future::join_all(numbers.into_iter().map(insert));
            let killing = async {
                tokio::time::sleep(pause).await;
                assert!(executor.0.kill_hard(), "the executor could not be killed");
            };
            futures::join!(inserting, killing).0
        });
        city.another("police", "executor", executor);
        for (key, answer) in answers {
            acknowledged.insert(key, answer.body);
        }
    }
    for (key, answer) in &acknowledged {
        let row = cases.record(city, key).unwrap_or_else(|| panic!("{key} was acknowledged and is not there"));
        assert_eq!((&row["note"], &row["@version"]), (&json!(format!("note of {key}")), &answer["version"]));
    }
    // Each intent that the ledger accepted has its outcome, and no other record came to be.
    let unsettled = "SELECT count(*) FROM write w JOIN release r USING (session, n) WHERE r.state = 5";
    let store = city.dir("police").join("executor/releases.sqlite");
    until("every accepted write is ended", SOON, || {
        let db = rusqlite::Connection::open(&store).map_err(|e| json!(e.to_string()))?;
        let open: i64 = db.query_row(unsettled, [], |r| r.get(0)).map_err(|e| json!(e.to_string()))?;
        if open == 0 { Ok(()) } else { Err(json!(open)) }
    });
    let body = json!({"dataset": cases.dataset, "purpose": cases.agreement.purpose, "limit": 1000,
        "where": {"case_no": {"prefix": "r"}}});
    let rows = city.api("court", "clerk").query(&body).is(200).rows().len();
    assert_eq!(rows, acknowledged.len());
}
