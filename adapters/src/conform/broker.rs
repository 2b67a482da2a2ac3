//! A broker that keeps the contract of the intake and fails as it is told, over loopback HTTP.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use concordat_protocol::hash::sha256;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::contract::Checkpoint;

const TOKEN: &str = "conform";

/// What becomes of one post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// As the contract says.
    Serve,
    /// The connection closes before the batch is taken.
    DropBefore,
    /// The batch is durable, its answer is lost.
    DropAfter,
    /// Not now: try again at once.
    Busy,
}

type Script = Box<dyn FnMut(u64) -> Act + Send>;

struct Kept {
    last: u64,
    checkpoint: String,
    answer: Value,
    events: Vec<Value>,
    posts: u64,
    checkpoint_most: usize,
    batch_most: usize,
    script: Script,
}

/// The broker. It stops with its last owner.
pub struct FakeBroker {
    url: String,
    kept: Arc<Mutex<Kept>>,
    task: JoinHandle<()>,
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeBroker {
    /// A broker that does to post number n (from 1) what `script` says.
    pub async fn start(script: impl FnMut(u64) -> Act + Send + 'static) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let kept = Kept {
            last: 0,
            checkpoint: String::new(),
            answer: Value::Null,
            events: Vec::new(),
            posts: 0,
            checkpoint_most: 0,
            batch_most: 0,
            script: Box::new(script),
        };
        let kept = Arc::new(Mutex::new(kept));
        let shared = Arc::clone(&kept);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&shared);
                tokio::spawn(async move {
                    // A connection that breaks is the other side's to notice.
                    let _ = serve(stream, &kept).await;
                });
            }
        });
        Ok(Self { url, kept, task })
    }

    /// Its base address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The token that it takes.
    pub fn token(&self) -> &'static str {
        TOKEN
    }

    /// The events that are durable, in their order.
    pub fn events(&self) -> Vec<Value> {
        lock(&self.kept).events.clone()
    }

    /// How many events are durable.
    pub fn count(&self) -> usize {
        lock(&self.kept).events.len()
    }

    /// The newest durable checkpoint; the start when it is none.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint(STANDARD.decode(&lock(&self.kept).checkpoint).unwrap_or_default())
    }

    /// Posts so far, taken or not.
    pub fn posts(&self) -> u64 {
        lock(&self.kept).posts
    }

    /// Bytes of the longest checkpoint and rows of the largest batch.
    pub fn most(&self) -> (usize, usize) {
        let kept = lock(&self.kept);
        (kept.checkpoint_most, kept.batch_most)
    }

    /// From now on does to post number n what `script` says; the count goes on.
    pub fn script(&self, script: impl FnMut(u64) -> Act + Send + 'static) {
        lock(&self.kept).script = Box::new(script);
    }
}

struct Request {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    fn number(&self, name: &str) -> u64 {
        self.header(name).parse().unwrap_or(0)
    }
}

async fn serve(stream: TcpStream, kept: &Mutex<Kept>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await? {
        let post = request.line.starts_with("POST ");
        let act = if post { act(kept) } else { Act::Serve };
        if matches!(act, Act::Serve | Act::DropAfter) && post {
            wait_for_predecessors(kept, request.number("concordat-batch")).await;
        }
        let (status, extra, body) = match act {
            Act::DropBefore => return Ok(()),
            Act::Busy => (429, "retry-after: 0\r\n", json!({"title": "busy"})),
            Act::Serve | Act::DropAfter => {
                let (status, body) = answer(&mut lock(kept), &request);
                (status, "", body)
            }
        };
        if act == Act::DropAfter {
            return Ok(());
        }
        let body = body.to_string();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{extra}\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await?;
    }
    Ok(())
}

fn act(kept: &Mutex<Kept>) -> Act {
    let mut kept = lock(kept);
    kept.posts += 1;
    let n = kept.posts;
    (kept.script)(n)
}

/// A batch that overtook its predecessors waits for them, for a moment.
async fn wait_for_predecessors(kept: &Mutex<Kept>, number: u64) {
    for _ in 0..40 {
        let last = lock(kept).last;
        if number <= last + 1 || number > last + 32 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { line, headers, body: Vec::new() };
    request.body = vec![0; request.header("content-length").parse().unwrap_or(0)];
    stream.read_exact(&mut request.body).await?;
    Ok(Some(request))
}

fn answer(kept: &mut Kept, request: &Request) -> (u16, Value) {
    let here = json!({"batch_no": kept.last, "checkpoint": kept.checkpoint});
    if request.line.starts_with("GET ") {
        return (200, here);
    }
    let (number, checkpoint) = (request.number("concordat-batch"), request.header("concordat-checkpoint"));
    if number == kept.last && checkpoint == kept.checkpoint {
        return (200, kept.answer.clone());
    }
    let before = STANDARD.decode(&kept.checkpoint).unwrap_or_default();
    if number != kept.last + 1 || request.header("concordat-after") != hex::encode(sha256(&[&before])) {
        return (409, here);
    }
    let lines = request.body.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    let lines: Vec<Value> = lines.map(|l| serde_json::from_slice(l).unwrap_or_default()).collect();
    kept.last = number;
    kept.checkpoint = checkpoint.to_owned();
    kept.checkpoint_most = kept.checkpoint_most.max(STANDARD.decode(checkpoint).map_or(usize::MAX, |c| c.len()));
    kept.batch_most = kept.batch_most.max(lines.len());
    kept.answer = json!({"accepted": lines.len(), "duplicates": 0});
    kept.events.extend(lines);
    (200, kept.answer.clone())
}
