//! Rows of the stream as records.

use serde_json::{Map, Value};

use super::pgoutput::{Datum, Table};
use crate::contract::{Origin, Row};
use crate::convert::Fault;
use crate::kinds::sql_poll::session::Column;
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
    /// Maps one row; `own` are the values of [`OWN`].
    pub(super) fn row(&self, cells: &[Cell<'_>], own: &[String; 3], origin: Origin) -> Row {
        let text = |c: &Cell<'_>| if let Cell::Text(text) = c { Value::from(text.as_ref()) } else { Value::Null };
        let mut raw: Map<String, Value> =
            self.columns.iter().zip(cells).map(|(c, cell)| (c.name.clone(), text(cell))).collect();
        raw.extend(OWN.iter().zip(own).map(|(name, text)| ((*name).to_owned(), Value::from(text.as_str()))));
        let raw = serde_json::to_vec(&raw).unwrap_or_default();
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
