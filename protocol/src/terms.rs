//! Agreements as the ledger sees them: a compiled table, not YAML (PROTOCOL 6).

use crate::cbor;
use crate::hash::{Hash, sha256};
use crate::ids::{AgencyId, AgreementId, DatasetId};
use crate::{canon_enum, canon_struct, canon_words};

canon_words! {
    /// What a clause does.
    pub enum Effect {
        /// Allows.
        1 => Permit = "permit",
        /// Forbids; wins over everything else.
        2 => Prohibit = "prohibit",
        /// Allows in an emergency, with a review afterwards.
        3 => BreakGlass = "break-glass",
    }
}

canon_words! {
    /// What a consumer does; a clause holds a bitmask of [`Action::bit`].
    pub enum Action {
        /// Reads held records.
        1 => Query = "query",
        /// Follows a feed.
        2 => Subscribe = "subscribe",
        /// Adds a record.
        4 => Insert = "insert",
        /// Changes a record.
        8 => Modify = "modify",
        /// Removes a record.
        16 => Delete = "delete",
    }
}

impl Action {
    /// The action's bit in a clause's mask.
    pub fn bit(self) -> u64 {
        self as u64
    }
}

canon_enum! {
    /// How a release is tied to its record.
    pub enum Evidence {
        /// Public data: recorded in aggregate only.
        0 => None {},
        /// Released only after the ledger accepted the operation.
        1 => Strict {},
        /// Released with a promise that must be anchored within `max_lag_ms`.
        2 => Bounded { max_lag_ms: u64 },
    }
}

canon_words! {
    /// The calendar period of a quota, UTC of the tick.
    pub enum Per { 1 => Hour = "hour", 2 => Day = "day" }
}
canon_words! {
    /// What a quota is counted for.
    pub enum QuotaBy { 1 => Agreement = "agreement", 2 => Session = "session" }
}
canon_words! {
    /// What a quota counts.
    pub enum QuotaUnit { 1 => Operations = "operations", 2 => Records = "records" }
}

impl Per {
    /// Length of the period, milliseconds.
    pub fn ms(self) -> u64 {
        match self {
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }
}

canon_struct! {
    /// An upper bound per calendar period.
    pub struct Quota {
        /// At most this many.
        pub max: u64,
        /// In each of these.
        pub per: Per,
        /// For each of these.
        pub by: QuotaBy,
        /// Counting these.
        pub unit: QuotaUnit,
    }
}

canon_struct! {
    /// What the ledger checks of one clause.
    pub struct ClauseTerms {
        /// The clause's id in the document.
        pub id: String,
        /// Permit, prohibit or break-glass.
        pub effect: Effect,
        /// Bits of [`Action`].
        pub actions: u64,
        /// [`purpose_hash`] of the purpose.
        pub purpose: Hash,
        /// Evidence mode.
        pub evidence: Evidence,
        /// First millisecond (tick) at which the clause holds.
        pub from_ms: u64,
        /// First millisecond at which it holds no more.
        pub until_ms: u64,
        /// Bound on use.
        pub quota: Option<Quota>,
        /// Within how many milliseconds a break-glass use must be reviewed; 0 where no review is due.
        pub review_ms: u64,
    }
}

canon_struct! {
    /// A compiled agreement version. [`Terms::hash`] is what both sides approve; anyone can recompile the document
    /// and compare.
    pub struct Terms {
        /// The agreement.
        pub agreement: AgreementId,
        /// Its version; versions only rise.
        pub version: u64,
        /// The provider.
        pub assigner: AgencyId,
        /// The consumer; absent for public data (`any`).
        pub assignee: Option<AgencyId>,
        /// The dataset.
        pub dataset: DatasetId,
        /// Approval roles the provider needs, sorted.
        pub assigner_roles: Vec<String>,
        /// Approval roles the consumer needs, sorted; empty for public data.
        pub assignee_roles: Vec<String>,
        /// The clauses, in the document's order.
        pub clauses: Vec<ClauseTerms>,
        /// SHA-256 of the YAML document.
        pub yaml_hash: Hash,
        /// SHA-256 of the policy rows.
        pub rows_hash: Hash,
        /// SHA-256 of the rendered sentences.
        pub text_hash: Hash,
        /// Hashes of the papers it rests on.
        pub paper_hashes: Vec<Hash>,
        /// Version of the compiler that made the table and the rows.
        pub compiler_version: u64,
    }
}

impl Terms {
    /// `terms_hash`: SHA-256 of the canonical bytes.
    pub fn hash(&self) -> Hash {
        sha256(&[&cbor::encode(self)])
    }

    /// The clause with this id and its position.
    pub fn clause(&self, id: &str) -> Option<(usize, &ClauseTerms)> {
        self.clauses.iter().enumerate().find(|(_, c)| c.id == id)
    }
}

/// The hash under which a purpose (`purp:pending-case`) stands on the ledger.
pub fn purpose_hash(purpose: &str) -> Hash {
    sha256(&[b"concordat/purpose/", purpose.as_bytes()])
}

canon_words! {
    /// The state of an agreement version. Expiry is not a state: it follows from the tick.
    pub enum Status {
        /// Proposed; approvals are gathered.
        1 => Proposed = "proposed",
        /// In force.
        2 => Active = "active",
        /// Stopped by one side; resumes with full approvals of both.
        3 => Suspended = "suspended",
        /// Ended for ever.
        4 => Revoked = "revoked",
        /// A newer version is active.
        5 => Superseded = "superseded",
        /// Turned down before it was active.
        6 => Rejected = "rejected",
    }
}
