//! Rows to and from the database.

use serde_json::{Map, Value};
use tokio_postgres::types::Type;

use super::schema::Table;
use super::sql::{Kind, Param};
use crate::holding::{Checked, HoldingError, Row};
use crate::query::decimal::Exact;
use crate::query::totals::{GroupKey, Growing, Label, Totals};
use crate::query::value::{timestamp_nanos, timestamp_text};
use crate::query::{FieldType, Key};

/// Reads the text cells of a row (see [`super::sql::cells`]); answers with the bytes they took.
pub(super) fn read(
    table: &Table,
    row: &tokio_postgres::Row,
    select: Option<&[String]>,
) -> Result<(Row, usize), HoldingError> {
    let damaged = |e: serde_json::Error| HoldingError::Damaged(format!("a row is not JSON: {e}"));
    let text = |i: usize| {
        let cell = row.try_get::<_, Option<&str>>(i);
        cell.map_err(|e| HoldingError::Damaged(format!("a row cannot be read: {e}")))
    };
    let key = text(0)?.unwrap_or_default().to_owned();
    let mut bytes = key.len();
    let mut doc = Map::new();
    if table.layout.own && select.is_none() {
        let json = text(1)?.unwrap_or_default();
        bytes += json.len();
        doc = serde_json::from_str(json).map_err(damaged)?;
        return Ok((Row { key, doc }, bytes));
    }
    let every: Vec<&str> = match select {
        Some(names) => names.iter().map(String::as_str).collect(),
        None => table.spec.fields.iter().map(|(n, _)| n).collect(),
    };
    for (i, name) in every.into_iter().enumerate() {
        let Some(cell) = text(i + 1)? else { continue };
        bytes += name.len() + cell.len() + 4;
        let value = if table.layout.own {
            Some(serde_json::from_str(cell).map_err(damaged)?)
        } else {
            of_cell(table, name, cell)
        };
        if let Some(value) = value {
            doc.insert(name.to_owned(), value);
        }
    }
    Ok((Row { key, doc }, bytes))
}

/// A value of an agency's column as rows carry it, none where it is none of the field's type.
fn of_cell(table: &Table, name: &str, cell: &str) -> Option<Value> {
    let ty = table.spec.fields.get(name)?;
    let value = match ty {
        FieldType::String | FieldType::Decimal => Value::from(cell),
        FieldType::Integer => Value::from(cell.parse::<i64>().ok()?),
        FieldType::Boolean => Value::from(cell == "true"),
        FieldType::Timestamp => Value::from(timestamp_text(timestamp_nanos(cell)?)),
    };
    Key::of(ty, &value).map(|_| value)
}

/// Reads a group (see [`super::sql::totals`]).
pub(super) fn group(totals: &Totals, row: &tokio_postgres::Row) -> Result<(Vec<Label>, Growing), HoldingError> {
    let damaged = || HoldingError::Damaged("a sum cannot be read".into());
    let keys = totals.by.len();
    let mut labels = Vec::with_capacity(keys);
    let mut told = Vec::with_capacity(keys);
    for (i, key) in totals.by.iter().enumerate() {
        let value = row.get::<_, Option<&str>>(i).map(|text| label_value(key, text));
        labels.push(match key.cut {
            Some(_) => value.as_ref().and_then(|v| v.as_str()).map(|t| Key::Text(t.to_owned())),
            None => key.label(value.as_ref()),
        });
        told.push(match key.cut {
            Some(_) => value.unwrap_or(Value::Null),
            None => key.told(value.as_ref()),
        });
    }
    let count = |i: usize| u64::try_from(row.get::<_, i64>(i)).unwrap_or(0);
    let mut numbers = Vec::new();
    for i in 0..totals.numbers().len() {
        let at = keys + 1 + 2 * i;
        let sum = match row.get::<_, Option<&str>>(at + 1) {
            Some(text) => Exact::read_wide(text).ok_or_else(damaged)?,
            None => Exact::default(),
        };
        numbers.push((count(at), sum));
    }
    Ok((labels, Growing { told, count: count(keys), numbers, persons: Vec::new() }))
}

fn label_value(key: &GroupKey, text: &str) -> Value {
    match (key.cut, key.ty) {
        (None, FieldType::Integer) => text.parse::<i64>().map_or(Value::Null, Value::from),
        (None, FieldType::Boolean) => Value::from(text == "true"),
        // Ours are nanoseconds, an agency's are texts.
        (None, FieldType::Timestamp) => {
            text.parse::<i64>().map_or_else(|_| Value::from(text), |n| timestamp_text(n).into())
        }
        _ => Value::from(text),
    }
}

/// The columns of many rows as arrays for `unnest`, in the order of [`names`].
pub(super) fn arrays(table: &Table, rows: &[(&Checked, &Map<String, Value>)]) -> Vec<(Param, Type)> {
    let mut all: Vec<(Param, Type)> = vec![
        (Box::new(rows.iter().map(|(c, _)| c.key.clone()).collect::<Vec<_>>()), Type::TEXT_ARRAY),
        (Box::new(rows.iter().map(|(c, _)| c.doc.clone()).collect::<Vec<_>>()), Type::TEXT_ARRAY),
    ];
    for (field, ty) in table.spec.fields.iter() {
        let keys = rows.iter().map(|(_, row)| row.get(field).and_then(|v| Key::of(ty, v).map(|k| (k, v))));
        all.push(match ty {
            FieldType::String => {
                let cells = keys.map(|k| k.and_then(|(_, v)| v.as_str().map(str::to_owned)));
                (Box::new(cells.collect::<Vec<Option<String>>>()), Type::TEXT_ARRAY)
            }
            FieldType::Decimal => {
                let cells = keys.map(|k| k.map(|(_, v)| v.as_str().map_or_else(|| v.to_string(), str::to_owned)));
                (Box::new(cells.collect::<Vec<Option<String>>>()), Type::TEXT_ARRAY)
            }
            FieldType::Boolean => {
                (Box::new(keys.map(|k| k.map(|(k, _)| k == Key::Bool(true))).collect::<Vec<_>>()), Type::BOOL_ARRAY)
            }
            FieldType::Integer | FieldType::Timestamp => {
                let number = |k: Key| if let Key::Int(n) = k { Some(n) } else { None };
                (Box::new(keys.map(|k| k.and_then(|(k, _)| number(k))).collect::<Vec<_>>()), Type::INT8_ARRAY)
            }
        });
    }
    all
}

/// The insertion of rows given as [`arrays`]. `over` says what happens where a key is there.
pub(super) fn insertion(table: &Table, over: &str) -> String {
    let fields: Vec<_> = table.spec.fields.iter().filter_map(|(n, _)| table.layout.columns.get(n)).collect();
    let names: String = fields.iter().map(|c| format!(", {}", c.name)).collect();
    let places: Vec<String> = (1..=fields.len() + 2).map(|n| format!("${n}")).collect();
    let given: String = (0..fields.len()).map(|n| format!(", c{n}")).collect();
    let cells: String = fields
        .iter()
        .enumerate()
        .map(|(n, c)| match c.kind {
            Kind::Decimal => format!(", c{n}::numeric"),
            _ => format!(", c{n}"),
        })
        .collect();
    format!(
        "INSERT INTO {} (key, doc{names}) SELECT k, d::json{cells} FROM unnest({}) AS u(k, d{given}) {over}",
        table.layout.table,
        places.join(", ")
    )
}

/// `ON CONFLICT` that replaces the row.
pub(super) fn replacing(table: &Table) -> String {
    let sets: String = table.layout.columns.values().map(|c| format!(", {0} = excluded.{0}", c.name)).collect();
    format!("ON CONFLICT (key) DO UPDATE SET doc = excluded.doc{sets}")
}
