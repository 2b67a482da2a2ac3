//! One field of a record: its rule in the document made ready to run.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use serde_saphyr::Spanned;

use crate::convert::{Conversion, TimeRule};
use crate::decimal::Decimal;
use crate::document::{Common, DocumentError, FieldKind, FieldMap, Words};
use crate::strict::nearest;

/// One field of a record: from which column, and how.
#[derive(Debug, Clone)]
pub struct Step {
    /// Field of the dataset.
    pub target: String,
    /// Name of the source column.
    pub from: String,
    /// Index of the source column; of an open mapping, the step's own index.
    pub column: usize,
    /// Cut white space.
    pub trim: bool,
    /// A row without it is a dead letter.
    pub required: bool,
    /// Words of the source and what they become, before the conversion.
    pub lookup: Option<BTreeMap<String, String>>,
    /// From text to value.
    pub conversion: Conversion,
}

/// The columns that a source is known to have.
pub(super) struct Columns<'a> {
    pub names: &'a [String],
    /// Where they are listed, for messages.
    pub are: &'a str,
}

impl Columns<'_> {
    pub fn find(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|c| c == name)
    }

    pub fn at(&self, name: &Spanned<String>, field: &str) -> Result<usize, DocumentError> {
        self.find(&name.value).ok_or_else(|| DocumentError::at(name, field, self.unknown(&name.value)))
    }

    pub fn unknown(&self, name: &str) -> String {
        match nearest(name, self.names.iter().map(String::as_str)) {
            Some(near) => format!("`{name}` is not one of {}; did you mean `{near}`?", self.are),
            None => format!("`{name}` is not one of {}", self.are),
        }
    }
}

pub(super) fn check_target(name: &str) -> Result<(), DocumentError> {
    if (1..=64).contains(&name.len()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(DocumentError::rule(format!("map.{name}"), "a field's name has 1 to 64 bytes and no control characters"))
}

/// One field by its rule; `path` is where the rule stands in the document.
pub(super) fn step(
    common: &Common,
    target: &str,
    (column, from): (usize, &str),
    field: &FieldMap,
    path: &str,
) -> Result<Step, DocumentError> {
    Ok(Step {
        target: target.to_owned(),
        from: from.to_owned(),
        column,
        trim: field.trim,
        required: field.required,
        lookup: common.lookups.get(target).cloned(),
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
