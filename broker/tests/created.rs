//! Subscriptions beside the default ones, from the provider's executor to the consumer, on a real nats-server: narrower
//! ones, public ones, deleted ones, and one whose consumer does not acknowledge.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod city;

use async_nats::jetstream::stream::DiscardPolicy;
use city::{City, SUBSCRIPTION, in_force, until};
use concordat_broker::feed::{Cursor, FeedError, Message, NewAsk, Subscription, Subscriptions};
use concordat_broker::gateway::{Gateway, GatewayError};
use concordat_broker::host::feed::{Asked, Feeds, FeedsStatus, SubscriptionStatus};
use concordat_broker::intake::{Incoming, Intake};
use concordat_executor::admit::read_request;
use concordat_executor::policies::compile::compile;
use concordat_protocol::cbor;
use concordat_protocol::codes::Verdict;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::message::SourceState;
use concordat_protocol::ops::Op;
use concordat_protocol::session::{Denied, QueryCall};
use concordat_protocol::subscribe::{FeedStart, SubscribeCommand, SubscribeReply};
use concordat_protocol::terms::Status;
use futures::StreamExt;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const DATASET: &str = "ds:grid/load@1";
const PUBLIC: u64 = 18;
const PUBLIC_TERMS: &str = "agreement: AGR-2026-0200
version: 1
assigner: org:grid
assignee: any
target: ds:grid/load@1
valid: {from: 2020-01-01T00:00:00Z, until: 2090-01-01T00:00:00Z}
approvals: {assigner: [legal]}
clauses:
- id: P1
  text: Everybody may follow the load by the hour.
  effect: permit
  assignee: any
  actions: [subscribe]
  evidence: none
  duties:
  - {type: fields, allow: [mw]}
";

async fn post(intake: &Intake, no: u64, from: u64, count: u64) {
    let line = |n: u64| {
        format!(
            "{{\"id\":\"r{n}\",\"data\":{{\"time\":\"2026-01-01T00:00:00Z\",\"mw\":{n},\"secret\":\"canary-{n}\"}}}}\n"
        )
    };
    let body: Vec<u8> = (from..from + count).map(line).collect::<String>().into_bytes();
    let source = SourceState { adapter: "load".into(), batch_no: no, checkpoint: vec![no as u8].into() };
    until("batch durable", async || {
        let batch = Incoming { source: Some(source.clone()), after: None, body: body.clone().into() };
        intake.post(DATASET, batch).await.ok()
    })
    .await;
}

/// Answers commands as the executor's listener does once it has admitted them.
async fn serve(city: &City, feeds: &Arc<Feeds>) {
    let (nats, feeds) = (city.nats.connect("grid").await, feeds.clone());
    let mut calls = nats.subscribe("q.*.GRID.feed").await.unwrap();
    nats.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(message) = calls.next().await {
            let call: QueryCall = cbor::decode(&message.payload).unwrap();
            let request = read_request(&call).unwrap();
            let consumer = AgencyId::new("transport").unwrap();
            let asked = Asked { consumer, request, session_expires_ms: u64::MAX };
            let reply = feeds.command(&asked, &call.query).await;
            nats.publish(message.reply.unwrap(), cbor::encode(&reply).into()).await.unwrap();
        }
    });
}

fn ask(name: &str) -> NewAsk {
    NewAsk {
        dataset: DatasetId::new(DATASET).unwrap(),
        name: name.into(),
        agreement: "AGR-2026-0143".into(),
        clause: String::new(),
        purpose: "purp:grid-dispatch".into(),
        case: String::new(),
        filter: None,
        fields: vec![],
        from: FeedStart::Earliest {},
        caller: "planner-1".into(),
        roles: vec!["planner".into()],
        actor: "psn:1".into(),
        request_id: "r-1".into(),
    }
}

/// Creates as soon as the parts are there; a denial is final.
async fn create(subs: &Subscriptions, gateway: &Gateway, ask: NewAsk) -> Result<Arc<Subscription>, Denied> {
    until("an answer to the command", async || match subs.create(gateway, ask.clone()).await {
        Ok((sub, _)) => Some(Ok(sub)),
        Err(FeedError::Gateway(GatewayError::Denied { denied, .. })) if denied.retry == 0 => Some(Err(*denied)),
        Err(e) => {
            eprintln!("not yet: {e}");
            None
        }
    })
    .await
}

/// Reads and acknowledges until so many came.
async fn follow(subs: &Subscriptions, sub: &Subscription, count: usize) -> Vec<Message> {
    let mut got: Vec<Message> = Vec::new();
    while got.len() < count {
        let found = until("messages", async || {
            let found = subs.messages(sub, None, 7, Duration::from_millis(200)).await.ok()?;
            (!found.is_empty()).then_some(found)
        })
        .await;
        let last = found.last().unwrap();
        subs.ack(sub, Cursor { sub_seq: last.sub_seq, index: last.index }).await.unwrap();
        got.extend(found);
    }
    got
}

fn numbers(got: &[Message]) -> Vec<u64> {
    got.iter().map(|m| m.data["mw"].as_u64().unwrap()).collect()
}

async fn default_one(subs: &Subscriptions) -> Arc<Subscription> {
    until("the default subscription", async || subs.get(&SUBSCRIPTION.to_string()).ok()).await
}

/// What the provider's broker is told of one subscription.
async fn status(city: &City, number: u64) -> Option<SubscriptionStatus> {
    let nats = city.nats.connect("grid").await;
    let reply = nats.request("executor.feeds", "".into()).await.ok()?;
    let all: FeedsStatus = serde_json::from_slice(&reply.payload).unwrap();
    all.subscriptions.into_iter().find(|s| s.subscription == number)
}

/// Items of a subscription in the consumer's stream.
async fn items(city: &City, number: u64) -> u64 {
    let js = async_nats::jetstream::new(city.nats.connect("exchange").await);
    let stream = js.get_stream("TRANSPORT").await.unwrap();
    let mut all = stream.info_with_subjects(format!("feed.GRID.TRANSPORT.{number}")).await.unwrap();
    let mut count = 0;
    while let Some(Ok((_, n))) = all.next().await {
        count += n as u64;
    }
    count
}

fn created(handle: u64, k: u64) -> u64 {
    handle << 32 | k
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_created_subscription_gets_its_rows_and_fields_and_nothing_else() {
    let Some(city) = City::start().await else { return };
    let (intake, mut feeds, subs, gateway) =
        (city.intake().await, city.executor().await, city.follower().await, city.gateway().await);
    serve(&city, &feeds).await;
    for no in 0..4 {
        post(&intake, no + 1, no * 10 + 1, 10).await;
    }
    let high = json!({"mw": {"range": {"from": 25}}}).as_object().cloned();
    let wanted = NewAsk { filter: high, fields: vec!["mw".into()], ..ask("high") };
    let sub = create(&subs, &gateway, wanted.clone()).await.unwrap();
    let got = follow(&subs, &sub, 16).await;
    assert_eq!(numbers(&got), (25..=40).collect::<Vec<_>>());
    assert!(got.iter().all(|m| m.data.len() == 1 && m.hidden > 0 && m.time.is_none()), "{:?}", got[0]);
    assert!(!format!("{got:?}").contains("canary"));
    // Wider than the clause is refused, with the field that is meant.
    for (filter, fields, said) in [
        (json!({"secret": {"prefix": "canary-1"}}), vec![], "does not open the field secret"),
        (json!({"not": {"secret": {"exists": true}}}), vec![], "does not open the field secret"),
        (json!({}), vec!["secret".to_owned()], "does not open secret"),
        (json!({}), vec!["tme".to_owned()], "nearest is time"),
        (json!({"mv": 3}), vec![], "mw"),
    ] {
        let wide = NewAsk { filter: filter.as_object().cloned(), fields, ..ask("wide") };
        let denied = create(&subs, &gateway, wide).await.err().expect(said);
        assert!(denied.detail.contains(said), "{said}: {denied:?}");
    }
    let denied = create(&subs, &gateway, NewAsk { purpose: "purp:other".into(), ..ask("p") }).await.err().unwrap();
    assert_eq!(denied.reason, "purpose");
    // From a message on: the envelope that holds it is the first.
    let tail = create(&subs, &gateway, NewAsk { from: FeedStart::Sequence { seq: 33 }, ..ask("tail") }).await.unwrap();
    assert_eq!(numbers(&follow(&subs, &tail, 10).await), (31..=40).collect::<Vec<_>>());
    let newest = create(&subs, &gateway, NewAsk { from: FeedStart::Latest {}, ..ask("newest") }).await.unwrap();
    // The executor's life ends; what was created goes on where it stood.
    drop(feeds);
    feeds = city.executor().await;
    post(&intake, 5, 41, 10).await;
    assert_eq!(numbers(&follow(&subs, &sub, 10).await), (41..=50).collect::<Vec<_>>());
    assert_eq!(numbers(&follow(&subs, &newest, 10).await), (41..=50).collect::<Vec<_>>());
    let number = created(SUBSCRIPTION, 1);
    let last = until("anchored and told", async || {
        let s = status(&city, number).await?;
        (s.state == "delivering" && s.anchored_sub_seq == 3 && s.lag_ms == 0).then_some(s)
    })
    .await;
    assert_eq!((last.delivered_messages, last.stream_seq, last.unsent, last.max_lag_ms), (26, 5, 0, 2_000));
    assert_eq!(
        (last.consumer.as_str(), last.agreement.as_str(), last.clause.as_str()),
        ("transport", "AGR-2026-0143", "F1")
    );
    let s = city.node.state.lock().unwrap();
    let mine = s.ops.iter().filter(|(op, ..)| matches!(op, Op::Deliver { subscription, handle, .. } if *subscription == number && *handle == SUBSCRIPTION));
    assert!(mine.clone().count() > 0 && mine.clone().all(|(_, v, _)| *v == Verdict::Accepted));
    drop(feeds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_deleted_subscription_gets_nothing_more_and_is_anchored() {
    let Some(city) = City::start().await else { return };
    let (intake, feeds, subs, gateway) =
        (city.intake().await, city.executor().await, city.follower().await, city.gateway().await);
    serve(&city, &feeds).await;
    post(&intake, 1, 1, 10).await;
    let sub = create(&subs, &gateway, ask("short")).await.unwrap();
    assert_eq!(numbers(&follow(&subs, &sub, 10).await), (1..=10).collect::<Vec<_>>());
    let number = created(SUBSCRIPTION, 1);
    let request = |n: u64| Asked {
        consumer: AgencyId::new("transport").unwrap(),
        request: concordat_protocol::session::Request {
            chain: "city".into(),
            session: 77,
            n,
            provider: AgencyId::new("grid").unwrap(),
            dataset: DatasetId::new(DATASET).unwrap(),
            clause: String::new(),
            purpose: String::new(),
            case: String::new(),
            query_hash: [0; 32],
            kem_key_id: concordat_protocol::keys::KeyId([0; 16]),
            not_after_ms: u64::MAX,
        },
        session_expires_ms: u64::MAX,
    };
    let delete = |subscription| cbor::encode(&SubscribeCommand::Delete { subscription });
    let reason =
        |r: SubscribeReply| if let SubscribeReply::Denied { body } = r { body.reason } else { format!("{r:?}") };
    let other = Asked { consumer: AgencyId::new("court").unwrap(), ..request(1) };
    assert_eq!(reason(feeds.command(&other, &delete(number)).await), "unknown-subscription", "somebody else's");
    assert_eq!(reason(feeds.command(&request(2), &delete(SUBSCRIPTION)).await), "default-subscription");
    assert_eq!(reason(feeds.command(&request(3), b"nonsense").await), "bad-command");
    let late = Asked { session_expires_ms: 1, ..request(4) };
    assert_eq!(reason(feeds.command(&late, &delete(number)).await), "session-expired");
    assert_eq!(feeds.command(&request(5), &delete(number)).await, SubscribeReply::Deleted { subscription: number });
    assert_eq!(feeds.command(&request(6), &delete(number)).await, SubscribeReply::Deleted { subscription: number });
    let before = items(&city, number).await;
    post(&intake, 2, 11, 10).await;
    assert_eq!(numbers(&follow(&subs, &*default_one(&subs).await, 20).await), (1..=20).collect::<Vec<_>>());
    assert_eq!(items(&city, number).await, before);
    until("anchored and gone", async || {
        let anchored = city.node.state.lock().unwrap().anchored.get(&("grid".into(), number)).copied();
        (anchored == Some(1) && status(&city, number).await.is_none()).then_some(())
    })
    .await;
    city.node.set_status(Status::Revoked);
    until("the default one ends with its agreement", async || {
        status(&city, SUBSCRIPTION).await.filter(|s| s.state == "ended" && s.why.contains("revoked"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn public_data_is_delivered_without_a_promise_to_whoever_asks() {
    let Some(city) = City::start().await else { return };
    let compiled = compile(PUBLIC_TERMS).unwrap();
    std::fs::write(city.grid.path("agreements/public.yaml"), PUBLIC_TERMS).unwrap();
    city.node.govern(|s| {
        s.agreements.push(in_force(&compiled, PUBLIC));
    });
    let (intake, feeds, subs, gateway) =
        (city.intake().await, city.executor().await, city.follower().await, city.gateway().await);
    serve(&city, &feeds).await;
    post(&intake, 1, 1, 10).await;
    let public = NewAsk { agreement: "AGR-2026-0200".into(), purpose: "purp:none".into(), ..ask("open") };
    let sub = create(&subs, &gateway, public).await.unwrap();
    let got = follow(&subs, &sub, 10).await;
    assert_eq!(numbers(&got), (1..=10).collect::<Vec<_>>());
    assert!(got.iter().all(|m| m.data.len() == 1));
    let number = created(PUBLIC, 1);
    let told = until("told", async || status(&city, number).await.filter(|s| s.state == "delivering")).await;
    assert_eq!((told.max_lag_ms, told.lag_ms, told.delivered_messages), (0, 0, 10));
    // The default subscription of the same dataset is anchored meanwhile, the public one never.
    until("the default one is anchored", async || {
        let s = city.node.state.lock().unwrap();
        s.anchored.get(&("grid".into(), SUBSCRIPTION)).filter(|n| **n >= 1).copied()
    })
    .await;
    let s = city.node.state.lock().unwrap();
    assert!(!s.ops.iter().any(|(op, ..)| matches!(op, Op::Deliver { handle, .. } if *handle == PUBLIC)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_consumer_that_never_acknowledges_waits_alone_and_loses_nothing() {
    let Some(city) = City::start().await else { return };
    let (intake, feeds, subs, gateway) =
        (city.intake().await, city.executor().await, city.follower().await, city.gateway().await);
    serve(&city, &feeds).await;
    post(&intake, 1, 1, 5).await;
    let dead = create(&subs, &gateway, ask("dead")).await.unwrap();
    let (live, number) = (default_one(&subs).await, created(SUBSCRIPTION, 1));
    let js = async_nats::jetstream::new(city.nats.connect("exchange").await);
    let room = async |items: i64| {
        let mut config = js.get_stream("TRANSPORT").await.unwrap().cached_info().config.clone();
        (config.max_messages_per_subject, config.discard_new_per_subject) = (items, true);
        config.discard = DiscardPolicy::New;
        js.update_stream(config).await.unwrap();
    };
    let mut got = follow(&subs, &live, 5).await;
    room(4).await;
    for no in 1..20 {
        post(&intake, no + 1, no * 5 + 1, 5).await;
        got.extend(follow(&subs, &live, 5).await);
        // What the live one has is taken away, as the exchange manager does with what is acknowledged.
        js.get_stream("TRANSPORT").await.unwrap().purge().filter("feed.GRID.TRANSPORT.17").await.unwrap();
    }
    assert_eq!(numbers(&got), (1..=100).collect::<Vec<_>>(), "nobody waited for the dead one");
    let full = until("full", async || status(&city, number).await.filter(|s| s.state == "full")).await;
    assert!(full.why.contains("does not acknowledge") && full.unsent > 0, "{full:?}");
    assert_eq!(items(&city, number).await, 4);
    room(1_000).await;
    assert_eq!(numbers(&follow(&subs, &dead, 100).await), (1..=100).collect::<Vec<_>>());
    until("it goes on", async || status(&city, number).await.filter(|s| s.state == "delivering" && s.unsent == 0))
        .await;
}
