//! A connection to a MongoDB server, asked from a plain thread.

use std::path::Path;
use std::time::Duration;

use mongodb::bson::{Bson, Document, doc};
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::{ChangeStreamEvent, ResumeToken};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{ClientOptions, Credential, FullDocumentType, ServerAddress, Tls, TlsOptions};
use mongodb::{Client, Collection};
use tokio::runtime::{Builder, Runtime};

use super::document::MongoDoc;
use crate::contract::{AdapterError, ErrorClass};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a change stream waits for something new.
const AWAIT: Duration = Duration::from_millis(400);

/// A change, and the token behind it.
pub type Change = (ChangeStreamEvent<Document>, Option<ResumeToken>);

/// A runtime that can be dropped anywhere.
struct Own(Option<Runtime>);

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A collection of a server.
pub struct Store {
    // Before the runtime its tasks are on.
    stream: Option<ChangeStream<ChangeStreamEvent<Document>>>,
    collection: Collection<Document>,
    client: Client,
    runtime: Own,
    place: String,
    timeout: Duration,
}

/// An error with its class; never with an address that could hold a password.
fn failed(place: &str, error: &Error) -> AdapterError {
    use ErrorClass::{Auth, Permanent, Transient};
    let (class, code, detail) = match error.kind.as_ref() {
        ErrorKind::Authentication { .. } => {
            (Auth, "source.login", "the server refused the login; check user and password".to_owned())
        }
        ErrorKind::Command(e) => match e.code {
            18 => (Auth, "source.login", "the server refused the login; check user and password".to_owned()),
            13 => (Auth, "source.rights", format!("{}; give the user the role `read` there", e.message)),
            50 => (Transient, "source.timeout", "the question took too long; give the cursor an index".to_owned()),
            59 | 115 | 238 | 40_573 => {
                (Permanent, "source.missing", format!("the server does not do this ({}): {}", e.code_name, e.message))
            }
            280 | 286 => {
                let detail = "the server no longer has the changes since the last run; delete the adapter's position and load anew";
                (Permanent, "source.changed", detail.to_owned())
            }
            _ => (Transient, "source.protocol", format!("{} ({})", e.message, e.code)),
        },
        ErrorKind::InvalidArgument { message, .. } => (Permanent, "source.protocol", message.clone()),
        ErrorKind::InvalidTlsConfig { message, .. } => (Auth, "source.tls", message.clone()),
        ErrorKind::DnsResolve { message, .. } => (Transient, "source.unreachable", message.clone()),
        ErrorKind::ServerSelection { message, .. } => {
            let tls = message.contains("certificate") || message.contains("Tls");
            match tls {
                true => (Auth, "source.tls", format!("TLS: {message}")),
                false => (Transient, "source.unreachable", "no server answers; check `connect.uri`".to_owned()),
            }
        }
        other => (Transient, "source.unreachable", other.to_string()),
    };
    AdapterError::source_failed(class, code, format!("{place}: {detail}"))
}

impl Store {
    /// Prepares a connection; the server is first asked when something is read.
    pub fn open(doc: &MongoDoc, base: &Path) -> Result<Self, AdapterError> {
        let place = doc.place();
        let broken = |detail: String| AdapterError::source_failed(ErrorClass::Permanent, "source.protocol", detail);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|e| broken(format!("{place}: no runtime: {e}")))?;
        let uri = doc.uri(base)?;
        let mut options = runtime
            .block_on(async { ClientOptions::parse(uri.as_str()).await })
            .map_err(|_| broken(format!("{place}: `connect.uri` is not mongodb://HOST:PORT")))?;
        if let (Some(user), Some(password)) = (&doc.connect.user, &doc.connect.password) {
            let credential = Credential::builder()
                .username(user.clone())
                .password(password.reveal(base)?.to_string())
                .source(doc.connect.auth_source.clone())
                .build();
            options.credential = Some(credential);
        }
        let local = options.hosts.iter().all(|h| match h {
            ServerAddress::Tcp { host, .. } => matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1"),
            _ => true,
        });
        if options.tls.is_none() && !local {
            options.tls = Some(Tls::Enabled(TlsOptions::default()));
        }
        if let (Some(Tls::Enabled(tls)), Some(ca)) = (&mut options.tls, &doc.connect.ca) {
            tls.ca_file_path = Some(base.join(crate::tls::path_of(ca)));
        }
        options.app_name = Some(format!("concordat-adapter-{}", doc.adapter.value));
        options.server_selection_timeout = Some(CONNECT_TIMEOUT);
        options.connect_timeout = Some(CONNECT_TIMEOUT);
        options.max_pool_size = Some(2);
        let client = runtime.block_on(async { Client::with_options(options) }).map_err(|e| failed(&place, &e))?;
        let collection = client.database(&doc.connect.database).collection(&doc.collection);
        let runtime = Own(Some(runtime));
        Ok(Self { stream: None, collection, client, runtime, place, timeout: doc.timeout() })
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, AdapterError> {
        let runtime = self.runtime.0.as_ref().ok_or_else(|| {
            AdapterError::source_failed(ErrorClass::Permanent, "source.unreachable", "the session is closed")
        })?;
        runtime.block_on(work).map_err(|e| failed(&self.place, &e))
    }

    /// Documents in order, at most `limit`.
    pub fn find(&self, filter: Document, sort: Document, limit: i64) -> Result<Vec<Document>, AdapterError> {
        self.wait(async {
            let found = self.collection.find(filter).sort(sort).limit(limit).max_time(self.timeout);
            let mut cursor = found.batch_size(u32::try_from(limit.min(1_000)).unwrap_or(1_000)).await?;
            let mut out = Vec::new();
            while cursor.advance().await? {
                out.push(cursor.deserialize_current()?);
            }
            Ok(out)
        })
    }

    /// How many documents there are like this, at most `limit`.
    pub fn count(&self, filter: Document, limit: u64) -> Result<u64, AdapterError> {
        self.wait(async { self.collection.count_documents(filter).limit(limit).max_time(self.timeout).await })
    }

    /// The first fields of the collection's indexes.
    pub fn indexes(&self) -> Result<Vec<String>, AdapterError> {
        self.wait(async {
            let mut cursor = self.collection.list_indexes().await?;
            let mut out = Vec::new();
            while cursor.advance().await? {
                let index = cursor.deserialize_current()?;
                out.extend(index.keys.keys().next().cloned());
            }
            Ok(out)
        })
    }

    /// The server's clock in milliseconds, if it says one.
    pub fn clock_ms(&self) -> Result<Option<i64>, AdapterError> {
        let hello = self.wait(async { self.client.database("admin").run_command(doc! {"hello": 1}).await })?;
        Ok(match hello.get("localTime") {
            Some(Bson::DateTime(at)) => Some(at.timestamp_millis()),
            _ => None,
        })
    }

    /// Follows the collection's changes behind a token, or from now on.
    pub fn follow(&mut self, token: Option<ResumeToken>) -> Result<Option<ResumeToken>, AdapterError> {
        self.stream = None;
        let stream = self.wait(async {
            let watch = self.collection.watch().full_document(FullDocumentType::UpdateLookup).max_await_time(AWAIT);
            watch.resume_after(token).await
        })?;
        let token = stream.resume_token();
        self.stream = Some(stream);
        Ok(token)
    }

    /// The next change, if one comes soon, and the token behind it.
    pub fn change(&mut self) -> Result<Option<Change>, AdapterError> {
        let Some(mut stream) = self.stream.take() else { return Ok(None) };
        let event = self.wait(stream.next_if_any())?;
        let token = stream.resume_token();
        // A stream that failed is not kept: the next one begins behind the last token.
        self.stream = Some(stream);
        Ok(event.map(|event| (event, token)))
    }

    /// True while changes are followed.
    pub fn follows(&self) -> bool {
        self.stream.is_some()
    }
}
