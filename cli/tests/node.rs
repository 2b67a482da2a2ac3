//! Node folders, the stream server's walls and the supervisor, on real processes and real servers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "node/city.rs"]
mod city;
#[path = "node/helpers.rs"]
mod helpers;
#[path = "node/streams.rs"]
mod streams;
#[path = "node/supervise.rs"]
mod supervise;
