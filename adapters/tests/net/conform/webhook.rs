//! A sender that posts one request after the other, each until it is answered.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use concordat_adapters::contract::{AdapterError, Source};
use concordat_adapters::parse;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Peer, caught, conforms, mapped};
use crate::mosquitto::free_port;
use crate::running::DEADLINE;
use crate::webhook::{Sender, TOKEN, folder};

/// What a sender does next.
enum Post {
    Whole(String),
    /// The first half of a request, on a connection that stays.
    Half(String),
}

struct Posts {
    port: u16,
    dir: tempfile::TempDir,
    yaml: String,
    queue: mpsc::UnboundedSender<Post>,
    sender: JoinHandle<()>,
    /// Has the port while nothing can come.
    stranger: Option<TcpListener>,
}

impl Drop for Posts {
    fn drop(&mut self) {
        self.sender.abort();
    }
}

/// Wait before a request is sent once more.
const AGAIN: Duration = Duration::from_millis(5);

async fn send(port: u16, mut posts: mpsc::UnboundedReceiver<Post>, forgets: bool) {
    let (sender, mut open) = (Sender::new(port), Vec::new());
    while let Some(post) = posts.recv().await {
        match post {
            Post::Whole(body) => loop {
                match sender.try_post(&body).await {
                    Ok(StatusCode::OK) => break,
                    Err(e) if !e.is_connect() && forgets => break,
                    _ => tokio::time::sleep(AGAIN).await,
                }
            },
            Post::Half(body) => {
                let mut stream = loop {
                    match TcpStream::connect(("127.0.0.1", port)).await {
                        Ok(stream) => break stream,
                        Err(_) => tokio::time::sleep(AGAIN).await,
                    }
                };
                let head = format!(
                    "POST /in HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all((head + &body[..body.len() / 2]).as_bytes()).await.unwrap();
                open.push(stream);
            }
        }
    }
}

impl Posts {
    fn new(handle: &Handle, forgets: bool) -> Self {
        let (port, (queue, posts)) = (free_port(), mpsc::unbounded_channel());
        let yaml = format!(
            "adapter: conform\nkind: webhook\nlisten: {{address: \"127.0.0.1:{port}\", path: /in}}\n\
             auth: {{token: \"file:token\"}}\n{}",
            mapped("n", "t")
        );
        let sender = handle.spawn(send(port, posts, forgets));
        Self { port, dir: folder(), yaml, queue, sender, stranger: None }
    }
}

fn body(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

impl Peer for Posts {
    const RENAMED: &'static str = "n";

    fn open(&mut self) -> Result<Box<dyn Source>, AdapterError> {
        parse(&self.yaml)?.open(self.dir.path())
    }

    fn put(&mut self, rows: &[Value]) {
        self.queue.send(Post::Whole(body(rows))).unwrap();
    }

    fn half(&mut self, rows: &[Value]) -> bool {
        self.queue.send(Post::Half(body(rows))).unwrap();
        true
    }

    fn again(&mut self, rows: &[Value]) {
        self.put(rows);
    }

    /// Somebody else has the port, as a process has that does not end.
    fn cut(&mut self, cut: bool) {
        let start = Instant::now();
        self.stranger = cut.then(|| {
            loop {
                match TcpListener::bind(("127.0.0.1", self.port)) {
                    Ok(listener) => break listener,
                    Err(e) => assert!(start.elapsed() < DEADLINE, "the port is never free: {e}"),
                }
                std::thread::sleep(AGAIN);
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_conforms() {
    let handle = Handle::current();
    conforms(&[], move || Posts::new(&handle, false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_twin_whose_sender_does_not_send_again_is_caught() {
    let handle = Handle::current();
    let why = caught("restart", move || Posts::new(&handle, true)).await;
    assert!(why.contains(" lost"), "{why}");
}
