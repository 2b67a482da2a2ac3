//! Reviews: what this agency says of an override, kept here, committed to on the ledger.

use crate::ledger::LedgerError;
use crate::ledger::node_client::NodeClient;
use crate::ledger::writer::Writer;
use crate::store::{Store, StoreError};
use concordat_protocol::codes::{self, Verdict};
use concordat_protocol::ids::{AgencyId, OpRef};
use concordat_protocol::leaves::LeafSet;
use concordat_protocol::node::ReviewDue;
use concordat_protocol::ops::Op;
use rusqlite::OptionalExtension;
use std::collections::BTreeMap;
use std::time::Duration;
use thiserror::Error;
use tracing::info;

/// The table of this module, made when the store opens.
pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS review (
  reference INTEGER PRIMARY KEY, text TEXT NOT NULL, outcome TEXT NOT NULL, by TEXT NOT NULL, secret BLOB NOT NULL,
  op INTEGER) STRICT;
";

/// How long the ledger may take.
const WITHIN: Duration = Duration::from_secs(30);

/// What a review says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// The override: global index.
    pub reference: u64,
    /// In words.
    pub text: String,
    /// `justified` or `unjustified`.
    pub outcome: String,
    /// Pseudonym of who reviewed.
    pub by: String,
}

/// A review as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reviewed {
    /// What it says.
    pub review: Review,
    /// Its own operation, once it is on the ledger.
    pub op: Option<u64>,
}

/// Why nothing was reviewed.
#[derive(Debug, Error)]
pub enum ReviewError {
    /// No review is due of it.
    #[error(
        "no review of {0} is due here: it is no override between this agency and another, or it was reviewed already"
    )]
    NotDue(OpRef),
    /// The writer is not up yet.
    #[error("the broker's writer is not on the ledger yet: see /readyz, then repeat")]
    NoWriter,
    /// The ledger took its time.
    #[error("the ledger did not take the review within {} s: look at the operation, then repeat", WITHIN.as_secs())]
    Timeout,
    /// The ledger refused it.
    #[error("the ledger refused the review: {}", codes::text(*.0))]
    Refused(u16),
    /// Randomness or leaves.
    #[error("the review could not be committed to: {0}")]
    Library(String),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ReviewError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotDue(_) => "review-not-due",
            Self::NoWriter => "writer-not-ready",
            Self::Timeout => "review-timeout",
            Self::Refused(_) => "review-refused",
            Self::Library(_) => "cryptography",
            Self::Ledger(e) => e.code(),
            Self::Store(e) => e.code(),
        }
    }
}

/// Reviews of this agency. Cheap to clone.
#[derive(Clone)]
pub struct Reviews {
    agency: AgencyId,
    node: NodeClient,
    store: Store,
}

impl Reviews {
    /// Reviews in a store.
    pub fn new(agency: AgencyId, node: NodeClient, store: Store) -> Self {
        Self { agency, node, store }
    }

    /// Reviews that are due under agreements of this agency, the first to be due first.
    pub async fn due(&self) -> Result<Vec<ReviewDue>, LedgerError> {
        let (due, agreements) = (self.node.reviews().await?, self.node.agreements().await?);
        let mut own: Vec<ReviewDue> =
            due.into_iter().filter(|d| super::is_party(&self.agency, d, &agreements)).collect();
        own.sort_by_key(|d| (d.due_ms, d.reference));
        Ok(own)
    }

    /// When the review of an operation is due, if it is.
    pub async fn due_of(&self, reference: u64) -> Result<Option<ReviewDue>, LedgerError> {
        Ok(self.node.reviews().await?.into_iter().find(|d| d.reference == reference))
    }

    /// This agency's own review of an operation.
    pub async fn kept(&self, reference: u64) -> Result<Option<Reviewed>, StoreError> {
        let sql = "SELECT text, outcome, by, op FROM review WHERE reference = ?1";
        let read = move |r: &rusqlite::Row<'_>| {
            let review = Review { reference, text: r.get(0)?, outcome: r.get(1)?, by: r.get(2)? };
            Ok(Reviewed { review, op: r.get::<_, Option<i64>>(3)?.map(|op| op as u64) })
        };
        self.store.run(move |db| db.query_row(sql, [reference as i64], read).optional()).await
    }

    /// Records a review and waits until the ledger has it. What it says stays here; the ledger has its commitment.
    pub async fn review(&self, review: Review, writer: Option<Writer>) -> Result<Reviewed, ReviewError> {
        let reference = review.reference;
        if !self.due().await?.iter().any(|d| d.reference == reference) {
            return Err(ReviewError::NotDue(OpRef(reference)));
        }
        let writer = writer.ok_or(ReviewError::NoWriter)?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|e| ReviewError::Library(e.to_string()))?;
        let leaf = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        let leaves = [leaf("by", &review.by), leaf("outcome", &review.outcome), leaf("text", &review.text)];
        let set = LeafSet::new(&secret, BTreeMap::from(leaves)).map_err(|e| ReviewError::Library(e.to_string()))?;
        // Kept first: what is committed to can be opened, whatever happens meanwhile.
        let kept = review.clone();
        let sql = "INSERT OR REPLACE INTO review (reference, text, outcome, by, secret) VALUES (?1, ?2, ?3, ?4, ?5)";
        let row = move |db: &rusqlite::Connection| {
            db.execute(sql, (reference as i64, kept.text, kept.outcome, kept.by, secret)).map(drop)
        };
        self.store.run(row).await?;
        let recorded = writer.record(Op::Review { reference, commitment: set.root() });
        let recorded = tokio::time::timeout(WITHIN, recorded).await.map_err(|_| ReviewError::Timeout)??;
        if recorded.verdict != Verdict::Accepted {
            let sql = "DELETE FROM review WHERE reference = ?1 AND secret = ?2 AND op IS NULL";
            self.store.run(move |db| db.execute(sql, (reference as i64, secret)).map(drop)).await?;
            return Err(ReviewError::Refused(recorded.code));
        }
        let op = recorded.index;
        let sql = "UPDATE review SET op = ?2 WHERE reference = ?1 AND secret = ?3";
        self.store.run(move |db| db.execute(sql, (reference as i64, op as i64, secret)).map(drop)).await?;
        info!(reference, op, outcome = review.outcome, "an override was reviewed");
        Ok(Reviewed { review, op: Some(op) })
    }
}
