//! Genesis: the state a chain begins with, from the `app_state` of CometBFT's genesis file.

use std::collections::{BTreeMap, BTreeSet};

use concordat_protocol::acts::KeyRole;
use concordat_protocol::cbor::{self, Canon};
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::PublicKey;
use concordat_protocol::ops::LogEntry;
use serde::{Deserialize, Serialize};

use super::apply::{Applied, Work};
use super::epochs::new_agency;
use super::governance::roles_fit;
use super::history::{NoHistory, PastOp};
use super::{APP_VERSION, State};

/// Version of the genesis format.
pub const GENESIS_VERSION: u64 = 1;
/// Parameters of this application version, with what they are when genesis does not name them.
pub const PARAMS: [(&str, u64); 5] = [
    ("app_version", APP_VERSION),
    ("checkpoint_ms", 600_000),
    ("root_delay_ms", 86_400_000),
    ("run_close_ms", 86_400_000),
    ("run_root_delay", 64),
];

/// Why a genesis was refused.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// It is not the JSON that is expected.
    #[error("genesis app_state: {0}; write the genesis file again with this version of concordat")]
    Json(#[from] serde_json::Error),
    /// It breaks a rule.
    #[error("genesis app_state: {field}: {rule}")]
    Rule {
        /// The field.
        field: String,
        /// The rule.
        rule: String,
    },
}

impl GenesisError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Json(_) => "genesis_json",
            Self::Rule { .. } => "genesis_rule",
        }
    }
}

fn rule(field: impl Into<String>, rule: impl Into<String>) -> GenesisError {
    GenesisError::Rule { field: field.into(), rule: rule.into() }
}

/// The `app_state` of a genesis file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// Format version, 1.
    pub version: u64,
    /// The agencies, sorted by name.
    pub agencies: Vec<GenesisAgency>,
    /// Parameters that differ from [`PARAMS`].
    #[serde(default)]
    pub params: BTreeMap<String, u64>,
}

/// An agency at the beginning.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisAgency {
    /// Its name.
    pub agency: AgencyId,
    /// Approval roles it always needs, sorted.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Its keys, the root first.
    pub keys: Vec<GenesisKey>,
    /// Its validator, if it runs one.
    #[serde(default)]
    pub validator: Option<GenesisValidator>,
}

/// A key at the beginning.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisKey {
    /// Word of its role: `root`, `approver`, ...
    pub role: String,
    /// Approval role, writer's name, or a name.
    pub label: String,
    /// Canonical bytes of the [`PublicKey`] in hex.
    pub key: String,
}

/// A validator at the beginning.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisValidator {
    /// Its Ed25519 consensus key in hex.
    pub key: String,
    /// Its power, at least 1.
    pub power: u64,
}

impl Genesis {
    /// Reads the `app_state` of a genesis file; unknown fields are refused.
    ///
    /// # Errors
    /// Not the expected JSON, or another version.
    pub fn parse(app_state: &[u8]) -> Result<Self, GenesisError> {
        let genesis: Self = serde_json::from_slice(app_state)?;
        if genesis.version != GENESIS_VERSION {
            return Err(rule("version", format!("is {}, this application reads {GENESIS_VERSION}", genesis.version)));
        }
        Ok(genesis)
    }

    /// SHA-256 over what the genesis says, whatever its spacing: entry 0 of the log names it.
    pub fn hash(&self, chain: &str) -> Hash {
        let mut e = cbor::Enc::default();
        e.array(3).text(chain).uint(self.version).array(2);
        e.array(self.agencies.len() as u64);
        for a in &self.agencies {
            e.array(4);
            a.agency.put(&mut e);
            a.roles.put(&mut e);
            e.array(a.keys.len() as u64);
            for k in &a.keys {
                e.array(3).text(&k.role).text(&k.label).text(&k.key);
            }
            a.validator.as_ref().map(|v| (v.key.clone(), v.power)).put(&mut e);
        }
        self.params.iter().map(|(k, v)| (k.clone(), *v)).collect::<Vec<_>>().put(&mut e);
        sha256(&[b"concordat/genesis/", &e.into_bytes()])
    }

    /// Checks that CometBFT's validators (key, power) are the ones the agencies named.
    ///
    /// # Errors
    /// Another set.
    pub fn check_validators(&self, given: &[(Vec<u8>, i64)]) -> Result<(), GenesisError> {
        let named: Vec<(Vec<u8>, i64)> = self
            .agencies
            .iter()
            .filter_map(|a| a.validator.as_ref())
            .map(|v| (hex::decode(&v.key).unwrap_or_default(), i64::try_from(v.power).unwrap_or_default()))
            .collect();
        let (named, given): (BTreeSet<_>, BTreeSet<_>) = (named.into_iter().collect(), given.iter().cloned().collect());
        if named == given {
            return Ok(());
        }
        Err(rule("validators", "the file's validators and those named by its agencies are not the same set"))
    }

    /// The state after genesis, computed like a block of height 0.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn apply(&self, chain: &str) -> Result<Applied, GenesisError> {
        let empty = State::empty();
        let mut work = Work::new(&empty, &NoHistory, 0);
        work.head.chain = chain.to_owned();
        if chain.is_empty() || chain.len() > 50 {
            return Err(rule("chain_id", "must have 1 to 50 characters"));
        }
        if self.agencies.is_empty() {
            return Err(rule("agencies", "must name at least one agency"));
        }
        for (i, agency) in self.agencies.iter().enumerate() {
            add_agency(&mut work, i as u64 + 1, agency)?;
        }
        for (name, value) in PARAMS {
            work.view.params.put(name.to_owned(), value);
        }
        for (name, value) in &self.params {
            if !work.view.params.has(name) {
                return Err(rule(format!("params.{name}"), "is not a parameter of this application version"));
            }
            if name == "app_version" && *value != APP_VERSION {
                return Err(rule(
                    "params.app_version",
                    format!("is {value}, this application is version {APP_VERSION}"),
                ));
            }
            work.view.params.put(name.clone(), *value);
        }
        let entry = LogEntry {
            height: 0,
            tick_ms: 0,
            writer: "genesis".into(),
            incarnation: 0,
            seq: 0,
            op_hash: self.hash(chain),
            verdict: Verdict::Accepted,
            code: codes::OK,
        };
        work.enter(entry, PastOp::act(0, Verdict::Accepted));
        work.write_epoch();
        Ok(work.finish(&empty, Vec::new()))
    }
}

fn add_agency(work: &mut Work<'_>, number: u64, a: &GenesisAgency) -> Result<(), GenesisError> {
    let field = |name: &str| format!("agency {}: {name}", a.agency);
    if work.view.agencies.has(&a.agency) {
        return Err(rule(field("agency"), "is named twice"));
    }
    if !roles_fit(&a.roles) {
        return Err(rule(field("roles"), "must be sorted, distinct, of a-z, 0-9 and -"));
    }
    let (validator, power) = match &a.validator {
        None => (Vec::new(), 0),
        Some(v) => {
            let key = hex::decode(&v.key).map_err(|e| rule(field("validator.key"), e.to_string()))?;
            if key.len() != 32 || v.power == 0 || i64::try_from(v.power).is_err() {
                return Err(rule(field("validator"), "needs a 32-byte key and a power of at least 1"));
            }
            (key, v.power)
        }
    };
    if !validator.is_empty() && work.view.agencies.iter().any(|(_, other)| other.validator.0 == validator) {
        return Err(rule(field("validator.key"), "is another agency's too"));
    }
    let held = |role: KeyRole| a.keys.iter().filter(|k| k.role == role.word()).count();
    // Epoch 0 names one of each: see `protocol::trust`.
    if held(KeyRole::Root) != 1 {
        return Err(rule(field("keys"), "must hold a root key, and only one"));
    }
    if held(KeyRole::Cosign) > 1 {
        return Err(rule(field("keys"), "must hold one cosigning key at most"));
    }
    work.view.agencies.put(a.agency.clone(), new_agency(number, a.roles.clone(), validator, power));
    for (i, k) in a.keys.iter().enumerate() {
        let field = || field(&format!("keys[{i}] ({})", k.label));
        let role = KeyRole::from_word(&k.role).ok_or_else(|| rule(field(), format!("unknown role {}", k.role)))?;
        let key = PublicKey::from_text(&k.key).map_err(|e| rule(field(), e.to_string()))?;
        work.register_key(&a.agency, role, &k.label, &key)
            .map_err(|code| rule(field(), format!("{} ({code})", codes::text(code))))?;
    }
    Ok(())
}
