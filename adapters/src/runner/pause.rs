//! Pausing an adapter while it runs: a small file beside its status, `<adapter>.pause.json`. It stays over restarts.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Phase, Progress, Run};
use crate::contract::{AdapterError, Source};

/// How often a run looks for the file.
pub(super) const EVERY: Duration = Duration::from_millis(250);

/// Who paused an adapter, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paused {
    /// When, RFC 3339.
    pub at: String,
    /// By whom, as the command knows it.
    pub by: String,
}

fn path(folder: &Path, adapter: &str) -> PathBuf {
    folder.join(format!("{adapter}.pause.json"))
}

/// Pauses an adapter: it reads nothing more as soon as it sees this; what is under way is finished. False when it was
/// paused already.
pub fn pause(folder: &Path, adapter: &str, by: &Paused) -> Result<bool, AdapterError> {
    let path = path(folder, adapter);
    let failed = |source| AdapterError::Io { file: path.display().to_string(), action: "write", source };
    if path.exists() {
        return Ok(false);
    }
    let text = serde_json::to_vec(by).map_err(|e| failed(e.into()))?;
    let beside = path.with_extension("tmp");
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside);
    file.and_then(|mut f| std::io::Write::write_all(&mut f, &text)).map_err(failed)?;
    std::fs::rename(&beside, &path).map_err(failed)?;
    Ok(true)
}

/// Lets an adapter go on. False when it was not paused.
pub fn resume(folder: &Path, adapter: &str) -> Result<bool, AdapterError> {
    let path = path(folder, adapter);
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(AdapterError::Io { file: path.display().to_string(), action: "remove", source }),
    }
}

/// Who paused an adapter, if somebody did. A file that cannot be read pauses too.
pub fn paused(folder: &Path, adapter: &str) -> Option<Paused> {
    let bytes = match std::fs::read(path(folder, adapter)) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(_) => Vec::new(),
    };
    let unknown = || Paused { at: String::new(), by: "unknown".to_owned() };
    Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| unknown()))
}

/// What a run knows of it.
#[derive(Default)]
pub(super) struct Pause {
    pub on: bool,
    seen: Option<Instant>,
}

impl<S: Source, F: FnMut(&Progress) + Send> Run<'_, S, F> {
    /// True while somebody has paused the adapter.
    pub(super) fn paused(&mut self) -> bool {
        if self.pause.seen.is_none_or(|at| at.elapsed() >= EVERY) {
            self.pause.seen = Some(Instant::now());
            let on = path(self.dead.folder(), &self.config.adapter).exists();
            if on != self.pause.on {
                tracing::info!(adapter = %self.config.adapter, "{}", if on { "paused" } else { "resumed" });
                self.pause.on = on;
                if !on {
                    self.progress.phase = Phase::Running;
                    self.wake = None;
                    self.write_status();
                }
            }
        }
        self.pause.on
    }

    /// A moment passed without anything to do.
    pub(super) fn beat(&mut self, landed: bool) {
        if self.pause.on && landed && self.progress.phase != Phase::Paused {
            self.progress.phase = Phase::Paused;
            (self.report)(&self.progress);
            self.write_status();
        }
        self.tell();
    }
}
