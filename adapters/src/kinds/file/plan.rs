//! The document of a file made ready to run: every column accounted for.

use concordat_protocol::ids::DatasetId;
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::adapter_document;
use crate::document::{Common, DocumentError};
use crate::files::Form;
use crate::format::{CsvFormat, ParquetFormat};

/// How the file is written: one of the two.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Format {
    /// Comma-separated values.
    #[serde(default)]
    pub csv: Option<CsvFormat>,
    /// Parquet.
    #[serde(default)]
    pub parquet: Option<ParquetFormat>,
}

adapter_document! {
    /// A document of the kind `file`.
    pub struct FileDoc {
        /// The file, relative to the node folder.
        pub path: String,
        /// How the file is written.
        pub format: Spanned<Format>,
    }
}

/// A checked document.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What every document says.
    pub common: Common,
    /// Name of the adapter.
    pub adapter: String,
    /// Where its records go.
    pub dataset: DatasetId,
    /// The file as the document names it.
    pub path: String,
    /// How it is written.
    pub form: Form,
    /// Fields that identify a record.
    pub key: Vec<String>,
    /// Field that is the event's time.
    pub time: Option<String>,
}

impl Plan {
    /// Checks the meaning of a document.
    pub fn new(doc: &FileDoc) -> Result<Self, DocumentError> {
        let (format, common) = (&doc.format.value, doc.common());
        let form = match (&format.csv, &format.parquet) {
            (Some(csv), None) => {
                check_columns(&csv.columns)?;
                Form::csv(&common, csv)?
            }
            (None, Some(_)) => Form::parquet(&common)?,
            _ => return Err(DocumentError::at(&doc.format, "format", "say one of `csv: {..}` and `parquet: {}`")),
        };
        Ok(Self {
            adapter: common.adapter.value.clone(),
            dataset: common.into.clone(),
            path: doc.path.clone(),
            form,
            key: common.key.iter().map(|k| k.value.clone()).collect(),
            time: common.time.as_ref().map(|t| t.value.clone()),
            common,
        })
    }

    /// Parses and checks a document in one go.
    pub fn parse(yaml: &str) -> Result<Self, DocumentError> {
        Self::new(&FileDoc::parse(yaml)?)
    }
}

/// The columns of a document, which it must list, each once.
fn check_columns(list: &[Spanned<String>]) -> Result<(), DocumentError> {
    let field = "format.csv.columns";
    if list.is_empty() {
        return Err(DocumentError::rule(field, "list the columns of the file in order"));
    }
    for (n, name) in list.iter().enumerate() {
        if list.iter().take(n).any(|c| c.value == name.value) {
            return Err(DocumentError::at(name, field, format!("`{}` stands twice", name.value)));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
