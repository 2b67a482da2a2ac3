//! A real nats-server of a test's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The pinned nats-server; none when it is not installed (an error in CI).
pub fn nats_binary() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let dirs = [
        std::env::var_os("CONCORDAT_SERVERS").map(PathBuf::from),
        Some(home.join(".cache/concordat/servers/nats-server-2.15.2")),
    ];
    let found = dirs.into_iter().flatten().map(|d| d.join("nats-server")).find(|p| p.exists());
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nats-server 2.15.2 is missing: run `make servers`");
        eprintln!("SKIPPED: nats-server 2.15.2 is missing: run `make servers`");
    }
    found
}

fn nats_conf(port: u16, store: &Path) -> String {
    let agency = |a: &str, u: &str| {
        format!(
            "{a}: {{ jetstream: enabled, users: [ {{user: {u}, password: p}} ],
              exports: [ {{service: \"q.*.{a}.>\", accounts: [EXCHANGE]}} ], imports: [
              {{service: {{account: EXCHANGE, subject: \"q.{a}.*.>\"}}, to: \"query.*.>\", share: true}}
              {{service: {{account: EXCHANGE, subject: \"xm.{a}.>\"}}, to: \"exchange.>\"}}
              {{service: {{account: EXCHANGE, subject: \"feed.{a}.*.>\"}}, to: \"feed.*.>\"}}
              {{service: {{account: EXCHANGE, subject: \"$JS.API.STREAM.INFO.{a}\"}}, to: \"XJS.API.STREAM.INFO.{a}\"}}
              {{service: {{account: EXCHANGE, subject: \"$JS.API.CONSUMER.INFO.{a}.*\"}}, to: \"XJS.API.CONSUMER.INFO.{a}.*\"}}
              {{service: {{account: EXCHANGE, subject: \"$JS.API.CONSUMER.MSG.NEXT.{a}.*\"}}, to: \"XJS.API.CONSUMER.MSG.NEXT.{a}.*\"}}
              {{service: {{account: EXCHANGE, subject: \"$JS.ACK.{a}.>\"}}}} ] }}\n"
        )
    };
    format!(
        "listen: \"127.0.0.1:{port}\"\nmax_payload: 8388608\njetstream {{ store_dir: \"{}\", sync_interval: always, max_file_store: 1099511627776 }}\naccounts {{
        EXCHANGE: {{ jetstream: enabled, users: [ {{user: exchange, password: p}} ], exports: [
          {{service: \"feed.*.*.>\", account_token_position: 2}}
          {{service: \"q.*.*.>\", account_token_position: 2}}
          {{service: \"xm.*.>\", account_token_position: 2}}
          {{service: \"$JS.API.STREAM.INFO.*\", account_token_position: 5}}
          {{service: \"$JS.API.CONSUMER.INFO.*.*\", account_token_position: 5}}
          {{service: \"$JS.API.CONSUMER.MSG.NEXT.*.*\", account_token_position: 6, response_type: stream}}
          {{service: \"$JS.ACK.*.>\", account_token_position: 3}} ],
          imports: [ {{service: {{account: GRID, subject: \"q.TRANSPORT.GRID.>\"}}}} ] }}\n{}{} }}\n",
        store.display(),
        agency("GRID", "grid"),
        agency("TRANSPORT", "transport"),
    )
}

/// A real server that ends with the test.
pub struct Nats {
    child: Option<Child>,
    binary: PathBuf,
    conf: PathBuf,
    pub url: String,
}

impl Nats {
    pub fn start(binary: PathBuf, dir: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let conf = dir.join("nats.conf");
        std::fs::write(&conf, nats_conf(port, &dir.join("js"))).unwrap();
        let mut nats = Self { child: None, binary, conf, url: format!("nats://127.0.0.1:{port}") };
        nats.again();
        nats
    }

    /// Kills the server, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn again(&mut self) {
        self.kill();
        let mut command = Command::new(&self.binary);
        self.child =
            Some(command.arg("-c").arg(&self.conf).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    pub async fn connect(&self, user: &str) -> async_nats::Client {
        connect(&self.url, user).await
    }
}

/// A client of a test's own, which waits for the server.
pub async fn connect(url: &str, user: &str) -> async_nats::Client {
    let options =
        async_nats::ConnectOptions::with_user_and_password(user.into(), "p".into()).retry_on_initial_connect();
    options.connect(url).await.unwrap()
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}
