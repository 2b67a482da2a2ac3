//! Who looked at a person's records: the complete list, with proof, in one file (PROTOCOL 4, subject runs).
//!
//! A list names one subject of one dataset by a random key that only its provider and the person hold. From that key follow
//! the tags of every day, and for each run of the ledger the file proves which operations stand under them: a list with no
//! entry is the proof that nobody looked.

use crate::canon_struct;
use crate::cbor::Bytes;
use crate::hash::{Hash, hmac_sha256};
use crate::ids::DatasetId;
use crate::leaves::Redacted;
use crate::node::StoreRoots;
use crate::ops::{LogEntry, Tag};
use crate::receipt::{CheckpointPart, Path};
use crate::runs::RunView;
use crate::tree::{SortedLeaf, SortedProof};

/// Version of the format; the first field of a list.
pub const ACCESS_VERSION: u64 = 1;
/// What a decoder reads at most.
pub const ACCESS_DECODE_MAX: usize = 64 << 20;
/// Milliseconds in a UTC day.
const DAY_MS: u64 = 86_400_000;

/// The tag of a subject on a day (UTC days since 1970): `HMAC-SHA256(key, dataset || 0x00 || u64be(day))[..16]`. `key` is
/// random, per subject, and lies in the provider's vault; without it nobody can tell whose tag it is.
#[must_use]
pub fn subject_tag(key: &[u8; 32], dataset: &DatasetId, day: u64) -> Tag {
    let out = hmac_sha256(key, &[dataset.as_str().as_bytes(), &[0], &day.to_be_bytes()]);
    let mut tag = Tag::default();
    tag.copy_from_slice(&out[..16]);
    tag
}

/// The leaf of a tag in the tree of an operation whose tags travel as bulk.
#[must_use]
pub fn bulk_leaf(tag: &Tag) -> SortedLeaf {
    SortedLeaf::new(tag, &[1])
}

/// The days whose tags a run may hold: an operation's day is its tick's or the day before.
#[must_use]
pub fn days_of(run: &RunView) -> core::ops::RangeInclusive<u64> {
    (run.from_ms / DAY_MS).saturating_sub(1)..=run.to_ms / DAY_MS
}

canon_struct! {
    /// A run, and what it holds under the subject's tags.
    pub struct RunPart {
        /// Its number; runs follow one another from the list's first.
        pub number: u64,
        /// The run.
        pub run: RunView,
        /// From its leaf to the root of `runs`.
        pub path: Path,
        /// One proof a day of [`days_of`], in order, and last the one of the bulk tag.
        pub lists: Vec<SortedProof>,
    }
}

canon_struct! {
    /// An operation of the list.
    pub struct AccessEntry {
        /// Global index: `op:<index>`.
        pub index: u64,
        /// What the ledger says of it.
        pub entry: LogEntry,
        /// From the entry's leaf to the root of `log`.
        pub log_path: Path,
        /// Canonical bytes of the operation.
        pub op: Bytes,
        /// Opened and hidden leaves of its commitment. None where the provider has none to show (erased); where only
        /// `open_by` is opened, the rest opens on that date (milliseconds).
        pub openings: Option<Redacted>,
        /// For an operation with bulk tags: whether the subject's tag is among them (an empty list: it is not).
        pub bulk: Option<SortedProof>,
        /// The clause's sentence as the agreement has it: the provider's word, not part of the proof.
        pub sentence: String,
    }
}

canon_struct! {
    /// The list.
    pub struct AccessList {
        /// [`ACCESS_VERSION`].
        pub version: u64,
        /// The chain.
        pub chain: String,
        /// The dataset.
        pub dataset: DatasetId,
        /// The subject's key: whoever holds the file can find the subject's operations on the ledger.
        pub subject_key: [u8; 32],
        /// The roots whose simple map is the app hash.
        pub roots: StoreRoots,
        /// All runs from the first one asked for.
        pub runs: Vec<RunPart>,
        /// Every operation that the runs name, by index.
        pub entries: Vec<AccessEntry>,
        /// Header that carries the app hash, with its commit, in normal form (as in a receipt).
        pub header: Bytes,
        /// Its validators in normal form.
        pub validators: Bytes,
        /// Absent: provisional.
        pub checkpoint: Option<CheckpointPart>,
    }
}

/// The root over the tags of an operation that travel as bulk; tags sorted and distinct.
#[must_use]
pub fn bulk_root(tags: &[Tag]) -> Hash {
    crate::tree::root(&tags.iter().map(|t| bulk_leaf(t).hash()).collect::<Vec<_>>())
}
