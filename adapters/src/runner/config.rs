//! What a run is told.

use crate::contract::BATCH_RECORDS_MAX;
use crate::document::{OnError, Pace};

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
}

impl RunConfig {
    /// The configuration that a plan asks for.
    pub fn of(plan: &crate::plan::Plan) -> Self {
        Self {
            adapter: plan.adapter.clone(),
            dataset: plan.dataset.as_str().to_owned(),
            pace: plan.pace,
            on_error: plan.on_error,
            batch_max: BATCH_RECORDS_MAX,
            in_flight: IN_FLIGHT,
            rows_max: None,
        }
    }
}
