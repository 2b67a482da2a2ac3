//! What an executor is able to do.

use crate::duty::{Duty, DutyKind};
use std::collections::BTreeSet;

/// The duties that an executor is able to fulfil. A clause with any other duty is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities(pub BTreeSet<DutyKind>);

impl Default for Capabilities {
    /// What the executor fulfils today.
    fn default() -> Self {
        use DutyKind::{
            Coarsen, Delay, Fields, Mask, Pseudonymise, Quota, Reference, RequireFilter, RowFilter, SealAccess, StepUp,
        };
        let rows = [RequireFilter, RowFilter, Delay, Fields, Mask, Pseudonymise, Coarsen];
        Self([Reference, Quota, SealAccess, StepUp].into_iter().chain(rows).collect())
    }
}

impl Capabilities {
    /// These and more, for an executor that fulfils more.
    #[must_use]
    pub fn and(mut self, more: impl IntoIterator<Item = DutyKind>) -> Self {
        self.0.extend(more);
        self
    }

    /// The first duty of a list that cannot be fulfilled.
    pub fn first_missing(&self, duties: &[Duty]) -> Option<DutyKind> {
        duties.iter().map(Duty::kind).find(|k| !self.0.contains(k))
    }
}
