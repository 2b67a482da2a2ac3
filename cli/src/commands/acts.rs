//! Acts signed here and submitted through the agency's own gateway.

use crate::context::Api;
use crate::failure::Failure;
use concordat_broker::config::NodeConfig;
use concordat_broker::ledger::acts::{COUNTER_TRIES, sign_act};
use concordat_protocol::acts::ActBody;
use concordat_protocol::keys::{KeyId, SigningKey};
use serde_json::Value;

/// The next counter of a key for such an act.
pub async fn next_counter(api: &Api, key: KeyId, body: &ActBody) -> Result<u64, Failure> {
    let counters = api.get(&format!("/admin/v1/keys/{key}/counters")).await?;
    Ok(counters[if body.is_urgent() { "urgent" } else { "other" }].as_u64().unwrap_or_default() + 1)
}

/// Submits signed bytes; waits for the ledger.
pub async fn submit_signed(api: &Api, tx: Vec<u8>) -> Result<Value, Failure> {
    api.post_bytes("/admin/v1/acts", "application/cbor", tx).await
}

/// Signs an act and submits it; waits for the ledger.
pub async fn submit(api: &Api, cfg: &NodeConfig, key: &SigningKey, body: ActBody) -> Result<Value, Failure> {
    let mut tries = 1;
    loop {
        let counter = next_counter(api, key.key_id(), &body).await?;
        let tx = sign_act(&cfg.chain, &cfg.agency, key, counter, body.clone())?;
        match submit_signed(api, tx).await {
            Err(e) if e.code == "ledger-counter" && tries < COUNTER_TRIES => tries += 1,
            done => return done,
        }
    }
}
