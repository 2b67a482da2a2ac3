//! A load of many rows. They are inserted first, and only those whose keys the server has already are looked up: a new
//! snapshot costs no look at what is there, which matters where a server reads a whole collection for it.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use mongodb::bson::{Document, doc};
use mongodb::error::{Error, ErrorKind, InsertManyError};
use mongodb::{Collection, Database};
use serde_json::{Map, Value};

use super::words::{DUPLICATE, told};
use super::{Table, once, record};
use crate::holding::{Checked, HoldingError, PutReport, Version};

/// Rows of one command.
pub(super) const PUT_ROWS: usize = 1_000;

/// Puts checked rows, in the order given.
pub(super) async fn put(
    database: &Database,
    table: &Table,
    checked: &[Checked],
    rows: &[Map<String, Value>],
) -> Result<PutReport, HoldingError> {
    let ids = once::ids(database);
    let mut report = PutReport::default();
    for (checked, rows) in checked.chunks(PUT_ROWS).zip(rows.chunks(PUT_ROWS)) {
        // Of a key that comes twice the last row counts.
        let last: BTreeMap<&str, (&Checked, &Map<String, Value>)> =
            checked.iter().zip(rows).map(|(c, r)| (c.key.as_str(), (c, r))).collect();
        let records: Vec<(&str, Document)> =
            last.iter().map(|(key, (c, r))| (*key, record::write(&table.spec, c, r))).collect();
        let taken = insert(&table.rows, &records).await?;
        let known = known(&table.rows, &ids, &taken).await?;
        count(&mut report, checked, &known);
        for (key, record) in records.into_iter().filter(|(key, _)| taken.contains(key)) {
            if known.get(key).is_none_or(|there| *there != record::version(&record)) {
                table.rows.replace_one(doc! {"_id": key}, record).upsert(true).await.map_err(told)?;
            }
        }
    }
    Ok(report)
}

/// Inserts what it can; returns the keys that are there already.
async fn insert<'a>(
    rows: &Collection<Document>,
    records: &[(&'a str, Document)],
) -> Result<BTreeSet<&'a str>, HoldingError> {
    if records.is_empty() {
        return Ok(BTreeSet::new());
    }
    let inserted = rows.insert_many(records.iter().map(|(_, record)| record)).ordered(false).await;
    let Err(e) = inserted else { return Ok(BTreeSet::new()) };
    let taken = duplicates(&e).map(|at| at.iter().filter_map(|i| records.get(*i).map(|(key, _)| *key)).collect());
    taken.ok_or_else(|| told(e))
}

/// The places of the rows that were refused, if every one of them was because its key is there.
fn duplicates(e: &Error) -> Option<Vec<usize>> {
    match e.kind.as_ref() {
        ErrorKind::InsertMany(InsertManyError { write_errors: Some(refused), write_concern_error: None, .. }) => {
            refused.iter().map(|r| (r.code == DUPLICATE).then_some(r.index)).collect()
        }
        _ => None,
    }
}

/// Versions of the rows of these keys, each one's last write remembered before it changes.
async fn known<'a>(
    rows: &Collection<Document>,
    ids: &Collection<Document>,
    keys: &BTreeSet<&'a str>,
) -> Result<BTreeMap<&'a str, Version>, HoldingError> {
    let mut known = BTreeMap::new();
    if keys.is_empty() {
        return Ok(known);
    }
    let wanted: Vec<&str> = keys.iter().copied().collect();
    let there = rows.find(doc! {"_id": {"$in": wanted}}).projection(once::parts());
    let there: Vec<Document> = there.await.map_err(told)?.try_collect().await.map_err(told)?;
    for old in &there {
        once::remember(ids, old).await?;
        if let Some(key) = old.get_str("_id").ok().and_then(|id| keys.get(id)) {
            known.insert(*key, record::version(old));
        }
    }
    Ok(known)
}

/// Counts what rows do to what was there, each after the one before.
fn count(report: &mut PutReport, checked: &[Checked], known: &BTreeMap<&str, Version>) {
    let mut now: BTreeMap<&str, Version> = known.clone();
    for new in checked {
        let version = Version::of(&new.doc);
        match now.insert(new.key.as_str(), version.clone()) {
            Some(old) if old == version => report.unchanged += 1,
            Some(_) => report.updated += 1,
            None => report.inserted += 1,
        }
    }
}
