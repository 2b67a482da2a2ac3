//! `oidc:` of `node.yaml`.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Longest difference of clocks that may be allowed, seconds.
const SKEW_MAX_S: u64 = 300;

/// Signatures that tokens may have. There is no symmetric one and no `none`: neither can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "names of RFC 7518 and RFC 8037")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// Whose tokens are believed, and what they must say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// The issuer exactly as it names itself; `https`, or `http` on this machine.
    pub issuer: String,
    /// What a token's `aud` must hold: this broker's name at the issuer.
    pub audience: String,
    /// The role map, relative to the node's folder.
    #[serde(default = "role_map")]
    pub role_map: PathBuf,
    /// Algorithms that are taken.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// How far the issuer's clock may be from this one's, seconds.
    #[serde(default = "skew")]
    pub clock_skew_s: u64,
    /// Certificates (PEM) of the authority behind the issuer's TLS, where the machine does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

fn role_map() -> PathBuf {
    "role-map.yaml".into()
}

pub(super) fn algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA]
}

pub(super) fn skew() -> u64 {
    60
}

/// Whether keys may be fetched from there: over TLS, or from this machine.
pub(crate) fn is_safe(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    plain && (url.scheme() == "https" || (url.scheme() == "http" && local))
}

impl OidcConfig {
    /// The member that breaks a rule, and the rule.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if !is_safe(&self.issuer) {
            return Err(("oidc.issuer", "is an https address (http on this machine alone)".into()));
        }
        if self.audience.is_empty() {
            return Err(("oidc.audience", "is what a token's aud must hold".into()));
        }
        if self.algorithms.is_empty() {
            return Err(("oidc.algorithms", "names at least one".into()));
        }
        if self.clock_skew_s > SKEW_MAX_S {
            return Err(("oidc.clock_skew_s", format!("is at most {SKEW_MAX_S}")));
        }
        Ok(())
    }
}
