//! What a command ends with: exit codes and the error that says what to do next.

use serde_json::{Value, json};

/// Exit codes of the program (0 is success).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It failed.
    Failed = 1,
    /// The command line or a document is wrong.
    Usage = 2,
    /// Denied by an agreement or by the ledger.
    Denied = 3,
    /// A proof does not hold.
    ProofInvalid = 4,
    /// No such thing.
    NotFound = 5,
    /// It conflicts with what is there.
    Conflict = 6,
    /// A part is not there, or did not answer in time.
    Unavailable = 7,
    /// Some of it worked.
    Partial = 8,
}

/// A failed command.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// Stable code.
    pub code: String,
    /// What happened, and what to do next.
    pub message: String,
    /// The whole problem, for `--output json`.
    pub problem: Option<Value>,
}

impl Failure {
    /// A failure.
    pub fn new(exit: Exit, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { exit, code: code.into(), message: message.into(), problem: None }
    }

    /// Something the command line or a document gets wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// The error as JSON.
    pub fn to_json(&self) -> Value {
        self.problem
            .clone()
            .unwrap_or_else(|| json!({"code": self.code, "detail": self.message, "exit": self.exit as u8}))
    }
}

macro_rules! from_error {
    ($($t:ty => $exit:expr),* $(,)?) => {$(
        impl From<$t> for Failure {
            fn from(e: $t) -> Self {
                Self::new($exit, e.code().to_string(), e.to_string())
            }
        }
    )*};
}

from_error! {
    concordat_broker::config::ConfigError => Exit::Usage,
    concordat_broker::keys::KeyFileError => Exit::Failed,
    concordat_broker::host::HostError => Exit::Failed,
    concordat_abci_app::run::AppError => Exit::Failed,
    crate::layout::LayoutError => Exit::Failed,
    crate::servers::ServersError => Exit::Unavailable,
    crate::supervisor::SupervisorError => Exit::Failed,
    concordat_adapters::contract::AdapterError => Exit::Failed,
    concordat_adapters::document::DocumentError => Exit::Usage,
    concordat_policies::yaml::YamlError => Exit::Usage,
    concordat_executor::holding::HoldingError => Exit::Failed,
    concordat_protocol::trust::TrustError => Exit::ProofInvalid,
}

impl From<concordat_broker::ledger::LedgerError> for Failure {
    fn from(e: concordat_broker::ledger::LedgerError) -> Self {
        use concordat_broker::ledger::LedgerError as L;
        let exit = match e {
            L::Refused { .. } => Exit::Denied,
            L::NodeDown { .. } | L::RpcDown(_) | L::Timeout(_) => Exit::Unavailable,
            _ => Exit::Failed,
        };
        Self::new(exit, e.code(), e.to_string())
    }
}

impl From<concordat_protocol::ids::IdError> for Failure {
    fn from(e: concordat_protocol::ids::IdError) -> Self {
        Self::usage(e.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Self::new(Exit::Failed, "io", e.to_string())
    }
}

/// Reads a file with an error that names it.
pub fn read_file(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| Failure::new(Exit::NotFound, "file", format!("{}: {e}", path.display())))
}

/// Reads a text file with an error that names it.
pub fn read_text(path: &std::path::Path) -> Result<String, Failure> {
    String::from_utf8(read_file(path)?).map_err(|_| Failure::usage(format!("{}: is not UTF-8 text", path.display())))
}
