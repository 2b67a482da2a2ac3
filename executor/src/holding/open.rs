//! The store that a URI names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::guard::Clock;
use super::{
    Guard, Guarded, Holding, HoldingError, MongoHolding, MongoOptions, PostgresHolding, PostgresOptions, RestSetup,
    SqliteHolding, SqliteOptions, WithRest,
};
use crate::limits::STATEMENT_TIMEOUT;

/// Which store, and how it may be used.
#[derive(Debug, Clone)]
pub struct HoldingSetup {
    /// `sqlite:PATH`, `postgresql://user:password@host:port/database` or `mongodb://…`; secrets resolved.
    pub uri: String,
    /// The schema (PostgreSQL) or database (MongoDB, before the URI's own) of our own tables; `concordat` without one.
    pub schema: Option<String>,
    /// Datasets that are an agency's own table or view, `schema.table`.
    pub external: BTreeMap<String, String>,
    /// Datasets that an agency's own HTTP service answers for, beside any store.
    pub services: BTreeMap<String, RestSetup>,
    /// Certificates that the server's is checked against.
    pub ca: Option<PathBuf>,
    /// How long one read may take.
    pub statement_timeout: std::time::Duration,
    /// The provider's limits.
    pub guard: Guard,
}

impl HoldingSetup {
    /// A setup with the defaults.
    pub fn new(uri: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            schema: None,
            external: BTreeMap::new(),
            services: BTreeMap::new(),
            ca: None,
            statement_timeout: STATEMENT_TIMEOUT,
            guard: Guard::default(),
        }
    }
}

/// Opens the store, behind its guard.
pub fn open(setup: &HoldingSetup, clock: Clock) -> Result<Arc<dyn Holding>, HoldingError> {
    let scheme = setup.uri.split(':').next().unwrap_or_default();
    let inner: Box<dyn Holding> = match scheme {
        "sqlite" => {
            if !setup.external.is_empty() {
                return Err(HoldingError::Setup("external tables need a PostgreSQL holding".into()));
            }
            let path = setup.uri.trim_start_matches("sqlite:");
            let options = SqliteOptions {
                statement_timeout: setup.statement_timeout,
                readers: setup.guard.concurrent,
                ..SqliteOptions::default()
            };
            Box::new(SqliteHolding::open(path.as_ref(), options)?)
        }
        "postgres" | "postgresql" => {
            let options = PostgresOptions {
                schema: setup.schema.clone().unwrap_or_else(|| "concordat".into()),
                external: setup.external.clone(),
                ca: setup.ca.clone(),
                readers: setup.guard.concurrent,
                statement_timeout: setup.statement_timeout,
                ..PostgresOptions::default()
            };
            Box::new(PostgresHolding::open(&setup.uri, options)?)
        }
        "mongodb" => {
            if !setup.external.is_empty() {
                return Err(HoldingError::Setup("external tables need a PostgreSQL holding".into()));
            }
            let options = MongoOptions {
                database: setup.schema.clone(),
                ca: setup.ca.clone(),
                readers: setup.guard.concurrent,
                statement_timeout: setup.statement_timeout,
                ..MongoOptions::default()
            };
            Box::new(MongoHolding::open(&setup.uri, options)?)
        }
        _ => return Err(HoldingError::Setup("the URI begins with sqlite:, postgresql:// or mongodb://".into())),
    };
    let inner = match setup.services.is_empty() {
        true => inner,
        false => Box::new(WithRest::new(inner, &setup.services, setup.ca.as_deref(), setup.statement_timeout)?),
    };
    Ok(Arc::new(Guarded::new(inner, setup.guard.clone(), clock)))
}
