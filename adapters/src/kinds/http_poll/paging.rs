//! Which page is asked for next. Pure: addresses and answers in, addresses out.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::fetch::Page;
use crate::cells::{Cells, JsonPath, text};
use crate::contract::{AdapterError, ErrorClass};

/// Longest address, cursor or value that is kept: checkpoints are small.
const KEPT_MAX: usize = 700;
/// Longest tag of a version that is kept; a longer one is not used.
const TAG_MAX: usize = 200;

/// How pages follow each other.
#[derive(Debug, Clone)]
pub enum Paging {
    /// There is one page.
    None,
    /// By a number that grows by one.
    Page {
        /// Name of the parameter.
        parameter: String,
        /// The first page.
        start: u64,
        /// Items of a full page.
        size: Option<u64>,
    },
    /// By how many items were read.
    Offset {
        /// Name of the parameter.
        parameter: String,
        /// Items of a full page.
        limit: u64,
    },
    /// By an address in the answer.
    Next(JsonPath),
    /// By the `Link` header.
    LinkHeader,
    /// By a cursor in the answer.
    Cursor {
        /// Path to it.
        path: JsonPath,
        /// Name of the parameter.
        parameter: String,
    },
}

/// How only what is new is asked for.
#[derive(Debug, Clone)]
pub struct Since {
    /// Name of the parameter.
    pub parameter: String,
    /// Path to the value in an item.
    pub path: JsonPath,
    /// What is asked for first.
    pub start: Option<String>,
    /// So much earlier is asked again.
    pub overlap: Duration,
}

/// The next question. It stands in the checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Pages of this round that are read; 0 begins a round.
    pub pages: u32,
    /// Address or cursor of the next page, number of the page, or items before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Newest value before this round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Newest value so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,
    /// Version of the answer that was read last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// When that answer was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
}

fn protocol(detail: impl Into<String>) -> AdapterError {
    AdapterError::source_failed(ErrorClass::Permanent, "source.protocol", detail)
}

fn with(mut url: Url, parameter: &str, value: &str) -> Url {
    let kept: Vec<(String, String)> =
        url.query_pairs().filter(|(k, _)| k != parameter).map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
    url.query_pairs_mut().clear().extend_pairs(kept).append_pair(parameter, value);
    url
}

/// A later value of the two: numbers by size, instants by time, everything else by text.
fn later<'a>(a: &'a str, b: &'a str) -> &'a str {
    let greater = match (a.parse::<i128>(), b.parse::<i128>()) {
        (Ok(a), Ok(b)) => a > b,
        _ => match (a.parse::<Timestamp>(), b.parse::<Timestamp>()) {
            (Ok(a), Ok(b)) => a > b,
            _ => a > b,
        },
    };
    if greater { a } else { b }
}

fn earlier(value: &str, overlap: Duration) -> String {
    if overlap.is_zero() {
        return value.to_owned();
    }
    if let Ok(stamp) = value.parse::<Timestamp>() {
        return stamp.checked_sub(overlap).map_or_else(|_| value.to_owned(), |s| s.to_string());
    }
    let seconds = i128::from(overlap.as_secs());
    match value.parse::<i128>() {
        // A count of milliseconds has 13 digits until the year 2286.
        Ok(n) if value.len() >= 13 => (n - seconds * 1_000).to_string(),
        Ok(n) => (n - seconds).to_string(),
        Err(_) => value.to_owned(),
    }
}

impl Ask {
    /// True for the first page of a round.
    pub fn begins(&self) -> bool {
        self.pages == 0
    }

    /// The address of this question.
    pub fn url(&self, base: &Url, paging: &Paging, since: Option<&Since>) -> Result<Url, AdapterError> {
        let mut url = base.clone();
        if let Some(since) = since {
            let value = self.since.as_deref().map(|v| earlier(v, since.overlap)).or_else(|| since.start.clone());
            if let Some(value) = value {
                url = with(url, &since.parameter, &value);
            }
        }
        Ok(match (paging, self.at.as_deref()) {
            (Paging::Page { parameter, start, .. }, at) => {
                with(url, parameter, at.map_or_else(|| start.to_string(), str::to_owned).as_str())
            }
            (Paging::Offset { parameter, limit: _ }, at) => with(url, parameter, at.unwrap_or("0")),
            (Paging::Cursor { parameter, .. }, Some(at)) => with(url, parameter, at),
            (Paging::Next(_) | Paging::LinkHeader, Some(at)) => same_origin(base, at)?,
            _ => url,
        })
    }

    /// The question after an answer with `items` items, whose newest value was `newest`.
    pub fn after(
        &self,
        paging: &Paging,
        page: &Page,
        items: u64,
        newest: Option<&str>,
        pages_max: u32,
    ) -> Result<Self, AdapterError> {
        let newest = match (self.newest.as_deref().or(self.since.as_deref()), newest) {
            (Some(a), Some(b)) => Some(later(a, b).to_owned()),
            (a, b) => a.or(b).map(str::to_owned),
        };
        let number = |start: u64| self.at.as_deref().and_then(|at| at.parse::<u64>().ok()).unwrap_or(start);
        let at = match paging {
            Paging::None => None,
            Paging::Page { start, size, .. } => {
                (items > 0 && size.is_none_or(|size| items >= size)).then(|| (number(*start) + 1).to_string())
            }
            Paging::Offset { limit, .. } => (items >= *limit).then(|| (number(0) + items).to_string()),
            Paging::Next(path) | Paging::Cursor { path, .. } => member(&page.body, path)?,
            Paging::LinkHeader => page.link_next.clone(),
        };
        let at = at.filter(|at| !at.is_empty());
        if at.as_ref().is_some_and(|at| at.len() > KEPT_MAX) {
            return Err(protocol(format!("the next page's address or cursor has more than {KEPT_MAX} characters")));
        }
        if at.is_some() && at == self.at {
            return Err(protocol("the answer names itself as the next page; correct `paging`"));
        }
        if at.is_some() && self.pages + 1 >= pages_max {
            return Err(protocol(format!(
                "a round has more than {pages_max} pages; correct `paging` or raise `limits.pages`"
            )));
        }
        if at.is_some() {
            return Ok(Self { pages: self.pages + 1, at, newest, etag: None, modified: None, ..self.clone() });
        }
        // A version stands for the whole list only where the list is one page.
        let (etag, modified) = if self.begins() { (page.etag.clone(), page.modified.clone()) } else { (None, None) };
        let short = |tag: Option<String>| tag.filter(|t| t.len() <= TAG_MAX);
        let since = newest.filter(|value| value.len() <= KEPT_MAX);
        Ok(Self { pages: 0, at: None, since, newest: None, etag: short(etag), modified: short(modified) })
    }
}

fn member(body: &[u8], path: &JsonPath) -> Result<Option<String>, AdapterError> {
    let found = Cells::new([path]).raw(body).map_err(|f| protocol(f.message))?;
    let Some(raw) = found.first().copied().flatten() else { return Ok(None) };
    text(raw).map_err(|f| protocol(f.message))
}

/// The newest value of the items. An instant after `now` does not count, so that one wrong clock hides no items; what has
/// such a value is listed again until it is past, and known.
pub fn newest_of(items: &[&[u8]], path: &JsonPath, now: Timestamp) -> Option<String> {
    let cells = Cells::new([path]);
    let values = items.iter().filter_map(|item| cells.texts(item).ok()?.into_iter().next().flatten());
    let past = values.filter(|value| value.parse::<Timestamp>().map_or(true, |at| at <= now));
    past.reduce(|a, b| later(&a, &b).to_owned())
}

/// The next page's address, which must lead to the same service: credentials go with the question.
fn same_origin(base: &Url, at: &str) -> Result<Url, AdapterError> {
    let url = base.join(at).map_err(|_| protocol("the next page's address is none; correct `paging`"))?;
    if url.origin() != base.origin() {
        return Err(protocol("the next page's address leads to another server; the adapter does not go there"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn base() -> Url {
        Url::parse("https://api.example/v1/list?limit=2").unwrap()
    }

    fn page(body: &str) -> Page {
        Page { body: body.as_bytes().to_vec(), ..Page::default() }
    }

    fn walk(paging: &Paging, answers: &[(&str, u64)]) -> Vec<String> {
        let mut ask = Ask::default();
        let mut urls = vec![];
        for (body, items) in answers {
            urls.push(ask.url(&base(), paging, None).unwrap().to_string());
            ask = ask.after(paging, &page(body), *items, None, 10).unwrap();
        }
        assert!(ask.begins(), "{ask:?}");
        urls
    }

    #[test]
    fn each_way_of_paging_ends_where_it_should() {
        let all = "https://api.example/v1/list?limit=2";
        let numbers = Paging::Page { parameter: "page".into(), start: 1, size: None };
        assert_eq!(
            walk(&numbers, &[("", 2), ("", 2), ("", 0)]),
            [format!("{all}&page=1"), format!("{all}&page=2"), format!("{all}&page=3")]
        );
        let sized = Paging::Page { parameter: "page".into(), start: 0, size: Some(2) };
        assert_eq!(walk(&sized, &[("", 2), ("", 1)]), [format!("{all}&page=0"), format!("{all}&page=1")]);
        let offset = Paging::Offset { parameter: "offset".into(), limit: 2 };
        assert_eq!(walk(&offset, &[("", 2), ("", 0)]), [format!("{all}&offset=0"), format!("{all}&offset=2")]);
        let next = Paging::Next(JsonPath::parse("$.links.next").unwrap());
        let answers = [(r#"{"links": {"next": "/v1/list?p=b"}}"#, 2), (r#"{"links": {"next": null}}"#, 2)];
        assert_eq!(walk(&next, &answers), [all.to_owned(), "https://api.example/v1/list?p=b".to_owned()]);
        let cursor = Paging::Cursor { path: JsonPath::parse("$.c").unwrap(), parameter: "after".into() };
        assert_eq!(walk(&cursor, &[(r#"{"c": "x y"}"#, 2), ("{}", 1)]), [all.to_owned(), format!("{all}&after=x+y")]);
    }

    #[test]
    fn a_page_that_leads_elsewhere_or_nowhere_is_refused() {
        let next = Paging::Next(JsonPath::parse("$.n").unwrap());
        let after = |ask: &Ask, at: &str| ask.after(&next, &page(&format!(r#"{{"n": "{at}"}}"#)), 1, None, 3);
        let ask = after(&Ask::default(), "https://evil.example/x").unwrap();
        assert!(ask.url(&base(), &next, None).unwrap_err().to_string().contains("another server"));
        let ask = after(&Ask::default(), "?p=1").unwrap();
        assert!(after(&ask, "?p=1").unwrap_err().to_string().contains("names itself"));
        let ask = after(&ask, "?p=2").unwrap();
        assert!(after(&ask, "?p=3").unwrap_err().to_string().contains("more than 3 pages"));
        assert!(after(&ask, &"x".repeat(2_000)).is_err());
    }

    #[test]
    fn what_is_new_is_asked_for_from_the_newest_value_on() {
        let since = Since {
            parameter: "from".into(),
            path: JsonPath::parse("$.t").unwrap(),
            start: Some("2026-01-01T00:00:00Z".into()),
            overlap: Duration::from_secs(600),
        };
        let url = |ask: &Ask| ask.url(&base(), &Paging::None, Some(&since)).unwrap().to_string();
        let ask = Ask::default();
        assert!(url(&ask).ends_with("&from=2026-01-01T00%3A00%3A00Z"), "{}", url(&ask));
        let items: [&[u8]; 3] = [
            br#"{"t": "2026-05-01T12:00:00Z"}"#,
            br#"{"t": "2026-05-01T12:30:00+02:00"}"#,
            br#"{"t": "2026-05-02T00:00:01Z"}"#,
        ];
        let newest = newest_of(&items, &since.path, "2026-05-02T00:00:00Z".parse().unwrap());
        assert_eq!(newest.as_deref(), Some("2026-05-01T12:00:00Z"), "by time, not by text, and not in the future");
        let ask = ask.after(&Paging::None, &page(""), 2, newest.as_deref(), 10).unwrap();
        assert!(url(&ask).ends_with("&from=2026-05-01T11%3A50%3A00Z"), "{}", url(&ask));
        let ask = ask.after(&Paging::None, &page(""), 0, None, 10).unwrap();
        assert!(url(&ask).ends_with("&from=2026-05-01T11%3A50%3A00Z"), "an empty round loses nothing");
        assert_eq!(
            (earlier("1700000000", since.overlap), earlier("1700000000000", since.overlap)),
            ("1699999400".to_owned(), "1699999400000".to_owned())
        );
    }

    #[test]
    fn a_version_counts_for_a_single_page_only() {
        let tagged = |body: &str| Page { etag: Some("\"v1\"".into()), ..page(body) };
        let one = Ask::default().after(&Paging::None, &tagged(""), 1, None, 9).unwrap();
        assert_eq!(one.etag.as_deref(), Some("\"v1\""));
        let next = Paging::Next(JsonPath::parse("$.n").unwrap());
        let first = Ask::default().after(&next, &tagged(r#"{"n": "?p=2"}"#), 1, None, 9).unwrap();
        let last = first.after(&next, &tagged("{}"), 1, None, 9).unwrap();
        assert_eq!((first.etag, last.etag), (None, None));
    }
}
