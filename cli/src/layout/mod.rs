//! The folders of a city: one an agency and one for the exchange, each readable by its owner only.

pub mod comet;
mod error;
mod files;
mod nats;
mod ports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use concordat_broker::config::{
    CometConfig, EXCHANGE_FILE, ExchangeConfig, ExchangeNames, FEED_STREAM_BYTES, LAYOUT_VERSION, NODE_FILE,
    NatsConfig, NodeConfig, NodeLimits, Peer, SecretRef, check_socket,
};
use concordat_protocol::ids::AgencyId;
use serde::{Deserialize, Serialize};

pub use comet::{CometSettings, Validator};
pub use error::LayoutError;
pub use files::{check_disk, private_dir, private_file, random_password};
pub use nats::{Account, EXCHANGE_ACCOUNT, EXCHANGE_USER, MAX_PAYLOAD, StreamServer, nats_conf};
pub use ports::{PortPicker, Ports, check_free};

/// File name of the city's list in its root.
pub const CITY_FILE: &str = "city.yaml";
/// Folder of the exchange in a city.
pub const EXCHANGE_DIR: &str = "exchange";

/// What a city is made of.
#[derive(Debug, Clone)]
pub struct CitySpec {
    /// The chain's id.
    pub chain: String,
    /// Its agencies, in the order of their validators.
    pub agencies: Vec<AgencyId>,
    /// How ports are found.
    pub ports: Ports,
    /// Times of consensus.
    pub comet: CometSettings,
    /// The pinned `cometbft`.
    pub cometbft: PathBuf,
}

/// One agency of a city.
#[derive(Debug, Clone)]
pub struct AgencyNode {
    /// Its name.
    pub agency: AgencyId,
    /// Its folder.
    pub dir: PathBuf,
    /// Its `node.yaml`.
    pub config: NodeConfig,
    /// Its validator.
    pub validator: Validator,
}

/// A city on this machine.
#[derive(Debug, Clone)]
pub struct City {
    /// Folder of all folders.
    pub root: PathBuf,
    /// The chain's id.
    pub chain: String,
    /// Folder of the exchange.
    pub exchange: PathBuf,
    /// The agencies, in the order of their validators.
    pub agencies: Vec<AgencyNode>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CityFile {
    version: u32,
    chain: String,
    agencies: Vec<AgencyId>,
}

impl City {
    /// Writes the same `genesis.json` into every home. `time` is RFC 3339; `app_state` is the application's own genesis.
    pub fn write_genesis(&self, time: &str, app_state: &serde_json::Value) -> Result<(), LayoutError> {
        let validators: Vec<(&str, &Validator)> =
            self.agencies.iter().map(|a| (a.agency.as_str(), &a.validator)).collect();
        let text = comet::genesis(&self.chain, time, &validators, app_state).to_string();
        for a in &self.agencies {
            files::private_file(&a.config.comet_home().join("config/genesis.json"), text.as_bytes())?;
        }
        Ok(())
    }

    /// The node of an agency.
    pub fn node(&self, agency: &str) -> Option<&AgencyNode> {
        self.agencies.iter().find(|a| a.agency.as_str() == agency)
    }

    /// Every folder with a supervisor of its own: the exchange first, then the agencies.
    pub fn dirs(&self) -> Vec<PathBuf> {
        std::iter::once(self.exchange.clone()).chain(self.agencies.iter().map(|a| a.dir.clone())).collect()
    }
}

/// Makes all folders of a city below `root`, which must be empty or absent. Genesis is written later, by [`City::write_genesis`],
/// because its application state names the validators' keys made here. What was begun is removed when a step fails.
pub fn create_city(root: &Path, spec: &CitySpec) -> Result<City, LayoutError> {
    let root = std::path::absolute(root).map_err(|e| LayoutError::io(root, "be made", e))?;
    check_spec(&root, spec)?;
    if fs::read_dir(&root).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(LayoutError::Exists(root));
    }
    files::private_dir(&root)?;
    let made = build(&root, spec);
    if made.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_dir_all(&root);
    }
    made
}

fn check_spec(root: &Path, spec: &CitySpec) -> Result<(), LayoutError> {
    let bad = |field, rule: &str| Err(LayoutError::Spec { field, rule: rule.to_owned() });
    // The path is written into files of three syntaxes; none of them needs escapes this way.
    if root.to_str().is_none_or(|s| s.contains(['"', '\\', '\n', ',', '#', ':'])) {
        return bad("root", "is a path in UTF-8 without quotes, backslashes, commas, colons and #");
    }
    let accounts: BTreeSet<String> = spec.agencies.iter().map(AgencyId::account).collect();
    if accounts.len() != spec.agencies.len() || spec.agencies.is_empty() {
        return bad("agencies", "names at least one agency, and none twice");
    }
    if accounts.contains(EXCHANGE_ACCOUNT) || accounts.contains("SYS") {
        return bad(
            "agencies",
            "uses a name that the streams keep for themselves: choose another than `exchange` and `sys`",
        );
    }
    Ok(())
}

/// Where the stream server listens, `host:port`.
struct StreamsAt {
    listen: String,
    monitor: String,
}

struct Place {
    agency: AgencyId,
    dir: PathBuf,
    listen: String,
    p2p: String,
}

fn build(root: &Path, spec: &CitySpec) -> Result<City, LayoutError> {
    let mut picker = PortPicker::new(spec.ports)?;
    let listen = format!("127.0.0.1:{}", picker.pick("streams")?);
    let mut places = Vec::new();
    for agency in &spec.agencies {
        let listen = format!("127.0.0.1:{}", picker.pick(&format!("{agency}'s broker"))?);
        let p2p = format!("127.0.0.1:{}", picker.pick(&format!("{agency}'s CometBFT"))?);
        places.push(Place { agency: agency.clone(), dir: root.join(agency.as_str()), listen, p2p });
    }
    let streams = StreamsAt { listen, monitor: format!("127.0.0.1:{}", picker.pick("the streams' monitor")?) };
    let accounts = places.iter().map(|p| account(&p.agency)).collect::<Result<Vec<_>, _>>()?;
    let exchange = exchange_folder(root, spec, &streams, &accounts)?;
    let mut agencies = Vec::new();
    for (place, account) in places.iter().zip(&accounts) {
        agencies.push(agency_folder(spec, &places, place, account, &streams)?);
    }
    let peers: Vec<String> =
        agencies.iter().map(|a| format!("{}@{}", a.validator.node_id, a.config.comet.p2p)).collect();
    for (i, a) in agencies.iter().enumerate() {
        let others: Vec<String> = peers.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, p)| p.clone()).collect();
        configure_comet(a, &others, &spec.comet)?;
    }
    let file = CityFile { version: LAYOUT_VERSION, chain: spec.chain.clone(), agencies: spec.agencies.clone() };
    write_yaml(&root.join(CITY_FILE), &file)?;
    Ok(City { root: root.to_owned(), chain: spec.chain.clone(), exchange, agencies })
}

fn account(agency: &AgencyId) -> Result<Account, LayoutError> {
    Ok(Account { account: agency.account(), user: agency.to_string(), password: random_password()? })
}

fn exchange_folder(
    root: &Path,
    spec: &CitySpec,
    streams: &StreamsAt,
    accounts: &[Account],
) -> Result<PathBuf, LayoutError> {
    let dir = root.join(EXCHANGE_DIR);
    for sub in ["keys", "run", "logs", "nats"] {
        files::private_dir(&dir.join(sub))?;
    }
    let password = random_password()?;
    files::private_file(&dir.join("keys/nats.password"), password.as_bytes())?;
    let store = dir.join("nats/store");
    let name = format!("{}-exchange", spec.chain);
    let conf = nats_conf(&StreamServer {
        listen: &streams.listen,
        monitor: &streams.monitor,
        name: &name,
        store_dir: &store.to_string_lossy(),
        exchange_password: &password,
        accounts,
    });
    files::private_file(&dir.join("nats/nats.conf"), conf.as_bytes())?;
    // The exchange is run beside the first agency's node and follows its ledger.
    let follows = spec.agencies.first().map(|a| PathBuf::from(format!("../{a}/run/node.sock"))).unwrap_or_default();
    let config = ExchangeConfig {
        version: LAYOUT_VERSION,
        chain: spec.chain.clone(),
        nats: nats_config(streams, EXCHANGE_USER),
        account: EXCHANGE_ACCOUNT.into(),
        agencies: spec.agencies.clone(),
        node_socket: follows,
        feed_bytes: FEED_STREAM_BYTES,
        dir: PathBuf::new(),
    };
    write_yaml(&dir.join(EXCHANGE_FILE), &config)?;
    ExchangeConfig::load(&dir)?;
    Ok(dir)
}

fn nats_config(streams: &StreamsAt, user: &str) -> NatsConfig {
    NatsConfig {
        url: format!("nats://{}", streams.listen),
        monitor: vec![format!("http://{}", streams.monitor)],
        user: user.to_owned(),
        password: SecretRef::File("keys/nats.password".into()),
    }
}

fn agency_folder(
    spec: &CitySpec,
    all: &[Place],
    place: &Place,
    account: &Account,
    streams: &StreamsAt,
) -> Result<AgencyNode, LayoutError> {
    let dir = &place.dir;
    // Named before anything is made: the longest socket decides.
    check_socket(&dir.join(NODE_FILE), "abci_socket", &dir.join("run/abci.sock"))?;
    for sub in ["keys", "run", "logs", "ledger", "executor", "broker", "datasets", "schemas", "adapters", "agreements"]
    {
        files::private_dir(&dir.join(sub))?;
    }
    files::private_file(&dir.join("keys/nats.password"), account.password.as_bytes())?;
    let peers = all
        .iter()
        .filter(|p| p.agency != place.agency)
        .map(|p| Peer { agency: p.agency.clone(), url: format!("http://{}", p.listen) })
        .collect();
    let config = NodeConfig {
        version: LAYOUT_VERSION,
        agency: place.agency.clone(),
        chain: spec.chain.clone(),
        listen: place.listen.clone(),
        nats: nats_config(streams, &account.user),
        exchange: ExchangeNames { account: EXCHANGE_ACCOUNT.into(), own: account.account.clone() },
        comet: CometConfig { rpc: "unix:run/rpc.sock".into(), p2p: place.p2p.clone() },
        node_socket: "run/node.sock".into(),
        abci_socket: "run/abci.sock".into(),
        peers,
        autostart: Vec::new(),
        executor: Default::default(),
        limits: NodeLimits::default(),
        timestamp: None,
        oidc: None,
        citizens: None,
        hosted: None,
        notices: None,
        tls: None,
        key_passphrase: None,
        holding: None,
        key_passphrases: BTreeMap::new(),
        dir: PathBuf::new(),
    };
    write_yaml(&dir.join(NODE_FILE), &config)?;
    let config = NodeConfig::load(dir)?;
    let validator = comet::init(&spec.cometbft, &config.comet_home())?;
    Ok(AgencyNode { agency: place.agency.clone(), dir: dir.clone(), config, validator })
}

fn configure_comet(a: &AgencyNode, peers: &[String], times: &CometSettings) -> Result<(), LayoutError> {
    let rpc = format!("unix://{}", a.dir.join("run/rpc.sock").display());
    let place = comet::Place {
        moniker: a.agency.as_str(),
        abci_socket: &a.config.abci_socket(),
        rpc: &rpc,
        p2p: &a.config.comet.p2p,
        peers,
    };
    comet::configure(&a.config.comet_home(), &place, times)
}

fn write_yaml<T: Serialize>(path: &Path, value: &T) -> Result<(), LayoutError> {
    let text = serde_saphyr::to_string(value)
        .map_err(|e| LayoutError::io(path, "be written", std::io::Error::other(e.to_string())))?;
    files::private_file(path, text.as_bytes())
}

/// Opens a city that [`create_city`] made.
pub fn load_city(root: &Path, cometbft: &Path) -> Result<City, LayoutError> {
    let root = std::path::absolute(root).map_err(|e| LayoutError::io(root, "be read", e))?;
    let path = root.join(CITY_FILE);
    let file: CityFile = concordat_broker::config::read_versioned(&path)?;
    let mut agencies = Vec::new();
    for agency in file.agencies {
        let dir = root.join(agency.as_str());
        let config = NodeConfig::load(&dir)?;
        let validator = comet::load(cometbft, &config.comet_home())?;
        agencies.push(AgencyNode { agency, dir, config, validator });
    }
    Ok(City { exchange: root.join(EXCHANGE_DIR), root, chain: file.chain, agencies })
}

/// Saves a changed `node.yaml` (for example with another `autostart`).
pub fn save_node(config: &NodeConfig) -> Result<(), LayoutError> {
    write_yaml(&config.dir.join(NODE_FILE), config)
}
