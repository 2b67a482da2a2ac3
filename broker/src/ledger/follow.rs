//! Following the own node's frames: contiguous, resumed after a lost connection.

use super::LedgerError;
use super::node_client::{connect, receive, send};
use concordat_protocol::node::{Frame, NodeReply, NodeRequest};
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// How long to wait before the socket is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// Frames that may wait for a slow reader before reading pauses.
const AHEAD: usize = 64;

/// What following brings.
#[derive(Debug)]
pub enum Followed {
    /// The next frame in height.
    Frame(Frame),
    /// The node is lost or broke the sequence: until the next frame nothing may be released.
    Lost(String),
}

/// Frames from a height on, read by a task of its own, so that waiting for the next one may be given up at any point.
#[derive(Debug)]
pub struct Frames {
    rx: mpsc::Receiver<Followed>,
}

impl Frames {
    /// The next frame or loss. Never ends while the process lives.
    pub async fn next(&mut self) -> Followed {
        match self.rx.recv().await {
            Some(followed) => followed,
            None => Followed::Lost("the following task ended".into()),
        }
    }

    /// Whether something is there already.
    pub fn has_more(&self) -> bool {
        !self.rx.is_empty()
    }

    /// The next frame, passing over losses.
    pub async fn next_frame(&mut self) -> Frame {
        loop {
            if let Followed::Frame(frame) = self.next().await {
                return frame;
            }
        }
    }
}

/// Follows the node whose socket lies at `path` from `from_height` on, with the entries of `writers` (all when empty).
/// Old heights are replayed from the node's store.
pub fn follow(path: impl Into<PathBuf>, from_height: u64, writers: Vec<String>) -> Frames {
    let (tx, rx) = mpsc::channel(AHEAD);
    let mut follower = Follower { path: path.into(), writers, next: from_height.max(1), stream: None };
    tokio::spawn(async move {
        loop {
            let followed = match follower.try_next().await {
                Ok(frame) => Followed::Frame(frame),
                Err(e) => {
                    tokio::time::sleep(RETRY).await;
                    Followed::Lost(e.to_string())
                }
            };
            if tx.send(followed).await.is_err() {
                return;
            }
        }
    });
    Frames { rx }
}

struct Follower {
    path: PathBuf,
    writers: Vec<String>,
    next: u64,
    stream: Option<UnixStream>,
}

impl Follower {
    async fn try_next(&mut self) -> Result<Frame, LedgerError> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let mut stream = connect(&self.path).await?;
                let request = NodeRequest::Subscribe { from_height: self.next, writers: self.writers.clone() };
                send(&mut stream, &self.path, &request).await?;
                stream
            }
        };
        match receive(&mut stream, &self.path).await? {
            NodeReply::Frame { body } if body.height == self.next => {
                self.next += 1;
                self.stream = Some(stream);
                Ok(body)
            }
            NodeReply::Frame { body } => {
                Err(LedgerError::Protocol(format!("frame of height {} where {} was due", body.height, self.next)))
            }
            NodeReply::Error { code, detail } => Err(LedgerError::Refused { code, text: detail }),
            other => Err(LedgerError::Protocol(format!("expected a frame, got {}", other.kind_name()))),
        }
    }
}
