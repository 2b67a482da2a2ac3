//! The subjects of a provider's datasets on the way of every operation: from rows and filters to tags.

use super::vault::{SubjectId, Vault, VaultError};
use concordat_executor::answer::AnswerError;
use concordat_executor::policies::dataset::DatasetDoc;
use concordat_executor::query::Fields;
use concordat_executor::subjects::{Marked, SubjectField};
use concordat_protocol::ids::DatasetId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use thiserror::Error;
use zeroize::Zeroizing;

/// Why an operation cannot be tagged. Then it is not made.
#[derive(Debug, Error)]
pub enum MarkError {
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// No randomness.
    #[error(transparent)]
    Library(#[from] AnswerError),
}

/// The vault, and which field of which dataset names a person. Cheap to clone.
#[derive(Clone)]
pub struct People {
    pub(super) vault: Arc<Vault>,
    fields: Arc<BTreeMap<DatasetId, SubjectField>>,
}

/// The field that names a dataset's subjects.
pub fn subject_field(doc: &DatasetDoc) -> Option<SubjectField> {
    let name = doc.subject.as_ref()?.field.clone();
    let ty = Fields::from_schema(&doc.schema).ok()?.get(&name)?;
    Some(SubjectField { name, ty })
}

impl People {
    /// The subjects of these datasets.
    pub fn new(vault: Arc<Vault>, docs: &[DatasetDoc]) -> Self {
        let fields = docs.iter().filter_map(|d| Some((d.id.clone(), subject_field(d)?))).collect();
        Self { vault, fields: Arc::new(fields) }
    }

    /// The field that names a dataset's subjects.
    pub fn field(&self, dataset: &DatasetId) -> Option<&SubjectField> {
        self.fields.get(dataset)
    }

    /// All datasets with subjects.
    pub fn datasets(&self) -> impl Iterator<Item = (&DatasetId, &SubjectField)> {
        self.fields.iter()
    }

    /// The key of this provider's pseudonyms.
    pub fn pseudonym_key(&self) -> Zeroizing<[u8; 32]> {
        self.vault.pseudonym_key()
    }

    /// Ids of subjects by their texts.
    pub fn ids(&self, dataset: &DatasetId, texts: &BTreeSet<String>) -> Vec<SubjectId> {
        texts.iter().map(|t| self.vault.id(dataset, t)).collect()
    }

    /// The tags of an operation on a day; none at all for a dataset without subjects. Blocks.
    pub fn mark(&self, dataset: &DatasetId, ids: &[SubjectId], day: u64) -> Result<Marked, MarkError> {
        if self.field(dataset).is_none() {
            return Ok(Marked::nobody());
        }
        Ok(Marked::of(&self.vault.keys(ids)?, dataset, day)?)
    }
}
