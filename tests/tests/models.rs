//! Models over the shipped pure code, explored state by state: submission, crash recovery, the life of an agreement, and that
//! the chain comes to rest. Each also runs with a seeded bug, which it must find.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "models/executors.rs"]
mod executors;
#[path = "models/kit.rs"]
mod kit;
#[path = "models/lifecycle.rs"]
mod lifecycle;
#[path = "models/quiescence.rs"]
mod quiescence;
#[path = "models/recovery.rs"]
mod recovery;
#[path = "models/submission.rs"]
mod submission;
