//! How one field of a record is made from a column of the source.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_saphyr::{Location, Spanned};

/// How one field is made.
///
/// `mw: P_KW` is short for `mw: {from: P_KW}`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct FieldMap {
    /// Source column; the field's own name when left out.
    #[serde(default)]
    pub from: Option<Spanned<String>>,
    /// Type of the field; `string` when left out.
    #[serde(default, rename = "type")]
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

impl FieldMap {
    /// A field of a type that keeps its column's name.
    pub fn of(kind: FieldKind) -> Self {
        Self { kind, ..Self::default() }
    }
}

impl<'de> Deserialize<'de> for FieldMap {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = FieldMap;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a column's name, or {from: COLUMN, type: TYPE}")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<FieldMap, E> {
                let (referenced, defined) = (Location::UNKNOWN, Location::UNKNOWN);
                let from = Spanned { value: text.to_owned(), referenced, defined };
                Ok(FieldMap { from: Some(from), ..FieldMap::default() })
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(self, map: M) -> Result<FieldMap, M::Error> {
                FieldMap::deserialize(serde::de::value::MapAccessDeserializer::new(map))
            }
        }
        d.deserialize_any(Visitor)
    }
}

/// Types of a field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FieldKind {
    /// Text as it stands.
    #[default]
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

impl FieldKind {
    /// The word in documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Decimal => "decimal",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
        }
    }
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Precision {
    /// Seconds: `2017-01-01T06:00:42Z`.
    #[default]
    #[serde(rename = "s")]
    Second,
    /// Milliseconds: `2017-01-01T06:00:42.000Z`.
    #[serde(rename = "ms")]
    Millisecond,
    /// Microseconds: `2017-01-01T06:00:42.000000Z`.
    #[serde(rename = "us")]
    Microsecond,
    /// Nanoseconds: `2017-01-01T06:00:42.000000000Z`.
    #[serde(rename = "ns")]
    Nanosecond,
}

impl Precision {
    /// From coarse to fine.
    pub const ALL: [Self; 4] = [Self::Second, Self::Millisecond, Self::Microsecond, Self::Nanosecond];

    /// As a document says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Millisecond => "ms",
            Self::Microsecond => "us",
            Self::Nanosecond => "ns",
        }
    }

    /// Digits behind the second.
    pub fn digits(self) -> u8 {
        match self {
            Self::Second => 0,
            Self::Millisecond => 3,
            Self::Microsecond => 6,
            Self::Nanosecond => 9,
        }
    }

    /// True when an instant is not finer.
    pub fn holds(self, at: Timestamp) -> bool {
        at.subsec_nanosecond() % 10_i32.pow(9 - u32::from(self.digits())) == 0
    }
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
