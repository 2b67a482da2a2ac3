//! The IEC 60870-5-104 source against lib60870, and against sockets that misbehave.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use concordat_adapters::contract::{Checkpoint, ErrorClass, Level, Row, Source};
use concordat_adapters::dead_letter::{DeadLetters, list, mapped};
use serde_json::{Value, json};

use crate::fake_broker::{Act, FakeBroker};
use crate::iec104_peer::{Outstation, certificates, tls_files};
use crate::mosquitto::free_port;
use crate::running::{DEADLINE, Running, broker, until};

fn yaml(url: &str, more: &str) -> String {
    format!(
        "adapter: load\nkind: iec104\nconnect: {{url: \"{url}\"}}\nstations: [47]\nzone: UTC\n{more}into: ds:grid/load@1\n\
         map:\n  station: {{type: integer}}\n  object: {{type: integer}}\n  type: {{}}\n  cause: {{}}\n  value: {{type: decimal}}\n\
         \x20 quality: {{}}\n  invalid: {{type: boolean}}\n  counted: {{type: integer}}\n  transient: {{type: boolean}}\n\
         \x20 tag: {{from: time, type: timestamp, zone: offset, precision: ms}}\n\
         \x20 at: {{type: timestamp, zone: offset, precision: ms}}\nkey: [station, object, at, cause, value]\ntime: at\n"
    )
}

pub fn plain(port: u16) -> String {
    yaml(&format!("iec104://127.0.0.1:{port}"), "")
}

/// The fields of all events with a cause.
fn events(broker: &FakeBroker, cause: &str) -> Vec<Value> {
    let kept = broker.kept.lock().unwrap();
    assert_eq!(kept.broken_rules, Vec::<String>::new());
    kept.events.iter().map(|e| e["data"].clone()).filter(|d| d["cause"] == cause).collect()
}

/// The values of one object's events.
fn values(broker: &FakeBroker, object: u32) -> Vec<i64> {
    let all = events(broker, "spontaneous");
    all.iter().filter(|d| d["object"] == object).map(|d| d["value"].as_str().unwrap().parse().unwrap()).collect()
}

fn numbers(range: std::ops::Range<i64>) -> Vec<i64> {
    range.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_and_what_changes_arrive_right_and_once() {
    let points = json!([
        [1, "M_SP_TB_1", 1],
        [2, "M_DP_TB_1", 2],
        [3, "M_ST_NA_1", -5],
        [4, "M_BO_NA_1", 4_294_967_295_u32],
        [5, "M_ME_NA_1", -0.5],
        [6, "M_ME_NB_1", -7],
        [7, "M_ME_TF_1", 1.25],
        [8, "M_IT_TB_1", 77],
        [9, "M_ME_NC_1", 0.1],
        [10, "M_SP_NA_1", 0],
        [11, "M_ME_TD_1", 0.25],
        [12, "M_ME_TE_1", 9]
    ]);
    let Some(mut outstation) = Outstation::start("iec104 state and events", &points, &json!({})) else { return };
    let (dir, broker) = (tempfile::tempdir().unwrap(), broker().await);
    let running = Running::start(dir.path(), &plain(outstation.port), &broker);
    // Counters are not part of an interrogation.
    until("the state", || events(&broker, "interrogated").len() >= 11).await;
    let state = events(&broker, "interrogated");
    let seen: Vec<(u64, &str, &str)> = state
        .iter()
        .map(|d| (d["object"].as_u64().unwrap(), d["value"].as_str().unwrap(), d["quality"].as_str().unwrap()))
        .collect();
    let mut sorted = seen.clone();
    sorted.sort_unstable();
    let want = [(1, "1"), (2, "2"), (3, "-5"), (4, "4294967295"), (5, "-0.5"), (6, "-7"), (7, "1.25")];
    let want: Vec<_> = want.into_iter().chain([(9, "0.1"), (10, "0"), (11, "0.25"), (12, "9")]).collect();
    assert_eq!(sorted, want.iter().map(|(o, v)| (*o, *v, "good")).collect::<Vec<_>>());
    assert!(state.iter().all(|d| d["station"] == 47 && d["invalid"] == false), "{state:?}");
    assert_eq!(state.iter().find(|d| d["object"] == 3).unwrap()["transient"], true);

    let before = jiff::Timestamp::now();
    assert!(outstation.send(1, [0, 1], &["Invalid", "Substituted"]));
    assert!(outstation.send(10, [1], &[]));
    assert!(outstation.send(8, [78], &[]));
    until("the events", || events(&broker, "spontaneous").len() >= 4).await;
    running.stop().await;
    let after = events(&broker, "spontaneous");
    let of = |object: u32| after.iter().filter(move |d| d["object"] == object).collect::<Vec<_>>();
    assert_eq!(after.len(), 4);
    assert_eq!((of(1)[0]["value"].as_str(), of(1)[1]["value"].as_str()), (Some("0"), Some("1")));
    assert_eq!(
        (of(1)[0]["quality"].as_str(), of(1)[0]["invalid"].as_bool()),
        (Some("invalid+substituted"), Some(true))
    );
    let tag: jiff::Timestamp = of(1)[0]["tag"].as_str().unwrap().parse().unwrap();
    let late = tag.duration_since(before).as_secs_f64();
    assert!((-1.0..60.0).contains(&late), "the tag is {late} s after the event");
    assert!(of(10)[0].get("tag").is_none() && of(10)[0]["at"].is_string());
    assert_eq!((of(8)[0]["value"].as_str(), of(8)[0]["counted"].as_i64()), (Some("78"), Some(3)));
    assert!(list(&DeadLetters::path(dir.path(), "load")).unwrap_or_default().is_empty());
}

fn read_until(source: &mut dyn Source, from: &Checkpoint, object: u32, want: usize) -> (Vec<i64>, Checkpoint) {
    let (mut at, mut got, start) = (from.clone(), vec![], Instant::now());
    while got.len() < want {
        assert!(start.elapsed() < DEADLINE, "only {got:?}");
        let batch = source.read(&at, 1).unwrap();
        assert_eq!(batch.rejects, vec![]);
        let mine = batch.records.iter().filter(|r| r.data["object"] == object && r.data["cause"] == "spontaneous");
        got.extend(mine.map(|r| r.data["value"].as_str().unwrap().parse::<i64>().unwrap()));
        at = batch.checkpoint;
    }
    (got, at)
}

/// Reads until somebody counts the connection.
fn connect(source: &mut dyn Source, outstation: &mut Outstation) -> Checkpoint {
    let (start, mut at) = (Instant::now(), Checkpoint::default());
    while outstation.active() == 0 {
        assert!(start.elapsed() < DEADLINE, "never connected");
        at = source.read(&at, 10).unwrap().checkpoint;
    }
    at
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_were_not_durable_come_again_and_durable_ones_do_not() {
    let points = json!([[7, "M_ME_TF_1", 0.5]]);
    let Some(mut outstation) = Outstation::keeping("iec104 restart", &points, &json!({})) else { return };
    let dir = tempfile::tempdir().unwrap();
    concordat_adapters::apart(|| {
        let connector = concordat_adapters::parse(&plain(outstation.port)).unwrap();
        let mut before = connector.open(dir.path()).unwrap();
        let start = connect(&mut *before, &mut outstation);
        // More than the window of 12: the outstation keeps the rest, as nothing is acknowledged.
        assert!(outstation.send(7, 0..40, &[]));
        let (first, one) = read_until(&mut *before, &start, 7, 5);
        assert_eq!(first, numbers(0..5));
        assert_eq!(read_until(&mut *before, &start, 7, 5).0, first, "the same place gives the same events");
        before.ack(&one).unwrap();
        // Durable, and the process dies before the outstation hears of it.
        let (second, two) = read_until(&mut *before, &one, 7, 5);
        assert_eq!(second, numbers(5..10));
        drop(before);
        let mut after = connector.open(dir.path()).unwrap();
        after.ack(&two).unwrap();
        let (mut rest, mut at) = (vec![], two);
        while rest.len() < 30 {
            let (more, next) = read_until(&mut *after, &at, 7, 1);
            rest.extend(more);
            after.ack(&next).unwrap();
            at = next;
        }
        assert_eq!(rest, numbers(10..40));
        assert!(outstation.send(7, 40..41, &[]));
        assert_eq!(read_until(&mut *after, &at, 7, 1).0, [40]);
    });
}

/// Passes bytes on until it is told to cut.
fn relay(to: u16) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, cut) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
    let cutting = cut.clone();
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            cutting.store(false, Ordering::SeqCst);
            let Ok(far) = TcpStream::connect(("127.0.0.1", to)) else { return };
            for (from, into) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                let cutting = cutting.clone();
                std::thread::spawn(move || pass(from, into, &cutting));
            }
        }
    });
    (port, cut)
}

fn pass(mut from: TcpStream, mut into: TcpStream, cutting: &AtomicBool) {
    from.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut buffer = [0; 4096];
    while !cutting.load(Ordering::SeqCst) {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) if into.write_all(&buffer[..count]).is_err() => break,
            Err(e) if !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => break,
            _ => {}
        }
    }
    let _ = (from.shutdown(std::net::Shutdown::Both), into.shutdown(std::net::Shutdown::Both));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_in_the_middle_loses_and_doubles_no_event() {
    let points = json!([[7, "M_ME_TF_1", 0.5], [8, "M_SP_NA_1", 0]]);
    let Some(mut outstation) = Outstation::keeping("iec104 broken line", &points, &json!({})) else { return };
    let (dir, broker) = (tempfile::tempdir().unwrap(), broker().await);
    let (port, cut) = relay(outstation.port);
    let running = Running::start(dir.path(), &plain(port), &broker);
    let mut next = 0;
    for round in 1..=4 {
        until("the connection", || outstation.active() == 1).await;
        until("its interrogation", || events(&broker, "interrogated").len() >= 2 * round).await;
        assert!(outstation.send(7, next..next + 90, &[]));
        next += 90;
        // In the middle: some frames are with us, some acknowledged, some neither.
        cut.store(true, Ordering::SeqCst);
        until("it is connected anew", || !cut.load(Ordering::SeqCst)).await;
        until("all so far", || values(&broker, 7).len() as i64 >= next).await;
    }
    until("all of it", || values(&broker, 7).len() >= 360).await;
    until("the connection", || outstation.active() == 1).await;
    assert!(outstation.send(7, next..next + 1, &[]));
    until("the last one", || values(&broker, 7).last() == Some(&next)).await;
    running.stop().await;
    assert_eq!(values(&broker, 7), numbers(0..next + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_goes_through_small_windows_and_waits_while_our_broker_is_away() {
    let points = json!([[7, "M_ME_TF_1", 0.5]]);
    let windows = json!({"k": 3, "w": 1, "t1": 3, "t2": 2});
    let Some(mut outstation) = Outstation::keeping("iec104 flood", &points, &windows) else { return };
    let dir = tempfile::tempdir().unwrap();
    let away = Arc::new(AtomicBool::new(false));
    let gone = away.clone();
    let broker = FakeBroker::start(move |_, _| match gone.load(Ordering::SeqCst) {
        true => Act::DropBefore,
        false => Act::Serve,
    })
    .await;
    let running = Running::start(dir.path(), &plain(outstation.port), &broker);
    until("the connection", || outstation.active() == 1).await;
    until("the state", || !events(&broker, "interrogated").is_empty()).await;
    for portion in 0..10 {
        assert!(outstation.send(7, portion * 100..portion * 100 + 100, &[]));
        until("a portion", || values(&broker, 7).len() as i64 >= portion * 100 + 100).await;
    }
    away.store(true, Ordering::SeqCst);
    assert!(outstation.send(7, 1_000..1_100, &[]));
    // Nothing is acknowledged, so it gives the connection up after its t1, and keeps its events.
    until("it closes", || outstation.active() == 0).await;
    away.store(false, Ordering::SeqCst);
    until("all of it", || values(&broker, 7).len() >= 1_100).await;
    running.stop().await;
    assert_eq!(values(&broker, 7), numbers(0..1_100));
}

/// The error with which it ends.
pub async fn ends_with(dir: &Path, yaml: &str, more: &str) -> (ErrorClass, String, String) {
    let broker = broker().await;
    let document = yaml.to_owned() + "on_error: {transient: stop}\n";
    let error =
        Running::start(dir, &document.replace("zone: UTC\n", &format!("zone: UTC\n{more}")), &broker).error().await;
    (error.class(), error.code().to_owned(), error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_that_is_not_there_is_named() {
    let points = json!([[7, "M_ME_TF_1", 0.5]]);
    let Some(outstation) = Outstation::start("iec104 wrong address", &points, &json!({})) else { return };
    let dir = tempfile::tempdir().unwrap();
    let wrong = plain(outstation.port).replace("stations: [47]", "stations: [47, 48]");
    let (class, code, told) = ends_with(dir.path(), &wrong, "").await;
    assert_eq!((class, code.as_str()), (ErrorClass::Permanent, "source.missing"), "{told}");
    assert!(told.contains("station 48") && told.contains("`stations`"), "{told}");
}

/// Takes connections and says always the same, whatever it hears.
fn mute(says: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut open = vec![];
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(says);
            open.push(stream);
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_garbage_and_gaps_end_a_connection_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let hasty = "link: {t1: 2s, t2: 1s}\n";
    let (class, code, told) = ends_with(dir.path(), &plain(mute(b"")), hasty).await;
    assert_eq!((class, code.as_str()), (ErrorClass::Transient, "source.unreachable"), "{told}");
    assert!(told.contains("no answer to the start of data within 2 seconds"), "{told}");
    let (class, code, told) = ends_with(dir.path(), &plain(mute(b"HTTP/1.1 400 Bad Request\r\n\r\n")), "").await;
    assert_eq!((class, code.as_str()), (ErrorClass::Transient, "source.protocol"), "{told}");
    // Begins, then goes on with the frame behind the next one.
    let gap = mute(&[0x68, 4, 0x0b, 0, 0, 0, 0x68, 14, 2, 0, 0, 0, 1, 1, 3, 0, 47, 0, 1, 0, 0, 1]);
    let (class, code, told) = ends_with(dir.path(), &plain(gap), "").await;
    assert_eq!((class, code.as_str()), (ErrorClass::Transient, "source.protocol"), "{told}");
    assert!(told.contains("gap"), "{told}");
    let (class, code, told) = ends_with(dir.path(), &plain(free_port()), "").await;
    assert_eq!((class, code.as_str()), (ErrorClass::Transient, "source.unreachable"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_is_a_dead_letter_and_the_rest_goes_on() {
    // An unknown type, a station nobody asked for, a time that is none, and a good point.
    let frames: &[u8] = &[
        0x68, 4, 0x0b, 0, 0, 0, //
        0x68, 14, 0, 0, 0, 0, 40, 1, 3, 0, 47, 0, 1, 0, 0, 1, //
        0x68, 14, 2, 0, 0, 0, 1, 1, 3, 0, 99, 0, 1, 0, 0, 1, //
        0x68, 21, 4, 0, 0, 0, 30, 1, 3, 0, 47, 0, 2, 0, 0, 1, 0xff, 0xff, 0, 0, 1, 1, 26, //
        0x68, 14, 6, 0, 0, 0, 1, 1, 3, 0, 47, 0, 3, 0, 0, 1,
    ];
    let (dir, broker) = (tempfile::tempdir().unwrap(), broker().await);
    let running = Running::start(dir.path(), &plain(mute(frames)), &broker);
    until("the good one", || values(&broker, 3) == [1]).await;
    running.stop().await;
    let dead = list(&DeadLetters::path(dir.path(), "load")).unwrap();
    let rules: Vec<&str> = dead.iter().map(|d| d.rule.as_str()).collect();
    assert_eq!(rules, ["iec104.type", "iec104.station", "time.syntax"]);
    assert_eq!(dead[1].original().unwrap(), frames[28..38]);
    // Once more, by a document that names the station.
    let corrected = plain(2404).replace("stations: [47]", "stations: [47, 99]");
    let mut again = concordat_adapters::parse(&corrected).unwrap().again().unwrap();
    let mut replayed = dead.iter().map(|letter| mapped(&mut again, letter));
    assert!(matches!(replayed.next(), Some(Row::Bad(reject)) if reject.rule == "iec104.type"));
    let Some(Row::Good(record)) = replayed.next() else { panic!("the station is named now") };
    let data = Value::Object(record.data);
    assert_eq!((&data["station"], &data["object"], &data["value"]), (&json!(99), &json!(1), &json!("1")));
    assert_eq!((&data["cause"], &data["quality"]), (&json!("spontaneous"), &json!("good")));
    assert!(matches!(replayed.next(), Some(Row::Bad(reject)) if reject.rule == "time.syntax"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_and_strangers_are_trusted_by_neither_side() {
    let dir = tempfile::tempdir().unwrap();
    if !certificates("iec104 tls", dir.path()) {
        return;
    }
    for version in ["TLS_1_2", "TLS_1_3"] {
        let own = tls_files(dir.path(), version, "ca", Some("cert"));
        let Some(outstation) = Outstation::start("iec104 tls", &json!([[7, "M_ME_TF_1", 0.5]]), &own) else { return };
        let with = |ca: &str, own: &str| {
            let text = plain(outstation.port).replace("iec104://127.0.0.1", "iec104s://localhost");
            text.replace("\"}\nstations", &format!("\", ca: {ca}.pem{own}}}\nstations"))
        };
        let mine = ", cert: cert.pem, key: cert.key";
        let broker = broker().await;
        let running = Running::start(dir.path(), &with("ca", mine), &broker);
        until("the state", || !events(&broker, "interrogated").is_empty()).await;
        running.stop().await;
        let strange = ", cert: other.pem, key: other.key";
        for (ca, own) in [("strange", mine), ("ca", strange), ("ca", "")] {
            let (class, code, told) = ends_with(dir.path(), &with(ca, own), "").await;
            // mbedTLS hangs up without a word where there is no certificate, and its alert of TLS 1.3 cannot be read.
            if ca == "strange" || (version, own) == ("TLS_1_2", strange) {
                assert_eq!((class, code.as_str()), (ErrorClass::Auth, "source.tls"), "{version} {ca}{own}: {told}");
            } else {
                assert_eq!(class, ErrorClass::Transient, "{version} {ca}{own}: {told}");
            }
        }
        let (base, right) = (dir.path().to_owned(), with("ca", mine));
        let found = tokio::task::spawn_blocking(move || concordat_adapters::parse(&right).unwrap().check(&base));
        let found = found.await.unwrap();
        assert!(found.iter().all(|f| f.level == Level::Ok) && found.iter().any(|f| f.name == "tls"), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_is_made_of_what_the_station_tells() {
    let points = json!([[7, "M_ME_TF_1", 0.5], [8, "M_SP_NA_1", 0]]);
    let Some(mut outstation) = Outstation::start("iec104 discover", &points, &json!({})) else { return };
    let dir = tempfile::tempdir().unwrap();
    let bare = plain(outstation.port);
    let bare = bare.split("map:").next().unwrap().to_owned();
    let base = dir.path().to_owned();
    let drafts = tokio::task::spawn_blocking(move || concordat_adapters::parse(&bare).unwrap().discover(&base));
    let drafts = drafts.await.unwrap().unwrap();
    assert!(
        drafts.sampled >= 2 && drafts.adapter.contains("at: {type: timestamp, zone: offset, precision: ms"),
        "{drafts:?}"
    );
    until("it leaves", || outstation.active() == 0).await;
}

#[test]
fn documents_that_cannot_be_meant_are_refused() {
    for (from, to, word) in [
        ("zone: UTC", "zone: Berlin", "IANA time zone"),
        ("stations: [47]", "stations: []", "each station once"),
        ("stations: [47]", "stations: [47, 47]", "each station once"),
        ("stations: [47]", "stations: [47]\nlink: {t1: 5s}", "t2 below t1"),
        ("iec104://", "tcp://", "iec104://HOST:PORT"),
        ("value: {type: decimal}", "value: {from: valeu}", "did you mean `value`?"),
    ] {
        let text = plain(2404).replace(from, to);
        let told = concordat_adapters::parse(&text)
            .map_err(|e| e.to_string())
            .and_then(|c| c.open(Path::new(".")).map(|_| ()).map_err(|e| e.to_string()));
        assert!(told.clone().unwrap_err().contains(word), "{to}: {told:?}");
    }
}
