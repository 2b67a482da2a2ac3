//! An agency's broker: gateway, intake, streams, delivery, ledger client, HTTP API, metrics, and the host that runs the
//! executor's step as a process of its own.

pub mod config;
pub mod ledger;
pub mod keys;
