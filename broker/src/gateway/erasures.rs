//! A provider forgot a person: this agency deletes its own detail of the operations that told of that person.
//!
//! The ledger's log names no kind, so blocks with operations of other agencies' executors are looked into, when nothing else
//! is asked. What stays of an erased query is its place, its number on the ledger, and that it was erased.

use super::records::Records;
use crate::host::subjects::BlockOps;
use crate::ledger::LedgerError;
use crate::ledger::follow::follow;
use crate::ledger::node_client::NodeClient;
use crate::ledger::rpc::CometRpc;
use crate::store::{Store, StoreError};
use concordat_executor::holding::sqlite::empty_log;
use concordat_protocol::codes::Verdict;
use concordat_protocol::ids::{AgencyId, OpRef};
use concordat_protocol::node::Frame;
use concordat_protocol::ops::{LogEntry, Op};
use rusqlite::{Connection, OptionalExtension};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use thiserror::Error;
use tracing::{info, warn};

/// Mark of the height up to which erasures were looked for.
const MARK: &str = "erasures";
/// How many heights may pass before the mark is kept although nothing was found.
const KEEP_EVERY: u64 = 64;
/// How long busy times may put a look off.
const PUT_OFF: Duration = Duration::from_secs(60);
/// How often it is asked whether they are over, and how long to wait after a failure.
const RETRY: Duration = Duration::from_millis(500);
/// What the outcome of an erased query says.
pub const ERASED: &str = "erased";

/// Why a look failed; it is repeated.
#[derive(Debug, Error)]
enum LookError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store's log was not emptied: {0}")]
    Log(#[from] rusqlite::Error),
}

/// What looking for erasures needs.
pub struct Erasures {
    /// This agency.
    pub agency: AgencyId,
    /// The own node, a connection of its own.
    pub node: NodeClient,
    /// The own CometBFT.
    pub rpc: CometRpc,
    /// The broker's store.
    pub store: Store,
    /// Its file.
    pub path: PathBuf,
}

impl Erasures {
    /// Looks as long as the process runs, when `idle` says so.
    pub async fn run(self, idle: impl Fn() -> bool) {
        let from = loop {
            match self.begin().await {
                Ok(from) => break from,
                Err(e) => {
                    warn!(error = %e, "erasures are looked for later");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        let mut frames = follow(self.node.path(), from + 1, Vec::new());
        let mut kept = from;
        loop {
            let frame = frames.next_frame().await;
            let since = Instant::now();
            while !idle() && since.elapsed() < PUT_OFF {
                tokio::time::sleep(RETRY).await;
            }
            let forgotten = loop {
                match self.look(&frame).await {
                    Ok(n) => break n,
                    Err(e) => {
                        warn!(height = frame.height, error = %e, "erasures cannot be looked for");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            };
            if (forgotten > 0 || frame.height >= kept + KEEP_EVERY) && self.keep(frame.height).await.is_ok() {
                kept = frame.height;
            }
        }
    }

    /// The height up to which was looked; a store that knows no query begins at the newest.
    async fn begin(&self) -> Result<u64, LookError> {
        let head = self.node.head().await?.height;
        let sql = "SELECT value FROM evidence_mark WHERE name = ?1";
        let mark = move |db: &Connection| {
            let known = db.query_row(sql, [MARK], |r| r.get::<_, i64>(0)).optional()?;
            let empty = db.query_row("SELECT NOT EXISTS (SELECT 1 FROM query)", [], |r| r.get::<_, bool>(0))?;
            Ok((known.map(|v| v as u64), empty))
        };
        Ok(match self.store.run(mark).await? {
            (Some(height), _) => height,
            (None, true) => head,
            (None, false) => 0,
        })
    }

    async fn keep(&self, height: u64) -> Result<(), StoreError> {
        let sql = "INSERT INTO evidence_mark (name, value) VALUES (?1, ?2)
                   ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.store.run(move |db| db.execute(sql, (MARK, height as i64)).map(drop)).await
    }

    /// Looks into one block; returns how many operations are forgotten here.
    async fn look(&self, frame: &Frame) -> Result<u64, LookError> {
        let own = format!("{}/executor", self.agency);
        let provider =
            |e: &&LogEntry| e.writer.ends_with("/executor") && e.writer != own && e.verdict == Verdict::Accepted;
        let entries: Vec<&LogEntry> = frame.entries.iter().map(|(_, e)| e).filter(provider).collect();
        if entries.is_empty() {
            return Ok(0);
        }
        let txs = self.rpc.block_txs(frame.height).await?;
        let ops = BlockOps::of(&txs);
        let mut forgotten = 0;
        for entry in entries {
            let Some(Op::Erase { reference, .. }) = ops.of_entry(entry) else { continue };
            if Records::new(self.store.clone()).forget(*reference).await? {
                info!(op = *reference, by = entry.writer, "the provider forgot a person: own detail deleted");
                forgotten += 1;
            }
        }
        if forgotten > 0 {
            tokio::task::block_in_place(|| empty_log(&Connection::open(&self.path)?))?;
        }
        Ok(forgotten)
    }
}

impl Records {
    /// Deletes the detail of the query whose operation this is; false where there is none.
    pub async fn forget(&self, op: u64) -> Result<bool, StoreError> {
        let query =
            "UPDATE query SET request_id = '', caller = '', purpose = '', case_ref = '', outcome = ?2, rows = NULL,
                     signed = x'', released = NULL, problem = NULL, proof = NULL, proof_height = NULL
                     WHERE op = ?1 AND outcome <> ?2";
        let answer = "DELETE FROM idempotency WHERE instr(answer, CAST(?1 AS BLOB)) > 0";
        let word = format!("\"{}\"", OpRef(op));
        self.store()
            .run(move |db| {
                let found = db.execute(query, (op as i64, ERASED))? > 0;
                db.execute(answer, [word])?;
                Ok(found)
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::gateway::records::{IdempotencyKey, KeptAnswer, Known, QueryRecord};

    #[tokio::test]
    async fn an_erased_query_keeps_its_place_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(Store::open(&dir.path().join("b.sqlite")).unwrap());
        let key = |key: &str| IdempotencyKey { caller: "clerk".into(), key: key.into(), body_hash: [1; 32] };
        for (op, name) in [(41, "a"), (4, "b")] {
            records.begin(key(name), 1_000).await.unwrap();
            let record = QueryRecord {
                op: Some(op),
                session: 7,
                n: op,
                caller: "clerk".into(),
                case_ref: "26-CR-1042".into(),
                outcome: "released".into(),
                released: Some(vec![1]),
                signed: vec![2],
                ..Default::default()
            };
            let body = format!("{{\"operation\":\"op:{op}\",\"rows\":[]}}").into_bytes();
            records.keep(record, Some((key(name), KeptAnswer { status: 200, body }))).await.unwrap();
        }
        assert!(records.forget(4).await.unwrap());
        assert!(!records.forget(4).await.unwrap() && !records.forget(99).await.unwrap());
        let left = records.by_op(4).await.unwrap().unwrap();
        assert_eq!((left.session, left.n, left.outcome.as_str()), (7, 4, ERASED));
        assert!(
            left.case_ref.is_empty() && left.caller.is_empty() && left.released.is_none() && left.signed.is_empty()
        );
        assert_eq!(records.by_op(41).await.unwrap().unwrap().case_ref, "26-CR-1042");
        assert_eq!(records.begin(key("b"), 1_000).await.unwrap(), Known::New, "the answer is gone");
        assert!(matches!(records.begin(key("a"), 1_000).await.unwrap(), Known::Answered(_)));
    }
}
