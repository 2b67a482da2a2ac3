//! The Python example as a source: the conformance kit, a draft, and programs that misbehave.

use std::io::Write;
use std::path::{Path, PathBuf};

use concordat_adapters::conform::{Change, Kit, Rig, Verdict, battery};
use concordat_adapters::contract::{AdapterError, Checkpoint, ErrorClass, Level, Source};
use concordat_adapters::parse;
use serde_json::Value;

fn example() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/kinds/external/example.py");
    path.to_str().unwrap().to_owned()
}

fn document() -> String {
    format!(
        "adapter: conform\nkind: external\ncommand: [python3, {}]\nsettings: {{path: data.txt}}\ntimeout: 20s\ninto: ds:conform/it@1\nmap:\n  feeder: {{}}\n  ts: {{type: timestamp, zone: offset}}\n  mw: {{type: decimal}}\nkey: [feeder, ts]\ntime: ts\npoll: {{every: 10ms}}\n",
        example()
    )
}

struct World {
    dir: tempfile::TempDir,
    next: u32,
    expected: Vec<String>,
    dead: usize,
}

impl World {
    fn new() -> Self {
        let mut world = Self { dir: tempfile::tempdir().unwrap(), next: 0, expected: vec![], dead: 0 };
        world.rows(40);
        world
    }

    fn write(&self, text: &str) {
        let path = self.dir.path().join("data.txt");
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rows(&mut self, count: u32) {
        for _ in 0..count {
            let name = format!("F{}", self.next);
            self.write(&format!("{name} 2026-01-01T00:00:00Z 1.50\n"));
            self.expected.push(name);
            self.next += 1;
        }
    }
}

impl Rig for World {
    fn open(&mut self) -> Result<Box<dyn Source>, AdapterError> {
        parse(&document()).unwrap().open(self.dir.path())
    }

    fn name(&self, event: &Value) -> String {
        event["data"]["feeder"].as_str().unwrap().to_owned()
    }

    fn expected(&self) -> Vec<String> {
        self.expected.clone()
    }

    fn dead(&self) -> usize {
        self.dead
    }

    fn change(&mut self, change: Change) -> bool {
        let (data, away) = (self.dir.path().join("data.txt"), self.dir.path().join("away"));
        match change {
            Change::Rows => self.rows(9),
            Change::Poison => {
                self.rows(2);
                self.write("F9999 yesterday 1\n");
                self.dead += 1;
                self.rows(2);
            }
            Change::HalfWritten => self.write("HALF 2026-01-01T00:0"),
            Change::Finished => {
                self.write("0:00Z 1.0\n");
                self.expected.push("HALF".to_owned());
            }
            Change::Cut => std::fs::rename(data, away).unwrap(),
            Change::Restored => std::fs::rename(away, data).unwrap(),
            _ => return false,
        }
        true
    }
}

#[tokio::test]
async fn the_python_example_passes_the_conformance_kit() {
    let scratch = tempfile::tempdir().unwrap();
    let make = Box::new(|| Ok(Box::new(World::new()) as Box<dyn Rig>));
    let kit = Kit { make, patience: std::time::Duration::from_secs(60), scratch: scratch.path().to_owned() };
    let outcomes = battery(&kit, |_| {}).await;
    let passed: Vec<&str> = outcomes.iter().filter(|o| o.verdict == Verdict::Passed).map(|o| o.check).collect();
    assert!(!outcomes.iter().any(|o| matches!(o.verdict, Verdict::Failed(_))), "{outcomes:?}");
    for check in ["repeatable", "restart", "broker-away", "ack-lost", "poison", "half-written", "reconnect"] {
        assert!(passed.contains(&check), "{check}");
    }
}

#[test]
fn the_example_is_checked_and_drafted() {
    let world = World::new();
    let connector = parse(&document()).unwrap();
    let found = connector.check(world.dir.path());
    assert!(found.iter().all(|f| f.level == Level::Ok) && found[1].sentence.contains("has 40 lines"), "{found:?}");
    let drafts = connector.discover(world.dir.path()).unwrap();
    let types: Vec<&str> = drafts.columns.iter().map(|c| c.kind.name()).collect();
    assert_eq!((types, drafts.sampled), (vec!["string", "decimal", "timestamp"], 40));
    let found = connector.check(Path::new("/"));
    assert!(found.iter().any(|f| f.level == Level::Fail && f.next.as_deref() == Some("correct `settings.path`")));
}

#[test]
fn programs_that_misbehave_are_named_by_their_class() {
    let dir = tempfile::tempdir().unwrap();
    let hello = "import sys, json\nid = json.loads(sys.stdin.readline())['id']\nprint(json.dumps({'id': id}), flush=True)\nsys.stdin.readline()\n";
    for (script, class, code) in [
        ("print('no json', flush=True)".to_owned(), ErrorClass::Permanent, "source.protocol"),
        ("raise SystemExit(1)".to_owned(), ErrorClass::Transient, "source.ended"),
        (format!("{hello}import time\nwhile True: time.sleep(60)"), ErrorClass::Transient, "source.timeout"),
        (format!("{hello}print('{{\"id\": 9}}', flush=True)"), ErrorClass::Permanent, "source.protocol"),
        (
            format!(
                "{hello}print('{{\"id\": 2, \"error\": {{\"class\": \"auth\", \"message\": \"no\"}}}}', flush=True)"
            ),
            ErrorClass::Auth,
            "source.program",
        ),
        (
            format!("{hello}print('{{\"id\": 2, \"rows\": [{{\"cells\": {{}}}}]}}', flush=True)"),
            ErrorClass::Permanent,
            "source.protocol",
        ),
    ] {
        std::fs::write(dir.path().join("p.py"), &script).unwrap();
        let text = document().replace(&example(), "p.py").replace("timeout: 20s", "timeout: 5s");
        let mut source = parse(&text).unwrap().open(dir.path()).unwrap();
        let error = source.read(&Checkpoint::default(), 5).unwrap_err();
        assert_eq!((error.class(), error.code()), (class, code), "{script}: {error}");
    }
    let text = document().replace("python3", "no-such-program");
    let error = parse(&text).unwrap().open(dir.path()).unwrap().read(&Checkpoint::default(), 5).unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Permanent, "source.missing"));
}
