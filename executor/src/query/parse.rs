//! JSON to a typed filter and query, refusing what is unknown with its place.

use serde_json::{Map, Value};

use super::error::{Problem, QueryError};
use super::fields::{FieldType, Fields, nearest};
use super::filter::{Cond, Filter, Op};
use super::value::Scalar;
use super::{Order, Query};
use crate::limits::{
    DEFAULT_PAGE_ROWS, MAX_CONDITIONS, MAX_CONSTANT_BYTES, MAX_CONSTANTS, MAX_FILTER_DEPTH, MAX_LIST, MAX_PAGE_ROWS,
};

const MEMBERS: [&str; 5] = ["dataset", "where", "select", "order", "limit"];
const OPERATORS: [&str; 9] = ["eq", "ne", "in", "range", "prefix", "exists", "bbox", "near", "time"];

pub(super) type Parsed<T> = Result<T, QueryError>;

/// The dataset a query names, read before its fields are known.
pub fn dataset_of(query: &Value) -> Parsed<&str> {
    let mut at = Place::default();
    let Some(map) = query.as_object() else {
        return Err(at.refuse(Problem::Shape("a query object, like {\"dataset\": .., \"where\": ..}")));
    };
    at.push("dataset");
    match map.get("dataset").and_then(Value::as_str) {
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(at.refuse(Problem::Shape("the dataset's id as text, like \"ds:police/stops@1\""))),
    }
}

/// A query over the fields of the dataset it names.
pub fn parse_query(query: &Value, fields: &Fields) -> Parsed<Query> {
    let dataset = dataset_of(query)?.to_string();
    let mut p = Parser::new(fields, "");
    let map = p.object(query, "a query object")?;
    for word in map.keys() {
        if !MEMBERS.contains(&word.as_str()) {
            return p.within(word, |p| {
                p.fail(Problem::UnknownMember { word: shown(word), nearest: nearest(word, MEMBERS) })
            });
        }
    }
    let filter = match map.get("where") {
        Some(v) => p.within("where", |p| p.top(v))?,
        None => Filter::All,
    };
    let select = match map.get("select") {
        Some(v) => Some(p.within("select", |p| p.select(v))?),
        None => None,
    };
    let order = match map.get("order").map(Value::as_str) {
        None | Some(Some("key")) => Order::Key,
        Some(Some("-key")) => Order::KeyDescending,
        Some(_) => return p.within("order", |p| p.fail(Problem::Order)),
    };
    let limit = match map.get("limit").map(Value::as_u64) {
        None => DEFAULT_PAGE_ROWS,
        Some(n) => match n.and_then(|n| u32::try_from(n).ok()) {
            Some(n) if (1..=MAX_PAGE_ROWS).contains(&n) => n,
            _ => return p.within("limit", |p| p.fail(Problem::Limit)),
        },
    };
    Ok(Query { dataset, filter, select, order, limit })
}

/// A filter alone, as agreements carry it; `pointer` is where it stands, for messages.
pub fn parse_filter(filter: &Value, fields: &Fields, pointer: &str) -> Parsed<Filter> {
    Parser::new(fields, pointer).top(filter)
}

/// A list of fields alone, as agreements carry it; `pointer` is where it stands.
pub fn parse_select(select: &Value, fields: &Fields, pointer: &str) -> Parsed<Vec<String>> {
    Parser::new(fields, pointer).select(select)
}

#[derive(Default)]
struct Place(String);

impl Place {
    fn push(&mut self, part: &str) {
        let short: String = part.chars().take(80).collect();
        self.0.push('/');
        self.0.push_str(&short.replace('~', "~0").replace('/', "~1"));
    }
    fn refuse(&self, problem: Problem) -> QueryError {
        QueryError { pointer: self.0.clone(), problem }
    }
}

pub(super) struct Parser<'a> {
    pub(super) fields: &'a Fields,
    at: Place,
    depth: usize,
    conditions: usize,
    constants: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(fields: &'a Fields, pointer: &str) -> Self {
        let at = Place(pointer.to_string());
        Self { fields, at, depth: 0, conditions: 0, constants: 0 }
    }

    pub(super) fn fail<T>(&self, problem: Problem) -> Parsed<T> {
        Err(self.at.refuse(problem))
    }

    pub(super) fn within<T>(&mut self, part: &str, then: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let length = self.at.0.len();
        self.at.push(part);
        let result = then(self);
        self.at.0.truncate(length);
        result
    }

    pub(super) fn object<'v>(&self, v: &'v Value, what: &'static str) -> Parsed<&'v Map<String, Value>> {
        v.as_object().map_or_else(|| self.fail(Problem::Shape(what)), Ok)
    }

    pub(super) fn list<'v>(&self, v: &'v Value, name: &'static str, what: &'static str) -> Parsed<&'v [Value]> {
        let Some(list) = v.as_array() else {
            return self.fail(Problem::Shape(what));
        };
        if list.is_empty() {
            return self.fail(Problem::Empty(name));
        }
        if list.len() > MAX_LIST {
            return self.fail(Problem::TooMany { what: "members in one list", max: MAX_LIST });
        }
        Ok(list)
    }

    // At the top an empty filter means all rows; further in it would turn an `or` into all rows.
    pub(super) fn top(&mut self, v: &Value) -> Parsed<Filter> {
        if v.as_object().is_some_and(Map::is_empty) {
            return Ok(Filter::All);
        }
        self.filter(v)
    }

    fn filter(&mut self, v: &Value) -> Parsed<Filter> {
        let map = self.object(v, "a filter object, like {\"precinct\": {\"in\": [\"1\", \"2\"]}}")?;
        if map.is_empty() {
            return self.fail(Problem::Empty("a filter inside and, or, not"));
        }
        self.depth += 1;
        if self.depth > MAX_FILTER_DEPTH {
            return self.fail(Problem::TooDeep);
        }
        // Sorted, so that the filter does not depend on how members were written.
        let mut members: Vec<_> = map.iter().collect();
        members.sort_by_key(|(name, _)| *name);
        let mut parts = Vec::with_capacity(members.len());
        for (name, v) in members {
            parts.push(self.within(name, |p| match name.as_str() {
                "and" => Ok(Filter::all_of(p.parts(v, "and")?)),
                "or" => {
                    let mut parts = p.parts(v, "or")?;
                    Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::Or(parts) })
                }
                "not" => Ok(Filter::Not(Box::new(p.filter(v)?))),
                field => p.field(field, v),
            })?);
        }
        self.depth -= 1;
        Ok(Filter::all_of(parts))
    }

    fn parts(&mut self, v: &Value, name: &'static str) -> Parsed<Vec<Filter>> {
        let list = self.list(v, name, "a list of filters")?;
        let mut parts = Vec::with_capacity(list.len());
        for (i, v) in list.iter().enumerate() {
            parts.push(self.within(&i.to_string(), |p| p.filter(v))?);
        }
        Ok(parts)
    }

    fn field(&mut self, field: &str, v: &Value) -> Parsed<Filter> {
        let Some(ty) = self.fields.get(field) else {
            let known = self.fields.iter().map(|(n, _)| n).chain(["and", "or", "not"]);
            let nearest = nearest(field, known);
            return self.fail(Problem::UnknownField { word: shown(field), nearest });
        };
        let cond = |op| Filter::Cond(Cond { field: field.to_string(), ty, op });
        let map = match v {
            Value::Object(map) => map,
            Value::Array(_) => return self.fail(Problem::Shape("an operator: for a list write {\"in\": [..]}")),
            Value::Null => return self.fail(Problem::Shape("a value: for none write {\"exists\": false}")),
            scalar => {
                self.count()?;
                return Ok(cond(Op::Eq(self.scalar(field, ty, scalar)?)));
            }
        };
        if map.is_empty() {
            return self.fail(Problem::Empty("the condition"));
        }
        let mut ops: Vec<_> = map.iter().collect();
        ops.sort_by_key(|(name, _)| *name);
        let mut parts = Vec::with_capacity(ops.len());
        for (name, v) in ops {
            self.count()?;
            parts.push(self.within(name, |p| match name.as_str() {
                "bbox" => p.bbox(field, ty, v),
                "near" => p.near(field, ty, v),
                "time" => p.period(field, ty, v),
                _ => p.op(field, ty, name, v).map(cond),
            })?);
        }
        Ok(Filter::all_of(parts))
    }

    fn op(&mut self, field: &str, ty: FieldType, name: &str, v: &Value) -> Parsed<Op> {
        match name {
            "eq" => Ok(Op::Eq(self.scalar(field, ty, v)?)),
            "ne" => Ok(Op::Ne(self.scalar(field, ty, v)?)),
            "in" => {
                let list = self.list(v, "the list of in", "a list of values")?;
                let mut values = Vec::with_capacity(list.len());
                for (i, v) in list.iter().enumerate() {
                    values.push(self.within(&i.to_string(), |p| p.scalar(field, ty, v))?);
                }
                Ok(Op::In(values))
            }
            "range" => self.range(field, ty, v),
            "prefix" => self.prefix(field, ty, v),
            "exists" => match v {
                Value::Bool(b) => Ok(Op::Exists(*b)),
                _ => self.fail(Problem::Shape("true or false")),
            },
            word => self.fail(Problem::UnknownOperator { word: shown(word), nearest: nearest(word, OPERATORS) }),
        }
    }

    fn range(&mut self, field: &str, ty: FieldType, v: &Value) -> Parsed<Op> {
        if ty == FieldType::Boolean {
            return self.fail(Problem::OperatorType { op: "range", ty, next: "use eq" });
        }
        const SHAPE: &str = "{\"from\": .., \"to\": ..} (from is included, to is not; one may be left out)";
        let map = self.object(v, SHAPE)?;
        if let Some(word) = map.keys().find(|k| !matches!(k.as_str(), "from" | "to")) {
            return self.within(word, |p| p.fail(Problem::Shape(SHAPE)));
        }
        if map.is_empty() {
            return self.fail(Problem::Empty("the range"));
        }
        let mut end = |name: &str| match map.get(name) {
            Some(v) => self.within(name, |p| p.scalar(field, ty, v)).map(Some),
            None => Ok(None),
        };
        let (from, to) = (end("from")?, end("to")?);
        if let (Some(f), Some(t)) = (&from, &to)
            && f.key() >= t.key()
        {
            return self.fail(Problem::EmptyRange);
        }
        Ok(Op::Range { from, to })
    }

    fn prefix(&mut self, field: &str, ty: FieldType, v: &Value) -> Parsed<Op> {
        if ty != FieldType::String {
            let next = match ty {
                FieldType::Timestamp => "for a day use range with from and to",
                _ => "use eq, in or range",
            };
            return self.fail(Problem::OperatorType { op: "prefix", ty, next });
        }
        let scalar = self.scalar(field, ty, v)?;
        match scalar.value().as_str() {
            Some("") | None => self.fail(Problem::Empty("the prefix")),
            Some(text) => Ok(Op::Prefix(text.to_string())),
        }
    }

    pub(super) fn scalar(&mut self, field: &str, ty: FieldType, v: &Value) -> Parsed<Scalar> {
        self.constants += 1;
        if self.constants > MAX_CONSTANTS {
            return self.fail(Problem::TooMany { what: "constants in one filter", max: MAX_CONSTANTS });
        }
        if let Value::String(s) = v
            && (s.len() > MAX_CONSTANT_BYTES || s.contains('\0'))
        {
            return self.fail(Problem::Constant);
        }
        match Scalar::new(ty, v.clone()) {
            Some(scalar) => Ok(scalar),
            None => self.fail(Problem::Type { field: field.to_string(), ty }),
        }
    }

    fn count(&mut self) -> Parsed<()> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            return self.fail(Problem::TooMany { what: "conditions in one filter", max: MAX_CONDITIONS });
        }
        Ok(())
    }

    pub(super) fn select(&mut self, v: &Value) -> Parsed<Vec<String>> {
        let list = self.list(v, "the list of fields", "a list of field names")?;
        let mut wanted: Vec<String> = Vec::new();
        for (i, v) in list.iter().enumerate() {
            self.within(&i.to_string(), |p| {
                let Some(name) = v.as_str() else {
                    return p.fail(Problem::Shape("a field name"));
                };
                if p.fields.get(name).is_none() {
                    let nearest = p.fields.nearest(name);
                    return p.fail(Problem::UnknownField { word: shown(name), nearest });
                }
                if wanted.iter().any(|w| w == name) {
                    return p.fail(Problem::Twice(name.to_string()));
                }
                wanted.push(name.to_string());
                Ok(())
            })?;
        }
        Ok(wanted)
    }
}

pub(super) fn shown(word: &str) -> String {
    word.chars().take(80).collect()
}
