//! TLS to a source or a sink, by the one library of this program (rustls with aws-lc-rs).

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

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

/// How a client speaks TLS. Errors have the class `auth` and the code `source.tls`.
pub fn client(base: &Path, files: Files<'_>) -> Result<Arc<ClientConfig>, AdapterError> {
    let mut roots = RootCertStore::empty();
    match files.ca {
        Some(file) => {
            for certificate in certificates(base, file)? {
                roots.add(certificate).map_err(|e| bad(file, e))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| bad("TLS", e))?
        .with_root_certificates(roots);
    let config = match (files.cert, files.key) {
        (Some(cert), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(base.join(path_of(key))).map_err(|e| bad(key, e))?;
            config.with_client_auth_cert(certificates(base, cert)?, private).map_err(|e| bad(cert, e))?
        }
        (None, None) => config.with_no_client_auth(),
        _ => return Err(bad("connect", "`cert` and `key` come together")),
    };
    Ok(Arc::new(config))
}
