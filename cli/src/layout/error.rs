//! Why a city's folders could not be made or used.

use std::path::{Path, PathBuf};

use concordat_broker::config::ConfigError;
use thiserror::Error;

/// Why a folder could not be made or used.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// A file or folder.
    #[error("{path} cannot {what} ({why}): check the disk's space and the folder's owner")]
    Io {
        /// The path.
        path: PathBuf,
        /// What was tried, "be written".
        what: &'static str,
        /// What the system said.
        why: String,
    },
    /// There is something already.
    #[error("{0} is not empty: name another folder, or remove this one with `concordat demo reset`")]
    Exists(PathBuf),
    /// The city's description breaks a rule.
    #[error("{field} {rule}")]
    Spec {
        /// The field.
        field: &'static str,
        /// The rule.
        rule: String,
    },
    /// Somebody listens there.
    #[error("port {port} for {what} is taken by another program: stop it, or {fix}")]
    PortTaken {
        /// The port.
        port: u16,
        /// What it is for.
        what: String,
        /// What else helps.
        fix: String,
    },
    /// The address cannot be used.
    #[error("{addr} for {what} cannot be used ({why}): write an address of this machine")]
    Address {
        /// `host:port`
        addr: String,
        /// What it is for.
        what: String,
        /// What the system said.
        why: String,
    },
    /// No port is left.
    #[error("no free port from {first} to {last} on 127.0.0.1: stop what listens there")]
    NoPort {
        /// First of the pool.
        first: u16,
        /// Last of the pool.
        last: u16,
    },
    /// The disk is nearly full.
    #[error("{path} has {free_mb} MB free, {need_mb} MB are needed: free some, or name a folder on another disk")]
    DiskLow {
        /// Folder that was looked at.
        path: PathBuf,
        /// Free, megabytes.
        free_mb: u64,
        /// Needed, megabytes.
        need_mb: u64,
    },
    /// A server refused.
    #[error("{what} failed: {why}")]
    Server {
        /// What was run.
        what: String,
        /// What it said.
        why: String,
    },
    /// The system has no randomness.
    #[error("the system gives no random bytes ({0})")]
    Randomness(String),
    /// A configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl LayoutError {
    pub(super) fn io(path: &Path, what: &'static str, e: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), what, why: e.to_string() }
    }

    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "layout-io",
            Self::Exists(_) => "layout-exists",
            Self::Spec { .. } => "layout-spec",
            Self::PortTaken { .. } => "port-taken",
            Self::Address { .. } => "address",
            Self::NoPort { .. } => "port-none",
            Self::DiskLow { .. } => "disk-low",
            Self::Server { .. } => "server-failed",
            Self::Randomness(_) => "randomness",
            Self::Config(e) => e.code(),
        }
    }
}
