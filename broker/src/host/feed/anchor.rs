//! Anchors what one subscription delivered: every quarter of `max_lag`, one operation at a time.

use super::error::FeedError;
use super::evidence::deliver;
use super::store::Open;
use super::subscription::{RETRY, Shared};
use crate::ledger::LedgerError;
use concordat_executor::answer::random32;
use concordat_protocol::cbor;
use concordat_protocol::codes::Verdict;
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

async fn anchor_once(shared: &Shared, open: &[Open], now_ms: u64) -> Result<(), FeedError> {
    let number = shared.number;
    let library = |e: &dyn std::fmt::Display| FeedError::Library(e.to_string());
    let secret = random32().map_err(|e| library(&e))?;
    let made = deliver(&shared.clause(), open, now_ms, &secret).map_err(|e| library(&e))?;
    let (Some(op), Some(last)) = (made, open.last()) else { return Ok(()) };
    let last = last.sub_seq;
    shared.store.operation(number, last, cbor::encode(&op), op.hash(), secret).await?;
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
