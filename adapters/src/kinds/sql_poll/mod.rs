//! Tables of PostgreSQL, MySQL, MariaDB and SQLite, polled by a cursor.

pub(crate) mod check;
mod diff;
mod document;
pub(crate) mod memory;
mod mysql;
pub(crate) mod postgres;
pub(crate) mod ready;
mod rows_kept;
pub(crate) mod runtime;
pub(crate) mod session;
mod shift;
mod source;
pub(crate) mod sql;
mod sqlite;
pub(crate) mod tls;

use std::path::Path;

use crate::contract::{AdapterError, Again, Connector, Discovery, Finding, Kind, Setting, Source, Spec};
use crate::document::{Common, DocumentError};

pub use document::{Connect, Cursor, Deletes, SqlPollDoc, TlsMode};
#[cfg(feature = "postgres-changes")]
pub(crate) use document::{Way, way};

/// The kind `sql-poll`.
#[derive(Debug, Clone, Copy)]
pub struct SqlPollKind;

const SETTINGS: &[Setting] = &[
    Setting {
        name: "connect.dsn",
        required: true,
        about: "Where the address stands: env:NAME or file:PATH of a postgres:, mysql:, mariadb: or sqlite: URI.",
    },
    Setting {
        name: "connect.tls",
        required: false,
        about: "require (default) or off; sockets of the machine and files need none.",
    },
    Setting {
        name: "connect.ca",
        required: false,
        about: "File with the certificate of the server's authority in PEM; those of the machine when left out.",
    },
    Setting { name: "connect.read_only", required: false, about: "Always true." },
    Setting { name: "table", required: false, about: "Table or view, `table` or `schema.table`; or else `query`." },
    Setting {
        name: "query",
        required: false,
        about: "A statement; `:cursor` in it is the value of the first cursor column from which rows are read.",
    },
    Setting {
        name: "cursor.columns",
        required: false,
        about: "Columns that order the rows, the most significant first; those of the key are added.",
    },
    Setting {
        name: "cursor.overlap",
        required: false,
        about: "How late a row may appear behind later ones: a period such as 10m, or a number for a numeric cursor.",
    },
    Setting { name: "cursor.start", required: false, about: "First value of the first cursor column that is read." },
    Setting { name: "deletes", required: true, about: "{soft: COLUMN}, snapshot-diff or none." },
];

impl Kind for SqlPollKind {
    fn spec(&self) -> Spec {
        Spec {
            kind: "sql-poll",
            title: "tables of PostgreSQL, MySQL, MariaDB and SQLite, polled by a cursor",
            settings: SETTINGS,
            example: include_str!("example.yaml"),
            readme: include_str!("README.md"),
        }
    }

    fn parse(&self, text: &str) -> Result<Box<dyn Connector>, DocumentError> {
        let doc = SqlPollDoc::parse(text)?;
        doc.check()?;
        Ok(Box::new(SqlPollConnector { common: doc.common(), doc }))
    }
}

struct SqlPollConnector {
    common: Common,
    doc: SqlPollDoc,
}

/// Runs something on a thread of its own: drivers may wait there, whatever the caller's thread is.
pub(crate) fn apart<T: Send>(f: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| scope.spawn(f).join().ok())
}

impl Connector for SqlPollConnector {
    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self, base: &Path) -> Vec<Finding> {
        apart(|| check::check(&self.doc, base))
            .unwrap_or_else(|| vec![Finding::fail("login", "the check broke off", "report this")])
    }

    fn discover(&self, base: &Path) -> Result<Discovery, AdapterError> {
        apart(|| check::discover(&self.doc, base)).unwrap_or_else(|| {
            Err(AdapterError::source_failed(
                crate::contract::ErrorClass::Permanent,
                "source.protocol",
                "the look broke off",
            ))
        })
    }

    fn open(&self, base: &Path) -> Result<Box<dyn Source>, AdapterError> {
        match self.doc.deletes {
            Deletes::SnapshotDiff => Ok(Box::new(diff::DiffSource::new(self.doc.clone(), base)?)),
            _ => Ok(Box::new(source::SqlSource::new(self.doc.clone(), base)?)),
        }
    }

    fn again(&self) -> Result<Again, AdapterError> {
        Ok(ready::again(&self.doc))
    }
}
