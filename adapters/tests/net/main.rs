//! Sources and sinks over the network, each against the real thing where it is installed.
#![cfg(all(
    feature = "mqtt",
    feature = "http-poll",
    feature = "webhook",
    feature = "mongodb",
    feature = "sftp",
    feature = "iec104"
))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod conform;
#[path = "../it/drop_rig.rs"]
mod drop_rig;
#[path = "../it/fake_broker.rs"]
#[allow(dead_code, reason = "these tests need no broker that hangs")]
mod fake_broker;
mod http;
mod iec104;
mod iec104_peer;
mod iec104_sink;
mod mongodb;
mod mosquitto;
mod mqtt;
mod running;
mod sftp;
mod sinks;
mod sshd;
mod webhook;
