//! Server-sent events.

use super::*;
use axum::body::BodyDataStream;
use concordat_protocol::terms::Status;
use futures::StreamExt;
use serde_json::{Value, json};

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
