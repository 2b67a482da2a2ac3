//! End-to-end tests, and the benchmark beside them.

pub mod chain;
pub mod harness;
