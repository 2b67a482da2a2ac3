//! The ledger client: an agency's own node over its Unix socket, CometBFT's RPC, the writer's queue of signed batches.

pub mod acts;
pub mod follow;
pub mod node_client;
pub mod rpc;
pub mod writer;
pub mod writer_core;
pub(crate) mod writer_journal;

use thiserror::Error;

/// Why the ledger could not be asked, or what it refused.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The own node's socket does not answer.
    #[error("the ledger node does not answer on {path}: is `concordat node app` running?")]
    NodeDown {
        /// The socket.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// CometBFT's RPC does not answer.
    #[error("CometBFT's RPC does not answer ({0}): see logs/comet.log")]
    RpcDown(String),
    /// The node answered something else than was asked.
    #[error("the ledger node answered out of protocol: {0}")]
    Protocol(String),
    /// The ledger refused it for good.
    #[error("the ledger refused it, code {code}: {text}")]
    Refused {
        /// Code of `concordat_protocol::codes`.
        code: u16,
        /// The code's sentence, with detail.
        text: String,
    },
    /// The act's number was taken by another act of the same key: it is in no block, and its key may sign it anew.
    #[error("another act of this key came first, code {code}: sign it again with the key's next number")]
    Counter {
        /// Code of `concordat_protocol::codes`.
        code: u16,
    },
    /// It did not happen in time; it may still happen.
    #[error(
        "the ledger did not commit it within {0} s: it may still be committed, look it up before you send it again"
    )]
    Timeout(u64),
    /// Another batch stands where this writer's should be.
    #[error(
        "equivocation: another batch with this writer's sequence {0} is on the ledger; stop this writer and compare its journal"
    )]
    Equivocation(u64),
    /// The writer's journal cannot be written or read.
    #[error("the writer's journal failed: {0}; free disk space or restore the folder")]
    Journal(String),
    /// The writer has stopped.
    #[error("the writer has stopped: see the log for the first error")]
    Stopped,
}

impl LedgerError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NodeDown { .. } => "ledger-node-down",
            Self::RpcDown(_) => "ledger-rpc-down",
            Self::Protocol(_) => "ledger-protocol",
            Self::Refused { .. } => "ledger-refused",
            Self::Counter { .. } => "ledger-counter",
            Self::Timeout(_) => "ledger-timeout",
            Self::Equivocation(_) => "ledger-equivocation",
            Self::Journal(_) => "ledger-journal",
            Self::Stopped => "ledger-writer-stopped",
        }
    }
}
