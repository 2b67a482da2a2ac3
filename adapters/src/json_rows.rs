//! JSON to rows: the mapping's `from` is a path into a JSON value, a bare member name, or a word of the kind such as
//! `$topic[3]`.

use std::borrow::Cow;

use crate::cells::{Cells, JsonPath, text};
use crate::contract::{Again, Origin, Reject, Row};
use crate::convert::Fault;
use crate::document::DocumentError;
use crate::mapping::{Cell, Mapper};

/// Where one cell is from.
#[derive(Debug, Clone)]
enum From<S> {
    Json(usize),
    Word(S),
}

/// A mapping whose columns are paths. `S` is what the words of a kind mean.
#[derive(Debug, Clone)]
pub struct JsonRows<S> {
    mapper: Mapper,
    cells: Cells,
    /// By index of the mapping's step.
    from: Vec<From<S>>,
    any_json: bool,
}

/// The path that a mapping's `from` means: `$.a.b`, or `a` for `$.a`.
pub fn path_of(from: &str) -> Result<JsonPath, String> {
    if from.starts_with('$') { JsonPath::parse(from) } else { JsonPath::parse(&format!("$['{from}']")) }
}

impl<S> JsonRows<S> {
    /// Binds an open mapping. `word` reads the words of the kind: none for what is a path.
    pub fn new(mapper: Mapper, word: impl Fn(&str) -> Option<Result<S, String>>) -> Result<Self, DocumentError> {
        let (mut paths, mut from) = (Vec::new(), Vec::new());
        for step in mapper.steps() {
            let bad = |detail| DocumentError::rule(format!("map.{}.from", step.target), detail);
            from.push(match word(&step.from) {
                Some(word) => From::Word(word.map_err(bad)?),
                None => {
                    paths.push(path_of(&step.from).map_err(bad)?);
                    From::Json(paths.len() - 1)
                }
            });
        }
        let any_json = !paths.is_empty();
        Ok(Self { mapper, cells: Cells::new(&paths), from, any_json })
    }

    /// The mapping.
    pub fn mapper(&self) -> &Mapper {
        &self.mapper
    }

    /// The row of one JSON value; `raw` are the original bytes for a dead letter.
    pub fn row<'a>(&self, origin: Origin, raw: &[u8], json: &'a [u8], word: &dyn Fn(&S) -> Cell<'a>) -> Row {
        let found = match self.any_json {
            true => match self.cells.raw(json) {
                Ok(found) => found,
                Err(fault) => return Row::Bad(bad(origin, raw, fault)),
            },
            false => Vec::new(),
        };
        let mapped = self.mapper.map(&|step| match self.from.get(step.column) {
            Some(From::Word(meaning)) => word(meaning),
            Some(From::Json(at)) => found.get(*at).copied().flatten().map_or(Cell::Null, |raw| {
                // Most values need no copy: numbers, and strings without escapes.
                let plain = raw.get().strip_prefix('"').and_then(|t| t.strip_suffix('"'));
                match plain.filter(|t| !t.contains('\\')) {
                    Some(plain) => Cell::Text(Cow::Borrowed(plain)),
                    None => match text(raw) {
                        Ok(text) => text.map_or(Cell::Null, |t| Cell::Text(Cow::Owned(t))),
                        Err(fault) => Cell::Bad(fault),
                    },
                }
            }),
            None => Cell::Null,
        });
        match mapped {
            Ok(mapped) => Row::Good(mapped.at(origin, raw)),
            Err(cell) => Row::Bad(cell.at(origin, raw)),
        }
    }
}

/// Maps kept JSON values again where the mapping has no words of a kind.
pub fn again(rows: JsonRows<()>) -> Again {
    Box::new(move |origin, raw| rows.row(origin, raw, raw, &|()| Cell::Null))
}

/// A reject that is not about one column.
pub fn bad(origin: Origin, raw: &[u8], fault: Fault) -> Reject {
    Reject {
        line: origin.line,
        origin,
        column: 1,
        field: None,
        rule: fault.rule.to_owned(),
        message: fault.message,
        raw: raw.to_vec(),
        truncated: false,
    }
}
