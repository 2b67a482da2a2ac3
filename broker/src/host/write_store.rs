//! Writes in the release store: what has to be done once its intent is accepted, and how far each came.

use super::{ReleaseStore, State, StoreError, hash_of};
use concordat_executor::holding::{Expect, Once, Version};
use concordat_executor::step::{Conclusion, Input, Key, Reached, Resumed};
use concordat_executor::writing::Concluded;
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::hash::Hash;
use concordat_protocol::ops::Op;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Map, Value, json};

/// The table. `once` is what has to be done; it goes when the write is ended, so that no content stays behind.
pub(super) const TABLES: &str = "CREATE TABLE IF NOT EXISTS write (
  session INTEGER NOT NULL, n INTEGER NOT NULL, handle INTEGER NOT NULL, dataset TEXT NOT NULL, once TEXT, after BLOB,
  op_index INTEGER NOT NULL DEFAULT 0, code INTEGER, outcome BLOB, openings BLOB, shown BLOB,
  outcome_index INTEGER, outcome_height INTEGER, accepted_ms INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (session, n)) STRICT, WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS write_open ON write (session, n) WHERE outcome_index IS NULL;";

/// A write to store with its intent.
#[derive(Debug, Clone)]
pub struct NewWrite {
    /// Handle of the clause.
    pub handle: u64,
    /// The dataset.
    pub dataset: String,
    /// What has to be done. Its id is the intent's hash.
    pub once: Once,
    /// Hash of the record afterwards.
    pub after: Option<Hash>,
}

/// Writes' part of a round.
#[derive(Debug, Default)]
pub struct WriteRound {
    /// Stored with their intents.
    pub stores: Vec<(Key, NewWrite)>,
    /// (key, global index of the intent, height, ledger time).
    pub accepted: Vec<(Key, u64, u64, u64)>,
    /// Outcomes.
    pub concluded: Vec<(Key, Conclusion, Concluded)>,
    /// (key, global index of the outcome, height, ledger time).
    pub ended: Vec<(Key, u64, u64, u64)>,
}

/// What is to be done, and with which result.
#[derive(Debug, Clone)]
pub struct Todo {
    /// The dataset.
    pub dataset: String,
    /// What has to be done.
    pub once: Once,
    /// Hash of the record afterwards.
    pub after: Option<Hash>,
}

/// A write that is ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How.
    pub conclusion: Conclusion,
    /// Global index of the intent.
    pub index: u64,
    /// The outcome's canonical bytes.
    pub outcome: Vec<u8>,
    /// What the consumer is shown of its leaves.
    pub shown: Vec<u8>,
    /// Global index of the outcome.
    pub outcome_index: u64,
    /// Its height.
    pub outcome_height: u64,
}

impl WriteRound {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.stores.is_empty() && self.accepted.is_empty() && self.concluded.is_empty() && self.ended.is_empty()
    }

    /// The calls whose marks are durable with it.
    pub fn marked(&self) -> impl Iterator<Item = Key> {
        self.accepted.iter().map(|a| a.0).chain(self.ended.iter().map(|e| e.0))
    }

    /// What the step is told of its outcomes once they are durable.
    pub fn settled(&self) -> Vec<Input> {
        self.concluded.iter().map(|(key, _, made)| Input::Settled { key: *key, op: made.op.clone() }).collect()
    }

    /// Writes it, within a transaction.
    pub(super) fn write(&self, tx: &Connection) -> rusqlite::Result<()> {
        for ((session, n), w) in &self.stores {
            let sql =
                "INSERT OR REPLACE INTO write (session, n, handle, dataset, once, after) VALUES (?, ?, ?, ?, ?, ?)";
            let after = w.after.as_ref().map(|h| &h[..]);
            let text = once_text(&w.once);
            tx.execute(sql, params![*session as i64, *n as i64, w.handle as i64, w.dataset, text, after])?;
        }
        let settle =
            "UPDATE release SET state = ?3, op_index = ?4, height = ?5, released_ms = ?6 WHERE session = ?1 AND n = ?2";
        for ((session, n), index, height, tick) in &self.accepted {
            let (session, n, index) = (*session as i64, *n as i64, *index as i64);
            tx.execute(settle, params![session, n, State::Accepted as i64, index, *height as i64, 0])?;
            let sql = "UPDATE write SET op_index = ?3, accepted_ms = ?4 WHERE session = ?1 AND n = ?2";
            tx.execute(sql, [session, n, index, *tick as i64])?;
        }
        for ((session, n), conclusion, made) in &self.concluded {
            let sql =
                "UPDATE write SET code = ?3, outcome = ?4, openings = ?5, shown = ?6 WHERE session = ?1 AND n = ?2";
            let code = match conclusion {
                Conclusion::Applied => codes::OK,
                Conclusion::Failed(code) => *code,
            };
            let (session, n, op) = (*session as i64, *n as i64, cbor::encode(&made.op));
            tx.execute(sql, params![session, n, code, op, made.openings, made.shown])?;
        }
        for ((session, n), index, height, tick) in &self.ended {
            let (session, n) = (*session as i64, *n as i64);
            let sql =
                "UPDATE write SET once = NULL, outcome_index = ?3, outcome_height = ?4 WHERE session = ?1 AND n = ?2";
            tx.execute(sql, [session, n, *index as i64, *height as i64])?;
            let sql = "UPDATE release SET released_ms = ?3, state = CASE (SELECT code FROM write w WHERE w.session = ?1 AND w.n = ?2)
                         WHEN 0 THEN ?4 ELSE ?5 END WHERE session = ?1 AND n = ?2";
            tx.execute(sql, [session, n, *tick as i64, State::Released as i64, State::Closed as i64])?;
        }
        Ok(())
    }
}

fn once_text(once: &Once) -> String {
    let expect = match &once.expect {
        Expect::Absent => Value::Null,
        Expect::Any | Expect::Present => json!("*"),
        Expect::Version(v) => json!(v.as_str()),
    };
    json!({"id": hex::encode(once.id), "key": once.key, "row": once.row, "expect": expect}).to_string()
}

fn read_once(text: &str) -> Option<Once> {
    let value: Value = serde_json::from_str(text).ok()?;
    let row: Option<Map<String, Value>> = serde_json::from_value(value.get("row")?.clone()).ok()?;
    let expect = match value.get("expect")? {
        Value::Null => Expect::Absent,
        Value::String(s) if s == "*" => Expect::Present,
        other => Expect::Version(Version::read(other.as_str()?)),
    };
    let id = hex::decode(value.get("id")?.as_str()?).ok()?.try_into().ok()?;
    Some(Once { id, key: value.get("key")?.as_str()?.to_owned(), row, expect })
}

fn conclusion(code: u16) -> Conclusion {
    if code == codes::OK { Conclusion::Applied } else { Conclusion::Failed(code) }
}

impl ReleaseStore {
    /// Writes that are not ended, for the step after a restart.
    pub fn open_writes(&self) -> Result<Vec<Resumed>, StoreError> {
        let sql = "SELECT r.session, r.n, r.request_hash, r.op_hash, r.session_ends_ms, w.handle, r.state, w.op_index, w.code, w.outcome
                   FROM write w JOIN release r USING (session, n) WHERE w.outcome_index IS NULL AND r.state IN (?1, ?2)";
        let mut statement = self.db.prepare(sql)?;
        let number = |r: &Row<'_>, at: usize| r.get::<_, i64>(at).map(|v| v as u64);
        let rows = statement.query_map([State::Stored as i64, State::Accepted as i64], |r| {
            let index = number(r, 7)?;
            let outcome = r.get::<_, Option<Vec<u8>>>(9)?.and_then(|op| cbor::decode::<Op>(&op).ok());
            let reached = match (number(r, 6)? == State::Stored as u64, outcome, r.get::<_, Option<u16>>(8)?) {
                (true, ..) => Reached::Stored,
                (_, Some(op), Some(code)) => Reached::Concluded { index, conclusion: conclusion(code), op },
                _ => Reached::Accepted { index },
            };
            Ok(Resumed {
                key: (number(r, 0)?, number(r, 1)?),
                request_hash: hash_of(r.get(2)?),
                op_hash: hash_of(r.get(3)?),
                session_expires_ms: number(r, 4)?,
                handle: number(r, 5)?,
                reached,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What a write has to do, until it is ended.
    pub fn todo(&self, key: Key) -> Result<Option<Todo>, StoreError> {
        let sql = "SELECT dataset, once, after FROM write WHERE session = ?1 AND n = ?2 AND once IS NOT NULL";
        let found = self.db.prepare_cached(sql)?.query_row([key.0 as i64, key.1 as i64], |r| {
            Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, r.get::<_, Option<Vec<u8>>>(2)?))
        });
        let found = found.optional()?;
        Ok(found.and_then(|(dataset, once, after)| {
            Some(Todo { dataset, once: read_once(&once)?, after: after.map(hash_of) })
        }))
    }

    /// A write that is ended.
    pub fn ended(&self, key: Key) -> Result<Option<Ended>, StoreError> {
        let sql = "SELECT code, op_index, outcome, shown, outcome_index, outcome_height FROM write
                   WHERE session = ?1 AND n = ?2 AND outcome_index IS NOT NULL";
        let found = self.db.prepare_cached(sql)?.query_row([key.0 as i64, key.1 as i64], |r| {
            Ok(Ended {
                conclusion: conclusion(r.get(0)?),
                index: r.get::<_, i64>(1)? as u64,
                outcome: r.get(2)?,
                shown: r.get(3)?,
                outcome_index: r.get::<_, i64>(4)? as u64,
                outcome_height: r.get::<_, i64>(5)? as u64,
            })
        });
        Ok(found.optional()?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_has_to_be_done_is_read_as_it_was_kept() {
        let row = json!({"id": "a", "d": 0.10, "n": null}).as_object().cloned();
        for expect in [Expect::Absent, Expect::Present, Expect::Version(Version::of("{}"))] {
            let once = Once { id: [7; 32], key: "a|b".into(), row: row.clone(), expect };
            assert_eq!(read_once(&once_text(&once)), Some(once.clone()));
            let gone = Once { row: None, ..once };
            assert_eq!(read_once(&once_text(&gone)), Some(gone));
        }
    }
}
