//! Concordat: adapters. They turn an agency's source into records and events, and hand them to the agency's own broker
//! so that nothing is lost and nothing comes twice.
//!
//! - [`contract`]: what every adapter is: bounded pull, checkpoint, acknowledgement, rejects, error classes; and what
//!   every kind of source says of itself. [`kinds`]: the kinds, one cargo feature and one folder each.
//! - [`document`]: the adapter document (YAML), strict. [`mapping`]: from cells to records, the same for every source.
//! - [`format`], [`rows`], [`decimal`], [`convert`]: how files are written, CSV framing, exact conversion of values.
//! - [`discover`]: drafts for a source that nobody described yet. [`dead_letter`]: where refused rows go.
//! - [`client`], [`pace`], [`runner`]: the loop that publishes to the broker. [`mod@status`]: what it says of itself.

pub mod cells;
pub mod client;
pub mod conform;
pub mod contract;
pub mod convert;
pub mod dead_letter;
pub mod decimal;
#[cfg(any(feature = "mqtt", feature = "iec104", feature = "kafka"))]
mod dial;
pub mod discover;
pub mod document;
pub mod files;
mod flights;
pub mod format;
pub mod json_rows;
pub mod json_sample;
pub mod kinds;
mod lines;
pub mod mapping;
pub mod pace;
mod read_ahead;
pub mod rows;
mod run_id;
pub mod runner;
pub mod sinks;
pub mod status;
pub mod strict;
pub mod tls;
#[cfg(any(feature = "mqtt", feature = "iec104"))]
pub mod window;

#[cfg(feature = "file")]
pub use kinds::file;
#[cfg(feature = "file")]
pub use kinds::file::plan;
pub use kinds::{kinds, parse};

/// Does blocking work on a thread of its own and waits for it: sources may drive a runtime of their own, which a thread
/// that is part of one must not.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
