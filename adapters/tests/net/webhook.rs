//! What others send, over real connections.

use std::time::Duration;

use concordat_adapters::contract::{Checkpoint, Source};
use concordat_adapters::dead_letter::{DeadLetters, list};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::StatusCode;
use serde_json::Value;

use crate::fake_broker::{Act, FakeBroker};
use crate::mosquitto::free_port;
use crate::running::{Running, broker, count, fields, until};

pub const TOKEN: &str = "a-token-of-a-sender";

fn yaml(port: u16, auth: &str, more: &str) -> String {
    format!(
        "adapter: load\nkind: webhook\nlisten: {{address: \"127.0.0.1:{port}\", path: /in}}\nauth: {auth}\n{more}\
         into: ds:grid/load@1\nmap:\n  n: {{type: integer}}\n  time: {{from: $.t, type: timestamp, zone: offset}}\nkey: [n]\ntime: time\n"
    )
}

fn item(n: usize) -> String {
    format!(r#"{{"n": {n}, "t": "2026-01-01T00:{:02}:00Z"}}"#, n % 60)
}

pub struct Sender {
    http: reqwest::Client,
    url: String,
}

impl Sender {
    pub fn new(port: u16) -> Self {
        Self {
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            url: format!("http://127.0.0.1:{port}/in"),
        }
    }

    async fn post(&self, body: &str) -> (StatusCode, Value) {
        let answer = self.http.post(&self.url).bearer_auth(TOKEN).body(body.to_owned()).send().await.unwrap();
        let status = answer.status();
        (status, answer.json().await.unwrap_or_default())
    }

    /// What was answered, if anything.
    pub async fn try_post(&self, body: &str) -> reqwest::Result<StatusCode> {
        let request = self.http.post(&self.url).bearer_auth(TOKEN).body(body.to_owned());
        request.send().await.map(|answer| answer.status())
    }

    /// Once it listens.
    async fn ready(&self) {
        for _ in 0..500 {
            if self.http.get(&self.url).send().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not listen");
    }
}

pub fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_is_answered_when_its_request_is_durable_and_known_when_it_comes_again() {
    let (dir, port) = (folder(), free_port());
    let broker = FakeBroker::start(|n, _| if n < 3 { Act::DropBefore } else { Act::Serve }).await;
    let yaml = yaml(port, "{token: \"file:token\"}", "");
    let running = Running::start(dir.path(), &yaml, &broker);
    let sender = Sender::new(port);
    sender.ready().await;
    let body = format!("[{},{},{{\"n\": 1.5}}]", item(1), item(2));
    let (status, answer) = sender.post(&body).await;
    assert_eq!((status, &answer["accepted"], &answer["dead_letters"]), (StatusCode::OK, &2.into(), &1.into()));
    assert_eq!(count(&broker), 2, "durable before the answer");
    let (status, answer) = sender.post(&body).await;
    assert_eq!((status, &answer["known"]), (StatusCode::OK, &true.into()));
    let (status, answer) = sender.post("no json").await;
    assert_eq!((status, &answer["dead_letters"]), (StatusCode::OK, &1.into()));
    assert_eq!(list(&DeadLetters::path(dir.path(), "load")).unwrap().len(), 2);
    running.stop().await;
    // A restart knows it as well.
    let running = Running::start(dir.path(), &yaml, &broker);
    sender.ready().await;
    let (_, answer) = sender.post(&format!("{}\n{}", item(3), item(4))).await;
    assert_eq!(answer["accepted"], 2);
    let (_, answer) = sender.post(&body).await;
    assert_eq!(answer["known"], true);
    running.stop().await;
    assert_eq!(fields(&broker, "n"), ["1", "2", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_large_requests_are_refused() {
    let (dir, port, broker) = (folder(), free_port(), broker().await);
    let yaml = yaml(port, "{hmac: {secret: \"file:token\"}}", "limits: {bytes: 100}\nid_header: x-id\n");
    let running = Running::start(dir.path(), &yaml, &broker);
    let sender = Sender::new(port);
    sender.ready().await;
    let sign = |body: &str| {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(TOKEN.as_bytes()).unwrap();
        mac.update(body.as_bytes());
        format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
    };
    let post = async |body: String, signature: String, id: &str| {
        let request = sender.http.post(&sender.url).header("x-hub-signature-256", signature).header("x-id", id);
        request.body(body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(post(item(1), sign(&item(2)), "a").await, 401);
    assert_eq!(post(item(1), String::new(), "a").await, 401);
    assert_eq!(post(item(1), "sha256=zz".into(), "a").await, 401);
    let long = format!("{}{}", item(1), " ".repeat(200));
    assert_eq!(post(long.clone(), sign(&long), "a").await, 413);
    assert_eq!(sender.http.get(&sender.url).send().await.unwrap().status().as_u16(), 405);
    assert_eq!(count(&broker), 0);
    assert_eq!(post(item(1), sign(&item(1)), "a").await, 200);
    // The sender's own number tells requests apart, not their bytes.
    assert_eq!(post(item(1), sign(&item(1)), "b").await, 200);
    assert_eq!(post(item(5), sign(&item(5)), "b").await, 200);
    running.stop().await;
    assert_eq!(fields(&broker, "n"), ["1", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_back_pressure_and_nothing_is_lost() {
    let (dir, port) = (folder(), free_port());
    let open = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let now = open.clone();
    let broker =
        FakeBroker::start(
            move |_, _| {
                if now.load(std::sync::atomic::Ordering::SeqCst) { Act::Serve } else { Act::DropBefore }
            },
        )
        .await;
    let running = Running::start(dir.path(), &yaml(port, "{token: \"file:token\"}", "limits: {pending: 3}\n"), &broker);
    let sender = std::sync::Arc::new(Sender::new(port));
    sender.ready().await;
    let posts: Vec<_> = (0..6)
        .map(|n| {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut refused = 0;
                loop {
                    match sender.post(&item(n)).await.0 {
                        StatusCode::OK => return refused,
                        StatusCode::TOO_MANY_REQUESTS => refused += 1,
                        other => panic!("{other}"),
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
        })
        .collect();
    let mut progress = running.progress.clone();
    until("it tries again", || progress.borrow_and_update().failures > 1).await;
    assert_eq!(count(&broker), 0);
    open.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut refused = 0;
    for post in posts {
        refused += post.await.unwrap();
    }
    assert!(refused > 0, "three may wait, three were told to come again");
    running.stop().await;
    let mut got = fields(&broker, "n");
    got.sort_unstable();
    assert_eq!(got, ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_place_gives_the_same_items_and_large_requests_are_split() {
    let (dir, port) = (folder(), free_port());
    let connector = concordat_adapters::parse(&yaml(port, "{token: \"file:token\"}", "")).unwrap();
    let mut source = connector.open(dir.path()).unwrap();
    let start = Checkpoint::default();
    assert_eq!(source.read(&start, 5).unwrap().rows(), 0);
    let sender = Sender::new(port);
    let body: Vec<String> = (0..7).map(item).collect();
    let sent = tokio::spawn(async move { sender.post(&body.join("\n")).await });
    let read = |source: &mut dyn Source, from: &Checkpoint, max: usize| {
        for _ in 0..200 {
            let batch = source.read(from, max).unwrap();
            if batch.rows() > 0 {
                let numbers: Vec<u64> = batch.records.iter().map(|r| r.data["n"].as_u64().unwrap()).collect();
                return (numbers, batch.checkpoint);
            }
        }
        panic!("nothing comes");
    };
    let (first, one) = read(&mut *source, &start, 5);
    assert_eq!(first, [0, 1, 2, 3, 4]);
    assert_eq!(read(&mut *source, &start, 5).0, first);
    let (second, two) = read(&mut *source, &one, 5);
    assert_eq!(second, [5, 6]);
    source.ack(&one).unwrap();
    assert!(!sent.is_finished(), "half a request is none");
    source.ack(&two).unwrap();
    let (status, answer) = sent.await.unwrap();
    assert_eq!((status, &answer["accepted"]), (StatusCode::OK, &7.into()));
}

/// Sends until it is answered.
fn keep_sending(port: u16, body: String) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let sender = Sender::new(port);
        while sender.try_post(&body).await.ok() != Some(StatusCode::OK) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_rest_is_read_of_a_request_that_was_durable_in_part() {
    let (dir, port) = (folder(), free_port());
    let connector = concordat_adapters::parse(&yaml(port, "{token: \"file:token\"}", "")).unwrap();
    // Each time a process that is killed: nobody is answered.
    let read = |from: &Checkpoint, max: usize| {
        let (mut source, start) = (connector.open(dir.path()).unwrap(), std::time::Instant::now());
        while start.elapsed() < crate::running::DEADLINE {
            // The port may be the last one's for a moment.
            let Ok(batch) = source.read(from, max) else { continue };
            if batch.rows() > 0 {
                let numbers: Vec<u64> = batch.records.iter().map(|r| r.data["n"].as_u64().unwrap()).collect();
                return (numbers, batch.checkpoint);
            }
        }
        panic!("nothing comes");
    };
    let body = (0..7).map(item).collect::<Vec<_>>().join("\n");
    let sent = keep_sending(port, body.clone());
    let (first, one) = read(&Checkpoint::default(), 5);
    assert_eq!(first, [0, 1, 2, 3, 4]);
    sent.abort();
    assert!(sent.await.unwrap_err().is_cancelled());
    // A process that hears of another request alone forgets nothing of the first one.
    let other = keep_sending(port, item(9));
    let (second, two) = read(&one, 5);
    assert_eq!(second, [9]);
    let sent = keep_sending(port, body);
    let (third, three) = read(&two, 1);
    assert_eq!(third, [5]);
    let (fourth, _) = read(&three, 5);
    assert_eq!(fourth, [6]);
    sent.abort();
    // It was durable when it was sent again.
    tokio::time::timeout(crate::running::DEADLINE, other).await.unwrap().unwrap();
}
