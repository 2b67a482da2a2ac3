//! From the cells of a row to the record of a dataset: what every source shares.
//!
//! A source hands over cells as text by the name of their column; one that has types writes them exactly (a decimal with
//! all its digits, an instant in ISO 8601 with its offset). So there is one way of converting, and one set of rules.

mod step;

use std::borrow::Cow;
use std::collections::BTreeSet;

use concordat_protocol::hash::sha256;
use concordat_protocol::ids::DatasetId;
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use crate::contract::{Origin, Record, Reject, Row};
use crate::convert::{Conversion, Fault};
use crate::document::{Common, DocumentError, Subject};
use crate::strict::nearest;

pub use step::Step;
use step::{Columns, check_target, step};

/// Every word that a lookup does not name.
const OTHERS: &str = "*";

/// One value of a row, as the source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell<'a> {
    /// No value.
    Null,
    /// The value's exact text.
    Text(Cow<'a, str>),
    /// A value that has no text: the row becomes a dead letter by this rule.
    Bad(Fault),
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Cell<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl<'a, T: Into<Cell<'a>>> From<Option<T>> for Cell<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A row that became a record, before it has a place.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapped {
    /// Deterministic id.
    pub id: String,
    /// Event time.
    pub time: Option<String>,
    /// The fields.
    pub data: Map<String, Value>,
}

/// The cell at which a row failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadCell {
    /// Index of its column.
    pub column: usize,
    /// Name of its column.
    pub name: String,
    /// What is wrong.
    pub fault: Fault,
}

/// A document's mapping made ready for the columns of a source.
#[derive(Debug, Clone)]
pub struct Mapper {
    dataset: DatasetId,
    nulls: Vec<String>,
    point: char,
    steps: Vec<Step>,
    constants: Map<String, Value>,
    key: Vec<String>,
    time: Option<String>,
}

impl Mapper {
    /// A mapping of exactly these columns: each must be in `map`, in `ignore` or covered by `rest`. `columns_are` says where
    /// the columns are listed, for messages: "`format.csv.columns`", "the columns of v_load".
    pub fn of_columns(common: &Common, columns: &[String], columns_are: &str) -> Result<Self, DocumentError> {
        let mut mapper = Self::empty(common);
        mapper.add_steps(common, &Columns { names: columns, are: columns_are })?;
        mapper.finish(common)
    }

    /// A mapping for a source whose rows need not have the same members: every field names its column, `rest` and
    /// `ignore` have no meaning, and what the mapping does not name is left out.
    pub fn open(common: &Common) -> Result<Self, DocumentError> {
        let mut mapper = Self::empty(common);
        if common.rest.is_some() {
            return Err(DocumentError::rule("rest", "this source has no fixed columns; name every field in `map`"));
        }
        if let Some(first) = common.ignore.first() {
            return Err(DocumentError::at(first, "ignore", "what `map` does not name is left out anyway; remove it"));
        }
        for (n, (target, field)) in common.map.iter().enumerate() {
            check_target(target)?;
            let from = field.from.as_ref().map_or(target, |f| &f.value);
            mapper.steps.push(step(common, target, (n, from), field, &format!("map.{target}"))?);
        }
        mapper.finish(common)
    }

    /// Words of the source that mean "no value" (compared after trimming), and its decimal mark.
    #[must_use]
    pub fn written(mut self, nulls: &[String], point: char) -> Self {
        self.nulls = nulls.to_vec();
        self.point = point;
        self
    }

    /// The steps, by source column.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Fields that identify a record.
    pub fn key(&self) -> &[String] {
        &self.key
    }

    /// Field that is the event's time.
    pub fn time(&self) -> Option<&str> {
        self.time.as_deref()
    }

    /// Fields with the same value in every record.
    pub fn constants(&self) -> &Map<String, Value> {
        &self.constants
    }

    /// A row whose cells are asked for by the name of their column. `raw` are the original bytes, for a dead letter.
    /// A column that the row does not have is like one without a value.
    pub fn row<'a>(&self, origin: Origin, raw: &[u8], cell: &dyn Fn(&str) -> Option<Cell<'a>>) -> Row {
        match self.map(&|step| cell(&step.from).unwrap_or(Cell::Null)) {
            Ok(mapped) => Row::Good(mapped.at(origin, raw)),
            Err(bad) => Row::Bad(bad.at(origin, raw)),
        }
    }

    /// A row whose cells are asked for by step, which knows index and name of the column.
    pub fn map<'a>(&self, cell: &dyn Fn(&Step) -> Cell<'a>) -> Result<Mapped, BadCell> {
        let mut data = self.constants.clone();
        for step in &self.steps {
            self.convert(step, cell(step), &mut data).map_err(|fault| BadCell {
                column: step.column,
                name: step.from.clone(),
                fault,
            })?;
        }
        let time = self.time.as_ref().and_then(|t| data.get(t)).and_then(Value::as_str).map(str::to_owned);
        Ok(Mapped { id: self.record_id(&data), time, data })
    }

    fn convert(&self, step: &Step, cell: Cell<'_>, data: &mut Map<String, Value>) -> Result<(), Fault> {
        let missing = || match step.required {
            true => Err(Fault::new("field.required", format!("field `{}` must have a value", step.target))),
            false => Ok(()),
        };
        let text = match cell {
            Cell::Null => return missing(),
            Cell::Bad(fault) => return Err(fault),
            Cell::Text(text) => text,
        };
        if text.contains('\0') {
            return Err(Fault::new("text.nul", "the value holds a NUL byte; remove it at the source"));
        }
        let text = if step.trim { text.trim() } else { &*text };
        if self.nulls.iter().any(|n| n == text) {
            return missing();
        }
        let text = match &step.lookup {
            None => text,
            Some(words) => words.get(text).or_else(|| words.get(OTHERS)).ok_or_else(|| {
                Fault::new(
                    "lookup.unknown",
                    format!("the value is not in `lookups.{}`; add it, or `\"*\"` for all others", step.target),
                )
            })?,
        };
        data.insert(step.target.clone(), step.conversion.apply(text, self.point)?);
        Ok(())
    }

    /// The deterministic id of a record: the same dataset and key give the same id for ever.
    pub fn record_id(&self, data: &Map<String, Value>) -> String {
        let mut bytes = b"concordat/v1/record-id\0".to_vec();
        bytes.extend_from_slice(self.dataset.as_str().as_bytes());
        bytes.push(0);
        for name in &self.key {
            let text = match data.get(name) {
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
                None => String::new(),
            };
            bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        let hash = sha256(&[&bytes]);
        hex::encode(hash.get(..16).unwrap_or(&hash))
    }

    fn empty(common: &Common) -> Self {
        Self {
            dataset: common.into.clone(),
            nulls: Vec::new(),
            point: '.',
            steps: Vec::new(),
            constants: Map::new(),
            key: common.key.iter().map(|k| k.value.clone()).collect(),
            time: common.time.as_ref().map(|t| t.value.clone()),
        }
    }

    fn finish(mut self, common: &Common) -> Result<Self, DocumentError> {
        self.add_constants(common)?;
        self.check_key_and_time(common)?;
        self.check_words(common)?;
        Ok(self)
    }

    fn add_steps(&mut self, common: &Common, columns: &Columns<'_>) -> Result<(), DocumentError> {
        let mut used = BTreeSet::new();
        for name in &common.ignore {
            used.insert(columns.at(name, "ignore")?);
        }
        for (target, field) in &common.map {
            check_target(target)?;
            let path = format!("map.{target}");
            let column = match &field.from {
                Some(from) => columns.at(from, &format!("{path}.from"))?,
                None => {
                    columns.find(target).ok_or_else(|| DocumentError::rule(path.clone(), columns.unknown(target)))?
                }
            };
            used.insert(column);
            let name = columns.names.get(column).map_or("", String::as_str);
            self.steps.push(step(common, target, (column, name), field, &path)?);
        }
        for (column, name) in columns.names.iter().enumerate().filter(|(n, _)| !used.contains(n)) {
            let Some(rest) = &common.rest else {
                return Err(DocumentError::rule(
                    "map",
                    format!("column `{name}` is neither mapped nor in `ignore`; say what becomes of it"),
                ));
            };
            if rest.from.is_some() {
                return Err(DocumentError::rule("rest.from", "`rest` keeps the columns' names; remove `from`"));
            }
            check_target(name)?;
            if self.steps.iter().any(|s| s.target == *name) {
                return Err(DocumentError::rule(
                    "rest",
                    format!("field `{name}` is made twice; list the column in `ignore`"),
                ));
            }
            self.steps.push(step(common, name, (column, name), rest, "rest")?);
        }
        self.steps.sort_by_key(|s| s.column);
        Ok(())
    }

    fn add_constants(&mut self, common: &Common) -> Result<(), DocumentError> {
        for (name, value) in &common.constants {
            let field = format!("constants.{name}");
            check_target(name)?;
            let plain = value.is_string() || value.is_boolean() || value.is_i64();
            if !plain {
                return Err(DocumentError::rule(field, "a constant is a string, an integer or a boolean"));
            }
            if self.steps.iter().any(|s| s.target == *name) {
                return Err(DocumentError::rule(field, "the field is also made from a column; remove one"));
            }
            self.constants.insert(name.clone(), value.clone());
        }
        Ok(())
    }

    fn check_key_and_time(&mut self, common: &Common) -> Result<(), DocumentError> {
        if common.key.is_empty() {
            return Err(DocumentError::rule("key", "name the fields that identify a record"));
        }
        for (n, key) in common.key.iter().enumerate() {
            if common.key.iter().take(n).any(|k| k.value == key.value) {
                return Err(DocumentError::at(key, "key", format!("`{}` stands twice", key.value)));
            }
            self.require(key, "key", false)?;
        }
        if let Some(time) = &common.time {
            self.require(time, "time", true)?;
        }
        Ok(())
    }

    /// Lookups, subject and sensitive fields name fields that there are.
    fn check_words(&self, common: &Common) -> Result<(), DocumentError> {
        let subject = match &common.subject {
            Some(Subject::Field { field, .. }) => Some(("subject.field".to_owned(), field)),
            _ => None,
        };
        let lookups = common.lookups.keys().map(|f| (format!("lookups.{f}"), f));
        let sensitive = common.sensitive.keys().map(|f| (format!("sensitive.{f}"), f));
        for (path, field) in lookups.chain(sensitive).chain(subject) {
            let column = self.steps.iter().any(|s| s.target == *field);
            if !column && (path.starts_with("lookups") || !self.constants.contains_key(field)) {
                return Err(DocumentError::rule(path, self.no_such_field(field)));
            }
        }
        Ok(())
    }

    fn no_such_field(&self, name: &str) -> String {
        let hint = nearest(name, self.steps.iter().map(|s| s.target.as_str()))
            .map_or_else(String::new, |n| format!("; did you mean `{n}`?"));
        format!("`{name}` is not a mapped field{hint}")
    }

    /// Makes a field that the record cannot do without required.
    fn require(&mut self, name: &Spanned<String>, what: &str, is_time: bool) -> Result<(), DocumentError> {
        let Some(step) = self.steps.iter_mut().find(|s| s.target == name.value) else {
            return Err(DocumentError::at(name, what, self.no_such_field(&name.value)));
        };
        if is_time && !matches!(step.conversion, Conversion::Time(_)) {
            return Err(DocumentError::at(name, what, format!("`{}` is not a timestamp", name.value)));
        }
        step.required = true;
        Ok(())
    }
}

impl Mapped {
    /// The record at its place.
    pub fn at(self, origin: Origin, raw: &[u8]) -> Record {
        Record { id: self.id, time: self.time, data: self.data, origin, raw: raw.to_vec() }
    }
}

impl BadCell {
    /// The reject at its place; its column is the first one where there are no columns of text.
    pub fn at(self, origin: Origin, raw: &[u8]) -> Reject {
        Reject {
            line: origin.line,
            origin,
            column: 1,
            field: Some(self.name),
            rule: self.fault.rule.to_owned(),
            message: self.fault.message,
            raw: raw.to_vec(),
            truncated: false,
        }
    }
}

#[cfg(test)]
#[path = "mapping/tests.rs"]
mod tests;
