//! The log's tree in tiles: a tile holds the 256 hashes of one stretch of one tree level, every fourth level. A path then
//! makes eleven hashes for four levels again; with every eighth level it would be 247 for eight, at 2 bytes an entry less.
//!
//! Only complete subtrees enter a tile, so a tile never changes but by growing, and the inclusion proof of any entry at
//! any size is answered from a few tiles, never from the log itself.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use concordat_protocol::hash::Hash;
use concordat_protocol::tree::{Frontier, SubtreeSource, node_hash};

/// Hashes a tile holds when it is full.
pub const TILE_HASHES: u64 = 256;
/// Tree levels between two tile levels.
pub const STEP: u8 = 4;

/// A tile's place: (tile level, index). Tile level t holds the hashes of subtrees of 2^(4 t) leaves.
pub type TileKey = (u8, u64);

/// Reads tiles that are stored.
pub trait TileSource {
    /// The hashes of a tile, fewer than 256 for the newest of its level; `None` when there is none.
    fn tile(&self, key: TileKey) -> Option<Vec<Hash>>;
}

impl TileSource for BTreeMap<TileKey, Vec<Hash>> {
    fn tile(&self, key: TileKey) -> Option<Vec<Hash>> {
        self.get(&key).cloned()
    }
}

/// A perfect subtree that a growing log completed, at a level that tiles keep: (tile level, index, hash).
pub type Completed = (u8, u64, Hash);

/// Appends a leaf to the log's right edge and notes the hashes that tiles keep.
pub fn push(frontier: &mut Frontier, leaf: Hash, completed: &mut Vec<Completed>) {
    frontier.push_with(leaf, |level, index, hash| {
        if level % STEP == 0 {
            completed.push((level / STEP, index, *hash));
        }
    });
}

/// The tiles that change by what a block completed, whole, ready to be stored.
pub fn grow(source: &impl TileSource, completed: &[Completed]) -> BTreeMap<TileKey, Vec<Hash>> {
    let mut changed: BTreeMap<TileKey, Vec<Hash>> = BTreeMap::new();
    for (level, index, hash) in completed {
        let key = (*level, index / TILE_HASHES);
        let tile = changed.entry(key).or_insert_with(|| source.tile(key).unwrap_or_default());
        tile.truncate((index % TILE_HASHES) as usize);
        tile.push(*hash);
    }
    changed
}

/// The root of a perfect tree over a power of two of hashes.
fn fold(hashes: &[Hash]) -> Hash {
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level.chunks_exact(2).map(|p| node_hash(&p[0], &p[1])).collect();
    }
    level.first().copied().unwrap_or_default()
}

/// Tiles that were read, kept for the next proof of the same answer.
pub struct Kept<'a, S> {
    source: &'a S,
    tiles: RefCell<BTreeMap<TileKey, Vec<Hash>>>,
}

impl<'a, S: TileSource> Kept<'a, S> {
    /// Keeps what is read from a source that does not change meanwhile.
    pub fn new(source: &'a S) -> Self {
        Self { source, tiles: RefCell::default() }
    }
}

impl<S: TileSource> SubtreeSource for Kept<'_, S> {
    fn subtree(&self, level: u8, index: u64) -> Option<Hash> {
        let place = place(level, index)?;
        let mut tiles = self.tiles.borrow_mut();
        let hashes = match tiles.entry(place.tile) {
            Entry::Occupied(kept) => kept.into_mut(),
            Entry::Vacant(free) => free.insert(self.source.tile(place.tile)?),
        };
        hashes.get(place.hashes).map(fold)
    }
}

/// Where a subtree's hashes stand.
struct Place {
    tile: TileKey,
    hashes: Range<usize>,
}

fn place(level: u8, index: u64) -> Option<Place> {
    let within = level % STEP;
    let first = index.checked_shl(u32::from(within))?;
    let from = (first % TILE_HASHES) as usize;
    Some(Place { tile: (level / STEP, first / TILE_HASHES), hashes: from..from + (1usize << within) })
}

/// Answers for perfect subtrees out of tiles.
pub struct Subtrees<'a, S>(pub &'a S);

impl<S: TileSource> SubtreeSource for Subtrees<'_, S> {
    fn subtree(&self, level: u8, index: u64) -> Option<Hash> {
        let place = place(level, index)?;
        self.0.tile(place.tile)?.get(place.hashes).map(fold)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use concordat_protocol::tree::{inclusion_path_from, leaf_hash, root, root_from, verify_inclusion};

    #[test]
    fn proofs_for_any_size_come_from_tiles_alone() {
        let leaves: Vec<Hash> = (0..1500u64).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        let mut tiles: BTreeMap<TileKey, Vec<Hash>> = BTreeMap::new();
        let (mut frontier, mut size) = (Frontier::new(), 0usize);
        for step in [1usize, 2, 253, 1, 255, 300, 688] {
            let mut completed = Vec::new();
            leaves[size..size + step].iter().for_each(|leaf| push(&mut frontier, *leaf, &mut completed));
            let new = grow(&tiles, &completed);
            assert_eq!(grow(&tiles, &completed), new);
            tiles.extend(new);
            size += step;
            assert_eq!(root_from(&Subtrees(&tiles), size as u64).unwrap(), root(&leaves[..size]));
        }
        assert_eq!(size, 1500);
        for at in [1u64, 2, 255, 256, 257, 512, 1024, 1499, 1500] {
            let want = root(&leaves[..at as usize]);
            for index in [0, at / 3, at / 2, at - 1] {
                let path = inclusion_path_from(&Subtrees(&tiles), index, at).unwrap();
                verify_inclusion(&leaves[index as usize], index, at, &path, &want).unwrap();
            }
        }
        assert!(tiles.values().all(|t| t.len() <= 256));
    }
}
