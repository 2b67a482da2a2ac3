//! Concordat's replicated application: agreements, sessions, quotas and the verdict on every operation, ordered by
//! CometBFT and computed alike by every agency's node.
//!
//! [`state`] is pure: a block against the committed state gives changes, results and log entries. Around it stand the
//! [`store`] (one atomic write a block), the ABCI [`server`], and the node's own service for verdicts and proofs.
#![deny(clippy::float_arithmetic)]
#![deny(clippy::disallowed_types, clippy::disallowed_methods, clippy::float_cmp, clippy::iter_over_hash_type)]

pub mod app;
pub mod clock;
pub mod frames;
#[cfg(any(test, feature = "mock"))]
pub mod mock;
pub mod pool;
pub mod proposal;
pub mod query;
pub mod run;
pub mod server;
pub mod service;
pub mod sorted;
pub mod state;
pub mod store;
#[cfg(test)]
mod tests;
pub mod tiles;
pub mod tx;

pub use app::App;
pub use run::{AppConfig, AppError, Running, run, start};
