//! Why a key cannot be used.

use concordat_protocol::keys::KeyError;
use std::path::PathBuf;
use thiserror::Error;

/// Why a key file, or the token that it names, cannot be used.
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
    /// A key is there twice.
    #[error("{first} and {second} are both there: remove the one that is not in use, then start again")]
    Twice {
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// It is encrypted and no passphrase is at hand.
    #[error(
        "key file {path} is encrypted and there is no passphrase ({why}): name it in node.yaml, \
         `key_passphrase: env:CONCORDAT_KEY_PASSPHRASE` or `file:<path>`, or run the command at a terminal"
    )]
    NoPassphrase {
        /// The file.
        path: PathBuf,
        /// Where it was looked for.
        why: String,
    },
    /// Another passphrase encrypted it.
    #[error(
        "key file {path}: wrong passphrase; check what `key_passphrase` in node.yaml names, or restore the file and the \
         passphrase that belong together"
    )]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// The encrypted file is no whole age file of ours.
    #[error("key file {path} is damaged or of another kind ({why}): restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The URI of a key in a token.
    #[error("{uri}: {rule}")]
    Uri {
        /// The URI, which holds no secret.
        uri: String,
        /// The rule.
        rule: String,
    },
    /// The token.
    #[error("token key {uri}: {why}")]
    Token {
        /// The URI.
        uri: String,
        /// What is wrong and what to do.
        why: String,
    },
}

impl KeyFileError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "key-file",
            Self::Mode { .. } => "key-mode",
            Self::Content { .. } => "key-content",
            Self::Twice { .. } => "key-twice",
            Self::NoPassphrase { .. } => "key-no-passphrase",
            Self::WrongPassphrase { .. } => "key-passphrase",
            Self::Damaged { .. } => "key-damaged",
            Self::Uri { .. } => "key-uri",
            Self::Token { .. } => "key-token",
        }
    }
}
