//! SQLite by `rusqlite`: a file of this machine, opened for reading only.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter};

use super::session::{Cause, Column, Dialect, Failure, Line, Param, Relation, Session, Shape, Statement};
use super::sql;
use crate::convert::Fault;

/// Steps of the virtual machine between two looks at the clock.
const STEPS: i32 = 10_000;

/// How SQLite writes statements. A value has its own type, whatever the column's: keysets keep it in their first letter.
#[derive(Debug)]
pub(crate) struct Sqlite;

/// The one of it.
pub(crate) static SQLITE: Sqlite = Sqlite;

impl Dialect for Sqlite {
    fn quote(&self, name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    fn cell(&self, _: &Column, expression: &str) -> String {
        expression.to_owned()
    }

    fn value(&self, column: &Column, text: &str) -> Result<(String, Param), String> {
        let bad = || format!("a value kept for the cursor `{}` is not one of this database", column.name);
        let rest = text.get(1..).ok_or_else(bad)?;
        let param = match text.as_bytes().first() {
            Some(b'i') => Param::Integer(rest.parse().map_err(|_| bad())?),
            Some(b'r') => Param::Real(rest.parse().map_err(|_| bad())?),
            Some(b't') => Param::Text(rest.to_owned()),
            Some(b'b') => Param::Bytes(STANDARD.decode(rest).map_err(|_| bad())?),
            _ => return Err(bad()),
        };
        Ok(("{}".to_owned(), param))
    }

    fn placeholder(&self, _: usize) -> String {
        "?".to_owned()
    }

    fn compares_rows(&self) -> bool {
        true
    }

    fn start(&self, column: &Column, text: &str) -> String {
        match column.type_name.as_str() {
            "integer" if text.parse::<i64>().is_ok() => format!("i{text}"),
            "real" | "integer" if text.parse::<f64>().is_ok() => format!("r{text}"),
            _ => format!("t{text}"),
        }
    }

    fn split<'a>(&self, value: &'a str) -> (&'a str, &'a str) {
        value.split_at_checked(1).unwrap_or(("", value))
    }
}

/// A session of SQLite.
pub(crate) struct SqliteSession {
    connection: Connection,
    timeout: Duration,
}

impl SqliteSession {
    /// Opens a file for reading.
    pub(crate) fn open(path: &Path, timeout: Duration) -> Result<Self, Failure> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if !path.exists() {
            return Err(Failure::new(Cause::Missing, "there is no such file"));
        }
        let connection = Connection::open_with_flags(path, flags).map_err(|e| failure(&e))?;
        connection.busy_timeout(timeout).map_err(|e| failure(&e))?;
        connection.execute_batch("PRAGMA query_only = ON").map_err(|e| failure(&e))?;
        Ok(Self { connection, timeout })
    }

    /// From now on the statement timeout runs.
    fn begin(&self) -> Result<(), Failure> {
        let end = Instant::now() + self.timeout;
        self.connection.progress_handler(STEPS, Some(move || Instant::now() > end)).map_err(|e| failure(&e))
    }
}

fn failure(error: &rusqlite::Error) -> Failure {
    let words = error.to_string();
    let cause = match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => Cause::Timeout,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Cause::Busy,
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => Cause::Rights,
        Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure) => Cause::Lost,
        _ if words.contains("no such table") || words.contains("no such column") => Cause::Missing,
        _ => Cause::Refused,
    };
    Failure::new(cause, words)
}

/// The text of a value, and its form in a keyset.
fn texts(value: ValueRef<'_>) -> Result<(Option<String>, String), Fault> {
    Ok(match value {
        ValueRef::Null => (None, String::new()),
        ValueRef::Integer(n) => (Some(n.to_string()), format!("i{n}")),
        ValueRef::Real(n) => (Some(n.to_string()), format!("r{n:?}")),
        ValueRef::Text(bytes) => {
            let text = std::str::from_utf8(bytes)
                .map_err(|_| Fault::new("text.utf8", "the value is not UTF-8; correct it at the source"))?;
            (Some(text.to_owned()), format!("t{text}"))
        }
        ValueRef::Blob(bytes) => {
            let text = STANDARD.encode(bytes);
            let keyset = format!("b{text}");
            (Some(text), keyset)
        }
    })
}

impl Session for SqliteSession {
    fn dialect(&self) -> &'static dyn Dialect {
        &SQLITE
    }

    fn columns(&mut self, relation: &Relation) -> Result<Vec<Column>, Failure> {
        let from = match relation {
            Relation::Table(parts) => sql::table(&SQLITE, parts),
            Relation::Query(query) => format!("({})", sql::without_cursor(query)),
        };
        self.begin()?;
        let mut names: Vec<String> = Vec::new();
        {
            let statement =
                self.connection.prepare(&format!("SELECT * FROM {from} q LIMIT 0")).map_err(|e| failure(&e))?;
            names.extend(statement.column_names().into_iter().map(str::to_owned));
        }
        let mut columns = Vec::new();
        for name in names {
            let quoted = SQLITE.quote(&name);
            let text = format!("SELECT typeof({quoted}) FROM {from} q WHERE {quoted} IS NOT NULL LIMIT 1");
            let kind = self.texts(&text, &[])?.into_iter().flatten().flatten().next().unwrap_or_default();
            let shape = match kind.as_str() {
                "integer" => Shape::Integer,
                "real" => Shape::Number,
                "blob" => Shape::Bytes,
                _ => Shape::Plain,
            };
            columns.push(Column { name, type_name: kind, shape });
        }
        Ok(columns)
    }

    fn page(&mut self, statement: &Statement, columns: &[Column], cursor: &[usize]) -> Result<Vec<Line>, Failure> {
        self.begin()?;
        let mut prepared = self.connection.prepare_cached(&statement.text).map_err(|e| failure(&e))?;
        let params = statement.params.iter().map(|p| match p {
            Param::Text(text) => Value::Text(text.clone()),
            Param::Integer(n) => Value::Integer(*n),
            Param::Unsigned(n) => Value::Real(*n as f64),
            Param::Real(n) => Value::Real(*n),
            Param::Bytes(bytes) => Value::Blob(bytes.clone()),
        });
        let mut rows = prepared.query(params_from_iter(params)).map_err(|e| failure(&e))?;
        let mut lines = Vec::new();
        while let Some(row) = rows.next().map_err(|e| failure(&e))? {
            let (mut cells, mut forms, mut fault) = (Vec::with_capacity(columns.len()), Vec::new(), None);
            for n in 0..columns.len() {
                let value = row.get_ref(n).map_err(|e| failure(&e))?;
                let (cell, form) = texts(value).unwrap_or_else(|bad| {
                    fault = Some((n, bad));
                    // The keyset still moves on: bytes compare as the text they are.
                    (None, value.as_bytes().map_or_else(|_| String::new(), |b| format!("b{}", STANDARD.encode(b))))
                });
                cells.push(cell);
                forms.push(form);
            }
            let keyset = cursor.iter().map(|c| forms.get(*c).cloned().unwrap_or_default()).collect();
            let past: i64 = row.get(columns.len()).map_err(|e| failure(&e))?;
            lines.push(Line { cells, keyset, past: past == 1, fault });
        }
        Ok(lines)
    }

    fn texts(&mut self, text: &str, params: &[&str]) -> Result<Vec<Vec<Option<String>>>, Failure> {
        self.begin()?;
        let mut statement = self.connection.prepare(text).map_err(|e| failure(&e))?;
        let columns = statement.column_count();
        let mut rows = statement.query(params_from_iter(params)).map_err(|e| failure(&e))?;
        let mut out = Vec::new();
        while let Some(row) = rows.next().map_err(|e| failure(&e))? {
            let mut cells = Vec::new();
            for n in 0..columns {
                let value = row.get_ref(n).map_err(|e| failure(&e))?;
                cells.push(self::texts(value).ok().and_then(|(cell, _)| cell));
            }
            out.push(cells);
        }
        Ok(out)
    }
}
