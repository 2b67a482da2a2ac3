//! Tools on agreement documents, on the real city: what they say is what its nodes do.

use crate::World;
use concordat_tests::harness::{Agreement, City, Ran};
use serde_json::{Value, json};

/// A document of the demo as it stands in police's folder.
fn demo(city: &City) -> String {
    city.dir("police").join("agreements/AGR-2026-0142.yaml").to_string_lossy().into_owned()
}

fn json_of(ran: Ran) -> Value {
    ran.done().json()
}

pub fn a_document_is_made_checked_and_compared_without_a_node(world: &World) {
    let (city, folder) = (world.shared(), world.folder("tools"));
    let templates = json_of(city.run(&["agreement", "new", "--output", "json"]));
    assert!(templates.as_array().unwrap().iter().any(|t| t["template"] == "research"), "{templates}");
    let unknown = city.run(&["agreement", "new", "--template", "resaerch"]).ends(5);
    assert!(unknown.err.contains("did you mean research"), "{}", unknown.err);
    let file = folder.join("research.yaml").to_string_lossy().into_owned();
    let mut args = vec!["agreement", "new", "--template", "research", "--file", &file];
    let missing = city.run(&args).ends(2);
    assert!(missing.err.contains("--set target=.."), "{}", missing.err);
    for set in [
        "agreement=AGR-2026-9521",
        "assigner=org:police",
        "assignee=org:court",
        "target=ds:police/stops@1",
        "key=stop_id",
        "time=time",
        "place=neighborhood",
    ] {
        args.extend(["--set", set]);
    }
    city.run(&args).done();
    city.run(&args).ends(6);
    let text = std::fs::read_to_string(&file).unwrap();
    let linted = json_of(city.run(&["agreement", "lint", &file, "--output", "json"]));
    let rendered = json_of(city.run(&["agreement", "render", &file, "--output", "json"]));
    assert_eq!((&linted["terms_hash"], &linted["sentences"]), (&rendered["terms_hash"], &rendered["sentences"]));
    assert!(rendered["sentences"].as_str().unwrap().contains("Of time only the day is shown."), "{rendered}");
    // An agreement that is over is not to be signed.
    let late = city.run(&["agreement", "lint", &file, "--at", "2090-01-01T00:00:00Z"]).ends(1);
    assert!(late.out.contains("expired"), "{}", late.out);
    let wider = folder.join("wider.yaml").to_string_lossy().into_owned();
    std::fs::write(&wider, text.replace("for: 30d", "for: 1d").replace("version: 1", "version: 2")).unwrap();
    let changes = json_of(city.run(&["agreement", "diff", &file, &wider, "--output", "json"]));
    let named: Vec<(&Value, &Value)> =
        changes["changes"].as_array().unwrap().iter().map(|c| (&c["term"], &c["way"])).collect();
    assert_eq!(named, [(&json!("version"), &json!("other")), (&json!("delay"), &json!("more"))]);
    let schema = json_of(city.run(&["agreement", "schema", "--output", "json"]));
    assert_eq!(schema["properties"]["version"]["minimum"], 1);
}

pub fn lint_and_preview_see_the_rows_that_police_holds(world: &World) {
    let city = world.shared();
    let linted = json_of(city.at("police", &["agreement", "lint", &demo(city), "--held", "--output", "json"]));
    let finding = |rule: &str, clause: &str| {
        let all = linted["findings"].as_array().unwrap();
        all.iter().find(|f| f["rule"] == rule && f["clause"] == clause).cloned().unwrap_or_default()
    };
    // The demo's own warning: exact time and neighbourhood single out nearly everybody.
    let text = finding("unique-rows", "C1")["text"].as_str().unwrap_or_default().to_owned();
    assert!(text.contains("rows are the only one with their") && text.contains("time"), "{linted}");
    assert_eq!(finding("sensitive-visible", "B1")["severity"], "warning");
    let only_own = city.at("court", &["agreement", "lint", &demo(city), "--held"]);
    assert_eq!(only_own.code, 2, "{}", only_own.err);
    // Ten rows before and after, altered as the clause says.
    let folder = world.folder("preview");
    let altered = Agreement {
        duties: vec![
            "{type: row-filter, where: {precinct: {eq: \"1\"}}}".into(),
            "{type: pseudonymise, fields: [stop_id]}".into(),
            "{type: coarsen, field: time, to: month}".into(),
            "{type: mask, fields: [problem], keep_last: 1}".into(),
        ],
        ..Agreement::new("AGR-2026-9522", "preview-test")
    };
    let path = folder.join("altered.yaml").to_string_lossy().into_owned();
    std::fs::write(&path, altered.yaml()).unwrap();
    let shown = json_of(city.at("police", &["agreement", "preview", &path, "--held", "--output", "json"]));
    let view = &shown[0];
    let (before, after) = (view["before"].as_array().unwrap(), view["after"].as_array().unwrap());
    assert_eq!((before.len(), after.len()), (10, 10));
    assert!(view["visible"].as_u64().unwrap() < view["rows"].as_u64().unwrap());
    for (b, a) in before.iter().zip(after) {
        assert_eq!(b["precinct"], "1");
        assert!(a.get("precinct").is_none() && a.get("race").is_none(), "{a}");
        assert!(a["stop_id"].as_str().unwrap().starts_with("p-") && a["stop_id"] != b["stop_id"]);
        assert_eq!(a["time"].as_str().unwrap(), format!("{}-01T00:00:00Z", &b["time"].as_str().unwrap()[..7]));
        assert!(a["problem"].as_str().unwrap().starts_with("***"));
    }
    assert!(view["denied_by"].is_null(), "{view}");
    // What was shown before is what the consumer gets then: receipts and answers hold nothing else.
    altered.activate(city);
    let asked = |filter: Value| {
        let body = json!({"dataset": "ds:police/stops@1", "purpose": altered.purpose, "where": filter, "limit": 20});
        city.api("court", "clerk").query(&body)
    };
    let hour = json!({"neighborhood": {"exists": true}});
    let answer = asked(hour.clone()).is(200).body;
    let rows = answer["rows"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 20, "{answer}");
    for row in &rows {
        assert!(row["stop_id"].as_str().unwrap().starts_with("p-"), "{row}");
        assert!(row["time"].as_str().unwrap().ends_with("-01T00:00:00Z"), "{row}");
        assert!(row["problem"].as_str().unwrap().starts_with("***"), "{row}");
    }
    assert_eq!(asked(hour).is(200).body["rows"], json!(rows), "a pseudonym stays the same in its agreement");
    let probe = asked(json!({"stop_id": before[0]["stop_id"]})).is(403).body;
    assert_eq!(probe["reason"], "altered-field", "{probe}");
    // The node serves on while its rows are looked at.
    let answer = city.run(&[
        "--context",
        "court/clerk",
        "query",
        "run",
        "--dataset",
        "ds:police/stops@1",
        "--purpose",
        "purp:pending-case",
        "--case",
        "26-CR-1042",
        "--where",
        r#"{"time":{"range":{"from":"2017-03-14T00:00:00Z","to":"2017-03-14T01:00:00Z"}}}"#,
        "--output",
        "json",
    ]);
    assert_eq!(json_of(answer)["clause"], "C1");
}

pub fn who_can_read_and_explain_speak_of_what_is_in_force(world: &World) {
    let city = world.shared();
    let who = |field: &str| {
        let field = format!("ds:police/stops@1.{field}");
        let ran = city.at("police", &["agreement", "who-can-read", &field, "--output", "json"]);
        // Tests may have left agreements whose document is not here: the list of the others stands all the same.
        assert!([0, 8].contains(&ran.code), "{ran:?}");
        ran.json()["readers"].as_array().unwrap().clone()
    };
    let of_demo = |all: &[Value]| -> Vec<String> {
        let own = all.iter().filter(|r| r["agreement"] == "AGR-2026-0142");
        own.map(|r| format!("{} {}", r["clause"].as_str().unwrap(), r["how"].as_str().unwrap())).collect()
    };
    assert_eq!(of_demo(&who("neighborhood")), ["C1 plain", "S1 group-key", "B1 plain"]);
    assert_eq!(of_demo(&who("race")), ["B1 plain"]);
    assert_eq!(who("race")[0]["break_glass"], true);
    // What a clerk lacks for planning, and what the gateway says to the same request.
    let explain = |roles: &str, purpose: &str| {
        let args = [
            "agreement",
            "explain",
            "--dataset",
            "ds:police/stops@1",
            "--consumer",
            "court",
            "--roles",
            roles,
            "--purpose",
            purpose,
            "--case",
            "26-CR-1042",
            "--output",
            "json",
        ];
        let ran = city.at("police", &args);
        assert!([0, 8].contains(&ran.code), "{ran:?}");
        ran.json()
    };
    let yes = explain("clerk", "purp:pending-case");
    assert_eq!((&yes["permitted"], &yes["clause"]), (&json!(true), &json!("AGR-2026-0142/C1")));
    let no = explain("clerk", "purp:profiling");
    assert_eq!((&no["permitted"], &no["denial"]["reason"]), (&json!(false), &json!("prohibited")));
    let asked = city.run(&[
        "--context",
        "court/clerk",
        "query",
        "run",
        "--dataset",
        "ds:police/stops@1",
        "--purpose",
        "purp:profiling",
        "--case",
        "26-CR-1042",
        "--output",
        "json",
    ]);
    assert_eq!(asked.ends(3).problem()["clause"], no["clause"]);
    let lacks = explain("planner", "purp:pending-case");
    let c1 = lacks["clauses"].as_array().unwrap().iter().find(|c| c["clause"] == "C1").unwrap().clone();
    assert_eq!(c1["missing"][0]["reason"], "role", "{c1}");
    assert!(c1["missing"][0]["ask"].as_str().unwrap().contains("org:court"));
}

pub fn recorded_requests_are_decided_under_the_next_version(world: &World) {
    let (city, folder) = (world.shared(), world.folder("simulate"));
    let query = |purpose: &str| {
        city.run(&[
            "--context",
            "court/clerk",
            "query",
            "run",
            "--dataset",
            "ds:police/stops@1",
            "--purpose",
            purpose,
            "--case",
            "26-CR-1042",
            "--where",
            r#"{"stop_id":{"eq":"17-089556"}}"#,
        ])
    };
    query("purp:pending-case").done();
    query("purp:profiling").ends(3);
    let next = folder.join("next.yaml").to_string_lossy().into_owned();
    let text = std::fs::read_to_string(demo(city)).unwrap();
    let stricter = text.replacen("version: 1", "version: 2", 1).replace("role: role:clerk", "role: role:judge");
    std::fs::write(&next, stricter).unwrap();
    let own = city.dir("court").join("agreements/AGR-2026-0142.yaml");
    assert!(own.is_file(), "both parties hold the document");
    let s = json_of(city.at("court", &["agreement", "simulate", &next, "--last", "40", "--output", "json"]));
    assert!(s["newly_denied"].as_u64().unwrap() >= 1, "{s}");
    let lost =
        s["changed"].as_array().unwrap().iter().find(|c| c["before"]["clause"] == "AGR-2026-0142/C1").cloned().unwrap();
    assert_eq!((&lost["before"]["permitted"], &lost["after"]["permitted"]), (&json!(true), &json!(false)));
    // The version in force decides as it was recorded: nothing changes.
    let same = json_of(
        city.at("court", &["agreement", "simulate", own.to_str().unwrap(), "--last", "40", "--output", "json"]),
    );
    assert!(same["requests"].as_u64().unwrap() >= 2, "{same}");
    let of_demo = |c: &&Value| c["before"]["clause"] == "AGR-2026-0142/C1" || c["before"]["reason"] == "prohibited";
    assert!(!same["changed"].as_array().unwrap().iter().any(|c| of_demo(&c)), "{same}");
    // The same from a file.
    let requests = folder.join("requests.jsonl").to_string_lossy().into_owned();
    std::fs::write(
        &requests,
        "{\"roles\":[\"clerk\"],\"purpose\":\"purp:pending-case\",\"case\":\"26-CR-1042\"}\n{\"purpose\":1}\n",
    )
    .unwrap();
    let bad = city.at("court", &["agreement", "simulate", &next, "--requests", &requests]).ends(2);
    assert!(bad.err.contains("line 2"), "{}", bad.err);
}

pub fn a_proposal_is_rejected_and_dates_are_renewed(world: &World) {
    let city = world.shared();
    let rejected = Agreement::new("AGR-2026-9523", "reject-test");
    rejected.propose(city);
    city.at("grid", &["agreement", "reject", &rejected.id, "--role", "legal", "--reason", "not ours"]).ends(3);
    city.at("court", &["agreement", "reject", &rejected.id, "--role", "legal", "--reason", "too wide"]).done();
    rejected.reaches(city, "police", "rejected");
    let agreement = Agreement::new("AGR-2026-9524", "renew-test");
    agreement.activate(city);
    let text = agreement.yaml();
    let dates = text.replace("2090-01-01", "2091-01-01");
    let renewed = world.folder("renew").join("renewed.yaml").to_string_lossy().into_owned();
    // More than dates: the ledger could not tell, so the two sides do.
    std::fs::write(&renewed, dates.replace("[stop_id, time,", "[stop_id, time, race,")).unwrap();
    let said = city.at("police", &["agreement", "renew", &renewed]).ends(6);
    assert!(said.err.contains("clause C1: fields"), "{}", said.err);
    std::fs::write(&renewed, &dates).unwrap();
    city.at("police", &["agreement", "renew", &renewed]).done();
    // The document in force stays beside the new one until every role has approved.
    for (agency, role) in [("police", "legal"), ("police", "data-steward"), ("court", "legal")] {
        city.at(agency, &["agreement", "approve", &agreement.id, "--role", role, "--renewal", &renewed]).done();
    }
    let hash = |file: &str| json_of(city.run(&["agreement", "render", file, "--output", "json"]))["terms_hash"].clone();
    let api = city.api("court", "operator");
    concordat_tests::harness::until("the renewed terms are in force at court", concordat_tests::harness::SOON, || {
        let found = api.get(&format!("/v1/agreements/{}", agreement.id)).body["newest"].clone();
        let done = found["terms_hash"] == hash(&renewed) && found["status"] == "active";
        if done { Ok(()) } else { Err(found.to_string()) }
    });
}
