//! Who looked at a person's records, and forgetting the person: the provider's side.
//!
//! Every operation on a dataset with subjects carries their tags ([`people`], [`vault`]). What opens an operation is kept for
//! ever in the executor's stores ([`disclosures`]). The agency's broker asks for it over a socket of its own ([`wire`],
//! [`serve`]) and makes the list with its proof ([`listing`]). Forgetting is recorded on the ledger, and carried out anew by a
//! restored backup before it serves ([`erase`], [`replay`]).

mod disclosures;
mod erase;
pub mod listing;
mod people;
mod proven;
mod replay;
mod serve;
mod vault;
pub mod wire;

pub use disclosures::Disclosures;
pub use people::{MarkError, People, subject_field};
pub(crate) use replay::BlockOps;
pub use serve::{Subjects, SubjectsSetup};
pub use vault::{SubjectId, Vault, VaultError};

use crate::ledger::LedgerError;
use concordat_executor::holding::HoldingError;
use thiserror::Error;

/// Socket on which an executor answers its own broker, in the node's folder.
pub const EXECUTOR_SOCKET: &str = "run/executor.sock";

/// Why a question about a subject is not answered.
#[derive(Debug, Error)]
pub enum SubjectsError {
    /// The dataset has no subjects, or is not this agency's.
    #[error("{0} has no subjects here: its document has no `subject: {{field: .., role: ..}}`")]
    NoSubjects(String),
    /// The value is none of the field.
    #[error("subject: not a value of the field {0}")]
    Value(String),
    /// Operations of the subject are on their way.
    #[error("{0} operations on this subject are not settled on the ledger yet: repeat in a few seconds")]
    Pending(u64),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The stores of disclosures.
    #[error("the stores of disclosures failed: {0}; free disk space, then repeat")]
    Store(#[from] rusqlite::Error),
    /// The held records.
    #[error(transparent)]
    Holding(#[from] HoldingError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The commitment of an erasure.
    #[error("commitment: {0}")]
    Commitment(String),
    /// A file or socket.
    #[error("{0}")]
    Io(String),
}

impl SubjectsError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSubjects(_) => "no-subjects",
            Self::Value(_) => "bad-subject",
            Self::Pending(_) => "subject-pending",
            Self::Vault(_) => "vault",
            Self::Store(_) => "disclosures",
            Self::Holding(e) => e.code(),
            Self::Ledger(e) => e.code(),
            Self::Commitment(_) => "commitment",
            Self::Io(_) => "executor-socket",
        }
    }
}
