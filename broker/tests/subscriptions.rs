//! Subscriptions as a consumer handles them, on a real nats-server with the accounts of production: create and delete,
//! pause, seek, server-sent events, restarts.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod city;

use axum::body::BodyDataStream;
use city::{City, SUBSCRIPTION, until};
use concordat_broker::feed::{Cursor, FeedError, NewAsk, SeekTo, Subscription, Subscriptions};
use concordat_broker::gateway::{Ask, GatewayError};
use concordat_broker::intake::{Incoming, Intake};
use concordat_executor::admit::{read_request, verify_call};
use concordat_executor::decide::denied;
use concordat_protocol::cbor;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::message::SourceState;
use concordat_protocol::session::{Denied, QueryCall};
use concordat_protocol::subscribe::{FeedStart, NewSubscription, SubscribeCommand, SubscribeReply, Subscribed};
use concordat_protocol::terms::Status;
use futures::StreamExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const DATASET: &str = "ds:grid/load@1";

/// Posts `count` messages numbered from `from`, as one batch.
async fn post(intake: &Intake, no: u64, from: u64, count: u64) {
    let line = |n: u64| {
        format!("{{\"id\":\"r{n}\",\"data\":{{\"time\":\"2026-01-01T00:00:00Z\",\"mw\":{n},\"secret\":\"s\"}}}}\n")
    };
    let body: Vec<u8> = (from..from + count).map(line).collect::<String>().into_bytes();
    let source = SourceState { adapter: "load".into(), batch_no: no, checkpoint: vec![no as u8].into() };
    until("batch durable", async || {
        let batch = Incoming { source: Some(source.clone()), body: body.clone() };
        intake.post(DATASET, batch).await.ok()
    })
    .await;
}

/// Reads from what is acknowledged on until so many are there, without acknowledging.
async fn numbers(subs: &Subscriptions, sub: &Subscription, count: usize) -> Vec<u64> {
    until("messages", async || {
        let found = subs.messages(sub, None, 1_000, Duration::ZERO).await.unwrap();
        (found.len() >= count).then(|| found.iter().map(|m| m.data["mw"].as_u64().unwrap()).collect())
    })
    .await
}

fn cursor(text: &str) -> Cursor {
    text.parse().unwrap()
}

async fn default_one(subs: &Subscriptions) -> Arc<Subscription> {
    until("the default subscription", async || subs.get(&SUBSCRIPTION.to_string()).ok()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_application_reads_again_from_wherever_it_wants() {
    let Some(city) = City::start().await else { return };
    let (intake, _executor, mut subs) = (city.intake().await, city.executor().await, city.follower().await);
    let sub = default_one(&subs).await;
    for no in 0..10 {
        post(&intake, no + 1, no * 3 + 1, 3).await;
    }
    // Deliveries may hold more than one batch: cursors are taken from what was read.
    let all = until("thirty messages", async || {
        let found = subs.messages(&sub, None, 1_000, Duration::ZERO).await.unwrap();
        (found.len() == 30).then_some(found)
    })
    .await;
    let place = |n: usize| Cursor { sub_seq: all[n - 1].sub_seq, index: all[n - 1].index };
    let acked = subs.ack(&sub, place(30)).await.unwrap();
    assert!(subs.messages(&sub, None, 10, Duration::ZERO).await.unwrap().is_empty());
    assert!(subs.seek(&sub, SeekTo::Earliest).await.unwrap(), "the exchange did its part");
    assert_eq!(numbers(&subs, &sub, 30).await, (1..=30).collect::<Vec<_>>());
    // What was acknowledged moved back, and a cursor of before counts again once it was handed on again.
    assert!(subs.ack(&sub, place(15)).await.unwrap() < acked);
    subs.seek(&sub, SeekTo::Cursor(place(20))).await.unwrap();
    assert_eq!(numbers(&subs, &sub, 10).await, (21..=30).collect::<Vec<_>>());
    subs.seek(&sub, SeekTo::SubSeq(all[0].sub_seq + 1)).await.unwrap();
    let from = all.iter().position(|m| m.sub_seq == all[0].sub_seq + 1).unwrap();
    assert_eq!(numbers(&subs, &sub, 30 - from).await, (from as u64 + 1..=30).collect::<Vec<_>>());
    subs.seek(&sub, SeekTo::Time(1_000)).await.unwrap();
    assert_eq!(numbers(&subs, &sub, 30).await, (1..=30).collect::<Vec<_>>());
    for beyond in [SeekTo::SubSeq(99), SeekTo::Cursor(cursor("99.0")), SeekTo::SubSeq(0), SeekTo::Time(u64::MAX)] {
        let refused = subs.seek(&sub, beyond).await;
        assert!(matches!(refused, Err(FeedError::Bad { field: "to", .. })), "{beyond:?} {refused:?}");
    }
    // A process that dies after a seek and before anything was acknowledged goes on with the seek.
    subs.ack(&sub, place(30)).await.unwrap();
    subs.seek(&sub, SeekTo::Cursor(place(25))).await.unwrap();
    drop((sub, subs));
    subs = city.follower().await;
    let sub = default_one(&subs).await;
    assert_eq!(numbers(&subs, &sub, 5).await, (26..=30).collect::<Vec<_>>());
    subs.seek(&sub, SeekTo::Latest).await.unwrap();
    post(&intake, 11, 31, 3).await;
    assert_eq!(numbers(&subs, &sub, 3).await, [31, 32, 33]);
    let handed = subs.messages(&sub, None, 10, Duration::ZERO).await.unwrap();
    subs.ack(&sub, Cursor { sub_seq: handed[2].sub_seq, index: handed[2].index }).await.unwrap();
    assert!(subs.messages(&sub, None, 10, Duration::from_millis(300)).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_dead_process_held_comes_at_once_and_only_once() {
    let Some(city) = City::start().await else { return };
    let (intake, _executor, mut subs) = (city.intake().await, city.executor().await, city.follower().await);
    let sub = default_one(&subs).await;
    for no in 0..6 {
        post(&intake, no + 1, no * 5 + 1, 5).await;
    }
    assert_eq!(numbers(&subs, &sub, 30).await.len(), 30);
    let second = subs.messages(&sub, None, 7, Duration::ZERO).await.unwrap().pop().unwrap();
    subs.ack(&sub, Cursor { sub_seq: second.sub_seq, index: second.index }).await.unwrap();
    drop((sub, subs));
    let since = Instant::now();
    subs = city.follower().await;
    let sub = default_one(&subs).await;
    assert_eq!(numbers(&subs, &sub, 23).await, (8..=30).collect::<Vec<_>>());
    // Measured, not asserted: the server's own patience would be 5 s.
    eprintln!("after a restart everything was there again after {} ms", since.elapsed().as_millis());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pause_outlives_the_process_and_loses_nothing() {
    let Some(city) = City::start().await else { return };
    let (intake, _executor, mut subs) = (city.intake().await, city.executor().await, city.follower().await);
    let sub = default_one(&subs).await;
    post(&intake, 1, 1, 3).await;
    numbers(&subs, &sub, 3).await;
    subs.pause(&sub, "planner-1").await.unwrap();
    let paused = |r: Result<_, FeedError>| matches!(r, Err(FeedError::Paused { by, .. }) if by == "planner-1");
    assert!(paused(subs.messages(&sub, None, 9, Duration::ZERO).await));
    subs.ack(&sub, cursor("1.2")).await.expect("what was read before can be acknowledged");
    post(&intake, 2, 4, 3).await;
    drop((sub, subs));
    subs = city.follower().await;
    let sub = default_one(&subs).await;
    assert!(paused(subs.messages(&sub, None, 9, Duration::from_millis(300)).await));
    subs.resume(&sub).await.unwrap();
    assert_eq!(numbers(&subs, &sub, 3).await, [4, 5, 6]);
}

/// A reader of server-sent events.
struct Reader {
    body: BodyDataStream,
    text: String,
}

impl Reader {
    fn new(subs: &Subscriptions, sub: &Arc<Subscription>, after: Option<Cursor>, ack: bool) -> Self {
        let body = subs.events(sub.clone(), after, ack).into_body().into_data_stream();
        Self { body, text: String::new() }
    }

    /// The next event: its kind, its id, its data; none at the end.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let of = |name: &str| event.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().to_owned();
                if let Ok(data) = serde_json::from_str(&of("data: ")) {
                    return Some((of("event: "), of("id: "), data));
                }
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.body.next()).await.expect("an event")?;
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }

    async fn numbers(&mut self, count: usize) -> (Vec<u64>, Cursor) {
        let (mut out, mut last) = (vec![], String::new());
        for _ in 0..count {
            let (kind, id, data) = self.next().await.unwrap();
            assert_eq!(kind, "message", "{data}");
            out.push(data["data"]["mw"].as_u64().unwrap());
            last = id;
        }
        (out, cursor(&last))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn event_streams_resume_share_and_end_with_a_reason() {
    let Some(city) = City::start().await else { return };
    let (intake, _executor, subs) = (city.intake().await, city.executor().await, city.follower().await);
    let sub = default_one(&subs).await;
    for no in 0..4 {
        post(&intake, no + 1, no * 5 + 1, 5).await;
    }
    let (mut one, mut two) = (Reader::new(&subs, &sub, None, false), Reader::new(&subs, &sub, None, false));
    let (first, last) = one.numbers(12).await;
    assert_eq!((first, two.numbers(20).await.0), ((1..=12).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>()));
    drop(one);
    // Nothing was acknowledged by reading: only a Last-Event-ID says that messages arrived.
    assert_eq!(numbers(&subs, &sub, 20).await.len(), 20);
    let mut again = Reader::new(&subs, &sub, Some(last), true);
    assert_eq!(again.numbers(8).await.0, (13..=20).collect::<Vec<_>>());
    until("what a resuming reader had is acknowledged", async || {
        (subs.messages(&sub, None, 99, Duration::ZERO).await.unwrap().len() == 8).then_some(())
    })
    .await;
    post(&intake, 5, 21, 2).await;
    assert_eq!((again.numbers(2).await.0, two.numbers(2).await.0), (vec![21, 22], vec![21, 22]));
    subs.seek(&sub, SeekTo::Earliest).await.unwrap();
    assert_eq!(two.numbers(22).await.0, (1..=22).collect::<Vec<_>>(), "an open stream goes back too");
    city.node.set_status(Status::Suspended);
    for reader in [&mut again, &mut two] {
        let closed = loop {
            let (kind, _, data) = reader.next().await.expect("a reason before the end");
            if kind == "closed" {
                break data;
            }
        };
        assert_eq!((&closed["code"], &closed["status"]), (&json!("not-active"), &json!(403)));
        assert!(closed["detail"].as_str().unwrap().contains("AGR-2026-0143 is suspended"), "{closed}");
        assert_eq!(reader.next().await, None, "and then the stream ends");
    }
    city.node.set_status(Status::Active);
    until("active again", async || subs.permitted(&sub).ok()).await;
    let mut third = Reader::new(&subs, &sub, Some(cursor("1.0")), false);
    assert!(third.next().await.is_some_and(|(kind, ..)| kind == "message"));
    subs.pause(&sub, "planner-1").await.unwrap();
    let mut last = third.next().await.unwrap();
    while last.0 != "closed" {
        last = third.next().await.unwrap();
    }
    assert_eq!(last.2["code"], "paused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deliveries_that_do_not_prove_themselves_are_kept_as_evidence() {
    let Some(city) = City::start().await else { return };
    let (intake, _executor, subs) = (city.intake().await, city.executor().await, city.follower().await);
    let sub = default_one(&subs).await;
    let grid = async_nats::jetstream::new(city.nats.connect("grid").await);
    until("the feed stream takes items", async || {
        grid.publish("feed.TRANSPORT.17", "forged".into()).await.ok()?.await.ok()
    })
    .await;
    post(&intake, 1, 1, 2).await;
    assert_eq!(numbers(&subs, &sub, 2).await, [1, 2]);
    let kept = until("kept", async || subs.refused(&sub).await.ok().filter(|all| !all.is_empty())).await;
    assert_eq!((kept.len(), kept[0].n, kept[0].check.as_str(), kept[0].size, &kept[0].bytes), (1, 1, "item", 6, &None));
    assert_eq!(subs.refused_one(&sub, 1).await.unwrap().unwrap().bytes, Some(b"forged".to_vec()));
    // Read again from the beginning it is passed over, not reported a second time.
    subs.seek(&sub, SeekTo::Earliest).await.unwrap();
    assert_eq!(numbers(&subs, &sub, 2).await, [1, 2]);
    assert_eq!(subs.refused(&sub).await.unwrap().len(), 1);
}

/// A provider that keeps to the contract: only signed commands of a session's consumer, one number a name and terms.
#[derive(Default)]
struct Provider {
    names: BTreeMap<String, (NewSubscription, u64)>,
    deleted: Vec<u64>,
    /// Answers with these instead.
    lie: Option<SubscribeReply>,
}

impl Provider {
    fn reply(&mut self, city_sessions: &[concordat_protocol::node::SessionView], bytes: &[u8]) -> SubscribeReply {
        let call: QueryCall = cbor::decode(bytes).unwrap();
        let request = read_request(&call).unwrap();
        let session = city_sessions.iter().find(|s| s.session == request.session).expect("an open session");
        let grid = AgencyId::new("grid").unwrap();
        let call_ok = verify_call(&call, request, "city", &grid, session).expect("a signed command");
        assert_eq!(call_ok.request.dataset.as_str(), DATASET);
        if let Some(lie) = &self.lie {
            return lie.clone();
        }
        match cbor::decode(&call.query).unwrap() {
            SubscribeCommand::Create { body } => {
                assert!(body.actor.starts_with("psn:") && body.roles == ["planner"]);
                let next = (SUBSCRIPTION << 32) + 1 + self.names.len() as u64;
                let (kept, number) = self.names.entry(body.name.clone()).or_insert((body.clone(), next)).clone();
                if kept != body {
                    return SubscribeReply::Denied { body: denied(0, "exists", "other terms") };
                }
                SubscribeReply::Subscribed { body: subscribed(number) }
            }
            SubscribeCommand::Delete { subscription } => {
                self.names.retain(|_, (_, n)| *n != subscription);
                self.deleted.push(subscription);
                SubscribeReply::Deleted { subscription }
            }
        }
    }
}

fn subscribed(subscription: u64) -> Subscribed {
    Subscribed {
        subscription,
        agreement: "AGR-2026-0143".into(),
        version: 1,
        clause: "F1".into(),
        handle: SUBSCRIPTION,
        max_lag_ms: 2_000,
        fields: vec!["mw".into(), "time".into()],
    }
}

async fn provider(city: &City) -> Arc<Mutex<Provider>> {
    let this = Arc::new(Mutex::new(Provider::default()));
    let (nats, serve, state) = (city.nats.connect("grid").await, this.clone(), city.node.state.clone());
    let mut calls = nats.subscribe("q.*.GRID.feed").await.unwrap();
    nats.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(message) = calls.next().await {
            assert_eq!(message.subject.as_str(), "q.TRANSPORT.GRID.feed");
            let sessions = state.lock().unwrap().sessions.clone();
            let reply = serve.lock().unwrap().reply(&sessions, &message.payload);
            nats.publish(message.reply.unwrap(), cbor::encode(&reply).into()).await.unwrap();
        }
    });
    this
}

fn ask(name: &str) -> NewAsk {
    NewAsk {
        dataset: DatasetId::new(DATASET).unwrap(),
        name: name.into(),
        agreement: "AGR-2026-0143".into(),
        clause: String::new(),
        purpose: "purp:grid-dispatch".into(),
        case: String::new(),
        filter: json!({"mw": {"gt": 5}}).as_object().cloned(),
        fields: vec!["time".into(), "mw".into()],
        from: FeedStart::Earliest {},
        caller: "planner-1".into(),
        roles: vec!["planner".into()],
        actor: "psn:1".into(),
        request_id: "r-1".into(),
    }
}

fn by() -> Ask {
    Ask {
        dataset: DatasetId::new(DATASET).unwrap(),
        query: Default::default(),
        purpose: String::new(),
        case: String::new(),
        clause: String::new(),
        caller: "planner-1".into(),
        roles: vec!["planner".into()],
        actor: "psn:1".into(),
        request_id: "r-2".into(),
        idempotency: None,
    }
}

async fn consumers(city: &City) -> Vec<String> {
    let js = async_nats::jetstream::new(city.nats.connect("exchange").await);
    let stream = js.get_stream("TRANSPORT").await.unwrap();
    let mut names: Vec<String> = stream.consumer_names().map(|n| n.unwrap()).collect().await;
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_subscription_is_created_once_survives_restarts_and_is_deleted_everywhere() {
    let Some(city) = City::start().await else { return };
    let (gateway, mut subs, grid) = (city.gateway().await, city.follower().await, provider(&city).await);
    default_one(&subs).await;
    let (sub, is_new) = until("created", async || subs.create(&gateway, ask("mine")).await.ok()).await;
    assert!(is_new);
    let id = sub.id();
    assert_eq!(id, format!("grid-{}", (SUBSCRIPTION << 32) + 1));
    assert_eq!(subs.get("mine").unwrap().id(), id, "its name and its id are the same subscription");
    assert_eq!(subs.get(&id).unwrap().name(), Some("mine"));
    assert_eq!(consumers(&city).await, ["GRID-17".to_owned(), format!("GRID-{}", (SUBSCRIPTION << 32) + 1)]);
    let (again, is_new) = subs.create(&gateway, ask("mine")).await.unwrap();
    assert_eq!((again.id(), is_new), (id.clone(), false));
    let other = NewAsk { fields: vec!["mw".into()], ..ask("mine") };
    let refused = subs.create(&gateway, other).await.err().unwrap();
    assert!(matches!(&refused, FeedError::Gateway(GatewayError::Denied { denied, .. }) if denied.reason == "exists"));
    // A process that died between the provider's answer and its own note repeats all of it.
    drop((sub, again, subs));
    subs = city.follower().await;
    until("taken up again", async || subs.get("mine").ok()).await;
    let sub = subs.get(&id).unwrap();
    subs.permitted(&sub).unwrap();
    let refused = subs.delete(&gateway, &default_one(&subs).await, by()).await.err().unwrap();
    assert_eq!(refused.code(), "default-subscription");
    subs.delete(&gateway, &sub, by()).await.unwrap();
    assert_eq!(grid.lock().unwrap().deleted, [(SUBSCRIPTION << 32) + 1]);
    assert_eq!(consumers(&city).await, ["GRID-17"]);
    assert!(matches!(subs.get(&id), Err(FeedError::Unknown(_))));
    assert!(matches!(subs.messages(&sub, None, 1, Duration::ZERO).await, Err(FeedError::Unknown(_))));
    drop((sub, subs));
    subs = city.follower().await;
    default_one(&subs).await;
    assert!(subs.get("mine").is_err(), "it does not come back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_provider_s_answer_is_taken_only_as_the_ledger_has_it() {
    let Some(city) = City::start().await else { return };
    let (gateway, subs, grid) = (city.gateway().await, city.follower().await, provider(&city).await);
    default_one(&subs).await;
    let lie = |reply| grid.lock().unwrap().lie = Some(reply);
    let number = (SUBSCRIPTION << 32) + 9;
    lie(SubscribeReply::Subscribed { body: Subscribed { max_lag_ms: 60_000, ..subscribed(number) } });
    let refused = until("an answer", async || match subs.create(&gateway, ask("mine")).await {
        Err(FeedError::Proof { sentence, .. }) => Some(sentence),
        _ => None,
    })
    .await;
    assert!(refused.contains("bound 2000 ms, not 17 and 60000 ms"), "{refused}");
    let no = Denied { missing: "role".into(), clause: "F1".into(), ..denied(0, "role", "for planners only") };
    lie(SubscribeReply::Denied { body: no });
    let refused = subs.create(&gateway, ask("mine")).await.err().unwrap();
    let problem = concordat_broker::http::Problem::from(refused);
    assert_eq!((problem.status.as_u16(), problem.clause.as_str(), problem.missing.as_str()), (403, "F1", "role"));
    assert!(problem.next.contains("bring what is missing"), "{}", problem.next);
    assert!(subs.get("mine").is_err());
    for (bad, field) in [
        (NewAsk { name: "No Spaces".into(), ..ask("x") }, "name"),
        (NewAsk { name: "grid-17".into(), ..ask("x") }, "name"),
        (NewAsk { agreement: "AGR-2026-0999".into(), ..ask("x") }, "agreement"),
        (NewAsk { fields: vec!["mw".into(), "mw".into()], ..ask("x") }, "select"),
    ] {
        let refused = subs.create(&gateway, bad).await.err().unwrap();
        assert!(matches!(&refused, FeedError::Bad { field: f, .. } if *f == field), "{field}: {refused}");
    }
}
