//! The lease of the executor at work, a document beside the records.
//!
//! The server changes one document at a time, so a write looks at the lease before it changes its record, not within. What
//! may come in between is fenced at the record: whoever forbids a write marks the record it was about ([`super::once`]).

use mongodb::Collection;
use mongodb::bson::{Document, doc};

use super::MongoHolding;
use super::words::{is_duplicate, told};
use crate::holding::{HoldingError, fence};
use crate::lease::{Answer, Bid, Lease, decide};

/// The one lease.
const ID: &str = "lease";

fn lease_of(found: &Document) -> Result<Lease, HoldingError> {
    let missing = |name: &str| HoldingError::Damaged(format!("the executor's lease has no {name}"));
    let number = |name: &str| found.get_i64(name).map(|v| v as u64).map_err(|_| missing(name));
    let holder = found.get_str("holder").map_err(|_| missing("holder"))?.to_owned();
    Ok(Lease { term: number("term")?, holder, until_ms: number("until_ms")? })
}

fn parts(lease: &Lease) -> Document {
    doc! {"term": lease.term as i64, "holder": &lease.holder, "until_ms": lease.until_ms as i64}
}

/// Refuses a write of an executor that is not at work any more.
pub(super) async fn check(leases: &Collection<Document>, own: Option<u64>) -> Result<(), HoldingError> {
    let Some(own) = own else { return Ok(()) };
    let found = leases.find_one(doc! {"_id": ID}).await.map_err(told)?;
    fence::check(own, found.map(|f| lease_of(&f)).transpose()?.map(|l| l.term))
}

impl MongoHolding {
    pub(super) fn leases(&self) -> Collection<Document> {
        self.database.collection("concordat_executor")
    }

    pub(super) fn bid(&self, bid: &Bid) -> Result<Answer, HoldingError> {
        let (database, leases, bid) = (self.database.clone(), self.leases(), bid.clone());
        self.bridge.run(async move {
            loop {
                let hello = database.run_command(doc! {"hello": 1}).await.map_err(told)?;
                let clock = hello.get_datetime("localTime").map_err(|e| HoldingError::Store(e.to_string()))?;
                let now = u64::try_from(clock.timestamp_millis()).unwrap_or_default();
                let found = leases.find_one(doc! {"_id": ID}).await.map_err(told)?;
                let known = found.as_ref().map(lease_of).transpose()?.unwrap_or_default();
                let Some(lease) = decide(&known, &bid, now) else {
                    return Ok(Answer { lease: known, granted: false });
                };
                let mut place = parts(&known);
                place.insert("_id", ID);
                let mut next = parts(&lease);
                next.insert("_id", ID);
                let done = if found.is_some() {
                    leases.replace_one(place, next).await.map_err(told)?.matched_count == 1
                } else {
                    match leases.insert_one(next).await {
                        Ok(_) => true,
                        Err(e) if is_duplicate(&e) => false,
                        Err(e) => return Err(told(e)),
                    }
                };
                // Somebody came in between: look again.
                if done {
                    return Ok(Answer { lease, granted: true });
                }
            }
        })
    }
}
