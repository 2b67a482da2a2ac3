//! What was read within the overlap, so that rows which are read again are told once.
//!
//! A file beside the adapter's dead letters: records of 24 bytes, the row's number in this adapter's life and 16 bytes of a hash
//! over its cursor. A checkpoint holds the number of its last row; what the file knows beyond that was never durable at the
//! broker and is forgotten. Records are on disk before their rows are handed out.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use concordat_protocol::hash::sha256;

const RECORD: usize = 24;
/// Records beyond twice the ones in use that make the file be written anew.
const SLACK: usize = 50_000;

/// A row, by its cursor.
pub(crate) type Mark = [u8; 16];

/// The mark of a row with these cursor values.
pub(crate) fn mark(keyset: &[String]) -> Mark {
    let mut bytes = b"concordat/v1/sql-row\0".to_vec();
    for value in keyset {
        bytes.extend_from_slice(&(value.len() as u64).to_be_bytes());
        bytes.extend_from_slice(value.as_bytes());
    }
    let hash = sha256(&[&bytes]);
    let mut mark = [0; 16];
    mark.copy_from_slice(hash.get(..16).unwrap_or(&[0; 16]));
    mark
}

#[derive(Debug, Clone, Copy)]
struct Known {
    row: u64,
    sweep: u64,
}

/// The rows of the overlap.
#[derive(Debug)]
pub(crate) struct Memory {
    path: PathBuf,
    file: Option<File>,
    known: HashMap<Mark, Known>,
    written: usize,
    sweep: u64,
}

impl Memory {
    /// Opens the file, as far as it belongs to rows up to number `row`.
    pub(crate) fn open(path: &Path, row: u64) -> std::io::Result<Self> {
        let mut memory = Self { path: path.to_owned(), file: None, known: HashMap::new(), written: 0, sweep: 0 };
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(mut file) => drop(file.read_to_end(&mut bytes)?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        for record in bytes.chunks_exact(RECORD) {
            let (number, rest) = record.split_at(8);
            let number = u64::from_be_bytes(number.try_into().unwrap_or_default());
            let mark: Mark = rest.try_into().unwrap_or_default();
            if number <= row {
                memory.known.insert(mark, Known { row: number, sweep: 0 });
            }
        }
        memory.rewrite()?;
        Ok(memory)
    }

    /// Forgets rows after number `row`: they were handed out and never became durable.
    pub(crate) fn rewind(&mut self, row: u64) -> std::io::Result<()> {
        self.known.retain(|_, k| k.row <= row);
        self.rewrite()
    }

    /// True when nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// True when the row was read before; it is kept through this sweep.
    pub(crate) fn knows(&mut self, mark: &Mark) -> bool {
        let sweep = self.sweep;
        self.known.get_mut(mark).map(|k| k.sweep = sweep).is_some()
    }

    /// Keeps new rows, on disk when this returns.
    pub(crate) fn keep(&mut self, rows: &[(u64, Mark)]) -> std::io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(rows.len() * RECORD);
        for (row, mark) in rows {
            bytes.extend_from_slice(&row.to_be_bytes());
            bytes.extend_from_slice(mark);
            self.known.insert(*mark, Known { row: *row, sweep: self.sweep });
        }
        self.written += rows.len();
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?),
        };
        file.write_all(&bytes)?;
        file.sync_data()
    }

    /// A sweep over the whole overlap begins.
    pub(crate) fn begin(&mut self) {
        self.sweep += 1;
    }

    /// It is over: what it did not meet is no longer within the overlap.
    pub(crate) fn end(&mut self) -> std::io::Result<()> {
        let sweep = self.sweep;
        self.known.retain(|_, k| k.sweep == sweep);
        self.tidy()
    }

    /// Rows up to number `row` are no longer within the overlap.
    pub(crate) fn forget(&mut self, row: u64) -> std::io::Result<()> {
        self.known.retain(|_, k| k.row > row);
        self.tidy()
    }

    fn tidy(&mut self) -> std::io::Result<()> {
        if self.written > 2 * self.known.len() + SLACK { self.rewrite() } else { Ok(()) }
    }

    fn rewrite(&mut self) -> std::io::Result<()> {
        self.file = None;
        let beside = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        let mut bytes = Vec::with_capacity(self.known.len() * RECORD);
        for (mark, known) in &self.known {
            bytes.extend_from_slice(&known.row.to_be_bytes());
            bytes.extend_from_slice(mark);
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
        std::fs::rename(&beside, &self.path)?;
        self.written = self.known.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn m(n: u64) -> Mark {
        mark(&[n.to_string()])
    }

    #[test]
    fn what_was_not_durable_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.seen");
        let mut memory = Memory::open(&path, 0).unwrap();
        memory.keep(&[(1, m(1)), (2, m(2)), (3, m(3))]).unwrap();
        let mut again = Memory::open(&path, 2).unwrap();
        assert!(again.knows(&m(1)) && again.knows(&m(2)) && !again.knows(&m(3)));
        again.rewind(1).unwrap();
        assert!(!again.knows(&m(2)));
        again.keep(&[(2, m(9))]).unwrap();
        let mut last = Memory::open(&path, 9).unwrap();
        assert!(last.knows(&m(1)) && last.knows(&m(9)) && !last.knows(&m(2)));
    }

    #[test]
    fn a_torn_record_is_none_and_a_sweep_forgets_what_left_the_overlap() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.seen");
        let mut memory = Memory::open(&path, 0).unwrap();
        memory.keep(&[(1, m(1)), (2, m(2))]).unwrap();
        std::fs::write(&path, &std::fs::read(&path).unwrap()[..RECORD + 5]).unwrap();
        let mut memory = Memory::open(&path, 9).unwrap();
        assert!(memory.knows(&m(1)) && !memory.knows(&m(2)));
        memory.keep(&[(2, m(2))]).unwrap();
        memory.begin();
        assert!(memory.knows(&m(2)));
        memory.end().unwrap();
        assert!(!memory.knows(&m(1)) && memory.knows(&m(2)));
    }

    #[test]
    fn marks_do_not_run_together() {
        assert_ne!(mark(&["a".into(), "bc".into()]), mark(&["ab".into(), "c".into()]));
    }
}
