//! A city of two agencies on a real nats-server, with a stand-in for the ledger.

mod nats;
pub mod node;

use concordat_broker::config::NodeConfig;
use concordat_broker::exchange::{Limits, Manager};
use concordat_broker::feed::{FeedSetup, Subscriptions};
use concordat_broker::gateway::watch::LedgerWatch;
use concordat_broker::gateway::{Gateway, GatewaySetup};
use concordat_broker::host::lead::Lead;
use concordat_broker::host::policy::{Policies, load_documents};
use concordat_broker::host::subjects::{People, Vault};
use concordat_broker::host::{feed, load_datasets};
use concordat_broker::intake::{Intake, IntakeSetup};
use concordat_broker::keys::{self, KeyFolder};
use concordat_broker::ledger::follow::{Followed, follow};
use concordat_broker::ledger::node_client::NodeClient;
use concordat_broker::ledger::rpc::CometRpc;
use concordat_broker::ledger::writer::{Writer, WriterSetup};
use concordat_broker::metrics::Metrics;
use concordat_broker::store::Store;
use concordat_executor::policies::compile::{Compiled, compile};
use concordat_protocol::acts::KeyRole;
use concordat_protocol::cbor;
use concordat_protocol::ids::{AgencyId, WriterId};
use concordat_protocol::keys::Suite;
use concordat_protocol::node::{AgreementView, DatasetView, KeyView};
use concordat_protocol::terms::Status;
use nats::{Nats, connect, nats_binary};
use node::{Node, State};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Number of the one subscription.
pub const SUBSCRIPTION: u64 = 17;
const AGREEMENT: &str = "agreement: AGR-2026-0143
version: 1
assigner: org:grid
assignee: org:transport
target: ds:grid/load@1
valid: {from: 2020-01-01T00:00:00Z, until: 2090-01-01T00:00:00Z}
approvals: {assigner: [legal], assignee: [legal]}
clauses:
- id: F1
  text: Transport may follow the load.
  effect: permit
  assignee: {org: org:transport}
  actions: [subscribe]
  evidence: {bounded: {max_lag: 2s}}
  purpose: purp:grid-dispatch
  legal_basis: \"test\"
  duties:
  - {type: fields, allow: [time, mw]}
";
const DATASET: &str = "dataset: ds:grid/load@1\ntitle: t\nkind: feed\nschema: schemas/load@1.json\nkey: [time]\n\
    time: {field: time, zone: UTC}\nsubject: none\nsensitive: {}\n";
const SCHEMA: &str = r#"{"type":"object","properties":{"time":{"type":"string","format":"date-time"},
    "mw":{"type":"integer"},"secret":{"type":"string"}},"required":["time","mw"],"additionalProperties":false}"#;

/// Looks until something is so.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn agency(name: &str) -> AgencyId {
    AgencyId::new(name).unwrap()
}

fn folder(dir: &Path, name: &str, url: &str) -> Arc<NodeConfig> {
    for sub in ["keys", "run", "broker", "executor", "datasets", "schemas", "agreements"] {
        std::fs::create_dir_all(dir.join(sub)).unwrap();
    }
    let account = agency(name).account();
    let yaml = format!(
        "version: 1\nagency: {name}\nchain: city\nlisten: 127.0.0.1:9999\nnats: {{url: \"{url}\", user: {name}, password: \"env:X\"}}\n\
         exchange: {{account: EXCHANGE, own: {account}}}\ncomet: {{rpc: \"unix:run/rpc.sock\", p2p: \"127.0.0.1:9998\"}}\n"
    );
    std::fs::write(dir.join("node.yaml"), yaml).unwrap();
    Arc::new(NodeConfig::load(dir).unwrap())
}

/// Grid publishes, transport follows.
pub struct City {
    pub nats: Nats,
    pub node: Arc<Node>,
    pub grid: Arc<NodeConfig>,
    pub transport: Arc<NodeConfig>,
    _dir: tempfile::TempDir,
}

impl City {
    /// Server, folders, keys, ledger and exchange manager; no agency's process yet.
    pub async fn start() -> Option<Self> {
        let binary = nats_binary()?;
        let dir = tempfile::tempdir().unwrap();
        let nats = Nats::start(binary, dir.path());
        let (grid, transport) =
            (folder(&dir.path().join("g"), "grid", &nats.url), folder(&dir.path().join("t"), "transport", &nats.url));
        std::fs::write(grid.path("datasets/load.yaml"), DATASET).unwrap();
        std::fs::write(grid.path("schemas/load@1.json"), SCHEMA).unwrap();
        std::fs::write(grid.path("agreements/a.yaml"), AGREEMENT).unwrap();
        let node = Node::start(&grid.path("run"), ledger(&grid, &transport));
        let manager = Manager {
            js: async_nats::jetstream::new(nats.connect("exchange").await),
            node: NodeClient::new(grid.node_socket()),
            agencies: vec![agency("grid"), agency("transport")],
        };
        tokio::spawn(async move { manager.run(&Limits::default()).await });
        Some(Self { nats, node, grid, transport, _dir: dir })
    }

    async fn writer(grid: &NodeConfig, name: &str, key: &str) -> Writer {
        let setup = WriterSetup {
            chain: "city".into(),
            writer: WriterId::new(format!("grid/{name}")).unwrap(),
            key: KeyFolder::new(grid.keys()).signing(key).unwrap(),
            journal: grid.path(format!("{name}/writer.sqlite")),
            node: NodeClient::new(grid.node_socket()),
            rpc: CometRpc::new(&grid.rpc().unwrap()).unwrap(),
            peers: vec![],
            term: None,
        };
        Writer::start(setup).await.unwrap()
    }

    /// The provider's intake.
    pub async fn intake(&self) -> Process<Arc<Intake>> {
        let (cfg, url) = (self.grid.clone(), self.nats.url.clone());
        Process::start(async move {
            let (keep, writer) = watch::channel(Some(Self::writer(&cfg, "broker", keys::WRITER_BROKER).await));
            tokio::spawn(async move { keep.closed().await });
            let setup = IntakeSetup {
                datasets: load_datasets(&cfg.dir).unwrap(),
                nats: connect(&url, "grid").await,
                node: NodeClient::new(cfg.node_socket()),
                writer,
                metrics: Metrics::new().unwrap(),
                cfg,
            };
            Intake::start(setup).unwrap()
        })
        .await
    }

    /// The provider's feeds, told of the ledger as the host does it.
    pub async fn executor(&self) -> Process<Arc<feed::Feeds>> {
        let (cfg, url) = (self.grid.clone(), self.nats.url.clone());
        Process::start(async move {
            let (view, seen) = watch::channel(feed::View::default());
            let client = NodeClient::new(cfg.node_socket());
            let datasets = load_datasets(&cfg.dir).unwrap();
            let vault = Arc::new(Vault::open(&cfg.path("executor")).unwrap());
            let setup = feed::FeedSetup {
                cfg: cfg.clone(),
                people: People::new(vault, &datasets),
                datasets,
                node: client.clone(),
                writer: Self::writer(&cfg, "executor", keys::WRITER_EXECUTOR).await,
                nats: connect(&url, "grid").await,
                release_key: Arc::new(KeyFolder::new(cfg.keys()).signing(keys::RELEASE).unwrap()),
                view: seen,
                lead: Lead::alone(),
            };
            let feeds = feed::start(setup).unwrap();
            let from = client.head().await.unwrap().height + 1;
            tokio::spawn(tell(client, cfg, from, view));
            feeds
        })
        .await
    }

    /// The consumer's broker.
    pub async fn follower(&self) -> Process<Subscriptions> {
        let (cfg, url, socket) = (self.transport.clone(), self.nats.url.clone(), self.grid.node_socket());
        Process::start(async move {
            // Every promise of these tests is kept.
            let (complaints, _) = tokio::sync::mpsc::channel(1);
            let setup = FeedSetup {
                complaints,
                watch: LedgerWatch::start(NodeClient::new(socket.clone())),
                node: NodeClient::new(socket),
                nats: connect(&url, "transport").await,
                store: Store::open(&cfg.broker_store()).unwrap(),
                metrics: Metrics::new().unwrap(),
                cfg,
            };
            Subscriptions::start(setup).unwrap()
        })
        .await
    }

    /// The consumer's gateway.
    #[allow(dead_code, reason = "not every test binary creates subscriptions")]
    pub async fn gateway(&self) -> Process<Gateway> {
        let (cfg, url, socket, rpc) =
            (self.transport.clone(), self.nats.url.clone(), self.grid.node_socket(), self.grid.rpc().unwrap());
        Process::start(async move {
            let folder = KeyFolder::new(cfg.keys());
            Gateway::new(GatewaySetup {
                node: NodeClient::new(socket.clone()),
                rpc: CometRpc::new(&rpc).unwrap(),
                watch: LedgerWatch::start(NodeClient::new(socket)),
                nats: connect(&url, "transport").await,
                store: Store::open(&cfg.path("broker/gateway.sqlite")).unwrap(),
                metrics: Metrics::new().unwrap(),
                key: folder.signing(keys::GATEWAY).unwrap(),
                kem: folder.kem().unwrap(),
                cfg,
            })
        })
        .await
    }
}

/// What the host's loop tells the feeds.
async fn tell(client: NodeClient, cfg: Arc<NodeConfig>, from: u64, view: watch::Sender<feed::View>) {
    let mut frames = follow(client.path(), from, vec!["none".into()]);
    let (mut policies, mut rev) = (Arc::new(Policies::default()), None);
    loop {
        let Followed::Frame(frame) = frames.next().await else { continue };
        if rev != Some(frame.meta_rev) {
            let views = client.agreements().await.unwrap();
            let documents = load_documents(&cfg.dir);
            policies =
                Arc::new(Policies::build(&policies, &cfg.agency, &cfg.chain, &views, &documents, &BTreeMap::new()));
            rev = Some(frame.meta_rev);
        }
        let (meta_rev, tick_ms, at) = (frame.meta_rev, frame.tick_ms, Instant::now());
        view.send_replace(feed::View { policies: policies.clone(), meta_rev, tick_ms, at, lost: false });
    }
}

/// Something with tasks of its own that ends as a killed process does: at once, wherever it stands.
pub struct Process<T> {
    runtime: Option<Runtime>,
    it: T,
}

impl<T: Send + 'static> Process<T> {
    async fn start(start: impl Future<Output = T> + Send + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let it = runtime.spawn(start).await.unwrap();
        Self { runtime: Some(runtime), it }
    }
}

impl<T> std::ops::Deref for Process<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.it
    }
}

impl<T> Drop for Process<T> {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A compiled agreement as the ledger shows it in force, with the handle of its only clause.
pub fn in_force(compiled: &Compiled, handle: u64) -> AgreementView {
    AgreementView {
        agreement: compiled.terms.agreement.clone(),
        version: 1,
        revision: 1,
        status: Status::Active,
        terms_hash: compiled.terms_hash(),
        terms: cbor::encode(&compiled.terms).into(),
        expires_ms: 0,
        approvals: vec![],
        handles: vec![handle],
        bounded_suspended: 0,
    }
}

fn ledger(grid: &NodeConfig, transport: &NodeConfig) -> State {
    let mut state = State::default();
    let folder = KeyFolder::new(grid.keys());
    let mut add = |agency: AgencyId, role, label: &str, key| {
        state.keys.push(KeyView { agency, role, label: label.into(), key, revoked_ms: 0, compromised_since_ms: 0 });
    };
    for (name, role) in [(keys::ENVELOPE, KeyRole::Envelope), (keys::RELEASE, KeyRole::Release)] {
        add(agency("grid"), role, name, folder.create_signing(name, Suite::Ed25519).unwrap().public().clone());
    }
    let kem = KeyFolder::new(transport.keys()).create_kem().unwrap();
    add(agency("transport"), KeyRole::Kem, "kem", kem.public().clone());
    let gateway = KeyFolder::new(transport.keys()).create_signing(keys::GATEWAY, Suite::Ed25519).unwrap();
    add(agency("transport"), KeyRole::Gateway, keys::GATEWAY, gateway.public().clone());
    for (writer, key) in [("grid/broker", keys::WRITER_BROKER), ("grid/executor", keys::WRITER_EXECUTOR)] {
        let key = folder.create_signing(key, Suite::Ed25519).unwrap();
        state.writers.extend([node::writer(writer, key.public().ed25519.0.as_slice().try_into().unwrap())]);
    }
    let id: concordat_protocol::ids::DatasetId = "ds:grid/load@1".parse().unwrap();
    state.datasets.push(DatasetView { id, number: 1, schema_hash: [0; 32], head: 0 });
    let compiled = compile(AGREEMENT).unwrap();
    state.agreements.push(in_force(&compiled, SUBSCRIPTION));
    state
}
