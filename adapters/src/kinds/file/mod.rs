//! The CSV file adapter: one file, plain or gzip, read as a stream; and the same rows as an iterator
//! for datasets that are loaded into holdings rather than published.
//!
//! A checkpoint names the row and a hash chain over every row before it. After a restart the file is
//! read from its beginning (the normal path) and the chain is compared, so that a file which was
//! exchanged or edited under the same name can neither lose nor double a row unnoticed.

pub mod plan;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::contract::{
    AdapterError, Again, BATCH_BYTES_MAX, Batch, Checkpoint, Connector, Discovery, Finding, Kind, Next, Row, Setting,
    Source, Spec,
};
use crate::document::{Common, DocumentError};
use crate::files::content::Content;
use crate::files::{Rows, draft};

use plan::{FileDoc, Plan};

/// The contents of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    v: u8,
    file: String,
    row: u64,
    chain: String,
}

impl Place {
    fn decode(checkpoint: &Checkpoint) -> Result<Self, AdapterError> {
        checkpoint.json()
    }
}

/// Reads the rows of one file in order.
pub struct RowReader {
    plan: Arc<Plan>,
    rows: Box<dyn Rows>,
}

impl RowReader {
    /// Opens the plan's file below `base` (the node folder) and checks its header.
    pub fn open(base: &Path, plan: Arc<Plan>) -> Result<Self, AdapterError> {
        let content = content(base, &plan.path)?;
        let rows = plan.form.open(&plan.path, &content)?;
        Ok(Self { plan, rows })
    }

    /// The next row, or `None` at the end of the file.
    pub fn next_row(&mut self) -> Result<Option<Row>, AdapterError> {
        self.rows.next_row()
    }

    fn checkpoint(&self) -> Checkpoint {
        let (row, chain) = (self.rows.row(), hex::encode(self.rows.chain()));
        let place = Place { v: 1, file: self.plan.path.clone(), row, chain };
        Checkpoint::of_json(&place)
    }

    /// Passes over the rows before `checkpoint`, making sure that they are the same ones.
    fn skip_to(&mut self, checkpoint: &Checkpoint) -> Result<(), AdapterError> {
        if checkpoint.is_start() {
            return Ok(());
        }
        let place = Place::decode(checkpoint)?;
        let changed = || AdapterError::Changed { file: place.file.clone(), row: place.row };
        if place.file != self.plan.path {
            return Err(changed());
        }
        while self.rows.row() < place.row {
            if !self.rows.skip_row()? {
                return Err(changed());
            }
        }
        if hex::encode(self.rows.chain()) == place.chain { Ok(()) } else { Err(changed()) }
    }
}

fn content(base: &Path, path: &str) -> Result<Content, AdapterError> {
    let io = |source| AdapterError::Io { file: path.to_owned(), action: "open", source };
    Content::open(&base.join(path)).map_err(io)
}

/// A file as a source of batches.
pub struct FileSource {
    base: PathBuf,
    plan: Arc<Plan>,
    open: Option<(Checkpoint, RowReader)>,
}

impl FileSource {
    /// A source for the plan's file below `base` (the node folder). Opens nothing yet.
    pub fn new(base: &Path, plan: Arc<Plan>) -> Self {
        Self { base: base.to_owned(), plan, open: None }
    }

    fn reader_at(&mut self, from: &Checkpoint) -> Result<RowReader, AdapterError> {
        match self.open.take() {
            Some((at, reader)) if at == *from => Ok(reader),
            _ => {
                let mut reader = RowReader::open(&self.base, Arc::clone(&self.plan))?;
                reader.skip_to(from)?;
                Ok(reader)
            }
        }
    }
}

impl Source for FileSource {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        let mut reader = self.reader_at(from)?;
        let mut batch = Batch::at(from, Next::More);
        let mut bytes = 0;
        while batch.rows() < max && bytes < BATCH_BYTES_MAX {
            match reader.next_row()? {
                Some(Row::Good(record)) => {
                    bytes += record.size_hint();
                    batch.records.push(record);
                }
                Some(Row::Bad(reject)) => {
                    bytes += reject.raw.len();
                    batch.rejects.push(reject);
                }
                None => {
                    batch.next = Next::End;
                    break;
                }
            }
        }
        if reader.rows.row() > 0 {
            batch.checkpoint = reader.checkpoint();
        }
        self.open = Some((batch.checkpoint.clone(), reader));
        Ok(batch)
    }
}

/// All rows of a file, for loading into holdings. An error ends the iterator: what came before it is
/// not the whole file.
pub struct Records {
    reader: RowReader,
    done: bool,
}

/// Opens the plan's file below `base` and iterates over its rows, good and bad.
pub fn records(base: &Path, plan: Arc<Plan>) -> Result<Records, AdapterError> {
    Ok(Records { reader: RowReader::open(base, plan)?, done: false })
}

impl Iterator for Records {
    type Item = Result<Row, AdapterError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.reader.next_row().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

/// Parses, checks and opens in one go: for `adapter check`. Returns the plan when the file's header
/// is as expected.
pub fn check(base: &Path, yaml: &str) -> Result<Plan, AdapterError> {
    let plan = Plan::parse(yaml).map_err(|e: DocumentError| AdapterError::Document(e))?;
    RowReader::open(base, Arc::new(plan.clone()))?;
    Ok(plan)
}

/// The kind `file`.
pub struct FileKind;

const SETTINGS: &[Setting] = &[
    Setting { name: "path", required: true, about: "The file, relative to the node folder; gzip is recognised." },
    Setting {
        name: "format",
        required: true,
        about: "`{csv: {columns, encoding, delimiter, decimal, nulls}}` or `{parquet: {}}`.",
    },
    Setting {
        name: "format.csv.columns",
        required: false,
        about: "The columns of a CSV file in order, as its header has them; mandatory for CSV.",
    },
    Setting {
        name: "format.csv.encoding",
        required: false,
        about: "Its characters: `utf-8` when left out, `windows-1252`, `utf-16le` and so on.",
    },
    Setting {
        name: "format.csv.delimiter",
        required: false,
        about: "The character between values; `,` when left out.",
    },
    Setting { name: "format.csv.decimal", required: false, about: "The decimal mark, `.` or `,`." },
    Setting {
        name: "format.csv.nulls",
        required: false,
        about: "Words that mean no value; the empty word when left out.",
    },
];

impl Kind for FileKind {
    fn spec(&self) -> Spec {
        Spec {
            kind: "file",
            title: "one file that does not change: CSV, plain or gzip, or Parquet",
            settings: SETTINGS,
            example: include_str!("example.yaml"),
            readme: include_str!("README.md"),
        }
    }

    fn parse(&self, text: &str) -> Result<Box<dyn Connector>, DocumentError> {
        let doc = FileDoc::parse(text)?;
        Ok(Box::new(FileConnector { common: doc.common(), doc }))
    }
}

/// A file as a document describes it.
struct FileConnector {
    common: Common,
    doc: FileDoc,
}

impl Connector for FileConnector {
    fn common(&self) -> &Common {
        &self.common
    }

    fn place(&self) -> String {
        self.doc.path.clone()
    }

    fn check(&self, base: &Path) -> Vec<Finding> {
        let plan = match Plan::new(&self.doc) {
            Ok(plan) => Arc::new(plan),
            Err(e) => return vec![Finding::failed("mapping", &e.into())],
        };
        match RowReader::open(base, plan) {
            Ok(reader) => {
                let columns = reader.rows.columns().len();
                vec![Finding::ok("file", format!("{} has the {columns} expected columns", self.doc.path))]
            }
            Err(e) => vec![Finding::failed("file", &e)],
        }
    }

    fn discover(&self, base: &Path) -> Result<Discovery, AdapterError> {
        let content = content(base, &self.doc.path)?;
        match (&self.doc.format.value.csv, &self.doc.format.value.parquet) {
            (Some(csv), _) => draft::csv(&self.common, csv, &self.doc.path, &content),
            (None, _) => draft::parquet(&self.common, &self.doc.path, &content),
        }
    }

    fn open(&self, base: &Path) -> Result<Box<dyn Source>, AdapterError> {
        Ok(Box::new(FileSource::new(base, Arc::new(Plan::new(&self.doc)?))))
    }

    fn again(&self) -> Result<Again, AdapterError> {
        Ok(Plan::new(&self.doc)?.form.again(&self.common))
    }
}
