//! Which store keeps a node's records, and what its owner allows: `holding:` in `node.yaml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use concordat_executor::holding::{BlackOut, Guard, HoldingError, HoldingSetup};
use concordat_executor::limits::{CONCURRENT_QUERIES, MAX_PAGE_BYTES, MAX_PAGE_ROWS, STATEMENT_TIMEOUT};
use serde::{Deserialize, Serialize};

use super::external::External;
use super::{ConfigError, SecretRef};

/// Records in another store than the embedded one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldingConfig {
    /// The store's URI by reference, since it holds a password: `postgresql://…`, `mongodb://…` or `sqlite:PATH`.
    pub uri: SecretRef,
    /// Schema (PostgreSQL) or database (MongoDB, before the URI's own) of our own tables; `concordat` where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Datasets that the agency keeps elsewhere, by id: its own table or view in PostgreSQL, `schema.table`, or its own
    /// HTTP service, `{rest: {…}}`. Read, never written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub external: BTreeMap<String, External>,
    /// Certificates (PEM) that the server's is checked against, relative to the folder; the machine's where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// How long the store may work on one read, milliseconds.
    #[serde(default = "default_statement_ms")]
    pub statement_ms: u64,
    /// Queries at work on it at once.
    #[serde(default = "default_concurrent")]
    pub concurrent: usize,
    /// How long a query waits for its turn, milliseconds.
    #[serde(default = "default_wait_ms")]
    pub wait_ms: u64,
    /// Most rows of one page.
    #[serde(default = "default_page_rows")]
    pub page_rows: u32,
    /// Most bytes of one page.
    #[serde(default = "default_page_bytes")]
    pub page_bytes: usize,
    /// Hours in which no query is served: `[DAY[-DAY] ]HH:MM-HH:MM[ ZONE]`, like `mon-fri 08:00-10:00 Europe/Warsaw`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub black_out: Vec<String>,
}

fn default_statement_ms() -> u64 {
    u64::try_from(STATEMENT_TIMEOUT.as_millis()).unwrap_or(5_000)
}
fn default_concurrent() -> usize {
    CONCURRENT_QUERIES
}
fn default_wait_ms() -> u64 {
    1_000
}
fn default_page_rows() -> u32 {
    MAX_PAGE_ROWS
}
fn default_page_bytes() -> usize {
    MAX_PAGE_BYTES
}

impl HoldingConfig {
    /// A configuration with the defaults.
    pub fn new(uri: SecretRef) -> Self {
        Self {
            uri,
            schema: None,
            external: BTreeMap::new(),
            ca: None,
            statement_ms: default_statement_ms(),
            concurrent: default_concurrent(),
            wait_ms: default_wait_ms(),
            page_rows: default_page_rows(),
            page_bytes: default_page_bytes(),
            black_out: Vec::new(),
        }
    }

    /// The limits, or which rule a text breaks.
    pub fn guard(&self) -> Result<Guard, HoldingError> {
        if self.concurrent == 0 || self.page_rows == 0 || self.statement_ms == 0 {
            return Err(HoldingError::Setup("concurrent, page_rows and statement_ms are at least 1".into()));
        }
        Ok(Guard {
            concurrent: self.concurrent,
            wait: Duration::from_millis(self.wait_ms),
            page_rows: self.page_rows,
            page_bytes: self.page_bytes,
            black_out: self.black_out.iter().map(|text| text.parse::<BlackOut>()).collect::<Result<_, _>>()?,
        })
    }

    /// What the store is opened with; `dir` is the node's folder.
    pub fn setup(&self, dir: &Path) -> Result<HoldingSetup, ConfigError> {
        let bad = |e: HoldingError| super::field(&dir.join(super::NODE_FILE), "holding", e.to_string());
        let tables = self.external.iter().filter_map(|(id, e)| match e {
            External::Table(name) => Some((id.clone(), name.clone())),
            External::Rest(_) => None,
        });
        let mut services = BTreeMap::new();
        for (id, external) in &self.external {
            if let External::Rest(doc) = external {
                let named = |rule: String| {
                    super::field(&dir.join(super::NODE_FILE), "holding", format!("external {id}: {rule}"))
                };
                services.insert(id.clone(), doc.setup(dir, &named)?);
            }
        }
        Ok(HoldingSetup {
            uri: self.uri.resolve(dir)?.to_string(),
            schema: self.schema.clone(),
            external: tables.collect(),
            services,
            ca: self.ca.as_ref().map(|p| dir.join(p)),
            statement_timeout: Duration::from_millis(self.statement_ms),
            guard: self.guard().map_err(bad)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_store_is_named_by_reference_and_its_hours_are_read() {
        let read = |text: &str| serde_saphyr::from_str::<HoldingConfig>(text);
        let cfg = read("uri: env:RECORDS_URI\nexternal: {\"ds:police/stops@1\": public.v_stops}\nblack_out: [\"mon-fri 08:00-10:00 Europe/Warsaw\"]").unwrap();
        assert_eq!(cfg.guard().unwrap().black_out.len(), 1);
        assert_eq!(cfg.statement_ms, 5_000);
        assert!(read("uri: postgresql://me:secret@host/db").is_err(), "a secret in clear");
        assert!(read("uri: env:X\nconcurrency: 3").is_err(), "an unknown key");
        let bad = HoldingConfig { black_out: vec!["8-10".into()], ..HoldingConfig::new("env:X".parse().unwrap()) };
        let e = bad.guard().unwrap_err().to_string();
        assert!(e.contains("black_out \"8-10\""), "{e}");
    }
}
