//! What a subscription shows of an envelope, and the promise that goes with it (pure).

use super::duties::Changes;
use crate::host::subjects::subject_field;
use concordat_executor::limits::MAX_QUERY_BYTES;
use concordat_executor::policies::ask::Grant;
use concordat_executor::policies::dataset::DatasetDoc;
use concordat_executor::policies::duty::Duty;
use concordat_executor::policies::view::Pseudonyms;
use concordat_executor::query::{FieldType, Fields, Filter, nearest, parse_filter, read_json};
use concordat_executor::subjects::SubjectField;
use concordat_protocol::cbor;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::message::{Altering, Event, MessageView, Opened, RedactedEnvelope};
use concordat_protocol::terms::Evidence;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use thiserror::Error;

/// Attributes that say nothing about a record.
const PLAIN: [&str; 5] = ["specversion", "type", "source", "datacontenttype", "dataschema"];

/// Why a clause cannot be delivered under. Nothing is delivered then.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnfitClause {
    /// Feeds are released with promises, or are public.
    #[error(
        "its evidence is {0}: a feed needs bounded evidence; query the dataset instead, or agree on a clause for \
         subscribe with evidence {{bounded: {{max_lag: ..}}}}"
    )]
    Evidence(&'static str),
    /// A duty that feeds do not fulfil.
    #[error(
        "its duty {0} cannot be fulfilled on a feed; query the dataset instead, or agree on a clause for subscribe \
         without it"
    )]
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

/// Why a subscription's own filter or fields are refused: they can only be less than what the clause opens.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TooWide {
    /// The filter does not parse.
    #[error("filter: {0}")]
    Filter(String),
    /// The filter looks at a hidden field: whether a row comes would tell its value.
    #[error("filter: the clause does not open the field {field}, so rows cannot be chosen by it; it opens {open}")]
    HiddenInFilter {
        /// The field.
        field: String,
        /// What is open.
        open: String,
    },
    /// The filter looks at a field that is shown altered: it would find the true value.
    #[error("filter: the clause shows the field {0} altered, so rows cannot be chosen by it")]
    AlteredInFilter(String),
    /// A field that is not open.
    #[error("fields: the clause does not open {field}{near}; it opens {open}")]
    Field {
        /// The field.
        field: String,
        /// The nearest that is open.
        near: String,
        /// What is open.
        open: String,
    },
}

impl TooWide {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Filter(_) => "bad-filter",
            Self::AlteredInFilter(_) => "altered-field",
            Self::HiddenInFilter { .. } | Self::Field { .. } => "fields",
        }
    }
}

/// What a clause shows of a dataset's messages, or what a subscription takes of that.
#[derive(Debug, Clone, PartialEq)]
pub struct Lens {
    filter: Filter,
    fields: BTreeSet<String>,
    leaves: BTreeSet<String>,
    subject: Option<SubjectField>,
    changes: Changes,
    id: Hash,
    /// The agreement's bound, milliseconds; 0 for public data.
    pub max_lag_ms: u64,
}

/// An envelope as a lens shows it: the bytes that are sealed.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    /// Canonical redacted envelope.
    pub plain: Vec<u8>,
    /// Its SHA-256, which is promised.
    pub root: Hash,
    /// Messages shown in it.
    pub messages: u64,
    /// Whose records they are, whether or not the field is shown.
    pub subjects: BTreeSet<String>,
    /// First millisecond of ledger time at which all of them may be shown; 0 where nothing holds them back.
    pub due_ms: u64,
}

impl Lens {
    /// The lens of a grant. Every duty must be one that is fulfilled here, or nothing is shown at all.
    pub fn of(grant: &Grant, doc: &DatasetDoc) -> Result<Self, UnfitClause> {
        let max_lag_ms = match grant.evidence {
            Evidence::Bounded { max_lag_ms } => max_lag_ms,
            Evidence::None {} => 0,
            Evidence::Strict {} => return Err(UnfitClause::Evidence("strict")),
        };
        let fields = schema(doc)?;
        let mut shown: BTreeSet<String> = doc.fields().iter().map(|f| f.name.clone()).collect();
        let mut filters = Vec::new();
        for duty in &grant.duties {
            match duty {
                Duty::RowFilter { filter } => {
                    let parsed =
                        parse_filter(filter, &fields, "/where").map_err(|e| UnfitClause::Fields(e.to_string()))?;
                    filters.push(parsed);
                }
                Duty::Fields { allow } => shown.retain(|f| allow.iter().any(|a| a == f)),
                // There is no grant without it: the evaluator checked it.
                Duty::Reference { .. } => {}
                // The evidence fulfils it: what a person is told, and when.
                Duty::SealAccess { .. } => {}
                Duty::Delay { field, .. } if fields.get(field) != Some(FieldType::Timestamp) => {
                    return Err(UnfitClause::Fields(format!("delay: {field} is no time")));
                }
                // Each message is altered and held back as it is made.
                Duty::Mask { .. } | Duty::Pseudonymise { .. } | Duty::Coarsen { .. } | Duty::Delay { .. } => {}
                other => return Err(UnfitClause::Duty(other.kind().word().to_owned())),
            }
        }
        Ok(Self::new(Filter::all_of(filters), shown, Changes::of(grant), max_lag_ms, doc))
    }

    fn new(filter: Filter, fields: BTreeSet<String>, changes: Changes, max_lag_ms: u64, doc: &DatasetDoc) -> Self {
        let plain = fields.iter().map(String::as_str).filter(|f| !changes.alters(f)).collect();
        let leaves = leaves(doc, &plain);
        let mut names: Vec<u8> = leaves.iter().flat_map(|l| [l.as_bytes(), b"\0"]).collect::<Vec<_>>().concat();
        let altered = fields.iter().filter(|f| changes.alters(f));
        names.extend(altered.flat_map(|f| [b"\0", f.as_bytes()]).collect::<Vec<_>>().concat());
        let id = sha256(&[&filter.to_json().to_string().into_bytes(), b"\0", &names, &changes.id()]);
        Self { filter, fields, leaves, subject: subject_field(doc), changes, id, max_lag_ms }
    }

    /// A subscription's own filter, checked against the dataset's fields.
    pub fn own_filter(filter: &Value, doc: &DatasetDoc) -> Result<Filter, TooWide> {
        if filter.as_object().is_some_and(serde_json::Map::is_empty) {
            return Ok(Filter::All);
        }
        let known = schema(doc).map_err(|e| TooWide::Filter(e.to_string()))?;
        parse_filter(filter, &known, "/where").map_err(|e| TooWide::Filter(e.to_string()))
    }

    /// The lens with a filter (JSON, `{}` for every row) and fields (none for all) of a subscription on top. They may
    /// only speak of fields that are open: rows chosen by a hidden field would tell its value.
    pub fn narrow(&self, filter: &Value, fields: &[String], doc: &DatasetDoc) -> Result<Self, TooWide> {
        let open = || self.fields.iter().cloned().collect::<Vec<_>>().join(", ");
        let own = Self::own_filter(filter, doc)?;
        if let Some(hidden) = own.fields().into_iter().find(|f| !self.fields.contains(*f)) {
            return Err(TooWide::HiddenInFilter { field: hidden.to_owned(), open: open() });
        }
        if let Some(altered) = own.fields().into_iter().find(|f| self.changes.alters(f)) {
            return Err(TooWide::AlteredInFilter(altered.to_owned()));
        }
        if let Some(hidden) = fields.iter().find(|f| !self.fields.contains(*f)) {
            let near = nearest(hidden, self.fields.iter().map(String::as_str));
            let near = near.map_or_else(String::new, |n| format!(" (nearest is {n})"));
            return Err(TooWide::Field { field: hidden.clone(), near, open: open() });
        }
        let shown = if fields.is_empty() { self.fields.clone() } else { fields.iter().cloned().collect() };
        let filter = Filter::all_of([self.filter.clone(), own]);
        Ok(Self::new(filter, shown, self.changes.clone(), self.max_lag_ms, doc))
    }

    /// Fields that are shown, sorted.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(String::as_str)
    }

    /// Two lenses with one id show the same of every envelope.
    pub fn id(&self) -> Hash {
        self.id
    }

    /// The same for what two lenses show at a moment: pseudonyms may change with the calendar.
    pub fn id_at(&self, at_ms: u64) -> Hash {
        let period = self.changes.period(at_ms);
        if period.is_empty() { self.id } else { sha256(&[&self.id, period.as_bytes()]) }
    }

    /// The envelope as this consumer may see it; none if no message of it is for this consumer. Whoever calls it holds it
    /// back until it is due.
    pub fn show(&self, envelope: &Opened, with: Pseudonyms<'_>) -> Option<Shown> {
        let (mut subjects, mut due_ms) = (BTreeSet::new(), 0);
        let redacted = some(envelope.redact_altered(&self.changes.clause, |_, event| {
            let (due, altering) = self.choose(event, with)?;
            due_ms = due_ms.max(due);
            subjects.extend(self.subject.as_ref().and_then(|s| s.text(event.data().get(&s.name)?)));
            Some((|leaf: &str| self.leaves.contains(leaf), altering))
        }))?;
        let messages = redacted.messages.iter().filter(|m| is_shown(m)).count() as u64;
        let plain = cbor::encode(&redacted);
        let root = sha256(&[&plain]);
        Some(Shown { plain, root, messages, subjects, due_ms })
    }

    /// When a message may be shown, and what of it altered; none if it is not for this consumer.
    fn choose(&self, event: &Event, with: Pseudonyms<'_>) -> Option<(u64, Vec<Altering>)> {
        let data = event.data();
        let due = self.filter.matches(data).then(|| self.changes.due_ms(data))??;
        Some((due, self.changes.altering(&self.fields, data, with)))
    }
}

fn is_shown(message: &MessageView) -> bool {
    !matches!(message, MessageView::LeftOut { .. })
}

fn some(redacted: RedactedEnvelope) -> Option<RedactedEnvelope> {
    let any = redacted.messages.iter().any(is_shown);
    any.then_some(redacted)
}

fn schema(doc: &DatasetDoc) -> Result<Fields, UnfitClause> {
    Fields::from_schema(&doc.schema).map_err(|e| UnfitClause::Fields(e.to_string()))
}

/// A filter as it came; no bytes are every row.
pub fn filter_json(bytes: &[u8]) -> Result<Value, TooWide> {
    if bytes.is_empty() {
        return Ok(json!({}));
    }
    if bytes.len() > MAX_QUERY_BYTES {
        return Err(TooWide::Filter(format!("{} bytes are more than {MAX_QUERY_BYTES}", bytes.len())));
    }
    read_json(bytes).map_err(|e| TooWide::Filter(e.to_string()))
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

#[cfg(test)]
#[path = "redaction_tests.rs"]
mod tests;
