//! Processes that stand still for a while.

use super::City;
use std::process::Command;

/// Stops a process, and lets it go on when it goes out of scope. There is nothing left to wake when it was killed meanwhile:
/// by the executor that follows it where it stands on the lock of a store, by the supervisor when it answers nothing for long.
#[derive(Debug)]
pub struct Stopped(u32);

impl Stopped {
    /// Stops a node's process by name.
    pub fn now(city: &City, node: &str, name: &str) -> Self {
        let pid = city.process(node, name).0.pid;
        assert!(signal("-STOP", pid), "{node}'s {name} could not be stopped");
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if !signal("-CONT", self.0) {
            println!("    process {} was gone before it was waked", self.0);
        }
    }
}

fn signal(name: &str, pid: u32) -> bool {
    Command::new("kill").args([name, &pid.to_string()]).status().is_ok_and(|s| s.success())
}
