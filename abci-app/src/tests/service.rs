//! The two sockets: ABCI and the node's own.

use std::io::{BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::node::{Frame, NodeReply, NodeRequest};
use prost::Message;
use tendermint_abci::Application;
use tendermint_proto::v0_38::abci::{
    Request, RequestEcho, RequestFlush, RequestInfo, Response, ResponseInfo, request::Value as Req,
    response::Value as Resp,
};

use super::kit::City;
use crate::run::{AppConfig, start};
use crate::server::{Listening, bind, serve_connection};
use crate::service::{read_message, serve};

const PATIENCE: Duration = Duration::from_secs(20);

fn listen(city: &City, path: &Path) -> Listening {
    let app = city.mock.app.clone();
    Listening::start(path, bind(path).unwrap(), "node", move |s| serve(&app, s)).unwrap()
}

fn connect(path: &Path) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(stream)
}

fn send(stream: &mut BufReader<UnixStream>, bytes: &[u8]) {
    let mut message = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    message.extend(bytes);
    stream.get_mut().write_all(&message).unwrap();
}

fn reply(stream: &mut BufReader<UnixStream>) -> NodeReply {
    cbor::decode(&read_message(stream, 1 << 24).unwrap().expect("an answer")).unwrap()
}

fn subscribe(path: &Path, from_height: u64, writers: &[&str]) -> BufReader<UnixStream> {
    let mut stream = connect(path);
    let writers = writers.iter().map(|w| (*w).to_owned()).collect();
    send(&mut stream, &cbor::encode(&NodeRequest::Subscribe { from_height, writers }));
    stream
}

fn frame(stream: &mut BufReader<UnixStream>) -> Frame {
    match reply(stream) {
        NodeReply::Frame { body } => body,
        other => panic!("{other:?}"),
    }
}

#[test]
fn questions_are_answered_in_turn_and_rubbish_is_named() {
    let (city, a) = City::ready();
    let path = city.dir.path().join("run/node.sock");
    let _listening = listen(&city, &path);
    let mut stream = connect(&path);
    send(&mut stream, &cbor::encode(&NodeRequest::Head {}));
    send(&mut stream, &[0xff, 0x00]);
    send(&mut stream, &cbor::encode(&NodeRequest::Session { session: a.session }));
    let NodeReply::Head { body } = reply(&mut stream) else { panic!() };
    assert_eq!((body.chain.as_str(), body.height), ("test-city", city.mock.height() as u64));
    assert!(matches!(reply(&mut stream), NodeReply::Error { code: codes::NOT_CANONICAL, .. }));
    assert!(matches!(reply(&mut stream), NodeReply::Session { body: Some(_) }));
    stream.get_mut().write_all(&u32::MAX.to_be_bytes()).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a message over the limit ends the connection");
}

#[test]
fn frames_are_contiguous_from_any_height_and_filtered_by_writer() {
    let (mut city, a) = City::ready();
    let path = city.dir.path().join("run/node.sock");
    let _listening = listen(&city, &path);
    let mut all = subscribe(&path, 1, &[]);
    let mut court = subscribe(&path, 1, &["court/broker"]);
    let mut next = subscribe(&path, city.mock.height() as u64 + 1, &["police/executor", "act:court"]);
    for n in 1..=100 {
        let op = city.query(a.handles[0], a.session, n);
        city.say("police/executor", op);
    }
    let last = city.mock.height() as u64;
    let mut index = 1;
    for height in 1..=last {
        let frame = frame(&mut all);
        let block = &city.mock.blocks[height as usize - 1];
        assert_eq!((frame.height, &frame.app_hash[..]), (height, &block.app_hash[..]));
        for (at, _) in &frame.entries {
            assert_eq!(*at, index);
            index += 1;
        }
    }
    assert_eq!(index, city.log_size());
    assert!((1..=last).all(|h| frame(&mut court).entries.is_empty() && h > 0));
    let entries: usize = (0..100).map(|_| frame(&mut next).entries.len()).sum();
    assert_eq!(entries, 100);
}

#[test]
fn a_subscriber_that_does_not_read_is_cut_off_and_holds_nobody_up() {
    let (mut city, a) = City::ready();
    let path = city.dir.path().join("run/node.sock");
    let _listening = listen(&city, &path);
    let from = city.mock.height() as u64 + 1;
    let mut slow = subscribe(&path, from, &[]);
    for block in 0..25u64 {
        let ops = (1..=400).map(|i| city.query(a.handles[0], a.session, block * 400 + i)).collect();
        city.write("police/executor", ops);
    }
    let mut other = subscribe(&path, from, &[]);
    let entries: usize = (0..25).map(|_| frame(&mut other).entries.len()).sum();
    assert_eq!(entries, 25 * 400, "another subscriber gets everything");
    // The slow one has less than everything in its socket; what follows is the end, not a gap.
    let mut left = Vec::new();
    slow.get_mut().set_read_timeout(Some(PATIENCE)).unwrap();
    std::process::Command::new("sleep").arg("1").status().unwrap();
    let _ = slow.read_to_end(&mut left);
    assert!(left.len() < 25 * 400 * 60, "{} bytes", left.len());
}

fn abci(stream: &mut UnixStream, values: Vec<Req>) -> Vec<Resp> {
    let count = values.len();
    let mut out = Vec::new();
    for value in values {
        Request { value: Some(value) }.encode_length_delimited(&mut out).unwrap();
    }
    stream.write_all(&out).unwrap();
    let mut got = Vec::new();
    let mut answers = Vec::new();
    while answers.len() < count {
        let mut byte = [0u8];
        stream.read_exact(&mut byte).unwrap();
        got.push(byte[0]);
        if let Ok(response) = Response::decode_length_delimited(&got[..]) {
            answers.push(response.value.unwrap());
            got.clear();
        }
    }
    answers
}

#[test]
fn a_started_application_serves_abci_on_a_private_socket() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, node) = (dir.path().join("run/abci.sock"), dir.path().join("run/node.sock"));
    std::fs::create_dir(dir.path().join("run")).unwrap();
    drop(UnixListener::bind(&socket).unwrap()); // a stale socket
    let config = AppConfig::new(&socket, &node, dir.path().join("ledger/state.redb"));
    let running = start(&config).unwrap();
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(&node), mode(socket.parent().unwrap())), (0o600, 0o600, 0o700));
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let echo = Req::Echo(RequestEcho { message: "x".repeat(100_000) });
    let answers = abci(&mut stream, vec![echo, Req::Flush(RequestFlush {}), Req::Info(RequestInfo::default())]);
    assert!(matches!(&answers[0], Resp::Echo(e) if e.message.len() == 100_000));
    assert!(matches!(answers[1], Resp::Flush(_)));
    assert!(matches!(&answers[2], Resp::Info(i) if i.last_block_height == 0 && i.app_version == 1));
    let taken = start(&AppConfig::new(&socket, &node, dir.path().join("other.redb")));
    let error = taken.err().expect("the sockets are in use");
    assert_eq!(error.code(), "socket_in_use");
    drop(running);
    assert!(!socket.exists());
    std::fs::write(&socket, b"x").unwrap();
    assert_eq!(bind(&socket).unwrap_err().code(), "socket_path_taken");
    assert_eq!(bind("/tmp/concordat-test.sock".as_ref()).unwrap_err().code(), "socket_folder_shared");
    let long = dir.path().join("x".repeat(120));
    assert_eq!(bind(&long).unwrap_err().code(), "socket_path_too_long");
}

#[derive(Clone)]
struct Panics;

impl Application for Panics {
    fn info(&self, _: RequestInfo) -> ResponseInfo {
        panic!("half a block")
    }
}

/// Run as a process of its own by the test below: serves one connection of an application that panics.
#[test]
#[ignore = "only a child of the next test"]
fn child_that_panics() {
    let Ok(path) = std::env::var("CONCORDAT_TEST_SOCKET") else { return };
    let path = Path::new(&path);
    let listening = Listening::start(path, bind(path).unwrap(), "abci", |s| serve_connection(&Panics, s)).unwrap();
    listening.wait();
}

#[test]
fn a_panic_in_the_application_stops_the_process() {
    use std::os::unix::process::ExitStatusExt;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("abci.sock");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::service::child_that_panics", "--ignored", "--nocapture"])
        .env("CONCORDAT_TEST_SOCKET", &socket)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut tries = 0;
    let mut stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(e) if tries > 2_000 => panic!("{e}"),
            Err(_) => tries += 1,
        }
        Command::new("sleep").arg("0.01").status().unwrap();
    };
    let mut out = Vec::new();
    Request { value: Some(Req::Info(RequestInfo::default())) }.encode_length_delimited(&mut out).unwrap();
    stream.write_all(&out).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "no answer");
    assert_eq!(child.wait().unwrap().signal(), Some(6), "SIGABRT");
}
