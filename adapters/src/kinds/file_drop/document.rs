//! The document of a folder that files are dropped into, made ready to run.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::adapter_document;
use crate::document::{Common, DocumentError, Period};
use crate::files::csv::{CsvForm, Head, columns_of};
use crate::files::json::{JsonMapper, json_mapper};
use crate::format::CsvFormat;
use crate::mapping::Mapper;

/// Wait between two looks into the folder.
const EVERY: Duration = Duration::from_secs(2);

adapter_document! {
    /// A document of the kind `file-drop`.
    pub struct DropDoc {
        /// Which files, and when they are whole.
        pub watch: Watch,
        /// How they are written.
        pub format: Spanned<Format>,
        /// What becomes of them.
        #[serde(default)]
        pub after: After,
    }
}

/// Which files, and when they are whole.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// The folder, relative to the node folder.
    pub path: Spanned<String>,
    /// Names of the files, with `*` and `?`.
    #[serde(default = "all")]
    pub glob: String,
    /// When a file is whole.
    pub ready: Ready,
}

fn all() -> String {
    "*".to_owned()
}

/// When a file is whole: the sender must say so, or stop writing for a while.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    /// The sender writes under a name that ends so, and renames.
    RenameFrom(String),
    /// The sender puts an empty file beside it, of the same name and this ending.
    Marker(String),
    /// Nobody has written to it for so long.
    Quiet(Period),
}

/// How the files are written: one of the two.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Format {
    /// Comma-separated values with a header.
    #[serde(default)]
    pub csv: Option<CsvFormat>,
    /// One JSON object a line, in UTF-8.
    #[serde(default, rename = "json-lines")]
    pub json_lines: Option<JsonLines>,
}

/// JSON lines have nothing to say.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonLines {}

/// What becomes of a file; folders relative to `watch.path`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct After {
    /// Where a file goes when it was read; it stays when left out.
    #[serde(default, rename = "move")]
    pub moved: Option<String>,
    /// Where a file goes that could not be read; the adapter stops at it when left out.
    #[serde(default)]
    pub failed: Option<String>,
}

/// How rows are made.
pub(super) enum Form {
    Csv(CsvForm, Head),
    Json(Arc<JsonMapper>),
}

/// A checked document.
pub(super) struct Drop {
    pub common: Common,
    pub watch: Watch,
    pub after: After,
    pub form: Form,
    pub every: Duration,
}

impl Drop {
    /// Checks the meaning of a document.
    pub fn new(doc: &DropDoc) -> Result<Self, DocumentError> {
        let common = doc.common();
        check_watch(doc)?;
        for (name, folder) in [("after.move", &doc.after.moved), ("after.failed", &doc.after.failed)] {
            if folder.as_ref().is_some_and(|f| f.is_empty() || f == "." || f.split('/').any(|p| p == "..")) {
                return Err(DocumentError::rule(name, "name another folder, below `watch.path` or from the root"));
            }
        }
        let form = form(doc, &common)?;
        let every = doc.poll.every.map_or(EVERY, |p| p.0);
        Ok(Self { watch: doc.watch.clone(), after: doc.after.clone(), form, every, common })
    }
}

fn check_watch(doc: &DropDoc) -> Result<(), DocumentError> {
    let watch = &doc.watch;
    if watch.path.value.is_empty() {
        return Err(DocumentError::at(&watch.path, "watch.path", "name the folder"));
    }
    if watch.glob.is_empty() || watch.glob.contains('/') {
        return Err(DocumentError::rule("watch.glob", "a file's name with `*` and `?`, without folders"));
    }
    let ending = match &watch.ready {
        Ready::RenameFrom(ending) | Ready::Marker(ending) => ending,
        Ready::Quiet(period) if period.0 < Duration::from_secs(1) => {
            return Err(DocumentError::rule("watch.ready.quiet", "at least 1s"));
        }
        Ready::Quiet(_) => return Ok(()),
    };
    if ending.is_empty() || ending.contains('/') {
        return Err(DocumentError::rule("watch.ready", "an ending such as `.part`"));
    }
    Ok(())
}

fn form(doc: &DropDoc, common: &Common) -> Result<Form, DocumentError> {
    match (&doc.format.value.csv, &doc.format.value.json_lines) {
        (Some(csv), None) => {
            let form = CsvForm::new(csv)?;
            if csv.columns.is_empty() {
                let map = columns_of(common, &form, "the columns of the file");
                return Ok(Form::Csv(form, Head::Mapped(map)));
            }
            let columns: Vec<String> = csv.columns.iter().map(|c| c.value.clone()).collect();
            let mapper = columns_of(common, &form, "`format.csv.columns`")(&columns)?;
            Ok(Form::Csv(form, Head::Exactly(columns, Arc::new(mapper))))
        }
        (None, Some(_)) => Ok(Form::Json(Arc::new(json_mapper(Mapper::open(common)?)?))),
        _ => Err(DocumentError::at(&doc.format, "format", "say one of `csv: {..}` and `json-lines: {}`")),
    }
}
