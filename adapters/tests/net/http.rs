//! A service that is asked over HTTP, by a real server.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Response};
use axum::routing::{get, post};
use concordat_adapters::contract::{Checkpoint, ErrorClass, Level, Next, Source};
use concordat_adapters::dead_letter::{DeadLetters, list};

use crate::fake_broker::FakeBroker;
use crate::running::{DEADLINE, Running, broker, count, fields, until};

type Say = Box<dyn FnMut(u64, &HashMap<String, String>, &HeaderMap) -> Response<Body> + Send>;

/// A service that says what a test wants, and counts.
#[derive(Clone)]
pub struct Service {
    pub url: String,
    say: Arc<Mutex<Say>>,
    asked: Arc<Mutex<Vec<String>>>,
}

pub async fn service(
    say: impl FnMut(u64, &HashMap<String, String>, &HeaderMap) -> Response<Body> + Send + 'static,
) -> Service {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = Service { url, say: Arc::new(Mutex::new(Box::new(say))), asked: Arc::default() };
    let routes = Router::new().route("/list", get(answer)).route("/token", post(answer)).with_state(service.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    service
}

async fn answer(
    State(service): State<Service>,
    Query(query): Query<HashMap<String, String>>,
    uri: axum::http::Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let n = {
        let mut asked = service.asked.lock().unwrap();
        asked.push(uri.to_string());
        asked.len() as u64
    };
    (service.say.lock().unwrap())(n, &query, &headers)
}

impl Service {
    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn reply(status: u16, body: impl Into<Body>) -> Response<Body> {
    Response::builder().status(status).body(body.into()).unwrap()
}

fn item(n: usize) -> String {
    format!(r#"{{"n": {n}, "mw": {n}.50, "t": "2026-01-01T00:{:02}:00Z"}}"#, n % 60)
}

fn items(range: impl IntoIterator<Item = usize>) -> String {
    format!("[{}]", range.into_iter().map(item).collect::<Vec<_>>().join(","))
}

fn yaml(url: &str, more: &str) -> String {
    format!(
        "adapter: load\nkind: http-poll\nconnect: {{url: \"{url}/list\"}}\n{more}\
         into: ds:grid/load@1\nmap:\n  n: {{type: integer}}\n  mw: {{from: $.mw, type: decimal}}\n\
         \x20 time: {{from: $.t, type: timestamp, zone: offset}}\nkey: [n]\ntime: time\n"
    )
}

const FAST: &str = "poll: {every: 20ms, statement_timeout: 5s}\n";

fn sorted(broker: &FakeBroker) -> Vec<usize> {
    let mut all: Vec<usize> = fields(broker, "n").iter().map(|n| n.parse().unwrap()).collect();
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_item_of_every_page_comes_once_and_again_when_it_changed() {
    let changed = Arc::new(Mutex::new(false));
    let now = changed.clone();
    let service = service(move |_, query, _| {
        let mut list = match query.get("page").map(String::as_str) {
            Some("3") => items(20..25),
            Some("2") => items(9..20),
            _ => items(0..10),
        };
        if *now.lock().unwrap() {
            list = list.replace("\"mw\": 12.50", "\"mw\": 99");
        }
        list = list.replace("{\"n\": 4,", "{\"n\": 4.5,");
        let next = match query.get("page").map(String::as_str) {
            Some("3") => "null".to_owned(),
            page => format!("\"/list?page={}\"", page.map_or(2, |p| p.parse::<u32>().unwrap() + 1)),
        };
        reply(200, format!(r#"{{"data": {{"list": {list}}}, "next": {next}}}"#))
    })
    .await;
    let (dir, broker) = (tempfile::tempdir().unwrap(), broker().await);
    let yaml = yaml(&service.url, &format!("{FAST}items: $.data.list\npaging: {{next: $.next}}\n"));
    let running = Running::start(dir.path(), &yaml, &broker);
    until("several rounds", || service.asked() > 12).await;
    let once: Vec<usize> = (0..25).filter(|n| *n != 4).collect();
    assert_eq!(sorted(&broker), once);
    *changed.lock().unwrap() = true;
    until("what changed", || count(&broker) > once.len()).await;
    let rounds = service.asked() + 9;
    until("more rounds", || service.asked() > rounds).await;
    running.stop().await;
    let events = broker.kept.lock().unwrap().events.clone();
    assert_eq!(events.len(), once.len() + 1);
    let last = events.last().unwrap();
    assert_eq!((last["data"]["n"].as_u64(), last["data"]["mw"].as_str()), (Some(12), Some("99")));
    let dead = list(&DeadLetters::path(dir.path(), "load")).unwrap();
    assert_eq!(dead.len(), 1, "once, although it was listed in every round");
    assert!(String::from_utf8(dead[0].original().unwrap()).unwrap().starts_with("{\"n\": 4.5,"));
    // A restart knows what was published.
    let running = Running::start(dir.path(), &yaml, &broker);
    let rounds = service.asked() + 6;
    until("rounds after a restart", || service.asked() > rounds).await;
    running.stop().await;
    assert_eq!(count(&broker), once.len() + 1);
}

fn read_until(source: &mut dyn Source, from: &Checkpoint, want: usize) -> (Vec<usize>, Checkpoint) {
    let (mut at, mut got, start) = (from.clone(), vec![], Instant::now());
    while got.len() < want {
        assert!(start.elapsed() < DEADLINE, "only {got:?}");
        let batch = source.read(&at, want - got.len()).unwrap();
        got.extend(batch.records.iter().map(|r| r.data["n"].as_u64().unwrap() as usize));
        at = batch.checkpoint;
        if let Next::Idle(wait) = batch.next {
            std::thread::sleep(wait.min(Duration::from_millis(20)));
        }
    }
    (got, at)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_of_an_answer_goes_on_with_that_answer() {
    let service = service(|n, _, _| reply(200, if n == 1 { items(0..10) } else { items(8..14) })).await;
    for (cut, acknowledged) in [(1, true), (3, false), (9, true), (10, true), (10, false)] {
        service.asked.lock().unwrap().clear();
        let dir = tempfile::tempdir().unwrap();
        let connector = concordat_adapters::parse(&yaml(&service.url, FAST)).unwrap();
        let mut before = connector.open(dir.path()).unwrap();
        before.ack(&Checkpoint::default()).unwrap();
        let (first, one) = read_until(&mut *before, &Checkpoint::default(), cut);
        let (again, _) = read_until(&mut *before, &Checkpoint::default(), cut);
        assert_eq!(first, again, "the same place gives the same items");
        // Read ahead, and lost with the process.
        let _ = read_until(&mut *before, &one, 2);
        if acknowledged {
            before.ack(&one).unwrap();
        }
        drop(before);
        let mut after = connector.open(dir.path()).unwrap();
        after.ack(&one).unwrap();
        let (rest, _) = read_until(&mut *after, &one, 14 - cut);
        assert_eq!([first, rest].concat(), (0..14).collect::<Vec<_>>(), "cut at {cut}, acknowledged: {acknowledged}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_new_is_asked_for_and_what_did_not_change_is_not_sent() {
    let service = service(|n, query, headers| {
        if headers.get("if-none-match").is_some_and(|v| v == "\"v2\"") {
            return reply(304, "");
        }
        let since = query.get("since").cloned().unwrap_or_default();
        let body = if n == 1 { items(0..3) } else { items(2..5) };
        assert_eq!(since, if n == 1 { "2026-01-01T00:00:00Z" } else { "2026-01-01T00:01:00Z" });
        Response::builder().header("etag", if n == 1 { "\"v1\"" } else { "\"v2\"" }).body(body.into()).unwrap()
    })
    .await;
    let (dir, broker) = (tempfile::tempdir().unwrap(), broker().await);
    let since = "since: {parameter: since, path: $.t, start: \"2026-01-01T00:00:00Z\", overlap: 1m}\n";
    // After the second answer the newest value is 00:04, but 304 ends every round before it is needed.
    let running = Running::start(dir.path(), &yaml(&service.url, &format!("{FAST}{since}")), &broker);
    until("some rounds", || service.asked() > 6).await;
    running.stop().await;
    assert_eq!(fields(&broker, "n"), ["0", "1", "2", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_fetched_used_and_fetched_again_when_it_is_revoked() {
    let service = service(|n, query, headers| {
        let auth = headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        assert_eq!(query.len(), 0);
        match (n, auth.as_str()) {
            // grid:s3cret
            (_, "Basic Z3JpZDpzM2NyZXQ=") => reply(200, format!(r#"{{"access_token": "t{n}", "expires_in": 3600}}"#)),
            (2, "Bearer t1") => reply(200, items(0..2)),
            (3, "Bearer t1") => reply(401, "revoked"),
            (_, "Bearer t4") => reply(200, items(0..3)),
            other => panic!("{other:?}"),
        }
    })
    .await;
    let (dir, broker) = (tempfile::tempdir().unwrap(), broker().await);
    std::fs::write(dir.path().join("secret"), "s3cret\n").unwrap();
    let auth = format!(
        ", auth: {{oauth2: {{token_url: \"{}/token\", client_id: grid, client_secret: \"file:secret\"}}}}}}",
        service.url
    );
    let yaml = yaml(&service.url, FAST).replacen("/list\"}", &format!("/list\"{auth}"), 1);
    let running = Running::start(dir.path(), &yaml, &broker);
    until("the item behind the new token", || count(&broker) == 3).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_class_and_keep_their_secrets() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "canary-token\n").unwrap();
    for (status, class, code) in [
        (401, ErrorClass::Auth, "source.login"),
        (403, ErrorClass::Auth, "source.rights"),
        (404, ErrorClass::Permanent, "source.missing"),
        (400, ErrorClass::Permanent, "source.protocol"),
        (302, ErrorClass::Permanent, "source.protocol"),
        (429, ErrorClass::Transient, "source.unreachable"),
        (503, ErrorClass::Transient, "source.unreachable"),
    ] {
        let service = service(move |_, _, _| {
            let elsewhere = ("location", "http://127.0.0.2:9/list");
            Response::builder()
                .status(status)
                .header(elsewhere.0, elsewhere.1)
                .header("retry-after", "7")
                .body("no".into())
                .unwrap()
        })
        .await;
        let more = format!("{FAST}on_error: {{transient: stop}}\n");
        let yaml = yaml(&format!("{}/list?key=canary-key#", service.url), &more).replacen(
            "#/list\"}",
            "\", auth: {bearer: \"file:token\"}}",
            1,
        );
        let broker = broker().await;
        let error = Running::start(dir.path(), &yaml, &broker).error().await;
        assert_eq!((error.class(), error.code()), (class, code), "{status}: {error}");
        assert!(!error.to_string().contains("canary"), "{error}");
        assert_eq!(error.retry_after_ms(), Some(7_000), "{status}");
        let found = concordat_adapters::parse(&yaml).unwrap().check(dir.path());
        assert!(found.iter().any(|f| f.level == Level::Fail && !f.sentence.contains("canary")), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_slow_endless_or_broken_is_bounded() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), broker().await);
    let endless = |chunk: &'static [u8], every: Duration| {
        move |_: u64, _: &HashMap<String, String>, _: &HeaderMap| {
            let stream = futures::stream::unfold((), move |()| async move {
                tokio::time::sleep(every).await;
                Some((Ok::<_, std::io::Error>(chunk), ()))
            });
            Response::builder().body(Body::from_stream(stream)).unwrap()
        }
    };
    let stop = "poll: {every: 20ms, statement_timeout: 600ms}\nlimits: {bytes: 100000}\non_error: {transient: stop}\n";
    let slow = service(endless(b" ", Duration::from_millis(50))).await;
    let start = Instant::now();
    let error = Running::start(dir.path(), &yaml(&slow.url, stop), &broker).error().await;
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "source.timeout"), "{error}");
    assert!(start.elapsed() < DEADLINE / 2);
    let large = service(endless(&[b' '; 8_192], Duration::ZERO)).await;
    let error = Running::start(dir.path(), &yaml(&large.url, stop), &broker).error().await;
    assert_eq!((error.class(), error.code()), (ErrorClass::Permanent, "source.limit"), "{error}");
    // An error page, then back to normal: nothing is lost.
    let broken = service(|n, _, _| match n {
        1 => reply(200, "<html>maintenance</html>"),
        2 => reply(500, "oops"),
        _ => reply(200, items(0..4)),
    })
    .await;
    let running = Running::start(dir.path(), &yaml(&broken.url, FAST), &broker);
    until("it recovers", || count(&broker) == 4).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_of_vehicles_and_the_entities_of_a_context_broker_are_formats() {
    let feed: &[u8] = include_bytes!("feed.pb");
    let vehicles = service(move |_, _, _| reply(200, feed)).await;
    let head = |url: &str, more: &str| {
        format!("adapter: load\nkind: http-poll\nconnect: {{url: \"{url}/list\"}}\ninto: ds:grid/load@1\n{FAST}{more}")
    };
    let map = "map:\n  v: vehicle_id\n  lat: {from: latitude, type: decimal}\n  status: status\n\
               \x20 time: {from: timestamp, type: timestamp, zone: offset}\nkey: [v, time]\ntime: time\n";
    let (dir, one) = (tempfile::tempdir().unwrap(), broker().await);
    let yaml = head(&vehicles.url, &format!("format: gtfs-realtime\nentity: vehicle\n{map}"));
    let running = Running::start(dir.path(), &yaml, &one);
    until("rounds", || vehicles.asked() > 4).await;
    running.stop().await;
    assert_eq!(fields(&one, "v"), ["bus-0", "bus-1", "bus-2"]);
    assert_eq!(fields(&one, "lat"), ["41.8781", "42.8781", "43.8781"]);
    assert_eq!(fields(&one, "time")[1], "2025-12-31T23:59:59Z");

    let entities = service(|_, query, headers| {
        assert_eq!((headers["accept"].to_str().unwrap(), query["limit"].as_str()), ("application/ld+json", "2"));
        let entity = |n: u32| {
            format!(
                r#"{{"id": "urn:e:{n}", "type": "Air", "no2": {{"type": "Property", "value": {n}.10, "observedAt": "2026-01-01T00:0{n}:00Z"}}}}"#
            )
        };
        let offset: u32 = query["offset"].parse().unwrap();
        let list: Vec<String> = (offset..(offset + 2).min(3)).map(entity).collect();
        reply(200, format!("[{}]", list.join(",")))
    })
    .await;
    let map = "map:\n  n: id\n  no2: {from: no2, type: decimal}\n  time: {from: no2_observedAt, type: timestamp, zone: offset}\nkey: [n, time]\ntime: time\n";
    let paging = "format: ngsi-ld\npaging: {offset: {parameter: offset, limit: 2}}\n";
    let yaml = head(&entities.url, &format!("{paging}{map}")).replacen(
        "/list\"}",
        "/list?limit=2\", headers: {accept: application/ld+json}}",
        1,
    );
    let (dir, two) = (tempfile::tempdir().unwrap(), broker().await);
    let running = Running::start(dir.path(), &yaml, &two);
    until("the entities", || entities.asked() > 4).await;
    running.stop().await;
    assert_eq!(fields(&two, "no2"), ["0.1", "1.1", "2.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_tells_of_the_clock_and_a_draft_of_the_items() {
    let service = service(|_, _, _| {
        let date = ("date", "Thu, 01 Jan 2026 00:00:00 GMT");
        Response::builder().header(date.0, date.1).body(items(0..5).into()).unwrap()
    })
    .await;
    let yaml = yaml(&service.url, "");
    let work = tokio::task::spawn_blocking(move || {
        let connector = concordat_adapters::parse(&yaml).unwrap();
        (connector.check(Path::new(".")), connector.discover(Path::new(".")).unwrap())
    });
    let (found, draft) = work.await.unwrap();
    let of = |name: &str| found.iter().find(|f| f.name == name).map(|f| f.level);
    assert_eq!(
        (of("dns"), of("login"), of("items"), of("mapping")),
        (Some(Level::Ok), Some(Level::Ok), Some(Level::Ok), Some(Level::Ok))
    );
    assert_eq!(of("clock"), Some(Level::Warn), "{found:?}");
    assert_eq!(draft.sampled, 5);
    assert!(draft.adapter.contains("n: {from: \"$.n\", type: integer"), "{}", draft.adapter);
    concordat_adapters::parse(&draft.adapter).unwrap();
}
