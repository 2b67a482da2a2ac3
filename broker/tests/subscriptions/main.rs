//! Subscriptions as a consumer handles them, on a real nats-server with the accounts of production: create and delete,
//! pause, seek, server-sent events, restarts.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../city/mod.rs"]
mod city;
mod created;
mod events;

use city::{City, SUBSCRIPTION, until};
use concordat_broker::feed::{Cursor, FeedError, SeekTo, Subscription, Subscriptions};
use concordat_broker::intake::{Incoming, Intake};
use concordat_protocol::message::SourceState;
use std::sync::Arc;
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
        let batch = Incoming { source: Some(source.clone()), after: None, body: body.clone().into() };
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
