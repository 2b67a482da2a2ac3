//! The adapter document (YAML): where a source is, in which form, and how its columns become fields.
//!
//! The members of [`Common`] are the same for every kind of source; each kind adds its own (where the source is, how it
//! is written). Both stand side by side in one mapping, and unknown keys of either are refused with the nearest known
//! one: [`adapter_document!`](crate::adapter_document) writes one strict type of both.
//!
//! ```yaml
//! adapter: load                               # name: one writer of batches at the broker
//! kind: file                                  # what follows for this kind: path, format
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

mod fields;
mod values;

use std::collections::BTreeMap;

use concordat_protocol::ids::DatasetId;
use serde::Deserialize;
use serde_saphyr::Spanned;

pub use fields::{FieldKind, FieldMap, Fold, Gap, Precision, Words};
pub use values::{OnAuth, OnData, OnError, OnTransient, Pace, Period, Poll, Secret, Subject};

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

/// What every adapter document says, whatever its kind.
#[derive(Debug, Clone)]
pub struct Common {
    /// The document as it was written.
    pub text: String,
    /// Name of the adapter: one writer of batches at the broker, 1 to 48 of `a-z 0-9 -`.
    pub adapter: Spanned<String>,
    /// What kind of source it reads.
    pub kind: Spanned<String>,
    /// The dataset its records belong to.
    pub into: DatasetId,
    /// Target field to source column and type.
    pub map: BTreeMap<String, FieldMap>,
    /// Rule for all columns not named in `map` or `ignore`; they keep their names.
    pub rest: Option<FieldMap>,
    /// Columns that are left out on purpose.
    pub ignore: Vec<Spanned<String>>,
    /// Fields that have the same value in every record.
    pub constants: BTreeMap<String, serde_json::Value>,
    /// Target field to the words of the source and what they become; `*` stands for every other word.
    pub lookups: BTreeMap<String, BTreeMap<String, String>>,
    /// Target fields that identify a record, in order.
    pub key: Vec<Spanned<String>>,
    /// Target field that is the event's time.
    pub time: Option<Spanned<String>>,
    /// Whose data a record is, if the document says so; compared with the dataset's document.
    pub subject: Option<Subject>,
    /// Sensitive target fields and their class; compared with the dataset's document.
    pub sensitive: BTreeMap<String, String>,
    /// How fast a feed is published.
    pub pace: Pace,
    /// How often the source is asked.
    pub poll: Poll,
    /// What to do about errors.
    pub on_error: OnError,
}

impl Common {
    /// Checks what does not depend on the source: the adapter's name.
    pub fn check(&self) -> Result<(), DocumentError> {
        let text = &self.adapter.value;
        let good = (1..=48).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-');
        if good { Ok(()) } else { Err(DocumentError::at(&self.adapter, "adapter", "use 1 to 48 of a-z, 0-9 and -")) }
    }
}

/// The kind that a document names, whatever else it says.
pub fn kind_of(text: &str) -> Result<Spanned<String>, DocumentError> {
    #[derive(Deserialize)]
    struct Head {
        kind: Spanned<String>,
    }
    strict::from_str::<Head>(text).map(|head| head.kind).map_err(DocumentError::Yaml)
}

/// Writes the document type of one kind: its own members and those of [`Common`](crate::document::Common) side by side,
/// unknown keys refused. The type gets `parse(text)` and `common()`.
#[macro_export]
macro_rules! adapter_document {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$own:meta])* pub $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// The document as it was written.
            #[serde(skip)]
            pub text: String,
            /// Name of the adapter.
            pub adapter: serde_saphyr::Spanned<String>,
            /// What kind of source it reads.
            pub kind: serde_saphyr::Spanned<String>,
            $($(#[$own])* pub $field: $ty,)*
            /// The dataset its records belong to.
            pub into: concordat_protocol::ids::DatasetId,
            /// Target field to source column and type.
            #[serde(default)]
            pub map: std::collections::BTreeMap<String, $crate::document::FieldMap>,
            /// Rule for all columns not named in `map` or `ignore`.
            #[serde(default)]
            pub rest: Option<$crate::document::FieldMap>,
            /// Columns that are left out on purpose.
            #[serde(default)]
            pub ignore: Vec<serde_saphyr::Spanned<String>>,
            /// Fields that have the same value in every record.
            #[serde(default)]
            pub constants: std::collections::BTreeMap<String, serde_json::Value>,
            /// Target field to the words of the source and what they become.
            #[serde(default)]
            pub lookups: std::collections::BTreeMap<String, std::collections::BTreeMap<String, String>>,
            /// Target fields that identify a record.
            #[serde(default)]
            pub key: Vec<serde_saphyr::Spanned<String>>,
            /// Target field that is the event's time.
            #[serde(default)]
            pub time: Option<serde_saphyr::Spanned<String>>,
            /// Whose data a record is.
            #[serde(default)]
            pub subject: Option<$crate::document::Subject>,
            /// Sensitive target fields and their class.
            #[serde(default)]
            pub sensitive: std::collections::BTreeMap<String, String>,
            /// How fast a feed is published.
            #[serde(default)]
            pub pace: $crate::document::Pace,
            /// How often the source is asked.
            #[serde(default)]
            pub poll: $crate::document::Poll,
            /// What to do about errors.
            #[serde(default)]
            pub on_error: $crate::document::OnError,
        }

        impl $name {
            /// Parses and checks the document's shape; its meaning is checked when the mapping is made.
            pub fn parse(text: &str) -> Result<Self, $crate::document::DocumentError> {
                let mut doc: Self =
                    $crate::strict::from_str(text).map_err($crate::document::DocumentError::Yaml)?;
                doc.text = text.to_owned();
                doc.common().check()?;
                Ok(doc)
            }

            /// What every adapter document says.
            pub fn common(&self) -> $crate::document::Common {
                $crate::document::Common {
                    text: self.text.clone(),
                    adapter: self.adapter.clone(),
                    kind: self.kind.clone(),
                    into: self.into.clone(),
                    map: self.map.clone(),
                    rest: self.rest.clone(),
                    ignore: self.ignore.clone(),
                    constants: self.constants.clone(),
                    lookups: self.lookups.clone(),
                    key: self.key.clone(),
                    time: self.time.clone(),
                    subject: self.subject.clone(),
                    sensitive: self.sensitive.clone(),
                    pace: self.pace,
                    poll: self.poll,
                    on_error: self.on_error,
                }
            }
        }
    };
}
