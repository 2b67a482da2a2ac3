//! Messages of an MQTT server, 3.1.1 or 5. See the page of the kind.

pub mod client;
pub mod document;
pub mod session;
pub mod source;
pub mod topics;
pub mod wire;

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;
use std::path::Path;
use std::time::{Duration, Instant};

use client::{Client, LinkError, News, Stage};
use document::MqttDoc;
use session::{Server, Session};
use source::{MqttSource, source_error};

use crate::contract::{AdapterError, Again, Connector, Discovery, ErrorClass, Finding, Kind, Setting, Source, Spec};
use crate::document::{Common, DocumentError};
use crate::json_sample::Sample;

/// How long a check or a sample waits.
const PATIENCE: Duration = Duration::from_secs(12);
/// Messages of a sample.
const SAMPLE_MAX: usize = 500;

/// The kind `mqtt`.
pub struct MqttKind;

const fn setting(name: &'static str, required: bool, about: &'static str) -> Setting {
    Setting { name, required, about }
}

const SETTINGS: &[Setting] = &[
    setting("connect.url", true, "mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS."),
    setting("connect.client_id", false, "The name of the session at the server; concordat-NAME when left out."),
    setting("connect.version", false, "5 or 3.1.1; 5 when left out."),
    setting("connect.user", false, "The user."),
    setting("connect.password", false, "The password by reference, env:NAME or file:PATH."),
    setting("connect.ca", false, "Certificates that are trusted, a PEM file; those of the machine when left out."),
    setting("connect.cert", false, "Own certificate, a PEM file."),
    setting("connect.key", false, "Key of the own certificate, a PEM file."),
    setting("connect.keep_alive", false, "Longest silence on the connection; 30s when left out."),
    setting("connect.session_expiry", false, "How long the server keeps the session, version 5; 7d when left out."),
    setting("topics.filter", true, "What is subscribed, with + and #."),
    setting("topics.qos", false, "Quality of service 0, 1 or 2; 1 when left out."),
    setting("topics.map", false, "Target field to path for this filter alone; types are those of map."),
    setting("session", false, "persistent, or clean when messages may be lost; persistent when left out."),
];

impl Kind for MqttKind {
    fn spec(&self) -> Spec {
        Spec {
            kind: "mqtt",
            title: "messages of an MQTT server, 3.1.1 or 5",
            settings: SETTINGS,
            example: include_str!("example.yaml"),
            readme: include_str!("README.md"),
        }
    }

    fn parse(&self, text: &str) -> Result<Box<dyn Connector>, DocumentError> {
        let doc = MqttDoc::parse(text)?;
        doc.filters()?;
        document::address(&doc.connect.url)?;
        Ok(Box::new(MqttConnector { common: doc.common(), doc }))
    }
}

struct MqttConnector {
    common: Common,
    doc: MqttDoc,
}

impl MqttConnector {
    /// The same server under another name and without a session, so that a running adapter keeps its own.
    fn visitor(&self, base: &Path) -> Result<Server, AdapterError> {
        let mut server = self.doc.server(base)?;
        server.hello.client_id = format!("{}-check-{}", server.hello.client_id, std::process::id());
        server.hello.persistent = false;
        Ok(server)
    }
}

/// Waits until the connection stands, and returns what came with it.
fn until_up(session: &mut Session) -> Result<Vec<News>, LinkError> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let news = session.receive(SAMPLE_MAX, Duration::from_millis(200))?;
        if !news.is_empty() {
            return Ok(news);
        }
    }
    let detail = "no answer in time".to_owned();
    Err(LinkError { server: "the server".to_owned(), detail, class: ErrorClass::Transient, stage: Stage::Reach })
}

fn mapping(doc: &MqttDoc, common: &Common) -> Finding {
    match doc.rules(common) {
        Ok(rules) => Finding::ok("mapping", format!("{} filters with a mapping", rules.len())),
        Err(e) if common.map.is_empty() && doc.topics.iter().all(|t| t.map.is_empty()) => Finding::warn(
            "mapping",
            format!("there is none yet ({e})"),
            "`concordat adapter discover` drafts one from messages",
        ),
        Err(e) => Finding::failed("mapping", &e.into()),
    }
}

impl Connector for MqttConnector {
    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self, base: &Path) -> Vec<Finding> {
        let mut found = vec![mapping(&self.doc, &self.common)];
        let server = match self.visitor(base) {
            Ok(server) => server,
            Err(e) => {
                found.push(Finding::failed("login", &e));
                return found;
            }
        };
        match (server.host.as_str(), server.port).to_socket_addrs() {
            Ok(addresses) => {
                found.push(Finding::ok("dns", format!("{} has {} addresses", server.host, addresses.count())))
            }
            Err(e) => {
                found.push(Finding::fail("dns", format!("{}: {e}", server.host), "correct `connect.url`"));
                return found;
            }
        }
        let secure = server.tls.is_some();
        let filters = server.hello.filters.len();
        let persistent = self.doc.session == document::Keep::Persistent;
        match until_up(&mut Session::new(server)) {
            Ok(_) => {
                found.push(match secure {
                    true => Finding::ok("tls", "the server's certificate is trusted"),
                    false => {
                        Finding::warn("tls", "the connection is not encrypted", "use mqtts:// outside one machine")
                    }
                });
                found.push(Finding::ok("login", "the server took the connection"));
                found.push(Finding::ok("rights", format!("{filters} filters can be subscribed")));
                if persistent && self.doc.topics.iter().any(|t| t.qos.value == 0) {
                    let next = "use qos 1 where the publishers do";
                    found.push(Finding::warn("rights", "messages of a filter with qos 0 can be lost", next));
                }
            }
            Err(e) => {
                let name = match e.stage {
                    Stage::Reach => "reach",
                    Stage::Tls => "tls",
                    Stage::Login | Stage::Link => "login",
                    Stage::Rights => "rights",
                };
                found.push(Finding::failed(name, &source_error(e)));
            }
        }
        found
    }

    fn discover(&self, base: &Path) -> Result<Discovery, AdapterError> {
        let mut session = Session::new(self.visitor(base)?);
        let mut sample = Sample::default();
        let mut topics: BTreeMap<String, u64> = BTreeMap::new();
        let (start, mut news) = (Instant::now(), until_up(&mut session).map_err(source_error)?);
        while start.elapsed() < PATIENCE && sample.count() < SAMPLE_MAX as u64 {
            for message in news.drain(..).filter_map(|n| if let News::Message(m) = n { Some(m) } else { None }) {
                *topics.entry(message.topic.clone()).or_default() += 1;
                let levels: Vec<(String, String)> = message
                    .topic
                    .split('/')
                    .enumerate()
                    .map(|(n, level)| (format!("$topic[{n}]"), level.to_owned()))
                    .collect();
                sample.see(&message.payload, &levels);
            }
            news = session.receive(SAMPLE_MAX, Duration::from_millis(200)).map_err(source_error)?;
        }
        if sample.count() == 0 {
            let detail = "no message with JSON came within 12 seconds; try again while something is sent";
            return Err(AdapterError::source_failed(ErrorClass::Transient, "source.missing", detail));
        }
        Ok(sample.draft(&self.common))
    }

    fn open(&self, base: &Path) -> Result<Box<dyn Source>, AdapterError> {
        let rules = self.doc.rules(&self.common)?;
        let session = Session::new(self.doc.server(base)?);
        let persistent = self.doc.session == document::Keep::Persistent;
        Ok(Box::new(MqttSource::new(session, rules, persistent, crate::run_id::run_id())))
    }

    fn again(&self) -> Result<Again, AdapterError> {
        let rules = self.doc.rules(&self.common)?;
        Ok(Box::new(move |origin, raw| {
            let topic = origin.file.clone();
            source::row(&rules, &topic, raw, origin)
        }))
    }
}
