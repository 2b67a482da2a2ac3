//! A page as it fills up: at most so many rows, at most so many bytes, told which of the two ended it.

use super::{HoldingError, PageEnd, Row, Rows};
use crate::limits::MAX_PAGE_BYTES;

/// Rows of one page, in the order they come.
pub(crate) struct Page {
    rows: Vec<Row>,
    bytes: usize,
    limit: usize,
    /// Why the page takes no more, or that it could.
    pub(crate) end: PageEnd,
}

impl Page {
    /// An empty page of at most `limit` rows.
    pub(crate) fn new(limit: u32) -> Self {
        Self { rows: Vec::new(), bytes: 0, limit: limit as usize, end: PageEnd::Complete }
    }

    /// Takes a row that was found, with its size in bytes; false when the page is full without it. A row is read only
    /// where its place is free; the first one is taken however large it is.
    pub(crate) fn take(
        &mut self,
        read: impl FnOnce() -> Result<(Row, usize), HoldingError>,
    ) -> Result<bool, HoldingError> {
        if self.rows.len() == self.limit {
            self.end = PageEnd::Limit;
            return Ok(false);
        }
        let (row, size) = read()?;
        self.bytes += size;
        if self.bytes > MAX_PAGE_BYTES && !self.rows.is_empty() {
            self.end = PageEnd::Bytes;
            return Ok(false);
        }
        self.rows.push(row);
        Ok(true)
    }

    /// The page, with how many rows the store looked at, where it tells.
    pub(crate) fn done(self, scanned: Option<u64>) -> Rows {
        Rows { rows: self.rows, end: self.end, scanned }
    }
}
