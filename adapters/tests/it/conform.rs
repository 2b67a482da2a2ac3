//! The conformance kit judges a good source as good, and catches each broken twin by the check that is meant for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use concordat_adapters::conform::{Change, Kit, Outcome, Rig, Verdict, battery};
use concordat_adapters::contract::{
    AdapterError, Batch, Checkpoint, ErrorClass, Next, Origin, Record, Reject, Row, Source,
};
use serde_json::{Map, Value};

/// What is wrong with a twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// Every start is from the beginning.
    ForgetsWhereItWas,
    /// Reads on from where it is itself, whatever the runner asks for.
    FollowsItself,
    /// A queue that forgets what it handed out.
    ForgetsWhatItGave,
    /// Gives other rows each time.
    Shuffles,
    /// Takes only rows above the last cursor value.
    SkipsEqual,
    /// Takes only rows with a time above the newest one.
    SkipsLate,
    /// Takes rows up to the newest time that it has seen in a page of equal ones.
    TrustsClock,
    /// Passes over what it cannot read.
    DropsPoison,
    /// Stops at what it cannot read.
    StopsAtPoison,
    /// Reads what is not finished.
    ReadsHalf,
    /// Reads what was sent again.
    ReadsTwice,
    /// Puts other columns into the fields.
    IgnoresHeader,
    /// Passes over rows it does not understand.
    DropsDrift,
    /// Does not come back.
    GivesUp,
    /// Knows no limit.
    Greedy,
}

#[derive(Debug, Clone, PartialEq)]
struct Line {
    time: u64,
    n: u64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Good,
    Poison,
    Half,
    Drift,
    Header,
    Again,
}

#[derive(Default)]
struct World {
    lines: Vec<Line>,
    cut: bool,
    reads: u64,
    given: usize,
}

struct Table {
    world: Arc<Mutex<World>>,
    broken: Broken,
    next_n: u64,
}

struct TableSource {
    world: Arc<Mutex<World>>,
    broken: Broken,
    own: Option<usize>,
}

impl Table {
    fn new(broken: Broken) -> Self {
        let mut table = Self { world: Arc::default(), broken, next_n: 0 };
        (0..40).for_each(|n| table.add(1_000 + n * 10, Kind::Good));
        table
    }

    fn add(&mut self, time: u64, kind: Kind) {
        self.world.lock().unwrap().lines.push(Line { time, n: self.next_n, kind });
        self.next_n += 1;
    }

    fn newest(&self) -> u64 {
        self.world.lock().unwrap().lines.iter().map(|l| l.time).filter(|t| *t < 1_000_000).max().unwrap_or(0)
    }
}

impl Rig for Table {
    fn open(&mut self) -> Result<Box<dyn Source>, AdapterError> {
        Ok(Box::new(TableSource { world: Arc::clone(&self.world), broken: self.broken, own: None }))
    }

    fn expected(&self) -> Vec<String> {
        let world = self.world.lock().unwrap();
        world.lines.iter().filter(|l| matches!(l.kind, Kind::Good | Kind::Drift)).map(|l| id(l.n)).collect()
    }

    fn dead(&self) -> usize {
        self.world.lock().unwrap().lines.iter().filter(|l| l.kind == Kind::Poison).count()
    }

    fn change(&mut self, change: Change) -> bool {
        let at = self.newest() + 10;
        match change {
            Change::Rows => (0..10).for_each(|n| self.add(at + n, Kind::Good)),
            Change::EqualCursor => (0..30).for_each(|_| self.add(at, Kind::Good)),
            Change::LateRow => self.add(at - 25, Kind::Good),
            Change::Poison => {
                self.add(at, Kind::Good);
                self.add(at + 1, Kind::Poison);
                self.add(at + 2, Kind::Good);
            }
            Change::HalfWritten => self.add(at, Kind::Half),
            Change::Finished => {
                let mut world = self.world.lock().unwrap();
                world.lines.iter_mut().filter(|l| l.kind == Kind::Half).for_each(|l| l.kind = Kind::Good);
            }
            Change::ChangedHeader => self.add(at, Kind::Header),
            Change::Resent => self.add(at, Kind::Again),
            Change::Drift => self.add(at, Kind::Drift),
            Change::Cut => self.world.lock().unwrap().cut = true,
            Change::Restored => self.world.lock().unwrap().cut = false,
            Change::SkewedClock => {
                self.add(2_000_000, Kind::Good);
                self.add(at, Kind::Good);
            }
        }
        true
    }
}

fn id(n: u64) -> String {
    format!("{n:032x}")
}

fn record(n: u64) -> Record {
    let data = Map::from_iter([("n".to_owned(), Value::from(n))]);
    Record { id: id(n), time: None, data, origin: Origin::row("table", n), raw: n.to_string().into_bytes() }
}

fn failed(class: ErrorClass, message: &str) -> AdapterError {
    AdapterError::source_failed(class, "source.test", message)
}

impl TableSource {
    /// True when a twin does not see a line at all.
    fn misses(&self, line: &Line, before: &[Line]) -> bool {
        // What the twin takes for its cursor: the newest time of what it read in pages of seven.
        let seen = |page: usize| before.get(..page).unwrap_or_default().iter().map(|l| l.time).max().unwrap_or(0);
        let cursor = seen(before.len() / 7 * 7);
        match self.broken {
            Broken::SkipsEqual => before.len() >= 40 && line.time == cursor,
            Broken::SkipsLate => line.time < cursor && cursor < 1_000_000,
            Broken::TrustsClock => cursor >= 1_000_000 && line.time < cursor,
            Broken::DropsPoison => line.kind == Kind::Poison,
            Broken::DropsDrift => line.kind == Kind::Drift,
            _ => false,
        }
    }

    fn row(&self, line: &Line) -> Result<Option<Row>, AdapterError> {
        let refused = |rule: &str| {
            Row::Bad(Reject {
                origin: Origin::row("table", line.n),
                line: line.n,
                column: 1,
                field: None,
                rule: rule.to_owned(),
                message: "no".to_owned(),
                raw: line.n.to_string().into_bytes(),
                truncated: false,
            })
        };
        match (line.kind, self.broken) {
            (Kind::Poison, Broken::StopsAtPoison) => Err(failed(ErrorClass::Permanent, "poison")),
            (Kind::Poison, _) => Ok(Some(refused("number.syntax"))),
            (Kind::Header, Broken::IgnoresHeader) => Ok(Some(Row::Good(record(line.n + 5_000)))),
            (Kind::Header, _) => Err(failed(ErrorClass::Permanent, "other columns")),
            (Kind::Again, Broken::ReadsTwice) => Ok(Some(Row::Good(record(0)))),
            (Kind::Again, _) => Ok(None),
            _ => Ok(Some(Row::Good(record(line.n)))),
        }
    }
}

impl Source for TableSource {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        let mut world = self.world.lock().unwrap();
        world.reads += 1;
        if world.cut {
            let class = if self.broken == Broken::GivesUp { ErrorClass::Permanent } else { ErrorClass::Transient };
            return Err(failed(class, "nobody answers"));
        }
        let asked: usize = std::str::from_utf8(&from.0).unwrap().parse().unwrap_or(0);
        let mut at = match (self.broken, self.own) {
            (Broken::ForgetsWhereItWas, None) => 0,
            (Broken::FollowsItself, Some(own)) => own,
            (Broken::ForgetsWhatItGave, _) => asked.max(world.given),
            _ => asked,
        };
        let mut batch = Batch::at(from, Next::More);
        let max = if self.broken == Broken::Greedy { max + 3 } else { max };
        while batch.rows() < max {
            let Some(line) = world.lines.get(at) else {
                batch.next = Next::Idle(Duration::from_millis(5));
                break;
            };
            if line.kind == Kind::Half && self.broken != Broken::ReadsHalf {
                batch.next = Next::Idle(Duration::from_millis(5));
                break;
            }
            if !self.misses(line, &world.lines[..at])
                && let Some(row) = self.row(line)?
            {
                batch.push(row);
            }
            at += 1;
        }
        if self.broken == Broken::Shuffles && world.reads.is_multiple_of(2) {
            batch.records.reverse();
        }
        self.own = Some(at);
        world.given = at;
        if at > 0 {
            batch.checkpoint = Checkpoint(at.to_string().into_bytes());
        }
        Ok(batch)
    }
}

/// A twin that loses rows is waited for in vain.
fn patience(broken: Broken) -> Duration {
    Duration::from_secs(if broken == Broken::Nothing { 30 } else { 2 })
}

async fn judge(broken: Broken) -> Vec<Outcome> {
    let scratch = tempfile::tempdir().unwrap();
    let make = Box::new(move || Ok(Box::new(Table::new(broken)) as Box<dyn Rig>));
    let kit = Kit { make, patience: patience(broken), scratch: scratch.path().to_owned() };
    battery(&kit, |_| {}).await
}

fn caught(outcomes: &[Outcome]) -> Vec<&'static str> {
    outcomes.iter().filter(|o| matches!(o.verdict, Verdict::Failed(_))).map(|o| o.check).collect()
}

#[tokio::test]
async fn a_good_source_passes_every_check() {
    let outcomes = judge(Broken::Nothing).await;
    assert_eq!(outcomes.len(), 14);
    for outcome in outcomes {
        assert_eq!(outcome.verdict, Verdict::Passed, "{}", outcome.check);
    }
}

#[tokio::test]
async fn every_broken_twin_is_caught_by_its_check() {
    let twins = [
        (Broken::ForgetsWhereItWas, "restart"),
        (Broken::ForgetsWhatItGave, "broker-away"),
        (Broken::ForgetsWhatItGave, "ack-lost"),
        (Broken::FollowsItself, "repeatable"),
        (Broken::Shuffles, "repeatable"),
        (Broken::SkipsEqual, "equal-cursor"),
        (Broken::SkipsLate, "late-row"),
        (Broken::TrustsClock, "clock-skew"),
        (Broken::DropsPoison, "poison"),
        (Broken::StopsAtPoison, "poison"),
        (Broken::ReadsHalf, "half-written"),
        (Broken::ReadsTwice, "resent"),
        (Broken::IgnoresHeader, "changed-header"),
        (Broken::DropsDrift, "schema-drift"),
        (Broken::GivesUp, "reconnect"),
        (Broken::Greedy, "back-pressure"),
    ];
    let judged = futures_of(twins.map(|(twin, _)| twin)).await;
    let missed = twins.iter().zip(judged).filter(|((_, check), outcomes)| !caught(outcomes).contains(check));
    let missed: Vec<String> = missed.map(|((twin, check), _)| format!("{twin:?} passed {check}")).collect();
    assert!(missed.is_empty(), "{missed:?}");
}

async fn futures_of<const N: usize>(twins: [Broken; N]) -> Vec<Vec<Outcome>> {
    let tasks = twins.map(|twin| tokio::spawn(judge(twin)));
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.unwrap());
    }
    all
}
