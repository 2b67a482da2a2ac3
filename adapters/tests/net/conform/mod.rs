//! The conformance kit against sources over the network, each the real thing: servers of messages, of documents and of
//! lists, and a sender. What the kit does to a source is the same for all of them, and each says how that comes about.

mod http_poll;
mod mongodb;
mod mqtt;
mod webhook;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use concordat_adapters::conform::{Change, Kit, Rig, Verdict, battery, one};
use concordat_adapters::contract::{AdapterError, Source};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Where the rows of a rig come from. A row is an object with a number `n`, its time `t` and a value `v`.
pub trait Peer: Send {
    /// The member that a changed header renames.
    const RENAMED: &'static str;

    fn open(&mut self) -> Result<Box<dyn Source>, AdapterError>;

    /// Adds rows.
    fn put(&mut self, rows: &[Value]);

    /// Begins to add rows; false where nothing can be half there.
    fn half(&mut self, _: &[Value]) -> bool {
        false
    }

    /// Sends rows once more that were added before, byte by byte the same.
    fn again(&mut self, rows: &[Value]);

    /// Makes the source unreachable, and reachable again.
    fn cut(&mut self, cut: bool);
}

/// A world whose rows are numbered.
struct Numbered<P> {
    peer: P,
    next: u64,
    /// Seconds after the beginning, which was two hours ago.
    clock: i64,
    begin: i64,
    expected: Vec<String>,
    dead: usize,
    last: Vec<Value>,
}

impl<P: Peer> Numbered<P> {
    fn new(peer: P) -> Self {
        let begin = Timestamp::now().as_second() - 7_200;
        let mut world = Self { peer, next: 0, clock: 0, begin, expected: vec![], dead: 0, last: vec![] };
        for count in [23, 1, 16] {
            let rows = world.good(count, 7);
            world.put(rows);
        }
        world
    }

    fn row(&mut self, seconds: i64) -> Value {
        let at = Timestamp::from_second(self.begin + seconds).unwrap();
        let row = json!({"n": self.next, "t": at.to_string(), "v": 7});
        self.expected.push(self.next.to_string());
        self.next += 1;
        row
    }

    fn good(&mut self, count: u64, step: i64) -> Vec<Value> {
        let mut rows = Vec::new();
        for _ in 0..count {
            self.clock += step;
            rows.push(self.row(self.clock));
        }
        rows
    }

    fn put(&mut self, rows: Vec<Value>) {
        self.peer.put(&rows);
        self.last = rows;
    }
}

impl<P: Peer> Rig for Numbered<P> {
    fn open(&mut self) -> Result<Box<dyn Source>, AdapterError> {
        self.peer.open()
    }

    fn name(&self, event: &Value) -> String {
        event["data"]["n"].to_string()
    }

    fn expected(&self) -> Vec<String> {
        self.expected.clone()
    }

    fn dead(&self) -> usize {
        self.dead
    }

    fn change(&mut self, change: Change) -> bool {
        let rows = match change {
            Change::Rows => self.good(10, 1),
            Change::EqualCursor => self.good(30, 0),
            Change::LateRow => vec![self.row(self.clock - 60)],
            Change::SkewedClock => {
                let mut rows = vec![self.row(400 * 86_400)];
                rows.extend(self.good(5, 1));
                rows
            }
            Change::Poison => {
                let mut rows = self.good(3, 1);
                let mut bad = rows[0].clone();
                bad["n"] = json!(1.5);
                self.dead += 1;
                rows.push(bad);
                rows.extend(self.good(3, 1));
                rows
            }
            Change::ChangedHeader => {
                let mut rows = self.good(3, 1);
                for row in rows.iter_mut().filter_map(Value::as_object_mut) {
                    let value = row.remove(P::RENAMED).unwrap();
                    row.insert("renamed".to_owned(), value);
                }
                rows
            }
            Change::Drift => {
                let mut rows = self.good(3, 1);
                rows.iter_mut().for_each(|row| row["more"] = json!({"deep": [1, "x"]}));
                rows
            }
            Change::HalfWritten => {
                let rows = self.good(9, 1);
                self.expected.truncate(self.expected.len() - 9);
                let begun = self.peer.half(&rows);
                self.last = rows;
                return begun;
            }
            Change::Finished => {
                let rows = std::mem::take(&mut self.last);
                self.expected.extend(rows.iter().map(|row| row["n"].to_string()));
                rows
            }
            Change::Resent => {
                self.peer.again(&self.last);
                return true;
            }
            Change::Cut | Change::Restored => {
                self.peer.cut(change == Change::Cut);
                return true;
            }
        };
        self.put(rows);
        true
    }
}

/// The last members of every document here.
fn mapped(number: &str, time: &str) -> String {
    format!(
        "into: ds:conform/it@1\nmap:\n  n: {{from: $.{number}, type: integer}}\n  v: {{from: $.v, type: integer}}\n\
         \x20 time: {{from: $.{time}, type: timestamp, zone: offset, precision: ms}}\nkey: [n]\ntime: time\n"
    )
}

fn kit<P: Peer + 'static>(patience: u64, scratch: &Path, peer: impl Fn() -> P + Send + Sync + 'static) -> Kit {
    let make = Box::new(move || Ok(Box::new(Numbered::new(peer())) as Box<dyn Rig>));
    Kit { make, patience: Duration::from_secs(patience), scratch: scratch.to_owned() }
}

/// Every check passes but those that have no meaning for the kind.
async fn conforms<P: Peer + 'static>(skipped: &[&str], peer: impl Fn() -> P + Send + Sync + 'static) {
    let scratch = tempfile::tempdir().unwrap();
    let kit = kit(60, scratch.path(), peer);
    let outcomes = battery(&kit, |o| eprintln!("{} {:?}", o.check, o.verdict)).await;
    assert_eq!(outcomes.len(), 14);
    for outcome in outcomes {
        let want = if skipped.contains(&outcome.check) { Verdict::Skipped } else { Verdict::Passed };
        assert_eq!(outcome.verdict, want, "{}", outcome.check);
    }
}

/// A broken twin does not pass a check; what the check says of it.
async fn caught<P: Peer + 'static>(check: &str, peer: impl Fn() -> P + Send + Sync + 'static) -> String {
    let scratch = tempfile::tempdir().unwrap();
    match one(&kit(5, scratch.path(), peer), check).await.unwrap().verdict {
        Verdict::Failed(why) => why,
        other => panic!("{check}: {other:?}"),
    }
}

/// Numbers worlds apart that share a server.
fn shared<T>(of: T) -> (Arc<T>, Arc<std::sync::atomic::AtomicU64>) {
    (Arc::new(of), Arc::default())
}
