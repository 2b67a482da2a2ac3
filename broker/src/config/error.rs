//! Why a configuration was refused, as its own type so that every process says it in the same words.

use std::path::PathBuf;

use thiserror::Error;

use super::LAYOUT_VERSION;

/// Why a configuration was refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is not there.
    #[error("{0} is missing: name the node's folder with --dir, or make one with `concordat init`")]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("{path} cannot be read ({source}): check its owner and mode")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file was written by another release.
    #[error(
        "{path}: version {found} is not known, this program reads version {LAYOUT_VERSION}: run the concordat release that wrote it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it names.
        found: u32,
    },
    /// The text breaks a rule; the message names line, column and field.
    #[error("{path}: {detail}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column, field and rule.
        detail: String,
    },
    /// A field's value breaks a rule.
    #[error("{path}: {field} {rule}")]
    Field {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// The rule and what to do next.
        rule: String,
    },
    /// A secret cannot be had.
    #[error("secret {reference}: {rule}")]
    Secret {
        /// The reference, never the value.
        reference: String,
        /// The rule and what to do next.
        rule: String,
    },
}

impl ConfigError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "config-missing",
            Self::Read { .. } => "config-read",
            Self::Version { .. } => "config-version",
            Self::Syntax { .. } => "config-syntax",
            Self::Field { .. } => "config-field",
            Self::Secret { .. } => "config-secret",
        }
    }
}
