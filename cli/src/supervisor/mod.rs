//! The supervisor of one folder: starts its processes in order, keeps them running, and stops them all.

mod child;
pub mod core;
mod events;
pub mod guard;
pub mod logs;
pub mod plan;
mod probe;
mod shell;
pub mod state;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use thiserror::Error;

pub use guard::Guard;
pub use plan::{Listens, Plan, Process, Watch, plan};
pub use probe::{CometStatus, comet_status, listens, peers_height};
pub use shell::{Options, run, run_plan};
pub use state::{ProcessId, ProcessState, State};

use crate::layout::LayoutError;
use crate::servers::ServersError;

/// Why a folder is not supervised.
#[derive(Debug, Error)]
pub enum SupervisorError {
    /// Another supervisor holds the folder.
    #[error("{dir} is already supervised by process {pid}: stop it first with `concordat node down --dir {dir}`")]
    Running {
        /// The folder.
        dir: PathBuf,
        /// The other supervisor.
        pid: u32,
    },
    /// A file.
    #[error("{path}: {why}: check the disk's space and the folder's owner")]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// It did not stop in time, and could not be killed either.
    #[error("process {pid} of {dir} does not end: look at {dir}/logs, then kill it")]
    Unstoppable {
        /// The folder.
        dir: PathBuf,
        /// The process.
        pid: u32,
    },
    /// The detached supervisor ended at once.
    #[error("{dir} did not start: {why}")]
    NotStarted {
        /// The folder.
        dir: PathBuf,
        /// The last line of its log.
        why: String,
    },
    /// Not all processes came up in time.
    #[error("{dir}: {waiting} not up after {seconds} s: look at {dir}/logs")]
    NotUp {
        /// The folder.
        dir: PathBuf,
        /// The processes, with their state.
        waiting: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Folder or configuration.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A server.
    #[error(transparent)]
    Servers(#[from] ServersError),
}

impl SupervisorError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Running { .. } => "supervisor-running",
            Self::Io { .. } => "supervisor-io",
            Self::Unstoppable { .. } => "supervisor-unstoppable",
            Self::NotStarted { .. } => "supervisor-not-started",
            Self::NotUp { .. } => "supervisor-not-up",
            Self::Layout(e) => e.code(),
            Self::Servers(e) => e.code(),
        }
    }
}

/// State of a folder as `status` shows it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Status {
    /// The folder.
    pub dir: PathBuf,
    /// Whether its supervisor runs now.
    pub running: bool,
    /// What it wrote last; of a dead supervisor when `running` is false.
    pub state: Option<State>,
    /// The note that keeps the node from starting, with its reason.
    pub halted_note: Option<String>,
}

/// State of a folder.
pub fn status(dir: &Path) -> Status {
    let state = State::read(dir);
    let running = state.as_ref().is_some_and(|s| s.supervisor.alive());
    Status { dir: dir.to_owned(), running, state, halted_note: std::fs::read_to_string(state::halted_file(dir)).ok() }
}

/// Starts `program node up --dir DIR` in the background, detached from the terminal, its own output in `logs/supervisor.log`.
/// Returns its process id as soon as it supervises the folder, or its last words.
pub fn start_detached(dir: &Path, program: &Path) -> Result<u32, SupervisorError> {
    start_detached_as(dir, Command::new(program).args(["node", "up", "--dir"]).arg(dir), Duration::from_secs(15))
}

/// [`start_detached`] with another command.
pub fn start_detached_as(dir: &Path, command: &mut Command, within: Duration) -> Result<u32, SupervisorError> {
    if let Some(running) = State::read(dir).filter(|s| s.supervisor.alive()) {
        return Err(SupervisorError::Running { dir: dir.to_owned(), pid: running.supervisor.pid });
    }
    let logs = dir.join("logs");
    crate::layout::private_dir(&logs)?;
    let path = logs.join("supervisor.log");
    let io = |e: std::io::Error| SupervisorError::Io { path: path.clone(), why: e.to_string() };
    if std::fs::metadata(&path).is_ok_and(|m| m.len() > logs::LOG_BYTES) {
        std::fs::rename(&path, logs.join("supervisor.log.1")).map_err(io)?;
    }
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(io)?;
    let begin = log.metadata().map_err(io)?.len();
    let other = log.try_clone().map_err(io)?;
    let mut child = command.stdin(Stdio::null()).stdout(log).stderr(other).process_group(0).spawn().map_err(io)?;
    let (pid, end) = (child.id(), Instant::now() + within);
    loop {
        if State::read(dir).is_some_and(|s| s.supervisor.pid == pid && s.supervisor.alive()) {
            // Collected when it ends, in case this process outlives it.
            std::thread::spawn(move || child.wait());
            return Ok(pid);
        }
        let ended = child.try_wait().map_err(io)?;
        if ended.is_some() || Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            let last = logs::last_line(&path, begin).unwrap_or_else(|| "it said nothing".to_owned());
            return Err(SupervisorError::NotStarted { dir: dir.to_owned(), why: last });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that is not up, how it ended last and its last words.
fn late(dir: &Path, p: &ProcessState) -> String {
    let exit = p.last_exit.as_deref().unwrap_or("starting");
    let said = logs::last_line(&dir.join("logs").join(format!("{}.log", p.name)), 0);
    format!("{} ({exit}{})", p.name, said.map(|s| format!(", last line: {s}")).unwrap_or_default())
}

/// Waits until every process of a supervised folder is up.
pub fn wait_up(dir: &Path, within: Duration) -> Result<State, SupervisorError> {
    let end = Instant::now() + within;
    loop {
        let now = status(dir);
        if let Some(state) = now.state.filter(|s| now.running && s.all_up()) {
            return Ok(state);
        }
        if Instant::now() >= end {
            let waiting = match State::read(dir) {
                Some(s) if now.running => {
                    let late: Vec<String> =
                        s.processes.iter().filter(|p| p.state != core::Shown::Up).map(|p| late(dir, p)).collect();
                    late.join("; ")
                }
                _ => "its supervisor".to_owned(),
            };
            return Err(SupervisorError::NotUp { dir: dir.to_owned(), waiting, seconds: within.as_secs() });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ends one process of a supervised folder and waits until the supervisor has another in its place and everything is up.
/// `false` when no supervisor runs.
pub fn restart(dir: &Path, name: &str, within: Duration) -> Result<bool, SupervisorError> {
    let Some(state) = status(dir).state.filter(|s| s.supervisor.alive()) else { return Ok(false) };
    let of = |state: &State| state.processes.iter().find(|p| p.name == name).and_then(|p| p.process);
    let before = of(&state);
    if let Some(process) = before {
        process.signal(rustix::process::Signal::TERM, false);
    }
    let end = Instant::now() + within;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let now = wait_up(dir, left)?;
        if of(&now).is_some_and(|p| Some(p) != before && p.alive()) {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Stops the supervisor of a folder with all its processes and waits for them. `false` when none ran.
pub fn stop(dir: &Path) -> Result<bool, SupervisorError> {
    let Some(state) = State::read(dir).filter(|s| s.supervisor.alive()) else { return Ok(false) };
    use rustix::process::Signal;
    state.supervisor.signal(Signal::TERM, false);
    if !state.supervisor.wait_gone(Duration::from_secs(15)) {
        // Its children die with it.
        state.supervisor.signal(Signal::KILL, false);
        if !state.supervisor.wait_gone(Duration::from_secs(5)) {
            return Err(SupervisorError::Unstoppable { dir: dir.to_owned(), pid: state.supervisor.pid });
        }
    }
    for p in State::read(dir).into_iter().flat_map(|s| s.processes).filter_map(|p| p.process) {
        p.signal(Signal::KILL, true);
        if !p.wait_gone(Duration::from_secs(5)) {
            return Err(SupervisorError::Unstoppable { dir: dir.to_owned(), pid: p.pid });
        }
    }
    Ok(true)
}

/// Stops several folders at the same time, so that one slow folder does not hold up the rest.
pub fn stop_all(dirs: &[PathBuf]) -> Vec<Result<bool, SupervisorError>> {
    std::thread::scope(|s| {
        let threads: Vec<_> = dirs.iter().map(|d| s.spawn(|| stop(d))).collect();
        threads
            .into_iter()
            .zip(dirs)
            .map(|(t, d)| t.join().unwrap_or_else(|_| Err(SupervisorError::Unstoppable { dir: d.clone(), pid: 0 })))
            .collect()
    })
}
