//! The document of a file made ready to run: every column accounted for.

use std::sync::Arc;

use concordat_protocol::ids::DatasetId;
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::adapter_document;
use crate::document::{Common, DocumentError};
use crate::files::csv::{CsvForm, Head};
use crate::format::CsvFormat;
use crate::mapping::Mapper;

/// How the file is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Format {
    /// Comma-separated values.
    pub csv: CsvFormat,
}

adapter_document! {
    /// A document of the kind `file`.
    pub struct FileDoc {
        /// The file, relative to the node folder.
        pub path: String,
        /// How the file is written.
        pub format: Format,
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
    pub form: CsvForm,
    /// Columns of the file in order.
    pub columns: Vec<String>,
    /// Fields that identify a record.
    pub key: Vec<String>,
    /// Field that is the event's time.
    pub time: Option<String>,
    /// From cells to records.
    pub mapper: Arc<Mapper>,
}

impl Plan {
    /// Checks the meaning of a document.
    pub fn new(doc: &FileDoc) -> Result<Self, DocumentError> {
        let (csv, common) = (&doc.format.csv, doc.common());
        let columns = columns(&csv.columns)?;
        let form = CsvForm::new(csv)?;
        let mapper = Mapper::of_columns(&common, &columns, "`format.csv.columns`")?.written(&form.nulls, form.point);
        Ok(Self {
            adapter: common.adapter.value.clone(),
            dataset: common.into.clone(),
            path: doc.path.clone(),
            form,
            columns,
            key: mapper.key().to_vec(),
            time: mapper.time().map(str::to_owned),
            mapper: Arc::new(mapper),
            common,
        })
    }

    /// What the header must be.
    pub(crate) fn head(&self) -> Head {
        Head::Exactly(self.columns.clone(), Arc::clone(&self.mapper))
    }

    /// Parses and checks a document in one go.
    pub fn parse(yaml: &str) -> Result<Self, DocumentError> {
        Self::new(&FileDoc::parse(yaml)?)
    }
}

/// The columns of a document, which it must list, each once.
pub(crate) fn columns(list: &[Spanned<String>]) -> Result<Vec<String>, DocumentError> {
    let field = "format.csv.columns";
    if list.is_empty() {
        return Err(DocumentError::rule(field, "list the columns of the file in order"));
    }
    for (n, name) in list.iter().enumerate() {
        if list.iter().take(n).any(|c| c.value == name.value) {
            return Err(DocumentError::at(name, field, format!("`{}` stands twice", name.value)));
        }
    }
    Ok(list.iter().map(|c| c.value.clone()).collect())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
