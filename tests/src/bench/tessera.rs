//! Beside the ledger's append path: a transparency log in Go, Tessera on POSIX files, as its own conformance server.
//!
//! It appends and proves, and judges nothing: no signature, no agreement, no other machine that has to agree.

use super::chain::Programs;
use super::failed::BenchError;
use super::http::Connection;
use super::ordered::Stretch;
use super::process::{CpuMeter, Process};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use concordat_broker::config::RpcAddr;
use concordat_protocol::hash::sha256;
use concordat_protocol::keys::{SigningKey, Suite};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::task::JoinSet;

/// Entries on their way at a time: a batch of Tessera's is 256, and the next one fills meanwhile.
pub const CONNECTIONS: u64 = 1_024;
/// Name of the log in its notes.
const ORIGIN: &str = "bench";

/// Entries a second that the log has sequenced and answered, with the processor time it took.
pub async fn appends(
    programs: &Programs,
    program: &Path,
    stretch: Stretch,
) -> Result<(f64, Vec<(String, f64)>), BenchError> {
    let folders =
        tempfile::Builder::new().prefix("cb").tempdir().map_err(|e| BenchError::io("a temporary folder", e))?;
    let key = folders.path().join("key");
    std::fs::write(&key, note_key()?).map_err(|e| BenchError::io(format!("writing {}", key.display()), e))?;
    let addr = free_port()?;
    let args = [
        format!("--listen={addr}"),
        format!("--storage_dir={}", folders.path().join("log").display()),
        format!("--private_key={}", key.display()),
    ];
    let args: Vec<_> = args.into_iter().map(Into::into).collect();
    let mut log = Process::start("tessera", folders.path(), programs, program, &args)?;
    log.wait_up(10, || std::net::TcpStream::connect(&addr).is_ok()).await?;
    let done = Arc::new(AtomicU64::new(0));
    let mut adding = JoinSet::new();
    for c in 0..CONNECTIONS {
        adding.spawn(add(RpcAddr::Tcp(addr.clone()), c, Arc::clone(&done)));
    }
    tokio::time::sleep(stretch.warm_up).await;
    log.check()?;
    let meter = CpuMeter::start([("tessera".to_owned(), vec![log.pid()])]);
    let (begun, before) = (Instant::now(), done.load(Ordering::SeqCst));
    tokio::time::sleep(stretch.measured).await;
    let (count, seconds, cpu) = (done.load(Ordering::SeqCst) - before, begun.elapsed().as_secs_f64(), meter.stop());
    adding.abort_all();
    log.check()?;
    if count == 0 {
        return Err(log.failed("took no entry"));
    }
    Ok((count as f64 / seconds, cpu))
}

/// One connection: an entry as long as an operation with a tag, its answer, the next one.
async fn add(addr: RpcAddr, connection: u64, done: Arc<AtomicU64>) {
    let mut open = Connection::new(&addr);
    for n in 0u64.. {
        let entry = format!("{connection:016x}{n:048x}");
        if open.post("/add", "", entry.as_bytes()).await.is_ok_and(|a| a.status == 200) {
            done.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn free_port() -> Result<String, BenchError> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    listener.map(|a| a.to_string()).map_err(|e| BenchError::io("a free port", e))
}

/// A fresh signer key in the format of Go's `sumdb/note`.
fn note_key() -> Result<String, BenchError> {
    let refused = |e: &dyn std::fmt::Display| BenchError::refused("a note key", e);
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| std::io::Read::read_exact(&mut f, &mut seed))
        .map_err(|e| BenchError::io("randomness", e))?;
    let key = SigningKey::from_seed(Suite::Ed25519, &seed).map_err(|e| refused(&e))?;
    let public = [&[1][..], &key.public().ed25519].concat();
    let id = sha256(&[ORIGIN.as_bytes(), b"\n", &public]);
    let secret = [&[1][..], &seed].concat();
    Ok(format!("PRIVATE+KEY+{ORIGIN}+{}+{}", hex::encode(&id[..4]), STANDARD.encode(secret)))
}
