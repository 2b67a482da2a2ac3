//! Polling: pages behind the cursor, then the overlap again and again.
//!
//! A checkpoint holds the furthest row's cursor and how many rows were handed out in this adapter's life. Rows that appear
//! within the overlap after later ones were read are found by the next sweep; those that were told already are known by
//! [`Memory`]. A scan that starts anew therefore loses nothing and doubles nothing, wherever the last one stopped.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::document::{EVERY, MAX_ROWS, SqlPollDoc, Way};
use super::memory::{Mark, Memory, mark};
use super::ready::Ready;
use super::session::{Cause, Dialect, Failure, Line, Relation, Session};
use super::shift::{Overlap, back, before};
use super::sql::{Ask, Begin, page};
use crate::contract::{AdapterError, BATCH_BYTES_MAX, Batch, Checkpoint, Next, Origin, Source};
use crate::document::DocumentError;

/// How long one read looks for something new among what was told.
const PATIENCE: Duration = Duration::from_millis(500);

/// The contents of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    v: u8,
    /// Rows handed out so far.
    n: u64,
    /// Cursor of the furthest row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<Vec<String>>,
}

impl Place {
    fn decode(checkpoint: &Checkpoint) -> Result<Self, AdapterError> {
        if checkpoint.is_start() {
            return Ok(Self { v: 1, ..Self::default() });
        }
        checkpoint.json()
    }

    fn encode(&self) -> Checkpoint {
        Checkpoint::of_json(self)
    }
}

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scan {
    /// A scan from the place that is kept.
    New,
    /// Behind the last row of a full page.
    After(Vec<String>),
}

/// A table, view or statement that is polled.
pub(crate) struct SqlSource {
    doc: SqlPollDoc,
    way: Way,
    place_name: String,
    seen_path: PathBuf,
    overlap: Option<Overlap>,
    session: Option<Box<dyn Session>>,
    ready: Option<Ready>,
    memory: Option<Memory>,
    /// What the next read is expected to name.
    expected: Option<Checkpoint>,
    place: Place,
    scan: Scan,
    /// True when the sweep began with everything durable: what it does not meet may be forgotten.
    forgets: bool,
    buffer: VecDeque<Line>,
    /// Last row and first cursor value of the pages of a long first scan.
    pages: VecDeque<(u64, String)>,
    durable: Place,
}

impl SqlSource {
    /// A source that has not connected yet.
    pub(crate) fn new(doc: SqlPollDoc, base: &Path) -> Result<Self, AdapterError> {
        doc.check()?;
        let way = doc.way(base)?;
        let seen_path = base.join("adapters").join(format!("{}.seen", doc.adapter.value));
        Ok(Self {
            place_name: way.place(),
            overlap: doc.overlap()?,
            seen_path,
            doc,
            way,
            session: None,
            ready: None,
            memory: None,
            expected: None,
            place: Place::default(),
            scan: Scan::New,
            forgets: false,
            buffer: VecDeque::new(),
            pages: VecDeque::new(),
            durable: Place::default(),
        })
    }

    fn io<T>(&self, done: std::io::Result<T>) -> Result<T, AdapterError> {
        let file = self.seen_path.display().to_string();
        done.map_err(|source| AdapterError::Io { file, action: "keep", source })
    }

    fn failed(&mut self, failure: Failure) -> AdapterError {
        if failure.cause == Cause::Missing
            && let Some(named) = self.drift()
        {
            return named;
        }
        // A statement that was stopped leaves the session usable, but a new one costs little and is sure.
        self.session = None;
        failure.at(&self.place_name)
    }

    /// Which column of the mapping is gone, after a statement failed for it.
    fn drift(&mut self) -> Option<AdapterError> {
        let relation = self.doc.relation();
        let found = self.session.as_mut()?.columns(&relation).ok()?;
        let ready = self.ready.take()?;
        let gone: Vec<String> = ready
            .columns
            .iter()
            .filter(|c| !found.iter().any(|f| f.name == c.name))
            .map(|c| format!("`{}`", c.name))
            .collect();
        self.session = None;
        let detail = format!(
            "{} no longer has the column {}; correct the document or the source",
            self.doc.relation_name(),
            gone.join(", ")
        );
        (!gone.is_empty()).then(|| Failure::new(Cause::Missing, detail).at(&self.place_name))
    }

    /// Goes back or on to a checkpoint that is not the last one.
    fn reset(&mut self, from: &Checkpoint) -> Result<Option<String>, AdapterError> {
        self.place = Place::decode(from)?;
        self.scan = Scan::New;
        self.buffer.clear();
        self.pages.clear();
        let mut note = None;
        if self.overlap.is_some() {
            let rewound = match &mut self.memory {
                Some(memory) => memory.rewind(self.place.n),
                None => {
                    if let Some(folder) = self.seen_path.parent() {
                        self.io(std::fs::create_dir_all(folder))?;
                    }
                    let opened = Memory::open(&self.seen_path, self.place.n);
                    opened.map(|m| self.memory = Some(m))
                }
            };
            self.io(rewound)?;
            if self.place.n > 0 && self.memory.as_ref().is_some_and(Memory::is_empty) {
                note = Some(format!(
                    "{} holds nothing about the rows told before: those of the overlap are told again under the ids they had",
                    self.seen_path.display()
                ));
            }
        }
        self.expected = Some(from.clone());
        Ok(note)
    }

    fn connect(&mut self) -> Result<(), AdapterError> {
        if self.session.is_none() {
            let connected = self.way.connect(self.doc.timeout());
            self.session = Some(connected.map_err(|e| e.at(&self.place_name))?);
            self.ready = None;
        }
        if self.ready.is_none() {
            let relation: Relation = self.doc.relation();
            let Some(session) = &mut self.session else { return Ok(()) };
            let columns = match session.columns(&relation) {
                Ok(columns) => columns,
                Err(e) => {
                    self.session = None;
                    return Err(e.at(&self.place_name));
                }
            };
            self.ready = Some(Ready::new(&self.doc, columns)?);
        }
        Ok(())
    }

    /// Reads the next page into the buffer. True when more may follow at once.
    fn fetch(&mut self) -> Result<bool, AdapterError> {
        self.connect()?;
        let rows = self.doc.poll.max_rows.unwrap_or(MAX_ROWS).max(1);
        let relation = self.doc.relation();
        let (Some(session), Some(ready)) = (&mut self.session, &self.ready) else { return Ok(false) };
        let dialect = session.dialect();
        let first = ready.cursor.first().and_then(|c| ready.columns.get(*c));
        let start = self.doc.cursor.as_ref().and_then(|c| c.start.as_ref());
        let floor = start.zip(first).map(|(start, column)| dialect.start(column, &start.value));
        let known = self.place.at.as_deref();
        let sweep = sweep(&self.doc, dialect, &self.scan, known, self.overlap)?;
        let begin = match (&self.scan, &sweep, known, &floor) {
            (Scan::After(values), ..) => Begin::After(values),
            (Scan::New, Some(from), ..) => Begin::At(from),
            (Scan::New, None, Some(values), _) => Begin::After(values),
            (Scan::New, None, None, Some(floor)) => Begin::At(floor),
            (Scan::New, None, None, None) => Begin::First,
        };
        if self.scan == Scan::New {
            self.forgets = self.durable.n == self.place.n;
            if let Some(memory) = &mut self.memory {
                memory.begin();
            }
        }
        let ask = Ask {
            relation: &relation,
            columns: &ready.columns,
            cursor: &ready.cursor,
            begin,
            furthest: known,
            floor: floor.as_deref(),
            rows,
        };
        let statement = page(dialect, &ask).map_err(|detail| AdapterError::Checkpoint { detail })?;
        let lines = match session.page(&statement, &ready.columns, &ready.cursor) {
            Ok(lines) => lines,
            Err(e) => return Err(self.failed(e)),
        };
        let full = lines.len() >= rows as usize;
        let last = lines.last().map(|l| l.keyset.clone());
        self.take(lines)?;
        match last.filter(|_| full) {
            Some(keyset) => self.scan = Scan::After(keyset),
            None => {
                self.scan = Scan::New;
                if let (Some(memory), true) = (&mut self.memory, self.forgets) {
                    let ended = memory.end();
                    self.io(ended)?;
                }
            }
        }
        Ok(full)
    }

    /// Keeps what is new of a page; with an overlap it is remembered first.
    fn take(&mut self, lines: Vec<Line>) -> Result<(), AdapterError> {
        let Some(memory) = &mut self.memory else {
            self.buffer.extend(lines);
            return Ok(());
        };
        let (mut fresh, mut marks): (Vec<Line>, Vec<(u64, Mark)>) = (Vec::new(), Vec::new());
        for line in lines {
            let mark = mark(&line.keyset);
            if !memory.knows(&mark) {
                marks.push((self.place.n + 1 + marks.len() as u64, mark));
                fresh.push(line);
            }
        }
        let kept = memory.keep(&marks);
        if let (Some((row, _)), Some(line)) = (marks.last(), fresh.last()) {
            self.pages.push_back((*row, line.keyset.first().cloned().unwrap_or_default()));
        }
        self.buffer.extend(fresh);
        self.io(kept)
    }

    /// Forgets pages that lie before the overlap of what is durable.
    fn forget(&mut self) -> Result<(), AdapterError> {
        let (Some(overlap), Some(at)) = (self.overlap, self.durable.at.as_ref().and_then(|a| a.first())) else {
            return Ok(());
        };
        let Some(dialect) = self.session.as_ref().map(|s| s.dialect()) else { return Ok(()) };
        let Some(from) = back(dialect.split(at).1, overlap, now()) else { return Ok(()) };
        let mut row = None;
        while let Some((last, value)) = self.pages.front() {
            if *last > self.durable.n || !before(dialect.split(value).1, &from, overlap) {
                break;
            }
            row = Some(*last);
            self.pages.pop_front();
        }
        match (row, &mut self.memory) {
            (Some(row), Some(memory)) => {
                let forgotten = memory.forget(row);
                self.io(forgotten)
            }
            _ => Ok(()),
        }
    }
}

/// Where a sweep over the overlap begins; none where there is nothing to sweep.
fn sweep(
    doc: &SqlPollDoc,
    dialect: &dyn Dialect,
    scan: &Scan,
    known: Option<&[String]>,
    overlap: Option<Overlap>,
) -> Result<Option<String>, AdapterError> {
    let (Scan::New, Some(at), Some(overlap)) = (scan, known.and_then(<[String]>::first), overlap) else {
        return Ok(None);
    };
    let (kind, text) = dialect.split(at);
    let earlier = back(text, overlap, now()).ok_or_else(|| overlap_rule(doc))?;
    Ok(Some(format!("{kind}{earlier}")))
}

fn now() -> jiff::civil::DateTime {
    jiff::tz::Offset::UTC.to_datetime(jiff::Timestamp::now())
}

fn overlap_rule(doc: &SqlPollDoc) -> AdapterError {
    let detail = "the first cursor column is no instant, day or whole number as this overlap needs it; give a period such as \
                  10m for times, a number such as 1000 for numbers";
    match doc.cursor.as_ref().and_then(|c| c.overlap.as_ref()) {
        Some(overlap) => DocumentError::at(overlap, "cursor.overlap", detail).into(),
        None => DocumentError::rule("cursor.overlap", detail).into(),
    }
}

impl Source for SqlSource {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        // What is kept is touched only once the source answers.
        self.connect()?;
        let note = if self.expected.as_ref() == Some(from) { None } else { self.reset(from)? };
        let every = self.doc.poll.every.map_or(EVERY, |p| p.0);
        let mut next = Next::More;
        let begun = Instant::now();
        // Pages of which everything was told before make no batch.
        while self.buffer.is_empty() && begun.elapsed() < PATIENCE {
            if !self.fetch()? {
                next = Next::Idle(every);
                break;
            }
        }
        if !self.buffer.is_empty() {
            next = Next::More;
        }
        let mut batch = Batch::at(from, next);
        batch.notes.extend(note);
        let (Some(ready), mut bytes) = (&self.ready, 0) else { return Ok(batch) };
        while batch.rows() < max && bytes < BATCH_BYTES_MAX {
            let Some(line) = self.buffer.pop_front() else { break };
            self.place.n += 1;
            let row = ready.row(&line, Origin::row(self.doc.relation_name(), self.place.n), None);
            bytes += row.size_hint();
            batch.push(row);
            if line.past {
                self.place.at = Some(line.keyset);
            }
        }
        if batch.rows() > 0 {
            batch.checkpoint = self.place.encode();
        }
        if batch.rows() > 0 && self.buffer.is_empty() && self.scan == Scan::New {
            batch.next = Next::Idle(every);
        }
        self.expected = Some(batch.checkpoint.clone());
        Ok(batch)
    }

    fn ack(&mut self, durable: &Checkpoint) -> Result<(), AdapterError> {
        self.durable = Place::decode(durable)?;
        self.forget()
    }
}
