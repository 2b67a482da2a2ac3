//! The server's change stream: a load of everything by `_id`, then every change behind a resume token.

use std::path::{Path, PathBuf};

use mongodb::bson::{Bson, Document, doc};
use mongodb::change_stream::event::{ChangeStreamEvent, OperationType, ResumeToken};
use serde::{Deserialize, Serialize};

use super::document::MongoDoc;
use super::store::Store;
use super::values::{json, keep, kept};
use crate::contract::{
    AdapterError, BATCH_BYTES_MAX, Batch, Beside, Checkpoint, ErrorClass, Next, Origin, Row, Source,
};
use crate::convert::Fault;
use crate::json_rows::JsonRows;
use crate::mapping::Cell;

/// What a cell of a change can be besides a path into the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op;

impl Op {
    /// Reads `$op`: `upsert` or `delete`.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        (text == "$op").then_some(Ok(Self))
    }
}

/// The contents of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    v: u8,
    n: u64,
    /// Where changes go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<ResumeToken>,
    /// `_id` up to which the load came; none when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    load: Option<String>,
}

/// A collection whose changes are followed.
pub struct ChangesSource {
    doc: MongoDoc,
    rows: JsonRows<Op>,
    base: PathBuf,
    store: Option<Store>,
    expected: Option<Checkpoint>,
    place: Place,
}

/// The row of a document; what happened to it stands beside it.
pub(super) fn row(rows: &JsonRows<Op>, origin: Origin, text: &[u8]) -> Row {
    let op = origin.beside.as_ref().and_then(|b| b.op.clone());
    rows.row(origin, text, text, &|Op| match &op {
        Some(op) => Cell::from(op.clone()),
        None => Cell::Bad(Fault::new("replay.op", "what happened to the document was not kept")),
    })
}

/// Before the first `_id`.
const BEGIN: &str = "";

impl ChangesSource {
    /// A source that has not connected yet.
    pub fn new(doc: MongoDoc, rows: JsonRows<Op>, base: &Path) -> Self {
        Self { doc, rows, base: base.to_owned(), store: None, expected: None, place: Place::default() }
    }

    fn reset(&mut self, from: &Checkpoint) -> Result<(), AdapterError> {
        self.store = None;
        self.place = match from.is_start() {
            true => Place { v: 1, load: Some(BEGIN.to_owned()), ..Place::default() },
            false => from.json()?,
        };
        self.expected = Some(from.clone());
        Ok(())
    }

    fn row(&self, document: &Document, op: &'static str) -> Row {
        let text = json(document).to_string().into_bytes();
        let beside = Beside { op: Some(op.to_owned()), ..Beside::default() };
        row(&self.rows, Origin::row(self.doc.place(), self.place.n).with(beside), &text)
    }

    /// A page of the load.
    fn load(&mut self, at: &str, batch: &mut Batch, max: usize) -> Result<(), AdapterError> {
        let filter = match kept(at) {
            Some(id) => doc! {"_id": {"$gt": id}},
            None => doc! {},
        };
        let Some(store) = &self.store else { return Ok(()) };
        let limit = i64::try_from(max).unwrap_or(i64::MAX).min(self.doc.page());
        let page = store.find(filter, doc! {"_id": 1}, limit)?;
        let (count, mut bytes, mut taken) = (page.len(), 0, 0);
        for document in page {
            self.place.n += 1;
            let row = self.row(&document, "upsert");
            bytes += row.size_hint();
            batch.push(row);
            taken += 1;
            self.place.load = Some(keep(document.get("_id").unwrap_or(&Bson::Null)));
            if bytes > BATCH_BYTES_MAX {
                break;
            }
        }
        if taken == count && (count as i64) < limit {
            self.place.load = None;
        }
        Ok(())
    }

    fn change(&mut self, event: &ChangeStreamEvent<Document>) -> Result<Option<Row>, AdapterError> {
        let (document, op) = match event.operation_type {
            OperationType::Insert | OperationType::Update | OperationType::Replace => {
                // A document that was deleted since is told by its own change.
                match &event.full_document {
                    Some(document) => (document.clone(), "upsert"),
                    None => return Ok(None),
                }
            }
            OperationType::Delete => match &event.document_key {
                Some(key) => (key.clone(), "delete"),
                None => return Ok(None),
            },
            OperationType::Drop | OperationType::Rename | OperationType::DropDatabase | OperationType::Invalidate => {
                let detail =
                    format!("{}: the collection was dropped or renamed; correct the document", self.doc.place());
                return Err(AdapterError::source_failed(ErrorClass::Permanent, "source.missing", detail));
            }
            _ => return Ok(None),
        };
        self.place.n += 1;
        Ok(Some(self.row(&document, op)))
    }
}

impl Source for ChangesSource {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        let read = self.next(from, max);
        if read.is_err() {
            // What was taken of the stream before the error is taken again.
            self.expected = None;
        }
        read
    }
}

impl ChangesSource {
    fn next(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        if self.expected.as_ref() != Some(from) {
            self.reset(from)?;
        }
        if self.store.is_none() {
            self.store = Some(Store::open(&self.doc, &self.base)?);
        }
        let Some(store) = &mut self.store else { return Ok(Batch::at(from, Next::More)) };
        if !store.follows() {
            // The stream begins before the load, so that nothing falls between them.
            let token = store.follow(self.place.token.clone())?;
            self.place.token = self.place.token.take().or(token);
        }
        let mut batch = Batch::at(from, Next::More);
        if let Some(at) = self.place.load.clone() {
            self.load(&at, &mut batch, max)?;
        } else {
            let mut bytes = 0;
            while batch.rows() < max && bytes < BATCH_BYTES_MAX {
                let Some(store) = &mut self.store else { break };
                let Some((event, token)) = store.change()? else { break };
                if let Some(row) = self.change(&event)? {
                    if let Row::Good(record) = &row {
                        bytes += record.size_hint();
                    }
                    batch.push(row);
                }
                self.place.token = token.or(Some(event.id));
            }
        }
        if batch.rows() > 0 {
            batch.checkpoint = Checkpoint::of_json(&self.place);
        }
        self.expected = Some(batch.checkpoint.clone());
        Ok(batch)
    }
}
