//! Messages in a table of PostgreSQL: one transaction a page, a row a message, written by its id.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use zeroize::Zeroizing;

use super::document::Head;
use super::{Message, Sink};
use crate::contract::{AdapterError, ErrorClass, Reject};
use crate::document::{DocumentError, Secret};
use crate::kinds::sql_poll::runtime::Own;
use crate::kinds::sql_poll::tls::Tls;
use crate::tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where rows are written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct To {
    /// Where the database is and who writes, by reference: `postgres://user:password@host/database`.
    pub dsn: Secret,
    /// The table, `schema.table` or `table`.
    pub table: Spanned<String>,
    /// Certificates that are trusted, a PEM file; those of the machine when left out.
    #[serde(default)]
    pub ca: Option<String>,
    /// Makes the table if it is not there.
    #[serde(default)]
    pub create: bool,
}

/// Opens the sink.
pub fn open(head: &Head, to: &To, base: &Path) -> Result<Box<dyn Sink>, AdapterError> {
    let table = table(&to.table)?;
    let dsn = to.dsn.reveal(base)?;
    let runtime = Own::new().map_err(|e| e.at("the database"))?;
    let tls = Tls::new(tls::client(base, tls::Files { ca: to.ca.as_deref(), ..tls::Files::default() })?);
    let place = format!("{} of {}", to.table.value, head.subscription);
    Ok(Box::new(PostgresSink { runtime, tls, dsn, table, create: to.create, place, client: None }))
}

/// The table's name in quotes: nothing of it is ever read as SQL.
fn table(name: &Spanned<String>) -> Result<String, DocumentError> {
    let parts: Vec<&str> = name.value.split('.').collect();
    let good = |p: &&str| !p.is_empty() && p.len() <= 63 && !p.contains(['"', '\0']);
    if parts.len() > 2 || !parts.iter().all(good) {
        return Err(DocumentError::at(name, "to.table", "write TABLE or SCHEMA.TABLE"));
    }
    Ok(parts.iter().map(|p| format!("\"{p}\"")).collect::<Vec<_>>().join("."))
}

struct PostgresSink {
    runtime: Own,
    tls: Tls,
    dsn: Zeroizing<String>,
    table: String,
    create: bool,
    place: String,
    client: Option<Client>,
}

impl PostgresSink {
    fn failed(&self, error: &tokio_postgres::Error) -> AdapterError {
        let code = error.code().map(|c| c.code().to_owned()).unwrap_or_default();
        let (class, word) = match code.as_str() {
            "28000" | "28P01" => (ErrorClass::Auth, "source.login"),
            "42501" => (ErrorClass::Auth, "source.rights"),
            "42P01" | "42703" | "3F000" | "3D000" => (ErrorClass::Permanent, "source.missing"),
            c if c.starts_with("42") || c.starts_with("22") || c.starts_with("23") => {
                (ErrorClass::Permanent, "source.protocol")
            }
            _ => (ErrorClass::Transient, "source.unreachable"),
        };
        let detail = error.as_db_error().map_or_else(|| error.to_string(), |e| e.message().to_owned());
        AdapterError::source_failed(class, word, format!("{}: {detail}", self.place))
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, AdapterError> {
        self.runtime.wait(work).map_err(|e| e.at(&self.place))?.map_err(|e| self.failed(&e))
    }

    fn client(&mut self) -> Result<Client, AdapterError> {
        if let Some(client) = self.client.take().filter(|c| !c.is_closed()) {
            return Ok(client);
        }
        let mut config: tokio_postgres::Config = self.dsn.parse().map_err(|_| {
            let detail = format!("{}: `to.dsn` is not postgres://user:password@host/database", self.place);
            AdapterError::source_failed(ErrorClass::Permanent, "source.protocol", detail)
        })?;
        config.connect_timeout(CONNECT_TIMEOUT).application_name("concordat-sink");
        let create = self.create.then(|| {
            format!(
                "CREATE TABLE IF NOT EXISTS {} (id text PRIMARY KEY, seq bigint NOT NULL, time timestamptz, data jsonb NOT NULL, \
                 delivered_at timestamptz NOT NULL DEFAULT now())",
                self.table
            )
        });
        self.wait(async {
            let (client, connection) = config.connect(self.tls.clone()).await?;
            tokio::spawn(connection);
            client.batch_execute("SET statement_timeout = '30s'; SET TIME ZONE 'UTC'").await?;
            if let Some(create) = create {
                client.batch_execute(&create).await?;
            }
            Ok(client)
        })
    }
}

impl Sink for PostgresSink {
    fn deliver(&mut self, page: &[Message]) -> Result<Vec<Reject>, AdapterError> {
        let mut client = self.client()?;
        // A page may hold an id twice; one statement may not write a row twice. The later one stays.
        let mut rows: Vec<&Message> = Vec::with_capacity(page.len());
        let mut at = std::collections::HashMap::new();
        for message in page {
            match at.get(message.id.as_str()) {
                Some(n) => {
                    if let Some(row) = rows.get_mut(*n) {
                        *row = message;
                    }
                }
                None => {
                    at.insert(message.id.as_str(), rows.len());
                    rows.push(message);
                }
            }
        }
        let ids: Vec<&str> = rows.iter().map(|m| m.id.as_str()).collect();
        let seqs: Vec<i64> = rows.iter().map(|m| i64::try_from(m.seq).unwrap_or(i64::MAX)).collect();
        let times: Vec<Option<String>> =
            rows.iter().map(|m| m.time.as_ref().and_then(Value::as_str).map(str::to_owned)).collect();
        let data: Vec<String> = rows.iter().map(|m| Value::Object(m.data.clone()).to_string()).collect();
        let statement = format!(
            "INSERT INTO {} (id, seq, time, data) SELECT i, s, t::timestamptz, d::jsonb \
             FROM unnest($1::text[], $2::int8[], $3::text[], $4::text[]) AS page(i, s, t, d) \
             ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, time = excluded.time, data = excluded.data",
            self.table
        );
        let parameters: [&(dyn ToSql + Sync); 4] = [&ids, &seqs, &times, &data];
        self.wait(async {
            let transaction = client.transaction().await?;
            transaction.execute(&statement, &parameters).await?;
            transaction.commit().await
        })?;
        self.client = Some(client);
        Ok(vec![])
    }
}
