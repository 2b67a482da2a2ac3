//! Rows of the stream as records.

use serde_json::{Map, Value};

use super::pgoutput::{Datum, Table};
use crate::contract::{Again, Origin, Row};
use crate::convert::Fault;
use crate::document::{Common, DocumentError};
use crate::json_rows::bad;
use crate::kinds::sql_poll::ready::{beside, faulty, kept};
use crate::kinds::sql_poll::session::{Column, Shape};
use crate::mapping::{Cell, Mapper};

/// Seconds from 1970 to 2000.
const EPOCH: i64 = 946_684_800;
/// What can be mapped besides the table's columns.
pub(super) const OWN: [&str; 3] = ["_op", "_position", "_committed_at"];

/// The columns of the table, and the mapping of them.
pub(super) struct Ready {
    /// The columns.
    pub columns: Vec<Column>,
    /// Their names, and those of our own that are mapped.
    pub names: Vec<String>,
    /// Columns of the primary key.
    pub key: Vec<usize>,
    /// From cells to records.
    pub mapper: Mapper,
}

/// Microseconds since 2000 as RFC 3339.
pub(super) fn stamp(micros: i64) -> String {
    let at = jiff::Timestamp::from_microsecond(micros.saturating_add(EPOCH * 1_000_000));
    at.map_or_else(|_| String::new(), |at| at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string())
}

/// The cell of a column.
pub(super) fn cell<'a>(table: &Table, data: &'a [Datum], name: &str) -> Cell<'a> {
    let at = table.columns.iter().position(|(column, _)| column == name);
    match at.and_then(|at| data.get(at)) {
        Some(Datum::Text(text)) => Cell::from(text.as_str()),
        Some(Datum::Unchanged) => Cell::Bad(Fault::new(
            "source.unchanged",
            "a large value that did not change is not sent; say ALTER TABLE ... REPLICA IDENTITY FULL, or ignore the column",
        )),
        Some(Datum::Bad) => Cell::Bad(Fault::new("text.utf8", "the value is not UTF-8; correct it at the source")),
        Some(Datum::Null) | None => Cell::Null,
    }
}

impl Ready {
    /// Fits a document to the columns that were found; `key` are the columns of the primary key.
    pub(super) fn new(
        common: &Common,
        table: &str,
        columns: Vec<Column>,
        key: Vec<usize>,
    ) -> Result<Self, DocumentError> {
        let mut names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
        let wanted = |name: &str| {
            common.map.iter().any(|(t, f)| f.from.as_ref().map_or(t.as_str(), |f| f.value.as_str()) == name)
        };
        names.extend(OWN.iter().filter(|n| wanted(n)).map(|n| (*n).to_owned()));
        let mapper = Mapper::of_columns(common, &names, &format!("the columns of {table}"))?;
        Ok(Self { columns, names, key, mapper })
    }

    /// The primary key of a row of the stream; none when the stream does not tell all of it.
    pub(super) fn key_of(&self, table: &Table, data: &[Datum]) -> Option<Vec<String>> {
        let names = self.key.iter().filter_map(|k| self.columns.get(*k));
        names
            .map(|c| if let Cell::Text(text) = cell(table, data, &c.name) { Some(text.into_owned()) } else { None })
            .collect()
    }

    /// Maps one row; `own` are the values of [`OWN`].
    pub(super) fn row(&self, cells: &[Cell<'_>], own: &[String; 3], origin: Origin) -> Row {
        let text = |c: &Cell<'_>| if let Cell::Text(text) = c { Value::from(text.as_ref()) } else { Value::Null };
        let mut raw: Map<String, Value> =
            self.columns.iter().zip(cells).map(|(c, cell)| (c.name.clone(), text(cell))).collect();
        raw.extend(OWN.iter().zip(own).map(|(name, text)| ((*name).to_owned(), Value::from(text.as_str()))));
        let raw = serde_json::to_vec(&raw).unwrap_or_default();
        let faults = self.columns.iter().zip(cells).filter_map(|(c, cell)| match cell {
            Cell::Bad(fault) => Some((c.name.as_str(), fault)),
            _ => None,
        });
        let origin = beside(origin, None, faults);
        let found = self.mapper.map(&|step| match cells.get(step.column) {
            Some(cell) => cell.clone(),
            None => {
                let name = self.names.get(step.column).map_or("", String::as_str);
                let at = OWN.iter().position(|own| *own == name).unwrap_or(0);
                match own.get(at).map(String::as_str) {
                    Some("") | None => Cell::Null,
                    Some(text) => Cell::from(text),
                }
            }
        });
        match found {
            Ok(mapped) => Row::Good(mapped.at(origin, &raw)),
            Err(bad) => Row::Bad(bad.at(origin, &raw)),
        }
    }
}

/// Maps kept rows again: by the columns that each of them has.
pub(super) fn again(common: &Common, table: &str) -> Again {
    let (common, table) = (common.clone(), table.to_owned());
    let mut ready: Option<Ready> = None;
    Box::new(move |origin, raw| {
        let refuse = |origin, message: String| Row::Bad(bad(origin, raw, Fault::new("replay.columns", message)));
        let Some(mut found) = kept(raw) else { return refuse(origin, "its bytes are not a row as JSON".to_owned()) };
        let own = OWN.map(|name| found.remove(name).flatten().unwrap_or_default());
        if ready.as_ref().is_none_or(|r| !r.columns.iter().map(|c| &c.name).eq(found.keys())) {
            let column = |name: &String| Column { name: name.clone(), type_name: String::new(), shape: Shape::Plain };
            match Ready::new(&common, &table, found.keys().map(column).collect(), vec![]) {
                Ok(new) => ready = Some(new),
                Err(e) => return refuse(origin, format!("the mapping does not fit the columns of its row: {e}")),
            }
        }
        let Some(ready) = &ready else { return refuse(origin, "there is no mapping".to_owned()) };
        let known = origin.beside.clone().unwrap_or_default();
        let cell = |(name, cell): (&String, &'_ Option<String>)| match known.faults.get(name) {
            Some(message) => Cell::Bad(faulty(message)),
            None => Cell::from(cell.clone()),
        };
        let cells: Vec<Cell<'_>> = found.iter().map(cell).collect();
        ready.row(&cells, &own, origin)
    })
}
