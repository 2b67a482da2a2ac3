//! Decisions of the supervisor, without processes and without a clock: `(now, event) -> effects`.
//!
//! Processes come in *units*. A unit's members start in order, each when the one before is ready, and live and die together:
//! when one exits the others are killed and all start again after a pause that doubles. A unit whose node disagrees with the
//! chain is *halted*: it is never started again by itself, because a wrong state does not heal by a restart.

use std::collections::BTreeMap;

pub use super::events::{Effect, Event, Finding, Ms, Rules, Shown};

#[derive(Debug, Clone, PartialEq, Eq)]
enum UnitState {
    Idle,
    Starting { since: Ms },
    Up { since: Ms },
    Draining,
    Backoff { until: Ms },
}

#[derive(Debug)]
struct Unit {
    members: Vec<usize>,
    state: UnitState,
    tries: u32,
    halted: Option<String>,
    /// Height stands still: a halt that ends when the height grows again.
    frozen: bool,
    wound: Option<(Ms, String)>,
    height: Option<(u64, Ms)>,
}

#[derive(Debug, Default)]
struct Proc {
    unit: usize,
    pid: Option<u32>,
    ready: bool,
    starts: u64,
    last_exit: Option<String>,
    bad_since: Option<Ms>,
    told: bool,
}

/// The supervisor's state.
#[derive(Debug)]
pub struct Core {
    rules: Rules,
    units: Vec<Unit>,
    procs: Vec<Proc>,
    stopping: Option<Ms>,
    stop_told_at: Ms,
    stop_hard: bool,
    done: bool,
}

impl Core {
    /// `units` lists process numbers, which run from 0 without gaps. `halted` names units that a note keeps from starting.
    pub fn new(rules: Rules, units: &[Vec<usize>], halted: &BTreeMap<usize, String>) -> Self {
        let mut procs: Vec<Proc> = (0..units.iter().map(Vec::len).sum()).map(|_| Proc::default()).collect();
        for (u, members) in units.iter().enumerate() {
            for &p in members {
                if let Some(proc) = procs.get_mut(p) {
                    proc.unit = u;
                }
            }
        }
        let unit = |(u, members): (usize, &Vec<usize>)| Unit {
            members: members.clone(),
            state: UnitState::Idle,
            tries: 0,
            halted: halted.get(&u).cloned(),
            frozen: false,
            wound: None,
            height: None,
        };
        Self {
            rules,
            units: units.iter().enumerate().map(unit).collect(),
            procs,
            stopping: None,
            stop_told_at: 0,
            stop_hard: false,
            done: false,
        }
    }

    /// Takes one event at `now` and says what to do.
    pub fn step(&mut self, now: Ms, event: Event) -> Vec<Effect> {
        let mut fx = Vec::new();
        match event {
            Event::Begin | Event::Tick => {}
            Event::Started { proc, pid } => {
                if let Some(p) = self.procs.get_mut(proc) {
                    (p.pid, p.ready, p.bad_since, p.told) = (Some(pid), false, None, false);
                }
            }
            Event::SpawnFailed { proc, why } => self.gone(now, proc, format!("not started: {why}"), &mut fx),
            Event::Exited { proc, how } => self.gone(now, proc, how, &mut fx),
            Event::Ready { proc } => self.ready(now, proc, &mut fx),
            Event::Health { proc, ok } => self.health(now, proc, ok),
            Event::Heights { proc, own, peers, catching_up } => {
                self.heights(now, proc, own, peers, catching_up, &mut fx)
            }
            Event::Found { proc, finding, line } => self.found(now, proc, finding, line, &mut fx),
            Event::Stop => {
                self.stopping.get_or_insert(now);
            }
        }
        if self.stopping.is_some() {
            self.stop(now, &mut fx)
        } else {
            self.advance(now, &mut fx)
        }
        fx
    }

    fn gone(&mut self, now: Ms, proc: usize, how: String, fx: &mut Vec<Effect>) {
        let Some(p) = self.procs.get_mut(proc) else { return };
        (p.pid, p.ready, p.bad_since, p.last_exit) = (None, false, None, Some(how));
        let u = p.unit;
        let alive: Vec<usize> =
            self.units[u].members.iter().copied().filter(|&m| self.procs[m].pid.is_some()).collect();
        let unit = &mut self.units[u];
        unit.wound = None;
        if self.stopping.is_some() || unit.halted.is_some() {
            return;
        }
        if let UnitState::Up { since } = unit.state
            && now.saturating_sub(since) >= self.rules.healthy_after
        {
            unit.tries = 0;
        }
        if alive.is_empty() {
            let pause = self.rules.backoff_first.saturating_mul(1 << unit.tries.min(20)).min(self.rules.backoff_max);
            unit.tries = unit.tries.saturating_add(1);
            unit.state = UnitState::Backoff { until: now + pause };
        } else if unit.state != UnitState::Draining {
            // Killed at once: each of them is built to survive it, and a gentle stop can hang on the one that is gone.
            unit.state = UnitState::Draining;
            fx.extend(alive.into_iter().map(|proc| Effect::Kill { proc, hard: true }));
        }
    }

    fn ready(&mut self, now: Ms, proc: usize, fx: &mut Vec<Effect>) {
        let Some(p) = self.procs.get_mut(proc).filter(|p| p.pid.is_some()) else { return };
        p.ready = true;
        let unit = &mut self.units[p.unit];
        if self.stopping.is_some() || !matches!(unit.state, UnitState::Starting { .. }) {
            return;
        }
        match unit.members.iter().position(|&m| m == proc).and_then(|i| unit.members.get(i + 1)) {
            Some(&next) => self.spawn(next, fx),
            None => {
                unit.state = UnitState::Up { since: now };
                unit.height = unit.height.map(|(h, _)| (h, now));
            }
        }
    }

    fn spawn(&mut self, proc: usize, fx: &mut Vec<Effect>) {
        self.procs[proc].starts += 1;
        fx.push(Effect::Spawn(proc));
    }

    fn health(&mut self, now: Ms, proc: usize, ok: bool) {
        if let Some(p) = self.procs.get_mut(proc).filter(|p| p.ready) {
            p.bad_since = if ok { None } else { p.bad_since.or(Some(now)) };
        }
    }

    fn heights(&mut self, now: Ms, proc: usize, own: u64, peers: Option<u64>, catching_up: bool, fx: &mut Vec<Effect>) {
        let Some(u) = self.procs.get(proc).map(|p| p.unit) else { return };
        let unit = &mut self.units[u];
        let since = match unit.height {
            Some((h, since)) if own <= h && !catching_up => since,
            _ => now,
        };
        unit.height = Some((own, since));
        if unit.frozen && since == now {
            (unit.frozen, unit.halted) = (false, None);
            fx.push(Effect::Alarm(format!("height grows again ({own})")));
        }
        let ahead = peers.is_some_and(|p| p >= own + self.rules.frozen_behind);
        if unit.halted.is_none() && ahead && now.saturating_sub(since) >= self.rules.frozen_after {
            let reason = format!(
                "height stands at {own} while peers are at {}: compare app hashes before a restart",
                peers.unwrap_or_default()
            );
            unit.frozen = true;
            self.halt(u, reason, false, fx);
        }
    }

    fn found(&mut self, now: Ms, proc: usize, finding: Finding, line: String, fx: &mut Vec<Effect>) {
        let Some(u) = self.procs.get(proc).map(|p| p.unit) else { return };
        match finding {
            Finding::StateDiffers => {
                self.halt(u, format!("this node's state differs from the chain's: {line}"), true, fx)
            }
            Finding::ConsensusStopped if self.stopping.is_none() && self.procs[proc].pid.is_some() => {
                self.units[u].wound.get_or_insert((now, line));
            }
            Finding::ConsensusStopped => {}
        }
    }

    fn halt(&mut self, u: usize, reason: String, keep: bool, fx: &mut Vec<Effect>) {
        if self.units[u].halted.is_some() && !self.units[u].frozen {
            return;
        }
        if keep {
            self.units[u].frozen = false;
            fx.push(Effect::KeepHalted(reason.clone()));
        }
        fx.push(Effect::Alarm(reason.clone()));
        self.units[u].halted = Some(reason);
    }

    /// What time alone brings about.
    fn advance(&mut self, now: Ms, fx: &mut Vec<Effect>) {
        for u in 0..self.units.len() {
            if let Some((since, line)) = self.units[u].wound.clone()
                && now.saturating_sub(since) >= self.rules.wound_wait
            {
                self.units[u].wound = None;
                self.halt(u, format!("consensus stopped: {line}"), false, fx);
            }
            self.restart_unhealthy(now, u, fx);
            let start = match self.units[u].state {
                UnitState::Backoff { until } => now >= until,
                UnitState::Idle => self.units[..u].iter().all(|before| match before.state {
                    UnitState::Starting { since } => now.saturating_sub(since) >= self.rules.order_wait,
                    UnitState::Idle => before.halted.is_some(),
                    _ => true,
                }),
                _ => false,
            };
            if start && self.units[u].halted.is_none() {
                self.units[u].state = UnitState::Starting { since: now };
                if let Some(&first) = self.units[u].members.first() {
                    self.spawn(first, fx);
                }
            }
        }
    }

    fn restart_unhealthy(&mut self, now: Ms, u: usize, fx: &mut Vec<Effect>) {
        if self.units[u].halted.is_some() || !matches!(self.units[u].state, UnitState::Up { .. }) {
            return;
        }
        for &m in &self.units[u].members {
            if self.procs[m].bad_since.is_some_and(|s| now.saturating_sub(s) >= self.rules.unhealthy_after) {
                self.procs[m].bad_since = None;
                fx.push(Effect::Kill { proc: m, hard: true });
            }
        }
    }

    /// Tells one process after the other to stop, the last started first; at the deadline kills what is left.
    fn stop(&mut self, now: Ms, fx: &mut Vec<Effect>) {
        let began = self.stopping.unwrap_or(now);
        let alive: Vec<usize> = self
            .units
            .iter()
            .rev()
            .flat_map(|u| u.members.iter().rev().copied())
            .filter(|&p| self.procs[p].pid.is_some())
            .collect();
        if alive.is_empty() {
            if !self.done {
                self.done = true;
                fx.push(Effect::Done);
            }
            return;
        }
        if now.saturating_sub(began) >= self.rules.stop_within {
            if !self.stop_hard {
                self.stop_hard = true;
                fx.extend(alive.into_iter().map(|proc| Effect::Kill { proc, hard: true }));
            }
            return;
        }
        let waiting =
            alive.iter().any(|&p| self.procs[p].told) && now.saturating_sub(self.stop_told_at) < self.rules.stop_step;
        if let Some(&proc) = alive.iter().find(|&&p| !self.procs[p].told)
            && !waiting
        {
            self.procs[proc].told = true;
            self.stop_told_at = now;
            fx.push(Effect::Kill { proc, hard: false });
        }
    }

    /// State, system id, number of restarts and last exit of a process, to be shown.
    pub fn show(&self, proc: usize) -> (Shown, Option<u32>, u64, Option<&str>) {
        let p = &self.procs[proc];
        let unit = &self.units[p.unit];
        let shown = match (&unit.state, p.pid) {
            _ if self.stopping.is_some() => {
                if p.pid.is_some() {
                    Shown::Stopping
                } else {
                    Shown::Stopped
                }
            }
            _ if unit.halted.is_some() => Shown::Halted,
            (UnitState::Idle, _) => Shown::Waiting,
            (UnitState::Draining | UnitState::Backoff { .. }, _) => Shown::Backoff,
            (_, Some(_)) if p.ready => Shown::Up,
            (_, Some(_)) => Shown::Starting,
            (_, None) => Shown::Waiting,
        };
        (shown, p.pid, p.starts.saturating_sub(1), p.last_exit.as_deref())
    }

    /// Why units are halted.
    pub fn halted(&self) -> Vec<String> {
        self.units.iter().filter_map(|u| u.halted.clone()).collect()
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
