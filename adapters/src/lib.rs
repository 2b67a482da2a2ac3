//! Concordat: adapters. They turn an agency's source (today CSV files) into records and events, and
//! hand them to the agency's own broker so that nothing is lost and nothing comes twice.
//!
//! - [`contract`]: what every adapter is: bounded pull, checkpoint, rejects, error classes.
//! - [`document`]: the adapter document (YAML), strict. [`plan`]: the document made ready to run.
//! - [`rows`], [`decimal`], [`convert`]: CSV framing and exact conversion of values.
//! - [`file`]: the CSV file adapter. [`dead_letter`]: where refused rows go.
//! - [`client`], [`pace`], [`runner`]: the loop that publishes to the broker. [`mod@status`]: what it says of itself.

pub mod client;
pub mod contract;
pub mod convert;
pub mod dead_letter;
pub mod decimal;
pub mod document;
pub mod file;
mod flights;
pub mod pace;
pub mod plan;
mod read_ahead;
pub mod rows;
pub mod runner;
pub mod status;
pub mod strict;
