//! Lists of runs in state, proven from a few rows whatever the run's size.

use std::cell::RefCell;

use concordat_protocol::tree::{AdjacentProof, SortedProof};

use super::*;
use crate::sorted::{ENTRY_BYTES, key, leaf};
use crate::tiles::Subtrees;

/// A run in state.
struct SortedRows<'a> {
    reader: &'a Reader<'a>,
    rows: redb::ReadOnlyTable<(u64, u64), &'static [u8]>,
    trees: redb::ReadOnlyTable<(u64, u8, u64), &'static [u8]>,
    number: u64,
    /// The newest row whose leaves were hashed: neighbours of a list ask for it level by level.
    hashed: RefCell<Option<(u64, Vec<Hash>)>>,
}

impl SortedRows<'_> {
    /// A row's entries; none past the run's end.
    fn row(&self, at: u64) -> Result<Vec<Entry>, StoreError> {
        let found = self.rows.get((self.number, at)).map_err(|e| self.reader.store.failed(e))?;
        let Some(found) = found else { return Ok(Vec::new()) };
        let (entries, rest) = found.value().as_chunks::<ENTRY_BYTES>();
        if rest.is_empty() { Ok(entries.to_vec()) } else { Err(self.reader.store.damaged("a run's row is cut off")) }
    }

    /// How many entries have keys below the prefix.
    fn below(&self, prefix: &[u8], count: u64) -> Result<u64, StoreError> {
        let (mut from, mut to) = (0, count.div_ceil(TILE_HASHES));
        // The last row that begins below the prefix holds the border.
        while to - from > 1 {
            let middle = from + (to - from) / 2;
            if self.row(middle)?.first().is_some_and(|e| key(e) < prefix) {
                from = middle;
            } else {
                to = middle;
            }
        }
        Ok(from * TILE_HASHES + self.row(from)?.partition_point(|e| key(e) < prefix) as u64)
    }

    /// The entries with the prefix and their neighbours, and the index of the first.
    fn shown(&self, prefix: &[u8], count: u64) -> Result<(u64, Vec<Entry>), StoreError> {
        let first = self.below(prefix, count)?;
        let from = first.saturating_sub(1);
        let (mut out, mut row) = (Vec::new(), from / TILE_HASHES);
        let mut skip = (from % TILE_HASHES) as usize;
        loop {
            let entries = self.row(row)?;
            if entries.is_empty() {
                return Ok((from, out));
            }
            for entry in entries.into_iter().skip(skip) {
                let past = key(&entry) > prefix && !key(&entry).starts_with(prefix);
                out.push(entry);
                if past {
                    return Ok((from, out));
                }
            }
            (row, skip) = (row + 1, 0);
        }
    }
}

impl TileSource for SortedRows<'_> {
    fn tile(&self, tile: TileKey) -> Option<Vec<Hash>> {
        let (level, index) = tile;
        if level > 0 {
            return self.trees.get((self.number, level, index)).ok()?.map(|v| split_tile(v.value()));
        }
        if let Some((at, hashes)) = &*self.hashed.borrow()
            && *at == index
        {
            return Some(hashes.clone());
        }
        let hashes: Vec<Hash> = self.row(index).ok()?.iter().map(|e| leaf(e).hash()).collect();
        *self.hashed.borrow_mut() = Some((index, hashes.clone()));
        Some(hashes)
    }
}

impl Reader<'_> {
    /// All entries of a run in state whose keys begin with a prefix, with proof; `count` is the run's.
    ///
    /// # Errors
    /// Database trouble or damage.
    pub fn list(&self, number: u64, count: u64, prefix: &[u8]) -> Result<SortedProof, StoreError> {
        let (rows, trees) = (self.table(RUN_SORTED)?, self.table(RUN_TREES)?);
        let run = SortedRows { reader: self, rows, trees, number, hashed: RefCell::new(None) };
        let (from, shown) = run.shown(prefix, count)?;
        let adjacent = AdjacentProof::prove_from(&Subtrees(&run), from, shown.len() as u64, count)
            .map_err(|e| self.store.damaged(format!("run {number}: {e}")))?;
        let (mut before, mut found, mut after) = (None, Vec::new(), None);
        for entry in &shown {
            if key(entry).starts_with(prefix) {
                found.push(leaf(entry));
            } else if key(entry) < prefix {
                before = Some(leaf(entry));
            } else {
                after = Some(leaf(entry));
            }
        }
        Ok(SortedProof { before, found, after, adjacent })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::write::write_sorted;
    use super::*;
    use concordat_protocol::tree::SortedLeaf;

    /// Entries of tags 2, 4, 6 ...: `each` of every one.
    fn run(tags: u8, each: u64) -> SortedRun {
        let entries = (0..each).flat_map(|index| (1..=tags).map(move |t| entry(&[t * 2; 16], index, &[t; 32])));
        SortedRun::of(entries.collect())
    }

    #[test]
    fn lists_are_the_same_as_over_all_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.redb")).unwrap();
        let runs = [run(1, 1), run(1, 256), run(3, 171), run(5, 700), run(100, 3)];
        let write = store.db.begin_write().unwrap();
        for (number, run) in runs.iter().enumerate() {
            write_sorted(&write, number as u64, run, 0).unwrap();
        }
        write.commit().unwrap();
        let reader = store.reader().unwrap();
        for (number, run) in runs.iter().enumerate() {
            let leaves: Vec<SortedLeaf> = run.entries.iter().map(leaf).collect();
            for tag in 0..=202u8 {
                let proof = reader.list(number as u64, run.entries.len() as u64, &[tag; 16]).unwrap();
                assert_eq!(proof, SortedProof::prove(&leaves, &[tag; 16]).unwrap(), "run {number}, tag {tag}");
                proof.verify(&[tag; 16], &run.root).unwrap();
            }
        }
    }
}
