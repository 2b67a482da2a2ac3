//! A feed from intake to application on a real nats-server with the accounts of production.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod city;

use city::{City, SUBSCRIPTION, until};
use concordat_broker::feed::{Cursor, FeedError, Message, Subscriptions};
use concordat_broker::intake::{Accepted, Incoming, Intake, IntakeError, Position};
use concordat_protocol::codes::Verdict;
use concordat_protocol::message::SourceState;
use concordat_protocol::ops::Op;
use concordat_protocol::terms::Status;
use std::time::Duration;

const DATASET: &str = "ds:grid/load@1";

fn batch(no: u64, from: u64, count: u64) -> Incoming {
    let line = |n: u64| {
        format!(
            "{{\"id\":\"r{n}\",\"data\":{{\"time\":\"2026-01-01T00:00:00Z\",\"mw\":{n},\"secret\":\"canary-{n}\"}}}}\n"
        )
    };
    let source = SourceState { adapter: "load".into(), batch_no: no, checkpoint: no.to_be_bytes().to_vec().into() };
    Incoming { source: Some(source), after: None, body: (from..from + count).map(line).collect::<String>().into() }
}

/// Posts until it is durable, as an adapter does.
async fn post(intake: &Intake, no: u64, from: u64, count: u64) -> Accepted {
    until("batch durable", async || intake.post(DATASET, batch(no, from, count)).await.ok()).await
}

/// Reads and acknowledges until so many messages came.
async fn follow(subs: &Subscriptions, count: usize, step: usize) -> Vec<Message> {
    let mut got = Vec::new();
    while got.len() < count {
        let (found, sub) = until("messages", async || {
            let sub = subs.get(&SUBSCRIPTION.to_string()).ok()?;
            let found = subs.messages(&sub, None, step, Duration::from_millis(500)).await.ok()?;
            (!found.is_empty()).then_some((found, sub))
        })
        .await;
        let last = found.last().unwrap();
        subs.ack(&sub, Cursor { sub_seq: last.sub_seq, index: last.index }).await.unwrap();
        got.extend(found);
    }
    got
}

fn numbers(got: &[Message]) -> Vec<u64> {
    got.iter().map(|m| m.data["mw"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_message_comes_once_in_order_redacted_and_with_its_record() {
    let Some(city) = City::start().await else { return };
    let (intake, _executor, subs) = (city.intake().await, city.executor().await, city.follower().await);
    for no in 0..20 {
        let taken = post(&intake, no + 1, no * 30 + 1, 30).await;
        assert_eq!(taken, Accepted { accepted: 30, last_seq: (no + 1) * 30 });
    }
    let got = follow(&subs, 600, 77).await;
    assert_eq!(numbers(&got), (1..=600).collect::<Vec<_>>());
    assert!(got.iter().all(|m| m.data.len() == 2 && m.hidden > 0 && m.id.starts_with('r')), "{:?}", got[0]);
    assert!(!format!("{got:?}").contains("canary"));
    // The same batch again is answered and not published; another number is sent back.
    assert_eq!(intake.post(DATASET, batch(20, 571, 30)).await, Ok(Accepted { accepted: 30, last_seq: 600 }));
    let here = Position { batch_no: 20, checkpoint: 20u64.to_be_bytes().to_vec() };
    assert_eq!(intake.post(DATASET, batch(22, 1, 1)).await, Err(IntakeError::Elsewhere(here.clone())));
    assert_eq!(intake.position("load"), Ok(here));
    until("everything anchored", async || {
        let s = city.node.state.lock().unwrap();
        (s.datasets[0].head == 600 && s.anchored.get(&("grid".into(), SUBSCRIPTION)) == Some(&20)).then_some(())
    })
    .await;
    let s = city.node.state.lock().unwrap();
    assert!(s.ops.iter().all(|(_, v, code)| *v == Verdict::Accepted && *code == 0), "{:?}", s.ops);
    let published: u64 = s.ops.iter().map(|(op, ..)| if let Op::Publish { count, .. } = op { *count } else { 0 }).sum();
    let delivered: u64 = s.ops.iter().map(|(op, ..)| if let Op::Deliver { count, .. } = op { *count } else { 0 }).sum();
    assert_eq!((published, delivered), (600, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn restarts_of_every_part_and_a_killed_server_lose_and_double_nothing() {
    let Some(mut city) = City::start().await else { return };
    let (mut intake, mut executor, mut subs) = (city.intake().await, city.executor().await, city.follower().await);
    let mut got = Vec::new();
    for no in 0..6 {
        post(&intake, no + 1, no * 10 + 1, 10).await;
        match no {
            1 => got.extend(follow(&subs, 15, 4).await),
            2 => {
                drop(executor);
                executor = city.executor().await;
            }
            3 => {
                city.nats.kill();
                city.nats.again();
            }
            4 => {
                drop((subs, intake));
                subs = city.follower().await;
                intake = city.intake().await;
            }
            _ => {}
        }
    }
    let rest = 60 - got.len();
    got.extend(follow(&subs, rest, 7).await);
    assert_eq!(numbers(&got), (1..=60).collect::<Vec<_>>());
    until("everything anchored", async || {
        let s = city.node.state.lock().unwrap();
        (s.datasets[0].head == 60 && s.anchored.get(&("grid".into(), SUBSCRIPTION)) == Some(&6)).then_some(())
    })
    .await;
    drop(executor);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_suspension_stops_delivery_and_reading_at_once_and_a_revocation_removes_what_waits() {
    let Some(city) = City::start().await else { return };
    let (intake, _executor, subs) = (city.intake().await, city.executor().await, city.follower().await);
    post(&intake, 1, 1, 10).await;
    assert_eq!(follow(&subs, 10, 10).await.len(), 10);
    let sub = subs.get("grid-17").unwrap();
    let waiting = tokio::spawn({
        let (subs, sub) = (Subscriptions::clone(&subs), sub.clone());
        async move { subs.messages(&sub, None, 10, Duration::from_secs(30)).await }
    });
    city.node.set_status(Status::Suspended);
    let closed = tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("an open reader is told").unwrap();
    assert!(matches!(closed, Err(FeedError::NotActive { status: "suspended", .. })), "{closed:?}");
    post(&intake, 2, 11, 10).await;
    until("published", async || (city.node.state.lock().unwrap().datasets[0].head == 20).then_some(())).await;
    let anchored = || city.node.state.lock().unwrap().anchored.get(&("grid".into(), SUBSCRIPTION)).copied();
    assert_eq!(anchored(), Some(1), "nothing was delivered while suspended");
    city.node.set_status(Status::Active);
    assert_eq!(numbers(&follow(&subs, 10, 10).await), (11..=20).collect::<Vec<_>>());
    city.node.set_status(Status::Revoked);
    let gone = until("revoked", async || subs.messages(&sub, None, 1, Duration::ZERO).await.err()).await;
    assert!(matches!(gone, FeedError::NotActive { status: "revoked", .. }));
    let js = async_nats::jetstream::new(city.nats.connect("exchange").await);
    until("consumer and items are gone", async || {
        let stream = js.get_stream("TRANSPORT").await.ok()?;
        (stream.cached_info().state.messages == 0 && stream.consumer_info("GRID-17").await.is_err()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_somebody_else_puts_into_the_stream_is_never_handed_on() {
    let Some(city) = City::start().await else { return };
    let (intake, _executor, subs) = (city.intake().await, city.executor().await, city.follower().await);
    post(&intake, 1, 1, 5).await;
    assert_eq!(follow(&subs, 5, 5).await.len(), 5);
    // The exchange itself cannot forge a delivery.
    let js = async_nats::jetstream::new(city.nats.connect("exchange").await);
    js.publish("feed.GRID.TRANSPORT.17", "forged".into()).await.unwrap().await.unwrap();
    let stream = js.get_stream("TRANSPORT").await.unwrap();
    let first = stream.get_raw_message(stream.cached_info().state.first_sequence).await.unwrap();
    js.publish("feed.GRID.TRANSPORT.17", first.payload).await.unwrap().await.unwrap();
    post(&intake, 2, 6, 5).await;
    assert_eq!(numbers(&follow(&subs, 5, 5).await), (6..=10).collect::<Vec<_>>());
    // Transport cannot write into its own feed (the server puts the writer's own name first), nor read the grid's
    // envelopes.
    let transport = async_nats::jetstream::new(city.nats.connect("transport").await);
    let before = stream.get_info().await.unwrap().state.messages;
    let _ = transport.publish("feed.GRID.TRANSPORT.17", "x".into()).await.unwrap().await;
    assert_eq!(stream.get_info().await.unwrap().state.messages, before);
    assert!(transport.get_stream("PUB_LOAD_1").await.is_err());
}
