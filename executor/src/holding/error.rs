//! What goes wrong in a holding, and what to do next.

use thiserror::Error;

use crate::query::FieldType;

/// An error of a holding. Nothing of the failed call is kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HoldingError {
    /// The dataset was never made here.
    #[error("the holding has no dataset {0}; register it first")]
    UnknownDataset(String),
    /// A dataset's specification breaks a rule.
    #[error("dataset {dataset}: {rule}")]
    Spec {
        /// The dataset.
        dataset: String,
        /// The rule.
        rule: String,
    },
    /// What is held does not fit the new specification.
    #[error("dataset {dataset}: {rule}; register a new version of the dataset instead")]
    SpecConflict {
        /// The dataset.
        dataset: String,
        /// What differs.
        rule: String,
    },
    /// A row has a field that the dataset does not have.
    #[error("row {row}: the dataset has no field {field:?}{}", near(.nearest))]
    UnknownField {
        /// Position in the batch, from 0.
        row: usize,
        /// The field.
        field: String,
        /// The nearest field.
        nearest: Option<String>,
    },
    /// A row's value is not of its field's type.
    #[error("row {row}: field {field} is not a {}; map it to one at the adapter", .ty.name())]
    Type {
        /// Position in the batch, from 0.
        row: usize,
        /// The field.
        field: String,
        /// Its type.
        ty: FieldType,
    },
    /// A row lacks a key field.
    #[error("row {row}: key field {field} has no value; every row needs its key")]
    NoKey {
        /// Position in the batch, from 0.
        row: usize,
        /// The field.
        field: String,
    },
    /// Longer or more than allowed.
    #[error("{what} is over the limit of {max}; {next}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        max: usize,
        /// What to do.
        next: &'static str,
    },
    /// The plan asks for what cannot be: made by hand, not by the parser.
    #[error("plan: {0}")]
    Plan(String),
    /// The read took longer than allowed.
    #[error("the store worked on one read longer than its provider allows; name an indexed field or a shorter time")]
    Timeout,
    /// More rows or bytes would have to be read than one query may.
    #[error(
        "the query reads more than {max} {what} of the store; name an indexed field, a smaller area or a shorter time"
    )]
    TooMuch {
        /// Rows or bytes.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// A service has more rows for a query than one query may read, or must be told more.
    #[error("the service would have to hand over more than the {max} rows that one query may read; {}", narrower(.fields))]
    TooWide {
        /// The limit.
        max: u64,
        /// The fields that would make them fewer, if there are any.
        fields: Option<String>,
    },
    /// As many queries as the provider allows are at work.
    #[error("{max} queries are at work on the provider's store, as many as it allows; ask again")]
    Busy {
        /// The limit.
        max: usize,
    },
    /// The provider keeps its store free at this hour.
    #[error("the provider keeps its store free until {until}; ask then")]
    BlackOut {
        /// The instant, RFC 3339.
        until: String,
    },
    /// The record is not as the writer expects.
    #[error("record {key}: {}; read it again and decide anew", found.as_ref().map_or_else(|| "there is none".to_owned(), |v| format!("it has version {v}")))]
    Conflict {
        /// Its key.
        key: String,
        /// Its version now, if there is one.
        found: Option<super::Version>,
    },
    /// The dataset belongs to a database that this program only reads.
    #[error("dataset {0} is read from the agency's own table or view; change it there")]
    ReadOnly(String),
    /// Another executor took over: what this one does has no effect any more.
    #[error(
        "another executor is at work on this holding under term {now}, this one had {own}; it starts again and stands by"
    )]
    Fenced {
        /// The term of this one.
        own: u64,
        /// The newest term, 0 where there is none any more.
        now: u64,
    },
    /// The store cannot be reached.
    #[error("the store cannot be reached: {0}; is it running, and are address, name and password right?")]
    Unreachable(String),
    /// The URI or an option names no store that can be opened.
    #[error("holding: {0}")]
    Setup(String),
    /// No room left.
    #[error("the disk of the holding is full; free room, then send again: nothing was kept")]
    DiskFull,
    /// Another process holds the store.
    #[error("the holding is locked by another process; stop it, or send again later")]
    Locked,
    /// May not be written.
    #[error("the holding cannot be opened or written: {0}; check owner and permissions")]
    Access(String),
    /// The file is damaged or no holding.
    #[error("the holding is damaged or not a holding: {0}; restore it from the last backup")]
    Damaged(String),
    /// The file was made by a later version.
    #[error("the holding has format {found}, this program reads up to {known}; upgrade the program")]
    Format {
        /// As found.
        found: i64,
        /// As known.
        known: i64,
    },
    /// Anything else the store says.
    #[error("the store failed: {0}; see its log")]
    Store(String),
}

impl HoldingError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownDataset(_) => "holding.unknown-dataset",
            Self::Spec { .. } => "holding.spec",
            Self::SpecConflict { .. } => "holding.spec-conflict",
            Self::UnknownField { .. } => "holding.unknown-field",
            Self::Type { .. } => "holding.type",
            Self::NoKey { .. } => "holding.no-key",
            Self::TooLarge { .. } => "holding.too-large",
            Self::Plan(_) => "holding.plan",
            Self::Timeout => "holding.timeout",
            Self::TooMuch { .. } | Self::TooWide { .. } => "holding.too-much",
            Self::Busy { .. } => "holding.busy",
            Self::BlackOut { .. } => "holding.black-out",
            Self::Conflict { .. } => "holding.conflict",
            Self::ReadOnly(_) => "holding.read-only",
            Self::Fenced { .. } => "holding.fenced",
            Self::Unreachable(_) => "holding.unreachable",
            Self::Setup(_) => "holding.setup",
            Self::DiskFull => "holding.disk-full",
            Self::Locked => "holding.locked",
            Self::Access(_) => "holding.access",
            Self::Damaged(_) => "holding.damaged",
            Self::Format { .. } => "holding.format",
            Self::Store(_) => "holding.store",
        }
    }

    /// Whether the same call may succeed later without a change.
    pub fn retry(&self) -> bool {
        matches!(self, Self::Locked | Self::DiskFull | Self::Busy { .. } | Self::BlackOut { .. } | Self::Unreachable(_))
    }
}

fn narrower(fields: &Option<String>) -> String {
    match fields {
        Some(fields) => format!("name {fields} by one value"),
        None => "nothing more can be said to narrow it".to_owned(),
    }
}

fn near(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default()
}
