//! What nodes and agencies say to one another about checkpoints, epochs, disputes and operations that name a session
//! (PROTOCOL 4 and 7).

use crate::canon_struct;
use crate::cbor::Bytes;
use crate::hash::Hash;
use crate::ids::AgencyId;
use crate::keys::Signature;
use crate::node::{LeafProof, StoreRoots};
use crate::receipt::{Checkpoint, Cosignature};
use crate::tree::SortedProof;
use crate::trust::{EpochBody, KeyLine};

canon_struct! {
    /// A checkpoint as a node has it, with the cosignatures it has seen in blocks, sorted by agency.
    pub struct CheckpointView {
        /// The state.
        pub checkpoint: Checkpoint,
        /// Who cosigned it so far. Consensus verified their Ed25519 halves only.
        pub cosignatures: Vec<Cosignature>,
    }
}

canon_struct! {
    /// An operation that names a session: what the session's consumer compares with its own requests.
    pub struct NamedOp {
        /// Global index.
        pub index: u64,
        /// The session.
        pub session: u64,
        /// Number of the request, 0 for a denial that counts several.
        pub n: u64,
        /// Kind of the operation (`Op::kind`).
        pub kind: u64,
        /// Hash of the operation.
        pub op_hash: Hash,
    }
}

canon_struct! {
    /// A validator of an epoch.
    pub struct ValidatorView {
        /// Whose it is.
        pub agency: AgencyId,
        /// Its CometBFT Ed25519 public key.
        pub key: [u8; 32],
        /// Its voting power.
        pub power: u64,
    }
}

canon_struct! {
    /// A signature on an epoch (statement `epoch`) with a root key of the epoch before.
    pub struct EpochVote {
        /// Who signed.
        pub agency: AgencyId,
        /// The signature over [`EpochBody`].
        pub signature: Signature,
    }
}

canon_struct! {
    /// An epoch as the ledger wrote it.
    pub struct EpochView {
        /// What is signed.
        pub body: EpochBody,
        /// Its validators, sorted by agency.
        pub validators: Vec<ValidatorView>,
        /// Its root and cosigning keys, sorted by agency.
        pub keys: Vec<KeyLine>,
        /// Signatures so far, sorted by agency; none on epoch 0.
        pub votes: Vec<EpochVote>,
    }
}

canon_struct! {
    /// What an `epoch` act carries: the ledger's newest epoch, signed with the agency's root key of the epoch before.
    pub struct SignedEpoch {
        /// The epoch.
        pub body: EpochBody,
        /// The signature (statement `epoch`).
        pub signature: Signature,
    }
}

canon_struct! {
    /// A dispute: the session's consumer denies having made the request that an operation names.
    pub struct DisputeView {
        /// The operation.
        pub reference: u64,
        /// Who disputes it.
        pub agency: AgencyId,
        /// Salted hash of the reason.
        pub reason: Hash,
        /// Tick of the act, milliseconds.
        pub tick_ms: u64,
    }
}

canon_struct! {
    /// Leaves of keys and sessions at one height. Where the slot of a session was given again, its leaf is missing.
    pub struct LeavesProof {
        /// The height whose app hash the proofs lead to; that hash stands in the header of `height + 1`.
        pub height: u64,
        /// Roots at that height.
        pub roots: StoreRoots,
        /// The keys asked for, in the meta tree.
        pub keys: Vec<LeafProof>,
        /// The sessions asked for, in the heads tree.
        pub sessions: Vec<LeafProof>,
    }
}

canon_struct! {
    /// Entries of the log at one height.
    pub struct LogProofs {
        /// The height whose app hash the proofs lead to; that hash stands in the header of `height + 1`.
        pub height: u64,
        /// Roots at that height.
        pub roots: StoreRoots,
        /// The entries asked for, in the log tree.
        pub entries: Vec<LeafProof>,
    }
}

canon_struct! {
    /// The complete list of the leaves of `meta` under a prefix at one height, with their values.
    pub struct MetaList {
        /// The height whose app hash the proof leads to; that hash stands in the header of `height + 1`.
        pub height: u64,
        /// Roots at that height.
        pub roots: StoreRoots,
        /// Values of the leaves found, in the list's order.
        pub values: Vec<Bytes>,
        /// The list in the meta tree; an empty one is a proof of absence.
        pub list: SortedProof,
    }
}

canon_struct! {
    /// Leaves of both state trees at one height; keys that have none are left out.
    pub struct StateLeaves {
        /// The height whose app hash the proofs lead to; that hash stands in the header of `height + 1`.
        pub height: u64,
        /// Roots at that height.
        pub roots: StoreRoots,
        /// The keys asked for, in the meta tree.
        pub meta: Vec<LeafProof>,
        /// The keys asked for, in the heads tree.
        pub heads: Vec<LeafProof>,
    }
}

canon_struct! {
    /// A time-stamp token kept beside a checkpoint (RFC 3161).
    pub struct TimeStamp {
        /// The checkpoint whose canonical bytes the token's message imprint is the SHA-256 of.
        pub checkpoint: Checkpoint,
        /// DER of the `TimeStampToken`.
        pub token: Bytes,
    }
}
