//! One writer of a database for many tasks: what waits is written in one transaction, so that many subscriptions share
//! one synced write. Each job has a savepoint of its own and spoils no other.

use super::store::FeedStoreError;
use rusqlite::{Connection, TransactionBehavior};
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

/// Most jobs in one transaction.
const GROUP: usize = 512;

/// Told whether the transaction was committed.
type Finish = Box<dyn FnOnce(Option<&str>) + Send>;
/// Gets the open transaction, or why there is none.
type Job = Box<dyn FnOnce(Result<&Connection, &str>) -> Finish + Send>;

/// Hands jobs to the one who writes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Group {
    jobs: Sender<Job>,
}

impl Group {
    /// Takes over a connection; its thread ends when nobody can hand in jobs any more.
    pub(super) fn start(db: Connection) -> std::io::Result<Self> {
        let (jobs, inbox) = channel();
        std::thread::Builder::new().name("feed-store".into()).spawn(move || work(db, &inbox))?;
        Ok(Self { jobs })
    }

    /// Runs a job; what it wrote is durable when this returns.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, FeedStoreError> {
        self.queue(job)?.await.map_err(|_| FeedStoreError::Stopped)?
    }

    /// Queues a job behind those before it, and lets the caller go on: its answer may be dropped.
    pub(super) fn queue<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, FeedStoreError>>, FeedStoreError> {
        let (answer, done) = oneshot::channel();
        let job: Job = Box::new(move |db| {
            let result = match db {
                Ok(db) => saved(db, job).map_err(FeedStoreError::from),
                Err(why) => Err(FeedStoreError::Commit(why.to_owned())),
            };
            Box::new(move |failed| {
                let result = match (result, failed) {
                    (Ok(_), Some(why)) => Err(FeedStoreError::Commit(why.to_owned())),
                    (result, _) => result,
                };
                let _ = answer.send(result);
            })
        });
        self.jobs.send(job).map_err(|_| FeedStoreError::Stopped)?;
        Ok(done)
    }
}

fn saved<T>(db: &Connection, job: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    db.prepare_cached("SAVEPOINT job")?.execute([])?;
    let result = job(db);
    if result.is_err() {
        db.prepare_cached("ROLLBACK TO job")?.execute([])?;
    }
    db.prepare_cached("RELEASE job")?.execute([])?;
    result
}

fn work(mut db: Connection, inbox: &Receiver<Job>) {
    while let Ok(first) = inbox.recv() {
        let jobs: Vec<Job> = std::iter::once(first).chain(inbox.try_iter().take(GROUP - 1)).collect();
        commit(&mut db, jobs);
    }
}

fn commit(db: &mut Connection, jobs: Vec<Job>) {
    let tx = match db.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(tx) => tx,
        Err(e) => {
            let why = e.to_string();
            return jobs.into_iter().for_each(|job| job(Err(&why))(None));
        }
    };
    let finish: Vec<Finish> = jobs.into_iter().map(|job| job(Ok(&tx))).collect();
    let failed = tx.commit().err().map(|e| e.to_string());
    finish.into_iter().for_each(|tell| tell(failed.as_deref()));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::{Arc, Mutex};

    fn table(dir: &std::path::Path) -> Connection {
        let db = Connection::open(dir.join("g.sqlite")).unwrap();
        db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT;").unwrap();
        db
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_failing_job_spoils_no_other_of_its_transaction() {
        let dir = tempfile::tempdir().unwrap();
        let group = Group::start(table(dir.path())).unwrap();
        let put = |n: i64| {
            move |db: &Connection| {
                db.execute("INSERT INTO t VALUES (?1)", [n + 1_000])?;
                db.execute("INSERT INTO t VALUES (?1)", [n])
            }
        };
        // Queued while the first job holds the thread: one transaction.
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let first = group.queue(move |_| Ok(wait.recv().is_ok())).unwrap();
        let rest: Vec<_> = [1, 2, 1, 3].map(|n| group.queue(put(n)).unwrap()).into_iter().collect();
        go.send(()).unwrap();
        assert!(first.await.unwrap().unwrap());
        let mut said = Vec::new();
        for done in rest {
            said.push(done.await.unwrap().is_ok());
        }
        assert_eq!(said, [true, true, false, true]);
        let other = Connection::open(dir.path().join("g.sqlite")).unwrap();
        let count: i64 = other.query_row("SELECT count(*) FROM t", [], |r| r.get(0)).unwrap();
        assert_eq!(count, 6, "what was answered is durable, and nothing of the refused job is left");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_waits_shares_one_commit() {
        let dir = tempfile::tempdir().unwrap();
        let group = Group::start(table(dir.path())).unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let first = group.queue(move |_| Ok(wait.recv().is_ok())).unwrap();
        let outside = Arc::new(Mutex::new(Connection::open(dir.path().join("g.sqlite")).unwrap()));
        let put = |n: i64| {
            let outside = outside.clone();
            move |db: &Connection| {
                db.execute("INSERT INTO t VALUES (?1)", [n])?;
                outside.lock().unwrap().query_row("SELECT count(*) FROM t", [], |r| r.get::<_, i64>(0))
            }
        };
        let rest: Vec<_> = (1..=50).map(|n| group.queue(put(n)).unwrap()).collect();
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        for done in rest {
            assert_eq!(done.await.unwrap().unwrap(), 0, "nothing is committed until all of them are written");
        }
    }
}
