//! Writes that are carried out once. A server without transactions changes one document at a time, so the id of a write
//! stands in the row that it wrote (`o`), or that it is about to delete (`d`), from the one step on that does it. Whoever
//! changes such a row first puts that id among those that are done. A row with `d` is gone: only its removal is left. A write
//! that was forbidden leaves its id in the row (`x`), so that who looked before cannot change it any more.

use std::sync::Arc;
use std::time::Duration;

use concordat_protocol::hash::Hash;
use futures::TryStreamExt;
use mongodb::bson::{DateTime, Document, doc};
use mongodb::{Collection, Database};

use super::words::{is_duplicate, told};
use super::{MongoHolding, Table, lease, record};
use crate::holding::row::check_row;
use crate::holding::{Ended, Fate, HoldingError, Once, Version, only_ended};
use crate::limits::WRITE_IDS_AT_ONCE;

/// What became of writes, by their id.
pub(super) fn ids(database: &Database) -> Collection<Document> {
    database.collection("concordat_writes")
}

/// What of a row tells its version and the last write.
pub(super) fn parts() -> Document {
    doc! {"v": 1, "o": 1, "d": 1, "x": 1}
}

/// A row as it was found, that no write is about to delete.
pub(super) fn place(key: &str, version: &Version, found: Option<&Document>) -> Document {
    let mut place = doc! {"_id": key, "v": version.as_str(), "d": {"$exists": false}};
    match found.and_then(|f| f.get_str("x").ok()) {
        Some(mark) => place.insert("x", mark),
        None => place.insert("x", doc! {"$exists": false}),
    };
    place
}

/// Keeps what became of a write; what was kept before stays, and is answered.
async fn note(ids: &Collection<Document>, id: &str, done: bool) -> Result<bool, HoldingError> {
    match ids.insert_one(doc! {"_id": id, "done": done, "at": DateTime::now()}).await {
        Ok(_) => Ok(done),
        Err(e) if is_duplicate(&e) => Ok(known(ids, id).await?.unwrap_or(done)),
        Err(e) => Err(told(e)),
    }
}

async fn known(ids: &Collection<Document>, id: &str) -> Result<Option<bool>, HoldingError> {
    let found = ids.find_one(doc! {"_id": id}).await.map_err(told)?;
    Ok(found.map(|f| f.get_bool("done").unwrap_or(false)))
}

/// Keeps that the last write of a row was done, before the row changes again.
pub(super) async fn remember(ids: &Collection<Document>, row: &Document) -> Result<(), HoldingError> {
    for name in ["o", "d"] {
        if let Ok(id) = row.get_str(name) {
            note(ids, id, true).await?;
        }
    }
    Ok(())
}

/// The row of a key, its last write remembered; none where a write deleted it, which is ended here.
pub(super) async fn find(
    rows: &Collection<Document>,
    ids: &Collection<Document>,
    key: &str,
) -> Result<Option<Document>, HoldingError> {
    loop {
        let Some(row) = rows.find_one(doc! {"_id": key}).projection(parts()).await.map_err(told)? else {
            return Ok(None);
        };
        remember(ids, &row).await?;
        let Ok(id) = row.get_str("d") else { return Ok(Some(row)) };
        rows.delete_one(doc! {"_id": key, "d": id}).await.map_err(told)?;
    }
}

impl MongoHolding {
    /// Forgets ids that are old enough and ended. The id in a row that a write left there stays; it is noted anew, and
    /// forgotten again, when the row changes.
    pub(super) fn prune(&self, kept: Duration, ended: &Ended<'_>) -> Result<u64, HoldingError> {
        let all = ids(&self.database);
        let millis = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
        let before = DateTime::from_millis(DateTime::now().timestamp_millis().saturating_sub(millis));
        let reading = all.clone();
        let old: Vec<Hash> = self.bridge.run(async move {
            // Those of an earlier version have no time.
            let old = doc! {"$or": [{"at": {"$lte": before}}, {"at": {"$exists": false}}]};
            let found = reading.find(old).projection(doc! {"_id": 1}).limit(i64::from(WRITE_IDS_AT_ONCE));
            let found: Vec<Document> = found.await.map_err(told)?.try_collect().await.map_err(told)?;
            let id = |d: &Document| hex::decode(d.get_str("_id").ok()?).ok()?.try_into().ok();
            Ok(found.iter().filter_map(id).collect())
        })?;
        let gone: Vec<String> = only_ended(old, ended)?.iter().map(hex::encode).collect();
        let (leases, own) = (self.leases(), self.bound.term());
        self.bridge.run(async move {
            if gone.is_empty() {
                return Ok(0);
            }
            lease::check(&leases, own).await?;
            Ok(all.delete_many(doc! {"_id": {"$in": gone}}).await.map_err(told)?.deleted_count)
        })
    }

    /// Carries a write out, or forbids it; where one of the two was done before, tells which.
    pub(super) fn settle(&self, table: Arc<Table>, once: &Once, apply: bool) -> Result<Fate, HoldingError> {
        let id = hex::encode(once.id);
        let new = once.row.as_ref().map(|row| check_row(&table.spec, 0, row).map(|checked| (checked, row)));
        let new = new.transpose()?;
        if new.as_ref().is_some_and(|(row, _)| row.key != once.key) {
            return Err(HoldingError::Plan("the row of a write has another key than the write".into()));
        }
        let record = new.map(|(checked, row)| {
            let mut record = record::write(&table.spec, &checked, row);
            record.insert("o", &id);
            record
        });
        let (ids, once) = (ids(&self.database), once.clone());
        let (leases, own) = (self.leases(), self.bound.term());
        let fate = |done: bool| if done { Fate::Done } else { Fate::Void };
        self.bridge.run(async move {
            loop {
                // Looking at the row notes the write where it stands in it.
                let old = find(&table.rows, &ids, &once.key).await?;
                lease::check(&leases, own).await?;
                if let Some(done) = known(&ids, &id).await? {
                    return Ok(fate(done));
                }
                let before = old.as_ref().map(record::version);
                if !apply || once.expect.fits(&once.key, before.clone()).is_err() {
                    let done = note(&ids, &id, false).await?;
                    // A stalled executor may have looked before this was noted: the row it saw is another one now.
                    let marked = table.rows.update_one(doc! {"_id": &once.key}, doc! {"$set": {"x": &id}});
                    marked.await.map_err(told)?;
                    return Ok(fate(done));
                }
                let done = match (&record, &before) {
                    (Some(record), None) => match table.rows.insert_one(record).await {
                        Ok(_) => true,
                        Err(e) if is_duplicate(&e) => false,
                        Err(e) => return Err(told(e)),
                    },
                    (Some(record), Some(v)) => {
                        let replaced = table.rows.replace_one(place(&once.key, v, old.as_ref()), record);
                        replaced.await.map_err(told)?.matched_count == 1
                    }
                    (None, Some(v)) => {
                        let marked =
                            table.rows.update_one(place(&once.key, v, old.as_ref()), doc! {"$set": {"d": &id}});
                        marked.await.map_err(told)?.matched_count == 1
                    }
                    (None, None) => return note(&ids, &id, true).await.map(fate),
                };
                if done {
                    let done = note(&ids, &id, true).await?;
                    table.rows.delete_one(doc! {"_id": &once.key, "d": &id}).await.map_err(told)?;
                    return Ok(fate(done));
                }
            }
        })
    }
}
