//! MQTT, with a session that the server keeps.

use std::process::Command;

use concordat_adapters::contract::{AdapterError, Source};
use concordat_adapters::parse;
use serde_json::Value;

use super::{Peer, caught, conforms, mapped};
use crate::mosquitto::Mosquitto;
use crate::sshd::Line;

struct Queue {
    server: Mosquitto,
    line: Line,
    dir: tempfile::TempDir,
    yaml: String,
}

impl Queue {
    /// None where there is no Mosquitto. The session is made by another client, before anything is published.
    fn new(test: &str, more: &str, session: &str) -> Option<Self> {
        let server = Mosquitto::start(test, "")?;
        let line = Line::to(server.port);
        let version = if more.contains("3.1.1") { "mqttv311" } else { "mqttv5" };
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &server.port.to_string(), "-i", "conform", "-c", "-q", "1"]);
        command.args(["-t", "site/+", "-V", version, "-E"]);
        if version == "mqttv5" {
            command.args(["-x", "86400"]);
        }
        assert!(command.status().unwrap().success(), "mosquitto_sub failed");
        let yaml = format!(
            "adapter: conform\nkind: mqtt\nconnect: {{url: \"mqtt://127.0.0.1:{}\", client_id: conform{more}}}\n\
             topics: [{{filter: site/+, qos: 1}}]\nsession: {session}\n{}",
            line.port,
            mapped("n", "t")
        );
        Some(Self { server, line, dir: tempfile::tempdir().unwrap(), yaml })
    }
}

impl Peer for Queue {
    const RENAMED: &'static str = "n";

    fn open(&mut self) -> Result<Box<dyn Source>, AdapterError> {
        parse(&self.yaml)?.open(self.dir.path())
    }

    fn put(&mut self, rows: &[Value]) {
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        self.server.publish("site/a", &lines, &[]);
    }

    fn again(&mut self, rows: &[Value]) {
        self.put(rows);
    }

    fn cut(&mut self, cut: bool) {
        self.line.cut(cut);
    }
}

/// A message arrives whole or not at all.
const SKIPPED: [&str; 1] = ["half-written"];

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_5_conforms() {
    let new = || Queue::new("mqtt_5_conforms", "", "persistent");
    if new().is_none() {
        return;
    }
    conforms(&SKIPPED, move || new().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_3_1_1_conforms() {
    let new = || Queue::new("mqtt_3_1_1_conforms", ", version: 3.1.1", "persistent");
    if new().is_none() {
        return;
    }
    conforms(&SKIPPED, move || new().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_twin_whose_session_is_not_kept_is_caught() {
    let new = || Queue::new("the_twin_whose_session_is_not_kept_is_caught", "", "clean");
    if new().is_none() {
        return;
    }
    let why = caught("restart", move || new().unwrap()).await;
    assert!(why.contains(" lost"), "{why}");
}
