//! `trust.json` from what a node tells of the epochs that the ledger wrote.

use super::{AgencyKeys, Epoch, EpochSignature, OversightKey, Trust, TrustError};
use crate::cbor;
use crate::evidence::{EpochView, EpochVote};
use crate::keys::Statement;
use std::collections::BTreeSet;

impl Trust {
    /// The file of a chain from its genesis.json and its epochs as a node lists them, from epoch 0 on.
    ///
    /// Votes that do not verify in full are left out, as consensus has looked at their Ed25519 halves only. The file ends
    /// before the first epoch that has not yet the votes of more than 2/3 of the validator agencies of the one before:
    /// receipts of later heights wait for them.
    ///
    /// # Errors
    /// The genesis text does not parse or is of another chain than the epochs, or the epochs do not hang together:
    /// the node is not to be relied on.
    pub fn with_epochs(genesis: String, oversight: Vec<OversightKey>, views: &[EpochView]) -> Result<Self, TrustError> {
        let mut trust = Self::from_genesis(genesis, oversight)?;
        let (first, later) =
            views.split_first().ok_or_else(|| TrustError::Genesis("the node lists no epochs".to_owned()))?;
        if trust.epochs.first().map(Epoch::body).as_ref() != Some(&first.body) {
            return Err(TrustError::Genesis("epoch 0 of the node is not the one in it".to_owned()));
        }
        for view in later {
            let Some(before) = trust.epochs.last() else { break };
            let epoch = signed(&trust.chain, before, view);
            let signers: BTreeSet<_> = epoch.signatures.iter().map(|s| &s.agency).collect();
            let enough = before.is_two_thirds(&signers);
            trust.epochs.push(epoch);
            trust.check_shape()?;
            if !enough {
                trust.epochs.pop();
                break;
            }
        }
        trust.check().map(|()| trust)
    }
}

/// The epoch with those of its votes that verify, one an agency.
fn signed(chain: &str, before: &Epoch, view: &EpochView) -> Epoch {
    let body = cbor::encode(&view.body);
    let verifies = |vote: &&EpochVote| {
        let keys: Option<&AgencyKeys> = before.keys_of(&vote.agency);
        keys.is_some_and(|k| k.root.verify_full(Statement::Epoch, chain, &body, &vote.signature).is_ok())
    };
    let mut seen = BTreeSet::new();
    let votes = view.votes.iter().filter(verifies).filter(|vote| seen.insert(&vote.agency));
    Epoch {
        n: view.body.n,
        from_height: view.body.from_height,
        validators_hash: view.body.validators_hash,
        pq_keys_hash: view.body.pq_keys_hash,
        prev_hash: view.body.prev_hash,
        validators: view.validators.iter().map(Into::into).collect(),
        keys: view.keys.iter().map(Into::into).collect(),
        signatures: votes
            .map(|v| EpochSignature { agency: v.agency.clone(), signature: v.signature.clone() })
            .collect(),
    }
}
