//! MQTT against a real Mosquitto.

use std::time::Duration;

use concordat_adapters::contract::{Checkpoint, ErrorClass, Level, Next, Source};
use concordat_adapters::dead_letter::{DeadLetters, list};

use crate::fake_broker::{Act, FakeBroker};
use crate::mosquitto::{Mosquitto, free_port};
use crate::running::{DEADLINE, Running, broker, count, fields, until};

fn yaml(port: u16, more: &str) -> String {
    format!(
        "adapter: load\nkind: mqtt\nconnect: {{url: \"mqtt://127.0.0.1:{port}\"{more}}}\n\
         topics: [{{filter: \"site/+/meter/+\", qos: 1}}]\ninto: ds:grid/load@1\n\
         map:\n  meter: {{from: \"$topic[3]\"}}\n  n: {{from: $.n, type: integer}}\n  mw: {{from: $.p, type: decimal, scale: \"0.001\"}}\n\
         \x20 time: {{from: $.t, type: timestamp, zone: offset}}\nkey: [meter, n]\ntime: time\n"
    )
}

fn line(n: usize) -> String {
    format!(r#"{{"n": {n}, "p": {}, "t": "2026-01-01T{:02}:{:02}:00Z"}}"#, n * 100 + 50, n / 60 % 24, n % 60)
}

fn lines(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(line).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// Subscribes and leaves, so that the server keeps what follows.
async fn make_session(dir: &std::path::Path, yaml: &str, broker: &FakeBroker, server: &Mosquitto) {
    let running = Running::start(dir, yaml, broker);
    let before = count(broker);
    let mut n = 900_000;
    until("the subscription", || {
        n += 1;
        server.publish("site/a/meter/hello", &[line(n)], &[]);
        count(broker) > before
    })
    .await;
    running.stop().await;
}

async fn each_version(test: &str, more: &str) {
    let Some(server) = Mosquitto::start(test, "") else { return };
    let (dir, broker) = (tempfile::tempdir().unwrap(), broker().await);
    let yaml = yaml(server.port, more);
    make_session(dir.path(), &yaml, &broker, &server).await;
    let hello = count(&broker);
    // Published while nobody is connected: the server keeps it for the session.
    let mut sent = lines(0..400);
    sent.insert(7, "not json".into());
    sent.insert(90, r#"{"n": 1.5, "p": 1, "t": "2026-01-01T00:00:00Z"}"#.into());
    server.publish("site/a/meter/m1", &sent, &[]);
    let running = Running::start(dir.path(), &yaml, &broker);
    until("all of the session", || count(&broker) >= hello + 400).await;
    server.publish("site/b/meter/m2", &lines(400..600), &[]);
    until("all that is live", || count(&broker) >= hello + 600).await;
    running.stop().await;
    assert_eq!(fields(&broker, "n")[hello..], numbers(0..600));
    let first = broker.kept.lock().unwrap().events[hello]["data"].clone();
    assert_eq!((first["meter"].as_str(), first["mw"].as_str()), (Some("m1"), Some("0.05")));
    let dead = list(&DeadLetters::path(dir.path(), "load")).unwrap();
    let seen: Vec<_> = dead.iter().map(|d| (d.rule.as_str(), d.original().unwrap(), d.file.as_str())).collect();
    assert_eq!(seen[0], ("json.syntax", b"not json".to_vec(), "site/a/meter/m1"));
    assert_eq!((seen[1].0, seen.len()), ("number.integer", 2));
    // All of it was acknowledged, the bad ones too: the next run gets what is new and nothing else.
    let running = Running::start(dir.path(), &yaml, &broker);
    server.publish("site/a/meter/m1", &lines(600..601), &[]);
    until("what is new", || count(&broker) > hello + 600).await;
    running.stop().await;
    assert_eq!(fields(&broker, "n")[hello..], numbers(0..601));
    assert_eq!(list(&DeadLetters::path(dir.path(), "load")).unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn version_5_brings_every_message_once_and_bad_ones_to_the_dead_letters() {
    each_version("mqtt version 5", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn version_3_brings_every_message_once_and_bad_ones_to_the_dead_letters() {
    each_version("mqtt version 3.1.1", ", version: 3.1.1").await;
}

fn read_until(source: &mut dyn Source, from: &Checkpoint, want: usize) -> (Vec<String>, Checkpoint) {
    let (mut at, mut got, start) = (from.clone(), vec![], std::time::Instant::now());
    while got.len() < want {
        assert!(start.elapsed() < DEADLINE, "only {got:?}");
        let batch = source.read(&at, want - got.len()).unwrap();
        assert_eq!(batch.rejects, vec![]);
        got.extend(batch.records.iter().map(|r| r.data["n"].to_string()));
        at = batch.checkpoint;
        assert_ne!(batch.next, Next::End);
    }
    (got, at)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_before_the_acknowledgement_neither_loses_nor_doubles() {
    for (more, test) in [("", "mqtt restart"), (", version: 3.1.1", "mqtt restart 3.1.1")] {
        let Some(server) = Mosquitto::start(test, "max_inflight_messages 100\n") else { return };
        let (dir, broker) = (tempfile::tempdir().unwrap(), broker().await);
        let yaml = yaml(server.port, more);
        make_session(dir.path(), &yaml, &broker, &server).await;
        server.publish("site/a/meter/m1", &lines(0..50), &[]);
        let connector = concordat_adapters::parse(&yaml).unwrap();
        let start = Checkpoint::default();
        let mut before = connector.open(dir.path()).unwrap();
        let (first, one) = read_until(&mut *before, &start, 20);
        let (again, _) = read_until(&mut *before, &start, 20);
        assert_eq!(first, again, "the same place gives the same messages");
        let (_, two) = read_until(&mut *before, &one, 20);
        // 20 are durable and acknowledged, 20 durable only, 10 not even read.
        before.ack(&one).unwrap();
        let _ = read_until(&mut *before, &two, 1);
        drop(before);
        let mut after = connector.open(dir.path()).unwrap();
        let (rest, all) = read_until(&mut *after, &two, 10);
        assert_eq!(rest, numbers(40..50), "{test}");
        after.ack(&all).unwrap();
        server.publish("site/a/meter/m1", &lines(50..51), &[]);
        let (last, _) = read_until(&mut *after, &all, 1);
        assert_eq!(last, ["50"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_and_comes_back_neither_loses_nor_doubles() {
    for hard in [false, true] {
        let Some(mut server) = Mosquitto::start("mqtt server dies", "autosave_on_changes true\nautosave_interval 1\n")
        else {
            return;
        };
        let (dir, broker) = (tempfile::tempdir().unwrap(), broker().await);
        let yaml = yaml(server.port, "");
        make_session(dir.path(), &yaml, &broker, &server).await;
        let hello = count(&broker);
        let running = Running::start(dir.path(), &yaml, &broker);
        server.publish("site/a/meter/m1", &lines(0..300), &[]);
        // Asked to end it writes down what is under way; killed it can only keep what is with us already.
        let enough = if hard { 300 } else { 40 };
        until("some of it", || count(&broker) >= hello + enough).await;
        server.down(hard);
        let mut progress = running.progress.clone();
        until("it notices", || progress.borrow_and_update().failures > 0).await;
        server.up();
        let mut n = 300;
        // Where the server forgot the session, what is published before the next subscription is nobody's.
        until("the connection", || {
            server.publish("site/a/meter/m1", &[line(n)], &[]);
            n += 1;
            fields(&broker, "n").last().is_some_and(|last| last.parse::<usize>().unwrap() >= 300)
        })
        .await;
        let from = n;
        server.publish("site/a/meter/m1", &lines(from..from + 100), &[]);
        until("the rest", || fields(&broker, "n").last() == Some(&(from + 99).to_string())).await;
        running.stop().await;
        let got = fields(&broker, "n")[hello..].to_vec();
        let mut sorted: Vec<usize> = got.iter().map(|n| n.parse().unwrap()).collect();
        sorted.sort_unstable();
        let mut once = sorted.clone();
        once.dedup();
        assert_eq!(sorted, once, "nothing twice");
        let must: Vec<usize> = (0..300).chain(from..from + 100).collect();
        assert_eq!(must.iter().filter(|n| !once.contains(n)).count(), 0, "nothing missing");
        if !hard {
            assert_eq!(once, (0..from + 100).collect::<Vec<_>>());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_our_broker_does_not_take_stays_at_the_server() {
    let Some(server) = Mosquitto::start("mqtt broker away", "") else { return };
    let dir = tempfile::tempdir().unwrap();
    let away = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let gone = away.clone();
    let broker = FakeBroker::start(move |n, _| match (gone.load(std::sync::atomic::Ordering::SeqCst), n % 3) {
        (true, 0) => Act::DropAfter,
        (true, _) => Act::DropBefore,
        (false, _) => Act::Serve,
    })
    .await;
    let yaml = yaml(server.port, "");
    make_session(dir.path(), &yaml, &broker, &server).await;
    let hello = count(&broker);
    away.store(true, std::sync::atomic::Ordering::SeqCst);
    let running = Running::start(dir.path(), &yaml, &broker);
    server.publish("site/a/meter/m1", &lines(0..2_000), &[]);
    let mut progress = running.progress.clone();
    until("it tries again", || progress.borrow_and_update().failures > 1).await;
    running.kill().await;
    away.store(false, std::sync::atomic::Ordering::SeqCst);
    let running = Running::start(dir.path(), &yaml, &broker);
    until("all of it", || count(&broker) >= hello + 2_000).await;
    server.publish("site/a/meter/m1", &lines(2_000..2_001), &[]);
    until("the last one", || fields(&broker, "n").last().map(String::as_str) == Some("2000")).await;
    running.stop().await;
    assert_eq!(fields(&broker, "n")[hello..], numbers(0..2_001));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_class_and_say_what_to_do() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), broker().await);
    let nobody = yaml(free_port(), "") + "on_error: {transient: stop}\n";
    let error = Running::start(dir.path(), &nobody, &broker).error().await;
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "source.unreachable"), "{error}");

    let conf = "allow_anonymous false\npassword_file DIR/passwords\nacl_file DIR/acl\n";
    let passwords = tempfile::tempdir().unwrap();
    let file = passwords.path().join("p");
    let made =
        std::process::Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&file).args(["grid", "right"]).status();
    if !made.is_ok_and(|s| s.success()) {
        return crate::running::skipped("mqtt refusals", "mosquitto_passwd is not installed");
    }
    std::fs::write(dir.path().join("pw"), "right\n").unwrap();
    std::fs::write(dir.path().join("wrong"), "wrong\n").unwrap();
    let conf = conf
        .replace("DIR/passwords", &file.display().to_string())
        .replace("DIR/acl", &passwords.path().join("acl").display().to_string());
    std::fs::write(passwords.path().join("acl"), "user grid\ntopic read other/#\n").unwrap();
    let Some(server) = Mosquitto::start("mqtt refusals", &conf) else { return };
    for version in ["5", "3.1.1"] {
        let with =
            |file: &str| yaml(server.port, &format!(", version: {version}, user: grid, password: \"file:{file}\""));
        let error = Running::start(dir.path(), &with("wrong"), &broker).error().await;
        assert_eq!((error.class(), error.code()), (ErrorClass::Auth, "source.login"), "{version}: {error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
        let found = concordat_adapters::parse(&with("wrong")).unwrap().check(dir.path());
        assert!(found.iter().any(|f| f.name == "login" && f.level == Level::Fail), "{found:?}");
        let found = concordat_adapters::parse(&with("pw")).unwrap().check(dir.path());
        assert!(found.iter().any(|f| f.name == "dns" && f.level == Level::Ok), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_and_a_stranger_is_not_trusted() {
    let certs = tempfile::tempdir().unwrap();
    let script = "cd \"$1\" && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem 2>log && \
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other -keyout other.key -out other.pem 2>>log && chmod 644 *.pem";
    let made = std::process::Command::new("sh").args(["-c", script, "sh"]).arg(certs.path()).status();
    if !made.is_ok_and(|s| s.success()) {
        return crate::running::skipped("mqtt tls", "openssl is not installed");
    }
    let at = certs.path().display();
    let Some(server) = Mosquitto::start("mqtt tls", &format!("certfile {at}/cert.pem\nkeyfile {at}/key.pem\n")) else {
        return;
    };
    let secure =
        |ca: &str| yaml(server.port, &format!(", ca: \"file:{ca}\"")).replace("mqtt://127.0.0.1", "mqtts://localhost");
    let found = concordat_adapters::parse(&secure("cert.pem")).unwrap().check(certs.path());
    assert!(found.iter().all(|f| f.level != Level::Fail), "{found:?}");
    assert!(found.iter().any(|f| f.name == "tls" && f.level == Level::Ok), "{found:?}");
    let broker = broker().await;
    let error = Running::start(certs.path(), &secure("other.pem"), &broker).error().await;
    assert_eq!((error.class(), error.code()), (ErrorClass::Auth, "source.tls"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_comes_from_messages() {
    let Some(server) = Mosquitto::start("mqtt discover", "") else { return };
    // Kept by the server for whoever subscribes: a sample needs no luck.
    for n in 0..4 {
        let text = format!(r#"{{"p": {n}.5, "owner": {{"mail": "a@example.org"}}, "t": "2026-01-01T00:0{n}:00Z"}}"#);
        server.publish(&format!("site/a/meter/m{n}"), &[text], &["-r"]);
    }
    let text = yaml(server.port, "");
    let text = text.split("map:").next().unwrap().to_owned();
    let draft = tokio::task::spawn_blocking(move || {
        concordat_adapters::parse(&text).unwrap().discover(std::path::Path::new(".")).unwrap()
    });
    let draft = tokio::time::timeout(Duration::from_secs(60), draft).await.unwrap().unwrap();
    assert_eq!(draft.sampled, 4);
    let drafted = concordat_adapters::parse(&draft.adapter).unwrap();
    assert!(drafted.check(std::path::Path::new("."))[0].level != Level::Fail, "{}", draft.adapter);
    assert!(draft.adapter.contains(r#"owner_mail: {from: "$.owner.mail", type: string"#), "{}", draft.adapter);
    let mail = draft.columns.iter().find(|c| c.name == "owner_mail").unwrap();
    assert_eq!(mail.personal, Some("contact"));
}

/// How many messages a second; run by hand: `cargo test --test net load_of_qos_1 -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn load_of_qos_1() {
    let Some(server) = Mosquitto::start("mqtt load", "") else { return };
    let (dir, broker) = (tempfile::tempdir().unwrap(), broker().await);
    let yaml = yaml(server.port, "");
    make_session(dir.path(), &yaml, &broker, &server).await;
    let hello = count(&broker);
    let total = 60_000;
    server.publish("site/a/meter/m1", &lines(0..total), &[]);
    let start = std::time::Instant::now();
    let running = Running::start(dir.path(), &yaml, &broker);
    until("all of it", || count(&broker) >= hello + total).await;
    let rate = total as f64 / start.elapsed().as_secs_f64();
    running.stop().await;
    let batches = broker.kept.lock().unwrap().batches.len();
    println!("mqtt qos 1: {rate:.0} messages/s in {batches} batches");
}
