//! A stand-in for an agency's node: the same socket and the same rules for the operations of feeds (PROTOCOL 3), and
//! CometBFT's `broadcast_tx_sync` over a socket of its own. Every batch becomes a block at once.

use concordat_protocol::acts::{Act, ActBody, KeyRole, act_hash};
use concordat_protocol::cbor;
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::ids::WriterId;
use concordat_protocol::keys::{KeyId, Signature, Statement};
use concordat_protocol::node::{
    AgreementView, DatasetView, Frame, HeadView, KeyView, NodeReply, NodeRequest, SessionView, WriterView,
};
use concordat_protocol::ops::{Batch, LogEntry, Op, Tx, batch_hash};
use concordat_protocol::terms::Status;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// What the ledger holds.
#[derive(Default)]
pub struct State {
    pub frames: Vec<Frame>,
    pub meta_rev: u64,
    pub keys: Vec<KeyView>,
    pub agreements: Vec<AgreementView>,
    pub datasets: Vec<DatasetView>,
    pub writers: BTreeMap<String, WriterView>,
    pub anchored: BTreeMap<(String, u64), u64>,
    pub sessions: Vec<SessionView>,
    /// Last act of each key.
    pub counters: BTreeMap<KeyId, u64>,
    /// Every operation with its verdict and code.
    pub ops: Vec<(Op, Verdict, u16)>,
}

pub struct Node {
    pub state: Arc<Mutex<State>>,
    height: watch::Sender<u64>,
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

impl Node {
    /// Serves `node.sock` and `rpc.sock` in `run`.
    pub fn start(run: &Path, state: State) -> Arc<Self> {
        std::fs::create_dir_all(run).unwrap();
        let (nodes, rpc) =
            (UnixListener::bind(run.join("node.sock")).unwrap(), UnixListener::bind(run.join("rpc.sock")).unwrap());
        let this = Arc::new(Self { state: Arc::new(Mutex::new(state)), height: watch::channel(0).0 });
        this.block(vec![]);
        let idle = this.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                idle.block(vec![]);
            }
        });
        let serve = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = nodes.accept().await {
                let this = serve.clone();
                tokio::spawn(async move { drop(this.answer(stream).await) });
            }
        });
        let serve = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = rpc.accept().await {
                let this = serve.clone();
                tokio::spawn(async move { drop(this.comet(stream).await) });
            }
        });
        this
    }

    /// Changes governance, as an act would.
    pub fn govern(&self, change: impl FnOnce(&mut State)) {
        {
            let mut state = self.state.lock().unwrap();
            change(&mut state);
            state.meta_rev += 1;
        }
        self.block(vec![]);
    }

    pub fn set_status(&self, status: Status) {
        self.govern(|s| s.agreements.iter_mut().for_each(|a| a.status = status));
    }

    fn block(&self, batches: Vec<Batch>) -> u64 {
        let mut s = self.state.lock().unwrap();
        let (height, tick_ms) = (s.frames.len() as u64 + 1, now_ms());
        let mut entries = Vec::new();
        for batch in batches {
            for (seq, op) in (batch.first_seq..).zip(&batch.ops) {
                let (verdict, code) = judge(&mut s, &batch.writer, op, tick_ms);
                let entry = LogEntry {
                    height,
                    tick_ms,
                    writer: batch.writer.to_string(),
                    incarnation: 1,
                    seq,
                    op_hash: op.hash(),
                    verdict,
                    code,
                };
                entries.push((s.ops.len() as u64, entry));
                s.ops.push((op.clone(), verdict, code));
            }
        }
        let frame = Frame { height, tick_ms, app_hash: [0; 32], meta_rev: s.meta_rev, entries };
        s.frames.push(frame);
        drop(s);
        self.height.send_replace(height);
        height
    }

    /// Sessions are opened by acts; other acts are not here.
    fn act(&self, body: &[u8], signature: &Signature) {
        let act: Act = cbor::decode(body).unwrap();
        let mut s = self.state.lock().unwrap();
        let key = s.keys.iter().find(|k| k.key.key_id() == act.key_id && k.role == KeyRole::Gateway).unwrap().clone();
        key.key.verify_classical(Statement::Act, "city", body, signature).unwrap();
        let counter = s.counters.entry(act.key_id).or_default();
        if act.counter != *counter + 1 {
            return;
        }
        *counter += 1;
        if let ActBody::SessionOpen { provider, keys, expires_ms } = &act.body {
            for key in keys {
                let (session, provider) = (70 + s.sessions.len() as u64, provider.clone());
                let (consumer, key, expires_ms) = (act.agency.clone(), key.key, *expires_ms);
                s.sessions.push(SessionView { session, consumer, provider, key, expires_ms, newest_n: 0 });
            }
        }
        let (height, tick_ms) = (s.frames.len() as u64 + 1, now_ms());
        let (writer, op_hash) = (format!("act:{}", act.agency), act_hash(&act));
        let (verdict, code, seq) = (Verdict::Accepted, codes::OK, act.counter);
        let entry = LogEntry { height, tick_ms, writer, incarnation: 1, seq, op_hash, verdict, code };
        let entries = vec![(s.ops.len() as u64, entry)];
        let meta_rev = s.meta_rev;
        s.frames.push(Frame { height, tick_ms, app_hash: [0; 32], meta_rev, entries });
        drop(s);
        self.height.send_replace(height);
    }

    fn submit(&self, tx: &[u8]) {
        let body = match cbor::decode::<Tx>(tx) {
            Ok(Tx::Act { body, signature }) => return self.act(&body, &signature),
            Ok(Tx::Batch { body, .. }) => body,
            _ => return,
        };
        let batch: Batch = cbor::decode(&body).unwrap();
        {
            let mut s = self.state.lock().unwrap();
            let view = s.writers.get_mut(batch.writer.as_str()).unwrap();
            if view.last_seq + 1 != batch.first_seq || view.last_hash != batch.prev {
                return;
            }
            (view.last_seq, view.last_hash) = (batch.last_seq(), batch_hash(&body));
        }
        self.block(vec![batch]);
    }

    async fn comet(&self, stream: UnixStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let (mut len, mut line) = (0, String::new());
            loop {
                line.clear();
                if stream.read_line(&mut line).await? == 0 {
                    return Ok(());
                }
                if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    len = n.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; len];
            stream.read_exact(&mut body).await?;
            let text = String::from_utf8(body).unwrap();
            self.submit(&hex::decode(text.strip_prefix("tx=0x").unwrap()).unwrap());
            let answer = r#"{"result":{"code":0}}"#;
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            );
            stream.write_all(format!("{head}{answer}").as_bytes()).await?;
        }
    }

    async fn answer(&self, mut stream: UnixStream) -> std::io::Result<()> {
        loop {
            let len = stream.read_u32().await? as usize;
            let mut body = vec![0; len];
            stream.read_exact(&mut body).await?;
            let request: NodeRequest = cbor::decode(&body).unwrap();
            if let NodeRequest::Subscribe { from_height, writers } = request {
                return self.frames(stream, from_height, &writers).await;
            }
            let reply = self.reply(request);
            send(&mut stream, &reply).await?;
        }
    }

    async fn frames(&self, mut stream: UnixStream, from: u64, writers: &[String]) -> std::io::Result<()> {
        let (mut next, mut height) = (from, self.height.subscribe());
        loop {
            height.wait_for(|h| *h >= next).await.unwrap();
            let mut frame = self.state.lock().unwrap().frames[next as usize - 1].clone();
            frame.entries.retain(|(_, e)| writers.is_empty() || writers.contains(&e.writer));
            send(&mut stream, &NodeReply::Frame { body: frame }).await?;
            next += 1;
        }
    }

    fn reply(&self, request: NodeRequest) -> NodeReply {
        let s = self.state.lock().unwrap();
        match request {
            NodeRequest::Head {} => {
                let f = s.frames.last().unwrap();
                let (height, tick_ms) = (f.height, f.tick_ms);
                let body = HeadView {
                    chain: "city".into(),
                    height,
                    tick_ms,
                    app_hash: [0; 32],
                    log_size: 0,
                    meta_rev: s.meta_rev,
                    app_version: 1,
                };
                NodeReply::Head { body }
            }
            NodeRequest::Writer { writer } => NodeReply::Writer { body: s.writers.get(writer.as_str()).cloned() },
            NodeRequest::Keys { agency } => {
                NodeReply::Keys { body: s.keys.iter().filter(|k| k.agency == agency).cloned().collect() }
            }
            NodeRequest::Key { key_id } => {
                NodeReply::Keys { body: s.keys.iter().filter(|k| k.key.key_id() == key_id).cloned().collect() }
            }
            NodeRequest::Counters { key_id } => {
                NodeReply::Counters { urgent: 0, other: s.counters.get(&key_id).copied().unwrap_or(0) }
            }
            NodeRequest::Session { session } => {
                NodeReply::Session { body: s.sessions.iter().find(|v| v.session == session).cloned() }
            }
            NodeRequest::SessionByKey { key } => {
                NodeReply::Session { body: s.sessions.iter().find(|v| v.key == key).cloned() }
            }
            NodeRequest::Datasets {} => NodeReply::Datasets { body: s.datasets.clone() },
            NodeRequest::Agreements {} => NodeReply::Agreements { body: s.agreements.clone() },
            NodeRequest::Subscription { provider, subscription } => {
                let last_sub_seq = s.anchored.get(&(provider.to_string(), subscription)).copied().unwrap_or(0);
                NodeReply::Subscription { last_sub_seq }
            }
            _ => NodeReply::Error { code: codes::UNKNOWN_KIND, detail: "not here".into() },
        }
    }
}

/// The ledger's rules for `publish` and `deliver`.
fn judge(s: &mut State, writer: &WriterId, op: &Op, tick_ms: u64) -> (Verdict, u16) {
    match op {
        Op::Publish { dataset, last_seq, count, .. } => {
            let Some(d) = s.datasets.iter_mut().find(|d| d.number == *dataset) else {
                return (Verdict::Refused, codes::UNKNOWN_DATASET);
            };
            if last_seq.checked_sub(*count) != Some(d.head) {
                return (Verdict::Refused, codes::DATASET_HEAD);
            }
            d.head = *last_seq;
            (Verdict::Accepted, codes::OK)
        }
        Op::Deliver { subscription, last_sub_seq, count, oldest_ms, .. } => {
            let at = s.anchored.entry((writer.agency().to_string(), *subscription)).or_default();
            if last_sub_seq.checked_sub(*count) != Some(*at) {
                return (Verdict::Refused, codes::SUB_SEQUENCE);
            }
            *at = *last_sub_seq;
            if s.agreements.iter().any(|a| a.status != Status::Active) {
                return (Verdict::Uncovered, codes::SUSPENDED);
            }
            if tick_ms > oldest_ms + 2_000 {
                (Verdict::Late, codes::BOUNDED_LATE)
            } else {
                (Verdict::Accepted, codes::OK)
            }
        }
        _ => (Verdict::Accepted, codes::OK),
    }
}

async fn send(stream: &mut UnixStream, reply: &NodeReply) -> std::io::Result<()> {
    let body = cbor::encode(reply);
    stream.write_u32(body.len() as u32).await?;
    stream.write_all(&body).await
}

/// A writer that the ledger knows.
pub fn writer(name: &str, key: [u8; 32]) -> (String, WriterView) {
    (
        name.into(),
        WriterView { writer: WriterId::new(name).unwrap(), key, incarnation: 1, last_seq: 0, last_hash: [0; 32] },
    )
}
