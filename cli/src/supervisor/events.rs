//! What the supervisor's core hears, says and shows.

/// Milliseconds of a monotonic clock.
pub type Ms = u64;

/// Times and bounds of the supervisor, milliseconds where not said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// First pause before a restart.
    pub backoff_first: Ms,
    /// Longest pause before a restart.
    pub backoff_max: Ms,
    /// How long a unit must be up for its next pause to be the first again.
    pub healthy_after: Ms,
    /// How long the next unit waits for an earlier one at the first start.
    pub order_wait: Ms,
    /// How long a process may be unhealthy before its unit is restarted.
    pub unhealthy_after: Ms,
    /// How long all processes together may take to stop before they are killed.
    pub stop_within: Ms,
    /// How long one process may take to stop before the next is told to.
    pub stop_step: Ms,
    /// How long the height may stand still while peers' heights grow.
    pub frozen_after: Ms,
    /// By how many blocks peers must be ahead.
    pub frozen_behind: u64,
    /// How long after a failure of consensus an exit of its unit still explains it.
    pub wound_wait: Ms,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            backoff_first: 250,
            backoff_max: 10_000,
            healthy_after: 30_000,
            order_wait: 10_000,
            unhealthy_after: 30_000,
            stop_within: 10_000,
            stop_step: 2_000,
            frozen_after: 20_000,
            frozen_behind: 3,
            wound_wait: 5_000,
        }
    }
}

/// What a line of a process's log tells the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// This node computed another state than the others: it must not be restarted.
    StateDiffers,
    /// Consensus stopped for another reason (often its application just died).
    ConsensusStopped,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Start everything.
    Begin,
    /// A process runs.
    Started {
        /// Process number.
        proc: usize,
        /// Its system id.
        pid: u32,
    },
    /// A process could not be started.
    SpawnFailed {
        /// Process number.
        proc: usize,
        /// Why.
        why: String,
    },
    /// A process listens where it should.
    Ready {
        /// Process number.
        proc: usize,
    },
    /// A process ended, with "exit code 0", "signal 9".
    Exited {
        /// Process number.
        proc: usize,
        /// How.
        how: String,
    },
    /// A process was asked whether it is well.
    Health {
        /// Process number.
        proc: usize,
        /// Whether it answered well.
        ok: bool,
    },
    /// The node's own height and the highest of its peers, when known.
    Heights {
        /// Process number of CometBFT.
        proc: usize,
        /// Own height.
        own: u64,
        /// Highest height of a connected peer, when asked for.
        peers: Option<u64>,
        /// Whether it is fetching old blocks.
        catching_up: bool,
    },
    /// A line in a log.
    Found {
        /// Process number.
        proc: usize,
        /// What it means.
        finding: Finding,
        /// The line, cut.
        line: String,
    },
    /// Stop everything.
    Stop,
    /// Time passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start a process and watch for its readiness.
    Spawn(usize),
    /// Signal a process: SIGTERM, or SIGKILL when `hard`.
    Kill {
        /// Process number.
        proc: usize,
        /// SIGKILL.
        hard: bool,
    },
    /// Note durably that a unit must not be started again; an operator removes the note.
    KeepHalted(String),
    /// Tell the operator.
    Alarm(String),
    /// All processes are gone after [`Event::Stop`].
    Done,
}

/// State of a process as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    /// Not started yet.
    Waiting,
    /// Runs, does not listen yet.
    Starting,
    /// Runs and listens.
    Up,
    /// Ended; will be started again after a pause.
    Backoff,
    /// Told to stop.
    Stopping,
    /// Ended for good.
    Stopped,
    /// Belongs to a node that disagrees with the chain: stays as it is.
    Halted,
}
