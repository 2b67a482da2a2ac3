//! Salted leaf sets: named values under one Merkle root, any of which can be shown without the others.
//!
//! Messages and the commitments of operations are leaf sets. A leaf is `salt16 || u16be(len name) || name || value`,
//! leaves are sorted by name, an absent field is a leaf with an empty value. A hidden leaf leaves its hash behind:
//! neither its name nor its value can be guessed without the salt, and only its place in the order shows.

use crate::cbor::Bytes;
use crate::codes;
use crate::hash::{Hash, sha256};
use crate::tree;
use std::collections::BTreeMap;

/// Sixteen random bytes before each leaf (PROTOCOL 1.6).
pub type Salt = [u8; 16];

/// Most leaves in one set.
pub const LEAVES_MAX: usize = 4_096;
/// Longest name of a leaf, bytes.
pub const LEAF_NAME_MAX: usize = 256;

/// Names of the leaves under an operation's commitment, and how their values are written. A leaf that does not apply
/// is present with an empty value.
pub mod commitment {
    /// The consumer's agency id, UTF-8.
    pub const CONSUMER: &str = "consumer";
    /// Pseudonym of the person who asked, UTF-8.
    pub const ACTOR: &str = "actor";
    /// The clause that decided, UTF-8: `AGR-2026-0142/C1`, or the clause's id alone.
    pub const CLAUSE: &str = "clause";
    /// The purpose, UTF-8.
    pub const PURPOSE: &str = "purpose";
    /// The case reference, UTF-8.
    pub const CASE: &str = "case";
    /// [`crate::session::Request::hash`], 32 bytes.
    pub const REQUEST_HASH: &str = "request_hash";
    /// SHA-256 of the policy rows that decided, 32 bytes.
    pub const ROWS_HASH: &str = "rows_hash";
    /// How many rows or denials, u64 big-endian.
    pub const COUNT: &str = "count";
    /// [`crate::session::Content::root`], 32 bytes.
    pub const CONTENT_ROOT: &str = "content_root";
    /// Root of a record before a write, 32 bytes.
    pub const BEFORE: &str = "before";
    /// Root of a record after a write, 32 bytes.
    pub const AFTER: &str = "after";
    /// Evidence mode, UTF-8: `strict`, `bounded` or `none`.
    pub const EVIDENCE: &str = "evidence";
    /// Tick by which the entry is opened to the subject, milliseconds, u64 big-endian.
    pub const OPEN_BY: &str = "open_by";
    /// Why a person overrode, UTF-8. Only `break-glass` operations have this leaf.
    pub const JUSTIFICATION: &str = "justification";
}

/// All names of [`commitment`], sorted as leaves are.
pub const COMMITMENT_NAMES: [&str; 13] = [
    commitment::ACTOR,
    commitment::AFTER,
    commitment::BEFORE,
    commitment::CASE,
    commitment::CLAUSE,
    commitment::CONSUMER,
    commitment::CONTENT_ROOT,
    commitment::COUNT,
    commitment::EVIDENCE,
    commitment::OPEN_BY,
    commitment::PURPOSE,
    commitment::REQUEST_HASH,
    commitment::ROWS_HASH,
];

/// Why a leaf set was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeavesError {
    /// A name longer than [`LEAF_NAME_MAX`].
    #[error("field \"{0}...\": the name is longer than {LEAF_NAME_MAX} bytes; use a shorter one")]
    Name(String),
    /// More leaves than [`LEAVES_MAX`].
    #[error("{0} fields are more than {LEAVES_MAX}; split the record")]
    Count(usize),
    /// Shown names out of order, or twice the same.
    #[error("field \"{0}\": shown fields must be sorted by name, each once")]
    Order(String),
    /// The leaves are not those under the root.
    #[error("the fields do not belong to this root: something shown was changed, added or left out")]
    Root,
}

impl LeavesError {
    /// Stable code of the error, from the registry in [`crate::codes`].
    #[must_use]
    pub fn code(&self) -> u16 {
        match self {
            Self::Count(_) => codes::TOO_LARGE,
            _ => codes::BAD_VALUE,
        }
    }
}

/// The first `n` salts of a secret, made in pairs: SHA-256(secret || u32be pair index) gives two.
#[must_use]
pub fn salts(secret: &[u8; 32], n: usize) -> Vec<Salt> {
    let mut out = Vec::with_capacity(n + 1);
    for pair in 0..n.div_ceil(2) as u32 {
        let (first, second) = split_pair(&sha256(&[secret, &pair.to_be_bytes()]));
        out.extend([first, second]);
    }
    out.truncate(n);
    out
}

fn split_pair(hash: &Hash) -> (Salt, Salt) {
    let (mut first, mut second) = ([0; 16], [0; 16]);
    first.copy_from_slice(&hash[..16]);
    second.copy_from_slice(&hash[16..]);
    (first, second)
}

/// The root of a leaf set whose leaves come in order, without keeping them: what [`LeafSet::root`] gives.
pub(crate) struct RootOf<'a> {
    secret: &'a [u8; 32],
    count: usize,
    pair: (Salt, Salt),
    tree: tree::RootBuilder,
}

impl<'a> RootOf<'a> {
    /// No leaf yet.
    pub(crate) fn new(secret: &'a [u8; 32]) -> Self {
        Self { secret, count: 0, pair: ([0; 16], [0; 16]), tree: tree::RootBuilder::new() }
    }

    /// The next leaf; its name, `kind` and `name` together, must be greater than the one before. False when a limit
    /// is passed: then there is no root.
    #[must_use]
    pub(crate) fn push(&mut self, kind: &str, name: &str, value: &[u8]) -> bool {
        let len = kind.len() + name.len();
        if self.count >= LEAVES_MAX || len > LEAF_NAME_MAX {
            return false;
        }
        let salt = if self.count.is_multiple_of(2) {
            let pair = (self.count / 2) as u32;
            self.pair = split_pair(&sha256(&[self.secret, &pair.to_be_bytes()]));
            &self.pair.0
        } else {
            &self.pair.1
        };
        let len = (len as u16).to_be_bytes();
        self.tree.push(&sha256(&[&[0], salt, &len, kind.as_bytes(), name.as_bytes(), value]));
        self.count += 1;
        true
    }

    /// The root.
    pub(crate) fn root(&self) -> Hash {
        self.tree.root()
    }
}

/// Hash of one leaf.
fn hash_leaf(salt: &Salt, name: &str, value: &[u8]) -> Hash {
    // Names are at most LEAF_NAME_MAX long wherever sets are made or checked.
    let len = (name.len() as u16).to_be_bytes();
    sha256(&[&[0], salt, &len, name.as_bytes(), value])
}

fn check_name(name: &str) -> Result<(), LeavesError> {
    if name.len() <= LEAF_NAME_MAX { Ok(()) } else { Err(LeavesError::Name(name.chars().take(40).collect())) }
}

/// All leaves of a set with their salts: what the one who made it keeps.
#[derive(Clone, PartialEq, Eq)]
pub struct LeafSet {
    fields: BTreeMap<String, Vec<u8>>,
    salts: Vec<Salt>,
}

impl core::fmt::Debug for LeafSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LeafSet").field("names", &self.fields.keys()).finish_non_exhaustive()
    }
}

impl LeafSet {
    /// The set of `fields` with salts derived from `secret`, which must be random and used for this set alone.
    ///
    /// # Errors
    /// A name too long, or too many fields.
    pub fn new(secret: &[u8; 32], fields: BTreeMap<String, Vec<u8>>) -> Result<Self, LeavesError> {
        if fields.len() > LEAVES_MAX {
            return Err(LeavesError::Count(fields.len()));
        }
        fields.keys().try_for_each(|name| check_name(name))?;
        let salts = salts(secret, fields.len());
        Ok(Self { fields, salts })
    }

    fn leaves(&self) -> impl Iterator<Item = (&Salt, &str, &[u8])> {
        self.salts.iter().zip(&self.fields).map(|(salt, (name, value))| (salt, name.as_str(), value.as_slice()))
    }

    /// Hashes of the leaves, in order.
    pub(crate) fn hashes(&self) -> Vec<Hash> {
        self.leaves().map(|(salt, name, value)| hash_leaf(salt, name, value)).collect()
    }

    /// The root that commits to the set.
    #[must_use]
    pub fn root(&self) -> Hash {
        tree::root(&self.hashes())
    }

    /// Value of a field, none if the set has no such field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.get(name).map(Vec::as_slice)
    }

    /// Names in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// The set with only those fields shown whose name `open` names.
    #[must_use]
    pub fn redact(&self, mut open: impl FnMut(&str) -> bool) -> Redacted {
        let leaves = self.leaves().map(|(salt, name, value)| {
            if open(name) {
                LeafView::Opened { name: name.to_owned(), salt: *salt, value: Bytes(value.to_vec()) }
            } else {
                LeafView::Hidden { hash: hash_leaf(salt, name, value) }
            }
        });
        Redacted { leaves: leaves.collect() }
    }

    /// [`LeafSet::redact`] where the leaves' hashes are known already.
    pub(crate) fn redact_known(&self, hashes: &[Hash], open: impl Fn(&str) -> bool) -> Redacted {
        let leaves = self.leaves().zip(hashes).map(|((salt, name, value), hash)| {
            if open(name) {
                LeafView::Opened { name: name.to_owned(), salt: *salt, value: Bytes(value.to_vec()) }
            } else {
                LeafView::Hidden { hash: *hash }
            }
        });
        Redacted { leaves: leaves.collect() }
    }
}

crate::canon_enum! {
    /// One leaf as others see it.
    pub enum LeafView {
        /// Shown.
        1 => Opened {
            /// Name of the field.
            name: String,
            /// The leaf's salt.
            salt: [u8; 16],
            /// The value, empty if the field is absent.
            value: Bytes,
        },
        /// Only its hash is left.
        2 => Hidden {
            /// Hash of the leaf.
            hash: Hash,
        },
    }
}

crate::canon_struct! {
    /// A leaf set with some fields hidden. Nothing in it is to be believed before [`Redacted::verify`].
    pub struct Redacted {
        /// Every leaf, in order.
        pub leaves: Vec<LeafView>,
    }
}

impl Redacted {
    /// The root that the leaves lead to.
    ///
    /// # Errors
    /// Names out of order, too long, or too many leaves.
    pub fn root(&self) -> Result<Hash, LeavesError> {
        if self.leaves.len() > LEAVES_MAX {
            return Err(LeavesError::Count(self.leaves.len()));
        }
        let mut last: Option<&str> = None;
        let mut root = tree::RootBuilder::new();
        for leaf in &self.leaves {
            root.push(&match leaf {
                LeafView::Hidden { hash } => *hash,
                LeafView::Opened { name, salt, value } => {
                    check_name(name)?;
                    if last.is_some_and(|last| last >= name.as_str()) {
                        return Err(LeavesError::Order(name.clone()));
                    }
                    last = Some(name);
                    hash_leaf(salt, name, value)
                }
            });
        }
        Ok(root.root())
    }

    /// Checks that every field shown is an unaltered part of the set under `root`.
    ///
    /// # Errors
    /// [`LeavesError::Root`] if anything shown is not what was committed to.
    pub fn verify(&self, root: &Hash) -> Result<(), LeavesError> {
        if self.root()? == *root { Ok(()) } else { Err(LeavesError::Root) }
    }

    /// Fields shown, in order.
    pub fn opened(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.leaves.iter().filter_map(|leaf| match leaf {
            LeafView::Opened { name, value, .. } => Some((name.as_str(), &value.0[..])),
            LeafView::Hidden { .. } => None,
        })
    }

    /// Value of a field that is shown; empty if the field is shown to be absent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.opened().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// Hides more fields; the root stays the same.
    #[must_use]
    pub fn redact(&self, mut open: impl FnMut(&str) -> bool) -> Self {
        let leaves = self.leaves.iter().map(|leaf| match leaf {
            LeafView::Opened { name, salt, value } if !open(name) => {
                LeafView::Hidden { hash: hash_leaf(salt, name, value) }
            }
            other => other.clone(),
        });
        Self { leaves: leaves.collect() }
    }
}

#[cfg(test)]
mod tests;
