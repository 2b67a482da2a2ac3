//! An agency's broker: gateway, intake, streams, delivery, ledger client, HTTP API, metrics, and the host that runs the
//! executor's step as a process of its own.

pub mod bundle;
pub mod config;
pub mod durable;
pub mod evidence;
pub mod exchange;
pub mod feed;
pub mod fence;
pub mod gateway;
pub mod host;
pub mod http;
pub mod intake;
pub mod keys;
pub mod ledger;
pub mod light;
pub mod metrics;
pub mod notices;
pub mod outside;
pub mod overrides;
pub mod people;
pub mod receipts;
pub mod report;
pub mod service;
pub mod store;
mod streams;

/// Waits until SIGTERM or SIGINT asks this process to stop.
pub async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut term), Ok(mut int)) => {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        }
        // Without handlers the default action ends the process just as well.
        _ => std::future::pending().await,
    }
}
