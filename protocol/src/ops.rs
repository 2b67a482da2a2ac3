//! Operations, batches and transactions (PROTOCOL 3).

use crate::cbor::{self, Bytes, Canon, CborError, Dec, Enc};
use crate::codes;
use crate::hash::{Hash, sha256};
use crate::ids::WriterId;
use crate::keys::Signature;
use crate::{canon_enum, canon_struct, limits};

/// A keyed tag of a subject: `HMAC-SHA256(k_subject, dataset || day)[..16]`.
pub type Tag = [u8; 16];

/// The subjects an operation touches, as tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tags {
    /// The tags themselves, padded with random ones to one of [`limits::TAG_STEPS`].
    List(Vec<Tag>),
    /// More than [`limits::TAGS_MAX`]: how many, and the root of the tree of sorted tags.
    Bulk {
        /// How many tags.
        count: u64,
        /// RFC 6962 root over the sorted tags.
        root: Hash,
    },
}

impl Tags {
    /// No subject.
    pub fn none() -> Self {
        Self::List(Vec::new())
    }

    /// Checks the number of tags: a padded list, or a bulk that needs to be one.
    pub fn check(&self) -> Result<(), u16> {
        match self {
            Self::List(l) if limits::TAG_STEPS.contains(&l.len()) => Ok(()),
            Self::Bulk { count, .. } if *count > limits::TAGS_MAX as u64 => Ok(()),
            _ => Err(codes::BAD_VALUE),
        }
    }
}

impl Canon for Tags {
    fn put(&self, e: &mut Enc) {
        match self {
            Self::List(tags) => tags.put(e),
            Self::Bulk { count, root } => {
                e.array(2).uint(*count).bytes(root);
            }
        }
    }

    fn get(d: &mut Dec<'_>) -> Result<Self, CborError> {
        d.nested(|d| {
            let n = d.array()?;
            if n == 2 && d.next_is_uint() {
                return Ok(Self::Bulk { count: d.uint()?, root: Hash::get(d)? });
            }
            if n > limits::TAGS_MAX as u64 {
                return Err(CborError::rule("tags", format!("at most {}, more travel as bulk", limits::TAGS_MAX)));
            }
            (0..n).map(|_| Tag::get(d)).collect::<Result<_, _>>().map(Self::List)
        })
    }
}

canon_enum! {
    /// One operation: what a writer says happened. Its name is its global index in the log.
    ///
    /// `handle` is the number the ledger gave to (agreement version, clause); 0 where a denial has none.
    /// `day` counts UTC days since 1970-01-01. `commitment` is the root over salted leaves ([`crate::leaves`]).
    pub enum Op {
        /// Consecutive envelopes of one dataset; `root` is over envelope roots, `count` counts messages.
        1 => Publish { dataset: u64, last_seq: u64, count: u64, root: Hash },
        /// A range of one subscription that was delivered under bounded evidence; `count` counts envelopes.
        2 => Deliver { handle: u64, subscription: u64, last_sub_seq: u64, count: u64, root: Hash, oldest_ms: u64, day: u64, tags: Tags, commitment: Hash },
        /// A query's release under strict evidence.
        3 => Query { handle: u64, session: u64, n: u64, day: u64, tags: Tags, commitment: Hash },
        /// The intent to write.
        4 => Intent { handle: u64, session: u64, n: u64, day: u64, tags: Tags, commitment: Hash },
        /// A query under a break-glass clause.
        5 => BreakGlass { handle: u64, session: u64, n: u64, day: u64, tags: Tags, commitment: Hash },
        /// A denial; `n` is 0 where it counts several.
        6 => Deny { handle: u64, session: u64, n: u64, day: u64, tags: Tags, commitment: Hash },
        /// What became of an intent.
        7 => Outcome { reference: u64, commitment: Hash },
        /// An accepted operation whose data was never released.
        8 => Withheld { reference: u64, commitment: Hash },
        /// The review of a break-glass query.
        9 => Review { reference: u64, commitment: Hash },
        /// A remark on an earlier operation.
        10 => Annotate { reference: u64, commitment: Hash },
        /// Keys and salts behind an operation were destroyed.
        11 => Erase { reference: u64, commitment: Hash },
        /// The consumer's countersignature.
        12 => Ack { reference: u64, commitment: Hash },
    }
}

/// The fields that a request brings to the ledger, whatever its kind.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// Number of (agreement version, clause), or 0.
    pub handle: u64,
    /// Number of the session.
    pub session: u64,
    /// Number of the request in the session, or 0 for a count of denials.
    pub n: u64,
    /// UTC day.
    pub day: u64,
    /// Subjects.
    pub tags: &'a Tags,
    /// Root of the salted leaves.
    pub commitment: &'a Hash,
}

impl Op {
    /// The request fields of `query`, `intent`, `break-glass` and `deny`.
    pub fn recorded(&self) -> Option<Recorded<'_>> {
        match self {
            Self::Query { handle, session, n, day, tags, commitment }
            | Self::Intent { handle, session, n, day, tags, commitment }
            | Self::BreakGlass { handle, session, n, day, tags, commitment }
            | Self::Deny { handle, session, n, day, tags, commitment } => {
                Some(Recorded { handle: *handle, session: *session, n: *n, day: *day, tags, commitment })
            }
            _ => None,
        }
    }

    /// The subjects it touches; none of kinds that carry no tags.
    pub fn tags(&self) -> Option<&Tags> {
        match self {
            Self::Deliver { tags, .. } => Some(tags),
            other => other.recorded().map(|r| r.tags),
        }
    }

    /// SHA-256 of the operation's canonical bytes.
    pub fn hash(&self) -> Hash {
        sha256(&[&cbor::encode(self)])
    }
}

canon_struct! {
    /// Operations of one writer, under one signature (statement `txbatch`).
    pub struct Batch {
        /// The chain it is for.
        pub chain: String,
        /// Who writes.
        pub writer: WriterId,
        /// Which life of the writer; grows only by a `reset` act.
        pub incarnation: u64,
        /// Sequence number of the first operation; the first of an incarnation is 1.
        pub first_seq: u64,
        /// [`Batch::hash`] of the batch before, zeros for the first.
        pub prev: Hash,
        /// The operations, numbered from `first_seq`.
        pub ops: Vec<Op>,
    }
}

impl Batch {
    /// Sequence number of the last operation.
    pub fn last_seq(&self) -> u64 {
        self.first_seq.saturating_add(self.ops.len() as u64).saturating_sub(1)
    }
}

/// SHA-256 of a batch's canonical bytes: what the next batch names as `prev`.
pub fn batch_hash(body: &[u8]) -> Hash {
    sha256(&[body])
}

canon_enum! {
    /// A transaction of a block. `body` holds the canonical bytes that are signed.
    pub enum Tx {
        /// Ledger time in milliseconds since 1970-01-01 UTC; first in every block, made by the proposer.
        0 => Tick { ms: u64 },
        /// A [`Batch`], signed by its writer's Ed25519 key.
        1 => Batch { body: Bytes, signature: [u8; 64] },
        /// An [`crate::acts::Act`], signed by the key it names.
        2 => Act { body: Bytes, signature: Signature },
        /// A checkpoint's cosignature.
        3 => Cosign { body: Bytes, signature: Signature },
    }
}

canon_struct! {
    /// The value of a log leaf: what the ledger says of one operation or act, so that a refused one can never be
    /// shown as accepted. The leaf's key is its global index as u64 big-endian.
    pub struct LogEntry {
        /// Height of the block.
        pub height: u64,
        /// Tick of the block, milliseconds.
        pub tick_ms: u64,
        /// The writer, or `act:<agency>` for an act.
        pub writer: String,
        /// The writer's incarnation, 0 for an act.
        pub incarnation: u64,
        /// The writer's sequence number, or the act's counter.
        pub seq: u64,
        /// [`Op::hash`], or SHA-256 of the act's bytes.
        pub op_hash: Hash,
        /// What the ledger said.
        pub verdict: codes::Verdict,
        /// Why, from [`crate::codes`].
        pub code: u16,
    }
}

/// The key of a log leaf.
pub fn log_key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_near_what_the_protocol_promises() {
        let bare =
            Op::Query { handle: 300, session: 70_000, n: 900, day: 20_000, tags: Tags::none(), commitment: [7; 32] };
        assert!(cbor::encode(&bare).len() <= 55, "{}", cbor::encode(&bare).len());
        let tagged = Op::Query {
            handle: 300,
            session: 70_000,
            n: 900,
            day: 20_000,
            tags: Tags::List(vec![[1; 16]]),
            commitment: [7; 32],
        };
        assert!(cbor::encode(&tagged).len() <= 72, "{}", cbor::encode(&tagged).len());
    }

    #[test]
    fn tags_come_in_padded_sizes_or_as_bulk() {
        assert!(Tags::List(vec![[0; 16]; 4]).check().is_ok());
        assert_eq!(Tags::List(vec![[0; 16]; 3]).check(), Err(codes::BAD_VALUE));
        assert_eq!(Tags::Bulk { count: 1_024, root: [0; 32] }.check(), Err(codes::BAD_VALUE));
        let bulk = Tags::Bulk { count: 2_000, root: [9; 32] };
        assert_eq!(cbor::decode::<Tags>(&cbor::encode(&bulk)).unwrap(), bulk);
    }

    proptest! {
        #[test]
        fn decoding_never_panics_and_accepts_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(v) = cbor::decode::<Tx>(&bytes) { prop_assert_eq!(cbor::encode(&v), bytes.clone()); }
            if let Ok(v) = cbor::decode::<Op>(&bytes) { prop_assert_eq!(cbor::encode(&v), bytes.clone()); }
            if let Ok(v) = cbor::decode::<Batch>(&bytes) { prop_assert_eq!(cbor::encode(&v), bytes); }
        }
    }
}
