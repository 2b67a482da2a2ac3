//! One connection to an SFTP server: the key compared, logged in, the subsystem started.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use russh::client::{self, AuthResult, Handle};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate, decode_secret_key};
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::{Config as SftpConfig, SftpSession};
use russh_sftp::protocol::StatusCode;

use super::server::Server;
use crate::contract::{AdapterError, ErrorClass};

/// Kinds of keys that a server may have. RSA is not among them, see docs/adr/0030.
const HOST_KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
];

/// A connection.
pub(super) struct Session {
    handle: Handle<Pin>,
    /// What files are asked with.
    pub sftp: SftpSession,
}

/// Takes the server's key that the document names, and no other.
struct Pin {
    server: Server,
    shown: Arc<Mutex<Option<String>>>,
}

impl client::Handler for Pin {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        // Certificates are not asked for: only a bare key can be the one of the document.
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        let found = key.fingerprint(HashAlg::Sha256);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{found} ({})", key.algorithm()));
        Ok(found == self.server.host_key)
    }
}

fn failed(class: ErrorClass, code: &'static str, message: String) -> AdapterError {
    AdapterError::source_failed(class, code, message)
}

impl Session {
    /// Connects and logs in; `base` is the node folder, where secrets are.
    pub async fn open(server: &Server, base: &Path) -> Result<Self, AdapterError> {
        let login = Login::of(server, base)?;
        match tokio::time::timeout(server.timeout, Self::connect(server, login)).await {
            Ok(session) => session,
            Err(_) => {
                let s = server.timeout.as_secs();
                let message =
                    format!("{}: no connection within {s} s; is the server reachable from here?", server.shown);
                Err(failed(ErrorClass::Transient, "source.timeout", message))
            }
        }
    }

    async fn connect(server: &Server, login: Login) -> Result<Self, AdapterError> {
        let shown = Arc::new(Mutex::new(None));
        let pin = Pin { server: server.clone(), shown: Arc::clone(&shown) };
        let mut config =
            client::Config { nodelay: true, keepalive_interval: Some(server.timeout), ..Default::default() };
        config.preferred.key = HOST_KEYS.into();
        let connected = client::connect(Arc::new(config), (server.host.as_str(), server.port), pin).await;
        let mut handle = connected.map_err(|error| {
            let shown = shown.lock().unwrap_or_else(PoisonError::into_inner).take();
            ssh_error(server, &error, shown)
        })?;
        login.try_with(server, &mut handle).await?;
        let channel = handle.channel_open_session().await.map_err(|e| ssh_error(server, &e, None))?;
        channel.request_subsystem(true, "sftp").await.map_err(|e| ssh_error(server, &e, None))?;
        let config = SftpConfig { request_timeout_secs: server.timeout.as_secs(), ..Default::default() };
        let sftp = SftpSession::new_with_config(channel.into_stream(), config).await;
        let sftp = sftp.map_err(|e| match e {
            SftpError::Timeout => file_error(&server.shown, "begin", &e),
            _ => no_sftp(server),
        })?;
        Ok(Self { handle, sftp })
    }

    /// True when the connection is lost.
    pub fn is_lost(&self) -> bool {
        self.handle.is_closed()
    }
}

/// What an account proves itself with.
struct Login {
    key: Option<russh::keys::PrivateKey>,
    password: Option<zeroize::Zeroizing<String>>,
}

impl Login {
    fn of(server: &Server, base: &Path) -> Result<Self, AdapterError> {
        let password = server.password.as_ref().map(|secret| secret.reveal(base)).transpose()?;
        let Some(secret) = &server.key else { return Ok(Self { key: None, password }) };
        let passphrase = server.passphrase.as_ref().map(|secret| secret.reveal(base)).transpose()?;
        let text = secret.reveal(base)?;
        let bad = |why: &str| failed(ErrorClass::Auth, "source.secret", format!("{secret}: {why}"));
        let key = decode_secret_key(&text, passphrase.as_ref().map(|p| p.as_str())).map_err(|e| match e {
            russh::keys::Error::KeyIsEncrypted => bad("the key is encrypted; name its `passphrase`"),
            _ => bad("no private key that can be used, or its `passphrase` is another; \
                      make one with `ssh-keygen -t ed25519`"),
        })?;
        if key.algorithm().is_rsa() {
            return Err(bad("an RSA key is not used here; make one with `ssh-keygen -t ed25519`"));
        }
        Ok(Self { key: Some(key), password })
    }

    /// The key first, then the password: a server may want one of them, or both.
    async fn try_with(self, server: &Server, handle: &mut Handle<Pin>) -> Result<(), AdapterError> {
        let lost = |e: russh::Error| ssh_error(server, &e, None);
        let mut said = None;
        if let Some(key) = self.key {
            let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
            match handle.authenticate_publickey(&server.user, key).await.map_err(lost)? {
                AuthResult::Success => return Ok(()),
                refused => said = Some(refused),
            }
        }
        if let Some(password) = self.password {
            match handle.authenticate_password(&server.user, password.as_str()).await.map_err(lost)? {
                AuthResult::Success => return Ok(()),
                refused => said = Some(refused),
            }
        }
        let ways = match said {
            Some(AuthResult::Failure { remaining_methods, .. }) => {
                let ways: Vec<String> = remaining_methods.iter().map(|m| <&str>::from(m).to_owned()).collect();
                ways.join(", ")
            }
            _ => String::new(),
        };
        let message =
            format!("{}: the server refused the login; it takes: {ways}; check user, key and password", server.shown);
        Err(failed(ErrorClass::Auth, "source.login", message))
    }
}

fn no_sftp(server: &Server) -> AdapterError {
    let message = format!("{}: the account may not use SFTP; let the server's people allow it", server.shown);
    failed(ErrorClass::Auth, "source.rights", message)
}

/// An error of the connection. `shown` is the key that the server showed.
fn ssh_error(server: &Server, error: &russh::Error, shown: Option<String>) -> AdapterError {
    use russh::Error;
    let at = &server.shown;
    match error {
        Error::UnknownKey => {
            let shown = shown.unwrap_or_else(|| "a certificate".to_owned());
            let message = format!(
                "{at}: the server shows another key than `watch.sftp.host_key`: {shown}; somebody may stand between: ask the \
                 people of the server, by another way, whether the key is theirs"
            );
            failed(ErrorClass::Auth, "source.host-key", message)
        }
        Error::NoCommonAlgo { kind, .. } => {
            let message = format!(
                "{at}: no common way for {kind:?}; the server needs an Ed25519 or ECDSA key and algorithms of this decade"
            );
            failed(ErrorClass::Permanent, "source.protocol", message)
        }
        Error::ConnectionTimeout | Error::KeepaliveTimeout | Error::InactivityTimeout | Error::Elapsed(_) => {
            failed(ErrorClass::Transient, "source.timeout", format!("{at}: the server does not answer"))
        }
        Error::RequestDenied | Error::ChannelOpenFailure(_) => no_sftp(server),
        Error::WrongServerSig | Error::Version | Error::StrictKeyExchangeViolation { .. } => {
            failed(ErrorClass::Permanent, "source.protocol", format!("{at}: {error}; is it an SSH server?"))
        }
        Error::IO(e) if e.kind() == ErrorKind::TimedOut => {
            failed(ErrorClass::Transient, "source.timeout", format!("{at}: the server does not answer"))
        }
        other => failed(ErrorClass::Transient, "source.unreachable", format!("{at}: {other}; is the server up?")),
    }
}

/// An error about a file or a folder of the server.
pub(super) fn file_error(shown: &str, action: &'static str, error: &SftpError) -> AdapterError {
    let (class, code, why) = match error {
        SftpError::Status(status) => match status.status_code {
            StatusCode::NoSuchFile => {
                let (file, source) = (shown.to_owned(), std::io::Error::from(ErrorKind::NotFound));
                return AdapterError::Io { file, action, source };
            }
            StatusCode::PermissionDenied => {
                (ErrorClass::Auth, "source.rights", "the account may not; give it the right".to_owned())
            }
            StatusCode::NoConnection | StatusCode::ConnectionLost => return lost(shown),
            code @ (StatusCode::OpUnsupported | StatusCode::BadMessage) => {
                (ErrorClass::Permanent, "source.protocol", format!("the server answers `{code}`"))
            }
            // Anything may be behind it: a full disk, a lock.
            code => (ErrorClass::Transient, "source.protocol", format!("the server answers `{code}`; see its log")),
        },
        SftpError::Timeout => (ErrorClass::Transient, "source.timeout", "the server does not answer".to_owned()),
        SftpError::IO(_) | SftpError::UnexpectedBehavior(_) => return lost(shown),
        SftpError::Limited(_) | SftpError::UnexpectedPacket => {
            (ErrorClass::Permanent, "source.protocol", "the server does not speak SFTP version 3".to_owned())
        }
    };
    failed(class, code, format!("{shown}: cannot {action}: {why}"))
}

fn lost(shown: &str) -> AdapterError {
    failed(ErrorClass::Transient, "source.unreachable", format!("{shown}: the connection was lost; it is tried again"))
}
