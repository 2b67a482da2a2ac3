//! Receipts: one file that proves, offline and years later, what the ledger said of one operation (PROTOCOL 4).
//!
//! Every value has one encoding, and every byte is covered by a hash or a signature: a receipt with one byte changed
//! is refused. [`build`] puts one together from what a node, a broker and CometBFT answer; `verify` (feature
//! `verifier`) checks it against `trust.json`.

use crate::cbor::{self, Bytes, CborError};
use crate::hash::Hash;
use crate::ids::AgencyId;
use crate::keys::{ED25519_SIGNATURE_LEN, KeyId, Signature, Suite};
use crate::leaves::Redacted;
use crate::node::{EntryProof, KeyView, LeafProof, SessionLeaf, StoreRoots, key_leaf_key, session_leaf_key};
use crate::ops::LogEntry;
use crate::session::{Request, SignedRequest};
use crate::{canon_struct, tree};

mod json;
mod path;

#[cfg(feature = "verifier")]
pub(crate) use json::leaf_text;
pub use json::to_json;
pub use path::Path;

/// Version of the format; the first field of a receipt.
pub const RECEIPT_VERSION: u64 = 1;
/// What a decoder reads at most. With four validators and up to 64 tags a receipt stays below
/// [`crate::limits::RECEIPT_BYTES_MAX`]; more tags and more cosigners add to it.
pub const RECEIPT_DECODE_MAX: usize = 1 << 20;

canon_struct! {
    /// The consumer's half: what it asked, and the session whose key signed it.
    pub struct RequestPart {
        /// The request.
        pub request: Request,
        /// From the request to the root that was signed.
        pub path: Path,
        /// Ed25519 by the session key over the root (statement `request`).
        pub signature: [u8; 64],
        /// The session as it stands in `heads`.
        pub session: SessionLeaf,
        /// From the session's leaf to the root of `heads`.
        pub session_path: Path,
    }
}

canon_struct! {
    /// The provider's half: the executor's signature over [`crate::session::Release`], and its key.
    pub struct ReleasePart {
        /// The signature (statement `release`).
        pub signature: Signature,
        /// The key as it stands in `meta`.
        pub key: KeyView,
        /// From the key's leaf to the root of `meta`.
        pub key_path: Path,
    }
}

canon_struct! {
    /// A state that agencies cosign. A receipt with a checkpoint has its proofs at the checkpoint's height.
    pub struct Checkpoint {
        /// The chain.
        pub chain: String,
        /// Height of the state.
        pub height: u64,
        /// Tick of that block, milliseconds.
        pub tick_ms: u64,
        /// Entries in the log.
        pub log_size: u64,
        /// Roots of the state.
        pub roots: StoreRoots,
    }
}

canon_struct! {
    /// What an agency signs (statement `cosign`): its node computed these roots, every entry under its writers is its
    /// own, and so is every undisputed entry that names its sessions.
    pub struct Cosign {
        /// The state.
        pub checkpoint: Checkpoint,
        /// Who signs.
        pub agency: AgencyId,
        /// Height up to which it has archived bodies.
        pub archived_height: u64,
    }
}

canon_struct! {
    /// A cosignature; with the checkpoint it makes a [`Cosign`].
    pub struct Cosignature {
        /// Who signed, by its cosigning key of the epoch.
        pub agency: AgencyId,
        /// Height up to which it had archived bodies.
        pub archived_height: u64,
        /// The signature (hybrid).
        pub signature: Signature,
    }
}

canon_struct! {
    /// What makes a receipt final.
    pub struct CheckpointPart {
        /// When it was made, milliseconds of tick.
        pub tick_ms: u64,
        /// Entries in the log then.
        pub log_size: u64,
        /// Cosignatures, sorted by agency.
        pub cosignatures: Vec<Cosignature>,
    }
}

canon_struct! {
    /// A receipt.
    pub struct Receipt {
        /// [`RECEIPT_VERSION`].
        pub version: u64,
        /// The chain.
        pub chain: String,
        /// Global index of the entry: `op:<index>`.
        pub index: u64,
        /// What the ledger says of it.
        pub entry: LogEntry,
        /// From the entry's leaf to the root of `log`.
        pub log_path: Path,
        /// The roots whose simple map is the app hash.
        pub roots: StoreRoots,
        /// Canonical bytes of the operation ([`crate::ops::Op`]) or, where the entry's writer begins with `act:`, of
        /// the act ([`crate::acts::Act`]).
        pub op: Bytes,
        /// Opened and hidden leaves of the operation's commitment.
        pub openings: Option<Redacted>,
        /// The consumer's half; none for an operation without a request.
        pub request: Option<RequestPart>,
        /// The provider's half; none where nothing was released.
        pub release: Option<ReleasePart>,
        /// Header that carries the app hash, with its commit: CometBFT `SignedHeader` protobuf in normal form.
        pub header: Bytes,
        /// Its validators: CometBFT `ValidatorSet` protobuf in normal form.
        pub validators: Bytes,
        /// Absent: provisional.
        pub checkpoint: Option<CheckpointPart>,
    }
}

/// Why no receipt can be made of these parts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// A part does not decode.
    #[error("{part}: {source}")]
    Part {
        /// Which part.
        part: &'static str,
        /// What is wrong with its bytes.
        source: CborError,
    },
    /// A path does not fit its index and size.
    #[error("{part}: {source}; ask the node for the proof again")]
    Path {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        source: tree::TreeError,
    },
    /// A part is missing or belongs to something else.
    #[error("{part}: {rule}")]
    Mismatch {
        /// Which part.
        part: &'static str,
        /// What was expected.
        rule: &'static str,
    },
    /// Longer than any decoder reads.
    #[error("the receipt has {0} bytes, at most {RECEIPT_DECODE_MAX} are read")]
    Size(usize),
}

impl ReceiptError {
    /// Stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Part { .. } => "receipt-part",
            Self::Path { .. } => "receipt-path",
            Self::Mismatch { .. } => "receipt-mismatch",
            Self::Size(_) => "receipt-size",
        }
    }
}

impl Receipt {
    /// The file's bytes.
    ///
    /// # Errors
    /// More than [`RECEIPT_DECODE_MAX`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, ReceiptError> {
        let bytes = cbor::encode(self);
        if bytes.len() > RECEIPT_DECODE_MAX { Err(ReceiptError::Size(bytes.len())) } else { Ok(bytes) }
    }

    /// Reads a file. Nothing in it is to be believed before `verify`.
    ///
    /// # Errors
    /// Too long, or not the canonical encoding of a receipt.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > RECEIPT_DECODE_MAX {
            return Err(ReceiptError::Size(bytes.len()));
        }
        cbor::decode(bytes).map_err(|source| ReceiptError::Part { part: "receipt", source })
    }

    /// The checkpoint that the cosignatures are about; none if the receipt is provisional.
    #[must_use]
    pub fn checkpoint_of(&self, height: u64) -> Option<Checkpoint> {
        self.checkpoint.as_ref().map(|c| Checkpoint {
            chain: self.chain.clone(),
            height,
            tick_ms: c.tick_ms,
            log_size: c.log_size,
            roots: self.roots.clone(),
        })
    }
}

/// The app hash of these roots: CometBFT's simple map `{heads, log, meta, runs}`.
#[must_use]
pub fn app_hash(roots: &StoreRoots) -> Hash {
    let stores = [("heads", &roots.heads), ("log", &roots.log), ("meta", &roots.meta), ("runs", &roots.runs)];
    tree::root(&stores.map(|(name, root)| tree::value_leaf(name.as_bytes(), root)))
}

/// What a receipt is made of, as nodes, brokers and CometBFT answer it.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The chain.
    pub chain: &'a str,
    /// The node's answer to `Proof`, with the release key and the session where there are any.
    pub proof: &'a EntryProof,
    /// Canonical bytes of the operation or act.
    pub op: &'a [u8],
    /// Canonical [`Redacted`] bytes of its commitment; none for an operation without one.
    pub openings: Option<&'a [u8]>,
    /// The consumer's signed request.
    pub request: Option<&'a SignedRequest>,
    /// The executor's release signature (64 bytes of Ed25519, or a canonical [`Signature`]) and its key's name.
    pub release: Option<(&'a [u8], KeyId)>,
    /// Header of `proof.height + 1` with its commit, from `verify::comet::pack`.
    pub header: &'a [u8],
    /// Its validators, from `verify::comet::pack`.
    pub validators: &'a [u8],
    /// What makes it final.
    pub checkpoint: Option<&'a CheckpointPart>,
}

/// Puts a receipt together. It checks only that the parts fit; verify the result before handing it out.
///
/// # Errors
/// A part does not decode, is missing, or is about something else.
pub fn build(parts: Parts<'_>) -> Result<Receipt, ReceiptError> {
    let key: [u8; 8] = parts
        .proof
        .entry
        .key
        .0
        .as_slice()
        .try_into()
        .map_err(|_| ReceiptError::Mismatch { part: "log proof", rule: "the key must be a u64 index" })?;
    let receipt = Receipt {
        version: RECEIPT_VERSION,
        chain: parts.chain.to_owned(),
        index: u64::from_be_bytes(key),
        entry: decode("log entry", &parts.proof.entry.value)?,
        log_path: path("log proof", &parts.proof.entry)?,
        roots: parts.proof.roots.clone(),
        op: Bytes(parts.op.to_vec()),
        openings: parts.openings.map(|o| decode("openings", o)).transpose()?,
        request: parts.request.map(|r| request_part(r, parts.proof)).transpose()?,
        release: parts.release.map(|(s, id)| release_part(s, &id, parts.proof)).transpose()?,
        header: Bytes(parts.header.to_vec()),
        validators: Bytes(parts.validators.to_vec()),
        checkpoint: parts.checkpoint.cloned(),
    };
    receipt.to_bytes().map(|_| receipt)
}

fn decode<T: cbor::Canon>(part: &'static str, bytes: &[u8]) -> Result<T, ReceiptError> {
    cbor::decode(bytes).map_err(|source| ReceiptError::Part { part, source })
}

fn path(part: &'static str, proof: &LeafProof) -> Result<Path, ReceiptError> {
    Path::of(proof.index, proof.size, &proof.path).map_err(|source| ReceiptError::Path { part, source })
}

fn request_part(signed: &SignedRequest, proof: &EntryProof) -> Result<RequestPart, ReceiptError> {
    let request: Request = decode("request", &signed.request)?;
    let rule = "the node's proof must hold the request's session; ask it with the session's number, at an earlier height \
                if the slot was reused";
    let wanted = session_leaf_key(request.session);
    let leaf = proof.session.as_ref().filter(|l| l.key.0 == wanted);
    let leaf = leaf.ok_or(ReceiptError::Mismatch { part: "session proof", rule })?;
    let source = |source| ReceiptError::Path { part: "request", source };
    Ok(RequestPart {
        path: Path::of(signed.index, signed.size, &signed.path).map_err(source)?,
        signature: signed.signature,
        session: decode("session", &leaf.value)?,
        session_path: path("session proof", leaf)?,
        request,
    })
}

fn release_part(signature: &[u8], id: &KeyId, proof: &EntryProof) -> Result<ReleasePart, ReceiptError> {
    let wanted = key_leaf_key(id);
    let rule = "the node's proof must hold the release key; ask it with the key's name";
    let leaf = proof.keys.iter().find(|k| k.key.0 == wanted);
    let leaf = leaf.ok_or(ReceiptError::Mismatch { part: "key proof", rule })?;
    Ok(ReleasePart {
        signature: match signature.len() {
            ED25519_SIGNATURE_LEN => {
                Signature { suite: Suite::Ed25519, ed25519: Bytes(signature.to_vec()), pq: Bytes::default() }
            }
            _ => decode("release signature", signature)?,
        },
        key: decode("release key", &leaf.value)?,
        key_path: path("key proof", leaf)?,
    })
}

#[cfg(feature = "verifier")]
impl Receipt {
    /// Hash of the log leaf.
    pub(crate) fn log_leaf(&self) -> Hash {
        tree::value_leaf(&crate::ops::log_key(self.index), &cbor::encode(&self.entry))
    }
}

#[cfg(feature = "verifier")]
impl RequestPart {
    /// Hash of the session's leaf.
    pub(crate) fn session_leaf(&self) -> Hash {
        tree::value_leaf(&session_leaf_key(self.request.session), &cbor::encode(&self.session))
    }
}

#[cfg(feature = "verifier")]
impl ReleasePart {
    /// Hash of the key's leaf.
    pub(crate) fn key_leaf(&self) -> Hash {
        tree::value_leaf(&key_leaf_key(&self.key.key.key_id()), &cbor::encode(&self.key))
    }
}
