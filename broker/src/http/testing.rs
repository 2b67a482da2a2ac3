//! A court's broker on a fake ledger node, a fake CometBFT and a fake police, with a real nats-server between them.
//! The fakes enforce the contract: signatures, counters, sessions, one answer a request.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::config::{CometConfig, ExchangeNames, NatsConfig, NodeConfig, NodeLimits, SecretRef};
use crate::gateway::testing::{CHAIN, Pair, agency, stops};
use crate::http::auth::{TokenEntry, TokenFile};
use crate::keys::{self, KeyFolder};
use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use concordat_executor::admit::{read_request, verify_call};
use concordat_protocol::acts::{Act, ActBody, act_hash};
use concordat_protocol::cbor::{self, Canon};
use concordat_protocol::codes::Verdict;
use concordat_protocol::ids::WriterId;
use concordat_protocol::keys::{PublicKey, Statement, Suite};
use concordat_protocol::node::{DatasetView, Frame, HeadView, NodeReply, NodeRequest, SessionView, WriterView};
use concordat_protocol::ops::{LogEntry, Tx};
use concordat_protocol::seal::SealSender;
use concordat_protocol::session::{Denied, QueryCall, QueryReply, Released, Request};
use futures::StreamExt;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

pub const CLERK: &str = "clerk-token-0123456789abcdef0123456789";
pub const OTHER: &str = "other-token-0123456789abcdef0123456789";
pub const OPERATOR: &str = "operator-token-0123456789abcdef012345";
pub const ADAPTER: &str = "adapter-token-0123456789abcdef0123456";

/// What the fake police does with a call.
#[derive(Clone)]
pub enum Conduct {
    Honest,
    Deny(Denied),
    /// Changes a true answer before it is sent.
    Tamper(fn(&mut Released)),
    /// Records, but the first so many answers get lost on their way.
    Lose(u32),
}

/// The fake node's state.
pub struct Ledger {
    frames: Vec<Frame>,
    log: Vec<LogEntry>,
    sessions: Vec<SessionView>,
    counters: BTreeMap<[u8; 16], u64>,
    gateway: PublicKey,
    writer: [u8; 32],
    pair: Arc<Pair>,
    height: watch::Sender<u64>,
}

impl Ledger {
    fn commit(&mut self, writer: &str, op_hash: [u8; 32]) -> (u64, u64) {
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
            Q::SessionByKey { key } => NodeReply::Session { body: self.sessions.iter().find(|s| s.key == key).cloned() },
            Q::Key { key_id } => {
                let key = Some(self.pair.key_view()).filter(|k| k.key.key_id() == key_id);
                NodeReply::Keys { body: key.into_iter().collect() }
            }
            Q::Datasets {} => NodeReply::Datasets {
                body: vec![DatasetView { id: stops(), number: 1, schema_hash: [0; 32], head: 0 }],
            },
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
                self.sessions.push(SessionView { session, consumer, provider, key: key.key, expires_ms: *expires_ms, newest_n: 0 });
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

async fn serve_node(listener: UnixListener, ledger: Shared) {
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

async fn broadcast(State(ledger): State<Shared>, body: String) -> axum::Json<serde_json::Value> {
    let tx = hex::decode(body.strip_prefix("tx=0x").unwrap()).unwrap();
    let code = ledger.lock().unwrap().take(&tx);
    axum::Json(json!({"result": {"code": code, "log": ""}}))
}

/// The fake police: its executor is the executor's own code, its ledger the fake one.
pub struct Police {
    ledger: Shared,
    pair: Arc<Pair>,
    pub conduct: Mutex<Conduct>,
    /// Every call that came, as bytes.
    pub calls: Mutex<Vec<Vec<u8>>>,
    done: Mutex<BTreeMap<(u64, u64), (Request, Vec<u8>)>>,
    senders: Mutex<BTreeMap<u64, SealSender>>,
}

impl Police {
    async fn serve(self: Arc<Self>, nats: async_nats::Client, mut calls: async_nats::Subscriber) {
        while let Some(message) = calls.next().await {
            let consumer = message.subject.split('.').nth(1).unwrap().to_owned();
            let reply = self.reply(&consumer, &message.payload);
            if let (Some(reply), Some(to)) = (reply, message.reply) {
                nats.publish(to, reply.into()).await.unwrap();
            }
        }
    }

    fn reply(&self, account: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        self.calls.lock().unwrap().push(bytes.to_vec());
        let call: QueryCall = cbor::decode(bytes).unwrap();
        let request = read_request(&call).unwrap();
        let place = (request.session, request.n);
        let conduct = self.conduct.lock().unwrap().clone();
        if let Conduct::Deny(body) = conduct {
            return Some(cbor::encode(&QueryReply::Denied { body }));
        }
        let known = self.done.lock().unwrap().get(&place).cloned();
        let reply = match known {
            Some((asked, reply)) => {
                assert_eq!(asked, request, "a (session, n) stands for one request only");
                reply
            }
            None => self.answer(account, &call, request),
        };
        let mut conduct = self.conduct.lock().unwrap();
        if let Conduct::Lose(left @ 1..) = &mut *conduct {
            *left -= 1;
            return None;
        }
        Some(reply)
    }

    fn answer(&self, account: &str, call: &QueryCall, request: Request) -> Vec<u8> {
        let place = (request.session, request.n);
        let mut ledger = self.ledger.lock().unwrap();
        let session = ledger.sessions.iter().find(|s| s.session == request.session).cloned().expect("an open session");
        verify_call(call, request.clone(), CHAIN, &agency("police"), &session).expect("a signed call");
        assert_eq!(session.consumer.account(), account, "the streams' server names the consumer");
        let rows = [json!({"stop_id": "17-1", "time": "2017-03-14T00:00:00Z"}), json!({"stop_id": "17-2"})];
        let (released, content) = self.pair.disclosed(&request, &rows);
        let at = ledger.commit("police/executor", released.ticket.op_hash);
        let mut senders = self.senders.lock().unwrap();
        let sender = senders.entry(request.session).or_insert_with(|| self.pair.sender(request.session));
        let mut body = self.pair.seal(sender, &request, released, &content, at);
        if let Conduct::Tamper(change) = &*self.conduct.lock().unwrap() {
            change(&mut body);
        }
        let reply = cbor::encode(&QueryReply::Released { body });
        self.done.lock().unwrap().insert(place, (request, reply.clone()));
        reply
    }

    pub fn calls(&self) -> Vec<Vec<u8>> {
        self.calls.lock().unwrap().clone()
    }
}

/// A running nats-server, killed when dropped.
pub struct Nats(Child, pub u16);

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The pinned nats-server, where it was built.
pub fn nats_server() -> Option<PathBuf> {
    let var = |n: &str| std::env::var_os(n).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = || Some(var("HOME")?.join(".cache/concordat/servers/nats-server-2.15.2/nats-server"));
    var("CONCORDAT_SERVERS").map(|d| d.join("nats-server")).or_else(cache).filter(|p| p.is_file())
}

fn start_nats(dir: &Path) -> Option<Nats> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let conf = format!(
        r#"listen: "127.0.0.1:{port}"
accounts {{
  EXCHANGE: {{
    exports: [ {{service: "q.*.*.>", account_token_position: 2}} ]
    imports: [ {{service: {{account: POLICE, subject: "q.*.POLICE.>"}}}} ] }}
  POLICE: {{ users: [ {{user: police, password: pw}} ], exports: [ {{service: "q.*.POLICE.>", accounts: [EXCHANGE]}} ] }}
  COURT: {{ users: [ {{user: court, password: pw}} ]
    imports: [ {{service: {{account: EXCHANGE, subject: "q.COURT.*.>"}}, to: "query.*.>", share: true}} ] }}
}}"#
    );
    let path = dir.join("nats.conf");
    std::fs::write(&path, conf).unwrap();
    let child = Command::new(nats_server()?).arg("-c").arg(&path).stderr(Stdio::null()).spawn().unwrap();
    Some(Nats(child, port))
}

/// The whole of it.
pub struct Fake {
    _dir: tempfile::TempDir,
    _nats: Nats,
    pub dir: PathBuf,
    pub police: Arc<Police>,
    pub ledger: Shared,
    pub base: String,
}

/// Writes a node's folder: configuration, keys, tokens.
fn folder(dir: &Path, nats: u16, rpc: u16, query_ms: u64, pair: &Pair) -> (PublicKey, [u8; 32]) {
    let keys = KeyFolder::new(dir.join("keys"));
    let gateway = keys.create_signing(keys::GATEWAY, Suite::Ed25519).unwrap().public().clone();
    let writer = keys.create_signing(keys::WRITER_BROKER, Suite::Ed25519).unwrap();
    let private = |name: &str, text: &str| {
        let path = dir.join("keys").join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    private("kem.key", &pair.kem.to_secret_text());
    private("nats.password", "pw");
    let token = |name: &str, role: &str, token: &str| TokenEntry { name: name.into(), roles: vec![role.into()], token: token.into() };
    let tokens = TokenFile {
        tokens: vec![
            token("clerk-1", "clerk", CLERK),
            token("clerk-2", "clerk", OTHER),
            token("operator", "operator", OPERATOR),
            token("drop", "adapter", ADAPTER),
        ],
    };
    private("tokens.yaml", &serde_json::to_string(&tokens).unwrap());
    let cfg = NodeConfig {
        version: 1,
        agency: agency("court"),
        chain: CHAIN.into(),
        listen: "127.0.0.1:1".into(),
        nats: NatsConfig { url: format!("nats://127.0.0.1:{nats}"), user: "court".into(), password: SecretRef::File("keys/nats.password".into()) },
        exchange: ExchangeNames { account: "EXCHANGE".into(), own: "COURT".into() },
        comet: CometConfig { rpc: format!("http://127.0.0.1:{rpc}"), p2p: "127.0.0.1:2".into() },
        node_socket: "node.sock".into(),
        abci_socket: "abci.sock".into(),
        peers: vec![],
        autostart: vec![],
        limits: NodeLimits { query_ms, ..NodeLimits::default() },
        dir: PathBuf::new(),
    };
    std::fs::write(dir.join("node.yaml"), serde_json::to_string(&cfg).unwrap()).unwrap();
    (gateway, writer.public().ed25519.0.clone().try_into().unwrap())
}

impl Fake {
    /// Starts everything; none where nats-server is not there.
    pub async fn start(query_ms: u64) -> Option<Self> {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().to_owned();
        let nats = start_nats(&dir)?;
        let rpc = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pair = Arc::new(Pair::new());
        let (gateway, writer) = folder(&dir, nats.1, rpc.local_addr().unwrap().port(), query_ms, &pair);
        let mut ledger = Ledger {
            frames: vec![],
            log: vec![],
            sessions: vec![],
            counters: BTreeMap::new(),
            gateway,
            writer,
            pair: pair.clone(),
            height: watch::channel(0).0,
        };
        ledger.commit("act:court", [0; 32]);
        let ledger = Arc::new(Mutex::new(ledger));
        tokio::spawn(serve_node(UnixListener::bind(dir.join("node.sock")).unwrap(), ledger.clone()));
        let status = json!({"result": {"sync_info": {"latest_block_height": "1", "latest_app_hash": "", "catching_up": false}}});
        let comet = Router::new()
            .route("/broadcast_tx_sync", post(broadcast))
            .route("/status", get(async move || axum::Json(status)))
            .with_state(ledger.clone());
        tokio::spawn(async move { axum::serve(rpc, comet).await });
        let police = Arc::new(Police {
            ledger: ledger.clone(),
            pair,
            conduct: Mutex::new(Conduct::Honest),
            calls: Mutex::default(),
            done: Mutex::default(),
            senders: Mutex::default(),
        });
        let client = connect(nats.1).await;
        let calls = client.queue_subscribe("q.*.POLICE.>", "executor".into()).await.unwrap();
        client.flush().await.unwrap();
        tokio::spawn(police.clone().serve(client, calls));
        let base = broker(&dir).await;
        Some(Self { _dir: temp, _nats: nats, dir, police, ledger, base })
    }

    pub fn ops(&self) -> usize {
        self.ledger.lock().unwrap().log.iter().filter(|e| e.writer == WriterId::new("police/executor").unwrap().as_str()).count()
    }
}

async fn connect(port: u16) -> async_nats::Client {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let options = async_nats::ConnectOptions::with_user_and_password("police".into(), "pw".into());
        match options.connect(format!("nats://127.0.0.1:{port}")).await {
            Ok(client) => return client,
            Err(e) => assert!(Instant::now() < until, "nats-server does not come up: {e}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A broker on the folder, as after every start; its base URL.
pub async fn broker(dir: &Path) -> String {
    let state = crate::service::build(dir).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, super::router(state)).await });
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let ready = reqwest::get(format!("{base}/readyz")).await.unwrap();
        if ready.status() == 200 {
            return base;
        }
        assert!(Instant::now() < until, "not ready: {}", ready.text().await.unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
