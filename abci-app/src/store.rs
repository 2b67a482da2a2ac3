//! The store: one redb file, one atomic write a block, in Commit.
//!
//! State rows, log entries, tiles, sizes by height and the newest head are written together and are durable when
//! [`Store::commit`] returns; a crash before leaves the block before. Recovery reads everything back but the log.

use std::path::{Path, PathBuf};

use concordat_protocol::canon_struct;
use concordat_protocol::cbor::{self, Canon, CborError};
use concordat_protocol::hash::Hash;
use concordat_protocol::node::StoreRoots;
use concordat_protocol::ops::LogEntry;
use concordat_protocol::tree::Frontier;
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::state::apply::Applied;
use crate::state::history::{BatchKey, History, PAST_LEN, PastOp};
use crate::state::rows::Head;
use crate::state::trees::Undo;
use crate::state::{State, Tables};
use crate::tiles::{TileKey, TileSource, grow};

/// Pages of the file kept in memory. A block needs a few of the newest ones only; the library's default is 1 GB.
const CACHE_BYTES: usize = 64 << 20;
/// Version of the store's layout. A store of another version is refused.
pub const STORE_FORMAT: u64 = 1;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// Entries of a block, by the global index of the first.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// [`PastOp`]s of a block, by the global index of the first.
const PAST: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("past");
const MARKS: TableDefinition<'_, u64, u8> = TableDefinition::new("marks");
const BATCHES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("batches");
const TILES: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("tiles");
const HEIGHTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("heights");

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused: disk full, unreadable, damaged, or open elsewhere.
    #[error("ledger store {path}: {source}; check free space and permissions, and that no other process has it open")]
    Database {
        /// The store's file.
        path: PathBuf,
        /// The database's reason.
        source: Box<redb::Error>,
    },
    /// The folder cannot be made.
    #[error("ledger store {path}: {source}; check the folder's permissions")]
    Folder {
        /// The store's file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Written by another version.
    #[error(
        "ledger store {path} has format {found}, this version reads {STORE_FORMAT}: run the version that wrote it, or \
         remove the file to let the node replay the chain"
    )]
    Format {
        /// The store's file.
        path: PathBuf,
        /// The format found.
        found: u64,
    },
    /// What is stored contradicts itself.
    #[error("ledger store {path} is damaged ({what}): remove the file to let the node replay the chain")]
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl StoreError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Database { .. } => "store_database",
            Self::Folder { .. } => "store_folder",
            Self::Format { .. } => "store_format",
            Self::Damaged { .. } => "store_damaged",
        }
    }
}

canon_struct! {
    /// What is known of a height.
    pub struct HeightRow {
        /// Its tick, milliseconds.
        pub tick_ms: u64,
        /// Entries in the log after it.
        pub log_size: u64,
        /// Meta revision after it.
        pub meta_rev: u64,
        /// Roots after it.
        pub roots: StoreRoots,
    }
}

canon_struct! {
    /// The newest block.
    pub struct Newest {
        /// Shared numbers.
        pub head: Head,
        /// Peaks of the log's tree.
        pub peaks: Vec<Hash>,
        /// Entries in the log.
        pub log_size: u64,
        /// App hash.
        pub app_hash: Hash,
    }
}

/// The store of one node.
#[derive(Debug)]
pub struct Store {
    db: Database,
    path: PathBuf,
}

impl Store {
    /// Opens the store, or makes an empty one.
    ///
    /// # Errors
    /// Database trouble or a store of another format.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|source| StoreError::Folder { path: path.to_path_buf(), source })?;
        }
        let db = Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|e| database(path, e))?;
        Self::with_database(db, path)
    }

    /// A store on a database that is open; `path` names it in errors.
    pub(crate) fn with_database(db: Database, path: &Path) -> Result<Self, StoreError> {
        let store = Self { db, path: path.to_path_buf() };
        store.prepare()?;
        Ok(store)
    }

    fn failed(&self, e: impl Into<redb::Error>) -> StoreError {
        database(&self.path, e)
    }

    fn damaged(&self, what: impl ToString) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), what: what.to_string() }
    }

    /// Makes the tables and checks the format.
    fn prepare(&self) -> Result<(), StoreError> {
        let write = self.db.begin_write().map_err(|e| self.failed(e))?;
        let found = (|| -> Result<Option<u64>, redb::Error> {
            write.open_table(ROWS)?;
            write.open_table(LOG)?;
            write.open_table(PAST)?;
            write.open_table(MARKS)?;
            write.open_table(BATCHES)?;
            write.open_table(TILES)?;
            write.open_table(HEIGHTS)?;
            let mut meta = write.open_table(META)?;
            let found = meta.get("format")?.and_then(|v| cbor::decode(v.value()).ok());
            if found.is_none() {
                meta.insert("format", cbor::encode(&STORE_FORMAT).as_slice())?;
            }
            Ok(found)
        })();
        match found.map_err(|e| self.failed(e))? {
            Some(STORE_FORMAT) => Ok(()),
            Some(found) => Err(StoreError::Format { path: self.path.clone(), found }),
            None => write.commit().map_err(|e| self.failed(e)),
        }
    }

    /// The committed state and what undoes its newest block, or `None` before the first block. The trees must give the
    /// stored app hash.
    ///
    /// # Errors
    /// Database trouble or damage.
    pub fn load(&self) -> Result<Option<(State, Undo)>, StoreError> {
        let read = self.reader()?;
        let Some(newest) = read.newest()? else { return Ok(None) };
        let mut tables = Tables::default();
        for row in read.table(ROWS)?.iter().map_err(|e| self.failed(e))? {
            let (key, value) = row.map_err(|e| self.failed(e))?;
            tables.load(key.value(), value.value()).map_err(|e| self.damaged(e))?;
        }
        let log = Frontier::from_parts(newest.log_size, newest.peaks).map_err(|e| self.damaged(e))?;
        let state = State::from_rows(newest.head, tables, log);
        if state.app_hash() != newest.app_hash {
            return Err(self.damaged("its rows do not give its app hash"));
        }
        Ok(Some((state, read.undo()?)))
    }

    /// Writes blocks, and what undoes the newest of them, all or nothing; durable when it returns.
    ///
    /// # Errors
    /// Database trouble, a full disk among it; then nothing of it is kept.
    pub fn commit(&self, blocks: &[&Applied], undo: &Undo) -> Result<(), StoreError> {
        let mut write = self.db.begin_write().map_err(|e| self.failed(e))?;
        write.set_durability(Durability::Immediate).map_err(|e| self.failed(e))?;
        for block in blocks {
            write_block(&write, block).map_err(|e| self.failed(e))?;
        }
        write_undo(&write, undo).map_err(|e| self.failed(e))?;
        write.commit().map_err(|e| self.failed(e))
    }

    /// A consistent view of the store.
    ///
    /// # Errors
    /// Database trouble.
    pub fn reader(&self) -> Result<Reader<'_>, StoreError> {
        let read = self.db.begin_read().map_err(|e| self.failed(e))?;
        Ok(Reader { store: self, read })
    }
}

fn database(path: &Path, e: impl Into<redb::Error>) -> StoreError {
    StoreError::Database { path: path.to_path_buf(), source: Box::new(e.into()) }
}

struct WriteTiles<'a>(&'a redb::Table<'a, (u8, u64), &'static [u8]>);

impl TileSource for WriteTiles<'_> {
    fn tile(&self, key: TileKey) -> Option<Vec<Hash>> {
        self.0.get(key).ok().flatten().map(|v| split_tile(v.value()))
    }
}

fn split_tile(bytes: &[u8]) -> Vec<Hash> {
    bytes.chunks_exact(32).filter_map(|c| c.try_into().ok()).collect()
}

fn write_block(write: &WriteTransaction, block: &Applied) -> Result<(), redb::Error> {
    let mut rows = write.open_table(ROWS)?;
    for (key, value) in block.changes.rows() {
        match value {
            Some(value) => rows.insert(key.as_slice(), value.as_slice())?,
            None => rows.remove(key.as_slice())?,
        };
    }
    if !block.entries.is_empty() {
        write.open_table(LOG)?.insert(block.first_index, cbor::encode(&block.entries).as_slice())?;
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
    let height = HeightRow {
        tick_ms: block.head.tick_ms,
        log_size: block.log.size(),
        meta_rev: block.head.meta_rev,
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

fn write_undo(write: &WriteTransaction, undo: &Undo) -> Result<(), redb::Error> {
    write.open_table(META)?.insert("undo", cbor::encode(undo).as_slice())?;
    Ok(())
}

/// A consistent view of the store at one block.
pub struct Reader<'a> {
    store: &'a Store,
    read: ReadTransaction,
}

impl Reader<'_> {
    fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &self,
        table: TableDefinition<'_, K, V>,
    ) -> Result<redb::ReadOnlyTable<K, V>, StoreError> {
        self.read.open_table(table).map_err(|e| self.store.failed(e))
    }

    fn row<T: Canon>(&self, bytes: &[u8]) -> Result<T, StoreError> {
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

    /// What undoes the newest block.
    fn undo(&self) -> Result<Undo, StoreError> {
        let found = self.table(META)?.get("undo").map_err(|e| self.store.failed(e))?;
        found
            .map_or_else(|| Err(self.store.damaged("the undo of its newest block is missing")), |v| self.row(v.value()))
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
}

impl TileSource for Reader<'_> {
    fn tile(&self, key: TileKey) -> Option<Vec<Hash>> {
        let table = self.table(TILES).ok()?;
        let found = table.get(key).ok()??;
        Some(split_tile(found.value()))
    }
}
