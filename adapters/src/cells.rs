//! Text cells out of JSON, by path: `$.a.b`, `$.list[0]`, `$['a b']`, `$` for the whole.
//!
//! A number keeps the digits it was written with, which a parsed number would not: what follows converts text exactly.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::convert::Fault;

/// Most members and indexes of a path.
const STEPS_MAX: usize = 16;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    Item(usize),
}

/// A place in a JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Reads `$`, `$.member`, `$['any member']` and `$.list[0]`, in any depth up to 16. The error is one sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |what: &str| format!("`{text}` is not a path: {what}; write for example `$.values[0].mw`");
        let mut rest = text.strip_prefix('$').ok_or_else(|| bad("it begins with `$`"))?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = if let Some(quoted) = rest.strip_prefix("['") {
                let (name, after) = quoted.split_once("']").ok_or_else(|| bad("a `['` is not closed by `']`"))?;
                (Step::Member(name.to_owned()), after)
            } else if let Some(number) = rest.strip_prefix('[') {
                let (index, after) = number.split_once(']').ok_or_else(|| bad("a `[` is not closed"))?;
                (Step::Item(index.parse().map_err(|_| bad("an index is a number from 0"))?), after)
            } else if let Some(name) = rest.strip_prefix('.') {
                let end = name.find(['.', '[']).unwrap_or(name.len());
                let (name, after) = name.split_at(end);
                (Step::Member(name.to_owned()), after)
            } else {
                return Err(bad("a member begins with `.`"));
            };
            if matches!(&step, Step::Member(name) if name.is_empty() || name.contains('*')) {
                return Err(bad("a member has a name"));
            }
            steps.push(step);
            rest = after;
        }
        if steps.len() > STEPS_MAX { Err(bad("it has more than 16 steps")) } else { Ok(Self(steps)) }
    }
}

/// Several paths, looked up in one pass over the text.
#[derive(Debug, Clone, Default)]
pub struct Cells {
    root: Node,
    count: usize,
}

#[derive(Debug, Clone, Default)]
struct Node {
    cells: Vec<usize>,
    members: Vec<(String, Node)>,
    items: Vec<(usize, Node)>,
}

impl Node {
    fn add(&mut self, steps: &[Step], cell: usize) {
        let Some((step, rest)) = steps.split_first() else { return self.cells.push(cell) };
        let next = match step {
            Step::Member(name) => child(&mut self.members, name),
            Step::Item(index) => child(&mut self.items, index),
        };
        if let Some(next) = next {
            next.add(rest, cell);
        }
    }
}

fn child<'a, K: PartialEq + Clone>(list: &'a mut Vec<(K, Node)>, key: &K) -> Option<&'a mut Node> {
    let at = list.iter().position(|(k, _)| k == key).unwrap_or_else(|| {
        list.push((key.clone(), Node::default()));
        list.len() - 1
    });
    list.get_mut(at).map(|(_, node)| node)
}

impl Cells {
    /// The cells of these paths, in their order.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a JsonPath>) -> Self {
        let mut cells = Self::default();
        for path in paths {
            cells.root.add(&path.0, cells.count);
            cells.count += 1;
        }
        cells
    }

    /// The JSON text at each path; none where there is nothing. Faults: `json.syntax`, `json.utf8`,
    /// `json.duplicate-key`.
    pub fn raw<'a>(&self, json: &'a [u8]) -> Result<Vec<Option<&'a RawValue>>, Fault> {
        let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
        let text = std::str::from_utf8(json)
            .map_err(|_| Fault::new("json.utf8", "the text is not UTF-8, as JSON must be; correct it at the source"))?;
        let mut out = vec![None; self.count];
        let mut reader = serde_json::Deserializer::from_str(text);
        let read = Seed { node: &self.root, out: &mut out }.deserialize(&mut reader);
        read.and_then(|()| reader.end()).map_err(|e| fault(&e))?;
        Ok(out)
    }

    /// The values at each path as text: strings without their quotes, numbers and booleans as written, objects and
    /// arrays as JSON; none where there is nothing or `null`.
    pub fn texts(&self, json: &[u8]) -> Result<Vec<Option<String>>, Fault> {
        self.raw(json)?.into_iter().map(|raw| raw.map_or(Ok(None), text)).collect()
    }
}

/// A JSON value as a cell's text; none for `null`.
pub fn text(raw: &RawValue) -> Result<Option<String>, Fault> {
    let json = raw.get();
    match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str(json).map(Some).map_err(|e| fault(&e)),
        Some(b'n') => Ok(None),
        _ => Ok(Some(json.to_owned())),
    }
}

/// The elements of the array at `path`, each as its JSON text. Fault `json.items` when there is no array.
pub fn items<'a>(json: &'a [u8], path: &JsonPath) -> Result<Vec<&'a RawValue>, Fault> {
    let missing = || Fault::new("json.items", "there is no list where `items` points; correct the path");
    let found = Cells::new([path]).raw(json)?;
    let raw = found.first().copied().flatten().ok_or_else(missing)?;
    serde_json::from_str(raw.get()).map_err(|_| missing())
}

/// The text never appears in the message: it may be personal.
fn fault(error: &serde_json::Error) -> Fault {
    if error.is_data() {
        return Fault::new("json.duplicate-key", "a member stands twice in one object; correct it at the source");
    }
    let message = format!("not JSON from line {}, column {} on", error.line(), error.column());
    Fault::new("json.syntax", message)
}

struct Seed<'a, 'de> {
    node: &'a Node,
    out: &'a mut [Option<&'de RawValue>],
}

impl<'de> DeserializeSeed<'de> for Seed<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        if self.node.cells.is_empty() {
            return from.deserialize_any(self);
        }
        let raw = <&RawValue>::deserialize(from)?;
        for cell in &self.node.cells {
            if let Some(out) = self.out.get_mut(*cell) {
                *out = Some(raw);
            }
        }
        if self.node.members.is_empty() && self.node.items.is_empty() {
            return Ok(());
        }
        let mut inner = serde_json::Deserializer::from_str(raw.get());
        inner.deserialize_any(self).map_err(D::Error::custom)
    }
}

impl<'de> Visitor<'de> for Seed<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = vec![false; self.node.members.len()];
        while let Some(found) = map.next_key_seed(Key(&self.node.members))? {
            let member = found.and_then(|n| Some((self.node.members.get(n)?, seen.get_mut(n)?)));
            let Some(((_, node), seen)) = member else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if std::mem::replace(seen, true) {
                return Err(A::Error::custom("duplicate"));
            }
            map.next_value_seed(Seed { node, out: &mut *self.out })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let more = match self.node.items.iter().find(|(n, _)| *n == index) {
                Some((_, node)) => seq.next_element_seed(Seed { node, out: &mut *self.out })?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    // A path that leads into a plain value finds nothing there.
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Finds a member by its name without keeping the name.
struct Key<'a>(&'a [(String, Node)]);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Option<usize>, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|(n, _)| n == name))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn texts(paths: &[&str], json: &str) -> Result<Vec<Option<String>>, &'static str> {
        let paths: Vec<JsonPath> = paths.iter().map(|p| JsonPath::parse(p).unwrap()).collect();
        Cells::new(&paths).texts(json.as_bytes()).map_err(|f| f.rule)
    }

    fn some(list: &[&str]) -> Vec<Option<String>> {
        list.iter().map(|t| (!t.is_empty()).then(|| (*t).to_owned())).collect()
    }

    #[test]
    fn values_are_found_where_the_paths_say() {
        let json = r#"{"p": {"q": 1.10, "r": [true, {"s d": "x\ny"}]}, "n": null, "z": 123456789012345678901}"#;
        let paths = ["$.p.q", "$.p.r[1]['s d']", "$.p.r[0]", "$.n", "$.z", "$.p.q.r", "$.none", "$.p.r", "$.p.r[9]"];
        let want = ["1.10", "x\ny", "true", "", "123456789012345678901", "", "", r#"[true, {"s d": "x\ny"}]"#, ""];
        assert_eq!(texts(&paths, json).unwrap(), some(&want));
        assert_eq!(texts(&["$"], " 23.50 ").unwrap(), some(&["23.50"]));
        assert_eq!(texts(&["$.a"], "\u{feff}{\"a\":1}").unwrap(), some(&["1"]));
    }

    #[test]
    fn bad_json_is_a_fault_that_does_not_repeat_it() {
        for (json, rule) in [
            ("{\"a\": 1", "json.syntax"),
            ("{\"a\": 1} x", "json.syntax"),
            ("{\"a\": 01}", "json.syntax"),
            ("{\"a\": 1, \"a\": 2}", "json.duplicate-key"),
            ("", "json.syntax"),
            ("{\"a\": \"\\ud800\"}", "json.syntax"),
        ] {
            assert_eq!(texts(&["$.a"], json), Err(rule), "{json}");
        }
        let cells = Cells::new(&[JsonPath::parse("$.a").unwrap()]);
        assert_eq!(cells.texts(b"{\"a\": \"\xff\"}").unwrap_err().rule, "json.utf8");
        assert!(!cells.texts(b"{\"Canary\"").unwrap_err().message.contains("Canary"));
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(texts(&["$.a"], &deep), Ok(vec![None]), "passed over without going deep");
        assert_eq!(texts(&["$[0]"], &deep).map(|_| ()), Ok(()));
    }

    #[test]
    fn a_list_gives_its_elements() {
        let found = |json: &str, path: &str| {
            let path = JsonPath::parse(path).unwrap();
            items(json.as_bytes(), &path).map(|l| l.iter().map(|r| r.get().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(found(r#"{"d": {"i": [{"a":1}, 2]}}"#, "$.d.i").unwrap(), [r#"{"a":1}"#, "2"]);
        assert_eq!(found("[]", "$").unwrap(), Vec::<String>::new());
        assert_eq!(found(r#"{"d": 1}"#, "$.d").unwrap_err().rule, "json.items");
        assert_eq!(found("{}", "$.d").unwrap_err().rule, "json.items");
    }

    #[test]
    fn paths_are_strict() {
        for bad in ["", "a.b", "$a", "$.", "$..a", "$[x]", "$[1", "$['a", "$.*", "$.a[-1]"] {
            assert!(JsonPath::parse(bad).unwrap_err().contains("is not a path"), "{bad}");
        }
        assert!(JsonPath::parse(&format!("${}", ".a".repeat(17))).is_err());
    }
}
