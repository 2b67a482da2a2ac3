//! The feed of grid's load, as transport follows it.

use crate::World;
use concordat_tests::harness::{Follower, SOON, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const ROWS: u64 = 40;

pub fn a_consumer_follows_what_its_clause_opens(world: &World) {
    let city = world.shared();
    let tail = |more: &[&str]| {
        let args = [&["--context", "transport", "feed", "tail", "--output", "ndjson", "--quiet", "--idle", "2"], more]
            .concat();
        let ran = city.run(&args).done();
        let lines = ran.out.lines().map(|l| serde_json::from_str::<Value>(l).expect("a message a line"));
        lines.collect::<Vec<Value>>()
    };
    // What earlier tests left unread.
    tail(&["--ack"]);
    let args = ["adapter", "run", "load", "--pace", "max", "--rows", &ROWS.to_string(), "--output", "json"];
    let ran = city.at("grid", &args).done().json();
    assert_eq!(ran["accepted"], ROWS, "{ran}");
    let seen = tail(&["--max", &ROWS.to_string()]);
    assert_eq!(seen.len() as u64, ROWS);
    // Not acknowledged, so it comes again; the same, in the same order, none twice.
    let messages = tail(&["--max", &ROWS.to_string(), "--ack"]);
    assert_eq!(
        messages.iter().map(|m| &m["id"]).collect::<Vec<_>>(),
        seen.iter().map(|m| &m["id"]).collect::<Vec<_>>()
    );
    assert_eq!(messages.iter().map(|m| m["id"].to_string()).collect::<BTreeSet<_>>().len() as u64, ROWS);
    let open = BTreeSet::from(["time", "lv_rural1", "lv_rural2", "lv_rural3", "lv_semiurb4", "lv_semiurb5"]);
    for m in &messages {
        let fields: BTreeSet<&str> = m["data"].as_object().expect("data").keys().map(String::as_str).collect();
        assert!(fields.is_subset(&open) && fields.contains("time"), "{fields:?}");
    }
    assert!(tail(&[]).is_empty(), "all of it is acknowledged");
    // Every delivery reaches the ledger.
    let transport = city.api("transport", "operator");
    until("what was delivered is anchored", SOON, || {
        let all = transport.get("/v1/subscriptions").is(200);
        let one = &all.body["subscriptions"][0];
        let (delivered, anchored) = (one["last_sub_seq"].as_u64(), one["anchored_sub_seq"].as_u64());
        if delivered.is_some() && anchored >= delivered { Ok(()) } else { Err(one.to_string()) }
    });
}

pub fn a_stranger_reads_no_feed(world: &World) {
    let city = world.shared();
    let followed = city.api("transport", "operator").get("/v1/subscriptions").is(200);
    let id = followed.body["subscriptions"][0]["id"].to_string();
    for agency in ["court", "police"] {
        let api = city.api(agency, "operator");
        assert_eq!(api.get("/v1/subscriptions").is(200).body["subscriptions"], Value::Array(vec![]), "{agency}");
        api.get(&format!("/v1/subscriptions/{}/messages?max=1", id.trim_matches('"'))).is(404);
        city.at(agency, &["feed", "tail"]).ends(5);
    }
}

/// The real traffic file, published by its adapter as a public feed, in the order of the file and nothing else.
pub fn anybody_follows_the_traffic(world: &World) {
    let city = world.shared();
    let body = json!({"dataset": "ds:transport/i94@1", "name": "traffic", "from": "latest"});
    let mut traffic = Follower::create(city, "court", &body);
    assert_eq!(traffic.view()["max_lag_ms"], 0, "nothing is promised");
    let args = ["adapter", "run", "i94", "--pace", "max", "--rows", "600", "--output", "json"];
    let ran = city.at("transport", &args).done().json();
    assert_eq!((&ran["accepted"], &ran["dead_letters"]), (&json!(600), &json!(0)), "{ran}");
    let got = traffic.take(600);
    let held = city.api("court", "clerk").query(&json!({
        "dataset": "ds:transport/i94@1", "purpose": "purp:public-information", "limit": 600, "order": "key",
    }));
    // The same rows by the other way: the file's first hours.
    let rows: Vec<Value> = held.is(200).rows().clone();
    assert_eq!(got.iter().map(|m| m["data"].clone()).collect::<Vec<_>>(), rows);
    let ended = traffic.api.delete(&traffic.path(""));
    assert!((200..300).contains(&ended.status), "{} {}", ended.status, ended.body);
}
