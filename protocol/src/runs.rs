//! The subject index: runs of tagged operations, each a sorted tree, from which complete lists and absence are proven
//! (PROTOCOL 4).
//!
//! An operation that carries tags adds one entry a tag to the open run. A closed run covers the log from its first index up
//! to its end index, and the runs follow one another without a gap: a list over all of them is complete up to the last end.

use crate::canon_struct;
use crate::cbor;
use crate::hash::Hash;
use crate::node::{LeafProof, StoreRoots};
use crate::ops::Tag;
use crate::tree::{SortedLeaf, SortedProof, TreeError, value_leaf, verify_inclusion};

/// Under this tag stand the operations whose tags travel as `bulk`: each may include anybody.
pub const BULK_TAG: Tag = [0; 16];

/// Entries at which a run closes before its time.
pub const RUN_ENTRIES_MAX: u64 = 1 << 20;

canon_struct! {
    /// A closed run: the value of its leaf in `runs`.
    pub struct RunView {
        /// First log index it covers.
        pub first_index: u64,
        /// First log index it does not cover.
        pub end_index: u64,
        /// Tick of the run's first entry, milliseconds.
        pub from_ms: u64,
        /// Tick at which it closed, milliseconds.
        pub to_ms: u64,
        /// Its entries.
        pub count: u64,
        /// Root of the sorted tree over them.
        pub root: Hash,
    }
}

impl RunView {
    /// The log index of every operation that the run holds under a tag, with the hash that the operation's leaf has
    /// there ([`SortedLeaf::value_hash`]). The caller has made sure of the run itself.
    ///
    /// # Errors
    /// The list is not the complete one of this run and tag.
    pub fn found(&self, tag: &Tag, list: &SortedProof) -> Result<Vec<(u64, Hash)>, TreeError> {
        if list.adjacent.size != self.count {
            return Err(TreeError::Order("the list is over another number of entries than the run has"));
        }
        let index = |l: &SortedLeaf| l.key.get(16..24).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
        let one = |l: &SortedLeaf| index(l).filter(|_| l.key.len() == 24).map(|i| (i, l.value_hash));
        let found: Option<Vec<_>> = list.verify(tag, &self.root)?.iter().map(one).collect();
        let found = found.ok_or(TreeError::Order("an entry's key is not tag and index"))?;
        if found.iter().all(|(i, _)| (self.first_index..self.end_index).contains(i)) {
            Ok(found)
        } else {
            Err(TreeError::Order("an entry lies outside the run"))
        }
    }
}

/// Key of a run's leaf in `runs`: its number, from 0, as 8 bytes.
#[must_use]
pub const fn run_key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Key of an entry in its run's tree: tag and log index.
#[must_use]
pub fn entry_key(tag: &Tag, index: u64) -> Vec<u8> {
    [&tag[..], &index.to_be_bytes()].concat()
}

/// An entry of a run: the value under its key is the operation's hash.
#[must_use]
pub fn entry_leaf(tag: &Tag, index: u64, op_hash: &Hash) -> SortedLeaf {
    SortedLeaf::new(&entry_key(tag, index), op_hash)
}

canon_struct! {
    /// Everything that one run holds under one tag, with proof: an empty list proves that nothing is there.
    pub struct RunProof {
        /// The height whose app hash the proof leads to.
        pub height: u64,
        /// Roots at that height.
        pub roots: StoreRoots,
        /// The run's leaf in `runs`.
        pub run: LeafProof,
        /// The entries under the tag.
        pub list: SortedProof,
    }
}

impl RunProof {
    /// The run, and the log indexes of all its operations under the tag. The caller has checked `roots` against a header,
    /// and compares each operation with the log.
    ///
    /// # Errors
    /// The run's leaf does not lead to the root, is another run, or the list is not complete.
    pub fn verify(&self, number: u64, tag: &Tag) -> Result<(RunView, Vec<u64>), TreeError> {
        if self.run.key.0 != run_key(number) || self.run.index != number {
            return Err(TreeError::Order("the proof is of another run"));
        }
        let leaf = value_leaf(&self.run.key, &self.run.value);
        verify_inclusion(&leaf, self.run.index, self.run.size, &self.run.path, &self.roots.runs)?;
        let run: RunView =
            cbor::decode(&self.run.value).map_err(|_| TreeError::Order("the run's leaf does not decode"))?;
        let indexes = run.found(tag, &self.list)?.into_iter().map(|(index, _)| index).collect();
        Ok((run, indexes))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tree::{inclusion_path, root};
    use proptest::prelude::*;

    fn tag(n: u8) -> Tag {
        [n; 16]
    }

    /// A proof over a run of these (tag, index), as the second of three runs.
    fn proof(entries: &[(u8, u64)], asked: u8) -> RunProof {
        let mut leaves: Vec<SortedLeaf> = entries.iter().map(|(t, i)| entry_leaf(&tag(*t), *i, &[9; 32])).collect();
        leaves.sort_by(|a, b| a.key.cmp(&b.key));
        let hashes: Vec<Hash> = leaves.iter().map(SortedLeaf::hash).collect();
        let view =
            |root| RunView { first_index: 10, end_index: 90, from_ms: 1, to_ms: 2, count: entries.len() as u64, root };
        let runs: Vec<Vec<u8>> = [[1; 32], root(&hashes), [3; 32]].iter().map(|r| cbor::encode(&view(*r))).collect();
        let tree: Vec<Hash> = runs.iter().enumerate().map(|(i, v)| value_leaf(&run_key(i as u64), v)).collect();
        let roots = StoreRoots { heads: [0; 32], log: [0; 32], meta: [0; 32], runs: root(&tree) };
        let (key, value) = (run_key(1).to_vec().into(), runs[1].clone().into());
        let run = LeafProof { key, value, index: 1, size: 3, path: inclusion_path(&tree, 1).unwrap() };
        RunProof { height: 7, roots, run, list: SortedProof::prove(&leaves, &tag(asked)).unwrap() }
    }

    #[test]
    fn a_list_is_complete_and_absence_is_proven() {
        let entries = [(1, 10), (2, 11), (2, 40), (2, 41), (4, 12)];
        let (run, found) = proof(&entries, 2).verify(1, &tag(2)).unwrap();
        assert_eq!((run.end_index, found), (90, vec![11, 40, 41]));
        assert_eq!(proof(&entries, 3).verify(1, &tag(3)).unwrap().1, Vec::<u64>::new());
        // An entry left out, another run, another tag, an altered run.
        let mut cut = proof(&entries, 2);
        cut.list.found.remove(1);
        assert!(cut.verify(1, &tag(2)).is_err());
        assert!(proof(&entries, 2).verify(0, &tag(2)).is_err());
        assert!(proof(&entries, 2).verify(1, &tag(3)).is_err());
        let mut other = proof(&entries, 2);
        other.run.value.0[3] ^= 1;
        assert!(other.verify(1, &tag(2)).is_err());
    }

    proptest! {
        /// Whatever a run holds, the list of a tag is what was put there, and no cut of it passes.
        #[test]
        fn lists_are_what_was_entered(entries in proptest::collection::btree_set((0u8..6, 10u64..90), 0..40), asked in 0u8..6, cut in 0usize..40) {
            let entries: Vec<(u8, u64)> = entries.into_iter().collect();
            let want: Vec<u64> = entries.iter().filter(|(t, _)| *t == asked).map(|(_, i)| *i).collect();
            let made = proof(&entries, asked);
            prop_assert_eq!(made.verify(1, &tag(asked)).unwrap().1, want.clone());
            if cut < want.len() {
                let mut less = made;
                less.list.found.remove(cut);
                prop_assert!(less.verify(1, &tag(asked)).is_err());
            }
        }
    }
}
