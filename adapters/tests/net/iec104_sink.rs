//! The IEC 60870-5-104 sink: an outstation that a controlling station of lib60870 reads.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use concordat_adapters::contract::ErrorClass;
use concordat_adapters::dead_letter::{DeadLetters, list};
use serde_json::{Value, json};

use crate::iec104::{ends_with, plain};
use crate::iec104_peer::{Station, certificates, tls_files};
use crate::mosquitto::free_port;
use crate::running::until;
use crate::sinks::{Feed, head, start};

fn to(port: u16, more: &str) -> String {
    let point = |n: u32| format!("{{when: {{feeder: F{n}}}, object: 100{n}, type: M_ME_TF_1, value: n}}");
    let points: Vec<String> = (0..3).map(point).collect();
    format!("{{listen: \"127.0.0.1:{port}\", station: 47, zone: Europe/Berlin, points: [{}]{more}}}", points.join(", "))
}

fn known() -> Value {
    json!([[1000, "M_ME_TF_1"], [1001, "M_ME_TF_1"], [1002, "M_ME_TF_1"]])
}

fn numbers(told: &[Value]) -> Vec<u64> {
    told.iter().map(|v| v["value"].as_f64().unwrap() as u64).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controlling_station_gets_each_event_in_order_and_the_state_when_it_asks() {
    let (dir, feed, port) = (tempfile::tempdir().unwrap(), Feed::with(100), free_port());
    let gateway = feed.serve().await;
    let yaml = head("iec104", &to(port, ""));
    let sinking = start(dir.path(), &yaml, gateway.clone());
    let test = "sink iec104";
    let Some(station) = Station::start(test, port, &known(), &json!({})) else { return };
    until("all of it", || feed.acked() == 100).await;
    until("all of it is there", || station.told("SPONTANEOUS").len() >= 100).await;
    let told = station.told("SPONTANEOUS");
    assert_eq!(numbers(&told), (0..100).collect::<Vec<_>>());
    assert!(told.iter().all(|v| v["object"] == 1000 + v["value"].as_f64().unwrap() as u64 % 3), "{told:?}");
    // Written in the zone of the document.
    assert!(told.iter().all(|v| v["time"].as_str().unwrap().starts_with("2026-01-01T01:00:00")), "{:?}", told[0]);
    drop(station);
    sinking.stop().await;
    // After a restart the state is still known, though no event comes.
    let sinking = start(dir.path(), &yaml, gateway);
    let points = json!([[1000, "M_ME_NC_1"], [1001, "M_ME_NC_1"], [1002, "M_ME_NC_1"]]);
    let Some(station) = Station::start(test, port, &points, &json!({})) else { return };
    until("the state", || station.told("INTERROGATED_BY_STATION").len() >= 3).await;
    let state: BTreeMap<u64, u64> = station
        .told("INTERROGATED_BY_STATION")
        .iter()
        .map(|v| (v["object"].as_u64().unwrap(), v["value"].as_f64().unwrap() as u64))
        .collect();
    assert_eq!(state, BTreeMap::from([(1000, 99), (1001, 97), (1002, 98)]));
    sinking.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_before_a_station_has_it() {
    let (dir, feed, port) = (tempfile::tempdir().unwrap(), Feed::with(21), free_port());
    let gateway = feed.serve().await;
    let sinking = start(dir.path(), &head("iec104", &to(port, "")), gateway);
    // Somebody begins data, takes what comes and acknowledges nothing.
    let taken = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(&[0x68, 4, 7, 0, 0, 0]).unwrap();
        // The answer and seven frames: a page.
        frames(&mut stream, 6 + 7 * 27)
    });
    let bytes = tokio::time::timeout(Duration::from_secs(30), taken).await.unwrap().unwrap();
    assert_eq!((bytes[..6].to_vec(), feed.acked()), (vec![0x68, 4, 0x0b, 0, 0, 0], 0));
    // It is gone, and the next one gets all of it from the first on.
    let Some(station) = Station::start("sink iec104 acks", port, &known(), &json!({})) else { return };
    until("all of it", || feed.acked() == 21).await;
    until("all of it is there", || station.told("SPONTANEOUS").len() >= 21).await;
    assert_eq!(numbers(&station.told("SPONTANEOUS")), (0..21).collect::<Vec<_>>());
    assert_eq!(sinking.stop().await.delivered, 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_point_is_refused_or_skipped() {
    for (others, dead) in [("", 10), (", others: skip", 0)] {
        let (dir, feed, port) = (tempfile::tempdir().unwrap(), Feed::with(30), free_port());
        let gateway = feed.serve().await;
        let one = to(port, others).replace("feeder: F1", "feeder: F9");
        let sinking = start(dir.path(), &head("iec104", &one), gateway);
        let Some(station) = Station::start("sink iec104 others", port, &known(), &json!({})) else { return };
        until("all of it", || feed.acked() == 30).await;
        until("what is a point", || station.told("SPONTANEOUS").len() >= 20).await;
        assert_eq!(sinking.stop().await.dead_letters, dead);
        let kept = list(&DeadLetters::path(dir.path(), "archive")).unwrap_or_default();
        assert!(kept.len() as u64 == dead && kept.iter().all(|d| d.rule == "sink.point"));
    }
}

/// Reads frames of a socket that is no station.
fn frames(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_is_begun_twice_is_sent_and_acknowledged_once() {
    let (dir, feed, port) = (tempfile::tempdir().unwrap(), Feed::with(14), free_port());
    let gateway = feed.serve().await;
    let sinking = start(dir.path(), &head("iec104", &to(port, "")), gateway);
    let (begin, begun) = ([0x68, 4, 7, 0, 0, 0], [0x68, 4, 0x0b, 0, 0, 0]);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&begin).unwrap();
    assert_eq!(frames(&mut stream, 6), begun);
    let first = frames(&mut stream, 7 * 27);
    stream.write_all(&begin).unwrap();
    assert_eq!(frames(&mut stream, 6), begun);
    // The seven frames are acknowledged, and the next page comes, with the numbers that follow.
    stream.write_all(&[0x68, 4, 1, 0, 14, 0]).unwrap();
    let next = frames(&mut stream, 7 * 27);
    let numbers = |bytes: &[u8]| bytes.chunks(27).map(|f| f[2] / 2).collect::<Vec<_>>();
    assert_eq!((numbers(&first), numbers(&next)), ((0..7).collect(), (7..14).collect()));
    assert_ne!(first[6..27], next[6..27], "the same event again");
    until("the first page", || feed.acked() == 7).await;
    stream.write_all(&[0x68, 4, 1, 0, 28, 0]).unwrap();
    until("all of it", || feed.acked() == 14).await;
    assert_eq!(sinking.stop().await.delivered, 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_that_acknowledges_late_gets_each_event_once() {
    let (dir, feed, port) = (tempfile::tempdir().unwrap(), Feed::with(7), free_port());
    let gateway = feed.serve().await;
    let sinking = start(dir.path(), &head("iec104", &to(port, "")), gateway);
    // By its timer alone, longer than the sink waits before it tries the page again. It asks nothing: what it sends would
    // carry the acknowledgement.
    let slow = json!({"quiet": true, "parameters": {"receive_window_size": 8, "confirm_interval": 7}});
    let Some(station) = Station::start("sink iec104 late", port, &known(), &slow) else { return };
    until("all of it is there", || station.told("SPONTANEOUS").len() >= 7).await;
    assert_eq!(feed.acked(), 0);
    until("all of it", || feed.acked() == 7).await;
    assert_eq!(numbers(&station.told("SPONTANEOUS")), (0..7).collect::<Vec<_>>());
    assert_eq!(sinking.stop().await.delivered, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_connected_and_does_not_begin_is_told_of() {
    let (dir, feed, port) = (tempfile::tempdir().unwrap(), Feed::with(7), free_port());
    let gateway = feed.serve().await;
    let yaml = head("iec104", &to(port, "")) + "on_error: {transient: stop}\n";
    let sinking = start(dir.path(), &yaml, gateway);
    let _stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let error = sinking.error().await;
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, "source.unreachable"), "{error}");
    assert!(error.to_string().contains("connections: 1") && error.to_string().contains("STARTDT"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_stations_with_a_certificate_are_served() {
    let test = "sink iec104 tls";
    for version in ["TLS_1_2", "TLS_1_3"] {
        let (dir, feed, port) = (tempfile::tempdir().unwrap(), Feed::with(9), free_port());
        if !certificates(test, dir.path()) {
            return;
        }
        let gateway = feed.serve().await;
        let secure = to(port, ", cert: cert.pem, key: file:cert.key, ca: ca.pem");
        let sinking = start(dir.path(), &head("iec104", &secure), gateway);
        let tls = |ca: &str, own: Option<&str>| {
            Station::start(test, port, &known(), &tls_files(dir.path(), version, ca, own))
        };
        for (ca, own, reason) in [
            ("ca", Some("other"), "ALERT_UNKNOWN_CA"),
            ("ca", None, "ALERT"),
            ("strange", Some("cert"), "CERTIFICATE_VERIFY_FAILED"),
        ] {
            let Some(stranger) = tls(ca, own) else { return };
            let refused = || stranger.told("TLS").iter().any(|v| v["reason"].as_str().unwrap().contains(reason));
            until(&format!("{version}, trusting {ca}, with {own:?}: {reason}"), refused).await;
            assert_eq!((stranger.told("SPONTANEOUS").len(), feed.acked()), (0, 0));
        }
        let Some(station) = tls("ca", Some("cert")) else { return };
        until("all of it", || feed.acked() == 9).await;
        until("all of it is there", || station.told("SPONTANEOUS").len() >= 9).await;
        assert_eq!(numbers(&station.told("SPONTANEOUS")), (0..9).collect::<Vec<_>>());
        sinking.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_station_is_told_that_its_certificate_is_refused() {
    let (dir, feed, port) = (tempfile::tempdir().unwrap(), Feed::with(9), free_port());
    if !certificates("sink and source iec104 tls", dir.path()) {
        return;
    }
    let secure = to(port, ", cert: cert.pem, key: file:cert.key, ca: ca.pem");
    let sinking = start(dir.path(), &head("iec104", &secure), feed.serve().await);
    for own in [", cert: other.pem, key: other.key", ""] {
        let source = plain(port).replace("iec104://127.0.0.1", "iec104s://localhost");
        let source = source.replace("\"}\nstations", &format!("\", ca: ca.pem{own}}}\nstations"));
        // By TLS 1.3, which says so only after the handshake.
        let (class, code, told) = ends_with(dir.path(), &source, "").await;
        assert_eq!((class, code.as_str()), (ErrorClass::Auth, "source.tls"), "{own}: {told}");
        assert!(told.contains("`cert`"), "{told}");
    }
    assert_eq!(feed.acked(), 0);
    sinking.stop().await;
}

#[test]
fn documents_that_cannot_be_meant_are_refused() {
    for (from, to_, word) in [
        ("M_ME_TF_1, value: n}, {when: {feeder: F1}", "M_ME_TF, value: n}, {when: {feeder: F1}", "did you mean"),
        ("object: 1001", "object: 16777216", "object address"),
        ("station: 47", "station: 0", "common address"),
        ("Europe/Berlin", "Berlin", "IANA time zone"),
        ("zone:", "link: {k: 0}, zone:", "k and w"),
        ("zone:", "cert: none.pem, zone:", "come together"),
        ("127.0.0.1", "203.0.113.7", "cannot listen there"),
    ] {
        let text = head("iec104", &to(free_port(), "").replacen(from, to_, 1));
        let dir = tempfile::tempdir().unwrap();
        let told = concordat_adapters::sinks::parse(&text)
            .map_err(|e| e.to_string())
            .and_then(|d| d.open(dir.path()).map(|_| ()).map_err(|e| e.to_string()));
        assert!(told.clone().unwrap_err().contains(word), "{to_}: {told:?}");
    }
}
