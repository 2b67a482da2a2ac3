//! Between a hosted agency and the node it asks: passes on what that node says, or lies.

use concordat_protocol::cbor;
use concordat_protocol::codes::Verdict;
use concordat_protocol::node::{Frame, LeafProof, NodeReply, NodeRequest};
use concordat_protocol::ops::LogEntry;
use concordat_protocol::terms::Status;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the relay does to what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    None,
    /// What the ledger refused was accepted, in frames, in the log, and in the proofs.
    Accepted,
    /// Suspended agreements are active.
    Active,
    /// Nothing passes any more.
    Silence,
    /// The chain ends with this height.
    EndsAt(u64),
}

/// A relay before a node's socket.
#[derive(Debug, Clone)]
pub struct Relay {
    socket: PathBuf,
    lie: Arc<Mutex<Lie>>,
}

impl Relay {
    /// Listens at `socket` for the node behind `host`; honest at first.
    pub fn start(socket: &Path, host: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
        let relay = Self { socket: socket.to_owned(), lie: Arc::new(Mutex::new(Lie::None)) };
        let (this, host) = (relay.clone(), host.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (this, host) = (this.clone(), host.clone());
                // A side that goes away ends the connection to the other one.
                std::thread::spawn(move || this.pass(stream, &host));
            }
        });
        relay
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// From now on.
    pub fn says(&self, lie: Lie) {
        *self.lie.lock().expect("the relay") = lie;
    }

    fn lie(&self) -> Lie {
        *self.lie.lock().expect("the relay")
    }

    fn pass(&self, mut asker: UnixStream, host: &Path) -> Option<()> {
        let mut host = UnixStream::connect(host).ok()?;
        loop {
            let question = read(&mut asker)?;
            write(&mut host, &question)?;
            let endless = matches!(cbor::decode(&question), Ok(NodeRequest::Subscribe { .. }));
            loop {
                let reply: NodeReply = cbor::decode(&read(&mut host)?).ok()?;
                while self.lie() == Lie::Silence {
                    std::thread::sleep(Duration::from_millis(50));
                }
                if let Some(told) = told(self.lie(), reply) {
                    write(&mut asker, &cbor::encode(&told))?;
                }
                if !endless {
                    break;
                }
            }
        }
    }
}

/// What is told in place of the truth; none: nothing.
fn told(lie: Lie, reply: NodeReply) -> Option<NodeReply> {
    let mut reply = reply;
    match (lie, &mut reply) {
        (Lie::Accepted, NodeReply::Frame { body }) => body.entries.iter_mut().for_each(|(_, e)| accept(e)),
        (Lie::Accepted, NodeReply::Log { entries, .. }) => entries.iter_mut().for_each(accept),
        (Lie::Accepted, NodeReply::Proof { body }) => accept_leaf(&mut body.entry),
        (Lie::Accepted, NodeReply::Proofs { body }) => body.entries.iter_mut().for_each(accept_leaf),
        (Lie::Active, NodeReply::Agreements { body }) => {
            let suspended = body.iter_mut().filter(|v| v.status == Status::Suspended);
            suspended.for_each(|v| v.status = Status::Active);
        }
        (Lie::EndsAt(height), NodeReply::Frame { body: Frame { height: at, .. } }) if *at > height => return None,
        (Lie::EndsAt(height), NodeReply::Head { body }) => body.height = body.height.min(height),
        _ => {}
    }
    Some(reply)
}

fn accept(entry: &mut LogEntry) {
    if entry.verdict == Verdict::Refused {
        (entry.verdict, entry.code) = (Verdict::Accepted, 0);
    }
}

fn accept_leaf(leaf: &mut LeafProof) {
    if let Ok(mut entry) = cbor::decode::<LogEntry>(&leaf.value) {
        accept(&mut entry);
        leaf.value = cbor::encode(&entry).into();
    }
}

fn read(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).ok()?;
    let mut body = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

fn write(stream: &mut UnixStream, body: &[u8]) -> Option<()> {
    stream.write_all(&(body.len() as u32).to_be_bytes()).ok()?;
    stream.write_all(body).ok()
}
