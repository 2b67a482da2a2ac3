//! The connection beneath a source that speaks a protocol of its own: TCP, or TLS over it.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
#[cfg(any(feature = "mqtt", feature = "iec104"))]
use serde_saphyr::Spanned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::contract::ErrorClass;
#[cfg(any(feature = "mqtt", feature = "iec104"))]
use crate::document::DocumentError;

#[cfg(any(feature = "mqtt", feature = "iec104"))]
/// How addresses begin, and the port where none is written: in the open and by TLS.
pub(crate) struct Scheme {
    /// In the open.
    pub plain: (&'static str, u16),
    /// By TLS.
    pub secure: (&'static str, u16),
}

#[cfg(any(feature = "mqtt", feature = "iec104"))]
/// Host, port and whether TLS is spoken, of the document's `connect.url`.
pub(crate) fn address(url: &Spanned<String>, scheme: &Scheme) -> Result<(String, u16, bool), DocumentError> {
    let ((plain, port), (secure, secure_port)) = (scheme.plain, scheme.secure);
    let bad = |detail: String| DocumentError::at(url, "connect.url", detail);
    let form =
        || bad(format!("write {plain}HOST:PORT or {secure}HOST:PORT; user and password have members of their own"));
    let (rest, tls) = match (url.value.strip_prefix(secure), url.value.strip_prefix(plain)) {
        (Some(rest), _) => (rest, true),
        (None, Some(rest)) => (rest, false),
        (None, None) => return Err(form()),
    };
    let rest = rest.trim_end_matches('/');
    if rest.contains(['@', '/', '?']) {
        return Err(form());
    }
    let standard = if tls { secure_port } else { port };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && !port.contains(']') => {
            (host, port.parse().map_err(|_| bad("the port is a number from 1 to 65535".to_owned()))?)
        }
        _ => (rest, standard),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() { Err(form()) } else { Ok((host.to_owned(), port, tls)) }
}

/// Bytes both ways.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DialError {
    /// What it asks of the runner.
    pub class: ErrorClass,
    /// TLS was refused, by one side or the other; otherwise nobody was reached.
    pub tls: bool,
    /// One sentence: what happened and what to do.
    pub detail: String,
}

/// What TLS said, when it was TLS that failed.
pub(crate) fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// The alert of TLS with which the other side ended a connection.
fn alert(error: &std::io::Error) -> Option<AlertDescription> {
    match tls_error(error)? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// True when the other side does not take our certificate. With TLS 1.3 it says so only after our side of the handshake is
/// done, where something is read.
pub(crate) fn certificate_refused(error: &std::io::Error) -> bool {
    use AlertDescription as A;
    let refusals = [
        A::HandshakeFailure,
        A::NoCertificate,
        A::BadCertificate,
        A::UnsupportedCertificate,
        A::CertificateRevoked,
        A::CertificateExpired,
        A::CertificateUnknown,
        A::UnknownCA,
        A::AccessDenied,
        A::CertificateRequired,
    ];
    alert(error).is_some_and(|alert| refusals.contains(&alert))
}

/// What to do when the other side ended TLS.
pub(crate) const REFUSED_HINT: &str = "check `cert` and `key`, and whom the server trusts";

/// A connection to a server, by TLS where it is asked for.
pub(crate) async fn connect(
    host: &str,
    port: u16,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Box<dyn Stream>, DialError> {
    let gone = |tls, detail| DialError { class: ErrorClass::Transient, tls, detail };
    let tcp = TcpStream::connect((host, port)).await.map_err(|e| gone(false, format!("no connection: {e}")))?;
    let _ = tcp.set_nodelay(true);
    let Some(config) = tls else { return Ok(Box::new(tcp)) };
    let name = ServerName::try_from(host.to_owned()).map_err(|_| DialError {
        class: ErrorClass::Permanent,
        tls: true,
        detail: "its name is none that a certificate could have".to_owned(),
    })?;
    match TlsConnector::from(Arc::clone(config)).connect(name, tcp).await {
        Ok(stream) => Ok(Box::new(stream)),
        // A certificate does not become another one by waiting.
        Err(e) if alert(&e).is_some() => {
            let detail = format!("TLS: {e}; {REFUSED_HINT}");
            Err(DialError { class: ErrorClass::Auth, tls: true, detail })
        }
        Err(e) if tls_error(&e).is_some() => {
            let detail = format!("TLS: {e}; check `ca`, the host's name and the server's certificate");
            Err(DialError { class: ErrorClass::Auth, tls: true, detail })
        }
        // Some hang up without a word when they do not take a certificate.
        Err(e) => Err(gone(true, format!("TLS: {e}; if it stays so, {REFUSED_HINT}"))),
    }
}
