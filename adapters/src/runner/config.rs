//! What a run is told.

use crate::contract::BATCH_RECORDS_MAX;
use crate::document::{Common, OnError, Pace};

/// Batches under way at once.
pub const IN_FLIGHT: usize = 8;

/// What a run is told.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// Name of the adapter.
    pub adapter: String,
    /// Dataset id.
    pub dataset: String,
    /// How fast.
    pub pace: Pace,
    /// What to do about errors.
    pub on_error: OnError,
    /// Most records a batch, at most 256.
    pub batch_max: usize,
    /// Most batches under way at once, at least 1.
    pub in_flight: usize,
    /// Stop after this many rows (good and bad), for trials.
    pub rows_max: Option<u64>,
    /// Stop as soon as the source has nothing more at present, as if it had ended.
    pub once: bool,
}

impl RunConfig {
    /// The configuration that a document asks for.
    pub fn of(common: &Common) -> Self {
        Self {
            adapter: common.adapter.value.clone(),
            dataset: common.into.as_str().to_owned(),
            pace: common.pace,
            on_error: common.on_error,
            batch_max: BATCH_RECORDS_MAX,
            in_flight: IN_FLIGHT,
            rows_max: None,
            once: false,
        }
    }
}
