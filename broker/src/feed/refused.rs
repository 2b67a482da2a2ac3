//! Deliveries that did not prove themselves are kept as they came: evidence against their provider.

use super::FeedProofError;
use super::store::{Key, Shelf};
use crate::store::StoreError;
use concordat_protocol::hash::sha256;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// Refused deliveries kept of one subscription; the oldest go first.
pub const REFUSED_KEPT: u64 = 100;
/// Bytes of one refused delivery kept at most.
pub const REFUSED_BYTES: usize = 1 << 20;

/// A delivery that did not prove itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its number among those of the subscription, from 1.
    pub n: u64,
    /// When, milliseconds.
    pub at_ms: u64,
    /// Its place in the feed stream.
    pub place: u64,
    /// The check that failed.
    pub check: String,
    /// What is wrong.
    pub sentence: String,
    /// Size, bytes.
    pub size: u64,
    /// SHA-256 of the bytes, hexadecimal.
    pub sha256: String,
    /// The bytes, unless they are more than [`REFUSED_BYTES`].
    pub bytes: Option<Vec<u8>>,
}

fn refused(r: &Row<'_>) -> rusqlite::Result<Refused> {
    let number = |at| r.get::<_, i64>(at).map(|v| v as u64);
    Ok(Refused {
        n: number(0)?,
        at_ms: number(1)?,
        place: number(2)?,
        check: r.get(3)?,
        sentence: r.get(4)?,
        size: number(5)?,
        sha256: r.get(6)?,
        bytes: r.get(7)?,
    })
}

impl Shelf {
    /// Keeps a delivery that did not prove itself.
    pub async fn refuse(
        &self,
        key: &Key,
        at_ms: u64,
        place: u64,
        why: &FeedProofError,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let (provider, number) = key.sql();
        let (code, sentence, size, hash) =
            (why.check, why.sentence.clone(), bytes.len() as i64, hex::encode(sha256(&[bytes])));
        let bytes = (bytes.len() <= REFUSED_BYTES).then(|| bytes.to_vec());
        let put = move |db: &Connection| {
            let sql = "SELECT coalesce(max(n), 0) + 1 FROM feed_refused WHERE provider = ?1 AND number = ?2";
            let n: i64 = db.query_row(sql, params![provider, number], |r| r.get(0))?;
            let sql = "INSERT INTO feed_refused VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
            db.execute(
                sql,
                params![provider, number, n, at_ms as i64, place as i64, code, sentence, size, hash, bytes],
            )?;
            let sql = "DELETE FROM feed_refused WHERE provider = ?1 AND number = ?2 AND n <= ?3";
            db.execute(sql, params![provider, number, n - REFUSED_KEPT as i64]).map(drop)
        };
        self.store.run(put).await
    }

    /// Deliveries that did not prove themselves, without their bytes.
    pub async fn all_refused(&self, key: &Key) -> Result<Vec<Refused>, StoreError> {
        let key = key.sql();
        let sql = "SELECT n, at_ms, place, code, sentence, size, sha256, NULL FROM feed_refused
            WHERE provider = ?1 AND number = ?2 ORDER BY n";
        self.store.run(move |db| db.prepare_cached(sql)?.query_map(key, refused)?.collect()).await
    }

    /// One of them with its bytes.
    pub async fn one_refused(&self, key: &Key, n: u64) -> Result<Option<Refused>, StoreError> {
        let (provider, number) = key.sql();
        let sql = "SELECT n, at_ms, place, code, sentence, size, sha256, bytes FROM feed_refused
            WHERE provider = ?1 AND number = ?2 AND n = ?3";
        let n = n.min(i64::MAX as u64) as i64;
        self.store.run(move |db| db.prepare_cached(sql)?.query_row((provider, number, n), refused).optional()).await
    }
}
