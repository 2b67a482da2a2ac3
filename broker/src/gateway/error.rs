//! Why a query has no answer.

use super::check::ProofError;
use crate::ledger::LedgerError;
use crate::store::StoreError;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::KeyError;
use concordat_protocol::session::Denied;
use thiserror::Error;

/// Why a query has no answer. Nothing of the provider's data is in any of them.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// The question breaks a rule before anybody is asked.
    #[error("{field}: {rule}")]
    BadQuery {
        /// The member of the body.
        field: &'static str,
        /// The rule.
        rule: String,
    },
    /// No such dataset on the ledger.
    #[error("dataset {0} is not registered on the ledger: see GET /v1/catalogue/datasets")]
    UnknownDataset(String),
    /// The provider, or the ledger at the provider, said no.
    #[error("{provider} denied it: {}", denied.detail)]
    Denied {
        /// Who.
        provider: AgencyId,
        /// Why.
        denied: Box<Denied>,
        /// Name of the query in this agency's store.
        id: i64,
    },
    /// What came back does not prove itself. Nothing of it was handed on.
    #[error("the answer of {provider} does not prove itself ({error}): nothing of it was handed on")]
    Proof {
        /// Who sent it.
        provider: AgencyId,
        /// The check that failed.
        error: ProofError,
    },
    /// The provider did not answer in time.
    #[error("{provider} did not answer within {ms} ms: its record may still reach the ledger")]
    Timeout {
        /// Who.
        provider: AgencyId,
        /// How long.
        ms: u64,
    },
    /// Nobody listens for this dataset.
    #[error("no executor of {0} serves this dataset now: is its node up?")]
    NoProvider(AgencyId),
    /// The stream server is gone.
    #[error("the stream server does not take messages ({0}): see /readyz")]
    Streams(String),
    /// The own node has no new block for too long.
    #[error("the ledger's newest block is {0} s old: nothing is asked while the ledger stands still")]
    StaleLedger(u64),
    /// The ledger could not be asked, or refused to open a session.
    #[error("ledger: {0}")]
    Ledger(String, &'static str, bool),
    /// Too much at once.
    #[error("{0} queries are open already: ask again when some are answered, or raise limits.queries_in_flight")]
    Busy(usize),
    /// The same idempotency key came with another body.
    #[error("this Idempotency-Key was used with another body: take a new key")]
    KeyReused,
    /// The same idempotency key is being worked on.
    #[error("the query with this Idempotency-Key is not answered yet: repeat it when the first one has ended")]
    InProgress,
    /// The broker's store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Keys or randomness.
    #[error("cryptographic library: {0}")]
    Library(String),
}

impl GatewayError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadQuery { .. } => "bad-query",
            Self::UnknownDataset(_) => "unknown-dataset",
            Self::Denied { .. } => "denied",
            Self::Proof { .. } => "proof-invalid",
            Self::Timeout { .. } => "provider-timeout",
            Self::NoProvider(_) => "provider-unavailable",
            Self::Streams(_) => "streams-unavailable",
            Self::StaleLedger(_) => "ledger-stale",
            Self::Ledger(_, code, _) => code,
            Self::Busy(_) => "busy",
            Self::KeyReused => "idempotency-key-reused",
            Self::InProgress => "idempotency-in-progress",
            Self::Store(e) => e.code(),
            Self::Library(_) => "cryptography",
        }
    }

    /// Whether the same question may succeed later.
    pub fn retry(&self) -> bool {
        match self {
            Self::Denied { denied, .. } => denied.retry != 0,
            Self::BadQuery { .. } | Self::UnknownDataset(_) | Self::Proof { .. } | Self::KeyReused => false,
            Self::Library(_) => false,
            Self::Ledger(_, _, retry) => *retry,
            _ => true,
        }
    }
}

impl From<LedgerError> for GatewayError {
    fn from(e: LedgerError) -> Self {
        let retry = !matches!(e, LedgerError::Refused { .. });
        Self::Ledger(e.to_string(), e.code(), retry)
    }
}

impl From<KeyError> for GatewayError {
    fn from(e: KeyError) -> Self {
        Self::Library(e.to_string())
    }
}
