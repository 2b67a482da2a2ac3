//! The term that a handle writes under.

use std::sync::atomic::{AtomicU64, Ordering};

use super::HoldingError;
use crate::lease::admits;

/// The term a handle is bound to.
#[derive(Debug, Default)]
pub(super) struct Bound(AtomicU64);

impl Bound {
    pub(super) fn set(&self, term: u64) {
        self.0.store(term, Ordering::SeqCst);
    }

    /// The term; none where the handle is bound to none.
    pub(super) fn term(&self) -> Option<u64> {
        Some(self.0.load(Ordering::SeqCst)).filter(|t| *t > 0)
    }
}

/// Judges the store's term as a write's own transaction read it.
pub(super) fn check(own: u64, stored: Option<u64>) -> Result<(), HoldingError> {
    let now = stored.unwrap_or_default();
    if admits(now, own) { Ok(()) } else { Err(HoldingError::Fenced { own, now }) }
}
