//! The document of a folder that files are dropped into, made ready to run.

use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::adapter_document;
use crate::document::{Common, DocumentError, Period, Secret};
use crate::files::Form;
use crate::format::{CsvFormat, ParquetFormat};

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
    #[serde(default)]
    pub path: Option<Spanned<String>>,
    /// The folder on an SFTP server; instead of `path`.
    #[serde(default)]
    pub sftp: Option<SftpDoc>,
    /// Names of the files, with `*` and `?`.
    #[serde(default = "all")]
    pub glob: String,
    /// When a file is whole.
    pub ready: Ready,
}

fn all() -> String {
    "*".to_owned()
}

/// A folder on an SFTP server.
#[cfg_attr(not(feature = "sftp"), allow(dead_code, reason = "it is read to say that SFTP is not there"))]
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftpDoc {
    /// `sftp://USER@HOST:PORT/FOLDER`; `/~/FOLDER` is below the account's home folder.
    pub url: Spanned<String>,
    /// Fingerprint of the server's key, `SHA256:…`, as `ssh-keygen -l` prints it.
    pub host_key: Spanned<String>,
    /// The account's private key: the text of an Ed25519 or ECDSA key file.
    #[serde(default)]
    pub key: Option<Secret>,
    /// What the private key is encrypted with.
    #[serde(default)]
    pub passphrase: Option<Secret>,
    /// The account's password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Longest wait for a connection with its login, and for any answer of the server.
    #[serde(default)]
    pub timeout: Option<Period>,
    /// Most bytes of a file: each is copied to this machine while it is read.
    #[serde(default)]
    pub bytes_max: Option<u64>,
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

/// How the files are written: one of the three.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Format {
    /// Comma-separated values with a header.
    #[serde(default)]
    pub csv: Option<CsvFormat>,
    /// One JSON object a line, in UTF-8.
    #[serde(default, rename = "json-lines")]
    pub json_lines: Option<JsonLines>,
    /// Parquet.
    #[serde(default)]
    pub parquet: Option<ParquetFormat>,
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
    /// True removes a file when it was read.
    #[serde(default)]
    pub delete: bool,
    /// Where a file goes that could not be read; the adapter stops at it when left out.
    #[serde(default)]
    pub failed: Option<String>,
}

/// What becomes of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    Moves(String),
    Goes,
}

impl After {
    /// What becomes of a file that was read, or that failed.
    pub(super) fn fate(&self, failed: bool) -> Fate {
        match if failed { &self.failed } else { &self.moved } {
            Some(folder) => Fate::Moves(folder.clone()),
            None if self.delete && !failed => Fate::Goes,
            None => Fate::Stays,
        }
    }

    /// The folders that files are moved to.
    pub(super) fn folders(&self) -> impl Iterator<Item = &String> {
        [&self.moved, &self.failed].into_iter().flatten()
    }
}

/// A checked document.
pub(super) struct Drop {
    pub common: Common,
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
        if doc.after.delete && doc.after.moved.is_some() {
            return Err(DocumentError::rule("after.delete", "a file is moved or deleted; say one of both"));
        }
        let form = form(doc, &common)?;
        let every = doc.poll.every.map_or(EVERY, |p| p.0);
        Ok(Self { after: doc.after.clone(), form, every, common })
    }
}

fn check_watch(doc: &DropDoc) -> Result<(), DocumentError> {
    let watch = &doc.watch;
    match (&watch.path, &watch.sftp) {
        (Some(path), None) if path.value.is_empty() => {
            return Err(DocumentError::at(path, "watch.path", "name the folder"));
        }
        (Some(_), None) | (None, Some(_)) => {}
        (Some(path), Some(_)) => {
            return Err(DocumentError::at(
                path,
                "watch.path",
                "say one of `path` and `sftp`; the URL names the folder",
            ));
        }
        (None, None) => {
            return Err(DocumentError::rule(
                "watch",
                "name the folder: `path: in`, or `sftp: {url: .., host_key: ..}`",
            ));
        }
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
    let format = &doc.format.value;
    match (&format.csv, &format.json_lines, &format.parquet) {
        (Some(csv), None, None) => Form::csv(common, csv),
        (None, Some(_), None) => Form::json(common),
        (None, None, Some(_)) => Form::parquet(common),
        _ => {
            Err(DocumentError::at(&doc.format, "format", "say one of `csv: {..}`, `json-lines: {}` and `parquet: {}`"))
        }
    }
}
