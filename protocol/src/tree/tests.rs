#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;
use crate::cbor::{decode, encode};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// RFC 6962, 2.1, word for word.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [one] => *one,
        many => {
            let mut k = 1;
            while k * 2 < many.len() {
                k *= 2;
            }
            sha256(&[&[1], &naive_root(&many[..k]), &naive_root(&many[k..])])
        }
    }
}

/// RFC 6962, 2.1.1, word for word.
fn naive_path(m: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return vec![];
    }
    let mut k = 1;
    while k * 2 < leaves.len() {
        k *= 2;
    }
    let (near, far) = if m < k {
        (naive_path(m, &leaves[..k]), naive_root(&leaves[k..]))
    } else {
        (naive_path(m - k, &leaves[k..]), naive_root(&leaves[..k]))
    };
    near.into_iter().chain([far]).collect()
}

fn leaves(n: usize) -> Vec<Hash> {
    (0..n as u64).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

struct Tiles(BTreeMap<(u8, u64), Hash>);
impl SubtreeSource for Tiles {
    fn subtree(&self, level: u8, index: u64) -> Option<Hash> {
        self.0.get(&(level, index)).copied()
    }
}

fn grown(leaves: &[Hash]) -> (Frontier, Tiles) {
    let (mut frontier, mut tiles) = (Frontier::new(), BTreeMap::new());
    for leaf in leaves {
        frontier.push_with(*leaf, |level, index, hash| {
            assert!(tiles.insert((level, index), *hash).is_none(), "reported twice");
        });
    }
    (frontier, Tiles(tiles))
}

#[test]
fn rfc_6962_published_roots() {
    // The vectors of the certificate-transparency reference tests.
    let data: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let hashes: Vec<Hash> = data.iter().map(|d| leaf_hash(d)).collect();
    for (n, want) in [
        (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        (3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        (7, "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
        (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ] {
        assert_eq!(hex::encode(root(&hashes[..n])), want);
    }
}

#[test]
fn value_leaf_is_cometbfts() {
    // len || key || len || sha256(value) under the leaf prefix, key longer than one varint byte too.
    let key = vec![7u8; 300];
    let mut data = vec![0xac, 0x02];
    data.extend_from_slice(&key);
    data.push(32);
    data.extend_from_slice(&sha256(&[b"v"]));
    assert_eq!(value_leaf(&key, b"v"), leaf_hash(&data));
}

#[test]
fn a_source_with_a_hole_is_an_error() {
    let hashes = leaves(11);
    let (_, mut tiles) = grown(&hashes);
    tiles.0.remove(&(3, 0));
    assert_eq!(root_from(&tiles, 11), Err(TreeError::Missing { level: 3, index: 0 }));
    assert_eq!(inclusion_path_from(&tiles, 11, 11), Err(TreeError::Index { index: 11, size: 11 }));
}

#[test]
fn frontier_with_wrong_peaks_is_refused() {
    assert_eq!(Frontier::from_parts(3, vec![[0; 32]]), Err(TreeError::Frontier { size: 3, peaks: 1 }));
    let bytes = encode(&(3u64, vec![[0u8; 32]]));
    assert!(decode::<Frontier>(&bytes).is_err());
}

#[test]
fn every_small_tree_agrees_with_the_rfc() {
    for n in 0..=40usize {
        let hashes = leaves(n);
        let want = naive_root(&hashes);
        let (frontier, tiles) = grown(&hashes);
        assert_eq!((root(&hashes), frontier.root(), root_from(&tiles, n as u64).unwrap()), (want, want, want));
        assert_eq!(decode::<Frontier>(&encode(&frontier)).unwrap(), frontier);
        for i in 0..n {
            let path = inclusion_path(&hashes, i).unwrap();
            assert_eq!(path, naive_path(i, &hashes));
            assert_eq!(path, inclusion_path_from(&tiles, i as u64, n as u64).unwrap());
            verify_inclusion(&hashes[i], i as u64, n as u64, &path, &want).unwrap();
        }
        assert!(inclusion_path(&hashes, n).is_none());
    }
}

#[test]
fn every_run_of_neighbours_is_proven_and_no_other() {
    for n in 1..=17u64 {
        let hashes = leaves(n as usize);
        let top = root(&hashes);
        for index in 0..n {
            for count in 1..=n - index {
                let proof = AdjacentProof::prove(&hashes, index, count).unwrap();
                let shown = &hashes[index as usize..(index + count) as usize];
                proof.verify(shown, &top).unwrap();
                if count > 2 {
                    let gap: Vec<Hash> = [&shown[..1], &shown[2..]].concat();
                    assert!(proof.verify(&gap, &top).is_err());
                    let swapped: Vec<Hash> = shown.iter().rev().copied().collect();
                    assert_eq!(proof.verify(&swapped, &top), Err(TreeError::Root));
                }
            }
        }
        assert!(AdjacentProof::prove(&hashes, 0, 0).is_none());
        assert!(AdjacentProof::prove(&hashes, 1, n).is_none());
    }
    let empty = AdjacentProof::prove(&[], 0, 0).unwrap();
    empty.verify(&[], &empty_root()).unwrap();
    assert_eq!(empty.verify(&[], &root(&leaves(1))), Err(TreeError::Root));
}

fn sorted(keys: &BTreeSet<Vec<u8>>) -> (Vec<SortedLeaf>, Hash) {
    let leaves: Vec<SortedLeaf> = keys.iter().map(|k| SortedLeaf::new(k, b"v")).collect();
    let top = root(&leaves.iter().map(SortedLeaf::hash).collect::<Vec<_>>());
    (leaves, top)
}

fn keys() -> impl Strategy<Value = BTreeSet<Vec<u8>>> {
    proptest::collection::btree_set(proptest::collection::vec(0u8..4, 1..4), 0..24)
}

proptest! {
    #[test]
    fn larger_trees_agree_with_the_rfc(n in 0usize..700, at in any::<proptest::sample::Index>()) {
        let hashes = leaves(n);
        let want = naive_root(&hashes);
        let (frontier, tiles) = grown(&hashes);
        prop_assert_eq!(frontier.root(), want);
        prop_assert_eq!(root_from(&tiles, n as u64).unwrap(), want);
        if n > 0 {
            let i = at.index(n);
            let path = inclusion_path_from(&tiles, i as u64, n as u64).unwrap();
            prop_assert_eq!(&path, &naive_path(i, &hashes));
            verify_inclusion(&hashes[i], i as u64, n as u64, &path, &want).unwrap();
        }
    }

    /// Whatever is changed in a proof (leaf, index, a hash, the number of hashes, the root), it is refused.
    #[test]
    fn a_changed_proof_is_refused(n in 2usize..200, at in any::<proptest::sample::Index>(), hit in any::<proptest::sample::Index>(), bit in 0u8..8, byte in 0usize..32) {
        let hashes = leaves(n);
        let top = root(&hashes);
        let i = at.index(n);
        let path = inclusion_path(&hashes, i).unwrap();
        let flip = |h: &Hash| { let mut h = *h; h[byte] ^= 1 << bit; h };
        let (i, size) = (i as u64, n as u64);
        let mut other = path.clone();
        let k = hit.index(path.len());
        other[k] = flip(&path[k]);
        prop_assert_eq!(verify_inclusion(&hashes[i as usize], i, size, &other, &top), Err(TreeError::Root));
        prop_assert_eq!(verify_inclusion(&flip(&hashes[i as usize]), i, size, &path, &top), Err(TreeError::Root));
        prop_assert_eq!(verify_inclusion(&hashes[i as usize], i, size, &path, &flip(&top)), Err(TreeError::Root));
        prop_assert!(verify_inclusion(&hashes[i as usize], i, size, &path[1..], &top).is_err());
        let mut longer = path.clone();
        longer.push([0; 32]);
        prop_assert!(verify_inclusion(&hashes[i as usize], i, size, &longer, &top).is_err());
        prop_assert!(verify_inclusion(&hashes[i as usize], (i + 1) % size, size, &path, &top).is_err());
        prop_assert!(verify_inclusion(&hashes[i as usize], size, size, &path, &top).is_err());
    }

    /// A list for a prefix holds exactly the leaves with it, and every shortened or stretched list is refused.
    #[test]
    fn lists_are_complete(keys in keys(), prefix in proptest::collection::vec(0u8..4, 1..3)) {
        let (leaves, top) = sorted(&keys);
        let proof = SortedProof::prove(&leaves, &prefix).unwrap();
        let want: Vec<&Vec<u8>> = keys.iter().filter(|k| k.starts_with(&prefix)).collect();
        let got = proof.verify(&prefix, &top).unwrap();
        prop_assert_eq!(got.iter().map(|l| &l.key.0).collect::<Vec<_>>(), want);
        prop_assert_eq!(&decode::<SortedProof>(&encode(&proof)).unwrap(), &proof);
        // Leaving out any leaf, or moving one across the border, is noticed.
        for i in 0..proof.found.len() {
            let mut less = proof.clone();
            less.found.remove(i);
            prop_assert!(less.verify(&prefix, &top).is_err());
        }
        if let Some(first) = proof.found.first() {
            let mut moved = proof.clone();
            moved.before = Some(first.clone());
            moved.found.remove(0);
            prop_assert!(moved.verify(&prefix, &top).is_err());
        }
        for drop_before in [true, false] {
            let mut bare = proof.clone();
            let gone = if drop_before { bare.before.take() } else { bare.after.take() };
            if gone.is_some() {
                prop_assert!(bare.verify(&prefix, &top).is_err());
                if drop_before { bare.adjacent.index += 1; } else { bare.adjacent.size -= 1; }
                prop_assert!(bare.verify(&prefix, &top).is_err());
            }
        }
    }

    /// A true proof for another part of the tree never shows absence of a key that is there.
    #[test]
    fn a_present_key_is_never_absent(keys in keys(), from in 0u64..24, count in 1u64..4, fake_size in 0u64..40, fake_index in 0u64..40) {
        let (leaves, top) = sorted(&keys);
        let hashes: Vec<Hash> = leaves.iter().map(SortedLeaf::hash).collect();
        let Some(adjacent) = AdjacentProof::prove(&hashes, from, count) else { return Ok(()) };
        let shown: Vec<SortedLeaf> = leaves[from as usize..(from + count) as usize].to_vec();
        for key in &keys {
            let split = shown.partition_point(|l| l.key.0 < *key);
            for (before, after) in [(shown[..split].last(), shown.get(split)), (shown.last(), None), (None, shown.first())] {
                for (index, size) in [(adjacent.index, adjacent.size), (0, adjacent.size), (fake_index, fake_size)] {
                    let claim = SortedProof {
                        before: before.cloned(), found: vec![], after: after.cloned(),
                        adjacent: AdjacentProof { index, size, siblings: adjacent.siblings.clone() },
                    };
                    prop_assert!(claim.verify(key, &top).is_err());
                }
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), n in 0u64..=u64::MAX, path in proptest::collection::vec(any::<[u8; 32]>(), 0..70)) {
        if let Ok(f) = decode::<Frontier>(&bytes) { prop_assert_eq!(encode(&f), bytes.clone()); }
        if let Ok(p) = decode::<SortedProof>(&bytes) { prop_assert_eq!(encode(&p), bytes.clone()); }
        if let Ok(p) = decode::<AdjacentProof>(&bytes) { prop_assert_eq!(encode(&p), bytes); }
        prop_assert!(verify_inclusion(&[0; 32], n / 2, n, &path, &[0; 32]).is_err());
        let proof = AdjacentProof { index: n / 3, size: n, siblings: path };
        prop_assert!(proof.verify(&[[0; 32]], &[1; 32]).is_err());
    }
}
