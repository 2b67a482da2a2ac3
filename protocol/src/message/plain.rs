//! JSON that is canonical already (RFC 8785), read without building values.
//!
//! Most messages are written plainly: text without escapes, short numbers, names in ASCII. Their canonical bytes are
//! slices of what came in, so that reading them costs one pass and no allocation. Everything here answers "none" when
//! in doubt; the caller then takes the general way ([`super::Event`]), which must agree wherever both have an answer.

/// What a plain value is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Text without escapes.
    Text,
    /// A whole number within 2^53 - 1 either way.
    Integer(i64),
    /// A number with a fraction, of at most 15 digits.
    Fraction,
    /// True or false.
    Boolean,
    /// Null.
    Null,
    /// An object or an array, canonical to its last member.
    Nested,
}

/// A value as it stands in the document.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plain<'a> {
    /// Its canonical bytes; text with its quotes.
    pub json: &'a str,
    /// What it is.
    pub kind: Kind,
}

impl<'a> Plain<'a> {
    /// The text, if it is text.
    #[must_use]
    pub fn text(&self) -> Option<&'a str> {
        (self.kind == Kind::Text).then(|| self.json.get(1..self.json.len() - 1)).flatten()
    }
}

/// Deepest nesting that is read plainly.
const DEPTH: u8 = 8;
/// Largest integer that every JSON reader keeps exactly: 2^53 - 1.
const SAFE: i64 = (1 << 53) - 1;

/// A place in a document.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start; none if the bytes are not UTF-8.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(|text| Self { text, at: 0 })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes over one byte if it is this one.
    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Passes over JSON's white space.
    pub fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Whether nothing follows.
    #[must_use]
    pub fn at_end(&self) -> bool {
        self.at == self.text.len()
    }

    /// Reads an object's members as they come; `loose` allows white space between them. `each` reads the member's
    /// value. Names are ASCII; that each stands once is the caller's to check.
    pub fn object(&mut self, loose: bool, mut each: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        let gap = |reader: &mut Self| {
            if loose {
                reader.space();
            }
        };
        if !self.eat(b'{') {
            return None;
        }
        gap(self);
        if self.eat(b'}') {
            return Some(());
        }
        loop {
            let name = self.string()?;
            if !name.is_ascii() {
                return None;
            }
            gap(self);
            if !self.eat(b':') {
                return None;
            }
            gap(self);
            each(self, name.get(1..name.len() - 1)?)?;
            gap(self);
            if self.eat(b'}') {
                return Some(());
            }
            if !self.eat(b',') {
                return None;
            }
            gap(self);
        }
    }

    /// Reads a canonical value.
    pub fn value(&mut self) -> Option<Plain<'a>> {
        self.nested(DEPTH)
    }

    fn nested(&mut self, depth: u8) -> Option<Plain<'a>> {
        let from = self.at;
        let kind = match self.peek()? {
            b'"' => {
                let json = self.string()?;
                return Some(Plain { json, kind: Kind::Text });
            }
            b'-' | b'0'..=b'9' => self.number()?,
            b'{' if depth > 0 => {
                let mut last: Option<&str> = None;
                self.object(false, |reader, name| {
                    // Names in ASCII sort by bytes as they sort by UTF-16 units; equal ones are refused too.
                    if last.is_some_and(|last| last >= name) {
                        return None;
                    }
                    last = Some(name);
                    reader.nested(depth - 1).map(|_| ())
                })?;
                Kind::Nested
            }
            b'[' if depth > 0 => {
                self.array(depth - 1)?;
                Kind::Nested
            }
            b't' => self.word("true", Kind::Boolean)?,
            b'f' => self.word("false", Kind::Boolean)?,
            b'n' => self.word("null", Kind::Null)?,
            _ => return None,
        };
        Some(Plain { json: self.text.get(from..self.at)?, kind })
    }

    fn array(&mut self, depth: u8) -> Option<()> {
        self.eat(b'[');
        if self.eat(b']') {
            return Some(());
        }
        loop {
            self.nested(depth)?;
            if self.eat(b']') {
                return Some(());
            }
            if !self.eat(b',') {
                return None;
            }
        }
    }

    fn word(&mut self, word: &str, kind: Kind) -> Option<Kind> {
        if !self.text.get(self.at..)?.starts_with(word) {
            return None;
        }
        self.at += word.len();
        Some(kind)
    }

    /// Text without escapes, with its quotes. What RFC 8785 would escape is refused.
    fn string(&mut self) -> Option<&'a str> {
        let from = self.at;
        if !self.eat(b'"') {
            return None;
        }
        let rest = self.text.as_bytes().get(self.at..)?;
        let end = rest.iter().position(|b| *b == b'"' || *b == b'\\' || *b < 0x20)?;
        if rest.get(end) != Some(&b'"') {
            return None;
        }
        self.at += end + 1;
        self.text.get(from..self.at)
    }

    fn digits(&mut self) -> &'a [u8] {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    /// A number that its shortest rendering (RFC 8785, 3.2.2.3) leaves as it is. A fraction of at most 15 digits in all
    /// is the shortest rendering of its own double: no two of them share one.
    fn number(&mut self) -> Option<Kind> {
        let minus = self.eat(b'-');
        let whole = self.digits();
        let (zero, long) = (whole == b"0", whole.len() > 16);
        if whole.is_empty() || long || (whole.len() > 1 && whole.first() == Some(&b'0')) {
            return None;
        }
        let kind = if self.eat(b'.') {
            let part = self.digits();
            let tiny = zero && part.starts_with(b"000000");
            if part.last().is_none_or(|b| *b == b'0') || whole.len() + part.len() > 15 || tiny {
                return None;
            }
            Kind::Fraction
        } else {
            let n = whole.iter().fold(0i64, |n, b| n * 10 + i64::from(b - b'0'));
            if n > SAFE || (zero && minus) {
                return None;
            }
            Kind::Integer(if minus { -n } else { n })
        };
        // An exponent, or anything else that is not the end of a value.
        let ends = matches!(self.peek(), None | Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n'));
        ends.then_some(kind)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::message::{jcs, parse_ijson};
    use proptest::prelude::*;
    use serde_json::Value;

    fn plain(text: &str) -> Option<Plain<'_>> {
        let mut reader = Reader::new(text.as_bytes())?;
        reader.value().filter(|_| reader.at_end())
    }

    #[test]
    fn what_is_plain_and_what_is_not() {
        for text in [
            "\"\"",
            "\"a\u{fc}\u{2028}\"",
            "0",
            "-1",
            "9007199254740991",
            "0.1",
            "-12.375",
            "0.000001",
            "true",
            "null",
            "[]",
            "{}",
            r#"{"a":[1,{"b":"c"}],"b":0.5}"#,
            "123456789012.345",
        ] {
            assert_eq!(plain(text).map(|p| p.json), Some(text), "{text}");
        }
        for text in [
            "",
            "\"",
            "\"\\n\"",
            "\"a",
            "\"\n\"",
            "-0",
            "01",
            "1.0",
            "1.",
            ".5",
            "1e3",
            "9007199254740992",
            "-9007199254740992",
            "0.0000001",
            "0.1234567890123456",
            "1 2",
            " 1",
            "[1, 2]",
            r#"{"b":1,"a":2}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"ü":1}"#,
            "tru",
            "nul",
            "+1",
            "--1",
            "-",
            "[1,]",
            "{\"a\"}",
            "99999999999999999999",
        ] {
            assert_eq!(plain(text), None, "{text}");
        }
        assert!(plain(&"[".repeat(1_000)).is_none());
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-100_000i64..100_000).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            (-1_000_000i64..1_000_000, 0..9u32).prop_map(|(n, e)| Value::from(n as f64 / 10f64.powi(e as i32))),
            "[a-zA-Z0-9 \"\\\\\n\u{e4}\u{2028}]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-c\u{e4}]{0,2}", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever is read plainly is I-JSON, and canonical as it stands.
        #[test]
        fn plain_is_canonical(value in json()) {
            for text in [value.to_string(), String::from_utf8(jcs(&value).unwrap()).unwrap()] {
                if let Some(p) = plain(&text) {
                    let general = parse_ijson(text.as_bytes()).unwrap();
                    prop_assert_eq!(jcs(&general).unwrap(), p.json.as_bytes());
                }
            }
        }

        #[test]
        fn short_decimals_are_their_own_rendering(whole in "0|[1-9][0-9]{0,13}", part in "[0-9]{0,13}[1-9]", minus: bool) {
            let text = format!("{}{whole}.{part}", if minus { "-" } else { "" });
            if let Some(p) = plain(&text) {
                prop_assert_eq!(jcs(&parse_ijson(text.as_bytes()).unwrap()).unwrap(), p.json.as_bytes());
            } else {
                prop_assert!(whole.len() + part.len() > 15 || part.starts_with("000000"));
            }
        }

        #[test]
        fn arbitrary_text_never_disagrees(text in "[-0-9.eE\"a\\\\,:{}\\[\\] truefalsn]{0,24}") {
            if let Some(p) = plain(&text) {
                prop_assert_eq!(jcs(&parse_ijson(text.as_bytes()).unwrap()).unwrap(), p.json.as_bytes());
            }
        }
    }
}
