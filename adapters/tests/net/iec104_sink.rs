//! The IEC 60870-5-104 sink: an outstation that a controlling station of lib60870 reads.

use std::collections::BTreeMap;
use std::time::Duration;

use concordat_adapters::dead_letter::{DeadLetters, list};
use serde_json::{Value, json};

use crate::iec104_peer::{Station, certificates};
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
#[ignore = "beside other load it sometimes waits for the last acknowledgement for ever, and the cause is not found"]
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
#[ignore = "beside other load it sometimes waits for the last acknowledgement for ever, and the cause is not found"]
async fn nothing_is_acknowledged_before_a_station_has_it() {
    let (dir, feed, port) = (tempfile::tempdir().unwrap(), Feed::with(21), free_port());
    let gateway = feed.serve().await;
    let sinking = start(dir.path(), &head("iec104", &to(port, "")), gateway);
    // Somebody begins data, takes what comes and acknowledges nothing.
    let taken = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let mut stream = loop {
            match std::net::TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        stream.write_all(&[0x68, 4, 7, 0, 0, 0]).unwrap();
        // The answer and seven frames: a page.
        let mut bytes = vec![0; 6 + 7 * 27];
        stream.read_exact(&mut bytes).unwrap();
        bytes
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
#[ignore = "beside other load it sometimes waits for the last acknowledgement for ever, and the cause is not found"]
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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "does not pass yet: lib60870 as a client ends the handshake, perhaps for want of a host name; not looked into"]
async fn over_tls_only_stations_with_a_certificate_are_served() {
    let (dir, feed, port) = (tempfile::tempdir().unwrap(), Feed::with(9), free_port());
    if !certificates("sink iec104 tls", dir.path()) {
        return;
    }
    let gateway = feed.serve().await;
    let secure = to(port, ", cert: cert.pem, key: cert.key, ca: cert.pem");
    let sinking = start(dir.path(), &head("iec104", &secure), gateway);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let with = |name: &str| json!({"ca": file("cert.pem"), "cert": file(&format!("{name}.pem")), "key": file(&format!("{name}.key"))});
    let Some(stranger) = Station::start("sink iec104 tls", port, &known(), &with("other")) else { return };
    let Some(station) = Station::start("sink iec104 tls", port, &known(), &with("cert")) else { return };
    until("all of it", || feed.acked() == 9).await;
    until("all of it is there", || station.told("SPONTANEOUS").len() >= 9).await;
    assert_eq!((station.told("SPONTANEOUS").len(), stranger.told("SPONTANEOUS").len()), (9, 0));
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
