//! The synthetic city's keys, validators, genesis and trust.json.

use crate::world::{AGENCIES, CHAIN, agency};
use base64::Engine as _;
use concordat_protocol::cbor::encode;
use concordat_protocol::hash::sha256;
use concordat_protocol::keys::{PublicKey, Signature, SigningKey, Statement, Suite, signed_bytes};
use concordat_protocol::trust::{AgencyKeys, Epoch, EpochSignature, OversightKey, Trust, Validator};
use ml_dsa::{MlDsa65, SigningKey as MlDsaKey};
use serde_json::json;

pub fn key(suite: Suite, name: &str) -> SigningKey {
    let seed = [sha256(&[name.as_bytes(), b"/1"]), sha256(&[name.as_bytes(), b"/2"])].concat();
    SigningKey::from_seed(suite, &seed[..suite.seed_len()]).unwrap()
}

pub fn root_key(name: &str) -> SigningKey {
    key(Suite::Hybrid, &format!("root/{name}"))
}

/// The name of an agency's cosigning key in an epoch: the police changed theirs with epoch 1.
pub fn cosign_name(agency: &str, epoch: u64) -> String {
    let life = if agency == "police" && epoch > 0 { "/2" } else { "" };
    format!("cosign/{agency}{life}")
}

/// Signs like [`SigningKey::sign`] with the hybrid key of this name, but with FIPS 204's deterministic variant, so that
/// everything made here has the same bytes each time.
pub fn sign_fixed(name: &str, st: Statement, cbor: &[u8]) -> Signature {
    let mut signature = key(Suite::Hybrid, name).sign(st, CHAIN, cbor);
    let pq = MlDsaKey::<MlDsa65>::from_seed(&sha256(&[name.as_bytes(), b"/2"]).into());
    let message = signed_bytes(st, CHAIN, cbor);
    signature.pq = pq.expanded_key().sign_deterministic(&message, &[]).unwrap().encode().to_vec().into();
    signature
}

/// A validator: its agency, its key, its power.
pub struct Val {
    pub agency: String,
    pub key: ed25519_dalek::SigningKey,
    pub power: u64,
}

pub fn val(agency: &str, life: &str, power: u64) -> Val {
    let seed = sha256(&[b"validator/", life.as_bytes(), agency.as_bytes()]);
    Val { agency: agency.into(), key: ed25519_dalek::SigningKey::from_bytes(&seed), power }
}

pub fn vals(life: &str) -> Vec<Val> {
    AGENCIES.iter().map(|a| val(a, life, 10)).collect()
}

pub fn listed(vals: &[Val]) -> Vec<Validator> {
    let one = |v: &Val| Validator { agency: agency(&v.agency), key: v.key.verifying_key().to_bytes(), power: v.power };
    vals.iter().map(one).collect()
}

pub fn agency_keys() -> Vec<AgencyKeys> {
    agency_keys_of(0)
}

pub fn agency_keys_of(epoch: u64) -> Vec<AgencyKeys> {
    let one = |a: &&str| AgencyKeys {
        agency: agency(a),
        root: root_key(a).public().clone(),
        cosign: Some(key(Suite::Hybrid, &cosign_name(a, epoch)).public().clone()),
    };
    AGENCIES.iter().map(one).collect()
}

/// First height of epoch 1 in [`trust_later`].
pub const EPOCH_1: u64 = 100;

/// The city after it changed all validator keys and one cosigning key, signed by the agencies of the epoch before.
pub fn trust_later() -> Trust {
    let mut trust = trust();
    let mut next = Epoch::next(trust.epochs.last(), EPOCH_1, listed(&vals("b")), agency_keys_of(1));
    let body = encode(&next.body());
    let one = |a: &&str| EpochSignature {
        agency: agency(a),
        signature: sign_fixed(&format!("root/{a}"), Statement::Epoch, &body),
    };
    next.signatures = AGENCIES.iter().map(one).collect();
    trust.epochs.push(next);
    trust
}

pub fn b64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// genesis.json as the node's layout writes it.
pub fn genesis(vals: &[Val]) -> String {
    let validators: Vec<_> = vals
        .iter()
        .map(|v| {
            let key = v.key.verifying_key().to_bytes();
            let address = hex::encode_upper(&sha256(&[&key])[..20]);
            json!({"address": address, "pub_key": {"type": "tendermint/PubKeyEd25519", "value": b64(&key)},
                   "power": v.power.to_string(), "name": v.agency})
        })
        .collect();
    let agencies: Vec<_> = agency_keys()
        .iter()
        .map(|k| {
            let key = |role: &str, key: &PublicKey| json!({"role": role, "label": "main", "key": key.to_text()});
            let keys = vec![key("root", &k.root), key("cosign", k.cosign.as_ref().unwrap())];
            let own = vals.iter().find(|v| v.agency == k.agency.as_str());
            let own = own.map(|v| json!({"key": hex::encode(v.key.verifying_key().to_bytes()), "power": v.power}));
            json!({"agency": k.agency, "roles": [], "keys": keys, "validator": own})
        })
        .collect();
    let genesis = json!({"genesis_time": "2026-01-01T00:00:00Z", "chain_id": CHAIN, "initial_height": "1",
                         "validators": validators, "app_hash": "", "app_state": {"version": 1, "agencies": agencies}});
    serde_json::to_string(&genesis).unwrap()
}

pub fn oversight() -> Vec<OversightKey> {
    vec![OversightKey { name: "ombudsman".into(), key: root_key("ombudsman").public().clone() }]
}

pub fn trust_of(vals: &[Val]) -> Trust {
    Trust::from_genesis(genesis(vals), oversight()).unwrap()
}

pub fn trust() -> Trust {
    trust_of(&vals("a"))
}
