//! The role map: which claims make which roles. Its SHA-256 is on the ledger ([`super::recorded`]), so
//! that people can compare it with what was decided.
//!
//! ```yaml
//! version: 1
//! roles:
//! - role: clerk
//!   any_of:
//!   - {claim: groups, has: court-clerks}
//!   - {claim: /realm_access/roles, has: clerk}         # a JSON pointer
//! - role: operator
//!   any_of: [{claim: groups, has: court-it}]
//!   step_up: {acr: [urn:example:mfa], max_age_s: 900}  # only after such a sign-in, and so fresh a one
//! ```

use concordat_protocol::hash::{Hash, sha256};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A role that no person has.
const NOT_FOR_PEOPLE: &str = crate::http::auth::ADAPTER;

/// A stronger or fresher sign-in, as RFC 9470 asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepUp {
    /// The token's `acr` must be one of these; empty: any.
    #[serde(default)]
    pub acr: Vec<String>,
    /// The sign-in (`auth_time`) is at most so old, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    roles: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    role: String,
    any_of: Vec<Condition>,
    #[serde(default)]
    step_up: Option<StepUp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    claim: String,
    has: String,
}

/// A role map that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleMap {
    rules: Vec<Rule>,
    hash: Hash,
    sha256: String,
}

impl RoleMap {
    /// Reads a role map; the error is a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File =
            serde_saphyr::from_str(text).map_err(|e| e.without_snippet().to_string().replace('\n', " "))?;
        if file.version != 1 {
            return Err(format!("version: {} is not known, this program reads 1", file.version));
        }
        for rule in &file.roles {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if rule.role.is_empty() || rule.role.len() > 64 || !rule.role.chars().all(plain) {
                return Err("roles.role: 1 to 64 of a-z, A-Z, 0-9, - _ and .".into());
            }
            if rule.role == NOT_FOR_PEOPLE {
                return Err(format!("roles.role: {NOT_FOR_PEOPLE} is for adapters, which have service tokens"));
            }
            if rule.any_of.is_empty() || rule.any_of.iter().any(|c| c.claim.is_empty() || c.has.is_empty()) {
                return Err(format!("roles.any_of of {}: at least one claim and what it has", rule.role));
            }
            if rule.step_up.as_ref().is_some_and(|s| s.acr.is_empty() && s.max_age_s.is_none()) {
                return Err(format!("roles.step_up of {}: acr or max_age_s", rule.role));
            }
        }
        let hash = sha256(&[text.as_bytes()]);
        Ok(Self { rules: file.roles, hash, sha256: hex::encode(hash) })
    }

    /// SHA-256 of the file.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// SHA-256 of the file, hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The roles of claims at `now` (seconds), and those that a step-up would add.
    pub fn roles(&self, claims: &Map<String, Value>, now: u64) -> (BTreeSet<String>, BTreeMap<String, StepUp>) {
        let (mut roles, mut withheld) = (BTreeSet::new(), BTreeMap::new());
        for rule in self.rules.iter().filter(|r| r.any_of.iter().any(|c| c.holds(claims))) {
            match &rule.step_up {
                Some(wanted) if !wanted.is_met(claims, now) => drop(withheld.insert(rule.role.clone(), wanted.clone())),
                _ => drop(roles.insert(rule.role.clone())),
            }
        }
        withheld.retain(|role, _| !roles.contains(role));
        (roles, withheld)
    }
}

/// A claim by its name, or by a JSON pointer.
pub(super) fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let Some(path) = name.strip_prefix('/') else { return claims.get(name) };
    let (first, rest) = path.split_once('/').map_or((path, None), |(a, b)| (a, Some(b)));
    let first = claims.get(&first.replace("~1", "/").replace("~0", "~"));
    first.and_then(|v| rest.map_or(Some(v), |rest| v.pointer(&format!("/{rest}"))))
}

impl Condition {
    fn holds(&self, claims: &Map<String, Value>) -> bool {
        match claim(claims, &self.claim) {
            Some(Value::String(s)) => *s == self.has,
            Some(Value::Array(list)) => list.iter().any(|v| v.as_str() == Some(&self.has)),
            _ => false,
        }
    }
}

/// How far the issuer's clock may be ahead of ours, seconds: a sign-in of the future is none.
const CLOCKS_APART_S: u64 = 60;

impl StepUp {
    pub(crate) fn is_met(&self, claims: &Map<String, Value>, now: u64) -> bool {
        let acr = claims.get("acr").and_then(Value::as_str).unwrap_or_default();
        let fresh = |max: u64| {
            let at = claims.get("auth_time").and_then(Value::as_u64);
            at.is_some_and(|at| at <= now.saturating_add(CLOCKS_APART_S) && now.saturating_sub(at) <= max)
        };
        (self.acr.is_empty() || self.acr.iter().any(|a| a == acr)) && self.max_age_s.is_none_or(fresh)
    }

    /// The challenge of RFC 9470 for the `WWW-Authenticate` header.
    pub fn challenge(&self) -> String {
        let mut out = "Bearer error=\"insufficient_user_authentication\"".to_owned();
        if !self.acr.is_empty() {
            let plain = |c: &char| !c.is_control() && *c != '"' && *c != '\\' && c.is_ascii();
            let values: String = self.acr.join(" ").chars().filter(plain).collect();
            out.push_str(&format!(", acr_values=\"{values}\""));
        }
        if let Some(max) = self.max_age_s {
            out.push_str(&format!(", max_age=\"{max}\""));
        }
        out
    }
}
