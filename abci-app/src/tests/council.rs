//! Four agencies that run a validator each, with root and cosigning keys whose two halves are real.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use concordat_protocol::acts::{Act, ActBody, KeyRole};
use concordat_protocol::cbor;
use concordat_protocol::evidence::{EpochView, SignedEpoch};
use concordat_protocol::hash::sha256;
use concordat_protocol::keys::{KeyId, Signature, SigningKey, Statement, Suite};
use concordat_protocol::node::{NodeReply, NodeRequest};
use concordat_protocol::ops::Tx;
use concordat_protocol::trust::{EpochBody, Trust, TrustError};

use super::kit::{CHAIN, City, KEYS, Key, agency, key};
use crate::state::genesis::{Genesis, GenesisAgency, GenesisKey, GenesisValidator};

/// Its agencies.
pub const MEMBERS: [&str; 4] = ["court", "grid", "police", "transport"];

/// A hybrid key pair made from a name.
pub fn hybrid(name: &str) -> SigningKey {
    let seed = [sha256(&[name.as_bytes(), b"/1"]), sha256(&[name.as_bytes(), b"/2"])].concat();
    SigningKey::from_seed(Suite::Hybrid, &seed[..Suite::Hybrid.seed_len()]).unwrap()
}

/// A validator's consensus key made from a name.
pub fn validator(name: &str) -> [u8; 32] {
    Key::new(&format!("{name}/validator"), Suite::Ed25519).point()
}

/// Its genesis.
pub fn genesis() -> Genesis {
    let agencies = MEMBERS.map(|a| GenesisAgency {
        agency: agency(a),
        roles: vec!["legal".into()],
        keys: KEYS
            .iter()
            .map(|(name, role, label)| {
                let public = match role {
                    KeyRole::Root | KeyRole::Cosign => hybrid(&format!("{a}/{name}")).public().clone(),
                    _ => key(a, name).public,
                };
                GenesisKey { role: role.word().into(), label: (*label).into(), key: public.to_text() }
            })
            .collect(),
        validator: Some(GenesisValidator { key: hex::encode(validator(a)), power: 10 }),
    });
    Genesis { version: 1, agencies: agencies.into(), params: BTreeMap::new() }
}

/// The test city whose agencies decide things together.
pub struct Council {
    pub city: City,
    /// The root key that each agency signs with now.
    pub roots: BTreeMap<String, SigningKey>,
}

impl Council {
    /// A chain at genesis.
    pub fn new() -> Self {
        let roots = MEMBERS.map(|a| (a.to_owned(), hybrid(&format!("{a}/root"))));
        Self { city: City::of(&genesis()), roots: roots.into() }
    }

    /// An act with the next counter of its key.
    fn tx(&self, who: &str, id: KeyId, body: ActBody, sign: impl Fn(&[u8]) -> Signature) -> Bytes {
        let NodeReply::Counters { urgent, other } = self.city.ask(&NodeRequest::Counters { key_id: id }) else {
            panic!()
        };
        let counter = 1 + if body.is_urgent() { urgent } else { other };
        let act = Act { chain: CHAIN.into(), agency: agency(who), key_id: id, counter, body };
        let body = cbor::encode(&act);
        let signature = sign(&body);
        Bytes::from(cbor::encode(&Tx::Act { body: body.into(), signature }))
    }

    /// An act signed with a root key.
    pub fn rooted(&self, who: &str, root: &SigningKey, body: ActBody) -> Bytes {
        self.tx(who, root.public().key_id(), body, |body| root.sign(Statement::Act, CHAIN, body))
    }

    /// Offers a transaction, makes a block, and gives the code it met first.
    pub fn submit(&mut self, tx: Bytes) -> u16 {
        let answer = self.city.mock.check(tx.clone());
        if answer.code != 0 {
            return answer.code as u16;
        }
        let block = self.city.tick();
        let at = block.txs.iter().position(|t| *t == tx).expect("the act is in the block");
        block.results[at].code as u16
    }

    /// An act of an agency's root in a block; gives its code.
    pub fn root(&mut self, who: &str, body: ActBody) -> u16 {
        let tx = self.rooted(who, &self.roots[who], body);
        self.submit(tx)
    }

    /// An act of an agency's gateway in a block; gives its code.
    pub fn gateway(&mut self, who: &str, body: ActBody) -> u16 {
        let key = key(who, "gateway");
        let tx = self.tx(who, key.id(), body, |body| key.sign(Statement::Act, CHAIN, body));
        self.submit(tx)
    }

    /// Votes of these agencies for a decision; the codes must be 0.
    pub fn vote(&mut self, voters: &[&str], body: &ActBody) {
        for who in voters {
            assert_eq!(self.root(who, body.clone()), 0, "{who}: {body:?}");
        }
    }

    /// The epochs as the node lists them.
    pub fn epochs(&self) -> Vec<EpochView> {
        let NodeReply::Epochs { body } = self.city.ask(&NodeRequest::Epochs {}) else { panic!() };
        body
    }

    /// The body of the newest epoch.
    pub fn newest(&self) -> EpochBody {
        self.epochs().last().unwrap().body.clone()
    }

    /// An agency's signature on an epoch with a root key, filed by its gateway.
    pub fn sign_epoch(&mut self, who: &str, root: &SigningKey, body: &EpochBody) -> u16 {
        let signature = root.sign(Statement::Epoch, CHAIN, &cbor::encode(body));
        self.file(who, &SignedEpoch { body: body.clone(), signature })
    }

    /// A signed epoch, filed by an agency's gateway.
    pub fn file(&mut self, who: &str, signed: &SignedEpoch) -> u16 {
        self.gateway(who, ActBody::Epoch { body: cbor::encode(signed).into() })
    }

    /// genesis.json of the chain.
    pub fn text() -> String {
        let validators: Vec<_> = MEMBERS
            .iter()
            .map(|a| serde_json::json!({"pub_key": {"value": STANDARD.encode(validator(a))}, "power": "10"}))
            .collect();
        serde_json::json!({"chain_id": CHAIN, "validators": validators, "app_state": genesis()}).to_string()
    }

    /// trust.json from what the node lists.
    pub fn trust(&self) -> Result<Trust, TrustError> {
        Trust::with_epochs(Self::text(), vec![], &self.epochs())
    }
}
