//! What an agency's engineers do with sources and sinks that run: replay what was refused, pause, kill.

use crate::World;
use crate::subscriptions::WITHIN;
use concordat_tests::harness::{City, Cluster, Feed, FeedAgreement, Follower, put, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::OnceLock;

/// Messages that a sink delivers while it is killed.
const SUNK: u64 = 600;

/// Feeds of grid for these tests: one restart of its broker and executor.
fn feed(world: &World, name: &str) -> Feed {
    static FEEDS: OnceLock<Vec<Feed>> = OnceLock::new();
    FEEDS.get_or_init(|| Feed::make(world.shared(), "grid", &["replayed", "paused", "sunk"]));
    Feed::named("grid", name)
}

/// The court follows a public feed from now on.
fn follow(city: &City, feed: &Feed, agreement: &str) -> Follower {
    FeedAgreement::public(agreement, feed).activate(city);
    Follower::create(city, "court", &json!({"dataset": feed.id, "name": agreement.to_lowercase(), "from": "earliest"}))
}

/// A program of this test that runs until it is killed.
struct Running(Child);

impl Running {
    fn start(city: &City, agency: &str, args: &[&str]) -> Self {
        let mut command = city.command(args);
        command.arg("--quiet").arg("--dir").arg(city.dir(agency));
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the program"))
    }
}

impl Drop for Running {
    // kill -9: nothing is said, nothing is closed.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder of grid's that files are dropped into.
struct Drops {
    dir: PathBuf,
    name: &'static str,
}

impl Drops {
    fn new(city: &City, name: &'static str, decimal: char) -> Self {
        let this = Self { dir: city.dir("grid"), name };
        std::fs::create_dir_all(this.dir.join(format!("in-{name}"))).expect("a folder");
        this.document(decimal);
        this
    }

    fn document(&self, decimal: char) {
        let name = self.name;
        let text = format!(
            "adapter: {name}\nkind: file-drop\nwatch: {{path: in-{name}, glob: '*.csv', ready: {{rename_from: .part}}}}\n\
             format: {{csv: {{delimiter: ';', decimal: '{decimal}'}}}}\ninto: ds:grid/{name}@1\n\
             map: {{n: {{type: integer}}, zone: {{}}, mw: {{type: decimal}}, note: {{}}}}\nkey: [n]\n\
             after: {{move: done}}\npoll: {{every: 100ms}}\n"
        );
        put(&self.dir.join(format!("adapters/{name}.yaml")), &text);
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("in-{}/{name}.csv", self.name))
    }

    fn put(&self, name: &str, rows: &str) {
        let part = self.file(name).with_extension("csv.part");
        put(&part, &format!("n;zone;mw;note\n{rows}"));
        std::fs::rename(part, self.file(name)).expect("renamed");
    }
}

fn numbers(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|m| m["data"]["n"].as_u64().expect("a number")).collect()
}

/// A row that a wrong mapping refused goes out by the corrected one, while the adapter runs and is not disturbed.
pub fn a_refused_row_is_replayed_by_the_corrected_mapping(world: &World) {
    let city = world.shared();
    let feed = feed(world, "replayed");
    let drops = Drops::new(city, "replayed", '.');
    let mut court = follow(city, &feed, "AGR-2026-9901");
    let letters = |more: &[&str]| {
        city.at("grid", &[&["dead-letter", "list", "replayed", "--output", "json"], more].concat()).done().json()
    };
    let replay =
        |more: &[&str]| city.at("grid", &[&["dead-letter", "replay", "replayed", "--output", "json"], more].concat());
    let running = Running::start(city, "grid", &["adapter", "run", "replayed"]);
    drops.put("a", "1;N;7;x\n2;E;1,5;x\n3;S;oops;x\n4;W;8;x\n");
    assert_eq!(numbers(&court.take(2)), [1, 4]);
    until("two rows are dead letters", WITHIN, || {
        let list = letters(&[]);
        if list.as_array().map(Vec::len) == Some(2) { Ok(()) } else { Err(list) }
    });
    // By the document as it is, nothing would pass.
    let tried = replay(&["--all", "--dry-run"]).ends(1).json();
    assert!(tried.as_array().expect("rows").iter().all(|r| r["now"] == "number.syntax"), "{tried}");
    drops.document(',');
    let tried = replay(&["--all", "--dry-run"]).ends(8).json();
    let passes: Vec<&Value> = tried.as_array().expect("rows").iter().filter(|r| r["now"] == "passes").collect();
    assert_eq!((passes.len(), &passes[0]["event"]["data"]["mw"]), (1, &json!("1.5")), "{tried}");
    court.nothing_more();
    replay(&["--rule", "time"]).done();
    let said = replay(&["--all"]).ends(8).json();
    assert_eq!((&said["replayed"], said["refused"].as_array().map(Vec::len)), (&json!(1), Some(1)), "{said}");
    let got = court.take(1);
    assert_eq!((&got[0]["data"]["n"], &got[0]["data"]["mw"]), (&json!(2), &json!("1.5")));
    assert_eq!(got[0]["id"], passes[0]["event"]["id"], "the id that it would have had");
    let left = letters(&[]);
    assert_eq!((left.as_array().map(Vec::len), &left[0]["attempts"]), (Some(1), &json!(1)), "{left}");
    let admin = city.api("grid", "operator").get("/admin/v1/dead-letters/replayed").is(200);
    assert_eq!(admin.body["dead_letters"].as_array().map(Vec::len), Some(1), "{}", admin.body);
    // The adapter still runs, by the document that it started with, from its own place.
    drops.put("b", "5;N;9;x\n6;E;2,5;x\n");
    assert_eq!(numbers(&court.take(1)), [5]);
    until("the adapter goes on with the file of dead letters", WITHIN, || {
        let list = letters(&[]);
        if list.as_array().map(Vec::len) == Some(2) { Ok(()) } else { Err(list) }
    });
    drop(running);
    // Started again it goes on, and repeats nothing.
    city.at("grid", &["adapter", "run", "replayed", "--once"]).done();
    let id = letters(&[])[1]["id"].as_str().expect("an id").to_owned();
    replay(&["--id", &id]).done();
    assert_eq!(numbers(&court.take(1)), [6]);
    let discard = ["dead-letter", "discard", "replayed", "--all", "--reason", "the meter was broken"];
    city.at("grid", &discard).ends(2);
    city.at("grid", &[&discard[..], &["--yes"]].concat()).done();
    assert_eq!(letters(&[]), json!([]));
    let gone = letters(&["--gone"]);
    let what: Vec<&str> = gone.as_array().expect("rows").iter().map(|g| g["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["replayed", "replayed", "discarded"], "{gone}");
    assert_eq!(gone[2]["reason"], "the meter was broken");
    court.nothing_more();
}

/// A running adapter reads nothing while it is paused, over a restart too, and goes on where it was.
pub fn a_running_adapter_is_paused_and_resumed(world: &World) {
    let city = world.shared();
    let feed = feed(world, "paused");
    let drops = Drops::new(city, "paused", '.');
    let mut court = follow(city, &feed, "AGR-2026-9902");
    let phase = |want: &str| {
        until(&format!("the adapter is {want}"), WITHIN, || {
            let said = city.at("grid", &["adapter", "status", "paused", "--output", "json"]).done().json();
            if said[0].to_string().contains(&format!("\"{want}\"")) { Ok(()) } else { Err(said) }
        });
    };
    let mut running = Running::start(city, "grid", &["adapter", "run", "paused"]);
    drops.put("a", "1;N;7;x\n");
    assert_eq!(numbers(&court.take(1)), [1]);
    city.at("grid", &["adapter", "pause", "paused"]).done();
    phase("paused");
    drops.put("b", "2;N;7;x\n");
    drop(running);
    running = Running::start(city, "grid", &["adapter", "run", "paused"]);
    phase("paused");
    court.nothing_more();
    assert!(drops.file("b").exists(), "it was not read");
    city.at("grid", &["adapter", "resume", "paused"]).done();
    assert_eq!(numbers(&court.take(1)), [2]);
    until(
        "the file is moved once it is durable",
        WITHIN,
        || if drops.file("b").exists() { Err("there") } else { Ok(()) },
    );
    court.nothing_more();
    drop(running);
}

/// Lines of the sink's files in order, whole ones alone.
fn written(folder: &std::path::Path) -> Vec<Value> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    files.sort();
    let texts: String = files.iter().map(|f| std::fs::read_to_string(f).expect("text")).collect();
    let whole = texts.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|l| serde_json::from_str(l).expect("a message a line")).collect()
}

/// A sink that is killed again and again has every message once, and acknowledges nothing that it does not have: in files,
/// and in a table.
pub fn a_killed_sink_loses_nothing(world: &World) {
    let city = world.shared();
    let feed = feed(world, "sunk");
    let mut court = follow(city, &feed, "AGR-2026-9903");
    feed.publish(city, 0..SUNK);
    let dir = city.dir("court");
    put(&dir.join("sink-sunk.yaml"), &sink("file", &court, "folder: sunk"));
    sunk(city, &mut court, "sink-sunk.yaml", &|| numbers(&written(&dir.join("sunk"))));
    let Some(cluster) = Cluster::start("sink") else {
        return eprintln!("SKIPPED a sink into PostgreSQL: it is not installed (Debian: postgresql)");
    };
    put(&dir.join("keys/sink.dsn"), &format!("{}?sslmode=disable", cluster.uri()));
    let from_the_start = json!({"dataset": feed.id, "name": "sunk-table", "from": "earliest"});
    let mut court = Follower::create(city, "court", &from_the_start);
    put(&dir.join("sink-table.yaml"), &sink("postgres", &court, "dsn: file:keys/sink.dsn, table: sunk, create: true"));
    sunk(city, &mut court, "sink-table.yaml", &|| {
        // Before the first page there is no table.
        let there = cluster.rows("SELECT 1 FROM pg_tables WHERE tablename = 'sunk'").expect("psql");
        let ask = "SELECT data->>'n' FROM sunk ORDER BY seq";
        let rows = if there.is_empty() { vec![] } else { cluster.rows(ask).expect("psql") };
        rows.iter().map(|n| n.parse().expect("a number")).collect()
    });
}

fn sink(kind: &str, from: &Follower, to: &str) -> String {
    format!("sink: sunk-{kind}\nkind: {kind}\nsubscription: {}\npage: {{max: 7, wait: 1s}}\nto: {{{to}}}\n", from.id)
}

/// Kills a sink of court's again and again; `have` are the numbers that it has.
fn sunk(city: &City, court: &mut Follower, document: &str, have: &dyn Fn() -> Vec<u64>) {
    let file = city.dir("court").join(document).to_string_lossy().into_owned();
    let run = ["sink", "run", "-f", file.as_str()];
    for round in 1..=5_u64 {
        let sink = Running::start(city, "court", &run);
        let enough = (round * SUNK / 8) as usize;
        until(&format!("the sink has {enough} messages"), WITHIN, || {
            let n = have().len();
            if n >= enough { Ok(()) } else { Err(n.to_string()) }
        });
        drop(sink);
        // What is left at the gateway begins at or before the end of what is written: nothing is in neither.
        let (left, _) = court.page(1_000, 0.0, None).expect("a page");
        let all: BTreeSet<u64> = have().into_iter().chain(numbers(&left)).collect();
        assert_eq!(all, (0..SUNK).collect(), "round {round}");
    }
    let again: Vec<&str> = run.iter().copied().chain(["--once"]).collect();
    city.at("court", &again).done();
    assert_eq!(have(), (0..SUNK).collect::<Vec<_>>(), "each once, in order");
    court.nothing_more();
}
