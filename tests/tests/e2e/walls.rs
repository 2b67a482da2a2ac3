//! What one agency's user of the streams tries against the others, over the real server: all of it is refused. Beside each
//! kind of attempt stands one that must work, so that a server which refuses everything would be noticed.

use crate::World;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, stream::Stream};
use async_nats::{Client, Subscriber};
use concordat_protocol::cbor;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::subscribe::{ExchangeCommand, ExchangeReply};
use concordat_tests::harness::{City, SOON, exchange_streams, runtime, streams, until, wait};
use futures::StreamExt;
use std::time::Duration;

/// How long silence must last to count as a refusal.
const SILENCE: Duration = Duration::from_millis(150);
/// Number of a subscription that no broker has.
const NUMBER: u64 = (1 << 32) + 7_777_777;
const ACCOUNTS: [&str; 5] = ["GRID", "TRANSPORT", "POLICE", "COURT", "EXCHANGE"];

/// Grid's deliveries to transport: the court attacks them from outside, grid and transport from inside.
struct Scene {
    exchange: Client,
    grid: Client,
    transport: Client,
    court: Client,
    feed: Stream,
    victim: String,
}

impl Scene {
    fn new(city: &City) -> Self {
        let exchange = exchange_streams(city);
        let [grid, transport, court] = ["grid", "transport", "court"].map(|a| streams(city, a));
        let feed = wait(jetstream::new(exchange.clone()).get_stream("TRANSPORT")).unwrap();
        let victim = format!("GRID-{NUMBER}");
        let config = pull::Config {
            durable_name: Some(victim.clone()),
            filter_subject: format!("feed.GRID.TRANSPORT.{NUMBER}"),
            ack_policy: AckPolicy::Explicit,
            ..Default::default()
        };
        // Items of an earlier scene.
        wait(feed.purge().filter(format!("feed.GRID.TRANSPORT.{NUMBER}")).into_future()).unwrap();
        wait(feed.create_consumer(config)).unwrap();
        let scene = Self { exchange, grid, transport, court, feed, victim };
        for _ in 0..3 {
            assert!(scene.append("secret-item").contains("\"stream\":\"TRANSPORT\""), "grid may append");
        }
        scene
    }

    fn append(&self, payload: &str) -> String {
        answer(&self.grid, &format!("feed.TRANSPORT.{NUMBER}"), payload).expect("an acknowledgement")
    }

    /// All that must not change: the stream's settings, its items, its consumers and where the victim stands.
    fn standing(&self) -> String {
        wait(async {
            let info = self.feed.get_info().await.unwrap();
            let mut config = info.config.clone();
            // The server's own words about itself, in any order.
            config.metadata.clear();
            let config = serde_json::to_string(&config).unwrap();
            let mine = self.feed.info_with_subjects(format!("feed.GRID.TRANSPORT.{NUMBER}")).await.unwrap();
            let items: Vec<_> = mine.map(Result::unwrap).collect().await;
            let mut names: Vec<String> = self.feed.consumer_names().map(Result::unwrap).collect().await;
            names.sort();
            let v: PullConsumer = self.feed.get_consumer(&self.victim).await.unwrap();
            let v = v.get_info().await.unwrap();
            let at =
                (v.delivered.stream_sequence, v.ack_floor.stream_sequence, v.num_pending, v.num_ack_pending, v.paused);
            format!("{config} {items:?} {names:?} {at:?}")
        })
    }
}

/// The answer to a request; none when there is silence, or nobody.
fn answer(client: &Client, subject: &str, body: &str) -> Option<String> {
    let asked = client.request(subject.to_owned(), body.to_owned().into());
    let message = wait(async { tokio::time::timeout(SILENCE, asked).await }).ok()?.ok()?;
    (message.status.is_none()).then(|| String::from_utf8_lossy(&message.payload).into_owned())
}

#[track_caller]
fn refused(who: &str, client: &Client, subject: &str, body: &str) {
    if let Some(text) = answer(client, subject, body) {
        assert!(text.contains("\"error\""), "{who} was answered on {subject}: {text}");
    }
}

/// Requests to the streams' API about a stream and a consumer that are not the asker's to manage.
fn management(stream: &str, consumer: &str, subject: &str) -> Vec<(String, String)> {
    let spy = format!(
        r#"{{"stream_name":"{stream}","config":{{"name":"spy","durable_name":"spy","ack_policy":"none","deliver_subject":"spy.here"}}}}"#
    );
    let config = format!(r#"{{"name":"{stream}","subjects":["feed.>"],"max_msgs":1}}"#);
    let of = |api: &str, body: &str| (api.replace("{s}", stream).replace("{c}", consumer), body.to_owned());
    vec![
        of("STREAM.UPDATE.{s}", &config),
        of("STREAM.DELETE.{s}", ""),
        of("STREAM.PURGE.{s}", ""),
        of("STREAM.MSG.GET.{s}", r#"{"seq":1}"#),
        of("STREAM.MSG.GET.{s}", &format!(r#"{{"last_by_subj":"{subject}"}}"#)),
        of("STREAM.MSG.DELETE.{s}", r#"{"seq":1}"#),
        of("STREAM.SNAPSHOT.{s}", r#"{"deliver_subject":"spy.here"}"#),
        of("STREAM.LEADER.STEPDOWN.{s}", ""),
        of("STREAM.PEER.REMOVE.{s}", r#"{"peer":"x"}"#),
        of("DIRECT.GET.{s}", r#"{"seq":1}"#),
        of(&format!("DIRECT.GET.{{s}}.{subject}"), ""),
        of("CONSUMER.CREATE.{s}", &spy),
        of("CONSUMER.CREATE.{s}.spy", &spy),
        of(&format!("CONSUMER.CREATE.{{s}}.spy.{subject}"), &spy),
        of("CONSUMER.DURABLE.CREATE.{s}.spy", &spy),
        of("CONSUMER.DELETE.{s}.{c}", ""),
        of("CONSUMER.PAUSE.{s}.{c}", r#"{"pause_until":"2090-01-01T00:00:00Z"}"#),
        of("CONSUMER.RESET.{s}.{c}", r#"{"seq":1}"#),
        of("CONSUMER.UNPIN.{s}.{c}", "{}"),
        of("CONSUMER.NAMES.{s}", ""),
        of("CONSUMER.LIST.{s}", ""),
        of("CONSUMER.LEADER.STEPDOWN.{s}.{c}", ""),
    ]
}

/// Requests that a consumer may make about its own feed stream, and nobody else.
fn reading(stream: &str, consumer: &str) -> Vec<(String, String)> {
    let one = |api: String| (api, String::new());
    vec![
        one(format!("STREAM.INFO.{stream}")),
        one(format!("CONSUMER.INFO.{stream}.{consumer}")),
        (format!("CONSUMER.MSG.NEXT.{stream}.{consumer}"), r#"{"batch":1,"no_wait":true}"#.into()),
    ]
}

pub fn nobody_manages_or_reads_anothers_streams(world: &World) {
    let _inside = runtime().enter();
    let s = Scene::new(world.shared());
    let before = s.standing();
    let subject = format!("feed.GRID.TRANSPORT.{NUMBER}");
    let attackers = [("court", &s.court), ("grid", &s.grid), ("transport", &s.transport)];
    for (who, client) in attackers {
        for (api, body) in management("TRANSPORT", &s.victim, &subject) {
            for prefix in ["XJS.API", "$JS.API", "$JS.EXCHANGE.API"] {
                refused(who, client, &format!("{prefix}.{api}"), &body);
            }
        }
        // A new stream over everybody's feeds. In the own account it would be the own affair.
        refused(who, client, "XJS.API.STREAM.CREATE.SPY", r#"{"name":"SPY","subjects":["feed.>"]}"#);
        refused(who, client, "XJS.API.STREAM.RESTORE.SPY", r#"{"config":{"name":"SPY","subjects":["feed.>"]}}"#);
        for api in ["STREAM.NAMES", "STREAM.LIST", "INFO", "ACCOUNT.PURGE.EXCHANGE"] {
            assert_eq!(answer(client, &format!("XJS.API.{api}"), ""), None, "{who}: {api} of the exchange");
        }
        for api in ["STREAM.NAMES", "STREAM.LIST"] {
            let own = answer(client, &format!("$JS.API.{api}"), "").expect("its own account answers");
            assert!(!own.contains("\"TRANSPORT\""), "{who} sees the exchange's streams: {own}");
        }
    }
    for (who, client) in [("court", &s.court), ("grid", &s.grid)] {
        for (api, body) in reading("TRANSPORT", &s.victim) {
            for prefix in ["XJS.API", "$JS.API"] {
                refused(who, client, &format!("{prefix}.{api}"), &body);
            }
        }
    }
    assert_eq!(s.standing(), before, "nothing of it had an effect");
    // Transport's own reading works: it sees, pulls and acknowledges.
    let own = jetstream::with_prefix(s.transport.clone(), "XJS.API");
    let consumer: PullConsumer = wait(own.get_consumer_from_stream(&s.victim, "TRANSPORT")).unwrap();
    let floor = || wait(consumer.get_info()).unwrap().ack_floor.stream_sequence;
    let begun = floor();
    let mut items = wait(consumer.fetch().max_messages(2).messages()).unwrap();
    let [first, second] = [(); 2].map(|()| wait(items.next()).unwrap().unwrap());
    assert_eq!((&first.payload[..], first.subject.as_str()), (&b"secret-item"[..], subject.as_str()));
    // Another's acknowledgement of an item that is out now counts for nothing, nor does one under a made-up way.
    let reply = second.reply.clone().unwrap();
    for (who, client) in [("court", &s.court), ("grid", &s.grid)] {
        for body in ["+ACK", "+TERM", "-NAK"] {
            refused(who, client, &reply, body);
            refused(who, client, &format!("XJS{}", reply.strip_prefix("$JS").unwrap_or(&reply)), body);
        }
    }
    assert_eq!(floor(), begun, "nothing is acknowledged yet");
    wait(first.double_ack()).unwrap();
    assert!(floor() > begun, "transport's own counts");
    assert_eq!(wait(consumer.get_info()).unwrap().num_ack_pending, 1);
    wait(s.feed.delete_consumer(&s.victim)).unwrap();
}

pub fn nobody_reaches_anothers_own_account(world: &World) {
    let _inside = runtime().enter();
    let city = world.shared();
    let [grid, court] = ["grid", "court"].map(|a| streams(city, a));
    let own = jetstream::new(grid.clone());
    let published = "PUB_LOAD_1";
    // Grid itself reads its stream, and not even grid deletes from it.
    until("grid has published", SOON, || wait(own.get_stream(published)).map_err(|e| e.to_string()));
    let messages = || wait(own.get_stream(published)).unwrap().cached_info().state.messages;
    let before = messages();
    let apis = || management(published, "x", "pub.load_1").into_iter().chain(reading(published, "x"));
    for (api, body) in apis() {
        for prefix in ["XJS.API", "$JS.API", "$JS.GRID.API"] {
            refused("court", &court, &format!("{prefix}.{api}"), &body);
        }
    }
    for api in ["STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.DELETE"] {
        assert_eq!(answer(&grid, &format!("$JS.API.{api}.{published}"), r#"{"seq":1}"#), None, "grid: {api}");
    }
    assert_eq!(messages(), before);
    // What an executor tells its own broker is nobody else's.
    for subject in ["executor.feeds", "query.GRID.executor.feeds", "q.COURT.GRID.feeds"] {
        if let Some(text) = answer(&court, subject, "") {
            assert!(!text.contains("AGR-2026-0143"), "the court heard of grid's deliveries on {subject}: {text}");
        }
    }
    // The system's account answers nobody about the others.
    for subject in [
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.SERVER.PING.VARZ",
        "$SYS.REQ.SERVER.PING.CONNZ",
        "$SYS.REQ.SERVER.PING.JSZ",
        "$SYS.REQ.SERVER.PING.SUBSZ",
        "$SYS.REQ.ACCOUNT.PING.CONNZ",
        "$SYS.REQ.ACCOUNT.PING.STATZ",
        "$SYS.REQ.ACCOUNT.EXCHANGE.CONNZ",
        "$SYS.REQ.ACCOUNT.GRID.SUBSZ",
        "$SYS.REQ.ACCOUNT.GRID.JSZ",
        "$SYS.REQ.CLAIMS.LIST",
        "$SYS.REQ.USER.INFO",
    ] {
        let text = answer(&court, subject, "").unwrap_or_default();
        for other in ACCOUNTS.iter().filter(|a| **a != "COURT") {
            let quoted = format!("\"{other}\"");
            let named = text.contains(&quoted) || text.contains(&format!("\"{}/", other.to_lowercase()));
            assert!(!named, "{subject} tells the court of {other}: {text}");
        }
    }
    let me = answer(&court, "$SYS.REQ.USER.INFO", "").unwrap_or_default();
    assert!(me.contains("COURT"), "its own name it hears: {me}");
}

/// What came on a subscription until now, as `subject payload`.
fn heard(client: &Client, subscriber: &mut Subscriber) -> Vec<String> {
    // Everything that the server sent before its answer to this is here then.
    wait(client.flush()).unwrap();
    assert!(answer(client, "$SYS.REQ.USER.INFO", "").is_some(), "the server answers");
    let mut out = Vec::new();
    while let Some(message) = futures::FutureExt::now_or_never(subscriber.next()).flatten() {
        out.push(format!("{} {}", message.subject, String::from_utf8_lossy(&message.payload)));
    }
    out
}

pub fn nobody_speaks_or_listens_as_another(world: &World) {
    let _inside = runtime().enter();
    let s = Scene::new(world.shared());
    let listen = |client: &Client, subject: &str| {
        let subscriber = wait(client.subscribe(subject.to_owned())).unwrap();
        wait(client.flush()).unwrap();
        subscriber
    };
    let (mut at_exchange, mut at_grid, mut at_transport) =
        (listen(&s.exchange, ">"), listen(&s.grid, ">"), listen(&s.transport, ">"));
    let spying =
        [">", "feed.>", "q.>", "xm.>", "exchange.>", "$JS.>", "$SYS.>", "_INBOX.>", "_R_.>", "XJS.>", "*.*.*.*"];
    let mut spies = spying.map(|subject| listen(&s.court, subject));
    // Speaking under another's name, with more tokens or fewer, or past the imports.
    let before = s.standing();
    let forged = [
        format!("feed.GRID.TRANSPORT.{NUMBER}"),
        format!("feed.TRANSPORT.{NUMBER}.more"),
        format!("feed.TRANSPORT.GRID.{NUMBER}"),
        "feed.TRANSPORT".into(),
        "pub.load_1".into(),
        "xm.TRANSPORT.feed".into(),
        "xm.GRID.feed".into(),
        "q.TRANSPORT.GRID.load_1".into(),
        "q.GRID.TRANSPORT.i94_1".into(),
        "executor.feeds".into(),
        format!("$JS.ACK.TRANSPORT.{}.1.1.1.1.0", s.victim),
        "$JS.EVENT.ADVISORY.x".into(),
        "$SYS.ACCOUNT.GRID.CONNECT".into(),
    ];
    for subject in &forged {
        wait(s.court.publish(subject.clone(), format!("forged {subject}").into())).unwrap();
    }
    // And one that is allowed: it goes after them on the same way, and carries the court's name.
    let taken = answer(&s.court, &format!("feed.TRANSPORT.{NUMBER}"), "allowed").expect("the court may append");
    assert!(taken.contains("\"stream\":\"TRANSPORT\""), "{taken}");
    let exchange = heard(&s.exchange, &mut at_exchange);
    assert!(exchange.contains(&format!("feed.COURT.TRANSPORT.{NUMBER} allowed")), "{exchange:?}");
    for (who, heard) in [
        ("exchange", exchange),
        ("grid", heard(&s.grid, &mut at_grid)),
        ("transport", heard(&s.transport, &mut at_transport)),
    ] {
        let forged: Vec<_> = heard.iter().filter(|h| h.contains(" forged ")).collect();
        assert!(forged.is_empty(), "{who} heard {forged:?}");
    }
    assert_eq!(s.standing(), before);
    // Listening while grid delivers and transport pulls.
    let own = jetstream::with_prefix(s.transport.clone(), "XJS.API");
    s.append("secret-more");
    let consumer: PullConsumer = wait(own.get_consumer_from_stream(&s.victim, "TRANSPORT")).unwrap();
    let mut items = wait(consumer.fetch().max_messages(4).messages()).unwrap();
    while let Some(item) = wait(items.next()) {
        let item = item.unwrap();
        assert!(item.payload.starts_with(b"secret-"));
        wait(item.double_ack()).unwrap();
    }
    for (spy, subject) in spies.iter_mut().zip(spying) {
        let heard = heard(&s.court, spy);
        assert!(!heard.iter().any(|h| h.contains("secret-")), "the court heard on {subject}: {heard:?}");
    }
    wait(s.feed.delete_consumer(&s.victim)).unwrap();
}

pub fn the_manager_serves_an_agency_its_own_stream_only(world: &World) {
    let _inside = runtime().enter();
    let s = Scene::new(world.shared());
    let ask = |client: &Client, command: &ExchangeCommand| {
        let asked = client.request("exchange.feed", cbor::encode(command).into());
        let reply = wait(async { tokio::time::timeout(SOON, asked).await }).expect("in time").expect("an answer");
        match cbor::decode::<ExchangeReply>(&reply.payload).unwrap() {
            ExchangeReply::Done {} => "done".to_owned(),
            ExchangeReply::Refused { code, .. } => code,
        }
    };
    let grid = AgencyId::new("grid").unwrap();
    // A default subscription that is open: its number is the handle of its clause.
    let names: Vec<String> = wait(async {
        let consumers = s.feed.consumers().map(Result::unwrap);
        consumers.filter(|i| std::future::ready(!i.paused)).map(|i| i.name).collect().await
    });
    let numbers = names.iter().filter_map(|n| n.strip_prefix("GRID-")?.parse::<u64>().ok());
    let handle = numbers.filter(|n| *n < 1 << 32).min().expect("grid's feed to transport");
    let before = s.standing();
    let subscription = NUMBER + 1;
    let open = |subscription, handle| ExchangeCommand::Open { provider: grid.clone(), subscription, handle };
    let seek = |subscription| ExchangeCommand::Seek { provider: grid.clone(), subscription, place: 1 };
    let close = |subscription| ExchangeCommand::Close { provider: grid.clone(), subscription };
    // Under transport's agreement the court opens nothing, and its other words reach only its own stream.
    assert_eq!(ask(&s.court, &open(subscription, handle)), "no-agreement");
    assert_eq!(ask(&s.court, &seek(NUMBER)), "unknown-subscription");
    assert_eq!(ask(&s.court, &close(NUMBER)), "done", "there is nothing of it in the court's stream");
    assert_eq!(ask(&s.court, &close(handle)), "default-subscription");
    assert_eq!(
        ask(&s.grid, &open(subscription, handle)),
        "no-agreement",
        "the provider does not open for its consumer"
    );
    assert_eq!(ask(&s.transport, &open(subscription, 999_999)), "no-agreement");
    assert_eq!(s.standing(), before);
    // Transport does, reads from its beginning again, and ends it.
    assert_eq!(ask(&s.transport, &open(subscription, handle)), "done");
    assert!(answer(&s.grid, &format!("feed.TRANSPORT.{subscription}"), "item").is_some());
    let own = jetstream::with_prefix(s.transport.clone(), "XJS.API");
    let consumer: PullConsumer =
        wait(own.get_consumer_from_stream(format!("GRID-{subscription}"), "TRANSPORT")).unwrap();
    for round in 0..2 {
        let mut items = wait(consumer.fetch().max_messages(1).messages()).unwrap();
        let item = wait(items.next()).unwrap_or_else(|| panic!("an item in round {round}")).unwrap();
        wait(item.double_ack()).unwrap();
        assert_eq!(ask(&s.transport, &seek(subscription)), "done");
    }
    assert_eq!(ask(&s.transport, &close(subscription)), "done");
    assert_eq!(s.standing(), before);
    wait(s.feed.delete_consumer(&s.victim)).unwrap();
}

/// In the city in which things are killed: the stream server comes back without `sync_interval: always`.
pub fn a_stream_server_that_does_not_sync_is_refused(world: &World) {
    let city = world.second();
    let path = city.dir("exchange").join("nats/nats.conf");
    let good = std::fs::read_to_string(&path).unwrap();
    assert!(good.contains("sync_interval: always, "));
    std::fs::write(&path, good.replace("sync_interval: always, ", "")).unwrap();
    let again = || {
        let before = city.process("exchange", "nats");
        assert!(before.0.kill_hard());
        city.another("exchange", "nats", before);
    };
    again();
    for (node, process) in [("grid", "broker"), ("grid", "executor"), ("exchange", "exchange")] {
        until(&format!("{process} of {node} says why it does not serve"), SOON, || {
            let log = city.log(node, process);
            if log.contains("streams-not-durable") && log.contains("sync_interval: always") {
                Ok(())
            } else {
                Err("nothing")
            }
        });
    }
    std::fs::write(&path, good).unwrap();
    again();
    for node in city.nodes() {
        city.wait_up(node);
    }
}
