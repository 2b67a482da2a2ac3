//! A folder on an SFTP server.
//!
//! A file is copied to this machine before anything of it is read: its hash, a look at a packed file's end and the rows
//! need it three times, and a connection that breaks meanwhile breaks nothing. The copy has no name, so nobody else opens
//! it and a crash leaves nothing behind. There is one copy at a time.

mod check;
mod server;
mod session;

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::fs::{File as RemoteFile, Metadata};
use russh_sftp::protocol::StatusCode;
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};

use super::document::{After, SftpDoc};
use super::place::{Place, Stamp, free_names, missing};
use crate::contract::{AdapterError, ErrorClass, Finding};
use crate::document::DocumentError;
use crate::files::content::Content;
use server::Server;
use session::{Session, file_error};

/// How long one call copies before it lets others have their turn.
const TURN: Duration = Duration::from_millis(500);
/// Bytes of one look at what the server sent.
const CHUNK_BYTES: usize = 256 * 1024;

/// A folder of a server, connected to when it is first asked something.
pub(super) struct Remote {
    server: Server,
    base: PathBuf,
    /// None after the end alone. It has a thread of its own: the server is answered while nobody asks here.
    runtime: Option<Runtime>,
    session: Option<Session>,
    copy: Option<Copy>,
}

/// The copy of a file.
struct Copy {
    name: String,
    stamp: Stamp,
    to: Arc<File>,
    got: u64,
    /// Where the rest comes from; none when all is here.
    from: Option<RemoteFile>,
}

/// What a document says, checked.
pub(super) fn checked(doc: &SftpDoc) -> Result<(), DocumentError> {
    Server::new(doc).map(|_| ())
}

impl Remote {
    /// The folder of a document; `base` is the node folder. It connects to nothing yet.
    pub fn new(base: &Path, doc: &SftpDoc) -> Result<Self, AdapterError> {
        let server = Server::new(doc)?;
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("sftp").enable_all().build();
        let io = |source| AdapterError::Io { file: server.shown.clone(), action: "start a thread for", source };
        let runtime = Some(runtime.map_err(io)?);
        Ok(Self { base: base.to_owned(), runtime, session: None, copy: None, server })
    }

    /// The full name of a file or folder on the server, seen from the folder.
    fn path(&self, name: &str) -> String {
        if name.starts_with('/') {
            name.to_owned()
        } else {
            format!("{}/{name}", self.server.folder.trim_end_matches('/'))
        }
    }

    /// A file as errors call it.
    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.server.shown)
    }

    fn wait<F: Future>(&self, future: F) -> Result<F::Output, AdapterError> {
        let runtime = self.runtime.as_ref().ok_or_else(|| self.changed("", "the source has ended"))?;
        Ok(runtime.block_on(future))
    }

    fn changed(&self, name: &str, why: &str) -> AdapterError {
        AdapterError::source_failed(ErrorClass::Transient, "source.changed", format!("{}: {why}", self.name(name)))
    }

    /// Connects, unless there is a connection.
    fn connect(&mut self) -> Result<(), AdapterError> {
        if self.session.as_ref().is_none_or(Session::is_lost) {
            self.drop_session();
            self.session = Some(self.wait(Session::open(&self.server, &self.base))??);
        }
        Ok(())
    }

    /// Asks the server; a connection that does not work any more is made anew by the next question.
    fn ask<T>(
        &mut self,
        what: impl AsyncFnOnce(&Session) -> Result<T, SftpError>,
    ) -> Result<Result<T, SftpError>, AdapterError> {
        self.connect()?;
        let Some(session) = &self.session else { return Err(self.changed("", "the connection is gone")) };
        let answer = self.wait(what(session))?;
        if matches!(&answer, Err(e) if !matches!(e, SftpError::Status(_))) {
            self.drop_session();
        }
        Ok(answer)
    }

    fn drop_session(&mut self) {
        // Files of the connection go first: they say goodbye to it on the runtime.
        let guard = self.runtime.as_ref().map(Runtime::enter);
        if self.copy.as_ref().is_some_and(|copy| copy.from.is_some()) {
            self.copy = None;
        }
        self.session = None;
        drop(guard);
    }

    /// Begins the copy of a file.
    fn begin(&mut self, name: &str, stamp: Stamp) -> Result<(), AdapterError> {
        self.copy = None;
        if stamp.size > self.server.bytes_max {
            let (size, most) = (stamp.size, self.server.bytes_max);
            let shown = self.name(name);
            let message =
                format!("{shown}: has {size} bytes, `watch.sftp.bytes_max` is {most}; split it, or raise that");
            return Err(AdapterError::source_failed(ErrorClass::Permanent, "source.limit", message));
        }
        let path = self.path(name);
        let opened = self.ask(async |s| s.sftp.open(path).await)?;
        let from = opened.map_err(|e| file_error(&self.name(name), "open it", &e))?;
        let folder = self.base.join("adapters");
        let io = |source| AdapterError::Io { file: folder.display().to_string(), action: "keep a copy in", source };
        let to = std::fs::create_dir_all(&folder).and_then(|()| tempfile::tempfile_in(&folder)).map_err(io)?;
        self.copy = Some(Copy { name: name.to_owned(), stamp, to: Arc::new(to), got: 0, from: Some(from) });
        Ok(())
    }

    /// Copies on for a while; true when the copy is whole.
    fn go_on(&mut self) -> Result<bool, AdapterError> {
        let Some(mut copy) = self.copy.take() else { return Ok(false) };
        let Some(mut from) = copy.from.take() else {
            self.copy = Some(copy);
            return Ok(true);
        };
        let (shown, begun) = (self.name(&copy.name), Instant::now());
        let mut buffer = vec![0; CHUNK_BYTES];
        while begun.elapsed() < TURN {
            // The server's own answers are bounded by the session; an error gives up the copy and the connection.
            let read = match self.wait(from.read(&mut buffer))? {
                Ok(n) => n,
                Err(e) => {
                    let timeout = e.kind() == std::io::ErrorKind::TimedOut;
                    self.let_go(from);
                    self.drop_session();
                    let error = if timeout { SftpError::Timeout } else { SftpError::IO(String::new()) };
                    return Err(file_error(&shown, "read it", &error));
                }
            };
            if read == 0 {
                let meta = self.wait(from.metadata())?;
                self.let_go(from);
                let now = stamp(&meta.map_err(|e| file_error(&shown, "look at it", &e))?);
                if now != copy.stamp || copy.got != copy.stamp.size {
                    return Err(self.changed(
                        &copy.name,
                        "is written to while it is read; let the sender rename it when it is whole",
                    ));
                }
                self.copy = Some(copy);
                return Ok(true);
            }
            copy.got += read as u64;
            if copy.got > copy.stamp.size {
                self.let_go(from);
                return Err(
                    self.changed(&copy.name, "grows while it is read; let the sender rename it when it is whole")
                );
            }
            let io = |source| AdapterError::Io { file: shown.clone(), action: "keep a copy of", source };
            (&*copy.to).write_all(buffer.get(..read).unwrap_or_default()).map_err(io)?;
        }
        copy.from = Some(from);
        self.copy = Some(copy);
        Ok(false)
    }

    /// Ends with a file of the server: that needs the runtime.
    fn let_go(&self, file: RemoteFile) {
        let guard = self.runtime.as_ref().map(Runtime::enter);
        drop(file);
        drop(guard);
    }

    fn metadata(&mut self, path: String) -> Result<Result<Option<Metadata>, SftpError>, AdapterError> {
        Ok(there(self.ask(async |s| s.sftp.metadata(path).await)?))
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.drop_session();
        // A source may be dropped within a task, where waiting is forbidden.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// None for what is not there.
fn there<T>(answer: Result<T, SftpError>) -> Result<Option<T>, SftpError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => Ok(None),
        Err(e) => Err(e),
    }
}

/// The protocol knows seconds, and no number of a file.
fn stamp(meta: &Metadata) -> Stamp {
    Stamp { size: meta.size.unwrap_or(0), changed: (meta.mtime.unwrap_or(0).into(), 0), node: 0 }
}

impl Place for Remote {
    fn shown(&self) -> &str {
        &self.server.shown
    }

    fn list(&mut self) -> Result<BTreeMap<String, Stamp>, AdapterError> {
        let folder = self.server.folder.clone();
        let listed = there(self.ask(async |s| s.sftp.read_dir(folder).await)?);
        let listed = listed.map_err(|e| file_error(&self.server.shown, "read the folder", &e))?;
        let Some(entries) = listed else {
            return Err(missing(&self.server.shown, "make it on the server, or correct `watch.sftp.url`"));
        };
        // A name is the server's word: one with folders in it would lead elsewhere, one that is not UTF-8 opens nothing.
        let good = |name: &str| !name.contains(['/', '\0', char::REPLACEMENT_CHARACTER]);
        let files = entries.filter(|e| e.metadata().permissions.is_none() || e.file_type().is_file());
        Ok(files.map(|e| (e.file_name(), stamp(&e.metadata()))).filter(|(name, _)| good(name)).collect())
    }

    fn stamp(&mut self, name: &str) -> Result<Option<Stamp>, AdapterError> {
        let found = self.metadata(self.path(name))?.map_err(|e| file_error(&self.name(name), "look at it", &e))?;
        Ok(found.map(|meta| stamp(&meta)))
    }

    fn open(&mut self, name: &str, stamp: Stamp) -> Result<Option<Content>, AdapterError> {
        if self.copy.as_ref().is_none_or(|copy| copy.name != name || copy.stamp != stamp) {
            self.begin(name, stamp)?;
        }
        let whole = self.go_on()?;
        Ok(self.copy.as_ref().filter(|_| whole).map(|copy| Content::of(Arc::clone(&copy.to))))
    }

    fn written_to(&mut self, _: &str, _: Stamp) -> bool {
        false
    }

    fn move_to(&mut self, name: &str, folder: &str) -> Result<(), AdapterError> {
        let (shown, from, folder) = (self.name(name), self.path(name), self.path(folder));
        let failed = |e: SftpError| file_error(&shown, "move it", &e);
        if self.metadata(folder.clone())?.map_err(failed)?.is_none() {
            self.make(&folder)?.map_err(failed)?;
        }
        for free in free_names(name) {
            let to = format!("{folder}/{free}");
            if self.metadata(to.clone())?.map_err(failed)?.is_none() {
                there(self.ask(async |s| s.sftp.rename(from, to).await)?).map_err(failed)?;
                break;
            }
        }
        self.forget(name);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), AdapterError> {
        let path = self.path(name);
        there(self.ask(async |s| s.sftp.remove_file(path).await)?)
            .map_err(|e| file_error(&self.name(name), "remove it", &e))?;
        self.forget(name);
        Ok(())
    }

    fn check(&mut self, after: &After) -> Vec<Finding> {
        check::check(self, after)
    }
}

impl Remote {
    /// Makes a folder with those above it.
    fn make(&mut self, folder: &str) -> Result<Result<(), SftpError>, AdapterError> {
        let ends = folder.char_indices().filter(|(n, c)| *c == '/' && *n > 0).map(|(n, _)| n);
        let mut last = Ok(());
        for end in ends.chain([folder.len()]) {
            let part = folder.get(..end).unwrap_or(folder).to_owned();
            match self.metadata(part.clone())? {
                Ok(None) => last = self.ask(async |s| s.sftp.create_dir(part).await)?,
                Ok(Some(_)) => last = Ok(()),
                Err(e) => last = Err(e),
            }
        }
        Ok(last)
    }

    /// What comes under this name next is another file.
    fn forget(&mut self, name: &str) {
        if self.copy.as_ref().is_some_and(|copy| copy.name == name && copy.from.is_none()) {
            self.copy = None;
        }
    }
}
