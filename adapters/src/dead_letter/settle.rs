//! How dead letters leave: replayed or discarded, each with a line in `<adapter>.dead.gone.jsonl`; or tried again and
//! refused again, with the new reason.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{DeadLetter, DeadLetters, Held, io_error, list, lock_file};
use crate::contract::{AdapterError, Reject};
use crate::status;

/// What became of one dead letter.
#[derive(Debug, Clone, PartialEq)]
pub enum Settled {
    /// It was published: durable at the broker.
    Replayed,
    /// A person gave it up, for this reason.
    Discarded(String),
    /// It was refused again.
    Refused(Box<Reject>),
}

/// One line about a dead letter that left. It holds nothing of the row itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gone {
    /// When, RFC 3339.
    pub at: String,
    /// By whom, as the command knows it.
    pub by: String,
    /// `replayed` or `discarded`.
    pub what: String,
    /// The dead letter's id.
    pub id: String,
    /// The file it came from.
    pub file: String,
    /// Row in it.
    pub row: u64,
    /// The rule that it was refused by last.
    pub rule: String,
    /// Why it was discarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

fn gone_path(folder: &Path, adapter: &str) -> PathBuf {
    folder.join(format!("{adapter}.dead.gone.jsonl"))
}

/// The lines about dead letters of an adapter that left, oldest first.
pub fn gone(folder: &Path, adapter: &str) -> Result<Vec<Gone>, AdapterError> {
    let path = gone_path(folder, adapter);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io_error(&path, "read", e)),
    };
    // A line torn by a crash is of a letter that did not leave yet.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|l| serde_json::from_str(l).map_err(|e| io_error(&path, "read", e.into()))).collect()
}

/// Says of dead letters, by id, what became of them. First the lines about those that leave are durable, then they are
/// taken out: a crash in between leaves a letter that is there still, never one that vanished. An adapter that runs
/// meanwhile goes on with the file as it is then. Returns how many left.
pub fn settle(
    folder: &Path,
    adapter: &str,
    settled: &BTreeMap<String, Settled>,
    (by, at): (&str, &str),
) -> Result<u64, AdapterError> {
    let path = DeadLetters::path(folder, adapter);
    let lock = lock_file(&path)?;
    let held = Held::of(&lock, &path)?;
    let (mut lines, mut left, mut count) = (Vec::new(), Vec::new(), 0);
    for mut letter in list(&path)? {
        let line = match settled.get(&letter.id) {
            None => None,
            Some(Settled::Refused(reject)) => {
                tried(&mut letter, reject, at);
                None
            }
            Some(Settled::Replayed) => Some(("replayed", None)),
            Some(Settled::Discarded(reason)) => Some(("discarded", Some(reason.clone()))),
        };
        let (to, result) = match line {
            None => (&mut left, serde_json::to_vec(&letter)),
            Some((what, reason)) => {
                count += 1;
                let DeadLetter { id, file, row, rule, .. } = letter;
                let (at, by, what) = (at.to_owned(), by.to_owned(), what.to_owned());
                (&mut lines, serde_json::to_vec(&Gone { at, by, what, id, file, row, rule, reason }))
            }
        };
        to.extend(result.map_err(|e| io_error(&path, "write", e.into()))?);
        to.push(b'\n');
    }
    if !lines.is_empty() {
        note(&gone_path(folder, adapter), &lines)?;
    }
    replace(&path, &left)?;
    drop(held);
    status::recount(folder, adapter, &list(&path)?);
    Ok(count)
}

fn tried(letter: &mut DeadLetter, reject: &Reject, at: &str) {
    letter.attempts = letter.attempts.saturating_add(1);
    letter.tried_at = Some(at.to_owned());
    letter.rule.clone_from(&reject.rule);
    letter.message.clone_from(&reject.message);
    letter.field.clone_from(&reject.field);
    (letter.line, letter.column) = (reject.line, reject.column);
    letter.begins = (reject.origin.line != reject.line).then_some(reject.origin.line);
}

/// Appends lines, durably. What a crash tore at the end is of letters that are still here: it is cut off.
fn note(path: &Path, lines: &[u8]) -> Result<(), AdapterError> {
    let failed = |e| io_error(path, "write", e);
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).map_err(failed)?;
    super::cut_torn_line(&mut file).map_err(failed)?;
    file.write_all(lines).and_then(|()| file.sync_data()).map_err(failed)
}

/// Writes a file anew, whole or not at all, durably.
fn replace(path: &Path, text: &[u8]) -> Result<(), AdapterError> {
    let failed = |e| io_error(path, "write", e);
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(failed)?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|f| f.sync_all()).map_err(failed)
}
