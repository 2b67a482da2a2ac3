//! An agency without a node: its provider asks another agency's, believes nothing that is not proven, and releases nothing on
//! a lie, on silence, on an old state, or after a suspension.

use crate::World;
use concordat_cli::supervisor;
use concordat_tests::harness::{Agreement, Answer, City, Lie, Relay, SOON, put, runtime, until, wait};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// The states of the release store that are looked at.
const RELEASED: i64 = 1;
const WITHHELD: i64 = 3;
/// Until a host that says nothing is no host any more, and a response is too late.
const LATE: Duration = Duration::from_secs(60);

/// The clause by which a duty officer would get rows before their record.
const OVERRIDE: &str = r#"{type: quota, max: 1, per: day}
- id: B1
  text: In danger to life the duty officer may override; the police review it.
  effect: break-glass
  assignee: {org: org:court, role: role:duty-officer}
  actions: [query]
  evidence: {bounded: {max_lag: 10s}}
  purpose: purp:hosted-narrow
  duties: [{type: justification}, {type: notify, to: org:police}, {type: review, within: 24h}]"#;

/// A city whose police have no node: the grid's is asked, through a relay.
fn city(world: &World) -> (City, Relay) {
    let city = world.place().city("hosted");
    let relay = Relay::start(&city.root.join("relay.sock"), &city.dir("grid").join("run/node.sock"));
    city.at("police", &["node", "down"]).done();
    let file = city.dir("police").join("node.yaml");
    let before = std::fs::read_to_string(&file).unwrap();
    let socket = relay.socket().display();
    let more = format!("hosted: {{by: grid, node: \"{socket}\", rpc: \"unix:../grid/run/rpc.sock\"}}\n");
    put(&file, &format!("{before}\n{more}"));
    start(&city);
    (city, relay)
}

fn start(city: &City) {
    supervisor::start_detached(&city.dir("police"), &city.program).expect("police's supervisor");
    city.wait_up("police");
}

fn body(agreement: &Agreement) -> Value {
    json!({"dataset": "ds:police/stops@1", "purpose": agreement.purpose, "where": {"stop_id": {"eq": "17-089556"}}})
}

/// Responses at the police in a state.
fn count(city: &City, state: i64) -> i64 {
    let path = city.dir("police").join("executor/releases.sqlite");
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the release store");
    let sql = "SELECT count(*) FROM release WHERE state = ?1";
    db.query_row(sql, [state], |r| r.get(0)).expect("a number")
}

/// The height in a file of what was believed.
fn believed(city: &City, file: &str) -> u64 {
    let text = std::fs::read_to_string(city.dir("police").join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    serde_json::from_str::<Value>(&text).expect("JSON")["height"].as_u64().expect("a height")
}

/// Waits until the light client or the executor says why it releases nothing.
fn says(city: &City, process: &str, why: &str, within: Duration) {
    until(&format!("police's {process} says: {why}"), within, || {
        let log = city.log("police", process);
        if log.contains(why) { Ok(()) } else { Err(log.lines().last().unwrap_or_default().to_owned()) }
    });
}

/// A query beside the test.
fn asked(city: &City, body: &Value) -> tokio::task::JoinHandle<Answer> {
    let (clerk, body) = (city.api("court", "clerk"), body.clone());
    runtime().spawn(async move { clerk.query_async(&body, &[]).await })
}

/// A query is answered once all is well again.
fn answered(city: &City, body: &Value) -> Answer {
    let clerk = city.api("court", "clerk");
    until("the police answer again", LATE, || {
        let answer = clerk.query(body);
        if answer.status == 200 { Ok(answer) } else { Err(answer.body.to_string()) }
    })
}

pub fn a_hosted_provider_releases_on_proof_alone(world: &World) {
    let (city, relay) = city(world);
    let processes: Vec<String> = city.state("police").processes.into_iter().map(|p| p.name).collect();
    assert_eq!(processes, ["light", "executor", "broker"]);
    let wide = Agreement::new("AGR-2026-9811", "hosted-wide");
    let mut narrow = Agreement::new("AGR-2026-9812", "hosted-narrow");
    narrow.duties.push(OVERRIDE.into());
    wide.activate(&city);
    narrow.activate(&city);

    honest(&city, &wide, world);
    nothing_before_its_record(&city, &narrow);
    an_invented_verdict(&city, &relay, &narrow);
    silence(&city, &relay, &wide);
    an_old_state(&city, &relay, &wide);
    a_suspension_that_is_denied(&city, &relay, &wide);
}

/// Rows of the file, with a receipt that anybody verifies.
fn honest(city: &City, agreement: &Agreement, world: &World) {
    let answer = city.api("court", "clerk").query(&body(agreement)).is(200);
    assert_eq!(answer.rows().len(), 1, "{}", answer.body);
    let op = format!("op:{}", answer.op());
    let folder = world.folder("hosted-receipt");
    let file = folder.join("op.receipt");
    let file = file.to_str().unwrap();
    city.run(&["--context", "court/clerk", "op", "receipt", &op, "--file", file, "--quiet"]).done();
    let trust = city.root.join("trust.json");
    let verify = Command::new(&city.program)
        .args(["verify", "receipt", file, "--trust", trust.to_str().unwrap(), "--output", "json"])
        .env_clear()
        .output()
        .unwrap();
    let found: Value = serde_json::from_slice(&verify.stdout).expect("JSON");
    assert_eq!((found["valid"].as_bool(), found["operation"].as_str()), (Some(true), Some(op.as_str())), "{found}");
    assert_eq!((found["provider"].as_str(), found["verdict"].as_str()), (Some("police"), Some("accepted")), "{found}");
    assert_eq!(count(city, RELEASED), 1);
    let height = city.entry("court", answer.op()).height;
    assert!(believed(city, "executor/believed.json") > height, "the header after the entry's block was kept");
}

/// What would be promised is refused by name.
fn nothing_before_its_record(city: &City, agreement: &Agreement) {
    let mut body = body(agreement);
    body["break_glass"] = json!({"justification": "Caller in danger to life, address unknown, ticket 4711"});
    let said = city.api("court", "duty-officer").query(&body).is(403);
    assert_eq!(
        (said.text("reason").as_str(), &said.body["ledger_code"]),
        ("hosted-provider", &json!(105)),
        "{}",
        said.body
    );
}

/// The ledger refuses, the relay says that it accepted, everywhere.
fn an_invented_verdict(city: &City, relay: &Relay, agreement: &Agreement) {
    let clerk = city.api("court", "clerk");
    clerk.query(&body(agreement)).is(200);
    let before = count(city, RELEASED);
    relay.says(Lie::Accepted);
    let late = asked(city, &body(agreement));
    says(city, "executor", "with this verdict is not in the log", SOON);
    assert_eq!(count(city, RELEASED), before, "nothing is released on a forged verdict");
    relay.says(Lie::None);
    let said = wait(late).unwrap();
    assert!(said.status != 200, "{}", said.body);
    assert_eq!(count(city, RELEASED), before);
    // With the truth it is what the ledger said.
    let said = until("the quota's end is told", LATE, || {
        let said = clerk.query(&body(agreement));
        if said.body["ledger_code"] == 410 { Ok(said) } else { Err(said.body.to_string()) }
    });
    assert_eq!(said.status, 403);
}

/// The ledger accepts, and the host does not show it in time: withheld for ever, though it is shown later.
fn silence(city: &City, relay: &Relay, agreement: &Agreement) {
    answered(city, &body(agreement));
    let (released, withheld) = (count(city, RELEASED), count(city, WITHHELD));
    let first = city.log_size("court");
    relay.says(Lie::Silence);
    let late = asked(city, &body(agreement));
    until("the ledger accepted it", SOON, || {
        let now = city.log_size("court");
        if now > first { Ok(()) } else { Err(now) }
    });
    says(city, "light", "no newer block is believed", LATE);
    assert_eq!(count(city, RELEASED), released, "nothing is released while the host is silent");
    relay.says(Lie::None);
    until("it is withheld for ever", LATE, || {
        let now = count(city, WITHHELD);
        if now > withheld { Ok(()) } else { Err(now) }
    });
    let said = wait(late).unwrap();
    // The gateway may have asked anew: then it is another operation that was released.
    assert!(said.status != 200 || count(city, RELEASED) > released, "{}", said.body);
    answered(city, &body(agreement));
}

/// A restart does not forget the highest header: an older state is refused though every signature in it is good.
fn an_old_state(city: &City, relay: &Relay, agreement: &Agreement) {
    let (light, executor) = (believed(city, "light/seen.json"), believed(city, "executor/believed.json"));
    assert!(light >= executor, "{light} {executor}");
    let released = count(city, RELEASED);
    city.at("police", &["node", "down"]).done();
    assert!(believed(city, "light/seen.json") >= light);
    relay.says(Lie::EndsAt(executor.min(light) - 3));
    supervisor::start_detached(&city.dir("police"), &city.program).expect("police's supervisor");
    says(city, "light", "which was seen before", SOON);
    let said = city.api("court", "clerk").query(&body(agreement));
    assert!(said.status != 200, "{}", said.body);
    assert_eq!(count(city, RELEASED), released, "nothing is released on an old state");
    relay.says(Lie::None);
    city.wait_up("police");
    answered(city, &body(agreement));
    assert!(believed(city, "executor/believed.json") > executor);
}

/// A suspension stops releases, also where the host says that nothing was suspended.
fn a_suspension_that_is_denied(city: &City, relay: &Relay, agreement: &Agreement) {
    relay.says(Lie::Active);
    // Suspended by the other side: the police learn of it from the ledger alone.
    city.at("court", &["agreement", "suspend", &agreement.id]).done();
    let released = count(city, RELEASED);
    says(city, "executor", "the host says active", SOON);
    let said = city.api("court", "clerk").query(&body(agreement));
    assert!(said.status != 200, "{}", said.body);
    assert_eq!(count(city, RELEASED), released, "nothing is released after the suspension");
    relay.says(Lie::None);
    let said = until("the suspension is told", LATE, || {
        let said = city.api("court", "clerk").query(&body(agreement));
        if said.text("reason") == "suspended" { Ok(said) } else { Err(said.body.to_string()) }
    });
    assert_eq!((said.status, &said.body["ledger_code"]), (403, &json!(404)), "{}", said.body);
    assert_eq!(count(city, RELEASED), released);
}
