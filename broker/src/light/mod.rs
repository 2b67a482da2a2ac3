//! A node for an agency that has none: a light client (`docs/adr/0029`).
//!
//! It speaks to the agency's own processes as a node does, on `run/node.sock`, and asks another agency's node, which it does
//! not trust. It believes headers that more than 2/3 of the validators signed, and what hangs on their app hash: frames,
//! entries, agreements, keys, sessions, writers. What does not verify is not passed on. So broker and executor work as beside
//! a node of their own, one block later.

mod answer;
mod host;
pub mod proofs;
pub mod seen;
mod serve;
mod tip;

use crate::config::{ConfigError, NodeConfig};
use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use crate::ledger::rpc::CometRpc;
use concordat_protocol::codes;
use concordat_protocol::verify::Invalid;
use concordat_protocol::verify::comet::CometError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use thiserror::Error;
use tracing::info;

use host::Host;
use tip::Tips;

/// The highest header believed, in the node's folder.
pub const SEEN_FILE: &str = "light/seen.json";
/// How long the host may take for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long without a newer proven block until nothing is answered any more.
const STALE: Duration = Duration::from_millis(concordat_protocol::limits::HEAD_STALE_MS);

/// Why the light client does not start, or does not answer.
#[derive(Debug, Error)]
pub enum LightError {
    /// The node's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// This agency has a node of its own.
    #[error("{0} has no `hosted` section: an agency with a node of its own needs no light client")]
    NotHosted(PathBuf),
    /// The host does not answer, or refuses.
    #[error("the host: {0}")]
    Host(#[from] LedgerError),
    /// The host took too long.
    #[error("the host did not answer within {} s", ANSWER_WITHIN.as_secs())]
    Silent,
    /// What the host says does not prove itself.
    #[error("the host is not believed, {0}")]
    Unproven(#[from] Invalid),
    /// CometBFT's answer cannot be read.
    #[error("the host is not believed, {0}")]
    Comet(#[from] CometError),
    /// Something comes with a later block.
    #[error("not under a header yet: {0}")]
    NotYet(String),
    /// What a hosted agency cannot be shown.
    #[error("{0} is not shown to a hosted agency: it cannot be proven to it")]
    NotShown(&'static str),
    /// No block was believed, or none for a while.
    #[error("no newer block is believed: {0}")]
    Stale(String),
    /// The genesis file.
    #[error(
        "{path}: {why}; take it from an agency that you know, and compare its fingerprint (`concordat trust show`)"
    )]
    Genesis {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The highest header believed.
    #[error("{path}: {source}; restore it: without it an old state would be believed")]
    Seen {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The socket.
    #[error("{path}: {source}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The cryptographic library failed its self test.
    #[error(transparent)]
    SelfTest(#[from] concordat_protocol::keys::KeyError),
}

impl LightError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(e) => e.code(),
            Self::NotHosted(_) => "light-not-hosted",
            Self::Host(e) => e.code(),
            Self::Silent => "light-host-silent",
            Self::Unproven(_) | Self::Comet(_) => "light-unproven",
            Self::NotYet(_) => "light-not-yet",
            Self::NotShown(_) => "light-not-shown",
            Self::Stale(_) => "light-stale",
            Self::Genesis { .. } => "light-genesis",
            Self::Seen { .. } => "light-seen",
            Self::Socket { .. } => "light-socket",
            Self::SelfTest(_) => "self-test",
        }
    }

    /// The code on the socket.
    fn wire(&self) -> u16 {
        match self {
            Self::NotShown(_) => codes::NOT_ENABLED,
            Self::Host(LedgerError::Refused { code, .. }) => *code,
            _ => codes::BUSY,
        }
    }
}

/// The own clock, milliseconds since 1970.
pub(crate) fn clock_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// All that answers are made of. Cheap to clone.
#[derive(Clone)]
struct Light {
    cfg: Arc<NodeConfig>,
    host: Host,
    tips: Tips,
}

/// Runs the light client of the node in `dir` until a signal asks it to stop.
///
/// # Errors
/// It cannot start.
pub async fn run(dir: &Path) -> Result<(), LightError> {
    concordat_protocol::keys::self_test()?;
    let cfg = Arc::new(NodeConfig::load(dir)?);
    let hosted = cfg.hosted.as_ref().ok_or_else(|| LightError::NotHosted(cfg.path(crate::config::NODE_FILE)))?;
    let socket = hosted.node(&cfg.dir);
    info!(agency = %cfg.agency, host = %hosted.by, node = %socket.display(), "light client: the host is asked, never believed");
    let host = Host::new(NodeClient::new(socket), CometRpc::new(&cfg.rpc()?)?, &cfg)?;
    let tips = tip::start(&cfg, host.clone())?;
    let light = Light { cfg: cfg.clone(), host, tips };
    let serving = serve::serve(light, &cfg.node_socket())?;
    crate::stop_signal().await;
    serving.abort();
    let _ = std::fs::remove_file(cfg.node_socket());
    Ok(())
}

/// Whether nothing newer was believed for too long.
fn is_stale(at: Instant) -> bool {
    at.elapsed() > STALE
}
