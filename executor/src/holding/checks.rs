//! What every store checks alike before it works.

use serde_json::{Map, Value};

use super::row::check_row;
use super::{Checked, DatasetSpec, HoldingError, Plan};
use crate::limits::{MAX_PAGE_ROWS, MAX_PUT_ROWS};
use crate::query::{FieldType, Filter};

/// The rows of one call, checked against their dataset.
pub(super) fn rows(spec: &DatasetSpec, rows: &[Map<String, Value>]) -> Result<Vec<Checked>, HoldingError> {
    if rows.len() > MAX_PUT_ROWS {
        let next = "send them in several calls";
        return Err(HoldingError::TooLarge { what: "rows of one call", max: MAX_PUT_ROWS, next });
    }
    rows.iter().enumerate().map(|(i, row)| check_row(spec, i, row)).collect()
}

/// A plan, whoever made it: its limit, and that it names fields of the dataset only (names reach the store's language).
pub(super) fn plan(spec: &DatasetSpec, plan: &Plan) -> Result<(), HoldingError> {
    if !(1..=MAX_PAGE_ROWS).contains(&plan.limit) {
        return Err(HoldingError::Plan(format!("limit is 1 to {MAX_PAGE_ROWS}")));
    }
    if plan.select.as_ref().is_some_and(Vec::is_empty) {
        return Err(HoldingError::Plan("select names no field".into()));
    }
    fields(spec, &plan.filter, plan.select.as_deref().unwrap_or_default())
}

/// That a filter and a list name fields of the dataset only.
pub(super) fn fields(spec: &DatasetSpec, filter: &Filter, select: &[String]) -> Result<(), HoldingError> {
    let select = select.iter().map(String::as_str);
    for name in filter.fields().into_iter().chain(select) {
        if spec.fields.get(name).is_none() {
            let name: String = name.chars().take(80).collect();
            return Err(HoldingError::Plan(format!("the dataset has no field {name:?}")));
        }
    }
    Ok(())
}

/// A dataset's id as it may be shown.
pub(super) fn unknown(dataset: &str) -> HoldingError {
    HoldingError::UnknownDataset(dataset.chars().take(200).collect())
}

/// Whether a new specification fits what is held: fields and indexes may come, indexes may go, nothing else changes.
pub(super) fn fits(old: &DatasetSpec, new: &DatasetSpec) -> Result<(), HoldingError> {
    let conflict = |rule: String| Err(HoldingError::SpecConflict { dataset: new.id.clone(), rule });
    if old.key != new.key {
        return conflict(format!("its key is {:?}, not {:?}", old.key, new.key));
    }
    for (name, ty) in old.fields.iter() {
        match new.fields.get(name) {
            None => return conflict(format!("field {name} is held but no longer declared")),
            Some(other) if other != ty => {
                return conflict(format!("field {name} is held as {}, not {}", ty.name(), other.name()));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The type of a field that the dataset must have.
pub(super) fn field(spec: &DatasetSpec, name: &str) -> Result<FieldType, HoldingError> {
    spec.fields.get(name).ok_or_else(|| HoldingError::Plan(format!("the dataset has no field {name:?}")))
}
