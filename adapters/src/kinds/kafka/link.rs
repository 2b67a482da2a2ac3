//! One connection to one server: frames, the versions that both sides know, the login.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader, SaslAuthenticateRequest,
    SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use super::scram::{Hash, Scram, nonce};
use crate::contract::{AdapterError, ErrorClass};
use crate::dial::{self, Stream};

/// Largest answer that is taken.
const FRAME_MAX: usize = 128 * 1024 * 1024;

/// How the password is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// As it is.
    Plain,
    /// By SCRAM.
    Scram(Hash),
}

impl Mechanism {
    /// The name that servers know.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(Hash::Sha256) => "SCRAM-SHA-256",
            Self::Scram(Hash::Sha512) => "SCRAM-SHA-512",
        }
    }
}

/// Who asks.
#[derive(Clone)]
pub(crate) struct Login {
    /// How.
    pub mechanism: Mechanism,
    /// The user.
    pub user: String,
    /// The password.
    pub password: Zeroizing<String>,
}

/// How every server of a cluster is reached.
#[derive(Clone)]
pub(crate) struct Reach {
    /// TLS, if it is spoken.
    pub tls: Option<Arc<ClientConfig>>,
    /// The login, if there is one.
    pub login: Option<Login>,
    /// What servers call us in their logs and quotas.
    pub client: String,
    /// Longest wait for an answer.
    pub timeout: Duration,
}

/// A connection that is ready for questions. After an error it is of no use any more.
pub(crate) struct Link {
    name: String,
    stream: Box<dyn Stream>,
    /// By the number of a question: the versions that the server knows.
    versions: BTreeMap<i16, (i16, i16)>,
    client: StrBytes,
    count: i32,
    timeout: Duration,
    /// When the server closes it unless there was another login.
    until: Option<Instant>,
}

/// Nobody answers, or no longer.
pub(crate) fn lost(place: &str, detail: impl std::fmt::Display) -> AdapterError {
    let message = format!("{place}: {detail}; it is tried again");
    AdapterError::source_failed(ErrorClass::Transient, "source.unreachable", message)
}

/// Somebody answers, but not as Kafka does.
fn strange(place: &str, detail: impl std::fmt::Display) -> AdapterError {
    let message = format!("{place}: {detail}; is it a server of Kafka, and of version 0.11 or newer?");
    AdapterError::source_failed(ErrorClass::Permanent, "source.protocol", message)
}

/// A refusal by its number.
pub(crate) fn refusal(place: &str, code: ResponseError) -> AdapterError {
    let (class, name, next) = match code {
        ResponseError::TopicAuthorizationFailed | ResponseError::ClusterAuthorizationFailed => {
            (ErrorClass::Auth, "source.rights", "let the user describe and read the topic")
        }
        ResponseError::SaslAuthenticationFailed => {
            (ErrorClass::Auth, "source.login", "check `user`, `password` and `login` of `connect`")
        }
        ResponseError::IllegalSaslState | ResponseError::UnsupportedSaslMechanism => {
            (ErrorClass::Auth, "source.login", "this listener wants another `login`, or none")
        }
        code if code.is_retriable() => (ErrorClass::Transient, "source.unreachable", "it is tried again"),
        _ => (ErrorClass::Permanent, "source.protocol", "correct the document or the server"),
    };
    AdapterError::source_failed(class, name, format!("{place}: the server says {code}; {next}"))
}

impl Link {
    /// Connects, asks what the server knows, and logs in.
    pub(crate) async fn connect(reach: &Reach, host: &str, port: u16) -> Result<Self, AdapterError> {
        let name = format!("{host}:{port}");
        let dialled = tokio::time::timeout(reach.timeout, dial::connect(host, port, reach.tls.as_ref())).await;
        let stream = dialled.map_err(|_| lost(&name, "no connection in time"))?.map_err(|e| {
            let code = if e.tls { "source.tls" } else { "source.unreachable" };
            AdapterError::source_failed(e.class, code, format!("{name}: {}", e.detail))
        })?;
        let client = StrBytes::from_string(reach.client.clone());
        let mut link =
            Self { name, stream, versions: BTreeMap::new(), client, count: 0, timeout: reach.timeout, until: None };
        // The one question whose first version every server answers.
        let known: ApiVersionsResponse =
            link.exchange(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default()).await.map_err(|e| link.shy(e))?;
        if let Some(code) = ResponseError::try_from_code(known.error_code) {
            return Err(refusal(&link.name, code));
        }
        link.versions = known.api_keys.iter().map(|k| (k.api_key, (k.min_version, k.max_version))).collect();
        if let Some(login) = &reach.login {
            link.log_in(login).await?;
        }
        Ok(link)
    }

    /// A server that hangs up at once may speak TLS where we do not, or the other way round.
    fn shy(&self, error: AdapterError) -> AdapterError {
        match error.code() {
            "source.unreachable" => {
                lost(&self.name, "it does not answer the first question; look whether `tls` is right")
            }
            _ => error,
        }
    }

    /// True when the server will close it soon.
    pub(crate) fn is_stale(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Host and port.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Asks in the newest version of `from..=to` that the server knows, and waits for the answer.
    pub(crate) async fn ask<Q, A>(
        &mut self,
        key: ApiKey,
        (from, to): (i16, i16),
        question: &Q,
    ) -> Result<A, AdapterError>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        let (least, most) = self.versions.get(&(key as i16)).copied().unwrap_or((0, -1));
        let version = most.min(to);
        if version < least.max(from) {
            return Err(strange(&self.name, format!("it does not know {key:?} in a version from {from} to {to}")));
        }
        self.exchange(key, version, question).await
    }

    async fn exchange<Q, A>(&mut self, key: ApiKey, version: i16, question: &Q) -> Result<A, AdapterError>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        self.count = self.count.wrapping_add(1);
        let (count, name, timeout) = (self.count, self.name.clone(), self.timeout);
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(count)
            .with_client_id(Some(self.client.clone()));
        let mut frame = BytesMut::zeroed(4);
        let encoded = header.encode(&mut frame, Q::header_version(version));
        encoded.and_then(|()| question.encode(&mut frame, version)).map_err(|e| strange(&name, e))?;
        let length = u32::try_from(frame.len().saturating_sub(4)).unwrap_or(u32::MAX);
        if let Some(head) = frame.get_mut(..4) {
            head.copy_from_slice(&length.to_be_bytes());
        }
        let answered = tokio::time::timeout(timeout, self.round_trip(&frame)).await;
        let mut answer = answered.map_err(|_| lost(&name, "no answer in time"))??;
        let header = ResponseHeader::decode(&mut answer, A::header_version(version)).map_err(|e| strange(&name, e))?;
        if header.correlation_id != count {
            return Err(lost(&name, "it answers another question"));
        }
        A::decode(&mut answer, version).map_err(|e| strange(&name, e))
    }

    async fn round_trip(&mut self, frame: &[u8]) -> Result<Bytes, AdapterError> {
        let name = self.name.clone();
        let gone = |e: std::io::Error| lost(&name, format!("the connection is lost: {e}"));
        self.stream.write_all(frame).await.map_err(gone)?;
        self.stream.flush().await.map_err(gone)?;
        let length = self.stream.read_u32().await.map_err(gone)? as usize;
        // The head of an alert of TLS, read as a length.
        if length >> 16 == 0x1503 {
            let message = format!("{name}: it speaks TLS and we do not; remove `tls: off`");
            return Err(AdapterError::source_failed(ErrorClass::Auth, "source.tls", message));
        }
        if length > FRAME_MAX {
            return Err(strange(&name, format!("it answers with {length} bytes")));
        }
        let mut answer = BytesMut::zeroed(length);
        self.stream.read_exact(&mut answer).await.map_err(gone)?;
        Ok(answer.freeze())
    }

    async fn log_in(&mut self, login: &Login) -> Result<(), AdapterError> {
        let mechanism = StrBytes::from_static_str(login.mechanism.name());
        let hello = SaslHandshakeRequest::default().with_mechanism(mechanism);
        let known: SaslHandshakeResponse = self.ask(ApiKey::SaslHandshake, (1, 1), &hello).await?;
        match ResponseError::try_from_code(known.error_code) {
            None => {}
            Some(ResponseError::UnsupportedSaslMechanism) => {
                let offered: Vec<&str> = known.mechanisms.iter().map(|m| m.as_str()).collect();
                let message = format!(
                    "{}: it knows no {}, but {}; write one of these as `connect.login`",
                    self.name,
                    login.mechanism.name(),
                    offered.join(", ")
                );
                return Err(AdapterError::source_failed(ErrorClass::Auth, "source.login", message));
            }
            Some(code) => return Err(refusal(&self.name, code)),
        }
        let lifetime = match login.mechanism {
            Mechanism::Plain => {
                let text = Zeroizing::new(format!("\0{}\0{}", login.user, &*login.password));
                self.tell(text.as_bytes()).await?.1
            }
            Mechanism::Scram(hash) => self.scram(hash, login).await?,
        };
        // Servers that want a login again after a time close the connection then: it is opened anew before that.
        self.until = u64::try_from(lifetime)
            .ok()
            .filter(|ms| *ms > 0)
            .and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms / 10 * 9)));
        Ok(())
    }

    async fn scram(&mut self, hash: Hash, login: &Login) -> Result<i64, AdapterError> {
        let bad = |name: &str, detail: String| {
            let message = format!("{name}: {detail}; check `connect`: this may be another server");
            AdapterError::source_failed(ErrorClass::Auth, "source.login", message)
        };
        let nonce = nonce().map_err(|e| bad(&self.name, e))?;
        let scram = Scram::new(hash, &login.user, nonce);
        let (server, _) = self.tell(scram.first().as_bytes()).await?;
        let (second, expected) = scram.second(&server, &login.password).map_err(|e| bad(&self.name, e))?;
        let (last, lifetime) = self.tell(second.as_bytes()).await?;
        match expected.is(&last) {
            true => Ok(lifetime),
            false => Err(bad(&self.name, "the server does not know the password itself".to_owned())),
        }
    }

    /// One step of a login: the server's bytes, and how long the login lasts in milliseconds.
    async fn tell(&mut self, bytes: &[u8]) -> Result<(Bytes, i64), AdapterError> {
        let question = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::copy_from_slice(bytes));
        let answer: SaslAuthenticateResponse = self.ask(ApiKey::SaslAuthenticate, (0, 2), &question).await?;
        match ResponseError::try_from_code(answer.error_code) {
            None => Ok((answer.auth_bytes, answer.session_lifetime_ms)),
            // The server's own words may hold the user's name and are left out.
            Some(code) => Err(refusal(&self.name, code)),
        }
    }
}
