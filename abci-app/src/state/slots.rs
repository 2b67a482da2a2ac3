//! A Merkle tree over an array of slots whose inner nodes are kept, so that a change costs log n hashes.
//!
//! The tree is RFC 6962's: pairing level by level and lifting an odd last node gives the same shape as its split at the
//! largest power of two. A block's changes are computed beside the tree ([`SlotTree::preview`]) and merged at Commit.

use std::collections::{BTreeMap, BTreeSet};

use concordat_protocol::hash::Hash;
use concordat_protocol::tree::{empty_root, node_hash};

/// The nodes a block changes: (level, index) to hash. Level 0 holds the leaves.
pub type NodeChanges = BTreeMap<(u8, u64), Hash>;

/// A tree of leaves by slot number. A number that was never given has no leaf; numbers are given without gaps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlotTree {
    levels: Vec<Vec<Hash>>,
}

impl SlotTree {
    /// The tree over `leaves`.
    pub fn from_leaves(leaves: Vec<Hash>) -> Self {
        let mut tree = Self::default();
        if leaves.is_empty() {
            return tree;
        }
        tree.levels.push(leaves);
        while let Some(below) = tree.levels.last().filter(|l| l.len() > 1) {
            let above = below.chunks(2).map(|pair| pair_hash(&pair[0], pair.get(1))).collect();
            tree.levels.push(above);
        }
        tree
    }

    /// Number of leaves.
    pub fn len(&self) -> u64 {
        self.levels.first().map_or(0, |l| l.len() as u64)
    }

    /// Whether there are no leaves.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The root.
    pub fn root(&self) -> Hash {
        self.levels.last().and_then(|l| l.first()).copied().unwrap_or_else(empty_root)
    }

    fn node(&self, level: u8, index: u64) -> Option<&Hash> {
        self.levels.get(usize::from(level))?.get(usize::try_from(index).ok()?)
    }

    /// The root and the nodes that change when `leaves` are set, without changing the tree.
    /// New slots must continue the array.
    pub fn preview(&self, leaves: &BTreeMap<u64, Hash>) -> (Hash, NodeChanges) {
        let Some(last) = leaves.keys().next_back() else { return (self.root(), NodeChanges::new()) };
        let mut len = self.len().max(last + 1);
        let mut changes: NodeChanges = leaves.iter().map(|(slot, hash)| ((0, *slot), *hash)).collect();
        let mut dirty: BTreeSet<u64> = leaves.keys().copied().collect();
        let mut level = 0u8;
        while len > 1 {
            let mut above = BTreeSet::new();
            for parent in dirty.iter().map(|i| i / 2).collect::<BTreeSet<_>>() {
                let child = |i: u64| changes.get(&(level, i)).or_else(|| self.node(level, i));
                let Some(left) = child(parent * 2) else { continue };
                let right = if parent * 2 + 1 < len { child(parent * 2 + 1) } else { None };
                let hash = pair_hash(left, right);
                changes.insert((level + 1, parent), hash);
                above.insert(parent);
            }
            dirty = above;
            len = len.div_ceil(2);
            level += 1;
        }
        let root = changes.get(&(level, 0)).copied().unwrap_or_else(|| self.root());
        (root, changes)
    }

    /// What undoes the nodes of a [`SlotTree::preview`]: the former nodes and the former length.
    pub fn undo(&self, changes: &NodeChanges) -> SlotUndo {
        let former = |at: &(u8, u64)| self.node(at.0, at.1).map(|hash| (*at, *hash));
        SlotUndo { len: self.len(), nodes: changes.keys().filter_map(former).collect() }
    }

    /// Sets the nodes of a [`SlotTree::preview`].
    pub fn merge(&mut self, changes: NodeChanges) {
        for ((level, index), hash) in changes {
            let (level, index) = (usize::from(level), index as usize);
            while self.levels.len() <= level {
                self.levels.push(Vec::new());
            }
            let row = &mut self.levels[level];
            if index < row.len() {
                row[index] = hash;
            } else {
                row.push(hash);
            }
        }
    }

    /// The inclusion path of a slot, from the leaf up.
    pub fn path(&self, slot: u64) -> Option<Vec<Hash>> {
        path_of(self.len(), slot, |level, index| self.node(level, index).copied())
    }

    /// The inclusion path and root as they were before the changes that `undo` takes back, newest first.
    pub fn path_before(&self, undo: &[&SlotUndo], slot: u64) -> Option<Vec<Hash>> {
        let len = undo.last().map_or(self.len(), |u| u.len);
        path_of(len, slot, |level, index| {
            let old = undo.iter().rev().find_map(|u| u.nodes.get(&(level, index)));
            old.or_else(|| self.node(level, index)).copied()
        })
    }
}

/// What takes one merge back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlotUndo {
    /// Leaves before the merge.
    pub len: u64,
    /// Nodes before the merge, where there were any.
    pub nodes: NodeChanges,
}

fn pair_hash(left: &Hash, right: Option<&Hash>) -> Hash {
    right.map_or(*left, |right| node_hash(left, right))
}

fn path_of(mut len: u64, mut slot: u64, node: impl Fn(u8, u64) -> Option<Hash>) -> Option<Vec<Hash>> {
    if slot >= len {
        return None;
    }
    let mut path = Vec::new();
    let mut level = 0u8;
    while len > 1 {
        let sibling = slot ^ 1;
        if sibling < len {
            path.push(node(level, sibling)?);
        }
        slot /= 2;
        len = len.div_ceil(2);
        level += 1;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use concordat_protocol::tree::{inclusion_path, leaf_hash, root};
    use proptest::prelude::*;

    fn leaf(n: u64) -> Hash {
        leaf_hash(&n.to_be_bytes())
    }

    proptest! {
        #[test]
        fn equals_the_plain_tree_after_any_changes(start in 0u64..70, grow in 0u64..40, touched in proptest::collection::vec(0u64..70, 0..12)) {
            let mut plain: Vec<Hash> = (0..start).map(leaf).collect();
            let mut tree = SlotTree::from_leaves(plain.clone());
            prop_assert_eq!(tree.root(), root(&plain));
            let before = tree.clone();
            let mut changes: BTreeMap<u64, Hash> = touched.into_iter().filter(|t| *t < start).map(|t| (t, leaf(t + 1000))).collect();
            changes.extend((start..start + grow).map(|t| (t, leaf(t))));
            for (slot, hash) in &changes {
                if *slot < start { plain[*slot as usize] = *hash } else { plain.push(*hash) }
            }
            let (new_root, nodes) = tree.preview(&changes);
            prop_assert_eq!(new_root, root(&plain));
            let undo = tree.undo(&nodes);
            tree.merge(nodes);
            prop_assert_eq!(&tree, &SlotTree::from_leaves(plain.clone()));
            for slot in 0..plain.len() {
                prop_assert_eq!(tree.path(slot as u64), inclusion_path(&plain, slot));
            }
            for slot in 0..start {
                prop_assert_eq!(tree.path_before(&[&undo], slot), before.path(slot));
            }
        }
    }
}
