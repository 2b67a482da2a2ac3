//! The walls between agencies on the stream server: what must pass passes, every attempt around it is refused.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use async_nats::jetstream::{self, consumer::pull, stream};
use async_nats::{Client, ConnectOptions};
use concordat_cli::layout::{Account, PortPicker, Ports, StreamServer, nats_conf, private_file, random_password};
use concordat_cli::servers::Server;
use futures::StreamExt;

use super::helpers::{server, wait_for};

/// How long silence must last to count as a refusal.
const SILENCE: Duration = Duration::from_millis(400);

struct Exchange {
    child: Child,
    url: String,
    passwords: Vec<(String, String)>,
    _dir: tempfile::TempDir,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(nats: PathBuf) -> Exchange {
    let dir = tempfile::tempdir().unwrap();
    let mut picker = PortPicker::new(Ports::Free).unwrap();
    let [listen, monitor] = ["streams", "monitor"].map(|what| format!("127.0.0.1:{}", picker.pick(what).unwrap()));
    drop(picker);
    let accounts: Vec<Account> = ["grid", "police", "court", "transport"]
        .map(|a| Account { account: a.to_uppercase(), user: a.into(), password: random_password().unwrap() })
        .into();
    let exchange_password = random_password().unwrap();
    let store = dir.path().join("store");
    let conf = nats_conf(&StreamServer {
        listen: &listen,
        monitor: &monitor,
        name: "test",
        store_dir: store.to_str().unwrap(),
        exchange_password: &exchange_password,
        accounts: &accounts,
    });
    assert!(conf.contains("sync_interval: always"));
    let path = dir.path().join("nats.conf");
    private_file(&path, conf.as_bytes()).unwrap();
    let check = Command::new(&nats).arg("-t").arg("-c").arg(&path).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let child = Command::new(nats).arg("-c").arg(&path).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let log = dir.path().join("log");
    let what = || format!("the server:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
    wait_for(&what, || std::net::TcpStream::connect(&listen).ok());
    let mut passwords = vec![("exchange".to_owned(), exchange_password.to_string())];
    passwords.extend(accounts.iter().map(|a| (a.user.clone(), a.password.to_string())));
    Exchange { child, url: format!("nats://{listen}"), passwords, _dir: dir }
}

impl Exchange {
    async fn client(&self, user: &str) -> Client {
        let password = self.passwords.iter().find(|(u, _)| u == user).unwrap().1.clone();
        let options =
            ConnectOptions::with_user_and_password(user.into(), password).request_timeout(Some(Duration::from_secs(2)));
        options.connect(&self.url).await.unwrap()
    }
}

/// No answer, or "no responders", or an API error: anything but success.
async fn refused(client: &Client, subject: &str, body: &str) {
    let answer = tokio::time::timeout(SILENCE, client.request(subject.to_owned(), body.to_owned().into())).await;
    if let Ok(Ok(message)) = answer {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        assert!(text.contains("\"error\""), "{subject} was answered: {text}");
    }
}

async fn silent(messages: &mut async_nats::Subscriber, why: &str) {
    let heard = tokio::time::timeout(SILENCE, messages.next()).await;
    assert!(heard.is_err(), "{why}: {heard:?}");
}

async fn feed_stream(exchange: &jetstream::Context, consumer: &str) -> stream::Stream {
    let config =
        stream::Config { name: consumer.into(), subjects: vec![format!("feed.*.{consumer}.*")], ..Default::default() };
    exchange.create_stream(config).await.unwrap()
}

#[tokio::test]
async fn feeds_and_queries_pass_and_nothing_else_does() {
    let Some(nats) = server("feeds_and_queries_pass_and_nothing_else_does", Server::NatsServer) else { return };
    let x = start(nats);
    let (exchange, police, court, transport) =
        (x.client("exchange").await, x.client("police").await, x.client("court").await, x.client("transport").await);
    let manager = jetstream::new(exchange.clone());
    let mut court_feed = feed_stream(&manager, "COURT").await;
    feed_stream(&manager, "TRANSPORT").await;
    let durable = pull::Config {
        durable_name: Some("s1".into()),
        filter_subject: "feed.*.COURT.s1".into(),
        ..Default::default()
    };
    court_feed.create_consumer(durable).await.unwrap();

    // A feed: the server itself writes the provider's name into the subject.
    let ack = jetstream::new(police.clone()).publish("feed.COURT.s1", "envelope".into()).await.unwrap().await.unwrap();
    assert_eq!((ack.stream.as_str(), ack.sequence), ("COURT", 1));
    let own = jetstream::with_prefix(court.clone(), "XJS.API");
    let consumer: jetstream::consumer::PullConsumer = own.get_consumer_from_stream("s1", "COURT").await.unwrap();
    let message = consumer.fetch().max_messages(1).messages().await.unwrap().next().await.unwrap().unwrap();
    assert_eq!(message.subject.as_str(), "feed.POLICE.COURT.s1");
    message.double_ack().await.unwrap();

    // A query: it arrives under the name of who asked.
    let mut asked = police.subscribe("q.*.POLICE.>").await.unwrap();
    police.flush().await.unwrap();
    let answering = async {
        let question = asked.next().await.unwrap();
        police.publish(question.reply.clone().unwrap(), "rows".into()).await.unwrap();
        question.subject.to_string()
    };
    let (subject, answer) = tokio::join!(answering, court.request("query.POLICE.stops", "q".into()));
    assert_eq!(subject, "q.COURT.POLICE.stops");
    assert_eq!(&answer.unwrap().payload[..], b"rows");

    // Another name on a query, another agency's provider subject, a feed under another name.
    for forged in ["q.TRANSPORT.POLICE.stops", "q.COURT.POLICE.stops", "q.POLICE.POLICE.stops"] {
        court.publish(forged, "forged".into()).await.unwrap();
    }
    court.flush().await.unwrap();
    silent(&mut asked, "a query under another way").await;
    for forged in ["feed.POLICE.COURT.s1", "feed.POLICE.TRANSPORT.s1"] {
        transport.publish(forged, "forged".into()).await.unwrap();
    }
    transport.flush().await.unwrap();
    assert_eq!(court_feed.info().await.unwrap().state.messages, 1, "only the police's own envelope is there");

    // Listening in.
    let mut spies = Vec::new();
    for subject in ["feed.>", "q.>", "query.>", "$JS.>", "_INBOX.>"] {
        spies.push(transport.subscribe(subject).await.unwrap());
    }
    transport.flush().await.unwrap();
    let ack = jetstream::new(police.clone()).publish("feed.COURT.s1", "secret".into()).await.unwrap().await.unwrap();
    let (subject, _) = tokio::join!(
        async {
            let question = asked.next().await.unwrap();
            police.publish(question.reply.clone().unwrap(), "secret".into()).await.unwrap();
            question.subject.to_string()
        },
        court.request("query.POLICE.stops", "q".into())
    );
    assert_eq!((ack.sequence, subject.as_str()), (2, "q.COURT.POLICE.stops"));
    for spy in &mut spies {
        silent(spy, "another agency's traffic").await;
    }

    // Pulling, seeing or acknowledging another agency's feed.
    for subject in [
        "XJS.API.CONSUMER.MSG.NEXT.COURT.s1",
        "XJS.API.STREAM.INFO.COURT",
        "XJS.API.CONSUMER.INFO.COURT.s1",
        "$JS.API.CONSUMER.MSG.NEXT.COURT.s1",
        "$JS.API.STREAM.INFO.COURT",
        "$JS.ACK.COURT.s1.1.2.2.1.0",
    ] {
        refused(&transport, subject, "1").await;
    }
    let pending = court_feed.get_consumer::<pull::Config>("s1").await.unwrap().info().await.unwrap().num_pending;
    assert_eq!(pending, 1, "the second envelope still waits for the court");
}

#[tokio::test]
async fn a_consumer_manages_nothing_of_its_feed() {
    let Some(nats) = server("a_consumer_manages_nothing_of_its_feed", Server::NatsServer) else { return };
    let x = start(nats);
    let (exchange, court) = (x.client("exchange").await, x.client("court").await);
    let mut feed = feed_stream(&jetstream::new(exchange.clone()), "COURT").await;
    let durable = pull::Config { durable_name: Some("s1".into()), ..Default::default() };
    feed.create_consumer(durable).await.unwrap();
    for (api, body) in [
        ("STREAM.DELETE.COURT", ""),
        ("STREAM.PURGE.COURT", ""),
        ("STREAM.NAMES", ""),
        ("STREAM.LIST", ""),
        ("STREAM.UPDATE.COURT", "{}"),
        ("STREAM.MSG.GET.COURT", "{\"seq\":1}"),
        ("DIRECT.GET.COURT", "{\"seq\":1}"),
        ("CONSUMER.CREATE.COURT.s2", "{\"stream_name\":\"COURT\",\"config\":{\"name\":\"s2\"}}"),
        ("CONSUMER.DELETE.COURT.s1", ""),
        ("CONSUMER.PAUSE.COURT.s1", "{}"),
    ] {
        // Through the import, and straight: the second reaches only the court's own, empty account.
        let imported = tokio::time::timeout(SILENCE, court.request(format!("XJS.API.{api}"), body.into())).await;
        assert!(!matches!(imported, Ok(Ok(_))), "{api} was answered");
        if !api.starts_with("STREAM.NAMES") && !api.starts_with("STREAM.LIST") {
            refused(&court, &format!("$JS.API.{api}"), body).await;
        }
    }
    assert_eq!(feed.info().await.unwrap().state.consumer_count, 1);
}

#[tokio::test]
async fn streams_are_not_deleted_over_the_wire() {
    let Some(nats) = server("streams_are_not_deleted_over_the_wire", Server::NatsServer) else { return };
    let x = start(nats);
    for user in ["police", "exchange"] {
        let client = x.client(user).await;
        let context = jetstream::new(client.clone());
        let config = stream::Config { name: "KEEP".into(), subjects: vec!["keep.>".into()], ..Default::default() };
        let mut keep = context.create_stream(config).await.unwrap();
        context.publish("keep.1", "evidence".into()).await.unwrap().await.unwrap();
        for api in ["STREAM.DELETE.KEEP", "STREAM.MSG.DELETE.KEEP"] {
            refused(&client, &format!("$JS.API.{api}"), "{\"seq\":1}").await;
        }
        if user == "police" {
            refused(&client, "$JS.API.STREAM.PURGE.KEEP", "").await;
        }
        assert_eq!(keep.info().await.unwrap().state.messages, 1, "{user}");
    }
    // The exchange manager purges one subscription's subject; that is its work.
    let context = jetstream::new(x.client("exchange").await);
    let purged = context.get_stream("KEEP").await.unwrap().purge().filter("keep.1").await.unwrap();
    assert_eq!(purged.purged, 1);
}

#[tokio::test]
async fn strangers_and_wrong_passwords_stay_outside() {
    let Some(nats) = server("strangers_and_wrong_passwords_stay_outside", Server::NatsServer) else { return };
    let x = start(nats);
    assert!(async_nats::connect(&x.url).await.is_err(), "without a name");
    let court = x.passwords.iter().find(|(u, _)| u == "court").unwrap().1.clone();
    for (user, password) in [("police", court.as_str()), ("police", ""), ("nobody", court.as_str())] {
        let tried = ConnectOptions::with_user_and_password(user.into(), password.into()).connect(&x.url).await;
        assert!(tried.is_err(), "{user} came in with another's password");
    }
}
