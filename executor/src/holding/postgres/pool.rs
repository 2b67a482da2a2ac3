//! Connections: some that only read, one or two that write, each with its timeouts set in the database itself.

use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

use super::PostgresOptions;
use super::tls::Tls;
use crate::holding::HoldingError;

/// Reading connections and writing connections.
#[derive(Clone)]
pub(super) struct Pools {
    pub read: Pool,
    pub write: Pool,
    tls: Option<Tls>,
}

/// Whether every host is this machine: nobody else sees what goes there in clear.
fn is_local(config: &Config) -> bool {
    config.get_hosts().iter().all(|h| match h {
        Host::Unix(_) => true,
        Host::Tcp(name) => matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1"),
    })
}

impl Pools {
    pub(super) fn new(uri: &str, options: &PostgresOptions) -> Result<Self, HoldingError> {
        // The driver's own words could repeat the URI, which has a password.
        let mut config: Config = uri.parse().map_err(|_| {
            HoldingError::Setup("the URI is not postgresql://user@host:port/database?sslmode=require".into())
        })?;
        if config.get_ssl_mode() == SslMode::Prefer {
            // The driver would fall back to plain text where the server says so: only this machine may.
            config.ssl_mode(if is_local(&config) { SslMode::Disable } else { SslMode::Require });
        }
        config.application_name("concordat");
        config.connect_timeout(options.connect_timeout);
        let tls = match config.get_ssl_mode() {
            SslMode::Disable => None,
            _ => Some(Tls::new(options.ca.as_deref())?),
        };
        let settings = |read_only: &str, timeout: Duration| {
            format!(
                "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = 60000; \
                 SET default_transaction_read_only = {read_only}; SET max_parallel_workers_per_gather = 0; \
                 SET search_path = pg_catalog; SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; \
                 SET standard_conforming_strings = on; SET client_min_messages = warning",
                timeout.as_millis().max(1),
                options.lock_timeout.as_millis().max(1),
            )
        };
        let pool = |size: usize, settings: String| {
            let how = ManagerConfig { recycling_method: RecyclingMethod::Fast };
            let manager = match &tls {
                Some(tls) => Manager::from_config(config.clone(), tls.clone(), how),
                None => Manager::from_config(config.clone(), NoTls, how),
            };
            let set = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
                let settings = settings.clone();
                Box::pin(async move { client.batch_execute(&settings).await.map_err(HookError::Backend) })
            });
            let pool = Pool::builder(manager).max_size(size.max(1)).runtime(Runtime::Tokio1).post_create(set);
            let pool = pool.wait_timeout(Some(options.statement_timeout)).create_timeout(Some(options.connect_timeout));
            pool.build().map_err(|e| HoldingError::Setup(e.to_string()))
        };
        Ok(Self {
            read: pool(options.readers, settings("on", options.statement_timeout))?,
            // A load or an index takes longer than a query may; the executor's lease does not wait for it.
            write: pool(3, settings("off", Duration::from_secs(600)))?,
            tls,
        })
    }

    /// Stops what a connection is still doing for us.
    pub(super) fn cancel(&self, client: &deadpool_postgres::Client) {
        let (token, tls) = (client.cancel_token(), self.tls.clone());
        tokio::spawn(async move {
            // The connection drains by itself if this fails: only the database does more than needed.
            let _ = match tls {
                Some(tls) => token.cancel_query(tls).await,
                None => token.cancel_query(NoTls).await,
            };
        });
    }
}

/// A connection of a pool, or why there is none.
pub(super) async fn take(pool: &Pool) -> Result<deadpool_postgres::Client, HoldingError> {
    pool.get().await.map_err(|e| match e {
        PoolError::Timeout(_) if pool.status().size >= pool.status().max_size => {
            HoldingError::Busy { max: pool.status().max_size }
        }
        PoolError::Timeout(_) => HoldingError::Unreachable("it did not answer in time".into()),
        PoolError::Backend(e) | PoolError::PostCreateHook(HookError::Backend(e)) => match told(e) {
            HoldingError::Store(text) => HoldingError::Unreachable(text),
            other => other,
        },
        other => HoldingError::Unreachable(other.to_string()),
    })
}

/// Turns the database's answer into ours.
pub(super) fn told(e: tokio_postgres::Error) -> HoldingError {
    let Some(db) = e.as_db_error() else {
        let cause = std::error::Error::source(&e).map_or_else(|| e.to_string(), |s| s.to_string());
        return HoldingError::Unreachable(cause);
    };
    let text = format!("{} ({})", db.message(), db.code().code());
    match db.code() {
        c if *c == SqlState::QUERY_CANCELED => HoldingError::Timeout,
        c if *c == SqlState::LOCK_NOT_AVAILABLE || *c == SqlState::T_R_DEADLOCK_DETECTED => HoldingError::Locked,
        c if *c == SqlState::DISK_FULL => HoldingError::DiskFull,
        c if *c == SqlState::INSUFFICIENT_PRIVILEGE || *c == SqlState::READ_ONLY_SQL_TRANSACTION => {
            HoldingError::Access(text)
        }
        c if *c == SqlState::PROGRAM_LIMIT_EXCEEDED => {
            HoldingError::TooLarge { what: "an indexed value's bytes", max: 2_600, next: "index another field" }
        }
        c if *c == SqlState::UNDEFINED_TABLE || *c == SqlState::UNDEFINED_COLUMN => HoldingError::Damaged(text),
        c if ["08", "28", "3D", "53", "57"].iter().any(|class| c.code().starts_with(class)) => {
            HoldingError::Unreachable(text)
        }
        _ => HoldingError::Store(text),
    }
}
