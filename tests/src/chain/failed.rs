//! Why a benchmark ended without figures.

use concordat_broker::ledger::LedgerError;
use concordat_cli::layout::LayoutError;
use concordat_cli::servers::ServersError;
use thiserror::Error;

/// Why a benchmark ended without figures.
#[derive(Debug, Error)]
pub enum BenchError {
    /// A file, folder or socket.
    #[error("{what}: {source}; check the disk's space and the folder's owner")]
    Io {
        /// What was tried, with the path.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A process of the benchmark ended or did not come up.
    #[error("{name} {what}; its last words: {words}")]
    Process {
        /// The process.
        name: String,
        /// What it did.
        what: String,
        /// Last line of its log.
        words: String,
    },
    /// The program under test said no to what must work.
    #[error("{what} was refused: {why}")]
    Refused {
        /// What was asked.
        what: String,
        /// The answer.
        why: String,
    },
    /// It did not happen in time.
    #[error("{what} did not happen within {seconds} s: is the machine busy with something else?")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// A results or floors file.
    #[error("{file}: {why}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Folders.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Servers.
    #[error(transparent)]
    Servers(#[from] ServersError),
}

impl BenchError {
    /// An error of the system.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
    /// Something that must work was refused.
    pub fn refused(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Refused { what: what.into(), why: why.to_string() }
    }
}
