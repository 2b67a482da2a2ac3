#![allow(clippy::unwrap_used)]
//! The manager on a real server, with a stand-in for the ledger's node.

use super::consumers::{Created, list, make};
use super::plan::tests::{agency, view};
use super::*;
use crate::http::testing::nats_server;
use async_nats::jetstream::stream::Stream;
use concordat_protocol::cbor;
use concordat_protocol::node::{AgreementView, NodeReply, NodeRequest};
use concordat_protocol::subscribe::{CREATED_FROM, ExchangeCommand, ExchangeReply};
use concordat_protocol::terms::Status;
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

type Views = Arc<Mutex<Vec<AgreementView>>>;

struct Exchange {
    manager: Manager,
    views: Views,
    nats: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let _ = self.nats.kill();
        let _ = self.nats.wait();
    }
}

/// Answers the one question that the manager asks here.
fn node(path: &Path, views: Views) {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let views = views.clone();
            tokio::spawn(async move {
                while let Ok(len) = stream.read_u32().await {
                    let mut body = vec![0; len as usize];
                    stream.read_exact(&mut body).await.unwrap();
                    assert!(matches!(cbor::decode(&body), Ok(NodeRequest::Agreements {})));
                    let reply = cbor::encode(&NodeReply::Agreements { body: views.lock().unwrap().clone() });
                    stream.write_u32(reply.len() as u32).await.unwrap();
                    stream.write_all(&reply).await.unwrap();
                }
            });
        }
    });
}

impl Exchange {
    async fn start() -> Option<Self> {
        let Some(program) = nats_server() else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "nats-server 2.15.2 is missing: run `make servers`");
            eprintln!("SKIPPED: nats-server 2.15.2 is missing: run `make servers`");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let nats = Command::new(program)
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
            .arg(dir.path().join("js"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let client = async_nats::ConnectOptions::new().retry_on_initial_connect();
        let client = client.connect(format!("127.0.0.1:{port}")).await.unwrap();
        let views = Views::default();
        let socket = dir.path().join("node.sock");
        node(&socket, views.clone());
        let manager = Manager {
            js: jetstream::new(client),
            node: NodeClient::new(socket),
            agencies: vec![agency("grid"), agency("transport")],
        };
        Some(Self { manager, views, nats, _dir: dir })
    }

    async fn stream(&self) -> Stream {
        self.manager.js.get_stream("TRANSPORT").await.unwrap()
    }

    /// Appends as grid; whether it was taken.
    async fn append(&self, number: u64) -> bool {
        let subject = format!("feed.GRID.TRANSPORT.{number}");
        self.manager.js.publish(subject, "item".into()).await.unwrap().await.is_ok()
    }

    /// Items of a subscription that are kept.
    async fn kept(&self, number: u64) -> usize {
        let subject = format!("feed.GRID.TRANSPORT.{number}");
        let subjects = self.stream().await.info_with_subjects(&subject).await.unwrap();
        subjects.filter_map(async |s| s.ok()).map(|(_, n)| n).fold(0, async |a, b| a + b).await
    }

    /// Fetches items of a consumer and acknowledges the first of them; their sequence numbers.
    async fn fetch(&self, name: &str, most: usize, acknowledged: usize) -> Vec<u64> {
        let consumer: jetstream::consumer::PullConsumer = self.stream().await.get_consumer(name).await.unwrap();
        let mut items = consumer.fetch().max_messages(most).messages().await.unwrap();
        let mut out = Vec::new();
        while let Some(item) = items.next().await {
            let item = item.unwrap();
            if out.len() < acknowledged {
                item.double_ack().await.unwrap();
            }
            out.push(item.info().unwrap().stream_sequence);
        }
        out
    }

    async fn ask(&self, account: &str, command: &ExchangeCommand) -> Result<(), String> {
        match self.manager.answer(&format!("xm.{account}.feed"), &cbor::encode(command)).await {
            ExchangeReply::Done {} => Ok(()),
            ExchangeReply::Refused { code, .. } => Err(code),
        }
    }
}

const LIMITS: Limits =
    Limits { per_subject: 40, replay: 20, slack: 4, stream_bytes: 1 << 30, stranger: Duration::from_secs(60) };

#[tokio::test(flavor = "multi_thread")]
async fn a_full_subject_refuses_its_own_appends_only() {
    let Some(x) = Exchange::start().await else { return };
    // A stream of an earlier release is brought up to the limits, and what it holds stays.
    let old = Config { name: "TRANSPORT".into(), subjects: vec!["feed.*.TRANSPORT.>".into()], ..Config::default() };
    x.manager.until("the server", || x.manager.js.create_stream(old.clone())).await;
    assert!(x.append(17).await);
    x.manager.make_streams(&LIMITS).await.unwrap();
    assert_eq!(x.kept(17).await, 1);
    let stream = x.stream().await;
    for number in [17, 18] {
        make(&stream, format!("feed.GRID.TRANSPORT.{number}"), &format!("GRID-{number}"), None).await.unwrap();
    }
    for n in 0..40 {
        assert!((n == 0 || x.append(17).await) && x.append(18).await, "{n}");
    }
    assert!(!x.append(17).await && !x.append(18).await, "both are full");
    let sweep = async |seen: &mut BTreeMap<AgencyId, sweep::Seen>| {
        x.manager.sweep(&LIMITS, &BTreeSet::new(), seen, Instant::now()).await.unwrap();
    };
    let mut seen = BTreeMap::new();
    sweep(&mut seen).await;
    assert_eq!((x.kept(17).await, x.kept(18).await), (40, 40), "nothing that is not acknowledged makes room");
    let first = x.fetch("GRID-17", 33, 30).await;
    sweep(&mut seen).await;
    // 10 are not acknowledged, and about 20 are kept for replay.
    let kept = x.kept(17).await;
    assert!((20..=21).contains(&kept), "{kept}");
    assert_eq!(x.kept(18).await, 40);
    assert!(x.append(17).await && !x.append(18).await, "one goes on, and the dead one stays full");
    // What was not acknowledged is all there: after a restart of its consumer, from the 31st on.
    stream.reset_consumer("GRID-17", Some(first[30])).await.unwrap();
    assert_eq!(x.fetch("GRID-17", 11, 11).await.len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_no_subscription_is_emptied_after_a_while() {
    let Some(x) = Exchange::start().await else { return };
    x.manager.until("the server", || x.manager.make_streams(&LIMITS)).await;
    make(&x.stream().await, "feed.GRID.TRANSPORT.18".into(), "GRID-18", None).await.unwrap();
    for number in [17, 18, 19] {
        assert!(x.append(number).await);
    }
    // 17 is a suspended default subscription, which has no consumer yet.
    let known = BTreeSet::from(["feed.GRID.TRANSPORT.17".to_owned()]);
    let (mut seen, begun) = (BTreeMap::new(), Instant::now());
    for (after, left) in [(0, 1), (59, 1), (60, 0)] {
        let now = begun + Duration::from_secs(after);
        x.manager.sweep(&LIMITS, &known, &mut seen, now).await.unwrap();
        assert_eq!(x.kept(19).await, left, "after {after} s");
    }
    assert_eq!((x.kept(17).await, x.kept(18).await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn agencies_open_seek_and_close_their_own_subscriptions() {
    let Some(x) = Exchange::start().await else { return };
    x.manager.until("the server", || x.manager.make_streams(&LIMITS)).await;
    *x.views.lock().unwrap() = vec![view(Status::Active, vec![17, 18])];
    let mut settled = x.manager.settle(&Settled::default()).await.unwrap();
    let (grid, number) = (agency("grid"), CREATED_FROM + 1);
    let open = |subscription, handle| ExchangeCommand::Open { provider: grid.clone(), subscription, handle };
    for (account, command, code) in [
        ("GRID", open(number, 17), "no-agreement"),
        ("POLICE", open(number, 17), "not-served"),
        ("TRANSPORT", open(number, 18), "no-agreement"),
        ("TRANSPORT", open(17, 17), "default-subscription"),
    ] {
        assert_eq!(x.ask(account, &command).await.unwrap_err(), code, "{command:?}");
    }
    let reply = x.manager.answer("xm.TRANSPORT.feed", b"no request").await;
    assert!(matches!(reply, ExchangeReply::Refused { code, .. } if code == "not-canonical"));
    for _ in 0..2 {
        x.ask("TRANSPORT", &open(number, 17)).await.unwrap();
    }
    let name = format!("GRID-{number}");
    // Known from the streams alone, so also after a restart.
    let there = list(&x.stream().await).await.unwrap();
    let wanted = Created { provider: grid.clone(), subscription: number, handle: 17 };
    assert_eq!(Created::of(&there[&name]), Some(wanted));
    assert_eq!(Created::of(&there["GRID-17"]), None, "the default one");
    // From a place on, again and again.
    for _ in 0..6 {
        assert!(x.append(number).await);
    }
    assert_eq!(x.fetch(&name, 6, 4).await, [1, 2, 3, 4, 5, 6]);
    let seek = |place| ExchangeCommand::Seek { provider: grid.clone(), subscription: number, place };
    for (place, then) in [(3, vec![3, 4, 5, 6]), (1, vec![1, 2, 3, 4, 5, 6]), (6, vec![6])] {
        x.ask("TRANSPORT", &seek(place)).await.unwrap();
        assert_eq!(x.fetch(&name, then.len(), 9).await, then, "from {place}");
    }
    x.ask("TRANSPORT", &seek(7)).await.unwrap();
    assert!(x.append(number).await);
    assert_eq!(x.fetch(&name, 1, 1).await, [7], "from the next one on");
    let other = ExchangeCommand::Seek { provider: agency("transport"), subscription: number, place: 1 };
    assert_eq!(x.ask("TRANSPORT", &other).await.unwrap_err(), "unknown-subscription");
    // The agreement is suspended, resumed, superseded, revoked.
    let paused = async || list(&x.stream().await).await.unwrap().get(&name).map(|i| i.paused);
    let newer = |status| {
        vec![view(Status::Superseded, vec![17, 18]), AgreementView { version: 2, ..view(status, vec![21, 22]) }]
    };
    for (views, is) in [
        (vec![view(Status::Suspended, vec![17, 18])], Some(true)),
        (vec![view(Status::Active, vec![17, 18])], Some(false)),
        (newer(Status::Suspended), Some(true)),
        (newer(Status::Active), Some(false)),
    ] {
        *x.views.lock().unwrap() = views.clone();
        settled = x.manager.settle(&settled).await.unwrap();
        assert_eq!(paused().await, is, "{views:?}");
        let may = x.ask("TRANSPORT", &seek(7)).await;
        assert_eq!(may.is_ok(), is == Some(false), "{may:?}");
    }
    assert_eq!(x.kept(number).await, 7);
    *x.views.lock().unwrap() = newer(Status::Revoked);
    settled = x.manager.settle(&settled).await.unwrap();
    assert_eq!((paused().await, x.kept(number).await), (None, 0), "neither consumer nor items");
    assert!(list(&x.stream().await).await.unwrap().is_empty() && settled.subjects.is_empty());
    assert_eq!(x.ask("TRANSPORT", &open(number, 17)).await.unwrap_err(), "not-active");
    // Closed by its consumer.
    *x.views.lock().unwrap() = vec![view(Status::Active, vec![17, 18])];
    x.ask("TRANSPORT", &open(number, 17)).await.unwrap();
    assert!(x.append(number).await && x.append(17).await);
    let close = ExchangeCommand::Close { provider: grid.clone(), subscription: number };
    for _ in 0..2 {
        x.ask("TRANSPORT", &close).await.unwrap();
    }
    assert_eq!((paused().await, x.kept(number).await, x.kept(17).await), (None, 0, 1), "only its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agency_opens_so_many_and_no_more() {
    let Some(x) = Exchange::start().await else { return };
    x.manager.until("the server", || x.manager.make_streams(&LIMITS)).await;
    *x.views.lock().unwrap() = vec![view(Status::Active, vec![17, 18])];
    let stream = x.stream().await;
    for n in 0..serve::CREATED_MAX as u64 {
        let created = Created { provider: agency("grid"), subscription: CREATED_FROM + n, handle: 17 };
        let subject = format!("feed.GRID.TRANSPORT.{}", created.subscription);
        make(&stream, subject, &format!("GRID-{}", created.subscription), Some(&created)).await.unwrap();
    }
    let open = |n| ExchangeCommand::Open { provider: agency("grid"), subscription: CREATED_FROM + n, handle: 17 };
    assert_eq!(x.ask("TRANSPORT", &open(1_000)).await.unwrap_err(), "too-many");
    x.ask("TRANSPORT", &open(0)).await.unwrap();
    let close = ExchangeCommand::Close { provider: agency("grid"), subscription: CREATED_FROM };
    x.ask("TRANSPORT", &close).await.unwrap();
    x.ask("TRANSPORT", &open(1_000)).await.unwrap();
}
