//! Connections: one that writes, a few that only read, each read under a deadline.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::SqliteOptions;
use crate::holding::HoldingError;

/// Turns SQLite's answer into ours.
pub(super) fn told(e: rusqlite::Error) -> HoldingError {
    let text = e.to_string();
    match e.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => HoldingError::DiskFull,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => HoldingError::Locked,
        Some(ErrorCode::OperationInterrupted) => HoldingError::Timeout,
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => HoldingError::Access(text),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => HoldingError::Damaged(text),
        _ => HoldingError::Store(text),
    }
}

pub(super) fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves no half-done work: a transaction rolls back when dropped.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tuned(conn: Connection, options: &SqliteOptions) -> Result<Connection, HoldingError> {
    conn.busy_timeout(options.lock_timeout).map_err(told)?;
    conn.set_prepared_statement_cache_capacity(128);
    conn.pragma_update(None, "trusted_schema", false).map_err(told)?;
    conn.pragma_update(None, "cache_size", -8_000).map_err(told)?;
    Ok(conn)
}

/// The writing connection: write-ahead log, each commit on disk before it is answered.
pub(super) fn writer(path: &Path, options: &SqliteOptions) -> Result<Connection, HoldingError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = tuned(Connection::open_with_flags(path, flags).map_err(told)?, options)?;
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "WAL", |r| r.get(0)).map_err(told)?;
    if mode != "wal" {
        return Err(HoldingError::Access(format!("journal mode is {mode}, not wal")));
    }
    conn.pragma_update(None, "synchronous", "FULL").map_err(told)?;
    // What is deleted is overwritten: a person may have to be forgotten.
    conn.pragma_update(None, "secure_delete", true).map_err(told)?;
    Ok(conn)
}

/// Read-only connections, opened when first needed.
pub(super) struct Readers {
    path: PathBuf,
    options: SqliteOptions,
    state: Mutex<State>,
    returned: Condvar,
}

struct State {
    idle: Vec<Connection>,
    open: usize,
    generation: u64,
}

impl Readers {
    pub(super) fn new(path: &Path, options: SqliteOptions) -> Self {
        let state = Mutex::new(State { idle: Vec::new(), open: 0, generation: 0 });
        Self { path: path.to_path_buf(), options, state, returned: Condvar::new() }
    }

    /// Runs a read on a connection of its own; it is interrupted after the statement timeout,
    /// which also covers the wait for a connection.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, HoldingError>) -> Result<T, HoldingError> {
        let deadline = Instant::now() + self.options.statement_timeout;
        let (conn, generation) = self.take(deadline)?;
        let lease = Lease { conn: Some(conn), generation, pool: self };
        let Some(conn) = &lease.conn else {
            return Err(HoldingError::Timeout);
        };
        conn.progress_handler(1_000, Some(move || Instant::now() >= deadline)).map_err(told)?;
        work(conn)
    }

    fn take(&self, deadline: Instant) -> Result<(Connection, u64), HoldingError> {
        let mut state = held(&self.state);
        loop {
            if let Some(conn) = state.idle.pop() {
                return Ok((conn, state.generation));
            }
            if state.open < self.options.readers.max(1) {
                state.open += 1;
                let generation = state.generation;
                drop(state);
                let opened = self.open().inspect_err(|_| self.forget());
                return opened.map(|conn| (conn, generation));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Err(HoldingError::Timeout);
            }
            state = self.returned.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn open(&self) -> Result<Connection, HoldingError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        tuned(Connection::open_with_flags(&self.path, flags).map_err(told)?, &self.options)
    }

    /// Has later reads use new connections: a connection learns index statistics when it opens.
    pub(super) fn renew(&self) {
        let mut state = held(&self.state);
        state.generation += 1;
        let old = std::mem::take(&mut state.idle);
        state.open -= old.len();
        drop(state);
        self.returned.notify_all();
    }

    fn forget(&self) {
        held(&self.state).open -= 1;
        self.returned.notify_one();
    }
}

struct Lease<'a> {
    conn: Option<Connection>,
    generation: u64,
    pool: &'a Readers,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            let mut state = held(&self.pool.state);
            if state.generation == self.generation {
                state.idle.push(conn);
            } else {
                state.open -= 1;
            }
            drop(state);
            self.pool.returned.notify_one();
        }
    }
}
