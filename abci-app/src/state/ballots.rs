//! What more than 2/3 of the agencies decide together, each with its root key: parameters, validators, who belongs to
//! the city, application versions (PROTOCOL 7).

use concordat_protocol::acts::{ActBody, KeyRole};
use concordat_protocol::canon_struct;
use concordat_protocol::cbor;
use concordat_protocol::codes;
use concordat_protocol::hash::{Hash, sha256};
use concordat_protocol::ids::AgencyId;
use concordat_protocol::keys::{KeyId, PublicKey, Suite};
use concordat_protocol::terms::{Status, Terms};

use super::APP_VERSION;
use super::apply::Work;
use super::epochs::new_agency;
use super::genesis::PARAMS;
use super::rows::{AgencyRow, AgreementKey, DAY_MS};

/// How long after its first vote a ballot gathers others.
pub const BALLOT_LIFE_MS: u64 = 7 * DAY_MS;
/// Most open ballots that one agency began: so nobody can keep the others from deciding.
pub const BALLOTS_OPEN_MAX: usize = 8;
/// Most power of all validators together: CometBFT's limit.
pub const POWER_MAX: u64 = i64::MAX as u64 / 8;

canon_struct! {
    /// A decision that agencies gather votes for.
    pub struct BallotRow {
        /// Tick of its first vote, milliseconds.
        pub since_ms: u64,
        /// Who voted, in order; the first one began it.
        pub agencies: Vec<AgencyId>,
    }
}

impl Work<'_> {
    /// An agency's vote for a decision; the one that makes more than 2/3 carries it out.
    pub fn ballot(&mut self, agency: &AgencyId, body: &ActBody) -> Result<(), u16> {
        self.may_be_decided(body)?;
        let hash = sha256(&[&cbor::encode(body)]);
        let open = self.view.ballots.get(&hash).filter(|row| !self.is_over(row)).cloned();
        let mut row = match open {
            Some(row) => row,
            None => self.new_ballot(agency)?,
        };
        if row.agencies.contains(agency) {
            return Err(codes::APPROVAL);
        }
        row.agencies.push(agency.clone());
        if !self.is_decided(&row) {
            self.view.ballots.put(hash, row);
            return Ok(());
        }
        self.view.ballots.remove(hash);
        self.carry_out(body)
    }

    fn is_over(&self, row: &BallotRow) -> bool {
        self.head.tick_ms > row.since_ms.saturating_add(BALLOT_LIFE_MS)
    }

    /// Votes of agencies that were removed meanwhile do not count.
    fn is_decided(&self, row: &BallotRow) -> bool {
        let members = self.view.agencies.iter().filter(|(_, a)| a.removed_ms == 0).count();
        let votes = row.agencies.iter().filter(|a| self.is_member(a)).count();
        votes * 3 > members * 2
    }

    /// Clears what is over and begins a ballot, unless the agency began too many.
    fn new_ballot(&mut self, agency: &AgencyId) -> Result<BallotRow, u16> {
        let over: Vec<Hash> =
            self.view.ballots.iter().filter(|(_, row)| self.is_over(row)).map(|(hash, _)| *hash).collect();
        for hash in over {
            self.view.ballots.remove(hash);
        }
        let begun = self.view.ballots.iter().filter(|(_, row)| row.agencies.first() == Some(agency)).count();
        if begun >= BALLOTS_OPEN_MAX {
            return Err(codes::TOO_LARGE);
        }
        Ok(BallotRow { since_ms: self.head.tick_ms, agencies: Vec::new() })
    }

    /// Whether a decision could be carried out now. It is asked at every vote, so that nothing is gathered in vain.
    fn may_be_decided(&self, body: &ActBody) -> Result<(), u16> {
        let good = match body {
            ActBody::Params { name, value } => {
                name != "app_version" && *value > 0 && PARAMS.iter().any(|(known, _)| known == name)
            }
            ActBody::Validator { agency, key, power } => return self.validator_fits(agency, key, *power),
            ActBody::AgencyAdd { agency, root } => {
                self.key_fits(KeyRole::Root, "root", root)?;
                let room = self.view.agencies.iter().count() < usize::from(u16::MAX);
                room && !self.view.agencies.has(agency)
            }
            ActBody::AgencyRemove { agency } => self.is_member(agency) && self.others_validate(agency),
            ActBody::Upgrade { app_version, at_height } => {
                *app_version > APP_VERSION && *at_height > self.head.height.saturating_add(1)
            }
            _ => false,
        };
        if good { Ok(()) } else { Err(codes::BAD_VALUE) }
    }

    /// Whether validators stay without this agency's, or there were none known to the ledger.
    fn others_validate(&self, agency: &AgencyId) -> bool {
        let mut validators = self.view.agencies.iter().filter(|(_, row)| row.power > 0).peekable();
        validators.peek().is_none() || validators.any(|(id, _)| id != agency)
    }

    fn validator_fits(&self, agency: &AgencyId, key: &[u8; 32], power: u64) -> Result<(), u16> {
        let row = self.view.agencies.get(agency).filter(|row| row.removed_ms == 0).ok_or(codes::BAD_VALUE)?;
        if power == 0 {
            // The key says which validator is meant, should it have changed since the first vote.
            let own = row.power > 0 && row.validator.0 == key;
            return if own && self.others_validate(agency) { Ok(()) } else { Err(codes::BAD_VALUE) };
        }
        let public = PublicKey { suite: Suite::Ed25519, ed25519: key.to_vec().into(), pq: Vec::new().into() };
        public.check().map_err(|_| codes::BAD_KEY)?;
        if self.view.agencies.iter().any(|(id, other)| id != agency && other.validator.0 == key) {
            return Err(codes::KEY_EXISTS);
        }
        let others = self.view.agencies.iter().filter(|(id, _)| *id != agency);
        let sum = others.fold(power, |sum, (_, row)| sum.saturating_add(row.power));
        if sum > POWER_MAX { Err(codes::BAD_VALUE) } else { Ok(()) }
    }

    fn carry_out(&mut self, body: &ActBody) -> Result<(), u16> {
        match body {
            ActBody::Params { name, value } => self.view.params.put(name.clone(), *value),
            ActBody::Validator { agency, key, power } => {
                let row = self.view.agencies.edit(agency).ok_or(codes::BAD_VALUE)?;
                row.power = *power;
                row.validator = if *power == 0 { Vec::new().into() } else { key.to_vec().into() };
            }
            ActBody::AgencyAdd { agency, root } => {
                let number = self.view.agencies.iter().count() as u64 + 1;
                self.view.agencies.put(agency.clone(), new_agency(number, Vec::new(), Vec::new(), 0));
                self.register_key(agency, KeyRole::Root, "root", root)?;
            }
            ActBody::AgencyRemove { agency } => self.remove_agency(agency)?,
            ActBody::Upgrade { app_version, at_height } => self.view.upgrades.put(*app_version, *at_height),
            _ => return Err(codes::BAD_VALUE),
        }
        Ok(())
    }

    /// Removes an agency without asking it: all its keys end, with them its writers; its agreements are suspended and
    /// its sessions over. What it did stays on record and provable.
    fn remove_agency(&mut self, agency: &AgencyId) -> Result<(), u16> {
        let tick = self.head.tick_ms.max(1);
        let row: &mut AgencyRow = self.view.agencies.edit(agency).ok_or(codes::BAD_VALUE)?;
        (row.validator, row.power) = (Vec::new().into(), 0);
        (row.cosign, row.removed_ms) = (Vec::new(), tick);
        self.view.root_pending.remove(agency.clone());
        let alive = self.view.keys.iter().filter(|(_, key)| key.agency == *agency && key.revoked_ms == 0);
        for id in alive.map(|(id, _)| *id).collect::<Vec<KeyId>>() {
            if let Some(key) = self.view.keys.edit(&id) {
                key.revoked_ms = tick;
            }
        }
        for key in self.open_agreements(agency) {
            self.turn(&key, Status::Suspended);
        }
        let sessions = self.view.sessions.iter();
        let its = sessions.filter(|(_, s)| s.expires_ms > tick && (s.consumer == *agency || s.provider == *agency));
        let its: Vec<u64> = its.map(|(number, _)| *number).collect();
        self.end_sessions(&its);
        Ok(())
    }

    /// Agreement versions of an agency that are proposed or active.
    fn open_agreements(&self, agency: &AgencyId) -> Vec<AgreementKey> {
        let open = |status: Status| matches!(status, Status::Proposed | Status::Active);
        let of = |terms: Terms| terms.assigner == *agency || terms.assignee.as_ref() == Some(agency);
        let all = self.view.agreements.iter().filter(|(_, row)| open(row.view.status));
        all.filter(|(_, row)| cbor::decode(&row.view.terms).is_ok_and(of)).map(|(key, _)| key.clone()).collect()
    }
}
