//! The socket that the agency's own processes ask: the protocol of a node's own.

use super::proofs::{fail, in_block};
use super::tip::Tip;
use super::{Light, LightError};
use crate::ledger::follow::{Followed, follow};
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::limits::{NODE_FRAME_BYTES_MAX, PROOFS_MAX};
use concordat_protocol::node::{Frame, NodeReply, NodeRequest};
use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tracing::{info, warn};

/// Largest question, bytes.
const QUESTION_BYTES_MAX: usize = 1 << 20;
/// How long a subscriber may leave its socket full before it is cut off, and how long to wait after a failed accept.
const PATIENCE: Duration = Duration::from_secs(5);
/// Frames that may wait for a proof.
const HELD_MAX: usize = 512;

/// Serves in a task of its own.
pub(super) fn serve(light: Light, socket: &Path) -> Result<JoinHandle<()>, LightError> {
    let bad = |source| LightError::Socket { path: socket.to_owned(), source };
    if let Some(dir) = socket.parent() {
        std::fs::create_dir_all(dir).map_err(bad)?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(bad)?;
    }
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(bad(e)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(bad)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).map_err(bad)?;
    Ok(tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // A connection of its own to the host, as the asker has one of its own here.
                    let light = Light { host: light.host.apart(), ..light.clone() };
                    tokio::spawn(async move {
                        if let Err(why) = talk(light, stream).await {
                            info!(why, "a connection ended");
                        }
                    });
                }
                Err(e) => {
                    warn!(error = %e, "no connection can be taken");
                    tokio::time::sleep(PATIENCE).await;
                }
            }
        }
    }))
}

async fn talk(light: Light, mut stream: UnixStream) -> Result<(), String> {
    while let Some(bytes) = receive(&mut stream).await.map_err(|e| e.to_string())? {
        let reply = match cbor::decode::<NodeRequest>(&bytes) {
            Ok(NodeRequest::Subscribe { from_height, writers }) => {
                let ended = subscription(&light, &mut stream, from_height, writers).await;
                let Err(e) = ended else { return Ok(()) };
                let last = NodeReply::Error { code: e.wire(), detail: e.to_string() };
                let _ = send(&mut stream, &last).await;
                return Err(e.to_string());
            }
            Ok(question) => light.answer(&question).await,
            Err(e) => NodeReply::Error { code: codes::NOT_CANONICAL, detail: e.to_string() },
        };
        send(&mut stream, &reply).await.map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Frames from a height on, each once its entries are proven. Ends when the host is not believed: to the subscriber its node
/// is lost then, and nothing is released.
async fn subscription(
    light: &Light,
    stream: &mut UnixStream,
    from_height: u64,
    writers: Vec<String>,
) -> Result<(), LightError> {
    let mut tips = light.tips.clone();
    let from = if from_height == 0 { light.tips.now()?.height + 1 } else { from_height };
    let mut frames = follow(light.host.node().path(), from, writers);
    let mut held: VecDeque<Frame> = VecDeque::new();
    loop {
        tokio::select! {
            followed = frames.next(), if held.len() < HELD_MAX => match followed {
                Followed::Frame(frame) => held.push_back(frame),
                Followed::Lost(why) => return Err(LightError::Stale(format!("the host's node is lost: {why}"))),
            },
            () = tips.changed() => {}
        }
        let tip = light.tips.now()?;
        while let Some(frames) = proven(light, &tip, &mut held).await? {
            for frame in frames {
                let sent = send(stream, &NodeReply::Frame { body: frame }).await;
                if sent.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// The next frames that the newest block proves, none while there are none.
async fn proven(light: &Light, tip: &Tip, held: &mut VecDeque<Frame>) -> Result<Option<Vec<Frame>>, LightError> {
    let (mut part, mut entries) = (Vec::new(), Vec::new());
    while let Some(frame) = held.front().filter(|f| f.height <= tip.height) {
        if !part.is_empty() && entries.len() + frame.entries.len() > PROOFS_MAX {
            break;
        }
        in_block(&frame.entries, frame.height, frame.tick_ms)?;
        if frame.tick_ms > tip.tick_ms {
            return Err(
                fail("tick", format!("block {} is told to be later than block {}", frame.height, tip.height)).into()
            );
        }
        entries.extend(frame.entries.iter().cloned());
        part.extend(held.pop_front().map(|f| as_proven(f, tip)));
    }
    if part.is_empty() {
        return Ok(None);
    }
    light.in_log(tip, &entries).await?;
    Ok(Some(part))
}

/// A frame with what is proven of it. The state that its reader asks for next is that of the newest block.
fn as_proven(frame: Frame, tip: &Tip) -> Frame {
    let app_hash = if frame.height == tip.height { tip.app_hash } else { [0; 32] };
    let tick_ms = if frame.height == tip.height { tip.tick_ms } else { frame.tick_ms };
    Frame { app_hash, tick_ms, meta_rev: tip.meta_rev, ..frame }
}

async fn receive(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let len = match stream.read_u32().await {
        Ok(len) => len as usize,
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    };
    if len > QUESTION_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a question of {len} bytes")));
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    Ok(Some(body))
}

async fn send(stream: &mut UnixStream, reply: &NodeReply) -> io::Result<()> {
    let mut body = cbor::encode(reply);
    if body.len() > NODE_FRAME_BYTES_MAX {
        let detail = format!("the answer has {} bytes, limit {NODE_FRAME_BYTES_MAX}: ask for less", body.len());
        body = cbor::encode(&NodeReply::Error { code: codes::TOO_LARGE, detail });
    }
    let mut message = (body.len() as u32).to_be_bytes().to_vec();
    message.extend_from_slice(&body);
    let written = tokio::time::timeout(PATIENCE, stream.write_all(&message)).await;
    written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
