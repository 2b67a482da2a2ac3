//! Why a subscription cannot be read or changed.

use crate::gateway::GatewayError;
use crate::http::{Problem, Side};
use crate::ledger::LedgerError;
use crate::store::StoreError;
use axum::http::StatusCode;
use concordat_protocol::ids::AgencyId;
use thiserror::Error;

/// Why a subscription cannot be read or changed. Nothing was acknowledged.
#[derive(Debug, Error)]
pub enum FeedError {
    /// No such subscription.
    #[error("there is no subscription {0}: see GET /v1/subscriptions")]
    Unknown(String),
    /// The agreement does not hold now.
    #[error("{agreement} is {status}: nothing of it is handed on")]
    NotActive {
        /// The agreement.
        agreement: String,
        /// Its state.
        status: &'static str,
    },
    /// Somebody of this agency paused it.
    #[error("{id} was paused by {by} at {at}: nothing is fetched or handed on")]
    Paused {
        /// The subscription.
        id: String,
        /// Name of the token.
        by: String,
        /// When, RFC 3339.
        at: String,
    },
    /// It is being deleted.
    #[error("the deletion of {0} has begun, and {1} has not confirmed it")]
    Ending(String, AgencyId),
    /// The own node has no new block for too long.
    #[error("the ledger's newest block is {0} s old: nothing is handed on while the ledger stands still")]
    StaleLedger(u64),
    /// A cursor that no answer named.
    #[error("cursor {0}: it was never handed on; acknowledge with the cursor of an answer of /messages")]
    Cursor(String),
    /// A member of the body breaks a rule.
    #[error("{field}: {rule}")]
    Bad {
        /// The member.
        field: &'static str,
        /// The rule.
        rule: String,
    },
    /// The name stands for another subscription.
    #[error("name: {0} is a subscription already, of other terms")]
    Name(String),
    /// Default subscriptions belong to their agreement.
    #[error("{0} belongs to {1} and ends with it: it cannot be deleted")]
    Default(String, String),
    /// The provider's answer is not borne out by the ledger.
    #[error("{provider}'s answer is not what the ledger says ({sentence}): the subscription was not taken")]
    Proof {
        /// Who answered.
        provider: AgencyId,
        /// What differs.
        sentence: String,
    },
    /// The exchange manager said no, or nothing.
    #[error("the exchange: {0}")]
    Exchange(String),
    /// The provider could not be asked, or said no.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl FeedError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown-subscription",
            Self::NotActive { .. } => "not-active",
            Self::Paused { .. } => "paused",
            Self::Ending(..) => "ending",
            Self::StaleLedger(_) => "stale-ledger",
            Self::Cursor(_) => "bad-cursor",
            Self::Bad { .. } => "bad-subscription",
            Self::Name(_) => "name-taken",
            Self::Default(..) => "default-subscription",
            Self::Proof { .. } => "proof-invalid",
            Self::Exchange(_) => "exchange",
            Self::Gateway(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::Ledger(e) => e.code(),
        }
    }
}

impl From<FeedError> for Problem {
    fn from(e: FeedError) -> Self {
        let (code, detail) = (e.code(), e.to_string());
        let conflict = |next: &str| Self::new(StatusCode::CONFLICT, code, detail.clone()).next(next);
        match e {
            FeedError::Unknown(_) => Self::not_found(code, detail),
            FeedError::NotActive { .. } => Self::new(StatusCode::FORBIDDEN, code, detail)
                .on(Side::Ledger)
                .next("see GET /v1/agreements; it goes on where it stopped when the agreement is active again"),
            FeedError::Paused { .. } => conflict("POST /v1/subscriptions/{id}:resume"),
            FeedError::Ending(..) => conflict("DELETE it again when the provider's node is up"),
            FeedError::StaleLedger(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
                .on(Side::Ledger)
                .retry(true)
                .next("see GET /v1/ledger/status"),
            FeedError::Cursor(_) => conflict("read /messages again and take its cursor"),
            FeedError::Bad { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail).next("correct the named member")
            }
            FeedError::Name(_) => conflict("take another name, or delete the one that has it"),
            FeedError::Default(..) => conflict("use POST /v1/subscriptions/{id}:pause, or revoke the agreement"),
            FeedError::Proof { .. } => Self::new(StatusCode::BAD_GATEWAY, code, detail)
                .on(Side::Provider)
                .next("report this to the provider's operator with the request id"),
            FeedError::Exchange(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
                .retry(true)
                .next("repeat it; see GET /v1/subscriptions/{id}"),
            FeedError::Gateway(GatewayError::Denied { denied, .. }) if denied.reason == "exists" => {
                let p = Self::new(StatusCode::CONFLICT, "name-taken", denied.detail).on(Side::Provider);
                p.next("take another name, or delete the subscription that has it")
            }
            FeedError::Gateway(e) => e.into(),
            FeedError::Store(e) => e.into(),
            FeedError::Ledger(e) => e.into(),
        }
    }
}
