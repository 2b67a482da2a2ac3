#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::SecretRef;
use crate::http::testing::nats_server;
use serde_json::json;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn page(id: &str, config: Value) -> (String, Result<Value, String>) {
    ("http://m".into(), Ok(json!({"server_id": id, "jetstream": {"config": config}})))
}

#[test]
fn only_the_connected_server_that_syncs_always_passes() {
    let always = json!({"sync_interval": 120_000_000_000_u64, "sync_always": true});
    let default = json!({"sync_interval": 120_000_000_000_u64});
    assert_eq!(judge("A", &[page("A", always.clone())]), Verdict::Durable);
    assert!(
        matches!(judge("A", &[page("A", default.clone())]), Verdict::Refused(why) if why.contains("sync_interval: always"))
    );
    assert!(matches!(judge("A", &[page("A", json!({"sync_always": "true"}))]), Verdict::Refused(_)), "not the word");
    assert!(matches!(judge("A", &[]), Verdict::Refused(why) if why.contains("monitor: [")));
    assert!(matches!(judge("A", &[page("B", always.clone())]), Verdict::Wait(why) if why.contains("not among")));
    let none = ("http://m".into(), Ok(json!({"server_id": "A", "jetstream": {}})));
    assert!(matches!(judge("A", &[none]), Verdict::Refused(why) if why.contains("no JetStream")));
    // In a cluster: one that is away says nothing, one that does not sync spoils all.
    let away = || ("http://n".to_owned(), Err("refused".to_owned()));
    assert_eq!(judge("A", &[away(), page("A", always.clone())]), Verdict::Durable);
    assert!(matches!(judge("A", &[away()]), Verdict::Wait(why) if why.contains("http://n")));
    assert!(matches!(judge("A", &[page("A", always), page("B", default)]), Verdict::Refused(_)));
}

/// A real server, with this in its `jetstream`.
struct Server {
    child: Child,
    ports: (u16, u16),
}

impl Server {
    fn start(dir: &Path, ports: (u16, u16), jetstream: &str) -> Option<Self> {
        let (conf, store) = (dir.join("nats.conf"), dir.join("js"));
        let text = format!(
            "listen: \"127.0.0.1:{}\"\nhttp: \"127.0.0.1:{}\"\njetstream {{ store_dir: \"{}\", {jetstream} }}\n",
            ports.0,
            ports.1,
            store.display()
        );
        std::fs::write(&conf, text).unwrap();
        let child = Command::new(nats_server()?).arg("-c").arg(&conf).stderr(Stdio::null()).spawn().unwrap();
        Some(Self { child, ports })
    }

    fn config(&self) -> NatsConfig {
        NatsConfig {
            url: format!("nats://127.0.0.1:{}", self.ports.0),
            monitor: vec![format!("http://127.0.0.1:{}", self.ports.1)],
            user: "u".into(),
            password: SecretRef::File("p".into()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ports() -> (u16, u16) {
    let held = [0, 0].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [a, b] = held.map(|l| l.local_addr().unwrap().port());
    (a, b)
}

/// The state that a watch comes to.
async fn comes_to(durable: &Durable, what: &str, is: impl Fn(&Result<String, NotDurable>) -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let now = durable.confirmed();
        if is(&now) {
            return;
        }
        assert!(Instant::now() < end, "{what}: {now:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_is_confirmed_for_one_run_and_refused_when_it_does_not_sync() {
    let (dir, at) = (tempfile::tempdir().unwrap(), ports());
    let Some(server) = Server::start(dir.path(), at, "sync_interval: always") else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nats-server 2.15.2 is missing: run `make servers`");
        return eprintln!("SKIPPED: nats-server 2.15.2 is missing: run `make servers`");
    };
    let client = connect_options(&server.config(), "", "t").connect(server.config().url).await.unwrap();
    let durable = Durable::start(&client, &server.config());
    durable.ready().await.unwrap();
    let first = durable.confirmed().unwrap();
    // Started again it is another one, and confirmed anew.
    drop(server);
    let server = Server::start(dir.path(), at, "sync_interval: always").unwrap();
    comes_to(&durable, "the second run", |c| c.as_ref().is_ok_and(|id| *id != first)).await;
    // Started again with the default, it is refused, for good.
    drop(server);
    let server = Server::start(dir.path(), at, "").unwrap();
    let why = tokio::time::timeout(Duration::from_secs(20), durable.refused()).await.unwrap();
    assert!(matches!(&why, NotDurable::Refused(w) if w.contains("sync_interval: always")), "{why}");
    assert_eq!(durable.confirmed().unwrap_err(), why);
    // And at the start of a process.
    let why = Durable::start(&client, &server.config()).ready().await.unwrap_err();
    assert!(why.to_string().contains("sync_interval: always"), "{why}");
    let none = NatsConfig { monitor: vec![], ..server.config() };
    let why = Durable::start(&client, &none).ready().await.unwrap_err();
    assert!(why.to_string().contains("`nats.monitor`"), "{why}");
}
