//! A closed run in order: what its root is made of, and what its lists are proven from ever after (PROTOCOL 4).

use std::collections::BTreeMap;

use concordat_protocol::hash::Hash;
use concordat_protocol::ops::Tag;
use concordat_protocol::runs::entry_key;
use concordat_protocol::tree::{Frontier, SortedLeaf};

use crate::tiles::{STEP, TILE_HASHES, TileKey};

/// Bytes of an entry: tag, log index, hash of the operation.
pub const ENTRY_BYTES: usize = KEY_BYTES + 32;
const KEY_BYTES: usize = 16 + 8;

/// An entry of a run as it is stored. Keys are distinct, so entries order as their keys do.
pub type Entry = [u8; ENTRY_BYTES];

/// The entry of a tag at a log index.
pub fn entry(tag: &Tag, index: u64, op_hash: &Hash) -> Entry {
    let mut out = [0; ENTRY_BYTES];
    out[..KEY_BYTES].copy_from_slice(&entry_key(tag, index));
    out[KEY_BYTES..].copy_from_slice(op_hash);
    out
}

/// Key of an entry.
pub fn key(entry: &Entry) -> &[u8] {
    &entry[..KEY_BYTES]
}

/// Leaf of an entry in its run's tree.
pub fn leaf(entry: &Entry) -> SortedLeaf {
    SortedLeaf::new(key(entry), &entry[KEY_BYTES..])
}

/// A run's entries by key, with their tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortedRun {
    /// By key.
    pub entries: Vec<Entry>,
    /// Tiles above the leaves: those are made again from the entries, 256 at a time.
    pub tiles: BTreeMap<TileKey, Vec<Hash>>,
    /// Root of the tree.
    pub root: Hash,
}

impl SortedRun {
    /// Rows of 256 entries.
    pub fn rows(&self) -> usize {
        self.entries.len().div_ceil(TILE_HASHES as usize)
    }

    /// Sorts a run's entries.
    pub fn of(mut entries: Vec<Entry>) -> Self {
        entries.sort_unstable();
        let (mut tree, mut tiles) = (Frontier::new(), BTreeMap::<TileKey, Vec<Hash>>::new());
        for entry in &entries {
            tree.push_with(leaf(entry).hash(), |level, index, hash| {
                if level > 0 && level % STEP == 0 {
                    tiles.entry((level / STEP, index / TILE_HASHES)).or_default().push(*hash);
                }
            });
        }
        Self { entries, tiles, root: tree.root() }
    }
}
