//! The data executor: the query language, holdings and (beside them) the pure step that serves a
//! provider's data.
//!
//! [`query`] is pure: JSON in, a typed filter out, evaluated in memory or compiled by a store.
//! [`holding`] is the boundary behind which records are kept: embedded SQLite here, MongoDB and
//! PostgreSQL later, all with identical results.

pub mod admit;
pub mod answer;
pub mod decide;
pub mod decide_totals;
pub mod holding;
pub mod lease;
pub mod limits;
pub mod query;
pub mod replay;
pub mod step;
pub mod subjects;
pub mod writing;

/// The policy room, for the host that runs this step.
pub use concordat_policies as policies;
