//! What the gateway keeps of responses that came before their record, until the record is there.

use super::records::{IdempotencyKey, KeptAnswer, QueryRecord, Records, insert, keep_answer};
use crate::store::StoreError;
use concordat_protocol::hash::Hash;

/// The table of this module, made when the store opens.
pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS promise (
  query INTEGER PRIMARY KEY, session INTEGER NOT NULL, n INTEGER NOT NULL, op_hash BLOB NOT NULL,
  from_index INTEGER NOT NULL, session_ends_ms INTEGER NOT NULL, agreement TEXT NOT NULL, due_ms INTEGER NOT NULL,
  promise BLOB NOT NULL, signature BLOB NOT NULL, released BLOB NOT NULL, complained INTEGER NOT NULL DEFAULT 0) STRICT;
";

/// A promise whose record was not seen yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenPromise {
    /// Number of the query in this store.
    pub query: i64,
    /// Session and number of the request.
    pub place: (u64, u64),
    /// The promised operation.
    pub op_hash: Hash,
    /// A log index before it.
    pub from_index: u64,
    /// When the session ends, tick milliseconds.
    pub session_ends_ms: u64,
    /// The agreement.
    pub agreement: String,
    /// Ledger time by which it is due, milliseconds.
    pub due_ms: u64,
    /// Canonical promise.
    pub promise: Vec<u8>,
    /// Its signature.
    pub signature: Vec<u8>,
    /// Canonical [`concordat_protocol::session::Released`] without its sealed content; the ticket names no place.
    pub released: Vec<u8>,
    /// Whether the ledger knows that it was broken.
    pub complained: bool,
}

/// What became of a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Global index and height of the operation.
    pub at: (u64, u64),
    /// Canonical response with its ticket; nothing where another operation stands there.
    pub released: Option<Vec<u8>>,
    /// JSON: what is wrong with it, if anything.
    pub problem: Option<String>,
}

impl Records {
    /// Keeps a query with its promise, and under its key the answer, in one transaction.
    pub async fn keep_promised(
        &self,
        r: QueryRecord,
        p: OpenPromise,
        answer: Option<(IdempotencyKey, KeptAnswer)>,
    ) -> Result<i64, StoreError> {
        let run = move |db: &rusqlite::Connection| {
            keep_answer(db, answer)?;
            let id = insert(db, &r)?;
            db.execute(
                "INSERT INTO promise (query, session, n, op_hash, from_index, session_ends_ms, agreement, due_ms, promise,
                   signature, released) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                rusqlite::params![
                    id,
                    p.place.0 as i64,
                    p.place.1 as i64,
                    p.op_hash,
                    p.from_index as i64,
                    p.session_ends_ms as i64,
                    p.agreement,
                    p.due_ms as i64,
                    p.promise,
                    p.signature,
                    p.released,
                ],
            )?;
            Ok(id)
        };
        self.store().run(run).await
    }

    /// Promises whose record was not seen, oldest first.
    pub async fn open_promises(&self) -> Result<Vec<OpenPromise>, StoreError> {
        let sql =
            "SELECT query, session, n, op_hash, from_index, session_ends_ms, agreement, due_ms, promise, signature,
                     released, complained FROM promise ORDER BY query";
        let read = |r: &rusqlite::Row<'_>| {
            let number = |at| r.get::<_, i64>(at).map(|v| v as u64);
            Ok(OpenPromise {
                query: r.get(0)?,
                place: (number(1)?, number(2)?),
                op_hash: r.get::<_, Vec<u8>>(3)?.try_into().unwrap_or([0; 32]),
                from_index: number(4)?,
                session_ends_ms: number(5)?,
                agreement: r.get(6)?,
                due_ms: number(7)?,
                promise: r.get(8)?,
                signature: r.get(9)?,
                released: r.get(10)?,
                complained: r.get::<_, i64>(11)? != 0,
            })
        };
        self.store().run(move |db| db.prepare_cached(sql)?.query_map([], read)?.collect()).await
    }

    /// The ledger knows that a promise was broken.
    pub async fn complained(&self, query: i64) -> Result<(), StoreError> {
        let sql = "UPDATE promise SET complained = 1 WHERE query = ?1";
        self.store().run(move |db| db.execute(sql, [query]).map(drop)).await
    }

    /// The record is there: the query becomes one like any other.
    pub async fn promise_settled(&self, query: i64, s: Settled) -> Result<(), StoreError> {
        let run = move |db: &rusqlite::Connection| {
            let outcome = if s.released.is_some() { "released" } else { "failed" };
            db.execute(
                "UPDATE query SET outcome = ?2, op = ?3, height = ?4, released = ?5, problem = ?6
                 WHERE id = ?1 AND outcome = 'provisional'",
                (query, outcome, s.at.0 as i64, s.at.1 as i64, s.released, s.problem),
            )?;
            db.execute("DELETE FROM promise WHERE query = ?1", [query]).map(drop)
        };
        self.store().run(run).await
    }

    /// Nothing more will come: the session has been over for too long.
    pub async fn promise_given_up(&self, query: i64, problem: String) -> Result<(), StoreError> {
        let run = move |db: &rusqlite::Connection| {
            db.execute("UPDATE query SET problem = ?2 WHERE id = ?1 AND outcome = 'provisional'", (query, problem))?;
            db.execute("DELETE FROM promise WHERE query = ?1", [query]).map(drop)
        };
        self.store().run(run).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn a_provisional_answer_becomes_a_record_when_its_operation_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(Store::open(&dir.path().join("b.sqlite")).unwrap());
        let record = QueryRecord { request_id: "r".into(), outcome: "provisional".into(), ..QueryRecord::default() };
        let promise = OpenPromise {
            query: 0,
            place: (3, 9),
            op_hash: [8; 32],
            from_index: 40,
            session_ends_ms: 9_000,
            agreement: "AGR-1".into(),
            due_ms: 700,
            promise: vec![1],
            signature: vec![2],
            released: vec![3],
            complained: false,
        };
        let id = records.keep_promised(record, promise.clone(), None).await.unwrap();
        assert_eq!(records.open_promises().await.unwrap(), [OpenPromise { query: id, ..promise }]);
        assert!(records.unproven(u64::MAX, 9).await.unwrap().is_empty(), "nothing to prove yet");
        records.complained(id).await.unwrap();
        assert!(records.open_promises().await.unwrap()[0].complained, "it may still come");
        let settled = Settled { at: (41, 12), released: Some(vec![4]), problem: None };
        records.promise_settled(id, settled).await.unwrap();
        assert!(records.open_promises().await.unwrap().is_empty());
        let kept = records.by_op(41).await.unwrap().unwrap();
        assert_eq!((kept.outcome.as_str(), kept.height, kept.released), ("released", Some(12), Some(vec![4])));
        assert_eq!(records.unproven(u64::MAX, 9).await.unwrap().len(), 1, "its receipt is made like any other's");
    }
}
