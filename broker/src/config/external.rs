//! Datasets that an agency keeps elsewhere: `external:` of the holding in `node.yaml`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use concordat_executor::holding::{RestPaging, RestSetup, rest_path};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{ConfigError, SecretRef};

/// Where the records of a dataset are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum External {
    /// A table or view in PostgreSQL, `schema.table`.
    Table(String),
    /// A service.
    Rest(Box<RestDoc>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped {
    rest: RestDoc,
}

impl<'de> Deserialize<'de> for External {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = External;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`schema.table`, or {rest: {url: ..}}")
            }

            fn visit_str<E>(self, text: &str) -> Result<External, E> {
                Ok(External::Table(text.to_owned()))
            }

            // Not an untagged enum: its errors do not say what is wrong.
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<External, A::Error> {
                Wrapped::deserialize(MapAccessDeserializer::new(map)).map(|w| External::Rest(Box::new(w.rest)))
            }
        }
        from.deserialize_any(Either)
    }
}

/// A service that answers for a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestDoc {
    /// Its address; `{field}` in the path stands for the value that a query names.
    pub url: String,
    /// Headers of every question; a value `env:NAME`, `file:PATH` or `k8s:SECRET/KEY` is read from there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Where the rows are in an answer: `$`, or `$.data.items`.
    #[serde(default = "whole")]
    pub rows: String,
    /// Where a field is in a row, if it is not the member of its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
    /// Fields whose equality the service understands, and the parameter for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub push_down: BTreeMap<String, String>,
    /// Fields without which it is not asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<String>,
    /// How it pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<PagingDoc>,
    /// Most rows that one query may read of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<usize>,
    /// Most bytes of one answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<usize>,
    /// Certificates (PEM) that its own is checked against, relative to the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// True allows plain HTTP to another machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plain_http: bool,
}

fn whole() -> String {
    "$".to_owned()
}

/// How a service pages: one of `number`, `offset` and `next`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PagingDoc {
    /// The parameter with the page's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// The first page's number, 1 where none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// The parameter with how many rows are passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<String>,
    /// Where the address of the next page is in an answer: `$.links.next`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The parameter that says how many rows a page has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// How many rows a full page has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<usize>,
}

impl PagingDoc {
    fn paging(&self) -> Result<RestPaging, String> {
        let rows = || self.rows.ok_or_else(|| "page.rows: say how many rows a full page has".to_owned());
        let size = self.size.clone();
        match (&self.number, &self.offset, &self.next) {
            (Some(number), None, None) => {
                let (parameter, first) = (number.clone(), self.first.unwrap_or(1));
                Ok(RestPaging::Number { parameter, first, size, rows: rows()? })
            }
            (None, Some(offset), None) => Ok(RestPaging::Offset { parameter: offset.clone(), size, rows: rows()? }),
            (None, None, Some(next)) => Ok(RestPaging::Next(rest_path(next).map_err(|e| format!("page.next: {e}"))?)),
            _ => Err("page: say one of `number`, `offset` and `next`".to_owned()),
        }
    }
}

impl RestDoc {
    /// What the service is asked with; `dir` is the node's folder.
    pub(super) fn setup(&self, dir: &Path, named: &dyn Fn(String) -> ConfigError) -> Result<RestSetup, ConfigError> {
        let mut headers = BTreeMap::new();
        for (name, value) in &self.headers {
            let reference = ["env:", "file:", "k8s:"].iter().any(|p| value.starts_with(p));
            let secret = ["authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"];
            let value = match reference {
                true => {
                    let secret: SecretRef = value.parse().map_err(|e| named(format!("headers.{name}: {e}")))?;
                    secret.resolve(dir)?.trim().to_owned()
                }
                false if secret.contains(&name.to_ascii_lowercase().as_str()) => {
                    return Err(named(format!(
                        "headers.{name}: a secret is named by reference, env:NAME or file:PATH"
                    )));
                }
                false => value.clone(),
            };
            headers.insert(name.clone(), value);
        }
        let paging = self.page.as_ref().map(PagingDoc::paging).transpose().map_err(named)?;
        Ok(RestSetup {
            url: self.url.clone(),
            headers,
            rows: self.rows.clone(),
            fields: self.fields.clone(),
            push_down: self.push_down.clone(),
            require: self.require.clone(),
            paging: paging.unwrap_or_default(),
            rows_max: self.max_rows,
            bytes_max: self.max_bytes,
            ca: self.ca.as_ref().map(|p| dir.join(p)),
            plain_http: self.plain_http,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_table_or_a_service_is_read_and_what_is_wrong_is_named() {
        let read = |text: &str| serde_saphyr::from_str::<External>(text);
        assert_eq!(read("public.v_stops").unwrap(), External::Table("public.v_stops".into()));
        let service = "rest: {url: 'https://a.example/cases', headers: {X-Road-Client: F/G/H}, rows: $.items, page: {number: p, rows: 50}}";
        let External::Rest(doc) = read(service).unwrap() else { panic!("a service") };
        let named = |rule: String| crate::config::field(Path::new("node.yaml"), "holding", rule);
        let setup = doc.setup(Path::new("."), &named).unwrap();
        let want = RestPaging::Number { parameter: "p".into(), first: 1, size: None, rows: 50 };
        assert_eq!((setup.rows.as_str(), setup.paging), ("$.items", want));
        let e = read("rest: {url: 'https://a.example', pages: 3}").unwrap_err().to_string();
        assert!(e.contains("pages"), "{e}");
        let bad = |text: &str| {
            let External::Rest(doc) = read(text).unwrap() else { panic!("a service") };
            doc.setup(Path::new("."), &named).unwrap_err().to_string()
        };
        let clear = bad("rest: {url: 'https://a.example', headers: {Authorization: Bearer hunter2}}");
        assert!(clear.contains("by reference") && !clear.contains("hunter2"), "{clear}");
        assert!(bad("rest: {url: 'https://a.example', page: {number: p}}").contains("page.rows"));
        assert!(bad("rest: {url: 'https://a.example', page: {}}").contains("say one of"));
    }
}
