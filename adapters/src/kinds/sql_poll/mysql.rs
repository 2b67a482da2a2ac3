//! MySQL and MariaDB by `mysql_async`, in the binary protocol: numbers and clocks arrive as they are, not as printed.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mysql_async::consts::ColumnType;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, IoError, Opts, OptsBuilder, Params, Row, SslOpts, Value};

use super::runtime::Own;
use super::session::{Cause, Column, Dialect, Failure, Line, Param, Relation, Session, Shape, Statement};
use super::sql;
use crate::convert::Fault;

const CONNECT: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(5);
/// The character set that means bytes.
const BINARY: u16 = 63;

/// How MySQL writes statements.
#[derive(Debug)]
pub(crate) struct MySql;

/// The one of it.
pub(crate) static MYSQL: MySql = MySql;

impl Dialect for MySql {
    fn quote(&self, name: &str) -> String {
        format!("`{}`", name.replace('`', "``"))
    }

    fn cell(&self, _: &Column, expression: &str) -> String {
        expression.to_owned()
    }

    fn value(&self, column: &Column, text: &str) -> Result<(String, Param), String> {
        let bad = || format!("a value kept for the cursor `{}` is no {}", column.name, column.type_name);
        let plain = || "{}".to_owned();
        Ok(match column.type_name.as_str() {
            // Text beside a number would be compared as floating numbers.
            "bigint" => match text.parse() {
                Ok(n) => (plain(), Param::Integer(n)),
                Err(_) => (plain(), Param::Unsigned(text.parse().map_err(|_| bad())?)),
            },
            "decimal" => ("CAST({} AS DECIMAL(65,30))".to_owned(), Param::Text(text.to_owned())),
            "double" => (plain(), Param::Real(text.parse().map_err(|_| bad())?)),
            "float" => {
                return Err(format!(
                    "`{}` is a FLOAT, which cannot be compared exactly; take another cursor",
                    column.name
                ));
            }
            "datetime" | "timestamp" => ("CAST({} AS DATETIME(6))".to_owned(), Param::Text(clock(text))),
            "date" => ("CAST({} AS DATE)".to_owned(), Param::Text(text.to_owned())),
            "bytes" => (plain(), Param::Bytes(STANDARD.decode(text).map_err(|_| bad())?)),
            _ => (plain(), Param::Text(text.to_owned())),
        })
    }

    fn placeholder(&self, _: usize) -> String {
        "?".to_owned()
    }

    fn compares_rows(&self) -> bool {
        false
    }

    fn start(&self, _: &Column, text: &str) -> String {
        text.to_owned()
    }
}

/// RFC 3339 in UTC as the server reads it.
fn clock(text: &str) -> String {
    text.trim_end_matches('Z').replacen('T', " ", 1)
}

/// A session of MySQL or MariaDB.
pub(crate) struct MySqlSession {
    conn: Option<Conn>,
    own: Own,
    timeout: Duration,
    prepared: HashMap<String, mysql_async::Statement>,
}

/// Reads a DSN; `ca` is the PEM text of `connect.ca`.
pub(crate) fn options(dsn: &str, tls: bool, ca: Option<Vec<u8>>) -> Result<Opts, Failure> {
    let url = dsn.strip_prefix("mariadb:").map_or_else(|| dsn.to_owned(), |rest| format!("mysql:{rest}"));
    let parsed = Opts::from_url(&url)
        .map_err(|_| Failure::new(Cause::Refused, "the text behind `connect.dsn` is no URI of MySQL or MariaDB"))?;
    let socket = parsed.socket().is_some();
    let mut builder = OptsBuilder::from_opts(parsed).prefer_socket(socket).tcp_keepalive(Some(Duration::from_secs(30)));
    builder = builder.ssl_opts(None::<SslOpts>);
    if tls && !socket {
        let named = ca.is_some();
        let roots = match ca {
            Some(pem) => vec![pem.into()],
            None => rustls_native_certs::load_native_certs().certs.into_iter().map(|c| c.to_vec().into()).collect(),
        };
        let options = SslOpts::default().with_root_certs(roots).with_disable_built_in_roots(named);
        builder = builder.ssl_opts(Some(options));
    }
    Ok(builder.into())
}

impl MySqlSession {
    /// Connects and makes the session read-only, in UTC, bounded in time.
    pub(crate) fn connect(options: &Opts, timeout: Duration) -> Result<Self, Failure> {
        let own = Own::new()?;
        let conn = own.wait(within(2 * CONNECT, Conn::new(options.clone())))??;
        let mut session = Self { conn: Some(conn), own, timeout, prepared: HashMap::new() };
        let version = session.texts("SELECT VERSION()", &[])?;
        let maria = version.first().and_then(|r| r.first().cloned().flatten()).is_some_and(|v| v.contains("MariaDB"));
        let limit = if maria {
            format!("SET SESSION max_statement_time = {}", timeout.as_secs_f64())
        } else {
            format!("SET SESSION max_execution_time = {}", timeout.as_millis())
        };
        for text in [
            limit.as_str(),
            "SET SESSION time_zone = '+00:00'",
            "SET NAMES utf8mb4",
            "SET SESSION TRANSACTION READ ONLY",
        ] {
            session.ask(async |conn| conn.query_drop(text).await)?;
        }
        Ok(session)
    }

    fn ask<T>(&mut self, f: impl AsyncFnOnce(&mut Conn) -> Result<T, Error>) -> Result<T, Failure> {
        let (limit, closed) = (self.timeout + GRACE, || Failure::new(Cause::Lost, "the connection is closed"));
        let conn = self.conn.as_mut().ok_or_else(closed)?;
        self.own.wait(within(limit, f(conn)))?
    }

    fn rows(&mut self, text: &str, params: Vec<Value>) -> Result<Vec<Row>, Failure> {
        let statement = match self.prepared.get(text) {
            Some(statement) => statement.clone(),
            None => {
                let statement = self.ask(async |conn| conn.prep(text).await)?;
                self.prepared.insert(text.to_owned(), statement.clone());
                statement
            }
        };
        let params = if params.is_empty() { Params::Empty } else { Params::Positional(params) };
        self.ask(async |conn| conn.exec(&statement, params).await)
    }
}

impl Drop for MySqlSession {
    fn drop(&mut self) {
        // The driver says goodbye in a task of the runtime, which must be there.
        let conn = self.conn.take();
        let _ = self.own.enter(|| drop(conn));
    }
}

async fn within<T>(limit: Duration, f: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(limit, f).await {
        Ok(result) => result.map_err(|e| failure(&e)),
        Err(_) => Err(Failure::new(Cause::Lost, "the server did not answer in time")),
    }
}

/// The failure that an error of the driver is.
fn failure(error: &Error) -> Failure {
    match error {
        Error::Server(server) => {
            Failure::new(by_code(server.code), format!("{} (error {})", server.message, server.code))
        }
        Error::Io(IoError::Tls(e)) => Failure::new(Cause::Tls, e.to_string()),
        // What rustls refuses in the handshake comes as a failure of the stream.
        Error::Io(IoError::Io(e)) if e.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            Failure::new(Cause::Tls, e.to_string())
        }
        Error::Driver(mysql_async::DriverError::NoClientSslFlagFromServer) => {
            Failure::new(Cause::Tls, "the server does not offer TLS")
        }
        Error::Driver(mysql_async::DriverError::UnknownAuthPlugin { name }) => {
            Failure::new(Cause::Login, format!("the login uses `{name}`, which is not spoken here"))
        }
        Error::Url(_) => Failure::new(Cause::Refused, "the text behind `connect.dsn` is no URI of MySQL or MariaDB"),
        other => Failure::new(Cause::Lost, other.to_string()),
    }
}

fn by_code(code: u16) -> Cause {
    match code {
        1_045 | 1_130 | 1_251 | 1_698 | 1_820 | 1_862 | 3_118 | 4_151 => Cause::Login,
        1_044 | 1_142 | 1_143 | 1_227 | 1_370 => Cause::Rights,
        1_049 | 1_051 | 1_054 | 1_109 | 1_146 => Cause::Missing,
        3_159 => Cause::Tls,
        1_317 | 1_907 | 1_969 | 3_024 => Cause::Timeout,
        1_040 | 1_203 | 1_205 | 1_213 | 1_226 => Cause::Busy,
        1_053 | 1_077 | 1_152 | 1_159 | 1_161 | 1_927 | 4_031 => Cause::Lost,
        _ => Cause::Refused,
    }
}

fn column(found: &mysql_async::Column) -> Column {
    use ColumnType as T;
    let bytes = found.character_set() == BINARY;
    let (type_name, shape) = match found.column_type() {
        T::MYSQL_TYPE_TINY
        | T::MYSQL_TYPE_SHORT
        | T::MYSQL_TYPE_INT24
        | T::MYSQL_TYPE_LONG
        | T::MYSQL_TYPE_LONGLONG
        | T::MYSQL_TYPE_YEAR => ("bigint", Shape::Integer),
        T::MYSQL_TYPE_BIT => ("bigint", Shape::Integer),
        T::MYSQL_TYPE_DECIMAL | T::MYSQL_TYPE_NEWDECIMAL => ("decimal", Shape::Number),
        T::MYSQL_TYPE_DOUBLE => ("double", Shape::Number),
        T::MYSQL_TYPE_FLOAT => ("float", Shape::Number),
        T::MYSQL_TYPE_TIMESTAMP | T::MYSQL_TYPE_TIMESTAMP2 => ("timestamp", Shape::Instant),
        T::MYSQL_TYPE_DATETIME | T::MYSQL_TYPE_DATETIME2 => ("datetime", Shape::Clock),
        T::MYSQL_TYPE_DATE | T::MYSQL_TYPE_NEWDATE => ("date", Shape::Plain),
        T::MYSQL_TYPE_GEOMETRY => ("bytes", Shape::Bytes),
        T::MYSQL_TYPE_TINY_BLOB
        | T::MYSQL_TYPE_MEDIUM_BLOB
        | T::MYSQL_TYPE_LONG_BLOB
        | T::MYSQL_TYPE_BLOB
        | T::MYSQL_TYPE_VAR_STRING
        | T::MYSQL_TYPE_STRING
        | T::MYSQL_TYPE_VARCHAR
            if bytes =>
        {
            ("bytes", Shape::Bytes)
        }
        _ => ("text", Shape::Plain),
    };
    Column { name: found.name_str().into_owned(), type_name: type_name.to_owned(), shape }
}

/// The exact text of a value: for the cell, and for the cursor.
fn text(value: &Value, kind: ColumnType, shape: Shape) -> Result<Option<String>, Fault> {
    Ok(Some(match value {
        Value::NULL => return Ok(None),
        Value::Int(n) => n.to_string(),
        Value::UInt(n) => n.to_string(),
        Value::Float(n) => n.to_string(),
        Value::Double(n) => n.to_string(),
        Value::Bytes(bytes) if kind == ColumnType::MYSQL_TYPE_BIT => {
            bytes.iter().fold(0_u64, |n, b| (n << 8) | u64::from(*b)).to_string()
        }
        Value::Bytes(bytes) if shape == Shape::Bytes => STANDARD.encode(bytes),
        Value::Bytes(bytes) => std::str::from_utf8(bytes)
            .map_err(|_| Fault::new("text.utf8", "the value is not UTF-8; correct it at the source"))?
            .to_owned(),
        Value::Date(y, m, d, h, mi, s, us) => {
            let day = format!("{y:04}-{m:02}-{d:02}");
            match (kind, us) {
                (ColumnType::MYSQL_TYPE_DATE | ColumnType::MYSQL_TYPE_NEWDATE, _) => day,
                (_, 0) => format!("{day} {h:02}:{mi:02}:{s:02}"),
                (_, us) => format!("{day} {h:02}:{mi:02}:{s:02}.{us:06}"),
            }
        }
        Value::Time(negative, days, h, m, s, us) => {
            let (sign, hours) = (if *negative { "-" } else { "" }, u64::from(*days) * 24 + u64::from(*h));
            let fraction = if *us == 0 { String::new() } else { format!(".{us:06}") };
            format!("{sign}{hours:02}:{m:02}:{s:02}{fraction}")
        }
    }))
}

impl Session for MySqlSession {
    fn dialect(&self) -> &'static dyn Dialect {
        &MYSQL
    }

    fn columns(&mut self, relation: &Relation) -> Result<Vec<Column>, Failure> {
        let from = match relation {
            Relation::Table(parts) => sql::table(&MYSQL, parts),
            Relation::Query(query) => format!("({})", sql::without_cursor(query)),
        };
        let text = format!("SELECT * FROM {from} q LIMIT 0");
        self.ask(async |conn| {
            let statement = conn.prep(text).await?;
            let columns = statement.columns().iter().map(column).collect();
            conn.close(statement).await?;
            Ok(columns)
        })
    }

    fn page(&mut self, statement: &Statement, columns: &[Column], cursor: &[usize]) -> Result<Vec<Line>, Failure> {
        let params = statement.params.iter().map(|p| match p {
            Param::Text(text) => Value::Bytes(text.clone().into_bytes()),
            Param::Integer(n) => Value::Int(*n),
            Param::Unsigned(n) => Value::UInt(*n),
            Param::Real(n) => Value::Double(*n),
            Param::Bytes(bytes) => Value::Bytes(bytes.clone()),
        });
        let rows = self.rows(&statement.text, params.collect())?;
        let mut lines = Vec::with_capacity(rows.len());
        for row in rows {
            let kinds: Vec<ColumnType> = row.columns_ref().iter().map(mysql_async::Column::column_type).collect();
            let values = row.unwrap();
            let past = matches!(values.last(), Some(Value::Int(1) | Value::UInt(1)));
            let (mut cells, mut fault) = (Vec::with_capacity(columns.len()), None);
            for (n, (value, column)) in values.iter().zip(columns).enumerate() {
                let kind = kinds.get(n).copied().unwrap_or(ColumnType::MYSQL_TYPE_STRING);
                cells.push(text(value, kind, column.shape).unwrap_or_else(|bad| {
                    fault = Some((n, bad));
                    None
                }));
            }
            let keyset = cursor.iter().map(|c| cells.get(*c).cloned().flatten().unwrap_or_default()).collect();
            for (cell, column) in cells.iter_mut().zip(columns) {
                if let (Some(text), Shape::Instant) = (cell.as_mut(), column.shape) {
                    *text = format!("{}Z", text.replacen(' ', "T", 1));
                }
            }
            lines.push(Line { cells, keyset, past, fault });
        }
        Ok(lines)
    }

    fn texts(&mut self, text: &str, params: &[&str]) -> Result<Vec<Vec<Option<String>>>, Failure> {
        let rows = self.rows(text, params.iter().map(|p| Value::Bytes(p.as_bytes().to_vec())).collect())?;
        let one = |value: Value| self::text(&value, ColumnType::MYSQL_TYPE_DATETIME, Shape::Plain).ok().flatten();
        Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(one).collect()).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_are_exact_text() {
        use ColumnType as T;
        for (value, kind, want) in [
            (Value::Date(2026, 1, 2, 3, 4, 5, 0), T::MYSQL_TYPE_DATETIME, "2026-01-02 03:04:05"),
            (Value::Date(2026, 1, 2, 3, 4, 5, 60), T::MYSQL_TYPE_DATETIME, "2026-01-02 03:04:05.000060"),
            (Value::Date(2026, 1, 2, 0, 0, 0, 0), T::MYSQL_TYPE_DATE, "2026-01-02"),
            (Value::Date(0, 0, 0, 0, 0, 0, 0), T::MYSQL_TYPE_DATE, "0000-00-00"),
            (Value::Time(true, 1, 2, 3, 4, 0), T::MYSQL_TYPE_TIME, "-26:03:04"),
            (Value::UInt(u64::MAX), T::MYSQL_TYPE_LONGLONG, "18446744073709551615"),
            (Value::Float(0.1), T::MYSQL_TYPE_FLOAT, "0.1"),
            (Value::Bytes(vec![1, 2]), T::MYSQL_TYPE_BIT, "258"),
            (Value::Bytes(b"1.50".to_vec()), T::MYSQL_TYPE_NEWDECIMAL, "1.50"),
        ] {
            assert_eq!(text(&value, kind, Shape::Plain).unwrap().as_deref(), Some(want));
        }
        assert_eq!(
            text(&Value::Bytes(vec![0, 255]), T::MYSQL_TYPE_BLOB, Shape::Bytes).unwrap().as_deref(),
            Some("AP8=")
        );
        assert_eq!(text(&Value::Bytes(vec![255]), T::MYSQL_TYPE_STRING, Shape::Plain).unwrap_err().rule, "text.utf8");
    }

    #[test]
    fn errors_have_the_class_that_a_person_would_give_them() {
        for (code, cause) in [
            (1_045, Cause::Login),
            (1_142, Cause::Rights),
            (1_146, Cause::Missing),
            (1_054, Cause::Missing),
            (1_969, Cause::Timeout),
            (3_024, Cause::Timeout),
            (1_040, Cause::Busy),
            (1_927, Cause::Lost),
            (1_064, Cause::Refused),
        ] {
            assert_eq!(by_code(code), cause, "{code}");
        }
    }
}
