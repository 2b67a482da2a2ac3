//! Rows of Parquet: cells as exact text, members of groups by path.

mod cells;
mod leaves;

use std::collections::BTreeMap;
use std::sync::Arc;

use concordat_protocol::hash::Hash;

use super::content::Content;
use super::csv::Sample;
use super::{MapColumns, Rows, chain_of, link};
use crate::contract::{AdapterError, Origin, Reject, Row};
use crate::convert::Fault;
use crate::json_rows::bad;
use crate::mapping::{Cell, Mapper};
use crate::rows::{KEPT_BYTES_MAX, ROW_BYTES_MAX};
use cells::Value;
use leaves::{Column, Leaves};

/// Reads the rows of one file in order.
pub struct ParquetReader {
    name: String,
    leaves: Leaves,
    columns: Vec<String>,
    mapper: Arc<Mapper>,
    values: Vec<Value>,
    /// The row as a dead letter keeps it: JSON, a text or null by column.
    raw: Vec<u8>,
    row: u64,
    chain: Hash,
}

impl ParquetReader {
    /// Reads the columns; `name` is what origins and errors call the file.
    ///
    /// # Errors
    /// A file that is cut, damaged or none of Parquet, columns that the mapping does not account for, and a mapped column
    /// whose type has no text.
    pub fn open(name: &str, content: &Content, mapper: &MapColumns) -> Result<Self, AdapterError> {
        let leaves = Leaves::open(name, content)?;
        let refuse = |detail: String| AdapterError::Columns { file: name.to_owned(), detail };
        let columns: Vec<String> = leaves.columns.iter().map(|c| c.name.clone()).collect();
        if let Some((_, twice)) = columns.iter().enumerate().find(|(n, c)| columns.iter().take(*n).any(|o| o == *c)) {
            return Err(refuse(format!("the column `{twice}` stands twice")));
        }
        let mapper = mapper(&columns).map_err(|e| refuse(format!("the columns differ from the mapping: {e}")))?;
        for step in mapper.steps() {
            let column = leaves.columns.get(step.column);
            if let Some(Column { name, refused: Some(why), .. }) = column {
                return Err(refuse(format!("the column `{name}` {why}; put it into `ignore`")));
            }
        }
        let chain = chain_of(columns.join("\0").as_bytes());
        let (values, raw) = (Vec::new(), Vec::new());
        Ok(Self { name: name.to_owned(), leaves, columns, mapper: Arc::new(mapper), values, raw, row: 0, chain })
    }

    fn advance(&mut self) -> Result<bool, AdapterError> {
        if !self.leaves.next(&mut self.values)? {
            return Ok(false);
        }
        self.row += 1;
        // Columns without text too: a dead letter's columns are those of its file.
        let kept = |c: &'_ Column| self.values.get(c.leaf?).and_then(Value::kept);
        let row: BTreeMap<&str, Option<&str>> =
            self.leaves.columns.iter().map(|c| (c.name.as_str(), kept(c))).collect();
        self.raw.clear();
        let io = |e: serde_json::Error| AdapterError::Io { file: self.name.clone(), action: "read", source: e.into() };
        serde_json::to_writer(&mut self.raw, &row).map_err(io)?;
        self.chain = link(&self.chain, &self.raw);
        Ok(true)
    }

    fn cell(&self, column: usize) -> Cell<'_> {
        let leaf = self.leaves.columns.get(column).and_then(|column| column.leaf);
        leaf.and_then(|leaf| self.values.get(leaf)).map_or(Cell::Null, Value::cell)
    }
}

impl Rows for ParquetReader {
    fn next_row(&mut self) -> Result<Option<Row>, AdapterError> {
        if !self.advance()? {
            return Ok(None);
        }
        let origin = Origin::row(self.name.clone(), self.row);
        if self.raw.len() > ROW_BYTES_MAX {
            let message = "the row is longer than 262144 bytes; only its beginning is kept";
            let kept = self.raw.get(..KEPT_BYTES_MAX).unwrap_or(&self.raw);
            let reject = bad(origin, kept, Fault::new("parquet.row-too-long", message));
            return Ok(Some(Row::Bad(Reject { truncated: true, ..reject })));
        }
        Ok(Some(match self.mapper.map(&|step| self.cell(step.column)) {
            Ok(mapped) => Row::Good(mapped.at(origin, &self.raw)),
            Err(cell) => Row::Bad(cell.at(origin, &self.raw)),
        }))
    }

    fn skip_row(&mut self) -> Result<bool, AdapterError> {
        self.advance()
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn row(&self) -> u64 {
        self.row
    }

    fn chain(&self) -> Hash {
        self.chain
    }
}

/// Reads every page of a file once: one that is damaged is refused before a row of it is read.
///
/// # Errors
/// As for [`ParquetReader::open`].
pub fn check_whole(name: &str, content: &Content) -> Result<(), AdapterError> {
    Leaves::open(name, content)?.check_pages()
}

/// The columns that have text and the first rows of a file, for a draft; and the columns that have none.
///
/// # Errors
/// As for [`ParquetReader::open`].
pub fn sample(name: &str, content: &Content, most: usize) -> Result<(Sample, Vec<String>), AdapterError> {
    let mut leaves = Leaves::open(name, content)?;
    let (with, without): (Vec<&Column>, Vec<&Column>) = leaves.columns.iter().partition(|c| c.leaf.is_some());
    let names = |columns: Vec<&Column>| columns.into_iter().map(|c| c.name.clone()).collect();
    let (columns, refused) = (names(with), names(without));
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    while rows.len() < most && leaves.next(&mut values)? {
        rows.push(values.iter().map(|value| value.kept().map(str::to_owned)).collect());
    }
    Ok((Sample { columns, rows }, refused))
}
