//! Sinks, fed by a gateway of tests that keeps the rules of `/v1/subscriptions`.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use concordat_adapters::contract::{AdapterError, ErrorClass};
use concordat_adapters::dead_letter::{DeadLetters, list};
use concordat_adapters::sinks::{self, Gateway, Message, runner};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::mosquitto::Mosquitto;
use crate::running::{DEADLINE, until};

#[derive(Default)]
pub struct Held {
    messages: Vec<Message>,
    /// Messages before this one are acknowledged.
    acked: usize,
    /// Acknowledgements that are lost on the way.
    lose: u32,
}

#[derive(Clone, Default)]
pub struct Feed(Arc<Mutex<Held>>);

fn message(n: u64) -> Message {
    let data = json!({"n": n, "feeder": format!("F{}", n % 3), "mw": "1.50"});
    Message {
        sub_seq: n / 4 + 1,
        index: n % 4,
        seq: n,
        id: format!("id-{n}"),
        time: Some(json!("2026-01-01T00:00:00Z")),
        data: data.as_object().cloned().unwrap(),
    }
}

impl Feed {
    pub fn with(count: u64) -> Self {
        let feed = Self::default();
        feed.0.lock().unwrap().messages = (0..count).map(message).collect();
        feed
    }

    pub fn acked(&self) -> usize {
        self.0.lock().unwrap().acked
    }

    pub async fn serve(&self) -> Gateway {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = Gateway::new(&format!("http://{}", listener.local_addr().unwrap()), "token").unwrap();
        let routes = Router::new()
            .route("/v1/subscriptions/SUB-1/messages", get(messages))
            .route("/v1/subscriptions/SUB-1/acks", post(acks))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        gateway
    }
}

async fn messages(
    State(feed): State<Feed>,
    Query(ask): Query<std::collections::HashMap<String, String>>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    if headers["authorization"] != "Bearer token" {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let held = feed.0.lock().unwrap();
    let max: usize = ask["max"].parse().unwrap();
    let page: Vec<&Message> = held.messages.iter().skip(held.acked).take(max).collect();
    let cursor = page.last().map(|m| m.cursor());
    // With members that this program does not know.
    let page: Vec<Value> = page
        .into_iter()
        .map(|m| {
            let mut value = serde_json::to_value(m).unwrap();
            value["hidden"] = json!(2);
            value
        })
        .collect();
    Ok(Json(json!({"messages": page, "cursor": cursor})))
}

async fn acks(State(feed): State<Feed>, Json(body): Json<Value>) -> Result<Json<Value>, StatusCode> {
    let mut held = feed.0.lock().unwrap();
    if held.lose > 0 {
        held.lose -= 1;
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let cursor = body["cursor"].as_str().unwrap();
    let at = held.messages.iter().position(|m| m.cursor() == cursor).ok_or(StatusCode::CONFLICT)?;
    held.acked = held.acked.max(at + 1);
    Ok(Json(json!({"acked_messages": held.acked})))
}

pub struct Sinking {
    task: JoinHandle<Result<runner::Progress, AdapterError>>,
    stop: watch::Sender<bool>,
}

pub fn start(dir: &Path, yaml: &str, gateway: Gateway) -> Sinking {
    let described = sinks::parse(yaml).unwrap();
    let sink = described.open(dir).unwrap();
    let mut dead = DeadLetters::open(dir, &described.head.sink).unwrap();
    let (stop, stopping) = watch::channel(false);
    let task =
        tokio::spawn(
            async move { runner::run(sink, &gateway, &described.head, &mut dead, false, stopping, |_| {}).await },
        );
    Sinking { task, stop }
}

impl Sinking {
    pub async fn stop(self) -> runner::Progress {
        self.stop.send_replace(true);
        tokio::time::timeout(DEADLINE, self.task).await.expect("it does not stop").unwrap().unwrap()
    }

    /// The error it ends with by itself.
    pub async fn error(self) -> AdapterError {
        tokio::time::timeout(DEADLINE, self.task).await.expect("it does not end").unwrap().unwrap_err()
    }

    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

pub fn head(kind: &str, to: &str) -> String {
    format!("sink: archive\nkind: {kind}\nsubscription: SUB-1\npage: {{max: 7, wait: 1s}}\nto: {to}\n")
}

fn lines(dir: &Path) -> Vec<u64> {
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    let text: String = names.iter().map(|p| std::fs::read_to_string(p).unwrap()).collect();
    text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["data"]["n"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_hold_each_message_once_whatever_happens() {
    let (dir, feed) = (tempfile::tempdir().unwrap(), Feed::with(100));
    let gateway = feed.serve().await;
    let yaml = head("file", "{folder: out}");
    let out = dir.path().join("out");
    let sinking = start(dir.path(), &yaml, gateway.clone());
    until("some of it", || feed.acked() >= 20).await;
    sinking.kill().await;
    // Written, and the acknowledgement lost with the process.
    feed.0.lock().unwrap().acked = lines(&out).len().saturating_sub(5);
    // A line that a crash tore.
    let file = out.join("archive-00000001.jsonl");
    let mut text = std::fs::read(&file).unwrap();
    text.extend_from_slice(b"{\"sub_seq\": 9");
    std::fs::write(&file, text).unwrap();
    feed.0.lock().unwrap().lose = 3;
    let sinking = start(dir.path(), &yaml, gateway);
    until("all of it", || feed.acked() == 100).await;
    sinking.stop().await;
    assert_eq!(lines(&out), (0..100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_signed_tried_again_and_its_refusals_are_kept() {
    let (dir, feed) = (tempfile::tempdir().unwrap(), Feed::with(30));
    let gateway = feed.serve().await;
    type Posted = Vec<(String, Vec<u64>)>;
    let got: Arc<Mutex<Posted>> = Arc::default();
    let (kept, listener) = (got.clone(), tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    let mut calls = 0;
    let calls = Arc::new(Mutex::new(move || {
        calls += 1;
        calls
    }));
    let take = move |headers: HeaderMap, body: String| {
        let (kept, calls) = (kept.clone(), calls.clone());
        async move {
            let mut mac = <hmac::Hmac<sha2::Sha256> as hmac::KeyInit>::new_from_slice(b"a secret of both").unwrap();
            hmac::Mac::update(&mut mac, body.as_bytes());
            let signature = hex::encode(hmac::Mac::finalize(mac).into_bytes());
            assert_eq!(headers["x-hub-signature-256"], format!("sha256={signature}"));
            let numbers: Vec<u64> = body
                .lines()
                .map(|l| serde_json::from_str::<Value>(l).unwrap()["data"]["n"].as_u64().unwrap())
                .collect();
            match (calls.lock().unwrap())() {
                1 | 4 => return StatusCode::SERVICE_UNAVAILABLE,
                _ if numbers.contains(&9) => return StatusCode::UNPROCESSABLE_ENTITY,
                _ => {}
            }
            kept.lock().unwrap().push((headers["idempotency-key"].to_str().unwrap().to_owned(), numbers));
            StatusCode::NO_CONTENT
        }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/in", post(take))).await });
    std::fs::write(dir.path().join("secret"), "a secret of both\n").unwrap();
    let sinking = start(dir.path(), &head("webhook", &format!("{{url: \"{url}\", hmac: \"file:secret\"}}")), gateway);
    until("all of it", || feed.acked() == 30).await;
    let done = sinking.stop().await;
    assert_eq!((done.delivered, done.dead_letters), (30, 1));
    let got = got.lock().unwrap();
    let mut numbers: Vec<u64> = got.iter().flat_map(|(_, n)| n.clone()).collect();
    numbers.dedup();
    assert_eq!(numbers, (0..30).filter(|n| *n != 9).collect::<Vec<_>>());
    assert_eq!(got[0].0, "SUB-1:1.0-2.2");
    let dead = list(&DeadLetters::path(dir.path(), "archive")).unwrap();
    assert_eq!((dead.len(), dead[0].rule.as_str()), (1, "sink.refused"));
    assert!(String::from_utf8(dead[0].original().unwrap()).unwrap().contains("\"id-9\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_gets_each_message_with_its_own_topic() {
    let Some(server) = Mosquitto::start("sink mqtt", "") else { return };
    let (dir, feed) = (tempfile::tempdir().unwrap(), Feed::with(60));
    let gateway = feed.serve().await;
    let mut listen = Command::new("mosquitto_sub");
    listen.args([
        "-h",
        "127.0.0.1",
        "-p",
        &server.port.to_string(),
        "-q",
        "1",
        "-t",
        "grid/+/load",
        "-v",
        "-C",
        "60",
        "-i",
        "reader",
        "-c",
    ]);
    // The session first, so that nothing is published to nobody.
    let mut first = Command::new("mosquitto_sub");
    first.args([
        "-h",
        "127.0.0.1",
        "-p",
        &server.port.to_string(),
        "-q",
        "1",
        "-t",
        "grid/+/load",
        "-i",
        "reader",
        "-c",
        "-E",
    ]);
    if !first.status().is_ok_and(|s| s.success()) {
        return crate::running::skipped("sink mqtt", "mosquitto_sub is not installed");
    }
    let to = format!("{{url: \"mqtt://127.0.0.1:{}\", topic: \"grid/{{feeder}}/load\", bare: true}}", server.port);
    let sinking = start(dir.path(), &head("mqtt", &to), gateway);
    until("all of it", || feed.acked() == 60).await;
    sinking.stop().await;
    let heard = tokio::task::spawn_blocking(move || listen.output().unwrap());
    let heard = tokio::time::timeout(Duration::from_secs(30), heard).await.unwrap().unwrap();
    let text = String::from_utf8(heard.stdout).unwrap();
    let numbers: Vec<u64> = text
        .lines()
        .map(|line| {
            let (topic, body) = line.split_once(' ').unwrap();
            let data: Value = serde_json::from_str(body).unwrap();
            assert_eq!(topic, format!("grid/{}/load", data["feeder"].as_str().unwrap()));
            data["n"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(numbers, (0..60).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_not_ours_stops_the_sink() {
    let (dir, feed) = (tempfile::tempdir().unwrap(), Feed::with(1));
    let gateway = feed.serve().await;
    let other = head("file", "{folder: out}").replace("SUB-1", "SUB-2");
    let error = start(dir.path(), &other, gateway).error().await;
    assert_eq!((error.class(), error.code()), (ErrorClass::Permanent, "source.missing"), "{error}");
    for (bad, word) in [
        (head("file", "{folder: out, foldr: x}"), "did you mean `folder`?"),
        (head("fil", "{}"), "did you mean `file`?"),
        (head("mqtt", "{url: \"mqtt://h\", topic: \"a/+\"}"), "without + and #"),
        (head("webhook", "{url: \"https://u:p@h/\"}"), "without user and password"),
    ] {
        let told = sinks::parse(&bad)
            .map_err(|e| e.to_string())
            .and_then(|d| d.open(dir.path()).map(|_| ()).map_err(|e| e.to_string()));
        assert!(told.clone().unwrap_err().contains(word), "{told:?}");
    }
}
