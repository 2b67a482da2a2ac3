//! Where an adapter stood, kept beside the stream for the day when every envelope in it is past its time.
//!
//! The newest envelope is the truth as long as there is one. This note is written every few seconds, and is looked at
//! only when the stream is empty: then it is older than the stream's retention, not seconds.

use super::envelope::Head;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use concordat_protocol::message::SourceState;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::warn;

/// How often a changed note is written.
const EVERY: Duration = Duration::from_secs(5);

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    /// Sequence number of the next message.
    pub next_seq: u64,
    /// Where the adapter stood.
    pub source: SourceState,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    v: u8,
    next_seq: u64,
    adapter: String,
    batch_no: u64,
    checkpoint: String,
}

/// The note of one dataset. Cheap to clone.
#[derive(Clone)]
pub(super) struct Kept {
    path: PathBuf,
    newest: Arc<Mutex<Option<Note>>>,
}

impl Kept {
    /// The note in this file.
    pub fn new(path: PathBuf) -> Self {
        Self { path, newest: Arc::default() }
    }

    /// What is durable now.
    pub fn note(&self, head: &Head) {
        let note = Note { next_seq: head.next_seq, source: head.source.clone() };
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(note);
    }

    /// The note, if there is one that can be read.
    pub fn read(&self) -> Option<Note> {
        let text = std::fs::read(&self.path).ok()?;
        let file: File = serde_json::from_slice(&text).ok().filter(|f: &File| f.v == 1)?;
        let checkpoint = STANDARD.decode(&file.checkpoint).ok()?.into();
        let source = SourceState { adapter: file.adapter, batch_no: file.batch_no, checkpoint };
        Some(Note { next_seq: file.next_seq, source })
    }

    fn write(path: &Path, note: &Note) -> std::io::Result<()> {
        let SourceState { adapter, batch_no, checkpoint } = &note.source;
        let file = File {
            v: 1,
            next_seq: note.next_seq,
            adapter: adapter.clone(),
            batch_no: *batch_no,
            checkpoint: STANDARD.encode(&checkpoint.0),
        };
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let beside = path.with_extension("tmp");
        std::fs::write(&beside, serde_json::to_vec(&file)?)?;
        std::fs::rename(beside, path)
    }

    /// Writes what changed. Blocking.
    pub fn flush(&self) {
        let Some(note) = self.newest.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        if let Err(e) = Self::write(&self.path, &note) {
            warn!(path = %self.path.display(), error = %e, "the place of an adapter was not noted");
        }
    }

    /// Writes every few seconds what changed, as long as the process lives.
    pub async fn keep(self) {
        loop {
            tokio::time::sleep(EVERY).await;
            let kept = self.clone();
            let _ = tokio::task::spawn_blocking(move || kept.flush()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_a_bad_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(dir.path().join("sub/load.json"));
        assert_eq!(kept.read(), None);
        let source = SourceState { adapter: "load".into(), batch_no: 7, checkpoint: vec![1, 255].into() };
        let head = Head { next_seq: 42, source: source.clone(), ..Head::empty() };
        kept.note(&head);
        kept.flush();
        assert_eq!(kept.read(), Some(Note { next_seq: 42, source }));
        std::fs::write(dir.path().join("sub/load.json"), b"{").unwrap();
        kept.flush();
        assert_eq!(kept.read(), None, "nothing new was to be written");
    }
}
