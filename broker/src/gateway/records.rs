//! What the gateway keeps of each query: enough to say why and to make a receipt, never the rows. Only an answer under
//! an Idempotency-Key is kept, for a day, because it has to be given again.

use crate::store::{Store, StoreError};
use concordat_protocol::hash::Hash;
use rusqlite::{Connection, OptionalExtension, Row};

/// For how long an answer under an Idempotency-Key is kept, milliseconds.
pub const IDEMPOTENCY_MS: u64 = 24 * 3_600_000;

/// One query as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryRecord {
    /// Number in this store; 0 before it is kept.
    pub id: i64,
    /// Request id.
    pub request_id: String,
    /// Name of the token that asked.
    pub caller: String,
    /// Ledger time when it was asked, milliseconds.
    pub at_ms: u64,
    /// Who was asked.
    pub provider: String,
    /// What about.
    pub dataset: String,
    /// Purpose.
    pub purpose: String,
    /// Case reference or empty.
    pub case_ref: String,
    /// Session.
    pub session: u64,
    /// Number in the session.
    pub n: u64,
    /// When the session ends, tick milliseconds.
    pub session_ends_ms: u64,
    /// `released`, `provisional` (released, the record is promised), `denied` or `failed`.
    pub outcome: String,
    /// Global index of its operation.
    pub op: Option<u64>,
    /// Height of its operation.
    pub height: Option<u64>,
    /// Agreement or empty.
    pub agreement: String,
    /// Clause or empty.
    pub clause: String,
    /// How many rows were released.
    pub rows: Option<u64>,
    /// Canonical [`concordat_protocol::session::SignedRequest`].
    pub signed: Vec<u8>,
    /// Canonical [`concordat_protocol::session::Released`] without its sealed content.
    pub released: Option<Vec<u8>>,
    /// JSON: why it was denied or failed.
    pub problem: Option<String>,
    /// Canonical [`concordat_protocol::node::EntryProof`], once it was fetched.
    pub proof: Option<Vec<u8>>,
    /// Height of that proof.
    pub proof_height: Option<u64>,
}

const COLUMNS: &str = "id, request_id, caller, at_ms, provider, dataset, purpose, case_ref, session, n, session_ends_ms, \
    outcome, op, height, agreement, clause, rows, signed, released, problem, proof, proof_height";

fn unsigned(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(at)?.map(|v| v as u64))
}

fn read(row: &Row<'_>) -> rusqlite::Result<QueryRecord> {
    let must = |at| unsigned(row, at).map(Option::unwrap_or_default);
    Ok(QueryRecord {
        id: row.get(0)?,
        request_id: row.get(1)?,
        caller: row.get(2)?,
        at_ms: must(3)?,
        provider: row.get(4)?,
        dataset: row.get(5)?,
        purpose: row.get(6)?,
        case_ref: row.get(7)?,
        session: must(8)?,
        n: must(9)?,
        session_ends_ms: must(10)?,
        outcome: row.get(11)?,
        op: unsigned(row, 12)?,
        height: unsigned(row, 13)?,
        agreement: row.get(14)?,
        clause: row.get(15)?,
        rows: unsigned(row, 16)?,
        signed: row.get(17)?,
        released: row.get(18)?,
        problem: row.get(19)?,
        proof: row.get(20)?,
        proof_height: unsigned(row, 21)?,
    })
}

pub(super) fn insert(db: &Connection, r: &QueryRecord) -> rusqlite::Result<i64> {
    let mut statement = db.prepare_cached(
        "INSERT INTO query (request_id, caller, at_ms, provider, dataset, purpose, case_ref, session, n, session_ends_ms,
           outcome, op, height, agreement, clause, rows, signed, released, problem)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
    )?;
    statement.execute(rusqlite::params![
        r.request_id,
        r.caller,
        r.at_ms as i64,
        r.provider,
        r.dataset,
        r.purpose,
        r.case_ref,
        r.session as i64,
        r.n as i64,
        r.session_ends_ms as i64,
        r.outcome,
        r.op.map(|v| v as i64),
        r.height.map(|v| v as i64),
        r.agreement,
        r.clause,
        r.rows.map(|v| v as i64),
        r.signed,
        r.released,
        r.problem,
    ])?;
    Ok(db.last_insert_rowid())
}

/// Keeps the answer under its key, if it came with one.
pub(super) fn keep_answer(db: &Connection, answer: Option<(IdempotencyKey, KeptAnswer)>) -> rusqlite::Result<()> {
    let Some((k, a)) = answer else { return Ok(()) };
    let sql = "UPDATE idempotency SET status = ?3, answer = ?4, call = NULL WHERE caller = ?1 AND key = ?2";
    db.execute(sql, (k.caller, k.key, a.status, a.body)).map(drop)
}

/// An answer to give again under the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// 200: the answer's JSON. 403: canonical [`concordat_protocol::session::Denied`].
    pub status: u16,
    /// See `status`.
    pub body: Vec<u8>,
}

/// What is known of an Idempotency-Key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it is taken now.
    New,
    /// It came with another body.
    Other,
    /// The same bytes were sent to the provider, without an answer so far.
    Sent {
        /// Canonical [`concordat_protocol::session::QueryCall`].
        call: Vec<u8>,
        /// When its session ends, tick milliseconds.
        session_ends_ms: u64,
    },
    /// It was answered.
    Answered(KeptAnswer),
}

/// An Idempotency-Key with what it stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdempotencyKey {
    /// Name of the token: keys of different callers never meet.
    pub caller: String,
    /// The key.
    pub key: String,
    /// SHA-256 of the body.
    pub body_hash: Hash,
}

/// The gateway's part of the store.
#[derive(Clone)]
pub struct Records {
    store: Store,
}

impl Records {
    /// The gateway's part of `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Keeps a query, and under its key the answer, in one transaction. Returns the query's number.
    pub async fn keep(&self, r: QueryRecord, answer: Option<(IdempotencyKey, KeptAnswer)>) -> Result<i64, StoreError> {
        self.store
            .run(move |db| {
                keep_answer(db, answer)?;
                insert(db, &r)
            })
            .await
    }

    /// Takes an Idempotency-Key, or tells what is known of it. Keys older than a day are forgotten.
    pub async fn begin(&self, k: IdempotencyKey, now_ms: u64) -> Result<Known, StoreError> {
        type Found = (Vec<u8>, Option<Vec<u8>>, Option<i64>, Option<u16>, Option<Vec<u8>>);
        self.store
            .run(move |db| {
                db.execute("DELETE FROM idempotency WHERE at_ms < ?1", [now_ms.saturating_sub(IDEMPOTENCY_MS) as i64])?;
                let sql = "SELECT body_hash, call, session_ends_ms, status, answer FROM idempotency WHERE caller = ?1 AND key = ?2";
                let read = |r: &Row<'_>| -> rusqlite::Result<Found> { Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)) };
                let found = db.prepare_cached(sql)?.query_row((&k.caller, &k.key), read).optional()?;
                Ok(match found {
                    Some((hash, ..)) if hash != k.body_hash => Known::Other,
                    Some((_, _, _, Some(status), Some(body))) => Known::Answered(KeptAnswer { status, body }),
                    Some((_, Some(call), ends, ..)) => {
                        Known::Sent { call, session_ends_ms: ends.unwrap_or_default() as u64 }
                    }
                    Some(_) => Known::New,
                    None => {
                        let sql = "INSERT INTO idempotency (caller, key, body_hash, at_ms) VALUES (?1, ?2, ?3, ?4)";
                        db.execute(sql, (&k.caller, &k.key, &k.body_hash[..], now_ms as i64))?;
                        Known::New
                    }
                })
            })
            .await
    }

    /// Keeps the bytes that are about to be sent under a key, or forgets them, so that a repetition asks anew.
    pub async fn sending(&self, k: IdempotencyKey, call: Option<Vec<u8>>, ends_ms: u64) -> Result<(), StoreError> {
        let sql = "UPDATE idempotency SET call = ?3, session_ends_ms = ?4 WHERE caller = ?1 AND key = ?2";
        self.store.run(move |db| db.execute(sql, (k.caller, k.key, call, ends_ms as i64)).map(drop)).await
    }

    /// A request was signed at this place. Kept before it is sent, so that nothing asked here is ever denied.
    pub async fn asked(&self, session: u64, n: u64) -> Result<(), StoreError> {
        super::asked::asked(&self.store, session, n).await
    }

    async fn one(
        &self,
        condition: &'static str,
        value: rusqlite::types::Value,
    ) -> Result<Option<QueryRecord>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM query WHERE {condition} ORDER BY id DESC LIMIT 1");
        self.store.run(move |db| db.prepare_cached(&sql)?.query_row([value], read).optional()).await
    }

    /// The query whose operation this is; of several attempts the one that was answered.
    pub async fn by_op(&self, op: u64) -> Result<Option<QueryRecord>, StoreError> {
        self.one("op = ?1", (op as i64).into()).await
    }

    /// The query with this request id.
    pub async fn by_request(&self, request_id: &str) -> Result<Option<QueryRecord>, StoreError> {
        self.one("request_id = ?1", request_id.to_owned().into()).await
    }

    /// Queries under a case reference, asked in a span of ledger time, in the order in which they were kept.
    pub async fn by_case(
        &self,
        case: String,
        from_ms: Option<u64>,
        until_ms: Option<u64>,
        limit: usize,
    ) -> Result<Vec<QueryRecord>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM query WHERE case_ref = ?1 AND case_ref <> '' AND at_ms >= ?2 AND at_ms < ?3
             ORDER BY id LIMIT ?4"
        );
        let ms = |v: Option<u64>, other: i64| v.map_or(other, |v| i64::try_from(v).unwrap_or(i64::MAX));
        let (from, until) = (ms(from_ms, 0), ms(until_ms, i64::MAX));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.store.run(move |db| db.prepare(&sql)?.query_map((case, from, until, limit), read)?.collect()).await
    }

    /// Queries that were answered or denied under an agreement, with their operations, in the order of these; also those
    /// whose denial named none.
    pub async fn of_agreement(&self, agreement: String) -> Result<Vec<QueryRecord>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM query WHERE op IS NOT NULL AND outcome IN ('released', 'denied')
             AND (agreement = ?1 OR clause LIKE ?1 || '/%' OR (agreement = '' AND clause = '')) ORDER BY op"
        );
        self.store.run(move |db| db.prepare(&sql)?.query_map([agreement], read)?.collect()).await
    }

    /// Released queries without a proof, those whose session ends first.
    pub async fn unproven(&self, ends_before_ms: u64, limit: u32) -> Result<Vec<QueryRecord>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM query WHERE released IS NOT NULL AND proof IS NULL AND session_ends_ms < ?1
             ORDER BY session_ends_ms LIMIT ?2"
        );
        let run = move |db: &Connection| {
            db.prepare_cached(&sql)?.query_map((ends_before_ms.min(i64::MAX as u64) as i64, limit), read)?.collect()
        };
        self.store.run(run).await
    }

    /// Keeps the proof of a query, with the header it leads to.
    pub async fn proven(&self, id: i64, height: u64, proof: Vec<u8>, header: Header) -> Result<(), StoreError> {
        self.store
            .run(move |db| {
                db.execute(
                    "INSERT OR IGNORE INTO header (height, header, validators) VALUES (?1, ?2, ?3)",
                    (height as i64, header.header, header.validators),
                )?;
                let sql = "UPDATE query SET proof = ?2, proof_height = ?3 WHERE id = ?1";
                db.execute(sql, (id, proof, height as i64)).map(drop)
            })
            .await
    }

    /// The header kept for a proof at `height`.
    pub async fn header(&self, height: u64) -> Result<Option<Header>, StoreError> {
        let sql = "SELECT header, validators FROM header WHERE height = ?1";
        let read = |r: &Row<'_>| Ok(Header { header: r.get(0)?, validators: r.get(1)? });
        self.store.run(move |db| db.prepare_cached(sql)?.query_row([height as i64], read).optional()).await
    }
}

/// A header with its validators, packed for a receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `SignedHeader` protobuf.
    pub header: Vec<u8>,
    /// `ValidatorSet` protobuf.
    pub validators: Vec<u8>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(hash: u8) -> IdempotencyKey {
        IdempotencyKey { caller: "clerk-1".into(), key: "k".into(), body_hash: [hash; 32] }
    }

    #[tokio::test]
    async fn a_key_gives_the_same_answer_and_refuses_another_body() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(Store::open(&dir.path().join("b.sqlite")).unwrap());
        assert_eq!(records.begin(key(1), 1_000).await.unwrap(), Known::New);
        records.sending(key(1), Some(vec![7]), 50).await.unwrap();
        let sent = Known::Sent { call: vec![7], session_ends_ms: 50 };
        assert_eq!(records.begin(key(1), 1_000).await.unwrap(), sent, "after a crash the same bytes are sent");
        assert_eq!(records.begin(key(2), 1_000).await.unwrap(), Known::Other);
        let other = IdempotencyKey { caller: "clerk-2".into(), ..key(2) };
        assert_eq!(records.begin(other, 1_000).await.unwrap(), Known::New, "callers do not share keys");
        let answer = KeptAnswer { status: 200, body: b"{}".to_vec() };
        let record = QueryRecord { request_id: "r".into(), op: Some(9), ..Default::default() };
        records.keep(record, Some((key(1), answer.clone()))).await.unwrap();
        assert_eq!(records.begin(key(1), 1_000).await.unwrap(), Known::Answered(answer));
        assert_eq!(records.begin(key(1), 1_001 + IDEMPOTENCY_MS).await.unwrap(), Known::New, "forgotten after a day");
    }

    #[tokio::test]
    async fn records_come_back_as_they_were_kept() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(Store::open(&dir.path().join("b.sqlite")).unwrap());
        let mut record = QueryRecord {
            request_id: "r-1".into(),
            op: Some(5821),
            height: Some(58),
            session_ends_ms: 99,
            released: Some(vec![1]),
            outcome: "released".into(),
            ..Default::default()
        };
        record.id = records.keep(record.clone(), None).await.unwrap();
        assert_eq!(records.by_op(5821).await.unwrap().as_ref(), Some(&record));
        assert_eq!(records.by_request("r-1").await.unwrap().as_ref(), Some(&record));
        assert_eq!(records.unproven(100, 9).await.unwrap(), [record.clone()]);
        assert!(records.unproven(99, 9).await.unwrap().is_empty());
        let of_case = async |case: &str, from, until, limit| {
            records.by_case(case.to_owned(), from, until, limit).await.unwrap().len()
        };
        let other = QueryRecord { case_ref: "26-CR-1".into(), at_ms: 50, ..Default::default() };
        records.keep(other.clone(), None).await.unwrap();
        records.keep(QueryRecord { at_ms: 60, ..other }, None).await.unwrap();
        assert_eq!(of_case("26-CR-1", None, None, 9).await, 2);
        assert_eq!(of_case("26-CR-1", Some(51), None, 9).await, 1);
        assert_eq!(of_case("26-CR-1", None, Some(50), 9).await, 0);
        assert_eq!(of_case("26-CR-1", None, None, 1).await, 1);
        assert_eq!(of_case("", None, None, 9).await, 0, "queries without a case are no case");
        let header = Header { header: vec![1], validators: vec![2] };
        records.proven(record.id, 60, vec![3], header.clone()).await.unwrap();
        assert!(records.unproven(100, 9).await.unwrap().is_empty());
        assert_eq!(records.header(60).await.unwrap(), Some(header));
    }
}
