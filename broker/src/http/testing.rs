//! A court's broker on a fake ledger node, a fake CometBFT and a fake police, with a real nats-server between them.
//! The fakes enforce the contract: signatures, counters, sessions, one answer a request.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::testing_ledger::{Ledger, Shared, broadcast, serve_node};
use crate::config::{CometConfig, ExchangeNames, NatsConfig, NodeConfig, NodeLimits, SecretRef};
use crate::gateway::testing::{CHAIN, Pair, agency};
use crate::http::auth::{TokenEntry, TokenFile};
use crate::keys::{self, KeyFolder};
use axum::Router;
use axum::routing::{get, post};
use concordat_executor::admit::{Signatures, read_request, verify_call};
use concordat_protocol::cbor;
use concordat_protocol::keys::{PublicKey, Suite};
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
use tokio::net::UnixListener;

pub const CLERK: &str = "clerk-token-0123456789abcdef0123456789";
pub const OTHER: &str = "other-token-0123456789abcdef0123456789";
pub const OPERATOR: &str = "operator-token-0123456789abcdef012345";
pub const ADAPTER: &str = "adapter-token-0123456789abcdef0123456";

/// What the fake police does with a call.
#[derive(Clone)]
pub enum Conduct {
    Honest,
    Deny(Denied),
    /// Records the first call and withholds its answer, as after a restart.
    WithholdFirst,
    /// Changes a true answer before it is sent.
    Tamper(fn(&mut Released)),
    /// Records, but the first so many answers get lost on their way.
    Lose(u32),
}

/// What was asked and answered by (session, n).
type Done = BTreeMap<(u64, u64), (Request, Vec<u8>)>;

/// The fake police: its executor is the executor's own code, its ledger the fake one.
pub struct Police {
    ledger: Shared,
    pair: Arc<Pair>,
    pub conduct: Mutex<Conduct>,
    /// Every call that came, as bytes.
    pub calls: Mutex<Vec<Vec<u8>>>,
    done: Mutex<Done>,
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
        if let Conduct::WithholdFirst = *conduct {
            *conduct = Conduct::Honest;
            let reason = concordat_executor::step::Reason::Withheld;
            return Some(cbor::encode(&QueryReply::Denied { body: concordat_executor::step::refuse(reason) }));
        }
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
        verify_call(call, request.clone(), CHAIN, &agency("police"), &session, &Signatures::default())
            .expect("a signed call");
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
    let token = |name: &str, role: &str, token: &str| TokenEntry {
        name: name.into(),
        roles: vec![role.into()],
        token: token.into(),
    };
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
        nats: NatsConfig {
            url: format!("nats://127.0.0.1:{nats}"),
            monitor: Vec::new(),
            user: "court".into(),
            password: SecretRef::File("keys/nats.password".into()),
        },
        exchange: ExchangeNames { account: "EXCHANGE".into(), own: "COURT".into() },
        comet: CometConfig { rpc: format!("http://127.0.0.1:{rpc}"), p2p: "127.0.0.1:2".into() },
        node_socket: "node.sock".into(),
        abci_socket: "abci.sock".into(),
        peers: vec![],
        autostart: vec![],
        executor: Default::default(),
        key_passphrase: None,
        holding: None,
        key_passphrases: Default::default(),
        limits: NodeLimits { query_ms, ..NodeLimits::default() },
        timestamp: None,
        oidc: None,
        citizens: None,
        hosted: None,
        notices: None,
        tls: None,
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
        let ledger = Ledger::new(gateway, writer, pair.clone());
        let ledger = Arc::new(Mutex::new(ledger));
        tokio::spawn(serve_node(UnixListener::bind(dir.join("node.sock")).unwrap(), ledger.clone()));
        let status =
            json!({"result": {"sync_info": {"latest_block_height": "1", "latest_app_hash": "", "catching_up": false}}});
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
        self.ledger.lock().unwrap().log.iter().filter(|e| e.writer == "police/executor").count()
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
