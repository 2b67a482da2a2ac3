//! An agency's keys: one a file, mode 0600, in the node's `keys/` folder (0700).
//!
//! A file `NAME.key` holds a secret in clear, or the URI of a key in a token; `NAME.key.age` the same under a passphrase.
//! What is inside says which, so a process that signs sees no difference.

mod error;
mod file;
mod locked;
mod passphrase;
#[cfg(feature = "pkcs11")]
mod token;
#[cfg(not(feature = "pkcs11"))]
#[path = "token_off.rs"]
mod token;
mod uri;

use crate::config::NodeConfig;
use concordat_protocol::keys::{KemKey, SigningKey, Suite};
use std::path::{Path, PathBuf};

pub use error::KeyFileError;
pub use file::{KeyContent, lock_file, name_of, open_signing, read, seal, unlock_file, write_new};
pub use locked::is_locked;
pub use passphrase::{Passphrases, Prompt};
pub use token::generate as generate_in_token;
pub use uri::{SCHEME, TokenUri};

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

/// Ending of a key file, and of one under a passphrase.
const ENDINGS: [&str; 2] = [".key", ".key.age"];

/// The folder of an agency's key files.
#[derive(Debug, Clone)]
pub struct KeyFolder {
    dir: PathBuf,
    passphrases: Passphrases,
}

impl KeyFolder {
    /// The key files in `dir`, without passphrases.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self { passphrases: Passphrases::without_config(&dir), dir }
    }

    /// The key files of a node, with the passphrases that its configuration names.
    pub fn of(cfg: &NodeConfig) -> Self {
        Self { dir: cfg.keys(), passphrases: Passphrases::of(cfg) }
    }

    /// The same folder with other passphrases.
    #[must_use]
    pub fn with(self, passphrases: Passphrases) -> Self {
        Self { passphrases, ..self }
    }

    /// Where passphrases come from.
    pub fn passphrases(&self) -> &Passphrases {
        &self.passphrases
    }

    /// The file of a key: `NAME.key` or `NAME.key.age`, whichever is there.
    ///
    /// # Errors
    /// Both are there: which one is in use must not depend on chance.
    pub fn find(&self, name: &str) -> Result<Option<PathBuf>, KeyFileError> {
        let [plain, locked] = ENDINGS.map(|ending| self.dir.join(format!("{name}{ending}")));
        match (plain.exists(), locked.exists()) {
            (true, true) => Err(KeyFileError::Twice { first: plain, second: locked }),
            (_, true) => Ok(Some(locked)),
            (true, _) => Ok(Some(plain)),
            _ => Ok(None),
        }
    }

    /// The file of a key, there or not.
    ///
    /// # Errors
    /// As [`KeyFolder::find`].
    pub fn path(&self, name: &str) -> Result<PathBuf, KeyFileError> {
        Ok(self.find(name)?.unwrap_or_else(|| self.dir.join(format!("{name}{}", ENDINGS[0]))))
    }

    /// Reads a signing key.
    pub fn signing(&self, name: &str) -> Result<SigningKey, KeyFileError> {
        file::signing(&self.path(name)?, &self.passphrases)
    }

    /// Reads the key that opens sealed responses.
    pub fn kem(&self) -> Result<KemKey, KeyFileError> {
        let path = self.path(KEM)?;
        match read(&path, &self.passphrases)? {
            KeyContent::Secret(text) => {
                KemKey::from_secret_text(&text).map_err(|source| KeyFileError::Content { path, source })
            }
            KeyContent::Token(uri) => {
                Err(KeyFileError::Uri { uri: uri.text, rule: "tokens have no X-Wing: keep kem.key in a file".into() })
            }
        }
    }

    /// Makes a new signing key; an existing file is never overwritten.
    pub fn create_signing(&self, name: &str, suite: Suite) -> Result<SigningKey, KeyFileError> {
        let path = self.path(name)?;
        let made = SigningKey::generate(suite);
        let key = made.map_err(|source| KeyFileError::Content { path: path.clone(), source })?;
        write_new(&path, &key.to_secret_text())?;
        Ok(key)
    }

    /// Makes a new key for sealed responses; an existing file is never overwritten.
    pub fn create_kem(&self) -> Result<KemKey, KeyFileError> {
        let path = self.path(KEM)?;
        let key = KemKey::generate().map_err(|source| KeyFileError::Content { path: path.clone(), source })?;
        write_new(&path, &key.to_secret_text())?;
        Ok(key)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Names of the keys that lie here with their files, sorted.
    pub fn list(&self) -> Vec<(String, PathBuf)> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let named = entries.filter_map(|e| Some((name_of(&e.path())?, e.path())));
        let mut found: Vec<_> = named.collect();
        found.sort();
        found
    }
}

#[cfg(test)]
mod tests;
