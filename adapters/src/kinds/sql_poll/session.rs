//! The seam between what polling means and the databases: one session, asked in plain statements, answering in text.

use crate::contract::{AdapterError, ErrorClass};
use crate::convert::Fault;

/// Where rows come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Relation {
    /// A table or a view, its name in parts: `["public", "load"]`.
    Table(Vec<String>),
    /// A statement of the document, with `:cursor` where the first cursor value goes.
    Query(String),
}

/// What a column's values are, as far as it changes how they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Read as the database writes it.
    Plain,
    /// A whole number.
    Integer,
    /// A number with a fraction.
    Number,
    /// True or false.
    Boolean,
    /// An instant: the session's zone is UTC.
    Instant,
    /// A wall clock without a zone.
    Clock,
    /// Bytes: base64 in the cell.
    Bytes,
}

/// One column of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its name.
    pub name: String,
    /// The database's name of its type.
    pub type_name: String,
    /// What its values are.
    pub shape: Shape,
}

/// A value of a statement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Param {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A whole number beyond those.
    Unsigned(u64),
    /// A floating number.
    Real(f64),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// A statement with its values, ready for one database.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Statement {
    /// The text.
    pub text: String,
    /// The values in order.
    pub params: Vec<Param>,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The columns' values as text; none for NULL.
    pub cells: Vec<Option<String>>,
    /// The cursor's values, in a form that this database reads back exactly.
    pub keyset: Vec<String>,
    /// True when it stands behind the furthest row read before.
    pub past: bool,
    /// A value that cannot be text, and its column.
    pub fault: Option<(usize, Fault)>,
}

/// How one database writes what a statement needs.
pub(crate) trait Dialect: Send + Sync {
    /// A name, quoted.
    fn quote(&self, name: &str) -> String;
    /// The expression that reads a column.
    fn cell(&self, column: &Column, expression: &str) -> String;
    /// The expression of a cursor value, `{}` where its placeholder goes, and the value.
    fn value(&self, column: &Column, text: &str) -> Result<(String, Param), String>;
    /// The n-th placeholder, from 1.
    fn placeholder(&self, n: usize) -> String;
    /// True when an index serves `(a, b) > (x, y)`.
    fn compares_rows(&self) -> bool;
    /// A value that a person wrote as the start, in the form of a keyset.
    fn start(&self, column: &Column, text: &str) -> String;
    /// A keyset's value without what this database puts before it, and that.
    fn split<'a>(&self, value: &'a str) -> (&'a str, &'a str) {
        ("", value)
    }
}

/// A connected, read-only session. All calls are bounded by the statement timeout.
pub(crate) trait Session: Send {
    /// The database's way to write statements.
    fn dialect(&self) -> &'static dyn Dialect;
    /// The columns of a relation in their order.
    fn columns(&mut self, relation: &Relation) -> Result<Vec<Column>, Failure>;
    /// Rows of a statement made by [`super::sql::page`]: the columns, then whether the row is past; `cursor` names the
    /// columns whose values make the keyset.
    fn page(&mut self, statement: &Statement, columns: &[Column], cursor: &[usize]) -> Result<Vec<Line>, Failure>;
    /// Rows of a small statement of our own, as text.
    fn texts(&mut self, text: &str, params: &[&str]) -> Result<Vec<Vec<Option<String>>>, Failure>;
}

/// What went wrong at a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Not reachable, or the connection was lost.
    Lost,
    /// A statement took too long.
    Timeout,
    /// The server wants no more of us at present.
    Busy,
    /// TLS could not be agreed.
    Tls,
    /// The login was refused.
    Login,
    /// The login may not read this.
    Rights,
    /// A table or column is not there.
    Missing,
    /// Anything else that will not pass.
    Refused,
}

/// A failure with the database's reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What went wrong.
    pub cause: Cause,
    /// The database's words.
    pub detail: String,
}

impl Failure {
    /// A failure.
    pub fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into() }
    }

    /// As the error of an adapter; `place` says which database, without secrets.
    pub fn at(&self, place: &str) -> AdapterError {
        let (class, code, next) = match self.cause {
            Cause::Lost => (ErrorClass::Transient, "source.unreachable", "it is tried again"),
            Cause::Timeout => (
                ErrorClass::Transient,
                "source.timeout",
                "make an index on the cursor, lower `poll.max_rows`, or raise `poll.statement_timeout`",
            ),
            Cause::Busy => (ErrorClass::Transient, "source.limit", "it is tried again"),
            Cause::Tls => (ErrorClass::Auth, "source.tls", "name the authority's certificate in `connect.ca`"),
            Cause::Login => (ErrorClass::Auth, "source.login", "check name and password behind `connect.dsn`"),
            Cause::Rights => (ErrorClass::Auth, "source.rights", "let the login read it"),
            Cause::Missing => (ErrorClass::Permanent, "source.changed", "correct the document or the source"),
            Cause::Refused => (ErrorClass::Permanent, "source.protocol", "correct the document or the source"),
        };
        AdapterError::source_failed(class, code, format!("{place}: {}; {next}", self.detail))
    }
}
