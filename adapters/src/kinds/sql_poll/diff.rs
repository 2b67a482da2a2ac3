//! A table without a cursor: all of it is read and compared with what was told.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use concordat_protocol::hash::sha256;
use serde::{Deserialize, Serialize};

use super::document::{MAX_ROWS, SqlPollDoc, Way};
use super::memory::{Mark, mark};
use super::ready::{Ready, wants_op};
use super::rows_kept::{Change, Kept, Print};
use super::session::{Failure, Line, Session};
use super::sql::{Ask, Begin, page};
use crate::contract::{AdapterError, BATCH_BYTES_MAX, Batch, Checkpoint, Next, Origin, Source};
use crate::document::DocumentError;

const EVERY: Duration = Duration::from_secs(60);

/// The contents of a checkpoint: rows told in this adapter's life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    v: u8,
    n: u64,
}

impl Place {
    fn decode(checkpoint: &Checkpoint) -> Result<Self, AdapterError> {
        if checkpoint.is_start() {
            return Ok(Self { v: 1, n: 0 });
        }
        checkpoint.json()
    }
}

/// A table that is compared.
pub(crate) struct DiffSource {
    doc: SqlPollDoc,
    way: Way,
    path: PathBuf,
    session: Option<Box<dyn Session>>,
    ready: Option<Ready>,
    kept: Option<Kept>,
    expected: Option<Checkpoint>,
    place: Place,
    /// Behind which key the next page begins; none before the first one.
    after: Option<Vec<String>>,
    met: HashSet<Mark>,
    buffer: VecDeque<(Line, &'static str)>,
    /// True when the whole table was read and nothing of it waits.
    over: bool,
}

impl DiffSource {
    /// A source that has not connected yet.
    pub(crate) fn new(doc: SqlPollDoc, base: &Path) -> Result<Self, AdapterError> {
        doc.check()?;
        if !wants_op(&doc.common()) {
            let detail = "map `_op` (upsert or delete), so that a delete can be told from a row";
            return Err(DocumentError::rule("deletes", detail).into());
        }
        let path = base.join("adapters").join(format!("{}.rows", doc.adapter.value));
        Ok(Self {
            way: doc.way(base)?,
            doc,
            path,
            session: None,
            ready: None,
            kept: None,
            expected: None,
            place: Place::default(),
            after: None,
            met: HashSet::new(),
            buffer: VecDeque::new(),
            over: false,
        })
    }

    fn disk<T>(&self, done: rusqlite::Result<T>) -> Result<T, AdapterError> {
        let file = self.path.display().to_string();
        done.map_err(|e| AdapterError::Io { file, action: "keep", source: std::io::Error::other(e) })
    }

    fn reset(&mut self, from: &Checkpoint) -> Result<Option<String>, AdapterError> {
        self.place = Place::decode(from)?;
        (self.after, self.over) = (None, false);
        self.buffer.clear();
        self.met.clear();
        let n = self.place.n;
        match &mut self.kept {
            Some(kept) => {
                let done = kept.rewind(n);
                self.disk(done)?;
            }
            None => {
                if let Some(folder) = self.path.parent() {
                    let file = self.path.display().to_string();
                    std::fs::create_dir_all(folder).map_err(|source| AdapterError::Io {
                        file,
                        action: "keep",
                        source,
                    })?;
                }
                self.kept = Some(self.disk(Kept::open(&self.path, n))?);
            }
        }
        self.expected = Some(from.clone());
        let Some(kept) = &self.kept else { return Ok(None) };
        let lost = n > 0 && self.disk(kept.is_empty())?;
        let said = || format!("{} holds nothing about the rows told before: all are told again", self.path.display());
        Ok(lost.then(said))
    }

    fn connect(&mut self) -> Result<(), AdapterError> {
        let place = self.way.place();
        if self.session.is_none() {
            self.session = Some(self.way.connect(self.doc.timeout()).map_err(|e| e.at(&place))?);
            self.ready = None;
            // A look that was broken off begins anew.
            self.after = None;
            self.met.clear();
        }
        let (None, Some(session)) = (&self.ready, &mut self.session) else { return Ok(()) };
        match session.columns(&self.doc.relation()) {
            Ok(columns) => self.ready = Some(Ready::new(&self.doc, columns)?),
            Err(e) => {
                self.session = None;
                return Err(e.at(&place));
            }
        }
        Ok(())
    }

    /// Reads the next page and keeps its changes. True when the table is over.
    fn fetch(&mut self) -> Result<bool, AdapterError> {
        self.connect()?;
        let rows = self.doc.poll.max_rows.unwrap_or(MAX_ROWS).max(1);
        let (Some(session), Some(ready), Some(kept)) = (&mut self.session, &self.ready, &mut self.kept) else {
            return Ok(true);
        };
        let relation = self.doc.relation();
        let ask = Ask {
            relation: &relation,
            columns: &ready.columns,
            cursor: &ready.cursor,
            begin: self.after.as_deref().map_or(Begin::First, Begin::After),
            furthest: None,
            floor: None,
            rows,
        };
        let statement = page(session.dialect(), &ask).map_err(|detail| AdapterError::Checkpoint { detail })?;
        let lines = match session.page(&statement, &ready.columns, &ready.cursor) {
            Ok(lines) => lines,
            Err(e) => {
                self.session = None;
                return Err(Failure::at(&e, &self.way.place()));
            }
        };
        let full = lines.len() >= rows as usize;
        let last = lines.last().map(|l| l.keyset.clone());
        let (mut changes, mut out) = (Vec::new(), Vec::new());
        let mut number = self.place.n;
        let mut met = Vec::new();
        let compared = (|| {
            for line in lines {
                let (key, print) = (key(&line.keyset), print(&line));
                met.push(mark(&line.keyset));
                if kept.print(&key)? != Some(print) {
                    number += 1;
                    changes.push(Change { row: number, key, now: Some((print, cells(ready, &line))) });
                    out.push((line, "upsert"));
                }
            }
            self.met.extend(met);
            if !full {
                let known = &self.met;
                let keyset = |key: &str| serde_json::from_str::<Vec<String>>(key).unwrap_or_default();
                for (key, cells) in kept.all(|key| !known.contains(&mark(&keyset(key))))? {
                    number += 1;
                    out.push((gone(ready, &keyset(&key), &cells), "delete"));
                    changes.push(Change { row: number, key, now: None });
                }
            }
            kept.keep(&changes)
        })();
        self.disk(compared)?;
        self.buffer.extend(out);
        self.after = last.filter(|_| full);
        if !full {
            self.met.clear();
        }
        Ok(!full)
    }
}

fn key(keyset: &[String]) -> String {
    serde_json::to_string(keyset).unwrap_or_default()
}

fn print(line: &Line) -> Print {
    let bytes = serde_json::to_vec(&line.cells).unwrap_or_default();
    let hash = sha256(&[b"concordat/v1/sql-print\0", &bytes]);
    let mut print = [0; 16];
    print.copy_from_slice(hash.get(..16).unwrap_or(&[0; 16]));
    print
}

/// The cells that a record cannot do without: a delete is told with them.
fn cells(ready: &Ready, line: &Line) -> String {
    let required = ready.mapper.steps().iter().filter(|s| s.required);
    let list: Vec<(usize, &Option<String>)> =
        required.filter_map(|s| line.cells.get(s.column).map(|cell| (s.column, cell))).collect();
    serde_json::to_string(&list).unwrap_or_default()
}

fn gone(ready: &Ready, keyset: &[String], cells: &str) -> Line {
    let mut line = Line { cells: vec![None; ready.columns.len()], keyset: keyset.to_vec(), past: true, fault: None };
    for (column, cell) in serde_json::from_str::<Vec<(usize, Option<String>)>>(cells).unwrap_or_default() {
        if let Some(at) = line.cells.get_mut(column) {
            *at = cell;
        }
    }
    line
}

impl Source for DiffSource {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        // What is kept is touched only once the source answers.
        self.connect()?;
        let note = if self.expected.as_ref() == Some(from) { None } else { self.reset(from)? };
        let every = self.doc.poll.every.map_or(EVERY, |p| p.0);
        if self.buffer.is_empty() {
            self.over = self.fetch()?;
        }
        let mut batch = Batch::at(from, Next::More);
        batch.notes.extend(note);
        let (Some(ready), mut bytes) = (&self.ready, 0) else { return Ok(batch) };
        while batch.rows() < max && bytes < BATCH_BYTES_MAX {
            let Some((line, op)) = self.buffer.pop_front() else { break };
            self.place.n += 1;
            let row = ready.row(&line, Origin::row(self.doc.relation_name(), self.place.n), Some(op));
            bytes += row.size_hint();
            batch.push(row);
        }
        if batch.rows() > 0 {
            batch.checkpoint = Checkpoint::of_json(&self.place);
        }
        if self.over && self.buffer.is_empty() {
            batch.next = Next::Idle(every);
        }
        self.expected = Some(batch.checkpoint.clone());
        Ok(batch)
    }

    fn ack(&mut self, durable: &Checkpoint) -> Result<(), AdapterError> {
        let place = Place::decode(durable)?;
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let done = kept.ack(place.n);
        self.disk(done)
    }
}
