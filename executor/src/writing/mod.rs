//! Writes by a consumer on records that this provider holds: what is asked, what the clause permits, what will be there
//! afterwards, and what stands on the ledger of it. When each happens is said by [`crate::step`].

#![allow(
    clippy::result_large_err,
    reason = "a denial is as usual an outcome as an answer, and it moves only a few times"
)]

mod ask;
mod decide;
mod plan;
mod record;

pub use ask::{Expected, WriteAsk};
pub use decide::{PermittedWrite, decide_write};
pub use plan::{Planned, Tagger, plan};
pub use record::{Concluded, conclude, intend, said};

#[cfg(test)]
mod tests;
