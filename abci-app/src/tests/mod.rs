//! Tests of the whole application, driven by the mock of CometBFT.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agreements;
mod ballots;
mod bounded;
mod checkpoints;
mod council;
mod disputes;
mod epochs;
mod kit;
mod model;
mod named;
mod path;
mod proofs;
mod properties;
mod proposals;
mod recovery;
mod role_maps;
mod runs;
mod sequence;
mod service;
mod terms;
mod verdicts;
