//! The broker's process: `concordat node broker --dir D`.

use crate::config::{ConfigError, NodeConfig};
use crate::durable::{self, Durable, NotDurable};
use crate::evidence::{Disputes, Evidence, EvidenceSetup, Shelf, TrustKeeper};
use crate::feed::{FeedSetup, Subscriptions, complaint};
use crate::gateway::erasures::Erasures;
use crate::gateway::follow_up::FollowUp;
use crate::gateway::watch::LedgerWatch;
use crate::gateway::{Gateway, GatewaySetup};
use crate::host::notices::Notices;
use crate::host::{HostError, connect_streams, load_datasets};
use crate::http::auth::{TOKENS_FILE, TokenError, Tokens};
use crate::http::rates::Rates;
use crate::http::tls::{Applications, Peer, TlsError, TlsListener};
use crate::http::{AppState, Parts, router};
use crate::intake::{Intake, IntakeSetup, IntakeStartError};
use crate::keys::{self, KeyFileError, KeyFolder};
use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use crate::ledger::rpc::CometRpc;
use crate::ledger::writer::{Writer, WriterSetup};
use crate::metrics::Metrics;
use crate::outside::timestamp::TimeStamps;
use crate::outside::tsp;
use crate::overrides::{OverrideWatch, Reviews};
use crate::people::recorded::Recorder;
use crate::people::{self, Actors, Citizens, Issuer};
use crate::receipts::Receipts;
use crate::stop_signal;
use crate::store::{Store, StoreError};
use axum::Extension;
use axum::serve::ListenerExt;
use concordat_protocol::ids::{IdError, WriterId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

mod actor_secret;

use actor_secret::actor_secret;

/// How long open requests may go on after the signal to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Why the broker cannot start or go on.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The node's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The tokens.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// The sign-in of people.
    #[error(transparent)]
    People(#[from] people::SetupError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The ledger client.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The streams.
    #[error(transparent)]
    Streams(#[from] HostError),
    /// They do not sync before they acknowledge.
    #[error(transparent)]
    Durable(#[from] NotDurable),
    /// A name.
    #[error(transparent)]
    Id(#[from] IdError),
    /// Intake.
    #[error(transparent)]
    Intake(#[from] IntakeStartError),
    /// The address is taken or not of this machine.
    #[error("listen: {addr} cannot be used ({source}): stop what listens there, or change `listen` in node.yaml")]
    Listen {
        /// The address.
        addr: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The secret of pseudonyms.
    #[error("{path}: {rule}")]
    ActorSecret {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        rule: String,
    },
    /// The metrics' names.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The cryptographic library failed its self test.
    #[error(transparent)]
    SelfTest(#[from] concordat_protocol::keys::KeyError),
}

impl ServiceError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(e) => e.code(),
            Self::Key(e) => e.code(),
            Self::Tokens(e) => e.code(),
            Self::People(e) => e.code(),
            Self::Tls(e) => e.code(),
            Self::Ledger(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::Streams(e) => e.code(),
            Self::Durable(e) => e.code(),
            Self::Id(_) => "name",
            Self::Intake(e) => e.code(),
            Self::Listen { .. } => "listen",
            Self::ActorSecret { .. } => "actor-secret",
            Self::Metrics(_) => "metrics",
            Self::SelfTest(_) => "self-test",
        }
    }
}

/// Runs the broker of the node in `dir` until a signal asks it to stop.
pub async fn run(dir: &Path) -> Result<(), ServiceError> {
    concordat_protocol::keys::self_test()?;
    let state = build(dir).await?;
    state.metrics.self_test_ok.with_label_values(&["cryptography"]).set(1);
    let addr = state.cfg.listen.clone();
    let failed = |source| ServiceError::Listen { addr: addr.clone(), source };
    // Events are small and leave one by one: without this each could wait 40 ms for the acknowledgement of the one before.
    let listener = tokio::net::TcpListener::bind(&addr).await.map_err(failed)?.tap_io(|stream| {
        if let Err(e) = stream.set_nodelay(true) {
            warn!(error = %e, "a connection keeps small answers back");
        }
    });
    info!(agency = %state.cfg.agency, listen = addr, "broker is up");
    let gateway = state.gateway.clone();
    tokio::spawn(state.receipts.clone().sweep(move || gateway.in_flight() == 0));
    let gateway = state.gateway.clone();
    let erasures = Erasures {
        agency: state.cfg.agency.clone(),
        node: NodeClient::new(state.cfg.node_socket()),
        rpc: state.rpc.clone(),
        store: state.store.clone(),
        path: state.cfg.broker_store(),
    };
    tokio::spawn(erasures.run(move || gateway.in_flight() == 0));
    Recorder::start(&state);
    // Without a validator no checkpoint is cosigned, so nothing is compared for it either.
    if state.cfg.hosted.is_none() {
        start_evidence(&state)?;
    }
    start_timestamps(&state)?;
    if let Some(sender) = crate::notices::Sender::of(&state.cfg, &state.store)? {
        tokio::spawn(sender.run());
    }
    let durable = Durable::start(&state.nats, &state.cfg.nats);
    let (stop, stopped) = watch::channel(false);
    let mut asked = stopped.clone();
    let intake = Intake::start(IntakeSetup {
        cfg: state.cfg.clone(),
        datasets: load_datasets(dir)?,
        nats: state.nats.clone(),
        node: NodeClient::new(state.cfg.node_socket()),
        writer: state.writer.clone(),
        metrics: state.metrics.clone(),
    })?;
    let (complaints, filed) = mpsc::channel(complaint::QUEUE);
    tokio::spawn(complaint::file(filed, state.gateway.clone(), state.watch.clone()));
    start_overrides(&state, complaints.clone());
    let feeds = Subscriptions::start(FeedSetup {
        cfg: state.cfg.clone(),
        watch: state.watch.clone(),
        node: NodeClient::new(state.cfg.node_socket()),
        nats: state.nats.clone(),
        store: state.store.clone(),
        metrics: state.metrics.clone(),
        complaints,
    })?;
    let gate = axum::middleware::from_fn_with_state(durable.clone(), durable::gate);
    let state_cfg = state.cfg.clone();
    let api = router(state).layer(Extension(intake)).layer(Extension(feeds)).layer(gate);
    serve_tls(&state_cfg, api.clone(), stopped.clone()).await?;
    let server = axum::serve(listener, api).with_graceful_shutdown(async move {
        let _ = asked.wait_for(|s| *s).await;
    });
    tokio::spawn(async move {
        stop_signal().await;
        info!("stopping: open requests may end");
        let _ = stop.send(true);
    });
    let mut asked = stopped;
    let late = async {
        let _ = asked.wait_for(|s| *s).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = server => served.map_err(failed)?,
        refused = durable.refused() => return Err(refused.into()),
        () = late => warn!("open requests were cut off after {} s", GRACE.as_secs()),
    }
    info!("broker stopped");
    Ok(())
}

/// Everything a broker has, from its folder.
pub(crate) async fn build(dir: &Path) -> Result<AppState, ServiceError> {
    let cfg = Arc::new(NodeConfig::load(dir)?);
    let folder = KeyFolder::of(&cfg);
    let tokens = Tokens::load(&cfg.keys().join(TOKENS_FILE))?;
    let issuer = cfg.oidc.as_ref().map(|oidc| Issuer::load(oidc, &cfg.dir)).transpose()?;
    let citizens = cfg.citizens.as_ref().map(|c| Citizens::load(c, &cfg.dir)).transpose()?;
    let applications = cfg.tls.as_ref().map(|tls| Applications::load(&cfg.path(&tls.applications))).transpose()?;
    let applications = applications.unwrap_or_default();
    if tokens.is_empty() && issuer.is_none() {
        warn!("keys/{TOKENS_FILE} names no token: nobody can call the API");
    }
    let store = Store::open(&cfg.broker_store())?;
    let actors = Actors::new(actor_secret(&cfg.path("broker/actor.secret"))?);
    let nats = connect_streams(&cfg, "broker").await?;
    let (node, rpc) = (NodeClient::new(cfg.node_socket()), CometRpc::new(&cfg.rpc()?)?);
    let watch = LedgerWatch::start(node.clone());
    let metrics = Metrics::new()?;
    let gateway = Gateway::new(GatewaySetup {
        cfg: cfg.clone(),
        node: node.clone(),
        rpc: rpc.clone(),
        watch: watch.clone(),
        nats: nats.clone(),
        store: store.clone(),
        metrics: metrics.clone(),
        key: folder.signing(keys::GATEWAY)?,
        kem: folder.kem()?,
    });
    // A connection of its own: proofs must not wait behind queries, nor queries behind proofs.
    let proofs = NodeClient::new(cfg.node_socket());
    let shelf = Shelf::new(store.clone());
    let records = gateway.records().clone();
    let trust = TrustKeeper::new(proofs.clone(), cfg.genesis());
    let who = (cfg.chain.clone(), cfg.agency.clone());
    let receipts = Receipts::new(who, proofs, rpc.clone(), watch.clone(), records, (shelf.clone(), trust));
    let disputes = Disputes::new(cfg.agency.clone(), node.clone(), gateway.clone(), shelf, metrics.clone());
    let writer = start_writer(&cfg, &folder, &rpc)?;
    let tokens = Arc::new(tokens);
    let rates = Arc::new(Rates::new(&cfg.limits));
    Ok(AppState::new(Parts {
        cfg,
        node,
        rpc,
        watch,
        nats,
        store,
        gateway,
        receipts,
        disputes,
        metrics,
        tokens,
        issuer: issuer.map(Arc::new),
        citizens: citizens.map(Arc::new),
        applications: Arc::new(applications),
        rates,
        actors,
        writer,
    }))
}

/// Serves the same API by TLS where `node.yaml` says so.
async fn serve_tls(
    cfg: &NodeConfig,
    api: axum::Router,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), ServiceError> {
    let Some(tls) = &cfg.tls else { return Ok(()) };
    let failed = |source| ServiceError::Listen { addr: tls.listen.clone(), source };
    let listener = tokio::net::TcpListener::bind(&tls.listen).await.map_err(failed)?;
    let listener = TlsListener::start(listener, tls, &cfg.dir)?;
    info!(listen = tls.listen, "TLS is up");
    let server = axum::serve(listener, api.into_make_service_with_connect_info::<Peer>());
    let server = server.with_graceful_shutdown(async move {
        let _ = stopped.wait_for(|s| *s).await;
    });
    tokio::spawn(async move {
        if let Err(e) = server.await {
            error!(error = %e, "TLS is not served any more");
        }
    });
    Ok(())
}

/// Starts what follows overrides up: their records, their reviews, what operators are told.
fn start_overrides(state: &AppState, complaints: mpsc::Sender<complaint::Complaint>) {
    let node = || NodeClient::new(state.cfg.node_socket());
    let sources = (state.watch.clone(), node());
    let agency = &state.cfg.agency;
    let follow_up = FollowUp::new(agency.clone(), &state.gateway, sources, state.disputes.clone(), complaints);
    tokio::spawn(follow_up.run());
    let reviews = Reviews::new(agency.clone(), node(), state.store.clone());
    let notices = Notices::new(state.cfg.releases());
    tokio::spawn(OverrideWatch::new(reviews, notices, state.watch.clone(), state.metrics.clone()).run());
}

/// Starts what compares, disputes and cosigns.
fn start_evidence(state: &AppState) -> Result<(), ServiceError> {
    let cfg = &state.cfg;
    let writer = |name: &str| WriterId::new(format!("{}/{name}", cfg.agency));
    let journals = ["broker", "executor"].into_iter();
    let journals = journals.map(|name| Ok((writer(name)?, cfg.path(format!("{name}/writer.sqlite")))));
    let node = NodeClient::new(cfg.node_socket());
    let setup = EvidenceSetup {
        chain: cfg.chain.clone(),
        agency: cfg.agency.clone(),
        key: KeyFolder::of(cfg).signing(keys::COSIGN)?,
        trust: TrustKeeper::new(node.clone(), cfg.genesis()),
        node,
        rpc: state.rpc.clone(),
        watch: state.watch.clone(),
        shelf: Shelf::new(state.store.clone()),
        disputes: state.disputes.clone(),
        journals: journals.collect::<Result<_, IdError>>()?,
        metrics: state.metrics.clone(),
    };
    tokio::spawn(Evidence::new(setup).run());
    Ok(())
}

/// Starts the time-stamps of checkpoints where `node.yaml` names an authority.
fn start_timestamps(state: &AppState) -> Result<(), ServiceError> {
    let Some(wanted) = &state.cfg.timestamp else { return Ok(()) };
    let path = state.cfg.path(&wanted.certificate);
    let bad = |rule: String| ConfigError::Field { path: path.clone(), field: "timestamp.certificate".into(), rule };
    let bytes = std::fs::read(&path).map_err(|e| bad(format!("cannot be read: {e}")))?;
    let given = tsp::read_certificates(&bytes).map_err(|e| bad(e.to_string()))?;
    let every = wanted.every().map_err(|rule| bad(rule.into()))?;
    let stamps = TimeStamps::new(state.store.clone());
    tokio::spawn(stamps.every(NodeClient::new(state.cfg.node_socket()), wanted.url.clone(), given, every));
    Ok(())
}

/// Starts the writer `<agency>/broker` beside the API: it waits for the ledger, the API does not wait for it.
fn start_writer(
    cfg: &NodeConfig,
    folder: &KeyFolder,
    rpc: &CometRpc,
) -> Result<watch::Receiver<Option<Writer>>, ServiceError> {
    let setup = WriterSetup {
        chain: cfg.chain.clone(),
        writer: WriterId::new(format!("{}/broker", cfg.agency))?,
        key: folder.signing(keys::WRITER_BROKER)?,
        journal: cfg.path("broker/writer.sqlite"),
        node: NodeClient::new(cfg.node_socket()),
        rpc: rpc.clone(),
        peers: cfg.peers.iter().map(|p| p.url.trim_end_matches('/').to_owned()).collect(),
        term: None,
    };
    let (tx, rx) = watch::channel(None);
    tokio::spawn(async move {
        match Writer::start(setup).await {
            Ok(writer) => {
                tx.send_replace(Some(writer));
                // The sender stays until nobody looks any more.
                tx.closed().await;
            }
            Err(e) => error!(code = e.code(), error = %e, "the broker's writer did not start"),
        }
    });
    Ok(rx)
}
