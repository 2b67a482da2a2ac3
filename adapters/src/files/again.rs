//! Rows of files that became dead letters, mapped once more from their original bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::csv::{CsvForm, CsvReader};
use super::json::JsonMapper;
use super::{MapColumns, Rows as _};
use crate::contract::{Again, Beside, Origin, Row};
use crate::convert::Fault;
use crate::json_rows::bad;
use crate::mapping::{Cell, Mapper};

/// Maps rows of JSON lines.
pub fn json(rows: Arc<JsonMapper>) -> Again {
    Box::new(move |origin, raw| rows.row(origin, raw, raw, &|never| match *never {}))
}

/// Maps rows of CSV text. A dead letter keeps the header of its file; `columns` are for one that does not: those that the
/// document lists, or none.
pub fn csv(form: CsvForm, columns: Vec<String>, map: MapColumns) -> Again {
    let listed = (!columns.is_empty()).then(|| Arc::new(Beside { columns, ..Beside::default() }));
    let mut mappers: BTreeMap<Vec<String>, Arc<Mapper>> = BTreeMap::new();
    Box::new(move |origin, raw| {
        let refuse = |origin: Origin, rule, message: String| Row::Bad(bad(origin, raw, Fault::new(rule, message)));
        let kept = origin.beside.clone().filter(|b| !b.columns.is_empty());
        let Some(beside) = kept.or_else(|| listed.clone()) else {
            let message = "the header of its file was not kept; list the columns in `format.csv.columns`";
            return refuse(origin, "replay.columns", message.to_owned());
        };
        let mapper = match mappers.get(&beside.columns) {
            Some(mapper) => Arc::clone(mapper),
            None => match map(&beside.columns) {
                Ok(mapper) => Arc::clone(mappers.entry(beside.columns.clone()).or_insert(Arc::new(mapper))),
                Err(e) => {
                    let message = format!("the mapping does not fit the header of its file: {e}");
                    return refuse(origin, "replay.columns", message);
                }
            },
        };
        let mut rows = CsvReader::of_rows(&origin.file, raw, &form, beside, mapper);
        match (rows.next_row(), rows.next_row()) {
            (Ok(Some(row)), Ok(None)) => placed(row, origin),
            // What was one row by the document of that day is several by this one, or none.
            _ => refuse(origin, "replay.rows", "its bytes are not one row by this document".to_owned()),
        }
    })
}

/// Maps rows that are kept as JSON, a text or null by column.
pub fn texts(map: MapColumns) -> Again {
    Box::new(move |origin, raw| {
        let refuse =
            |origin: Origin, message: String| Row::Bad(bad(origin, raw, Fault::new("replay.columns", message)));
        let kept: BTreeMap<String, Option<String>> = match serde_json::from_slice(raw) {
            Ok(kept) => kept,
            Err(_) => return refuse(origin, "its bytes are not the whole row".to_owned()),
        };
        let (columns, values): (Vec<String>, Vec<Option<String>>) = kept.into_iter().unzip();
        let mapper = match map(&columns) {
            Ok(mapper) => mapper,
            Err(e) => return refuse(origin, format!("the mapping does not fit the columns of its file: {e}")),
        };
        let cell = |column: usize| values.get(column).and_then(Option::as_deref).map_or(Cell::Null, Cell::from);
        match mapper.map(&|step| cell(step.column)) {
            Ok(mapped) => Row::Good(mapped.at(origin, raw)),
            Err(cell) => Row::Bad(cell.at(origin, raw)),
        }
    })
}

/// A row of the kept text at its place in the file.
fn placed(row: Row, origin: Origin) -> Row {
    match row {
        Row::Good(record) => Row::Good(crate::contract::Record { origin, ..record }),
        Row::Bad(reject) => {
            let line = origin.line.saturating_add(reject.line.saturating_sub(1));
            Row::Bad(crate::contract::Reject { line, origin, ..reject })
        }
    }
}
