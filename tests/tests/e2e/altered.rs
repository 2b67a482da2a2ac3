//! Feeds under duties that alter values or hold messages back, and renewals that would open more than was agreed.

use crate::World;
use concordat_broker::keys::{GATEWAY, KeyFolder, approver};
use concordat_protocol::acts::{ActBody, ApprovalKind};
use concordat_protocol::cbor;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::message::RedactedEnvelope;
use concordat_protocol::ops::{Batch, Op, Tx};
use concordat_protocol::seal::SealReceiver;
use concordat_protocol::session::{FeedItem, Promise};
use concordat_tests::harness::{
    Agreement, City, Feed, FeedAgreement, Follower, SOON, act, exchange_streams, jetstream, put, streams, until, wait,
};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// Longest wait for an event, on a busy machine.
const WITHIN: Duration = Duration::from_secs(90);
/// What no consumer may ever hold: it stands in every true value that is altered.
const CANARY: &str = "canary";

/// Two feeds of grid, made by the first test that asks.
fn feeds(world: &World) -> &'static [Feed] {
    static FEEDS: OnceLock<Vec<Feed>> = OnceLock::new();
    FEEDS.get_or_init(|| Feed::make(world.shared(), "grid", &["coarse", "later"]))
}

fn agreement(id: &str, feed: &Feed, duties: &[&str]) -> FeedAgreement {
    let duties = duties.iter().map(|d| (*d).to_owned()).collect();
    FeedAgreement { allow: "n, zone, mw, note, at", duties, ..FeedAgreement::new(id, feed, "transport") }
}

fn publish(city: &City, feed: &Feed, data: &[Value]) {
    let answer = until("the broker takes messages", SOON, || {
        let answer = feed.post(city, data, &[]);
        if answer.status == 503 { Err(answer.body) } else { Ok(answer) }
    });
    assert_eq!(answer.is(200).body["accepted"], data.len());
}

/// Items of a subscription in transport's feed stream, with their promises, as its exchange keeps them.
fn items(city: &City, number: u64) -> Vec<(FeedItem, Promise)> {
    let js = jetstream(exchange_streams(city));
    let stream = wait(js.get_stream("TRANSPORT")).expect("transport's stream");
    let state = stream.cached_info().state.clone();
    let subject = format!("feed.GRID.TRANSPORT.{number}");
    let raw = (state.first_sequence..=state.last_sequence).filter_map(|n| wait(stream.get_raw_message(n)).ok());
    let own = raw.filter(|m| m.subject.as_str() == subject);
    let read = own.map(|m| cbor::decode::<FeedItem>(&m.payload).expect("an item"));
    read.map(|item| (item.clone(), cbor::decode(&item.promise).expect("a promise"))).collect()
}

/// What transport finds when it opens an item with its own key.
fn opened(city: &City, item: &FeedItem, promise: &Promise) -> Vec<u8> {
    let kem = KeyFolder::new(city.dir("transport").join("keys")).kem().expect("kem.key");
    let scope = format!("subscription/{}", promise.subscription);
    let epoch = promise.first_sub_seq - item.seal_n;
    let receiver = SealReceiver::new(&kem, &item.encapsulation, &city.chain(), &scope, epoch).expect("a receiver");
    receiver.open(item.seal_n, &item.promise, &item.sealed).expect("it opens")
}

/// Files below a folder in which a text stands.
fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path).is_ok_and(|b| b.windows(text.len()).any(|w| w == text.as_bytes())) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// The newest deliver operation of a subscription, by its hash.
fn delivered_op(city: &City, number: u64, from: u64) -> Option<Hash> {
    let rpc = city.rpc("transport");
    let mut found = None;
    for tx in (from..=rpc.height()).flat_map(|height| rpc.block(height)) {
        let Ok(Tx::Batch { body, .. }) = cbor::decode::<Tx>(&tx) else { continue };
        let batch: Batch = cbor::decode(&body).unwrap();
        let own = |op: &&Op| matches!(op, Op::Deliver { subscription, .. } if *subscription == number);
        found = batch.ops.iter().rfind(own).map(Op::hash).or(found);
    }
    found
}

pub fn a_feed_shows_what_its_duties_leave(world: &World) {
    let (city, feed) = (world.shared(), &feeds(world)[0]);
    let duties = [
        "{type: mask, fields: [zone], keep_last: 2}",
        "{type: coarsen, field: mw, step: 10}",
        "{type: coarsen, field: at, to: day}",
        "{type: pseudonymise, fields: [note]}",
    ];
    agreement("AGR-2026-9571", feed, &duties).activate(city);
    let from = city.rpc("transport").height();
    let mut all = Follower::default_of(city, "transport", "AGR-2026-9571");
    let row = |n: u64, who: &str| {
        json!({"n": n, "zone": format!("{CANARY}-zone-{n}"), "mw": format!("5{n}.4242"), "note": format!("{CANARY}-{who}"),
               "at": format!("2026-05-0{n}T14:15:16.42Z")})
    };
    publish(city, feed, &[row(1, "ann"), row(2, "bob"), row(3, "ann")]);
    let got = all.take(3);
    let data: Vec<&Value> = got.iter().map(|m| &m["data"]).collect();
    for (n, shown) in (1..).zip(&data) {
        let note = shown["note"].as_str().unwrap_or_default();
        assert!(note.starts_with("p-") && note.len() == 34, "{shown}");
        let want = json!({"n": n, "zone": format!("***-{n}"), "mw": "50", "note": note, "at": format!("2026-05-0{n}T00:00:00Z")});
        assert_eq!(**shown, want);
    }
    assert!(data[0]["note"] == data[2]["note"] && data[0]["note"] != data[1]["note"], "one person, one pseudonym");
    let by: Vec<(&str, &str)> = got[0]["altered"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| (a["field"].as_str().unwrap(), a["duty"].as_str().unwrap()))
        .collect();
    assert_eq!(by, [("at", "coarsen"), ("mw", "coarsen"), ("note", "pseudonymise"), ("zone", "mask")]);
    assert!(got[0]["altered"].as_array().unwrap().iter().all(|a| a["clause"] == "AGR-2026-9571/F1"), "{}", got[0]);
    // A subscription of transport's own takes some of it, and chooses no rows by what is altered.
    let body = json!({"dataset": feed.id, "name": "notes", "purpose": "purp:test-feed", "from": "earliest", "select": ["n", "note"],
                      "where": {"n": {"range": {"from": 2}}}});
    let mut some = Follower::create(city, "transport", &body);
    let own: Vec<Value> = some.take(2).iter().map(|m| m["data"].clone()).collect();
    assert_eq!(own, [json!({"n": 2, "note": data[1]["note"]}), json!({"n": 3, "note": data[2]["note"]})]);
    let mut probing = body.clone();
    (probing["name"], probing["where"]) = (json!("probe"), json!({"note": format!("{CANARY}-ann")}));
    let refused = some.api.post("/v1/subscriptions", &probing);
    assert!(
        refused.status == 403 && refused.body.to_string().contains("altered"),
        "{} {}",
        refused.status,
        refused.body
    );
    // Nothing that transport holds or can open has a true value.
    for follower in [&all, &some] {
        let number = follower.view()["subscription"].as_u64().expect("its number");
        let items = items(city, number);
        assert!(!items.is_empty(), "{}", follower.id);
        for (item, promise) in &items {
            let plain = opened(city, item, promise);
            assert_eq!(promise.root, sha256(&[&plain]), "the altered values are promised");
            let text = String::from_utf8_lossy(&plain).into_owned();
            for truth in [CANARY, "4242", "14:15"] {
                assert!(!text.contains(truth), "{truth} in an item of {}", follower.id);
            }
            let envelope: RedactedEnvelope = cbor::decode(&plain).expect("an envelope");
            envelope.verify(city.key("grid", "envelope").public()).expect("a part of what was signed");
        }
    }
    assert_eq!(files_with(&city.dir("transport"), &format!("{CANARY}-zone")), [] as [String; 0]);
    // The delivery has a receipt that is verified with nothing else, and it covers what was altered.
    let number = all.view()["subscription"].as_u64().expect("its number");
    let op = until("the delivery is anchored", WITHIN, || delivered_op(city, number, from).ok_or("no operation"));
    receipt_of_delivery(world, city, &op);
}

/// Fetches the receipt of a delivery as transport and verifies it with no node and no network.
fn receipt_of_delivery(world: &World, city: &City, op_hash: &Hash) {
    let folder = world.folder("altered");
    std::fs::copy(city.root.join("trust.json"), folder.join("trust.json")).unwrap();
    let index = until("its place in the log", WITHIN, || {
        let size = city.log_size("transport");
        let newest = (size.saturating_sub(400)..size).rev();
        newest.into_iter().find(|i| city.entry("transport", *i).op_hash == *op_hash).ok_or(size)
    });
    let op = format!("op:{index}");
    let file = folder.join("delivery.receipt").to_string_lossy().into_owned();
    city.at("transport", &["op", "receipt", &op, "--file", &file, "--quiet"]).done();
    let mut verify = Command::new(&city.program);
    verify.args(["verify", "receipt", "delivery.receipt", "--trust", "trust.json", "--output", "json"]);
    let found = concordat_tests::harness::Ran::of(verify.current_dir(&folder).env_clear()).done().json();
    assert_eq!((&found["valid"], &found["verdict"]), (&json!(true), &json!("accepted")), "{found}");
    assert_eq!(found["operation"], op.as_str());
}

/// What grid's executor says of a subscription.
fn state(city: &City, number: u64) -> Value {
    let nats = streams(city, "grid");
    let said =
        wait(async { tokio::time::timeout(Duration::from_secs(5), nats.request("executor.feeds", "".into())).await });
    let told: Value =
        said.ok().and_then(Result::ok).and_then(|m| serde_json::from_slice(&m.payload).ok()).unwrap_or_default();
    let all = told["subscriptions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|s| s["subscription"] == number).unwrap_or_default()
}

/// How long the clause holds messages back.
const DELAY_MS: u64 = 30_000;

pub fn a_delay_outlives_a_restart_and_keeps_the_order(world: &World) {
    let (city, feed) = (world.shared(), &feeds(world)[1]);
    let delay = format!("{{type: delay, field: at, for: {}s}}", DELAY_MS / 1_000);
    agreement("AGR-2026-9572", feed, &[&delay]).activate(city);
    let mut follower = Follower::default_of(city, "transport", "AGR-2026-9572");
    let number = follower.view()["subscription"].as_u64().expect("its number");
    let start = city.tick_ms();
    let at = |ms: u64| jiff::Timestamp::from_millisecond(ms as i64).expect("a time").to_string();
    // One of age, one that is not, one of age behind it, one without a time.
    let times = [start - 10 * DELAY_MS, start, start - 10 * DELAY_MS];
    for (n, ms) in (1..).zip(times) {
        publish(city, feed, &[json!({"n": n, "zone": "N", "mw": "1", "at": at(ms)})]);
    }
    publish(city, feed, &[json!({"n": 4, "zone": "N", "mw": "1"})]);
    let held = until("the executor holds the second back", WITHIN, || {
        let state = state(city, number);
        if state["state"] == "held" { Ok(state) } else { Err(state) }
    });
    assert_eq!(held["last_sub_seq"], 1, "{held}");
    assert!(held["why"].as_str().is_some_and(|w| w.contains("delay")), "{held}");
    city.killed_and_back("grid", "executor");
    let got = follower.take(3);
    let numbers: Vec<&Value> = got.iter().map(|m| &m["data"]["n"]).collect();
    assert_eq!(numbers, [1, 2, 3], "in their order, none twice");
    follower.nothing_more();
    // By the times that the provider itself signed.
    let promises: Vec<Promise> = items(city, number).into_iter().map(|(_, p)| p).collect();
    assert_eq!(promises.iter().map(|p| p.first_sub_seq).collect::<Vec<_>>(), [1, 2, 3]);
    for (promise, ms) in promises.iter().zip(times) {
        assert!(promise.delivered_ms > ms + DELAY_MS, "{promise:?} of {ms}");
    }
    assert!(promises[0].delivered_ms < start + DELAY_MS, "what was of age did not wait for what was not");
}

/// Terms hash of a document as the command line compiles it.
fn terms_hash(city: &City, file: &str) -> Hash {
    let shown = city.run(&["agreement", "render", file, "--output", "json"]).done().json();
    hex::decode(shown["terms_hash"].as_str().unwrap()).unwrap().try_into().unwrap()
}

pub fn a_renewal_that_opens_more_is_not_applied(world: &World) {
    let city = world.shared();
    let agreement = Agreement::new("AGR-2026-9573", "forged-renewal");
    agreement.activate(city);
    let folder = city.dir("police").join("agreements");
    let own = folder.join("AGR-2026-9573.yaml").to_string_lossy().into_owned();
    let forged = folder.join("AGR-2026-9573-later.yaml");
    let text = agreement.yaml().replace("2090-01-01", "2091-01-01").replace("[stop_id, time,", "[stop_id, time, race,");
    put(&forged, &text);
    let forged = forged.to_string_lossy().into_owned();
    let compiled = concordat_policies::compile::compile(&text).expect("it compiles");
    let (before, after) = (terms_hash(city, &own), terms_hash(city, &forged));
    let expires_ms = city.tick_ms() + 86_400_000;
    let renew = ActBody::Renew { terms: cbor::encode(&compiled.terms).into(), expires_ms };
    // The gateway hands it to nobody, whoever signed it, with or without the document beside it.
    let key = city.key("police", GATEWAY);
    let signed = concordat_broker::ledger::acts::sign_act(
        &city.chain(),
        &"police".parse().unwrap(),
        &key,
        u64::MAX,
        renew.clone(),
    );
    let signed = signed.expect("it is signed");
    let operator = city.api("police", "operator");
    let refused = operator.post_bytes("/admin/v1/acts", "application/cbor", signed.clone()).is(409);
    assert_eq!(refused.body["code"], "not-a-renewal", "{}", refused.body);
    assert!(refused.body["detail"].as_str().is_some_and(|d| d.contains("clause C1: fields")), "{}", refused.body);
    let body = json!({"act": hex::encode(&signed), "document": text});
    assert_eq!(operator.post("/admin/v1/acts", &body).is(409).body["code"], "not-a-renewal");
    // Past both gateways: people of both sides sign it and bring it to the ledger, which cannot tell.
    act(city, "police", &key, renew).expect("the ledger takes it");
    let api = city.api("police", "operator");
    let found = || api.get("/v1/agreements/AGR-2026-9573").body["newest"].clone();
    let revision = found()["revision"].as_u64().expect("a revision");
    for (agency, role) in [("police", "legal"), ("police", "data-steward"), ("court", "legal")] {
        let approve = ActBody::Approve {
            agreement: "AGR-2026-9573".parse().unwrap(),
            version: 1,
            revision,
            what: ApprovalKind::Renew,
            terms_hash: after,
            prev_terms_hash: before,
            role: role.into(),
            expires_ms,
        };
        let key = city.key(agency, &approver(role));
        let signed = concordat_broker::ledger::acts::sign_act(
            &city.chain(),
            &agency.parse().unwrap(),
            &key,
            u64::MAX,
            approve.clone(),
        );
        let refused =
            city.api(agency, "operator").post_bytes("/admin/v1/acts", "application/cbor", signed.unwrap()).is(409);
        assert!(
            matches!(refused.body["code"].as_str(), Some("not-a-renewal" | "renewal-document")),
            "{}",
            refused.body
        );
        act(city, agency, &key, approve).expect("the ledger takes it");
    }
    until("the ledger has the renewed terms", WITHIN, || {
        let now = found();
        if now["terms_hash"] == hex::encode(after) { Ok(()) } else { Err(now) }
    });
    // The executor goes on with what was agreed, and says why; also after a restart.
    let ask = |select: Value| {
        let body = json!({"dataset": "ds:police/stops@1", "purpose": agreement.purpose, "select": select,
                          "where": {"stop_id": "17-089556"}});
        city.api("court", "clerk").query(&body)
    };
    for restarted in [false, true] {
        if restarted {
            city.killed_and_back("police", "executor");
        }
        let denied = until("a denial that says why", WITHIN, || {
            let answer = ask(json!(["race"]));
            let says = answer.status == 403 && answer.body.to_string().contains("its renewal is not applied");
            assert_ne!(answer.status, 200, "the forged renewal opened a field: {}", answer.body);
            if says { Ok(answer) } else { Err(format!("{} {}", answer.status, answer.body)) }
        });
        assert_eq!(denied.body["missing"], "field race", "{}", denied.body);
        let rows = ask(json!(["stop_id", "time"])).is(200).rows().clone();
        assert!(!rows.is_empty(), "what was agreed before goes on");
        let shown = found();
        assert!(shown["renewal_refused"].as_str().is_some_and(|w| w.contains("fields")), "{shown}");
    }
}
