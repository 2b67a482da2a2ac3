//! A document fitted to the columns that were found, and one row of them as a record.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::document::{Deletes, SqlPollDoc};
use super::session::{Column, Line, Shape};
use crate::contract::{AdapterError, Again, Beside, Origin, Row};
use crate::convert::Fault;
use crate::document::{Common, DocumentError};
use crate::json_rows::bad;
use crate::mapping::{Cell, Mapper};

/// The column that says what happened: `upsert` or `delete`.
pub(crate) const OP: &str = "_op";

/// The relation as it was found, and the mapping of its columns.
pub(crate) struct Ready {
    /// All columns.
    pub columns: Vec<Column>,
    /// Columns that order the rows: those of the document, then those of the key.
    pub cursor: Vec<usize>,
    /// From cells to records.
    pub mapper: Mapper,
    /// The column that says that a row is deleted.
    soft: Option<usize>,
}

/// True when a document maps the column that says what happened.
pub(crate) fn wants_op(common: &Common) -> bool {
    common.map.iter().any(|(target, f)| f.from.as_ref().map_or(target.as_str(), |f| f.value.as_str()) == OP)
}

impl Ready {
    /// Fits a document to the columns that were found.
    pub(crate) fn new(doc: &SqlPollDoc, columns: Vec<Column>) -> Result<Self, AdapterError> {
        let common = doc.common();
        let mut names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
        let real = names.len();
        if wants_op(&common) {
            names.push(OP.to_owned());
        }
        let are = format!("the columns of {}", doc.relation_name());
        let mapper = Mapper::of_columns(&common, &names, &are)?;
        let mut cursor = Vec::new();
        for column in doc.cursor.iter().flat_map(|c| &c.columns) {
            let at = names.iter().take(real).position(|n| *n == column.value).ok_or_else(|| {
                DocumentError::at(column, "cursor.columns", format!("`{}` is not one of {are}", column.value))
            })?;
            cursor.push(at);
        }
        // The key makes equal cursors different.
        for field in mapper.key() {
            let step = mapper.steps().iter().find(|s| s.target == *field).map(|s| s.column);
            cursor.extend(step.filter(|c| *c < real && !cursor.contains(c)));
        }
        if cursor.is_empty() {
            return Err(DocumentError::rule("key", "name at least one field that is made from a column").into());
        }
        let soft = match &doc.deletes {
            Deletes::Soft(name) => Some(soft(doc, &mapper, &names, name)?),
            _ => None,
        };
        Ok(Self { columns, cursor, mapper, soft })
    }

    /// Maps one line.
    pub(crate) fn row(&self, line: &Line, origin: Origin, told: Option<&str>) -> Row {
        let op = told.unwrap_or_else(|| {
            let gone = self.soft.and_then(|c| line.cells.get(c)).is_some_and(|cell| deleted(cell.as_deref()));
            if gone { "delete" } else { "upsert" }
        });
        let cell = |column: usize| match (&line.fault, line.cells.get(column)) {
            (Some((at, fault)), _) if *at == column => Cell::Bad(fault.clone()),
            (_, Some(cell)) => Cell::from(cell.as_deref()),
            (_, None) => Cell::from(op),
        };
        let raw = self.raw(line);
        let origin = beside(origin, told, line.fault.iter().map(|(at, fault)| (self.name(*at), fault)));
        match self.mapper.map(&|step| cell(step.column)) {
            Ok(mapped) => Row::Good(mapped.at(origin, &raw)),
            Err(bad) => Row::Bad(bad.at(origin, &raw)),
        }
    }

    fn name(&self, column: usize) -> &str {
        self.columns.get(column).map_or("", |c| c.name.as_str())
    }

    /// The row as JSON: what a dead letter keeps.
    fn raw(&self, line: &Line) -> Vec<u8> {
        let cells = self.columns.iter().zip(&line.cells).map(|(c, cell)| (c.name.clone(), Value::from(cell.clone())));
        serde_json::to_vec(&cells.collect::<Map<_, _>>()).unwrap_or_default()
    }
}

/// A place with what the JSON of its row does not say.
pub(crate) fn beside<'a>(
    origin: Origin,
    op: Option<&str>,
    faults: impl Iterator<Item = (&'a str, &'a Fault)>,
) -> Origin {
    let faults: BTreeMap<String, String> = faults.map(|(name, f)| (name.to_owned(), f.message.clone())).collect();
    match (op, faults.is_empty()) {
        (None, true) => origin,
        (op, _) => origin.with(Beside { op: op.map(str::to_owned), faults, ..Beside::default() }),
    }
}

/// The cells of a row that a dead letter kept as JSON, by column; `None` when it is no such row.
pub(crate) fn kept(raw: &[u8]) -> Option<BTreeMap<String, Option<String>>> {
    serde_json::from_slice(raw).ok()
}

/// What a value that had no text is refused by when its row is mapped again.
pub(crate) fn faulty(message: &str) -> Fault {
    Fault::new("replay.value", format!("the value was not kept: {message}"))
}

/// Maps kept rows again: by the columns that each of them has.
pub(crate) fn again(doc: &SqlPollDoc) -> Again {
    let (doc, mut ready) = (doc.clone(), None::<(Vec<String>, Ready)>);
    Box::new(move |origin, raw| {
        let refuse = |origin, message: String| Row::Bad(bad(origin, raw, Fault::new("replay.columns", message)));
        let Some(found) = kept(raw) else { return refuse(origin, "its bytes are not a row as JSON".to_owned()) };
        let (names, cells): (Vec<String>, Vec<Option<String>>) = found.into_iter().unzip();
        if ready.as_ref().is_none_or(|(of, _)| *of != names) {
            let column = |name: &String| Column { name: name.clone(), type_name: String::new(), shape: Shape::Plain };
            match Ready::new(&doc, names.iter().map(column).collect()) {
                Ok(new) => ready = Some((names.clone(), new)),
                Err(e) => return refuse(origin, format!("the mapping does not fit the columns of its row: {e}")),
            }
        }
        let Some((_, ready)) = &ready else { return refuse(origin, "there is no mapping".to_owned()) };
        let known = origin.beside.clone().unwrap_or_default();
        let fault = known
            .faults
            .iter()
            .next()
            .and_then(|(name, message)| names.iter().position(|n| n == name).map(|at| (at, faulty(message))));
        let line = Line { cells, keyset: vec![], past: true, fault };
        ready.row(&line, origin, known.op.as_deref())
    })
}

fn soft(doc: &SqlPollDoc, mapper: &Mapper, names: &[String], name: &str) -> Result<usize, AdapterError> {
    let rule = |detail: String| AdapterError::from(DocumentError::rule("deletes.soft", detail));
    let at = names.iter().position(|n| n == name);
    let at = at.ok_or_else(|| rule(format!("`{name}` is not one of the columns of {}", doc.relation_name())))?;
    let told = mapper.steps().iter().any(|s| s.column == at || s.from == OP);
    if told { Ok(at) } else { Err(rule(format!("map `{name}` or `{OP}`, so that a delete can be seen"))) }
}

/// What a column of deletes says: nothing, zero, false and no are a row that is there.
fn deleted(cell: Option<&str>) -> bool {
    cell.is_some_and(|text| !matches!(text.trim().to_ascii_lowercase().as_str(), "" | "0" | "f" | "false" | "n" | "no"))
}
