//! Ids of writes that nobody will ask for again are forgotten by the store of records.
//!
//! A write is carried out once by its id, which the store keeps. The executor asks for it again until its outcome is on the ledger,
//! also after a crash; a former executor may still try for as long as it stands still, and is refused by the fence. So an id
//! is kept while its write has no outcome, and seven days at least.

use super::unsettled::ended;
use concordat_executor::holding::{Holding, HoldingError};
use concordat_executor::limits::{WRITE_IDS_AT_ONCE, WRITE_IDS_KEPT};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// How often the store is looked through.
const EVERY: Duration = Duration::from_secs(3_600);
/// The first time after a start: unfinished writes go first.
const FIRST: Duration = Duration::from_secs(300);

/// Runs without end.
pub(super) async fn forget_writes(holding: Arc<dyn Holding>, releases: PathBuf) {
    tokio::time::sleep(FIRST).await;
    loop {
        let (store, path) = (holding.clone(), releases.clone());
        let done = tokio::task::spawn_blocking(move || {
            let over = |ids: &[_]| ended(&path, ids).map_err(|e| HoldingError::Store(format!("release store: {e}")));
            store.forget_writes(WRITE_IDS_KEPT, &over)
        });
        match done.await {
            Ok(Ok(0)) => {}
            Ok(Ok(ids)) => {
                info!(ids, "ids of ended writes were forgotten");
                if ids >= u64::from(WRITE_IDS_AT_ONCE) {
                    continue;
                }
            }
            Ok(Err(error)) => warn!(%error, "ids of ended writes are kept for now"),
            Err(error) => warn!(%error, "ids of ended writes are kept for now"),
        }
        tokio::time::sleep(EVERY).await;
    }
}
