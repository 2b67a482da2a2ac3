//! Starting the application: store, ABCI socket, node socket.

use std::path::PathBuf;

use crate::app::App;
use crate::clock::SystemClock;
use crate::pool::MempoolLimits;
use crate::server::{Listening, ServerError, bind, serve_connection};
use crate::service;
use crate::store::{Store, StoreError};

/// Where an application has its files and sockets.
#[derive(Debug, Clone)]
pub struct AppConfig {
    /// The socket that CometBFT connects to (`proxy_app`).
    pub abci_socket: PathBuf,
    /// The socket of the agency's own processes.
    pub node_socket: PathBuf,
    /// The store's file.
    pub store_path: PathBuf,
    /// The sizes of CometBFT's mempool, so that room is kept for acts.
    pub mempool: MempoolLimits,
}

impl AppConfig {
    /// A configuration with the usual mempool sizes.
    pub fn new(
        abci_socket: impl Into<PathBuf>,
        node_socket: impl Into<PathBuf>,
        store_path: impl Into<PathBuf>,
    ) -> Self {
        Self {
            abci_socket: abci_socket.into(),
            node_socket: node_socket.into(),
            store_path: store_path.into(),
            mempool: MempoolLimits::default(),
        }
    }
}

/// Why an application could not be started.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A socket.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl AppError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(e) => e.code(),
            Self::Server(e) => e.code(),
        }
    }
}

/// A running application; dropping it closes its sockets to new connections.
pub struct Running {
    /// The application.
    pub app: App,
    abci: Listening,
    _node: Listening,
}

/// Opens the store and serves both sockets.
///
/// # Errors
/// The store cannot be read, or a socket cannot be bound.
pub fn start(config: &AppConfig) -> Result<Running, AppError> {
    let abci = bind(&config.abci_socket)?;
    let node = bind(&config.node_socket)?;
    let store = Store::open(&config.store_path)?;
    let app = App::new(store, SystemClock::default(), config.mempool)?;
    let (for_abci, for_node) = (app.clone(), app.clone());
    let node = Listening::start(&config.node_socket, node, "node", move |s| service::serve(&for_node, s))?;
    let abci = Listening::start(&config.abci_socket, abci, "abci", move |s| serve_connection(&for_abci, s))?;
    tracing::info!(height = app.height(), socket = %config.abci_socket.display(), "application serves");
    Ok(Running { app, abci, _node: node })
}

/// Serves until the process is ended. A signal may end it at any time: what CometBFT was told is committed is stored.
///
/// # Errors
/// As [`start`].
pub fn run(config: AppConfig) -> Result<(), AppError> {
    let Running { abci, _node, .. } = start(&config)?;
    abci.wait();
    Ok(())
}
