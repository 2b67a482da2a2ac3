//! The shell around [`Core`]: processes, clock, signals, probes and files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::SupervisorError;
use super::child::{self, Child};
use super::core::{Core, Effect, Event, Ms, Rules};
use super::guard::Guard;
use super::plan::{self, Listens, Plan, Process, Watch};
use super::probe;
use super::state::{self, Lock, ProcessId, ProcessState, State};
use crate::layout::private_file;

/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often a starting process is looked at.
const READY_EVERY: Duration = Duration::from_millis(20);
/// How long a process that listens nowhere must live to count as up.
const SETTLED_AFTER: Duration = Duration::from_millis(500);
/// How often a running process is asked.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// How a supervisor is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder.
    pub dir: PathBuf,
    /// The `concordat` binary.
    pub program: PathBuf,
    /// How children are bound to this process.
    pub guard: Guard,
    /// Times.
    pub rules: Rules,
}

impl Options {
    /// With this very binary, guarded children and the usual times.
    pub fn new(dir: &Path) -> Result<Self, SupervisorError> {
        let io = |e: std::io::Error| SupervisorError::Io { path: dir.to_owned(), why: e.to_string() };
        let program = std::env::current_exe().map_err(io)?;
        let dir = std::path::absolute(dir).map_err(io)?;
        Ok(Self { dir, guard: Guard::of(&program), program, rules: Rules::default() })
    }
}

/// Supervises a folder until SIGTERM or SIGINT; returns when every process is gone.
pub async fn run(options: &Options) -> Result<(), SupervisorError> {
    let lock = Lock::take(&options.dir)?;
    // Before ports are looked at: they may be held by what a killed supervisor left behind.
    report_leftovers(&lock, &options.dir);
    let plan = plan::plan(&options.dir, &options.program)?;
    supervise(&lock, options, &plan).await
}

/// Supervises any processes in a folder (benchmarks and tests have their own plans).
pub async fn run_plan(options: &Options, plan: &Plan) -> Result<(), SupervisorError> {
    let lock = Lock::take(&options.dir)?;
    report_leftovers(&lock, &options.dir);
    supervise(&lock, options, plan).await
}

fn report_leftovers(lock: &Lock, dir: &Path) {
    for left in state::clean(lock, dir) {
        tracing::warn!(process = left, "killed what an earlier supervisor left behind");
    }
}

struct Shell<'a> {
    options: &'a Options,
    name: &'a str,
    procs: Vec<&'a Process>,
    core: Core,
    children: BTreeMap<usize, Child>,
    /// Readiness, then health, of each running process; ended with it.
    probes: BTreeMap<usize, JoinHandle<()>>,
    send: UnboundedSender<(Option<u32>, Event)>,
    began: Instant,
    id: Option<ProcessId>,
    written: Option<State>,
    done: bool,
}

async fn supervise(_lock: &Lock, options: &Options, plan: &Plan) -> Result<(), SupervisorError> {
    let io = |e: std::io::Error| SupervisorError::Io { path: options.dir.clone(), why: e.to_string() };
    let (mut term, mut int, mut hup) = (
        signal(SignalKind::terminate()).map_err(io)?,
        signal(SignalKind::interrupt()).map_err(io)?,
        signal(SignalKind::hangup()).map_err(io)?,
    );
    let (send, mut events) = unbounded_channel();
    let procs: Vec<&Process> = plan.units.iter().flatten().collect();
    let mut numbers = 0..procs.len();
    let units: Vec<Vec<usize>> = plan.units.iter().map(|u| numbers.by_ref().take(u.len()).collect()).collect();
    let core = Core::new(options.rules, &units, &halted_units(options, plan));
    let mut shell = Shell {
        options,
        name: &plan.name,
        procs,
        core,
        children: BTreeMap::new(),
        probes: BTreeMap::new(),
        send,
        began: Instant::now(),
        id: ProcessId::own(),
        written: None,
        done: false,
    };
    shell.take(Event::Begin);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !shell.done {
        let event = tokio::select! {
            Some((pid, event)) = events.recv() => match pid {
                // A probe's word about a process that is gone says nothing about its successor.
                Some(pid) if !shell.runs(&event, pid) => continue,
                _ => event,
            },
            _ = tick.tick() => Event::Tick,
            _ = term.recv() => Event::Stop,
            _ = int.recv() => Event::Stop,
            _ = hup.recv() => continue,
        };
        shell.take(event);
    }
    Ok(())
}

/// A note of an earlier run halts the unit that holds CometBFT.
fn halted_units(options: &Options, plan: &Plan) -> BTreeMap<usize, String> {
    let path = state::halted_file(&options.dir);
    let Ok(reason) = std::fs::read_to_string(&path) else { return BTreeMap::new() };
    let reason = format!("{} (kept in {}: repair the node, then remove that file)", reason.trim(), path.display());
    tracing::error!(reason, "the node is halted");
    let comet = plan.units.iter().position(|u| u.iter().any(|p| matches!(p.watch, Watch::Comet(_))));
    comet.into_iter().map(|u| (u, reason.clone())).collect()
}

impl Shell<'_> {
    fn now(&self) -> Ms {
        Ms::try_from(self.began.elapsed().as_millis()).unwrap_or(Ms::MAX)
    }

    fn runs(&self, event: &Event, pid: u32) -> bool {
        match event {
            Event::Ready { proc } | Event::Health { proc, .. } | Event::Heights { proc, .. } => {
                self.children.get(proc).is_some_and(|c| c.pid() == pid)
            }
            _ => true,
        }
    }

    /// One event and everything that follows from it at once.
    fn take(&mut self, event: Event) {
        let mut queue = std::collections::VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            if let Event::Exited { proc, how } = &event {
                tracing::warn!(process = self.procs[*proc].name, how, "ended");
                self.children.remove(proc);
                if let Some(probe) = self.probes.remove(proc) {
                    probe.abort();
                }
            }
            for effect in self.core.step(self.now(), event) {
                queue.extend(self.act(effect));
            }
        }
        self.write();
    }

    fn act(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Spawn(proc) => return Some(self.spawn(proc)),
            Effect::Kill { proc, hard } => {
                if let Some(child) = self.children.get(&proc) {
                    child.kill(hard);
                }
            }
            Effect::KeepHalted(reason) => {
                if let Err(e) = private_file(&state::halted_file(&self.options.dir), reason.as_bytes()) {
                    tracing::error!(error = %e, "the note of the halt is kept in memory only");
                }
            }
            Effect::Alarm(text) => tracing::error!(alarm = text, node = self.name, "supervisor"),
            Effect::Done => self.done = true,
        }
        None
    }

    fn spawn(&mut self, proc: usize) -> Event {
        let spec = self.procs[proc];
        for at in &spec.listens {
            if let Listens::Unix(path) = at {
                // Left by a killed process; servers refuse to bind over it, and we would take it for readiness.
                let _ = std::fs::remove_file(path);
            }
        }
        let send = self.send.clone();
        let tell = move |event| drop(send.send((None, event)));
        match child::spawn(proc, spec, &self.options.guard, &self.options.dir.join("logs"), tell) {
            Ok(child) => {
                let pid = child.pid();
                tracing::info!(process = spec.name, pid, "started");
                self.children.insert(proc, child);
                self.probes.insert(proc, tokio::spawn(watch(proc, pid, spec.clone(), self.send.clone())));
                Event::Started { proc, pid }
            }
            Err(e) => Event::SpawnFailed { proc, why: format!("{}: {e}", spec.program.display()) },
        }
    }

    /// Writes what changed. A full disk must not end the supervisor: what `status` shows is then old.
    fn write(&mut self) {
        let Some(supervisor) = self.id else { return };
        let process = |(i, p): (usize, &&Process)| {
            let (state, pid, restarts, last_exit) = self.core.show(i);
            let known =
                self.written.as_ref().and_then(|w| w.processes.get(i)?.process).filter(|id| Some(id.pid) == pid);
            let process = known.or_else(|| pid.and_then(ProcessId::of));
            ProcessState { name: p.name.clone(), state, process, restarts, last_exit: last_exit.map(str::to_owned) }
        };
        let processes = self.procs.iter().enumerate().map(process).collect();
        let state = State { version: 1, name: self.name.to_owned(), supervisor, processes, halted: self.core.halted() };
        if self.written.as_ref() != Some(&state) {
            if let Err(e) = state.write(&self.options.dir) {
                tracing::error!(error = %e, "the supervisor's state is not written");
            }
            self.written = Some(state);
        }
    }
}

/// Follows one run of a process: until it listens, then as long as it lives.
async fn watch(proc: usize, pid: u32, spec: Process, send: UnboundedSender<(Option<u32>, Event)>) {
    let tell = |event| drop(send.send((Some(pid), event)));
    for at in &spec.listens {
        while !probe::listens(at).await {
            tokio::time::sleep(READY_EVERY).await;
        }
    }
    if spec.listens.is_empty() {
        // It has no place to be seen at: one that ends at once must not count as up.
        tokio::time::sleep(SETTLED_AFTER).await;
    }
    tell(Event::Ready { proc });
    let mut newest = 0;
    loop {
        match &spec.watch {
            Watch::Nothing => return,
            Watch::Livez(addr) => tell(Event::Health { proc, ok: probe::livez(addr).await }),
            Watch::Comet(rpc) => {
                let status = probe::comet_status(rpc).await;
                tell(Event::Health { proc, ok: status.is_some() });
                if let Some(s) = status {
                    // Peers are asked after only while the own height stands still.
                    let peers = if s.height > newest { None } else { probe::peers_height(rpc).await };
                    newest = s.height;
                    tell(Event::Heights { proc, own: s.height, peers, catching_up: s.catching_up });
                }
            }
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}
