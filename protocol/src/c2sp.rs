//! The operation log in the formats of outside witnesses: C2SP `tlog-tiles`, `tlog-checkpoint`, `signed-note` and
//! `tlog-cosignature` (<https://c2sp.org>). Bytes in, bytes out: who reads or writes files stands elsewhere.
//!
//! A tile is 256 hashes side by side; a bundle is the data of 256 leaves. The data of a leaf is what stands behind the
//! 0x00 of our value leaf ([`leaf_data`]), so that any client of such logs computes our `log` root.

use crate::hash::{Hash, sha256};
use crate::tree;
use core::fmt;
use core::str::FromStr;

mod note;
pub use note::{Note, NoteSignature, TreeHead, VerifierKey, cosignature_text};

#[cfg(test)]
mod tests;

/// Hashes of a full tile, leaves of a full bundle.
pub const TILE_WIDTH: u16 = 256;
/// Levels of hash tiles: 256^8 leaves.
const LEVELS: u8 = 8;
/// Bytes of a leaf's data: length and bytes of the key, length and bytes of the value's hash.
pub const LEAF_DATA_LEN: usize = 42;

/// Why an export or a note was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum C2spError {
    /// A tile that the log needs to go on is not there.
    #[error("{0} is missing: the folder does not hold what its checkpoint says; export into a new folder")]
    Missing(TileId),
    /// A tile's bytes do not fit its place.
    #[error("{tile} {why}: the folder was changed; export into a new folder")]
    Tile {
        /// Which.
        tile: TileId,
        /// What is wrong.
        why: &'static str,
    },
    /// The name of a tile is not written as the specification says.
    #[error("this is no name of a tile: they look like tile/0/x001/234 or tile/entries/000.p/5")]
    Path,
    /// A note is not written as the specification says.
    #[error("the note is malformed: {0}")]
    Note(&'static str),
    /// A verifier key is not written as the specification says.
    #[error("the verifier key is malformed: {0}; it looks like name+1a2b3c4d+base64")]
    Key(&'static str),
    /// The note has no signature line of this key.
    #[error("the note has no signature of {0}")]
    Unsigned(String),
    /// A signature line of this key does not verify.
    #[error("the signature of {0} does not verify: the note was changed, or another key signed it")]
    Signature(String),
}

impl C2spError {
    /// Stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "tile-missing",
            Self::Tile { .. } => "tile",
            Self::Path => "tile-path",
            Self::Note(_) => "note",
            Self::Key(_) => "note-key",
            Self::Unsigned(_) => "note-unsigned",
            Self::Signature(_) => "note-signature",
        }
    }
}

/// The origin line of a chain's log. All agencies export the same log under the same origin: a witness that is fed by
/// two of them notices when they show different ones.
#[must_use]
pub fn origin(chain: &str) -> String {
    format!("concordat.{chain}")
}

/// The data of a log leaf: `uvarint(8) || index u64 BE || 0x20 || SHA-256(value)`. RFC 6962's leaf hash over it is
/// [`tree::value_leaf`] of the entry. It tells nothing of the entry but its place.
#[must_use]
pub fn leaf_data(index: u64, value: &[u8]) -> [u8; LEAF_DATA_LEN] {
    let mut out = [0; LEAF_DATA_LEN];
    let parts: [&[u8]; 4] = [&[8], &index.to_be_bytes(), &[32], &sha256(&[value])];
    out.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
    out
}

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// Data of leaves.
    Entries,
    /// Roots of 256^level leaves each.
    Hashes(u8),
}

/// The place of a tile. Its text is its path: `tile/0/x001/234`, `tile/entries/000.p/5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// What it holds.
    pub layer: Layer,
    /// Its number in the layer.
    pub index: u64,
    /// 1 to 256; below 256 it is partial.
    pub width: u16,
}

impl fmt::Display for TileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Layer::Entries => f.write_str("tile/entries/")?,
            Layer::Hashes(level) => write!(f, "tile/{level}/")?,
        }
        let mut groups = vec![self.index % 1_000];
        let mut rest = self.index / 1_000;
        while rest > 0 {
            groups.push(rest % 1_000);
            rest /= 1_000;
        }
        for group in groups.iter().skip(1).rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", self.index % 1_000)?;
        if self.width < TILE_WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

impl FromStr for TileId {
    type Err = C2spError;

    /// Reads a path. Each tile has one: what would be written otherwise is refused, so that no other path gets through.
    fn from_str(text: &str) -> Result<Self, C2spError> {
        let rest = text.strip_prefix("tile/").ok_or(C2spError::Path)?;
        let (layer, rest) = rest.split_once('/').ok_or(C2spError::Path)?;
        let layer = match layer {
            "entries" => Layer::Entries,
            level => Layer::Hashes(level.parse().map_err(|_| C2spError::Path)?),
        };
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, width.parse().map_err(|_| C2spError::Path)?),
            None => (rest, TILE_WIDTH),
        };
        let mut index = 0u64;
        for group in number.split('/') {
            let group: u64 = group.trim_start_matches('x').parse().map_err(|_| C2spError::Path)?;
            index = index.checked_mul(1_000).and_then(|i| i.checked_add(group)).ok_or(C2spError::Path)?;
        }
        let tile = Self { layer, index, width };
        if width > 0 && width <= TILE_WIDTH && tile.to_string() == text { Ok(tile) } else { Err(C2spError::Path) }
    }
}

/// A tile with its bytes.
pub type Tile = (TileId, Vec<u8>);

/// The right edge of a log in tiles: what a partial tile of each level holds. Full tiles leave it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    /// Hashes of the open tile of each level, fewer than 256.
    levels: Vec<Vec<Hash>>,
    /// The open bundle.
    bundle: Vec<u8>,
}

/// Hashes of the open tile of a level in a log of `size` leaves.
fn open_width(size: u64, level: u8) -> u16 {
    (size.checked_shr(8 * u32::from(level)).unwrap_or(0) & 255) as u16
}

fn open_index(size: u64, level: u8) -> u64 {
    size.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0)
}

/// The partial tiles of a log of `size` leaves, the bundle first: what a reader needs for its root.
#[must_use]
pub fn partial_tiles(size: u64) -> Vec<TileId> {
    let layers = core::iter::once((Layer::Entries, 0)).chain((0..LEVELS).map(|l| (Layer::Hashes(l), l)));
    let tile = |(layer, level)| TileId { layer, index: open_index(size, level), width: open_width(size, level) };
    layers.map(tile).filter(|t| t.width > 0).collect()
}

impl Edge {
    /// A log without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The edge of a log of `size` leaves from its partial tiles ([`partial_tiles`]).
    ///
    /// # Errors
    /// A tile is missing, has another length, or its bundle holds other leaves than its hashes say.
    pub fn resume(size: u64, mut load: impl FnMut(&TileId) -> Option<Vec<u8>>) -> Result<Self, C2spError> {
        let mut edge = Self { size, ..Self::default() };
        for tile in partial_tiles(size) {
            let bytes = load(&tile).ok_or(C2spError::Missing(tile))?;
            match tile.layer {
                Layer::Entries => edge.bundle = bytes,
                Layer::Hashes(level) => {
                    let hashes: Vec<Hash> = bytes.chunks_exact(32).filter_map(|c| c.try_into().ok()).collect();
                    if bytes.len() != usize::from(tile.width) * 32 {
                        return Err(C2spError::Tile { tile, why: "has another length than its width says" });
                    }
                    *edge.level(usize::from(level)) = hashes;
                }
            }
        }
        let open = TileId { layer: Layer::Entries, index: open_index(size, 0), width: open_width(size, 0) };
        let leaves = read_bundle(&edge.bundle).map_err(|why| C2spError::Tile { tile: open, why })?;
        let hashes: Vec<Hash> = leaves.iter().map(|data| tree::leaf_hash(data)).collect();
        if edge.levels.first().map_or(&[][..], Vec::as_slice) != hashes {
            return Err(C2spError::Tile { tile: open, why: "holds other leaves than the hashes beside it" });
        }
        Ok(edge)
    }

    fn level(&mut self, level: usize) -> &mut Vec<Hash> {
        while self.levels.len() <= level {
            self.levels.push(Vec::new());
        }
        &mut self.levels[level]
    }

    /// Leaves so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf; returns the tiles that are full now, mostly none.
    pub fn push(&mut self, data: &[u8; LEAF_DATA_LEN]) -> Vec<Tile> {
        let mut full = Vec::new();
        self.bundle.extend_from_slice(&(LEAF_DATA_LEN as u16).to_be_bytes());
        self.bundle.extend_from_slice(data);
        self.size += 1;
        let mut hash = tree::leaf_hash(data);
        for level in 0..LEVELS {
            let index = open_index(self.size - 1, level);
            let open = self.level(usize::from(level));
            open.push(hash);
            if open.len() < usize::from(TILE_WIDTH) {
                break;
            }
            let hashes = core::mem::take(open);
            hash = tree::root(&hashes);
            if level == 0 {
                let tile = TileId { layer: Layer::Entries, index, width: TILE_WIDTH };
                full.push((tile, core::mem::take(&mut self.bundle)));
            }
            full.push((TileId { layer: Layer::Hashes(level), index, width: TILE_WIDTH }, hashes.concat()));
        }
        full
    }

    /// The partial tiles with their bytes.
    #[must_use]
    pub fn partials(&self) -> Vec<Tile> {
        let bytes = |tile: &TileId| match tile.layer {
            Layer::Entries => self.bundle.clone(),
            Layer::Hashes(level) => self.levels.get(usize::from(level)).map(|l| l.concat()).unwrap_or_default(),
        };
        partial_tiles(self.size).into_iter().map(|tile| (tile, bytes(&tile))).collect()
    }

    /// The log's root (RFC 6962).
    #[must_use]
    pub fn root(&self) -> Hash {
        // Largest perfect subtrees first, as the bits of the size say.
        let mut peaks = Vec::new();
        for open in self.levels.iter().rev() {
            let mut rest = open.as_slice();
            while !rest.is_empty() {
                let (peak, more) = rest.split_at(1 << rest.len().ilog2());
                peaks.push(tree::root(peak));
                rest = more;
            }
        }
        peaks.into_iter().rev().reduce(|right, left| tree::node_hash(&left, &right)).unwrap_or_else(tree::empty_root)
    }
}

/// The leaves of a bundle: `u16be(length) || data`, one after another.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read_bundle(mut bytes: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    let mut leaves = Vec::new();
    while !bytes.is_empty() {
        let (len, rest) = bytes.split_first_chunk::<2>().ok_or("ends within a length")?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (data, rest) = rest.split_at_checked(len).ok_or("ends within an entry")?;
        leaves.push(data);
        bytes = rest;
    }
    Ok(leaves)
}
