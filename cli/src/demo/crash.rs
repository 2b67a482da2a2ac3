//! Check 6: kill -9 under load. The grid's adapter publishes its real file, transport follows it, court asks transport,
//! and meanwhile one process after another is killed at a random moment, each time as soon as messages flow again. What is
//! judged are the histories of sender, receiver and asker and the log of the ledger, never a counter of the system.

use super::feed::{entries, sentence};
use super::follow::{Follower, anchored, drain, subscription};
use super::source::{self, ADAPTER, Grid};
use super::steps::{Checked, Found, expect, thousands};
use super::tour::{LOAD, own_program};
use super::{history, queries};
use crate::context::Api;
use crate::failure::Failure;
use crate::layout::City;
use crate::supervisor::core::Shown;
use crate::supervisor::{self, ProcessId, State};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take, however busy the machine is.
const WITHIN: Duration = Duration::from_secs(120);
/// Rows that must be there to publish.
const ROWS: u64 = 8_000;
/// Rows a second while processes are killed: slow enough that the load outlasts the kills, then as fast as it goes.
const PACE: &str = "150";
/// A kill comes at a random moment of this long after messages flow.
const JITTER_MS: u64 = 150;

/// What is killed: how people call it, the folder (none for the adapter), the process.
const KILLS: [(&str, &str, &str); 8] = [
    ("broker", "grid", "broker"),
    ("executor", "transport", "executor"),
    ("adapter", "", ""),
    ("application", "grid", "app"),
    ("broker", "transport", "broker"),
    ("nats-server", "exchange", "nats"),
    ("executor", "grid", "executor"),
    ("application", "transport", "app"),
];

/// The adapter as a process of its own, as an operator starts it. It ends with this.
struct Adapter {
    child: Child,
    said: PathBuf,
}

impl Adapter {
    fn start(city: &City, pace: &str) -> Result<Self, String> {
        let said = city.root.join("grid/run/tour-adapter.log");
        let io = |e: std::io::Error| format!("{}: {e}", said.display());
        let log = std::fs::File::create(&said).map_err(io)?;
        let mut command = Command::new(own_program()?);
        command.args(["adapter", "run", ADAPTER, "--pace", pace, "--quiet", "--dir"]).arg(city.root.join("grid"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(io)?;
        Ok(Self { child, said })
    }

    /// Whether it has published everything; an error if it ended otherwise.
    fn done(&mut self) -> Result<bool, String> {
        match self.child.try_wait().map_err(|e| e.to_string())? {
            None => Ok(false),
            Some(status) if status.success() => Ok(true),
            Some(status) => {
                let text = std::fs::read_to_string(&self.said).unwrap_or_default();
                Err(format!("the adapter ended ({status}): {}", text.lines().last().unwrap_or_default()))
            }
        }
    }

    async fn wait(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        while !self.done()? {
            expect(begun.elapsed() < WITHIN, || "the adapter has not published its file".into())?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        // It may have ended; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn running(dir: &Path, name: &str) -> Option<ProcessId> {
    let state = State::read(dir)?;
    let one = state.processes.into_iter().find(|p| p.name == name && p.state == Shown::Up)?;
    one.process.filter(|p| p.alive())
}

async fn until_running(dir: &Path, name: &str, other_than: Option<ProcessId>) -> Result<ProcessId, String> {
    let begun = Instant::now();
    loop {
        match running(dir, name) {
            Some(p) if Some(p) != other_than => return Ok(p),
            _ => expect(begun.elapsed() < WITHIN, || format!("{name} in {} does not come back", dir.display()))?,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn random_moment() {
    let mut byte = [0; 1];
    // Without randomness the kill comes at once.
    let _ = getrandom::fill(&mut byte);
    tokio::time::sleep(Duration::from_millis(u64::from(byte[0]) * JITTER_MS / 255)).await;
}

/// Kills one process after another while messages and queries flow; returns the adapter that still publishes, how often
/// each kind was killed, and after how long messages flowed again.
async fn kill_all(
    city: &City,
    mut adapter: Adapter,
    follower: &Follower,
    load: &queries::Load,
) -> Result<(Adapter, BTreeMap<&'static str, u32>, Vec<(String, u64)>), String> {
    let (mut killed, mut silence) = (BTreeMap::new(), Vec::new());
    follower.reach(1, WITHIN).await?;
    let asked = load.answered();
    for (word, folder, process) in KILLS {
        random_moment().await;
        let over = || format!("the load was over before the {word} was killed");
        expect(!adapter.done()?, over)?;
        let (count, begun) = (follower.count(), Instant::now());
        if folder.is_empty() {
            adapter.child.kill().map_err(|e| format!("the adapter: {e}"))?;
            drop(adapter);
            adapter = Adapter::start(city, PACE)?;
        } else {
            let dir = city.root.join(folder);
            let process_id = until_running(&dir, process, None).await?;
            expect(process_id.kill_hard(), || format!("the {word} of {folder} is gone"))?;
            // It was killed under load only if the load had not ended by then.
            expect(!adapter.done()?, over)?;
            until_running(&dir, process, Some(process_id)).await?;
        }
        *killed.entry(word).or_default() += 1;
        follower.reach(count + 1, WITHIN).await.map_err(|e| format!("after the {word} was killed: {e}"))?;
        silence.push((format!("{folder} {word}").trim().to_owned(), begun.elapsed().as_millis() as u64));
    }
    expect(load.answered() > asked, || "no query was answered while processes were killed".into())?;
    Ok((adapter, killed, silence))
}

async fn all_up(city: &City) -> Result<(), String> {
    let begun = Instant::now();
    for dir in city.dirs() {
        while !supervisor::status(&dir).state.is_some_and(|s| s.all_up()) {
            expect(begun.elapsed() < WITHIN, || format!("not every process of {} came back", dir.display()))?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// The check.
pub async fn check(city: &City) -> Checked {
    let fail = |e: Failure| e.to_string();
    let court = Api::of(&city.root.join("court"), Some("clerk"), "clerk").map_err(fail)?;
    let transport = Api::of(&city.root.join("transport"), None, "operator").map_err(fail)?;
    let id = subscription(&transport, LOAD, WITHIN).await?["id"].as_str().unwrap_or_default().to_owned();
    drain(&transport, &id).await?;
    let before = court.get("/v1/operations?limit=1").await.map_err(fail)?["log_size"].as_u64().unwrap_or_default();
    let (_, records) = Grid::open(city).map_err(fail)?.ahead(ROWS).await?;
    let begun = Instant::now();
    let (follower, load) = (Follower::start(&transport, &id), queries::Load::start(&court));
    let (adapter, killed, silence) = kill_all(city, Adapter::start(city, PACE)?, &follower, &load).await?;
    // The rest of the file as fast as it goes, by an adapter that takes over from one that was killed.
    drop(adapter);
    Adapter::start(city, "max")?.wait().await?;
    let asked = load.finish().await?;
    let came = follower.reach(records.len(), WITHIN).await;
    let seen = follower.finish().await?;
    let sent = source::history(records.iter());
    let counted = history::check(&[sent], &seen.lines).map_err(|f| sentence(&f))?;
    came?;
    let took = begun.elapsed();
    all_up(city).await?;
    anchored(&transport, &id, WITHIN).await?;
    let log = entries(&court, before).await?;
    let word = |e: &Value, k: &str| e[k].as_str().unwrap_or_default().to_owned();
    let verdicts: BTreeMap<String, String> = log.iter().map(|e| (word(e, "operation"), word(e, "verdict"))).collect();
    queries::judge(&asked, &verdicts)?;
    let late = log.iter().filter(|e| e["verdict"] == "late").count();
    let withheld: u32 = asked.iter().map(|h| h.withheld).sum();
    let facts = json!({
        "sent": counted.acknowledged, "delivered": counted.delivered, "again": counted.again, "killed": killed,
        "queries": asked.len(), "withheld": withheld, "late_entries": late, "flowed_again_ms": silence,
        "ms": took.as_millis() as u64,
    });
    let text = format!(
        "kill -9 broker, executor, adapter, application, nats-server under load: {} sent, {} delivered once",
        thousands(counted.acknowledged as u64),
        thousands(counted.delivered as u64),
    );
    Ok(Found { text, facts })
}
