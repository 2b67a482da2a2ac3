//! `trust.json`: all that a receipt's verifier must hold before it starts (PROTOCOL 4).
//!
//! It carries the genesis file itself, so that the fingerprint, which a person compares once, pins the first
//! validators and keys too; every later epoch is chained to the one before by signatures.

use crate::cbor::{self, Bytes};
use crate::hash::{Hash, sha256};
use crate::ids::AgencyId;
use crate::keys::{PublicKey, Signature};
use serde::{Deserialize, Serialize};

#[cfg(feature = "verifier")]
mod chain;
mod epoch;
mod genesis;
mod text;

pub use epoch::{BoundLine, Epoch, EpochBody, KeyLine, pq_keys_hash, validators_hash};

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
            epoch::check_signatures(&self.chain, &w[0], &w[1])?;
        }
        Ok(())
    }
}
