//! The one registry of result codes (u16). Numbers are never reused.
//!
//! 0 ok; 1xx syntax and limits; 2xx signature and key; 3xx sequence; 40x agreement; 41x quota; 42x session and
//! replay; 43x duty overdue; 44x writes; 5xx bounded evidence.

macro_rules! codes {
    ($($(#[$m:meta])* $name:ident = $n:literal : $text:literal),* $(,)?) => {
        $(#[doc = $text] pub const $name: u16 = $n;)*
        /// All codes with their sentences, in order.
        pub const ALL: &[(u16, &str, &str)] = &[$(($n, stringify!($name), $text)),*];
    };
}

codes! {
    OK = 0: "accepted",
    NOT_CANONICAL = 100: "the bytes are not canonical CBOR of the expected shape",
    TOO_LARGE = 101: "over a size limit",
    UNKNOWN_KIND = 102: "this kind is not known to this application version",
    BAD_VALUE = 103: "a field has a value that its rule does not allow",
    WRONG_CHAIN = 104: "signed for another chain",
    NOT_ENABLED = 105: "this kind is defined but not enabled in this application version",
    WRONG_DAY = 106: "the day is neither the tick's nor the day before",
    BUSY = 111: "the node is busy: send again later, the same bytes",
    BAD_SIGNATURE = 200: "the signature does not verify",
    UNKNOWN_KEY = 201: "the key is not registered",
    KEY_REVOKED = 202: "the key is revoked",
    WRONG_ROLE = 203: "the key's role does not allow this",
    WRONG_AGENCY = 204: "the key belongs to another agency",
    KEY_EXISTS = 205: "the key is registered already",
    BAD_KEY = 206: "the public key is malformed or not canonical",
    CONFLICT = 301: "this sequence number is taken by other content",
    GAP = 302: "the sequence number is not the next one",
    WINDOW_FULL = 303: "too many uncommitted batches of this writer",
    STALE = 304: "the sequence number is already used",
    UNKNOWN_WRITER = 305: "the writer is not registered",
    PREV_MISMATCH = 306: "the previous batch hash does not match",
    DATASET_HEAD = 307: "the first sequence number is not the dataset's next one",
    UNKNOWN_DATASET = 308: "the dataset is not registered",
    DATASET_EXISTS = 309: "the dataset is registered already",
    UNKNOWN_REF = 310: "the operation it refers to does not exist, is not the writer's, or was not accepted",
    REF_DONE = 311: "the operation it refers to has its outcome already",
    CHECKPOINT = 312: "no such checkpoint is open to cosignatures",
    NO_AGREEMENT = 401: "no agreement between these parties covers this",
    NOT_YET = 402: "the agreement's window has not begun",
    EXPIRED = 403: "the agreement's window is over",
    SUSPENDED = 404: "the agreement is suspended",
    REVOKED = 405: "the agreement is revoked",
    SUPERSEDED = 406: "a newer version of the agreement is active",
    CLAUSE = 407: "the clause does not permit this action",
    APPROVAL = 408: "an approval is missing, double, expired, of the wrong role or for other terms",
    TERMS_MISMATCH = 409: "the terms are not the ones that were proposed",
    QUOTA = 410: "the quota is used up",
    SESSION_UNKNOWN = 420: "the session is not open for this consumer and provider",
    SESSION_EXPIRED = 421: "the session has expired",
    REPLAY = 422: "this request of the session was recorded already",
    SESSION_WINDOW = 423: "the request number is too far behind the session's newest",
    DUTY_OVERDUE = 430: "a duty of this clause is overdue",
    RECORD_CONFLICT = 440: "the record is not as the writer expects it",
    BOUNDED_LATE = 500: "the deliver operation came after the promised time",
    BOUNDED_SUSPENDED = 501: "bounded evidence is suspended for this agreement",
    SUB_SEQUENCE = 502: "the range does not continue the subscription's last anchored one",
    UNCOVERED = 503: "delivered while no active agreement covered it",
    PROMISE_NOT_DUE = 504: "the promise is not due yet",
    PROMISE_KEPT = 505: "the promised deliveries are on the ledger",
}

/// The sentence of a code.
pub fn text(code: u16) -> &'static str {
    ALL.iter().find(|(n, _, _)| *n == code).map_or("unknown code", |(_, _, t)| t)
}

crate::canon_words! {
    /// What the ledger said of one operation (PROTOCOL 3).
    pub enum Verdict {
        /// Covered; counts as a disclosure unless withheld.
        0 => Accepted = "accepted",
        /// Not covered; a strict release never happens.
        1 => Refused = "refused",
        /// A bounded delivery that nothing covered at this point of the chain.
        2 => Uncovered = "uncovered",
        /// A bounded delivery whose evidence came after the promised time.
        3 => Late = "late",
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_unique_and_ordered() {
        assert!(super::ALL.windows(2).all(|w| w[0].0 < w[1].0));
        assert_eq!(super::text(404), "the agreement is suspended");
    }
}
