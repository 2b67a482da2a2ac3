//! Submitting signed acts and waiting for the ledger's word on them.

use super::LedgerError;
use super::follow::follow;
use super::node_client::NodeClient;
use super::rpc::{CometRpc, Submission};
use concordat_protocol::acts::{Act, ActBody, act_hash};
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::codes;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::{SigningKey, Statement};
use concordat_protocol::ops::{LogEntry, Tx};
use std::time::Duration;

/// How long an act may take before the caller is told to look later, seconds.
const ACT_SECONDS: u64 = 30;
/// After how long without a commit the same bytes are sent again.
const RESEND: Duration = Duration::from_secs(1);
/// How often an act is signed again because another act of its key came first: people's commands and the broker
/// itself sign with the gateway's key.
pub const COUNTER_TRIES: usize = 4;

/// Signs an act.
pub fn sign_act(
    chain: &str,
    agency: &AgencyId,
    key: &SigningKey,
    counter: u64,
    body: ActBody,
) -> Result<Vec<u8>, LedgerError> {
    let act = Act { chain: chain.to_owned(), agency: agency.clone(), key_id: key.public().key_id(), counter, body };
    let body = cbor::encode(&act);
    let signature = key.try_sign(Statement::Act, chain, &body).map_err(|e| LedgerError::Protocol(e.to_string()))?;
    Ok(cbor::encode(&Tx::Act { body: Bytes(body), signature }))
}

/// Signs an act with the key's next counter.
async fn sign_next(
    node: &NodeClient,
    chain: &str,
    agency: &AgencyId,
    key: &SigningKey,
    body: ActBody,
) -> Result<Vec<u8>, LedgerError> {
    let (urgent, other) = node.counters(key.public().key_id()).await?;
    let counter = if body.is_urgent() { urgent + 1 } else { other + 1 };
    sign_act(chain, agency, key, counter, body)
}

/// Submits an act and waits until it is in the log; returns its global index and entry. An entry with a code other
/// than 0 is an error, since an act has no other outcome than to hold or not. [`LedgerError::Counter`] says that the
/// act is in no block and that its number is used: it may be signed again.
pub async fn submit_act(node: &NodeClient, rpc: &CometRpc, tx: &[u8]) -> Result<(u64, LogEntry), LedgerError> {
    let act = match cbor::decode::<Tx>(tx) {
        Ok(Tx::Act { body, .. }) => cbor::decode::<Act>(&body).map_err(|e| LedgerError::Protocol(e.to_string()))?,
        Ok(_) => return Err(LedgerError::Protocol("the transaction is not an act".into())),
        Err(e) => return Err(LedgerError::Protocol(e.to_string())),
    };
    let head = node.head().await?;
    let mut frames = follow(node.path(), head.height + 1, vec![format!("act:{}", act.agency)]);
    let hash = act_hash(&act);
    let wait = async {
        let mut resend = tokio::time::interval(RESEND);
        let (mut seen, mut behind) = (head.height, None);
        loop {
            if let Some((_, code)) = behind.filter(|(height, _)| seen >= *height) {
                return Err(LedgerError::Counter { code });
            }
            tokio::select! {
                biased;
                frame = frames.next_frame() => {
                    seen = frame.height;
                    if let Some((index, entry)) = frame.entries.into_iter().find(|(_, e)| e.op_hash == hash) {
                        return settle(index, entry);
                    }
                }
                _ = resend.tick() => {
                    if let Submission::Refused { code, text } = rpc.submit(tx).await {
                        if !matches!(code, codes::STALE | codes::GAP) {
                            return Err(LedgerError::Refused { code, text });
                        }
                        // The act that used the number may be this one, sent a moment ago: the frames up to now say.
                        behind.get_or_insert((node.head().await?.height, code));
                    }
                }
            }
        }
    };
    match tokio::time::timeout(Duration::from_secs(ACT_SECONDS), wait).await {
        Ok(result) => result,
        Err(_) => Err(LedgerError::Timeout(ACT_SECONDS)),
    }
}

/// Signs an act with the key's next counter, submits it and waits as [`submit_act`]; signed again when another act of
/// the key took the counter meanwhile, up to [`COUNTER_TRIES`] times.
pub async fn sign_and_submit(
    node: &NodeClient,
    rpc: &CometRpc,
    chain: &str,
    agency: &AgencyId,
    key: &SigningKey,
    body: ActBody,
) -> Result<(u64, LogEntry), LedgerError> {
    let mut tries = 1;
    loop {
        let tx = sign_next(node, chain, agency, key, body.clone()).await?;
        match submit_act(node, rpc, &tx).await {
            Err(LedgerError::Counter { .. }) if tries < COUNTER_TRIES => tries += 1,
            done => return done,
        }
    }
}

fn settle(index: u64, entry: LogEntry) -> Result<(u64, LogEntry), LedgerError> {
    if entry.code == codes::OK {
        return Ok((index, entry));
    }
    Err(LedgerError::Refused { code: entry.code, text: format!("{} (op:{index})", codes::text(entry.code)) })
}
