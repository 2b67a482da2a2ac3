//! What the provider kept of every operation that touched a subject: in the release store (queries, denials) and in the
//! feed store (deliveries). Connections of their own beside those of the tasks that write there.

use super::SubjectId;
use crate::host::releases::State;
use crate::host::touched::{self, OF_SUBJECT};
use concordat_executor::holding::sqlite::empty_log;
use concordat_protocol::cbor;
use concordat_protocol::hash::Hash;
use concordat_protocol::leaves::Redacted;
use concordat_protocol::ops::Tag;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::path::Path;

/// A disclosure as it was kept.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Canonical operation.
    pub op: Vec<u8>,
    /// All leaves of the commitment; none once erased.
    pub openings: Option<Redacted>,
    /// The clause's sentence.
    pub sentence: String,
    /// Sorted tags that travel as bulk.
    pub bulk: Vec<Tag>,
    /// Accepted and never released.
    pub withheld: bool,
}

/// What of a subject is in the stores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Global indexes of its operations, sorted.
    pub operations: Vec<u64>,
    /// Operations on their way, that have no index yet.
    pub pending: u64,
}

/// Both stores.
pub struct Disclosures {
    releases: Connection,
    feeds: Connection,
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    db.execute_batch("PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;")?;
    Ok(db)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Kept> {
    let (openings, bulk): (Vec<u8>, Vec<u8>) = (row.get(1)?, row.get(3)?);
    let bulk = bulk.as_chunks::<16>().0.to_vec();
    let openings = cbor::decode(&openings).ok();
    Ok(Kept { op: row.get(0)?, openings, sentence: row.get(2)?, bulk, withheld: row.get::<_, i64>(4)? != 0 })
}

const DELIVERED: &str =
    "(subscription, last_sub_seq) IN (SELECT subscription, last_sub_seq FROM deliver_subject WHERE subject = ?1)";

impl Disclosures {
    /// Connects to stores that their tasks have made.
    pub fn open(releases: &Path, feeds: &Path) -> rusqlite::Result<Self> {
        Ok(Self { releases: open(releases)?, feeds: open(feeds)? })
    }

    /// Both stores of the executor with this term: another one's later term ends its writing.
    pub fn under(mut self, term: Option<u64>) -> rusqlite::Result<Self> {
        if let Some(term) = term {
            crate::fence::guard(&mut self.releases, term)?;
            crate::fence::guard(&mut self.feeds, term)?;
        }
        Ok(self)
    }

    /// What was kept of an operation.
    pub fn of_op(&self, op_hash: &Hash) -> rusqlite::Result<Option<Kept>> {
        let sql = format!(
            "SELECT op, openings, sentence, bulk, state = {} FROM release WHERE op_hash = ?1",
            State::Withheld as i64
        );
        let found = self.releases.prepare_cached(&sql)?.query_row([op_hash], read).optional()?;
        if found.is_some() {
            return Ok(found);
        }
        let sql = "SELECT op, openings, sentence, bulk, 0 FROM deliver WHERE op_hash = ?1";
        self.feeds.prepare_cached(sql)?.query_row([op_hash], read).optional()
    }

    /// The subjects of an operation.
    pub fn subjects_of(&self, op_hash: &Hash) -> rusqlite::Result<Vec<SubjectId>> {
        let mut all = touched::of_op(&self.releases, op_hash)?;
        let sql = "SELECT subject FROM deliver_subject NATURAL JOIN deliver WHERE op_hash = ?1";
        let mut list = self.feeds.prepare_cached(sql)?;
        for id in list.query_map([op_hash], |r| r.get(0))? {
            all.push(id?);
        }
        Ok(all)
    }

    /// The operations of a subject.
    pub fn touched(&self, id: &SubjectId) -> rusqlite::Result<Touched> {
        let mut all = Touched::default();
        let queries = format!("SELECT op_index, state FROM release WHERE {OF_SUBJECT}");
        let deliveries = format!("SELECT coalesce(op_index, 0), op_index IS NOT NULL FROM deliver WHERE {DELIVERED}");
        for (db, sql) in [(&self.releases, queries), (&self.feeds, deliveries)] {
            let mut statement = db.prepare_cached(&sql)?;
            let mut rows = statement.query([id])?;
            while let Some(row) = rows.next()? {
                match row.get::<_, i64>(1)? {
                    0 | 4 | 5 => all.pending += 1,
                    _ => all.operations.push(row.get::<_, i64>(0)? as u64),
                }
            }
        }
        all.operations.retain(|i| *i > 0);
        all.operations.sort_unstable();
        Ok(all)
    }

    /// Destroys what opens a subject's operations, the stored responses, and the subject's own traces.
    pub fn forget(&mut self, id: &SubjectId) -> rusqlite::Result<()> {
        let tx = self.releases.transaction()?;
        let wipe = "UPDATE release SET secret = zeroblob(32), body = NULL, decision = '{}', openings = x''";
        tx.execute(&format!("{wipe} WHERE {OF_SUBJECT}"), [id])?;
        touched::forget(&tx, id)?;
        tx.commit()?;
        let tx = self.feeds.transaction()?;
        tx.execute(&format!("UPDATE deliver SET secret = zeroblob(32), openings = x'' WHERE {DELIVERED}"), [id])?;
        tx.execute("DELETE FROM deliver_subject WHERE subject = ?1", [id])?;
        tx.commit()?;
        empty_log(&self.releases)?;
        empty_log(&self.feeds)
    }

    /// Destroys what opens one operation, whomever it touched.
    pub fn forget_op(&mut self, op_hash: &Hash) -> rusqlite::Result<()> {
        let wipe = "UPDATE release SET secret = zeroblob(32), body = NULL, decision = '{}', openings = x''";
        self.releases.execute(&format!("{wipe} WHERE op_hash = ?1"), [op_hash])?;
        let wipe = "UPDATE deliver SET secret = zeroblob(32), openings = x'' WHERE op_hash = ?1";
        self.feeds.execute(wipe, [op_hash])?;
        empty_log(&self.releases)?;
        empty_log(&self.feeds)
    }

    /// Height up to which the ledger's erasures are carried out here; none for a store that never knew.
    pub fn erased_up_to(&self) -> rusqlite::Result<Option<u64>> {
        let sql = "SELECT value FROM mark WHERE name = 'erased_up_to'";
        let known = self.releases.query_row(sql, [], |r| r.get::<_, i64>(0)).optional()?;
        Ok(known.map(|v| v as u64))
    }

    /// Whether there is nothing to forget in here.
    pub fn is_empty(&self) -> rusqlite::Result<bool> {
        let none = |db: &Connection, table| {
            db.query_row(&format!("SELECT NOT EXISTS (SELECT 1 FROM {table})"), [], |r| r.get::<_, bool>(0))
        };
        Ok(none(&self.releases, "release")? && none(&self.feeds, "deliver")?)
    }

    /// Keeps up to which height the ledger's erasures are carried out.
    pub fn set_erased_up_to(&self, height: u64) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO mark (name, value) VALUES ('erased_up_to', ?1)";
        self.releases.execute(sql, params![height as i64]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::host::ReleaseStore;
    use crate::host::feed::FeedStore;
    use crate::host::releases::{Detail, NewRelease, Round};

    fn release(n: u64, subjects: &[u8]) -> NewRelease {
        let redacted = Redacted { leaves: vec![] };
        NewRelease {
            key: (1, n),
            request_hash: [0; 32],
            op_hash: [n as u8; 32],
            secret: [0x5e; 32],
            body: Some(b"the response".to_vec()),
            decision: "{}".into(),
            session_expires_ms: 9,
            detail: Detail {
                op: vec![1],
                openings: cbor::encode(&redacted),
                sentence: "May.".into(),
                bulk: vec![4; 32],
                subjects: subjects.iter().map(|s| [*s; 32]).collect(),
                ..Detail::default()
            },
        }
    }

    #[test]
    fn a_subject_is_found_and_forgotten_whether_or_not_the_index_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (releases, feeds) = (dir.path().join("r.sqlite"), dir.path().join("f.sqlite"));
        let mut store = ReleaseStore::open(&releases).unwrap();
        drop(FeedStore::open(&feeds).unwrap());
        let crowd = |n: u64| {
            let mut r = release(n, &[0xa1]);
            let others =
                (0..20_000u64).map(|i| concordat_protocol::hash::sha256(&[&i.to_be_bytes(), &n.to_be_bytes()]));
            r.detail.subjects.extend(others);
            r
        };
        store.write(&Round { stores: vec![release(1, &[0xa1])], ..Round::default() }).unwrap();
        store.write(&Round { stores: vec![crowd(2)], ..Round::default() }).unwrap();
        store.write(&Round { stores: vec![release(3, &[0xa1, 0xb2])], ..Round::default() }).unwrap();
        let released = vec![((1, 1), 40, 9, 1), ((1, 2), 41, 9, 1), ((1, 3), 42, 9, 1)];
        store.write(&Round { released, ..Round::default() }).unwrap();
        let mut all = Disclosures::open(&releases, &feeds).unwrap();
        let count = |table: &str| -> i64 {
            let db = Connection::open(&releases).unwrap();
            db.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0)).unwrap()
        };
        assert_eq!(
            (count("touched"), count("touched_new")),
            (20_002, 1),
            "one large answer brings the index up to date"
        );
        assert_eq!(all.touched(&[0xa1; 32]).unwrap().operations, [40, 41, 42]);
        assert_eq!(all.subjects_of(&[2; 32]).unwrap().len(), 20_001);
        assert_eq!(all.subjects_of(&[3; 32]).unwrap(), [[0xa1; 32], [0xb2; 32]]);
        all.forget(&[0xa1; 32]).unwrap();
        assert_eq!(all.touched(&[0xa1; 32]).unwrap(), Touched::default());
        assert_eq!(all.touched(&[0xb2; 32]).unwrap().operations, [42]);
        assert_eq!(all.subjects_of(&[2; 32]).unwrap().len(), 20_000);
    }

    #[test]
    fn a_subjects_operations_are_found_and_forgotten_and_others_keep_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let (releases, feeds) = (dir.path().join("r.sqlite"), dir.path().join("f.sqlite"));
        let mut store = ReleaseStore::open(&releases).unwrap();
        drop(FeedStore::open(&feeds).unwrap());
        let stores = vec![release(1, &[0xa1, 0xb2]), release(2, &[0xb2]), release(3, &[0xa1])];
        store.write(&Round { stores, ..Round::default() }).unwrap();
        store
            .write(&Round { released: vec![((1, 1), 40, 9, 1)], withheld: vec![((1, 2), 41)], ..Round::default() })
            .unwrap();
        let mut all = Disclosures::open(&releases, &feeds).unwrap();
        assert_eq!(all.touched(&[0xa1; 32]).unwrap(), Touched { operations: vec![40], pending: 1 });
        assert_eq!(all.touched(&[0xb2; 32]).unwrap(), Touched { operations: vec![40, 41], pending: 0 });
        assert_eq!(all.subjects_of(&[1; 32]).unwrap(), [[0xa1; 32], [0xb2; 32]]);
        assert!(all.of_op(&[2; 32]).unwrap().unwrap().withheld);
        let kept = all.of_op(&[1; 32]).unwrap().unwrap();
        assert!(kept.openings.is_some() && kept.bulk == [[4; 16]; 2] && !kept.withheld);
        all.forget(&[0xa1; 32]).unwrap();
        assert_eq!(all.touched(&[0xa1; 32]).unwrap(), Touched::default());
        assert_eq!(all.touched(&[0xb2; 32]).unwrap().operations, [40, 41], "the entry stays on the other's list");
        let kept = all.of_op(&[1; 32]).unwrap().unwrap();
        assert!(kept.openings.is_none() && kept.op == [1], "the operation itself is on the ledger");
        assert!(all.of_op(&[2; 32]).unwrap().unwrap().openings.is_some());
        assert!(store.find((1, 1)).unwrap().unwrap().body.is_none());
        for entry in std::fs::read_dir(dir.path()).unwrap().flatten() {
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(!bytes.windows(32).any(|w| w == [0xa1; 32]), "{} names the subject", entry.path().display());
        }
    }
}
