//! A second way in, by TLS 1.3: applications show a certificate instead of a token (mutual TLS).
//!
//! A certificate counts when the agency's own authority issued it **and** `applications.yaml` names its SHA-256. Who shows
//! none comes by its bearer token, as on the plain address.
//!
//! ```yaml
//! applications:
//! - name: case-system
//!   roles: [clerk]
//!   certificate: 9f86d0...      # SHA-256 of the certificate (DER): openssl x509 -outform DER -in case.pem | sha256sum
//! ```

use super::auth::Caller;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use concordat_protocol::hash::{Hash, sha256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

/// Handshakes at once; further connections wait.
const HANDSHAKES: usize = 256;
/// Longest handshake.
const WITHIN: Duration = Duration::from_secs(10);

/// `tls:` of `node.yaml`; paths are relative to the node's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// `host:port`
    pub listen: String,
    /// The broker's own certificates, PEM, its own first.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The authority that issues applications' certificates, PEM.
    pub clients: PathBuf,
    /// Who they are.
    #[serde(default = "applications")]
    pub applications: PathBuf,
}

fn applications() -> PathBuf {
    "applications.yaml".into()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    applications: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    roles: BTreeSet<String>,
    certificate: String,
}

/// Why TLS cannot be served.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file of it.
    #[error("{path}: {rule}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        rule: String,
    },
}

impl TlsError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        "tls"
    }
}

/// Applications by the SHA-256 of their certificates.
#[derive(Debug, Default)]
pub struct Applications(BTreeMap<Hash, Caller>);

impl Applications {
    fn parse(text: &str) -> Result<Self, String> {
        let file: File =
            serde_saphyr::from_str(text).map_err(|e| e.without_snippet().to_string().replace('\n', " "))?;
        let word = |w: &str| {
            !w.is_empty() && w.len() <= 64 && w.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let (mut known, mut names) = (BTreeMap::new(), BTreeSet::new());
        for e in file.applications {
            if !word(&e.name) || !names.insert(e.name.clone()) {
                return Err("applications.name: each is named once, 1 to 64 of a-z, A-Z, 0-9, - _ and .".into());
            }
            if e.roles.is_empty() || !e.roles.iter().all(|r| word(r)) {
                return Err(format!("applications.roles of {}: at least one word", e.name));
            }
            let mut hash = Hash::default();
            hex::decode_to_slice(&e.certificate, &mut hash)
                .map_err(|_| format!("applications.certificate of {}: 64 hexadecimal digits", e.name))?;
            // No token of keys/tokens.yaml has a colon in its name, so that nobody is taken for another.
            let name = format!("mtls:{}", e.name);
            if known
                .insert(
                    hash,
                    Caller { name, roles: e.roles, after_step_up: BTreeMap::new(), sign_in: None, role_map: None },
                )
                .is_some()
            {
                return Err(format!("applications.certificate of {}: another name has the same one", e.name));
            }
        }
        Ok(Self(known))
    }

    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self, TlsError> {
        let wrong = |rule: String| TlsError::File { path: path.to_owned(), rule };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        Self::parse(&text).map_err(wrong)
    }

    /// Whose certificate this is.
    pub(super) fn find(&self, peer: &Peer) -> Option<&Caller> {
        self.0.get(peer.0.as_ref()?)
    }
}

/// SHA-256 of the certificate that the other side showed and proved to hold, if it did.
#[derive(Debug, Clone)]
pub struct Peer(Option<Hash>);

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        let shown = stream.io().get_ref().1.peer_certificates().and_then(|c| c.first());
        Self(shown.map(|c| sha256(&[c.as_ref()])))
    }
}

/// Connections whose handshake is done.
pub struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local: SocketAddr,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.local)
    }
}

fn server_config(cfg: &TlsConfig, folder: &Path) -> Result<ServerConfig, TlsError> {
    let wrong = |path: &PathBuf, rule: String| TlsError::File { path: folder.join(path), rule };
    let certificates = |path: &PathBuf| -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let read = CertificateDer::pem_file_iter(folder.join(path)).and_then(Iterator::collect);
        let found: Vec<_> = read.map_err(|e| wrong(path, e.to_string()))?;
        if found.is_empty() { Err(wrong(path, "no certificate is in it".into())) } else { Ok(found) }
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(&cfg.clients)? {
        roots.add(authority).map_err(|e| wrong(&cfg.clients, e.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build();
    let verifier = verifier.map_err(|e| wrong(&cfg.clients, e.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(folder.join(&cfg.key)).map_err(|e| wrong(&cfg.key, e.to_string()))?;
    let config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13]);
    let config = config.with_client_cert_verifier(verifier).with_single_cert(certificates(&cfg.certificate)?, key);
    let mut config = config.map_err(|e| wrong(&cfg.certificate, e.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

impl TlsListener {
    /// Serves TLS on a listener. Handshakes run beside each other: a slow one holds up nobody.
    pub fn start(listener: TcpListener, cfg: &TlsConfig, folder: &Path) -> Result<Self, TlsError> {
        let acceptor = TlsAcceptor::from(Arc::new(server_config(cfg, folder)?));
        let local = listener.local_addr();
        let local = local.map_err(|e| TlsError::File { path: folder.to_owned(), rule: e.to_string() })?;
        let (done, ready) = mpsc::channel(HANDSHAKES);
        let slots = Arc::new(Semaphore::new(HANDSHAKES));
        tokio::spawn(async move {
            while let Ok(slot) = slots.clone().acquire_owned().await {
                let (stream, from) = tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok(accepted) => accepted,
                        // Out of files, most likely: the next one may succeed.
                        Err(_) => {
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            continue;
                        }
                    },
                    () = done.closed() => return,
                };
                let (acceptor, done) = (acceptor.clone(), done.clone());
                tokio::spawn(async move {
                    let _slot = slot;
                    let _ = stream.set_nodelay(true);
                    match tokio::time::timeout(WITHIN, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => drop(done.send((stream, from)).await),
                        Ok(Err(e)) => debug!(%from, error = %e, "a TLS handshake failed"),
                        Err(_) => debug!(%from, "a TLS handshake took too long"),
                    }
                });
            }
        });
        Ok(Self { ready, local })
    }
}

#[cfg(test)]
mod tests;
