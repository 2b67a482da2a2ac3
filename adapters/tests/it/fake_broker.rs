//! A broker that enforces the intake contract and fails as the test says.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use concordat_protocol::hash::sha256;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub const TOKEN: &str = "secret-token";

/// What happens to one post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// As the contract says.
    Serve,
    /// The connection closes before the batch is taken.
    DropBefore,
    /// The batch is durable, the answer is lost.
    DropAfter,
    /// No answer ever; the batch is not taken.
    HangBefore,
    /// No answer ever; the batch is durable.
    HangAfter,
    /// This answer instead.
    Say(u16, &'static str, String),
}

type Script = Box<dyn FnMut(u64, &[Value]) -> Act + Send>;

#[derive(Default)]
pub struct Kept {
    pub last: u64,
    pub checkpoint: String,
    answer: Value,
    pub events: Vec<Value>,
    pub batches: Vec<usize>,
    pub posts: u64,
    pub broken_rules: Vec<String>,
    /// True makes a broken twin: it takes any batch number and forgets where the adapter stood, as a careless broker would.
    pub careless: bool,
}

pub struct FakeBroker {
    pub url: String,
    pub kept: Arc<Mutex<Kept>>,
    pub script: Arc<Mutex<Script>>,
    pub hung: watch::Receiver<u64>,
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
}

impl FakeBroker {
    pub async fn start(script: impl FnMut(u64, &[Value]) -> Act + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kept = Arc::new(Mutex::new(Kept::default()));
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let (hang, hung) = watch::channel(0);
        let hang = Arc::new(hang);
        let (k, s) = (Arc::clone(&kept), Arc::clone(&script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&k), Arc::clone(&s), Arc::clone(&hang)));
            }
        });
        Self { url, kept, script, hung }
    }

    pub fn ids(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap();
        assert_eq!(kept.broken_rules, Vec::<String>::new());
        kept.events.iter().map(|e| e["id"].as_str().unwrap().to_owned()).collect()
    }
}

async fn serve(stream: TcpStream, kept: Arc<Mutex<Kept>>, script: Arc<Mutex<Script>>, hang: Arc<watch::Sender<u64>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await {
        let lines: Vec<Value> = request
            .body
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect();
        let post = request.line.starts_with("POST ");
        let act = if post {
            let n = {
                let mut kept = kept.lock().unwrap();
                kept.posts += 1;
                kept.posts
            };
            (script.lock().unwrap())(n, &lines)
        } else {
            Act::Serve
        };
        let batch = !request.header("concordat-adapter").is_empty();
        if post && batch && matches!(act, Act::Serve | Act::DropAfter | Act::HangAfter) {
            wait_for_predecessors(&kept, &request).await;
        }
        let (status, extra, body) = match act {
            Act::DropBefore => return,
            Act::HangBefore => return stay(stream, &hang).await,
            Act::Say(status, extra, ref body) => (status, extra, body.clone()),
            Act::Serve | Act::DropAfter | Act::HangAfter => {
                let (status, body) = answer(&mut kept.lock().unwrap(), &request, lines);
                (status, "", body.to_string())
            }
        };
        match act {
            Act::DropAfter => return,
            Act::HangAfter => return stay(stream, &hang).await,
            _ => {}
        }
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{extra}\r\n", body.len());
        if stream.write_all((head + &body).as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A batch that overtook its predecessors waits for them, for a moment.
async fn wait_for_predecessors(kept: &Mutex<Kept>, request: &Request) {
    let number: u64 = request.header("concordat-batch").parse().unwrap();
    for _ in 0..40 {
        let (last, careless) = {
            let kept = kept.lock().unwrap();
            (kept.last, kept.careless)
        };
        if careless || number <= last + 1 || number > last + 32 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Keeps the connection open until the other side closes it.
async fn stay(mut stream: BufReader<TcpStream>, hang: &watch::Sender<u64>) {
    hang.send_modify(|n| *n += 1);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    if stream.read_line(&mut line).await.ok()? == 0 {
        return None;
    }
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { line, headers, body: Vec::new() };
    let length: usize = request.header("content-length").parse().unwrap_or(0);
    request.body = vec![0; length];
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}

fn answer(kept: &mut Kept, request: &Request, lines: Vec<Value>) -> (u16, Value) {
    if request.header("authorization") != format!("Bearer {TOKEN}") {
        return (401, json!({"title": "unknown token"}));
    }
    let here = json!({"batch_no": kept.last, "checkpoint": kept.checkpoint});
    if request.line.starts_with("GET /v1/intake/load ") {
        if kept.careless {
            return (200, json!({"batch_no": 0, "checkpoint": ""}));
        }
        return (200, here);
    }
    if !request.line.starts_with("POST /v1/datasets/ds:grid%2Fload@1/messages ") {
        return (404, json!({"title": "no such resource"}));
    }
    if request.header("concordat-adapter").is_empty() {
        // Nobody's batch: taken, and the adapter's place stays.
        let said = json!({"accepted": lines.len(), "duplicates": 0});
        kept.events.extend(lines);
        return (200, said);
    }
    check(kept, request, &lines);
    let batch_no: u64 = request.header("concordat-batch").parse().unwrap();
    if batch_no == kept.last && request.header("concordat-checkpoint") == kept.checkpoint && !kept.careless {
        return (200, kept.answer.clone());
    }
    let after = hex::encode(sha256(&[&STANDARD.decode(&kept.checkpoint).unwrap()]));
    let follows = batch_no == kept.last + 1 && request.header("concordat-after") == after;
    if !follows && !kept.careless {
        return (409, here);
    }
    kept.last = batch_no;
    kept.checkpoint = request.header("concordat-checkpoint").to_owned();
    kept.answer = json!({"accepted": lines.len(), "first_seq": kept.events.len() + 1, "duplicates": 0});
    kept.batches.push(lines.len());
    kept.events.extend(lines);
    (200, kept.answer.clone())
}

fn check(kept: &mut Kept, request: &Request, lines: &[Value]) {
    let mut rule = |good: bool, what: &str| {
        if !good {
            kept.broken_rules.push(what.to_owned());
        }
    };
    rule(request.header("content-type") == "application/x-ndjson", "content type");
    rule(request.header("concordat-adapter") == "load", "adapter name");
    rule((1..=256).contains(&lines.len()), "1 to 256 events a batch");
    rule(STANDARD.decode(request.header("concordat-checkpoint")).is_ok_and(|c| !c.is_empty()), "checkpoint");
    for line in lines {
        let keys: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        rule(keys == ["data", "id", "time"], "members of an event");
        rule(line["id"].as_str().is_some_and(|id| id.len() == 32), "id");
    }
}
