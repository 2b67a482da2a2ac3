//! Which values a clause lets its provider show altered, by this agency's own copy of the document (pure).
//!
//! The ledger has only a hash of the duties. So the document whose terms hash both sides approved says them, and nothing in a
//! delivery does.

use super::check::FeedProofError;
use crate::host::policy::Documents;
use crate::host::renewal::replaced;
use concordat_protocol::hash::Hash;
use concordat_protocol::node::AgreementView;
use std::collections::BTreeSet;

/// Name of the check that fails while the document is not here: the delivery can be checked once it is.
pub(super) const NO_DOCUMENT: &str = "altered-document";

/// Fields of a clause that are shown altered, each with its duty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Altering {
    agreed: BTreeSet<(String, String)>,
    /// Terms whose document is not here.
    missing: Option<Hash>,
}

impl Altering {
    /// What the documents say of a clause of a version. A renewal changes no duty: the document before it says the same,
    /// and is the one that counts where the provider's executor refuses the renewal.
    #[must_use]
    pub fn of(view: &AgreementView, clause: &str, documents: &Documents) -> Self {
        let hashes = [Some(view.terms_hash), replaced(view)];
        let found: Vec<_> = hashes.iter().flatten().filter_map(|hash| documents.get(hash)).collect();
        let missing = found.is_empty().then_some(view.terms_hash);
        let clauses = found.iter().flat_map(|d| &d.document.clauses).filter(|c| c.id == clause);
        let pairs = clauses.flat_map(|c| &c.duties).flat_map(|duty| {
            let kind = duty.kind().word();
            duty.altered().into_iter().map(move |field| (field.to_owned(), kind.to_owned()))
        });
        Self { agreed: pairs.collect(), missing }
    }

    /// Adds those of another version of the clause. Where several documents are missing, the newest version's is named.
    pub fn join(&mut self, other: Self) {
        self.agreed.extend(other.agreed);
        self.missing = other.missing.or(self.missing);
    }

    /// Whether a document is missing.
    #[must_use]
    pub fn lacks(&self) -> bool {
        self.missing.is_some()
    }

    /// Checks that a duty of the clause alters this field.
    ///
    /// # Errors
    /// `altered-duty` where none does, [`NO_DOCUMENT`] where nobody can tell.
    pub(super) fn check(&self, clause: &str, field: &str, duty: &str) -> Result<(), FeedProofError> {
        if self.agreed.contains(&(field.to_owned(), duty.to_owned())) {
            return Ok(());
        }
        let (check, sentence) = match self.missing {
            None => ("altered-duty", format!("{clause} has no duty {duty} of field {field}")),
            Some(hash) => (
                NO_DOCUMENT,
                format!(
                    "field {field} is altered, and whether {clause} says so is in the document with the terms hash {}: \
                     put it into agreements/ of this node's folder",
                    hex::encode(hash)
                ),
            ),
        };
        Err(FeedProofError { check, sentence })
    }
}
