//! A fake ledger node with its CometBFT: it checks signatures, counters and the life of sessions as the real one does.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::gateway::testing::{CHAIN, Pair, agency, stops};
use axum::extract::State;
use concordat_protocol::acts::{Act, ActBody, act_hash};
use concordat_protocol::cbor::{self, Canon};
use concordat_protocol::codes::Verdict;
use concordat_protocol::keys::{PublicKey, Statement};
use concordat_protocol::node::{DatasetView, Frame, HeadView, NodeReply, NodeRequest, SessionView, WriterView};
use concordat_protocol::ops::{LogEntry, Tx};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// The fake node's state.
pub struct Ledger {
    frames: Vec<Frame>,
    pub log: Vec<LogEntry>,
    pub sessions: Vec<SessionView>,
    counters: BTreeMap<[u8; 16], u64>,
    gateway: PublicKey,
    writer: [u8; 32],
    pair: Arc<Pair>,
    height: watch::Sender<u64>,
}

impl Ledger {
    pub fn new(gateway: PublicKey, writer: [u8; 32], pair: Arc<Pair>) -> Self {
        let height = watch::channel(0).0;
        let mut ledger = Self {
            frames: vec![],
            log: vec![],
            sessions: vec![],
            counters: BTreeMap::new(),
            gateway,
            writer,
            pair,
            height,
        };
        ledger.commit("act:court", [0; 32]);
        ledger
    }

    pub fn commit(&mut self, writer: &str, op_hash: [u8; 32]) -> (u64, u64) {
        let (height, index) = (self.frames.len() as u64 + 1, self.log.len() as u64);
        let tick_ms = 90_000_000 + height * 1_000;
        let entry = LogEntry {
            height,
            tick_ms,
            writer: writer.into(),
            incarnation: 1,
            seq: index + 1,
            op_hash,
            verdict: Verdict::Accepted,
            code: 0,
        };
        self.log.push(entry.clone());
        let entries = vec![(index, entry)];
        self.frames.push(Frame { height, tick_ms, app_hash: [0; 32], meta_rev: 1, entries });
        self.height.send_replace(height);
        (index, height)
    }

    fn head(&self) -> HeadView {
        let last = self.frames.last().unwrap();
        HeadView {
            chain: CHAIN.into(),
            height: last.height,
            tick_ms: last.tick_ms,
            app_hash: last.app_hash,
            log_size: self.log.len() as u64,
            meta_rev: 1,
            app_version: 1,
        }
    }

    fn answer(&self, request: NodeRequest) -> NodeReply {
        use NodeRequest as Q;
        match request {
            Q::Head {} => NodeReply::Head { body: self.head() },
            Q::Session { session } => {
                NodeReply::Session { body: self.sessions.iter().find(|s| s.session == session).cloned() }
            }
            Q::SessionByKey { key } => {
                NodeReply::Session { body: self.sessions.iter().find(|s| s.key == key).cloned() }
            }
            Q::Key { key_id } => {
                let key = Some(self.pair.key_view()).filter(|k| k.key.key_id() == key_id);
                NodeReply::Keys { body: key.into_iter().collect() }
            }
            Q::Datasets {} => NodeReply::Datasets {
                body: vec![DatasetView { id: stops(), number: 1, schema_hash: [0; 32], head: 0 }],
            },
            Q::RoleMaps { .. } => NodeReply::RoleMaps { body: vec![] },
            Q::Reviews {} => NodeReply::Reviews { body: vec![] },
            Q::Agreements {} => NodeReply::Agreements { body: self.pair.agreements.clone() },
            Q::Counters { key_id } => {
                NodeReply::Counters { urgent: 0, other: self.counters.get(&key_id.0).copied().unwrap_or_default() }
            }
            Q::Writer { writer } => NodeReply::Writer {
                body: Some(WriterView { writer, key: self.writer, incarnation: 1, last_seq: 0, last_hash: [0; 32] }),
            },
            Q::Log { from, count } => NodeReply::Log {
                from,
                entries: self.log.iter().skip(from as usize).take(count as usize).cloned().collect(),
            },
            Q::Checkpoints { .. } => NodeReply::Checkpoints { body: Vec::new() },
            Q::Disputes {} => NodeReply::Disputes { body: Vec::new() },
            Q::Agencies {} => NodeReply::Agencies { body: vec![agency("court"), agency("police")] },
            _ => NodeReply::Error { code: 102, detail: "not in this fake".into() },
        }
    }

    /// What CheckTx and the block do with a transaction: the code, and what became of it.
    fn take(&mut self, tx: &[u8]) -> u16 {
        let Ok(Tx::Act { body, signature }) = cbor::decode::<Tx>(tx) else { return 100 };
        let Ok(act) = cbor::decode::<Act>(&body) else { return 100 };
        if self.gateway.verify_classical(Statement::Act, CHAIN, &body, &signature).is_err() {
            return 200;
        }
        let counter = self.counters.entry(act.key_id.0).or_default();
        if act.counter != *counter + 1 {
            return if act.counter > *counter { 302 } else { 304 };
        }
        *counter += 1;
        let expiry = self.frames.last().unwrap().tick_ms + 24 * 3_600_000;
        if let ActBody::SessionOpen { provider, keys, expires_ms } = &act.body {
            assert!(*expires_ms <= expiry, "at most a day");
            for key in keys {
                let session = 70 + self.sessions.len() as u64;
                let (consumer, provider) = (act.agency.clone(), provider.clone());
                self.sessions.push(SessionView {
                    session,
                    consumer,
                    provider,
                    key: key.key,
                    expires_ms: *expires_ms,
                    newest_n: 0,
                });
            }
        }
        self.commit(&format!("act:{}", act.agency), act_hash(&act));
        0
    }
}

pub type Shared = Arc<Mutex<Ledger>>;

async fn send<T: Canon>(stream: &mut UnixStream, v: &T) -> std::io::Result<()> {
    let body = cbor::encode(v);
    stream.write_all(&[&(body.len() as u32).to_be_bytes()[..], &body].concat()).await
}

pub async fn serve_node(listener: UnixListener, ledger: Shared) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let ledger = ledger.clone();
        tokio::spawn(async move {
            while let Ok(len) = stream.read_u32().await {
                let mut body = vec![0; len as usize];
                stream.read_exact(&mut body).await?;
                match cbor::decode::<NodeRequest>(&body).unwrap() {
                    NodeRequest::Subscribe { from_height, writers } => {
                        return follow(stream, ledger, from_height, &writers).await;
                    }
                    request => {
                        let reply = ledger.lock().unwrap().answer(request);
                        send(&mut stream, &reply).await?;
                    }
                }
            }
            Ok::<(), std::io::Error>(())
        });
    }
}

async fn follow(mut stream: UnixStream, ledger: Shared, mut next: u64, writers: &[String]) -> std::io::Result<()> {
    let mut height = ledger.lock().unwrap().height.subscribe();
    loop {
        if height.wait_for(|h| *h >= next).await.is_err() {
            return Ok(());
        }
        let mut frame = ledger.lock().unwrap().frames[next as usize - 1].clone();
        frame.entries.retain(|(_, e)| writers.is_empty() || writers.contains(&e.writer));
        send(&mut stream, &NodeReply::Frame { body: frame }).await?;
        next += 1;
    }
}

pub async fn broadcast(State(ledger): State<Shared>, body: String) -> axum::Json<serde_json::Value> {
    let tx = hex::decode(body.strip_prefix("tx=0x").unwrap()).unwrap();
    let code = ledger.lock().unwrap().take(&tx);
    axum::Json(json!({"result": {"code": code, "log": ""}}))
}
