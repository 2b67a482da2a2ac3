//! The dataset document (YAML) with its JSON Schema: what a dataset holds, what identifies a record,
//! which fields are sensitive. Broker, executor and lint all read it here.
//!
//! The schema is the list of fields: a flat object of typed properties with
//! `additionalProperties: false`, so that a field nobody described can neither arrive nor leave.

use std::collections::BTreeMap;

use concordat_protocol::ids::DatasetId;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::time::DurationMs;
use crate::yaml::{self, Pos, Spanned, YamlError, nearest};

mod schema;

/// Most fields a dataset may have: one leaf each in every message.
pub const FIELDS_MAX: usize = 256;

/// Why a dataset document or its schema was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DatasetError {
    /// The document is not strict YAML of the expected shape, or a rule is broken at a known place.
    #[error("dataset document, {0}")]
    Document(#[from] YamlError),
    /// The schema is not one a dataset can use.
    #[error("schema {path}: {field}: {rule}")]
    Schema {
        /// The schema's path as the document names it.
        path: String,
        /// The property or keyword.
        field: String,
        /// The rule and what to do.
        rule: String,
    },
}

impl DatasetError {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Document(_) => "dataset.document",
            Self::Schema { .. } => "dataset.schema",
        }
    }
}

/// Whether a dataset is published, held, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatasetKind {
    /// Published as messages.
    Feed,
    /// Held as records and queried.
    Records,
    /// Both.
    Both,
}

/// The field that carries the time of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeField {
    /// Its name; the field is a timestamp, RFC 3339 in UTC.
    pub field: String,
    /// Zone of the source's clock (IANA), for people and adapters.
    pub zone: String,
}

/// The field that names whom a record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its name.
    pub field: String,
    /// In which role the subject appears, for example `principal`.
    pub role: String,
}

/// How long data is kept, milliseconds; `None` means until deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// In the stream.
    pub stream_ms: Option<u64>,
    /// In the holdings.
    pub holdings_ms: Option<u64>,
    /// Most bytes in the stream: when it is full it refuses what comes and drops nothing.
    pub stream_bytes: Option<u64>,
}

/// Types a field can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FieldType {
    /// Text.
    String,
    /// Whole number within plus or minus 2^53 - 1.
    Integer,
    /// Exact decimal, a JSON string (`"type": "string", "format": "decimal"`).
    Decimal,
    /// Binary floating point number.
    Number,
    /// True or false.
    Boolean,
    /// Instant, an RFC 3339 string (`"format": "date-time"`).
    Timestamp,
}

/// One field of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name, the JSON member.
    pub name: String,
    /// Its type.
    pub kind: FieldType,
    /// True when every record has it.
    pub required: bool,
    /// Why it is sensitive, when it is.
    pub sensitive: Option<String>,
    /// The schema's description of it.
    pub description: Option<String>,
}

/// A dataset document as read; [`DatasetFile::with_schema`] makes it whole.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetFile {
    /// `ds:<agency>/<name>@<version>`.
    pub dataset: DatasetId,
    /// One line for the catalogue.
    #[serde(default)]
    title: String,
    kind: DatasetKind,
    /// Path of the JSON Schema, relative to the node folder.
    pub schema: String,
    key: Vec<Spanned<String>>,
    #[serde(default)]
    time: Option<TimeRaw>,
    subject: SubjectRaw,
    sensitive: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    retention: RetentionRaw,
    #[serde(default)]
    writable: bool,
    #[serde(default)]
    indexes: Vec<Vec<Spanned<String>>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeRaw {
    field: Spanned<String>,
    zone: Spanned<String>,
}

#[derive(Debug, Clone)]
enum SubjectRaw {
    None,
    Field(SubjectField),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectField {
    field: Spanned<String>,
    role: String,
}

impl<'de> Deserialize<'de> for SubjectRaw {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> serde::de::Visitor<'de> for Visit {
            type Value = SubjectRaw;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`none` or {field: .., role: ..}")
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<SubjectRaw, E> {
                if v == "none" {
                    Ok(SubjectRaw::None)
                } else {
                    Err(E::custom("subject is `none` or {field: .., role: ..}"))
                }
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<SubjectRaw, A::Error> {
                SubjectField::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(SubjectRaw::Field)
            }
        }
        d.deserialize_any(Visit)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetentionRaw {
    #[serde(default)]
    stream: Option<DurationMs>,
    #[serde(default)]
    holdings: Option<DurationMs>,
    #[serde(default)]
    stream_bytes: Option<Size>,
}

/// A size such as `10GB`.
#[derive(Debug, Clone, Copy)]
struct Size(u64);

impl Size {
    fn parse(text: &str) -> Option<u64> {
        const UNITS: [(&str, u64); 4] =
            [("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000)];
        let (digits, unit) = UNITS.iter().find_map(|(unit, n)| Some((text.strip_suffix(unit)?, n)))?;
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        digits.parse::<u64>().ok().filter(|_| plain)?.checked_mul(*unit).filter(|n| *n <= i64::MAX as u64)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let rule = || serde::de::Error::custom("a size is a whole number with KB, MB, GB or TB, such as 10GB");
        Self::parse(&text).map(Self).ok_or_else(rule)
    }
}

/// A checked dataset: document and schema together.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetDoc {
    /// Its id.
    pub id: DatasetId,
    /// One line for the catalogue.
    pub title: String,
    /// Published, held, or both.
    pub kind: DatasetKind,
    /// Fields that identify a record, in order; all are required strings, integers or timestamps.
    pub key: Vec<String>,
    /// The time of a record.
    pub time: Option<TimeField>,
    /// Whom a record is about; `None` when it is about nobody.
    pub subject: Option<Subject>,
    /// How long data is kept.
    pub retention: Retention,
    /// Whether another agency may write records of it, where a clause permits that.
    pub writable: bool,
    /// Fields that are searched together, each a prefix of an index.
    pub indexes: Vec<Vec<String>>,
    /// The JSON Schema, for validation at intake.
    pub schema: Value,
    fields: Vec<Field>,
}

impl DatasetFile {
    /// Reads a document. The schema it names comes with [`DatasetFile::with_schema`].
    pub fn parse(text: &str) -> Result<Self, DatasetError> {
        Ok(yaml::parse(text)?)
    }

    /// Adds the JSON Schema and checks all names and types against it.
    pub fn with_schema(self, json: &str) -> Result<DatasetDoc, DatasetError> {
        let schema = schema::read(&self.schema, json)?;
        let mut fields = schema::fields(&self.schema, &schema)?;
        for (name, why) in &self.sensitive {
            field(&fields, name, Pos::of(why), "sensitive")?;
            if let Some(found) = fields.iter_mut().find(|f| f.name == *name) {
                found.sensitive = Some(why.value.clone());
            }
        }
        let key = self.checked_key(&fields)?;
        let time = self.time.as_ref().map(|t| checked_time(t, &fields)).transpose()?;
        let subject = match &self.subject {
            SubjectRaw::None => None,
            SubjectRaw::Field(raw) => {
                field(&fields, &raw.field.value, Pos::of(&raw.field), "subject.field")?;
                Some(Subject { field: raw.field.value.clone(), role: raw.role.clone() })
            }
        };
        let mut indexes = Vec::new();
        for index in &self.indexes {
            for name in index {
                field(&fields, &name.value, Pos::of(name), "indexes")?;
            }
            indexes.push(index.iter().map(|n| n.value.clone()).collect());
        }
        let writable = self.writable;
        if writable && self.kind == DatasetKind::Feed {
            let rule = "writable: what is only published is not written; hold it too (kind: both) or leave this out";
            return Err(YamlError::new(Pos::default(), rule).into());
        }
        let retention = Retention {
            stream_ms: self.retention.stream.map(|d| d.0),
            holdings_ms: self.retention.holdings.map(|d| d.0),
            stream_bytes: self.retention.stream_bytes.map(|s| s.0),
        };
        Ok(DatasetDoc {
            id: self.dataset,
            title: self.title,
            kind: self.kind,
            key,
            time,
            subject,
            retention,
            writable,
            indexes,
            schema,
            fields,
        })
    }

    fn checked_key(&self, fields: &[Field]) -> Result<Vec<String>, DatasetError> {
        if self.key.is_empty() {
            return Err(YamlError::new(Pos::default(), "key: name the fields that identify a record").into());
        }
        for (n, name) in self.key.iter().enumerate() {
            let at = Pos::of(name);
            let found = field(fields, &name.value, at, "key")?;
            if self.key.iter().take(n).any(|k| k.value == name.value) {
                return Err(YamlError::new(at, format!("key: \"{}\" stands twice", name.value)).into());
            }
            if !found.required {
                return Err(YamlError::new(
                    at,
                    format!("key: list \"{}\" under \"required\" in the schema", name.value),
                )
                .into());
            }
            if !matches!(found.kind, FieldType::String | FieldType::Integer | FieldType::Timestamp) {
                return Err(YamlError::new(at, "key: only strings, integers and timestamps identify a record").into());
            }
        }
        Ok(self.key.iter().map(|k| k.value.clone()).collect())
    }
}

fn checked_time(raw: &TimeRaw, fields: &[Field]) -> Result<TimeField, DatasetError> {
    let at = Pos::of(&raw.field);
    let found = field(fields, &raw.field.value, at, "time.field")?;
    if found.kind != FieldType::Timestamp {
        let rule = format!("time.field: \"{}\" needs \"format\": \"date-time\" in the schema", raw.field.value);
        return Err(YamlError::new(at, rule).into());
    }
    if jiff::tz::TimeZone::get(&raw.zone.value).is_err() {
        let rule =
            format!("time.zone: \"{}\" is not an IANA time zone such as Europe/Berlin", yaml::clip(&raw.zone.value));
        return Err(YamlError::new(Pos::of(&raw.zone), rule).into());
    }
    Ok(TimeField { field: raw.field.value.clone(), zone: raw.zone.value.clone() })
}

fn field<'a>(fields: &'a [Field], name: &str, at: Pos, what: &str) -> Result<&'a Field, DatasetError> {
    fields.iter().find(|f| f.name == name).ok_or_else(|| {
        let known: Vec<&str> = fields.iter().map(|f| f.name.as_str()).collect();
        let problem = format!("{what}: \"{}\" is not a property of the schema", yaml::clip(name));
        YamlError { at, problem, nearest: nearest(name, &known).map(str::to_owned) }.into()
    })
}

impl DatasetDoc {
    /// Reads document and schema in one go.
    pub fn parse(yaml: &str, schema: &str) -> Result<Self, DatasetError> {
        DatasetFile::parse(yaml)?.with_schema(schema)
    }

    /// All fields, by name.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// One field.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| f.name.as_str().cmp(name)).ok().and_then(|n| self.fields.get(n))
    }

    /// The sensitive fields, by name.
    pub fn sensitive(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|f| f.sensitive.is_some())
    }

    /// True when messages of it can be published.
    pub fn is_feed(&self) -> bool {
        self.kind != DatasetKind::Records
    }

    /// True when records of it are held.
    pub fn is_held(&self) -> bool {
        self.kind != DatasetKind::Feed
    }
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
mod tests;
