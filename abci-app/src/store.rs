//! The store: one redb file, one atomic write a block, in Commit.
//!
//! State rows, log entries, tiles, sizes by height and the newest head are written together and are durable when
//! [`Store::commit`] returns; a crash before leaves the block before. Recovery reads everything back but the log.

mod ahead;
mod evidence;
mod lists;
mod read;
mod write;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use concordat_protocol::canon_struct;
use concordat_protocol::cbor::{self, Canon, CborError};
use concordat_protocol::hash::Hash;
use concordat_protocol::node::StoreRoots;
use concordat_protocol::ops::LogEntry;
use concordat_protocol::runs::RunView;
use concordat_protocol::tree::Frontier;
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::sorted::{Entry, SortedRun, entry};
use crate::state::apply::Applied;
use crate::state::history::{BatchKey, History, PAST_LEN, PastOp};
use crate::state::rows::Head;
use crate::state::trees::Undo;
use crate::state::{State, Tables};
use crate::tiles::{TILE_HASHES, TileKey, TileSource, grow};

/// Pages of the file kept in memory. A block needs a few of the newest ones only; the library's default is 1 GB.
const CACHE_BYTES: usize = 64 << 20;
/// Version of the store's layout. A store of another version is refused.
pub const STORE_FORMAT: u64 = 4;

use ahead::Ahead;
pub use read::{Reader, RunTiles};
use write::{write_block, write_rows, write_undo};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// Entries of a block, [`LOG_ROW`] a row, by the global index of the first.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// [`PastOp`]s of a block, by the global index of the first.
const PAST: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("past");
const MARKS: TableDefinition<'_, u64, u8> = TableDefinition::new("marks");
const BATCHES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("batches");
const TILES: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("tiles");
/// Entries of a block in a subject run, as they came, by (run, log index of the first): one row a block, since a row each
/// would cost more than all else of an operation. A run that enters state is sorted and moves on.
const RUN_ENTRIES: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("run-entries");
/// Entries of a run in state by key, 256 a row, by (run, row).
const RUN_SORTED: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("run-sorted");
/// Tiles of its tree above the leaves, by (run, tile level, index).
const RUN_TREES: TableDefinition<'_, (u64, u8, u64), &[u8]> = TableDefinition::new("run-trees");
/// Entries in a row of the log: a proof of one reads so many, and a row each would cost more than the entry.
const LOG_ROW: usize = 64;
/// Runs that are in state.
const RUNS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("runs");
const RUN_TILES: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("run-tiles");
const HEIGHTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("heights");
/// What undoes the newest blocks, by height.
const UNDOS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("undos");
/// All checkpoints by height.
const CHECKPOINTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("checkpoints");
/// All cosignatures by height of the checkpoint and agency.
const COSIGNATURES: TableDefinition<'_, (u64, &str), &[u8]> = TableDefinition::new("cosignatures");
/// Operations of a block that name sessions of one consumer, as [`NamedOp`]s of fixed length, by (number of the
/// consumer, log index of the first): one row a block.
const NAMED: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("named");

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
        /// Subject runs in state after it.
        pub runs: u64,
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
    ahead: Mutex<Ahead>,
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
        let store = Self { db, path: path.to_path_buf(), ahead: Mutex::default() };
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
            write.open_table(RUN_ENTRIES)?;
            write.open_table(RUN_SORTED)?;
            write.open_table(RUN_TREES)?;
            write.open_table(RUNS)?;
            write.open_table(RUN_TILES)?;
            write.open_table(HEIGHTS)?;
            write.open_table(UNDOS)?;
            write.open_table(CHECKPOINTS)?;
            write.open_table(COSIGNATURES)?;
            write.open_table(NAMED)?;
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

    /// The committed state and what undoes its newest blocks, newest first, or `None` before the first block. The trees
    /// must give the stored app hash.
    ///
    /// # Errors
    /// Database trouble or damage.
    pub fn load(&self) -> Result<Option<(State, VecDeque<Undo>)>, StoreError> {
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
        Ok(Some((state, read.undos()?)))
    }

    /// Writes blocks, and what undoes the newest of them, all or nothing; durable when it returns. Undos of the newest
    /// `kept` blocks stay.
    ///
    /// # Errors
    /// Database trouble, a full disk among it; then nothing of it is kept.
    pub fn commit(&self, blocks: &[&Applied], undo: &Undo, kept: usize) -> Result<(), StoreError> {
        let mut write = self.db.begin_write().map_err(|e| self.failed(e))?;
        write.set_durability(Durability::Immediate).map_err(|e| self.failed(e))?;
        let written = self.write_ahead(&write).map_err(|e| self.failed(e))?;
        for block in blocks {
            write_block(self, &write, block).map_err(|e| self.failed(e))?;
        }
        write_undo(&write, undo, kept).map_err(|e| self.failed(e))?;
        write.commit().map_err(|e| self.failed(e))?;
        if let Some(newest) = blocks.last() {
            self.look_ahead(&newest.head, written);
        }
        Ok(())
    }

    /// A consistent view of the store.
    ///
    /// # Errors
    /// Database trouble.
    pub fn reader(&self) -> Result<Reader<'_>, StoreError> {
        let read = self.db.begin_read().map_err(|e| self.failed(e))?;
        Ok(Reader::new(self, read))
    }
}

fn database(path: &Path, e: impl Into<redb::Error>) -> StoreError {
    StoreError::Database { path: path.to_path_buf(), source: Box::new(e.into()) }
}

fn split_tile(bytes: &[u8]) -> Vec<Hash> {
    bytes.chunks_exact(32).filter_map(|c| c.try_into().ok()).collect()
}
