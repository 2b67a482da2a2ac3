//! Rows of JSON lines: one object a line, cells by member name or by path.

use std::convert::Infallible;
use std::io::{BufRead, Read};
use std::sync::Arc;

use concordat_protocol::hash::Hash;

use super::{Input, Rows, chain_of, link, marked, read_error};
use crate::contract::{AdapterError, Origin, Reject, Row};
use crate::convert::Fault;
use crate::document::DocumentError;
use crate::format::Encoding;
use crate::json_rows::{JsonRows, bad};
use crate::mapping::Mapper;
use crate::rows::{KEPT_BYTES_MAX, ROW_BYTES_MAX};

/// A mapping of the members of objects.
pub type JsonMapper = JsonRows<Infallible>;

/// Reads the paths of a mapping: `$.a.b`, or `a` for a member.
pub fn json_mapper(mapper: Mapper) -> Result<JsonMapper, DocumentError> {
    JsonRows::new(mapper, |_| None)
}

/// Reads the lines of one text in order; empty ones are passed over.
pub struct JsonReader {
    name: String,
    mapper: Arc<JsonMapper>,
    input: Input,
    raw: Vec<u8>,
    too_long: bool,
    row: u64,
    line: u64,
    chain: Hash,
}

impl JsonReader {
    /// A reader at the first line; `name` is what origins and errors call the text.
    pub fn open(name: &str, input: Input, mapper: Arc<JsonMapper>) -> Result<Self, AdapterError> {
        let input = marked(input, Encoding::default(), name)?;
        let chain = chain_of(b"");
        Ok(Self { name: name.to_owned(), mapper, input, raw: Vec::new(), too_long: false, row: 0, line: 0, chain })
    }

    fn advance(&mut self) -> Result<bool, AdapterError> {
        loop {
            self.raw.clear();
            let room = (ROW_BYTES_MAX + 1) as u64;
            let got = (&mut self.input).take(room).read_until(b'\n', &mut self.raw);
            let got = got.map_err(|e| read_error(&self.name, self.row, e))?;
            self.too_long = got as u64 == room && self.raw.last() != Some(&b'\n');
            if self.too_long {
                self.input.skip_until(b'\n').map_err(|e| read_error(&self.name, self.row, e))?;
                self.raw.truncate(KEPT_BYTES_MAX);
            }
            if got == 0 {
                return Ok(false);
            }
            self.line += 1;
            if !self.raw.trim_ascii().is_empty() {
                self.row += 1;
                self.chain = link(&self.chain, &self.raw);
                return Ok(true);
            }
        }
    }
}

impl Rows for JsonReader {
    fn next_row(&mut self) -> Result<Option<Row>, AdapterError> {
        if !self.advance()? {
            return Ok(None);
        }
        let origin = Origin { line: self.line, ..Origin::row(self.name.as_str(), self.row) };
        if self.too_long {
            let message = "the line is longer than 262144 bytes; only its beginning is kept";
            let fault = Fault::new("json.row-too-long", message);
            return Ok(Some(Row::Bad(Reject { truncated: true, ..bad(origin, &self.raw, fault) })));
        }
        Ok(Some(self.mapper.row(origin, &self.raw, &self.raw, &|never| match *never {})))
    }

    fn skip_row(&mut self) -> Result<bool, AdapterError> {
        self.advance()
    }

    fn columns(&self) -> &[String] {
        &[]
    }

    fn row(&self) -> u64 {
        self.row
    }

    fn chain(&self) -> Hash {
        self.chain
    }
}
