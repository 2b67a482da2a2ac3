//! Epochs: times in which validators, root keys and cosigning keys stay the same, and the rotation of root keys
//! (PROTOCOL 4 and 7).
//!
//! The ledger writes them itself, so that no future height has to be agreed on; agencies sign them afterwards with the
//! root keys of the epoch before.

use std::collections::BTreeMap;

use concordat_protocol::acts::KeyRole;
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::codes;
use concordat_protocol::evidence::{EpochView, EpochVote, SignedEpoch, ValidatorView};
use concordat_protocol::hash::sha256;
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::{KeyId, PublicKey, Signature, Statement};
use concordat_protocol::trust::{EpochBody, KeyLine, pq_keys_hash, validators_hash};
use concordat_protocol::{canon_struct, trust};

use super::apply::Work;
use super::rows::AgencyRow;
use super::{APP_VERSION, State, TableChanges, Tables};

/// CometBFT applies the validators that a block changed from the second block after it.
const VALIDATORS_DELAY: u64 = 2;

canon_struct! {
    /// An epoch; its leaf holds the body alone.
    pub struct EpochRow {
        /// What is signed.
        pub body: EpochBody,
        /// Its validators, sorted by agency.
        pub validators: Vec<ValidatorView>,
        /// Its root and cosigning keys, sorted by agency.
        pub keys: Vec<KeyLine>,
    }
}

canon_struct! {
    /// A root key that waits for its time.
    pub struct RootPending {
        /// Its label.
        pub label: String,
        /// The key.
        pub key: PublicKey,
        /// Tick from which it is the agency's root, milliseconds.
        pub due_ms: u64,
    }
}

/// An agency without keys yet.
pub fn new_agency(number: u64, roles: Vec<String>, validator: Vec<u8>, power: u64) -> AgencyRow {
    let validator = Bytes(validator);
    AgencyRow { number, roles, validator, power, root: KeyId([0; 16]), cosign: Vec::new(), removed_ms: 0 }
}

/// A validator's key and power; `None` where the agency runs none.
fn validator_of(row: &AgencyRow) -> Option<([u8; 32], u64)> {
    let key = row.validator.0.as_slice().try_into().ok()?;
    (row.power > 0).then_some((key, row.power))
}

/// What a block changed of the validators, by key; power 0 removes one.
pub fn validator_changes(before: &Tables, changes: &TableChanges) -> Vec<([u8; 32], i64)> {
    let touched = || changes.agencies.keys().filter_map(|id| before.agencies.get(id));
    let old: BTreeMap<_, _> = touched().filter_map(validator_of).collect();
    let new: BTreeMap<_, _> = changes.agencies.values().flatten().filter_map(validator_of).collect();
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (*key, 0));
    let set = new.iter().filter(|(key, power)| old.get(*key) != Some(*power)).map(|(key, power)| (*key, *power));
    gone.chain(set).map(|(key, power)| (key, i64::try_from(power).unwrap_or(i64::MAX))).collect()
}

impl Work<'_> {
    /// Ends a block (or genesis): if it changed validators, root or cosigning keys, they make a new epoch.
    pub fn write_epoch(&mut self) {
        if !self.view.agencies.is_touched() {
            return; // all that makes an epoch stands in these rows
        }
        let (validators, keys) = (self.validators(), self.key_lines());
        let last = self.view.epochs.iter().last().map(|(_, row)| row);
        if last.is_some_and(|last| last.validators == validators && last.keys == keys) {
            return;
        }
        let plain: Vec<trust::Validator> = validators.iter().map(Into::into).collect();
        let lines: Vec<trust::AgencyKeys> = keys.iter().map(Into::into).collect();
        let body = EpochBody {
            n: last.map_or(0, |last| last.body.n + 1),
            from_height: last.map_or(1, |_| self.head.height + VALIDATORS_DELAY),
            validators_hash: validators_hash(&plain),
            pq_keys_hash: pq_keys_hash(&lines, &plain),
            prev_hash: last.map_or([0; 32], |last| sha256(&[&cbor::encode(&last.body)])),
        };
        self.view.epochs.put(body.n, EpochRow { body, validators, keys });
    }

    fn validators(&self) -> Vec<ValidatorView> {
        let view = |(id, row): (&AgencyId, &AgencyRow)| {
            validator_of(row).map(|(key, power)| ValidatorView { agency: id.clone(), key, power })
        };
        self.view.agencies.iter().filter_map(view).collect()
    }

    fn key_lines(&self) -> Vec<KeyLine> {
        let key = |id: &KeyId| self.view.keys.get(id).map(|k| k.key.clone());
        let line = |(agency, row): (&AgencyId, &AgencyRow)| {
            let root = key(&row.root).filter(|_| row.removed_ms == 0)?;
            Some(KeyLine { agency: agency.clone(), root, cosign: row.cosign.last().and_then(key) })
        };
        self.view.agencies.iter().filter_map(line).collect()
    }

    /// Whether an agency belongs to the city now.
    pub fn is_member(&self, agency: &AgencyId) -> bool {
        self.view.agencies.get(agency).is_some_and(|row| row.removed_ms == 0)
    }

    /// A root's successor waits, so that who holds a stolen root key cannot change it unseen.
    pub(super) fn root_waits(&mut self, agency: &AgencyId, label: &str, key: &PublicKey) -> Result<(), u16> {
        self.key_fits(KeyRole::Root, label, key)?;
        if self.view.root_pending.has(agency) {
            return Err(codes::BAD_VALUE); // the one that waits must be taken back first
        }
        let due_ms = self.head.tick_ms.saturating_add(self.param("root_delay_ms"));
        let row = RootPending { label: label.to_owned(), key: key.clone(), due_ms };
        self.view.root_pending.put(agency.clone(), row);
        Ok(())
    }

    /// Root keys whose time has come take the place of their agencies' old ones.
    pub fn rotate_roots(&mut self) {
        let tick = self.head.tick_ms;
        let waiting = self.view.root_pending.iter();
        let due: Vec<(AgencyId, RootPending)> =
            waiting.filter(|(_, p)| p.due_ms <= tick).map(|(a, p)| (a.clone(), p.clone())).collect();
        for (agency, pending) in due {
            let old = self.view.agencies.get(&agency).map(|row| row.root);
            self.view.root_pending.remove(agency.clone());
            // Nobody could register it while it waited.
            if self.register_key(&agency, KeyRole::Root, &pending.label, &pending.key).is_ok()
                && let Some(row) = old.and_then(|id| self.view.keys.edit(&id))
            {
                row.revoked_ms = tick.max(1);
            }
        }
    }

    /// An agency's signature on an epoch that the ledger wrote. Its post-quantum half is measured here and verified
    /// outside; so a later signature takes the place of an earlier one, else a broken half could not be mended.
    pub fn epoch_vote(&mut self, agency: &AgencyId, body: &Bytes) -> Result<(), u16> {
        let signed: SignedEpoch = cbor::decode(body).map_err(|e| e.code())?;
        let n = signed.body.n;
        let epoch = self.view.epochs.get(&n).ok_or(codes::UNKNOWN_REF)?;
        let before = n.checked_sub(1).and_then(|n| self.view.epochs.get(&n)).ok_or(codes::UNKNOWN_REF)?;
        if epoch.body != signed.body {
            return Err(codes::BAD_VALUE);
        }
        if !before.validators.iter().any(|v| v.agency == *agency) {
            return Err(codes::WRONG_AGENCY);
        }
        let line = before.keys.iter().find(|line| line.agency == *agency).ok_or(codes::WRONG_AGENCY)?;
        let bytes = cbor::encode(&signed.body);
        line.root
            .verify_classical(Statement::Epoch, &self.head.chain, &bytes, &signed.signature)
            .map_err(|_| codes::BAD_SIGNATURE)?;
        let at = (n, agency.clone());
        if self.view.epoch_votes.get(&at) == Some(&signed.signature) {
            return Err(codes::APPROVAL);
        }
        self.view.epoch_votes.put(at, signed.signature);
        Ok(())
    }
}

impl State {
    /// The epoch that holds at a height.
    pub fn epoch_at(&self, height: u64) -> Option<&EpochRow> {
        self.tables.epochs.values().rev().find(|row| row.body.from_height <= height)
    }

    /// All epochs with the votes on them.
    pub fn epoch_views(&self) -> Vec<EpochView> {
        let vote = |((_, agency), signature): (&(u64, AgencyId), &Signature)| EpochVote {
            agency: agency.clone(),
            signature: signature.clone(),
        };
        let votes = |n: u64| self.tables.epoch_votes.iter().filter(move |((of, _), _)| *of == n).map(vote).collect();
        let view = |row: &EpochRow| EpochView {
            body: row.body.clone(),
            validators: row.validators.clone(),
            keys: row.keys.clone(),
            votes: votes(row.body.n),
        };
        self.tables.epochs.values().map(view).collect()
    }

    /// The newer version of the application that a height needs, if the agencies decided so.
    pub fn needs_version(&self, height: u64) -> Option<u64> {
        let newer = self.tables.upgrades.iter().filter(|(version, at)| **version > APP_VERSION && **at <= height);
        newer.map(|(version, _)| *version).max()
    }
}
