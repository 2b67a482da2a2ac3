//! A consumer made by hand: sessions opened with the agency's own key, requests signed here and sent over the real streams.

use super::{City, SOON, act, until, wait};
use concordat_broker::config::ExchangeConfig;
use concordat_broker::gateway::sign::{Draft, sign};
use concordat_broker::keys::KeyFolder;
use concordat_protocol::acts::{ActBody, SessionKey};
use concordat_protocol::cbor;
use concordat_protocol::hash::sha256;
use concordat_protocol::ids::{AgencyId, DatasetId};
use concordat_protocol::keys::{SigningKey, Suite};
use concordat_protocol::session::{QueryCall, QueryReply, Request};
use serde_json::{Value, json};
use std::time::Duration;

/// A connection to the streams as a user of the given node's folder.
pub fn streams(city: &City, agency: &str) -> async_nats::Client {
    let cfg = city.config(agency);
    let password = std::fs::read_to_string(cfg.dir.join("keys/nats.password")).expect("nats.password");
    let options = async_nats::ConnectOptions::with_user_and_password(cfg.nats.user.clone(), password.trim().to_owned());
    wait(options.connect(cfg.nats.url.as_str())).unwrap_or_else(|e| panic!("streams as {agency}: {e}"))
}

/// A connection to the streams as the exchange manager's own user.
pub fn exchange_streams(city: &City) -> async_nats::Client {
    let cfg = ExchangeConfig::load(&city.dir("exchange")).expect("exchange.yaml");
    let password = cfg.nats.password.resolve(&cfg.dir).expect("the exchange's password");
    let options = async_nats::ConnectOptions::with_user_and_password(cfg.nats.user.clone(), password.to_string());
    wait(options.connect(cfg.nats.url.as_str())).unwrap_or_else(|e| panic!("streams as the exchange: {e}"))
}

/// JetStream over a connection; it needs the runtime about it.
pub fn jetstream(nats: async_nats::Client) -> async_nats::jetstream::Context {
    wait(async { async_nats::jetstream::new(nats) })
}

/// The subject under which an agency asks police for stops.
pub fn subject() -> String {
    "query.POLICE.stops_1".into()
}

/// Sends bytes to a provider; nothing when nobody answers in time.
pub fn provider_call(nats: &async_nats::Client, subject: String, bytes: Vec<u8>) -> Option<QueryReply> {
    let answer =
        wait(async { tokio::time::timeout(Duration::from_secs(10), nats.request(subject, bytes.into())).await });
    let message = answer.ok()?.ok()?;
    Some(cbor::decode(&message.payload).expect("a reply in canonical CBOR"))
}

/// A session of a consumer towards police.
pub struct OwnSession {
    /// Its key.
    pub key: SigningKey,
    /// Its number.
    pub number: u64,
    chain: String,
    kem: concordat_protocol::keys::KeyId,
    not_after_ms: u64,
}

impl OwnSession {
    /// Opens a session with the consumer's gateway key.
    pub fn open(city: &City, consumer: &str) -> Self {
        let key = SigningKey::generate(Suite::Ed25519).expect("a key");
        let public: [u8; 32] = key.public().ed25519.0.clone().try_into().expect("32 bytes");
        let expires_ms = city.tick_ms() + 600_000;
        let provider = AgencyId::new("police").expect("an agency");
        let body = ActBody::SessionOpen { provider, keys: vec![SessionKey { key: public }], expires_ms };
        act(city, consumer, &city.key(consumer, "gateway"), body).expect("the session is open");
        // The provider's node may be a block behind.
        let number = until("the session shows at the provider", SOON, || {
            wait(city.node("police").session_by_key(public)).ok().flatten().map(|s| s.session).ok_or("no session")
        });
        let kem = KeyFolder::new(city.dir(consumer).join("keys")).kem().expect("kem.key").public().key_id();
        Self { key, number, chain: city.chain(), kem, not_after_ms: city.tick_ms() + 300_000 }
    }

    /// A query document with its nonce.
    pub fn document(stop: &str, salt: u8) -> Vec<u8> {
        let document: Value = json!({
            "dataset": "ds:police/stops@1", "where": {"stop_id": {"eq": stop}}, "roles": ["clerk"],
            "actor": "psn:00112233445566778899aabbccddeeff", "nonce": hex::encode([salt; 16]),
        });
        serde_json::to_vec(&document).expect("JSON")
    }

    /// A request at place `n`.
    pub fn request(&self, n: u64, purpose: &str, document: &[u8]) -> Request {
        Draft {
            provider: AgencyId::new("police").expect("an agency"),
            dataset: DatasetId::new("ds:police/stops@1").expect("a dataset"),
            clause: String::new(),
            purpose: purpose.into(),
            case: String::new(),
            query_hash: sha256(&[document]),
            kem_key_id: self.kem,
            not_after_ms: self.not_after_ms,
        }
        .at(&self.chain, concordat_broker::gateway::pool::Slot { session: self.number, n })
    }

    /// The call of a request, signed by `key`.
    pub fn call(&self, key: &SigningKey, request: Request, document: &[u8]) -> QueryCall {
        let signed = sign(key, &self.chain, &[request]).expect("a signature").remove(0);
        QueryCall { signed, query: document.to_vec().into(), request_id: "e2e-by-hand".into() }
    }
}
