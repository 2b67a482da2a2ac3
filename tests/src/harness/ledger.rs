//! The ledger from below: transactions made by hand, straight at CometBFT's RPC.

use super::{City, SOON, until, wait};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use concordat_broker::ledger::LedgerError;
use concordat_broker::ledger::acts;
use concordat_protocol::acts::{ActBody, KeyRole};
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, WriterId};
use concordat_protocol::keys::{SigningKey, Statement, Suite};
use concordat_protocol::node::WriterView;
use concordat_protocol::ops::{Batch, LogEntry, Op, Tx, batch_hash};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// CometBFT's RPC, raw.
pub struct Rpc {
    http: reqwest::Client,
}

impl Rpc {
    /// The RPC on a Unix socket.
    pub fn new(socket: &Path) -> Self {
        let http = reqwest::Client::builder().unix_socket(socket).timeout(Duration::from_secs(20)).build();
        Self { http: http.expect("an HTTP client") }
    }

    /// A GET; the `result`, or the error as text.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        wait(async {
            let answer = self.http.get(format!("http://comet/{path}")).send().await.map_err(|e| e.to_string())?;
            let mut body: Value = answer.json().await.map_err(|e| e.to_string())?;
            if body["error"].is_null() { Ok(body["result"].take()) } else { Err(body["error"].to_string()) }
        })
    }

    /// Hands a transaction in: CheckTx's code, or the error of CometBFT itself.
    pub fn submit(&self, tx: &[u8]) -> Result<u64, String> {
        wait(async {
            let request = self.http.post("http://comet/broadcast_tx_sync");
            let request = request.header("content-type", "application/x-www-form-urlencoded");
            let answer = request.body(format!("tx=0x{}", hex::encode(tx))).send().await.map_err(|e| e.to_string())?;
            let body: Value = answer.json().await.map_err(|e| e.to_string())?;
            match body["result"]["code"].as_u64() {
                Some(code) => Ok(code),
                None => Err(body["error"].to_string()),
            }
        })
    }

    /// Newest height.
    pub fn height(&self) -> u64 {
        let status = self.get("status").expect("CometBFT's status");
        status["sync_info"]["latest_block_height"].as_str().and_then(|h| h.parse().ok()).expect("a height")
    }
}

impl Rpc {
    /// The transactions of a block, decoded.
    pub fn block(&self, height: u64) -> Vec<Vec<u8>> {
        let block = self.get(&format!("block?height={height}")).unwrap_or_else(|e| panic!("block {height}: {e}"));
        let txs = block["block"]["data"]["txs"].as_array().cloned().unwrap_or_default();
        txs.iter().map(|tx| STANDARD.decode(tx.as_str().unwrap_or_default()).expect("base64")).collect()
    }

    /// The code with which a transaction was included after `from`, if it was by now.
    pub fn included(&self, tx: &[u8], from: u64) -> Option<u64> {
        (from..=self.height()).find_map(|height| {
            let place = self.block(height).iter().position(|t| t == tx)?;
            let results = self.get(&format!("block_results?height={height}")).ok()?;
            Some(results["txs_results"][place]["code"].as_u64().unwrap_or_default())
        })
    }
}

/// A batch's transaction and its hash, signed by `key`.
pub fn batch_tx(
    chain: &str,
    writer: &WriterId,
    key: &SigningKey,
    first_seq: u64,
    prev: Hash,
    ops: Vec<Op>,
) -> (Vec<u8>, Hash) {
    let batch = Batch { chain: chain.to_owned(), writer: writer.clone(), incarnation: 1, first_seq, prev, ops };
    let body = cbor::encode(&batch);
    let signature = key.sign(Statement::TxBatch, chain, &body).ed25519.0.try_into().expect("64 bytes");
    let hash = batch_hash(&body);
    (cbor::encode(&Tx::Batch { body: Bytes(body), signature }), hash)
}

/// Signs an act with a key of the agency's and submits it, as [`acts::sign_and_submit`]: the agency's broker may use the
/// same key at the same time.
pub fn act(city: &City, agency: &str, key: &SigningKey, body: ActBody) -> Result<(u64, LogEntry), LedgerError> {
    let id = AgencyId::new(agency).expect("an agency");
    wait(acts::sign_and_submit(&city.node(agency), &city.comet(agency), &city.chain(), &id, key, body))
}

/// Submits an act at an agency's own node and waits for the ledger's word.
pub fn submit_act(city: &City, agency: &str, tx: &[u8]) -> Result<(u64, LogEntry), LedgerError> {
    wait(acts::submit_act(&city.node(agency), &city.comet(agency), tx))
}

/// Registers a key of the test's own, whose numbers no process uses.
pub fn register_key(city: &City, agency: &str, role: KeyRole, label: &str) -> SigningKey {
    let key = SigningKey::generate(Suite::Ed25519).expect("a key");
    let body = ActBody::KeyAdd { role, label: label.into(), key: key.public().clone() };
    act(city, agency, &city.key(agency, "root"), body).expect("the key is registered");
    key
}

/// Registers a writer of the test's own, so that no process is disturbed; returns it with its key.
pub fn register_writer(city: &City, agency: &str, label: &str) -> (WriterId, SigningKey) {
    let key = register_key(city, agency, KeyRole::Writer, label);
    let writer = WriterId::new(format!("{agency}/{label}")).expect("a writer");
    (writer, key)
}

impl City {
    /// Where a writer stands at an agency's node.
    pub fn writer(&self, agency: &str, writer: &WriterId) -> WriterView {
        wait(self.node(agency).writer(writer)).expect("the node").expect("the writer")
    }

    /// An entry of the log, as an agency's node has it; waits for it, since a node may be a block behind.
    pub fn entry(&self, agency: &str, index: u64) -> LogEntry {
        let node = self.node(agency);
        until(&format!("op:{index} at {agency}"), SOON, || {
            wait(node.log(index, 1)).ok().and_then(|mut l| l.pop()).ok_or("not there")
        })
    }
}
