//! People of this agency who sign in at its OpenID issuer: their access tokens (JWT, RFC 9068) are verified here, and a
//! role map turns claims into the roles that agreements name.
//!
//! [`token`] and [`role_map`] are pure; [`issuer`] keeps the issuer's keys. Time is passed in, seconds since 1970.

pub mod actors;
pub mod citizens;
pub mod config;
pub mod issuer;
pub mod mandates;
pub mod recorded;
pub mod role_map;
pub mod token;

pub use actors::Actors;
pub use citizens::{Citizens, CitizensConfig};
pub use config::{Algorithm, OidcConfig};
pub use issuer::Issuer;
pub use role_map::{RoleMap, StepUp};

use concordat_executor::policies::duty::SignIn;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use thiserror::Error;

/// Who a verified token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The issuer's name of them, `sub`.
    pub subject: String,
    /// Their roles.
    pub roles: BTreeSet<String>,
    /// Roles they would have after a stronger or fresher sign-in.
    pub after_step_up: BTreeMap<String, StepUp>,
    /// How and when they signed in, where the token says both.
    pub sign_in: Option<SignIn>,
    /// SHA-256 of the role map that made the roles, hexadecimal.
    pub role_map: String,
}

/// The sign-in behind a token's claims: `acr` and `auth_time` (OpenID Connect Core 1.0, section 2).
pub(crate) fn sign_in(claims: &Map<String, Value>) -> Option<SignIn> {
    let (level, at) = (claims.get("acr")?.as_str()?, claims.get("auth_time")?.as_u64()?);
    Some(SignIn { level: level.to_owned(), at_ms: at.checked_mul(1_000)? })
}

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It is no JWT, or a member is missing or of another kind.
    #[error("the token is malformed: {0}")]
    Malformed(String),
    /// Its algorithm is not allowed here, or is not the key's.
    #[error("the token is signed by {0}, which is not allowed here")]
    Algorithm(String),
    /// The issuer has no such key.
    #[error("the issuer has no key \"{0}\" for this token")]
    UnknownKey(String),
    /// The signature is not the key's.
    #[error("the token's signature is wrong")]
    Signature,
    /// Another issuer's.
    #[error("the token is of another issuer")]
    Issuer,
    /// For another application.
    #[error("the token is for another audience")]
    Audience,
    /// Over.
    #[error("the token has expired")]
    Expired,
    /// Not valid yet, or issued in the future.
    #[error("the token is not valid yet: compare the clocks")]
    NotYet,
    /// Bound to a key of its holder, which a bearer token does not prove.
    #[error("the token is bound to a key (cnf): send a plain bearer token")]
    Bound,
    /// The issuer's keys cannot be had.
    #[error("the issuer's keys cannot be had: {0}")]
    Unavailable(String),
}

impl TokenError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "issuer-unavailable",
            _ => "invalid-token",
        }
    }
}

/// Why the sign-in of people cannot be set up.
#[derive(Debug, Error)]
pub enum SetupError {
    /// A file of it.
    #[error("{path}: {rule}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        rule: String,
    },
    /// The HTTP client.
    #[error("oidc: no HTTP client can be made: {0}")]
    Client(String),
}

impl SetupError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "role-map",
            Self::Client(_) => "oidc-client",
        }
    }
}

#[cfg(test)]
mod tests;
