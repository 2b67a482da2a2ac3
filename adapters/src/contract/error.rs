//! Why an adapter could not go on, and what that asks of the runner.

use crate::document::DocumentError;

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
    /// The columns of a file that knows their types are not the expected ones.
    #[error("{file}: {detail}; correct the file, or the mapping")]
    Columns {
        /// The file.
        file: String,
        /// What differs, in one sentence.
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
    /// A compressed file, or one of Parquet, ends early.
    #[error("{file}: the file ends early after row {row}; wait until it is complete, or send it again")]
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
    /// A source elsewhere (a database, a service, a broker of messages, a program) failed.
    #[error("{message}")]
    Source {
        /// What to do about it.
        class: ErrorClass,
        /// Stable code, `source.` and a word: `unreachable`, `tls`, `login`, `rights`, `missing`, `changed`, `timeout`,
        /// `protocol`, `limit`, `secret`, `host-key`.
        code: &'static str,
        /// One sentence with place, reason and what to do; never a secret.
        message: String,
        /// How long the source asked to wait, in milliseconds.
        retry_after_ms: Option<u64>,
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
    /// A failure of a source elsewhere; `code` is `source.` and a word, `message` one sentence without secrets.
    pub fn source_failed(class: ErrorClass, code: &'static str, message: impl Into<String>) -> Self {
        Self::Source { class, code, message: message.into(), retry_after_ms: None }
    }

    /// How long to wait at least before trying again, in milliseconds, if somebody said so.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Busy { retry_after_ms, .. } | Self::Source { retry_after_ms, .. } => *retry_after_ms,
            _ => None,
        }
    }

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
            Self::Source { class, .. } => *class,
            Self::Document(_)
            | Self::Header { .. }
            | Self::Columns { .. }
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
            Self::Columns { .. } => "adapter.columns",
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
            Self::Source { code, .. } => code,
        }
    }
}
