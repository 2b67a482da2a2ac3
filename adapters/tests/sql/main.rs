//! Databases as sources: PostgreSQL and MariaDB as Debian has them, and files of SQLite. A server that is not installed is
//! skipped with a line that says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(all(feature = "sql-poll", feature = "postgres-changes"))]

mod changes;
mod conform;
#[allow(dead_code)]
#[path = "../it/fake_broker.rs"]
mod fake_broker;
mod poll;
mod refusals;
mod runs;
mod servers;
mod speed;
mod tls;
