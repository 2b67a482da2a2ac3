//! Files of a folder as a source: one after the other, each once, known by its bytes.
//!
//! A checkpoint says which files are read to their end and not yet in the ledger, and where the file stands that is being
//! read: its hash, the row, and a hash chain over the rows before it. So a restart goes on behind the last durable row
//! whatever became of the ledger or of the folder meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use concordat_protocol::hash::Hash;
use serde::{Deserialize, Serialize};

use super::document::{Drop, Fate};
use super::ledger::{Ledger, What};
use super::watch::{Folder, Found, head, is_gone};
use crate::contract::{AdapterError, BATCH_BYTES_MAX, Batch, Checkpoint, ErrorClass, Next, Origin, Reject, Source};
use crate::document::OnData;
use crate::files::Rows;
use crate::files::content::Content;

/// Most files that may be read to their end and wait for the broker: a checkpoint has room for their hashes.
const WAITING_MAX: usize = 24;
/// Wait when so many files wait for the broker.
const WAITING: Duration = Duration::from_millis(20);

/// The contents of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    v: u8,
    /// Files that are read to their end, by hash; one that could not be read has `!` in front.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    done: Vec<String>,
    /// The file that is being read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<InFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InFile {
    name: String,
    sha256: String,
    row: u64,
    chain: String,
}

impl Place {
    fn decode(checkpoint: &Checkpoint) -> Result<Self, AdapterError> {
        if checkpoint.is_start() {
            return Ok(Self::default());
        }
        checkpoint.json()
    }

    fn done(&self) -> Result<BTreeMap<Hash, bool>, AdapterError> {
        let failed = |text: &str| text.strip_prefix('!').map(str::to_owned);
        let read = |text: &String| match failed(text) {
            Some(text) => hash_of(&text).map(|hash| (hash, true)),
            None => hash_of(text).map(|hash| (hash, false)),
        };
        self.done.iter().map(read).collect()
    }
}

fn hash_of(text: &str) -> Result<Hash, AdapterError> {
    let mut hash = Hash::default();
    hex::decode_to_slice(text, &mut hash).map_err(|e| AdapterError::Checkpoint { detail: e.to_string() })?;
    Ok(hash)
}

/// A file that was read to its end, or could not be read.
#[derive(Debug, Clone)]
struct Ended {
    name: String,
    rows: u64,
    failed: bool,
}

/// The file that is being read.
struct Open {
    found: Found,
    hash: Hash,
    content: Content,
    rows: Box<dyn Rows>,
}

/// What there is to read next.
enum NextFile {
    Nothing,
    /// Its bytes are on their way: ask again.
    Coming,
    Open(Open),
    Bad(Hash, Ended, Reject),
}

/// The files of a folder as a source of batches.
pub(super) struct DropSource {
    plan: Drop,
    folder: Folder,
    ledger: Ledger,
    open: Option<Open>,
    /// Where the next read goes on, if it is asked to.
    at: Option<Checkpoint>,
    /// Files that are read to their end and not in the ledger yet.
    ended: BTreeMap<Hash, Ended>,
    /// Files that came again and were reported, where they stay in the folder.
    reported: BTreeSet<(String, Hash)>,
}

impl DropSource {
    pub fn new(base: &Path, plan: Drop, folder: Folder) -> Result<Self, AdapterError> {
        let ledger = Ledger::open(base, &plan.common.adapter.value)?;
        let (ended, reported) = (BTreeMap::new(), BTreeSet::new());
        Ok(Self { plan, folder, ledger, open: None, at: None, ended, reported })
    }

    /// Goes to a place that is not the one behind the last batch; false while a file's bytes are on their way.
    fn go_to(&mut self, from: &Checkpoint, batch: &mut Batch) -> Result<bool, AdapterError> {
        self.open = None;
        let place = Place::decode(from)?;
        let done = place.done()?;
        self.ended.retain(|hash, _| done.contains_key(hash));
        for (hash, failed) in done.into_iter().filter(|(h, _)| self.ledger.of(h).is_none()) {
            // Which file it is, the folder will tell.
            self.ended.entry(hash).or_insert(Ended { name: String::new(), rows: 0, failed });
        }
        match place.file {
            Some(file) => self.go_on_in(&file, batch),
            None => Ok(true),
        }
    }

    /// Goes on in the file that was being read: the same bytes under any name, or the same first rows under its name.
    fn go_on_in(&mut self, file: &InFile, batch: &mut Batch) -> Result<bool, AdapterError> {
        let hash = hash_of(&file.sha256)?;
        if self.ledger.of(&hash).is_some() {
            return Ok(true);
        }
        let mut all = self.folder.all()?;
        all.sort_by_key(|found| found.name != file.name);
        for found in all {
            let Some(found_hash) = self.folder.hash(&found)? else { return Ok(false) };
            let same = found_hash == hash;
            if !same && found.name != file.name {
                continue;
            }
            let Some(content) = self.folder.open(&found)? else { return Ok(false) };
            let name = self.folder.shown(&found.name);
            let Ok(mut rows) = self.plan.form.open(&name, &content) else { continue };
            while rows.row() < file.row && rows.skip_row()? {}
            if rows.row() == file.row && hex::encode(rows.chain()) == file.chain {
                if !same {
                    batch.notes.push(format!("{name}: was written to after row {} was read; it is read on", file.row));
                }
                self.open = Some(Open { found, hash: found_hash, content, rows });
                return Ok(true);
            }
        }
        let name = self.folder.shown(&file.name);
        let message =
            format!("the file was taken away or changed after row {} was published; send the rest again", file.row);
        let origin = Origin { line: file.row + 1, ..Origin::row(name, file.row) };
        batch.rejects.push(reject(origin, "file.gone", message, Vec::new()));
        Ok(true)
    }

    /// The next whole file that was not read yet. Files that were are cleared away.
    fn next_file(&mut self, batch: &mut Batch) -> Result<NextFile, AdapterError> {
        for found in self.folder.ready(Instant::now())? {
            let hash = match self.folder.hash(&found) {
                Ok(Some(hash)) => hash,
                Ok(None) => return Ok(NextFile::Coming),
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error),
            };
            if let Some(ended) = self.ended.get_mut(&hash) {
                if ended.name.is_empty() {
                    ended.name.clone_from(&found.name);
                }
                continue;
            }
            if self.ledger.of(&hash).is_some() {
                self.again(&found, hash, batch)?;
                continue;
            }
            if self.ended.len() >= WAITING_MAX {
                return Ok(NextFile::Nothing);
            }
            let Some(content) = self.folder.open(&found)? else { return Ok(NextFile::Coming) };
            let (name, form) = (self.folder.shown(&found.name), &self.plan.form);
            match form.check_whole(&name, &content).and_then(|()| form.open(&name, &content)) {
                Ok(rows) => return Ok(NextFile::Open(Open { found, hash, content, rows })),
                Err(error) => return self.unreadable(&found, (hash, 0), &content, error),
            }
        }
        Ok(NextFile::Nothing)
    }

    /// A file whose bytes were read before: left over by a crash, or sent again.
    fn again(&mut self, found: &Found, hash: Hash, batch: &mut Batch) -> Result<(), AdapterError> {
        let Some(known) = self.ledger.of(&hash).cloned() else { return Ok(()) };
        let fate = self.plan.after.fate(known.failed);
        if !known.settled {
            self.folder.put_away(&found.name, &fate)?;
            return self.ledger.add(What::Settled, &found.name, hash, 0);
        }
        if fate == Fate::Stays && (known.file == found.name || !self.reported.insert((found.name.clone(), hash))) {
            return Ok(());
        }
        let (name, other) = (self.folder.shown(&found.name), &known.file);
        batch
            .notes
            .push(format!("{name}: has the same bytes as {other}, read at {}; nothing of it is published", known.at));
        self.ledger.add(What::Repeated, &found.name, hash, known.rows)?;
        self.folder.put_away(&found.name, &fate)
    }

    /// A file that cannot be read as a whole: a dead letter and away with it, or a stop.
    fn unreadable(
        &self,
        found: &Found,
        (hash, row): (Hash, u64),
        content: &Content,
        error: AdapterError,
    ) -> Result<NextFile, AdapterError> {
        let rule = match &error {
            AdapterError::Header { .. } | AdapterError::Columns { .. } => "file.header",
            AdapterError::Encoding { .. } => "file.encoding",
            AdapterError::Truncated { .. } => "file.truncated",
            _ => return Err(error),
        };
        if self.plan.after.failed.is_none() || self.plan.common.on_error.data == OnData::Stop {
            return Err(error);
        }
        let origin = Origin { line: row + 1, ..Origin::row(self.folder.shown(&found.name), row) };
        let ended = Ended { name: found.name.clone(), rows: row, failed: true };
        Ok(NextFile::Bad(hash, ended, reject(origin, rule, error.to_string(), head(content))))
    }

    /// Reads on until the batch is full or there is nothing more.
    fn fill(&mut self, batch: &mut Batch, max: usize) -> Result<(), AdapterError> {
        let mut bytes = 0;
        while batch.rows() < max && bytes < BATCH_BYTES_MAX {
            let Some(open) = &mut self.open else {
                match self.next_file(batch)? {
                    NextFile::Open(open) => self.open = Some(open),
                    NextFile::Bad(hash, ended, reject) => {
                        self.ended.insert(hash, ended);
                        batch.rejects.push(reject);
                    }
                    NextFile::Coming => return Ok(()),
                    NextFile::Nothing => {
                        let wait = if self.ended.is_empty() { self.plan.every } else { WAITING.min(self.plan.every) };
                        batch.next = Next::Idle(wait);
                        return Ok(());
                    }
                }
                continue;
            };
            match open.rows.next_row() {
                Ok(Some(row)) => {
                    bytes += row.size_hint();
                    batch.push(row);
                }
                // A file whose damage shows only now: what came before it is published.
                Err(error) => {
                    let Some(open) = self.open.take() else { return Err(error) };
                    let place = (open.hash, open.rows.row());
                    if let NextFile::Bad(hash, ended, reject) =
                        self.unreadable(&open.found, place, &open.content, error)?
                    {
                        self.ended.insert(hash, ended);
                        batch.rejects.push(reject);
                    }
                }
                Ok(None) => {
                    let ended = Ended { name: open.found.name.clone(), rows: open.rows.row(), failed: false };
                    self.ended.insert(open.hash, ended);
                    self.open = None;
                }
            }
        }
        Ok(())
    }

    fn checkpoint(&self) -> Checkpoint {
        let mark = |failed| if failed { "!" } else { "" };
        let done = self.ended.iter().map(|(hash, e)| format!("{}{}", mark(e.failed), hex::encode(hash))).collect();
        let file = self.open.as_ref().map(|open| InFile {
            name: open.found.name.clone(),
            sha256: hex::encode(open.hash),
            row: open.rows.row(),
            chain: hex::encode(open.rows.chain()),
        });
        Checkpoint::of_json(&Place { v: 1, done, file })
    }

    /// Puts a file where it belongs, unless another one has its name by now, and says so in the ledger.
    fn settle(&mut self, name: &str, hash: Hash, failed: bool) -> Result<(), AdapterError> {
        let fate = self.plan.after.fate(failed);
        if fate != Fate::Stays
            && !name.is_empty()
            && let Some(found) = self.folder.now(name)?
            && self.folder.holds(&found, &hash)?
        {
            self.folder.put_away(name, &fate)?;
        }
        self.ledger.add(What::Settled, name, hash, 0)
    }
}

impl Source for DropSource {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        let mut batch = Batch::at(from, Next::More);
        // After an error the place is not known: it is found again.
        if self.at.take().as_ref() != Some(from) && !self.go_to(from, &mut batch)? {
            return Ok(batch);
        }
        if let Some(open) = &self.open
            && self.folder.written_to(&open.found)
        {
            let name = self.folder.shown(&open.found.name);
            let message = format!("{name}: is written to while it is read; let the sender write elsewhere and rename");
            return Err(AdapterError::source_failed(ErrorClass::Transient, "source.changed", message));
        }
        self.fill(&mut batch, max)?;
        if batch.rows() > 0 || self.open.is_some() || !self.ended.is_empty() {
            batch.checkpoint = self.checkpoint();
        }
        self.at = Some(batch.checkpoint.clone());
        Ok(batch)
    }

    fn ack(&mut self, durable: &Checkpoint) -> Result<(), AdapterError> {
        for (hash, failed) in Place::decode(durable)?.done()? {
            let known = self.ledger.of(&hash).map(|k| (k.file.clone(), k.failed, k.settled));
            let (name, failed) = match known {
                Some((_, _, true)) => continue,
                Some((name, failed, false)) => (name, failed),
                None => {
                    let ended = match self.ended.get(&hash).filter(|e| !e.name.is_empty()) {
                        Some(ended) => ended.clone(),
                        None => Ended { name: self.name_of(&hash)?, rows: 0, failed },
                    };
                    let what = if ended.failed { What::Failed } else { What::Read };
                    self.ledger.add(what, &ended.name, hash, ended.rows)?;
                    (ended.name, ended.failed)
                }
            };
            self.ended.remove(&hash);
            self.settle(&name, hash, failed)?;
        }
        Ok(())
    }
}

impl DropSource {
    /// The name of a file by its bytes; empty when it is not there.
    fn name_of(&mut self, hash: &Hash) -> Result<String, AdapterError> {
        for found in self.folder.all()? {
            if self.folder.holds(&found, hash)? {
                return Ok(found.name);
            }
        }
        Ok(String::new())
    }
}

fn reject(origin: Origin, rule: &str, message: String, raw: Vec<u8>) -> Reject {
    let line = origin.line;
    Reject { origin, line, column: 1, field: None, rule: rule.to_owned(), message, raw, truncated: true }
}
