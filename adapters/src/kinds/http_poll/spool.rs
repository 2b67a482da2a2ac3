//! Answers that are not durable elsewhere yet, and what was published before.
//!
//! A service does not give the same answer twice, but a restart must. So an answer is kept as a file before anything of
//! it is handed out, and goes when all of it is durable. What was published is remembered by a fingerprint of its id and
//! fields: what a service lists again and again is published once, and again when it changed.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use concordat_protocol::hash::sha256;
use serde::{Deserialize, Serialize};

use super::paging::Ask;
use crate::contract::{AdapterError, Record};

/// Fingerprints that are remembered; the ones that were not listed for longest go first.
const SEEN_MAX: usize = 500_000;
const ENTRY_BYTES: usize = 16;

type Print = [u8; 8];

/// The fingerprint of a record: its id and its fields.
pub fn print(record: &Record) -> Print {
    let data = serde_json::to_vec(&record.data).unwrap_or_default();
    let hash = sha256(&[record.id.as_bytes(), &data]);
    let mut out = [0; 8];
    out.iter_mut().zip(hash).for_each(|(o, h)| *o = h);
    out
}

/// What is kept beside an answer's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Number of the answer, from 1.
    pub unit: u64,
    /// The question after it.
    pub ask: Ask,
    /// Where its round began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// The folder of one adapter.
pub struct Spool {
    folder: PathBuf,
    /// By fingerprint: the answer that first had it, and the one that had it last.
    seen: HashMap<Print, (u64, u64)>,
    /// Answers up to this one are in the file of fingerprints.
    kept: u64,
}

fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> AdapterError {
    let file = path.display().to_string();
    move |source| AdapterError::Io { file, action, source }
}

impl Spool {
    /// Opens or makes the folder; only its owner may read it.
    pub fn open(folder: &Path) -> Result<Self, AdapterError> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder).map_err(io(folder, "make"))?;
        let mut spool = Self { folder: folder.to_owned(), seen: HashMap::new(), kept: 0 };
        spool.load()?;
        Ok(spool)
    }

    /// Forgets everything: the source is read from its start.
    pub fn reset(&mut self) -> Result<(), AdapterError> {
        let path = self.seen_path();
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(&path, "remove")(e)),
            _ => {}
        }
        self.seen.clear();
        self.kept = 0;
        self.remove_before(u64::MAX)
    }

    fn unit_path(&self, unit: u64) -> PathBuf {
        self.folder.join(format!("answer-{unit:020}"))
    }

    fn seen_path(&self) -> PathBuf {
        self.folder.join("seen")
    }

    fn load(&mut self) -> Result<(), AdapterError> {
        let path = self.seen_path();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(io(&path, "read")(e)),
        };
        // A torn entry at the end is of an answer that comes again.
        for entry in bytes.chunks_exact(ENTRY_BYTES) {
            let (print, unit) = entry.split_at(8);
            if let (Ok(print), Ok(unit)) = (Print::try_from(print), <[u8; 8]>::try_from(unit)) {
                let unit = u64::from_be_bytes(unit);
                self.seen.insert(print, (unit, unit));
                self.kept = self.kept.max(unit);
            }
        }
        Ok(())
    }

    /// Answers up to this one are written down as published.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Keeps an answer durably.
    pub fn put(&self, head: &Head, body: &[u8]) -> Result<(), AdapterError> {
        let path = self.unit_path(head.unit);
        let beside = path.with_extension("part");
        let mut bytes = serde_json::to_vec(head).map_err(|e| io(&path, "write")(e.into()))?;
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside);
        let written = file.and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_data()?;
            std::fs::rename(&beside, &path)?;
            File::open(&self.folder)?.sync_all()
        });
        written.map_err(io(&path, "write"))
    }

    /// An answer that was kept; none when it is not here any more.
    pub fn get(&self, unit: u64) -> Result<Option<(Head, Vec<u8>)>, AdapterError> {
        let path = self.unit_path(unit);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|mut f| f.read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(&path, "read")(e)),
        }
        let end = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
        let head: Option<Head> = bytes.get(..end).and_then(|head| serde_json::from_slice(head).ok());
        let Some(head) = head.filter(|head| head.unit == unit) else {
            // Written whole or not at all: someone else's file.
            let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is none of this adapter");
            return Err(io(&path, "read")(source));
        };
        bytes.drain(..(end + 1).min(bytes.len()));
        Ok(Some((head, bytes)))
    }

    /// True when a record of answer `unit` was published by an earlier one. It is remembered as listed.
    pub fn known(&mut self, unit: u64, print: Print) -> bool {
        let entry = self.seen.entry(print).or_insert((unit, unit));
        entry.1 = entry.1.max(unit);
        entry.0 < unit
    }

    /// Everything before answer `unit` is durable: its files go, its fingerprints stay.
    pub fn durable(&mut self, unit: u64) -> Result<(), AdapterError> {
        let newest = unit.saturating_sub(1);
        if newest <= self.kept {
            return Ok(());
        }
        let path = self.seen_path();
        if self.seen.len() > SEEN_MAX {
            self.forget();
            self.rewrite(newest)?;
        } else {
            let fresh: Vec<u8> = self
                .seen
                .iter()
                .filter(|(_, (first, _))| *first > self.kept && *first <= newest)
                .flat_map(|(print, (first, _))| [*print, first.to_be_bytes()].concat())
                .collect();
            let mut options = OpenOptions::new();
            let file = options.append(true).create(true).mode(0o600).open(&path);
            let written = file.and_then(|mut file| {
                // An entry that a crash tore is completed to a whole one, which matches nothing.
                let torn = file.metadata()?.len() as usize % ENTRY_BYTES;
                if torn != 0 {
                    file.set_len(file.metadata()?.len() - torn as u64)?;
                }
                file.write_all(&fresh)?;
                file.sync_data()
            });
            written.map_err(io(&path, "write"))?;
        }
        self.remove_before(unit)?;
        self.kept = newest;
        Ok(())
    }

    fn forget(&mut self) {
        let mut last: Vec<u64> = self.seen.values().map(|(_, last)| *last).collect();
        last.sort_unstable();
        let bound = last.get(last.len().saturating_sub(SEEN_MAX / 2)).copied().unwrap_or(0);
        self.seen.retain(|_, (_, last)| *last >= bound);
    }

    fn rewrite(&self, newest: u64) -> Result<(), AdapterError> {
        let (path, beside) = (self.seen_path(), self.folder.join("seen.part"));
        let bytes: Vec<u8> = self
            .seen
            .iter()
            .filter(|(_, (first, _))| *first <= newest)
            .flat_map(|(print, (first, _))| [*print, first.to_be_bytes()].concat())
            .collect();
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside);
        let written = file.and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_data()?;
            std::fs::rename(&beside, &path)
        });
        written.map_err(io(&path, "write"))
    }

    fn remove_before(&self, unit: u64) -> Result<(), AdapterError> {
        let first = self.unit_path(unit);
        for entry in std::fs::read_dir(&self.folder).map_err(io(&self.folder, "list"))? {
            let path = entry.map_err(io(&self.folder, "list"))?.path();
            let ours = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("answer-"));
            if ours && path < first {
                std::fs::remove_file(&path).map_err(io(&path, "remove"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn head(unit: u64) -> Head {
        Head { unit, ask: Ask { pages: 1, at: Some("x".into()), ..Ask::default() }, since: None }
    }

    #[test]
    fn an_answer_stays_until_it_is_durable_and_its_prints_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("state");
        let mut spool = Spool::open(&folder).unwrap();
        spool.put(&head(1), b"one\ntwo").unwrap();
        assert!(!spool.known(1, [1; 8]));
        assert!(!spool.known(1, [1; 8]), "the answer itself is no earlier one: it may be read again");
        assert!(spool.known(2, [1; 8]));
        assert_eq!(spool.get(1).unwrap(), Some((head(1), b"one\ntwo".to_vec())));
        assert_eq!(spool.get(2).unwrap(), None);
        // A crash: the answer is there, its prints are not, and come from reading it again.
        let mut spool = Spool::open(&folder).unwrap();
        assert!(!spool.known(1, [1; 8]));
        spool.durable(2).unwrap();
        assert_eq!(spool.get(1).unwrap(), None);
        let mut spool = Spool::open(&folder).unwrap();
        assert!(spool.known(2, [1; 8]) && !spool.known(2, [2; 8]));
    }

    #[test]
    fn a_torn_entry_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        spool.known(1, [1; 8]);
        spool.durable(2).unwrap();
        let path = dir.path().join("seen");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(&[9; 5]);
        std::fs::write(&path, bytes).unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        spool.known(2, [2; 8]);
        spool.durable(3).unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        assert!(spool.known(3, [1; 8]) && spool.known(3, [2; 8]));
    }

    #[test]
    fn only_the_owner_may_look() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("state");
        Spool::open(&folder).unwrap().put(&head(1), b"x").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("answer-00000000000000000001"))), (0o700, 0o600));
    }
}
