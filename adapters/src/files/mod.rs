//! Reading files: CSV or JSON lines, plain or gzip, in any encoding, or Parquet; rows come mapped, with their place.

pub mod again;
pub mod content;
pub mod csv;
pub mod draft;
mod form;
pub mod json;
#[cfg(feature = "parquet")]
pub mod parquet;

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use concordat_protocol::hash::{Hash, sha256};
use encoding_rs::{Decoder, DecoderResult};

use crate::contract::{AdapterError, Row};
use crate::document::DocumentError;
use crate::format::Encoding;
use crate::mapping::Mapper;

pub use form::Form;

const BUFFER_BYTES: usize = 64 * 1024;
/// Stands in the text where the source's bytes made no sense: never part of UTF-8, so that the value is refused.
const NO_TEXT: u8 = 0xff;

/// A stream of a file's bytes.
pub type Input = Box<dyn BufRead + Send>;

/// Makes the mapping of the columns that a file has.
pub type MapColumns = Arc<dyn Fn(&[String]) -> Result<Mapper, DocumentError> + Send + Sync>;

/// Rows of one file in order.
pub trait Rows: Send {
    /// The next row, or `None` at the end of the file.
    fn next_row(&mut self) -> Result<Option<Row>, AdapterError>;
    /// Passes over the next row; false at the end of the file.
    fn skip_row(&mut self) -> Result<bool, AdapterError>;
    /// The columns, as far as the file has a fixed list of them.
    fn columns(&self) -> &[String];
    /// Rows read or passed over.
    fn row(&self) -> u64;
    /// Hash chain over the header and every row so far: the same file, the same chain.
    fn chain(&self) -> Hash;
}

/// The first link of a chain.
pub(crate) fn chain_of(header: &[u8]) -> Hash {
    sha256(&[b"concordat/v1/file-chain\0", header])
}

/// The next link.
pub(crate) fn link(chain: &Hash, row: &[u8]) -> Hash {
    sha256(&[chain, row])
}

/// The text of a file's bytes: unpacked if they are gzip.
pub fn unpacked(file: impl Read + Send + 'static) -> std::io::Result<Input> {
    let mut plain = BufReader::with_capacity(BUFFER_BYTES, file);
    if plain.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        let decoder = flate2::bufread::MultiGzDecoder::new(plain);
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)));
    }
    Ok(Box::new(plain))
}

/// Passes over a byte order mark and refuses one of another encoding than the document's; two-byte encodings become UTF-8.
pub fn marked(mut input: Input, encoding: Encoding, file: &str) -> Result<Input, AdapterError> {
    let start = input.fill_buf().map_err(|e| read_error(file, 0, e))?;
    if let Some((found, len)) = encoding_rs::Encoding::for_bom(start) {
        if found != encoding.0 {
            let detail = format!(
                "the file begins with the mark of {}, the document says {}; correct `encoding`",
                found.name(),
                encoding.0.name()
            );
            return Err(AdapterError::Encoding { file: file.to_owned(), detail });
        }
        input.consume(len);
    }
    if !encoding.is_utf16() {
        return Ok(input);
    }
    let decoder = encoding.0.new_decoder_without_bom_handling();
    Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, Utf8 { input, decoder, ended: false })))
}

/// An error of reading, with its place.
pub(crate) fn read_error(file: &str, row: u64, source: std::io::Error) -> AdapterError {
    let file = file.to_owned();
    match source.kind() {
        std::io::ErrorKind::UnexpectedEof => AdapterError::Truncated { file, row },
        _ => AdapterError::Io { file, action: "read", source },
    }
}

/// Turns a two-byte encoding into UTF-8.
struct Utf8 {
    input: Input,
    decoder: Decoder,
    ended: bool,
}

impl Read for Utf8 {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        // One character and the stand-in must fit.
        if out.len() < 8 {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the buffer is too small"));
        }
        let room = out.len() - 1;
        while !self.ended {
            let bytes = self.input.fill_buf()?;
            let last = bytes.is_empty();
            let target = out.get_mut(..room).unwrap_or_default();
            let (result, used, mut written) = self.decoder.decode_to_utf8_without_replacement(bytes, target, last);
            self.input.consume(used);
            if let (DecoderResult::Malformed(..), Some(byte)) = (&result, out.get_mut(written)) {
                *byte = NO_TEXT;
                written += 1;
            }
            self.ended = last && matches!(result, DecoderResult::InputEmpty);
            if written > 0 {
                return Ok(written);
            }
        }
        Ok(0)
    }
}
