//! Time-stamps from an authority that the openssl command is (`tests/outside/tsa.sh`), behind a small HTTP server.

use super::{answer, read_request, serve, tools};
use crate::World;
use concordat_tests::harness::{City, SOON, until};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// How the authority behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Conduct {
    Honest,
    /// The answer that it gave before.
    Repeat,
    /// The last byte of the signature is another.
    Flip,
    /// It is another authority.
    Other,
    Garbage,
}

fn reply(lab: &Path, name: &str, query: &[u8]) -> Vec<u8> {
    let mut command = Command::new(tools().join("tsa.sh"));
    let mut child = command.arg(lab).arg(name).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(query).unwrap();
    child.wait_with_output().unwrap().stdout
}

fn authority(lab: PathBuf, conduct: Arc<Mutex<Conduct>>) -> String {
    let last = Mutex::new(Vec::new());
    let port = serve(move |client| {
        let Some(asked) = read_request(&client) else { return };
        let conduct = conduct.lock().unwrap().clone();
        let mut last = last.lock().unwrap();
        let said = match conduct {
            Conduct::Honest => reply(&lab, "p256", &asked.body),
            Conduct::Repeat => last.clone(),
            Conduct::Flip => {
                let mut said = reply(&lab, "p256", &asked.body);
                *said.last_mut().unwrap() ^= 1;
                said
            }
            Conduct::Other => reply(&lab, "other", &asked.body),
            Conduct::Garbage => b"no token".to_vec(),
        };
        answer(&client, "application/timestamp-reply", &said);
        *last = said;
    });
    format!("http://127.0.0.1:{port}/tsa")
}

fn list(city: &City) -> Vec<Value> {
    let said = city.at("court", &["ledger", "timestamps", "list", "--output", "json"]).done().json();
    said.as_array().unwrap().clone()
}

pub fn checkpoints_are_time_stamped(world: &World) {
    if Command::new("openssl").arg("version").output().is_err() {
        return println!("SKIPPED rfc3161: the openssl command is not here");
    }
    let city = world.shared();
    let lab = world.folder("tsa");
    assert!(Command::new(tools().join("tsa.sh")).arg(&lab).output().unwrap().status.success());
    let conduct = Arc::new(Mutex::new(Conduct::Honest));
    let url = authority(lab.clone(), Arc::clone(&conduct));
    let pem = |name: &str| lab.join(format!("{name}.pem")).to_str().unwrap().to_owned();
    let stamp =
        || city.at("court", &["ledger", "timestamp", "--tsa", &url, "--tsa-cert", &pem("p256"), "--output", "json"]);
    let made = until("a checkpoint is stamped", SOON, || {
        let ran = stamp();
        if ran.code == 7 { Err(ran.err) } else { Ok(ran.done().json()) }
    });
    assert_eq!(
        (made["ok"].as_bool(), made["stamp"]["signer"].as_str()),
        (Some(true), Some("CN=Test TSA p256")),
        "{made}"
    );
    assert!(made["after_tick_ms"].as_i64().unwrap() > -2_000, "{made}");

    for (how, code) in [
        (Conduct::Repeat, "timestamp-nonce"),
        (Conduct::Flip, "timestamp-signature"),
        (Conduct::Other, "timestamp-signer"),
        (Conduct::Garbage, "timestamp-malformed"),
    ] {
        *conduct.lock().unwrap() = how.clone();
        let said = stamp().ends(4).problem();
        assert_eq!(said["code"], code, "{how:?}: {said}");
    }
    *conduct.lock().unwrap() = Conduct::Honest;
    assert_eq!(list(city).len(), 1, "what does not hold is not kept");
    let id = list(city)[0]["id"].to_string();
    city.at("court", &["ledger", "timestamps", "verify", &id]).done();
    city.at("court", &["ledger", "timestamps", "verify", "--tsa-cert", &pem("p256")]).done();
    let said =
        city.at("court", &["ledger", "timestamps", "verify", "--tsa-cert", &pem("other"), "--output", "json"]).ends(4);
    assert_eq!(said.problem()["code"], "timestamp-signer");
    city.at("court", &["ledger", "timestamp", "--tsa", "https://127.0.0.1:1/", "--tsa-cert", &pem("p256")]).ends(2);

    // openssl agrees, from the files alone, and with the authority's own issuer.
    let out = world.folder("tsa-out");
    city.at("court", &["ledger", "timestamps", "export", &id, out.to_str().unwrap()]).done();
    let openssl = || {
        let mut verify = Command::new("openssl");
        verify.args("ts -verify -token_in -in token.tst -data checkpoint.cbor -untrusted tsa.pem".split(' '));
        verify.arg("-CAfile").arg(pem("ca")).current_dir(&out).output().unwrap().status.success()
    };
    assert!(openssl());
    let mut bytes = std::fs::read(out.join("checkpoint.cbor")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(out.join("checkpoint.cbor"), bytes).unwrap();
    assert!(!openssl(), "another checkpoint");

    // By itself, where the configuration names an authority.
    let (file, mine) = (city.dir("court").join("node.yaml"), format!("{url}/daily"));
    let before = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{before}timestamp:\n  url: {mine}\n  certificate: {}\n", pem("p256"))).unwrap();
    city.killed_and_back("court", "broker");
    until("the broker has a checkpoint stamped", SOON, || {
        let all = list(city);
        if all.iter().any(|t| t["tsa"] == *mine && t["check"] == "ok") { Ok(()) } else { Err(format!("{all:?}")) }
    });
    std::fs::write(&file, before).unwrap();
    city.killed_and_back("court", "broker");
}
