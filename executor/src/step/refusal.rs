//! The sentences of refusals that the executor itself makes. They never say whether a row exists.

use crate::decide::denied;
use concordat_protocol::codes;
use concordat_protocol::session::Denied;

/// Why the executor refuses, apart from the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The own node does not answer.
    StaleLedger,
    /// (session, n) stands for another request.
    Replay,
    /// The session is over.
    SessionExpired,
    /// The request's own last tick has passed.
    RequestExpired,
    /// `n` is 0 or too far behind.
    SessionWindow,
    /// Recorded before a restart and withheld since.
    Withheld,
    /// A release that was promised is not on the ledger although it is due.
    Unrecorded,
    /// The ledger's code.
    Ledger(u16),
}

/// The denial of a reason.
pub fn refuse(reason: Reason) -> Denied {
    let (code, word, detail, retry) = match reason {
        Reason::StaleLedger => {
            (0, "stale-ledger", "the provider's node does not follow the ledger now: ask again later", 1)
        }
        Reason::Replay => (codes::REPLAY, "replay", codes::text(codes::REPLAY), 0),
        Reason::SessionExpired => {
            (codes::SESSION_EXPIRED, "session-expired", "the session has expired: open a new one", 1)
        }
        Reason::RequestExpired => {
            (0, "request-expired", "the request's not_after_ms has passed: sign a new request", 1)
        }
        Reason::SessionWindow => (codes::SESSION_WINDOW, "session-window", codes::text(codes::SESSION_WINDOW), 0),
        Reason::Withheld => {
            (0, "withheld", "the provider restarted before the release and withheld it for ever: sign a new request", 1)
        }
        Reason::Unrecorded => (
            0,
            "evidence-behind",
            "an earlier release under a promise is not on the ledger yet: nothing more leaves before its record until it is",
            1,
        ),
        Reason::Ledger(code) => (code, "ledger", codes::text(code), u8::from(code == codes::BUSY)),
    };
    Denied { retry, ..denied(code, word, detail) }
}
