//! `trust.json`: all that a receipt's verifier must hold before it starts (PROTOCOL 4).
//!
//! It carries the genesis file itself, so that the fingerprint, which a person compares once, pins the first
//! validators and keys too; every later epoch is chained to the one before by signatures.

use crate::canon_struct;
use crate::cbor::{self, Bytes};
use crate::hash::{Hash, sha256};
use crate::ids::AgencyId;
use crate::keys::{PublicKey, Signature};
use crate::tree;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

mod genesis;
mod text;

/// Version of the file's format.
pub const TRUST_VERSION: u64 = 1;

/// Why a `trust.json` cannot be relied on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// It does not parse.
    #[error("trust.json: {0}; fetch the file again from an agency you know")]
    Parse(String),
    /// A version this build does not know.
    #[error("trust.json: version {0} is not known here; use a newer build")]
    Version(u64),
    /// The genesis file does not agree with what is said beside it.
    #[error("trust.json: genesis: {0}; fetch the file again and compare its fingerprint")]
    Genesis(String),
    /// An epoch breaks its rule.
    #[error("trust.json: epoch {n}: {rule}; fetch the file again and compare its fingerprint")]
    Epoch {
        /// The epoch's number.
        n: u64,
        /// What is wrong with it.
        rule: String,
    },
    /// A key that no signature may rest on.
    #[error("trust.json: key of {agency}: {rule}")]
    Key {
        /// Whose key.
        agency: String,
        /// What is wrong with it.
        rule: String,
    },
}

impl TrustError {
    /// Stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Parse(_) => "trust-parse",
            Self::Version(_) => "trust-version",
            Self::Genesis(_) => "trust-genesis",
            Self::Epoch { .. } => "trust-epoch",
            Self::Key { .. } => "trust-key",
        }
    }
}

/// A validator of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validator {
    /// Whose it is.
    pub agency: AgencyId,
    /// Its CometBFT Ed25519 public key.
    #[serde(with = "hex::serde")]
    pub key: [u8; 32],
    /// Its voting power.
    pub power: u64,
}

/// An agency's root and cosigning keys in an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgencyKeys {
    /// The agency.
    pub agency: AgencyId,
    /// Its root key (hybrid).
    #[serde(with = "text")]
    pub root: PublicKey,
    /// The key by which it cosigns checkpoints (hybrid), if it does.
    #[serde(default, with = "text::option", skip_serializing_if = "Option::is_none")]
    pub cosign: Option<PublicKey>,
}

/// A signature on an epoch by an agency of the epoch before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochSignature {
    /// Who signs, with the root key of the epoch before.
    pub agency: AgencyId,
    /// The signature (statement `epoch`) over [`EpochBody`].
    #[serde(with = "text::signature")]
    pub signature: Signature,
}

/// A key that may open the evidence of both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OversightKey {
    /// Who holds it.
    pub name: String,
    /// The key.
    #[serde(with = "text")]
    pub key: PublicKey,
}

canon_struct! {
    /// What is signed of an epoch (statement `epoch`).
    pub struct EpochBody {
        /// Number, from 0 (genesis).
        pub n: u64,
        /// First height it holds for.
        pub from_height: u64,
        /// CometBFT's hash of its validators ([`validators_hash`]).
        pub validators_hash: Hash,
        /// [`pq_keys_hash`] of its root and cosigning keys.
        pub pq_keys_hash: Hash,
        /// SHA-256 of the canonical body of the epoch before, zeros for epoch 0.
        pub prev_hash: Hash,
    }
}

/// A time in which validators, root keys and cosigning keys stay the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    /// Number, from 0 (genesis).
    pub n: u64,
    /// First height it holds for.
    pub from_height: u64,
    /// CometBFT's hash of the validators.
    #[serde(with = "hex::serde")]
    pub validators_hash: Hash,
    /// Hash of the keys.
    #[serde(with = "hex::serde")]
    pub pq_keys_hash: Hash,
    /// Hash of the epoch before.
    #[serde(with = "hex::serde")]
    pub prev_hash: Hash,
    /// The validators by agency.
    pub validators: Vec<Validator>,
    /// The agencies' keys, sorted by agency.
    pub keys: Vec<AgencyKeys>,
    /// Signatures of more than 2/3 of the validator agencies of the epoch before; none on epoch 0.
    #[serde(default)]
    pub signatures: Vec<EpochSignature>,
}

impl Epoch {
    /// The epoch that follows `prev` (none: epoch 0), not yet signed.
    #[must_use]
    pub fn next(prev: Option<&Self>, from_height: u64, validators: Vec<Validator>, mut keys: Vec<AgencyKeys>) -> Self {
        keys.sort_by(|a, b| a.agency.cmp(&b.agency));
        Self {
            n: prev.map_or(0, |p| p.n + 1),
            from_height,
            validators_hash: validators_hash(&validators),
            pq_keys_hash: pq_keys_hash(&keys),
            prev_hash: prev.map_or([0; 32], |p| p.body_hash()),
            validators,
            keys,
            signatures: Vec::new(),
        }
    }

    /// What is signed.
    #[must_use]
    pub fn body(&self) -> EpochBody {
        EpochBody {
            n: self.n,
            from_height: self.from_height,
            validators_hash: self.validators_hash,
            pq_keys_hash: self.pq_keys_hash,
            prev_hash: self.prev_hash,
        }
    }

    /// SHA-256 of the canonical body: the next epoch's `prev_hash`.
    #[must_use]
    pub fn body_hash(&self) -> Hash {
        sha256(&[&cbor::encode(&self.body())])
    }

    /// The agencies that run validators.
    #[must_use]
    pub fn validator_agencies(&self) -> BTreeSet<&AgencyId> {
        self.validators.iter().map(|v| &v.agency).collect()
    }

    /// Whether these agencies are more than 2/3 of those that run validators, and hold more than 2/3 of the power.
    #[must_use]
    pub fn is_two_thirds(&self, agencies: &BTreeSet<&AgencyId>) -> bool {
        let all = self.validator_agencies();
        let power = |of: &BTreeSet<&AgencyId>| -> u128 {
            self.validators.iter().filter(|v| of.contains(&v.agency)).map(|v| u128::from(v.power)).sum()
        };
        agencies.intersection(&all).count() * 3 > all.len() * 2 && power(agencies) * 3 > power(&all) * 2
    }

    /// Keys of an agency.
    #[must_use]
    pub fn keys_of(&self, agency: &AgencyId) -> Option<&AgencyKeys> {
        self.keys.iter().find(|k| k.agency == *agency)
    }

    /// Checks what needs no signature: hashes, order, lengths of keys, each key once.
    fn check_shape(&self) -> Result<(), TrustError> {
        let bad = |rule: &str| Err(TrustError::Epoch { n: self.n, rule: rule.into() });
        if self.validators.is_empty() || self.validators.iter().any(|v| v.power == 0) {
            return bad("validators: at least one, each with power");
        }
        let unique: BTreeSet<_> = self.validators.iter().map(|v| v.key).collect();
        if unique.len() != self.validators.len() {
            return bad("validators: each key once");
        }
        if self.validators_hash != validators_hash(&self.validators) {
            return bad("validators_hash is not the hash of the validators listed");
        }
        if !self.keys.windows(2).all(|w| w[0].agency < w[1].agency) {
            return bad("keys: sorted by agency, each agency once");
        }
        if self.pq_keys_hash != pq_keys_hash(&self.keys) {
            return bad("pq_keys_hash is not the hash of the keys listed");
        }
        for k in &self.keys {
            for key in [Some(&k.root), k.cosign.as_ref()].into_iter().flatten() {
                let refused = |e: crate::keys::KeyError| TrustError::Key { agency: k.agency.to_string(), rule: e.to_string() };
                key.check().map_err(refused)?;
            }
        }
        match self.validator_agencies().into_iter().find(|a| self.keys_of(a).is_none()) {
            Some(_) => bad("keys: an agency that runs a validator has none"),
            None => Ok(()),
        }
    }
}

/// CometBFT's hash of a validator set: RFC 6962 over `SimpleValidator` protobuf bytes, by power (falling), then address.
#[must_use]
pub fn validators_hash(validators: &[Validator]) -> Hash {
    let mut sorted: Vec<_> = validators.iter().map(|v| (core::cmp::Reverse(v.power), sha256(&[&v.key]), v)).collect();
    sorted.sort_by(|a, b| (a.0, &a.1[..20]).cmp(&(b.0, &b.1[..20])));
    let leaves: Vec<Hash> = sorted.iter().map(|(_, _, v)| tree::leaf_hash(&simple_validator(v))).collect();
    tree::root(&leaves)
}

/// `SimpleValidator{pub_key: PublicKey{ed25519}, voting_power}` in protobuf.
fn simple_validator(v: &Validator) -> Vec<u8> {
    let mut out = vec![0x0a, 0x22, 0x0a, 0x20];
    out.extend_from_slice(&v.key);
    out.push(0x10);
    let mut rest = v.power;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

canon_struct! {
    /// One line of what [`pq_keys_hash`] covers.
    pub struct KeyLine {
        /// The agency.
        pub agency: AgencyId,
        /// Its root key.
        pub root: PublicKey,
        /// Its cosigning key.
        pub cosign: Option<PublicKey>,
    }
}

/// SHA-256 over the canonical array of `[agency, root, cosign]`, sorted by agency.
#[must_use]
pub fn pq_keys_hash(keys: &[AgencyKeys]) -> Hash {
    let line = |k: &AgencyKeys| KeyLine { agency: k.agency.clone(), root: k.root.clone(), cosign: k.cosign.clone() };
    let sorted: BTreeMap<_, _> = keys.iter().map(|k| (k.agency.clone(), line(k))).collect();
    sha256(&[&cbor::encode(&sorted.into_values().collect::<Vec<_>>())])
}

/// The file. [`Trust::from_json`] checks all but the epochs' signatures, which `Trust::check` (feature `verifier`) adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Version of the format: [`TRUST_VERSION`].
    pub version: u64,
    /// Chain id.
    pub chain: String,
    /// The text of genesis.json, byte for byte.
    pub genesis: String,
    /// Epochs from 0 on.
    pub epochs: Vec<Epoch>,
    /// Oversight's keys.
    pub oversight: Vec<OversightKey>,
}

impl Trust {
    /// The file of a chain that is in epoch 0, all of it from its genesis.json.
    ///
    /// # Errors
    /// The genesis text does not parse, or disagrees with itself.
    pub fn from_genesis(genesis: String, oversight: Vec<OversightKey>) -> Result<Self, TrustError> {
        let (chain, first) = genesis::read(&genesis)?;
        let trust = Self { version: TRUST_VERSION, chain, genesis, epochs: vec![first], oversight };
        trust.check_shape().map(|()| trust)
    }

    /// Reads the file and checks everything but the signatures of epochs.
    ///
    /// # Errors
    /// It does not parse, or disagrees with itself.
    pub fn from_json(text: &str) -> Result<Self, TrustError> {
        let trust: Self = serde_json::from_str(text).map_err(|e| TrustError::Parse(e.to_string()))?;
        trust.check_shape().map(|()| trust)
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A struct of strings and numbers always serialises.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// SHA-256 of genesis.json's bytes.
    #[must_use]
    pub fn genesis_hash(&self) -> Hash {
        sha256(&[self.genesis.as_bytes()])
    }

    /// 128 bits of SHA-256 over canonical `[genesis hash, [[name, key], ...]]`, as eight groups of four hex digits. It
    /// stays the same as epochs chain on; compare it by another way than the one the file came by.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let oversight: Vec<_> = self.oversight.iter().map(|o| (o.name.clone(), Bytes(cbor::encode(&o.key)))).collect();
        let hash = sha256(&[&cbor::encode(&(self.genesis_hash(), oversight))]);
        let groups: Vec<String> = hash[..16].chunks(2).map(hex::encode).collect();
        groups.join(" ")
    }

    /// The epoch that holds at a height.
    #[must_use]
    pub fn epoch_at(&self, height: u64) -> Option<&Epoch> {
        self.epochs.iter().rev().find(|e| e.from_height <= height)
    }

    /// Checks everything but the signatures of epochs.
    fn check_shape(&self) -> Result<(), TrustError> {
        if self.version != TRUST_VERSION {
            return Err(TrustError::Version(self.version));
        }
        for o in &self.oversight {
            o.key.check().map_err(|e| TrustError::Key { agency: o.name.clone(), rule: e.to_string() })?;
        }
        let first = self.epochs.first().ok_or(TrustError::Parse("epochs: at least epoch 0".into()))?;
        let (chain, genesis) = genesis::read(&self.genesis)?;
        if chain != self.chain {
            return Err(TrustError::Genesis(format!("it is of chain {chain}, not of {}", self.chain)));
        }
        if genesis != *first {
            return Err(TrustError::Genesis("epoch 0 is not the one in it".into()));
        }
        let mut prev: Option<&Epoch> = None;
        for e in &self.epochs {
            let bad = |rule: &str| TrustError::Epoch { n: e.n, rule: rule.into() };
            e.check_shape()?;
            if e.n != prev.map_or(0, |p| p.n + 1) || e.from_height <= prev.map_or(0, |p| p.from_height) {
                return Err(bad("epochs are numbered from 0 without gaps, and from_height only rises"));
            }
            if e.prev_hash != prev.map_or([0; 32], Epoch::body_hash) {
                return Err(bad("prev_hash is not the hash of the epoch before"));
            }
            prev = Some(e);
        }
        Ok(())
    }

    /// Checks the whole file: its shape, its genesis, and that each epoch is signed by more than 2/3 of the validator
    /// agencies of the epoch before, with their root keys.
    ///
    /// # Errors
    /// The first rule that is broken.
    #[cfg(feature = "verifier")]
    pub fn check(&self) -> Result<(), TrustError> {
        self.check_shape()?;
        for w in self.epochs.windows(2) {
            check_signatures(&self.chain, &w[0], &w[1])?;
        }
        Ok(())
    }
}

#[cfg(feature = "verifier")]
fn check_signatures(chain: &str, before: &Epoch, epoch: &Epoch) -> Result<(), TrustError> {
    let bad = |rule: String| TrustError::Epoch { n: epoch.n, rule };
    let body = cbor::encode(&epoch.body());
    let mut signers = BTreeSet::new();
    for s in &epoch.signatures {
        let keys = before.keys_of(&s.agency).ok_or_else(|| bad(format!("{} has no root key before it", s.agency)))?;
        let st = crate::keys::Statement::Epoch;
        keys.root.verify_full(st, chain, &body, &s.signature).map_err(|e| bad(format!("signature of {}: {e}", s.agency)))?;
        if !signers.insert(&s.agency) {
            return Err(bad(format!("{} signs twice", s.agency)));
        }
    }
    if before.is_two_thirds(&signers) {
        Ok(())
    } else {
        Err(bad("not signed by more than 2/3 of the validator agencies of the epoch before".into()))
    }
}
