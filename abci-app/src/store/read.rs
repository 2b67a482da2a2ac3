//! What is read back: by recovery, by blocks that ask for the past, and by proofs.

use super::*;
use std::sync::Arc;

/// A consistent view of the store at one block.
pub struct Reader<'a> {
    pub(super) store: &'a Store,
    read: ReadTransaction,
}

impl<'a> Reader<'a> {
    pub(super) fn new(store: &'a Store, read: ReadTransaction) -> Self {
        Self { store, read }
    }

    pub(super) fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &self,
        table: TableDefinition<'_, K, V>,
    ) -> Result<redb::ReadOnlyTable<K, V>, StoreError> {
        self.read.open_table(table).map_err(|e| self.store.failed(e))
    }

    pub(super) fn row<T: Canon>(&self, bytes: &[u8]) -> Result<T, StoreError> {
        cbor::decode(bytes).map_err(|e: CborError| self.store.damaged(e))
    }

    /// The newest block, `None` before the first.
    ///
    /// # Errors
    /// Database trouble or damage.
    pub fn newest(&self) -> Result<Option<Newest>, StoreError> {
        let found = self.table(META)?.get("newest").map_err(|e| self.store.failed(e))?;
        found.map(|v| self.row(v.value())).transpose()
    }

    /// What undoes the newest blocks, newest first.
    pub(super) fn undos(&self) -> Result<VecDeque<Undo>, StoreError> {
        let table = self.table(UNDOS)?;
        let rows = table.iter().map_err(|e| self.store.failed(e))?.rev();
        rows.map(|row| self.row(row.map_err(|e| self.store.failed(e))?.1.value())).collect()
    }

    /// What is known of a height.
    ///
    /// # Errors
    /// Database trouble or damage.
    pub fn height(&self, height: u64) -> Result<Option<HeightRow>, StoreError> {
        let found = self.table(HEIGHTS)?.get(height).map_err(|e| self.store.failed(e))?;
        found.map(|v| self.row(v.value())).transpose()
    }

    /// Up to `count` log entries from a global index on.
    ///
    /// # Errors
    /// Database trouble or damage.
    pub fn entries(&self, from: u64, count: u64) -> Result<Vec<LogEntry>, StoreError> {
        let table = self.table(LOG)?;
        let first = table.range(..=from).map_err(|e| self.store.failed(e))?.next_back();
        let first = match first {
            Some(row) => row.map_err(|e| self.store.failed(e))?.0.value(),
            None => return Ok(Vec::new()),
        };
        let end = from.saturating_add(count);
        let mut out = Vec::new();
        for row in table.range(first..end).map_err(|e| self.store.failed(e))? {
            let (at, value) = row.map_err(|e| self.store.failed(e))?;
            let entries: Vec<LogEntry> = self.row(value.value())?;
            let skip = usize::try_from(from.saturating_sub(at.value())).unwrap_or(usize::MAX);
            out.extend(entries.into_iter().skip(skip));
        }
        out.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        Ok(out)
    }

    /// A run that is in state.
    ///
    /// # Errors
    /// Database trouble or damage.
    pub fn run(&self, number: u64) -> Result<Option<RunView>, StoreError> {
        let found = self.table(RUNS)?.get(number).map_err(|e| self.store.failed(e))?;
        found.map(|v| self.row(v.value())).transpose()
    }

    /// Tiles of the tree of runs.
    pub fn run_tiles(&self) -> RunTiles<'_> {
        RunTiles(self)
    }

    fn past(&self, index: u64) -> Result<Option<PastOp>, StoreError> {
        let table = self.table(PAST)?;
        let Some(row) = table.range(..=index).map_err(|e| self.store.failed(e))?.next_back() else { return Ok(None) };
        let (first, bytes) = row.map_err(|e| self.store.failed(e))?;
        let at = (index - first.value()) as usize * PAST_LEN;
        let found: Option<&[u8; PAST_LEN]> = bytes.value().get(at..at + PAST_LEN).and_then(|b| b.try_into().ok());
        Ok(found.map(PastOp::from_bytes))
    }
}

/// A database that fails while a block is computed leaves no way on: the application must not guess.
fn must<T>(result: Result<T, StoreError>) -> T {
    result.unwrap_or_else(|e| panic!("{e}"))
}

impl History for Reader<'_> {
    fn op(&self, index: u64) -> Option<PastOp> {
        must(self.past(index))
    }

    fn marks(&self, index: u64) -> u8 {
        let table = must(self.table(MARKS));
        must(table.get(index).map_err(|e| self.store.failed(e))).map_or(0, |v| v.value())
    }

    fn batch(&self, key: &BatchKey) -> Option<Hash> {
        let table = must(self.table(BATCHES));
        let found = must(table.get(cbor::encode(key).as_slice()).map_err(|e| self.store.failed(e)));
        found.and_then(|v| v.value().try_into().ok())
    }

    fn run(&self, number: u64) -> Arc<SortedRun> {
        must(self.store.sorted(number, &self.read))
    }
}

/// Tiles of the tree of runs.
pub struct RunTiles<'a>(&'a Reader<'a>);

impl TileSource for RunTiles<'_> {
    fn tile(&self, key: TileKey) -> Option<Vec<Hash>> {
        let table = self.0.table(RUN_TILES).ok()?;
        let found = table.get(key).ok()??;
        Some(split_tile(found.value()))
    }
}

impl TileSource for Reader<'_> {
    fn tile(&self, key: TileKey) -> Option<Vec<Hash>> {
        let table = self.table(TILES).ok()?;
        let found = table.get(key).ok()??;
        Some(split_tile(found.value()))
    }
}
