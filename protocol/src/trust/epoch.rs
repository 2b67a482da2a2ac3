//! Epochs: times in which validators, root keys and cosigning keys stay the same.

use super::{AgencyKeys, EpochSignature, TrustError, Validator};
use crate::canon_struct;
use crate::cbor;
use crate::evidence::ValidatorView;
use crate::hash::{Hash, sha256};
use crate::ids::AgencyId;
use crate::keys::PublicKey;
use crate::tree;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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
            pq_keys_hash: pq_keys_hash(&keys, &validators),
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
    pub(super) fn check_shape(&self) -> Result<(), TrustError> {
        let bad = |rule: &str| Err(TrustError::Epoch { n: self.n, rule: rule.into() });
        if self.validators.is_empty() || self.validators.iter().any(|v| v.power == 0) {
            return bad("validators: at least one, each with power");
        }
        let unique: BTreeSet<_> = self.validators.iter().map(|v| v.key).collect();
        if unique.len() != self.validators.len() || self.validator_agencies().len() != self.validators.len() {
            return bad("validators: each key once, each agency once");
        }
        if self.validators_hash != validators_hash(&self.validators) {
            return bad("validators_hash is not the hash of the validators listed");
        }
        if !self.keys.windows(2).all(|w| w[0].agency < w[1].agency) {
            return bad("keys: sorted by agency, each agency once");
        }
        if self.pq_keys_hash != pq_keys_hash(&self.keys, &self.validators) {
            return bad("pq_keys_hash is not the hash of the keys listed and of whose validators they are");
        }
        for k in &self.keys {
            for key in [Some(&k.root), k.cosign.as_ref()].into_iter().flatten() {
                let refused =
                    |e: crate::keys::KeyError| TrustError::Key { agency: k.agency.to_string(), rule: e.to_string() };
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
    /// An agency's root and cosigning keys in an epoch.
    pub struct KeyLine {
        /// The agency.
        pub agency: AgencyId,
        /// Its root key.
        pub root: PublicKey,
        /// Its cosigning key.
        pub cosign: Option<PublicKey>,
    }
}

canon_struct! {
    /// One line of what [`pq_keys_hash`] covers.
    pub struct BoundLine {
        /// The agency.
        pub agency: AgencyId,
        /// Its root key.
        pub root: PublicKey,
        /// Its cosigning key.
        pub cosign: Option<PublicKey>,
        /// Its validator's key, if it runs one.
        pub validator: Option<[u8; 32]>,
    }
}

impl From<&KeyLine> for AgencyKeys {
    fn from(line: &KeyLine) -> Self {
        Self { agency: line.agency.clone(), root: line.root.clone(), cosign: line.cosign.clone() }
    }
}

impl From<&ValidatorView> for Validator {
    fn from(view: &ValidatorView) -> Self {
        Self { agency: view.agency.clone(), key: view.key, power: view.power }
    }
}

/// SHA-256 over the canonical array of `[agency, root, cosign?, validator?]`, sorted by agency.
///
/// It says whose each validator is, because [`validators_hash`], being CometBFT's, does not: without that, one agency
/// could call all validators of a signed epoch its own, and sign the next one alone.
#[must_use]
pub fn pq_keys_hash(keys: &[AgencyKeys], validators: &[Validator]) -> Hash {
    let line = |k: &AgencyKeys| BoundLine {
        agency: k.agency.clone(),
        root: k.root.clone(),
        cosign: k.cosign.clone(),
        validator: validators.iter().find(|v| v.agency == k.agency).map(|v| v.key),
    };
    let sorted: BTreeMap<_, _> = keys.iter().map(|k| (k.agency.clone(), line(k))).collect();
    sha256(&[&cbor::encode(&sorted.into_values().collect::<Vec<_>>())])
}

#[cfg(feature = "verifier")]
pub(super) fn check_signatures(chain: &str, before: &Epoch, epoch: &Epoch) -> Result<(), TrustError> {
    let bad = |rule: String| TrustError::Epoch { n: epoch.n, rule };
    let body = cbor::encode(&epoch.body());
    let mut signers = BTreeSet::new();
    for s in &epoch.signatures {
        let keys = before.keys_of(&s.agency).ok_or_else(|| bad(format!("{} has no root key before it", s.agency)))?;
        let st = crate::keys::Statement::Epoch;
        keys.root
            .verify_full(st, chain, &body, &s.signature)
            .map_err(|e| bad(format!("signature of {}: {e}", s.agency)))?;
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
