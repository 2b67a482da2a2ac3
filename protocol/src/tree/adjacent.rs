//! Proofs over neighbouring leaves: complete lists and absence in sorted trees.

use super::{Hash, SubtreeSource, TreeError, empty_root, node_hash, range_root, split, value_leaf_hashed};
use crate::cbor::Bytes;
use crate::hash::sha256;

crate::canon_struct! {
    /// Shows that given leaves stand side by side in a tree, from `index` on. What lies outside them is covered by
    /// `siblings`: roots of the largest subtrees outside, from left to right.
    pub struct AdjacentProof {
        /// Index of the first leaf shown.
        pub index: u64,
        /// Leaves in the tree.
        pub size: u64,
        /// Roots of the subtrees outside, from left to right.
        pub siblings: Vec<Hash>,
    }
}

impl AdjacentProof {
    /// Proves `count` leaves from `index` on of a list of leaf hashes. None if they are not inside, or if `count` is 0
    /// in a tree that has leaves.
    #[must_use]
    pub fn prove(leaf_hashes: &[Hash], index: u64, count: u64) -> Option<Self> {
        Self::prove_from(leaf_hashes, index, count, leaf_hashes.len() as u64).ok()
    }

    /// Proves `count` leaves from `index` on among the first `size` of a kept tree.
    ///
    /// # Errors
    /// Leaves outside, none asked for in a tree that has some, or a subtree missing.
    pub fn prove_from(
        src: &(impl SubtreeSource + ?Sized),
        index: u64,
        count: u64,
        size: u64,
    ) -> Result<Self, TreeError> {
        let end = index.checked_add(count).filter(|end| *end <= size && (count > 0 || size == 0));
        let end = end.ok_or(TreeError::Index { index, size })?;
        let mut siblings = Vec::new();
        if size > 0 {
            outside(src, 0, size, index, end, &mut siblings)?;
        }
        Ok(Self { index, size, siblings })
    }

    /// Checks that `leaves` (leaf *hashes*, computed from the data by the caller) are neighbours in the tree with this
    /// root, the first at `index`. With no leaves it shows an empty tree.
    ///
    /// # Errors
    /// Leaves outside, wrong number of siblings, other root.
    pub fn verify(&self, leaves: &[Hash], root: &Hash) -> Result<(), TreeError> {
        let end = self.index.checked_add(leaves.len() as u64);
        let end = end.filter(|end| *end <= self.size && (!leaves.is_empty() || self.size == 0));
        let end = end.ok_or(TreeError::Index { index: self.index, size: self.size })?;
        let mut walk = Walk { leaves: leaves.iter(), siblings: self.siblings.iter(), index: self.index, end };
        let computed = if self.size == 0 { Some(empty_root()) } else { walk.root(0, self.size) };
        let computed = computed.filter(|_| walk.siblings.next().is_none());
        match computed {
            None => Err(TreeError::PathLength { got: self.siblings.len() }),
            Some(computed) if computed == *root => Ok(()),
            Some(_) => Err(TreeError::Root),
        }
    }
}

/// Pushes the roots of the largest subtrees of `from .. to` that hold none of `index .. end`.
fn outside(
    src: &(impl SubtreeSource + ?Sized),
    from: u64,
    to: u64,
    index: u64,
    end: u64,
    out: &mut Vec<Hash>,
) -> Result<(), TreeError> {
    if to <= index || end <= from {
        out.push(range_root(src, from, to)?);
    } else if to - from > 1 {
        let middle = from + split(to - from);
        outside(src, from, middle, index, end, out)?;
        outside(src, middle, to, index, end, out)?;
    }
    Ok(())
}

struct Walk<'a> {
    leaves: core::slice::Iter<'a, Hash>,
    siblings: core::slice::Iter<'a, Hash>,
    index: u64,
    end: u64,
}

impl Walk<'_> {
    /// Root of `from .. to`; at most 64 deep. None when leaves or siblings run out.
    fn root(&mut self, from: u64, to: u64) -> Option<Hash> {
        if to <= self.index || self.end <= from {
            return self.siblings.next().copied();
        }
        if to - from == 1 {
            return self.leaves.next().copied();
        }
        let middle = from + split(to - from);
        let left = self.root(from, middle)?;
        let right = self.root(middle, to)?;
        Some(node_hash(&left, &right))
    }
}

crate::canon_struct! {
    /// A leaf of a sorted tree as it appears in proofs: its key, and only the hash of its value.
    pub struct SortedLeaf {
        /// The key the tree is sorted by.
        pub key: Bytes,
        /// SHA-256 of the value.
        pub value_hash: Hash,
    }
}

impl SortedLeaf {
    /// The leaf of `key` and `value`.
    #[must_use]
    pub fn new(key: &[u8], value: &[u8]) -> Self {
        Self { key: Bytes(key.to_vec()), value_hash: sha256(&[value]) }
    }

    /// Its leaf hash, the encoding of [`super::value_leaf`].
    #[must_use]
    pub fn hash(&self) -> Hash {
        value_leaf_hashed(&self.key, &self.value_hash)
    }
}

crate::canon_struct! {
    /// The complete list of the leaves of a sorted tree whose keys begin with a prefix: all of them side by side, with
    /// the neighbour before and after (absent at the tree's edge). An empty list is a proof of absence.
    pub struct SortedProof {
        /// The last leaf below the prefix, absent if the list begins with the first leaf of the tree.
        pub before: Option<SortedLeaf>,
        /// The leaves with the prefix, in order.
        pub found: Vec<SortedLeaf>,
        /// The first leaf above the prefix, absent if the list ends with the last leaf of the tree.
        pub after: Option<SortedLeaf>,
        /// Shows that all of these are neighbours.
        pub adjacent: AdjacentProof,
    }
}

impl SortedProof {
    /// Proves the list for `prefix` over all leaves of a tree sorted by key.
    ///
    /// # Errors
    /// [`TreeError::Order`] if the leaves are not strictly increasing by key.
    pub fn prove(leaves: &[SortedLeaf], prefix: &[u8]) -> Result<Self, TreeError> {
        if !leaves.windows(2).all(|w| matches!(w, [a, b] if a.key < b.key)) {
            return Err(TreeError::Order("sort the leaves by key first"));
        }
        let first = leaves.partition_point(|l| l.key.0.as_slice() < prefix);
        let found: Vec<_> = leaves.iter().skip(first).take_while(|l| l.key.starts_with(prefix)).cloned().collect();
        let next = first + found.len();
        let from = first.saturating_sub(1);
        let to = leaves.len().min(next + 1);
        let hashes: Vec<Hash> = leaves.iter().map(SortedLeaf::hash).collect();
        let size = hashes.len() as u64;
        let adjacent = AdjacentProof::prove_from(hashes.as_slice(), from as u64, (to - from) as u64, size)?;
        let before = first.checked_sub(1).and_then(|i| leaves.get(i)).cloned();
        Ok(Self { before, found, after: leaves.get(next).cloned(), adjacent })
    }

    /// Checks the list against the root and returns it: these are all leaves with the prefix, and no others are.
    ///
    /// # Errors
    /// A neighbour is missing or on the wrong side, keys out of order, or the proof leads elsewhere.
    pub fn verify(&self, prefix: &[u8], root: &Hash) -> Result<&[SortedLeaf], TreeError> {
        let below = |l: &SortedLeaf| l.key.0.as_slice() < prefix;
        let above = |l: &SortedLeaf| l.key.0.as_slice() > prefix && !l.key.starts_with(prefix);
        let leaves: Vec<&SortedLeaf> = self.before.iter().chain(&self.found).chain(&self.after).collect();
        if !leaves.windows(2).all(|w| matches!(w, [a, b] if a.key < b.key)) {
            return Err(TreeError::Order("keys must strictly increase"));
        }
        if !self.found.iter().all(|l| l.key.starts_with(prefix)) {
            return Err(TreeError::Order("a key in the list does not begin with what was asked for"));
        }
        if !self.before.as_ref().map_or(self.adjacent.index == 0, below) {
            return Err(TreeError::Order("the neighbour before is missing or not below what was asked for"));
        }
        let end = self.adjacent.index.checked_add(leaves.len() as u64);
        if !self.after.as_ref().map_or(end == Some(self.adjacent.size), above) {
            return Err(TreeError::Order("the neighbour after is missing or not above what was asked for"));
        }
        let hashes: Vec<Hash> = leaves.iter().map(|l| l.hash()).collect();
        self.adjacent.verify(&hashes, root)?;
        Ok(&self.found)
    }
}
