//! What keeps a subscription from going on.

use super::item::ItemError;
use super::store::FeedStoreError;
use crate::ledger::LedgerError;
use async_nats::jetstream;
use async_nats::jetstream::context::PublishError;
use std::error::Error;
use thiserror::Error;

/// Why a subscription stands still now.
#[derive(Debug, Error)]
pub(super) enum FeedError {
    #[error(transparent)]
    Store(#[from] FeedStoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Item(#[from] ItemError),
    #[error("streams: {0}")]
    Streams(String),
    #[error("full: the consumer does not acknowledge ({0}); it goes on when there is room")]
    Full(String),
    #[error("{0} has no sealing key on the ledger: it must register one before it can be delivered to")]
    NoKem(String),
    #[error("envelope at place {0} of the own stream is not what this agency signed: {1}")]
    Damaged(u64, String),
    #[error("cryptographic library: {0}")]
    Library(String),
    #[error("paused: {0}")]
    Paused(String),
    #[error("{0}")]
    Ended(&'static str),
}

pub(super) fn streams(e: impl std::fmt::Display) -> FeedError {
    FeedError::Streams(e.to_string())
}

/// A refused append: a subject that is full is the consumer's matter, anything else the streams'.
pub(super) fn refused(e: &PublishError) -> FeedError {
    let server = e.source().and_then(|s| s.downcast_ref::<jetstream::Error>());
    let why = server.map_or_else(|| e.to_string(), ToString::to_string);
    // 10077, "maximum messages per subject exceeded", and its like for bytes and messages.
    if why.contains("maximum ") { FeedError::Full(why) } else { FeedError::Streams(why) }
}
