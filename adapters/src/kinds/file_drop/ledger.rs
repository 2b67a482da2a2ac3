//! What was read: a file of JSON lines beside the adapter's document, `<adapter>.files.jsonl`. It is written after the
//! broker's acknowledgement, so that the broker's checkpoint is always the newer word of the two.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use concordat_protocol::hash::Hash;
use serde::{Deserialize, Serialize};

use crate::contract::AdapterError;

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum What {
    /// All of its rows are durable.
    Read,
    /// It could not be read: a dead letter says why.
    Failed,
    /// It left the folder, or stays there as one that was read.
    Settled,
    /// It came again with the same bytes.
    Repeated,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub at: String,
    pub what: What,
    pub file: String,
    #[serde(with = "hex::serde")]
    pub sha256: Hash,
    pub rows: u64,
}

/// What is known of a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub file: String,
    pub at: String,
    pub rows: u64,
    pub failed: bool,
    pub settled: bool,
}

/// The files that were read.
pub(super) struct Ledger {
    path: PathBuf,
    known: BTreeMap<Hash, Known>,
}

impl Ledger {
    /// Reads the ledger of an adapter below the node folder. A line torn by a crash is passed over: its file is settled again.
    pub fn open(base: &Path, adapter: &str) -> Result<Self, AdapterError> {
        let path = base.join("adapters").join(format!("{adapter}.files.jsonl"));
        let io = |source| AdapterError::Io { file: path.display().to_string(), action: "read", source };
        let mut known = BTreeMap::new();
        match std::fs::File::open(&path) {
            Ok(file) => {
                for line in BufReader::new(file).lines() {
                    if let Ok(line) = serde_json::from_str(&line.map_err(io)?) {
                        learn(&mut known, &line);
                    }
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(io(e)),
        }
        Ok(Self { path, known })
    }

    /// What is known of these bytes.
    pub fn of(&self, hash: &Hash) -> Option<&Known> {
        self.known.get(hash)
    }

    /// Adds a line and syncs it.
    pub fn add(&mut self, what: What, file: &str, sha256: Hash, rows: u64) -> Result<(), AdapterError> {
        let io = |source| AdapterError::Io { file: self.path.display().to_string(), action: "write", source };
        let at = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let line = Line { at, what, file: file.to_owned(), sha256, rows };
        let mut text = serde_json::to_vec(&line).map_err(|e| io(e.into()))?;
        // In front as well: a torn line before it stays alone.
        text.insert(0, b'\n');
        text.push(b'\n');
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let mut options = std::fs::OpenOptions::new();
        let mut out = options.append(true).create(true).mode(0o600).open(&self.path).map_err(io)?;
        out.write_all(&text).and_then(|()| out.sync_data()).map_err(io)?;
        learn(&mut self.known, &line);
        Ok(())
    }
}

fn learn(known: &mut BTreeMap<Hash, Known>, line: &Line) {
    match line.what {
        What::Read | What::Failed => {
            let failed = line.what == What::Failed;
            let (file, at, rows) = (line.file.clone(), line.at.clone(), line.rows);
            known.insert(line.sha256, Known { file, at, rows, failed, settled: false });
        }
        What::Settled => {
            if let Some(known) = known.get_mut(&line.sha256) {
                known.settled = true;
            }
        }
        What::Repeated => {}
    }
}
