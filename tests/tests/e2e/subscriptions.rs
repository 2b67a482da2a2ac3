//! Subscriptions as resources: rows and fields, whose they are, a dead one among many, seeking, streams of events.

use crate::World;
use concordat_tests::harness::{City, Feed, FeedAgreement, Follower, digest, row, seen, until};
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::OnceLock;
use std::time::Duration;

/// Longest wait for an event, on a busy machine.
pub const WITHIN: Duration = Duration::from_secs(60);

/// What the agreements of these tests are for.
const PURPOSE: &str = "purp:test-feed";

/// Feeds of grid that the tests of feeds share, made by the first of them: one restart of its broker and executor.
pub fn feeds(world: &World) -> &'static [Feed] {
    static FEEDS: OnceLock<Vec<Feed>> = OnceLock::new();
    FEEDS.get_or_init(|| {
        Feed::make(world.shared(), "grid", &["meter", "valve", "open", "small", "full", "promise", "promised"])
    })
}

/// The feed of most tests, with its agreement to transport in force.
pub fn meter(world: &World) -> &'static Feed {
    static ACTIVE: OnceLock<()> = OnceLock::new();
    let feed = &feeds(world)[0];
    ACTIVE.get_or_init(|| FeedAgreement::new("AGR-2026-9701", feed, "transport").activate(world.shared()));
    feed
}

/// A subscription of transport's own to what is published from now on.
pub fn newest(city: &City, feed: &Feed, name: &str) -> Follower {
    Follower::create(
        city,
        "transport",
        &json!({"dataset": feed.id, "name": name, "purpose": PURPOSE, "from": "latest"}),
    )
}

/// The data of messages.
pub fn data(messages: &[Value]) -> Vec<Value> {
    messages.iter().map(|m| m["data"].clone()).collect()
}

pub fn all_seen(numbers: Range<u64>) -> Vec<Value> {
    numbers.map(seen).collect()
}

fn end(follower: &Follower) {
    let answer = follower.api.delete(&follower.path(""));
    assert!(matches!(answer.status, 200 | 202 | 204), "{} {}", answer.status, answer.body);
}

pub fn a_created_subscription_sees_its_rows_and_fields_only(world: &World) {
    let (city, feed) = (world.shared(), meter(world));
    feed.publish(city, 0..40);
    // Of everything there is, and what comes later.
    let body = json!({"dataset": feed.id, "name": "north", "purpose": PURPOSE, "from": "earliest", "select": ["mw", "n"],
                      "where": {"zone": {"in": ["N", "S"]}, "n": {"range": {"from": 10, "to": 60}}}});
    let mut north = Follower::create(city, "transport", &body);
    feed.publish(city, 40..80);
    // What the source's rows are, by this test's own reading.
    let want: Vec<Value> = (0..80u64)
        .map(row)
        .filter(|r| (r["zone"] == "N" || r["zone"] == "S") && (10..60).contains(&r["n"].as_u64().unwrap()))
        .map(|r| json!({"mw": r["mw"], "n": r["n"]}))
        .collect();
    let got = north.take(want.len());
    assert_eq!(data(&got), want);
    assert!(got.iter().all(|m| m["hidden"].as_u64().is_some_and(|h| h >= 2)), "zone and note are there, hidden");
    north.nothing_more();
    // The same name and terms again are the same subscription; other terms are another, and need another name.
    assert_eq!(Follower::create(city, "transport", &body).id, north.id);
    let mut other = body.clone();
    other["select"] = json!(["n"]);
    north.api.post("/v1/subscriptions", &other).is(409);
    // It can only be less than the clause opens.
    for (member, wider) in [("select", json!(["n", "note"])), ("where", json!({"note": {"eq": "hidden-1"}}))] {
        let mut body = json!({"dataset": feed.id, "name": "wider", "purpose": PURPOSE, "from": "earliest"});
        body[member] = wider;
        let answer = north.api.post("/v1/subscriptions", &body);
        assert!(matches!(answer.status, 403 | 422), "{member}: {} {}", answer.status, answer.body);
        assert!(answer.body.to_string().contains("note"), "it names the field: {}", answer.body);
    }
    // Whose it is.
    for agency in ["court", "police", "grid"] {
        let api = city.api(agency, "operator");
        assert!(
            !api.get("/v1/subscriptions").is(200).body.to_string().contains(&format!("{:?}", north.id)),
            "{agency}"
        );
        api.get(&north.path("/messages?max=1")).is(404);
        // There is nothing of this name to delete for them.
        assert!(matches!(api.delete(&north.path("")).status, 204 | 404), "{agency}");
        let answer = api.post(
            "/v1/subscriptions",
            &json!({"dataset": feed.id, "name": "stranger", "purpose": PURPOSE, "from": "earliest"}),
        );
        assert!(answer.status >= 400 && answer.status < 500, "{agency}: {} {}", answer.status, answer.body);
    }
    feed.publish(city, 12..13);
    assert_eq!(data(&north.take(1))[0]["n"], 12, "it goes on, whoever tried to end it");
    end(&north);
    until("it is gone", WITHIN, || {
        let answer = north.api.get(&north.path(""));
        if answer.status == 404 { Ok(()) } else { Err(answer.body) }
    });
}

/// More deliveries than a broker holds of one subscription.
const MANY: u64 = 270;

pub fn one_dead_consumer_among_20_changes_nothing_for_the_others(world: &World) {
    let (city, feed) = (world.shared(), meter(world));
    let first = 1_000;
    let mut all: Vec<Follower> = (0..20).map(|i| newest(city, feed, &format!("of-{i}"))).collect();
    let mut dead = all.remove(7);
    // One message an envelope: as many deliveries.
    for n in first..first + MANY {
        feed.publish(city, n..n + 1);
    }
    let want = all_seen(first..first + MANY);
    for follower in &mut all {
        assert_eq!(data(&follower.take(want.len())), want, "{}", follower.id);
        follower.nothing_more();
    }
    // It held up nobody, and lost nothing itself.
    assert!(dead.view()["pending"].as_u64().unwrap() > 0, "{}", dead.view());
    assert_eq!(data(&dead.take(want.len())), want);
    dead.nothing_more();
    all.iter().chain([&dead]).for_each(end);
}

pub fn seeking_replays_the_same_messages(world: &World) {
    let (city, feed) = (world.shared(), meter(world));
    let mut follower = newest(city, feed, "replay");
    for n in (2_000..2_040).step_by(4) {
        feed.publish(city, n..n + 4);
    }
    let first = follower.take(40);
    assert_eq!(data(&first), all_seen(2_000..2_040));
    let seek = |to: Value| {
        let answer = follower.api.post(&follower.path(":seek"), &json!({"to": to}));
        assert!(matches!(answer.status, 200 | 202), "{to}: {} {}", answer.status, answer.body);
    };
    // Everything again: the same messages at the same places.
    seek(json!("earliest"));
    let again = follower.clone().take(40);
    assert_eq!(again, first);
    // From a delivery on.
    let from = &first[12];
    seek(json!({"sub_seq": from["sub_seq"]}));
    let mut reader = follower.clone();
    assert_eq!(reader.take(28), first[12..]);
    // From a time on, by the ledger's clock, which may run a second before this machine's.
    let time = (jiff::Timestamp::now().as_millisecond() as u64).max(city.tick_ms()) + 1_500;
    until("the ledger's time is later", WITHIN, || {
        let tick = city.tick_ms();
        if tick > time { Ok(()) } else { Err(tick) }
    });
    let time = jiff::Timestamp::from_millisecond(time as i64).unwrap();
    feed.publish(city, 2_040..2_050);
    let late = reader.take(10);
    assert_eq!(data(&late), all_seen(2_040..2_050));
    seek(json!({"time": time.to_string()}));
    assert_eq!(reader.take(10), late);
    reader.nothing_more();
    // To the end: what was there is passed over, what comes is not.
    seek(json!("earliest"));
    seek(json!("latest"));
    feed.publish(city, 2_050..2_055);
    assert_eq!(data(&reader.take(5)), all_seen(2_050..2_055));
    // Places that were never there.
    for bad in [json!("never"), json!({"cursor": "x"}), json!({"time": "yesterday"}), json!({"sub_seq": -1})] {
        let answer = follower.api.post(&follower.path(":seek"), &json!({"to": bad}));
        assert!(matches!(answer.status, 400 | 409 | 422), "{bad}: {} {}", answer.status, answer.body);
    }
    // Paused, it hands nothing on; resumed, it goes on.
    follower.api.post(&follower.path(":pause"), &json!({})).is(200);
    feed.publish(city, 2_055..2_060);
    follower.api.get(&follower.path("/messages?max=10")).is(409);
    follower.api.post(&follower.path(":resume"), &json!({})).is(200);
    assert_eq!(data(&reader.take(5)), all_seen(2_055..2_060));
    end(&follower);
}

pub fn a_stream_of_events_goes_on_where_it_broke_off(world: &World) {
    let (city, feed) = (world.shared(), meter(world));
    let follower = newest(city, feed, "events");
    let path = follower.path("/events");
    let mut open = follower.api.events(&path, None).unwrap_or_else(|a| panic!("{} {}", a.status, a.body));
    feed.publish(city, 3_000..3_010);
    let (mut got, mut last) = (Vec::new(), String::new());
    let mut take = |open: &mut concordat_tests::harness::Events, n: usize| {
        while got.len() < n {
            let event = open.next(WITHIN).expect("the stream is open");
            if event.event != "message" {
                continue;
            }
            let message: Value = serde_json::from_str(&event.data).expect("a message");
            assert_eq!(event.id, format!("{}.{}", message["sub_seq"], message["index"]));
            last = event.id;
            got.push(message["data"].clone());
        }
        (got.clone(), last.clone())
    };
    // Broken off within a delivery; nothing was acknowledged.
    let (_, last) = take(&mut open, 4);
    drop(open);
    feed.publish(city, 3_010..3_020);
    let mut open = follower.api.events(&path, Some(&last)).unwrap_or_else(|a| panic!("{} {}", a.status, a.body));
    let (got, last) = take(&mut open, 20);
    assert_eq!(got, all_seen(3_000..3_020), "none lost, none twice");
    assert_eq!(got.iter().map(digest).collect::<std::collections::BTreeSet<_>>().len(), 20);
    // By the query as well, for clients that cannot set the header.
    drop(open);
    feed.publish(city, 3_020..3_021);
    let mut open = follower.api.events(&format!("{path}?after={last}"), None).unwrap_or_else(|a| panic!("{}", a.body));
    let event = std::iter::from_fn(|| open.next(WITHIN)).find(|e| e.event == "message").expect("a message");
    assert_eq!(serde_json::from_str::<Value>(&event.data).unwrap()["data"], seen(3_020));
    end(&follower);
    // Its end is said.
    let last = std::iter::from_fn(|| open.next(WITHIN)).last();
    assert_eq!(last.map(|e| e.event).as_deref(), Some("closed"));
}

pub fn a_suspension_closes_the_stream_and_loses_nothing(world: &World) {
    let (city, feed) = (world.shared(), &feeds(world)[5]);
    let agreement = FeedAgreement::new("AGR-2026-9702", feed, "transport");
    agreement.activate(city);
    let mut follower = Follower::default_of(city, "transport", &agreement.id);
    feed.publish(city, 0..10);
    let mut open = follower.api.events(&follower.path("/events"), None).unwrap_or_else(|a| panic!("{}", a.body));
    let mut last = String::new();
    for n in 0..10 {
        let event = std::iter::from_fn(|| open.next(WITHIN)).find(|e| e.event == "message").expect("a message");
        assert_eq!(serde_json::from_str::<Value>(&event.data).unwrap()["data"], seen(n));
        last = event.id;
    }
    city.at("grid", &["agreement", "suspend", &agreement.id, "--reason", "a test"]).done();
    let rest: Vec<_> = std::iter::from_fn(|| open.next(WITHIN)).filter(|e| !e.event.starts_with("heart")).collect();
    let closed = rest.last().unwrap_or_else(|| panic!("the stream ended without a word"));
    assert_eq!((closed.event.as_str(), closed.data.contains("suspended")), ("closed", true), "{rest:?}");
    assert!(rest.iter().all(|e| e.event != "message"), "{rest:?}");
    // Published meanwhile: nobody gets it now.
    feed.publish(city, 10..20);
    agreement.reaches(city, "transport", "suspended");
    follower.api.get(&follower.path("/messages?max=10")).is(403);
    match follower.api.events(&follower.path("/events"), Some(&last)) {
        Err(answer) => assert_eq!(answer.status, 403, "{}", answer.body),
        Ok(mut open) => {
            let said: Vec<_> = std::iter::from_fn(|| open.next(WITHIN)).collect();
            assert!(said.iter().all(|e| e.event != "message"), "{said:?}");
        }
    }
    for (agency, role) in [("grid", "legal"), ("grid", "data-steward"), ("transport", "legal")] {
        city.at(agency, &["agreement", "resume", &agreement.id, "--role", role]).done();
    }
    agreement.reaches(city, "transport", "active");
    let mut open = until("the stream opens again", WITHIN, || {
        follower.api.events(&follower.path("/events"), Some(&last)).map_err(|a| a.body)
    });
    for n in 10..20 {
        let event = std::iter::from_fn(|| open.next(WITHIN)).find(|e| e.event == "message").expect("a message");
        assert_eq!(serde_json::from_str::<Value>(&event.data).unwrap()["data"], seen(n), "in order, none lost");
    }
    drop(open);
    // Nothing was acknowledged by reading events.
    assert_eq!(data(&follower.take(20)), all_seen(0..20));
    until("all of it is anchored", WITHIN, || {
        let view = follower.view();
        if view["anchored_sub_seq"].as_u64() >= view["last_sub_seq"].as_u64() { Ok(()) } else { Err(view) }
    });
}
