//! A network of its own for one measurement: folders, genesis, and an application with its CometBFT for each validator.

pub mod drill;
pub mod failed;
pub mod http;
pub mod process;
pub mod supply;

use base64::Engine as _;
use concordat_abci_app::state::genesis::{GENESIS_VERSION, Genesis, GenesisAgency, GenesisKey, GenesisValidator};
use concordat_broker::config::RpcAddr;
use concordat_broker::ledger::node_client::NodeClient;
use concordat_cli::layout::{AgencyNode, City, CitySpec, CometSettings, Ports, create_city};
use concordat_protocol::acts::KeyRole;
use concordat_protocol::ids::{AgencyId, WriterId};
use concordat_protocol::keys::{SigningKey, Suite};
use failed::BenchError;
use http::Connection;
use process::Process;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Name of the one approval role of the benchmark's agencies.
pub const ROLE: &str = "legal";
/// How long a network may take to make its first block, seconds.
const START_SECONDS: u64 = 60;

/// The programs under test.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `concordat`
    pub concordat: PathBuf,
    /// `cometbft`
    pub cometbft: PathBuf,
}

/// What CometBFT orders for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The shipped application.
    Concordat,
    /// CometBFT's built-in key-value store: the baseline.
    Kvstore,
}

/// An agency with its keys.
pub struct Agency {
    /// Its name.
    pub id: AgencyId,
    /// Root key, gateway key, approver's key.
    pub root: SigningKey,
    /// Opens sessions, proposes.
    pub gateway: SigningKey,
    /// Approves.
    pub legal: SigningKey,
    /// Its writers.
    pub writers: Vec<(WriterId, SigningKey)>,
}

impl Agency {
    fn new(name: &str, writers: usize) -> Result<Self, BenchError> {
        let id = AgencyId::new(name).map_err(|e| BenchError::refused(format!("agency {name}"), e))?;
        let writers = (0..writers).map(|n| {
            let writer =
                WriterId::new(format!("{name}/w{n}")).map_err(|e| BenchError::refused(format!("writer w{n}"), e))?;
            Ok((writer, generate(Suite::Ed25519)?))
        });
        let writers = writers.collect::<Result<_, BenchError>>()?;
        let (root, legal) = (generate(Suite::Hybrid)?, generate(Suite::Hybrid)?);
        Ok(Self { id, root, gateway: generate(Suite::Ed25519)?, legal, writers })
    }

    fn genesis(&self, validator: Option<&AgencyNode>) -> Result<GenesisAgency, BenchError> {
        let key = |role: KeyRole, label: &str, key: &SigningKey| GenesisKey {
            role: role.word().into(),
            label: label.into(),
            key: key.public().to_text(),
        };
        let mut keys = vec![
            key(KeyRole::Root, "root", &self.root),
            key(KeyRole::Gateway, "gateway", &self.gateway),
            key(KeyRole::Approver, ROLE, &self.legal),
        ];
        let label = |writer: &WriterId| writer.as_str().rsplit_once('/').map_or("", |(_, label)| label).to_owned();
        keys.extend(self.writers.iter().map(|(id, k)| key(KeyRole::Writer, &label(id), k)));
        let validator = match validator {
            None => None,
            Some(node) => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(&node.validator.pub_key);
                let bytes = bytes.map_err(|e| BenchError::refused("CometBFT's public key", e))?;
                Some(GenesisValidator { key: hex::encode(bytes), power: 10 })
            }
        };
        Ok(GenesisAgency { agency: self.id.clone(), roles: vec![ROLE.into()], keys, validator })
    }
}

/// A fresh key.
pub fn generate(suite: Suite) -> Result<SigningKey, BenchError> {
    SigningKey::generate(suite).map_err(|e| BenchError::refused("a new key", e))
}

/// One validator: its processes and where they are asked.
pub struct Node {
    /// CometBFT.
    pub comet: Process,
    /// The application; none in the baseline, where it is part of CometBFT.
    pub app: Option<Process>,
    /// CometBFT's RPC.
    pub rpc: RpcAddr,
    /// The application's own socket.
    pub client: NodeClient,
}

/// A running network. Dropping it stops its processes and removes its folders.
pub struct Network {
    /// Chain id.
    pub chain: String,
    /// The validators.
    pub nodes: Vec<Node>,
    /// The agencies with keys; empty in the baseline. The first ones own the validators.
    pub agencies: Vec<Agency>,
    programs: Programs,
    kind: Kind,
    city: City,
    _folders: tempfile::TempDir,
}

/// What a network is made of.
pub struct Spec<'a> {
    /// What is ordered.
    pub kind: Kind,
    /// Agencies with a validator.
    pub validators: &'a [&'a str],
    /// Agencies without one.
    pub others: &'a [&'a str],
    /// Writers of each agency with a validator.
    pub writers: usize,
    /// Times of consensus.
    pub comet: CometSettings,
}

impl Network {
    /// Makes the folders, starts every process and waits for the first block everywhere.
    pub async fn start(programs: &Programs, spec: &Spec<'_>) -> Result<Self, BenchError> {
        // Short, since the longest path of a Unix socket is 107 bytes.
        let folders =
            tempfile::Builder::new().prefix("cb").tempdir().map_err(|e| BenchError::io("a temporary folder", e))?;
        let names = spec.validators.iter().map(|n| AgencyId::new(*n).map_err(|e| BenchError::refused(*n, e)));
        let names = names.collect::<Result<Vec<_>, _>>()?;
        let chain = format!("bench-{}v", names.len());
        let city = create_city(
            &folders.path().join("c"),
            &CitySpec {
                chain: chain.clone(),
                agencies: names,
                ports: Ports::Free,
                comet: spec.comet,
                cometbft: programs.cometbft.clone(),
            },
        )?;
        let agencies = match spec.kind {
            Kind::Kvstore => Vec::new(),
            Kind::Concordat => agencies(spec)?,
        };
        let state = match spec.kind {
            Kind::Kvstore => serde_json::json!({}),
            Kind::Concordat => genesis(&city, &agencies)?,
        };
        city.write_genesis("2026-01-01T00:00:00Z", &state)?;
        let (programs, kind, nodes) = (programs.clone(), spec.kind, Vec::new());
        let mut network = Self { chain, nodes, agencies, programs, kind, city, _folders: folders };
        for agency in &network.city.agencies {
            network.nodes.push(start_node(&network.programs, kind, agency, &[]).await?);
        }
        network.wait_first_block().await?;
        Ok(network)
    }

    async fn wait_first_block(&mut self) -> Result<(), BenchError> {
        let end = Instant::now() + Duration::from_secs(START_SECONDS);
        for node in &mut self.nodes {
            let mut connection = Connection::new(&node.rpc);
            while height(&mut connection).await == 0 {
                node.check()?;
                if Instant::now() >= end {
                    return Err(node.comet.failed(format!("made no block in {START_SECONDS} s")));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Fails when a process has ended.
    pub fn check(&mut self) -> Result<(), BenchError> {
        self.nodes.iter_mut().try_for_each(Node::check)
    }

    /// Kills a validator's processes with SIGKILL.
    pub fn stop(&mut self, at: usize) {
        let Some(node) = self.nodes.get_mut(at) else { return };
        node.comet.stop();
        if let Some(app) = &mut node.app {
            app.stop();
        }
    }

    /// Starts a stopped validator again.
    pub async fn restart(&mut self, at: usize) -> Result<(), BenchError> {
        self.restart_with(at, &[]).await
    }

    /// Starts a stopped validator again, its CometBFT with these variables of environment.
    pub async fn restart_with(&mut self, at: usize, env: &[(&str, &str)]) -> Result<(), BenchError> {
        let none = || BenchError::refused("a restart", format!("there is no validator {at}"));
        let agency = self.city.agencies.get(at).ok_or_else(none)?;
        let node = start_node(&self.programs, self.kind, agency, env).await?;
        *self.nodes.get_mut(at).ok_or_else(none)? = node;
        Ok(())
    }

    /// The folder of a validator's agency.
    pub fn dir(&self, at: usize) -> PathBuf {
        self.city.agencies.get(at).map(|a| a.dir.clone()).unwrap_or_default()
    }

    /// The folder of a validator's CometBFT.
    pub fn comet_home(&self, at: usize) -> PathBuf {
        self.city.agencies.get(at).map(|a| a.config.comet_home()).unwrap_or_default()
    }

    /// The file of a validator's application.
    pub fn ledger_store(&self, at: usize) -> PathBuf {
        self.city.agencies.get(at).map(|a| a.config.ledger_store()).unwrap_or_default()
    }

    /// The node an agency uses: its own, else the first.
    pub fn node_of(&self, agency: usize) -> &Node {
        self.nodes.get(agency).unwrap_or(&self.nodes[0])
    }

    /// Process ids by kind, for a meter.
    pub fn groups(&self) -> Vec<(String, Vec<u32>)> {
        let comet = self.nodes.iter().map(|n| n.comet.pid()).collect();
        let apps: Vec<u32> = self.nodes.iter().filter_map(|n| n.app.as_ref().map(Process::pid)).collect();
        let mut groups = vec![("cometbft".to_owned(), comet)];
        if !apps.is_empty() {
            groups.push(("application".to_owned(), apps));
        }
        groups
    }
}

impl Node {
    fn check(&mut self) -> Result<(), BenchError> {
        self.comet.check()?;
        self.app.as_mut().map_or(Ok(()), Process::check)
    }
}

fn agencies(spec: &Spec<'_>) -> Result<Vec<Agency>, BenchError> {
    let own = spec.validators.iter().map(|name| Agency::new(name, spec.writers));
    own.chain(spec.others.iter().map(|name| Agency::new(name, 0))).collect()
}

fn genesis(city: &City, agencies: &[Agency]) -> Result<serde_json::Value, BenchError> {
    let mut listed = agencies.iter().map(|a| a.genesis(city.node(a.id.as_str()))).collect::<Result<Vec<_>, _>>()?;
    listed.sort_by(|a, b| a.agency.cmp(&b.agency));
    let genesis = Genesis { version: GENESIS_VERSION, agencies: listed, params: Default::default() };
    serde_json::to_value(&genesis).map_err(|e| BenchError::refused("the genesis state", e))
}

async fn start_node(
    programs: &Programs,
    kind: Kind,
    agency: &AgencyNode,
    env: &[(&str, &str)],
) -> Result<Node, BenchError> {
    let cfg = &agency.config;
    let logs = agency.dir.join("logs");
    let rpc = cfg.rpc().map_err(|e| BenchError::refused("node.yaml", e))?;
    let mut app = None;
    let mut args = vec!["start".into(), "--home".into(), cfg.comet_home().into()];
    match kind {
        Kind::Kvstore => args.push("--proxy_app=kvstore".into()),
        Kind::Concordat => {
            let own = ["node".into(), "app".into(), "--dir".into(), agency.dir.clone().into()];
            let mut process = Process::start("app", &logs, programs, &programs.concordat, &own)?;
            // Bound before CometBFT starts, which otherwise tries again only every 3 s.
            process.wait_up(10, || listens(&cfg.abci_socket()) && listens(&cfg.node_socket())).await?;
            app = Some(process);
        }
    }
    if let RpcAddr::Unix(left) = &rpc {
        // Left by one that was killed; CometBFT does not bind over it. The supervisor does the same.
        let _ = std::fs::remove_file(left);
    }
    let mut comet = Process::start_with("comet", &logs, programs, &programs.cometbft, &args, env)?;
    comet.wait_up(20, || matches!(&rpc, RpcAddr::Unix(p) if listens(p))).await?;
    Ok(Node { comet, app, rpc, client: NodeClient::new(cfg.node_socket()) })
}

fn listens(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Newest height of a CometBFT; 0 while it does not answer.
pub async fn height(connection: &mut Connection) -> u64 {
    let Ok(answer) = connection.get("/status").await else { return 0 };
    let value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let height = value["result"]["sync_info"]["latest_block_height"].as_str();
    height.and_then(|h| h.parse().ok()).unwrap_or_default()
}
