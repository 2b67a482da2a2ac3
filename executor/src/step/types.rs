//! What the step is told and what it answers: inputs and effects.

use super::writing::{Conclusion, Resumed};
use crate::holding::Fate;
use concordat_protocol::codes;
use concordat_protocol::hash::Hash;
use concordat_protocol::ops::{LogEntry, Op};
use concordat_protocol::session::{Denied, Request};
use concordat_protocol::terms::Status;
use std::collections::{BTreeMap, BTreeSet};

/// A request's place: (session, n). Each counts once.
pub type Key = (u64, u64);
/// The shell's name for who waits for an answer.
pub type ReplyTo = u64;

/// A call whose signature the shell has verified with [`crate::admit::verify_call`].
#[derive(Debug, Clone)]
pub struct Call {
    /// The request.
    pub request: Request,
    /// Its hash.
    pub request_hash: Hash,
    /// When the session is over, tick milliseconds.
    pub session_expires_ms: u64,
}

/// How a call is answered once its operation is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Released after the ledger accepted its record.
    #[default]
    Strict,
    /// Released at once with a promise, recorded within the clause's bound (break-glass).
    Bounded {
        /// Ledger time by which its record is promised, milliseconds.
        due_ms: u64,
    },
    /// Nothing is released: the change is applied after the ledger accepted the intent, then its outcome is recorded.
    Write,
}

/// What the preparing worker made of a call: the operation to record, and the answer to give once it is.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The operation.
    pub op: Op,
    /// Its hash.
    pub op_hash: Hash,
    /// Handle of the clause, 0 for a denial without one.
    pub handle: u64,
    /// The denial to answer, or nothing when there is data to release.
    pub denied: Option<Denied>,
    /// How it is answered.
    pub mode: Mode,
}

/// Where an agreement's clause stands at the newest height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Status of the agreement version.
    pub status: Status,
    /// First tick at which the clause holds.
    pub from_ms: u64,
    /// First tick at which it holds no more.
    pub until_ms: u64,
    /// Whether a promise was broken under it, so that nothing is released before its record.
    pub bounded_suspended: bool,
}

impl Standing {
    pub(super) fn code_at(&self, tick_ms: u64) -> u16 {
        match self.status {
            Status::Suspended => codes::SUSPENDED,
            Status::Revoked => codes::REVOKED,
            Status::Superseded => codes::SUPERSEDED,
            Status::Proposed | Status::Rejected => codes::NO_AGREEMENT,
            Status::Active if tick_ms < self.from_ms => codes::NOT_YET,
            Status::Active if tick_ms >= self.until_ms => codes::EXPIRED,
            Status::Active => codes::OK,
        }
    }
}

/// What the store kept of a call of a former process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Which.
    pub key: Key,
    /// Hash of the request.
    pub request_hash: Hash,
    /// Hash of the operation.
    pub op_hash: Hash,
    /// When the session is over, tick milliseconds.
    pub session_expires_ms: u64,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// A verified call came in.
    Call {
        /// The call.
        call: Call,
        /// Who waits.
        reply: ReplyTo,
    },
    /// The worker is done with a call.
    Prepared {
        /// Which.
        key: Key,
        /// Its result; an error is answered without a record (the store is down, the filter does not parse).
        result: Result<Prepared, Denied>,
    },
    /// These are stored durably.
    Stored {
        /// Which.
        keys: Vec<Key>,
    },
    /// The newest state of all clauses by handle; comes before the frame that changed it.
    Agreements {
        /// By handle.
        standings: BTreeMap<u64, Standing>,
    },
    /// A block was committed.
    Frame {
        /// Height.
        height: u64,
        /// Tick, milliseconds.
        tick_ms: u64,
        /// Entries of this executor's writer.
        entries: Vec<(u64, LogEntry)>,
    },
    /// What the frame that follows accepts of this operation may not be released, for the reason of this code: the shell
    /// has no proof that it may.
    Forbidden {
        /// Hash of the operation.
        op_hash: Hash,
        /// Why.
        code: u16,
    },
    /// The own node is lost: nothing may be released until it is back.
    Lost,
    /// These are marked released, durably.
    Marked {
        /// Which.
        keys: Vec<Key>,
    },
    /// The store of records says what became of a write; none: it did not say, ask again.
    Applied {
        /// Which.
        key: Key,
        /// What became of it.
        fate: Option<Fate>,
    },
    /// The outcome of a write is stored durably.
    Settled {
        /// Which.
        key: Key,
        /// The outcome.
        op: Op,
    },
    /// After a restart and after [`Input::Restored`]: writes that are not ended. Nothing is applied until
    /// [`Input::CaughtUp`].
    Resumed {
        /// The writes.
        writes: Vec<Resumed>,
    },
    /// Every frame up to the ledger's height at the start was seen.
    CaughtUp {
        /// Operations of the former process that the writer still sends.
        on_their_way: BTreeSet<Hash>,
    },
    /// After a restart: stored calls whose record may be on the ledger, and calls already settled.
    Restored {
        /// Calls that were stored but not settled.
        open: Vec<Kept>,
        /// Calls that are settled; the same request gets the stored bytes.
        settled: Vec<Kept>,
    },
    /// After a restart: responses that may have left before their record.
    RestoredPromises {
        /// Those whose entry was not seen.
        kept: Vec<Kept>,
    },
}

/// What the shell has to do.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Decide, fetch, redact and seal; answer with [`Input::Prepared`].
    Prepare {
        /// Which.
        key: Key,
    },
    /// Store what was prepared, durably; answer with [`Input::Stored`].
    Store {
        /// Which.
        key: Key,
    },
    /// Give the operation to the writer.
    Record {
        /// Which.
        key: Key,
        /// The operation.
        op: Op,
    },
    /// Mark it released, durably, with its ticket; answer with [`Input::Marked`].
    MarkReleased {
        /// Which.
        key: Key,
        /// Global index.
        index: u64,
        /// Height.
        height: u64,
    },
    /// Mark a write's intent accepted, durably; answer with [`Input::Marked`].
    MarkAccepted {
        /// Which.
        key: Key,
        /// Global index of the intent.
        index: u64,
        /// Height.
        height: u64,
    },
    /// Have the store of records carry the write out, once; answer with [`Input::Applied`].
    Apply {
        /// Which.
        key: Key,
    },
    /// Have the store of records never carry the write out, unless it did; answer with [`Input::Applied`].
    Void {
        /// Which.
        key: Key,
    },
    /// Make the outcome of a write and store it durably; answer with [`Input::Settled`].
    Settle {
        /// Which.
        key: Key,
        /// Global index of the intent.
        index: u64,
        /// What became of it.
        conclusion: Conclusion,
    },
    /// Mark a write ended, durably, with its outcome's place; answer with [`Input::Marked`].
    MarkWritten {
        /// Which.
        key: Key,
        /// Global index of the outcome.
        index: u64,
        /// Its height.
        height: u64,
    },
    /// Mark it settled without data (refused or denied).
    MarkClosed {
        /// Which.
        key: Key,
        /// Global index.
        index: u64,
    },
    /// Mark it withheld for ever and record so.
    Withhold {
        /// Which.
        key: Key,
        /// Global index of the accepted operation.
        index: u64,
    },
    /// Send the prepared response.
    Release {
        /// Which.
        key: Key,
        /// To whom.
        replies: Vec<ReplyTo>,
    },
    /// Send the stored response with its promise: its record is on its way.
    Promise {
        /// Which.
        key: Key,
        /// To whom.
        replies: Vec<ReplyTo>,
    },
    /// Send the stored bytes again, if the store still has them.
    Repeat {
        /// Which.
        key: Key,
        /// To whom.
        reply: ReplyTo,
    },
    /// Answer without data.
    Deny {
        /// To whom.
        replies: Vec<ReplyTo>,
        /// Why.
        denied: Denied,
    },
    /// The shell may forget what it holds of the call.
    Forget {
        /// Which.
        key: Key,
    },
}
