//! A MongoDB: the server that MONGODB_URI names, in a database of this run's own, or the pinned FerretDB that
//! tests/servers/ensure.sh builds, with its data in a temporary folder. FerretDB never uses an index.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use concordat_executor::holding::{Holding, MongoHolding, MongoOptions};

use crate::Store;
use crate::postgres::unique;

struct Server {
    /// Ends when its standard input does: with this process.
    _child: Option<Child>,
    uri: String,
    /// Whether it is a MongoDB, which uses indexes.
    real: bool,
}

/// The pinned program, where `ensure.sh ferretdb` has put it.
fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CONCORDAT_FERRETDB") {
        return Some(path.into());
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("concordat/servers/ferretdb-1.24.0/ferretdb")).filter(|p| p.is_file())
}

fn start() -> Option<Server> {
    if let Ok(uri) = std::env::var("MONGODB_URI") {
        return Some(Server { _child: None, uri, real: true });
    }
    let program = program()?;
    let folder = std::env::temp_dir().join(format!("concordat-ferretdb-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let script = r#"trap 'rm -rf "$2"' EXIT; "$1" "$2""#;
    let mut child = Command::new("bash")
        .args(["-c", script, "ferretdb"])
        .arg(program)
        .arg(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("mongodb://"), "FerretDB did not start: {line:?}");
    Some(Server { _child: Some(child), uri: line.trim().to_owned(), real: false })
}

fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(start).as_ref();
    if server.is_none() {
        eprintln!(
            "SKIPPED mongodb: MONGODB_URI is not set and FerretDB is missing: run tests/servers/ensure.sh ferretdb"
        );
    }
    server
}

/// An empty store in a database of its own.
pub fn fresh() -> Option<Store> {
    let server = server()?;
    let database = format!("concordat_test_{}_{}", std::process::id(), unique("m"));
    let (uri, of) = (server.uri.clone(), database.clone());
    let open = move || -> Box<dyn Holding> {
        let timeout = std::time::Duration::from_secs(30);
        let options =
            MongoOptions { database: Some(of.clone()), statement_timeout: timeout, ..MongoOptions::default() };
        Box::new(MongoHolding::open(&uri, options).unwrap())
    };
    Some(Store { holding: open(), reopen: Box::new(open), indexed: "IXSCAN", _keep: None })
}

/// The same, only where the server is a MongoDB and not FerretDB.
pub fn itself() -> Option<Store> {
    if server()?.real {
        return fresh();
    }
    eprintln!("SKIPPED mongodb indexes and races: FerretDB has neither; set MONGODB_URI to a MongoDB");
    None
}
