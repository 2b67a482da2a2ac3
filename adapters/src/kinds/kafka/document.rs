//! The document of a Kafka source.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::cluster::Cluster;
use super::link::{Login, Mechanism, Reach};
use super::rows::{Rows, Word};
use super::scram::Hash;
use crate::adapter_document;
use crate::contract::AdapterError;
use crate::document::{Common, DocumentError, Secret};
use crate::json_rows::JsonRows;
use crate::mapping::Mapper;
use crate::tls;

/// The port of a server where none is written.
const PORT: u16 = 9092;

adapter_document! {
    /// A Kafka source as written.
    pub struct KafkaDoc {
        /// Where the cluster is.
        pub connect: Connect,
        /// The topic.
        pub topic: Spanned<String>,
        /// Only these partitions; all when left out.
        #[serde(default)]
        pub partitions: Option<Spanned<Vec<i32>>>,
        /// Where reading begins the first time.
        #[serde(default)]
        pub start: Start,
        /// What a value is.
        #[serde(default)]
        pub format: Format,
        /// What becomes of messages that were deleted before they were read.
        #[serde(default)]
        pub gone: Gone,
    }
}

/// Where the cluster is and who asks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// Some of the cluster's servers, `host:port`; they name the others.
    pub brokers: Vec<Spanned<String>>,
    /// TLS to all of them.
    #[serde(default)]
    pub tls: TlsMode,
    /// How the password is shown.
    #[serde(default)]
    pub login: LoginMode,
    /// User.
    #[serde(default)]
    pub user: Option<String>,
    /// Password, by reference.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Certificates that are trusted, a PEM file.
    #[serde(default)]
    pub ca: Option<String>,
    /// Own certificate, a PEM file.
    #[serde(default)]
    pub cert: Option<String>,
    /// Key of the own certificate, a PEM file.
    #[serde(default)]
    pub key: Option<String>,
}

/// TLS to the servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// With certificates that are checked, or not at all.
    #[default]
    Require,
    /// In the clear, on a network that is trusted.
    Off,
}

/// How the password is shown to the servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoginMode {
    /// As it is.
    Plain,
    /// SCRAM-SHA-256.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// SCRAM-SHA-512.
    #[default]
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

/// Where reading begins the first time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// With the oldest message that is kept.
    #[default]
    Earliest,
    /// With the first one that comes after the adapter's first question.
    Latest,
}

/// What a value is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// JSON.
    #[default]
    Json,
}

/// What becomes of messages that were deleted before they were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gone {
    /// The adapter stops and says so.
    #[default]
    Stop,
    /// It goes on with the oldest one that is kept, and says so.
    Skip,
}

/// Host and port of a server.
fn address(broker: &Spanned<String>) -> Result<(String, u16), DocumentError> {
    let bad = |detail: &str| DocumentError::at(broker, "connect.brokers", detail);
    let text = broker.value.as_str();
    if text.contains(['/', '@', ',', ' ']) {
        return Err(bad("write HOST:PORT, each server for itself"));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && !port.contains(']') => {
            (host, port.parse().map_err(|_| bad("the port is a number from 1 to 65535"))?)
        }
        _ => (text, PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() { Err(bad("write HOST:PORT, each server for itself")) } else { Ok((host.to_owned(), port)) }
}

impl KafkaDoc {
    /// The servers that are named.
    pub fn addresses(&self) -> Result<Vec<(String, u16)>, DocumentError> {
        if self.connect.brokers.is_empty() {
            return Err(DocumentError::rule("connect.brokers", "name at least one server, HOST:PORT"));
        }
        self.connect.brokers.iter().map(address).collect()
    }

    /// Checks what needs no server.
    pub fn check(&self) -> Result<(), DocumentError> {
        self.addresses()?;
        let (topic, c) = (&self.topic, &self.connect);
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if topic.value.is_empty() || topic.value.len() > 249 || !topic.value.bytes().all(legal) {
            return Err(DocumentError::at(topic, "topic", "a topic has 1 to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`"));
        }
        if let Some(list) = &self.partitions {
            let mut once = list.value.clone();
            once.sort_unstable();
            once.dedup();
            if once.is_empty() || once.len() != list.value.len() || once.iter().any(|p| *p < 0) {
                return Err(DocumentError::at(list, "partitions", "name each partition once, by its number from 0"));
            }
        }
        if c.user.is_some() != c.password.is_some() {
            return Err(DocumentError::rule("connect", "`user` and `password` come together"));
        }
        if c.tls == TlsMode::Off && (c.ca.is_some() || c.cert.is_some() || c.key.is_some()) {
            return Err(DocumentError::rule("connect.tls", "certificates need TLS; remove `tls: off`"));
        }
        Ok(())
    }

    /// The mapping of messages.
    pub(crate) fn rows(&self, common: &Common) -> Result<Rows, DocumentError> {
        Ok(Rows::new(JsonRows::new(Mapper::open(common)?, Word::parse)?, self.topic.value.clone()))
    }

    /// The cluster and how it is reached. Secrets and certificates are read here.
    pub(crate) fn cluster(&self, base: &Path) -> Result<Cluster, AdapterError> {
        let c = &self.connect;
        let files = tls::Files { ca: c.ca.as_deref(), cert: c.cert.as_deref(), key: c.key.as_deref() };
        let login = match (&c.user, &c.password) {
            (Some(user), Some(password)) => {
                let mechanism = match c.login {
                    LoginMode::Plain => Mechanism::Plain,
                    LoginMode::ScramSha256 => Mechanism::Scram(Hash::Sha256),
                    LoginMode::ScramSha512 => Mechanism::Scram(Hash::Sha512),
                };
                Some(Login { mechanism, user: user.clone(), password: password.reveal(base)? })
            }
            _ => None,
        };
        let reach = Reach {
            tls: if c.tls == TlsMode::Require { Some(tls::client(base, files)?) } else { None },
            login,
            client: format!("concordat-{}", self.adapter.value),
            timeout: self.poll.statement_timeout.map_or(Duration::from_secs(10), |p| p.0),
        };
        Ok(Cluster::new(reach, self.addresses()?, self.topic.value.clone()))
    }

    /// Wait between two questions.
    pub(crate) fn every(&self) -> Duration {
        self.poll.every.map_or(Duration::from_millis(500), |p| p.0)
    }
}
