//! What a running adapter says of itself, in a small file beside its dead letters: `<adapter>.status.json`. It is for
//! people and metrics; where an adapter goes on is the broker's to say.

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::contract::AdapterError;
use crate::dead_letter::DeadLetter;

/// Dead letters of one adapter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadCounts {
    /// All that are kept.
    pub total: u64,
    /// By class of the rule that was broken: `time`, `number`, `csv`, `field`, `text`, `boolean`, `broker`.
    pub by_class: BTreeMap<String, u64>,
}

/// How the last run of an adapter does, or did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Version of this file, 1.
    pub v: u8,
    /// Name of the adapter.
    pub adapter: String,
    /// Dataset id.
    pub dataset: String,
    /// `running`, `idle`, `paused`, `waiting`, `done`, `stopped` or `failed`.
    pub phase: String,
    /// When the run began, RFC 3339.
    pub started_at: String,
    /// When this was written, RFC 3339: a run writes it every second or so, whatever it does.
    pub updated_at: String,
    /// `max`, or rows per second.
    pub pace: String,
    /// Newest durable batch.
    pub batch_no: u64,
    /// Rows of this run that are durable or dead letters.
    pub rows: u64,
    /// Events of this run that the broker took.
    pub accepted: u64,
    /// Time of the newest event that is durable, RFC 3339.
    pub newest_event: Option<String>,
    /// Failed tries since the last success.
    pub failures: u32,
    /// The last error.
    pub last_error: Option<String>,
    /// Dead letters, those of former runs included.
    pub dead_letters: DeadCounts,
    /// What a person should know and no row is about; the newest 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The file of an adapter's status below `folder`.
pub fn path(folder: &Path, adapter: &str) -> PathBuf {
    folder.join(format!("{adapter}.status.json"))
}

/// The status of an adapter below `folder`; none when it never ran.
pub fn status(folder: &Path, adapter: &str) -> Result<Option<Status>, AdapterError> {
    let path = path(folder, adapter);
    let failed = |action, source| AdapterError::Io { file: path.display().to_string(), action, source };
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| failed("read", e.into())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("read", e)),
    }
}

/// Writes a status whole or not at all. It is not synced: it is not the truth about anything.
pub(crate) fn write(folder: &Path, status: &Status) -> std::io::Result<()> {
    use std::io::Write;
    let to = path(folder, &status.adapter);
    let beside = to.with_extension("tmp");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec(status)?)?;
    std::fs::rename(beside, to)
}

/// Counts dead letters anew in the status of an adapter that does not run: some left. One that runs counts for itself.
pub(crate) fn recount(folder: &Path, adapter: &str, letters: &[DeadLetter]) {
    let Ok(Some(mut said)) = status(folder, adapter) else { return };
    if !matches!(said.phase.as_str(), "done" | "stopped" | "failed") {
        return;
    }
    said.dead_letters = DeadCounts { total: letters.len() as u64, by_class: BTreeMap::new() };
    for letter in letters {
        *said.dead_letters.by_class.entry(class(&letter.rule).to_owned()).or_default() += 1;
    }
    if let Err(error) = write(folder, &said) {
        tracing::warn!(adapter, %error, "the status was not written");
    }
}

/// The class of a rule: what stands before its first dot.
pub fn class(rule: &str) -> &str {
    rule.split('.').next().unwrap_or(rule)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_status_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(status(dir.path(), "load").unwrap(), None);
        let by_class = BTreeMap::from([(class("time.nonexistent").to_owned(), 1)]);
        let dead_letters = DeadCounts { total: 1, by_class };
        let said = Status { v: 1, adapter: "load".into(), phase: "done".into(), dead_letters, ..Status::default() };
        write(dir.path(), &said).unwrap();
        assert_eq!(status(dir.path(), "load").unwrap(), Some(said));
        std::fs::write(path(dir.path(), "load"), "{").unwrap();
        assert_eq!(status(dir.path(), "load").unwrap_err().code(), "adapter.io");
    }
}
