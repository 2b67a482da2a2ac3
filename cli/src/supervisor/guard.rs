//! A child that dies with its supervisor.
//!
//! The supervisor starts `concordat node guard <its pid> <command>...`; the guard asks the system to kill it when its parent
//! dies and then becomes the command, so no extra process stays. This also holds for servers that are not ours, and after
//! kill -9 of the supervisor. Elsewhere than on Linux the next supervisor removes what the last one left ([`super::state`]).

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// How children are wrapped.
#[derive(Debug, Clone)]
pub enum Guard {
    /// Started as they are (tests).
    None,
    /// `[program, args...]` to which the supervisor's process id and the command are appended.
    Prefix(Vec<OsString>),
}

impl Guard {
    /// `program node guard`
    pub fn of(program: &std::path::Path) -> Self {
        Self::Prefix(vec![program.into(), "node".into(), "guard".into()])
    }

    pub(super) fn wrap(&self, program: &std::path::Path, args: &[OsString]) -> Command {
        let (first, before) = match self {
            Self::Prefix(p) if !p.is_empty() => {
                (p[0].clone(), [&p[1..], &[std::process::id().to_string().into(), program.into()]].concat())
            }
            _ => (program.into(), Vec::new()),
        };
        let mut command = Command::new(first);
        command.args(before).args(args);
        command
    }
}

/// Becomes `command`, bound to the life of `parent`. Returns only when that fails, with one sentence.
pub fn exec(parent: u32, command: &[OsString]) -> String {
    let Some((program, args)) = command.split_first() else {
        return "guard: no command was given".into();
    };
    if let Err(e) = bind_to_parent(parent) {
        return e;
    }
    format!("{} cannot be started: {}", program.to_string_lossy(), Command::new(program).args(args).exec())
}

#[cfg(target_os = "linux")]
fn bind_to_parent(parent: u32) -> Result<(), String> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| format!("guard: the system refuses a parent-death signal ({e})"))?;
    // The parent may have died before the request was made; then nobody would kill us.
    let now = getppid().map(|p| p.as_raw_nonzero().get());
    if now == i32::try_from(parent).ok() { Ok(()) } else { Err("guard: the supervisor is gone".into()) }
}

#[cfg(not(target_os = "linux"))]
fn bind_to_parent(_parent: u32) -> Result<(), String> {
    Ok(())
}
