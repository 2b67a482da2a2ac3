//! The contract of an adapter: a bounded pull that can be repeated from any checkpoint ([`Source`]), and what there is
//! to know about a source before anything is read: its settings, checks that write nothing, and a draft of the documents
//! it needs ([`Kind`], [`Connector`]).

mod error;
mod kind;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use error::{AdapterError, ErrorClass};
pub use kind::{Again, Column, Connector, Discovery, Finding, Kind, Level, Setting, Spec};

/// Most records a batch (one envelope) holds, PROTOCOL section 8.
pub const BATCH_RECORDS_MAX: usize = 256;
/// Most bytes of event lines a batch holds: an envelope must fit one JetStream message of 1 MiB.
pub const BATCH_BYTES_MAX: usize = 384 * 1024;

/// A place in a source, opaque to everyone but the adapter that made it. Empty means the start.
/// The broker keeps it with the envelope, in the same durable write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint(pub Vec<u8>);

impl Checkpoint {
    /// True for the start of the source.
    pub fn is_start(&self) -> bool {
        self.0.is_empty()
    }

    /// A place as JSON. Its member `v` is the version of what it holds, 1 so far.
    pub fn of_json<T: Serialize>(place: &T) -> Self {
        Self(serde_json::to_vec(place).unwrap_or_default())
    }

    /// The place that [`Checkpoint::of_json`] wrote.
    ///
    /// # Errors
    /// Other bytes, or another version.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, AdapterError> {
        #[derive(Deserialize)]
        struct Version {
            v: u8,
        }
        let bad = |detail: String| AdapterError::Checkpoint { detail };
        let Version { v } = serde_json::from_slice(&self.0).map_err(|e| bad(e.to_string()))?;
        if v != 1 {
            return Err(bad(format!("version {v} is not known")));
        }
        serde_json::from_slice(&self.0).map_err(|e| bad(e.to_string()))
    }
}

/// Where in the source a record stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Where it is from: a file's name as the document gives it, a table, a topic, an address without its secrets.
    pub file: String,
    /// Row number in it, from 1 (after the header); for sources without rows a number that tells messages apart.
    pub row: u64,
    /// Line of the file where the row begins, from 1; the row's number where there are no lines.
    pub line: u64,
    /// What the row's bytes alone do not say.
    pub beside: Option<Arc<Beside>>,
}

/// What is needed, besides its original bytes and the document, to map a row again that became a dead letter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Beside {
    /// Columns of a row of text, in order: the header of its file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// What happened to the row, where its source says so: `upsert` or `delete`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// Values that the source could not give as text: their column, and what is wrong with them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub faults: BTreeMap<String, String>,
    /// The cells as JSON, where the original bytes are something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cells: Option<String>,
}

impl Origin {
    /// A row of a source that has no lines.
    pub fn row(place: impl Into<String>, row: u64) -> Self {
        Self { file: place.into(), row, line: row, beside: None }
    }

    /// The same place, with what the row's bytes do not say.
    #[must_use]
    pub fn with(self, beside: Beside) -> Self {
        Self { beside: Some(Arc::new(beside)), ..self }
    }
}

/// One good record, mapped to the fields of its dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Deterministic id: 32 hex digits of SHA-256 over dataset and key values.
    pub id: String,
    /// Event time, RFC 3339 in UTC, when the document names a time field.
    pub time: Option<String>,
    /// The mapped fields; empty source values are left out.
    pub data: Map<String, Value>,
    /// Where it stood.
    pub origin: Origin,
    /// The original bytes, for a dead letter if the broker refuses the record.
    pub raw: Vec<u8>,
}

impl Record {
    /// Approximate bytes of the event line, for bounding a batch.
    pub fn size_hint(&self) -> usize {
        let data: usize = self.data.iter().map(|(k, v)| k.len() + 6 + v.as_str().map_or(8, str::len)).sum();
        data + 96
    }
}

/// One row that could not become a record: what, where, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Where the row stood.
    pub origin: Origin,
    /// Line of the offending value (a quoted row may span lines), from 1.
    pub line: u64,
    /// Column of the line where the offending value begins, counted in bytes from 1.
    pub column: u64,
    /// Name of the source column, when the fault lies in one.
    pub field: Option<String>,
    /// Stable name of the rule, for example `time.nonexistent`.
    pub rule: String,
    /// One sentence: what is wrong and what to do.
    pub message: String,
    /// The original bytes of the row.
    pub raw: Vec<u8>,
    /// True when `raw` was cut because the row was over the limit.
    pub truncated: bool,
}

/// A record or a reject.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// A good record.
    Good(Record),
    /// A row for the dead letters.
    Bad(Reject),
}

impl Row {
    /// Approximate bytes, for bounding a batch.
    pub fn size_hint(&self) -> usize {
        match self {
            Self::Good(record) => record.size_hint(),
            Self::Bad(reject) => reject.raw.len(),
        }
    }
}

/// When to ask a source again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once: there is more, or there may be.
    More,
    /// Nothing more at present; ask again after this time. The runner waits and can be interrupted.
    Idle(Duration),
    /// The source has ended: a file that does not grow.
    End,
}

/// What one pull gave. Records and rejects together are at most the `max` asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Good records in source order.
    pub records: Vec<Record>,
    /// Rows for the dead letters.
    pub rejects: Vec<Reject>,
    /// Where the next pull begins once this batch is durable; as given when nothing was read.
    pub checkpoint: Checkpoint,
    /// When to ask again.
    pub next: Next,
    /// Things a person should know and no row is about: a file that was sent twice, a column that is new.
    pub notes: Vec<String>,
}

impl Batch {
    /// Nothing yet, at a place.
    pub fn at(checkpoint: &Checkpoint, next: Next) -> Self {
        Self { records: Vec::new(), rejects: Vec::new(), checkpoint: checkpoint.clone(), next, notes: Vec::new() }
    }

    /// Rows, good and bad.
    pub fn rows(&self) -> usize {
        self.records.len() + self.rejects.len()
    }

    /// Takes a row.
    pub fn push(&mut self, row: Row) {
        match row {
            Row::Good(record) => self.records.push(record),
            Row::Bad(reject) => self.rejects.push(reject),
        }
    }
}

/// A source of records. It has a thread of its own, so it may block: a second at most, since nothing else is asked of it
/// meanwhile.
///
/// Reading twice from the same checkpoint gives the same rows, as long as the source itself does not change; that is what
/// makes a restart safe. The runner reads ahead of what is durable, and goes back to the newest durable checkpoint when a
/// batch was not taken. A source that cannot be asked again (a queue) therefore keeps what it handed out until
/// [`Source::ack`], and gives it again when read from the checkpoint before it.
pub trait Source: Send + 'static {
    /// Reads at most `max` rows that follow `from`: the newest durable checkpoint, or that of the batch before.
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError>;

    /// Everything up to `durable` is durable at the broker or in the dead letters: what waited for that may go (a
    /// message of a queue, the files before it, a replication slot). Called on the thread of `read`, with the newest such
    /// checkpoint alone, and once before the first `read` with the one that the broker keeps. An error is handled like
    /// one of `read`, and the call is repeated.
    fn ack(&mut self, durable: &Checkpoint) -> Result<(), AdapterError> {
        let _ = durable;
        Ok(())
    }
}

impl Source for Box<dyn Source> {
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError> {
        (**self).read(from, max)
    }

    fn ack(&mut self, durable: &Checkpoint) -> Result<(), AdapterError> {
        (**self).ack(durable)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Place {
        v: u8,
        row: u64,
    }

    #[test]
    fn a_checkpoint_of_another_version_or_adapter_is_refused() {
        let place = Place { v: 1, row: 7 };
        assert_eq!(Checkpoint::of_json(&place).json::<Place>().unwrap(), place);
        let refused = |text: &str| Checkpoint(text.into()).json::<Place>().unwrap_err();
        for other in [r#"{"v":2,"row":7}"#, r#"{"v":2,"new":1}"#, r#"{"v":1,"file":"a"}"#, r#"{"row":7}"#, "[]", ""] {
            let error = refused(other);
            assert_eq!((error.code(), error.class()), ("adapter.checkpoint", ErrorClass::Permanent), "{other}");
        }
        assert!(refused(r#"{"v":2,"new":1}"#).to_string().contains("version 2 is not known"));
    }
}
