//! `cometbft light` as it is shipped, in front of an agency's CometBFT, with a forger between them.

use super::{answer, read_request, serve};
use crate::World;
use crate::queries::stops;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use concordat_cli::servers::{Server, find};
use concordat_protocol::cbor;
use concordat_tests::harness::{City, SOON, until, wait};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

/// What the one in the middle changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forgery {
    Nothing,
    /// A bit of the record.
    Value,
    /// The record that another key has, under this key's proof.
    Other,
    /// The app hash in headers, so that a forged proof could lead to it.
    Header,
}

fn flip(value: &mut Value) {
    let mut bytes = STANDARD.decode(value.as_str().unwrap()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    *value = STANDARD.encode(bytes).into();
}

fn forge(body: &[u8], how: Forgery) -> Vec<u8> {
    let Ok(mut said) = serde_json::from_slice::<Value>(body) else { return body.to_vec() };
    let record = said["result"]["response"]["value"].is_string();
    match how {
        Forgery::Value if record => flip(&mut said["result"]["response"]["value"]),
        Forgery::Other if record => said["result"]["response"]["value"] = STANDARD.encode(b"another record").into(),
        Forgery::Header if said["result"]["signed_header"].is_object() => {
            let hash = &mut said["result"]["signed_header"]["header"]["app_hash"];
            *hash = hash.as_str().unwrap().replace(['1', '2', '3', '4'], "5").into();
        }
        _ => return body.to_vec(),
    }
    serde_json::to_vec(&said).unwrap()
}

/// Passes one request on to CometBFT's socket.
fn pass_on(client: &TcpStream, socket: &Path, how: Forgery) {
    let Some(asked) = read_request(client) else { return };
    let mut server = UnixStream::connect(socket).expect("CometBFT's RPC");
    if asked.head.to_lowercase().contains("upgrade: websocket") {
        // Events: passed through, nothing rests on them.
        server.write_all(asked.head.as_bytes()).unwrap();
        let (mut up, mut down) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let (mut from, mut to) = (client, server);
        std::thread::scope(|s| {
            s.spawn(|| std::io::copy(&mut from, &mut up));
            s.spawn(|| std::io::copy(&mut to, &mut down));
        });
        return;
    }
    // As HTTP/1.0 the answer comes in one piece and ends with the connection.
    let line = asked.head.lines().next().unwrap().replace("HTTP/1.1", "HTTP/1.0");
    let head = format!(
        "{line}\r\nhost: comet\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        asked.body.len()
    );
    server.write_all(head.as_bytes()).and_then(|()| server.write_all(&asked.body)).unwrap();
    let mut all = Vec::new();
    server.read_to_end(&mut all).unwrap();
    let at = all.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer") + 4;
    answer(client, "application/json", &forge(&all[at..], how));
}

struct Light {
    process: Child,
    base: String,
}

impl Drop for Light {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Light {
    /// Starts it with a header that its user trusts, as somebody gets it from elsewhere.
    fn start(city: &City, trusted: (&str, &str), primary: u16, witness: u16, home: PathBuf) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // It dies with this process, even when that is killed.
        let mut command = city.command(&["node", "guard", &std::process::id().to_string()]);
        command.arg(find(Server::CometBft).unwrap());
        command.args(["light", &city.chain(), "--height", trusted.0, "--hash", trusted.1]);
        command.arg("--primary").arg(format!("tcp://127.0.0.1:{primary}"));
        command.arg("--witnesses").arg(format!("tcp://127.0.0.1:{witness}"));
        command.arg("--laddr").arg(format!("tcp://127.0.0.1:{free}")).arg("--home-dir").arg(&home);
        let log = std::fs::File::create(home.join("light.log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { process: command.spawn().expect("cometbft light"), base: format!("http://127.0.0.1:{free}") }
    }

    /// A record with its proof, verified: its value, or why not.
    ///
    /// The height is named: it compares the header after it with its witness, and waits for longer than a request may take
    /// where the witness is a block behind.
    fn record(&self, city: &City, store: &str, key: &[u8]) -> Result<Vec<u8>, String> {
        let height = city.rpc("police").height().min(city.rpc("grid").height()) - 2;
        let path = format!(
            "{}/abci_query?path=\"/store/{store}/key\"&data=0x{}&prove=true&height={height}",
            self.base,
            hex::encode(key)
        );
        let said: Value = wait(async {
            let answer = reqwest::get(path).await.map_err(|e| e.to_string())?;
            answer.json().await.map_err(|e| e.to_string())
        })?;
        match said["result"]["response"]["value"].as_str() {
            Some(value) if said["error"].is_null() => STANDARD.decode(value).map_err(|e| e.to_string()),
            _ => Err(said.to_string()),
        }
    }
}

pub fn a_light_client_verifies_a_record_and_refuses_an_altered_one(world: &World) {
    let city = world.shared();
    let home = world.folder("light");
    let status = city.rpc("court").get("status").unwrap();
    let height = status["sync_info"]["latest_block_height"].as_str().unwrap().to_owned();
    let hash = status["sync_info"]["latest_block_hash"].as_str().unwrap().to_owned();
    let how = Arc::new(Mutex::new(Forgery::Nothing));
    let (socket, now) = (city.dir("police").join("run/rpc.sock"), Arc::clone(&how));
    // The lock is given back before the request is passed on: a stream of events lasts.
    let primary = serve(move |client| {
        let how = *now.lock().unwrap();
        pass_on(&client, &socket, how);
    });
    let socket = city.dir("grid").join("run/rpc.sock");
    let witness = serve(move |client| pass_on(&client, &socket, Forgery::Nothing));
    let light = Light::start(city, (&height, &hash), primary, witness, home);

    let op = city.api("court", "clerk").query(&stops()).is(200).op();
    let entry = cbor::encode(&city.entry("police", op));
    let key = op.to_be_bytes();
    let seen = until("the light client verifies the record", SOON, || light.record(city, "log", &key));
    assert_eq!(seen, entry, "the entry that the agency's own node has");
    assert!(!until("and one of the governance", SOON, || light.record(city, "meta", b"agency/court")).is_empty());

    let refused = |forgery: Forgery, store: &str, key: &[u8]| {
        *how.lock().unwrap() = forgery;
        // A header that it verified before it does not fetch again: it must refuse as soon as it needs a new one.
        let said =
            until(&format!("{forgery:?} in {store} is refused"), SOON, || match light.record(city, store, key) {
                Ok(value) => Err(format!("answered {}", hex::encode(value))),
                Err(e) => Ok(e.to_lowercase()),
            });
        *how.lock().unwrap() = Forgery::Nothing;
        said
    };
    for (forgery, store, key) in [
        (Forgery::Value, "log", &key[..]),
        (Forgery::Value, "meta", &b"agency/court"[..]),
        (Forgery::Other, "log", &key[..]),
    ] {
        let said = refused(forgery, store, key);
        assert!(said.contains("proof"), "{forgery:?}: {said}");
    }
    // It is the forgery that it refused.
    let again = until("an honest answer is verified again", SOON, || light.record(city, "log", &key));
    assert_eq!(again, entry);
    // Last: after a forged header it leaves its primary for good, and asks the witness in its place.
    let said = refused(Forgery::Header, "log", &key);
    assert!(said.contains("header") || said.contains("light client"), "{said}");
}
