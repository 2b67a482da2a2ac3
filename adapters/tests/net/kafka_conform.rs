//! The conformance kit against a real Apache Kafka.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use concordat_adapters::conform::{Change, Kit, Outcome, Rig, Verdict, battery};
use concordat_adapters::contract::{AdapterError, Source};
use concordat_adapters::parse;
use serde_json::Value;

use crate::kafka_peer::{Kafka, Peer};
use crate::mosquitto::free_port;

const PARTITIONS: i32 = 3;

/// A topic of three partitions whose messages come as the kit says.
struct Topic {
    port: u16,
    peer: Peer,
    name: String,
    next: u64,
    good: Vec<u64>,
    bad: usize,
    cut: bool,
}

impl Topic {
    fn new(server: &Kafka) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kit-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let peer = server.topic(&name, PARTITIONS, &[]);
        let mut topic = Self { port: server.port, peer, name, next: 0, good: vec![], bad: 0, cut: false };
        topic.add(40, "2026-01-01T00:00:00Z");
        topic
    }

    fn send(&mut self, value: String) {
        let partition = (self.next % PARTITIONS as u64) as i32;
        self.peer.values(&self.name, partition, &[value]);
        self.next += 1;
    }

    fn add(&mut self, count: u64, time: &str) {
        for _ in 0..count {
            self.good.push(self.next);
            self.send(format!(r#"{{"id": {}, "t": "{time}", "v": 7}}"#, self.next));
        }
    }
}

impl Rig for Topic {
    fn open(&mut self) -> Result<Box<dyn Source>, AdapterError> {
        // While it is cut off nobody listens where the document says.
        let port = if self.cut { free_port() } else { self.port };
        let text = format!(
            "adapter: conform\nkind: kafka\nconnect: {{brokers: [\"127.0.0.1:{port}\"], tls: off}}\ntopic: {}\n\
             poll: {{every: 20ms}}\ninto: ds:conform/it@1\nmap:\n  id: {{from: $.id, type: integer}}\n\
             \x20 t: {{from: $.t, type: timestamp, zone: offset}}\n  v: {{from: $.v, type: integer, required: true}}\n\
             key: [id]\ntime: t\n",
            self.name
        );
        parse(&text)?.open(Path::new("."))
    }

    fn name(&self, event: &Value) -> String {
        event["data"]["id"].to_string()
    }

    fn expected(&self) -> Vec<String> {
        self.good.iter().map(u64::to_string).collect()
    }

    fn dead(&self) -> usize {
        self.bad
    }

    fn change(&mut self, change: Change) -> bool {
        match change {
            Change::Rows => self.add(10, "2026-01-02T00:00:00Z"),
            Change::EqualCursor => self.add(30, "2026-01-02T00:00:00Z"),
            Change::LateRow => self.add(1, "2025-01-01T00:00:00Z"),
            Change::SkewedClock => {
                self.add(1, "2030-01-01T00:00:00Z");
                self.add(5, "2026-01-03T00:00:00Z");
            }
            Change::Poison => {
                self.add(3, "2026-01-02T00:00:00Z");
                self.bad += 1;
                self.send("\u{1}no json".to_owned());
                self.add(3, "2026-01-02T00:00:00Z");
            }
            // A transaction that is not ended hides what stands behind it in its partition.
            Change::ChangedHeader => {
                for _ in 0..3 {
                    self.good.push(self.next);
                    self.send(format!(r#"{{"id": {}, "t": "2026-01-02T00:00:00Z", "w": 7}}"#, self.next));
                }
            }
            Change::Drift => {
                for _ in 0..3 {
                    self.good.push(self.next);
                    self.send(format!(r#"{{"id": {}, "t": "2026-01-02T00:00:00Z", "v": 7, "more": [1]}}"#, self.next));
                }
            }
            Change::Cut => self.cut = true,
            Change::Restored => self.cut = false,
            _ => return false,
        }
        true
    }
}

async fn outcomes() -> Option<Vec<Outcome>> {
    let server = tokio::task::block_in_place(|| Kafka::shared("kafka conforms"))?;
    let scratch = tempfile::tempdir().unwrap();
    let make = move || Ok(Box::new(tokio::task::block_in_place(|| Topic::new(server))) as Box<dyn Rig>);
    let kit = Kit { make: Box::new(make), patience: Duration::from_secs(30), scratch: scratch.path().to_owned() };
    Some(battery(&kit, |o| eprintln!("kafka: {} {:?}", o.check, o.verdict)).await)
}

#[test]
fn reading_kafka_conforms() {
    let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
    let task = runtime.spawn(outcomes());
    let Some(all) = runtime.block_on(task).unwrap() else { return };
    let failed: Vec<&Outcome> = all.iter().filter(|o| matches!(o.verdict, Verdict::Failed(_))).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let skipped = all.iter().filter(|o| o.verdict == Verdict::Skipped).count();
    assert!(all.len() - skipped >= 12, "{all:?}");
}
