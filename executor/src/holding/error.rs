//! What goes wrong in a holding, and what to do next.

use thiserror::Error;

use crate::limits;
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
    #[error(
        "the store worked longer than {} s on one read; name an indexed field or a shorter time",
        limits::STATEMENT_TIMEOUT.as_secs()
    )]
    Timeout,
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
        matches!(self, Self::Locked | Self::DiskFull)
    }
}

fn near(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default()
}
