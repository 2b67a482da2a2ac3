//! Acts signed here and submitted through the agency's own gateway.

use crate::context::Api;
use crate::failure::Failure;
use concordat_broker::config::NodeConfig;
use concordat_broker::ledger::acts::{COUNTER_TRIES, sign_act};
use concordat_protocol::acts::ActBody;
use concordat_protocol::keys::{KeyId, SigningKey};
use serde_json::{Value, json};

/// The next counter of a key for such an act.
pub async fn next_counter(api: &Api, key: KeyId, body: &ActBody) -> Result<u64, Failure> {
    let counters = api.get(&format!("/admin/v1/keys/{key}/counters")).await?;
    Ok(counters[if body.is_urgent() { "urgent" } else { "other" }].as_u64().unwrap_or_default() + 1)
}

/// Submits signed bytes; waits for the ledger.
pub async fn submit_signed(api: &Api, tx: Vec<u8>) -> Result<Value, Failure> {
    api.post_bytes("/admin/v1/acts", "application/cbor", tx).await
}

/// Submits signed bytes with the document that they are about, which the gateway compares with the one in force.
async fn submit_with(api: &Api, tx: Vec<u8>, document: &str) -> Result<Value, Failure> {
    api.post("/admin/v1/acts", &json!({"act": hex::encode(tx), "document": document})).await
}

/// Signs an act and submits it; waits for the ledger.
pub async fn submit(api: &Api, cfg: &NodeConfig, key: &SigningKey, body: ActBody) -> Result<Value, Failure> {
    submit_about(api, cfg, key, body, None).await
}

/// The same with the document that the act is about.
pub async fn submit_about(
    api: &Api,
    cfg: &NodeConfig,
    key: &SigningKey,
    body: ActBody,
    document: Option<&str>,
) -> Result<Value, Failure> {
    let mut tries = 1;
    loop {
        let counter = next_counter(api, key.key_id(), &body).await?;
        let tx = sign_act(&cfg.chain, &cfg.agency, key, counter, body.clone())?;
        let done = match document {
            Some(document) => submit_with(api, tx, document).await,
            None => submit_signed(api, tx).await,
        };
        match done {
            Err(e) if e.code == "ledger-counter" && tries < COUNTER_TRIES => tries += 1,
            done => return done,
        }
    }
}
