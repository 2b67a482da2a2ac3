//! What a node says to its own agency's processes: frames of verdicts, views of the state, proofs (PROTOCOL 5, own node).
//!
//! On the node's Unix socket every message is a u32 big-endian length and canonical CBOR. The same [`NodeRequest`]
//! bytes are answered over `abci_query` with path `/node`.

use crate::acts::{ApprovalKind, KeyRole};
use crate::cbor::Bytes;
use crate::evidence::{CheckpointView, DisputeView, EpochView, LeavesProof, LogProofs, MetaList, NamedOp, StateLeaves};
use crate::hash::Hash;
use crate::ids::{AgencyId, AgreementId, DatasetId, WriterId};
use crate::keys::{KeyId, PublicKey};
use crate::ops::LogEntry;
use crate::runs::RunProof;
use crate::terms::Status;
use crate::{canon_enum, canon_struct};

#[path = "node_leaves.rs"]
mod leaves;
pub use leaves::{SessionLeaf, key_leaf_key, replaced_terms, session_leaf_key};

canon_struct! {
    /// The newest committed height.
    pub struct HeadView {
        /// Chain id.
        pub chain: String,
        /// Height, 0 before the first block.
        pub height: u64,
        /// Its tick, milliseconds.
        pub tick_ms: u64,
        /// App hash after it (in the header of the next block).
        pub app_hash: Hash,
        /// Entries in the log.
        pub log_size: u64,
        /// Grows whenever agencies, keys, datasets, agreements or parameters change.
        pub meta_rev: u64,
        /// Version of the application's rules.
        pub app_version: u64,
    }
}

canon_struct! {
    /// One block's verdicts. Frames are contiguous in height; a gap means deny.
    pub struct Frame {
        /// Height.
        pub height: u64,
        /// Tick of the block, milliseconds.
        pub tick_ms: u64,
        /// App hash after the block.
        pub app_hash: Hash,
        /// [`HeadView::meta_rev`] after the block.
        pub meta_rev: u64,
        /// Entries with their global index, of the writers that were asked for.
        pub entries: Vec<(u64, LogEntry)>,
    }
}

canon_struct! {
    /// Where a writer stands; this alone is truth for its client.
    pub struct WriterView {
        /// The writer.
        pub writer: WriterId,
        /// Its key.
        pub key: [u8; 32],
        /// Its incarnation.
        pub incarnation: u64,
        /// Last operation the ledger took.
        pub last_seq: u64,
        /// Hash of the last batch.
        pub last_hash: Hash,
    }
}

canon_struct! {
    /// A session.
    pub struct SessionView {
        /// Its number.
        pub session: u64,
        /// Who asks.
        pub consumer: AgencyId,
        /// Who is asked.
        pub provider: AgencyId,
        /// Ed25519 public key.
        pub key: [u8; 32],
        /// First tick at which it is over, milliseconds.
        pub expires_ms: u64,
        /// Newest request number recorded.
        pub newest_n: u64,
    }
}

canon_struct! {
    /// A registered key.
    pub struct KeyView {
        /// The agency.
        pub agency: AgencyId,
        /// What it may sign.
        pub role: KeyRole,
        /// Approval role, writer name or name.
        pub label: String,
        /// The key.
        pub key: PublicKey,
        /// Tick at which it was revoked, 0 if it was not.
        pub revoked_ms: u64,
        /// Since when what it signed is contested, 0 if never.
        pub compromised_since_ms: u64,
    }
}

canon_struct! {
    /// A registered dataset.
    pub struct DatasetView {
        /// Its name.
        pub id: DatasetId,
        /// Its number.
        pub number: u64,
        /// SHA-256 of its schema.
        pub schema_hash: Hash,
        /// Sequence number of its newest published message.
        pub head: u64,
    }
}

canon_struct! {
    /// One approval given for the current revision. `act` and `signature` let anyone verify both halves.
    pub struct ApprovalView {
        /// Whose.
        pub agency: AgencyId,
        /// In which role.
        pub role: String,
        /// With which key.
        pub key_id: KeyId,
        /// For what.
        pub what: ApprovalKind,
        /// Canonical act bytes.
        pub act: Bytes,
        /// Canonical signature bytes.
        pub signature: Bytes,
    }
}

canon_struct! {
    /// An agreement version on the ledger.
    pub struct AgreementView {
        /// The agreement.
        pub agreement: AgreementId,
        /// Its version.
        pub version: u64,
        /// Grows at every change of state.
        pub revision: u64,
        /// Its state.
        pub status: Status,
        /// Terms hash.
        pub terms_hash: Hash,
        /// Canonical [`crate::terms::Terms`].
        pub terms: Bytes,
        /// Tick by which a proposal must be approved, milliseconds.
        pub expires_ms: u64,
        /// Approvals that stand (those that activated it, or are gathered now).
        pub approvals: Vec<ApprovalView>,
        /// Handles by clause, in the order of the clauses; empty before activation.
        pub handles: Vec<u64>,
        /// Whether bounded evidence is suspended after a breach.
        pub bounded_suspended: u8,
    }
}

canon_struct! {
    /// A leaf of a state tree with its path.
    pub struct LeafProof {
        /// Key of the leaf.
        pub key: Bytes,
        /// Value of the leaf.
        pub value: Bytes,
        /// Position.
        pub index: u64,
        /// Size of the tree.
        pub size: u64,
        /// RFC 6962 path.
        pub path: Vec<Hash>,
    }
}

canon_struct! {
    /// The roots of the four trees; their CometBFT simple map is the app hash.
    pub struct StoreRoots {
        /// Writers, sessions, quotas.
        pub heads: Hash,
        /// The operation log.
        pub log: Hash,
        /// Agencies, keys, datasets, agreements, parameters.
        pub meta: Hash,
        /// Subject runs.
        pub runs: Hash,
    }
}

canon_struct! {
    /// What a node proves about one log entry at one height.
    pub struct EntryProof {
        /// The height whose app hash the proof leads to; that hash stands in the header of `height + 1`.
        pub height: u64,
        /// Roots at that height.
        pub roots: StoreRoots,
        /// The entry in the log tree.
        pub entry: LeafProof,
        /// The keys asked for, in the meta tree.
        pub keys: Vec<LeafProof>,
        /// The session asked for, in the heads tree (absent when its slot was reused).
        pub session: Option<LeafProof>,
    }
}

canon_enum! {
    /// A question to the node.
    pub enum NodeRequest {
        /// Frames from a height on, without end; entries of these writers only, or of all when empty.
        1 => Subscribe { from_height: u64, writers: Vec<String> },
        /// The newest height.
        2 => Head {},
        /// A writer.
        3 => Writer { writer: WriterId },
        /// A session by number.
        4 => Session { session: u64 },
        /// A session by its key.
        5 => SessionByKey { key: [u8; 32] },
        /// All keys of an agency.
        6 => Keys { agency: AgencyId },
        /// One key.
        7 => Key { key_id: KeyId },
        /// All datasets.
        8 => Datasets {},
        /// All agreement versions.
        9 => Agreements {},
        /// Counters of a key: (urgent, other).
        10 => Counters { key_id: KeyId },
        /// Log entries.
        11 => Log { from: u64, count: u64 },
        /// Proof of an entry at a height (0: the newest whose app hash stands in a header).
        12 => Proof { index: u64, height: u64, keys: Vec<KeyId>, session: u64 },
        /// Last anchored sub_seq of a provider's subscription.
        13 => Subscription { provider: AgencyId, subscription: u64 },
        /// Parameters by name.
        14 => Params {},
        /// Agencies.
        15 => Agencies {},
        /// Where the subject runs stand.
        16 => Runs {},
        /// What a run holds under a tag, with proof at a height (0: the newest whose app hash stands in a header).
        17 => Run { number: u64, tag: [u8; 16], height: u64 },
        /// Checkpoints from a height on, at most 16; from height 0 the newest one alone.
        18 => Checkpoints { from_height: u64 },
        /// Operations that name sessions of an agency, from a log index on, at most 10,000.
        19 => Named { agency: AgencyId, from: u64 },
        /// All epochs.
        20 => Epochs {},
        /// All disputes.
        21 => Disputes {},
        /// Leaves of keys and sessions at a height (0: the newest whose app hash stands in a header).
        22 => Leaves { height: u64, keys: Vec<KeyId>, sessions: Vec<u64> },
        /// Entries of the log at a height (0: the newest whose app hash stands in a header), at most 1,024.
        23 => Proofs { height: u64, indexes: Vec<u64> },
        /// All reviews that are due, overdue ones included.
        24 => Reviews {},
        /// All role maps that an agency recorded.
        25 => RoleMaps { agency: AgencyId },
        /// All leaves of `meta` whose keys begin with a prefix, at a height (0: the newest whose app hash stands in a header).
        26 => MetaList { height: u64, prefix: Bytes },
        /// Leaves of `meta` and `heads` by key at a height (0: the newest whose app hash stands in a header), at most 1,024.
        27 => StateLeaves { height: u64, meta: Vec<Bytes>, heads: Vec<Bytes> },
    }
}

canon_struct! {
    /// A role map that an agency recorded; it is in force from its operation until that of the next number.
    pub struct RoleMapView {
        /// The agency.
        pub agency: AgencyId,
        /// Its number, from 1.
        pub number: u64,
        /// SHA-256 of the file.
        pub sha256: Hash,
        /// Global index of the act.
        pub index: u64,
        /// Height of the act.
        pub height: u64,
        /// Tick of the act, milliseconds.
        pub tick_ms: u64,
    }
}

/// The role map in force at a log index: the newest of an agency's that was recorded before it.
pub fn role_map_at(maps: &[RoleMapView], index: u64) -> Option<&RoleMapView> {
    maps.iter().filter(|m| m.index < index).max_by_key(|m| m.number)
}

canon_struct! {
    /// A use of a break-glass clause that nobody reviewed yet.
    pub struct ReviewDue {
        /// The agreement.
        pub agreement: AgreementId,
        /// The clause's id.
        pub clause: String,
        /// Global index of the `break-glass` operation.
        pub reference: u64,
        /// First tick at which it is overdue and the clause refuses, milliseconds.
        pub due_ms: u64,
    }
}

canon_enum! {
    /// The node's answer.
    #[allow(clippy::large_enum_variant)]
    pub enum NodeReply {
        /// It was not understood or not found.
        0 => Error { code: u16, detail: String },
        /// A frame of a subscription.
        1 => Frame { body: Frame },
        /// Newest height.
        2 => Head { body: HeadView },
        /// A writer; absent when unknown.
        3 => Writer { body: Option<WriterView> },
        /// A session; absent when unknown.
        4 => Session { body: Option<SessionView> },
        /// Keys.
        6 => Keys { body: Vec<KeyView> },
        /// Datasets.
        8 => Datasets { body: Vec<DatasetView> },
        /// Agreements.
        9 => Agreements { body: Vec<AgreementView> },
        /// Counters (urgent, other).
        10 => Counters { urgent: u64, other: u64 },
        /// Log entries from an index.
        11 => Log { from: u64, entries: Vec<LogEntry> },
        /// A proof.
        12 => Proof { body: EntryProof },
        /// Last anchored sub_seq, 0 when none.
        13 => Subscription { last_sub_seq: u64 },
        /// Parameters.
        14 => Params { body: Vec<(String, u64)> },
        /// Agencies.
        15 => Agencies { body: Vec<AgencyId> },
        /// Runs: how many have their root in state, and the first log index that they do not cover.
        16 => Runs { size: u64, end_index: u64 },
        /// A run's list.
        17 => Run { body: RunProof },
        /// Checkpoints, oldest first.
        18 => Checkpoints { body: Vec<CheckpointView> },
        /// Operations, and the first log index that was not looked at.
        19 => Named { end: u64, body: Vec<NamedOp> },
        /// Epochs, from 0.
        20 => Epochs { body: Vec<EpochView> },
        /// Disputes, by operation.
        21 => Disputes { body: Vec<DisputeView> },
        /// Proofs.
        22 => Leaves { body: LeavesProof },
        /// Proofs of entries, in the order they were asked for.
        23 => Proofs { body: LogProofs },
        /// Due reviews, by agreement, clause and operation.
        24 => Reviews { body: Vec<ReviewDue> },
        /// Role maps, by number.
        25 => RoleMaps { body: Vec<RoleMapView> },
        /// A list, complete.
        26 => MetaList { body: MetaList },
        /// Leaves; those that are not there are left out.
        27 => StateLeaves { body: StateLeaves },
    }
}
