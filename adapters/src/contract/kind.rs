//! Kinds of source: what they are called, what they can be told, and one source of a kind before it is read.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::{AdapterError, Origin, Row, Source};
use crate::document::{Common, DocumentError, FieldKind, Precision};

/// One member of a kind's document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Path of the key, for example `connect.dsn`.
    pub name: &'static str,
    /// True when it cannot be left out.
    pub required: bool,
    /// One sentence.
    pub about: &'static str,
}

/// What there is to know about a kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Spec {
    /// The word after `kind:`.
    pub kind: &'static str,
    /// What it reads, in a few words.
    pub title: &'static str,
    /// Its own members; those of every document are not repeated.
    pub settings: &'static [Setting],
    /// A whole document that parses: `include_str!("example.yaml")`.
    pub example: &'static str,
    /// The kind's page: `include_str!("README.md")`.
    pub readme: &'static str,
}

/// A kind of source.
pub trait Kind: Send + Sync {
    /// What there is to know about it.
    fn spec(&self) -> Spec;

    /// Reads a document of this kind. The mapping need not be there yet: `discover` drafts it.
    fn parse(&self, text: &str) -> Result<Box<dyn Connector>, DocumentError>;
}

/// Maps the original bytes of a row that was read before. A row that still cannot become a record is a `Row::Bad`.
pub type Again = Box<dyn FnMut(Origin, &[u8]) -> Row + Send>;

/// One source as a document describes it. `base` is the node folder: relative paths start there.
pub trait Connector: Send + Sync {
    /// What the document says besides the kind's own members.
    fn common(&self) -> &Common;

    /// Where the source is, for people: a path, a host and a table; never a secret.
    fn place(&self) -> String {
        String::new()
    }

    /// Tries everything that can be tried without writing: names, TLS, login, rights, an index on the cursor, the clock.
    /// It stops at the first failure that makes the next check pointless. An empty list never comes.
    fn check(&self, base: &Path) -> Vec<Finding>;

    /// Looks at the source and drafts the documents it needs. It reads a sample and writes nothing.
    fn discover(&self, base: &Path) -> Result<Discovery, AdapterError>;

    /// The source itself. Errors of the document's meaning come here at the latest; the network may wait for `read`.
    fn open(&self, base: &Path) -> Result<Box<dyn Source>, AdapterError>;

    /// Maps rows of dead letters once more, by this document. The source itself is not asked.
    fn again(&self) -> Result<Again, AdapterError>;
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but.
    Warn,
    /// It will not work.
    Fail,
}

/// One check and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked, one word: `dns`, `tls`, `login`, `rights`, `table`, `index`, `clock`, `file`, `mapping`.
    pub name: &'static str,
    /// How it went.
    pub level: Level,
    /// What was found.
    pub sentence: String,
    /// What to do next, unless all is well.
    pub next: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(name: &'static str, sentence: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, sentence: sentence.into(), next: None }
    }

    /// It works, but.
    pub fn warn(name: &'static str, sentence: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, level: Level::Warn, sentence: sentence.into(), next: Some(next.into()) }
    }

    /// It will not work.
    pub fn fail(name: &'static str, sentence: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, level: Level::Fail, sentence: sentence.into(), next: Some(next.into()) }
    }

    /// An error as a failed check.
    pub fn failed(name: &'static str, error: &AdapterError) -> Self {
        let next = match error.class() {
            super::ErrorClass::Transient => "try again; if it stays, ask the people of the source",
            super::ErrorClass::Auth => "check the credentials and the rights of the account",
            super::ErrorClass::Data => "look at the rows: `concordat adapter run NAME --dry-run`",
            super::ErrorClass::Permanent => "correct the document or the source",
        };
        Self::fail(name, error.to_string(), next)
    }
}

/// One column as it was found in a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name there.
    pub name: String,
    /// The type its values have.
    pub kind: FieldKind,
    /// True when a value may be missing.
    pub nullable: bool,
    /// True when it is part of what identifies a row, as the source says or as the sample suggests.
    pub key: bool,
    /// Zone of a timestamp: `offset` when the values carry one; none when it must be asked.
    pub zone: Option<String>,
    /// Of a timestamp: that of the finest value seen.
    pub precision: Precision,
    /// The class of personal data it likely holds, by its name or the shape of its values, for example `contact`.
    pub personal: Option<&'static str>,
}

/// Drafts of what a source needs; a person reads them before they are used.
#[derive(Debug, Clone, PartialEq)]
pub struct Discovery {
    /// The columns in order.
    pub columns: Vec<Column>,
    /// JSON schema of the dataset.
    pub schema: Value,
    /// The dataset's document.
    pub dataset: String,
    /// The adapter's document with a mapping.
    pub adapter: String,
    /// Rows that were looked at.
    pub sampled: u64,
}
