//! An inclusion path with one encoding only.

use crate::canon_struct;
use crate::hash::Hash;
use crate::tree::{self, TreeError};

canon_struct! {
    /// From a leaf hash to a root: at step k the hash `hashes[k]` stands left where bit k of `sides` is 1, else right.
    ///
    /// An RFC 6962 path with index and size says the same in several ways (nothing signs the size); this says it in one.
    pub struct Path {
        /// On which side the hashes stand.
        pub sides: u64,
        /// The hashes, nearest to the leaf first.
        pub hashes: Vec<Hash>,
    }
}

impl Path {
    /// The path of a leaf at `index` in a tree of `size` leaves (RFC 9162, 2.1.3.2).
    ///
    /// # Errors
    /// Index outside, or a number of hashes that does not fit.
    pub fn of(index: u64, size: u64, hashes: &[Hash]) -> Result<Self, TreeError> {
        // Refuses what does not fit; the root itself does not matter here.
        tree::root_of_path(&[0; 32], index, size, hashes)?;
        let (mut at, mut last, mut sides) = (index, size - 1, 0);
        for k in 0..hashes.len() {
            if at & 1 == 1 || at == last {
                sides |= 1 << k;
                while at & 1 == 0 && at != 0 {
                    at >>= 1;
                    last >>= 1;
                }
            }
            at >>= 1;
            last >>= 1;
        }
        Ok(Self { sides, hashes: hashes.to_vec() })
    }

    /// The root it leads to from a leaf hash.
    ///
    /// # Errors
    /// More than 63 hashes, or a side for a hash that is not there.
    pub fn root(&self, leaf: &Hash) -> Result<Hash, TreeError> {
        let len = self.hashes.len();
        if len > 63 {
            return Err(TreeError::PathLength { got: len });
        }
        // In a full tree the sides are the bits of the index.
        tree::root_of_path(leaf, self.sides, 1 << len, &self.hashes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_path_of_every_small_tree_leads_to_its_root() {
        for size in 1..40u64 {
            let leaves: Vec<Hash> = (0..size).map(|i| tree::leaf_hash(&i.to_be_bytes())).collect();
            let root = tree::root(&leaves);
            for (i, leaf) in leaves.iter().enumerate() {
                let hashes = tree::inclusion_path(&leaves, i).unwrap();
                let path = Path::of(i as u64, size, &hashes).unwrap();
                assert_eq!(path.root(leaf).unwrap(), root, "leaf {i} of {size}");
                for k in 0..6 {
                    let other = Path { sides: path.sides ^ (1 << k), hashes: hashes.clone() };
                    assert_ne!(other.root(leaf).ok(), Some(root), "leaf {i} of {size}, side {k}");
                }
            }
        }
    }

    #[test]
    fn a_path_that_does_not_fit_is_refused() {
        assert!(Path::of(0, 0, &[]).is_err());
        assert!(Path::of(3, 3, &[]).is_err());
        assert!(Path::of(0, 4, &[[0; 32]]).is_err());
        assert!(Path { sides: 0, hashes: vec![[0; 32]; 64] }.root(&[0; 32]).is_err());
    }
}
