//! The members of a document of this kind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::mysql::{self, MySqlSession};
use super::postgres::{PostgresSession, Reach};
use super::session::{Cause, Failure, Relation, Session};
use super::shift::Overlap;
use super::sql;
use super::sqlite::SqliteSession;
use super::tls::Tls;
use crate::adapter_document;
use crate::contract::AdapterError;
use crate::document::{DocumentError, Period, Secret};
use crate::tls::{self, Files};

/// Rows of one page.
pub(crate) const MAX_ROWS: u32 = 5_000;
/// Longest a statement may take.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Wait between two polls.
pub(crate) const EVERY: Duration = Duration::from_secs(5);

adapter_document! {
    /// A document of kind `sql-poll`.
    pub struct SqlPollDoc {
        /// Which database, and how.
        pub connect: Connect,
        /// A table or view, `schema.table` or `table`.
        #[serde(default)]
        pub table: Option<Spanned<String>>,
        /// A statement instead of a table.
        #[serde(default)]
        pub query: Option<Spanned<String>>,
        /// What orders the rows.
        #[serde(default)]
        pub cursor: Option<Cursor>,
        /// How rows disappear; must be chosen.
        pub deletes: Deletes,
    }
}

/// Which database, and how it is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// Where the address with login and password stands.
    pub dsn: Secret,
    /// TLS to the server.
    #[serde(default)]
    pub tls: TlsMode,
    /// File with the certificate of the server's authority; those of the machine when left out.
    #[serde(default)]
    pub ca: Option<String>,
    /// Always true: an adapter changes nothing at its source.
    #[serde(default = "yes")]
    pub read_only: bool,
}

fn yes() -> bool {
    true
}

/// TLS to the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// With a certificate that is checked, or not at all. Sockets of the machine and files need none.
    #[default]
    Require,
    /// In the clear, on a network that is trusted.
    Off,
}

/// What orders the rows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Columns that together tell every row from every other.
    pub columns: Vec<Spanned<String>>,
    /// How late a row may appear behind later ones: a period, or a number for a numeric cursor.
    #[serde(default)]
    pub overlap: Option<Spanned<String>>,
    /// First value of the first column that is read.
    #[serde(default)]
    pub start: Option<Spanned<String>>,
}

/// How rows disappear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletes {
    /// They do not, or nobody is told.
    None,
    /// This column says so.
    Soft(String),
    /// The whole table is compared with what was told.
    SnapshotDiff,
}

impl<'de> Deserialize<'de> for Deletes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Named {
            soft: String,
        }
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Deletes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`none`, `snapshot-diff`, or {soft: COLUMN}")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Deletes, E> {
                match text {
                    "none" => Ok(Deletes::None),
                    "snapshot-diff" => Ok(Deletes::SnapshotDiff),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(self, map: M) -> Result<Deletes, M::Error> {
                let named = Named::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(Deletes::Soft(named.soft))
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl SqlPollDoc {
    /// Checks what does not need the database.
    pub(crate) fn check(&self) -> Result<(), DocumentError> {
        let rule = |field: &str, detail: &str| Err(DocumentError::rule(field, detail));
        if !self.connect.read_only {
            return rule("connect.read_only", "an adapter never writes to its source; remove the key, or say true");
        }
        let columns = self.cursor.as_ref().map_or(&[][..], |c| &c.columns);
        match (&self.table, &self.query) {
            (None, None) => return rule("table", "name a `table`, or write a `query`"),
            (Some(_), Some(query)) => {
                return Err(DocumentError::at(query, "query", "a `table` is named too; keep one"));
            }
            (Some(table), None) if table.value.split('.').any(str::is_empty) => {
                return Err(DocumentError::at(table, "table", "write `table` or `schema.table`"));
            }
            (None, Some(query)) => {
                let start = self.cursor.as_ref().and_then(|c| c.start.as_ref());
                if sql::names_cursor(&query.value) && start.is_none() {
                    return rule("cursor.start", "is needed by a query that names `:cursor`");
                }
            }
            _ => {}
        }
        match &self.deletes {
            Deletes::SnapshotDiff if self.cursor.is_some() => {
                return rule(
                    "cursor",
                    "`deletes: snapshot-diff` compares all rows by the dataset's key; remove the cursor",
                );
            }
            Deletes::None | Deletes::Soft(_) if columns.is_empty() => {
                return rule("cursor.columns", "name the columns that order the rows, for example [changed_at, id]");
            }
            _ => {}
        }
        for (n, column) in columns.iter().enumerate() {
            if columns.iter().take(n).any(|c| c.value == column.value) {
                return Err(DocumentError::at(column, "cursor.columns", format!("`{}` stands twice", column.value)));
            }
        }
        self.overlap().map(drop)
    }

    /// The overlap, if there is one.
    pub(crate) fn overlap(&self) -> Result<Option<Overlap>, DocumentError> {
        let Some(text) = self.cursor.as_ref().and_then(|c| c.overlap.as_ref()) else { return Ok(None) };
        if let Ok(steps) = text.value.parse() {
            return Ok(Some(Overlap::Steps(steps)));
        }
        let period = Period::parse(&text.value).map_err(|e| DocumentError::at(text, "cursor.overlap", e))?;
        Ok(Some(Overlap::Time(period.0)))
    }

    /// Where the rows come from.
    pub(crate) fn relation(&self) -> Relation {
        match (&self.table, &self.query) {
            (_, Some(query)) => Relation::Query(query.value.trim().trim_end_matches(';').to_owned()),
            (table, None) => {
                let name = table.as_ref().map_or("", |t| t.value.as_str());
                Relation::Table(name.split('.').map(str::to_owned).collect())
            }
        }
    }

    /// The relation, for people.
    pub(crate) fn relation_name(&self) -> String {
        self.table.as_ref().map_or_else(|| "the query".to_owned(), |t| t.value.clone())
    }

    /// Longest a statement may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.poll.statement_timeout.map_or(STATEMENT_TIMEOUT, |p| p.0)
    }

    /// The database, with its secrets looked up.
    pub(crate) fn way(&self, base: &Path) -> Result<Way, AdapterError> {
        way(&self.connect, &self.adapter.value, base)
    }
}

/// A database and the way to it. Holds secrets: never shown.
#[derive(Clone)]
pub(crate) enum Way {
    /// PostgreSQL.
    Postgres(Box<Reach>),
    /// MySQL or MariaDB.
    MySql(mysql_async::Opts),
    /// A file of SQLite.
    Sqlite(PathBuf),
}

/// Looks up the secrets of `connect`.
pub(crate) fn way(connect: &Connect, adapter: &str, base: &Path) -> Result<Way, AdapterError> {
    let dsn = connect.dsn.reveal(base)?;
    let tls = connect.tls == TlsMode::Require;
    let files = Files { ca: connect.ca.as_deref(), ..Files::default() };
    let made = match dsn.split_once(':') {
        Some(("postgres" | "postgresql", _)) => {
            let tls = if tls { Some(Tls::new(tls::client(base, files)?)) } else { None };
            Reach::of(&dsn, tls, adapter).map(|r| Way::Postgres(Box::new(r)))
        }
        Some(("mysql" | "mariadb", _)) => {
            let ca = match connect.ca.as_ref().filter(|_| tls) {
                Some(file) => {
                    tls::client(base, files)?;
                    let read = std::fs::read(base.join(tls::path_of(file)));
                    Some(read.map_err(|source| AdapterError::Io { file: file.clone(), action: "read", source })?)
                }
                None => None,
            };
            mysql::options(&dsn, tls, ca).map(Way::MySql)
        }
        Some(("sqlite", path)) => Ok(Way::Sqlite(base.join(path.strip_prefix("//").unwrap_or(path)))),
        _ => Err(Failure::new(Cause::Refused, "the address begins with none of postgres:, mysql:, mariadb:, sqlite:")),
    };
    made.map_err(|e| e.at(&connect.dsn.to_string()))
}

impl Way {
    /// Server and database, for people.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Postgres(reach) => reach.place(),
            Self::MySql(options) => match options.socket() {
                Some(socket) => format!("mysql {socket}/{}", options.db_name().unwrap_or("?")),
                None => {
                    let name = options.db_name().unwrap_or("?");
                    format!("mysql {}:{}/{name}", options.ip_or_hostname(), options.tcp_port())
                }
            },
            Self::Sqlite(path) => format!("sqlite {}", path.display()),
        }
    }

    /// Host and port, where there is a network between.
    pub(crate) fn address(&self) -> Option<(String, u16)> {
        use tokio_postgres::config::Host;
        match self {
            Self::Postgres(reach) => match reach.config.get_hosts().first() {
                Some(Host::Tcp(host)) => {
                    Some((host.clone(), reach.config.get_ports().first().copied().unwrap_or(5_432)))
                }
                _ => None,
            },
            Self::MySql(options) if options.socket().is_none() => {
                Some((options.ip_or_hostname().to_owned(), options.tcp_port()))
            }
            _ => None,
        }
    }

    /// Opens the one session.
    pub(crate) fn connect(&self, timeout: Duration) -> Result<Box<dyn Session>, Failure> {
        Ok(match self {
            Self::Postgres(reach) => Box::new(PostgresSession::connect(reach, timeout)?),
            Self::MySql(options) => Box::new(MySqlSession::connect(options, timeout)?),
            Self::Sqlite(path) => Box::new(SqliteSession::open(path, timeout)?),
        })
    }
}
