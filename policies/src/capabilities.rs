//! What an executor is able to do.

use crate::document::Clause;
use crate::duty::{Duty, DutyKind};
use concordat_protocol::terms::Effect;
use std::collections::BTreeSet;

/// The duties that an executor is able to fulfil. A clause with any other duty is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities(pub BTreeSet<DutyKind>);

impl Default for Capabilities {
    /// What the executor fulfils today.
    fn default() -> Self {
        use DutyKind::{
            Aggregate, Coarsen, Delay, Fields, Mask, Pseudonymise, Quota, Reference, RequireFilter, RowFilter,
            SealAccess, StepUp,
        };
        let rows = [RequireFilter, RowFilter, Delay, Fields, Mask, Pseudonymise, Coarsen, Aggregate];
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

    /// The first duty of a clause that cannot be fulfilled. Overrides are explained, told and reviewed: only there does the
    /// ledger see to it that the review is made.
    pub fn first_missing_of(&self, clause: &Clause) -> Option<DutyKind> {
        use DutyKind::{Justification, Notify, Review};
        let of_overrides =
            |k: DutyKind| clause.effect == Effect::BreakGlass && matches!(k, Justification | Notify | Review);
        clause.duties.iter().map(Duty::kind).find(|k| !self.0.contains(k) && !of_overrides(*k))
    }
}
