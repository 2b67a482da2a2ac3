//! An agency without a node of its own: another agency lends it a connection to its own (`docs/adr/0029`).

use super::{ConfigError, NODE_FILE, RpcAddr, check_addr, check_socket, field};
use concordat_protocol::ids::AgencyId;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Whose node is asked. It is asked and never believed: every answer is held against headers that the validators signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostedConfig {
    /// The agency that lends its node.
    pub by: AgencyId,
    /// Its node's socket, relative to the folder or absolute.
    pub node: PathBuf,
    /// Its CometBFT's RPC: `unix:<path>` or `http://host:port`.
    pub rpc: String,
}

impl HostedConfig {
    /// The names and addresses can be used.
    pub(super) fn check(&self, agency: &AgencyId, dir: &Path) -> Result<(), ConfigError> {
        let file = dir.join(NODE_FILE);
        if self.by == *agency {
            return Err(field(&file, "hosted.by", "names this agency itself: leave `hosted` out where it has a node"));
        }
        check_socket(&file, "hosted.node", &dir.join(&self.node))?;
        read_rpc(&file, "hosted.rpc", &self.rpc, dir).map(drop)
    }

    /// The socket of the host's node.
    pub fn node(&self, dir: &Path) -> PathBuf {
        dir.join(&self.node)
    }
}

/// Reads the address of an RPC; paths are relative to the folder.
pub(super) fn read_rpc(file: &Path, name: &str, text: &str, dir: &Path) -> Result<RpcAddr, ConfigError> {
    match text.split_once(':') {
        Some(("unix", p)) if !p.is_empty() => {
            let socket = dir.join(p);
            check_socket(file, name, &socket)?;
            Ok(RpcAddr::Unix(socket))
        }
        Some(("http", rest)) => {
            let addr = rest.trim_start_matches('/').trim_end_matches('/');
            check_addr(file, name, addr)?;
            Ok(RpcAddr::Tcp(addr.to_owned()))
        }
        _ => Err(field(file, name, "is `unix:<path>` or `http://host:port`")),
    }
}
