//! Rows of CSV text: the header compared, cells decoded, rows mapped.

use std::borrow::Cow;
use std::io::Cursor;
use std::sync::Arc;

use concordat_protocol::hash::Hash;

use super::{Input, MapColumns, Rows, chain_of, link, marked, read_error};
use crate::contract::{AdapterError, Beside, Origin, Reject, Row};
use crate::convert::Fault;
use crate::document::DocumentError;
use crate::format::{CsvFormat, Encoding};
use crate::mapping::{Cell, Mapper};
use crate::rows::{Framed, Scanner, Span};

/// How the text is written.
#[derive(Debug, Clone)]
pub struct CsvForm {
    /// Byte between values.
    pub delimiter: u8,
    /// Decimal mark.
    pub point: char,
    /// Words that mean "no value".
    pub nulls: Vec<String>,
    /// Its characters.
    pub encoding: Encoding,
}

impl CsvForm {
    /// Checks what a document says.
    pub fn new(format: &CsvFormat) -> Result<Self, DocumentError> {
        let (delimiter, point) = (format.delimiter()?, format.point()?);
        Ok(Self { delimiter, point, nulls: format.nulls.clone(), encoding: format.encoding })
    }
}

/// What the header must be, and what its columns become.
#[derive(Clone)]
pub enum Head {
    /// Exactly these columns in this order.
    Exactly(Vec<String>, Arc<Mapper>),
    /// Any columns that the mapping accounts for.
    Mapped(MapColumns),
}

/// Reads the rows of one text in order.
pub struct CsvReader {
    name: String,
    encoding: Encoding,
    /// The columns of the header.
    beside: Arc<Beside>,
    mapper: Arc<Mapper>,
    scanner: Scanner<Input>,
    row: u64,
    chain: Hash,
}

impl CsvReader {
    /// Reads the header; `name` is what origins and errors call the text.
    pub fn open(name: &str, input: Input, form: &CsvForm, head: &Head) -> Result<Self, AdapterError> {
        let mut scanner = Scanner::new(marked(input, form.encoding, name)?, form.delimiter);
        let encoding = if form.encoding.is_utf16() { Encoding::default() } else { form.encoding };
        let refuse = |detail: String| AdapterError::Header { file: name.to_owned(), detail };
        let found = match scanner.next_row().map_err(|e| read_error(name, 0, e))? {
            None => return Err(refuse("the file is empty, not even a header".to_owned())),
            Some(Framed::Broken(broken)) => return Err(refuse(broken.message.to_owned())),
            Some(Framed::Row) => names(&scanner, encoding),
        };
        let (columns, mapper) = match head {
            Head::Exactly(columns, mapper) => {
                if let Some(detail) = difference(columns, &found) {
                    return Err(refuse(detail));
                }
                (columns.clone(), Arc::clone(mapper))
            }
            Head::Mapped(mapper) => {
                if let Some(twice) = found.iter().enumerate().find(|(n, c)| found.iter().take(*n).any(|f| f == *c)) {
                    return Err(refuse(format!(
                        "the header differs: `{}` (column {}) stands twice",
                        twice.1,
                        twice.0 + 1
                    )));
                }
                let mapper = mapper(&found).map_err(|e| refuse(format!("the header differs from the mapping: {e}")))?;
                (found, Arc::new(mapper))
            }
        };
        let chain = chain_of(scanner.raw());
        let beside = Arc::new(Beside { columns, ..Beside::default() });
        Ok(Self { name: name.to_owned(), encoding, beside, mapper, scanner, row: 0, chain })
    }

    /// A reader of rows whose header was read before.
    pub fn of_rows(name: &str, text: &[u8], form: &CsvForm, beside: Arc<Beside>, mapper: Arc<Mapper>) -> Self {
        // Rows of two-byte encodings are kept as UTF-8.
        let encoding = if form.encoding.is_utf16() { Encoding::default() } else { form.encoding };
        let input: Input = Box::new(Cursor::new(text.to_vec()));
        let scanner = Scanner::new(input, form.delimiter);
        Self { name: name.to_owned(), encoding, beside, mapper, scanner, row: 0, chain: chain_of(b"") }
    }

    fn advance(&mut self) -> Result<Option<Framed>, AdapterError> {
        let framed = self.scanner.next_row().map_err(|e| read_error(&self.name, self.row, e))?;
        if framed.is_some() {
            self.row += 1;
            self.chain = link(&self.chain, self.scanner.raw());
        }
        Ok(framed)
    }

    fn map_row(&self) -> Row {
        let (spans, columns) = (self.scanner.spans(), self.columns().len());
        if spans.len() != columns {
            let message = format!("the row has {} values, the header {columns}", spans.len());
            let (line, column) = spans.get(columns).map_or((0, 1), |extra| (extra.line, extra.column));
            return Row::Bad(self.reject(line, column, None, Fault::new("csv.column-count", message)));
        }
        match self.mapper.map(&|step| spans.get(step.column).map_or(Cell::Null, |span| self.cell(span))) {
            Ok(mapped) => Row::Good(mapped.at(self.origin(), self.scanner.raw())),
            Err(bad) => {
                let (line, column) = spans.get(bad.column).map_or((0, 1), |span| (span.line, span.column));
                Row::Bad(self.reject(line, column, Some(bad.name), bad.fault))
            }
        }
    }

    fn cell(&self, span: &Span) -> Cell<'_> {
        decoded(self.encoding, self.scanner.bytes(span)).map_or_else(
            || {
                let rule = if self.encoding.0 == encoding_rs::UTF_8 { "text.utf8" } else { "text.encoding" };
                let name = self.encoding.0.name();
                Cell::Bad(Fault::new(rule, format!("the value is not {name}; convert the file, or name its encoding")))
            },
            Cell::Text,
        )
    }

    fn origin(&self) -> Origin {
        let beside = Some(Arc::clone(&self.beside));
        Origin { line: self.scanner.line(), beside, ..Origin::row(self.name.as_str(), self.row) }
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
}

impl Rows for CsvReader {
    fn next_row(&mut self) -> Result<Option<Row>, AdapterError> {
        let Some(framed) = self.advance()? else { return Ok(None) };
        Ok(Some(match framed {
            Framed::Row => self.map_row(),
            Framed::Broken(broken) => {
                let fault = Fault::new(broken.rule, broken.message);
                Row::Bad(self.reject(0, broken.column, None, fault))
            }
        }))
    }

    fn skip_row(&mut self) -> Result<bool, AdapterError> {
        Ok(self.advance()?.is_some())
    }

    fn columns(&self) -> &[String] {
        &self.beside.columns
    }

    fn row(&self) -> u64 {
        self.row
    }

    fn chain(&self) -> Hash {
        self.chain
    }
}

/// The text of bytes; none when they are not of the encoding.
fn decoded(encoding: Encoding, bytes: Cow<'_, [u8]>) -> Option<Cow<'_, str>> {
    if encoding.0 == encoding_rs::UTF_8 {
        return match bytes {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).ok(),
            Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).ok(),
        };
    }
    match bytes {
        Cow::Borrowed(bytes) => encoding.0.decode_without_bom_handling_and_without_replacement(bytes),
        Cow::Owned(bytes) => {
            let text = encoding.0.decode_without_bom_handling_and_without_replacement(&bytes)?;
            Some(Cow::Owned(text.into_owned()))
        }
    }
}

/// The values of the row read last as names; what is no text shows as such.
fn names(scanner: &Scanner<Input>, encoding: Encoding) -> Vec<String> {
    let name = |span| {
        let bytes = scanner.bytes(span);
        let lossy = String::from_utf8_lossy(&bytes).into_owned();
        decoded(encoding, bytes).map_or(lossy, Cow::into_owned)
    };
    scanner.spans().iter().map(name).collect()
}

/// The header and the first rows of a text as cells, for a draft: rows that cannot be framed or decoded are left out.
pub fn sample(name: &str, input: Input, form: &CsvForm, most: usize) -> Result<Sample, AdapterError> {
    let mut scanner = Scanner::new(marked(input, form.encoding, name)?, form.delimiter);
    let encoding = if form.encoding.is_utf16() { Encoding::default() } else { form.encoding };
    let mut sample = Sample::default();
    while sample.rows.len() < most {
        let Some(framed) = scanner.next_row().map_err(|e| read_error(name, sample.rows.len() as u64, e))? else {
            break;
        };
        if sample.columns.is_empty() {
            sample.columns = names(&scanner, encoding);
        } else if framed == Framed::Row && scanner.spans().len() == sample.columns.len() {
            let cell = |span| {
                let text = decoded(encoding, scanner.bytes(span))?;
                (!form.nulls.iter().any(|n| *n == text)).then(|| text.into_owned())
            };
            sample.rows.push(scanner.spans().iter().map(cell).collect());
        }
    }
    if sample.columns.is_empty() {
        let detail = "the file is empty, not even a header".to_owned();
        return Err(AdapterError::Header { file: name.to_owned(), detail });
    }
    Ok(sample)
}

/// The beginning of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// The header.
    pub columns: Vec<String>,
    /// Cells of the first rows; none for no value.
    pub rows: Vec<Vec<Option<String>>>,
}

/// All differences between the expected and the found header, in one sentence.
fn difference(expected: &[String], found: &[String]) -> Option<String> {
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
