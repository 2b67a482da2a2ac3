//! PostgreSQL by `tokio-postgres`: every value is cast to text by the server, so that nothing passes through a float.

use std::collections::HashMap;
use std::time::Duration;

use futures::TryStreamExt;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row};

use super::runtime::Own;
use super::session::{Cause, Column, Dialect, Failure, Line, Param, Relation, Session, Shape, Statement};
use super::sql;
use super::tls::Tls;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// What the network may add to the statement timeout.
const GRACE: Duration = Duration::from_secs(5);

/// How PostgreSQL writes statements.
#[derive(Debug)]
pub(crate) struct Postgres;

/// The one of it.
pub(crate) static POSTGRES: Postgres = Postgres;

impl Dialect for Postgres {
    fn quote(&self, name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    fn cell(&self, column: &Column, expression: &str) -> String {
        match column.shape {
            Shape::Bytes => format!("translate(encode({expression}, 'base64'), E'\\n', '')"),
            _ => format!("CAST({expression} AS text)"),
        }
    }

    fn value(&self, column: &Column, text: &str) -> Result<(String, Param), String> {
        let expression = match column.shape {
            Shape::Bytes => "decode({}::text, 'base64')".to_owned(),
            _ => format!("CAST({{}}::text AS {})", column.type_name),
        };
        Ok((expression, Param::Text(text.to_owned())))
    }

    fn placeholder(&self, n: usize) -> String {
        format!("${n}")
    }

    fn compares_rows(&self) -> bool {
        true
    }

    fn start(&self, _: &Column, text: &str) -> String {
        text.to_owned()
    }
}

/// How to reach a server.
#[derive(Clone)]
pub(crate) struct Reach {
    /// The driver's configuration, with name and password.
    pub config: Config,
    /// TLS, unless it is off or the way is a socket of this machine.
    pub tls: Option<Tls>,
}

impl Reach {
    /// Reads a DSN; `tls` is what a client trusts, none to speak in the clear.
    pub(crate) fn of(dsn: &str, tls: Option<Tls>, name: &str) -> Result<Self, Failure> {
        let mut config: Config = dsn
            .parse()
            .map_err(|_| Failure::new(Cause::Refused, "the text behind `connect.dsn` is no URI of PostgreSQL"))?;
        let local = !config.get_hosts().is_empty() && config.get_hosts().iter().all(|h| matches!(h, Host::Unix(_)));
        let tls = tls.filter(|_| !local);
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        config.connect_timeout(CONNECT).application_name(format!("concordat adapter {name}"));
        Ok(Self { config, tls })
    }

    /// Server and database, for people.
    pub(crate) fn place(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5_432);
        format!("postgres {host}:{port}/{}", self.config.get_dbname().unwrap_or("?"))
    }
}

/// A session of PostgreSQL.
pub(crate) struct PostgresSession {
    client: Client,
    own: Own,
    timeout: Duration,
    prepared: HashMap<String, tokio_postgres::Statement>,
}

impl PostgresSession {
    /// Connects and makes the session read-only, in UTC, bounded in time.
    pub(crate) fn connect(reach: &Reach, timeout: Duration) -> Result<Self, Failure> {
        let own = Own::new()?;
        let client = own.wait(async {
            let connecting = async {
                match &reach.tls {
                    Some(tls) => {
                        let (client, connection) = reach.config.connect(tls.clone()).await?;
                        tokio::spawn(connection);
                        Ok(client)
                    }
                    None => {
                        let (client, connection) = reach.config.connect(NoTls).await?;
                        tokio::spawn(connection);
                        Ok(client)
                    }
                }
            };
            within(2 * CONNECT, connecting).await
        })??;
        let mut session = Self { client, own, timeout, prepared: HashMap::new() };
        session.set(&format!(
            "SET default_transaction_read_only = on; SET statement_timeout = {0}; SET lock_timeout = {0}; \
             SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'iso_8601'; \
             SET extra_float_digits = 1; SET client_encoding = 'UTF8'; SET standard_conforming_strings = on",
            timeout.as_millis()
        ))?;
        Ok(session)
    }

    /// Runs statements that answer nothing.
    pub(crate) fn set(&mut self, text: &str) -> Result<(), Failure> {
        let (client, limit) = (&self.client, self.timeout + GRACE);
        self.own.wait(within(limit, async { client.batch_execute(text).await }))?
    }

    fn rows(&mut self, text: &str, params: &[&str]) -> Result<Vec<Row>, Failure> {
        if !self.prepared.contains_key(text) {
            let (client, limit) = (&self.client, self.timeout + GRACE);
            let types = vec![Type::TEXT; params.len()];
            let statement = self.own.wait(within(limit, async { client.prepare_typed(text, &types).await }))??;
            if self.prepared.len() >= 16 {
                self.prepared.clear();
            }
            self.prepared.insert(text.to_owned(), statement);
        }
        let Some(statement) = self.prepared.get(text) else { return Ok(Vec::new()) };
        let (client, limit) = (&self.client, self.timeout + GRACE);
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|p| p as &(dyn ToSql + Sync)).collect();
        self.own.wait(within(limit, async {
            let rows = client.query_raw(statement, params).await?;
            rows.try_collect().await
        }))?
    }
}

async fn within<T>(limit: Duration, f: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(limit, f).await {
        Ok(result) => result.map_err(|e| failure(&e)),
        Err(_) => Err(Failure::new(Cause::Lost, "the server did not answer in time")),
    }
}

/// The failure that an error of the driver is.
pub(crate) fn failure(error: &tokio_postgres::Error) -> Failure {
    let Some(db) = error.as_db_error() else {
        let mut words = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            words.push_str(&format!(": {inner}"));
            source = inner.source();
        }
        let cause = match &words {
            w if w.contains("password missing") => Cause::Login,
            w if w.contains("TLS") || w.contains("certificate") => Cause::Tls,
            _ => Cause::Lost,
        };
        return Failure::new(cause, words);
    };
    by_state(db.code(), db.message())
}

/// The failure that an SQLSTATE is.
pub(crate) fn by_state(state: &SqlState, message: &str) -> Failure {
    let code = state.code();
    let cause = match code {
        "42501" => Cause::Rights,
        "42P01" | "42703" | "3F000" | "3D000" | "42704" | "42883" => Cause::Missing,
        "57014" | "55P03" | "25P03" | "57P05" => Cause::Timeout,
        "53300" | "53400" => Cause::Busy,
        _ => match code.get(..2) {
            Some("28") => Cause::Login,
            Some("08" | "57" | "58") => Cause::Lost,
            Some("40" | "53" | "55") => Cause::Busy,
            _ => Cause::Refused,
        },
    };
    // Errors about data repeat the data.
    let words = if code.starts_with("22") { "a value cannot be read as the type it is compared with" } else { message };
    Failure::new(cause, format!("{words} (SQLSTATE {code})"))
}

fn shape(kind: &Type) -> Shape {
    match *kind {
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => Shape::Integer,
        Type::NUMERIC | Type::FLOAT4 | Type::FLOAT8 => Shape::Number,
        Type::BOOL => Shape::Boolean,
        Type::TIMESTAMPTZ => Shape::Instant,
        Type::TIMESTAMP => Shape::Clock,
        Type::BYTEA => Shape::Bytes,
        _ => Shape::Plain,
    }
}

/// An instant of a session in UTC, `2026-01-01 00:00:00.5+00`, as RFC 3339; anything else as it stands.
pub(crate) fn instant(text: &str) -> String {
    match text.strip_suffix("+00") {
        Some(clock) if clock.len() >= 19 && clock.get(10..11) == Some(" ") => {
            format!("{}Z", clock.replacen(' ', "T", 1))
        }
        _ => text.to_owned(),
    }
}

impl Session for PostgresSession {
    fn dialect(&self) -> &'static dyn Dialect {
        &POSTGRES
    }

    fn columns(&mut self, relation: &Relation) -> Result<Vec<Column>, Failure> {
        let from = match relation {
            Relation::Table(parts) => sql::table(&POSTGRES, parts),
            Relation::Query(query) => format!("({})", sql::without_cursor(query)),
        };
        let text = format!("SELECT * FROM {from} q LIMIT 0");
        let (client, limit) = (&self.client, self.timeout + GRACE);
        let statement = self.own.wait(within(limit, async { client.prepare(&text).await }))??;
        let oids: Vec<String> = statement.columns().iter().map(|c| c.type_().oid().to_string()).collect();
        let list = format!("{{{}}}", oids.join(","));
        let names = self.texts(
            "SELECT format_type(t.oid, NULL) FROM unnest(CAST($1::text AS oid[])) WITH ORDINALITY AS t(oid, n) ORDER BY t.n",
            &[&list],
        )?;
        let columns = statement.columns().iter().zip(names);
        Ok(columns
            .map(|(c, name)| Column {
                name: c.name().to_owned(),
                type_name: name.into_iter().next().flatten().unwrap_or_default(),
                shape: shape(c.type_()),
            })
            .collect())
    }

    fn page(&mut self, statement: &Statement, columns: &[Column], cursor: &[usize]) -> Result<Vec<Line>, Failure> {
        let params: Vec<&str> =
            statement.params.iter().map(|p| if let Param::Text(t) = p { t.as_str() } else { "" }).collect();
        let rows = self.rows(&statement.text, &params)?;
        let mut lines = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut cells = Vec::with_capacity(columns.len());
            for n in 0..columns.len() {
                cells.push(row.try_get::<_, Option<&str>>(n).map_err(|e| failure(&e))?.map(str::to_owned));
            }
            let keyset = cursor.iter().map(|c| cells.get(*c).cloned().flatten().unwrap_or_default()).collect();
            for (cell, column) in cells.iter_mut().zip(columns) {
                if let (Some(text), Shape::Instant) = (cell.as_mut(), column.shape) {
                    *text = instant(text);
                }
            }
            let past: i32 = row.try_get(columns.len()).map_err(|e| failure(&e))?;
            lines.push(Line { cells, keyset, past: past == 1, fault: None });
        }
        Ok(lines)
    }

    fn texts(&mut self, text: &str, params: &[&str]) -> Result<Vec<Vec<Option<String>>>, Failure> {
        let rows = self.rows(text, params)?;
        let mut out = Vec::new();
        for row in &rows {
            let mut cells = Vec::new();
            for n in 0..row.len() {
                cells.push(row.try_get::<_, Option<&str>>(n).map_err(|e| failure(&e))?.map(str::to_owned));
            }
            out.push(cells);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_class_that_a_person_would_give_them() {
        for (code, cause) in [
            ("28P01", Cause::Login),
            ("28000", Cause::Login),
            ("42501", Cause::Rights),
            ("42P01", Cause::Missing),
            ("42703", Cause::Missing),
            ("57014", Cause::Timeout),
            ("57P01", Cause::Lost),
            ("53300", Cause::Busy),
            ("40001", Cause::Busy),
            ("42601", Cause::Refused),
            ("22P02", Cause::Refused),
        ] {
            let found = by_state(&SqlState::from_code(code), "words");
            assert_eq!(found.cause, cause, "{code}");
        }
        assert!(!by_state(&SqlState::from_code("22P02"), "invalid: \"Canary\"").detail.contains("Canary"));
    }

    #[test]
    fn instants_are_written_as_the_mapping_reads_them() {
        assert_eq!(instant("2026-01-01 00:00:00.5+00"), "2026-01-01T00:00:00.5Z");
        assert_eq!(instant("infinity"), "infinity");
        assert_eq!(instant("0044-03-15 00:00:00+00 BC"), "0044-03-15 00:00:00+00 BC");
    }
}
