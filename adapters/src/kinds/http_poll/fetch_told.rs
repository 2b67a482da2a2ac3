//! What an answer's status and headers mean, and why none came.

use std::time::{Duration, SystemTime};

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, Url};

use super::{failed, place};
use crate::contract::{AdapterError, ErrorClass};

/// Longest wait that a `Retry-After` is believed for.
const RETRY_AFTER_MAX_S: u64 = 3_600;

pub(super) fn unreachable(url: &Url, error: reqwest::Error) -> AdapterError {
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(&error);
    let mut tls = false;
    while let Some(inner) = source {
        tls |= inner.is::<rustls::Error>()
            || inner
                .downcast_ref::<std::io::Error>()
                .and_then(std::io::Error::get_ref)
                .is_some_and(|e| e.is::<rustls::Error>());
        reason = inner.to_string();
        source = inner.source();
    }
    match tls {
        true => failed(
            ErrorClass::Auth,
            "source.tls",
            url,
            format!("TLS: {reason}; check `ca` and the server's certificate"),
        ),
        false => failed(ErrorClass::Transient, "source.unreachable", url, format!("no answer: {reason}")),
    }
}

pub(super) fn late(url: &Url, time: Duration) -> AdapterError {
    let detail =
        format!("no whole answer within {} s; ask for less, or raise `poll.statement_timeout`", time.as_secs_f64());
    failed(ErrorClass::Transient, "source.timeout", url, detail)
}

pub(super) fn refused(url: &Url, response: &Response) -> AdapterError {
    let status = response.status();
    let number = status.as_u16();
    let (class, code, what) = match number {
        401 => (ErrorClass::Auth, "source.login", "the service refused the login; check `connect.auth`"),
        403 => (ErrorClass::Auth, "source.rights", "the service refuses this account; give it the right to read"),
        404 | 410 => {
            (ErrorClass::Permanent, "source.missing", "there is nothing at this address; correct `connect.url`")
        }
        408 | 425 | 429 | 500..=599 => (ErrorClass::Transient, "source.unreachable", "the service cannot answer now"),
        300..=399 => (
            ErrorClass::Permanent,
            "source.protocol",
            "the service sends elsewhere; write the new address into `connect.url`",
        ),
        _ => (ErrorClass::Permanent, "source.protocol", "the service refused the question; correct the document"),
    };
    let message = format!("{}: {what} (status {number})", place(url));
    let retry_after_ms = response.headers().get(header::RETRY_AFTER).and_then(retry_after);
    AdapterError::Source { class, code, message, retry_after_ms }
}

/// Seconds, or a date.
pub(super) fn retry_after(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => u64::try_from(skew(text)?).ok()?,
    };
    Some(seconds.min(RETRY_AFTER_MAX_S) * 1_000)
}

/// A date of HTTP minus our clock, in seconds.
pub(super) fn skew(date: &str) -> Option<i64> {
    let stamp = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(stamp.as_second() - i64::try_from(now.as_secs()).ok()?)
}

pub(super) fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The address with `rel="next"` of a `Link` header (RFC 8288).
pub(super) fn next_link(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?;
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('<') {
        let (address, parameters) = after.split_once('>')?;
        let end = parameters.find('<').unwrap_or(parameters.len());
        let (own, next) = parameters.split_at(end);
        let is_next = own.split([';', ',']).any(|p| {
            let (name, value) = p.split_once('=').unwrap_or((p, ""));
            let words = value.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel") && words.split_whitespace().any(|w| w.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return Some(address.trim().to_owned());
        }
        rest = next;
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_next_page_is_found_in_a_link_header() {
        let next = |text: &str| next_link(&HeaderValue::try_from(text).unwrap());
        assert_eq!(next("</a?p=1>; rel=\"prev\", </a?p=3,4>; rel=\"next\"").as_deref(), Some("/a?p=3,4"));
        assert_eq!(next("<https://x/y>; title=\"next\"; rel=last"), None);
        assert_eq!(next("<b>; rel=\"start next\"").as_deref(), Some("b"));
        assert_eq!(next("nonsense"), None);
    }

    #[test]
    fn waits_are_read_and_bounded() {
        let wait = |text: &str| retry_after(&HeaderValue::try_from(text).unwrap());
        assert_eq!((wait("7"), wait("999999"), wait("soon")), (Some(7_000), Some(3_600_000), None));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), None, "a date that is past asks for nothing");
    }

    #[test]
    fn an_address_in_a_message_has_no_query() {
        assert_eq!(
            place(&Url::parse("https://h.example:8443/a/b?key=secret#x").unwrap()),
            "https://h.example:8443/a/b"
        );
    }
}
