//! Which processes a folder has, in which order, and where each listens when it is ready.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use concordat_broker::config::{EXCHANGE_FILE, ExchangeConfig, NODE_FILE, NodeConfig, RpcAddr};

use super::SupervisorError;
use crate::layout::{self, LayoutError};
use crate::servers::{self, Server};

/// A place where a ready process listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listens {
    /// A Unix socket; what an earlier run left there is removed before the start.
    Unix(PathBuf),
    /// `host:port`
    Tcp(String),
}

/// How a running process is asked whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watch {
    /// Not at all: it is well while it runs.
    Nothing,
    /// `GET /livez` answers 200.
    Livez(String),
    /// CometBFT's `/status`, height and peers; its log is read for failures of consensus.
    Comet(RpcAddr),
}

/// One process.
#[derive(Debug, Clone)]
pub struct Process {
    /// Name, also of its log file.
    pub name: String,
    /// Program.
    pub program: PathBuf,
    /// Arguments.
    pub args: Vec<OsString>,
    /// It is ready when it listens at all of these (at once when there are none).
    pub listens: Vec<Listens>,
    /// How it is watched.
    pub watch: Watch,
}

/// Processes in units, in the order of their start. A unit's members live and die together.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Who runs here: `police` or `exchange`.
    pub name: String,
    /// The units.
    pub units: Vec<Vec<Process>>,
}

/// The plan of a folder, by the configuration file it holds. `program` is the `concordat` binary. Ports that others took are
/// refused here, before anything starts.
pub fn plan(dir: &Path, program: &Path) -> Result<Plan, SupervisorError> {
    if dir.join(EXCHANGE_FILE).is_file() && !dir.join(NODE_FILE).is_file() {
        let cfg = ExchangeConfig::load(dir).map_err(LayoutError::from)?;
        return exchange(&cfg, program, &servers::find(Server::NatsServer)?);
    }
    let cfg = NodeConfig::load(dir).map_err(LayoutError::from)?;
    match cfg.hosted {
        Some(_) => hosted(&cfg, program),
        None => agency(&cfg, program, &servers::find(Server::CometBft)?),
    }
}

fn own(program: &Path, name: &str, args: &[&str], dir: &Path, listens: Vec<Listens>, watch: Watch) -> Process {
    let mut all: Vec<OsString> = args.iter().map(OsString::from).collect();
    all.extend(["--dir".into(), dir.into()]);
    Process { name: name.into(), program: program.to_owned(), args: all, listens, watch }
}

/// What is wrong with a port, for a sentence: which field of `node.yaml` to change.
fn fix(dir: &Path, field: &str) -> String {
    format!("change `{field}` in {}", dir.join(NODE_FILE).display())
}

/// Plan of an agency's node.
pub fn agency(cfg: &NodeConfig, program: &Path, cometbft: &Path) -> Result<Plan, SupervisorError> {
    let rpc = cfg.rpc().map_err(LayoutError::from)?;
    let (who, dir) = (&cfg.agency, &cfg.dir);
    layout::check_free(&cfg.listen, &format!("{who}'s broker"), &fix(dir, "listen"))?;
    layout::check_free(&cfg.comet.p2p, &format!("{who}'s CometBFT"), &fix(dir, "comet.p2p"))?;
    let app = own(
        program,
        "app",
        &["node", "app"],
        dir,
        vec![Listens::Unix(cfg.abci_socket()), Listens::Unix(cfg.node_socket())],
        Watch::Nothing,
    );
    let rpc_listens = match &rpc {
        RpcAddr::Unix(p) => Listens::Unix(p.clone()),
        RpcAddr::Tcp(a) => Listens::Tcp(a.clone()),
    };
    let comet = Process {
        name: "comet".into(),
        program: cometbft.to_owned(),
        args: vec!["start".into(), "--home".into(), cfg.comet_home().into()],
        listens: vec![rpc_listens],
        watch: Watch::Comet(rpc),
    };
    Ok(beside(cfg, program, vec![app, comet]))
}

/// Plan of an agency without a node of its own: a light client stands where the application and CometBFT would.
pub fn hosted(cfg: &NodeConfig, program: &Path) -> Result<Plan, SupervisorError> {
    layout::check_free(&cfg.listen, &format!("{}'s broker", cfg.agency), &fix(&cfg.dir, "listen"))?;
    let listens = vec![Listens::Unix(cfg.node_socket())];
    let light = own(program, "light", &["node", "light"], &cfg.dir, listens, Watch::Nothing);
    Ok(beside(cfg, program, vec![light]))
}

/// What runs beside a ledger, whichever it is: executors, the broker, adapters.
fn beside(cfg: &NodeConfig, program: &Path, ledger: Vec<Process>) -> Plan {
    let dir = &cfg.dir;
    let broker = own(
        program,
        "broker",
        &["node", "broker"],
        dir,
        vec![Listens::Tcp(cfg.listen.clone())],
        Watch::Livez(cfg.listen.clone()),
    );
    let mut units = vec![ledger];
    // Each a unit of its own: one is at work, the others stand by, and none waits for another.
    for n in 1..=cfg.executor.processes {
        let name = if n == 1 { "executor".to_owned() } else { format!("executor-{n}") };
        units.push(vec![own(program, &name, &["node", "executor"], dir, vec![], Watch::Nothing)]);
    }
    units.push(vec![broker]);
    for name in &cfg.autostart {
        let mut adapter = own(program, &format!("adapter-{name}"), &["adapter", "run"], dir, vec![], Watch::Nothing);
        adapter.args.push(name.into());
        units.push(vec![adapter]);
    }
    Plan { name: cfg.agency.to_string(), units }
}

/// Plan of the exchange.
pub fn exchange(cfg: &ExchangeConfig, program: &Path, nats_server: &Path) -> Result<Plan, SupervisorError> {
    let dir = &cfg.dir;
    let addr = cfg.nats.url.trim_start_matches("nats://").to_owned();
    let conf = dir.join("nats/nats.conf");
    let fix = format!("change `listen` in {} and `nats.url` in every node.yaml", conf.display());
    layout::check_free(&addr, "the stream server", &fix)?;
    // Nodes look there before they trust the server, so that it is ready when both are open.
    let mut listens = vec![Listens::Tcp(addr)];
    for monitor in &cfg.nats.monitor {
        let at = monitor.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let fix = format!("change `http` in {} and `nats.monitor` in every node.yaml", conf.display());
        layout::check_free(&at, "the stream server's monitor", &fix)?;
        listens.push(Listens::Tcp(at));
    }
    let nats = Process {
        name: "nats".into(),
        program: nats_server.to_owned(),
        args: vec!["-c".into(), conf.into()],
        listens,
        watch: Watch::Nothing,
    };
    let manager = own(program, "exchange", &["node", "exchange"], dir, vec![], Watch::Nothing);
    Ok(Plan { name: "exchange".into(), units: vec![vec![nats], vec![manager]] })
}
