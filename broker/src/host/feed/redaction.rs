//! What a subscription shows of an envelope, and the promise that goes with it (pure).

use concordat_executor::policies::ask::Grant;
use concordat_executor::policies::dataset::DatasetDoc;
use concordat_executor::policies::duty::Duty;
use concordat_executor::query::{Fields, Filter, parse_filter};
use concordat_protocol::message::{Envelope, Event, MessageError, MessageView, RedactedEnvelope};
use concordat_protocol::terms::Evidence;
use std::collections::BTreeSet;
use thiserror::Error;

/// Attributes that say nothing about a record.
const PLAIN: [&str; 5] = ["specversion", "type", "source", "datacontenttype", "dataschema"];

/// Why a clause cannot be delivered under. Nothing is delivered then.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnfitClause {
    /// Feeds are released with promises only.
    #[error("its evidence is {0}: a feed needs bounded evidence")]
    Evidence(&'static str),
    /// A duty that feeds do not fulfil.
    #[error("its duty {0} cannot be fulfilled on a feed")]
    Duty(String),
    /// A row filter or a field list that does not fit the dataset.
    #[error("its duty does not fit the dataset: {0}")]
    Fields(String),
}

impl UnfitClause {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Evidence(_) => "feed-evidence",
            Self::Duty(_) => "feed-duty",
            Self::Fields(_) => "feed-fields",
        }
    }
}

/// What a clause shows of a dataset's messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Lens {
    filter: Filter,
    leaves: BTreeSet<String>,
    /// The agreement's bound, milliseconds.
    pub max_lag_ms: u64,
}

impl Lens {
    /// The lens of a grant. Every duty must be one that is fulfilled here, or nothing is shown at all.
    pub fn of(grant: &Grant, doc: &DatasetDoc) -> Result<Self, UnfitClause> {
        let max_lag_ms = match grant.evidence {
            Evidence::Bounded { max_lag_ms } => max_lag_ms,
            Evidence::Strict {} => return Err(UnfitClause::Evidence("strict")),
            Evidence::None {} => return Err(UnfitClause::Evidence("none")),
        };
        let fields = Fields::from_schema(&doc.schema).map_err(|e| UnfitClause::Fields(e.to_string()))?;
        let mut shown: BTreeSet<&str> = doc.fields().iter().map(|f| f.name.as_str()).collect();
        let mut filters = Vec::new();
        for duty in &grant.duties {
            match duty {
                Duty::RowFilter { filter } => {
                    let parsed =
                        parse_filter(filter, &fields, "/where").map_err(|e| UnfitClause::Fields(e.to_string()))?;
                    filters.push(parsed);
                }
                Duty::Fields { allow } => shown.retain(|f| allow.iter().any(|a| a == f)),
                other => return Err(UnfitClause::Duty(other.kind().word().to_owned())),
            }
        }
        Ok(Self { filter: Filter::all_of(filters), leaves: leaves(doc, &shown), max_lag_ms })
    }

    /// The envelope as this consumer may see it; none if no message of it is for this consumer.
    pub fn apply(&self, envelope: &Envelope) -> Result<Option<RedactedEnvelope>, MessageError> {
        let redacted = envelope.redact(|_, event: &Event| {
            self.filter.matches(event.data()).then_some(|leaf: &str| self.leaves.contains(leaf))
        })?;
        let any = redacted.messages.iter().any(|m| matches!(m, MessageView::Shown { .. }));
        Ok(any.then_some(redacted))
    }
}

/// Names of the leaves that are shown. An attribute made from hidden fields stays hidden: the id is computed from the
/// key and could be guessed, the time is a field's, the subject is a person.
fn leaves(doc: &DatasetDoc, shown: &BTreeSet<&str>) -> BTreeSet<String> {
    let mut out: BTreeSet<String> = PLAIN.iter().map(|a| format!("a/{a}")).collect();
    out.extend(shown.iter().map(|f| format!("d/{f}")));
    if doc.key.iter().all(|k| shown.contains(k.as_str())) {
        out.insert("a/id".into());
    }
    if doc.time.as_ref().is_some_and(|t| shown.contains(t.field.as_str())) {
        out.insert("a/time".into());
    }
    if doc.subject.as_ref().is_some_and(|s| shown.contains(s.field.as_str())) {
        out.insert("a/subject".into());
    }
    out
}
