//! The document of an MQTT source.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::client::Qos;
use super::session::Server;
use super::source::{Rule, Word};
use super::topics;
use super::wire::{Hello, Version};
use crate::adapter_document;
use crate::contract::AdapterError;
use crate::dial;
use crate::document::{Common, DocumentError, Period, Secret};
use crate::json_rows::JsonRows;
use crate::mapping::Mapper;
use crate::tls;

/// Largest packet that is taken from the server.
const PACKET_MAX: u32 = 16 * 1024 * 1024;
/// Messages the server may send without an acknowledgement: all that have a number. What is read ahead is bounded by not
/// reading from the connection; a smaller number is one that servers pass when a session goes on.
const RECEIVE_MAX: u16 = u16::MAX;

adapter_document! {
    /// An MQTT source as written.
    pub struct MqttDoc {
        /// Where the server is.
        pub connect: Connect,
        /// What is subscribed.
        pub topics: Vec<Topic>,
        /// Whether the server keeps what comes while nobody is connected.
        #[serde(default)]
        pub session: Keep,
    }
}

/// Where the server is and who connects.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// `mqtt://host:port` or `mqtts://host:port`; ports 1883 and 8883 when left out.
    pub url: Spanned<String>,
    /// The name under which the server keeps the session; `concordat-` and the adapter's name when left out.
    #[serde(default)]
    pub client_id: Option<String>,
    /// Version of the protocol, `5` or `3.1.1`.
    #[serde(default)]
    pub version: Spoken,
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
    /// Longest silence on the connection.
    #[serde(default)]
    pub keep_alive: Option<Period>,
    /// How long the server keeps the session while nobody is connected (version 5).
    #[serde(default)]
    pub session_expiry: Option<Period>,
}

/// A filter and what becomes of its messages.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Topic filter with `+` and `#`.
    pub filter: Spanned<String>,
    /// Quality of service, 0, 1 or 2.
    #[serde(default = "one")]
    pub qos: Spanned<u8>,
    /// Target field to path for this filter alone; types are those of the document's `map`.
    #[serde(default)]
    pub map: BTreeMap<String, Spanned<String>>,
}

fn one() -> Spanned<u8> {
    Spanned { value: 1, referenced: serde_saphyr::Location::UNKNOWN, defined: serde_saphyr::Location::UNKNOWN }
}

/// Whether the server keeps what comes while nobody is connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// It does.
    #[default]
    Persistent,
    /// It does not: what is sent meanwhile is lost.
    Clean,
}

/// Version of the protocol as written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spoken(pub Version);

impl<'de> Deserialize<'de> for Spoken {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match String::deserialize(d)?.as_str() {
            "5" | "5.0" => Ok(Self(Version::V5)),
            "3.1.1" => Ok(Self(Version::V3)),
            _ => Err(serde::de::Error::custom("the version of MQTT is 5 or 3.1.1")),
        }
    }
}

/// Host, port and whether TLS is spoken.
pub fn address(url: &Spanned<String>) -> Result<(String, u16, bool), DocumentError> {
    dial::address(url, &dial::Scheme { plain: ("mqtt://", 1883), secure: ("mqtts://", 8883) })
}

impl MqttDoc {
    /// The filters with their quality of service.
    pub fn filters(&self) -> Result<Vec<(String, Qos)>, DocumentError> {
        if self.topics.is_empty() {
            return Err(DocumentError::rule("topics", "name at least one filter"));
        }
        let mut filters = Vec::new();
        for topic in &self.topics {
            if let Some(fault) = topics::filter_fault(&topic.filter.value) {
                return Err(DocumentError::at(&topic.filter, "topics.filter", fault));
            }
            let qos = Qos::new(topic.qos.value)
                .ok_or_else(|| DocumentError::at(&topic.qos, "topics.qos", "quality of service is 0, 1 or 2"))?;
            filters.push((topic.filter.value.clone(), qos));
        }
        Ok(filters)
    }

    /// The mapping of each filter.
    pub fn rules(&self, common: &Common) -> Result<Vec<Rule>, DocumentError> {
        let filters = self.filters()?;
        let mut rules = Vec::new();
        for (topic, (filter, _)) in self.topics.iter().zip(filters) {
            let mut common = common.clone();
            for (target, path) in &topic.map {
                let field = common.map.entry(target.clone()).or_default();
                field.from = Some(path.clone());
            }
            let rows = JsonRows::new(Mapper::open(&common)?, Word::parse)?;
            let levels = topics::levels_min(&filter);
            for step in rows.mapper().steps() {
                if let Some(Ok(Word::Level(n))) = Word::parse(&step.from)
                    && n >= levels
                    && !filter.ends_with('#')
                {
                    let detail = format!("`{filter}` has {levels} levels, from $topic[0] to $topic[{}]", levels - 1);
                    return Err(DocumentError::rule(format!("map.{}.from", step.target), detail));
                }
            }
            rules.push(Rule { filter, rows });
        }
        Ok(rules)
    }

    /// The server and how a connection to it begins. Secrets and certificates are read here.
    pub fn server(&self, base: &Path) -> Result<Server, AdapterError> {
        let connect = &self.connect;
        let (host, port, secure) = address(&connect.url)?;
        let files =
            tls::Files { ca: connect.ca.as_deref(), cert: connect.cert.as_deref(), key: connect.key.as_deref() };
        if !secure && (files.ca.is_some() || files.cert.is_some() || files.key.is_some()) {
            return Err(DocumentError::at(&connect.url, "connect.url", "certificates need mqtts://").into());
        }
        let login = match (&connect.user, &connect.password) {
            (None, None) => None,
            (Some(user), Some(password)) => Some((user.clone(), password.reveal(base)?)),
            _ => {
                let detail = "`user` and `password` come together";
                return Err(DocumentError::at(&connect.url, "connect", detail).into());
            }
        };
        let keep_alive = connect.keep_alive.map_or(Duration::from_secs(30), |p| p.0);
        if !(Duration::from_secs(1)..=Duration::from_secs(65_535)).contains(&keep_alive) {
            return Err(DocumentError::rule("connect.keep_alive", "from 1s to 65535s").into());
        }
        let expiry = connect.session_expiry.map_or(Duration::from_secs(7 * 86_400), |p| p.0);
        Ok(Server {
            host,
            port,
            tls: if secure { Some(tls::client(base, files)?) } else { None },
            hello: Hello {
                version: connect.version.0,
                client_id: connect.client_id.clone().unwrap_or_else(|| format!("concordat-{}", self.adapter.value)),
                persistent: self.session == Keep::Persistent,
                expiry_s: u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX - 1),
                keep_alive,
                receive_max: RECEIVE_MAX,
                packet_max: PACKET_MAX,
                login,
                filters: self.filters()?,
            },
        })
    }
}
