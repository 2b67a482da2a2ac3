//! The tour's checks are tests.

use crate::World;
use concordat_tests::harness::{City, Ran};
use serde_json::Value;

fn tour(city: &City) -> (Ran, Vec<Value>) {
    let ran = city.run(&["demo", "tour", "--output", "json"]);
    let checks = ran.out.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect();
    (ran, checks)
}

pub fn every_check_of_the_tour_is_ok(world: &World) {
    let (mut ran, mut checks) = tour(world.shared());
    // The agreement promises a record within two seconds, and the tour holds the city to it: a machine that stands still
    // for so long while others build on it breaks that promise once, a broken product always.
    let late =
        |c: &Value| c["ok"] != true && c["detail"].as_str().is_some_and(|d| d.contains("after the promised time"));
    if checks.iter().any(late) {
        println!("    a record came late: once more");
        (ran, checks) = tour(world.shared());
    }
    let failed: Vec<String> = checks.iter().filter(|c| c["ok"] != true).map(Value::to_string).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let names: Vec<&str> = checks.iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["feed", "query", "denied", "revoke", "verify", "crash", "who looked"]);
    let numbers: Vec<u64> = checks.iter().filter_map(|c| c["check"].as_u64()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
    assert!(checks.iter().all(|c| c["facts"].is_object()), "figures behind every line");
    ran.done();
}

pub fn status_shows_every_process(world: &World) {
    let city = world.shared();
    for node in city.nodes() {
        city.wait_up(node);
    }
    let rows = city.run(&["demo", "status", "--output", "json"]).done().json();
    let rows = rows.as_array().expect("a list");
    let of = |node: &str| -> Vec<String> {
        let own = rows.iter().filter(|r| r["node"] == node && r["state"] == "up");
        own.filter_map(|r| r["process"].as_str().map(str::to_owned)).collect()
    };
    for agency in ["court", "grid", "police", "transport"] {
        assert_eq!(of(agency), ["app", "comet", "executor", "broker"], "{agency}");
    }
    assert_eq!(of("exchange"), ["nats", "exchange"]);
}
