//! Messages with QoS 1 that wait in mosquitto for a persistent session: how fast they are taken, and acknowledged there only
//! after the broker's durable acknowledgement.

use super::{Amount, PROVIDER, adapter, both, document};
use crate::chain::Programs;
use crate::city::City;
use crate::failed::BenchError;
use crate::process::Process;
use crate::report::Results;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
/// Seconds that the plain reader may take for all of it.
const READ: &str = "60";
/// Messages that one `mosquitto_pub` sends: it takes an acknowledgement for its last one's when packet identifiers, of
/// which there are 65,535, come round.
const A_TIME: u64 = 50_000;

fn program(name: &str) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    folders.push("/usr/sbin".into());
    folders.iter().map(|f| f.join(name)).find(|p| p.is_file())
}

pub(super) async fn rows(
    city: &City,
    programs: &Programs,
    amount: Amount,
    results: &mut Results,
) -> Result<(), BenchError> {
    let found = ["mosquitto", "mosquitto_pub", "mosquitto_sub"].map(program);
    let [Some(server), Some(publish), Some(subscribe)] = found else {
        println!("  SKIPPED mqtt_messages: mosquitto and mosquitto-clients are not installed");
        return Ok(());
    };
    let failed = |what: &'static str| move |e: std::io::Error| BenchError::io(what, e);
    let folder = tempfile::tempdir().map_err(failed("a temporary folder"))?;
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    let port = port.map_err(failed("a port"))?.port();
    let conf = folder.path().join("mosquitto.conf");
    let settings = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\nmax_inflight_messages 1000\n"
    );
    std::fs::write(&conf, settings).map_err(failed("writing mosquitto.conf"))?;
    let args = ["-c".into(), conf.into_os_string()];
    let mut running = Process::start("mosquitto", folder.path(), programs, &server, &args)?;
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        running.check()?;
        if begun.elapsed() > SOON {
            return Err(running.failed("it does not listen"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    document(city, "bench-mqtt", &text(port))?;
    // Each session is made first, so that what is published waits for it.
    adapter(city, "bench-mqtt", 0, &["--once"]).await?;
    let port = port.to_string();
    let reader = |count: &str| {
        let mut command = Command::new(&subscribe);
        command.args(["-p", &port, "-i", "plain", "-c", "-q", "1", "-t", "site/#", "-W", READ]);
        command.args(if count.is_empty() { vec!["-E"] } else { vec!["-C", count] });
        command.stdout(Stdio::null()).status().and_then(|ended| done("mosquitto_sub", ended))
    };
    reader("").map_err(failed("mosquitto_sub"))?;
    for from in (0..amount.messages).step_by(A_TIME as usize) {
        send(&publish, &port, from..(from + A_TIME).min(amount.messages)).map_err(failed("mosquitto_pub"))?;
    }
    let begun = Instant::now();
    reader(&amount.messages.to_string()).map_err(failed("mosquitto_sub"))?;
    let plain = begun.elapsed().as_secs_f64();
    let took = adapter(city, "bench-mqtt", amount.messages, &["--rows", &amount.messages.to_string()]).await?;
    both(results, "mqtt_messages", "messages/s", amount.messages, plain, took);
    running.stop();
    Ok(())
}

fn text(port: u16) -> String {
    format!(
        "adapter: bench-mqtt\nkind: mqtt\nconnect: {{url: \"mqtt://127.0.0.1:{port}\", client_id: bench}}\n\
         topics: [{{filter: \"site/+/meter\", qos: 1}}]\nsession: persistent\ninto: ds:{PROVIDER}/bench-mqtt@1\nmap:\n  \
         id: {{from: \"$.id\"}}\n  feeder: {{from: \"$topic[2]\"}}\n  mw: {{from: \"$.p\", type: decimal, scale: 0.001}}\n  \
         time: {{from: \"$.t\", type: timestamp, zone: offset}}\nkey: [id]\ntime: time\npace: max\n"
    )
}

fn done(what: &str, ended: ExitStatus) -> std::io::Result<()> {
    if ended.success() { Ok(()) } else { Err(std::io::Error::other(format!("{what}: {ended}"))) }
}

/// Publishes messages with QoS 1.
fn send(program: &Path, port: &str, messages: Range<u64>) -> std::io::Result<()> {
    let mut command = Command::new(program);
    command.args(["-p", port, "-q", "1", "-t", "site/7/meter", "-l"]).stdin(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(stdin) = child.stdin.take() {
        let mut stdin = std::io::BufWriter::new(stdin);
        for n in messages {
            writeln!(stdin, r#"{{"id":"{n}","p":{}.5,"t":"2026-03-01T10:00:00Z"}}"#, n % 1_000)?;
        }
        stdin.flush()?;
    }
    done("mosquitto_pub", child.wait()?)
}
