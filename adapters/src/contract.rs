//! The contract of an adapter: a bounded pull that can be repeated from any checkpoint.

use serde_json::{Map, Value};

use crate::document::DocumentError;

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
}

/// Where in the source a record stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// File name as the adapter document gives it.
    pub file: String,
    /// Row number after the header, from 1.
    pub row: u64,
    /// Line of the file where the row begins, from 1.
    pub line: u64,
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

/// What one pull gave. Records and rejects together are at most the `max` asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Good records in source order.
    pub records: Vec<Record>,
    /// Rows for the dead letters.
    pub rejects: Vec<Reject>,
    /// Where the next pull begins once this batch is durable.
    pub checkpoint: Checkpoint,
    /// True when the source had no more when it was read.
    pub end: bool,
}

/// A source of records. Reading twice from the same checkpoint gives the same batch, as long as the
/// source itself does not change; that is what makes a restart safe.
pub trait Source: Send + 'static {
    /// Reads at most `max` rows that follow `from`.
    fn read(&mut self, from: &Checkpoint, max: usize) -> Result<Batch, AdapterError>;
}

/// What an error asks of the runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorClass {
    /// It may pass: retry with back-off.
    Transient,
    /// Credentials or rights: a person must act.
    Auth,
    /// A record is bad, the source is fine: dead letter.
    Data,
    /// It will not pass by waiting: stop.
    Permanent,
}

impl ErrorClass {
    /// The name used in metrics and documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Auth => "auth",
            Self::Data => "data",
            Self::Permanent => "permanent",
        }
    }
}

/// Why an adapter could not go on.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The adapter document is not usable.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A file could not be opened, read or written.
    #[error("{file}: cannot {action}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The header row is not the expected one.
    #[error("{file}: line 1: {detail}; correct the file, or `columns` in the adapter document")]
    Header {
        /// The file.
        file: String,
        /// All differences in one sentence.
        detail: String,
    },
    /// The file is not in the encoding the document names.
    #[error("{file}: {detail}")]
    Encoding {
        /// The file.
        file: String,
        /// What was found.
        detail: String,
    },
    /// A compressed file ends early.
    #[error("{file}: the compressed file ends early after row {row}; wait until it is complete, or send it again")]
    Truncated {
        /// The file.
        file: String,
        /// Rows read before the end.
        row: u64,
    },
    /// The rows already published are no longer the first rows of the file.
    #[error(
        "{file}: the first {row} rows are not the ones already published; give the changed file another adapter name, or restore it"
    )]
    Changed {
        /// The file.
        file: String,
        /// Rows that were published.
        row: u64,
    },
    /// A checkpoint that this adapter did not write.
    #[error("the checkpoint kept by the broker is not one of this adapter: {detail}")]
    Checkpoint {
        /// What is wrong with it.
        detail: String,
    },
    /// The broker did not answer.
    #[error("the broker at {broker} did not answer: {detail}")]
    Unreachable {
        /// Base address.
        broker: String,
        /// The reason.
        detail: String,
    },
    /// The broker asks to slow down or is not ready.
    #[error("the broker asks to wait (status {status}): {detail}")]
    Busy {
        /// HTTP status.
        status: u16,
        /// Its reason.
        detail: String,
        /// What `Retry-After` asked for, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The broker refused the adapter's credentials.
    #[error(
        "the broker refused the adapter's token (status {status}): {detail}; check the service token of this adapter"
    )]
    Forbidden {
        /// HTTP status.
        status: u16,
        /// Its reason.
        detail: String,
    },
    /// The broker refused the request as such, or its answer made no sense.
    #[error("the broker refused the batch (status {status}): {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its reason.
        detail: String,
    },
    /// Someone else publishes under this adapter's name.
    #[error(
        "the broker keeps another position than this adapter, {times} times in a row; stop the second process that publishes as `{adapter}`"
    )]
    Contended {
        /// The adapter.
        adapter: String,
        /// How often.
        times: u32,
    },
    /// The document says to stop at bad rows.
    #[error("{count} rows were refused (first: {first}); `on_error: {{data: stop}}` stops here")]
    DataStop {
        /// Rows in this batch.
        count: usize,
        /// The first one's message.
        first: String,
    },
}

impl AdapterError {
    /// What the error asks of the runner.
    pub fn class(&self) -> ErrorClass {
        use std::io::ErrorKind;
        match self {
            Self::Io { source, .. } => match source.kind() {
                ErrorKind::PermissionDenied => ErrorClass::Auth,
                ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::InvalidInput => ErrorClass::Permanent,
                _ => ErrorClass::Transient,
            },
            Self::Truncated { .. } | Self::Unreachable { .. } | Self::Busy { .. } => ErrorClass::Transient,
            Self::Forbidden { .. } => ErrorClass::Auth,
            Self::DataStop { .. } => ErrorClass::Data,
            Self::Document(_)
            | Self::Header { .. }
            | Self::Encoding { .. }
            | Self::Changed { .. }
            | Self::Checkpoint { .. }
            | Self::Refused { .. }
            | Self::Contended { .. } => ErrorClass::Permanent,
        }
    }

    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Document(e) => e.code(),
            Self::Io { .. } => "adapter.io",
            Self::Header { .. } => "adapter.header",
            Self::Encoding { .. } => "adapter.encoding",
            Self::Truncated { .. } => "adapter.truncated",
            Self::Changed { .. } => "adapter.changed",
            Self::Checkpoint { .. } => "adapter.checkpoint",
            Self::Unreachable { .. } => "adapter.unreachable",
            Self::Busy { .. } => "adapter.busy",
            Self::Forbidden { .. } => "adapter.forbidden",
            Self::Refused { .. } => "adapter.refused",
            Self::Contended { .. } => "adapter.contended",
            Self::DataStop { .. } => "adapter.data-stop",
        }
    }
}
