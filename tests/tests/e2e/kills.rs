//! kill -9 at random points while messages flow. What is judged are the histories that the sender and the receivers wrote.
//!
//! `CONCORDAT_KILLS` is the number of kills (8), `CONCORDAT_SEED` repeats a run's choice of victims and moments.

use crate::World;
use crate::subscriptions::WITHIN;
use crate::whole::same_app_hashes;
use concordat_cli::demo::history::{self, Line};
use concordat_tests::harness::{City, Feed, FeedAgreement, Follower, digest, put, row, seen, until};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Rows of the adapter's file, how many it publishes a second, and rows of one of the sender's batches.
const ROWS: u64 = 6_000;
const PACE: &str = "150";
const BATCH: u64 = 5;
/// What is killed: node and process; the adapter is this test's own child.
const VICTIMS: [(&str, &str); 7] = [
    ("grid", "broker"),
    ("transport", "broker"),
    ("grid", "executor"),
    ("", "adapter"),
    ("grid", "app"),
    ("exchange", "nats"),
    ("exchange", "exchange"),
];

/// Numbers from a seed (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }
}

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn attempted(n: u64) -> Line {
    Line::Attempted { key: n.to_string(), digest: digest(&seen(n)) }
}

/// Sends batches, each until it is acknowledged, until told to stop; its history.
fn send(city: Arc<City>, feed: Feed, over: Arc<AtomicBool>, sent: Arc<AtomicU64>) -> Vec<Line> {
    let mut history = Vec::new();
    for batch in 1.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let numbers = (batch - 1) * BATCH..batch * BATCH;
        let rows: Vec<Value> = numbers.clone().map(row).collect();
        let (number, checkpoint) = (batch.to_string(), "AQ==");
        let headers = [
            ("concordat-adapter", "sender"),
            ("concordat-batch", number.as_str()),
            ("concordat-checkpoint", checkpoint),
        ];
        history.extend(numbers.clone().map(attempted));
        until(&format!("batch {batch} is acknowledged"), WITHIN, || {
            let answer = feed.post(&city, &rows, &headers);
            match answer.status {
                200 => Ok(()),
                // Known: it was taken, and the answer was lost.
                409 if answer.body["batch_no"] == batch => Ok(()),
                0 | 409 | 429 | 500.. => Err(format!("{} {}", answer.status, answer.body)),
                other => panic!("batch {batch}: {other} {}", answer.body),
            }
        });
        history.extend(numbers.map(|n| Line::Acknowledged { key: n.to_string() }));
        sent.store(batch * BATCH, Ordering::Relaxed);
    }
    history
}

/// Takes and acknowledges until it has as many as are due, whatever happens to the servers.
fn receive(mut follower: Follower, due: Arc<AtomicU64>, got: Arc<AtomicU64>) -> Follower {
    let mut seen = std::collections::BTreeSet::new();
    while (seen.len() as u64) < due.load(Ordering::Relaxed) {
        let page = follower.page(500, 1.0, None);
        match page {
            Ok((messages, cursor)) if !messages.is_empty() => {
                // An acknowledgement whose answer is lost may count or not: the history has it only when it was answered.
                if follower.ack(&cursor).is_ok() {
                    seen.extend(messages.iter().map(|m| m["data"]["n"].to_string()));
                    got.store(seen.len() as u64, Ordering::Relaxed);
                }
            }
            Ok(_) => {}
            // Its own broker was killed: it is asked again until the deadline of the whole.
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    follower
}

/// The adapter as a process of this test.
struct Adapter {
    city: Arc<City>,
    child: Option<Child>,
}

impl Adapter {
    fn start(city: &Arc<City>) -> Self {
        let mut this = Self { city: city.clone(), child: None };
        this.run(PACE);
        this
    }

    fn run(&mut self, pace: &str) {
        let mut command = self.city.command(&["adapter", "run", "kills", "--pace", pace, "--quiet", "--dir"]);
        command.arg(self.city.dir("grid")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        self.child = Some(command.spawn().expect("the adapter"));
    }

    /// Kills it if it still runs; whether it did.
    fn kill(&mut self) -> bool {
        let Some(mut child) = self.child.take() else { return false };
        let runs = child.try_wait().expect("the adapter").is_none();
        let _ = child.kill();
        let ended = child.wait_with_output().expect("the adapter");
        assert!(runs || ended.status.success(), "the adapter gave up: {}", String::from_utf8_lossy(&ended.stderr));
        runs
    }

    /// Lets it run to its end.
    fn end(&mut self) {
        until("the adapter comes to its end", 2 * WITHIN, || {
            let child = self.child.as_mut().expect("an adapter");
            child.try_wait().expect("the adapter").map(|_| ()).ok_or("it runs")
        });
        let ended = self.child.take().expect("an adapter").wait_with_output().expect("the adapter");
        assert!(ended.status.success(), "the adapter failed: {}", String::from_utf8_lossy(&ended.stderr));
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            let _ = child.kill();
        }
    }
}

const ADAPTER: &str = "adapter: kills
kind: file
path: data/kills.csv
format: {csv: {columns: [n, zone, mw, note]}}
into: ds:grid/kills@1
map:
  n: {type: integer}
  zone: {type: string}
  mw: {type: decimal}
  note: {type: string}
key: [n]
pace: max
on_error: {transient: retry, data: dead-letter, auth: stop}
";

fn write_source(city: &City) {
    let dir = city.dir("grid");
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let line = |n| {
        let r = row(n);
        format!("{},{},{},{}\n", text(&r["n"]), text(&r["zone"]), text(&r["mw"]), text(&r["note"]))
    };
    let file: String = std::iter::once("n,zone,mw,note\n".to_owned()).chain((0..ROWS).map(line)).collect();
    put(&dir.join("data/kills.csv"), &file);
    put(&dir.join("adapters/kills.yaml"), ADAPTER);
}

/// One receiver with what it is due and what it got.
struct Receiver {
    due: Arc<AtomicU64>,
    got: Arc<AtomicU64>,
    task: JoinHandle<Follower>,
}

impl Receiver {
    fn start(follower: Follower) -> Self {
        let (due, got) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicU64::new(0)));
        let (d, g) = (due.clone(), got.clone());
        Self { due, got, task: std::thread::spawn(move || receive(follower, d, g)) }
    }

    fn end(self, due: u64) -> Follower {
        self.due.store(due, Ordering::Relaxed);
        let (got, task) = (self.got, self.task);
        until(&format!("{due} messages are received"), 2 * WITHIN, || {
            if task.is_finished() { Ok(()) } else { Err(got.load(Ordering::Relaxed)) }
        });
        task.join().expect("a receiver")
    }
}

fn kill(city: &City, adapter: &mut Adapter, node: &str, name: &str) -> bool {
    if node.is_empty() {
        let killed = adapter.kill();
        adapter.run(PACE);
        return killed;
    }
    let state = city.state(node);
    let Some(process) = state.processes.iter().find(|p| p.name == name).and_then(|p| p.process) else { return false };
    let killed = process.kill_hard();
    city.another(node, name, concordat_tests::harness::Process(process));
    killed
}

/// Every kind of victim once in an order of chance, then any, each at a moment of chance.
fn kills(city: &City, adapter: &mut Adapter, sent: &AtomicU64) {
    let seed = number("CONCORDAT_SEED", u64::from(std::process::id()) << 20 | 7);
    let mut random = Random(seed.max(1));
    (0..8).for_each(|_| {
        random.below(2);
    });
    let mut order: Vec<usize> = (0..VICTIMS.len()).collect();
    (1..order.len()).rev().for_each(|i| order.swap(i, random.below(i as u64 + 1) as usize));
    let (wanted, mut done) = (number("CONCORDAT_KILLS", 8), Vec::new());
    for i in 0..wanted {
        let at = order.get(i as usize).copied().unwrap_or_else(|| random.below(VICTIMS.len() as u64) as usize);
        let (node, name) = VICTIMS[at];
        // Under load: messages went through since the kill before.
        let before = sent.load(Ordering::Relaxed);
        until("messages flow", WITHIN, || {
            let now = sent.load(Ordering::Relaxed);
            if now > before { Ok(()) } else { Err(now) }
        });
        // Not to wait for anything: a kill comes at a random moment of the load.
        std::thread::sleep(Duration::from_millis(random.below(1_500)));
        if kill(city, adapter, node, name) {
            done.push(format!("{node}/{name}"));
        }
    }
    println!("    CONCORDAT_SEED={seed}: killed {}", done.join(" "));
    assert!(done.len() as u64 >= wanted.min(VICTIMS.len() as u64) - 1, "{done:?}");
}

pub fn nothing_acknowledged_is_lost_or_doubled(world: &World) {
    let city = Arc::new(world.second().clone());
    let feeds = Feed::make(&city, "grid", &["kills", "sender"]);
    write_source(&city);
    let agreements: Vec<FeedAgreement> = ["AGR-2026-9801", "AGR-2026-9802"]
        .iter()
        .zip(&feeds)
        .map(|(id, feed)| FeedAgreement { max_lag: "20s", ..FeedAgreement::new(id, feed, "transport") })
        .collect();
    agreements.iter().for_each(|a| a.activate(&city));
    let follow = |a: &FeedAgreement| Receiver::start(Follower::default_of(&city, "transport", &a.id));
    let (of_adapter, of_sender) = (follow(&agreements[0]), follow(&agreements[1]));
    let (over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let sender = {
        let (city, feed, over, sent) = (city.clone(), feeds[1].clone(), over.clone(), sent.clone());
        std::thread::spawn(move || send(city, feed, over, sent))
    };
    let mut adapter = Adapter::start(&city);
    kills(&city, &mut adapter, &sent);
    over.store(true, Ordering::Relaxed);
    // The rest of the file as fast as it goes.
    adapter.kill();
    adapter.run("max");
    adapter.end();
    let sender = sender.join().expect("the sender");
    // The adapter's word for the whole file is its good end.
    let whole: Vec<Line> = (0..ROWS).flat_map(|n| [attempted(n), Line::Acknowledged { key: n.to_string() }]).collect();
    for (name, receiver, sent) in [("adapter", of_adapter, whole), ("sender", of_sender, sender)] {
        let due = sent.iter().filter(|l| matches!(l, Line::Acknowledged { .. })).count() as u64;
        let mut follower = receiver.end(due);
        follower.nothing_more();
        let path = keep(world, name, &[&sent, &follower.history]);
        let counted = history::check(&[sent], &follower.history).unwrap_or_else(|faults| {
            let first: Vec<String> = faults.iter().take(5).map(ToString::to_string).collect();
            panic!("{}: {} faults, the first: {}", path.display(), faults.len(), first.join("; "))
        });
        println!("    {name}: {counted:?}");
        until("everything delivered is on the ledger", WITHIN, || {
            let view = follower.view();
            let whole = view["anchored_sub_seq"].as_u64() >= view["last_sub_seq"].as_u64();
            let clean = ["invalid", "missing", "unanchored"].iter().all(|c| view[c] == 0);
            if whole && clean { Ok(()) } else { Err(view) }
        });
    }
    for node in city.nodes() {
        city.wait_up(node);
    }
    same_app_hashes(&city);
}

/// Keeps the histories beside the cities, for a look when the test fails.
fn keep(world: &World, name: &str, histories: &[&Vec<Line>]) -> PathBuf {
    let dir = world.folder(&format!("history-{name}"));
    for (who, lines) in ["sent", "received"].iter().zip(histories) {
        let mut file = std::fs::File::create(dir.join(format!("{who}.jsonl"))).expect("a file");
        lines.iter().for_each(|l| l.write(&mut file).expect("a line"));
    }
    dir
}
