//! A provider that breaks its promise, and what follows by itself.

use crate::World;
use crate::queries::stops;
use crate::subscriptions::{all_seen, data, feeds};
use concordat_tests::harness::{City, FeedAgreement, Follower, SOON, Stopped, until};
use serde_json::Value;

const AGREEMENT: &str = "AGR-2026-9711";

fn suspended(city: &City, agency: &str) -> Value {
    let answer = city.api(agency, "operator").get(&format!("/v1/agreements/{AGREEMENT}"));
    answer.body["versions"][0]["bounded_suspended"].clone()
}

/// Publishes until a delivery is there that the stopped executor did not anchor; the executor stays stopped.
fn broken_promise(city: &City, follower: &mut Follower, publish: impl Fn(u64)) -> (Stopped, u64) {
    for n in 0..20 {
        publish(n);
        follower.take(1);
        let stopped = Stopped::now(city, "grid", "executor");
        // What was on its way to the ledger is there when later operations are.
        for _ in 0..2 {
            city.api("court", "clerk").query(&stops()).is(200);
        }
        let view = follower.view();
        if view["anchored_sub_seq"].as_u64() < view["last_sub_seq"].as_u64() {
            return (stopped, n + 1);
        }
    }
    panic!("20 times the executor anchored before it was stopped");
}

pub fn a_broken_promise_suspends_bounded_evidence_until_both_resume(world: &World) {
    let city = world.shared();
    let feed = &feeds(world)[6];
    let agreement = FeedAgreement { max_lag: "8s", ..FeedAgreement::new(AGREEMENT, feed, "transport") };
    agreement.activate(city);
    let mut follower = Follower::default_of(city, "transport", AGREEMENT);
    let (stopped, published) = broken_promise(city, &mut follower, |n| feed.publish(city, n..n + 1));
    assert_eq!(suspended(city, "transport"), false);
    // Its bound and 10 s later transport's broker complains by itself.
    until("bounded evidence is suspended", 2 * SOON, || {
        let now = suspended(city, "grid");
        if now == true { Ok(()) } else { Err(now) }
    });
    drop(stopped);
    // The provider delivers nothing more under a promise, says why, and both must resume.
    feed.publish(city, published..published + 3);
    let stats = city.api("grid", "operator");
    until("grid says why it does not deliver", SOON, || {
        let text = stats.get("/v1/feeds").body.to_string();
        if text.contains("bounded evidence is suspended") { Ok(()) } else { Err(text) }
    });
    follower.nothing_more();
    for (agency, role) in [("grid", "legal"), ("grid", "data-steward"), ("transport", "legal")] {
        assert_eq!(suspended(city, "grid"), true);
        city.at(agency, &["agreement", "resume", AGREEMENT, "--role", role]).done();
    }
    until("bounded evidence is resumed", SOON, || {
        let now = suspended(city, "transport");
        if now == false { Ok(()) } else { Err(now) }
    });
    assert_eq!(data(&follower.take(3)), all_seen(published..published + 3), "nothing was lost meanwhile");
}
