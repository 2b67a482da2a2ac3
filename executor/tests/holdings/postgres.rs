//! A PostgreSQL of this test run's own: a cluster in a temporary folder, on a socket there, run by a user who is not root.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use concordat_executor::holding::{Holding, PostgresHolding, PostgresOptions};

use crate::{Store, options};

/// The running cluster. Its shell stops it when this process ends, however that happens: its standard input closes.
struct Cluster {
    _shell: Child,
    folder: PathBuf,
}

/// Where Debian's package or the search path has the programs.
fn programs() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path().join("bin"))
        .collect();
    found.sort();
    found.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    found.into_iter().rev().find(|p| p.join("initdb").is_file() && p.join("postgres").is_file())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.starts_with(b"0\n"))
}

const RUN: &str = r#"
set -eu
trap 'kill -INT "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; rm -rf "$1"' EXIT
pid=
if [[ -n $3 ]]; then
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE -keyout "$1/key.pem" -out "$1/cert.pem" 2>"$1/log"
fi
"$2/initdb" -D "$1/data" -U owner -A trust -E UTF8 --locale=C --no-sync >"$1/log" 2>&1
"$2/postgres" -D "$1/data" -k "$1" -c listen_addresses= -c fsync=off -c max_connections=200 $3 >>"$1/log" 2>&1 &
pid=$!
read -r _ || true
"#;

fn start(word: &str, tls_port: Option<u16>) -> Result<Cluster, String> {
    let programs = programs().ok_or("PostgreSQL is not installed (Debian: postgresql)")?;
    let folder = std::env::temp_dir().join(format!("concordat-pg-{word}-{}", std::process::id()));
    std::fs::create_dir(&folder).map_err(|e| e.to_string())?;
    let mut command = if is_root() {
        // The database refuses to be run by root.
        let chown = Command::new("chown").arg("nobody").arg(&folder).status().map_err(|e| e.to_string())?;
        if !chown.success() {
            return Err("the cluster's folder could not be given to nobody".into());
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "bash"]);
        command
    } else {
        Command::new("bash")
    };
    let tls = tls_port.map(|port| {
        let at = folder.display();
        format!("-c listen_addresses=127.0.0.1 -p {port} -c ssl=on -c ssl_cert_file={at}/cert.pem -c ssl_key_file={at}/key.pem")
    });
    command.args(["-c", RUN, "postgres"]).arg(&folder).arg(&programs).arg(tls.unwrap_or_default());
    let socket_port = tls_port.unwrap_or(5_432);
    let shell = command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let cluster = Cluster { _shell: shell.map_err(|e| e.to_string())?, folder };
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match PostgresHolding::open(&uri(&cluster.folder, socket_port, "owner"), PostgresOptions::default()) {
            Ok(_) => return Ok(cluster),
            Err(e) if Instant::now() >= end => {
                let log = std::fs::read_to_string(cluster.folder.join("log")).unwrap_or_default();
                return Err(format!("{e}\n{log}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn uri(folder: &Path, port: u16, user: &str) -> String {
    let host = folder.display().to_string().replace('/', "%2F");
    format!("postgresql://{user}@{host}:{port}/postgres")
}

fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
    match CLUSTER.get_or_init(|| start("plain", None)) {
        Ok(cluster) => Some(cluster),
        Err(why) => {
            // What does not start is an error; what is not installed is not.
            assert!(why.contains("not installed"), "{why}");
            eprintln!("SKIPPED postgresql: {why}");
            None
        }
    }
}

/// The URI of the cluster for a login.
pub fn uri_for(user: &str) -> Option<String> {
    Some(uri(&cluster()?.folder, 5_432, user))
}

/// Runs SQL as the cluster's owner.
pub fn sql(text: &str) {
    let folder = &cluster().expect("a test that has a store has a cluster").folder;
    let out = Command::new("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "owner", "-d", "postgres", "-c", text])
        .arg("-h")
        .arg(folder)
        .output()
        .unwrap();
    assert!(out.status.success(), "{text}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A name no other test of this run uses.
pub fn unique(word: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{word}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// An empty store in a schema of its own.
pub fn fresh() -> Option<Store> {
    let uri = uri_for("owner")?;
    let schema = unique("t");
    let open = move || -> Box<dyn Holding> {
        Box::new(PostgresHolding::open(&uri, PostgresOptions { schema: schema.clone(), ..options() }).unwrap())
    };
    Some(Store { holding: open(), reopen: Box::new(open), indexed: "Index Cond", _keep: None })
}

#[test]
fn tls_is_spoken_to_the_named_authority_and_to_no_other() {
    if programs().is_none() || Command::new("openssl").arg("version").output().is_err() {
        return eprintln!("SKIPPED postgresql tls: PostgreSQL or the openssl command is not here");
    }
    // Free now; another program may take it before the cluster does, which then says so.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let cluster = start("tls", Some(port)).unwrap();
    let ca = |path: PathBuf| PostgresOptions { ca: Some(path), ..options() };
    let own = ca(cluster.folder.join("cert.pem"));
    let open = |mode: &str, host: &str, options: &PostgresOptions| {
        PostgresHolding::open(&format!("postgresql://owner@{host}:{port}/postgres?sslmode={mode}"), options.clone())
    };
    open("require", "localhost", &own).unwrap();
    open("disable", "localhost", &options()).unwrap();
    // The machine's own authorities did not sign it, and it is nobody else's.
    for (host, options) in [("localhost", options()), ("127.0.0.1", own)] {
        let e = open("require", host, &options).err().unwrap();
        assert_eq!(e.code(), "holding.unreachable", "{e}");
        assert!(e.to_string().contains("certificate"), "{e}");
    }
    let e = open("require", "localhost", &ca(cluster.folder.join("none.pem"))).err().unwrap();
    assert_eq!(e.code(), "holding.setup", "{e}");
}
