//! The CSV file adapter: one file, plain or gzip, read as a stream; and the same rows as an iterator
//! for datasets that are loaded into holdings rather than published.
//!
//! A checkpoint names the row and a hash chain over every row before it. After a restart the file is
//! read from its beginning (the normal path) and the chain is compared, so that a file which was
//! exchanged or edited under the same name can neither lose nor double a row unnoticed.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use concordat_protocol::hash::{Hash, sha256};
use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::contract::{AdapterError, BATCH_BYTES_MAX, Batch, Checkpoint, Origin, Record, Reject, Row, Source};
use crate::convert::Fault;
use crate::document::DocumentError;
use crate::plan::{Plan, Step};
use crate::rows::{Framed, Scanner, Span};

const BUFFER_BYTES: usize = 64 * 1024;

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
        let place: Self =
            serde_json::from_slice(&checkpoint.0).map_err(|e| AdapterError::Checkpoint { detail: e.to_string() })?;
        if place.v != 1 {
            let detail = format!("version {} is not known", place.v);
            return Err(AdapterError::Checkpoint { detail });
        }
        Ok(place)
    }
}

/// Reads the rows of one file in order.
pub struct RowReader {
    plan: Arc<Plan>,
    scanner: Scanner<Box<dyn BufRead + Send>>,
    row: u64,
    chain: Hash,
}

impl RowReader {
    /// Opens the plan's file below `base` (the node folder) and checks its header.
    pub fn open(base: &Path, plan: Arc<Plan>) -> Result<Self, AdapterError> {
        let path: PathBuf = base.join(&plan.path);
        let io = |action| {
            let file = plan.path.clone();
            move |source| AdapterError::Io { file, action, source }
        };
        let file = File::open(path).map_err(io("open"))?;
        let mut plain = BufReader::with_capacity(BUFFER_BYTES, file);
        let gzip = plain.fill_buf().map_err(io("read"))?.starts_with(&[0x1f, 0x8b]);
        let mut input: Box<dyn BufRead + Send> = if gzip {
            let decoder = flate2::bufread::MultiGzDecoder::new(plain);
            Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
        } else {
            Box::new(plain)
        };
        skip_mark(&mut input, &plan.path)?;
        let scanner = Scanner::new(input, plan.delimiter);
        let mut reader = Self { plan, scanner, row: 0, chain: [0; 32] };
        reader.read_header()?;
        Ok(reader)
    }

    fn read_header(&mut self) -> Result<(), AdapterError> {
        let refuse = |detail: String| AdapterError::Header { file: self.plan.path.clone(), detail };
        let found: Vec<String> = match self.scanner.next_row().map_err(|e| self.read_error(e))? {
            None => return Err(refuse("the file is empty, not even a header".to_owned())),
            Some(Framed::Broken(broken)) => return Err(refuse(broken.message.to_owned())),
            Some(Framed::Row) => {
                let mut scratch = Vec::new();
                let spans = self.scanner.spans();
                spans
                    .iter()
                    .map(|s| String::from_utf8_lossy(self.scanner.value(s, &mut scratch)).into_owned())
                    .collect()
            }
        };
        if let Some(detail) = header_difference(&self.plan.columns, &found) {
            return Err(refuse(detail));
        }
        self.chain = sha256(&[b"concordat/v1/file-chain\0", self.scanner.raw()]);
        Ok(())
    }

    /// The next row, or `None` at the end of the file.
    pub fn next_row(&mut self) -> Result<Option<Row>, AdapterError> {
        let Some(framed) = self.advance()? else { return Ok(None) };
        Ok(Some(match framed {
            Framed::Row => self.map_row(),
            Framed::Broken(broken) => {
                let fault = Fault::new(broken.rule, broken.message);
                Row::Bad(self.reject(0, broken.column, None, fault))
            }
        }))
    }

    fn advance(&mut self) -> Result<Option<Framed>, AdapterError> {
        let framed = self.scanner.next_row().map_err(|e| self.read_error(e))?;
        if framed.is_some() {
            self.row += 1;
            self.chain = sha256(&[&self.chain, self.scanner.raw()]);
        }
        Ok(framed)
    }

    fn read_error(&self, source: std::io::Error) -> AdapterError {
        let file = self.plan.path.clone();
        if source.kind() == std::io::ErrorKind::UnexpectedEof {
            return AdapterError::Truncated { file, row: self.row };
        }
        AdapterError::Io { file, action: "read", source }
    }

    fn map_row(&self) -> Row {
        let spans = self.scanner.spans();
        if spans.len() != self.plan.columns.len() {
            let message = format!("the row has {} values, the header {}", spans.len(), self.plan.columns.len());
            let (line, column) = spans.get(self.plan.columns.len()).map_or((0, 1), |extra| (extra.line, extra.column));
            return Row::Bad(self.reject(line, column, None, Fault::new("csv.column-count", message)));
        }
        let mut data = self.plan.constants.clone();
        let mut scratch = Vec::new();
        for step in &self.plan.steps {
            let Some(span) = spans.get(step.column) else { continue };
            if let Err(fault) = self.convert(step, span, &mut scratch, &mut data) {
                let name = self.plan.columns.get(step.column).cloned();
                return Row::Bad(self.reject(span.line, span.column, name, fault));
            }
        }
        let time = self.plan.time.as_ref().and_then(|t| data.get(t));
        Row::Good(Record {
            id: self.plan.record_id(&data),
            time: time.and_then(|t| t.as_str()).map(str::to_owned),
            data,
            origin: self.origin(),
            raw: self.scanner.raw().to_vec(),
        })
    }

    fn convert(
        &self,
        step: &Step,
        span: &Span,
        scratch: &mut Vec<u8>,
        data: &mut Map<String, serde_json::Value>,
    ) -> Result<(), Fault> {
        let bytes = self.scanner.value(span, scratch);
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Fault::new("text.utf8", "the value is not UTF-8; convert the file, or name its encoding"))?;
        if text.contains('\0') {
            return Err(Fault::new("text.nul", "the value holds a NUL byte; remove it at the source"));
        }
        let text = if step.trim { text.trim() } else { text };
        if self.plan.nulls.iter().any(|n| n == text) {
            if step.required {
                let message = format!("field `{}` must have a value", step.target);
                return Err(Fault::new("field.required", message));
            }
            return Ok(());
        }
        let value = step.conversion.apply(text, self.plan.point)?;
        data.insert(step.target.clone(), value);
        Ok(())
    }

    fn origin(&self) -> Origin {
        Origin { file: self.plan.path.clone(), row: self.row, line: self.scanner.line() }
    }

    fn reject(&self, lines: u64, column: u64, field: Option<String>, fault: Fault) -> Reject {
        let origin = self.origin();
        Reject {
            line: origin.line + lines,
            origin,
            column,
            field,
            rule: fault.rule.to_owned(),
            message: fault.message,
            raw: self.scanner.raw().to_vec(),
            truncated: self.scanner.truncated(),
        }
    }

    fn checkpoint(&self) -> Checkpoint {
        let place = Place { v: 1, file: self.plan.path.clone(), row: self.row, chain: hex::encode(self.chain) };
        Checkpoint(serde_json::to_vec(&place).unwrap_or_default())
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
        while self.row < place.row {
            if self.advance()?.is_none() {
                return Err(changed());
            }
        }
        if hex::encode(self.chain) == place.chain { Ok(()) } else { Err(changed()) }
    }
}

/// Passes over a UTF-8 byte order mark; refuses the marks of other encodings.
fn skip_mark(input: &mut Box<dyn BufRead + Send>, file: &str) -> Result<(), AdapterError> {
    let start = input.fill_buf().map_err(|source| match source.kind() {
        std::io::ErrorKind::UnexpectedEof => AdapterError::Truncated { file: file.to_owned(), row: 0 },
        _ => AdapterError::Io { file: file.to_owned(), action: "read", source },
    })?;
    if start.starts_with(&[0xff, 0xfe]) || start.starts_with(&[0xfe, 0xff]) {
        let detail = "the file is UTF-16, only UTF-8 is read; convert it".to_owned();
        return Err(AdapterError::Encoding { file: file.to_owned(), detail });
    }
    if start.starts_with(&[0xef, 0xbb, 0xbf]) {
        input.consume(3);
    }
    Ok(())
}

/// All differences between the expected and the found header, in one sentence.
fn header_difference(expected: &[String], found: &[String]) -> Option<String> {
    if expected == found {
        return None;
    }
    let mut parts = Vec::new();
    for name in expected.iter().filter(|n| !found.contains(n)) {
        parts.push(format!("`{name}` is missing"));
    }
    for (n, name) in found.iter().enumerate() {
        if !expected.contains(name) {
            parts.push(format!("`{name}` (column {}) is not expected", n + 1));
        } else if found.iter().take(n).any(|f| f == name) {
            parts.push(format!("`{name}` (column {}) stands twice", n + 1));
        }
    }
    if parts.is_empty() {
        for (n, (want, got)) in expected.iter().zip(found).enumerate() {
            if want != got {
                parts.push(format!("column {} is `{got}`, expected `{want}`", n + 1));
            }
        }
    }
    Some(format!("the header differs: {}", parts.join("; ")))
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
        let mut batch = Batch { records: Vec::new(), rejects: Vec::new(), checkpoint: from.clone(), end: false };
        let mut bytes = 0;
        while batch.records.len() + batch.rejects.len() < max && bytes < BATCH_BYTES_MAX {
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
                    batch.end = true;
                    break;
                }
            }
        }
        if reader.row > 0 {
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
