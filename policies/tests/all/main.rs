//! Tests of the crate from outside, one module an area.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod golden;
mod oracle;
mod readers;
mod robust;
mod schema;
