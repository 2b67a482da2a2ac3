//! The life of an agreement version: proposed, active, suspended, revoked, superseded (PROTOCOL 6).

use std::collections::BTreeSet;

use concordat_protocol::acts::{Act, ActBody, ApprovalKind, KeyRole};
use concordat_protocol::cbor::{self, Bytes};
use concordat_protocol::codes;
use concordat_protocol::hash::Hash;
use concordat_protocol::ids::{AgencyId, AgreementId};
use concordat_protocol::limits::APPROVAL_LIFE_MS_MAX;
use concordat_protocol::node::{AgreementView, ApprovalView, KeyView};
use concordat_protocol::terms::{Status, Terms};

use super::apply::Work;
use super::rows::{AgreementKey, AgreementRow, HandleRow, Renewal};
use super::table::{same_but_dates, terms_fit};
use crate::tx::ActTx;

/// The approval an act carries, taken apart.
struct Approval<'a> {
    key: AgreementKey,
    revision: u64,
    what: ApprovalKind,
    terms_hash: &'a Hash,
    prev: &'a Hash,
    role: &'a str,
    expires_ms: u64,
}

fn read_terms(bytes: &Bytes) -> Result<Terms, u16> {
    cbor::decode(bytes).map_err(|e| e.code())
}

fn is_party(terms: &Terms, agency: &AgencyId) -> bool {
    terms.assigner == *agency || terms.assignee.as_ref() == Some(agency)
}

/// The roles that the terms ask of a party.
fn written_roles<'t>(terms: &'t Terms, agency: &AgencyId) -> &'t Vec<String> {
    if *agency == terms.assigner { &terms.assigner_roles } else { &terms.assignee_roles }
}

/// The approval an act carries, if it carries one.
fn approval_of(act: &Act) -> Option<Approval<'_>> {
    match &act.body {
        ActBody::Approve { agreement, version, revision, what, terms_hash, prev_terms_hash, role, expires_ms } => {
            Some(Approval {
                key: (agreement.clone(), *version),
                revision: *revision,
                what: *what,
                terms_hash,
                prev: prev_terms_hash,
                role,
                expires_ms: *expires_ms,
            })
        }
        _ => None,
    }
}

impl Work<'_> {
    fn life_fits(&self, expires_ms: u64) -> Result<(), u16> {
        let tick = self.head.tick_ms;
        let fits = expires_ms > tick && expires_ms - tick <= APPROVAL_LIFE_MS_MAX;
        if fits { Ok(()) } else { Err(codes::BAD_VALUE) }
    }

    /// Roles whose approval an agency owes: those of the terms, those it always needs, and those of the version in force
    /// that would be replaced, so that no document lowers the threshold of the agreement it changes.
    fn required(&self, key: &AgreementKey, terms: &Terms, agency: &AgencyId) -> BTreeSet<String> {
        let always = self.view.agencies.get(agency).map(|a| a.roles.clone()).unwrap_or_default();
        let replaced = self.in_force(key).and_then(|(version, _)| self.view.agreements.get(&(key.0.clone(), version)));
        let replaced = replaced.and_then(|row| read_terms(&row.view.terms).ok());
        let before = replaced.filter(|old| is_party(old, agency)).map(|old| written_roles(&old, agency).clone());
        written_roles(terms, agency).iter().cloned().chain(always).chain(before.unwrap_or_default()).collect()
    }

    fn parties(terms: &Terms) -> impl Iterator<Item = &AgencyId> {
        std::iter::once(&terms.assigner).chain(terms.assignee.as_ref())
    }

    /// A document may add approval roles to those its parties always need, never drop one.
    fn roles_kept(&self, terms: &Terms) -> Result<(), u16> {
        for agency in Self::parties(terms) {
            let row = self.view.agencies.get(agency).filter(|a| a.removed_ms == 0).ok_or(codes::BAD_VALUE)?;
            let written = written_roles(terms, agency);
            if !row.roles.iter().all(|role| written.contains(role)) {
                return Err(codes::APPROVAL);
            }
        }
        Ok(())
    }

    /// Versions of an agreement, oldest first.
    fn versions(&self, id: &AgreementId) -> Vec<(u64, Status, Hash)> {
        let mut found: Vec<_> = self
            .view
            .agreements
            .range((id.clone(), 0), (id.clone(), u64::MAX))
            .map(|((_, version), row)| (*version, row.view.status, row.view.terms_hash))
            .collect();
        found.sort_by_key(|(version, _, _)| *version);
        found
    }

    /// Proposes a version. Versions only rise; a rejected or expired proposal's number may be proposed again.
    pub fn propose(&mut self, agency: &AgencyId, bytes: &Bytes, expires_ms: u64) -> Result<(), u16> {
        let terms = read_terms(bytes)?;
        terms_fit(&terms)?;
        if !is_party(&terms, agency) {
            return Err(codes::WRONG_AGENCY);
        }
        self.life_fits(expires_ms)?;
        if !self.view.datasets.has(&terms.dataset) {
            return Err(codes::UNKNOWN_DATASET);
        }
        self.roles_kept(&terms)?;
        let mut revision = 1;
        if let Some((newest, status, _)) = self.versions(&terms.agreement).last().copied() {
            let row = self.view.agreements.get(&(terms.agreement.clone(), newest)).ok_or(codes::NO_AGREEMENT)?;
            let old = read_terms(&row.view.terms)?;
            if (&old.assigner, &old.assignee) != (&terms.assigner, &terms.assignee) {
                return Err(codes::BAD_VALUE);
            }
            let over =
                status == Status::Rejected || status == Status::Proposed && row.view.expires_ms <= self.head.tick_ms;
            if terms.version < newest || terms.version == newest && !over {
                return Err(codes::STALE);
            }
            if terms.version == newest {
                revision = row.view.revision + 1;
            }
        }
        let view = AgreementView {
            agreement: terms.agreement.clone(),
            version: terms.version,
            revision,
            status: Status::Proposed,
            terms_hash: terms.hash(),
            terms: bytes.clone(),
            expires_ms,
            approvals: Vec::new(),
            handles: Vec::new(),
            bounded_suspended: 0,
        };
        self.view.agreements.put((terms.agreement, terms.version), AgreementRow { view, standing: 0, renewal: None });
        Ok(())
    }

    /// Proposes new dates for an active version; all else must be the same.
    pub fn renew(&mut self, agency: &AgencyId, bytes: &Bytes, expires_ms: u64) -> Result<(), u16> {
        let terms = read_terms(bytes)?;
        terms_fit(&terms)?;
        self.life_fits(expires_ms)?;
        let key = (terms.agreement.clone(), terms.version);
        let row = self.view.agreements.get(&key).ok_or(codes::NO_AGREEMENT)?;
        let old = read_terms(&row.view.terms)?;
        if !is_party(&old, agency) {
            return Err(codes::WRONG_AGENCY);
        }
        must_be(row.view.status, Status::Active)?;
        if !same_but_dates(&old, &terms) {
            return Err(codes::TERMS_MISMATCH);
        }
        if let Some(row) = self.view.agreements.edit(&key) {
            row.view.approvals.truncate(row.standing as usize);
            row.renewal = Some(Renewal { terms: bytes.clone(), terms_hash: terms.hash(), expires_ms });
        }
        Ok(())
    }

    /// One approval. With the last one that is needed, the version changes its state.
    pub fn approve(&mut self, a: &ActTx, key: &KeyView, signature: Vec<u8>) -> Result<(), u16> {
        let approval = approval_of(&a.act).ok_or(codes::BAD_VALUE)?;
        let row = self.view.agreements.get(&approval.key).ok_or(codes::NO_AGREEMENT)?;
        let (terms, revision) = (read_terms(&row.view.terms)?, row.view.revision);
        if !is_party(&terms, &a.act.agency) {
            return Err(codes::WRONG_AGENCY);
        }
        let wanted = self.wanted(&approval, row)?;
        if approval.revision != revision {
            return Err(codes::APPROVAL);
        }
        if *approval.terms_hash != wanted.0 || *approval.prev != wanted.1 {
            return Err(codes::TERMS_MISMATCH);
        }
        self.life_fits(approval.expires_ms).map_err(|_| codes::APPROVAL)?;
        let needed = self.required(&approval.key, &terms, &a.act.agency);
        if key.role != KeyRole::Approver || key.label != approval.role || !needed.contains(approval.role) {
            return Err(codes::APPROVAL);
        }
        let gathered = self.still_good(&approval.key);
        let double =
            |g: &ApprovalView| g.key_id == a.act.key_id || (g.agency == a.act.agency && g.role == approval.role);
        if gathered.iter().any(double) {
            return Err(codes::APPROVAL);
        }
        let what = approval.what;
        let given = ApprovalView {
            agency: a.act.agency.clone(),
            role: approval.role.to_owned(),
            key_id: a.act.key_id,
            what,
            act: a.body.clone().into(),
            signature: signature.into(),
        };
        let key = approval.key;
        if let Some(row) = self.view.agreements.edit(&key) {
            row.view.approvals.truncate(row.standing as usize);
            row.view.approvals.extend(gathered);
            row.view.approvals.push(given);
        }
        if self.complete(&key, &terms) { self.enact(&key, what) } else { Ok(()) }
    }

    /// The terms hash and previous terms hash that an approval must name now: see
    /// [`replaced_terms`](concordat_protocol::node::replaced_terms).
    fn wanted(&self, approval: &Approval<'_>, row: &AgreementRow) -> Result<(Hash, Hash), u16> {
        let own = row.view.terms_hash;
        let tick = self.head.tick_ms;
        match approval.what {
            ApprovalKind::Activate => {
                must_be(row.view.status, Status::Proposed)?;
                if row.view.expires_ms <= tick {
                    return Err(codes::EXPIRED);
                }
                Ok((own, self.in_force(&approval.key).map_or([0; 32], |(_, hash)| hash)))
            }
            ApprovalKind::Resume => {
                // Also brings back bounded evidence that a broken promise suspended.
                if row.view.status != Status::Active || row.view.bounded_suspended == 0 {
                    must_be(row.view.status, Status::Suspended)?;
                }
                Ok((own, [0; 32]))
            }
            ApprovalKind::Renew => {
                must_be(row.view.status, Status::Active)?;
                let renewal = row.renewal.as_ref().ok_or(codes::APPROVAL)?;
                if renewal.expires_ms <= tick {
                    return Err(codes::EXPIRED);
                }
                Ok((renewal.terms_hash, own))
            }
        }
    }

    /// The other version of the agreement that is active or suspended, if any.
    fn in_force(&self, key: &AgreementKey) -> Option<(u64, Hash)> {
        let standing = |s: Status| matches!(s, Status::Active | Status::Suspended);
        let mut found = self.versions(&key.0).into_iter().rev();
        found.find(|(v, s, _)| *v != key.1 && standing(*s)).map(|(v, _, hash)| (v, hash))
    }

    /// Approvals gathered for the current revision whose keys are not revoked and that have not expired.
    fn still_good(&self, key: &AgreementKey) -> Vec<ApprovalView> {
        let Some(row) = self.view.agreements.get(key) else { return Vec::new() };
        let good = |g: &&ApprovalView| {
            let alive = self.view.keys.get(&g.key_id).is_some_and(|k| k.revoked_ms == 0);
            let act: Option<Act> = cbor::decode(&g.act).ok();
            let lasts = act.as_ref().and_then(approval_of).is_some_and(|a| a.expires_ms > self.head.tick_ms);
            alive && lasts
        };
        row.view.approvals.iter().skip(row.standing as usize).filter(good).cloned().collect()
    }

    fn complete(&self, key: &AgreementKey, terms: &Terms) -> bool {
        let gathered = self.still_good(key);
        Self::parties(terms).all(|agency| {
            let needed = self.required(key, terms, agency);
            needed.iter().all(|role| gathered.iter().any(|g| g.agency == *agency && g.role == *role))
        })
    }

    /// All approvals are there.
    fn enact(&mut self, key: &AgreementKey, what: ApprovalKind) -> Result<(), u16> {
        if what == ApprovalKind::Activate
            && let Some((older, _)) = self.in_force(key)
        {
            self.turn(&(key.0.clone(), older), Status::Superseded);
        }
        let Some(row) = self.view.agreements.edit(key) else { return Err(codes::NO_AGREEMENT) };
        row.view.approvals.drain(..row.standing as usize);
        row.standing = row.view.approvals.len() as u64;
        row.view.status = Status::Active;
        row.view.revision += 1;
        if what == ApprovalKind::Resume {
            row.view.bounded_suspended = 0;
        }
        if let Some(renewal) = row.renewal.take()
            && what == ApprovalKind::Renew
        {
            (row.view.terms, row.view.terms_hash) = (renewal.terms, renewal.terms_hash);
        }
        let terms = read_terms(&row.view.terms)?;
        self.give_handles(key, &terms);
        Ok(())
    }

    /// Numbers the clauses of an active version; a renewal keeps the numbers and changes what they stand for.
    fn give_handles(&mut self, key: &AgreementKey, terms: &Terms) {
        let mut handles = self.view.agreements.get(key).map(|r| r.view.handles.clone()).unwrap_or_default();
        for (i, clause) in terms.clauses.iter().enumerate() {
            if i >= handles.len() {
                handles.push(self.head.next_handle);
                self.head.next_handle += 1;
            }
            let row = HandleRow {
                agreement: terms.agreement.clone(),
                version: terms.version,
                assigner: terms.assigner.clone(),
                assignee: terms.assignee.clone(),
                clause: clause.clone(),
            };
            self.view.handles.put(handles[i], row);
        }
        if let Some(row) = self.view.agreements.edit(key) {
            row.view.handles = handles;
        }
    }

    /// Changes a version's state without approvals: what was being gathered is void.
    pub(super) fn turn(&mut self, key: &AgreementKey, status: Status) {
        if let Some(row) = self.view.agreements.edit(key) {
            row.view.status = status;
            row.view.revision += 1;
            row.view.approvals.truncate(row.standing as usize);
            row.renewal = None;
        }
    }

    /// Takes bounded evidence away from a version; what was being gathered is void.
    pub(super) fn suspend_bounded(&mut self, key: &AgreementKey) {
        if let Some(row) = self.view.agreements.edit(key)
            && row.view.bounded_suspended == 0
        {
            row.view.bounded_suspended = 1;
            row.view.revision += 1;
            row.view.approvals.truncate(row.standing as usize);
            row.renewal = None;
        }
    }

    /// A version that the agency is a party of, with its state.
    fn of_party(&self, agency: &AgencyId, id: &AgreementId, version: u64) -> Result<(AgreementKey, Status, Hash), u16> {
        let key = (id.clone(), version);
        let row = self.view.agreements.get(&key).ok_or(codes::NO_AGREEMENT)?;
        let terms = read_terms(&row.view.terms)?;
        if !is_party(&terms, agency) {
            return Err(codes::WRONG_AGENCY);
        }
        let found = (row.view.status, row.view.terms_hash);
        Ok((key, found.0, found.1))
    }

    /// Turns a proposal down.
    pub fn reject(&mut self, agency: &AgencyId, id: &AgreementId, version: u64, hash: &Hash) -> Result<(), u16> {
        let (key, status, terms_hash) = self.of_party(agency, id, version)?;
        must_be(status, Status::Proposed)?;
        if terms_hash != *hash {
            return Err(codes::TERMS_MISMATCH);
        }
        self.turn(&key, Status::Rejected);
        Ok(())
    }

    /// Suspends an active version at once.
    pub fn suspend(&mut self, agency: &AgencyId, id: &AgreementId, version: u64) -> Result<(), u16> {
        let (key, status, _) = self.of_party(agency, id, version)?;
        must_be(status, Status::Active)?;
        self.turn(&key, Status::Suspended);
        Ok(())
    }

    /// Ends a version for ever, at once.
    pub fn revoke(&mut self, agency: &AgencyId, id: &AgreementId, version: u64) -> Result<(), u16> {
        let (key, status, _) = self.of_party(agency, id, version)?;
        if !matches!(status, Status::Proposed | Status::Active | Status::Suspended) {
            must_be(status, Status::Active)?;
        }
        self.turn(&key, Status::Revoked);
        Ok(())
    }
}

/// The code that says which state a version is in when it should be in another.
fn must_be(status: Status, wanted: Status) -> Result<(), u16> {
    if status == wanted {
        return Ok(());
    }
    Err(match status {
        Status::Proposed => codes::NOT_YET,
        Status::Active => codes::APPROVAL,
        Status::Suspended => codes::SUSPENDED,
        Status::Revoked => codes::REVOKED,
        Status::Superseded => codes::SUPERSEDED,
        Status::Rejected => codes::NO_AGREEMENT,
    })
}
