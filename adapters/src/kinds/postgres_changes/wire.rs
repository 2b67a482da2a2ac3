//! A replication session of PostgreSQL: start-up, login, simple queries, and the copy in both directions that follows
//! START_REPLICATION. The driver used elsewhere does not speak it; messages and SCRAM come from `postgres-protocol`.

use std::path::PathBuf;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;

use crate::kinds::sql_poll::postgres::{Reach, by_state};
use crate::kinds::sql_poll::session::{Cause, Failure};

/// Largest message that is taken: a row of the source.
const FRAME_MAX: usize = 64 * 1024 * 1024;

/// Longest wait for the server to end.
const GOODBYE: Duration = Duration::from_secs(2);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// Its kind.
    pub tag: u8,
    /// What follows kind and length.
    pub body: Bytes,
}

/// A connection.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    input: BytesMut,
}

fn lost(error: &std::io::Error) -> Failure {
    Failure::new(Cause::Lost, error.to_string())
}

fn broken(what: &str) -> Failure {
    Failure::new(Cause::Refused, format!("the server spoke otherwise than expected: {what}"))
}

impl Wire {
    /// Connects and logs in, for replication of one database.
    pub(super) async fn connect(reach: &Reach) -> Result<Self, Failure> {
        let config = &reach.config;
        let port = config.get_ports().first().copied().unwrap_or(5_432);
        let stream: Box<dyn Stream> = match config.get_hosts().first() {
            Some(Host::Unix(folder)) => {
                let path: PathBuf = folder.join(format!(".s.PGSQL.{port}"));
                Box::new(UnixStream::connect(path).await.map_err(|e| lost(&e))?)
            }
            other => {
                let host = if let Some(Host::Tcp(host)) = other { host.as_str() } else { "localhost" };
                let stream = TcpStream::connect((host, port)).await.map_err(|e| lost(&e))?;
                stream.set_nodelay(true).map_err(|e| lost(&e))?;
                match &reach.tls {
                    Some(tls) => Box::new(secure(stream, host, tls.connector()).await?),
                    None => Box::new(stream),
                }
            }
        };
        let mut wire = Self { stream, input: BytesMut::with_capacity(64 * 1024) };
        wire.log_in(reach).await?;
        Ok(wire)
    }

    async fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<(), Failure> {
        let mut out = BytesMut::new();
        write(&mut out).map_err(|e| lost(&e))?;
        self.stream.write_all(&out).await.map_err(|e| lost(&e))?;
        self.stream.flush().await.map_err(|e| lost(&e))
    }

    /// The next message. It may be dropped while waiting: nothing is lost.
    pub(super) async fn frame(&mut self) -> Result<Frame, Failure> {
        loop {
            if let Some(head) = self.input.get(..5) {
                let (tag, mut length) = (head.first().copied().unwrap_or(0), head.get(1..).unwrap_or_default());
                let length = usize::try_from(length.get_u32()).unwrap_or(usize::MAX);
                if !(4..=FRAME_MAX).contains(&length) {
                    return Err(broken(&format!("a message of {length} bytes")));
                }
                if self.input.len() > length {
                    let mut body = self.input.split_to(length + 1).freeze();
                    body.advance(5);
                    return Ok(Frame { tag, body });
                }
                self.input.reserve(length + 1 - self.input.len());
            }
            if self.stream.read_buf(&mut self.input).await.map_err(|e| lost(&e))? == 0 {
                return Err(Failure::new(Cause::Lost, "the server closed the connection"));
            }
        }
    }

    async fn log_in(&mut self, reach: &Reach) -> Result<(), Failure> {
        let config = &reach.config;
        let user = config.get_user().unwrap_or("postgres").to_owned();
        let name = config.get_application_name().unwrap_or("concordat").to_owned();
        let parameters = [
            ("user", user.as_str()),
            ("database", config.get_dbname().unwrap_or(&user)),
            ("replication", "database"),
            ("application_name", &name),
            ("client_encoding", "UTF8"),
            ("timezone", "UTC"),
            ("datestyle", "ISO, YMD"),
            ("intervalstyle", "iso_8601"),
            ("extra_float_digits", "1"),
            ("bytea_output", "hex"),
        ];
        self.send(|out| frontend::startup_message(parameters, out)).await?;
        let missing = || Failure::new(Cause::Login, "the server asks for a password and none is given");
        let mut scram: Option<ScramSha256> = None;
        loop {
            let Frame { tag, mut body } = self.frame().await?;
            match tag {
                b'E' => return Err(refusal(&body)),
                b'Z' => return Ok(()),
                b'R' if body.len() >= 4 => {}
                _ => continue,
            }
            match body.get_i32() {
                0 => {}
                3 => {
                    let password = config.get_password().ok_or_else(missing)?;
                    self.send(|out| frontend::password_message(password, out)).await?;
                }
                5 if body.len() >= 4 => {
                    let mut salt = [0; 4];
                    body.copy_to_slice(&mut salt);
                    let hash = md5_hash(user.as_bytes(), config.get_password().ok_or_else(missing)?, salt);
                    self.send(|out| frontend::password_message(hash.as_bytes(), out)).await?;
                }
                10 => {
                    if !body.split(|b| *b == 0).any(|m| m == SCRAM_SHA_256.as_bytes()) {
                        return Err(broken("it offers no login by SCRAM-SHA-256"));
                    }
                    let password = config.get_password().ok_or_else(missing)?;
                    let binding = ChannelBinding::unsupported();
                    let exchange = scram.insert(ScramSha256::new(password, binding));
                    let first = exchange.message().to_vec();
                    self.send(|out| frontend::sasl_initial_response(SCRAM_SHA_256, &first, out)).await?;
                }
                11 => {
                    let exchange = scram.as_mut().ok_or_else(|| broken("SCRAM out of order"))?;
                    exchange.update(&body).map_err(|e| Failure::new(Cause::Login, e.to_string()))?;
                    let answer = exchange.message().to_vec();
                    self.send(|out| frontend::sasl_response(&answer, out)).await?;
                }
                12 => {
                    let exchange = scram.as_mut().ok_or_else(|| broken("SCRAM out of order"))?;
                    exchange.finish(&body).map_err(|e| Failure::new(Cause::Login, e.to_string()))?;
                }
                other => {
                    return Err(Failure::new(Cause::Login, format!("the login of kind {other} is not spoken here")));
                }
            }
        }
    }

    /// Runs a command and returns its rows.
    pub(super) async fn query(&mut self, text: &str) -> Result<Vec<Vec<Option<String>>>, Failure> {
        self.send(|out| frontend::query(text, out)).await?;
        let (mut rows, mut failed) = (Vec::new(), None);
        loop {
            let Frame { tag, body } = self.frame().await?;
            match tag {
                b'D' => rows.push(row(body)?),
                b'E' => failed = Some(refusal(&body)),
                b'Z' => return failed.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    /// Starts the stream of a slot, where the server says that it was confirmed.
    pub(super) async fn start(&mut self, slot: &str, publication: &str) -> Result<(), Failure> {
        let text = format!(
            "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names '{}')",
            quoted(slot),
            quoted(publication).replace('\'', "''")
        );
        self.send(|out| frontend::query(&text, out)).await?;
        loop {
            let Frame { tag, body } = self.frame().await?;
            match tag {
                b'W' => return Ok(()),
                b'E' => return Err(refusal(&body)),
                _ => {}
            }
        }
    }

    /// Says how far everything is durable.
    pub(super) async fn confirm(&mut self, durable: u64, received: u64) -> Result<(), Failure> {
        let mut body = Vec::with_capacity(34);
        body.push(b'r');
        body.extend_from_slice(&received.max(durable).to_be_bytes());
        body.extend_from_slice(&durable.to_be_bytes());
        body.extend_from_slice(&durable.to_be_bytes());
        body.extend_from_slice(&0_i64.to_be_bytes());
        body.push(0);
        self.send(|out| {
            frontend::CopyData::new(&body[..])?.write(out);
            Ok(())
        })
        .await
    }

    /// Says goodbye and waits until the server is gone, for a moment: then its slot is free.
    pub(super) async fn close(mut self, copying: bool) {
        let goodbye = async {
            self.send(|out| {
                if copying {
                    frontend::copy_done(out);
                }
                frontend::terminate(out);
                Ok(())
            })
            .await?;
            while self.frame().await.is_ok() {}
            Ok::<(), Failure>(())
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

/// A name, quoted.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

async fn secure(
    mut stream: TcpStream,
    host: &str,
    tls: &tokio_rustls::TlsConnector,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
    let mut out = BytesMut::new();
    frontend::ssl_request(&mut out);
    stream.write_all(&out).await.map_err(|e| lost(&e))?;
    if stream.read_u8().await.map_err(|e| lost(&e))? != b'S' {
        return Err(Failure::new(Cause::Tls, "the server does not offer TLS"));
    }
    let bad = |e: String| Failure::new(Cause::Tls, e);
    let name = ServerName::try_from(host.to_owned()).map_err(|e| bad(e.to_string()))?;
    tls.connect(name, stream).await.map_err(|e| bad(e.to_string()))
}

/// The failure that an ErrorResponse is.
pub(super) fn refusal(body: &[u8]) -> Failure {
    let (mut code, mut message) = ("", "");
    for field in body.split(|b| *b == 0) {
        let Some((kind, text)) = field.split_first() else { continue };
        let text = std::str::from_utf8(text).unwrap_or_default();
        match kind {
            b'C' => code = text,
            b'M' => message = text,
            _ => {}
        }
    }
    by_state(&SqlState::from_code(code), message)
}

fn row(mut body: Bytes) -> Result<Vec<Option<String>>, Failure> {
    let short = || broken("a row that ends early");
    let count = body.try_get_i16().map_err(|_| short())?;
    let mut cells = Vec::new();
    for _ in 0..count {
        let length = body.try_get_i32().map_err(|_| short())?;
        let Ok(length) = usize::try_from(length) else {
            cells.push(None);
            continue;
        };
        if body.len() < length {
            return Err(short());
        }
        cells.push(Some(String::from_utf8_lossy(&body.split_to(length)).into_owned()));
    }
    Ok(cells)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn refusals_keep_the_server_s_reason() {
        let failure = refusal(b"SERROR\0VERROR\0C55006\0Mreplication slot \"x\" is active\0\0");
        assert_eq!((failure.cause, failure.detail.contains("is active")), (Cause::Busy, true));
        assert_eq!(refusal(b"C28P01\0Mno\0\0").cause, Cause::Login);
    }

    #[test]
    fn rows_that_end_early_are_no_rows() {
        let good = Bytes::from_static(b"\0\x02\0\0\0\x01a\xff\xff\xff\xff");
        assert_eq!(row(good.clone()).unwrap(), [Some("a".to_owned()), None]);
        assert!(row(good.slice(..6)).is_err() && row(Bytes::new()).is_err());
    }
}
