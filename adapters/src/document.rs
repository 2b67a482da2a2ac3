//! The adapter document (YAML): which file, in which form, and how its columns become fields.
//!
//! ```yaml
//! adapter: load
//! kind: file
//! path: data/grid_load_profiles_q1.csv.gz     # relative to the node folder; .gz is recognised
//! format: {csv: {columns: [time, BL-H]}}      # strict header: exactly these, in this order
//! into: ds:grid/load@1
//! map:
//!   time: {type: timestamp, zone: Europe/Berlin, fold: earlier}
//! rest: {type: decimal}                       # every column not named in map or ignore
//! key: [time]
//! time: time
//! pace: max                                   # or rows per second
//! on_error: {transient: retry, data: dead-letter, auth: stop}
//! ```

use std::collections::BTreeMap;

use concordat_protocol::ids::DatasetId;
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use crate::strict;

/// Why an adapter document was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not strict YAML of the expected shape.
    #[error("adapter document, line {}, column {}: {}", .0.line, .0.column, .0.detail)]
    Yaml(strict::Refusal),
    /// Well-formed, but a rule is broken.
    #[error("adapter document{}, {field}: {detail}", place(*.line, *.column))]
    Rule {
        /// Line, 0 when not known.
        line: u64,
        /// Column, 0 when not known.
        column: u64,
        /// Path of the key, for example `map.time.zone`.
        field: String,
        /// The rule and what to do.
        detail: String,
    },
}

fn place(line: u64, column: u64) -> String {
    if line == 0 { String::new() } else { format!(", line {line}, column {column}") }
}

impl DocumentError {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Yaml(_) => "adapter.document.yaml",
            Self::Rule { .. } => "adapter.document.rule",
        }
    }

    /// A broken rule at a key whose place is not known.
    pub fn rule(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Rule { line: 0, column: 0, field: field.into(), detail: detail.into() }
    }

    /// A broken rule at the place of `value`.
    pub fn at<T>(value: &Spanned<T>, field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Rule {
            line: value.referenced.line(),
            column: value.referenced.column(),
            field: field.into(),
            detail: detail.into(),
        }
    }
}

/// An adapter document as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterDoc {
    /// Name of the adapter: one writer of batches at the broker, 1 to 48 of `a-z 0-9 -`.
    pub adapter: Spanned<String>,
    /// What kind of source it reads.
    pub kind: Kind,
    /// The file, relative to the node folder.
    pub path: String,
    /// How the file is written.
    pub format: Format,
    /// The dataset its records belong to.
    pub into: DatasetId,
    /// Target field to source column and type.
    #[serde(default)]
    pub map: BTreeMap<String, FieldMap>,
    /// Rule for all columns not named in `map` or `ignore`; they keep their names.
    #[serde(default)]
    pub rest: Option<FieldMap>,
    /// Columns that are left out on purpose.
    #[serde(default)]
    pub ignore: Vec<Spanned<String>>,
    /// Fields that have the same value in every record.
    #[serde(default)]
    pub constants: BTreeMap<String, serde_json::Value>,
    /// Target fields that identify a record, in order.
    pub key: Vec<Spanned<String>>,
    /// Target field that is the event's time.
    #[serde(default)]
    pub time: Option<Spanned<String>>,
    /// How fast a feed is published.
    #[serde(default)]
    pub pace: Pace,
    /// What to do about errors.
    #[serde(default)]
    pub on_error: OnError,
}

impl AdapterDoc {
    /// Parses and checks the document's shape; [`crate::plan::Plan::new`] checks its meaning.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        strict::from_str(text).map_err(DocumentError::Yaml)
    }
}

/// Kinds of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One file that does not change, plain or gzip.
    File,
}

/// How a file is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Format {
    /// Comma-separated values.
    pub csv: CsvFormat,
}

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
    #[serde(default = "empty_word")]
    pub nulls: Vec<String>,
    /// How the header is compared.
    #[serde(default)]
    pub header: Header,
    /// The columns of the file, in order.
    pub columns: Vec<Spanned<String>>,
}

fn comma() -> String {
    ",".to_owned()
}

fn point() -> String {
    ".".to_owned()
}

fn empty_word() -> Vec<String> {
    vec![String::new()]
}

/// Character encodings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// UTF-8, with or without a byte order mark.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
}

/// How the header row is compared with `columns`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Header {
    /// Same names in the same order.
    #[default]
    Strict,
}

/// How one field is made.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldMap {
    /// Source column; the field's own name when left out.
    #[serde(default)]
    pub from: Option<Spanned<String>>,
    /// Type of the field.
    #[serde(rename = "type")]
    pub kind: FieldKind,
    /// Exact factor for numbers.
    #[serde(default)]
    pub scale: Option<Spanned<String>>,
    /// Cut white space at both ends.
    #[serde(default)]
    pub trim: bool,
    /// Without a value the row is a dead letter.
    #[serde(default)]
    pub required: bool,
    /// IANA zone of a wall clock, or `offset` when every value carries its own; mandatory for
    /// timestamps.
    #[serde(default)]
    pub zone: Option<Spanned<String>>,
    /// Which of two equal wall clock times is meant when clocks go back.
    #[serde(default)]
    pub fold: Option<Fold>,
    /// What becomes of wall clock times that do not exist when clocks go forward.
    #[serde(default)]
    pub gap: Option<Gap>,
    /// `strptime` pattern; ISO 8601 when left out.
    #[serde(default)]
    pub format: Option<Spanned<String>>,
    /// Precision kept: all values of a field have the same width.
    #[serde(default)]
    pub precision: Option<Precision>,
    /// Words for true and false.
    #[serde(default)]
    pub words: Option<Words>,
}

/// Types of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FieldKind {
    /// Text as it stands.
    String,
    /// A whole number within plus or minus 2^53 - 1.
    Integer,
    /// An exact decimal, a string in JSON.
    Decimal,
    /// True or false.
    Boolean,
    /// An instant, RFC 3339 in UTC.
    Timestamp,
}

/// Which of two equal wall clock times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fold {
    /// The first, still in summer time.
    Earlier,
    /// The second.
    Later,
}

/// What becomes of a wall clock time that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gap {
    /// The row is a dead letter.
    DeadLetter,
}

/// Precision of a timestamp.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Precision {
    /// Seconds: `2017-01-01T06:00:42Z`.
    #[default]
    #[serde(rename = "s")]
    Second,
    /// Milliseconds: `2017-01-01T06:00:42.000Z`.
    #[serde(rename = "ms")]
    Millisecond,
}

/// Words for true and false.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// Words that mean true.
    #[serde(rename = "true")]
    pub yes: Vec<String>,
    /// Words that mean false.
    #[serde(rename = "false")]
    pub no: Vec<String>,
}

/// How fast a feed is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the broker acknowledges.
    #[default]
    Max,
    /// This many rows per second, 1 to 1,000,000.
    RowsPerSecond(u32),
}

impl Pace {
    /// Reads `max` or a number of rows per second.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse() {
            Ok(rows @ 1..=1_000_000) => Ok(Self::RowsPerSecond(rows)),
            _ => Err("pace must be `max` or rows per second from 1 to 1000000".to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for Pace {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// What to do about errors of each class; permanent ones always stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnError {
    /// For what may pass by itself.
    #[serde(default)]
    pub transient: OnTransient,
    /// For bad rows.
    #[serde(default)]
    pub data: OnData,
    /// For refused credentials.
    #[serde(default)]
    pub auth: OnAuth,
}

/// For what may pass by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTransient {
    /// Try again with back-off.
    #[default]
    Retry,
    /// Stop with the error.
    Stop,
}

/// For bad rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnData {
    /// Keep them as dead letters and go on.
    #[default]
    DeadLetter,
    /// Keep them as dead letters and stop.
    Stop,
}

/// For refused credentials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnAuth {
    /// Stop with the error.
    #[default]
    Stop,
    /// Try again with back-off.
    Retry,
}
