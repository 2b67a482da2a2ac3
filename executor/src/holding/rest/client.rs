//! Asking the service: pages, time, size, and what its errors mean.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::value::RawValue;

use super::ask::Question;
use super::rows::at;
use super::setup::{Checked, RestPaging};
use crate::holding::HoldingError;
use crate::holding::postgres::tls::client_config;

/// Most pages of one question, whatever they hold.
const PAGES_MAX: usize = 1_000;
const CONNECT: Duration = Duration::from_secs(5);
/// Redirects that are followed, on the same server.
const REDIRECTS: usize = 5;

/// The rows of one answer.
pub(super) struct Found {
    /// Each an object, if the service does as it says.
    pub rows: Vec<Box<RawValue>>,
}

/// A service, ready to be asked.
#[derive(Clone)]
pub(super) struct Service {
    http: Client,
    rows: Vec<String>,
    bytes_max: usize,
    xroad: bool,
}

impl Service {
    pub(super) fn new(setup: &Checked, ca: Option<&Path>) -> Result<Self, HoldingError> {
        // Headers hold secrets: no other server gets them.
        let policy = reqwest::redirect::Policy::custom(|attempt| {
            let same = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
            if same && attempt.previous().len() <= REDIRECTS { attempt.follow() } else { attempt.stop() }
        });
        let mut headers = setup.headers.clone();
        headers.entry(reqwest::header::ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        // A message's id is the asker's to choose; one that the setup names would be the same for all.
        let xroad = headers.contains_key("x-road-client") && !headers.contains_key("x-road-id");
        let http = Client::builder()
            .tls_backend_preconfigured(client_config(ca)?)
            .connect_timeout(CONNECT)
            .redirect(policy)
            .default_headers(headers)
            .no_proxy()
            .user_agent(concat!("concordat/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| HoldingError::Setup(format!("no client: {e}")))?;
        Ok(Self { http, rows: setup.rows.clone(), bytes_max: setup.bytes_max, xroad })
    }

    /// All pages of a question, or as many as hold one row more than `max`.
    pub(super) async fn read(
        &self,
        question: Question,
        paging: &RestPaging,
        max: usize,
        until: Instant,
    ) -> Result<Vec<Found>, HoldingError> {
        let work = self.pages(question, paging, max);
        match tokio::time::timeout(until.saturating_duration_since(Instant::now()), work).await {
            Ok(found) => found,
            Err(_) => Err(HoldingError::Timeout),
        }
    }

    async fn pages(&self, question: Question, paging: &RestPaging, max: usize) -> Result<Vec<Found>, HoldingError> {
        let (mut all, mut read) = (Vec::new(), 0);
        let mut url = first(&question.url, paging);
        loop {
            let Some(body) = self.get(url.clone(), question.one).await? else { return Ok(all) };
            let found = self.found(&url, &body)?;
            let count = found.rows.len();
            read += count;
            let next = next(&question.url, &url, paging, &body, (all.len() as u64 + 1, read, count))?;
            all.push(found);
            match next {
                Some(_) if all.len() >= PAGES_MAX => {
                    return Err(failed(&url, "gives no end of pages; correct `page`"));
                }
                Some(more) if read <= max => url = more,
                _ => return Ok(all),
            }
        }
    }

    /// The body of an answer; none where there is no such thing.
    async fn get(&self, url: Url, one: bool) -> Result<Option<Box<RawValue>>, HoldingError> {
        let mut request = self.http.get(url.clone());
        if self.xroad {
            request = request.header("X-Road-Id", fresh_id()?);
        }
        let response = request.send().await.map_err(|e| unreachable(&url, &e))?;
        let status = response.status();
        let fault = fault(response.headers());
        if !status.is_success() {
            let nothing = status == StatusCode::NOT_FOUND && one && fault.is_none();
            return if nothing { Ok(None) } else { Err(refused(&url, status, fault.as_deref())) };
        }
        let body = self.body(&url, response).await?;
        let body = String::from_utf8(body).map_err(|_| failed(&url, "answers with what is not UTF-8"))?;
        let text = body.trim_start_matches('\u{feff}');
        // The service's own words may hold what nobody is to read.
        RawValue::from_string(text.to_owned()).map(Some).map_err(|_| failed(&url, "answers with what is not JSON"))
    }

    async fn body(&self, url: &Url, mut response: Response) -> Result<Vec<u8>, HoldingError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| unreachable(url, &e))? {
            if body.len() + chunk.len() > self.bytes_max {
                return Err(HoldingError::TooMuch { what: "bytes", max: self.bytes_max as u64 });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn found(&self, url: &Url, body: &RawValue) -> Result<Found, HoldingError> {
        let here = at(body, &self.rows).ok_or_else(|| failed(url, "answers without what `rows` names; correct it"))?;
        let text = here.get().trim_start();
        let rows = match text.as_bytes().first() {
            Some(b'[') => serde_json::from_str(text).map_err(|_| failed(url, "answers with what is no list"))?,
            Some(b'{') => vec![here.to_owned()],
            Some(b'n') => vec![],
            _ => return Err(failed(url, "answers with what is neither a list nor an object; correct `rows`")),
        };
        Ok(Found { rows })
    }
}

fn set(url: &Url, pairs: &[(&str, String)]) -> Url {
    let mut url = url.clone();
    pairs.iter().for_each(|(name, value)| {
        url.query_pairs_mut().append_pair(name, value);
    });
    url
}

fn first(url: &Url, paging: &RestPaging) -> Url {
    match paging {
        RestPaging::None | RestPaging::Next(_) => url.clone(),
        RestPaging::Number { first, .. } => numbered(url, paging, *first),
        RestPaging::Offset { .. } => numbered(url, paging, 0),
    }
}

fn numbered(url: &Url, paging: &RestPaging, at: u64) -> Url {
    match paging {
        RestPaging::Number { parameter, size, rows, .. } | RestPaging::Offset { parameter, size, rows } => {
            let mut pairs = vec![(parameter.as_str(), at.to_string())];
            pairs.extend(size.as_deref().map(|size| (size, rows.to_string())));
            set(url, &pairs)
        }
        RestPaging::None | RestPaging::Next(_) => url.clone(),
    }
}

/// The page behind one, if there may be one. `pages` and `read` are those up to here, `count` the rows of the newest.
fn next(
    base: &Url,
    here: &Url,
    paging: &RestPaging,
    body: &RawValue,
    (pages, read, count): (u64, usize, usize),
) -> Result<Option<Url>, HoldingError> {
    match paging {
        RestPaging::None => Ok(None),
        // One that is not full is the last.
        RestPaging::Number { rows, .. } | RestPaging::Offset { rows, .. } if count < *rows => Ok(None),
        RestPaging::Number { first, .. } => Ok(Some(numbered(base, paging, first + pages))),
        RestPaging::Offset { .. } => Ok(Some(numbered(base, paging, read as u64))),
        RestPaging::Next(path) => {
            let Some(text) =
                at(body, path).and_then(|raw| serde_json::from_str::<Option<String>>(raw.get()).ok()).flatten()
            else {
                return Ok(None);
            };
            if text.is_empty() {
                return Ok(None);
            }
            let more = here.join(&text).map_err(|_| failed(here, "names a next page that is no address"))?;
            if more.origin() != base.origin() {
                return Err(failed(here, "names a next page on another server; it is not asked"));
            }
            Ok(Some(more))
        }
    }
}

/// A random id in the form of a UUID.
fn fresh_id() -> Result<String, HoldingError> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|e| HoldingError::Store(format!("no randomness: {e}")))?;
    let hex = hex::encode(bytes);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    Ok(format!("{}-{}-4{}-a{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32)))
}

/// What X-Road says went wrong on its way, if it does: a word of its own list.
fn fault(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("x-road-error")?.to_str().ok()?;
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    Some(text.chars().filter(plain).take(120).collect())
}

/// The server of an address: no path, no parameters, they name whom somebody asks about.
fn server(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn failed(url: &Url, what: &str) -> HoldingError {
    HoldingError::Store(format!("the service at {} {what}", server(url)))
}

fn unreachable(url: &Url, error: &reqwest::Error) -> HoldingError {
    if error.is_timeout() && !error.is_connect() {
        return HoldingError::Timeout;
    }
    // The error itself repeats the whole address; what is behind it does not.
    let mut why = "the connection broke".to_owned();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        why = inner.to_string();
        source = inner.source();
    }
    HoldingError::Unreachable(format!("{}: {why}", server(url)))
}

fn refused(url: &Url, status: StatusCode, fault: Option<&str>) -> HoldingError {
    let said = fault.map_or_else(|| status.as_u16().to_string(), |f| format!("{} {f}", status.as_u16()));
    let at = format!("the service at {} answers {said}", server(url));
    let denied = fault.is_some_and(|f| f.ends_with("AccessDenied"));
    match status.as_u16() {
        _ if denied => HoldingError::Access(at),
        401 | 403 | 407 => HoldingError::Access(at),
        408 | 504 if fault.is_none() => HoldingError::Timeout,
        429 | 502 | 503 | 504 => HoldingError::Unreachable(at),
        // X-Road's own server answers 500 where it does not reach the provider's.
        500 if fault.is_some() => HoldingError::Unreachable(at),
        300..=399 => {
            HoldingError::Store(format!("{at}, a redirect to another server, which is not followed; correct `url`"))
        }
        400 | 404 | 405 | 422 => HoldingError::Store(format!("{at}; correct `url`, `push_down` or `require`")),
        _ => HoldingError::Store(at),
    }
}
