//! How a service is asked, as its owner says it, and whether that makes sense.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::holding::{DatasetSpec, HoldingError};
use crate::limits::MAX_PAGE_BYTES;
use crate::query::FieldType;

/// Rows that one query may read of a service, where its owner does not say.
const ROWS: usize = 1_000;
/// The most its owner may say.
const ROWS_MAX: usize = 10_000;

/// A service that answers for one dataset. Secrets are resolved.
#[derive(Clone, PartialEq, Eq)]
pub struct RestSetup {
    /// Its address. `{field}` in the path stands for the value that a query names.
    pub url: String,
    /// Headers of every question.
    pub headers: BTreeMap<String, String>,
    /// Where the rows are in an answer: `$` or `$.a.b`; a list of objects, or one object.
    pub rows: String,
    /// Where a field is in a row, if it is not the member of its name: `case_no: caseNo`, `street: where.street`.
    pub fields: BTreeMap<String, String>,
    /// Fields whose equality the service understands, and the parameter for it.
    pub push_down: BTreeMap<String, String>,
    /// Fields without which the service is not asked.
    pub require: Vec<String>,
    /// How it pages; an answer is whole where nothing is said.
    pub paging: RestPaging,
    /// Most rows that one query may read; 1,000 where nothing is said.
    pub rows_max: Option<usize>,
    /// Most bytes of one answer; 4 MiB where nothing is said.
    pub bytes_max: Option<usize>,
    /// Certificates that the service's is checked against.
    pub ca: Option<PathBuf>,
    /// True allows plain HTTP to another machine.
    pub plain_http: bool,
}

/// How a service pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RestPaging {
    /// An answer is whole.
    #[default]
    None,
    /// By number: the parameter, the first number, the rows of a page.
    Number {
        /// The parameter.
        parameter: String,
        /// The first page's number.
        first: u64,
        /// The parameter that says how many rows a page has, if there is one.
        size: Option<String>,
        /// How many rows a full page has.
        rows: usize,
    },
    /// By how many rows to pass over.
    Offset {
        /// The parameter.
        parameter: String,
        /// The parameter that says how many rows a page has, if there is one.
        size: Option<String>,
        /// How many rows a full page has.
        rows: usize,
    },
    /// By an address in the answer: its path.
    Next(Vec<String>),
}

impl RestSetup {
    /// A service at an address, with the defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            headers: BTreeMap::new(),
            rows: "$".to_owned(),
            fields: BTreeMap::new(),
            push_down: BTreeMap::new(),
            require: Vec::new(),
            paging: RestPaging::None,
            rows_max: None,
            bytes_max: None,
            ca: None,
            plain_http: false,
        }
    }
}

impl std::fmt::Debug for RestSetup {
    // Headers hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.headers.keys().collect();
        f.debug_struct("RestSetup").field("url", &self.url).field("headers", &names).finish_non_exhaustive()
    }
}

/// A setup that makes sense by itself.
#[derive(Clone)]
pub(super) struct Checked {
    /// The address, with its placeholders.
    pub url: String,
    /// Fields that stand in its path.
    pub in_path: BTreeSet<String>,
    pub headers: HeaderMap,
    pub rows: Vec<String>,
    pub fields: BTreeMap<String, Vec<String>>,
    pub push_down: BTreeMap<String, String>,
    /// Those of the path among them.
    pub require: BTreeSet<String>,
    pub paging: RestPaging,
    pub rows_max: usize,
    pub bytes_max: usize,
}

fn bad(rule: impl Into<String>) -> HoldingError {
    HoldingError::Setup(rule.into())
}

/// The members that `$.a.b` or `a.b` names; none for `$`.
pub fn path(text: &str) -> Result<Vec<String>, HoldingError> {
    let inner = text.strip_prefix('$').map_or(text, |rest| rest.strip_prefix('.').unwrap_or(rest));
    if inner.is_empty() && text == "$" {
        return Ok(Vec::new());
    }
    let steps: Vec<String> = inner.split('.').map(str::to_owned).collect();
    if steps.len() > 8 || steps.iter().any(|s| s.is_empty() || s.contains(['[', ']', '*', '$'])) {
        return Err(bad("a path is `$` or members with dots, `$.data.items`"));
    }
    Ok(steps)
}

/// The fields in `{}` of an address.
fn placeholders(url: &str) -> Result<BTreeSet<String>, HoldingError> {
    let mut found = BTreeSet::new();
    let mut rest = url;
    while let Some((_, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or_else(|| bad("url: a `{` is never closed"))?;
        found.insert(name.to_owned());
        rest = after;
    }
    if rest.contains('}') { Err(bad("url: a `}` closes nothing")) } else { Ok(found) }
}

fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Checked {
    pub(super) fn new(setup: &RestSetup) -> Result<Self, HoldingError> {
        let in_path = placeholders(&setup.url)?;
        let mut sample = setup.url.clone();
        in_path.iter().for_each(|name| sample = sample.replace(&format!("{{{name}}}"), "x"));
        let url = Url::parse(&sample).map_err(|e| bad(format!("url: {e}")))?;
        let before = setup.url.split(['?', '#']).next().unwrap_or_default();
        let head = before.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
        if placeholders(before)?.len() != in_path.len() || head.contains('{') {
            return Err(bad("url: a field in `{}` stands in the path; for a parameter say it under `push_down`"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("url: it names no user and no password; say a header, by reference"));
        }
        match url.scheme() {
            "https" => {}
            "http" if is_here(&url) || setup.plain_http => {}
            "http" => return Err(bad("url: https:// for another machine, or say `plain_http: true`")),
            _ => return Err(bad("url: it begins with https://")),
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &setup.headers {
            let key: HeaderName = name.parse().map_err(|_| bad(format!("headers: {name:?} is no name of a header")))?;
            let mut value: HeaderValue = value
                .trim()
                .parse()
                .map_err(|_| bad(format!("headers: the value of {name} is not one line of text")))?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        let fields = setup.fields.iter().map(|(f, p)| Ok((f.clone(), path(p)?)));
        let (rows_max, bytes_max) = (setup.rows_max.unwrap_or(ROWS), setup.bytes_max.unwrap_or(MAX_PAGE_BYTES));
        if !(1..=ROWS_MAX).contains(&rows_max) || !(1_024..=64 * 1_024 * 1_024).contains(&bytes_max) {
            return Err(bad(format!("limits: rows from 1 to {ROWS_MAX}, bytes from 1,024 to 67,108,864")));
        }
        if let RestPaging::Number { rows: 0, .. } | RestPaging::Offset { rows: 0, .. } = setup.paging {
            return Err(bad("page.rows: how many rows a full page has, at least 1"));
        }
        Ok(Self {
            url: setup.url.clone(),
            headers,
            rows: path(&setup.rows)?,
            fields: fields.collect::<Result<_, HoldingError>>()?,
            push_down: setup.push_down.clone(),
            require: in_path.iter().chain(&setup.require).cloned().collect(),
            in_path,
            paging: setup.paging.clone(),
            rows_max,
            bytes_max,
        })
    }

    /// Fields whose equality the service understands.
    pub(super) fn pushed(&self) -> BTreeSet<&String> {
        self.push_down.keys().chain(&self.in_path).collect()
    }

    /// Whether a dataset's fields are those that the setup speaks of.
    pub(super) fn fits(&self, spec: &DatasetSpec) -> Result<(), HoldingError> {
        let wrong = |rule: String| HoldingError::Spec { dataset: spec.id.clone(), rule };
        let pushed = self.pushed();
        for name in self.fields.keys().chain(&self.require).chain(pushed.iter().copied()) {
            if spec.fields.get(name).is_none() {
                let near = spec.fields.nearest(name).map(|n| format!("; did you mean {n}?")).unwrap_or_default();
                return Err(wrong(format!("its service speaks of {name:?}, which is no field{near}")));
            }
        }
        if let Some(name) = self.require.iter().find(|name| !pushed.contains(name)) {
            return Err(wrong(format!(
                "`require` names {name}, which the service is not told; say it under `push_down`"
            )));
        }
        for name in pushed {
            // One value has several texts there; the service would have to know them all.
            if let Some(ty @ (FieldType::Decimal | FieldType::Timestamp)) = spec.fields.get(name) {
                return Err(wrong(format!(
                    "{name} is a {}: only texts, whole numbers and booleans are told",
                    ty.name()
                )));
            }
        }
        Ok(())
    }
}
