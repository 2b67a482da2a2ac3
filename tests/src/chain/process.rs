//! Processes under test: started so that they die with the benchmark, and measured from outside.

use super::Programs;
use super::failed::BenchError;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Clock ticks a second in `/proc/PID/stat` on Linux.
const TICKS: f64 = 100.0;

/// A started process. It is killed when this is dropped, and by the system when the benchmark itself is killed.
pub struct Process {
    /// Its name.
    pub name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `program` with `args`, its output in `logs/NAME.log`, guarded by the shipped program.
    pub fn start(
        name: &str,
        logs: &Path,
        programs: &Programs,
        program: &Path,
        args: &[OsString],
    ) -> Result<Self, BenchError> {
        Self::start_with(name, logs, programs, program, args, &[])
    }

    /// [`Process::start`] with variables of environment.
    pub fn start_with(
        name: &str,
        logs: &Path,
        programs: &Programs,
        program: &Path,
        args: &[OsString],
        env: &[(&str, &str)],
    ) -> Result<Self, BenchError> {
        std::fs::create_dir_all(logs).map_err(|e| BenchError::io(format!("{}", logs.display()), e))?;
        let log = logs.join(format!("{name}.log"));
        let out = File::create(&log).map_err(|e| BenchError::io(format!("{}", log.display()), e))?;
        let err = out.try_clone().map_err(|e| BenchError::io(format!("{}", log.display()), e))?;
        let child = Command::new(&programs.concordat)
            .args(["node", "guard"])
            .envs(env.iter().copied())
            .arg(std::process::id().to_string())
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|e| BenchError::io(format!("starting {}", program.display()), e))?;
        Ok(Self { name: name.to_owned(), log, child })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL and waits for its end.
    pub fn stop(&mut self) {
        // It may have ended by itself; there is nobody left to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it still runs.
    pub fn is_up(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Fails when it has ended.
    pub fn check(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(format!("ended ({status})"))),
            Err(e) => Err(BenchError::io(format!("waiting for {}", self.name), e)),
        }
    }

    /// An error about this process, with the last line it wrote.
    pub fn failed(&self, what: impl Into<String>) -> BenchError {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let words = text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("none").chars().take(400).collect();
        BenchError::Process { name: self.name.clone(), what: what.into(), words }
    }

    /// Waits until `up` holds, while the process lives.
    pub async fn wait_up(&mut self, seconds: u64, up: impl Fn() -> bool) -> Result<(), BenchError> {
        let end = Instant::now() + Duration::from_secs(seconds);
        while !up() {
            self.check()?;
            if Instant::now() >= end {
                return Err(self.failed(format!("is not up after {seconds} s")));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Processor time a process has used so far, seconds; 0 when it is gone.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold spaces: fields are counted after it.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let tick = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or_default();
    (tick(11) + tick(12)) / TICKS
}

/// Largest resident memory of a process so far, MB; 0 when it is gone.
pub fn peak_mb(pid: u32) -> f64 {
    status_mb(pid, "VmHWM:")
}

/// Resident memory of a process now, MB; 0 when it is gone.
pub fn resident_mb(pid: u32) -> f64 {
    status_mb(pid, "VmRSS:")
}

fn status_mb(pid: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(name));
    let kb = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<f64>().ok());
    kb.unwrap_or_default() / 1024.0
}

/// Processor time over a stretch: what several processes used of one core, in percent.
pub struct CpuMeter {
    begun: Instant,
    groups: Vec<(String, Vec<u32>, f64)>,
}

impl CpuMeter {
    /// Begins to measure named groups of processes; this program is added as `load generator`.
    pub fn start(groups: impl IntoIterator<Item = (String, Vec<u32>)>) -> Self {
        let own = ("load generator".to_owned(), vec![std::process::id()]);
        let groups = groups.into_iter().chain([own]);
        let groups = groups.map(|(name, pids)| {
            let used = pids.iter().map(|p| cpu_seconds(*p)).sum();
            (name, pids, used)
        });
        Self { begun: Instant::now(), groups: groups.collect() }
    }

    /// Percent of one core that each group used since the start.
    pub fn stop(self) -> Vec<(String, f64)> {
        let wall = self.begun.elapsed().as_secs_f64();
        let used = |pids: &[u32]| pids.iter().map(|p| cpu_seconds(*p)).sum::<f64>();
        self.groups.into_iter().map(|(name, pids, before)| (name, 100.0 * (used(&pids) - before) / wall)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_a_gone_one_has_none() {
        assert!(peak_mb(std::process::id()) > 0.5);
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!((peak_mb(child.id()), cpu_seconds(child.id())), (0.0, 0.0));
    }
}
