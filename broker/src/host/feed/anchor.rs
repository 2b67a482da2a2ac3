//! Anchors what one subscription delivered: every quarter of `max_lag`, one operation at a time.

use super::error::FeedError;
use super::evidence::{Clause, DAY_MS, deliver};
use super::store::Open;
use super::subscription::{RETRY, Shared};
use crate::host::releases::Detail;
use crate::host::subjects::SubjectId;
use crate::ledger::LedgerError;
use concordat_executor::answer::random32;
use concordat_executor::subjects::Marked;
use concordat_protocol::cbor;
use concordat_protocol::codes::Verdict;
use concordat_protocol::ids::DatasetId;
use std::collections::BTreeSet;
use std::time::Duration;
use tracing::{error, warn};

/// Anchors until the subscription ended and nothing is left; with `forever` false, until nothing is left. An operation
/// is durable here before it is written, and its verdict is awaited however long that takes, so that none is made twice.
pub(super) async fn anchor(shared: &Shared, forever: bool) {
    let (number, mut ended) = (shared.number, shared.ended.subscribe());
    let mut view = shared.setup.view.clone();
    while view.has_changed().is_ok() {
        // A new version of the agreement may have another bound.
        let max_lag_ms = shared.clause().max_lag_ms;
        let open: Vec<Open> = shared.unanchored(|u| u.all().to_vec());
        let over = !forever || ended.borrow_and_update().is_some();
        if open.is_empty() && over {
            return;
        }
        if max_lag_ms == 0 {
            // Public data: nothing is promised and nothing anchored.
            if over || ended.changed().await.is_err() {
                return;
            }
            continue;
        }
        let now_ms = view.borrow_and_update().now_ms();
        match now_ms.filter(|_| !open.is_empty()) {
            None => {}
            Some(now_ms) => match anchor_once(shared, &open, now_ms).await {
                Ok(()) => {}
                Err(FeedError::Ledger(e @ LedgerError::Stopped)) => {
                    error!(subscription = number, error = %e, "deliveries are not anchored any more");
                    return;
                }
                Err(e) => {
                    error!(subscription = number, error = %e, "deliveries wait for their operation");
                    tokio::time::sleep(RETRY).await;
                }
            },
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis((max_lag_ms / 4).max(20))) => {}
            _ = ended.changed() => {}
        }
    }
}

/// The tags of everybody whose records were delivered since the last operation.
async fn mark(
    shared: &Shared,
    clause: &Clause,
    (first, last): (u64, u64),
    now_ms: u64,
) -> Result<(Marked, Vec<SubjectId>), FeedError> {
    let library = |e: &dyn std::fmt::Display| FeedError::Library(e.to_string());
    let Ok(dataset) = DatasetId::new(clause.dataset.clone()) else { return Ok((Marked::nobody(), vec![])) };
    if shared.setup.people.field(&dataset).is_none() {
        return Ok((Marked::nobody(), vec![]));
    }
    let ids: BTreeSet<SubjectId> =
        shared.store.subjects(shared.number, first, last).await?.as_chunks().0.iter().copied().collect();
    let ids: Vec<SubjectId> = ids.into_iter().collect();
    let marked = tokio::task::block_in_place(|| shared.setup.people.mark(&dataset, &ids, now_ms / DAY_MS));
    Ok((marked.map_err(|e| library(&e))?, ids))
}

async fn anchor_once(shared: &Shared, open: &[Open], now_ms: u64) -> Result<(), FeedError> {
    let number = shared.number;
    let library = |e: &dyn std::fmt::Display| FeedError::Library(e.to_string());
    let secret = random32().map_err(|e| library(&e))?;
    let (Some(first), Some(last)) = (open.first(), open.last()) else { return Ok(()) };
    let (first, last) = (first.sub_seq, last.sub_seq);
    let clause = shared.clause();
    let (marked, subjects) = mark(shared, &clause, (first, last), now_ms).await?;
    let made = deliver(&clause, open, now_ms, marked.tags, &secret).map_err(|e| library(&e))?;
    let Some((op, openings)) = made else { return Ok(()) };
    let detail = Detail {
        op: cbor::encode(&op),
        openings: cbor::encode(&openings),
        sentence: clause.sentence,
        bulk: marked.bulk.concat(),
        subjects,
        ..Detail::default()
    };
    shared.store.operation(number, last, op.hash(), secret, detail).await?;
    let recorded = shared.setup.writer.record(op).await?;
    match recorded.verdict {
        Verdict::Accepted => {}
        Verdict::Refused => {
            // The ledger's number is truth: this range, or a part of it, may be anchored already.
            warn!(subscription = number, op = recorded.index, code = recorded.code, "deliver refused");
            let anchored = shared.anchored().await?;
            shared.unanchored(|u| u.anchored(anchored));
            shared.tell(|p| p.anchored_sub_seq = anchored);
            shared.store.drop_operation(number, last).await?;
            shared.store.anchored(number, anchored, recorded.index).await?;
            tokio::time::sleep(RETRY).await;
            return Ok(());
        }
        // The entry stays as it is, for both sides to see.
        verdict => {
            let code = recorded.code;
            error!(subscription = number, op = recorded.index, code, ?verdict, "bounded evidence was not in order");
        }
    }
    shared.unanchored(|u| u.anchored(last));
    shared.tell(|p| p.anchored_sub_seq = last);
    Ok(shared.store.anchored(number, last, recorded.index).await?)
}
