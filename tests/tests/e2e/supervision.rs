//! Killing things, in a city of their own.

use crate::World;
use crate::queries::stops;
use concordat_tests::harness::{Process, SOON, alive, open_files_below, until};
use serde_json::json;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

fn private(dir: &Path, broken: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        let mode = meta.permissions().mode() & 0o777;
        if meta.is_dir() {
            if mode & 0o077 != 0 {
                broken.push(format!("{} {mode:o}", path.display()));
            }
            private(&path, broken);
        } else if !meta.file_type().is_socket() && mode & 0o077 != 0 {
            broken.push(format!("{} {mode:o}", path.display()));
        }
    }
}

/// One agency's system user cannot open another's files.
pub fn folders_are_their_owners_only(world: &World) {
    let city = world.second();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for node in city.nodes() {
        assert_eq!(mode(&city.dir(node)), 0o700, "{node}");
        let mut broken = Vec::new();
        private(&city.dir(node), &mut broken);
        assert!(broken.is_empty(), "others can read {broken:?}");
    }
}

pub fn killed_processes_come_back(world: &World) {
    let city = world.second();
    let clerk = city.api("court", "clerk");
    let first = clerk.query(&stops()).is(200);
    let victims = [
        ("police", "executor"),
        ("court", "broker"),
        ("police", "app"),
        ("court", "comet"),
        ("exchange", "nats"),
        ("exchange", "exchange"),
    ];
    for (node, name) in victims {
        city.killed_and_back(node, name);
        let answer = until(&format!("queries after the kill of {name} of {node}"), SOON, || {
            let answer = clerk.query(&stops());
            if answer.status == 200 { Ok(answer) } else { Err(format!("{} {}", answer.status, answer.body)) }
        });
        assert_eq!(answer.body["rows"], first.body["rows"]);
    }
    // The operations of before are still there, and mean the same.
    let entry = clerk.get(&format!("/v1/operations/op:{}", first.op())).is(200);
    assert_eq!(entry.text("verdict"), "accepted");
}

pub fn a_killed_supervisor_takes_its_processes_along(world: &World) {
    let city = world.second();
    let state = city.state("transport");
    assert!(state.supervisor.kill_hard());
    for process in state.processes.iter().filter_map(|p| p.process) {
        until("its processes end with it", SOON, || if alive(Process(process)) { Err(process.pid) } else { Ok(()) });
    }
    city.run(&["demo", "status"]).ends(8);
    city.run(&["demo", "up", "--quiet"]).done();
    city.wait_up("transport");
}

pub fn a_provider_that_is_down_is_named(world: &World) {
    let city = world.second();
    // The court waits 4 s for a provider instead of half a minute.
    let path = city.dir("court").join("node.yaml");
    let usual = std::fs::read_to_string(&path).unwrap();
    assert!(usual.contains("query_ms: 30000"), "{usual}");
    std::fs::write(&path, usual.replace("query_ms: 30000", "query_ms: 4000")).unwrap();
    city.killed_and_back("court", "broker");
    city.at("police", &["node", "down"]).done();
    let clerk = city.api("court", "clerk");
    let said = clerk.query(&stops()).is(503);
    assert_eq!((said.text("code").as_str(), said.text("side").as_str()), ("provider-unavailable", "provider"));
    assert!(said.text("detail").contains("police") && said.body["retry"] == true, "{}", said.body);
    let args = [
        "--context",
        "court/clerk",
        "query",
        "run",
        "--dataset",
        "ds:police/stops@1",
        "--purpose",
        "purp:pending-case",
    ];
    city.run(&args).ends(7);
    // Three of four validators go on: others are served meanwhile.
    let public = json!({"dataset": "ds:transport/i94@1", "purpose": "purp:public-information", "limit": 1});
    clerk.query(&public).is(200);
    city.run(&["demo", "up", "--quiet"]).done();
    city.wait_up("police");
    std::fs::write(&path, usual).unwrap();
    city.killed_and_back("court", "broker");
    clerk.query(&stops()).is(200);
}

pub fn a_folder_has_one_supervisor(world: &World) {
    let city = world.second();
    let running = city.state("grid").supervisor;
    let said = city.at("grid", &["node", "up"]);
    assert_ne!(said.code, 0);
    assert!(said.err.contains(&running.pid.to_string()) && said.err.contains("node down"), "{}", said.err);
    assert!(alive(Process(running)), "the first one goes on");
    city.wait_up("grid");
}

pub fn a_taken_port_is_named(world: &World) {
    let city = world.second();
    city.at("grid", &["node", "down"]).done();
    let listen = city.config("grid").listen;
    let port = listen.rsplit(':').next().unwrap().to_owned();
    let squatter = until("the port is free", SOON, || TcpListener::bind(&listen));
    let said = city.at("grid", &["node", "up"]);
    assert_ne!(said.code, 0);
    let sentence = said.err.lines().last().unwrap_or_default();
    assert!(sentence.contains(&port) && sentence.contains("node.yaml"), "{}", said.err);
    drop(squatter);
    // Without it everything starts again.
    city.run(&["demo", "up", "--quiet"]).done();
    city.wait_up("grid");
}

pub fn stop_leaves_no_process(world: &World) {
    let city = world.second();
    let mut processes = Vec::new();
    for node in city.nodes() {
        let state = city.state(node);
        processes.push((format!("{node} supervisor"), Process(state.supervisor)));
        processes
            .extend(state.processes.iter().filter_map(|p| Some((format!("{node} {}", p.name), Process(p.process?)))));
    }
    assert_eq!(processes.len(), 4 * 5 + 3);
    city.run(&["demo", "stop"]).done();
    let left: Vec<&String> = processes.iter().filter(|(_, p)| alive(*p)).map(|(name, _)| name).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(open_files_below(&city.root), []);
    city.run(&["demo", "status"]).ends(8);
    // What was stopped starts again, and has lost nothing.
    // One of its keys may lie in the token that the tests of keys made.
    let mut up = city.command(&["demo", "up", "--quiet"]);
    up.env("SOFTHSM2_CONF", city.root.with_file_name("token").join("softhsm2.conf"));
    assert!(up.status().is_ok_and(|s| s.success()), "the city does not start again");
    assert_eq!(city.api("court", "clerk").query(&stops()).is(200).rows().len(), 47);
    city.run(&["demo", "reset"]).done();
    assert!(!city.root.exists());
    assert_eq!(open_files_below(&city.root), []);
    city.run(&["demo", "status"]).ends(5);
}
