//! Dead letters: rows that were refused, with their original bytes, in a file of JSON lines that only the agency's own
//! user may read. A row is here before the checkpoint passes it, and only once, however often an adapter restarts.
//! It leaves when it was replayed or discarded ([`settle`]), and a line of another file says so.

mod replay;
mod settle;

pub use replay::{mapped, publish};
pub use settle::{Gone, Settled, gone, settle};

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use concordat_protocol::hash::sha256;
use serde::{Deserialize, Serialize};

use crate::contract::{AdapterError, Beside, Origin, Reject};
use crate::status::{DeadCounts, class};

/// One dead letter as it is kept and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetter {
    /// 32 hex digits over dataset, file, row and bytes.
    pub id: String,
    /// When it was put here, RFC 3339.
    pub at: String,
    /// The dataset it was meant for.
    pub dataset: String,
    /// The file it came from.
    pub file: String,
    /// Row after the header, from 1.
    pub row: u64,
    /// Line of the offending value, from 1.
    pub line: u64,
    /// Line where its row begins, if that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<u64>,
    /// Column of that line, in bytes from 1.
    pub column: u64,
    /// Source column, when the fault lies in one.
    pub field: Option<String>,
    /// Rule that was broken.
    pub rule: String,
    /// What is wrong and what to do.
    pub message: String,
    /// Original bytes, base64.
    pub raw: String,
    /// True when the bytes were cut.
    pub truncated: bool,
    /// What the bytes alone do not say: the header of their file, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<Beside>,
    /// How often it was replayed and refused again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// When it was refused last, RFC 3339, if it was replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_at: Option<String>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl DeadLetter {
    fn new(reject: &Reject, dataset: &str, at: &str) -> Self {
        let origin = &reject.origin;
        let place = format!("{dataset}\0{}\0{}\0", origin.file, origin.row);
        let hash = sha256(&[place.as_bytes(), &reject.raw]);
        Self {
            id: hex::encode(hash.get(..16).unwrap_or(&hash)),
            at: at.to_owned(),
            dataset: dataset.to_owned(),
            file: origin.file.clone(),
            row: origin.row,
            line: reject.line,
            begins: (origin.line != reject.line).then_some(origin.line),
            column: reject.column,
            field: reject.field.clone(),
            rule: reject.rule.clone(),
            message: reject.message.clone(),
            raw: STANDARD.encode(&reject.raw),
            truncated: reject.truncated,
            beside: origin.beside.as_deref().cloned(),
            attempts: 0,
            tried_at: None,
        }
    }

    /// Where the row stood, with what its bytes do not say.
    pub fn origin(&self) -> Origin {
        let at = Origin { line: self.begins.unwrap_or(self.line), ..Origin::row(self.file.as_str(), self.row) };
        match &self.beside {
            Some(beside) => at.with(beside.clone()),
            None => at,
        }
    }

    /// The original bytes.
    pub fn original(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.raw).ok()
    }
}

/// The dead letters of one adapter, `<folder>/<adapter>.dead.jsonl`.
pub struct DeadLetters {
    path: PathBuf,
    file: File,
    /// Who changes the file holds this one.
    lock: File,
    known: BTreeSet<String>,
    classes: BTreeMap<String, u64>,
}

impl DeadLetters {
    /// The file of an adapter's dead letters below `folder`.
    pub fn path(folder: &Path, adapter: &str) -> PathBuf {
        folder.join(format!("{adapter}.dead.jsonl"))
    }

    /// Opens or creates the file; a line torn by a crash is cut off (its row will come again).
    pub fn open(folder: &Path, adapter: &str) -> Result<Self, AdapterError> {
        let path = Self::path(folder, adapter);
        std::fs::create_dir_all(folder).map_err(|e| io_error(&path, "create the folder of", e))?;
        let lock = lock_file(&path)?;
        let held = Held::of(&lock, &path)?;
        let (file, known, classes) = opened(&path)?;
        drop(held);
        Ok(Self { path, file, lock, known, classes })
    }

    /// Appends the rejects that are not here yet and syncs. `at` is the time, RFC 3339. Returns how
    /// many were new.
    pub fn append(&mut self, rejects: &[Reject], dataset: &str, at: &str) -> Result<u64, AdapterError> {
        let held = Held::of(&self.lock, &self.path)?;
        if self.is_other_file() {
            (self.file, self.known, self.classes) = opened(&self.path)?;
        }
        let mut lines = Vec::new();
        let (mut fresh, mut is_fresh) = (Vec::new(), Vec::with_capacity(rejects.len()));
        for reject in rejects {
            let letter = DeadLetter::new(reject, dataset, at);
            is_fresh.push(!self.known.contains(&letter.id) && !fresh.contains(&letter.id));
            if is_fresh.last() != Some(&true) {
                continue;
            }
            serde_json::to_writer(&mut lines, &letter).map_err(|e| io_error(&self.path, "write", e.into()))?;
            lines.push(b'\n');
            fresh.push(letter.id);
        }
        if fresh.is_empty() {
            return Ok(0);
        }
        self.file
            .write_all(&lines)
            .and_then(|()| self.file.sync_data())
            .map_err(|e| io_error(&self.path, "write", e))?;
        drop(held);
        for reject in rejects.iter().zip(&is_fresh).filter_map(|(r, fresh)| fresh.then_some(r)) {
            *self.classes.entry(class(&reject.rule).to_owned()).or_default() += 1;
        }
        let count = fresh.len() as u64;
        self.known.extend(fresh);
        Ok(count)
    }

    /// True when the file was written anew meanwhile, because letters left it.
    fn is_other_file(&self) -> bool {
        let of = |m: std::io::Result<std::fs::Metadata>| m.ok().map(|m| (m.dev(), m.ino()));
        of(self.file.metadata()) != of(std::fs::metadata(&self.path))
    }

    /// How many there are in all and by class of the rule.
    pub fn counts(&mut self) -> DeadCounts {
        // A file that cannot be read now is an error of the next append; until then the last counts hold.
        if self.is_other_file()
            && let Ok(_held) = Held::of(&self.lock, &self.path)
            && let Ok(now) = opened(&self.path)
        {
            (self.file, self.known, self.classes) = now;
        }
        DeadCounts { total: self.known.len() as u64, by_class: self.classes.clone() }
    }

    /// The folder they are in.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// How many dead letters there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

type Opened = (File, BTreeSet<String>, BTreeMap<String, u64>);

/// The file at a path, made if it is not there, with the ids and classes that are in it.
fn opened(path: &Path) -> Result<Opened, AdapterError> {
    let io = |action| move |source| io_error(path, action, source);
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    let mut file = options.open(path).map_err(io("open"))?;
    cut_torn_line(&mut file).map_err(io("repair"))?;
    let (mut known, mut classes) = (BTreeSet::new(), BTreeMap::new());
    for letter in list(path)? {
        *classes.entry(class(&letter.rule).to_owned()).or_default() += 1;
        known.insert(letter.id);
    }
    Ok((file, known, classes))
}

/// The file that is locked while dead letters are changed: beside them, since they are written anew when some leave.
fn lock_file(path: &Path) -> Result<File, AdapterError> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(path.with_extension("lock"));
    file.map_err(|e| io_error(path, "lock", e))
}

/// A lock that is let go when dropped: a running adapter and a person's command change the same file.
struct Held<'a>(&'a File);

impl<'a> Held<'a> {
    fn of(lock: &'a File, path: &Path) -> Result<Self, AdapterError> {
        lock.lock().map_err(|e| io_error(path, "lock", e))?;
        Ok(Self(lock))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Nothing else can be done; the end of the process lets it go too.
        let _ = self.0.unlock();
    }
}

/// Reads all dead letters of a file, oldest first; none when the file does not exist.
pub fn list(path: &Path) -> Result<Vec<DeadLetter>, AdapterError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io_error(path, "open", e)),
    };
    let (mut letters, mut input, mut line) = (Vec::new(), BufReader::new(file), Vec::new());
    while input.read_until(b'\n', &mut line).map_err(|e| io_error(path, "read", e))? > 0 {
        // An adapter may be writing the last one: its row is refused when all of it is here.
        if line.last() != Some(&b'\n') {
            break;
        }
        letters.push(serde_json::from_slice(&line).map_err(|e| io_error(path, "read", e.into()))?);
        line.clear();
    }
    Ok(letters)
}

fn cut_torn_line(file: &mut File) -> std::io::Result<()> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let full = end;
    let mut chunk = [0_u8; 4096];
    while end > 0 {
        let start = end.saturating_sub(chunk.len() as u64);
        let part = chunk.get_mut(..(end - start) as usize).unwrap_or_default();
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(n) = part.iter().rposition(|b| *b == b'\n') {
            end = start + n as u64 + 1;
            break;
        }
        end = start;
    }
    if end < full {
        file.set_len(end)?;
        file.sync_data()?;
    }
    Ok(())
}

fn io_error(path: &Path, action: &'static str, source: std::io::Error) -> AdapterError {
    AdapterError::Io { file: path.display().to_string(), action, source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::contract::Origin;

    fn reject(row: u64, raw: &[u8]) -> Reject {
        Reject {
            origin: Origin { line: row + 1, ..Origin::row("a.csv", row) },
            line: row + 1,
            column: 3,
            field: Some("ts".into()),
            rule: "time.nonexistent".into(),
            message: "no such time".into(),
            raw: raw.to_vec(),
            truncated: false,
        }
    }

    #[test]
    fn letters_are_kept_once_with_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let rejects = [reject(1, b"1,\xff\n"), reject(2, b"2,x\n")];
        {
            let mut letters = DeadLetters::open(dir.path(), "i94").unwrap();
            assert_eq!(letters.append(&rejects, "ds:a/b@1", "2026-01-01T00:00:00Z").unwrap(), 2);
            assert_eq!(letters.append(&rejects, "ds:a/b@1", "2026-01-01T00:00:01Z").unwrap(), 0);
        }
        let mut letters = DeadLetters::open(dir.path(), "i94").unwrap();
        assert_eq!(letters.append(&rejects, "ds:a/b@1", "2026-01-02T00:00:00Z").unwrap(), 0);
        let kept = list(&DeadLetters::path(dir.path(), "i94")).unwrap();
        assert_eq!(kept.len(), 2);
        let counts = letters.counts();
        assert_eq!((counts.total, counts.by_class.get("time").copied()), (2, Some(2)));
        assert_eq!(kept[0].original().unwrap(), b"1,\xff\n");
        assert_eq!((kept[0].line, kept[0].column, kept[0].rule.as_str()), (2, 3, "time.nonexistent"));
    }

    #[test]
    fn a_line_torn_by_a_crash_is_cut_and_comes_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = DeadLetters::path(dir.path(), "i94");
        let rejects: Vec<_> = (1..40).map(|n| reject(n, &[b'x'; 200])).collect();
        DeadLetters::open(dir.path(), "i94").unwrap().append(&rejects, "ds:a/b@1", "t").unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in [1, 100, 5_000, whole.len() - 1] {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let mut letters = DeadLetters::open(dir.path(), "i94").unwrap();
            assert!(letters.len() < rejects.len());
            letters.append(&rejects, "ds:a/b@1", "t").unwrap();
            assert_eq!(list(&path).unwrap().len(), rejects.len(), "cut {cut}");
        }
    }

    #[test]
    fn only_the_owner_may_read_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        DeadLetters::open(dir.path(), "stops").unwrap();
        let mode = std::fs::metadata(DeadLetters::path(dir.path(), "stops")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
