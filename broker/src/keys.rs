//! An agency's key files: one secret a file, mode 0600, in the node's `keys/` folder (0700).

use concordat_protocol::keys::{KemKey, KeyError, SigningKey, Suite};
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;
use zeroize::Zeroizing;

/// The agency's root.
pub const ROOT: &str = "root";
/// Suspends and revokes.
pub const SECURITY: &str = "security";
/// Signs the executor's batches.
pub const WRITER_EXECUTOR: &str = "writer-executor";
/// Signs the broker's batches.
pub const WRITER_BROKER: &str = "writer-broker";
/// Signs envelopes.
pub const ENVELOPE: &str = "envelope";
/// Opens sessions, registers datasets, carries proposals.
pub const GATEWAY: &str = "gateway";
/// Signs releases and promises.
pub const RELEASE: &str = "release";
/// Cosigns checkpoints.
pub const COSIGN: &str = "cosign";
/// Opens sealed responses.
pub const KEM: &str = "kem";

/// Name of an approver's key file.
pub fn approver(role: &str) -> String {
    format!("approver-{role}")
}

/// Why a key file cannot be used.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It is not there or cannot be read or written.
    #[error("key file {path}: {source}; restore it, or make a new key and register it")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others can read it.
    #[error("key file {path} has mode {mode:o}: others can read it; run chmod 600 and register a new key")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It does not hold a key.
    #[error("key file {path}: {source}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
}

impl KeyFileError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "key-file",
            Self::Mode { .. } => "key-mode",
            Self::Content { .. } => "key-content",
        }
    }
}

/// The folder of an agency's key files.
#[derive(Debug, Clone)]
pub struct KeyFolder {
    dir: PathBuf,
}

impl KeyFolder {
    /// The key files in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.key"))
    }

    fn read(&self, name: &str) -> Result<Zeroizing<String>, KeyFileError> {
        let path = self.path(name);
        let io = |source| KeyFileError::Io { path: path.clone(), source };
        let mode = std::fs::metadata(&path).map_err(io)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Mode { path, mode });
        }
        std::fs::read_to_string(&path).map(Zeroizing::new).map_err(io)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), KeyFileError> {
        let path = self.path(name);
        let io = |source| KeyFileError::Io { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(io)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(io)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)
    }

    /// Reads a signing key.
    pub fn signing(&self, name: &str) -> Result<SigningKey, KeyFileError> {
        let text = self.read(name)?;
        SigningKey::from_secret_text(text.trim_end())
            .map_err(|source| KeyFileError::Content { path: self.path(name), source })
    }

    /// Reads the key that opens sealed responses.
    pub fn kem(&self) -> Result<KemKey, KeyFileError> {
        let text = self.read(KEM)?;
        KemKey::from_secret_text(text.trim_end())
            .map_err(|source| KeyFileError::Content { path: self.path(KEM), source })
    }

    /// Makes a new signing key; an existing file is never overwritten.
    pub fn create_signing(&self, name: &str, suite: Suite) -> Result<SigningKey, KeyFileError> {
        let key =
            SigningKey::generate(suite).map_err(|source| KeyFileError::Content { path: self.path(name), source })?;
        self.write(name, &key.to_secret_text())?;
        Ok(key)
    }

    /// Makes a new key for sealed responses; an existing file is never overwritten.
    pub fn create_kem(&self) -> Result<KemKey, KeyFileError> {
        let key = KemKey::generate().map_err(|source| KeyFileError::Content { path: self.path(KEM), source })?;
        self.write(KEM, &key.to_secret_text())?;
        Ok(key)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_come_back_and_a_readable_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyFolder::new(dir.path().join("keys"));
        let made = keys.create_signing(GATEWAY, Suite::Ed25519).unwrap();
        assert_eq!(keys.signing(GATEWAY).unwrap().key_id(), made.key_id());
        assert!(keys.create_signing(GATEWAY, Suite::Ed25519).is_err(), "never overwritten");
        std::fs::set_permissions(keys.path(GATEWAY), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(keys.signing(GATEWAY).err().unwrap().code(), "key-mode");
        let kem = keys.create_kem().unwrap();
        assert_eq!(keys.kem().unwrap().public().key_id(), kem.public().key_id());
    }
}
