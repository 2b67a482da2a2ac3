//! From a permitted write and the record that is there to the record that will be.

use super::{Expected, PermittedWrite, WriteAsk};
use crate::decide::denied;
use crate::holding::row::check_row;
use crate::holding::{DatasetSpec, Expect, HoldingError, Version};
use concordat_protocol::codes;
use concordat_protocol::session::Denied;
use concordat_protocol::terms::Action;
use serde_json::{Map, Value};

/// Shows a version of a key's record to the consumer, without what the content is.
pub type Tagger<'a> = dyn Fn(&str, &Version) -> String + 'a;

/// A write that can be carried out as it stands, against one version of the record.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// Key text.
    pub key: String,
    /// The record afterwards, none where it is deleted.
    pub row: Option<Map<String, Value>>,
    /// Content before, as stores keep it.
    pub before: Option<String>,
    /// Content afterwards, as stores keep it.
    pub after: Option<String>,
    /// What has to be there: exactly what was planned against.
    pub expect: Expect,
}

fn conflict() -> Denied {
    denied(codes::RECORD_CONFLICT, "conflict", codes::text(codes::RECORD_CONFLICT))
}

fn unfit(e: &HoldingError) -> Denied {
    denied(codes::BAD_VALUE, "bad-write", format!("write: {e}"))
}

/// Plans a write. `found` is the record under the key, whole. One that the clause's row filter hides is treated as absent,
/// but for an insert, whose key is taken all the same.
///
/// # Errors
/// The record is not as expected, or would be none afterwards that dataset and clause allow.
pub fn plan(
    spec: &DatasetSpec,
    ask: &WriteAsk,
    permitted: &PermittedWrite,
    found: Option<Map<String, Value>>,
    tag: &Tagger<'_>,
) -> Result<Planned, Denied> {
    if ask.action == Action::Insert {
        // Before it is looked at whether the key is taken: an insert that could never be tells nothing of hidden records.
        check_row(spec, 0, &ask.data).map_err(|e| unfit(&e))?;
        within_rows(permitted, &ask.data)?;
    }
    let row = match (ask.action, found.as_ref()) {
        (Action::Insert, None) => Some(ask.data.clone()),
        (Action::Insert, Some(_)) | (_, None) => return Err(conflict()),
        (Action::Modify, Some(row)) => Some(patched(row, &ask.data)),
        (_, Some(_)) => None,
    };
    if found.as_ref().is_some_and(|row| !permitted.rows.matches(row)) {
        return Err(conflict());
    }
    let before = found.as_ref().map(|row| check_row(spec, 0, row)).transpose().map_err(|e| unfit(&e))?;
    if let (Expected::Tag(expected), Some(before)) = (&ask.expect, &before)
        && tag(&before.key, &Version::of(&before.doc)) != *expected
    {
        return Err(conflict());
    }
    let after = row.as_ref().map(|row| check_row(spec, 0, row)).transpose().map_err(|e| unfit(&e))?;
    if let (Some(before), Some(after)) = (&before, &after)
        && before.key != after.key
    {
        let rule = format!("write.patch: leaves the key ({}) as it is", spec.key.join(", "));
        return Err(denied(codes::BAD_VALUE, "bad-write", rule));
    }
    row.as_ref().map_or(Ok(()), |row| within_rows(permitted, row))?;
    let key = [&after, &before].into_iter().flatten().map(|c| c.key.clone()).next().unwrap_or_default();
    let (before, after) = (before.map(|c| c.doc), after.map(|c| c.doc));
    let expect = before.as_deref().map_or(Expect::Absent, |doc| Expect::Version(Version::of(doc)));
    Ok(Planned { key, row, before, after, expect })
}

fn within_rows(permitted: &PermittedWrite, row: &Map<String, Value>) -> Result<(), Denied> {
    if permitted.rows.matches(row) {
        return Ok(());
    }
    let detail = "the record as it would be is outside the rows that the clause opens".to_owned();
    Err(permitted.lacks("a record within the clause's rows", "row-filter", detail))
}

/// RFC 7396 over a flat record: null takes a field away, anything else takes its place.
fn patched(row: &Map<String, Value>, patch: &Map<String, Value>) -> Map<String, Value> {
    let mut row = row.clone();
    for (name, value) in patch {
        if value.is_null() {
            row.remove(name);
        } else {
            row.insert(name.clone(), value.clone());
        }
    }
    row
}
