//! What a run is doing and how far it is.

/// Notes that are kept of a run.
const NOTES_MAX: usize = 20;

/// What a run is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Publishing.
    #[default]
    Running,
    /// The source has nothing more at present.
    Idle,
    /// Paused by somebody, until it is resumed.
    Paused,
    /// Waiting to try again.
    Waiting,
    /// The source has no more.
    Done,
    /// Stopped on request or at `rows_max`.
    Stopped,
}

/// How far a run is; counts are of this run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Newest durable batch.
    pub batch_no: u64,
    /// Rows pulled, good and bad.
    pub rows: u64,
    /// Events the broker took.
    pub accepted: u64,
    /// Events the broker knew already.
    pub duplicates: u64,
    /// Rows put into the dead letters that were not there before.
    pub dead_letters: u64,
    /// Failed tries since the last success.
    pub failures: u32,
    /// The last error.
    pub last_error: Option<String>,
    /// What a person should know and no row is about; the newest 20.
    pub notes: Vec<String>,
}

impl Progress {
    pub(super) fn note(&mut self, note: &str) {
        if self.notes.len() >= NOTES_MAX {
            self.notes.remove(0);
        }
        self.notes.push(note.to_owned());
    }
}
