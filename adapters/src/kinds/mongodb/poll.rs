//! Polling: pages behind the cursor and the document's `_id`, then the overlap again and again.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mongodb::bson::{Bson, DateTime, Document, doc};
use serde::{Deserialize, Serialize};

use super::document::MongoDoc;
use super::store::Store;
use super::values::{json, keep, kept};
use crate::contract::{AdapterError, BATCH_BYTES_MAX, Batch, Checkpoint, Next, Origin, Source};
use crate::json_rows::JsonRows;
use crate::kinds::sql_poll::memory::{Memory, mark};
use crate::mapping::Cell;

const PATIENCE: Duration = Duration::from_millis(500);
/// Longest cursor value or `_id` that is kept.
const VALUE_MAX: usize = 1_000;

/// The contents of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    v: u8,
    /// Documents handed out so far.
    n: u64,
    /// Cursor and `_id` of the furthest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<(String, String)>,
}

impl Place {
    fn decode(from: &Checkpoint) -> Result<Self, AdapterError> {
        if from.is_start() {
            return Ok(Self { v: 1, ..Self::default() });
        }
        from.json()
    }

    fn encode(&self) -> Checkpoint {
        Checkpoint::of_json(self)
    }
}

struct Found {
    document: Document,
    at: (String, String),
    /// Further than everything before it.
    past: bool,
}

/// A collection that is polled.
pub struct PollSource {
    doc: MongoDoc,
    field: String,
    start: Option<Bson>,
    overlap: Duration,
    rows: JsonRows<()>,
    base: PathBuf,
    store: Option<Store>,
    memory: Option<Memory>,
    expected: Option<Checkpoint>,
    place: Place,
    /// Where the scan under way goes on; none when the next one begins.
    scan: Option<(String, String)>,
    durable: u64,
    forgets: bool,
    buffer: VecDeque<Found>,
}

impl PollSource {
    /// A source that has not connected yet.
    pub fn new(doc: MongoDoc, rows: JsonRows<()>, base: &Path) -> Result<Self, AdapterError> {
        let (field, overlap) = doc
            .cursor
            .as_ref()
            .map_or_else(Default::default, |c| (c.field.clone(), c.overlap.map(|p| p.0).unwrap_or_default()));
        Ok(Self {
            start: doc.start()?,
            doc,
            field,
            overlap,
            rows,
            base: base.to_owned(),
            store: None,
            memory: None,
            expected: None,
            place: Place::default(),
            scan: None,
            durable: 0,
            forgets: false,
            buffer: VecDeque::new(),
        })
    }

    fn io<T>(&self, done: std::io::Result<T>) -> Result<T, AdapterError> {
        let file = format!("adapters/{}.seen", self.doc.adapter.value);
        done.map_err(|source| AdapterError::Io { file, action: "keep", source })
    }

    /// Goes back or on to a checkpoint that is not the last one.
    fn reset(&mut self, from: &Checkpoint) -> Result<(), AdapterError> {
        self.place = Place::decode(from)?;
        self.scan = None;
        self.buffer.clear();
        if !self.overlap.is_zero() {
            let done = match &mut self.memory {
                Some(memory) => memory.rewind(self.place.n),
                None => {
                    let folder = self.base.join("adapters");
                    let path = folder.join(format!("{}.seen", self.doc.adapter.value));
                    let opened = std::fs::create_dir_all(&folder).and_then(|()| Memory::open(&path, self.place.n));
                    opened.map(|memory| self.memory = Some(memory))
                }
            };
            self.io(done)?;
        }
        self.expected = Some(from.clone());
        Ok(())
    }

    /// The filter of the next page.
    fn filter(&self) -> Result<Document, AdapterError> {
        let bad = || AdapterError::Checkpoint { detail: "its cursor is no value of BSON".to_owned() };
        let field = self.field.as_str();
        let behind = |(value, id): &(String, String)| {
            let (value, id) = (kept(value).ok_or_else(bad)?, kept(id).ok_or_else(bad)?);
            let later = types_after(&id);
            Ok(doc! {"$or": [
                {field: {"$gt": value.clone()}},
                {field: value.clone(), "_id": {"$gt": id}},
                {field: value, "_id": {"$type": later}},
            ]})
        };
        match (&self.scan, &self.place.at) {
            (Some(at), _) => behind(at),
            (None, Some(at)) if self.overlap.is_zero() => behind(at),
            (None, Some((value, _))) => match kept(value) {
                Some(Bson::DateTime(newest)) => {
                    let ms = i64::try_from(self.overlap.as_millis()).unwrap_or(i64::MAX);
                    // One document of a wrong clock must not hide all those with the right time.
                    let newest = newest.min(DateTime::now());
                    let from = DateTime::from_millis(newest.timestamp_millis().saturating_sub(ms));
                    Ok(doc! {field: {"$gte": from}})
                }
                Some(_) => {
                    Err(crate::document::DocumentError::rule("cursor.overlap", "the cursor is no date; remove it")
                        .into())
                }
                None => Err(bad()),
            },
            (None, None) => Ok(match &self.start {
                Some(start) => doc! {field: {"$gte": start.clone()}},
                None => doc! {field: {"$ne": Bson::Null}},
            }),
        }
    }

    /// Reads the next page. True when more may follow at once.
    fn fetch(&mut self) -> Result<bool, AdapterError> {
        if self.store.is_none() {
            self.store = Some(Store::open(&self.doc, &self.base)?);
        }
        if self.scan.is_none() {
            self.forgets = self.durable == self.place.n;
            if let Some(memory) = &mut self.memory {
                memory.begin();
            }
        }
        let filter = self.filter()?;
        let Some(store) = &self.store else { return Ok(false) };
        let sort = doc! {self.field.as_str(): 1, "_id": 1};
        let page = store.find(filter, sort, self.doc.page())?;
        let full = page.len() as i64 >= self.doc.page();
        let last = self.take(page)?;
        match last.filter(|_| full) {
            Some(at) => self.scan = Some(at),
            None => {
                self.scan = None;
                if let (Some(memory), true) = (&mut self.memory, self.forgets) {
                    let ended = memory.end();
                    self.io(ended)?;
                }
            }
        }
        Ok(full)
    }

    /// Keeps what is new of a page, and says where it ended.
    fn take(&mut self, page: Vec<Document>) -> Result<Option<(String, String)>, AdapterError> {
        let (mut fresh, mut marks, mut last) = (Vec::new(), Vec::new(), None);
        for document in page {
            let value = field(&document, &self.field);
            let id = document.get("_id").cloned().unwrap_or(Bson::Null);
            let at = (keep(&value), keep(&id));
            if at.0.len() > VALUE_MAX || at.1.len() > VALUE_MAX {
                let detail = format!("{}: a cursor or `_id` is longer than {VALUE_MAX} characters", self.doc.place());
                return Err(AdapterError::source_failed(
                    crate::contract::ErrorClass::Permanent,
                    "source.limit",
                    detail,
                ));
            }
            last = Some(at.clone());
            let mark = mark(&[at.0.clone(), at.1.clone()]);
            if self.memory.as_mut().is_some_and(|memory| memory.knows(&mark)) {
                continue;
            }
            marks.push((self.place.n + self.buffer.len() as u64 + 1 + marks.len() as u64, mark));
            // A document found late in the overlap does not move the place back.
            let past = self.overlap.is_zero() || is_past(self.place.at.as_ref(), &value, &id);
            fresh.push(Found { document, at, past });
        }
        if let Some(memory) = &mut self.memory {
            let done = memory.keep(&marks);
            self.io(done)?;
        }
        self.buffer.extend(fresh);
        Ok(last)
    }
}

/// True when a date is not before the furthest one.
fn is_past(at: Option<&(String, String)>, value: &Bson, id: &Bson) -> bool {
    let Some((furthest, furthest_id)) = at else { return true };
    match (kept(furthest), value) {
        (Some(Bson::DateTime(a)), Bson::DateTime(b)) => (*b, keep(id)) > (a, furthest_id.clone()),
        _ => true,
    }
}

/// Types that sort after that of an `_id`: a comparison finds values of the same type alone.
fn types_after(id: &Bson) -> Vec<&'static str> {
    const ORDER: [&str; 8] = ["number", "string", "object", "binData", "objectId", "bool", "date", "timestamp"];
    let at = match id {
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => 1,
        Bson::String(_) | Bson::Symbol(_) => 2,
        Bson::Document(_) => 3,
        Bson::Binary(_) => 4,
        Bson::ObjectId(_) => 5,
        Bson::Boolean(_) => 6,
        Bson::DateTime(_) => 7,
        Bson::Timestamp(_) => 8,
        _ => 0,
    };
    match ORDER.get(at..) {
        Some(rest) if !rest.is_empty() => rest.to_vec(),
        // Nothing sorts after it; a list must not be empty.
        _ => vec!["maxKey"],
    }
}

/// A field of a document by its path with dots.
fn field(document: &Document, path: &str) -> Bson {
    let mut steps = path.split('.');
    let mut found = steps.next().and_then(|step| document.get(step));
    for step in steps {
        found = found.and_then(Bson::as_document).and_then(|inner| inner.get(step));
    }
    found.cloned().unwrap_or(Bson::Null)
}

impl Source for PollSource {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        if self.expected.as_ref() != Some(from) {
            self.reset(from)?;
        }
        let mut next = Next::More;
        let begun = Instant::now();
        while self.buffer.is_empty() && begun.elapsed() < PATIENCE {
            if !self.fetch()? {
                next = Next::Idle(self.doc.every());
                break;
            }
        }
        let mut batch = Batch::at(from, if self.buffer.is_empty() { next } else { Next::More });
        let mut bytes = 0;
        while batch.rows() < max && bytes < BATCH_BYTES_MAX {
            let Some(found) = self.buffer.pop_front() else { break };
            self.place.n += 1;
            let text = json(&found.document).to_string().into_bytes();
            let row = self.rows.row(Origin::row(self.doc.place(), self.place.n), &text, &text, &|()| Cell::Null);
            bytes += row.size_hint();
            batch.push(row);
            if found.past {
                self.place.at = Some(found.at);
            }
        }
        if batch.rows() > 0 {
            batch.checkpoint = self.place.encode();
            if self.buffer.is_empty() && self.scan.is_none() {
                batch.next = Next::Idle(self.doc.every());
            }
        }
        self.expected = Some(batch.checkpoint.clone());
        Ok(batch)
    }

    fn ack(&mut self, durable: &Checkpoint) -> Result<(), AdapterError> {
        self.durable = Place::decode(durable)?.n;
        Ok(())
    }
}
