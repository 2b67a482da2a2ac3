//! What a former process left, taken over at the start.

use super::Loop;
use crate::host::StoreError;
use concordat_executor::step::{Input, Key};
use std::collections::BTreeSet;
use tracing::info;

impl Loop {
    /// Takes over what a former process left; returns the height to follow from.
    pub(super) fn restore(&mut self, height: u64, tick_ms: u64) -> Result<u64, StoreError> {
        let open = self.host.store.open_releases()?;
        let settled = self.host.store.settled(tick_ms)?;
        let from = self.host.store.cursor()?.unwrap_or(height);
        info!(open = open.len(), settled = settled.len(), from, "release store read");
        self.step.step(Input::Restored { open, settled }, 0);
        let kept = self.host.store.promised()?.into_iter().map(|(kept, _)| kept).collect();
        self.step.step(Input::RestoredPromises { kept }, 0);
        self.resume_writes()?;
        Ok(from.min(height).max(1))
    }

    /// Responses of a former process whose operation is neither on the ledger nor on its way never were.
    pub(super) fn drop_unrecorded(&mut self) -> Result<(), StoreError> {
        let on_their_way: BTreeSet<_> = self.host.writer.reopened().iter().collect();
        let open = self.host.store.open_releases()?;
        let gone: Vec<Key> = open.iter().filter(|k| !on_their_way.contains(&k.op_hash)).map(|k| k.key).collect();
        self.host.store.drop_unrecorded(&gone)
    }
}
