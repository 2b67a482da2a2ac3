//! One child process: started, its output kept, its end reported once.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::core::{Event, Finding};
use super::guard::Guard;
use super::logs::{LOG_BYTES, RotatingLog, pump};
use super::plan::{Process, Watch};

/// A running child. The id inside is cleared before the system may give it to another process.
pub struct Child {
    pid: u32,
    live: Arc<Mutex<Option<Pid>>>,
}

impl Child {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }
    /// Signals the child and its own children.
    pub fn kill(&self, hard: bool) {
        if let Some(pid) = *self.live.lock().unwrap_or_else(PoisonError::into_inner) {
            // It may have ended this instant; its end is reported anyway.
            let _ = kill_process_group(pid, if hard { Signal::KILL } else { Signal::TERM });
        }
    }
}

/// Starts process number `proc`. `send` gets its findings and at last its exit.
pub fn spawn(
    proc: usize,
    spec: &Process,
    guard: &Guard,
    logs: &Path,
    send: impl Fn(Event) + Send + Clone + 'static,
) -> io::Result<Child> {
    let mut log = RotatingLog::open(&logs.join(format!("{}.log", spec.name)), LOG_BYTES)?;
    let (reader, writer) = io::pipe()?;
    let mut command = guard.wrap(&spec.program, &spec.args);
    // A group of its own: Ctrl-C in a terminal reaches the supervisor only, which stops its children in order.
    use std::os::unix::process::CommandExt;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let watch = matches!(spec.watch, Watch::Comet(_));
    let found = send.clone();
    let (drained, wait_drained) = mpsc::channel::<()>();
    thread::Builder::new().name(format!("log-{}", spec.name)).spawn(move || {
        pump(reader, &mut log, watch, |finding: Finding, line| found(Event::Found { proc, finding, line }));
        drop(drained);
    })?;
    let (tell, told) = mpsc::channel();
    // One thread a child starts it and lives until its end: the parent-death signal is bound to the starting thread.
    thread::Builder::new().name(format!("wait-{}", spec.name)).spawn(move || {
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) => return drop(tell.send(Err(e))),
        };
        drop(command); // its copies of the pipe's writing end, or the log would never end
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let live = Arc::new(Mutex::new(pid));
        let _ = tell.send(Ok(Child { pid: child.id(), live: live.clone() }));
        if let Some(pid) = pid {
            // Seen as ended but not yet collected: the id is still ours, so that what it left behind can be killed.
            while matches!(
                waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT),
                Err(rustix::io::Errno::INTR)
            ) {}
            let mut live = live.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = kill_process_group(pid, Signal::KILL);
            *live = None;
        }
        let how = child.wait().map_or_else(|e| e.to_string(), |status| describe(&status));
        // Findings in its last lines come before its end.
        let _ = wait_drained.recv_timeout(Duration::from_secs(1));
        send(Event::Exited { proc, how });
    })?;
    told.recv().unwrap_or_else(|_| Err(io::Error::other("the starting thread ended")))
}

fn describe(status: &std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".into(),
    }
}
