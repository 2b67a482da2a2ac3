//! The node's own socket: questions and answers, and subscriptions to verdicts (PROTOCOL 5, own node).
//!
//! Each message is a u32 big-endian length and canonical CBOR. A connection asks and is answered in turn; after
//! `Subscribe` it only receives frames. A subscriber that does not read is cut off, and never holds up a block.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::limits::NODE_FRAME_BYTES_MAX;
use concordat_protocol::node::{Frame, NodeReply, NodeRequest};

use crate::app::App;
use crate::frames::Next;
use crate::query::{ask, stored_frame};

/// How long a subscriber may leave its socket full before it is cut off.
const WRITE_PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 5_000 });
/// How often a subscription looks whether its peer is still there while no block comes.
const IDLE_CHECK: Duration = Duration::from_secs(1);

/// Largest question, bytes.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Serves one connection until its peer closes it.
pub fn serve(app: &App, stream: UnixStream) {
    if let Err(e) = serve_stream(app, &stream) {
        tracing::info!(error = %e, "node socket connection ended");
    }
}

fn serve_stream(app: &App, stream: &UnixStream) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let mut writer = BufWriter::with_capacity(1 << 16, stream);
    while let Some(bytes) = read_message(&mut reader, REQUEST_BYTES_MAX)? {
        match cbor::decode::<NodeRequest>(&bytes) {
            Ok(NodeRequest::Subscribe { from_height, writers }) => {
                return subscription(app, stream, &mut writer, from_height, &writers);
            }
            Ok(question) => send(&mut writer, &ask(app, &question))?,
            Err(e) => {
                let error = NodeReply::Error { code: codes::NOT_CANONICAL, detail: e.to_string() };
                send(&mut writer, &error)?;
            }
        }
    }
    Ok(())
}

/// Frames from a height on, without gaps. Height 0 means from the next block on.
fn subscription(
    app: &App,
    stream: &UnixStream,
    writer: &mut impl Write,
    from_height: u64,
    writers: &[String],
) -> io::Result<()> {
    let newest = app.committed().state.head.height;
    let mut height = if from_height == 0 { newest + 1 } else { from_height };
    loop {
        let frame = match app.inner.frames.next(height, IDLE_CHECK) {
            Next::Wait => {
                if gone(stream) {
                    return Ok(());
                }
                continue;
            }
            Next::Here(frame) => filtered(&frame, writers),
            Next::Stored => filtered(&stored_frame(app, height).map_err(io::Error::other)?, writers),
        };
        send(writer, &NodeReply::Frame { body: frame })?;
        height += 1;
    }
}

fn filtered(frame: &Frame, writers: &[String]) -> Frame {
    let asked = |writer: &String| writers.is_empty() || writers.contains(writer);
    let entries = frame.entries.iter().filter(|(_, e)| asked(&e.writer)).cloned().collect();
    Frame { entries, ..head_of(frame) }
}

fn head_of(frame: &Frame) -> Frame {
    Frame {
        height: frame.height,
        tick_ms: frame.tick_ms,
        app_hash: frame.app_hash,
        meta_rev: frame.meta_rev,
        entries: Vec::new(),
    }
}

/// Whether the peer closed its end; a subscriber sends nothing, so anything to read ends it too.
fn gone(stream: &UnixStream) -> bool {
    if stream.set_nonblocking(true).is_err() {
        return true;
    }
    let mut byte = [0u8];
    let mut reader = stream;
    let read = reader.read(&mut byte);
    let restored = stream.set_nonblocking(false);
    restored.is_err() || !matches!(read, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

/// Reads one message; `None` at the end.
///
/// # Errors
/// The stream ended inside a message, or the message is over `max` bytes.
pub fn read_message(reader: &mut impl Read, max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0u8; 4];
    match reader.read_exact(&mut len) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let len = u32::from_be_bytes(len) as usize;
    if len > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("message of {len} bytes, limit {max}")));
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    Ok(Some(body))
}

fn send(writer: &mut impl Write, reply: &NodeReply) -> io::Result<()> {
    let mut bytes = cbor::encode(reply);
    if bytes.len() > NODE_FRAME_BYTES_MAX {
        let detail = format!("the answer has {} bytes, limit {NODE_FRAME_BYTES_MAX}: ask for less", bytes.len());
        bytes = cbor::encode(&NodeReply::Error { code: codes::TOO_LARGE, detail });
    }
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    writer.write_all(&len.to_be_bytes())?;
    writer.write_all(&bytes)?;
    writer.flush()
}
