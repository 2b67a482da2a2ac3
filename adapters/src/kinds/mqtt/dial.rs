//! The connection beneath a session: TCP, or TLS over it.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Server;
use crate::contract::ErrorClass;
use crate::kinds::mqtt::client::{LinkError, Stage};

/// Bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection to the server, by TLS where it is asked for.
pub(super) async fn connect(server: &Server) -> Result<Box<dyn Stream>, LinkError> {
    let tcp = TcpStream::connect((server.host.as_str(), server.port)).await;
    let tcp = tcp.map_err(|e| server.gone(Stage::Reach, format!("no connection: {e}")))?;
    let _ = tcp.set_nodelay(true);
    let Some(config) = &server.tls else { return Ok(Box::new(tcp)) };
    let name = ServerName::try_from(server.host.clone()).map_err(|_| {
        server.failed(Stage::Tls, ErrorClass::Permanent, "its name is none that a certificate could have")
    })?;
    match TlsConnector::from(Arc::clone(config)).connect(name, tcp).await {
        Ok(stream) => Ok(Box::new(stream)),
        // A certificate does not become another one by waiting.
        Err(e) if e.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            let detail = format!("TLS: {e}; check `ca`, the host's name and the server's certificate");
            Err(server.failed(Stage::Tls, ErrorClass::Auth, detail))
        }
        Err(e) => Err(server.gone(Stage::Tls, format!("TLS: {e}"))),
    }
}
