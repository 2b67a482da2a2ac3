//! Acts: what agencies decide, one signed statement each (PROTOCOL 3, 6 and 7).
//!
//! | kind | signed by a key of role |
//! |---|---|
//! | key-add, key-revoke, reset | root |
//! | params, validator, agency-add, agency-remove, upgrade: votes, decided by more than 2/3 of the agencies | root |
//! | dataset, session-open, session-close, propose, dispute, complaint, equivocation, epoch, roles, role-map | gateway (or root) |
//! | approve, reject | approver whose label is the approval's role |
//! | suspend, revoke | approver or security |

use crate::cbor::Bytes;
use crate::hash::Hash;
use crate::ids::{AgencyId, AgreementId, DatasetId, WriterId};
use crate::keys::{KeyId, PublicKey};
use crate::{canon_enum, canon_struct, canon_words};

canon_words! {
    /// What a key may sign. A key has one role.
    pub enum KeyRole {
        /// The agency itself: registers and revokes its other keys. Hybrid.
        1 => Root = "root",
        /// A person who approves agreements; the label is the approval role. Hybrid.
        2 => Approver = "approver",
        /// May suspend and revoke at once.
        3 => Security = "security",
        /// Signs batches; the label is the writer's name.
        4 => Writer = "writer",
        /// Signs envelopes of published messages.
        5 => Envelope = "envelope",
        /// The agency's broker: opens sessions, registers datasets, carries proposals.
        6 => Gateway = "gateway",
        /// The executor's release and promise signatures.
        7 => Release = "release",
        /// Cosigns checkpoints. Hybrid.
        8 => Cosign = "cosign",
        /// Receives sealed responses (X-Wing); signs nothing.
        9 => Kem = "kem",
    }
}

canon_words! {
    /// What an approval is for.
    pub enum ApprovalKind {
        /// A proposed version becomes active.
        1 => Activate = "activate",
        /// A suspended version becomes active again.
        2 => Resume = "resume",
        /// The dates of an active version move.
        3 => Renew = "renew",
    }
}

canon_struct! {
    /// A session's public half (Ed25519), opened by the consumer for one provider.
    pub struct SessionKey {
        /// Ed25519 public key.
        pub key: [u8; 32],
    }
}

canon_enum! {
    /// What an act says.
    pub enum ActBody {
        /// The chain's beginning; only in genesis, as entry 0 of the log.
        1 => Genesis { genesis_hash: Hash },
        /// Registers a key of the signer's agency. `label`: the approval role, the writer's name, or a name.
        2 => KeyAdd { role: KeyRole, label: String, key: PublicKey },
        /// Revokes a key at once; what it signed since `compromised_since_ms` (0: never) is contested.
        3 => KeyRevoke { key_id: KeyId, compromised_since_ms: u64 },
        /// Registers a dataset of the signer's agency.
        4 => Dataset { id: DatasetId, schema_hash: Hash },
        /// Opens sessions towards one provider.
        5 => SessionOpen { provider: AgencyId, keys: Vec<SessionKey>, expires_ms: u64 },
        /// Closes sessions.
        6 => SessionClose { sessions: Vec<u64> },
        /// Proposes an agreement version; `terms` are canonical [`crate::terms::Terms`].
        7 => Propose { terms: Bytes, expires_ms: u64 },
        /// One approval; signed hybrid, its ML-DSA half is verified outside consensus (code 408).
        8 => Approve { agreement: AgreementId, version: u64, revision: u64, what: ApprovalKind, terms_hash: Hash, prev_terms_hash: Hash, role: String, expires_ms: u64 },
        /// Turns a proposal down.
        9 => Reject { agreement: AgreementId, version: u64, terms_hash: Hash, reason: Hash },
        /// Suspends at once.
        10 => Suspend { agreement: AgreementId, version: u64, reason: Hash },
        /// Ends for ever, at once.
        11 => Revoke { agreement: AgreementId, version: u64, reason: Hash },
        /// Proposes new dates for an active version.
        12 => Renew { terms: Bytes, expires_ms: u64 },
        /// Starts a new incarnation of a writer; `lost` commits to what the old one lost.
        13 => Reset { writer: WriterId, incarnation: u64, lost: Hash },
        /// The consumer denies having made a request.
        14 => Dispute { reference: u64, reason: Hash },
        /// A promise that was not kept.
        15 => Complaint { promise: Bytes, signature: Bytes },
        /// Two signed statements that exclude each other: canonical [`crate::session::Promise`]s or
        /// [`crate::ops::Batch`]es, each with the 64 bytes of its Ed25519 signature.
        16 => Equivocation { first: Bytes, first_signature: Bytes, second: Bytes, second_signature: Bytes },
        /// Changes a parameter.
        17 => Params { name: String, value: u64 },
        /// Sets an agency's validator: its key and power; power 0 removes it.
        18 => Validator { agency: AgencyId, key: [u8; 32], power: u64 },
        /// Adds an agency with its root key.
        19 => AgencyAdd { agency: AgencyId, root: PublicKey },
        /// Removes an agency, for ever; what it did stays provable.
        20 => AgencyRemove { agency: AgencyId },
        /// From this height on, nodes of an older application version stop.
        21 => Upgrade { app_version: u64, at_height: u64 },
        /// The agency's signature on an epoch that the ledger wrote: a canonical
        /// [`SignedEpoch`](crate::evidence::SignedEpoch), signed with the agency's root key of the epoch before.
        22 => Epoch { body: Bytes },
        /// Sets the approval roles an agency always needs.
        23 => Roles { roles: Vec<String> },
        /// The map by which the signer's agency turns its people's claims into roles: SHA-256 of the file, and its
        /// number, the last one plus 1.
        24 => RoleMap { number: u64, sha256: Hash },
    }
}

impl ActBody {
    /// Whether the act runs on the key's urgent counter and goes first in a block.
    pub fn is_urgent(&self) -> bool {
        matches!(self, Self::Suspend { .. } | Self::Revoke { .. } | Self::KeyRevoke { .. })
    }
}

canon_struct! {
    /// A signed decision of an agency (statement `act`).
    pub struct Act {
        /// The chain it is for.
        pub chain: String,
        /// Who decides.
        pub agency: AgencyId,
        /// The key that signs.
        pub key_id: KeyId,
        /// Last counter of this key and class (urgent or not), plus 1.
        pub counter: u64,
        /// The decision.
        pub body: ActBody,
    }
}

/// SHA-256 of an act's canonical bytes: its name in the log.
pub fn act_hash(act: &Act) -> Hash {
    crate::hash::sha256(&[&crate::cbor::encode(act)])
}
