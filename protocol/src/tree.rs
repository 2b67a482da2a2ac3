//! Merkle trees of RFC 6962 (0x00 before a leaf, 0x01 before a node), and the leaf encoding of
//! CometBFT's simple map, so that one structure serves state, log, messages and commitments.
//!
//! A root does not commit to the number of leaves. Proofs stay sound all the same: what a proof shows is
//! the way left and right from the root, and the neighbours and edges that follow from it.

use crate::cbor::{Canon, CborError, Dec, Enc};
use crate::hash::{Hash, sha256};

mod adjacent;
pub use adjacent::{AdjacentProof, SortedLeaf, SortedProof};

/// Why a tree or a proof was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The index does not lie below the size.
    #[error("index {index} is not below the tree's size {size}; ask for a proof at a size that holds it")]
    Index {
        /// The leaf's index.
        index: u64,
        /// The tree's size in leaves.
        size: u64,
    },
    /// The proof has another number of hashes than its index and size call for.
    #[error("the proof has {got} hashes where index and size call for another number; ask for the proof again")]
    PathLength {
        /// How many hashes the proof holds.
        got: usize,
    },
    /// The proof leads to another root.
    #[error("the proof leads to another root: what it shows is not in this tree")]
    Root,
    /// The source lacks a subtree that the proof needs.
    #[error("subtree {index} of level {level} is missing in the store; the log's tiles are incomplete")]
    Missing {
        /// log2 of the subtree's leaves.
        level: u8,
        /// The subtree's index at that level.
        index: u64,
    },
    /// Peaks of a frontier that do not fit its size.
    #[error("a frontier of size {size} cannot have {peaks} peaks")]
    Frontier {
        /// Leaves so far.
        size: u64,
        /// Peaks given.
        peaks: usize,
    },
    /// Keys of a sorted tree out of order.
    #[error("the keys shown are not strictly increasing, so the tree is not sorted: {0}")]
    Order(&'static str),
}

impl TreeError {
    /// Stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Index { .. } => "tree-index",
            Self::PathLength { .. } => "tree-path-length",
            Self::Root => "tree-root",
            Self::Missing { .. } => "tree-missing",
            Self::Frontier { .. } => "tree-frontier",
            Self::Order(_) => "tree-order",
        }
    }
}

/// Hash of a leaf: SHA-256(0x00 || data).
#[must_use]
pub fn leaf_hash(data: &[u8]) -> Hash {
    sha256(&[&[0], data])
}

/// Hash of a node: SHA-256(0x01 || left || right).
#[must_use]
pub fn node_hash(l: &Hash, r: &Hash) -> Hash {
    sha256(&[&[1], l, r])
}

/// Root of the tree without leaves: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    sha256(&[])
}

/// Leaf hash of CometBFT's simple map (`ValueOp`): SHA-256(0x00 || uvarint(len key) || key || 0x20 || SHA-256(value)).
#[must_use]
pub fn value_leaf(key: &[u8], value: &[u8]) -> Hash {
    value_leaf_hashed(key, &sha256(&[value]))
}

/// [`value_leaf`] where only the value's hash is known.
#[must_use]
pub fn value_leaf_hashed(key: &[u8], value_hash: &Hash) -> Hash {
    sha256(&[&[0], &uvarint(key.len()), key, &[0x20], value_hash])
}

fn uvarint(n: usize) -> Vec<u8> {
    let mut rest = n;
    let mut out = Vec::with_capacity(2);
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

/// Root over leaf hashes.
#[must_use]
pub fn root(leaf_hashes: &[Hash]) -> Hash {
    let mut builder = RootBuilder::new();
    for leaf in leaf_hashes {
        builder.push(leaf);
    }
    builder.root()
}

/// Levels of [`RootBuilder`]: more leaves than any memory holds.
const LEVELS: usize = 40;

/// The root of leaves that come one after another, without allocating. For trees that are kept use [`Frontier`].
#[derive(Debug, Clone)]
pub struct RootBuilder {
    size: u64,
    /// Root of the perfect subtree of each level whose bit is set in `size`.
    peaks: [Hash; LEVELS],
}

impl Default for RootBuilder {
    fn default() -> Self {
        Self { size: 0, peaks: [[0; 32]; LEVELS] }
    }
}

impl RootBuilder {
    /// No leaf yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a leaf hash.
    pub fn push(&mut self, leaf_hash: &Hash) {
        let full = self.size.trailing_ones() as usize;
        let acc = self.peaks.iter().take(full).fold(*leaf_hash, |acc, left| node_hash(left, &acc));
        if let Some(peak) = self.peaks.get_mut(full) {
            *peak = acc;
        }
        self.size += 1;
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let set = self.peaks.iter().enumerate().filter(|(level, _)| (self.size >> level) & 1 == 1);
        set.map(|(_, peak)| *peak).reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root)
    }
}

/// Inclusion path of one leaf, nearest sibling first; none if the index is outside.
#[must_use]
pub fn inclusion_path(leaf_hashes: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaf_hashes.len() {
        return None;
    }
    let (mut part, mut at, mut path) = (leaf_hashes, index, Vec::new());
    while part.len() > 1 {
        let (left, right) = part.split_at(split(part.len() as u64) as usize);
        if at < left.len() {
            path.push(root(right));
            part = left;
        } else {
            at -= left.len();
            path.push(root(left));
            part = right;
        }
    }
    path.reverse();
    Some(path)
}

/// Largest power of two below `n`, for `n` above 1.
fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// Checks that `leaf` (a leaf *hash*: compute it from the data with [`leaf_hash`] or [`value_leaf`]) stands at `index`
/// in the tree of `size` leaves with this root (RFC 9162, 2.1.3.2).
///
/// # Errors
/// Index outside, wrong number of hashes, other root.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> Result<(), TreeError> {
    if root_of_path(leaf, index, size, path)? == *root { Ok(()) } else { Err(TreeError::Root) }
}

/// The root to which a path leads from the leaf hash at `index` in a tree of `size` leaves (RFC 9162, 2.1.3.2).
///
/// # Errors
/// Index outside, wrong number of hashes.
pub fn root_of_path(leaf: &Hash, index: u64, size: u64, path: &[Hash]) -> Result<Hash, TreeError> {
    if index >= size {
        return Err(TreeError::Index { index, size });
    }
    let (mut at, mut last, mut acc) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return Err(TreeError::PathLength { got: path.len() });
        }
        if at & 1 == 1 || at == last {
            acc = node_hash(sibling, &acc);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            acc = node_hash(&acc, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(TreeError::PathLength { got: path.len() });
    }
    Ok(acc)
}

/// The right edge of a growing tree: all that is needed to append and to know the root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    /// Roots of the perfect subtrees, largest first: one for each bit set in `size`.
    peaks: Vec<Hash>,
}

impl Frontier {
    /// A tree without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A frontier from its parts.
    ///
    /// # Errors
    /// The peaks must be as many as `size` has bits set.
    pub fn from_parts(size: u64, peaks: Vec<Hash>) -> Result<Self, TreeError> {
        if peaks.len() == size.count_ones() as usize {
            Ok(Self { size, peaks })
        } else {
            Err(TreeError::Frontier { size, peaks: peaks.len() })
        }
    }

    /// Appends a leaf hash.
    pub fn push(&mut self, leaf_hash: Hash) {
        self.push_with(leaf_hash, |_, _, _| {});
    }

    /// Appends a leaf hash and reports every perfect subtree this completes as `(level, index, hash)`, the leaf
    /// (level 0) first: what a store keeps to answer as [`SubtreeSource`].
    pub fn push_with(&mut self, leaf_hash: Hash, mut completed: impl FnMut(u8, u64, &Hash)) {
        let (mut acc, mut level) = (leaf_hash, 0u8);
        completed(0, self.size, &acc);
        while (self.size >> level) & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            acc = node_hash(&left, &acc);
            level += 1;
            completed(level, self.size >> level, &acc);
        }
        self.peaks.push(acc);
        self.size += 1;
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the perfect subtrees, largest first.
    #[must_use]
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(first) = peaks.next() else { return empty_root() };
        peaks.fold(*first, |right, left| node_hash(left, &right))
    }
}

/// Where perfect subtrees are kept: level `l` and index `i` stand for leaves `i * 2^l .. (i + 1) * 2^l`.
pub trait SubtreeSource {
    /// Root of that perfect subtree, none if it is not kept.
    fn subtree(&self, level: u8, index: u64) -> Option<Hash>;
}

/// Root of leaves `from .. to`, where `from` is a multiple of the power of two at or above the length.
fn range_root(src: &(impl SubtreeSource + ?Sized), from: u64, to: u64) -> Result<Hash, TreeError> {
    let len = to - from;
    if len.is_power_of_two() {
        let level = len.trailing_zeros() as u8;
        let index = from >> level;
        return src.subtree(level, index).ok_or(TreeError::Missing { level, index });
    }
    let middle = from + split(len);
    Ok(node_hash(&range_root(src, from, middle)?, &range_root(src, middle, to)?))
}

/// Root of the first `size` leaves of a kept tree.
///
/// # Errors
/// A subtree is missing.
pub fn root_from(src: &(impl SubtreeSource + ?Sized), size: u64) -> Result<Hash, TreeError> {
    if size == 0 { Ok(empty_root()) } else { range_root(src, 0, size) }
}

/// Inclusion path of leaf `index` among the first `size` leaves of a kept tree, nearest sibling first.
///
/// # Errors
/// Index outside, or a subtree is missing.
pub fn inclusion_path_from(src: &(impl SubtreeSource + ?Sized), index: u64, size: u64) -> Result<Vec<Hash>, TreeError> {
    if index >= size {
        return Err(TreeError::Index { index, size });
    }
    let (mut from, mut to, mut path) = (0, size, Vec::new());
    while to - from > 1 {
        let middle = from + split(to - from);
        if index < middle {
            path.push(range_root(src, middle, to)?);
            to = middle;
        } else {
            path.push(range_root(src, from, middle)?);
            from = middle;
        }
    }
    path.reverse();
    Ok(path)
}

impl SubtreeSource for [Hash] {
    fn subtree(&self, level: u8, index: u64) -> Option<Hash> {
        let from = usize::try_from(index.checked_shl(u32::from(level))?).ok()?;
        let to = from.checked_add(1usize.checked_shl(u32::from(level))?)?;
        self.get(from..to).map(root)
    }
}

impl Canon for Frontier {
    fn put(&self, e: &mut Enc) {
        e.array(2);
        self.size.put(e);
        self.peaks.put(e);
    }
    fn get(d: &mut Dec<'_>) -> Result<Self, CborError> {
        d.nested(|d| {
            d.array_of("Frontier", 2)?;
            Self::from_parts(u64::get(d)?, Vec::get(d)?).map_err(|e| CborError::rule("Frontier", e.to_string()))
        })
    }
}

#[cfg(test)]
mod tests;
