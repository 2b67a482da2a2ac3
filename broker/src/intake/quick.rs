//! The short way of a line into a message: no JSON value is built when the line is plain and its schema simple.
//!
//! It answers "none" whenever it is not sure; the general way in [`super::check`] then decides, and alone words the
//! refusals. A property test compares the two.

use concordat_protocol::message::{Plain, PlainEvent, PlainKind, PlainReader, Prepared};
use regex::bytes::Regex;
use serde_json::{Map, Value};

/// An exact decimal in its only form: what `"format": "decimal"` fields usually carry as their pattern.
const DECIMAL: &str = r"^-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?$";
/// Keywords that say nothing about a value.
const NOTES: [&str; 9] =
    ["title", "description", "$comment", "examples", "default", "deprecated", "readOnly", "writeOnly", "$schema"];

/// Bounds of an integer.
#[derive(Debug, Default, Clone, Copy)]
struct Bounds {
    min: Option<i64>,
    max: Option<i64>,
}

/// What a field's value must be.
#[derive(Debug)]
enum Rule {
    Text {
        len: (usize, usize),
        form: Form,
        words: Option<Vec<String>>,
    },
    Integer(Bounds),
    Number(Bounds),
    Boolean,
    /// Something only the general way knows.
    Unknown,
}

/// What text must look like.
#[derive(Debug)]
enum Form {
    Any,
    Decimal,
    Time,
    Pattern(Regex),
}

/// A schema of flat, simply ruled fields.
#[derive(Debug)]
pub(super) struct Quick {
    /// By name: whether it is required, and its rule.
    fields: Vec<(String, bool, Rule)>,
}

fn noted(key: &str) -> bool {
    NOTES.contains(&key) || key.starts_with("x-")
}

impl Quick {
    /// Compiles a schema; none if it says something that only the general way understands.
    pub fn new(schema: &Value) -> Option<Self> {
        let schema = schema.as_object()?;
        let known = ["type", "properties", "required", "additionalProperties", "$id"];
        let simple = schema.keys().all(|k| known.contains(&k.as_str()) || noted(k));
        let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
        if !simple || !closed || schema.get("type") != Some(&Value::from("object")) {
            return None;
        }
        let required: Vec<&str> = match schema.get("required") {
            None => vec![],
            Some(list) => list.as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?,
        };
        let properties = schema.get("properties")?.as_object()?;
        let named = |name: &&str| properties.contains_key(*name);
        if !required.iter().all(named) {
            return None;
        }
        let mut fields: Vec<(String, bool, Rule)> = properties
            .iter()
            .map(|(name, p)| (name.clone(), required.contains(&name.as_str()), rule(p).unwrap_or(Rule::Unknown)))
            .collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        Some(Self { fields })
    }

    /// Whether these members, by name, are what the schema asks for; none if only the general way can tell, or if they
    /// are not.
    fn accepts(&self, data: &[(&str, Plain<'_>)]) -> Option<()> {
        let mut data = data.iter().peekable();
        for (name, required, rule) in &self.fields {
            match data.next_if(|(n, _)| n == name) {
                Some((_, value)) => rule.accepts(value).then_some(())?,
                None if *required => return None,
                None => {}
            }
        }
        data.next().is_none().then_some(())
    }
}

/// Bounds as whole numbers; none if they are anything else.
fn bounds(p: &Map<String, Value>) -> Option<Bounds> {
    let bound = |key| match p.get(key) {
        None => Some(None),
        Some(n) => n.as_i64().map(Some),
    };
    Some(Bounds { min: bound("minimum")?, max: bound("maximum")? })
}

fn rule(property: &Value) -> Option<Rule> {
    let p = property.as_object()?;
    let only = |keys: &[&str]| p.keys().all(|k| k == "type" || keys.contains(&k.as_str()) || noted(k));
    match p.get("type")?.as_str()? {
        "string" if only(&["format", "pattern", "enum", "minLength", "maxLength"]) => text(p),
        "integer" if only(&["minimum", "maximum"]) => Some(Rule::Integer(bounds(p)?)),
        "number" if only(&["minimum", "maximum"]) => Some(Rule::Number(bounds(p)?)),
        "boolean" if only(&[]) => Some(Rule::Boolean),
        _ => None,
    }
}

fn text(p: &Map<String, Value>) -> Option<Rule> {
    let length = |key, other| match p.get(key) {
        None => Some(other),
        Some(n) => n.as_u64().and_then(|n| usize::try_from(n).ok()),
    };
    let form = match (p.get("format").map(Value::as_str), p.get("pattern").map(Value::as_str)) {
        (None | Some(Some("decimal")), None) => Form::Any,
        (None | Some(Some("decimal")), Some(Some(DECIMAL))) => Form::Decimal,
        (None | Some(Some("decimal")), Some(pattern)) => Form::Pattern(plain_pattern(pattern?)?),
        (Some(Some("date-time")), None) => Form::Time,
        _ => return None,
    };
    let words = match p.get("enum") {
        None => None,
        Some(list) => Some(list.as_array()?.iter().map(|w| w.as_str().map(str::to_owned)).collect::<Option<_>>()?),
    };
    Some(Rule::Text { len: (length("minLength", 0)?, length("maxLength", usize::MAX)?), form, words })
}

/// A pattern that means the same in ECMA 262 and here when the text is ASCII; none if that is not plain to see.
fn plain_pattern(pattern: &str) -> Option<Regex> {
    let odd = ["(?", "[[", "[:", "&&", "--", "~~", "[]", "[^]"];
    if !pattern.is_ascii() || pattern.len() > 200 || odd.iter().any(|o| pattern.contains(o)) {
        return None;
    }
    let mut rest = pattern.bytes();
    while let Some(b) = rest.next() {
        let plain = match b {
            b'\\' => rest.next().is_some_and(|b| b == b'd' || b".-/+*?()[]|^${}\\".contains(&b)),
            b'.' | 0..=31 => false,
            _ => true,
        };
        if !plain {
            return None;
        }
    }
    Regex::new(pattern).ok()
}

impl Rule {
    fn accepts(&self, value: &Plain<'_>) -> bool {
        match (self, value.kind) {
            (Self::Text { len, form, words }, PlainKind::Text) => {
                let Some(text) = value.text() else { return false };
                let chars = if text.is_ascii() { text.len() } else { text.chars().count() };
                (len.0..=len.1).contains(&chars)
                    && words.as_ref().is_none_or(|w| w.iter().any(|w| w == text))
                    && match form {
                        Form::Any => true,
                        Form::Decimal => is_decimal(text.as_bytes()),
                        Form::Time => is_time(text),
                        Form::Pattern(p) => text.is_ascii() && p.is_match(text.as_bytes()),
                    }
            }
            (Self::Integer(b) | Self::Number(b), PlainKind::Integer(n)) => {
                b.min.is_none_or(|min| n >= min) && b.max.is_none_or(|max| n <= max)
            }
            (Self::Number(b), PlainKind::Fraction) => b.min.is_none() && b.max.is_none(),
            (Self::Boolean, PlainKind::Boolean) => true,
            _ => false,
        }
    }
}

/// [`DECIMAL`] by hand.
fn is_decimal(text: &[u8]) -> bool {
    let rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let (whole, rest) = rest.split_at(whole);
    let good = whole == b"0" || whole.first().is_some_and(|b| *b != b'0');
    match rest {
        [] => good,
        [b'.', part @ .., b'1'..=b'9'] => good && part.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Text of the form `2026-01-31T23:59:59.123Z` that is a time under every rule in use here: RFC 3339, no leap second,
/// years 1000 to 2999.
pub(super) fn is_time(text: &str) -> bool {
    let b = text.as_bytes();
    let digits = |from: usize, to: usize| {
        b.get(from..to)?.iter().try_fold(0u32, |n, d| d.is_ascii_digit().then(|| n * 10 + u32::from(d - b'0')))
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !marks.iter().all(|(at, mark)| b.get(*at) == Some(mark)) {
        return false;
    }
    let parts = (digits(0, 4), digits(5, 7), digits(8, 10), digits(11, 13), digits(14, 16), digits(17, 19));
    let (Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second)) = parts else { return false };
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        1..=12 => 31,
        _ => return false,
    };
    let end = match b.get(19..) {
        Some([b'Z']) => true,
        Some([b'.', part @ .., b'Z']) => (1..=9).contains(&part.len()) && part.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    end && (1_000..3_000).contains(&year) && (1..=days).contains(&day) && hour < 24 && minute < 60 && second < 60
}

/// What a message of a dataset has besides its line.
#[derive(Debug)]
pub(super) struct Frame {
    /// JSON of the attribute `source`.
    pub source: String,
    /// JSON of the attribute `type`.
    pub kind: String,
    /// Fields that make the id where the line has none.
    pub key: Vec<String>,
    /// Field that is the time where the line has none.
    pub time: Option<String>,
}

/// Members of a line as they are found; kept from line to line for its room.
#[derive(Default)]
pub(super) struct Scratch<'a> {
    data: Vec<(&'a str, Plain<'a>)>,
}

impl Quick {
    /// Reads a line and adds its message; none (and nothing added) if the general way must look at it. The answer is
    /// the message's time.
    pub fn push<'a>(
        &self,
        frame: &Frame,
        line: &'a [u8],
        scratch: &mut Scratch<'a>,
        secret: [u8; 32],
        members: &[String],
        out: &mut Prepared,
    ) -> Option<Option<&'a str>> {
        let (mut id, mut time, mut found) = (None, None, false);
        let data = &mut scratch.data;
        data.clear();
        let mut reader = PlainReader::new(line)?;
        reader.space();
        reader.object(true, |reader, name| {
            match name {
                "id" if id.is_none() => id = Some(reader.value()?.text()?),
                "time" if time.is_none() => time = Some(reader.value()?.text()?),
                "data" if !found => {
                    found = true;
                    reader.object(true, |reader, name| {
                        data.push((name, reader.value()?));
                        Some(())
                    })?;
                }
                _ => return None,
            }
            Some(())
        })?;
        reader.space();
        if !found || !reader.at_end() {
            return None;
        }
        if !data.is_sorted_by(|a, b| a.0 < b.0) {
            data.sort_unstable_by(|a, b| a.0.cmp(b.0));
            // Equal names are for the general way to refuse.
            data.is_sorted_by(|a, b| a.0 < b.0).then_some(())?;
        }
        self.accepts(data)?;
        let get = |name: &str| data.binary_search_by(|(n, _)| (*n).cmp(name)).ok().and_then(|at| data.get(at));
        let mut id_json = String::with_capacity(80);
        id_json.push('"');
        match id {
            Some(id) => id_json.push_str(id),
            None => {
                for (n, key) in frame.key.iter().enumerate() {
                    if n > 0 {
                        id_json.push('|');
                    }
                    let value = get(key).map(|(_, v)| v);
                    id_json.push_str(value.map_or("", |v| v.text().unwrap_or(v.json)));
                }
            }
        }
        id_json.push('"');
        if id_json.len() < 3 || (id.is_some() && id_json.len() > 258) {
            return None;
        }
        let time = match (time, &frame.time) {
            (Some(time), _) => Some(time),
            (None, Some(field)) => get(field).and_then(|(_, v)| v.text()),
            (None, None) => None,
        };
        time.is_none_or(is_time).then_some(())?;
        let time_json = time.map(|t| ["\"", t, "\""].concat());
        let members_of: Vec<(&str, &str)> = data.iter().map(|(n, v)| (*n, v.json)).collect();
        let attributes = [
            ("datacontenttype", "\"application/json\""),
            ("id", id_json.as_str()),
            ("source", frame.source.as_str()),
            ("specversion", "\"1.0\""),
            ("time", time_json.as_deref().unwrap_or_default()),
            ("type", frame.kind.as_str()),
        ];
        let [a, b, c, d, _, f] = attributes;
        let untimed = [a, b, c, d, f];
        let attributes: &[(&str, &str)] = if time.is_some() { &attributes } else { &untimed };
        let event = PlainEvent { attributes, data: &members_of };
        out.push_plain(secret, &event, members).ok()?;
        Some(time)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_that_could_mean_something_else_are_left_to_the_general_way() {
        for good in ["^[a-z]{2,4}$", r"^[A-Z]-\d+$", "a|b", r"^[0-9]{2}-[A-Z]{2}$", DECIMAL] {
            assert!(plain_pattern(good).is_some(), "{good}");
        }
        for odd in ["a.c", r"\w", "(?i)a", "(?=a)", r"\p{L}", "[a&&b]", "[[:alpha:]]", "ü", "[]a]"] {
            assert!(plain_pattern(odd).is_none(), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn decimals_by_hand_are_the_pattern(text in "-?[0-9]{0,3}[.]?[0-9]{0,3}|[-0-9.]{0,6}") {
            prop_assert_eq!(is_decimal(text.as_bytes()), Regex::new(DECIMAL).unwrap().is_match(text.as_bytes()));
        }

        #[test]
        fn times_by_hand_are_times(text in "[0-3][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,10})?Z") {
            let schema = jsonschema::options().should_validate_formats(true).build(&serde_json::json!({"format": "date-time"})).unwrap();
            if is_time(&text) {
                prop_assert!(text.parse::<jiff::Timestamp>().is_ok());
                prop_assert!(schema.is_valid(&Value::from(text)));
            }
        }
    }
}
