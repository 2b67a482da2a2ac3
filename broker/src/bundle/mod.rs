//! Evidence bundles: one file that a court can use, and its check with nothing but itself and `trust.json`.
//!
//! The file is an ASiC-E container with a CAdES signature (ETSI EN 319 162-1): a ZIP whose manifest carries a hash of every
//! file. What proves something are the receipts; the signature over the manifest says only which node exported, and the
//! page for people and the JSON are the exporter's words (docs/adr/0023).

pub mod check;
pub mod collect;
pub mod container;
mod manifest;
mod page;
pub mod sign;
mod statement;

#[cfg(test)]
mod tests;

use crate::evidence::EvidenceError;
use crate::ledger::LedgerError;
use crate::receipts::ReceiptsError;
use crate::store::StoreError;
use container::Entry;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Media type of the container; the content of its first entry.
pub const MEDIA_TYPE: &str = "application/vnd.etsi.asic-e+zip";
/// Form of `export.json`.
pub const FORMAT: &str = "concordat-evidence/1";
/// Most operations of one bundle.
pub const OPERATIONS_MAX: usize = 1_000;

const MIMETYPE: &str = "mimetype";
const MANIFEST: &str = "META-INF/ASiCManifest001.xml";
const SIGNATURE: &str = "META-INF/signature001.p7s";
const EXPORT: &str = "export.json";
const TRUST: &str = "trust.json";
const STATEMENT: &str = "statement.pdf";

/// Why a bundle is not made, or not believed.
#[derive(Debug, Error)]
pub enum BundleError {
    /// No operation carries this case reference.
    #[error("this agency made no query under the case reference \"{0}\": check how it is written")]
    NoCase(String),
    /// More than one bundle holds.
    #[error(
        "the case reference \"{0}\" has more than {OPERATIONS_MAX} queries: narrow it with from_ms and until_ms (--from, --until)"
    )]
    TooMany(String),
    /// No such time zone.
    #[error("\"{0}\" is no time zone: write Europe/Berlin or UTC")]
    Zone(String),
    /// The container itself.
    #[error("{file}: {why}")]
    Refused {
        /// The file in the container; `container` for the ZIP.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// The page could not be made.
    #[error("statement.pdf: {0}")]
    Page(String),
    /// The key that signs manifests.
    #[error("key file {0}")]
    Key(String),
    /// The signature could not be made.
    #[error("the manifest's signature: {0}")]
    Sign(&'static str),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A receipt.
    #[error(transparent)]
    Receipts(#[from] ReceiptsError),
    /// What is kept of the chain's trust.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}

impl BundleError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoCase(_) => "bundle-no-case",
            Self::TooMany(_) => "bundle-too-many",
            Self::Zone(_) => "bundle-zone",
            Self::Refused { .. } => "bundle-refused",
            Self::Page(_) => "bundle-page",
            Self::Key(_) => "bundle-key",
            Self::Sign(_) => "bundle-signature",
            Self::Ledger(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::Receipts(e) => e.code(),
            Self::Evidence(e) => e.code(),
        }
    }

    fn refused(file: &str, why: impl Into<String>) -> Self {
        Self::Refused { file: file.to_owned(), why: why.into() }
    }
}

/// `export.json`: who exported what, and where it lies. The exporter's words; receipts prove themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// [`FORMAT`].
    pub format: String,
    /// The program that made it.
    pub tool: String,
    /// The chain.
    pub chain: String,
    /// Fingerprint of the chain's trust, to be compared by another way than the file came by.
    pub fingerprint: String,
    /// The case reference.
    pub case: String,
    /// The agency.
    pub agency: String,
    /// Name of the token that asked for the export.
    pub exported_by: String,
    /// When, by the agency's own clock, milliseconds since 1970.
    pub exported_at_ms: u64,
    /// The time zone of local times in the statement.
    pub zone: String,
    /// The operations, by their number in the log.
    pub operations: Vec<Operation>,
    /// Queries of the case without a receipt here.
    pub left_out: Vec<LeftOut>,
    /// The agreements that the operations name.
    pub agreements: Vec<AgreementPart>,
    /// The datasets that were asked about.
    pub datasets: Vec<DatasetPart>,
    /// Time-stamps of checkpoints.
    pub timestamps: Vec<TimestampPart>,
}

/// One operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// `op:N`.
    pub operation: String,
    /// Its receipt.
    pub receipt: String,
    /// Kind of the operation.
    pub kind: String,
    /// `released` or `denied`, as the agency's store has it.
    pub outcome: String,
    /// What the ledger said.
    pub verdict: String,
    /// `final` or `provisional`.
    pub status: String,
    /// Whether the release key counts as compromised.
    pub contested: bool,
    /// Who cosigned.
    pub cosigners: Vec<String>,
    /// Parties that did not.
    pub not_countersigned: Vec<String>,
    /// The consumer.
    pub consumer: String,
    /// The provider.
    pub provider: String,
    /// What was asked about.
    pub dataset: String,
    /// Purpose.
    pub purpose: String,
    /// Agreement or empty.
    pub agreement: String,
    /// Its version, where it is known.
    pub version: Option<u64>,
    /// Clause or empty.
    pub clause: String,
    /// The clause's sentence or empty.
    pub clause_text: String,
    /// How many rows were released.
    pub rows: Option<u64>,
    /// Tick of its block, milliseconds.
    pub tick_ms: u64,
    /// Height of its block.
    pub height: u64,
    /// Commitment leaves that the receipt opens, as text.
    pub opened: Vec<(String, String)>,
    /// Why it was denied, as the provider said.
    pub denied: String,
    /// Tokens that stamp the receipt's checkpoint.
    pub timestamps: Vec<String>,
}

/// A query of the case that the bundle has no receipt of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// `op:N`, or the request id where there is no operation.
    pub what: String,
    /// Outcome.
    pub outcome: String,
    /// Stable code.
    pub code: String,
    /// Why.
    pub why: String,
}

/// An agreement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreementPart {
    /// Its id.
    pub agreement: String,
    /// Version.
    pub version: u64,
    /// Hash of the terms, hex.
    pub terms_hash: String,
    /// Canonical bytes of the ledger's terms.
    pub terms: String,
    /// The document, where this agency has the very one.
    pub document: Option<String>,
    /// Its sentences.
    pub text: Option<String>,
}

/// A dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetPart {
    /// Its id.
    pub dataset: String,
    /// SHA-256 of the registered schema, hex.
    pub schema_sha256: String,
    /// The schema, where this agency has it.
    pub schema: Option<String>,
}

/// A time-stamp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimestampPart {
    /// The token, DER.
    pub token: String,
    /// What it stamps: canonical bytes of the checkpoint.
    pub checkpoint: String,
    /// The certificates given for the authority, PEM.
    pub certificate: String,
    /// The authority's address.
    pub tsa: String,
}

fn json_pretty<T: Serialize>(value: &T) -> Vec<u8> {
    // Structs of strings and numbers always serialise.
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}

/// Puts the container together: the files, their manifest and its signature.
///
/// # Errors
/// A name that no container may have, or the signature fails.
pub fn seal(files: &[Entry], key: &sign::BundleKey, now_ms: u64) -> Result<Vec<u8>, BundleError> {
    let manifest = manifest::write(files).into_bytes();
    let signature = key.sign(&manifest, now_ms)?;
    let mut all = vec![Entry::new(MIMETYPE, MEDIA_TYPE)];
    all.extend_from_slice(files);
    all.push(Entry::new(MANIFEST, manifest));
    all.push(Entry::new(SIGNATURE, signature));
    container::write(&all)
}
