//! Kafka against a real Apache Kafka.

use std::collections::BTreeMap;
use std::path::Path;

use concordat_adapters::contract::{AdapterError, Batch, Checkpoint, ErrorClass, Level, Next, Row, Source};
use concordat_adapters::dead_letter::{DeadLetters, list};
use concordat_adapters::parse;
use serde_json::json;

use crate::fake_broker::{Act, FakeBroker};
use crate::kafka_peer::{Kafka, Sent};
use crate::mosquitto::free_port;
use crate::running::{DEADLINE, Running, broker, count, fields, until};

const MAP: &str = "map:\n  part: {from: $partition, type: integer}\n  n: {from: $.n, type: integer}\n\
    \x20 sent: {from: $timestamp, type: timestamp, zone: offset, precision: ms}\nkey: [part, n]\ntime: sent\n";

fn document(port: u16, topic: &str, more: &str, map: &str) -> String {
    format!(
        "adapter: load\nkind: kafka\nconnect: {{brokers: [\"127.0.0.1:{port}\"], tls: off}}\ntopic: {topic}\n{more}\
         poll: {{every: 20ms}}\ninto: ds:grid/load@1\n{map}"
    )
}

fn yaml(port: u16, topic: &str) -> String {
    document(port, topic, "", MAP)
}

fn lines(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!(r#"{{"n": {n}}}"#)).collect()
}

/// Reads on until so many rows came.
fn read(source: &mut dyn Source, at: &mut Checkpoint, want: usize) -> Result<Vec<Batch>, AdapterError> {
    let (mut got, start) = (vec![], std::time::Instant::now());
    while got.iter().map(Batch::rows).sum::<usize>() < want {
        assert!(start.elapsed() < DEADLINE, "{got:?}");
        let batch = source.read(at, 50)?;
        at.clone_from(&batch.checkpoint);
        if let (Next::Idle(time), 0) = (batch.next, batch.rows()) {
            std::thread::sleep(time);
        }
        got.push(batch);
    }
    Ok(got)
}

fn values(batches: &[Batch], name: &str) -> Vec<String> {
    let records = batches.iter().flat_map(|b| &b.records);
    records.map(|r| r.data.get(name).map_or("none".into(), |v| v.to_string().trim_matches('"').to_owned())).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// What a source reads from its beginning.
fn all(yaml: &str, want: usize) -> Vec<Batch> {
    let mut source = parse(yaml).unwrap().open(Path::new(".")).unwrap();
    read(&mut *source, &mut Checkpoint::default(), want).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_comes_once_and_in_order_over_kills_and_lost_answers() {
    let Some(server) = Kafka::shared("kafka kills") else { return };
    let mut peer = server.topic("kills", 3, &[]);
    let (dir, yaml) = (tempfile::tempdir().unwrap(), yaml(server.port, "kills"));
    let broker = FakeBroker::start(|n, _| match n % 4 {
        1 => Act::Serve,
        2 => Act::DropAfter,
        3 => Act::DropBefore,
        _ => Act::Serve,
    })
    .await;
    // One partition has far more than the others, which are not to wait for it.
    for (partition, total) in [(0, 3_000), (1, 300), (2, 300)] {
        for from in (0..total).step_by(100) {
            peer.values("kills", partition, &lines(from..from + 100));
        }
    }
    for kills in 1..=4 {
        let running = Running::start_with(dir.path(), &yaml, &broker, |config| config.batch_max = 100);
        until("some of it", || count(&broker) >= kills * 400).await;
        running.kill().await;
    }
    let early = fields(&broker, "part");
    assert!(early.iter().filter(|p| *p != "0").count() >= 300, "the others wait for the long one");
    let running = Running::start(dir.path(), &yaml, &broker);
    until("all of it", || count(&broker) >= 3_600).await;
    peer.values("kills", 1, &lines(300..301));
    until("what is new", || count(&broker) >= 3_601).await;
    running.stop().await;
    let (parts, ns) = (fields(&broker, "part"), fields(&broker, "n"));
    let mut by: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    parts.iter().zip(ns).for_each(|(part, n)| by.entry(part).or_default().push(n));
    for (part, total) in [("0", 3_000), ("1", 301), ("2", 300)] {
        assert_eq!(by[part], numbers(0..total), "partition {part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_json_and_what_has_no_value_is_kept_and_can_be_replayed() {
    let Some(server) = Kafka::shared("kafka poison") else { return };
    let mut peer = server.topic("poison", 1, &[]);
    let good: &[u8] = br#"{"n": 1}"#;
    let sent: [Sent<'_>; 5] = [
        (Some(b"a"), Some(good)),
        (Some(b"b"), Some(b"\xff\x00no")),
        (Some(b"c"), None),
        (Some(b"\xfe"), Some(good)),
        (Some(b"e"), Some(good)),
    ];
    peer.send("poison", 0, &sent);
    let map = "map:\n  id: {from: $key}\n  n: {from: $.n, type: integer}\n  at: {from: $offset, type: integer}\n\
        \x20 sent: {from: $timestamp, type: timestamp, zone: offset, precision: ms}\nkey: [id]\ntime: sent\n";
    let text = document(server.port, "poison", "", map);
    let (dir, broker) = (tempfile::tempdir().unwrap(), broker().await);
    let running = Running::start(dir.path(), &text, &broker);
    until("the good ones", || count(&broker) >= 2).await;
    running.stop().await;
    assert_eq!(
        (fields(&broker, "id"), fields(&broker, "at")),
        (vec!["a".into(), "e".into()], vec!["0".into(), "4".into()])
    );
    let dead = list(&DeadLetters::path(dir.path(), "load")).unwrap();
    let seen: Vec<_> = dead.iter().map(|d| (d.rule.as_str(), d.original().unwrap(), d.file.as_str(), d.row)).collect();
    let expected = [
        ("json.utf8", b"\xff\x00no".to_vec(), "poison[0]", 1),
        ("kafka.tombstone", vec![], "poison[0]", 2),
        ("text.utf8", good.to_vec(), "poison[0]", 3),
    ];
    assert_eq!(seen, expected);
    // With other documents they pass: as text, as a deletion; a key that is no text never does.
    let told = map.replace("n: {from: $.n, type: integer}", "op: {from: $op}");
    let mut again = parse(&document(server.port, "poison", "", &told)).unwrap().again().unwrap();
    let rows: Vec<Row> = dead.iter().map(|d| again(d.origin(), &d.original().unwrap())).collect();
    let Row::Good(text) = &rows[0] else { panic!("{rows:?}") };
    let expected = json!({"id": "b", "op": "upsert", "at": 1, "sent": "2026-01-01T00:00:00.001Z"});
    assert_eq!(&text.data, expected.as_object().unwrap());
    let Row::Good(gone) = &rows[1] else { panic!("{rows:?}") };
    let expected = json!({"id": "c", "op": "delete", "at": 2, "sent": "2026-01-01T00:00:00.002Z"});
    assert_eq!(&gone.data, expected.as_object().unwrap());
    assert!(matches!(&rows[2], Row::Bad(reject) if reject.rule == "text.utf8"));
    let read = tokio::task::spawn_blocking(move || all(&document(server.port, "poison", "", &told), 5)).await.unwrap();
    assert_eq!(values(&read, "op"), ["upsert", "upsert", "delete", "upsert"]);
}

#[test]
fn each_packing_is_unpacked() {
    let Some(server) = Kafka::shared("kafka packings") else { return };
    for packing in ["uncompressed", "gzip", "snappy", "lz4", "zstd"] {
        // The server packs what comes as the topic wants it, by the libraries that Java senders use.
        let topic = format!("packed-{packing}");
        let mut peer = server.topic(&topic, 1, &[("compression.type", packing)]);
        for from in (0..3_000).step_by(1_000) {
            peer.values(&topic, 0, &lines(from..from + 1_000));
        }
        let read = all(&yaml(server.port, &topic), 3_000);
        assert_eq!(values(&read, "n"), numbers(0..3_000), "{packing}");
        assert_eq!(values(&read, "sent")[7], "2026-01-01T00:00:00.007Z", "{packing}");
    }
    let mut peer = server.topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]);
    peer.values("stamped", 0, &lines(0..2));
    let sent = values(&all(&yaml(server.port, "stamped"), 2), "sent");
    assert!(sent[0] == sent[1] && sent[0].as_str() > "2026-01-02", "{sent:?}");
}

#[test]
fn what_was_given_up_is_not_read_and_what_is_not_ended_waits() {
    let Some(server) = Kafka::shared("kafka transactions") else { return };
    let mut peer = server.topic("tx", 1, &[]);
    peer.values("tx", 0, &lines(0..5));
    let given_up = peer.begin("tx-a", "tx", 0, &lines(900..905));
    let kept = peer.begin("tx-b", "tx", 0, &lines(5..10));
    peer.end(given_up, false);
    let mut source = parse(&yaml(server.port, "tx")).unwrap().open(Path::new(".")).unwrap();
    let mut at = Checkpoint::default();
    let first = read(&mut *source, &mut at, 5).unwrap();
    assert_eq!(values(&first, "n"), numbers(0..5));
    let idle = source.read(&at, 50).unwrap();
    assert_eq!((idle.rows(), matches!(idle.next, Next::Idle(_))), (0, true), "a transaction is open");
    peer.end(kept, true);
    peer.values("tx", 0, &lines(10..12));
    let rest = read(&mut *source, &mut at, 7).unwrap();
    assert_eq!(values(&rest, "n"), numbers(5..12));
    // The same from a place in the middle of it, by a source that saw nothing of the beginning.
    let mut other = parse(&yaml(server.port, "tx")).unwrap().open(Path::new(".")).unwrap();
    let again = read(&mut *other, &mut first.last().unwrap().checkpoint.clone(), 7).unwrap();
    assert_eq!(values(&again, "n"), numbers(5..12));
}

#[test]
fn messages_that_are_gone_stop_the_adapter_unless_the_document_says_otherwise() {
    let Some(server) = Kafka::shared("kafka gone") else { return };
    let mut peer = server.topic("gone", 1, &[]);
    peer.values("gone", 0, &lines(0..100));
    let (stops, skips) = (yaml(server.port, "gone"), document(server.port, "gone", "gone: skip\n", MAP));
    let open = |text: &str| parse(text).unwrap().open(Path::new(".")).unwrap();
    let mut at = Checkpoint::default();
    let one = open(&stops).read(&at, 40).unwrap();
    at.clone_from(&one.checkpoint);
    peer.delete_before("gone", 0, 70);
    let error = open(&stops).read(&at, 40).unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Permanent, "source.changed"), "{error}");
    for part in ["`gone`", "partition 0", "offset 40", "is 70", "gone: skip"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let batch = open(&skips).read(&at, 40).unwrap();
    assert_eq!(values(std::slice::from_ref(&batch), "n"), numbers(70..100));
    assert!(batch.notes.iter().any(|n| n.contains("offset 40 is gone")), "{:?}", batch.notes);
    // Made anew, it has other messages under the same offsets.
    peer.drop_topic("gone");
    let mut peer = server.topic("gone", 1, &[]);
    peer.values("gone", 0, &lines(500..600));
    let error = open(&stops).read(&at, 40).unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Permanent, "source.changed"), "{error}");
    assert!(error.to_string().contains("made anew"), "{error}");
    let batch = open(&skips).read(&at, 40).unwrap();
    assert_eq!(values(std::slice::from_ref(&batch), "n"), numbers(500..540));
}

#[test]
fn a_partition_that_is_added_is_read_from_its_beginning() {
    let Some(server) = Kafka::shared("kafka partitions") else { return };
    let mut peer = server.topic("grows", 1, &[]);
    peer.values("grows", 0, &lines(0..3));
    let text = document(server.port, "grows", "start: latest\n", MAP);
    let open = || parse(&text).unwrap().open(Path::new(".")).unwrap();
    let (mut source, mut at) = (open(), Checkpoint::default());
    assert_eq!(source.read(&at, 50).unwrap().rows(), 0, "what was there is not read");
    peer.values("grows", 0, &lines(3..5));
    let first = read(&mut *source, &mut at, 2).unwrap();
    assert_eq!(values(&first, "n"), ["3", "4"]);
    peer.grow("grows", 2);
    peer.values("grows", 1, &lines(10..12));
    let second = read(&mut *open(), &mut at, 2).unwrap();
    assert_eq!((values(&second, "n"), values(&second, "part")), (numbers(10..12), vec!["1".into(); 2]));
    // One that is not asked for is not read.
    let only = document(server.port, "grows", "partitions: [1]\n", MAP);
    assert_eq!(values(&all(&only, 2), "part"), ["1", "1"]);
    let missing = document(server.port, "grows", "partitions: [1, 7]\n", MAP);
    let error = parse(&missing).unwrap().open(Path::new(".")).unwrap().read(&Checkpoint::default(), 5).unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Permanent, "source.missing"), "{error}");
}

#[test]
fn refusals_have_their_class_and_say_what_to_do() {
    let Some(server) = Kafka::shared("kafka refusals") else { return };
    let mut peer = server.topic("guarded", 2, &[]);
    peer.values("guarded", 0, &lines(0..4));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pw"), "right\n").unwrap();
    std::fs::write(dir.path().join("wrong"), "mistaken\n").unwrap();
    let first = |text: &str| parse(text).unwrap().open(dir.path()).unwrap().read(&Checkpoint::default(), 50);
    let refused = |text: &str| {
        let error = first(text).unwrap_err();
        (error.class(), error.code(), error.to_string())
    };
    let login = |user: &str, file: &str, how: &str| {
        let with = format!("tls: off, login: {how}, user: {user}, password: \"file:{file}\"}}");
        yaml(server.sasl, "guarded").replace("tls: off}", &with)
    };
    for how in ["plain", "scram-sha-256", "scram-sha-512"] {
        assert_eq!(first(&login("grid", "pw", how)).unwrap().rows(), 4, "{how}");
        let (class, code, text) = refused(&login("grid", "wrong", how));
        assert_eq!((class, code), (ErrorClass::Auth, "source.login"), "{how}: {text}");
        assert!(!text.contains("mistaken") && !text.contains("grid"), "{text}");
        let found = parse(&login("grid", "wrong", how)).unwrap().check(dir.path());
        assert!(found.iter().any(|f| f.name == "login" && f.level == Level::Fail), "{found:?}");
    }
    let (class, code, text) = refused(&login("other", "pw", "scram-sha-512"));
    assert_eq!((class, code), (ErrorClass::Auth, "source.rights"), "{text}");
    let (class, code, text) = refused(&yaml(server.port, "nowhere"));
    assert_eq!((class, code), (ErrorClass::Permanent, "source.missing"), "{text}");
    let found = parse(&yaml(server.port, "nowhere")).unwrap().check(dir.path());
    assert!(found.iter().any(|f| f.name == "topic" && f.level == Level::Fail), "{found:?}");
    // Asking did not make it.
    assert_eq!(refused(&yaml(server.port, "nowhere")).1, "source.missing");
    let (class, code, text) = refused(&yaml(free_port(), "guarded"));
    assert_eq!((class, code), (ErrorClass::Transient, "source.unreachable"), "{text}");
    let (class, _, text) = refused(&yaml(server.sasl, "guarded"));
    assert!(class == ErrorClass::Transient && text.contains("login"), "{text}");
    let found = parse(&login("grid", "pw", "scram-sha-512")).unwrap().check(dir.path());
    assert!(found.iter().all(|f| f.level != Level::Fail), "{found:?}");
    assert!(found.iter().any(|f| f.name == "offsets" && f.sentence.contains("0: 0 to 4, 1: 0 to 0")), "{found:?}");
}

#[test]
fn tls_is_spoken_and_a_stranger_is_not_trusted() {
    let Some(server) = Kafka::shared("kafka tls") else { return };
    let Some(port) = server.tls else {
        return crate::running::skipped("kafka tls", "openssl is not installed");
    };
    let mut peer = server.topic("secret", 1, &[]);
    peer.values("secret", 0, &lines(0..4));
    let secure = |port: u16, ca: &str| {
        let text = yaml(port, "secret").replace("tls: off", &format!("ca: \"file:{ca}\""));
        text.replace("127.0.0.1", "localhost")
    };
    let open = |text: &str| parse(text).unwrap().open(server.folder()).unwrap();
    let batch = open(&secure(port, "cert.pem")).read(&Checkpoint::default(), 50).unwrap();
    assert_eq!(batch.rows(), 4);
    let found = parse(&secure(port, "cert.pem")).unwrap().check(server.folder());
    assert!(found.iter().all(|f| f.level != Level::Fail), "{found:?}");
    assert!(found.iter().any(|f| f.name == "tls" && f.level == Level::Ok), "{found:?}");
    let error = open(&secure(port, "other.pem")).read(&Checkpoint::default(), 50).unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Auth, "source.tls"), "{error}");
    // TLS on one side alone is no Kafka, and is told as what it is.
    for text in [yaml(port, "secret"), secure(server.port, "cert.pem")] {
        let error = open(&text).read(&Checkpoint::default(), 50).unwrap_err();
        assert!(error.to_string().to_lowercase().contains("tls"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_and_comes_back_is_read_on() {
    let Some(server) = Kafka::start("kafka server dies") else { return };
    let mut peer = server.topic("dies", 2, &[]);
    let (dir, broker) = (tempfile::tempdir().unwrap(), broker().await);
    (0..2).for_each(|partition| peer.values("dies", partition, &lines(0..200)));
    let running = Running::start(dir.path(), &yaml(server.port, "dies"), &broker);
    until("some of it", || count(&broker) >= 100).await;
    server.down();
    let mut progress = running.progress.clone();
    until("it notices", || progress.borrow_and_update().failures > 0).await;
    server.up();
    let mut peer = server.peer();
    (0..2).for_each(|partition| peer.values("dies", partition, &lines(200..300)));
    until("the rest", || count(&broker) >= 600).await;
    running.stop().await;
    let mut got: Vec<(String, usize)> =
        fields(&broker, "part").into_iter().zip(fields(&broker, "n").iter().map(|n| n.parse().unwrap())).collect();
    got.sort();
    let expected: Vec<(String, usize)> =
        ["0", "1"].iter().flat_map(|part| (0..300).map(|n| ((*part).to_owned(), n))).collect();
    assert_eq!(got, expected);
}

#[test]
fn a_draft_comes_from_messages() {
    let Some(server) = Kafka::shared("kafka discover") else { return };
    let mut peer = server.topic("drafted", 2, &[]);
    for n in 0..4 {
        let value = format!(r#"{{"p": {n}.5, "owner": {{"mail": "a@example.org"}}, "t": "2026-01-01T00:0{n}:00Z"}}"#);
        peer.send("drafted", n % 2, &[(Some(format!("m{n}").as_bytes()), Some(value.as_bytes()))]);
    }
    let text = document(server.port, "drafted", "", "");
    let draft = parse(&text).unwrap().discover(Path::new(".")).unwrap();
    assert_eq!(draft.sampled, 4);
    let drafted = parse(&draft.adapter).unwrap();
    assert!(drafted.check(Path::new("."))[0].level != Level::Fail, "{}", draft.adapter);
    assert!(draft.adapter.contains(r#"key: {from: "$key", type: string"#), "{}", draft.adapter);
    let mail = draft.columns.iter().find(|c| c.name == "owner_mail").unwrap();
    assert_eq!(mail.personal, Some("contact"));
}
