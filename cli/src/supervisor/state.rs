//! What a supervisor leaves in `run/`: its lock, its state for `status`, and the note of a halted node.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::{Deserialize, Serialize};

use super::SupervisorError;
use super::core::Shown;
use crate::layout::private_file;

/// A process by id and start time: an id alone may belong to another one by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The system's id.
    pub pid: u32,
    /// Start in clock ticks since boot.
    pub start: u64,
}

impl ProcessId {
    /// The running process with this id.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start: started(pid)? })
    }
    /// This process.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }
    /// Whether it still runs.
    pub fn alive(self) -> bool {
        started(self.pid) == Some(self.start)
    }
    pub(super) fn signal(self, signal: Signal, group: bool) -> bool {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw).filter(|_| self.alive()) else {
            return false;
        };
        if group { kill_process_group(pid, signal).is_ok() } else { kill_process(pid, signal).is_ok() }
    }
    /// kill -9, for drills.
    pub fn kill_hard(self) -> bool {
        self.signal(Signal::KILL, false)
    }
    /// Waits until it is gone.
    pub(super) fn wait_gone(self, within: Duration) -> bool {
        let end = Instant::now() + within;
        while self.alive() {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

/// Start time of a process that is not a zombie.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything: the fields begin after the last one.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

/// One process in [`State`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessState {
    /// Name in the plan, also of its log file.
    pub name: String,
    /// What it does.
    pub state: Shown,
    /// Its id while it runs.
    pub process: Option<ProcessId>,
    /// How often it was started again.
    pub restarts: u64,
    /// How it ended last.
    pub last_exit: Option<String>,
}

/// `run/supervisor.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Always 1.
    pub version: u32,
    /// `police` or `exchange`.
    pub name: String,
    /// The supervisor.
    pub supervisor: ProcessId,
    /// Its processes, in the order of their start.
    pub processes: Vec<ProcessState>,
    /// Why units are halted.
    pub halted: Vec<String>,
}

impl State {
    /// Reads the state of a folder; `None` when no supervisor wrote one.
    pub fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(state_file(dir)).ok()?).ok()
    }
    pub(super) fn write(&self, dir: &Path) -> Result<(), SupervisorError> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        Ok(private_file(&state_file(dir), &bytes)?)
    }
    /// Whether every process is up.
    pub fn all_up(&self) -> bool {
        self.processes.iter().all(|p| p.state == Shown::Up)
    }
}

fn state_file(dir: &Path) -> PathBuf {
    dir.join("run/supervisor.json")
}

/// The note that keeps a halted node from starting.
pub fn halted_file(dir: &Path) -> PathBuf {
    dir.join("halted")
}

/// The right to supervise a folder, held while this lives.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or says who holds it.
    pub fn take(dir: &Path) -> Result<Self, SupervisorError> {
        let path = dir.join("run/lock");
        let io = |e: std::io::Error| SupervisorError::Io { path: path.clone(), why: e.to_string() };
        crate::layout::private_dir(&dir.join("run"))?;
        crate::layout::private_dir(&dir.join("logs"))?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                let pid = State::read(dir).map(|s| s.supervisor.pid).unwrap_or_default();
                Err(SupervisorError::Running { dir: dir.to_owned(), pid })
            }
            Err(TryLockError::Error(e)) => Err(io(e)),
        }
    }
}

/// Kills what a supervisor that died left behind. Only for the holder of the lock.
pub fn clean(_lock: &Lock, dir: &Path) -> Vec<String> {
    let left: Vec<(String, ProcessId)> = State::read(dir)
        .into_iter()
        .flat_map(|s| s.processes)
        .filter_map(|p| Some((p.name, p.process.filter(|id| id.alive())?)))
        .collect();
    for (_, id) in &left {
        id.signal(Signal::KILL, true);
    }
    for (_, id) in &left {
        id.wait_gone(Duration::from_secs(5));
    }
    left.into_iter().map(|(name, id)| format!("{name} ({})", id.pid)).collect()
}
