//! Processes that stand still for a while.

use super::City;
use std::process::Command;

/// Stops a process, and lets it go on when it goes out of scope.
#[derive(Debug)]
pub struct Stopped(u32);

impl Stopped {
    /// Stops a node's process by name.
    pub fn now(city: &City, node: &str, name: &str) -> Self {
        let pid = city.process(node, name).0.pid;
        signal("-STOP", pid);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("-CONT", self.0);
    }
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status();
    assert!(sent.is_ok_and(|s| s.success()), "kill {name} {pid}");
}
