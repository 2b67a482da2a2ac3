//! Files dropped into a folder, for the conformance kit and for tests that read them to their end.

use std::path::PathBuf;
use std::sync::Arc;

use concordat_adapters::conform::{Change, Rig};
use concordat_adapters::contract::{AdapterError, Batch, Checkpoint, Next, Source};
use concordat_adapters::parse;
use serde_json::Value;

/// A folder that files are dropped into, and what must come of them.
pub struct Folder {
    pub dir: Arc<tempfile::TempDir>,
    pub document: String,
    pub next: u64,
    pub expected: Vec<String>,
    pub dead: usize,
    pub files: u64,
    pub last: Vec<u8>,
    /// Makes the folder unreachable (true) and reachable again, where it is not this machine's.
    pub cut: Option<Box<dyn FnMut(bool) + Send>>,
}

impl Folder {
    pub fn new(document: &str) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        std::fs::create_dir(dir.path().join("in")).unwrap();
        let (document, expected) = (document.to_owned(), Vec::new());
        Self { dir, document, next: 0, expected, dead: 0, files: 0, last: Vec::new(), cut: None }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("in").join(name)
    }

    pub fn rows(&mut self, count: u64) -> Vec<u8> {
        let mut text = b"id;mw;note\r\n".to_vec();
        for _ in 0..count {
            text.extend_from_slice(format!("{};{},5;caf", self.next, self.next).as_bytes());
            text.extend_from_slice(b"\xe9\r\n");
            self.expected.push(self.next.to_string());
            self.next += 1;
        }
        text
    }

    pub fn drop(&mut self, bytes: &[u8]) {
        self.files += 1;
        let part = self.path("writing.csv.part");
        std::fs::write(&part, bytes).unwrap();
        std::fs::rename(part, self.path(&format!("f{:04}.csv", self.files))).unwrap();
        self.last = bytes.to_vec();
    }

    pub fn source(&self) -> Box<dyn Source> {
        parse(&self.document).unwrap().open(self.dir.path()).unwrap()
    }

    pub fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.dir.path().join(folder)) else { return vec![] };
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap())
            .filter(|e| e.metadata().unwrap().is_file())
            .map(|e| e.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Rig for Folder {
    fn open(&mut self) -> Result<Box<dyn Source>, AdapterError> {
        parse(&self.document).unwrap().open(self.dir.path())
    }

    fn name(&self, event: &Value) -> String {
        event["data"]["id"].to_string()
    }

    fn expected(&self) -> Vec<String> {
        self.expected.clone()
    }

    fn dead(&self) -> usize {
        self.dead
    }

    fn change(&mut self, change: Change) -> bool {
        match change {
            Change::Rows => {
                let rows = self.rows(9);
                self.drop(&rows);
            }
            Change::Poison => {
                let mut rows = self.rows(3);
                rows.extend_from_slice(b"x;1,5;bad\r\n");
                let more = self.rows(3);
                rows.extend_from_slice(&more[b"id;mw;note\r\n".len()..]);
                self.dead += 1;
                self.drop(&rows);
            }
            Change::HalfWritten => {
                let rows = self.rows(9);
                self.expected.truncate(self.expected.len() - 9);
                std::fs::write(self.path("writing.csv.part"), &rows[..rows.len() / 2]).unwrap();
                self.last = rows;
            }
            Change::Finished => {
                std::fs::write(self.path("writing.csv.part"), &self.last).unwrap();
                std::fs::rename(self.path("writing.csv.part"), self.path("zz.csv")).unwrap();
                self.expected.extend((self.next - 9..self.next).map(|n| n.to_string()));
            }
            Change::Resent => {
                let again = self.last.clone();
                self.drop(&again);
            }
            Change::ChangedHeader => {
                self.rows(4);
                let text = b"id;note;mw\r\n1;x;2\r\n".to_vec();
                self.drop(&text);
            }
            Change::Drift => {
                self.rows(1);
                self.drop(b"id;mw;note;extra\r\n9000;1,5;x;y\r\n");
            }
            Change::Cut | Change::Restored if self.cut.is_some() => {
                self.cut.as_mut().unwrap()(change == Change::Cut);
            }
            Change::Cut => std::fs::rename(self.dir.path().join("in"), self.dir.path().join("away")).unwrap(),
            Change::Restored => std::fs::rename(self.dir.path().join("away"), self.dir.path().join("in")).unwrap(),
            Change::EqualCursor | Change::LateRow | Change::SkewedClock => return false,
        }
        true
    }
}

/// Reads to the end of what there is, acknowledging everything.
pub fn read_all(source: &mut dyn Source, at: &mut Checkpoint) -> Vec<Batch> {
    let mut all = Vec::new();
    let mut quiet = 0;
    while quiet < 2 {
        let batch = source.read(at, 7).unwrap();
        *at = batch.checkpoint.clone();
        source.ack(at).unwrap();
        quiet = if matches!(batch.next, Next::Idle(_)) { quiet + 1 } else { 0 };
        all.push(batch);
    }
    all
}

pub fn ids(batches: &[Batch]) -> Vec<String> {
    batches.iter().flat_map(|b| &b.records).map(|r| r.data["id"].to_string()).collect()
}
