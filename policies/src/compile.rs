//! The compiler: a document to ledger terms, policy rows and rendered text. Deterministic: the same bytes in, the same
//! bytes out, so that anyone can recompile and compare hashes.

use crate::document::Agreement;
use crate::render::render;
use crate::rows::PolicyRows;
use crate::yaml::YamlError;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::terms::{ClauseTerms, Terms, purpose_hash};
use thiserror::Error;

/// Version of this compiler; it stands in the terms. Raise it with every change of output.
pub const COMPILER_VERSION: u64 = 1;
/// Stands in the table for "any purpose" (prohibitions and public data).
pub const ANY_PURPOSE: Hash = [0; 32];

/// Why an agreement cannot be used.
#[derive(Debug, Error)]
pub enum CompileError {
    /// The document is refused.
    #[error(transparent)]
    Document(#[from] YamlError),
    /// The document compiles to other terms than were agreed.
    #[error(
        "terms: the document of {agreement} version {version} compiles to {got}, the ledger has {want}: get the document that was approved"
    )]
    Mismatch {
        /// The agreement.
        agreement: String,
        /// Its version.
        version: u64,
        /// Hash of the terms compiled here.
        got: String,
        /// Hash on the ledger.
        want: String,
    },
}

impl CompileError {
    /// Stable code from the protocol's registry.
    pub fn code(&self) -> u16 {
        match self {
            Self::Document(_) => concordat_protocol::codes::BAD_VALUE,
            Self::Mismatch { .. } => concordat_protocol::codes::TERMS_MISMATCH,
        }
    }
}

/// A document with everything made from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// The checked document.
    pub document: Agreement,
    /// What the ledger gets.
    pub terms: Terms,
    /// What Casbin gets, and the duties.
    pub rows: PolicyRows,
    /// What people read and approve.
    pub text: String,
}

impl Compiled {
    /// The hash both sides approve.
    pub fn terms_hash(&self) -> Hash {
        self.terms.hash()
    }
}

/// Compiles a document.
pub fn compile(yaml: &str) -> Result<Compiled, YamlError> {
    let document = Agreement::parse(yaml)?;
    let rows = PolicyRows::of(&document);
    let text = render(&document);
    let clauses = document.clauses.iter().map(|c| ClauseTerms {
        id: c.id.clone(),
        effect: c.effect,
        actions: c.action_bits(),
        purpose: c.purpose.as_deref().map_or(ANY_PURPOSE, purpose_hash),
        evidence: c.evidence.clone(),
        from_ms: c.valid.from_ms,
        until_ms: c.valid.until_ms,
        quota: c.quota(),
        review_ms: c.review_ms(),
    });
    let terms = Terms {
        agreement: document.agreement.clone(),
        version: document.version,
        assigner: document.assigner.clone(),
        assignee: document.assignee.clone(),
        dataset: document.target.clone(),
        assigner_roles: document.assigner_roles.clone(),
        assignee_roles: document.assignee_roles.clone(),
        clauses: clauses.collect(),
        yaml_hash: sha256(&[yaml.as_bytes()]),
        rows_hash: rows.hash(),
        text_hash: sha256(&[text.as_bytes()]),
        paper_hashes: document.paper.iter().map(|p| p.sha256).collect(),
        compiler_version: COMPILER_VERSION,
    };
    // The copy's texts and lists are as long as what they hold: agreements are kept by the thousand.
    Ok(Compiled { document, terms, rows, text }.clone())
}

/// Compiles a document and refuses it unless it gives the terms the ledger has.
pub fn compile_agreed(yaml: &str, terms_hash: &Hash) -> Result<Compiled, CompileError> {
    let c = compile(yaml)?;
    let got = c.terms_hash();
    if got != *terms_hash {
        return Err(CompileError::Mismatch {
            agreement: c.document.agreement.to_string(),
            version: c.document.version,
            got: hex::encode(got),
            want: hex::encode(terms_hash),
        });
    }
    Ok(c)
}
