//! Forgetting a subject: recorded on the ledger, then carried out in every store of the executor.

use super::SubjectsError;
use super::serve::Subjects;
use super::vault::{Erasing, SubjectId};
use concordat_executor::holding::HoldingError;
use concordat_executor::subjects::SubjectKey;
use concordat_protocol::codes::Verdict;
use concordat_protocol::hash::{Hash, hmac_sha256};
use concordat_protocol::ids::DatasetId;
use concordat_protocol::leaves::LeafSet;
use concordat_protocol::ops::Op;
use futures::future::try_join_all;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How long operations on their way may take to settle.
const SETTLE_WITHIN: Duration = Duration::from_secs(15);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What was forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erased {
    /// Operations that are recorded on the ledger as erased.
    pub operations: Vec<u64>,
    /// Held records that were removed.
    pub records: u64,
}

/// The operation that says the keys and salts behind another were destroyed for a subject. Its own commitment is salted from
/// the subject's key: whoever still has the key (a restored backup) sees that it is about this subject, nobody else does.
pub(super) fn erasure(key: &SubjectKey, reference: u64, what: Erasing) -> Result<Op, SubjectsError> {
    let bad = |e: String| SubjectsError::Commitment(e);
    let secret = hmac_sha256(key, &[b"concordat/erase/", &reference.to_be_bytes()]);
    let reason: &[u8] = if what == Erasing::Records { b"subject" } else { b"subject-traces" };
    let fields = BTreeMap::from([("reason".to_owned(), reason.to_vec())]);
    let commitment = LeafSet::new(&secret, fields).map_err(|e| bad(e.to_string()))?.root();
    Ok(Op::Erase { reference, commitment })
}

impl Subjects {
    /// Forgets a subject. An erasure that was broken off is finished at the next start.
    pub async fn erase(
        &self,
        dataset: &DatasetId,
        text: &str,
        what: Erasing,
    ) -> Result<(SubjectId, Erased), SubjectsError> {
        let id = self.people.vault.id(dataset, text);
        self.settled(&id).await?;
        self.people.vault.begin_erasing(&id, what)?;
        Ok((id, self.finish(&id, what).await?))
    }

    /// Waits until nothing of the subject is on its way to the ledger.
    async fn settled(&self, id: &SubjectId) -> Result<(), SubjectsError> {
        let end = Instant::now() + SETTLE_WITHIN;
        loop {
            let pending = self.disclosures().touched(id)?.pending;
            match pending {
                0 => return Ok(()),
                n if Instant::now() >= end => return Err(SubjectsError::Pending(n)),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Carries out an erasure that has begun.
    pub(super) async fn finish(&self, id: &SubjectId, what: Erasing) -> Result<Erased, SubjectsError> {
        let operations = self.disclosures().touched(id)?.operations;
        if let Some(key) = self.people.vault.standing(id)?.key {
            let ops = operations.iter().map(|i| erasure(&key, *i, what)).collect::<Result<Vec<_>, _>>()?;
            let recorded = try_join_all(ops.into_iter().map(|op| self.setup.writer.record(op))).await?;
            for (index, r) in operations.iter().zip(&recorded).filter(|(_, r)| r.verdict != Verdict::Accepted) {
                warn!(op = index, code = r.code, "the ledger refused the erasure; it is forgotten here all the same");
            }
        }
        let records = self.forget(id, what).await?;
        info!(subject = hex::encode(id), operations = operations.len(), records, "subject forgotten");
        Ok(Erased { operations, records })
    }

    /// Removes a subject from every store of this executor; the key goes last, so that a crash before it begins anew.
    pub(super) async fn forget(&self, id: &SubjectId, what: Erasing) -> Result<u64, SubjectsError> {
        let now_ms = self.setup.node.head().await?.tick_ms;
        tokio::task::block_in_place(|| {
            self.disclosures().forget(id)?;
            let records = if what == Erasing::Records { self.forget_records(id)? } else { 0 };
            self.people.vault.destroy(id, now_ms)?;
            Ok(records)
        })
    }

    fn forget_records(&self, id: &SubjectId) -> Result<u64, HoldingError> {
        let mut records = 0;
        for (dataset, field) in self.people.datasets() {
            let gone = |text: &str| self.people.vault.id(dataset, text) == *id;
            match self.setup.holding.forget(dataset.as_str(), &field.name, &gone) {
                Ok(n) => records += n,
                // A dataset that is only a feed holds no records.
                Err(HoldingError::UnknownDataset(_)) => {}
                // An agency's own table is only read here. Its own system forgets the person; the rest is forgotten all the same.
                Err(HoldingError::ReadOnly(_)) => {
                    tracing::warn!(%dataset, "erasure: the records are the agency's own table, delete them there");
                }
                Err(e) => return Err(e),
            }
        }
        Ok(records)
    }

    /// Whose erasure an operation is, of the subjects that the operation it refers to touched.
    pub(super) fn erased_subject(
        &self,
        op: &Op,
        reference: u64,
        op_hash: &Hash,
    ) -> Result<Option<(SubjectId, Erasing)>, SubjectsError> {
        let subjects = self.disclosures().subjects_of(op_hash)?;
        for id in subjects {
            let Some(key) = self.people.vault.standing(&id)?.key else { continue };
            let kinds = [Erasing::Records, Erasing::Traces];
            let fits = |what: &Erasing| erasure(&key, reference, *what).is_ok_and(|made| made == *op);
            if let Some(what) = kinds.into_iter().find(fits) {
                return Ok(Some((id, what)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use zeroize::Zeroizing;

    #[test]
    fn an_erasure_is_recognised_by_the_subjects_key_alone() {
        let (mine, other) = (Zeroizing::new([1; 32]), Zeroizing::new([2; 32]));
        let made = erasure(&mine, 5821, Erasing::Records).unwrap();
        assert_eq!(made, erasure(&mine, 5821, Erasing::Records).unwrap());
        let Op::Erase { reference, commitment } = &made else { panic!("{made:?}") };
        assert_eq!(*reference, 5821);
        for strange in [
            erasure(&other, 5821, Erasing::Records).unwrap(),
            erasure(&mine, 5822, Erasing::Records).unwrap(),
            erasure(&mine, 5821, Erasing::Traces).unwrap(),
        ] {
            let Op::Erase { commitment: c, .. } = strange else { panic!() };
            assert_ne!(c, *commitment);
        }
    }
}
