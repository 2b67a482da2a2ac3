//! Drafts from the beginning of a file.

use super::content::Content;
use super::csv::{CsvForm, sample};
use super::unpacked;
use crate::contract::{AdapterError, Discovery};
use crate::discover;
use crate::document::Common;
use crate::format::CsvFormat;

/// Rows that a draft is made from.
pub const SAMPLE_ROWS: usize = 1_000;

/// The drafts for a CSV file; `name` is what errors call it.
///
/// # Errors
/// An encoding that is not the document's, a file without a header.
pub fn csv(common: &Common, format: &CsvFormat, name: &str, content: &Content) -> Result<Discovery, AdapterError> {
    let io = |source| AdapterError::Io { file: name.to_owned(), action: "open", source };
    let form = CsvForm::new(format)?;
    let found = sample(name, unpacked(content.from(0)).map_err(io)?, &form, SAMPLE_ROWS)?;
    let columns = discover::guess(&found.columns, form.point, &found.rows);
    Ok(discover::draft(common, columns, found.rows.len() as u64))
}

/// The drafts for a Parquet file; columns whose type has no text are in `ignore`.
///
/// # Errors
/// A file that is cut, damaged or none of Parquet, and a program that was built without it.
#[cfg(feature = "parquet")]
pub fn parquet(common: &Common, name: &str, content: &Content) -> Result<Discovery, AdapterError> {
    let (found, refused) = super::parquet::sample(name, content, SAMPLE_ROWS)?;
    let columns = discover::guess(&found.columns, '.', &found.rows);
    let mut drafts = discover::draft(common, columns, found.rows.len() as u64);
    if !refused.is_empty() {
        let names = serde_json::json!(refused);
        drafts.adapter.push_str(&format!("ignore: {names}    # their types have no text: lists, maps and the like\n"));
    }
    Ok(drafts)
}

/// As above, where it is not there.
#[cfg(not(feature = "parquet"))]
pub fn parquet(_: &Common, _: &str, _: &Content) -> Result<Discovery, AdapterError> {
    Err(super::form::without_parquet().into())
}
