//! What genesis.json must say for epoch 0 to be believed: the fingerprint covers the genesis file alone, so every
//! validator and key of epoch 0 has to stand in it.

use super::{Epoch, TrustError, Validator};
use crate::ids::AgencyId;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

fn bad(rule: impl Into<String>) -> TrustError {
    TrustError::Genesis(rule.into())
}

fn parse(text: &str) -> Result<Value, TrustError> {
    serde_json::from_str(text).map_err(|e| bad(e.to_string()))
}

/// The chain id in a genesis file.
pub(super) fn chain_of(text: &str) -> Result<String, TrustError> {
    let chain = parse(text)?.get("chain_id").and_then(Value::as_str).map(str::to_owned);
    chain.ok_or_else(|| bad("chain_id is missing"))
}

/// Checks that the genesis file has this chain id, exactly these validators, and in `app_state` each agency's root and
/// cosigning key (its text) inside an object that names the agency.
pub(super) fn check(text: &str, chain: &str, epoch: &Epoch) -> Result<(), TrustError> {
    let genesis = parse(text)?;
    if genesis.get("chain_id").and_then(Value::as_str) != Some(chain) {
        return Err(bad(format!("chain_id is not {chain}")));
    }
    let listed = genesis.get("validators").and_then(Value::as_array).ok_or_else(|| bad("validators are missing"))?;
    let mut theirs = listed.iter().map(validator).collect::<Result<Vec<_>, _>>()?;
    let key = |v: &Validator| (v.agency.clone(), v.key, v.power);
    theirs.sort_by_key(key);
    let mut ours = epoch.validators.clone();
    ours.sort_by_key(key);
    if theirs != ours {
        return Err(bad("its validators are not those of epoch 0"));
    }
    let state = genesis.get("app_state").ok_or_else(|| bad("app_state is missing"))?;
    for k in &epoch.keys {
        for key in [Some(&k.root), k.cosign.as_ref()].into_iter().flatten() {
            if !names(state, &k.agency, &key.to_text()) {
                return Err(bad(format!("app_state does not give {} the key {}", k.agency, key.key_id())));
            }
        }
    }
    Ok(())
}

fn validator(v: &Value) -> Result<Validator, TrustError> {
    let text = |name: &str| v.get(name).and_then(Value::as_str).ok_or_else(|| bad(format!("validator: {name} is missing")));
    let key = v.pointer("/pub_key/value").and_then(Value::as_str).ok_or_else(|| bad("validator: pub_key is missing"))?;
    let key = STANDARD.decode(key).ok().and_then(|k| <[u8; 32]>::try_from(k).ok());
    Ok(Validator {
        agency: AgencyId::new(text("name")?).map_err(|e| bad(format!("validator: name: {e}")))?,
        key: key.ok_or_else(|| bad("validator: pub_key is not 32 bytes of base64"))?,
        power: text("power")?.parse().map_err(|_| bad("validator: power is not a number"))?,
    })
}

/// Whether an object under `v` names the agency (as the key it stands under, or as the text of a field of its own) and
/// holds `key`.
fn names(v: &Value, agency: &AgencyId, key: &str) -> bool {
    match v {
        Value::Array(items) => items.iter().any(|i| names(i, agency, key)),
        Value::Object(fields) => {
            let own = fields.values().any(|f| is_agency(f, agency));
            if own && fields.values().any(|f| holds(f, key)) {
                return true;
            }
            fields.iter().any(|(name, f)| (name == agency.as_str() && holds(f, key)) || names(f, agency, key))
        }
        _ => false,
    }
}

fn is_agency(v: &Value, agency: &AgencyId) -> bool {
    v.as_str().is_some_and(|s| s == agency.as_str() || s == agency.org())
}

fn holds(v: &Value, key: &str) -> bool {
    match v {
        Value::String(s) => s == key,
        Value::Array(items) => items.iter().any(|i| holds(i, key)),
        Value::Object(fields) => fields.values().any(|f| holds(f, key)),
        _ => false,
    }
}
