//! Changes of a table of PostgreSQL as they are committed, by logical replication.

mod check;
mod document;
mod look;
mod pgoutput;
mod rows;
mod source;
mod stream;
mod wire;

use std::path::Path;

use crate::contract::{AdapterError, Again, Connector, Discovery, ErrorClass, Finding, Kind, Setting, Source, Spec};
use crate::document::{Common, DocumentError};
use crate::kinds::sql_poll::apart;

pub use document::ChangesDoc;

/// The kind `postgres-changes`.
#[derive(Debug, Clone, Copy)]
pub struct PostgresChangesKind;

const SETTINGS: &[Setting] = &[
    Setting {
        name: "connect.dsn",
        required: true,
        about: "Where the address stands: env:NAME or file:PATH of a postgres: URI.",
    },
    Setting {
        name: "connect.tls",
        required: false,
        about: "require (default) or off; sockets of the machine need none.",
    },
    Setting {
        name: "connect.ca",
        required: false,
        about: "File with the certificate of the server's authority in PEM; those of the machine when left out.",
    },
    Setting { name: "table", required: true, about: "The table, `table` or `schema.table`; it has a primary key." },
    Setting {
        name: "publication",
        required: true,
        about: "The publication that has the table; somebody with the right makes it.",
    },
    Setting { name: "slot", required: true, about: "The replication slot; the first run makes it." },
];

impl Kind for PostgresChangesKind {
    fn spec(&self) -> Spec {
        Spec {
            kind: "postgres-changes",
            title: "changes of a table of PostgreSQL as they are committed",
            settings: SETTINGS,
            example: include_str!("example.yaml"),
            readme: include_str!("README.md"),
        }
    }

    fn parse(&self, text: &str) -> Result<Box<dyn Connector>, DocumentError> {
        let doc = ChangesDoc::parse(text)?;
        doc.check()?;
        Ok(Box::new(ChangesConnector { common: doc.common(), doc }))
    }
}

struct ChangesConnector {
    common: Common,
    doc: ChangesDoc,
}

impl Connector for ChangesConnector {
    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self, base: &Path) -> Vec<Finding> {
        let broke = || vec![Finding::fail("login", "the check broke off", "report this")];
        apart(|| check::check(&self.doc, base)).unwrap_or_else(broke)
    }

    fn discover(&self, base: &Path) -> Result<Discovery, AdapterError> {
        let broke = || AdapterError::source_failed(ErrorClass::Permanent, "source.protocol", "the look broke off");
        apart(|| check::discover(&self.doc, base)).unwrap_or_else(|| Err(broke()))
    }

    fn open(&self, base: &Path) -> Result<Box<dyn Source>, AdapterError> {
        Ok(Box::new(source::ChangesSource::new(self.doc.clone(), base)?))
    }

    fn again(&self) -> Result<Again, AdapterError> {
        Ok(rows::again(&self.common, &self.doc.table.value))
    }
}
