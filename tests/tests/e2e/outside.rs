//! What outsiders can check with their own tools: CometBFT's light client, Go's packages for transparency logs, openssl.

mod light;
mod log;
mod stamp;

pub use light::a_light_client_verifies_a_record_and_refuses_an_altered_one;
pub use log::an_outsider_reads_the_exported_log;
pub use stamp::checkpoints_are_time_stamped;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

/// Scripts and programs of these tests.
fn tools() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/outside").into()
}

/// A request as it came: its head, and its body by `content-length`.
struct Asked {
    head: String,
    body: Vec<u8>,
}

fn read_request(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let len = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length:").map(|n| n.trim().to_owned()));
    let mut body = vec![0; len.map_or(0, |n| n.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { head, body })
}

fn answer(mut stream: &TcpStream, kind: &str, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// A server of one connection a request, until the process ends. Returns its port.
fn serve(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().unwrap().port();
    let handle = Arc::new(handle);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = Arc::clone(&handle);
            std::thread::spawn(move || handle(stream));
        }
    });
    port
}
