//! A service that is asked again and again over HTTP. See the page of the kind.

pub mod document;
pub mod fetch;
pub mod gtfs;
pub mod items;
mod ngsi;
pub mod paging;
pub mod source;
pub mod spool;

use std::net::ToSocketAddrs;
use std::path::Path;
use std::time::Duration;

use document::HttpDoc;
use fetch::{Asker, Page, Question, Reply, Service};
use paging::Ask;
use source::{HttpSource, Plan};

use crate::contract::{AdapterError, Again, Connector, Discovery, ErrorClass, Finding, Kind, Setting, Source, Spec};
use crate::document::{Common, DocumentError};
use crate::json_rows::{JsonRows, again};
use crate::json_sample::Sample;
use crate::mapping::Mapper;

/// A clock that is further away is told.
const SKEW_MAX_S: u64 = 30;

/// The kind `http-poll`.
pub struct HttpPollKind;

const fn setting(name: &'static str, required: bool, about: &'static str) -> Setting {
    Setting { name, required, about }
}

const SETTINGS: &[Setting] = &[
    setting("connect.url", true, "Address of the first page."),
    setting("connect.headers", false, "Headers of every question; no secrets."),
    setting("connect.auth.bearer", false, "A token by reference."),
    setting("connect.auth.basic", false, "{user, password}; the password by reference."),
    setting("connect.auth.header", false, "{name, value}: a header with a key by reference."),
    setting("connect.auth.oauth2", false, "{token_url, client_id, client_secret, scope}: client credentials."),
    setting("connect.ca", false, "Certificates that are trusted, a PEM file; those of the machine when left out."),
    setting("connect.cert", false, "Own certificate, a PEM file."),
    setting("connect.key", false, "Key of the own certificate, a PEM file."),
    setting("format", false, "json, ngsi-ld or gtfs-realtime; json when left out."),
    setting("entity", false, "What becomes a row of GTFS-Realtime: vehicle, trip-update or alert."),
    setting("items", false, "Path to the list in the answer; the whole answer when left out."),
    setting("paging", false, "page, offset, next, cursor, or link-header; one page when left out."),
    setting("since", false, "{parameter, path, start, overlap}: ask only for what is new."),
    setting("limits", false, "{bytes, pages}: most bytes of an answer, most pages of a round; 16 MiB and 10000."),
];

impl Kind for HttpPollKind {
    fn spec(&self) -> Spec {
        Spec {
            kind: "http-poll",
            title: "a service that is asked again and again: JSON, NGSI-LD, GTFS-Realtime",
            settings: SETTINGS,
            example: include_str!("example.yaml"),
            readme: include_str!("README.md"),
        }
    }

    fn parse(&self, text: &str) -> Result<Box<dyn Connector>, DocumentError> {
        let doc = HttpDoc::parse(text)?;
        doc.url()?;
        doc.items()?;
        doc.paging()?;
        doc.since()?;
        Ok(Box::new(HttpConnector { common: doc.common(), doc }))
    }
}

struct HttpConnector {
    common: Common,
    doc: HttpDoc,
}

impl HttpConnector {
    fn rows(&self) -> Result<JsonRows<()>, DocumentError> {
        JsonRows::new(Mapper::open(&self.common)?, |_| None)
    }

    /// The first page.
    fn first(&self, service: Service) -> Result<Page, AdapterError> {
        let patience = service.limits.time + Duration::from_secs(5);
        let url = Ask::default().url(&service.url, &self.doc.paging()?, self.doc.since()?.as_ref())?;
        let mut asker = Asker::new(service);
        asker.ask(Question { url, etag: None, modified: None });
        match asker.answer(patience) {
            Some(Ok(Reply::Page(page))) => Ok(page),
            Some(Err(error)) => Err(error),
            Some(Ok(Reply::Unchanged)) | None => {
                Err(AdapterError::source_failed(ErrorClass::Transient, "source.timeout", "the service gave no answer"))
            }
        }
    }
}

fn clock(page: &Page) -> Finding {
    match page.skew_s {
        None => Finding::warn("clock", "the service does not say its time", "compare its clock by hand"),
        Some(skew) if skew.unsigned_abs() > SKEW_MAX_S => Finding::warn(
            "clock",
            format!("the service's clock is {} s {}", skew.unsigned_abs(), if skew > 0 { "ahead" } else { "behind" }),
            "synchronise both clocks: times of records would be off by as much",
        ),
        Some(_) => Finding::ok("clock", "the service's clock agrees with ours"),
    }
}

impl Connector for HttpConnector {
    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self, base: &Path) -> Vec<Finding> {
        let mut found = vec![match self.rows() {
            Ok(_) => Finding::ok("mapping", "the mapping can be used"),
            Err(e) if self.common.map.is_empty() => {
                let next = "`concordat adapter discover` drafts one from an answer";
                Finding::warn("mapping", format!("there is none yet ({e})"), next)
            }
            Err(e) => Finding::failed("mapping", &e.into()),
        }];
        let service = match self.doc.service(base) {
            Ok(service) => service,
            Err(e) => {
                found.push(Finding::failed("login", &e));
                return found;
            }
        };
        let (host, port) =
            (service.url.host_str().unwrap_or_default(), service.url.port_or_known_default().unwrap_or(0));
        match (host.trim_start_matches('[').trim_end_matches(']'), port).to_socket_addrs() {
            Ok(addresses) => found.push(Finding::ok("dns", format!("{host} has {} addresses", addresses.count()))),
            Err(e) => {
                found.push(Finding::fail("dns", format!("{host}: {e}"), "correct `connect.url`"));
                return found;
            }
        }
        let secure = service.url.scheme() == "https";
        match self.first(service) {
            Ok(page) => {
                found.push(match secure {
                    true => Finding::ok("tls", "the service's certificate is trusted"),
                    false => {
                        Finding::warn("tls", "the connection is not encrypted", "use https:// outside one machine")
                    }
                });
                found.push(Finding::ok("login", "the service answered"));
                found.push(match self.doc.items().map_err(|e| e.to_string()).and_then(|items| items.of(&page.body)) {
                    Ok(items) => Finding::ok("items", format!("the first page has {} items", items.len())),
                    Err(detail) => Finding::fail("items", detail, "correct `items` or `format`"),
                });
                found.push(clock(&page));
            }
            Err(e) => {
                let name = match e.code() {
                    "source.tls" => "tls",
                    "source.login" | "source.secret" => "login",
                    "source.rights" => "rights",
                    _ => "reach",
                };
                found.push(Finding::failed(name, &e));
            }
        }
        found
    }

    fn discover(&self, base: &Path) -> Result<Discovery, AdapterError> {
        let page = self.first(self.doc.service(base)?)?;
        let items = self.doc.items()?.of(&page.body);
        let items = items.map_err(|e| AdapterError::source_failed(ErrorClass::Permanent, "source.protocol", e))?;
        let mut sample = Sample::default();
        items.iter().for_each(|item| sample.see(item, &[]));
        if sample.count() == 0 {
            let detail = "the first page has no items; try again when there are some";
            return Err(AdapterError::source_failed(ErrorClass::Transient, "source.missing", detail));
        }
        Ok(sample.draft(&self.common))
    }

    fn open(&self, base: &Path) -> Result<Box<dyn Source>, AdapterError> {
        let plan = Plan {
            items: self.doc.items()?,
            paging: self.doc.paging()?,
            since: self.doc.since()?,
            every: self.doc.every(),
            pages_max: self.doc.pages_max(),
            rows: self.rows()?,
        };
        let folder = base.join("adapters").join(format!("{}.http", self.common.adapter.value));
        Ok(Box::new(HttpSource::new(self.doc.service(base)?, plan, &folder)?))
    }

    fn again(&self) -> Result<Again, AdapterError> {
        Ok(again(self.rows()?))
    }
}
