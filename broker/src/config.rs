//! `node.yaml` and `exchange.yaml`: what a node's processes read at start, and where each thing lies in the node's folder.
//!
//! Both files carry `version: 1`; another version, an unknown key or a secret in clear is refused with one sentence.

mod error;
mod executor;
mod external;
mod holding;
mod hosted;
mod limits;
mod secret;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use concordat_protocol::ids::AgencyId;
use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use executor::ExecutorConfig;
pub use external::{External, PagingDoc, RestDoc};
pub use holding::HoldingConfig;
pub use hosted::HostedConfig;
pub use limits::NodeLimits;
pub use secret::{NotAReference, SecretRef};

/// Version of `node.yaml`, `exchange.yaml` and of the folder's layout that this program reads and writes.
pub const LAYOUT_VERSION: u32 = 1;
/// File name of a node's configuration in its folder.
pub const NODE_FILE: &str = "node.yaml";
/// File name of the exchange's configuration in its folder.
pub const EXCHANGE_FILE: &str = "exchange.yaml";
/// What one agency's feed stream may hold, bytes, when `exchange.yaml` does not say.
pub const FEED_STREAM_BYTES: u64 = 16 << 30;
/// Longest path of a Unix socket, bytes (Linux keeps 108 with the closing zero).
pub const SOCKET_PATH_MAX: usize = 107;

/// Where and as whom a process speaks to its stream server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsConfig {
    /// `nats://host:port`
    pub url: String,
    /// Monitoring pages of the stream servers, `http://host:port`: the one that is connected to must be among them, and
    /// each must say that it syncs always. Without one no feed is served.
    #[serde(default)]
    pub monitor: Vec<String>,
    /// The user of this agency's account.
    pub user: String,
    /// Its password, by reference.
    pub password: SecretRef,
}

/// Names of accounts on the streams (the feed stream of a consumer is named like its account).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeNames {
    /// The exchange's account.
    pub account: String,
    /// This agency's own account.
    pub own: String,
}

/// This agency's CometBFT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CometConfig {
    /// `unix:run/rpc.sock` (relative to the node's folder) or `http://host:port`.
    pub rpc: String,
    /// `host:port` on which other validators reach it.
    pub p2p: String,
}

/// Address of a CometBFT RPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RpcAddr {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port`, plain HTTP.
    Tcp(String),
}

/// Another agency's node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The agency.
    pub agency: AgencyId,
    /// Base URL of its broker, `http://host:port`.
    pub url: String,
}

/// `node.yaml`: one agency's node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Always [`LAYOUT_VERSION`].
    pub version: u32,
    /// The agency that owns this node.
    pub agency: AgencyId,
    /// The chain's id.
    pub chain: String,
    /// `host:port` of the broker's HTTP API.
    pub listen: String,
    /// The stream server.
    pub nats: NatsConfig,
    /// Account names.
    pub exchange: ExchangeNames,
    /// The validator's CometBFT; a hosted agency has none.
    #[serde(default)]
    pub comet: CometConfig,
    /// Whose node is asked, where this agency has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosted: Option<HostedConfig>,
    /// Socket of verdicts and queries, relative to the folder.
    #[serde(default = "default_node_socket")]
    pub node_socket: PathBuf,
    /// Socket of the ABCI application, relative to the folder.
    #[serde(default = "default_abci_socket")]
    pub abci_socket: PathBuf,
    /// Brokers of the other agencies, for resending batches.
    #[serde(default)]
    pub peers: Vec<Peer>,
    /// Names of adapters (`adapters/<name>.yaml`) that the supervisor starts with the node.
    #[serde(default)]
    pub autostart: Vec<String>,
    /// Bounds.
    #[serde(default)]
    pub limits: NodeLimits,
    /// Executors: how many, and how fast one takes over.
    #[serde(default, skip_serializing_if = "ExecutorConfig::is_default")]
    pub executor: ExecutorConfig,
    /// The store of its records; the embedded one in `executor/holdings.sqlite` where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holding: Option<HoldingConfig>,
    /// Passphrase of encrypted key files, by reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_passphrase: Option<SecretRef>,
    /// Passphrases of single key files (`release: env:RELEASE_PASSPHRASE`), which go before `key_passphrase`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub key_passphrases: BTreeMap<String, SecretRef>,
    /// Time-stamps of checkpoints that the broker asks for by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<crate::outside::timestamp::TimestampConfig>,
    /// The issuer at which people of this agency sign in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<crate::people::OidcConfig>,
    /// How people outside the agency sign in, to see who looked at their records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub citizens: Option<crate::people::CitizensConfig>,
    /// What people of this agency are told of without asking, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notices: Option<crate::notices::NoticesConfig>,
    /// The API by TLS, with certificates of applications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<crate::http::tls::TlsConfig>,
    /// The folder the file was read from; not part of the file.
    #[serde(skip)]
    pub dir: PathBuf,
}

fn default_node_socket() -> PathBuf {
    "run/node.sock".into()
}

fn default_abci_socket() -> PathBuf {
    "run/abci.sock".into()
}

impl NodeConfig {
    /// Reads and checks `DIR/node.yaml`.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        let (path, dir) = (dir.join(NODE_FILE), absolute(dir)?);
        let mut cfg: Self = read_versioned(&path)?;
        cfg.dir = dir;
        cfg.check(&path)?;
        Ok(cfg)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        check_addr(path, "listen", &self.listen)?;
        match &self.hosted {
            Some(hosted) => hosted.check(&self.agency, &self.dir)?,
            None => check_addr(path, "comet.p2p", &self.comet.p2p)?,
        }
        check_chain(path, &self.chain)?;
        check_monitors(path, &self.nats)?;
        self.rpc()?;
        for (field, socket) in [("node_socket", self.node_socket()), ("abci_socket", self.abci_socket())] {
            check_socket(path, field, &socket)?;
        }
        for name in &self.autostart {
            let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if name.is_empty() || name.starts_with('-') || !name.chars().all(ok) {
                return Err(field(
                    path,
                    "autostart",
                    format!("names \"{name}\": an adapter's name has a-z, 0-9 and - only"),
                ));
            }
        }
        if let Some(rule) = self.timestamp.as_ref().and_then(|t| t.every().err()) {
            return Err(field(path, "timestamp.every", rule));
        }
        if let Some(tls) = &self.tls {
            check_addr(path, "tls.listen", &tls.listen)?;
        }
        if let Some((name, rule)) = self.oidc.as_ref().and_then(|o| o.check().err()) {
            return Err(field(path, name, rule));
        }
        let citizens = self.citizens.as_ref().map(|c| c.check(&self.agency, self.oidc.as_ref()));
        if let Some(Err((name, rule))) = citizens {
            return Err(field(path, name, rule));
        }
        if let Err((name, rule)) = self.executor.check() {
            return Err(field(path, name, rule));
        }
        if let Some(rule) = self.holding.as_ref().and_then(|h| h.guard().err()) {
            return Err(field(path, "holding", rule.to_string()));
        }
        if self.peers.iter().any(|p| p.agency == self.agency) {
            return Err(field(path, "peers", "names this agency itself: list only the others"));
        }
        Ok(())
    }

    /// A path in the node's folder (absolute paths stay as they are).
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.dir.join(relative)
    }
    /// Socket of verdicts and queries.
    pub fn node_socket(&self) -> PathBuf {
        self.path(&self.node_socket)
    }
    /// Socket of the ABCI application.
    pub fn abci_socket(&self) -> PathBuf {
        self.path(&self.abci_socket)
    }
    /// Address of CometBFT's RPC: the own one, or the host's.
    pub fn rpc(&self) -> Result<RpcAddr, ConfigError> {
        let file = self.dir.join(NODE_FILE);
        match &self.hosted {
            Some(hosted) => hosted::read_rpc(&file, "hosted.rpc", &hosted.rpc, &self.dir),
            None => hosted::read_rpc(&file, "comet.rpc", &self.comet.rpc, &self.dir),
        }
    }
    /// The chain's genesis file: with the epochs that follow from it all that a header is believed by.
    pub fn genesis(&self) -> PathBuf {
        self.comet_home().join("config/genesis.json")
    }
    /// Home of CometBFT.
    pub fn comet_home(&self) -> PathBuf {
        self.path("comet")
    }
    /// Store of the application.
    pub fn ledger_store(&self) -> PathBuf {
        self.path("ledger/state.redb")
    }
    /// Held records.
    pub fn holdings(&self) -> PathBuf {
        self.path("executor/holdings.sqlite")
    }
    /// Stored responses.
    pub fn releases(&self) -> PathBuf {
        self.path("executor/releases.sqlite")
    }
    /// The broker's store.
    pub fn broker_store(&self) -> PathBuf {
        self.path("broker/broker.sqlite")
    }
    /// Private keys and secrets, 0700.
    pub fn keys(&self) -> PathBuf {
        self.path("keys")
    }
}

/// `exchange.yaml`: the exchange manager and its stream server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeConfig {
    /// Always [`LAYOUT_VERSION`].
    pub version: u32,
    /// The chain's id.
    pub chain: String,
    /// The stream server, as the exchange's own user.
    pub nats: NatsConfig,
    /// The exchange's account.
    pub account: String,
    /// The agencies it serves; each one's account and feed stream is [`AgencyId::account`].
    pub agencies: Vec<AgencyId>,
    /// `node.sock` of the node whose ledger it follows, relative to the folder or absolute.
    pub node_socket: PathBuf,
    /// What one agency's feed stream may hold, bytes; the exchange's account has as much for each of them.
    #[serde(default = "default_feed_bytes")]
    pub feed_bytes: u64,
    /// The folder the file was read from; not part of the file.
    #[serde(skip)]
    pub dir: PathBuf,
}

fn default_feed_bytes() -> u64 {
    FEED_STREAM_BYTES
}

impl ExchangeConfig {
    /// Reads and checks `DIR/exchange.yaml`.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        let (path, dir) = (dir.join(EXCHANGE_FILE), absolute(dir)?);
        let mut cfg: Self = read_versioned(&path)?;
        cfg.dir = dir;
        check_chain(&path, &cfg.chain)?;
        check_monitors(&path, &cfg.nats)?;
        check_socket(&path, "node_socket", &cfg.node_socket())?;
        Ok(cfg)
    }
    /// Socket of the node it follows.
    pub fn node_socket(&self) -> PathBuf {
        self.dir.join(&self.node_socket)
    }
}

/// Refuses a socket path that the system cannot bind.
pub fn check_socket(file: &Path, name: &str, socket: &Path) -> Result<(), ConfigError> {
    let len = socket.as_os_str().len();
    if len > SOCKET_PATH_MAX {
        let rule = format!(
            "{} has {len} bytes, a Unix socket's path has at most {SOCKET_PATH_MAX}: use a folder with a shorter path",
            socket.display()
        );
        return Err(field(file, name, rule));
    }
    Ok(())
}

fn field(path: &Path, name: &str, rule: impl Into<String>) -> ConfigError {
    ConfigError::Field { path: path.to_owned(), field: name.to_owned(), rule: rule.into() }
}

fn check_addr(path: &Path, name: &str, addr: &str) -> Result<(), ConfigError> {
    let ok =
        addr.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0));
    if ok { Ok(()) } else { Err(field(path, name, format!("is \"{addr}\": write host:port"))) }
}

fn check_monitors(path: &Path, nats: &NatsConfig) -> Result<(), ConfigError> {
    for url in &nats.monitor {
        match url.strip_prefix("http://") {
            Some(addr) => check_addr(path, "nats.monitor", addr.trim_end_matches('/'))?,
            None => return Err(field(path, "nats.monitor", format!("names \"{url}\": write http://host:port"))),
        }
    }
    Ok(())
}

fn check_chain(path: &Path, chain: &str) -> Result<(), ConfigError> {
    let ok = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if (1..=50).contains(&chain.len()) && chain.chars().all(ok) {
        return Ok(());
    }
    Err(field(path, "chain", "has 1 to 50 characters of a-z, A-Z, 0-9 and -"))
}

fn absolute(dir: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(dir).map_err(|source| ConfigError::Read { path: dir.to_owned(), source })
}

/// Reads a YAML file with `version: 1`. The version alone is read first, so that a file of another release is named as such
/// and not as a list of unknown keys.
pub fn read_versioned<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, ConfigError> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let text = fs::read_to_string(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => ConfigError::Missing(path.to_owned()),
        _ => ConfigError::Read { path: path.to_owned(), source },
    })?;
    // The reader's own rendering shows the text around an error, and that text may be a secret.
    let syntax = |e: serde_saphyr::Error| ConfigError::Syntax {
        path: path.to_owned(),
        detail: e.without_snippet().to_string().replace('\n', " "),
    };
    let head: Head = serde_saphyr::from_str(&text).map_err(syntax)?;
    if head.version != LAYOUT_VERSION {
        return Err(ConfigError::Version { path: path.to_owned(), found: head.version });
    }
    serde_saphyr::from_str(&text).map_err(syntax)
}

#[cfg(test)]
mod tests;
