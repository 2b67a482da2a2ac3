//! The adapter document made ready to run: names resolved, zones loaded, every column accounted for.

use concordat_protocol::hash::sha256;
use concordat_protocol::ids::DatasetId;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use crate::convert::{Conversion, TimeRule};
use crate::decimal::Decimal;
use crate::document::{AdapterDoc, DocumentError, FieldKind, FieldMap, OnError, Pace, Words};
use crate::strict::nearest;

/// One field of a record: from which column, and how.
#[derive(Debug, Clone)]
pub struct Step {
    /// Field of the dataset.
    pub target: String,
    /// Index of the source column.
    pub column: usize,
    /// Cut white space.
    pub trim: bool,
    /// A row without it is a dead letter.
    pub required: bool,
    /// From text to value.
    pub conversion: Conversion,
}

/// A checked adapter document.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of the adapter.
    pub adapter: String,
    /// Where its records go.
    pub dataset: DatasetId,
    /// The file as the document names it.
    pub path: String,
    /// Byte between values.
    pub delimiter: u8,
    /// Decimal mark.
    pub point: char,
    /// Words that mean "no value".
    pub nulls: Vec<String>,
    /// Columns of the file in order.
    pub columns: Vec<String>,
    /// Fields, by source column.
    pub steps: Vec<Step>,
    /// Fields with the same value in every record.
    pub constants: Map<String, Value>,
    /// Fields that identify a record.
    pub key: Vec<String>,
    /// Field that is the event's time.
    pub time: Option<String>,
    /// How fast a feed is published.
    pub pace: Pace,
    /// What to do about errors.
    pub on_error: OnError,
}

impl Plan {
    /// Checks the meaning of a document.
    pub fn new(doc: &AdapterDoc) -> Result<Self, DocumentError> {
        check_name(&doc.adapter)?;
        let csv = &doc.format.csv;
        let columns = columns(&csv.columns)?;
        let mut plan = Self {
            adapter: doc.adapter.value.clone(),
            dataset: doc.into.clone(),
            path: doc.path.clone(),
            delimiter: delimiter(&csv.delimiter)?,
            point: point(&csv.decimal, &csv.delimiter)?,
            nulls: csv.nulls.clone(),
            columns,
            steps: Vec::new(),
            constants: Map::new(),
            key: doc.key.iter().map(|k| k.value.clone()).collect(),
            time: doc.time.as_ref().map(|t| t.value.clone()),
            pace: doc.pace,
            on_error: doc.on_error,
        };
        plan.add_steps(doc)?;
        plan.add_constants(doc)?;
        plan.check_key_and_time(doc)?;
        Ok(plan)
    }

    /// Parses and checks a document in one go.
    pub fn parse(yaml: &str) -> Result<Self, DocumentError> {
        Self::new(&AdapterDoc::parse(yaml)?)
    }

    fn add_steps(&mut self, doc: &AdapterDoc) -> Result<(), DocumentError> {
        let mut used = vec![false; self.columns.len()];
        for name in &doc.ignore {
            let at = self.column(name, "ignore")?;
            mark(&mut used, at);
        }
        for (target, field) in &doc.map {
            check_target(target)?;
            let column = match &field.from {
                Some(from) => self.column(from, &format!("map.{target}.from"))?,
                None => self.find(target).ok_or_else(|| {
                    let detail = self.unknown_column(target);
                    DocumentError::rule(format!("map.{target}"), detail)
                })?,
            };
            mark(&mut used, column);
            self.steps.push(step(target, column, field, &format!("map.{target}"))?);
        }
        for column in 0..self.columns.len() {
            if used.get(column) == Some(&true) {
                continue;
            }
            let name = self.columns.get(column).cloned().unwrap_or_default();
            let Some(rest) = &doc.rest else {
                return Err(DocumentError::rule(
                    "map",
                    format!("column `{name}` is neither mapped nor in `ignore`; say what becomes of it"),
                ));
            };
            if rest.from.is_some() {
                return Err(DocumentError::rule("rest.from", "`rest` keeps the columns' names; remove `from`"));
            }
            check_target(&name)?;
            if self.steps.iter().any(|s| s.target == name) {
                return Err(DocumentError::rule(
                    "rest",
                    format!("field `{name}` is made twice; list the column in `ignore`"),
                ));
            }
            self.steps.push(step(&name, column, rest, "rest")?);
        }
        self.steps.sort_by_key(|s| s.column);
        Ok(())
    }

    fn add_constants(&mut self, doc: &AdapterDoc) -> Result<(), DocumentError> {
        for (name, value) in &doc.constants {
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

    fn check_key_and_time(&mut self, doc: &AdapterDoc) -> Result<(), DocumentError> {
        if doc.key.is_empty() {
            return Err(DocumentError::rule("key", "name the fields that identify a record"));
        }
        for (n, key) in doc.key.iter().enumerate() {
            if doc.key.iter().take(n).any(|k| k.value == key.value) {
                return Err(DocumentError::at(key, "key", format!("`{}` stands twice", key.value)));
            }
            self.require(key, "key", false)?;
        }
        if let Some(time) = &doc.time {
            self.require(time, "time", true)?;
        }
        Ok(())
    }

    /// Makes a field that the record cannot do without required.
    fn require(&mut self, name: &Spanned<String>, what: &str, is_time: bool) -> Result<(), DocumentError> {
        let targets: Vec<&str> = self.steps.iter().map(|s| s.target.as_str()).collect();
        if !targets.contains(&name.value.as_str()) {
            let hint = nearest(&name.value, targets.into_iter())
                .map_or_else(String::new, |n| format!("; did you mean `{n}`?"));
            return Err(DocumentError::at(name, what, format!("`{}` is not a mapped field{hint}", name.value)));
        }
        for step in self.steps.iter_mut().filter(|s| s.target == name.value) {
            if is_time && !matches!(step.conversion, Conversion::Time(_)) {
                return Err(DocumentError::at(name, what, format!("`{}` is not a timestamp", name.value)));
            }
            step.required = true;
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c == name)
    }

    fn column(&self, name: &Spanned<String>, field: &str) -> Result<usize, DocumentError> {
        self.find(&name.value).ok_or_else(|| DocumentError::at(name, field, self.unknown_column(&name.value)))
    }

    fn unknown_column(&self, name: &str) -> String {
        match nearest(name, self.columns.iter().map(String::as_str)) {
            Some(near) => format!("`{name}` is not one of `format.csv.columns`; did you mean `{near}`?"),
            None => format!("`{name}` is not one of `format.csv.columns`"),
        }
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
}

fn mark(used: &mut [bool], at: usize) {
    if let Some(flag) = used.get_mut(at) {
        *flag = true;
    }
}

fn check_name(name: &Spanned<String>) -> Result<(), DocumentError> {
    let text = &name.value;
    let good = (1..=48).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-');
    if good {
        return Ok(());
    }
    Err(DocumentError::at(name, "adapter", "use 1 to 48 of a-z, 0-9 and -"))
}

fn check_target(name: &str) -> Result<(), DocumentError> {
    if (1..=64).contains(&name.len()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(DocumentError::rule(format!("map.{name}"), "a field's name has 1 to 64 bytes and no control characters"))
}

fn columns(list: &[Spanned<String>]) -> Result<Vec<String>, DocumentError> {
    let field = "format.csv.columns";
    if list.is_empty() {
        return Err(DocumentError::rule(field, "list the columns of the file in order"));
    }
    for (n, name) in list.iter().enumerate() {
        if list.iter().take(n).any(|c| c.value == name.value) {
            return Err(DocumentError::at(name, field, format!("`{}` stands twice", name.value)));
        }
    }
    Ok(list.iter().map(|c| c.value.clone()).collect())
}

fn delimiter(text: &str) -> Result<u8, DocumentError> {
    match text.as_bytes() {
        [b] if b.is_ascii() && !matches!(b, b'"' | b'\n' | b'\r' | 0) => Ok(*b),
        _ => Err(DocumentError::rule("format.csv.delimiter", "one ASCII character, not a quote or a line end")),
    }
}

fn point(text: &str, delimiter: &str) -> Result<char, DocumentError> {
    match text {
        "." | "," if text != delimiter => Ok(if text == "." { '.' } else { ',' }),
        "," | "." => Err(DocumentError::rule("format.csv.decimal", "the decimal mark is also the delimiter")),
        _ => Err(DocumentError::rule("format.csv.decimal", "the decimal mark is `.` or `,`")),
    }
}

fn step(target: &str, column: usize, field: &FieldMap, path: &str) -> Result<Step, DocumentError> {
    Ok(Step {
        target: target.to_owned(),
        column,
        trim: field.trim,
        required: field.required,
        conversion: conversion(field, path)?,
    })
}

fn conversion(field: &FieldMap, path: &str) -> Result<Conversion, DocumentError> {
    let kind = field.kind;
    let numeric = matches!(kind, FieldKind::Integer | FieldKind::Decimal);
    let time = kind == FieldKind::Timestamp;
    for (key, given, fits) in [
        ("scale", field.scale.is_some(), numeric),
        ("words", field.words.is_some(), kind == FieldKind::Boolean),
        ("zone", field.zone.is_some(), time),
        ("fold", field.fold.is_some(), time),
        ("gap", field.gap.is_some(), time),
        ("format", field.format.is_some(), time),
        ("precision", field.precision.is_some(), time),
    ] {
        if given && !fits {
            return Err(DocumentError::rule(
                format!("{path}.{key}"),
                "does not belong to a field of this type; remove it",
            ));
        }
    }
    match kind {
        FieldKind::String => Ok(Conversion::Text),
        FieldKind::Integer => Ok(Conversion::Integer(scale(field, path)?)),
        FieldKind::Decimal => Ok(Conversion::Decimal(scale(field, path)?)),
        FieldKind::Boolean => words(field.words.as_ref(), path),
        FieldKind::Timestamp => time_rule(field, path).map(Conversion::Time),
    }
}

fn scale(field: &FieldMap, path: &str) -> Result<Option<Decimal>, DocumentError> {
    let Some(text) = &field.scale else { return Ok(None) };
    Decimal::parse(&text.value, '.')
        .map(Some)
        .map_err(|e| DocumentError::at(text, format!("{path}.scale"), e.to_string()))
}

fn words(words: Option<&Words>, path: &str) -> Result<Conversion, DocumentError> {
    let (yes, no) = match words {
        Some(words) => (words.yes.clone(), words.no.clone()),
        None => (vec!["true".to_owned()], vec!["false".to_owned()]),
    };
    if yes.is_empty() || no.is_empty() || yes.iter().any(|w| no.contains(w)) {
        return Err(DocumentError::rule(format!("{path}.words"), "give words for true and for false, none in both"));
    }
    Ok(Conversion::Boolean { yes, no })
}

fn time_rule(field: &FieldMap, path: &str) -> Result<TimeRule, DocumentError> {
    let Some(zone) = &field.zone else {
        return Err(DocumentError::rule(
            format!("{path}.zone"),
            "is mandatory: the zone of the source's clock such as Europe/Berlin, or `offset` when every value carries one",
        ));
    };
    let zone = match zone.value.as_str() {
        "offset" => None,
        name => Some(TimeZone::get(name).map_err(|_| {
            DocumentError::at(
                zone,
                format!("{path}.zone"),
                format!("`{name}` is not an IANA time zone such as Europe/Berlin"),
            )
        })?),
    };
    Ok(TimeRule {
        zone,
        fold: field.fold,
        format: field.format.as_ref().map(|f| f.value.clone()),
        precision: field.precision.unwrap_or_default(),
    })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
