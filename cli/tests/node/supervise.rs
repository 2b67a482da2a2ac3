//! Processes that die, are killed, refuse to stop, or are left behind.

use std::process::Command;

use concordat_cli::supervisor::core::Shown;
use concordat_cli::supervisor::{self, ProcessId, State};

use super::helpers::{kill9, supervise, supervisor_command, wait_for};

fn ids(state: &State) -> Vec<ProcessId> {
    state.processes.iter().map(|p| p.process.unwrap()).collect()
}

fn up(dir: &std::path::Path) -> Vec<ProcessId> {
    let state = wait_for("all processes up", || State::read(dir).filter(|s| s.all_up() && s.supervisor.alive()));
    ids(&state)
}

#[test]
fn a_process_that_ends_with_code_zero_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let s = supervise(dir.path(), "zero", true).unwrap();
    wait_for("four runs", || {
        let runs = std::fs::read_to_string(dir.path().join("count")).unwrap_or_default();
        (runs.lines().count() >= 4).then_some(())
    });
    let state = wait_for("restarts in the state", || State::read(&s.dir).filter(|s| s.processes[0].restarts >= 3));
    assert_eq!(state.processes[0].last_exit.as_deref(), Some("exit code 0"));
}

#[test]
fn a_killed_member_takes_its_unit_along_and_both_come_back_while_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let _s = supervise(dir.path(), "pair", true).unwrap();
    let before = up(dir.path());
    kill9(before[0].pid);
    let after = wait_for("new processes", || {
        let state = State::read(dir.path()).filter(|s| s.all_up())?;
        (ids(&state)[0] != before[0]).then(|| ids(&state))
    });
    assert_ne!(after[1], before[1]);
    assert_eq!(after[2], before[2]);
    assert!(before[..2].iter().all(|p| !p.alive()));
}

#[test]
fn stop_leaves_no_process_not_even_a_grandchild() {
    let dir = tempfile::tempdir().unwrap();
    let s = supervise(dir.path(), "pair", true).unwrap();
    let members = up(dir.path());
    // Every child has a group of its own, named like the child.
    let in_groups = || {
        let out = Command::new("ps").args(["-eo", "pgid,stat"]).output().unwrap();
        let table = String::from_utf8(out.stdout).unwrap();
        let mine = |l: &&str| {
            let mut columns = l.split_whitespace();
            let group = columns.next().and_then(|g| g.parse::<u32>().ok());
            members.iter().any(|m| Some(m.pid) == group) && !columns.next().unwrap_or("Z").starts_with('Z')
        };
        table.lines().filter(mine).count()
    };
    assert!(in_groups() >= 3);
    assert!(supervisor::stop(&s.dir).unwrap());
    assert_eq!(in_groups(), 0);
    let status = supervisor::status(&s.dir);
    assert!(!status.running);
    assert!(status.state.unwrap().processes.iter().all(|p| p.state == Shown::Stopped));
    assert!(!supervisor::stop(&s.dir).unwrap(), "a second stop finds nothing to do");
}

#[test]
fn a_process_that_ignores_sigterm_is_killed_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let s = supervise(dir.path(), "stubborn", true).unwrap();
    let members = up(dir.path());
    let log = dir.path().join("logs/stubborn.log");
    wait_for("its output in its log", || std::fs::read_to_string(&log).ok().filter(|t| t.contains("armed")));
    assert!(supervisor::stop(&s.dir).unwrap());
    assert!(!members[0].alive());
    assert_eq!(State::read(&s.dir).unwrap().processes[0].last_exit.as_deref(), Some("signal 9"));
}

#[test]
fn a_second_supervisor_of_a_folder_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let _s = supervise(dir.path(), "pair", true).unwrap();
    let members = up(dir.path());
    let Err(e) = supervise(dir.path(), "pair", true) else { panic!("two supervisors run") };
    assert_eq!(e.code(), "supervisor-running");
    // Also without that first look, by the lock alone.
    let direct = supervisor_command(dir.path(), "pair", true).output().unwrap();
    let said = String::from_utf8_lossy(&direct.stderr).into_owned();
    assert!(!direct.status.success() && said.contains("already supervised"), "{said}");
    assert_eq!(up(dir.path()), members, "and the first is untouched");
}

#[test]
fn children_die_with_a_killed_supervisor() {
    let dir = tempfile::tempdir().unwrap();
    let _s = supervise(dir.path(), "plain", true).unwrap();
    let members = up(dir.path());
    kill9(State::read(dir.path()).unwrap().supervisor.pid);
    wait_for("the end of all children", || members.iter().all(|m| !m.alive()).then_some(()));
    assert!(!supervisor::status(dir.path()).running);
}

#[test]
fn what_a_killed_supervisor_left_is_removed_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let _first = supervise(dir.path(), "pair", false).unwrap();
    let left = up(dir.path());
    kill9(State::read(dir.path()).unwrap().supervisor.pid);
    wait_for("the end of the supervisor", || (!supervisor::status(dir.path()).running).then_some(()));
    assert!(left.iter().all(|m| m.alive()), "without a guard they live on");
    let _second = supervise(dir.path(), "pair", true).unwrap();
    let members = up(dir.path());
    assert!(left.iter().all(|m| !m.alive()));
    assert!(members.iter().all(|m| m.alive()));
}

#[test]
fn stop_of_a_folder_that_nobody_supervises_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!supervisor::stop(dir.path()).unwrap());
    assert!(supervisor::status(dir.path()).state.is_none());
}

#[test]
fn what_does_not_come_up_is_named_with_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let s = supervise(dir.path(), "broken", true).unwrap();
    let log = dir.path().join("logs/broken.log");
    wait_for("its words", || std::fs::read_to_string(&log).ok().filter(|t| t.contains("no key")));
    let e = supervisor::wait_up(&s.dir, std::time::Duration::ZERO).unwrap_err();
    assert_eq!(e.code(), "supervisor-not-up");
    assert!(e.to_string().contains("broken") && e.to_string().contains("no key in keys/"), "{e}");
}
