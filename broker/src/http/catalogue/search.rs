//! Search in the catalogue: by text, theme, area, time, attribute, owner and access; pages with opaque cursors.

use super::about::{About, Bbox};
use crate::http::Problem;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use concordat_protocol::hash::sha256;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

/// Most datasets of a page.
const PAGE_MAX: usize = 1_000;

/// What is looked for; all that is named must hold.
#[derive(Debug, Default, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct Search {
    /// Words that occur in name, title, description, keywords or attributes.
    pub text: Option<String>,
    /// Code of an EU data theme, for example `TRAN`.
    pub theme: Option<String>,
    /// `west,south,east,north` in degrees, or part of a place's name.
    pub area: Option<String>,
    /// Data of this instant (RFC 3339) or later.
    pub from: Option<String>,
    /// Data before this instant (RFC 3339).
    pub until: Option<String>,
    /// Name of an attribute.
    pub field: Option<String>,
    /// The agency that owns it.
    pub owner: Option<String>,
    /// `public`, `agreed`, `own` or `none`.
    pub access: Option<String>,
    /// 1 to 1,000, default 1,000.
    pub limit: Option<usize>,
    /// `next_cursor` of the page before, with the same search.
    pub cursor: Option<String>,
}

/// One dataset as it is searched.
pub(super) struct Entry<'a> {
    pub id: &'a str,
    pub owner: &'a str,
    pub access: &'a str,
    pub title: &'a str,
    /// Attributes with their descriptions, `null` where they are not known.
    pub fields: &'a Value,
    pub about: Option<&'a About>,
}

enum Where {
    Bbox(Bbox),
    Name(String),
}

/// A search that was read.
pub(super) struct Wanted {
    words: Vec<String>,
    theme: Option<String>,
    area: Option<Where>,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    field: Option<String>,
    owner: Option<String>,
    access: Option<String>,
    limit: usize,
    after: Option<String>,
    tag: [u8; 8],
}

fn instant(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let rule = || Problem::bad_request(format!("{name}: an instant such as 2026-05-01T00:00:00Z"));
    text.map(str::parse).transpose().map_err(|_| rule())
}

fn area(text: &str) -> Result<Where, Problem> {
    let numbers: Vec<f64> = text.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    match <[f64; 4]>::try_from(numbers) {
        Ok(four) => Bbox(four).checked().map(Where::Bbox).map_err(|e| Problem::bad_request(format!("area: {e}"))),
        Err(some) if some.is_empty() => Ok(Where::Name(text.to_lowercase())),
        Err(_) => Err(Problem::bad_request("area: west,south,east,north in degrees, or part of a place's name")),
    }
}

impl Search {
    /// What pages of one search have in common; a cursor of another search is refused.
    fn tag(&self) -> [u8; 8] {
        let text = format!("{:?}", Self { limit: None, cursor: None, ..self.clone() });
        let mut tag = [0; 8];
        tag.copy_from_slice(&sha256(&[text.as_bytes()])[..8]);
        tag
    }

    /// Address of the page behind a cursor, relative to the catalogue's own.
    pub(super) fn next(&self, cursor: &str) -> String {
        let limit = self.limit.map(|l| l.to_string());
        let members = [
            ("text", self.text.as_deref()),
            ("theme", self.theme.as_deref()),
            ("area", self.area.as_deref()),
            ("from", self.from.as_deref()),
            ("until", self.until.as_deref()),
            ("field", self.field.as_deref()),
            ("owner", self.owner.as_deref()),
            ("access", self.access.as_deref()),
            ("limit", limit.as_deref()),
            ("cursor", Some(cursor)),
        ];
        let members = members.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", escaped(value?))));
        format!("catalogue.jsonld?{}", members.collect::<Vec<_>>().join("&"))
    }

    pub(super) fn read(&self) -> Result<Wanted, Problem> {
        let limit = self.limit.unwrap_or(PAGE_MAX);
        if limit == 0 || limit > PAGE_MAX {
            return Err(Problem::bad_request(format!("limit: 1 to {PAGE_MAX}")));
        }
        if self.access.as_ref().is_some_and(|a| !super::ACCESS.contains(&a.as_str())) {
            return Err(Problem::bad_request(format!("access: one of {}", super::ACCESS.join(", "))));
        }
        let tag = self.tag();
        let lower = |t: &Option<String>| t.as_ref().map(|t| t.to_lowercase());
        Ok(Wanted {
            words: lower(&self.text).unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
            theme: self.theme.as_ref().map(|t| t.to_uppercase()),
            area: self.area.as_deref().map(area).transpose()?,
            from: instant("from", self.from.as_deref())?,
            until: instant("until", self.until.as_deref())?,
            field: lower(&self.field),
            owner: self.owner.clone(),
            access: self.access.clone(),
            limit,
            after: self.cursor.as_deref().map(|c| after(c, tag)).transpose()?,
            tag,
        })
    }
}

/// A value of a query parameter; everything but unreserved characters is escaped.
fn escaped(value: &str) -> String {
    let one = |b: u8| match b {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    };
    value.bytes().map(one).collect()
}

fn after(cursor: &str, tag: [u8; 8]) -> Result<String, Problem> {
    let bad =
        |detail: &str| Problem::new(StatusCode::CONFLICT, "bad-cursor", detail).next("begin again without a cursor");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad("this is no cursor of the catalogue"))?;
    let (of, id) = bytes.split_at_checked(8).ok_or_else(|| bad("this is no cursor of the catalogue"))?;
    if of != tag {
        return Err(bad("the cursor is of another search"));
    }
    String::from_utf8(id.to_vec()).map_err(|_| bad("this is no cursor of the catalogue"))
}

impl Wanted {
    /// Whether a dataset is what is looked for, wherever its page is.
    pub(super) fn matches(&self, e: &Entry) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|w| w == is);
        same(&self.owner, e.owner)
            && same(&self.access, e.access)
            && self.theme.as_ref().is_none_or(|t| e.about.is_some_and(|a| a.themes.contains(t)))
            && self.field.as_ref().is_none_or(|f| names(e.fields).any(|n| n.to_lowercase() == *f))
            && self.has_words(e)
            && self.is_there(e.about)
            && self.is_then(e.about)
    }

    fn has_words(&self, e: &Entry) -> bool {
        if self.words.is_empty() {
            return true;
        }
        let mut text = vec![e.id, e.title];
        text.extend(names(e.fields));
        text.extend(e.fields.as_array().into_iter().flatten().filter_map(|f| f["description"].as_str()));
        if let Some(about) = e.about {
            text.push(&about.description);
            text.extend(about.keywords.iter().map(String::as_str));
            text.extend(about.area.iter().map(|a| a.name.as_str()));
        }
        let text = text.join("\n").to_lowercase();
        self.words.iter().all(|w| text.contains(w))
    }

    fn is_there(&self, about: Option<&About>) -> bool {
        let Some(wanted) = &self.area else { return true };
        let Some(area) = about.and_then(|a| a.area.as_ref()) else { return false };
        match wanted {
            Where::Bbox(wanted) => area.bbox.is_some_and(|b| b.meets(*wanted)),
            Where::Name(name) => area.name.to_lowercase().contains(name),
        }
    }

    fn is_then(&self, about: Option<&About>) -> bool {
        if self.from.is_none() && self.until.is_none() {
            return true;
        }
        let Some(time) = about.and_then(|a| a.time.as_ref()) else { return false };
        self.from.is_none_or(|from| time.until.is_none_or(|end| end > from)) && self.until.is_none_or(|u| time.from < u)
    }

    /// The page of what was found, which is in the order of ids, and the cursor of the next one.
    pub(super) fn page<T>(&self, found: Vec<T>, id: impl Fn(&T) -> &str) -> (Vec<T>, Option<String>) {
        let begun = |t: &T| self.after.as_ref().is_none_or(|a| id(t) > a.as_str());
        let mut rest: Vec<T> = found.into_iter().filter(begun).collect();
        let more = rest.len() > self.limit;
        rest.truncate(self.limit);
        let cursor = |t: &T| URL_SAFE_NO_PAD.encode([&self.tag[..], id(t).as_bytes()].concat());
        let next = rest.last().filter(|_| more).map(cursor);
        (rest, next)
    }
}

fn names(fields: &Value) -> impl Iterator<Item = &str> {
    fields.as_array().into_iter().flatten().filter_map(|f| f["name"].as_str())
}
