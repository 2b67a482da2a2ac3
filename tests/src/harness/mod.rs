//! What end-to-end tests need: cities of the shipped program, its command line, its HTTP API, its ledger, and waiting.
//!
//! A city lives in a short folder of its own below `/tmp` (Unix sockets have short paths). A reaper, a process that waits
//! for the end of this one, stops and removes every city, even when a test panics or the run is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a harness that cannot work must fail the test")]

mod api;
mod city;
mod documents;
mod feeds;
mod follow;
mod ledger;
mod postgres;
mod relay;
mod session;
mod stopped;

pub use api::{Answer, Client, Event, Events};
pub use city::{City, Process, Ran, Workplace, alive, lines_with, open_files_below};
pub use documents::Agreement;
pub use feeds::{Feed, FeedAgreement, own_envelope_stream, put, row, seen};
pub use follow::{Follower, digest};
pub use ledger::{Rpc, act, batch_tx, register_key, register_writer, submit_act};
pub use postgres::{Cluster, Psql};
pub use relay::{Lie, Relay};
pub use session::{OwnSession, exchange_streams, jetstream, provider_call, streams, subject};
pub use stopped::Stopped;

use concordat_cli::servers::Servers;
use std::fmt::Display;
use std::future::Future;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Longest wait for anything that needs a few blocks, on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Runs a future to its end on the tests' own runtime.
pub fn wait<F: Future>(future: F) -> F::Output {
    runtime().block_on(future)
}

/// The runtime behind [`wait`].
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().expect("a tokio runtime"))
}

/// Looks until there is something, or fails with what was waited for and what was seen last.
pub fn until<T, E: Display>(what: &str, within: Duration, mut look: impl FnMut() -> Result<T, E>) -> T {
    let end = Instant::now() + within;
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) => assert!(Instant::now() < end, "{what}: not within {} s; last seen: {last}", within.as_secs()),
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether the pinned servers are here; otherwise the sentence that says what to do.
pub fn servers() -> Result<(), String> {
    Servers::find().map(drop).map_err(|e| e.to_string())
}
