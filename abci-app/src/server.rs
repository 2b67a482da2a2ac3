//! The ABCI 2.0 server: length-delimited protobuf over a Unix socket.
//!
//! CometBFT opens four connections (consensus, mempool, query, snapshot); each has a thread of its own, answers in
//! order and is flushed when it asks for it or when nothing more is waiting, so no answer sits in a buffer.
//! A panic in the application aborts the process: a node that may have computed half a block must not go on.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use prost::Message;
use tendermint_abci::Application;
use tendermint_proto::v0_38::abci::{
    Request, Response, ResponseException, request::Value as Req, response::Value as Resp,
};

/// The largest request accepted: well above CometBFT's largest block (100 MB).
const MAX_REQUEST: u64 = 128 << 20;
/// Longest path a Unix socket can have on Linux, without its closing zero.
const MAX_SOCKET_PATH: usize = 107;

/// The mode bit of folders like `/tmp`.
const STICKY: u32 = 0o1000;

/// Why a socket could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The path does not fit into a Unix socket address.
    #[error("socket path {path} has {len} bytes, the limit is {MAX_SOCKET_PATH}: use a shorter node folder")]
    PathTooLong {
        /// The path asked for.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// Another process answers on the socket.
    #[error("{0} is served by another process: stop it first (is this node already running?)")]
    InUse(PathBuf),
    /// The folder is shared with other users, so it cannot be made private.
    #[error("{0} is a folder shared with other users: sockets need a private folder of their own")]
    SharedFolder(PathBuf),
    /// Something that is not a socket stands at the path.
    #[error("{0} exists and is not a socket: move it away")]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl ServerError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::PathTooLong { .. } => "socket_path_too_long",
            Self::InUse(_) => "socket_in_use",
            Self::SharedFolder(_) => "socket_folder_shared",
            Self::NotASocket(_) => "socket_path_taken",
            Self::Io { .. } => "socket_io",
        }
    }
}

/// Binds a Unix socket of mode 0600 in a folder of mode 0700, removing a stale one that nobody serves.
pub fn bind(path: &Path) -> Result<UnixListener, ServerError> {
    let len = path.as_os_str().len();
    if len > MAX_SOCKET_PATH {
        return Err(ServerError::PathTooLong { path: path.to_path_buf(), len });
    }
    let io = |what| move |source| ServerError::Io { what, path: path.to_path_buf(), source };
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io("create the folder of"))?;
        let mode = std::fs::metadata(folder).map_err(io("look at the folder of"))?.permissions().mode();
        if mode & STICKY != 0 {
            return Err(ServerError::SharedFolder(folder.to_path_buf()));
        }
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
            .map_err(io("protect the folder of"))?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(ServerError::NotASocket(path.to_path_buf()));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(ServerError::InUse(path.to_path_buf()));
        }
        Ok(_) => std::fs::remove_file(path).map_err(io("remove the stale socket"))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io("look at")(e)),
    }
    let listener = UnixListener::bind(path).map_err(io("bind"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(io("protect"))?;
    Ok(listener)
}

/// A listening socket and its thread; dropping it stops accepting and removes the socket.
pub struct Listening {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    /// Accepts connections on `listener`, each served by `serve` on a thread of its own.
    pub fn start<F>(path: &Path, listener: UnixListener, name: &'static str, serve: F) -> Result<Self, ServerError>
    where
        F: Fn(UnixStream) + Send + Sync + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, serve) = (Arc::clone(&stop), Arc::new(serve));
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                for stream in listener.incoming() {
                    if seen.load(Ordering::SeqCst) {
                        return;
                    }
                    accept(name, stream, &serve);
                }
            })
            .map_err(|source| ServerError::Io { what: "start the thread of", path: path.to_path_buf(), source })?;
        Ok(Self { path: path.to_path_buf(), stop, thread: Some(thread) })
    }

    /// Waits until the accepting thread ends.
    pub fn wait(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.path); // wakes the accepting thread
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

fn accept<F>(name: &'static str, stream: io::Result<UnixStream>, serve: &Arc<F>)
where
    F: Fn(UnixStream) + Send + Sync + 'static,
{
    let stream = match stream {
        Ok(stream) => stream,
        Err(e) => {
            tracing::error!(socket = name, error = %e, "cannot accept a connection");
            return;
        }
    };
    let serve = Arc::clone(serve);
    let spawned = std::thread::Builder::new().name(name.into()).spawn(move || abort_on_panic(name, || serve(stream)));
    if let Err(e) = spawned {
        tracing::error!(socket = name, error = %e, "cannot start a thread for a connection");
    }
}

/// Runs `work`; a panic in it ends the process at once.
pub fn abort_on_panic<T>(name: &str, work: impl FnOnce() -> T) -> T {
    match std::panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(value) => value,
        Err(panic) => {
            let reason = panic
                .downcast_ref::<&str>()
                .map(ToString::to_string)
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            tracing::error!(thread = name, reason, "panic: the application stops rather than going on");
            eprintln!("panic in {name}: {reason}: the application stops rather than going on");
            std::process::abort();
        }
    }
}

/// Serves one ABCI connection until its peer closes it.
pub fn serve_connection<A: Application>(app: &A, stream: UnixStream) {
    match serve_stream(app, &stream) {
        Ok(()) => tracing::info!("ABCI connection closed by its peer"),
        Err(e) => tracing::warn!(error = %e, "ABCI connection ended"),
    }
}

fn serve_stream<A: Application>(app: &A, stream: &UnixStream) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 18, stream);
    let mut writer = BufWriter::with_capacity(1 << 16, stream);
    let mut out = Vec::new();
    while let Some(request) = read_request(&mut reader)? {
        let flush = matches!(request.value, Some(Req::Flush(_)));
        let response = dispatch(app, request);
        out.clear();
        response.encode_length_delimited(&mut out).map_err(io::Error::other)?;
        writer.write_all(&out)?;
        if flush || reader.buffer().is_empty() {
            writer.flush()?;
        }
    }
    writer.flush()
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    if reader.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut len: u64 = 0;
    for shift in (0..).step_by(7) {
        let mut byte = [0u8];
        reader.read_exact(&mut byte)?;
        if shift > 63 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "length prefix is longer than ten bytes"));
        }
        len |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    if len > MAX_REQUEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("request of {len} bytes, limit {MAX_REQUEST}")));
    }
    let mut body = Vec::new();
    if reader.take(len).read_to_end(&mut body)? as u64 != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Request::decode(Bytes::from(body)).map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Calls the application method a request names. Written by hand: the crate's own dispatcher is private.
pub fn dispatch<A: Application>(app: &A, request: Request) -> Response {
    let value = match request.value {
        Some(Req::Echo(r)) => Resp::Echo(app.echo(r)),
        Some(Req::Flush(_)) => Resp::Flush(app.flush()),
        Some(Req::Info(r)) => Resp::Info(app.info(r)),
        Some(Req::InitChain(r)) => Resp::InitChain(app.init_chain(r)),
        Some(Req::Query(r)) => Resp::Query(app.query(r)),
        Some(Req::CheckTx(r)) => Resp::CheckTx(app.check_tx(r)),
        Some(Req::Commit(_)) => Resp::Commit(app.commit()),
        Some(Req::ListSnapshots(_)) => Resp::ListSnapshots(app.list_snapshots()),
        Some(Req::OfferSnapshot(r)) => Resp::OfferSnapshot(app.offer_snapshot(r)),
        Some(Req::LoadSnapshotChunk(r)) => Resp::LoadSnapshotChunk(app.load_snapshot_chunk(r)),
        Some(Req::ApplySnapshotChunk(r)) => Resp::ApplySnapshotChunk(app.apply_snapshot_chunk(r)),
        Some(Req::PrepareProposal(r)) => Resp::PrepareProposal(app.prepare_proposal(r)),
        Some(Req::ProcessProposal(r)) => Resp::ProcessProposal(app.process_proposal(r)),
        Some(Req::ExtendVote(r)) => Resp::ExtendVote(app.extend_vote(r)),
        Some(Req::VerifyVoteExtension(r)) => Resp::VerifyVoteExtension(app.verify_vote_extension(r)),
        Some(Req::FinalizeBlock(r)) => Resp::FinalizeBlock(app.finalize_block(r)),
        None => Resp::Exception(ResponseException { error: "request without a value".into() }),
    };
    Response { value: Some(value) }
}
