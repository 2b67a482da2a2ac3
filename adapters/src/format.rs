//! How a file is written: the members that kinds which read files share.

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::document::DocumentError;

/// How a CSV file is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CsvFormat {
    /// One ASCII character between values.
    #[serde(default = "comma")]
    pub delimiter: String,
    /// Character encoding.
    #[serde(default)]
    pub encoding: Encoding,
    /// Decimal mark, `.` or `,`.
    #[serde(default = "point")]
    pub decimal: String,
    /// Words that mean "no value".
    #[serde(default = "empty_word", alias = "null")]
    pub nulls: Vec<String>,
    /// How the header is compared.
    #[serde(default)]
    pub header: Header,
    /// The columns of the file, in order; a kind says what it does without them.
    #[serde(default)]
    pub columns: Vec<Spanned<String>>,
}

/// A Parquet file says itself how it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParquetFormat {}

fn comma() -> String {
    ",".to_owned()
}

fn point() -> String {
    ".".to_owned()
}

fn empty_word() -> Vec<String> {
    vec![String::new()]
}

/// A character encoding, by its name of the WHATWG's list: `utf-8`, `windows-1252`, `iso-8859-15`, `utf-16le`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding(pub &'static encoding_rs::Encoding);

impl Default for Encoding {
    fn default() -> Self {
        Self(encoding_rs::UTF_8)
    }
}

impl Encoding {
    /// True when two bytes make a unit: such a file is turned into UTF-8 before it is read.
    pub fn is_utf16(self) -> bool {
        self.0 == encoding_rs::UTF_16LE || self.0 == encoding_rs::UTF_16BE
    }
}

impl<'de> Deserialize<'de> for Encoding {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let name = String::deserialize(d)?;
        let found = encoding_rs::Encoding::for_label_no_replacement(name.as_bytes());
        // Its escape sequences may hold any byte, quotes and line ends too.
        let found = found.filter(|e| *e != encoding_rs::ISO_2022_JP);
        found.map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!("`{name}` is no known encoding such as utf-8, windows-1252 or utf-16le"))
        })
    }
}

/// How the header row is compared with `columns`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Header {
    /// Same names in the same order.
    #[default]
    Strict,
}

impl CsvFormat {
    /// The byte between values.
    pub fn delimiter(&self) -> Result<u8, DocumentError> {
        match self.delimiter.as_bytes() {
            [b] if b.is_ascii() && !matches!(b, b'"' | b'\n' | b'\r' | 0) => Ok(*b),
            _ => Err(DocumentError::rule("format.csv.delimiter", "one ASCII character, not a quote or a line end")),
        }
    }

    /// The decimal mark.
    pub fn point(&self) -> Result<char, DocumentError> {
        match self.decimal.as_str() {
            "." | "," if self.decimal != self.delimiter => Ok(if self.decimal == "." { '.' } else { ',' }),
            "," | "." => Err(DocumentError::rule("format.csv.decimal", "the decimal mark is also the delimiter")),
            _ => Err(DocumentError::rule("format.csv.decimal", "the decimal mark is `.` or `,`")),
        }
    }
}
