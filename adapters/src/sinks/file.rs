//! Messages as JSON lines in files: appended, synced, rotated by size.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::document::Head;
use super::{Message, Sink};
use crate::contract::{AdapterError, Reject};

const ROTATE_DEFAULT: u64 = 64;
const MIB: u64 = 1024 * 1024;
/// Bytes at the end of a file that are looked through for the last message.
const TAIL_BYTES: u64 = 2 * MIB;

/// Where files are written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct To {
    /// The folder, relative to the node folder.
    pub folder: String,
    /// A file is closed at this size, in MiB; 64 when left out.
    #[serde(default)]
    pub rotate_mib: Option<u64>,
}

/// Opens the sink.
pub fn open(head: &Head, to: &To, base: &Path) -> Result<Box<dyn Sink>, AdapterError> {
    let folder = base.join(&to.folder);
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.map_err(|e| io(&folder, "make", e))?;
    let rotate = to.rotate_mib.unwrap_or(ROTATE_DEFAULT).clamp(1, 1_000_000) * MIB;
    let mut sink = FileSink { folder, name: head.sink.clone(), rotate, file: None, last: None, number: 0 };
    sink.find()?;
    Ok(Box::new(sink))
}

fn io(path: &Path, action: &'static str, source: std::io::Error) -> AdapterError {
    AdapterError::Io { file: path.display().to_string(), action, source }
}

/// `<folder>/<sink>-00000001.jsonl` and so on.
struct FileSink {
    folder: PathBuf,
    name: String,
    rotate: u64,
    file: Option<File>,
    /// The last message that was written, while a page that holds it may come again.
    last: Option<String>,
    number: u64,
}

impl FileSink {
    fn path(&self) -> PathBuf {
        self.folder.join(format!("{}-{:08}.jsonl", self.name, self.number))
    }

    /// Finds the newest file and its last whole line; what a crash tore is cut.
    fn find(&mut self) -> Result<(), AdapterError> {
        let prefix = format!("{}-", self.name);
        let mut numbers = BTreeSet::new();
        for entry in std::fs::read_dir(&self.folder).map_err(|e| io(&self.folder, "list", e))? {
            let name = entry.map_err(|e| io(&self.folder, "list", e))?.file_name();
            let number =
                name.to_str().and_then(|n| n.strip_prefix(&prefix)?.strip_suffix(".jsonl")?.parse::<u64>().ok());
            numbers.extend(number);
        }
        self.number = numbers.last().copied().unwrap_or(1);
        self.last = self.last_line()?;
        if self.last.is_none() && self.number > 1 {
            // A file that was just begun: the last message is in the one before.
            self.number -= 1;
            self.last = self.last_line()?;
            self.number += 1;
        }
        Ok(())
    }

    fn last_line(&self) -> Result<Option<String>, AdapterError> {
        let path = self.path();
        let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(&path, "open", e)),
        };
        let tail = (|| {
            let size = file.seek(SeekFrom::End(0))?;
            let from = size.saturating_sub(TAIL_BYTES);
            file.seek(SeekFrom::Start(from))?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            let whole = tail.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
            if whole < tail.len() {
                file.set_len(from + whole as u64)?;
                file.sync_data()?;
                tail.truncate(whole);
            }
            Ok(tail)
        })();
        let tail = tail.map_err(|e| io(&path, "repair", e))?;
        let line = tail.strip_suffix(b"\n").and_then(|t| t.rsplit(|b| *b == b'\n').next());
        Ok(line.and_then(|line| serde_json::from_slice::<Message>(line).ok()).map(|m| m.cursor()))
    }

    fn file(&mut self) -> Result<&mut File, AdapterError> {
        let path = self.path();
        if self.file.is_none() {
            let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
            let file = opened.map_err(|e| io(&path, "open", e))?;
            // The file's name is durable as well.
            File::open(&self.folder).and_then(|f| f.sync_all()).map_err(|e| io(&self.folder, "sync", e))?;
            self.file = Some(file);
        }
        self.file.as_mut().ok_or_else(|| io(&path, "open", std::io::ErrorKind::NotFound.into()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<u64, AdapterError> {
        let path = self.path();
        let file = self.file()?;
        let written = (|| {
            file.write_all(bytes)?;
            file.sync_data()?;
            file.metadata().map(|m| m.len())
        })();
        written.map_err(|e| io(&path, "write", e))
    }
}

impl Sink for FileSink {
    fn deliver(&mut self, page: &[Message]) -> Result<Vec<Reject>, AdapterError> {
        // A page whose acknowledgement was lost begins before the last line.
        let known = self.last.take().and_then(|last| page.iter().position(|m| m.cursor() == last));
        let fresh = page.get(known.map_or(0, |n| n + 1)..).unwrap_or_default();
        let mut bytes = Vec::new();
        for message in fresh {
            bytes.extend_from_slice(&message.line());
            bytes.push(b'\n');
        }
        self.last = page.last().map(Message::cursor);
        if bytes.is_empty() {
            return Ok(vec![]);
        }
        match self.write(&bytes) {
            Ok(size) => {
                if size >= self.rotate {
                    self.file = None;
                    self.number += 1;
                }
                Ok(vec![])
            }
            Err(error) => {
                // How much of it is there, the file itself says.
                self.file = None;
                self.find()?;
                Err(error)
            }
        }
    }
}
