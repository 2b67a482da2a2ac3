//! Secrets, which configuration names and never contains.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::ConfigError;

/// Where the pods of a node mount Kubernetes secrets that are named by reference, a folder each.
const KUBERNETES: &str = "/var/run/secrets/concordat";

/// A secret by reference: `file:keys/nats.password` (relative to the node's folder), `env:NAME`, or `k8s:SECRET/KEY` (mounted
/// below `/var/run/secrets/concordat`). Never the value itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// A file with mode 0600, relative to the node's folder or absolute.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A key of a mounted Kubernetes secret.
    Kubernetes {
        /// The secret.
        secret: String,
        /// Its key.
        key: String,
    },
}

impl std::fmt::Display for SecretRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(p) => write!(f, "file:{}", p.display()),
            Self::Env(n) => write!(f, "env:{n}"),
            Self::Kubernetes { secret, key } => write!(f, "k8s:{secret}/{key}"),
        }
    }
}

/// The text names no secret. It is not repeated: it may be the secret itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret is named by reference, `file:<path>`, `env:<NAME>` or `k8s:<secret>/<key>`, never written here")]
pub struct NotAReference;

/// A name of Kubernetes: it becomes a part of a path.
fn plain(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(ok)
}

impl std::str::FromStr for SecretRef {
    type Err = NotAReference;
    fn from_str(text: &str) -> Result<Self, NotAReference> {
        match text.split_once(':') {
            Some(("file", p)) if !p.is_empty() => Ok(Self::File(p.into())),
            Some(("env", n)) if !n.is_empty() => Ok(Self::Env(n.into())),
            Some(("k8s", rest)) => match rest.split_once('/') {
                Some((secret, key)) if plain(secret) && plain(key) => {
                    Ok(Self::Kubernetes { secret: secret.into(), key: key.into() })
                }
                _ => Err(NotAReference),
            },
            _ => Err(NotAReference),
        }
    }
}

impl Serialize for SecretRef {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(d)?);
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl SecretRef {
    /// Reads the secret; a trailing line end is cut. A file that others may read, or an empty value, is refused.
    pub fn resolve(&self, dir: &Path) -> Result<Zeroizing<String>, ConfigError> {
        let fail = |rule: String| ConfigError::Secret { reference: self.to_string(), rule };
        let value = match self {
            Self::Env(name) => Zeroizing::new(
                std::env::var(name)
                    .map_err(|_| fail("the environment variable is not set: set it for this process".into()))?,
            ),
            // Its volume belongs to the pod alone, and its files are readable by the pod's group.
            Self::Kubernetes { secret, key } => {
                let path = Path::new(KUBERNETES).join(secret).join(key);
                Zeroizing::new(
                    fs::read_to_string(&path).map_err(|e| {
                        fail(format!("{} cannot be read ({e}): mount the secret there", path.display()))
                    })?,
                )
            }
            Self::File(path) => {
                let path = dir.join(path);
                let meta = fs::metadata(&path).map_err(|e| fail(format!("{} cannot be read ({e})", path.display())))?;
                let mode = meta.permissions().mode();
                if mode & 0o077 != 0 {
                    return Err(fail(format!(
                        "{} has mode {:o}, others may read it: chmod 600 it",
                        path.display(),
                        mode & 0o777
                    )));
                }
                Zeroizing::new(
                    fs::read_to_string(&path).map_err(|e| fail(format!("{} cannot be read ({e})", path.display())))?,
                )
            }
        };
        let trimmed = value.trim_end_matches(['\r', '\n']);
        if trimmed.is_empty() {
            return Err(fail("is empty: write the secret there".into()));
        }
        Ok(Zeroizing::new(trimmed.to_owned()))
    }
}
