//! The broker's store, `broker/broker.sqlite`: what was asked, and what a receipt needs. One thread writes; jobs that
//! wait together share one transaction and one fsync, and each is answered after it is durable.

use crate::gateway::asked::{self, Asked};
use rusqlite::Connection;
use std::path::Path;
use std::sync::{Arc, mpsc};
use thiserror::Error;
use tokio::sync::oneshot;

/// Jobs of one transaction at most.
const GROUP: usize = 256;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS query (
  id INTEGER PRIMARY KEY, request_id TEXT NOT NULL, caller TEXT NOT NULL, at_ms INTEGER NOT NULL,
  provider TEXT NOT NULL, dataset TEXT NOT NULL, purpose TEXT NOT NULL, case_ref TEXT NOT NULL,
  session INTEGER NOT NULL, n INTEGER NOT NULL, session_ends_ms INTEGER NOT NULL,
  outcome TEXT NOT NULL, op INTEGER, height INTEGER, agreement TEXT NOT NULL, clause TEXT NOT NULL, rows INTEGER,
  signed BLOB NOT NULL, released BLOB, problem TEXT, proof BLOB, proof_height INTEGER) STRICT;
CREATE INDEX IF NOT EXISTS query_op ON query (op);
CREATE INDEX IF NOT EXISTS query_request ON query (request_id);
CREATE INDEX IF NOT EXISTS query_unproven ON query (session_ends_ms) WHERE released IS NOT NULL AND proof IS NULL;
CREATE TABLE IF NOT EXISTS header (height INTEGER PRIMARY KEY, header BLOB NOT NULL, validators BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS idempotency (
  caller TEXT NOT NULL, key TEXT NOT NULL, body_hash BLOB NOT NULL, at_ms INTEGER NOT NULL,
  call BLOB, session_ends_ms INTEGER, status INTEGER, answer BLOB, PRIMARY KEY (caller, key)) STRICT;
";

/// Why the store did not take or give something.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// SQLite's word.
    #[error("the broker's store failed: {0}; free disk space or restore the folder, then repeat")]
    Failed(String),
    /// The thread ended.
    #[error("the broker's store has stopped: see the log for the first error, then restart the broker")]
    Stopped,
}

impl StoreError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Failed(_) => "store-failed",
            Self::Stopped => "store-stopped",
        }
    }
}

fn failed(e: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(e.to_string())
}

/// Answers a job once the transaction is over.
type Finish = Box<dyn FnOnce(Option<StoreError>) + Send>;
type Job = Box<dyn FnOnce(&Connection) -> Finish + Send>;

/// Handle of the store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    /// What this process asked, which is known before it is durable.
    pub(crate) asked: Arc<Asked>,
}

impl Store {
    /// Opens or makes the store.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        let db = Connection::open(path).map_err(failed)?;
        // Under load the same pages change again and again: a longer log moves each into the file less often.
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 4000; PRAGMA synchronous = FULL;
             PRAGMA secure_delete = ON;",
        )
        .map_err(failed)?;
        db.execute_batch(SCHEMA).map_err(failed)?;
        db.execute_batch(asked::TABLES).map_err(failed)?;
        db.execute_batch(crate::evidence::shelf::TABLES).map_err(failed)?;
        db.execute_batch(crate::gateway::promises::TABLES).map_err(failed)?;
        db.execute_batch(crate::overrides::TABLES).map_err(failed)?;
        db.execute_batch(crate::notices::TABLES).map_err(failed)?;
        db.execute_batch(crate::http::actors::TABLES).map_err(failed)?;
        db.execute_batch(crate::people::mandates::TABLES).map_err(failed)?;
        db.execute_batch(crate::outside::timestamp::TABLES).map_err(failed)?;
        let (jobs, rx) = mpsc::channel::<Job>();
        std::thread::Builder::new().name("store".into()).spawn(move || work(&db, &rx)).map_err(failed)?;
        Ok(Self { jobs, asked: Arc::default() })
    }

    /// Runs a job in the store's thread; what it wrote is durable when this returns.
    pub async fn run<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (tx, rx) = oneshot::channel();
        // The caller may be gone: then nobody needs to know.
        self.post(job, move |done| drop(tx.send(done)))?;
        rx.await.map_err(|_| StoreError::Stopped)?
    }

    /// Hands a job to the store's thread and goes on; `then` is told in that thread what came of it, once it is durable.
    /// Jobs are done, and told of, in the order in which they were handed over.
    pub fn post<T, F, G>(&self, job: F, then: G) -> Result<(), StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        G: FnOnce(Result<T, StoreError>) + Send + 'static,
    {
        let job: Job = Box::new(move |db| {
            let result = one(db, job);
            Box::new(move |group| then(group.map_or(result, Err)))
        });
        self.jobs.send(job).map_err(|_| StoreError::Stopped)
    }
}

/// A job that fails leaves nothing behind and does not touch its neighbours.
fn one<T>(db: &Connection, job: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
    let run = |sql| db.prepare_cached(sql).and_then(|mut s| s.execute([])).map_err(failed);
    run("SAVEPOINT job")?;
    let result = job(db).map_err(failed);
    if result.is_err() {
        run("ROLLBACK TO job")?;
    }
    run("RELEASE job")?;
    result
}

fn work(db: &Connection, jobs: &mpsc::Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let begun = db.execute_batch("BEGIN IMMEDIATE").map_err(failed);
        let mut finish = vec![first(db)];
        while finish.len() < GROUP {
            let Ok(job) = jobs.try_recv() else { break };
            finish.push(job(db));
        }
        let outcome = begun.and_then(|()| db.execute_batch("COMMIT").map_err(failed)).err();
        if outcome.is_some() {
            let _ = db.execute_batch("ROLLBACK");
        }
        finish.into_iter().for_each(|f| f(outcome.clone()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_failing_job_leaves_nothing_and_its_neighbours_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker/broker.sqlite");
        let store = Store::open(&path).unwrap();
        let put = |h: i64, then: &'static str| {
            store.run(move |db| {
                db.execute("INSERT INTO header VALUES (?1, x'00', x'00')", [h])?;
                db.execute_batch(then)
            })
        };
        let (a, b, c) = tokio::join!(put(1, ""), put(2, "nonsense"), put(3, ""));
        assert!(a.is_ok() && c.is_ok());
        assert_eq!(b.unwrap_err().code(), "store-failed");
        drop(store);
        let store = Store::open(&path).unwrap();
        let heights: Vec<i64> = store
            .run(|db| db.prepare("SELECT height FROM header ORDER BY 1")?.query_map([], |r| r.get(0))?.collect())
            .await
            .unwrap();
        assert_eq!(heights, [1, 3]);
    }
}
