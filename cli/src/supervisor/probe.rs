//! Looking at a process from outside: does it listen, is it well, how high is its chain.

use std::path::Path;
use std::time::Duration;

use concordat_broker::config::RpcAddr;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::plan::Listens;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Largest answer read.
const ANSWER_BYTES: u64 = 8 << 20;

/// Whether somebody listens there. A Unix socket is looked up, not connected to: an ABCI application serves one client, and
/// a probe must not be taken for it.
pub async fn listens(at: &Listens) -> bool {
    match at {
        Listens::Unix(path) => unix_listens(path),
        Listens::Tcp(addr) => matches!(tokio::time::timeout(PATIENCE, TcpStream::connect(addr)).await, Ok(Ok(_))),
    }
}

fn unix_listens(path: &Path) -> bool {
    let end = format!(" {}", path.display());
    // Columns: Num RefCount Protocol Flags Type St Inode Path; flag 0x10000 is a listening socket.
    match std::fs::read_to_string("/proc/net/unix") {
        Ok(table) => {
            table.lines().any(|line| line.ends_with(&end) && line.split_whitespace().nth(3) == Some("00010000"))
        }
        Err(_) => path.exists(),
    }
}

/// Status and body of `GET path`. HTTP/1.0, so that the answer comes in one piece and ends with the connection.
async fn get(at: &RpcAddr, path: &str) -> Option<(u16, Vec<u8>)> {
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(mut s: S, path: &str) -> Option<(u16, Vec<u8>)> {
        s.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        s.take(ANSWER_BYTES).read_to_end(&mut answer).await.ok()?;
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = std::str::from_utf8(answer.get(..end)?).ok()?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_off(end + 4)))
    }
    let ask = async {
        match at {
            RpcAddr::Unix(p) => talk(UnixStream::connect(p).await.ok()?, path).await,
            RpcAddr::Tcp(a) => talk(TcpStream::connect(a).await.ok()?, path).await,
        }
    };
    tokio::time::timeout(PATIENCE, ask).await.ok()?
}

/// Whether `GET /livez` answers 200.
pub async fn livez(addr: &str) -> bool {
    matches!(get(&RpcAddr::Tcp(addr.to_owned()), "/livez").await, Some((200, _)))
}

/// What CometBFT says of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CometStatus {
    /// Height of the newest block.
    pub height: u64,
    /// App hash in its header, upper-case hexadecimal.
    pub app_hash: String,
    /// Whether it fetches old blocks.
    pub catching_up: bool,
}

/// Asks a CometBFT for its status; `None` when it does not answer.
pub async fn comet_status(rpc: &RpcAddr) -> Option<CometStatus> {
    let answer = result(rpc, "/status").await?;
    let sync = answer.get("sync_info")?;
    Some(CometStatus {
        height: number(sync.get("latest_block_height")?)?,
        app_hash: sync.get("latest_app_hash")?.as_str()?.to_owned(),
        catching_up: sync.get("catching_up")?.as_bool()?,
    })
}

/// The newest height that a connected peer has, as this node's own consensus heard it. No other agency's RPC is needed.
pub async fn peers_height(rpc: &RpcAddr) -> Option<u64> {
    let answer = result(rpc, "/dump_consensus_state").await?;
    let peers = answer.get("peers")?.as_array()?;
    // A peer works on the height after its newest block.
    peers.iter().filter_map(|p| number(p.pointer("/peer_state/round_state/height")?)?.checked_sub(1)).max()
}

async fn result(rpc: &RpcAddr, path: &str) -> Option<Value> {
    let (status, body) = get(rpc, path).await?;
    let mut answer: Value = serde_json::from_slice(&body).ok()?;
    (status == 200).then(|| answer.get_mut("result").map(Value::take))?
}

fn number(v: &Value) -> Option<u64> {
    v.as_str()?.parse().ok()
}
