//! Receipts and their verifier against a small synthetic city: real CometBFT headers and votes, real signatures.
#![cfg(all(feature = "verifier", feature = "node"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "verify/access.rs"]
mod access;
#[path = "verify/chain.rs"]
mod chain;
#[path = "verify/comet.rs"]
mod comet;
#[path = "verify/forge.rs"]
mod forge;
#[path = "verify/hosted.rs"]
mod hosted;
#[path = "verify/looked.rs"]
mod looked;
#[path = "verify/record.rs"]
mod record;
#[path = "verify/report.rs"]
mod report;
#[path = "verify/rules.rs"]
mod rules;
#[path = "verify/tamper.rs"]
mod tamper;
#[path = "verify/trust.rs"]
mod trust;
#[path = "verify/vectors.rs"]
mod vectors;
#[path = "verify/world.rs"]
mod world;
