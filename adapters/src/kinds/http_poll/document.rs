//! The document of an HTTP source.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::fetch::{Auth, Limits, OAuth2, Service};
use super::gtfs::Entity;
use super::items::Items;
use super::paging::{Paging, Since};
use crate::adapter_document;
use crate::cells::JsonPath;
use crate::contract::AdapterError;
use crate::document::{DocumentError, Period, Secret};
use crate::tls;

adapter_document! {
    /// An HTTP source as written.
    pub struct HttpDoc {
        /// Where the service is.
        pub connect: Connect,
        /// How an answer is written.
        #[serde(default)]
        pub format: Format,
        /// What becomes a row of GTFS-Realtime.
        #[serde(default)]
        pub entity: Option<Entity>,
        /// Path to the list of items; the whole answer when left out.
        #[serde(default)]
        pub items: Option<Spanned<String>>,
        /// How the next page is asked for.
        #[serde(default)]
        pub paging: Option<PagingDoc>,
        /// How only what is new is asked for.
        #[serde(default)]
        pub since: Option<SinceDoc>,
        /// Bounds of an answer.
        #[serde(default)]
        pub limits: LimitsDoc,
    }
}

/// Where the service is and who asks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// `https://host/path?query`.
    pub url: Spanned<String>,
    /// Headers of every question.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Who asks; at most one way.
    #[serde(default)]
    pub auth: AuthDoc,
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

/// Who asks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthDoc {
    /// A token.
    #[serde(default)]
    pub bearer: Option<Secret>,
    /// User and password.
    #[serde(default)]
    pub basic: Option<Basic>,
    /// A header with a key.
    #[serde(default)]
    pub header: Option<KeyHeader>,
    /// Client credentials of OAuth 2.
    #[serde(default)]
    pub oauth2: Option<OAuth2Doc>,
}

/// User and password.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// User.
    pub user: String,
    /// Password, by reference.
    pub password: Secret,
}

/// A header with a key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyHeader {
    /// Name of the header, for example `x-api-key`.
    pub name: String,
    /// Its value, by reference.
    pub value: Secret,
}

/// Client credentials of OAuth 2 (RFC 6749, section 4.4).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OAuth2Doc {
    /// Where tokens are given.
    pub token_url: Spanned<String>,
    /// Name of the client.
    pub client_id: String,
    /// Its secret, by reference.
    pub client_secret: Secret,
    /// What is asked for.
    #[serde(default)]
    pub scope: Option<String>,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// JSON.
    #[default]
    Json,
    /// Entities of NGSI-LD, normalized or as key-values.
    NgsiLd,
    /// GTFS-Realtime, protobuf.
    GtfsRealtime,
}

/// How the next page is asked for; one way.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum PagingDoc {
    /// By a number that grows by one.
    Page {
        /// Name of the parameter.
        parameter: String,
        /// The first page.
        #[serde(default = "one")]
        start: u64,
        /// Items of a full page: a shorter one is the last.
        #[serde(default)]
        size: Option<u64>,
    },
    /// By how many items were read.
    Offset {
        /// Name of the parameter.
        parameter: String,
        /// Items of a full page: a shorter one is the last.
        limit: u64,
    },
    /// By an address in the answer.
    Next(String),
    /// By the `Link` header with `rel="next"`.
    LinkHeader,
    /// By a cursor in the answer.
    Cursor {
        /// Path to it.
        path: String,
        /// Name of the parameter.
        parameter: String,
    },
}

fn one() -> u64 {
    1
}

/// How only what is new is asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinceDoc {
    /// Name of the parameter.
    pub parameter: String,
    /// Path to the value in an item.
    pub path: Spanned<String>,
    /// What is asked for first.
    #[serde(default)]
    pub start: Option<String>,
    /// So much earlier than the newest value is asked again: for rows that appear late.
    #[serde(default)]
    pub overlap: Option<Period>,
}

/// Bounds of an answer.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsDoc {
    /// Most bytes of one answer.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Most pages of one round.
    #[serde(default)]
    pub pages: Option<u32>,
}

const BYTES_DEFAULT: u64 = 16 * 1024 * 1024;
const BYTES_MAX: u64 = 256 * 1024 * 1024;
const PAGES_DEFAULT: u32 = 10_000;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

fn url(text: &Spanned<String>, field: &str) -> Result<Url, DocumentError> {
    let bad = |detail: &str| DocumentError::at(text, field, detail);
    let url = Url::parse(&text.value).map_err(|_| bad("write https://HOST/PATH"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(bad("write https://HOST/PATH"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("user and password never stand in an address: use `connect.auth.basic`"));
    }
    Ok(url)
}

impl HttpDoc {
    /// The address.
    pub fn url(&self) -> Result<Url, DocumentError> {
        url(&self.connect.url, "connect.url")
    }

    /// Where the items of an answer are.
    pub fn items(&self) -> Result<Items, DocumentError> {
        match (self.format, self.entity) {
            (Format::GtfsRealtime, Some(entity)) => {
                return match &self.items {
                    Some(text) => Err(DocumentError::at(text, "items", "GTFS-Realtime has its own; remove it")),
                    None => Ok(Items::Gtfs(entity)),
                };
            }
            (Format::GtfsRealtime, None) => {
                return Err(DocumentError::rule("entity", "say what becomes a row: vehicle, trip-update or alert"));
            }
            (_, Some(_)) => return Err(DocumentError::rule("entity", "is of GTFS-Realtime; remove it")),
            (_, None) => {}
        }
        let path = match &self.items {
            None => JsonPath::parse("$").map_err(|e| DocumentError::rule("items", e))?,
            Some(text) => JsonPath::parse(&text.value).map_err(|e| DocumentError::at(text, "items", e))?,
        };
        Ok(if self.format == Format::NgsiLd { Items::NgsiLd(path) } else { Items::Json(path) })
    }

    /// How pages follow each other.
    pub fn paging(&self) -> Result<Paging, DocumentError> {
        let path = |text: &str, field: &str| JsonPath::parse(text).map_err(|e| DocumentError::rule(field, e));
        if self.format == Format::GtfsRealtime && self.paging.is_some() {
            return Err(DocumentError::rule("paging", "GTFS-Realtime has no pages; remove it"));
        }
        Ok(match &self.paging {
            None => Paging::None,
            Some(PagingDoc::Page { parameter, start, size }) => {
                Paging::Page { parameter: parameter.clone(), start: *start, size: *size }
            }
            Some(PagingDoc::Offset { parameter, limit }) if *limit > 0 => {
                Paging::Offset { parameter: parameter.clone(), limit: *limit }
            }
            Some(PagingDoc::Offset { .. }) => return Err(DocumentError::rule("paging.offset.limit", "at least 1")),
            Some(PagingDoc::Next(text)) => Paging::Next(path(text, "paging.next")?),
            Some(PagingDoc::LinkHeader) => Paging::LinkHeader,
            Some(PagingDoc::Cursor { path: text, parameter }) => {
                Paging::Cursor { path: path(text, "paging.cursor.path")?, parameter: parameter.clone() }
            }
        })
    }

    /// How only what is new is asked for.
    pub fn since(&self) -> Result<Option<Since>, DocumentError> {
        let Some(doc) = &self.since else { return Ok(None) };
        let path = crate::json_rows::path_of(&doc.path.value);
        Ok(Some(Since {
            parameter: doc.parameter.clone(),
            path: path.map_err(|e| DocumentError::at(&doc.path, "since.path", e))?,
            start: doc.start.clone(),
            overlap: doc.overlap.map(|p| p.0).unwrap_or_default(),
        }))
    }

    /// Wait between two rounds.
    pub fn every(&self) -> Duration {
        self.poll.every.map_or(Duration::from_secs(60), |p| p.0)
    }

    /// Most pages of one round.
    pub fn pages_max(&self) -> u32 {
        self.limits.pages.unwrap_or(PAGES_DEFAULT).max(1)
    }

    fn auth(&self) -> Result<Auth, DocumentError> {
        let doc = &self.connect.auth;
        let ways = [doc.bearer.is_some(), doc.basic.is_some(), doc.header.is_some(), doc.oauth2.is_some()];
        if ways.iter().filter(|w| **w).count() > 1 {
            return Err(DocumentError::rule("connect.auth", "one way: bearer, basic, header or oauth2"));
        }
        if let Some(secret) = &doc.bearer {
            return Ok(Auth::Bearer(secret.clone()));
        }
        if let Some(basic) = &doc.basic {
            return Ok(Auth::Basic(basic.user.clone(), basic.password.clone()));
        }
        if let Some(header) = &doc.header {
            let name = HeaderName::try_from(header.name.as_str())
                .map_err(|_| DocumentError::rule("connect.auth.header.name", "it is no name of a header"))?;
            return Ok(Auth::Header(name, header.value.clone()));
        }
        let Some(oauth2) = &doc.oauth2 else { return Ok(Auth::None) };
        Ok(Auth::OAuth2(OAuth2 {
            token_url: url(&oauth2.token_url, "connect.auth.oauth2.token_url")?,
            client_id: oauth2.client_id.clone(),
            secret: oauth2.client_secret.clone(),
            scope: oauth2.scope.clone(),
        }))
    }

    /// Everything there is to know for asking. Certificates are read here, secrets at each question.
    pub fn service(&self, base: &Path) -> Result<Service, AdapterError> {
        let mut headers = Vec::new();
        for (name, value) in &self.connect.headers {
            let field = format!("connect.headers.{name}");
            let bad = |_| DocumentError::rule(&field, "it is no header");
            let named = HeaderName::try_from(name.as_str()).map_err(|_| bad(()))?;
            if named == reqwest::header::AUTHORIZATION {
                let detail = "secrets never stand here: use `connect.auth`";
                return Err(DocumentError::rule(field, detail).into());
            }
            headers.push((named, HeaderValue::try_from(value.as_str()).map_err(|_| bad(()))?));
        }
        let accept = match self.format {
            Format::Json => "application/json",
            Format::NgsiLd => "application/ld+json, application/json;q=0.9",
            Format::GtfsRealtime => "application/x-protobuf, application/octet-stream",
        };
        if !headers.iter().any(|(name, _)| *name == reqwest::header::ACCEPT) {
            headers.push((reqwest::header::ACCEPT, HeaderValue::from_static(accept)));
        }
        let connect = &self.connect;
        let files =
            tls::Files { ca: connect.ca.as_deref(), cert: connect.cert.as_deref(), key: connect.key.as_deref() };
        let bytes = self.limits.bytes.unwrap_or(BYTES_DEFAULT);
        if !(1..=BYTES_MAX).contains(&bytes) {
            return Err(DocumentError::rule("limits.bytes", "from 1 to 268435456").into());
        }
        Ok(Service {
            base: base.to_owned(),
            url: self.url()?,
            headers,
            auth: self.auth()?,
            tls: tls::client(base, files)?,
            limits: Limits {
                bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
                time: self.poll.statement_timeout.map_or(TIMEOUT_DEFAULT, |p| p.0),
            },
        })
    }
}
