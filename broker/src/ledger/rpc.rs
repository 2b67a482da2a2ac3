//! CometBFT's RPC, as far as it is needed: submit, status, commit, validators.
//!
//! Submission is `POST /broadcast_tx_sync` with a form body and hex, which costs CometBFT a fifth to two fifths less
//! than JSON with base64. Its answer is acceptance into a mempool, never commitment.

use super::LedgerError;
use crate::config::RpcAddr;
use concordat_protocol::verify::comet::{self, CometError, Packed};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// What a submission's answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submission {
    /// In a mempool, or known there already: wait for the commit.
    Pending,
    /// Refused by CheckTx with a code that will not change by itself.
    Refused {
        /// Code of `concordat_protocol::codes`.
        code: u16,
        /// Detail.
        text: String,
    },
    /// Nothing is known: send the same bytes again later.
    Unknown(String),
}

/// A client of one CometBFT node.
#[derive(Debug, Clone)]
pub struct CometRpc {
    http: reqwest::Client,
    base: String,
}

/// The answer of `/status` that the supervisor and the tour look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CometStatus {
    /// Newest height.
    pub height: u64,
    /// App hash in the newest header, hex.
    pub app_hash: String,
    /// Whether the node is still catching up.
    pub catching_up: bool,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Option<RpcFault>,
}

#[derive(Deserialize)]
struct RpcFault {
    #[serde(default)]
    message: String,
    #[serde(default)]
    data: Value,
}

impl RpcFault {
    fn text(&self) -> String {
        format!("{} {}", self.message, self.data.as_str().unwrap_or_default())
    }
}

impl CometRpc {
    /// A client of the RPC at `addr`.
    pub fn new(addr: &RpcAddr) -> Result<Self, LedgerError> {
        // CometBFT closes idle connections after 10 s.
        let builder =
            reqwest::Client::builder().pool_idle_timeout(Duration::from_secs(8)).timeout(Duration::from_secs(10));
        let (builder, base) = match addr {
            RpcAddr::Unix(path) => (builder.unix_socket(path.as_path()), "http://comet".to_owned()),
            RpcAddr::Tcp(addr) => (builder, format!("http://{addr}")),
        };
        let http = builder.build().map_err(|e| LedgerError::RpcDown(e.to_string()))?;
        Ok(Self { http, base })
    }

    async fn get(&self, path: &str) -> Result<Value, LedgerError> {
        let down = |e: reqwest::Error| LedgerError::RpcDown(e.to_string());
        let answer: Envelope =
            self.http.get(format!("{}/{path}", self.base)).send().await.map_err(down)?.json().await.map_err(down)?;
        match answer.error {
            None => Ok(answer.result),
            Some(fault) => Err(LedgerError::Protocol(fault.text())),
        }
    }

    /// Submits a transaction.
    pub async fn submit(&self, tx: &[u8]) -> Submission {
        let request = self
            .http
            .post(format!("{}/broadcast_tx_sync", self.base))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("tx=0x{}", hex::encode(tx)));
        let answer = match request.send().await {
            Ok(r) => r.json::<Envelope>().await,
            Err(e) => Err(e),
        };
        match answer {
            Err(e) => Submission::Unknown(e.to_string()),
            Ok(Envelope { error: Some(fault), .. }) => {
                let text = fault.text();
                if text.contains("already exists in cache") { Submission::Pending } else { Submission::Unknown(text) }
            }
            Ok(Envelope { result, .. }) => judge(&result),
        }
    }

    /// Height, app hash and whether the node catches up.
    pub async fn status(&self) -> Result<CometStatus, LedgerError> {
        let result = self.get("status").await?;
        let sync = &result["sync_info"];
        let height = sync["latest_block_height"].as_str().and_then(|h| h.parse().ok());
        Ok(CometStatus {
            height: height.ok_or_else(|| LedgerError::Protocol("status without latest_block_height".into()))?,
            app_hash: sync["latest_app_hash"].as_str().unwrap_or_default().to_owned(),
            catching_up: sync["catching_up"].as_bool().unwrap_or(true),
        })
    }

    /// The JSON of `/commit` at a height: `signed_header`.
    pub async fn signed_header(&self, height: u64) -> Result<Value, LedgerError> {
        let mut result = self.get(&format!("commit?height={height}")).await?;
        Ok(result["signed_header"].take())
    }

    /// Header, commit and validators of a height, packed for a proof.
    pub async fn packed<E: From<LedgerError> + From<CometError>>(&self, height: u64) -> Result<Packed, E> {
        let commit = json!({"signed_header": self.signed_header(height).await?}).to_string();
        let validators = json!({"validators": self.validators(height).await?}).to_string();
        Ok(comet::pack(&commit, &validators)?)
    }

    /// The JSON list of validators at a height.
    pub async fn validators(&self, height: u64) -> Result<Value, LedgerError> {
        let mut result = self.get(&format!("validators?height={height}&per_page=100")).await?;
        Ok(result["validators"].take())
    }

    /// The transactions of a block, decoded from base64 by the caller.
    pub async fn block_txs(&self, height: u64) -> Result<Vec<String>, LedgerError> {
        let result = self.get(&format!("block?height={height}")).await?;
        let txs = result["block"]["data"]["txs"].as_array().cloned().unwrap_or_default();
        Ok(txs.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect())
    }
}

/// 303 and 111 say "not now"; every other code says the bytes are wrong.
fn judge(result: &Value) -> Submission {
    use concordat_protocol::codes;
    let code = result["code"].as_u64().unwrap_or(u64::from(u16::MAX));
    let code = u16::try_from(code).unwrap_or(u16::MAX);
    let text = result["log"].as_str().unwrap_or_default();
    match code {
        codes::OK => Submission::Pending,
        codes::BUSY | codes::WINDOW_FULL => Submission::Unknown(codes::text(code).to_owned()),
        _ => Submission::Refused { code, text: format!("{} {text}", codes::text(code)) },
    }
}
