//! TLS to a source or a sink, by the one library of this program (rustls with aws-lc-rs).

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::contract::{AdapterError, ErrorClass};

/// Files of TLS as a document names them, relative to the node folder.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files<'a> {
    /// Certificates that are trusted; those of the machine when left out.
    pub ca: Option<&'a str>,
    /// Own certificate with the ones that lead to its issuer.
    pub cert: Option<&'a str>,
    /// Key of the own certificate.
    pub key: Option<&'a str>,
}

fn bad(file: &str, detail: impl std::fmt::Display) -> AdapterError {
    AdapterError::source_failed(ErrorClass::Auth, "source.tls", format!("{file}: {detail}; name a file in PEM"))
}

/// A path as documents write it, with or without `file:` in front.
pub fn path_of(text: &str) -> &str {
    text.strip_prefix("file:").unwrap_or(text)
}

fn certificates(base: &Path, file: &str) -> Result<Vec<CertificateDer<'static>>, AdapterError> {
    let found = CertificateDer::pem_file_iter(base.join(path_of(file))).map_err(|e| bad(file, e))?;
    let list: Vec<_> = found.collect::<Result<_, _>>().map_err(|e| bad(file, e))?;
    if list.is_empty() { Err(bad(file, "it holds no certificate")) } else { Ok(list) }
}

fn trusted(base: &Path, file: &str) -> Result<RootCertStore, AdapterError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(base, file)? {
        roots.add(certificate).map_err(|e| bad(file, e))?;
    }
    Ok(roots)
}

fn private(base: &Path, file: &str) -> Result<PrivateKeyDer<'static>, AdapterError> {
    PrivateKeyDer::from_pem_file(base.join(path_of(file))).map_err(|e| bad(file, e))
}

/// How a client speaks TLS. Errors have the class `auth` and the code `source.tls`.
pub fn client(base: &Path, files: Files<'_>) -> Result<Arc<ClientConfig>, AdapterError> {
    let roots = match files.ca {
        Some(file) => trusted(base, file)?,
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| bad("TLS", e))?
        .with_root_certificates(roots);
    let config = match (files.cert, files.key) {
        (Some(cert), Some(key)) => {
            config.with_client_auth_cert(certificates(base, cert)?, private(base, key)?).map_err(|e| bad(cert, e))?
        }
        (None, None) => config.with_no_client_auth(),
        _ => return Err(bad("connect", "`cert` and `key` come together")),
    };
    Ok(Arc::new(config))
}

/// How a server speaks TLS. With `ca` a client needs a certificate of it. Errors have the class `auth` and the code
/// `source.tls`.
pub fn server(base: &Path, files: Files<'_>) -> Result<Arc<ServerConfig>, AdapterError> {
    let (Some(cert), Some(key)) = (files.cert, files.key) else {
        return Err(bad("to", "`cert` and `key` come together"));
    };
    let provider = Arc::new(default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| bad("TLS", e))?;
    let config = match files.ca {
        Some(file) => {
            let roots = Arc::new(trusted(base, file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            config.with_client_cert_verifier(verifier.map_err(|e| bad(file, e))?)
        }
        None => config.with_no_client_auth(),
    };
    let config = config.with_single_cert(certificates(base, cert)?, private(base, key)?).map_err(|e| bad(cert, e))?;
    Ok(Arc::new(config))
}
