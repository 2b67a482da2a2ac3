//! What genesis.json says of epoch 0. The fingerprint covers the genesis file, so epoch 0 is exactly what stands in it:
//! validators, root keys and cosigning keys.

use super::{AgencyKeys, Epoch, TrustError, Validator};
use crate::ids::AgencyId;
use crate::keys::PublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The parts of CometBFT's genesis file that count here; the rest is the node's.
#[derive(Deserialize)]
struct File {
    chain_id: String,
    validators: Vec<FileValidator>,
    app_state: AppState,
}

#[derive(Deserialize)]
struct FileValidator {
    pub_key: FileKey,
    power: String,
}

#[derive(Deserialize)]
struct FileKey {
    value: String,
}

#[derive(Deserialize)]
struct AppState {
    agencies: Vec<Agency>,
}

#[derive(Deserialize)]
struct Agency {
    agency: AgencyId,
    keys: Vec<AgencyKey>,
    validator: Option<AgencyValidator>,
}

#[derive(Deserialize)]
struct AgencyKey {
    role: String,
    key: String,
}

#[derive(Deserialize)]
struct AgencyValidator {
    #[serde(with = "hex::serde")]
    key: [u8; 32],
    power: u64,
}

fn bad(rule: impl Into<String>) -> TrustError {
    TrustError::Genesis(rule.into())
}

/// The chain id and epoch 0 of a genesis file.
pub(super) fn read(text: &str) -> Result<(String, Epoch), TrustError> {
    let file: File = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
    let mut validators = Vec::new();
    let mut keys = Vec::new();
    for a in &file.app_state.agencies {
        if let Some(v) = &a.validator {
            validators.push(Validator { agency: a.agency.clone(), key: v.key, power: v.power });
        }
        let root = key_of(a, "root")?.ok_or_else(|| bad(format!("agency {} has no root key", a.agency)))?;
        keys.push(AgencyKeys { agency: a.agency.clone(), root, cosign: key_of(a, "cosign")? });
    }
    let named: BTreeSet<_> = validators.iter().map(|v| (v.key, v.power)).collect();
    let given = file.validators.iter().map(comet_validator).collect::<Result<BTreeSet<_>, _>>()?;
    if named != given || given.len() != file.validators.len() {
        return Err(bad("its validators and those its agencies name are not the same set"));
    }
    Ok((file.chain_id, Epoch::next(None, 1, validators, keys)))
}

/// An agency's first key of a role.
fn key_of(a: &Agency, role: &str) -> Result<Option<PublicKey>, TrustError> {
    let key = a.keys.iter().find(|k| k.role == role).map(|k| PublicKey::from_text(&k.key));
    key.transpose().map_err(|e| bad(format!("agency {}: {role} key: {e}", a.agency)))
}

fn comet_validator(v: &FileValidator) -> Result<([u8; 32], u64), TrustError> {
    let key = STANDARD.decode(&v.pub_key.value).ok().and_then(|k| <[u8; 32]>::try_from(k).ok());
    let key = key.ok_or_else(|| bad("validator: pub_key is not 32 bytes of base64"))?;
    Ok((key, v.power.parse().map_err(|_| bad("validator: power is not a number"))?))
}
