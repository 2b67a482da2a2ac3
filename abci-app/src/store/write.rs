//! What Commit writes.

use super::evidence::write_evidence;
use super::*;
use std::ops::Range;

struct WriteTiles<'a>(&'a redb::Table<'a, (u8, u64), &'static [u8]>);

impl TileSource for WriteTiles<'_> {
    fn tile(&self, key: TileKey) -> Option<Vec<Hash>> {
        self.0.get(key).ok().flatten().map(|v| split_tile(v.value()))
    }
}

pub(super) fn write_block(store: &Store, write: &WriteTransaction, block: &Applied) -> Result<(), redb::Error> {
    let mut rows = write.open_table(ROWS)?;
    for (key, value) in block.changes.rows() {
        match value {
            Some(value) => rows.insert(key.as_slice(), value.as_slice())?,
            None => rows.remove(key.as_slice())?,
        };
    }
    if !block.entries.is_empty() {
        let mut log = write.open_table(LOG)?;
        for (first, part) in (block.first_index..).step_by(LOG_ROW).zip(block.entries.chunks(LOG_ROW)) {
            log.insert(first, cbor::encode(&part.to_vec()).as_slice())?;
        }
        let past: Vec<u8> = block.news.ops.iter().flat_map(|p| p.to_bytes()).collect();
        write.open_table(PAST)?.insert(block.first_index, past.as_slice())?;
    }
    let mut marks = write.open_table(MARKS)?;
    for (index, mark) in &block.news.marks {
        marks.insert(index, mark)?;
    }
    let mut batches = write.open_table(BATCHES)?;
    for (key, hash) in &block.news.batches {
        batches.insert(cbor::encode(key).as_slice(), hash.as_slice())?;
    }
    let mut tiles = write.open_table(TILES)?;
    let changed = grow(&WriteTiles(&tiles), &block.completed);
    for (key, hashes) in changed {
        tiles.insert(key, hashes.concat().as_slice())?;
    }
    write_runs(store, write, block)?;
    write_evidence(write, &block.evidence)?;
    let height = HeightRow {
        tick_ms: block.head.tick_ms,
        log_size: block.log.size(),
        meta_rev: block.head.meta_rev,
        runs: block.head.runs.size,
        roots: block.roots.clone(),
    };
    write.open_table(HEIGHTS)?.insert(block.head.height, cbor::encode(&height).as_slice())?;
    let newest = Newest {
        head: block.head.clone(),
        peaks: block.log.peaks().to_vec(),
        log_size: block.log.size(),
        app_hash: block.app_hash,
    };
    write.open_table(META)?.insert("newest", cbor::encode(&newest).as_slice())?;
    Ok(())
}

fn write_runs(store: &Store, write: &WriteTransaction, block: &Applied) -> Result<(), redb::Error> {
    let mut entries = write.open_table(RUN_ENTRIES)?;
    for part in block.runs.entries.chunk_by(|a, b| a.0 == b.0) {
        let Some((number, _, first, _)) = part.first() else { continue };
        let bytes: Vec<u8> = part.iter().flat_map(|(_, tag, index, op)| entry(tag, *index, op)).collect();
        entries.insert((*number, *first), bytes.as_slice())?;
    }
    let mut runs = write.open_table(RUNS)?;
    for entered in &block.runs.entered {
        runs.insert(entered.number, cbor::encode(&entered.run).as_slice())?;
        // In order from now on.
        entries.retain_in((entered.number, 0)..=(entered.number, u64::MAX), |_, _| false)?;
        write_sorted(write, entered.number, &entered.sorted, store.written(entered.number))?;
    }
    let mut tiles = write.open_table(RUN_TILES)?;
    let changed = grow(&WriteTiles(&tiles), &block.runs.completed);
    for (key, hashes) in changed {
        tiles.insert(key, hashes.concat().as_slice())?;
    }
    Ok(())
}

/// Rows of a run's entries.
pub(super) fn write_rows(
    write: &WriteTransaction,
    number: u64,
    run: &SortedRun,
    rows: Range<usize>,
) -> Result<(), redb::Error> {
    let mut sorted = write.open_table(RUN_SORTED)?;
    for (at, part) in run.entries.chunks(TILE_HASHES as usize).enumerate().take(rows.end).skip(rows.start) {
        sorted.insert((number, at as u64), part.as_flattened())?;
    }
    Ok(())
}

/// A run that enters state, its rows from one on: those before are stored.
pub(super) fn write_sorted(
    write: &WriteTransaction,
    number: u64,
    run: &SortedRun,
    from: usize,
) -> Result<(), redb::Error> {
    write_rows(write, number, run, from..run.rows())?;
    let mut trees = write.open_table(RUN_TREES)?;
    for ((level, index), hashes) in &run.tiles {
        trees.insert((number, *level, *index), hashes.as_flattened())?;
    }
    Ok(())
}

/// Keeps the undos of the newest `kept` blocks, this one's among them.
pub(super) fn write_undo(write: &WriteTransaction, undo: &Undo, kept: usize) -> Result<(), redb::Error> {
    let mut undos = write.open_table(UNDOS)?;
    undos.insert(undo.height, cbor::encode(undo).as_slice())?;
    undos.retain_in(..(undo.height + 1).saturating_sub(kept as u64), |_, _| false)?;
    Ok(())
}
